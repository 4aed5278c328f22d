//! Who may talk to a listener, and a word in the log about those who may not.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::config::listen::AllowList;

/// Between two log lines.
const QUIET: Duration = Duration::from_secs(60);

/// Stands at one listener, owned by the thread or task that serves it. Who is turned away is
/// counted there, and logged here, at most once a minute.
#[derive(Debug)]
pub(super) struct Guard {
    allow: AllowList,
    /// For the log.
    address: String,
    said: Option<Instant>,
    /// Turned away since then.
    unsaid: u64,
}

impl Guard {
    /// Admits those in `allow` to the listener at `address`.
    pub(super) fn new(allow: AllowList, address: String) -> Guard {
        Guard { allow, address, said: None, unsaid: 0 }
    }

    /// Whether there is anybody to turn away.
    pub(super) fn is_needed(&self) -> bool {
        !self.allow.is_everyone()
    }

    /// Whether `peer` may come in.
    pub(super) fn admits(&mut self, peer: IpAddr, now: Instant) -> bool {
        let is_admitted = self.allow.admits(peer);
        if !is_admitted {
            self.turned_away(peer, now);
        }
        is_admitted
    }

    #[cold]
    fn turned_away(&mut self, peer: IpAddr, now: Instant) {
        self.unsaid += 1;
        if self.said.is_some_and(|said| now - said < QUIET) {
            return;
        }
        self.said = Some(now);
        let turned_away = std::mem::take(&mut self.unsaid);
        let (listener, source) = (&self.address, peer.to_canonical());
        warn!(listener, %source, turned_away, "not in the allow-list: turned away");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_turned_away_is_named_once_a_minute() {
        let allow = AllowList::parse("10.0.0.0/8").expect("a network");
        let mut guard = Guard::new(allow, "udp://[::]:1".to_owned());
        let start = Instant::now();
        let stranger = "::ffff:11.0.0.1".parse().expect("an address");
        let friend = "::ffff:10.0.0.1".parse().expect("an address");
        assert!(guard.is_needed() && guard.admits(friend, start));
        for (seconds, unsaid) in [(0, 0), (1, 1), (59, 2), (60, 0), (61, 1), (120, 0)] {
            assert!(!guard.admits(stranger, start + Duration::from_secs(seconds)));
            assert_eq!(guard.unsaid, unsaid, "after {seconds} s");
        }
    }
}
