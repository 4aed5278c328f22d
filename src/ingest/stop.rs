//! How listener threads learn that they are to end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Instant;

use super::sys::Event;

/// Set once, seen by every listener thread: by those that read, and by those that sleep.
#[derive(Debug)]
pub(super) struct Stop {
    deadline: OnceLock<Instant>,
    event: Event,
}

impl Stop {
    pub(super) fn new() -> io::Result<Stop> {
        Ok(Stop { deadline: OnceLock::new(), event: Event::new()? })
    }

    /// Threads are to stop reading when nothing is queued, at the latest at `deadline`.
    pub(super) fn set(&self, deadline: Instant) {
        // A second stop changes nothing.
        let _ = self.deadline.set(deadline);
        if let Err(error) = self.event.set() {
            tracing::error!(%error, "cannot wake the listener threads");
        }
    }

    /// `None` until it is set.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline.get().copied()
    }

    pub(super) fn is_set(&self) -> bool {
        self.deadline.get().is_some()
    }
}

/// Readable once it is set.
impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
