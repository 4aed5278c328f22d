//! Points in time and lengths of time, as values: whoever needs the clock passes it in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whole seconds since 1970, UTC. Negative before that (clients may send such dates).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

impl From<SystemTime> for UnixSeconds {
    fn from(at: SystemTime) -> Self {
        let seconds = |length: Duration| i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        match at.duration_since(UNIX_EPOCH) {
            Ok(after) => UnixSeconds(seconds(after)),
            Err(before) => UnixSeconds(-seconds(before.duration())),
        }
    }
}

/// The flush period. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(Duration);

impl Interval {
    /// `None` for zero.
    pub fn new(length: Duration) -> Option<Interval> {
        (!length.is_zero()).then_some(Interval(length))
    }

    /// Its length.
    pub fn length(self) -> Duration {
        self.0
    }

    /// Its length in seconds, for rates.
    pub fn as_secs_f64(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// `n` of them in a row.
    pub fn times(self, n: u32) -> Interval {
        Interval(self.0.saturating_mul(n.max(1)))
    }

    /// Whole seconds, cut: what Datadog's `interval` field holds.
    pub fn whole_seconds(self) -> u64 {
        self.0.as_secs()
    }

    /// How long from `now` to the next multiple of the interval since 1970, never zero.
    pub fn until_next_multiple(self, now: SystemTime) -> Duration {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let into = since.as_nanos() % self.0.as_nanos();
        let left = self.0.as_nanos() - into;
        Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_multiple_is_always_ahead() {
        let ten = Interval::new(Duration::from_secs(10)).expect("ten seconds are not zero");
        for (now_ms, left_ms) in [(0, 10_000), (1, 9_999), (9_999, 1), (10_000, 10_000)] {
            let now = UNIX_EPOCH + Duration::from_millis(now_ms);
            assert_eq!(ten.until_next_multiple(now), Duration::from_millis(left_ms));
        }
    }

    #[test]
    fn times_before_1970_are_negative() {
        let before = UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(UnixSeconds::from(before), UnixSeconds(-5));
    }
}
