//! Whose a socket is: ours, or also another process's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a socket that we opened, or have taken over, is ours alone.
///
/// While it is not, a predecessor or a successor reads it too, and nothing may be done to it
/// that would outlast us. Shared by the thread that serves the socket and whoever conducts a
/// takeover, during which it changes.
#[derive(Clone, Debug)]
pub struct Hold(Arc<AtomicBool>);

impl Hold {
    /// Ours: nobody else has the socket.
    pub(super) fn ours() -> Hold {
        Hold(Arc::new(AtomicBool::new(true)))
    }

    /// A predecessor's, who may go on using the socket.
    pub(super) fn predecessors() -> Hold {
        Hold(Arc::new(AtomicBool::new(false)))
    }

    /// Whether nobody else has the socket.
    pub fn is_ours(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Says whether nobody else has it.
    pub(super) fn set_ours(&self, is_ours: bool) {
        self.0.store(is_ours, Ordering::Release);
    }
}
