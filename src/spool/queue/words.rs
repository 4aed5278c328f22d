//! What a queue is asked, and what it answers.

use std::sync::Arc;

use bytes::Bytes;

use crate::spool::segment::{Record, State};
use crate::spool::store::Location;

/// The bounds of a queue. Those of the disk are the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Of records that are not on disk.
    pub memory_bytes: usize,
    /// A record may wait this long.
    pub max_age_ms: u64,
}

/// What names a record for as long as the process lives. Ordered by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    pub(super) since_ms: u64,
    pub(super) number: u64,
}

/// A record that its claimer delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// To say what became of it.
    pub id: RecordId,
    /// What it is.
    pub record: Record,
    /// Whether it may have been taken before.
    pub is_unsure: bool,
}

/// What a claim gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nothing that could be delivered now.
    Nothing,
    /// A record.
    Ready(Claimed),
    /// A record that is being read: it comes as [`Event`].
    Reading(RecordId),
}

/// Which records of a lane a claim is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Any.
    Any,
    /// Any; from now on it may have been taken.
    Bound,
    /// One that surely was not taken.
    Sure,
}

/// Why a record is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It was the oldest when the disk's share was full.
    SpoolFull,
    /// It was the oldest when memory was full, and the disk did not take it.
    MemoryFull,
    /// It had waited for too long.
    Age,
    /// It could not be read again.
    Unreadable,
    /// It was in memory when the process ended.
    Stopped,
}

impl Cause {
    /// The `reason:` tag of our own metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::SpoolFull => "spool_full",
            Cause::MemoryFull => "queue_full",
            Cause::Age => "queue_age",
            Cause::Unreadable => "spool_corrupt",
            Cause::Stopped => "stopped",
        }
    }
}

/// A record that is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Why.
    pub cause: Cause,
    /// As in [`Record`].
    pub kind: u8,
    /// As in [`Record`].
    pub lane: Arc<str>,
    /// As in [`Record`].
    pub items: u64,
    /// Bytes of its body.
    pub bytes: u64,
}

/// Something to be done on disk.
#[derive(Debug)]
pub enum Work {
    /// The record is of no use any more.
    Erase(Location),
    /// Write down what is known of it, synced if it must last.
    Mark(Location, State),
    /// Read it, and write down first that it may have been taken, if it is to be bound.
    Read {
        /// Whose.
        id: RecordId,
        /// Where.
        location: Location,
        /// Whether it is to be bound.
        bind: bool,
    },
    /// The record leaves for good: write that down so that it lasts.
    Withdraw(RecordId, Location),
    /// Write records.
    Write(Vec<(RecordId, Record, State)>),
}

/// How work went.
#[derive(Debug)]
pub enum Done {
    /// [`Work::Erase`] or [`Work::Mark`], however it went: nothing depends on it.
    Nothing,
    /// [`Work::Read`] went well.
    Read(RecordId, Bytes),
    /// [`Work::Read`] did not: the record is lost.
    Unreadable(RecordId),
    /// [`Work::Read`] or [`Work::Withdraw`] could not write down what must last: nothing is done
    /// with the record now.
    NotMarked(RecordId),
    /// [`Work::Withdraw`] went well.
    Withdrawn(RecordId),
    /// [`Work::Write`] went well.
    Written(Vec<(RecordId, Location)>),
    /// [`Work::Write`] found no room within the bounds.
    Full(Vec<RecordId>),
    /// [`Work::Write`] failed.
    Failed(Vec<RecordId>),
}

/// What a claim or withdrawal that had to wait gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The record.
    Loaded(Claimed),
    /// Nothing after all: the record is where it was, unclaimed, or lost.
    Nothing(RecordId),
    /// The record has left.
    Withdrawn(RecordId),
}

/// What is there at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Records.
    pub records: u64,
    /// Their items.
    pub items: u64,
    /// Bytes of records that are in memory.
    pub memory_bytes: u64,
    /// When the oldest began to wait.
    pub oldest_since_ms: Option<u64>,
}
