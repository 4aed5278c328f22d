//! Datagrams the kernel dropped because a socket's receive buffer was full.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use super::{ListenerInfo, sys};

/// Asks the kernel how many datagrams it dropped at one socket, from any thread.
///
/// It keeps the socket open, so that the drops of the last moments can be read after a drain.
#[derive(Debug)]
pub struct DropProbe {
    info: ListenerInfo,
    socket: OwnedFd,
    /// Several may ask: a flush, and someone who looks at `/metrics`.
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// What the kernel said last; it counts modulo 2^32.
    last: u32,
    total: u64,
}

impl DropProbe {
    /// Of a predecessor's socket, what was dropped before is the predecessor's loss.
    pub(super) fn new(socket: OwnedFd, info: ListenerInfo, is_predecessors: bool) -> DropProbe {
        let before = || sys::dropped_datagrams(socket.as_fd()).unwrap_or_default();
        let last = if is_predecessors { before() } else { 0 };
        DropProbe { info, socket, seen: Mutex::new(Seen { last, total: 0 }) }
    }

    /// The socket's thread and address.
    pub fn info(&self) -> &ListenerInfo {
        &self.info
    }

    /// Datagrams dropped since the socket was bound, or taken over.
    ///
    /// # Errors
    /// The kernel does not tell (before Linux 4.12).
    pub fn dropped(&self) -> io::Result<u64> {
        let now = sys::dropped_datagrams(self.socket.as_fd())?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.total += u64::from(now.wrapping_sub(seen.last));
        seen.last = now;
        Ok(seen.total)
    }
}
