//! A worker: one thread, one inbox, one shard.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::importer::Part;
use crate::aggregate::{Batch, Shard, Snapshot};

/// Batches an inbox holds: 64 full ones are 65,536 samples, milliseconds of work.
const INBOX_BATCHES: usize = 64;

/// What a worker finds in its inbox.
#[derive(Debug)]
pub enum Work {
    /// Samples to apply.
    Samples(Batch),
    /// Forwarded aggregates to merge.
    Import(Part),
    /// Hand over everything that came before this.
    Flush(SyncSender<Drained>),
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
    /// Samples applied.
    pub samples: u64,
    /// Forwarded aggregates merged.
    pub imported: u64,
    /// Time spent applying and merging.
    pub busy: Duration,
    /// How long taking the snapshot kept the worker from its inbox.
    pub pause: Duration,
    /// Nanoseconds from hand-over to apply, one value a batch.
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

/// A worker thread's state and loop.
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

    /// Works until every sender of the inbox is gone and it is empty.
    pub fn run(mut self, inbox: &Receiver<Work>) {
        for work in inbox {
            match work {
                Work::Samples(batch) => self.apply(&batch),
                Work::Import(part) => self.import(part),
                Work::Flush(reply) => {
                    // A flusher that has given up waiting has logged so: nothing to do here.
                    let _ = reply.send(self.drain());
                }
            }
        }
    }

    fn apply(&mut self, batch: &Batch) {
        let start = Instant::now();
        if let Some(handed_over) = batch.handed_over {
            let waited = start.saturating_duration_since(handed_over).as_nanos();
            self.report.queue_ns.saturating_record(u64::try_from(waited).unwrap_or(u64::MAX));
        }
        self.shard.apply(batch);
        self.report.samples += batch.len() as u64;
        self.report.busy += start.elapsed();
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
        report.pause = start.elapsed();
        Drained { snapshot, report }
    }
}

/// All worker threads, seen from those who send to them.
#[derive(Debug)]
pub struct Workers {
    inboxes: Vec<SyncSender<Work>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts one thread per shard, `worker-0` and so on.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(shards: impl IntoIterator<Item = Shard>) -> io::Result<Workers> {
        let mut workers = Workers { inboxes: Vec::new(), threads: Vec::new() };
        for (index, shard) in shards.into_iter().enumerate() {
            let (inbox, receiver) = sync_channel(INBOX_BATCHES);
            let worker = Worker::new(index, shard);
            let thread = thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || worker.run(&receiver))?;
            workers.inboxes.push(inbox);
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// The way into each worker's inbox, in the order of their indexes.
    pub fn inboxes(&self) -> Vec<SyncSender<Work>> {
        self.inboxes.clone()
    }

    /// Waits until all workers have ended: call it when nobody else sends to them any more.
    pub fn join(self) {
        drop(self.inboxes);
        for thread in self.threads {
            // A panic in a worker has been reported by the panic hook, which ends the process.
            let _ = thread.join();
        }
    }
}
