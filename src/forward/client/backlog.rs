//! Doing what [`crate::forward::backlog`] says: claims wait for the disk, so they are tasks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Client, Done, Of};
use crate::forward::backlog::{Backlog, Brought, Step, Wish};
use crate::forward::outbox::{Batch, Errand, Lost, Settled};
use crate::forward::reason::Reason;
use crate::forward::transport::Transport;
use crate::spool::{self, RecordId, Spool, Which};

/// What was lost is looked for so often when nothing else happens.
const LOOK: Duration = Duration::from_secs(1);
/// To write what is left to disk there is at least so long.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// The spool, and what is decided about it.
pub(super) struct Depot {
    pub(super) spool: Spool,
    pub(super) backlog: Backlog,
}

impl<T: Transport> Client<T> {
    /// Puts on disk what is due, and claims what can be sent now. Returns when to look again.
    pub(super) fn tend_backlog(
        &mut self,
        now: std::time::Instant,
        is_draining: bool,
    ) -> Option<Instant> {
        let depot = self.depot.as_mut()?;
        let spool = depot.spool.clone();
        depot.backlog.put_due(&mut self.outbox, &spool, now, false);
        self.lose_spooled(spool.take_lost());
        let lanes = spool.lanes();
        self.outbox.note_backlog(&lanes);
        if is_draining {
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
        let (has_address, may_part) = (self.peers.contains_key(member), self.encoding == 0);
        let Some(depot) = &mut self.depot else { return };
        let wish = depot.backlog.wish(&mut self.outbox, member, now, has_address, may_part);
        let Some(wish) = wish else { return };
        let spool = spool.clone();
        self.work.spawn(async move {
            let brought = bring(&spool, &wish).await;
            Done::Claimed(wish, brought)
        });
    }

    pub(super) fn take_claimed(&mut self, wish: Wish, brought: Brought) {
        let Some(Depot { spool, backlog }) = &mut self.depot else { return };
        match backlog.take_in(&mut self.outbox, spool, wish, brought) {
            Step::Nothing => {}
            Step::Send(member, batch) => self.run_errand(Errand::Post(member, batch)),
            Step::Part(batch) => {
                let entries = batch.packed.entries();
                self.start(Of::Batches, entries, move |encoder, ring| {
                    encoder.regroup(&[batch], ring)
                });
            }
            Step::Lose(lost) => self.books.lost(&[lost]),
        }
    }

    /// Says on disk what became of a batch from there. Gives back what is to be done with it
    /// now.
    pub(super) fn settle_spooled(
        &mut self,
        id: Option<RecordId>,
        member: &Arc<str>,
        settled: Settled,
    ) -> Option<Settled> {
        let Some((Depot { spool, backlog }, id)) = self.depot.as_mut().zip(id) else {
            return Some(settled);
        };
        match (backlog.settled(spool, id, &settled), settled) {
            (true, Settled::TooLarge(batch)) => {
                let (spool, member) = (spool.clone(), Arc::clone(member));
                self.work.spawn(async move {
                    let batch = spool.withdraw(id).await.then_some(batch);
                    Done::Withdrawn(member, batch)
                });
                None
            }
            (_, settled) => Some(settled),
        }
    }

    pub(super) fn take_withdrawn(&mut self, member: Arc<str>, batch: Option<Batch>) {
        self.depot.iter_mut().for_each(|depot| depot.backlog.withdrawn());
        if let Some(batch) = batch {
            let entries = batch.packed.entries();
            self.start(Of::Batches, entries, move |encoder, _| encoder.halve(&member, &batch));
        }
    }

    /// Whether the disk is waited for.
    pub(super) fn is_claiming(&self) -> bool {
        self.depot.as_ref().is_some_and(|depot| depot.backlog.is_busy())
    }

    /// Puts everything that waits on disk.
    pub(super) fn spool_all(&mut self) {
        if let Some(Depot { spool, backlog }) = &self.depot {
            backlog.put_due(&mut self.outbox, spool, Instant::now().into_std(), true);
        }
    }

    /// The end: what is not on disk by then is lost.
    pub(super) async fn close_backlog(&mut self) {
        let Some(depot) = &self.depot else { return };
        let lost = depot.spool.close(self.times.drain.max(WRITE_WITHIN)).await;
        self.lose_spooled(lost);
    }

    fn lose_spooled(&self, lost: Vec<spool::Lost>) {
        for spool::Lost { cause, lane, items, bytes, .. } in lost {
            let reason = Reason::from(cause);
            self.books.lost(&[Lost { member: lane, reason, entries: items, bytes }]);
        }
    }
}

/// Gets what a wish is about.
async fn bring(spool: &Spool, wish: &Wish) -> Brought {
    if wish.may_move
        && let Some(claimed) = spool.claim(&wish.member, Which::Sure).await
        && spool.withdraw(claimed.id).await
    {
        return Brought::Withdrawn(claimed);
    }
    if wish.may_send
        && let Some(claimed) = spool.claim(&wish.member, Which::Bound).await
    {
        return Brought::Bound(claimed);
    }
    Brought::Nothing
}
