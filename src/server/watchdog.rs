//! Ends the process if flushes stop: a daemon that takes in and gives nothing out is worse than
//! one that is started anew.

use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;

use tracing::error;

use crate::model::Interval;
use crate::telemetry::logging::{AT_THE_END, Logs};

/// Counts intervals in which no flush was completed.
#[derive(Debug)]
struct Watch {
    limit: u32,
    last: u64,
    missed: u32,
}

impl Watch {
    /// Whether the limit is reached, told once per interval how many flushes were completed.
    fn is_overdue(&mut self, completed: u64) -> bool {
        self.missed = if completed == self.last { self.missed + 1 } else { 0 };
        self.last = completed;
        self.missed >= self.limit
    }
}

/// A running watchdog; it stops when this is dropped.
#[derive(Debug)]
pub(super) struct Watchdog(
    #[expect(dead_code, reason = "dropping it tells the thread")] SyncSender<()>,
);

/// Aborts the process when `missed` intervals have passed without a completed flush.
///
/// It has a thread of its own, so that nothing it watches can hold it up.
pub(super) fn start(
    completed: Arc<AtomicU64>,
    period: Interval,
    missed: NonZeroU32,
    logs: Logs,
) -> io::Result<Watchdog> {
    let (alive, stopped) = sync_channel::<()>(0);
    let mut watch = Watch { limit: missed.get(), last: 0, missed: 0 };
    thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        // Half an interval late, so that a flush on time is always seen.
        let mut wait = period.length() * 3 / 2;
        while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            wait = period.length();
            if watch.is_overdue(completed.load(Ordering::Relaxed)) {
                error!(intervals = missed, "no flush was completed for too long: aborting");
                logs.flush(AT_THE_END);
                std::process::abort();
            }
        }
    })?;
    Ok(Watchdog(alive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_waits_for_as_many_intervals_as_it_is_told() {
        let mut watch = Watch { limit: 2, last: 0, missed: 0 };
        let overdue = [1, 1, 2, 2, 2].map(|completed| watch.is_overdue(completed));
        assert_eq!(overdue, [false, false, false, false, true]);
    }
}
