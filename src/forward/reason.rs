//! Why entries were not forwarded.

use std::fmt;

use crate::spool::Cause;

/// Why entries were not forwarded: the `reason:` tag of our own metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Upstream answered with this HTTP status, and will not change its mind.
    Status(u16),
    /// One entry alone is more than upstream takes, or than a body may be.
    TooLarge,
    /// Upstream may have taken them, did not say so, and would count them twice.
    Unanswered,
    /// They were the oldest when the memory for waiting ones was full.
    QueueFull,
    /// They had waited for too long.
    QueueAge,
    /// The format has no way to say it.
    Unsupported,
    /// Encoding or compressing failed.
    Encode,
    /// Encoding could not keep up with the flushes.
    Busy,
    /// They were the oldest when their share of the disk was full.
    SpoolFull,
    /// They were damaged on disk.
    SpoolCorrupt,
    /// They were still waiting when the process ended.
    Shutdown,
}

impl From<Cause> for Reason {
    fn from(cause: Cause) -> Reason {
        match cause {
            Cause::SpoolFull => Reason::SpoolFull,
            Cause::MemoryFull => Reason::QueueFull,
            Cause::Age => Reason::QueueAge,
            Cause::Unreadable => Reason::SpoolCorrupt,
            Cause::Stopped => Reason::Shutdown,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Status(status) => return write!(f, "{status}"),
            Reason::TooLarge => "too_large",
            Reason::Unanswered => "unanswered",
            Reason::QueueFull => "queue_full",
            Reason::QueueAge => "queue_age",
            Reason::Unsupported => "unsupported",
            Reason::Encode => "encode",
            Reason::Busy => "busy",
            Reason::SpoolFull => "spool_full",
            Reason::SpoolCorrupt => "spool_corrupt",
            Reason::Shutdown => "shutdown",
        })
    }
}
