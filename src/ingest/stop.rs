//! How listener threads learn that they are to end.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Set once, seen by every listener thread: by those that read, and by those that sleep.
#[derive(Debug)]
pub(super) struct Stop {
    ending: OnceLock<Ending>,
    /// Has a byte to read once set, which nobody takes: it wakes all who wait.
    reader: PipeReader,
    writer: PipeWriter,
}

#[derive(Clone, Copy, Debug)]
struct Ending {
    since: Instant,
    deadline: Instant,
}

impl Stop {
    pub(super) fn new() -> io::Result<Stop> {
        let (reader, writer) = io::pipe()?;
        Ok(Stop { ending: OnceLock::new(), reader, writer })
    }

    /// Threads are to stop reading when nothing is queued, at the latest when `within` is over.
    pub(super) fn set(&self, since: Instant, within: Duration) {
        if self.ending.set(Ending { since, deadline: since + within }).is_err() {
            return;
        }
        if let Err(error) = (&self.writer).write_all(b"!") {
            tracing::error!(%error, "cannot wake the listener threads");
        }
    }

    /// `None` until it is set.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.ending.get().map(|ending| ending.deadline)
    }

    /// The deadline of those for whom, however much comes, `most` is enough.
    pub(super) fn deadline_within(&self, most: Duration) -> Option<Instant> {
        self.ending.get().map(|ending| ending.deadline.min(ending.since + most))
    }

    pub(super) fn is_set(&self) -> bool {
        self.ending.get().is_some()
    }

    /// A pipe of one's own that is readable once this is set.
    pub(super) fn pipe(&self) -> io::Result<OwnedFd> {
        Ok(self.reader.try_clone()?.into())
    }
}

/// Readable once it is set.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
