//! Forwarded aggregates on their way to the shards that own their series.
//!
//! A body is cut into parts, and of each body every inbox holds one part at most: samples wait
//! for less than a millisecond behind an import, whatever its size. A part goes down the same
//! inbox as samples and the flush, so what is merged before a flush is in it.

use std::convert::Infallible;
use std::sync::mpsc::{Sender, SyncSender, TrySendError, channel};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use super::worker::Work;
use crate::aggregate::shard_of;
use crate::protocol::import::ImportedEntry;

/// Entries of a part: with 0.6 µs to merge a digest, a worker is busy for 0.15 ms.
const PART: usize = 256;
/// How often a full inbox is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Some entries of one body that belong to one shard.
#[derive(Debug)]
pub struct Part {
    pub(super) entries: Vec<ImportedEntry>,
    /// Dropped once they are merged: the importer waits for that.
    pub(super) merged: Sender<Infallible>,
}

/// Why nothing of a body was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotImported {
    /// The workers do not keep up: it may be sent again later.
    #[error("all workers are busy")]
    Busy,
    /// This node is about to end.
    #[error("shutting down")]
    Closed,
}

/// The way into the shards for what other nodes forward. Shared by all who receive such.
#[derive(Debug)]
pub struct Importer {
    /// Read while a body is handed over, written once, at the end: so whoever closes waits
    /// for the bodies that have begun.
    inboxes: RwLock<Option<Vec<SyncSender<Work>>>>,
}

impl Importer {
    /// An importer for these workers, in the order of their indexes.
    pub fn new(inboxes: Vec<SyncSender<Work>>) -> Importer {
        Importer { inboxes: RwLock::new(Some(inboxes)) }
    }

    /// Merges all entries, or none; returns when the shards have done so. Blocks its thread:
    /// until `deadline` if the workers do not keep up, and then for as long as merging takes.
    ///
    /// # Errors
    /// Why nothing was merged.
    pub fn import(
        &self,
        entries: Vec<ImportedEntry>,
        deadline: Instant,
    ) -> Result<(), NotImported> {
        // A panic under the lock leaves nothing half done: it only guards the list.
        let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
        let inboxes = inboxes.as_deref().ok_or(NotImported::Closed)?;
        let mut has_begun = false;
        for round in rounds(entries, inboxes.len()) {
            let (merged, wait) = channel();
            for (entries, inbox) in round.into_iter().zip(inboxes) {
                if entries.is_empty() {
                    continue;
                }
                let work = Work::Import(Part { entries, merged: merged.clone() });
                if has_begun {
                    // What has begun is carried through, and takes as long as the workers take:
                    // they never stop taking from their inboxes, but when the process ends.
                    let _ = inbox.send(work);
                } else {
                    send_until(inbox, work, deadline)?;
                    has_begun = true;
                }
            }
            drop(merged);
            // Nothing is ever sent: this is the error that says that all parts are dropped.
            let _ = wait.recv();
        }
        Ok(())
    }

    /// Takes no more bodies, waits for those that have begun and lets go of the workers. What
    /// was merged is in any flush from now on.
    pub fn close(&self) {
        self.inboxes.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The entries by round and shard: in each round, at most [`PART`] for each of `shards`.
fn rounds(entries: Vec<ImportedEntry>, shards: usize) -> Vec<Vec<Vec<ImportedEntry>>> {
    let mut rounds: Vec<Vec<Vec<ImportedEntry>>> = Vec::new();
    let mut counts = vec![0; shards];
    for entry in entries {
        let shard = shard_of(entry.name.as_bytes(), shards);
        let round = counts[shard] / PART;
        counts[shard] += 1;
        if round == rounds.len() {
            rounds.push((0..shards).map(|_| Vec::new()).collect());
        }
        rounds[round][shard].push(entry);
    }
    rounds
}

/// Waits for room in an inbox, but not beyond `deadline`.
fn send_until(
    inbox: &SyncSender<Work>,
    mut work: Work,
    deadline: Instant,
) -> Result<(), NotImported> {
    loop {
        work = match inbox.try_send(work) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(work)) => work,
            Err(TrySendError::Disconnected(_)) => return Err(NotImported::Closed),
        };
        if Instant::now() >= deadline {
            return Err(NotImported::Busy);
        }
        thread::sleep(LOOK_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;
    use crate::model::{MetricKind, Scope, TagSet};
    use crate::protocol::import::ImportedValue;

    fn counters(count: usize) -> Vec<ImportedEntry> {
        let counter = |n| ImportedEntry {
            name: format!("c{n}"),
            tags: TagSet::empty(),
            kind: MetricKind::Counter,
            scope: Scope::GlobalOnly,
            value: ImportedValue::Counter(1.0),
        };
        (0..count).map(counter).collect()
    }

    /// How many entries there were in each part that came.
    fn sizes(inbox: &Receiver<Work>) -> Vec<usize> {
        let size = |work| match work {
            Work::Import(part) => part.entries.len(),
            other => panic!("only parts were sent, not {other:?}"),
        };
        inbox.iter().map(size).collect()
    }

    #[test]
    fn every_entry_reaches_its_shard_once_in_parts() {
        let (inboxes, workers): (Vec<_>, Vec<_>) = (0..3).map(|_| sync_channel(1)).unzip();
        let importer = Importer::new(inboxes);
        let sizes = thread::scope(|scope| {
            let workers: Vec<_> =
                workers.into_iter().map(|inbox| scope.spawn(move || sizes(&inbox))).collect();
            assert_eq!(importer.import(counters(3_000), Instant::now()), Ok(()));
            importer.close();
            let join = |worker: thread::ScopedJoinHandle<'_, _>| worker.join();
            let sizes: Result<Vec<Vec<usize>>, _> = workers.into_iter().map(join).collect();
            sizes.expect("no worker panics")
        });
        for (shard, sizes) in sizes.iter().enumerate() {
            let own = |entry: &&ImportedEntry| shard_of(entry.name.as_bytes(), 3) == shard;
            let want = counters(3_000).iter().filter(own).count();
            assert_eq!(sizes.iter().sum::<usize>(), want);
            assert_eq!(sizes.len(), want.div_ceil(PART));
            assert!(sizes.iter().all(|size| *size <= PART), "{sizes:?}");
        }
    }

    #[test]
    fn a_body_waits_for_room_no_longer_than_it_may_and_then_leaves_nothing_behind() {
        let (inbox, worker) = sync_channel(1);
        inbox.send(Work::Flush(sync_channel(1).0)).expect("room");
        let importer = Importer::new(vec![inbox]);
        let before = Instant::now();
        let deadline = before + Duration::from_millis(5);
        assert_eq!(importer.import(counters(1), deadline), Err(NotImported::Busy));
        assert!(before.elapsed() >= Duration::from_millis(5));
        importer.close();
        assert_eq!(worker.iter().count(), 1);
    }

    #[test]
    fn nothing_is_imported_once_it_is_closed() {
        let (inbox, worker) = sync_channel(1);
        let importer = Importer::new(vec![inbox]);
        importer.close();
        assert_eq!(importer.import(counters(1), Instant::now()), Err(NotImported::Closed));
        assert!(worker.recv().is_err(), "and the workers are let go of");
    }
}
