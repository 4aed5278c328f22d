//! Whether an upstream node works, and how long to leave it alone when it does not.
//!
//! Pure: time and chance are arguments.
//!
//! ```text
//!            a batch is taken                  it has failed for long, and another works
//!        ┌──────────────────────┐             ┌───────────────────────────────►┐
//!      works ──► fails, rests, is tried, ... ─┘                 out of the ring: rests, is tried
//!        ▲               ▲                                                     │
//!        │               └──── in again, on trial ◄──── a probe is answered ───┤
//!        └──────────────────────────────────────────────── a batch is taken ───┘
//! ```

use std::time::{Duration, Instant};

use crate::net::backoff;

/// No node may ask to be left alone for longer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// What is known of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    /// The first failure since a batch was taken.
    failing_since: Option<Instant>,
    /// The last one.
    failed_at: Option<Instant>,
    /// In a row.
    failures: u32,
    rests_until: Option<Instant>,
    is_out: bool,
}

impl Health {
    /// Whether the last thing heard of it was a failure.
    pub(super) fn is_failing(&self) -> bool {
        self.failing_since.is_some()
    }

    /// Whether it has lost its share.
    pub(super) fn is_out(&self) -> bool {
        self.is_out
    }

    /// Until when it is to be left alone, if that is after `now`.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|&until| until > now)
    }

    /// When it has failed for `failover_after`.
    pub(super) fn is_overdue_at(&self, failover_after: Duration) -> Option<Instant> {
        self.failing_since.map(|since| since + failover_after)
    }

    /// It took a batch.
    pub(super) fn took_a_batch(&mut self) {
        *self = Health::default();
    }

    /// It answered a probe: it is in again, and out at the next failure.
    pub(super) fn answered_a_probe(&mut self) {
        self.is_out = false;
        self.rests_until = None;
        self.failures = 0;
    }

    /// It lost its share.
    pub(super) fn leave(&mut self) {
        self.is_out = true;
    }

    /// A request that was `started` failed, and tells nothing of its own about when to come
    /// back: for instance a batch it will never take.
    pub(super) fn refused_a_batch(&mut self, now: Instant) {
        self.failing_since.get_or_insert(now);
        self.failed_at = Some(now);
    }

    /// A request that was `started` failed: it is left alone for a while, and for at least as
    /// long as it `asked`. `chance` is in `0.0..1.0`.
    pub(super) fn failed(
        &mut self,
        started: Instant,
        now: Instant,
        asked: Option<Duration>,
        chance: f64,
    ) {
        self.failing_since.get_or_insert(now);
        // Requests that were under way together fail for one reason: that is one failure.
        let is_another = self.failed_at.is_none_or(|before| started >= before);
        if is_another {
            self.failures += 1;
        }
        self.failed_at = Some(now);
        let wait = backoff(self.failures - 1, chance);
        let until = now + wait.max(asked.unwrap_or_default().min(LONGEST_RETRY_AFTER));
        self.rests_until = self.rests_until.max(Some(until));
    }

    /// It may be tried at once.
    pub(super) fn wake(&mut self) {
        self.rests_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_node_rests_longer_with_each_failure_and_works_again_at_once() {
        let start = Instant::now();
        let mut health = Health::default();
        for (failure, rest) in [(0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0), (10, 30.0)] {
            let mut health = Health { failures: failure, ..Health::default() };
            health.failed(start, start, None, 1.0);
            assert_eq!(health.rests_until(start), Some(start + Duration::from_secs_f64(rest)));
        }
        health.failed(start, start, None, 1.0);
        assert!(health.is_failing());
        health.took_a_batch();
        assert!(!health.is_failing());
        assert_eq!(health.rests_until(start), None);
    }

    #[test]
    fn requests_that_fail_together_are_one_failure() {
        let start = Instant::now();
        let mut health = Health::default();
        for n in 1..=4 {
            health.failed(start, start + n * SECOND / 100, None, 1.0);
        }
        assert_eq!(health.failures, 1);
        health.failed(start + SECOND, start + SECOND, None, 1.0);
        assert_eq!(health.failures, 2);
    }

    #[test]
    fn a_node_is_left_alone_for_as_long_as_it_asks_within_reason() {
        let now = Instant::now();
        for (asked, rest) in [(7, 7), (100_000, 300)] {
            let mut health = Health::default();
            health.failed(now, now, Some(Duration::from_secs(asked)), 0.0);
            assert_eq!(health.rests_until(now), Some(now + Duration::from_secs(rest)));
        }
    }

    #[test]
    fn a_node_that_answers_a_probe_is_still_on_trial() {
        let start = Instant::now();
        let mut health = Health::default();
        health.failed(start, start, None, 0.5);
        health.leave();
        assert!(health.is_out());
        health.answered_a_probe();
        assert!(!health.is_out());
        assert_eq!(health.is_overdue_at(SECOND), Some(start + SECOND));
        health.took_a_batch();
        assert_eq!(health.is_overdue_at(SECOND), None);
    }
}
