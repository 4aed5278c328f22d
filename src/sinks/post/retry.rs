//! Whether a request is sent again, and when. Pure: time and chance are arguments.

use std::time::Duration;

use crate::net::{self, Outcome};
use crate::sinks::Reason;

/// With less than this left before the deadline, a request is not worth sending again.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(100);

impl Reason {
    /// Why what was sent is lost if it is not sent again. `None` for [`Outcome::Taken`].
    pub(super) fn of(outcome: &Outcome) -> Option<Reason> {
        match outcome {
            Outcome::Taken => None,
            Outcome::Refused { status: 413, .. } => Some(Reason::TooLarge),
            Outcome::Refused { status, .. } => Some(Reason::Status(*status)),
            Outcome::TimedOut => Some(Reason::Timeout),
            Outcome::Unreachable(_) | Outcome::Failed(_) => Some(Reason::Io),
        }
    }
}

/// What becomes of a request that was kept after it has been sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// It was taken.
    Taken,
    /// It is sent again.
    Again,
    /// It will never be taken.
    Never(Reason),
}

/// What becomes of a request that was kept.
pub fn of_kept(outcome: &Outcome) -> Later {
    match Reason::of(outcome) {
        None => Later::Taken,
        Some(_) if outcome.is_retryable() => Later::Again,
        Some(reason) => Later::Never(reason),
    }
}

/// How long the other side is left alone after so many failures in a row, `failures` counting
/// from 0: [`net::backoff`], and as long as it asks for, within reason. `jitter` is in `0.0..1.0`.
pub fn rest(failures: u32, outcome: &Outcome, jitter: f64) -> Duration {
    let asked = outcome.retry_after().unwrap_or_default().min(net::LONGEST_RETRY_AFTER);
    net::backoff(failures, jitter).max(asked)
}

/// How long to wait before sending again; `None` is not at all.
///
/// Exponential backoff with full jitter ([`net::backoff`]), within half of what remains before
/// the deadline, so that there is always time left to use. A `Retry-After` is the least to wait; one beyond the deadline means giving up, since
/// coming earlier would be against the other side's word.
///
/// `attempt` counts from 0; `jitter` is in `0.0..1.0`.
pub fn next_delay(
    attempt: u32,
    outcome: &Outcome,
    remaining: Duration,
    jitter: f64,
) -> Option<Duration> {
    if !outcome.is_retryable() {
        return None;
    }
    let delay = net::longest_wait(attempt).min(remaining / 2).mul_f64(jitter);
    let delay = delay.max(outcome.retry_after().unwrap_or_default());
    (delay.saturating_add(SHORTEST_ATTEMPT) <= remaining).then_some(delay)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn refused(status: u16, retry_after: Option<u64>) -> Outcome {
        let retry_after = retry_after.map(Duration::from_secs);
        Outcome::Refused { status, retry_after, answer: String::new() }
    }

    #[test]
    fn a_request_is_sent_again_only_after() {
        for (outcome, again) in [
            (Outcome::Taken, false),
            (refused(301, None), false),
            (refused(400, None), false),
            (refused(403, None), false),
            (refused(404, None), false),
            (refused(408, None), true),
            (refused(413, None), false),
            (refused(429, None), true),
            (refused(500, None), true),
            (refused(503, None), true),
            (Outcome::TimedOut, true),
            (Outcome::Unreachable("connection refused".into()), true),
            (Outcome::Failed("connection reset".into()), true),
        ] {
            assert_eq!(next_delay(0, &outcome, MINUTE, 0.5).is_some(), again, "{outcome:?}");
        }
    }

    #[test]
    fn the_wait_doubles_up_to_a_limit_and_half_of_what_remains() {
        let ms = Duration::from_millis;
        for (attempt, remaining, longest) in [
            (0, MINUTE, ms(500)),
            (1, MINUTE, ms(1_000)),
            (4, MINUTE, ms(8_000)),
            (40, MINUTE, ms(30_000)),
            (40, 10 * MINUTE, ms(30_000)),
            (3, ms(2_000), ms(1_000)),
        ] {
            let wait = |jitter| next_delay(attempt, &Outcome::TimedOut, remaining, jitter);
            assert_eq!(wait(1.0), Some(longest), "attempt {attempt}");
            assert_eq!(wait(0.5), Some(longest / 2), "attempt {attempt}");
            assert_eq!(wait(0.0), Some(Duration::ZERO), "attempt {attempt}");
        }
    }

    #[test]
    fn a_retry_after_is_kept_or_given_up_on() {
        for (asked, remaining, wait) in [
            (3, 10, Some(3)),
            (0, 10, Some(0)),
            (10, 10, None),
            (3_600, 10, None),
            (u64::MAX, 10, None),
        ] {
            let remaining = Duration::from_secs(remaining);
            let waits = next_delay(0, &refused(429, Some(asked)), remaining, 0.0);
            assert_eq!(waits, wait.map(Duration::from_secs), "asked for {asked} s");
        }
    }

    proptest! {
        /// A retry always has time left before the deadline.
        #[test]
        fn no_wait_passes_the_deadline(
            attempt in 0u32..100,
            remaining_ms in 0u64..1_000_000,
            asked in proptest::option::of(0u64..1_000),
            jitter in 0.0f64..1.0,
        ) {
            let remaining = Duration::from_millis(remaining_ms);
            if let Some(wait) = next_delay(attempt, &refused(503, asked), remaining, jitter) {
                prop_assert!(wait < remaining);
            }
        }
    }
}
