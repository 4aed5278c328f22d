//! Ends the process if flushes stop: a daemon that takes in and gives nothing out is worse than
//! one that is started anew.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::{MissedTickBehavior, interval};
use tracing::error;

use crate::model::Interval;

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
        self.missed > self.limit
    }
}

/// Aborts the process when `missed` intervals have passed without a completed flush.
pub(super) async fn watch(completed: Arc<AtomicU64>, period: Interval, missed: NonZeroU32) {
    let mut watch = Watch { limit: missed.get(), last: 0, missed: 0 };
    let mut ticks = interval(period.length());
    // After the machine slept, missed ticks must not come all at once.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if watch.is_overdue(completed.load(Ordering::Relaxed)) {
            error!(intervals = missed, "no flush was completed for too long: aborting");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_waits_for_as_many_intervals_as_it_is_told() {
        let mut watch = Watch { limit: 2, last: 0, missed: 0 };
        let overdue = [0, 0, 1, 1, 1, 1].map(|completed| watch.is_overdue(completed));
        assert_eq!(overdue, [false, false, false, false, false, true]);
    }
}
