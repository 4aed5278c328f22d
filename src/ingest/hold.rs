//! Whose a socket is: ours, or also another process's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const OURS: u8 = 0;
const SHARED: u8 = 1;
const GIVEN: u8 = 2;

/// Whether a socket that we opened, or have taken over, is ours alone.
///
/// While it is not, a predecessor or a successor reads it too, and nothing may be done to it
/// that would outlast us. Shared by the thread that serves the socket and whoever conducts a
/// takeover, during which it changes.
#[derive(Clone, Debug)]
pub struct Hold(Arc<AtomicU8>);

impl Hold {
    /// Ours: nobody else has the socket.
    pub(super) fn ours() -> Hold {
        Hold(Arc::new(AtomicU8::new(OURS)))
    }

    /// A predecessor's, who may go on using the socket.
    pub(super) fn predecessors() -> Hold {
        Hold(Arc::new(AtomicU8::new(SHARED)))
    }

    /// Whether nobody else has the socket.
    pub fn is_ours(&self) -> bool {
        self.0.load(Ordering::Acquire) == OURS
    }

    /// Whether it is a successor's, who has said to be ready.
    pub(super) fn is_given(&self) -> bool {
        self.0.load(Ordering::Acquire) == GIVEN
    }

    /// Nobody else has it.
    pub(super) fn keep(&self) {
        self.0.store(OURS, Ordering::Release);
    }

    /// Somebody else has it, too, who may turn out to be no successor.
    pub(super) fn lend(&self) {
        self.0.store(SHARED, Ordering::Release);
    }

    /// A successor has it.
    pub(super) fn give(&self) {
        self.0.store(GIVEN, Ordering::Release);
    }
}
