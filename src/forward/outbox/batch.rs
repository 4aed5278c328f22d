//! A batch, and what may become of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::forward::identity::BatchId;
use crate::forward::pack::Packed;
use crate::forward::reason::Reason;
use crate::model::UnixSeconds;
use crate::spool::RecordId;

/// A batch is halved so many times because upstream finds it too large; one that finds
/// everything too large must not be asked once for every entry.
pub(super) const MAX_HALVINGS: u32 = 6;

/// Entries that are sent together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The same for as long as it is retried.
    pub id: BatchId,
    /// Its body.
    pub packed: Packed,
    /// Where its entries come from.
    pub origin: Origin,
    pub(super) attempts: u32,
    /// Whether it may have been taken although nobody said so.
    pub(super) is_unsure: bool,
    /// What it is on disk, if it is there.
    pub(super) spooled: Option<RecordId>,
}

/// What stays the same when entries move from one batch to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The end of the interval they are of.
    pub interval_end: UnixSeconds,
    /// Since when they wait.
    pub since: Instant,
    /// How often they were in a batch that was too large.
    pub halvings: u32,
}

/// How a batch was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has been merged, now or before.
    Taken,
    /// It will never be taken.
    Refused(Reason),
    /// It might be taken in smaller parts.
    TooLarge,
    /// It may be taken later.
    Later {
        /// Whether it may have been taken already.
        is_unsure: bool,
        /// How long the member wants to be left alone.
        wait: Option<Duration>,
    },
}

/// What became of a batch.
#[derive(Debug)]
pub enum Settled {
    /// It was taken.
    Taken,
    /// It waits for the next attempt.
    Waits,
    /// It is on disk, and waits there for the next attempt.
    Returned {
        /// Whether it may have been taken.
        is_unsure: bool,
        /// Whether its member took others since it was claimed.
        fails_alone: bool,
    },
    /// It is given up.
    Lost(Lost),
    /// It is to be halved, and both halves pushed.
    TooLarge(Batch),
}

/// A batch that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// To whom it was to go.
    pub member: Arc<str>,
    /// Why it does not.
    pub reason: Reason,
    /// Its entries.
    pub entries: u64,
    /// The memory it took.
    pub bytes: u64,
}

impl Batch {
    /// One that was on disk.
    pub fn restored(
        id: BatchId,
        packed: Packed,
        origin: Origin,
        is_unsure: bool,
        spooled: RecordId,
    ) -> Batch {
        // It has been sent, or waited long enough to count as if.
        Batch { id, packed, origin, attempts: 1, is_unsure, spooled: Some(spooled) }
    }

    /// What it is on disk, if it is there.
    pub fn spooled(&self) -> Option<RecordId> {
        self.spooled
    }

    /// Whether it may have been taken although nobody said so.
    pub fn is_unsure(&self) -> bool {
        self.is_unsure
    }

    /// How often it has been sent, this time included.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Halves are other batches: nobody would know them if the whole was taken.
    pub(super) fn may_be_halved(&self) -> bool {
        !self.is_unsure && self.packed.entries() > 1 && self.origin.halvings < MAX_HALVINGS
    }
}
