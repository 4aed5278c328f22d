//! What was not taken in time: when a batch goes to disk, who gets one from there, and what
//! becomes of it. Pure; the task that owns forwarding does what is said here.
//!
//! A batch that has failed, or waits for more than an interval, goes there with its identity.
//! From there each member gets one at a time, oldest first, while fresh ones go beside it. What
//! surely was not taken by a member that has lost its share is parted among the others, when
//! they have nothing fresh to take; it is withdrawn first, since being counted twice is worse
//! than being lost with the process.

use std::sync::Arc;
use std::time::Instant;

use super::outbox::{Batch, Lost, Outbox, Settled};
use super::reason::Reason;
use super::stored::{self, Stored};
use crate::config::settings::ForwardFormat;
use crate::spool::{Claimed, Record, RecordId, Spool};

/// What a record takes beside the memory of its batch, at most, roughly.
const RECORD_BYTES: usize = 512;

/// Where batches wait; the other implementation is the simulation's.
pub trait Shelf {
    /// Takes a record.
    fn put(&self, record: Record, is_unsure: bool);
    /// Whether a record of so many bytes has room without another being lost.
    fn has_room(&self, bytes: usize) -> bool;
    /// A claimed record is sent again, later.
    fn release(&self, id: RecordId, is_unsure: bool, fails_alone: bool);
    /// A claimed record is delivered, or will never be.
    fn finish(&self, id: RecordId);
    /// A moment as records have it.
    fn ms_at(&self, at: Instant) -> u64;
    /// The moment that records have as `ms`.
    fn instant_at(&self, ms: u64) -> Instant;
}

impl Shelf for Spool {
    fn put(&self, record: Record, is_unsure: bool) {
        Spool::put(self, record, is_unsure);
    }

    fn has_room(&self, bytes: usize) -> bool {
        Spool::has_room(self, bytes)
    }

    fn release(&self, id: RecordId, is_unsure: bool, fails_alone: bool) {
        Spool::release(self, id, is_unsure, fails_alone);
    }

    fn finish(&self, id: RecordId) {
        Spool::finish(self, id);
    }

    fn ms_at(&self, at: Instant) -> u64 {
        Spool::ms_at(self, at)
    }

    fn instant_at(&self, ms: u64) -> Instant {
        Spool::instant_at(self, ms)
    }
}

/// What goes to disk and comes back.
#[derive(Debug)]
pub struct Backlog {
    format: ForwardFormat,
    /// Whether a batch is on its way to other members.
    is_moving: bool,
    /// Wishes under way, and withdrawals.
    underway: usize,
}

/// A batch that could go somewhere now, if there is one: see [`Wish::may_move`] first.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Whose.
    pub member: Arc<str>,
    /// One that surely was not taken may be claimed ([`Which::Sure`]) and withdrawn: it goes to
    /// other members.
    ///
    /// [`Which::Sure`]: crate::spool::Which::Sure
    pub may_move: bool,
    /// If there is none of these, one may be claimed ([`Which::Bound`]): it goes to its member,
    /// whose place for it is taken.
    ///
    /// [`Which::Bound`]: crate::spool::Which::Bound
    pub may_send: bool,
}

/// What a wish brought.
#[derive(Clone, Debug)]
pub enum Brought {
    /// There is nothing.
    Nothing,
    /// It has been withdrawn.
    Withdrawn(Claimed),
    /// It is bound to its member.
    Bound(Claimed),
}

/// What is to be done with what a wish brought.
#[derive(Debug)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Send it to its member, and settle it.
    Send(Arc<str>, Batch),
    /// Part its entries among the members.
    Part(Batch),
    /// Count it as lost.
    Lose(Lost),
}

impl Backlog {
    /// Nothing yet. Bodies are in this format.
    pub fn new(format: ForwardFormat) -> Backlog {
        Backlog { format, is_moving: false, underway: 0 }
    }

    /// Puts on the shelf what is due and has room there; at the end, whatever waits.
    pub fn put_due(&self, outbox: &mut Outbox, shelf: &impl Shelf, now: Instant, is_end: bool) {
        let mut taken = 0;
        let due = outbox.take_due(now, is_end, |bytes| {
            let with_it = taken + bytes + RECORD_BYTES;
            let fits = shelf.has_room(with_it);
            taken = if fits { with_it } else { taken };
            fits
        });
        for (member, batch, remembers) in due {
            let since_ms = shelf.ms_at(batch.origin.since);
            let record = stored::record_of(&member, &batch, remembers, self.format, since_ms);
            shelf.put(record, batch.is_unsure());
        }
    }

    /// What may be done with what waits for this member. `has_address` is whether it can be
    /// reached, and `may_part` whether bodies can be parted now.
    pub fn wish(
        &mut self,
        outbox: &mut Outbox,
        member: &Arc<str>,
        now: Instant,
        has_address: bool,
        may_part: bool,
    ) -> Option<Wish> {
        if outbox.ring().members().is_empty() {
            return None;
        }
        let is_homeless = !outbox.has_share(member);
        let may_move = is_homeless && may_part && !self.is_moving && !outbox.has_waiting();
        // Without an address it would fail at once, again and again.
        let may_send = has_address && outbox.take_place(member, now);
        if !may_move && !may_send {
            return None;
        }
        self.is_moving |= may_move;
        self.underway += 1;
        Some(Wish { member: Arc::clone(member), may_move, may_send })
    }

    /// Says what is to be done with what a wish has brought.
    pub fn take_in(
        &mut self,
        outbox: &mut Outbox,
        shelf: &impl Shelf,
        wish: Wish,
        brought: Brought,
    ) -> Step {
        let Wish { member, may_move, may_send } = wish;
        self.is_moving &= !may_move;
        self.underway -= 1;
        let (claimed, is_bound) = match brought {
            Brought::Nothing => (None, false),
            Brought::Withdrawn(claimed) => (Some(claimed), false),
            Brought::Bound(claimed) => (Some(claimed), true),
        };
        if may_send && !is_bound {
            outbox.yield_place(&member);
        }
        let Some(claimed) = claimed else { return Step::Nothing };
        let id = claimed.id;
        let (entries, bytes) = (claimed.record.items, claimed.record.body.len() as u64);
        let since = shelf.instant_at(claimed.record.since_ms);
        let Some(Stored { mut batch, remembers }) = stored::batch_of(claimed, self.format, since)
        else {
            // It was written for an upstream of another kind.
            if is_bound {
                outbox.yield_place(&member);
                shelf.finish(id);
            }
            let reason = Reason::Unsupported;
            return Step::Lose(Lost { member, reason, entries, bytes });
        };
        if !is_bound {
            return Step::Part(batch);
        }
        match outbox.adopt(&member, &mut batch, remembers) {
            None => Step::Send(member, batch),
            Some(lost) => {
                shelf.finish(id);
                Step::Lose(lost)
            }
        }
    }

    /// Says on the shelf what became of a batch from there. `true` if it is to be withdrawn
    /// before its entries become other batches: say so with [`Backlog::withdrawn`].
    pub fn settled(&mut self, shelf: &impl Shelf, id: RecordId, settled: &Settled) -> bool {
        match *settled {
            Settled::Returned { is_unsure, fails_alone } => {
                shelf.release(id, is_unsure, fails_alone);
            }
            Settled::TooLarge(_) => {
                self.underway += 1;
                return true;
            }
            Settled::Taken | Settled::Waits | Settled::Lost(_) => shelf.finish(id),
        }
        false
    }

    /// A withdrawal has ended.
    pub fn withdrawn(&mut self) {
        self.underway -= 1;
    }

    /// Whether wishes or withdrawals are under way.
    pub fn is_busy(&self) -> bool {
        self.underway > 0
    }
}
