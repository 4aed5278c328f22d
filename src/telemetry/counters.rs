//! Counts kept by the threads of the hot path.
//!
//! Each thread is the only writer of its own struct, so adding is a load and a store, never a
//! locked instruction; the flush and `/metrics` read them all. A thread counts in locals and
//! adds once per batch.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only grows, with one writer and many readers.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds `n`. Only the one owning thread may call this.
    pub fn add(&self, n: u64) {
        // A load and a store instead of fetch_add: there is no second writer to race with.
        let now = self.0.load(Ordering::Relaxed);
        self.0.store(now.wrapping_add(n), Ordering::Relaxed);
    }

    /// What has been counted since the start.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
