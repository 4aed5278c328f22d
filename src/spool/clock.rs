//! Since when something waits: milliseconds since 1970 that a clock being set does not disturb.
//!
//! The wall clock is asked once, at the start, and the steady one tells what has passed since.
//! So an age is right as long as the process lives, and after a restart as far as the wall clock
//! was right at both starts.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin_ms: u64,
    started: Instant,
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock::at(SystemTime::now(), Instant::now())
    }

    fn at(wall: SystemTime, started: Instant) -> Clock {
        Clock { origin_ms: millis(wall.duration_since(UNIX_EPOCH).unwrap_or_default()), started }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.ms_at(Instant::now())
    }

    pub(super) fn ms_at(&self, at: Instant) -> u64 {
        match at.checked_duration_since(self.started) {
            Some(after) => self.origin_ms.saturating_add(millis(after)),
            None => self.origin_ms.saturating_sub(millis(self.started - at)),
        }
    }

    pub(super) fn instant_at(&self, ms: u64) -> Instant {
        let at = match ms.checked_sub(self.origin_ms) {
            Some(after) => self.started.checked_add(Duration::from_millis(after)),
            None => self.started.checked_sub(Duration::from_millis(self.origin_ms - ms)),
        };
        at.unwrap_or(self.started)
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_same_there_and_back() {
        let started = Instant::now();
        let clock = Clock::at(UNIX_EPOCH + Duration::from_secs(1000), started);
        for (ms, at) in [
            (1_000_000, started),
            (1_002_000, started + Duration::from_secs(2)),
            (999_000, started - Duration::from_secs(1)),
        ] {
            assert_eq!(clock.ms_at(at), ms);
            assert_eq!(clock.instant_at(ms), at);
        }
    }
}
