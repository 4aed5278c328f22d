//! What was not taken in time, on its way to disk and back.
//!
//! A batch that has failed, or waits for more than an interval, goes to the spool with its
//! identity; from there each member gets one at a time, oldest first, while fresh ones go
//! beside it. What surely was not taken by a member that has lost its share is parted among the
//! others, when they have nothing fresh to take; it is given up on disk first, since being
//! counted twice is worse than being lost with the process.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Client, Done, Of};
use crate::forward::outbox::{Errand, Lost, Settled};
use crate::forward::reason::Reason;
use crate::forward::stored::{self, Stored};
use crate::forward::transport::Transport;
use crate::spool::{self, Claimed, RecordId, Spool, Which};

/// What was lost is looked for so often when nothing else happens.
const LOOK: Duration = Duration::from_secs(1);
/// To write what is left to disk there is at least so long.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Backlog {
    pub(super) spool: Spool,
    /// Whether a batch is being claimed to be parted among other members.
    is_moving: bool,
    /// Claims under way.
    claims: usize,
}

impl Backlog {
    pub(super) fn new(spool: Spool) -> Backlog {
        Backlog { spool, is_moving: false, claims: 0 }
    }
}

/// What a claim brought.
pub(super) struct Claim {
    member: Arc<str>,
    claimed: Option<Claimed>,
    /// Whether the member's place for it is taken.
    has_place: bool,
    /// Whether it is bound to its member, or to be moved.
    is_bound: bool,
    is_move: bool,
}

impl<T: Transport> Client<T> {
    /// Puts on disk what is due, and claims what can be sent now. Returns when to look again.
    pub(super) fn tend_backlog(
        &mut self,
        now: std::time::Instant,
        is_draining: bool,
    ) -> Option<Instant> {
        let spool = self.backlog.as_ref()?.spool.clone();
        let lost = spool.take_lost();
        self.lose_spooled(lost);
        for (member, batch, remembers) in
            self.outbox.take_due(now, false, |bytes| spool.has_room(bytes))
        {
            let format = self.encoder.format;
            let record = stored::record_of(&member, &batch, remembers, format, &spool);
            spool.put(record, batch.is_unsure());
        }
        let lanes = spool.lanes();
        self.outbox.note_backlog(&lanes);
        if is_draining || self.outbox.ring().members().is_empty() {
            return None;
        }
        let mut look = (!spool.is_empty()).then(|| Instant::now() + LOOK);
        for member in lanes {
            self.claim(&member, &spool, now);
            let rests = self.outbox.rests_until(&member, now).map(Instant::from_std);
            look = [look, rests].into_iter().flatten().min();
        }
        look
    }

    fn claim(&mut self, member: &Arc<str>, spool: &Spool, now: std::time::Instant) {
        let may_move = !self.outbox.has_share(member)
            && self.encoding == 0
            && !self.outbox.has_waiting()
            && self.backlog.as_ref().is_some_and(|backlog| !backlog.is_moving);
        // Without an address it would fail at once, again and again.
        let has_place = self.peers.contains_key(member) && self.outbox.take_place(member, now);
        if !may_move && !has_place {
            return;
        }
        if let Some(backlog) = &mut self.backlog {
            backlog.is_moving |= may_move;
            backlog.claims += 1;
        }
        let (member, spool) = (Arc::clone(member), spool.clone());
        self.work.spawn(async move {
            let mut claim =
                Claim { member, claimed: None, has_place, is_bound: false, is_move: may_move };
            if may_move {
                claim.claimed = spool.claim(&claim.member, Which::Sure).await;
            }
            if claim.claimed.is_none() && has_place {
                claim.is_bound = true;
                claim.claimed = spool.claim(&claim.member, Which::Bound).await;
            }
            Done::Claimed(claim)
        });
    }

    pub(super) fn take_claimed(&mut self, claim: Claim) {
        let Claim { member, claimed, has_place, is_bound, is_move } = claim;
        let Some(backlog) = &mut self.backlog else { return };
        backlog.is_moving &= !is_move;
        backlog.claims -= 1;
        let spool = backlog.spool.clone();
        let sends = is_bound && claimed.is_some();
        if has_place && !sends {
            self.outbox.yield_place(&member);
        }
        let Some(claimed) = claimed else { return };
        let (id, was_unsure) = (claimed.id, claimed.is_unsure);
        if *self.stop.borrow() || (!is_bound && self.outbox.has_share(&member)) {
            if sends {
                self.outbox.yield_place(&member);
            }
            return spool.release(id, was_unsure, false);
        }
        let (items, bytes) = (claimed.record.items, claimed.record.body.len() as u64);
        let stored = stored::batch_of(claimed, self.encoder.format, &spool);
        let Some(Stored { mut batch, remembers }) = stored else {
            // It was written for an upstream of another kind.
            if sends {
                self.outbox.yield_place(&member);
            }
            spool.finish(id);
            let reason = Reason::Unsupported;
            return self.books.lost(&[Lost { member, reason, entries: items, bytes }]);
        };
        if !is_bound {
            spool.finish(id);
            return self
                .start(Of::Batches, items, move |encoder, ring| encoder.regroup(&[batch], ring));
        }
        match self.outbox.adopt(&member, &mut batch, remembers) {
            None => self.run_errand(Errand::Post(member, batch)),
            Some(lost) => {
                spool.finish(id);
                self.books.lost(&[lost]);
            }
        }
    }

    /// Whether a claim is under way.
    pub(super) fn is_claiming(&self) -> bool {
        self.backlog.as_ref().is_some_and(|backlog| backlog.claims > 0)
    }

    /// Says on disk what became of a batch from there.
    pub(super) fn settle_spooled(&self, id: Option<RecordId>, settled: &Settled) {
        let Some((backlog, id)) = self.backlog.as_ref().zip(id) else { return };
        match *settled {
            Settled::Returned { is_unsure, fails_alone } => {
                backlog.spool.release(id, is_unsure, fails_alone);
            }
            Settled::Taken | Settled::Waits | Settled::Lost(_) | Settled::TooLarge(_) => {
                backlog.spool.finish(id);
            }
        }
    }

    /// Puts everything that waits on disk.
    pub(super) fn spool_all(&mut self) {
        let Some(backlog) = &self.backlog else { return };
        let now = Instant::now().into_std();
        for (member, batch, remembers) in self.outbox.take_due(now, true, |_| true) {
            let format = self.encoder.format;
            let record = stored::record_of(&member, &batch, remembers, format, &backlog.spool);
            backlog.spool.put(record, batch.is_unsure());
        }
    }

    /// The end: what is not on disk by then is lost.
    pub(super) async fn close_backlog(&mut self) {
        let Some(backlog) = &self.backlog else { return };
        let lost = backlog.spool.close(self.times.drain.max(WRITE_WITHIN)).await;
        self.lose_spooled(lost);
    }

    fn lose_spooled(&self, lost: Vec<spool::Lost>) {
        for spool::Lost { cause, lane, items, bytes, .. } in lost {
            let reason = Reason::from(cause);
            self.books.lost(&[Lost { member: lane, reason, entries: items, bytes }]);
        }
    }
}
