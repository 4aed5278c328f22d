//! Speaking HTTP to other machines: what the sinks and the forwarder have in common.
//!
//! What is decided is pure: time and chance are arguments.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

pub mod bearer;
pub mod http;
pub mod outcome;

pub use outcome::Outcome;

/// The longest wait before the first retry; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// No wait is longer, but for a `Retry-After`.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Nobody may ask to be left alone for longer.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The longest wait after so many failures; `attempt` counts from 0.
pub fn longest_wait(attempt: u32) -> Duration {
    FIRST_WAIT.saturating_mul(2u32.saturating_pow(attempt)).min(LONGEST_WAIT)
}

/// How long to wait after so many failures: exponential backoff with full jitter.
///
/// Uniformly between nothing and [`longest_wait`], so that a fleet that failed together does
/// not come back together. `attempt` counts from 0; `chance` is in `0.0..1.0`.
pub fn backoff(attempt: u32, chance: f64) -> Duration {
    longest_wait(attempt).mul_f64(chance)
}

/// A random number in `0.0..1.0`; good enough to spread retries.
pub fn chance() -> f64 {
    // Each `RandomState` has its own keys, so the hash of nothing is a random number.
    let bits = RandomState::new().build_hasher().finish();
    (bits >> 11) as f64 / (1u64 << 53) as f64
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

    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_limit() {
        for (attempt, longest_ms) in [(0, 500), (1, 1_000), (4, 8_000), (6, 30_000), (99, 30_000)] {
            let longest = Duration::from_millis(longest_ms);
            assert_eq!(backoff(attempt, 0.5), longest / 2, "attempt {attempt}");
            assert_eq!(backoff(attempt, 0.0), Duration::ZERO, "attempt {attempt}");
        }
    }

    #[test]
    fn chance_is_a_share() {
        assert!((0..1000).all(|_| (0.0..1.0).contains(&chance())));
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
}
