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

use crate::net::{LONGEST_RETRY_AFTER, backoff};

/// What is known of one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    /// The first failure since a batch was taken.
    failing_since: Option<Instant>,
    /// When it was last left alone.
    failed_at: Option<Instant>,
    /// How often in a row.
    failures: u32,
    rests_until: Option<Instant>,
    standing: Standing,
}

/// What a node has of the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    /// Its share.
    #[default]
    In,
    /// Its share, until the next failure.
    OnTrial,
    /// Nothing.
    Out,
}

impl Health {
    /// Whether it takes batches, as far as is known.
    pub(super) fn works(&self) -> bool {
        self.failing_since.is_none() && self.standing == Standing::In
    }

    /// Whether it has lost its share.
    pub(super) fn is_out(&self) -> bool {
        self.standing == Standing::Out
    }

    /// Until when it is to be left alone, if that is after `now`.
    pub(super) fn rests_until(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|&until| until > now)
    }

    /// When it is to lose its share, should it not take a batch before: when it has failed for
    /// `failover_after`.
    pub(super) fn leaves_at(&self, failover_after: Duration) -> Option<Instant> {
        let since = self.failing_since?;
        match self.standing {
            Standing::In => Some(since + failover_after),
            Standing::OnTrial => Some(since),
            Standing::Out => None,
        }
    }

    /// It took a batch.
    pub(super) fn took_a_batch(&mut self) {
        *self = Health::default();
    }

    /// It answered a probe: it is in again, and out at the next failure.
    pub(super) fn answered_a_probe(&mut self) {
        *self = Health { standing: Standing::OnTrial, ..Health::default() };
    }

    /// It lost its share.
    pub(super) fn leave(&mut self) {
        self.standing = Standing::Out;
    }

    /// It will never take some batch, which says nothing about when to try another.
    pub(super) fn refused_a_batch(&mut self, now: Instant) {
        self.failing_since.get_or_insert(now);
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
        assert!(!health.works());
        health.took_a_batch();
        assert!(health.works());
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
    fn a_refusal_and_a_failure_side_by_side_are_one_failure() {
        let start = Instant::now();
        let mut health = Health::default();
        health.refused_a_batch(start + SECOND);
        assert_eq!(health.rests_until(start), None);
        health.failed(start, start + SECOND, None, 1.0);
        assert_eq!(health.failures, 1);
        assert_eq!(health.leaves_at(SECOND), Some(start + 2 * SECOND));
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
    fn a_node_leaves_after_a_while_and_on_trial_at_once() {
        let start = Instant::now();
        let mut health = Health::default();
        assert_eq!(health.leaves_at(SECOND), None);
        health.failed(start, start, None, 0.5);
        assert_eq!(health.leaves_at(SECOND), Some(start + SECOND));
        health.leave();
        assert_eq!((health.is_out(), health.leaves_at(SECOND)), (true, None));
        health.answered_a_probe();
        assert_eq!((health.is_out(), health.works()), (false, false));
        assert_eq!(health.leaves_at(SECOND), None);
        health.failed(start, start, None, 0.5);
        assert_eq!(health.leaves_at(SECOND), Some(start));
        health.took_a_batch();
        assert_eq!((health.works(), health.leaves_at(SECOND)), (true, None));
    }
}
