//! A worker: one thread, one inbox, one shard.

use std::convert::Infallible;
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::importer::Part;
use super::lane::{Door, Queued};
use crate::aggregate::checkpoint::Slice;
use crate::aggregate::{Aggregate, Ops, Shard, Snapshot};
use crate::model::MetricKey;

/// Batches an inbox holds: 64 full ones are 65,536 samples, milliseconds of work.
const INBOX_BATCHES: usize = 64;

/// What a worker finds in its inbox.
#[derive(Debug)]
pub enum Work {
    /// Samples to apply.
    Samples(Queued),
    /// Forwarded aggregates to merge.
    Import(Part),
    /// Give away a part of a checkpoint, which begins with it if so said.
    Checkpoint {
        /// Whether it does.
        begins: bool,
        /// The answer.
        reply: SyncSender<GivenAway>,
    },
    /// Take in what series held in a process before this one.
    Restore {
        /// Series of this worker.
        states: Vec<(MetricKey, Aggregate)>,
        /// Whether that is of an open interval, or else what they kept at the end of one.
        are_open: bool,
        /// Dropped when that is done.
        done: Sender<Infallible>,
    },
    /// Hand over everything that came before this.
    Flush(SyncSender<Drained>),
}

/// A worker's answer to a checkpoint.
#[derive(Debug)]
pub struct GivenAway {
    /// Some series.
    pub slice: Slice,
    /// How long that kept the worker, and readers from it.
    pub pause: Duration,
}

/// A worker's answer to a flush.
#[derive(Debug)]
pub struct Drained {
    /// What the shard accumulated.
    pub snapshot: Snapshot,
    /// What the worker did meanwhile.
    pub report: WorkerReport,
}

/// What a worker did since its last flush.
#[derive(Debug)]
pub struct WorkerReport {
    /// Index of the worker.
    pub worker: usize,
    /// Samples applied, without those that a mapping has left out.
    pub samples: u64,
    /// Forwarded aggregates merged.
    pub imported: u64,
    /// Time its thread spent applying and merging.
    pub busy: Duration,
    /// How long taking the snapshot kept the worker from its inbox.
    pub pause: Duration,
    /// Nanoseconds in the inbox, one value a batch.
    pub queue_ns: Histogram<u32>,
}

impl WorkerReport {
    fn new(worker: usize) -> WorkerReport {
        let queue_ns = Histogram::new_with_bounds(1_000, 60_000_000_000, 1)
            .expect("1 us to 60 s in one digit is a legal range");
        WorkerReport {
            worker,
            samples: 0,
            imported: 0,
            busy: Duration::ZERO,
            pause: Duration::ZERO,
            queue_ns,
        }
    }
}

/// A worker's shard, and what it did. The thread of that name works on it, or, where all
/// samples belong to one worker, whoever has samples and finds it free.
#[derive(Debug)]
pub struct Worker {
    shard: Shard,
    report: WorkerReport,
}

impl Worker {
    /// Worker number `index`, which owns `shard` from now on.
    pub fn new(index: usize, shard: Shard) -> Worker {
        Worker { shard, report: WorkerReport::new(index) }
    }

    /// Does what comes next.
    pub(super) fn take(&mut self, work: Work) {
        match work {
            Work::Samples(queued) => {
                let start = Instant::now();
                let waited = start.duration_since(queued.since).as_nanos();
                self.report.queue_ns.saturating_record(u64::try_from(waited).unwrap_or(u64::MAX));
                let (ops, keys) = queued.batch.parts();
                self.apply(ops, keys);
                self.report.busy += start.elapsed();
            }
            Work::Import(part) => self.import(part),
            Work::Checkpoint { begins, reply } => {
                let start = Instant::now();
                if begins {
                    self.shard.begin_checkpoint();
                }
                let slice = self.shard.take_slice();
                // Whoever asked has ended if nobody takes it.
                let _ = reply.send(GivenAway { slice, pause: start.elapsed() });
            }
            Work::Restore { states, are_open, done } => {
                for (key, held) in states {
                    match are_open {
                        true => self.shard.restore(key, held),
                        false => self.shard.restore_value(key, &held),
                    }
                }
                drop(done);
            }
            Work::Flush(reply) => {
                // A flusher that has given up waiting has logged so: nothing to do here.
                let _ = reply.send(self.drain());
            }
        }
    }

    /// Adds samples to their series; their keys are in `buffer`.
    pub(super) fn apply(&mut self, ops: &Ops, buffer: &[u8]) {
        self.shard.apply(ops, buffer);
        self.report.samples += ops.len() as u64;
    }

    fn import(&mut self, part: Part) {
        let start = Instant::now();
        let Part { entries, merged } = part;
        self.report.imported += entries.len() as u64;
        for entry in entries {
            self.shard.import(entry);
        }
        self.report.busy += start.elapsed();
        drop(merged);
    }

    fn drain(&mut self) -> Drained {
        let start = Instant::now();
        let snapshot = self.shard.take_snapshot();
        let next = WorkerReport::new(self.report.worker);
        let mut report = std::mem::replace(&mut self.report, next);
        report.samples -= snapshot.dropped.values().sum::<u64>();
        report.pause = start.elapsed();
        Drained { snapshot, report }
    }
}

/// All worker threads, seen from those who send to them.
#[derive(Debug)]
pub struct Workers {
    doors: Vec<Door>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread per shard, `worker-0` and so on.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(shards: impl IntoIterator<Item = Shard>) -> io::Result<Workers> {
        let mut workers = Workers { doors: Vec::new(), threads: Vec::new() };
        for (index, shard) in shards.into_iter().enumerate() {
            let (inbox, receiver) = sync_channel(INBOX_BATCHES);
            let worker = Arc::new(Mutex::new(Worker::new(index, shard)));
            workers.doors.push(Door { inbox, worker: Some(Arc::clone(&worker)) });
            let thread = thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || run(&worker, &receiver))?;
            workers.threads.push(thread);
        }
        if workers.doors.len() > 1 {
            // Readers that share several shards would pass their memory from core to core.
            workers.doors.iter_mut().for_each(|door| door.worker = None);
        }
        Ok(workers)
    }

    /// For readers: the ways to each worker, in the order of their indexes.
    pub fn doors(&self) -> Vec<Door> {
        self.doors.clone()
    }

    /// The way into each worker's inbox, in the order of their indexes.
    pub fn inboxes(&self) -> Vec<SyncSender<Work>> {
        self.doors.iter().map(|door| door.inbox.clone()).collect()
    }

    /// Waits until all workers have ended: call it when nobody else sends to them any more.
    pub fn join(self) {
        drop(self.doors);
        for thread in self.threads {
            // A panic in a worker has been reported by the panic hook, which ends the process.
            let _ = thread.join();
        }
    }
}

/// Works until every sender of the inbox is gone and it is empty.
fn run(worker: &Mutex<Worker>, inbox: &Receiver<Work>) {
    for work in inbox {
        worker.lock().unwrap_or_else(PoisonError::into_inner).take(work);
    }
}
