//! What became of one flush at one sink: nothing is dropped without a number and a reason.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::FlushBatch;
use crate::spool::Cause;

/// Why something was not delivered: the `reason:` tag of our own metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The other side answered with this HTTP status.
    Status(u16),
    /// No answer, or no turn, before the deadline.
    Timeout,
    /// Connecting, sending or writing failed.
    Io,
    /// It cannot be written in the sink's format (a rate that overflows, for one).
    Encode,
    /// One item alone is more than the other side takes.
    TooLarge,
    /// The sink was still busy with the flush before; or it was kept, and the oldest when memory
    /// was full.
    QueueFull,
    /// The sink's output was closed for good.
    Closed,
    /// The task that owns the sink has ended.
    Stopped,
    /// It was kept, and the oldest when its share of the disk was full.
    SpoolFull,
    /// It was kept for too long.
    QueueAge,
    /// It was kept on disk, and damaged there.
    SpoolCorrupt,
}

impl From<Cause> for Reason {
    fn from(cause: Cause) -> Reason {
        match cause {
            Cause::SpoolFull => Reason::SpoolFull,
            Cause::MemoryFull => Reason::QueueFull,
            Cause::Age => Reason::QueueAge,
            Cause::Unreadable => Reason::SpoolCorrupt,
            Cause::Stopped => Reason::Stopped,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Status(status) => return write!(f, "{status}"),
            Reason::Timeout => "timeout",
            Reason::Io => "io",
            Reason::Encode => "encode",
            Reason::TooLarge => "too_large",
            Reason::QueueFull => "queue_full",
            Reason::Closed => "closed",
            Reason::Stopped => "stopped",
            Reason::SpoolFull => "spool_full",
            Reason::QueueAge => "queue_age",
            Reason::SpoolCorrupt => "spool_corrupt",
        })
    }
}

/// Points, events or checks, by what became of them: `sent + skipped + kept + dropped` is
/// what was offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The other side took them.
    pub sent: u64,
    /// The sink does not take them.
    pub skipped: u64,
    /// They are delivered later: what becomes of them is counted then.
    pub kept: u64,
    dropped: BTreeMap<Reason, u64>,
}

impl Tally {
    /// None dropped so far.
    pub fn new(sent: u64, skipped: u64) -> Tally {
        Tally { sent, skipped, ..Tally::default() }
    }

    /// All of `n` dropped.
    pub fn lost(reason: Reason, n: u64) -> Tally {
        let mut tally = Tally::default();
        tally.lose(reason, n);
        tally
    }

    /// Adds `n` dropped ones.
    pub fn lose(&mut self, reason: Reason, n: u64) {
        if n > 0 {
            *self.dropped.entry(reason).or_default() += n;
        }
    }

    /// How many were dropped, for all reasons.
    pub fn dropped(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// How many were dropped for each reason.
    pub fn losses(&self) -> impl Iterator<Item = (Reason, u64)> {
        self.dropped.iter().map(|(reason, n)| (*reason, *n))
    }

    /// Everything accounted for.
    pub fn total(&self) -> u64 {
        self.sent + self.skipped + self.kept + self.dropped()
    }

    /// Adds what `part` accounts for.
    pub fn add(&mut self, part: &Tally) {
        self.sent += part.sent;
        self.skipped += part.skipped;
        self.kept += part.kept;
        for (reason, n) in part.losses() {
            self.lose(reason, n);
        }
    }
}

/// What became of one flush at one sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Of its points.
    pub points: Tally,
    /// Of its events.
    pub events: Tally,
    /// Of its service checks.
    pub checks: Tally,
    /// Of its spans.
    pub spans: Tally,
    /// What the first failure that lost something looked like, for the log. Without secrets.
    pub failure: Option<String>,
}

impl Delivered {
    /// Nothing of `batch` was delivered.
    pub fn nothing(batch: &FlushBatch, reason: Reason) -> Delivered {
        Delivered {
            points: Tally::lost(reason, batch.points.len() as u64),
            events: Tally::lost(reason, batch.events.len() as u64),
            checks: Tally::lost(reason, batch.checks.len() as u64),
            spans: Tally::lost(reason, batch.spans.len() as u64),
            failure: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_adds_up() {
        let mut tally = Tally::new(3, 2);
        tally.lose(Reason::Status(503), 1);
        tally.lose(Reason::Io, 0);
        tally.add(&Tally::lost(Reason::Status(503), 4));
        assert_eq!(tally.losses().collect::<Vec<_>>(), [(Reason::Status(503), 5)]);
        assert_eq!(tally.total(), 10);
    }
}
