//! Whether a request is sent again, and when. Pure: time and chance are arguments.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::sinks::Reason;

/// The longest wait before the first retry; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// No wait is longer, but for a `Retry-After`.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// With less than this left before the deadline, a request is not worth sending again.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(100);

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Any 2xx.
    Taken,
    /// Any other status.
    Refused {
        /// The status.
        status: u16,
        /// How long the other side asks us to stay away.
        retry_after: Option<Duration>,
        /// The beginning of its answer.
        answer: String,
    },
    /// No answer in time.
    TimedOut,
    /// Connecting, sending or receiving failed; why, without the URL.
    Failed(String),
}

impl Outcome {
    /// Why what was sent is lost if it is not sent again. `None` for [`Outcome::Taken`].
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Outcome::Taken => None,
            Outcome::Refused { status: 413, .. } => Some(Reason::TooLarge),
            Outcome::Refused { status, .. } => Some(Reason::Status(*status)),
            Outcome::TimedOut => Some(Reason::Timeout),
            Outcome::Failed(_) => Some(Reason::Io),
        }
    }

    /// The `cause:` tag of a failed request, in Veneur's words. `None` for [`Outcome::Taken`].
    pub fn cause(&self) -> Option<String> {
        match self {
            Outcome::Taken => None,
            Outcome::Refused { status, .. } => Some(status.to_string()),
            Outcome::TimedOut => Some("timeout".to_owned()),
            Outcome::Failed(_) => Some("io".to_owned()),
        }
    }

    /// Whether the same body may be taken if it is sent again within this interval: after 408,
    /// 429, 5xx and anything that kept us from getting an answer.
    pub fn is_retryable(&self) -> bool {
        match self {
            Outcome::Taken => false,
            Outcome::Refused { status, .. } => {
                matches!(status, 408 | 429) || (500..600).contains(status)
            }
            Outcome::TimedOut | Outcome::Failed(_) => true,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Taken => write!(f, "was taken"),
            Outcome::Refused { status, answer, .. } => write!(f, "answered {status}: {answer}"),
            Outcome::TimedOut => write!(f, "did not answer in time"),
            Outcome::Failed(why) => write!(f, "could not be reached: {why}"),
        }
    }
}

/// How long to wait before sending again; `None` is not at all.
///
/// Exponential backoff with full jitter: uniformly between nothing and a bound that doubles
/// with each attempt, so that a fleet that failed together does not come back together. The
/// bound is at most half of what remains before the deadline, so there is always time left to
/// use. A `Retry-After` is the least to wait; one beyond the deadline means giving up, since
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
    let bound = FIRST_WAIT.saturating_mul(2u32.saturating_pow(attempt)).min(LONGEST_WAIT);
    let delay = bound.min(remaining / 2).mul_f64(jitter);
    let asked = match outcome {
        Outcome::Refused { retry_after, .. } => retry_after.unwrap_or_default(),
        Outcome::Taken | Outcome::TimedOut | Outcome::Failed(_) => Duration::ZERO,
    };
    let delay = delay.max(asked);
    (delay.saturating_add(SHORTEST_ATTEMPT) <= remaining).then_some(delay)
}

/// Reads a `Retry-After` header: whole seconds, or an HTTP date (RFC 9110, 10.2.3). A date in
/// the past is no wait; what is neither is `None`.
pub fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(header).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

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
            (Outcome::Failed("connection refused".into()), true),
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

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000); // 14 Nov 2023 22:13:20
        for (header, wait) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Tue, 14 Nov 2023 22:13:50 GMT", Some(30)),
            ("Tue, 14 Nov 2023 22:13:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(header, now), wait.map(Duration::from_secs), "{header:?}");
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
