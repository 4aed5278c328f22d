//! What came of one request.

use std::fmt;
use std::time::Duration;

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
        /// Its answer, without the middle if it is long.
        answer: String,
    },
    /// No answer in time.
    TimedOut,
    /// No connection, so nothing was sent; why, without the URL.
    Unreachable(String),
    /// Sending or receiving failed; why, without the URL.
    Failed(String),
}

impl Outcome {
    /// The `cause:` tag of a failed request, in Veneur's words. `None` for [`Outcome::Taken`].
    pub fn cause(&self) -> Option<String> {
        match self {
            Outcome::Taken => None,
            Outcome::Refused { status, .. } => Some(status.to_string()),
            Outcome::TimedOut => Some("timeout".to_owned()),
            Outcome::Unreachable(_) | Outcome::Failed(_) => Some("io".to_owned()),
        }
    }

    /// Whether the same body may be taken if it is sent again: after 408, 429, 5xx and anything
    /// that kept us from getting an answer.
    pub fn is_retryable(&self) -> bool {
        match self {
            Outcome::Taken => false,
            Outcome::Refused { status, .. } => {
                matches!(status, 408 | 429) || (500..600).contains(status)
            }
            Outcome::TimedOut | Outcome::Unreachable(_) | Outcome::Failed(_) => true,
        }
    }

    /// How long the other side asks us to stay away.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Outcome::Refused { retry_after, .. } => *retry_after,
            Outcome::Taken | Outcome::TimedOut | Outcome::Unreachable(_) | Outcome::Failed(_) => {
                None
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Taken => write!(f, "was taken"),
            Outcome::Refused { status, answer, .. } => write!(f, "answered {status}: {answer}"),
            Outcome::TimedOut => write!(f, "did not answer in time"),
            Outcome::Unreachable(why) => write!(f, "could not be reached: {why}"),
            Outcome::Failed(why) => write!(f, "did not answer: {why}"),
        }
    }
}
