//! A reader's lane to one worker: the open batch, and the ways it can go.
//!
//! Where all samples belong to one worker, a reader adds what it has read to the shard itself
//! whenever nobody else is at it: no copy to another core, no second thread to wake. Nobody
//! ever waits for the shard this way: if it is taken (by a flush, an import, another reader),
//! samples wait in the open batch, and when that is full or old it goes to the worker's inbox
//! like everything else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::worker::{Work, Worker};
use crate::aggregate::{Batch, Ops};

/// The ways to one worker.
#[derive(Clone, Debug)]
pub struct Door {
    /// What the worker takes one after the other; waits where it is full.
    pub inbox: SyncSender<Work>,
    /// The worker itself, where readers may do its work.
    pub worker: Option<Arc<Mutex<Worker>>>,
}

impl From<SyncSender<Work>> for Door {
    fn from(inbox: SyncSender<Work>) -> Door {
        Door { inbox, worker: None }
    }
}

/// A batch in an inbox.
#[derive(Debug)]
pub struct Queued {
    /// The samples.
    pub batch: Batch,
    pub(super) since: Instant,
    _waiting: Waiting,
}

/// One of the batches of a lane that wait.
#[derive(Debug)]
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn one_more(count: &Arc<AtomicUsize>) -> Waiting {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    /// What the reader has just parsed; the keys are in what it received.
    pub(super) fresh: Ops,
    /// What must wait.
    open: Batch,
    door: Door,
    /// Batches of this lane that the worker has not applied yet.
    waiting: Arc<AtomicUsize>,
    /// Room for the next batch: as large as recent ones were, so that none has to grow.
    ops: usize,
    key_bytes: usize,
}

/// What handing over a batch has cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Price {
    /// Time spent waiting for a worker whose inbox was full.
    pub(super) blocked: Duration,
    /// Samples that could not be handed over because their worker is gone.
    pub(super) lost: u64,
}

impl Lane {
    pub(super) fn new(door: Door) -> Lane {
        Lane {
            fresh: Ops::default(),
            open: Batch::default(),
            door,
            waiting: Arc::default(),
            ops: 0,
            key_bytes: 0,
        }
    }

    /// Whether something waits.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Adds what is fresh to the shard, or has it wait: `buffer`, which its keys are in, is not
    /// needed any more.
    #[inline]
    pub(super) fn settle(&mut self, buffer: &[u8]) -> Price {
        if self.fresh.is_empty() {
            return Price::default();
        }
        let applied = self.with_worker(|worker, fresh| worker.apply(fresh, buffer));
        if !applied {
            self.open.copy_from(&self.fresh, buffer);
        }
        self.fresh.clear();
        if self.open.is_full() { self.hand_over() } else { Price::default() }
    }

    /// Adds what waits to the shard, if that is possible now; whether nothing waits any more.
    pub(super) fn retry(&mut self) -> bool {
        self.open.is_empty() || self.with_worker(|_, _| {})
    }

    /// Adds what waits to the shard and then does what comes behind it, if that is possible at
    /// once. Batches stay in order, so that the last gauge stays the last: while some wait in
    /// the inbox, it is not.
    #[inline]
    fn with_worker(&mut self, and_then: impl FnOnce(&mut Worker, &Ops)) -> bool {
        let Some(worker) = &self.door.worker else { return false };
        if self.waiting.load(Ordering::Acquire) > 0 {
            return false;
        }
        // A panic that poisoned it has ended the process.
        let Ok(mut worker) = worker.try_lock() else { return false };
        if !self.open.is_empty() {
            let (ops, keys) = self.open.parts();
            worker.apply(ops, keys);
            self.open.clear();
        }
        and_then(&mut worker, &self.fresh);
        true
    }

    /// Gives what waits to the worker, waiting while its inbox is full: what then overflows is
    /// the socket's buffer, the one place where datagrams are dropped.
    pub(super) fn hand_over(&mut self) -> Price {
        if self.retry() {
            return Price::default();
        }
        self.ops = recent_maximum(self.ops, self.open.len());
        self.key_bytes = recent_maximum(self.key_bytes, self.open.key_bytes());
        let next =
            Batch::with_capacity(self.ops.next_power_of_two(), self.key_bytes.next_power_of_two());
        let batch = std::mem::replace(&mut self.open, next);
        let samples = batch.len() as u64;
        let since = Instant::now();
        let queued = Queued { batch, since, _waiting: Waiting::one_more(&self.waiting) };
        match self.door.inbox.try_send(Work::Samples(queued)) {
            Ok(()) => Price::default(),
            Err(TrySendError::Full(work)) => {
                let taken = self.door.inbox.send(work).is_ok();
                Price { blocked: since.elapsed(), lost: if taken { 0 } else { samples } }
            }
            Err(TrySendError::Disconnected(_)) => Price { blocked: Duration::ZERO, lost: samples },
        }
    }
}

/// The largest of recent sizes: it grows at once and shrinks slowly.
fn recent_maximum(before: usize, now: usize) -> usize {
    now.max(before - before / 16)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;
    use crate::aggregate::{Aggregate, KeyHasher, OpKey, Shard};
    use crate::model::{ExtendTags, MetricKind, Role, Weight};

    /// A lane to a worker that nobody runs, the worker, and its inbox.
    fn lane() -> (Lane, Arc<Mutex<Worker>>, Receiver<Work>) {
        let shard = Shard::new(Role::Global, ExtendTags::default());
        let worker = Arc::new(Mutex::new(Worker::new(0, shard)));
        let (inbox, received) = sync_channel(8);
        let lane = Lane::new(Door { inbox, worker: Some(Arc::clone(&worker)) });
        (lane, worker, received)
    }

    /// Sets the gauge `g`.
    fn set(lane: &mut Lane, value: f64) {
        let buffer = b"g";
        let key = OpKey::of(KeyHasher::random(), buffer, MetricKind::Gauge, buffer, b"");
        lane.fresh.push(key.expect("it is short"), value.to_bits(), Weight::ONE);
        lane.settle(buffer);
    }

    fn gauge(worker: &Mutex<Worker>) -> Option<f64> {
        let (reply, answer) = sync_channel(1);
        worker.lock().expect("nobody panics").take(Work::Flush(reply));
        let snapshot = answer.recv().expect("it has answered").snapshot;
        snapshot.entries.into_iter().next().map(|(_, aggregate)| match aggregate {
            Aggregate::Gauge(value) => value,
            other => panic!("a gauge is {other:?}"),
        })
    }

    #[test]
    fn what_is_fresh_is_applied_at_once_if_nobody_is_at_the_shard() {
        let (mut lane, worker, received) = lane();
        set(&mut lane, 1.0);
        assert!(!lane.is_open());
        assert_eq!(gauge(&worker), Some(1.0));
        assert!(received.try_recv().is_err(), "nothing was handed over");
    }

    #[test]
    fn what_meets_somebody_else_waits_and_is_applied_before_what_comes_later() {
        let (mut lane, worker, _received) = lane();
        let busy = worker.lock().expect("nobody panics");
        set(&mut lane, 1.0);
        assert!(lane.is_open());
        drop(busy);
        set(&mut lane, 2.0);
        assert!(!lane.is_open());
        assert_eq!(gauge(&worker), Some(2.0));
    }

    #[test]
    fn what_is_fresh_stays_out_of_it_when_what_waits_is_tried_again() {
        let (mut lane, worker, _received) = lane();
        let busy = worker.lock().expect("nobody panics");
        set(&mut lane, 1.0);
        drop(busy);
        let key = OpKey::of(KeyHasher::random(), b"g", MetricKind::Gauge, b"g", b"");
        lane.fresh.push(key.expect("it is short"), 2f64.to_bits(), Weight::ONE);
        assert!(lane.retry());
        assert_eq!(gauge(&worker), Some(1.0));
        assert_eq!(lane.fresh.len(), 1);
    }

    #[test]
    fn nothing_overtakes_a_batch_in_the_inbox() {
        let (mut lane, worker, received) = lane();
        let busy = worker.lock().expect("nobody panics");
        set(&mut lane, 1.0);
        lane.hand_over();
        drop(busy);
        set(&mut lane, 2.0);
        assert!(lane.is_open(), "the first is not applied yet");
        worker.lock().expect("nobody panics").take(received.recv().expect("handed over"));
        assert!(lane.retry());
        assert_eq!(gauge(&worker), Some(2.0));
    }

    #[test]
    fn samples_for_a_worker_that_is_gone_are_counted() {
        let (inbox, received) = sync_channel(1);
        let mut lane = Lane::new(inbox.into());
        drop(received);
        set(&mut lane, 1.0);
        assert_eq!(lane.hand_over().lost, 1);
    }
}
