//! Each batch once, however often it is sent and however many requests bring it at a time.
//!
//! The thread that is the first to bring a batch merges it. Others wait for how that ends: if
//! it was merged, they are done; if not, one of them tries in turn.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::forward::identity::BatchId;
use crate::forward::seen::{Admission, Seen};

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has been merged now.
    Merged,
    /// It had been merged before.
    Repeated,
    /// Another request is still merging it: it may be sent again.
    Underway,
    /// It is too old to know.
    Forgotten,
}

/// What is remembered of batches. Shared by all threads that merge.
#[derive(Debug, Default)]
pub(super) struct Once {
    seen: Mutex<Seen>,
    /// Told whenever a batch is no longer underway.
    ended: Condvar,
}

impl Once {
    /// Lets `merge` run unless the batch has been merged already. Blocks while another thread
    /// merges it, until `deadline`.
    ///
    /// # Errors
    /// That of `merge`; the batch may then come again.
    pub(super) fn run<E>(
        &self,
        id: BatchId,
        deadline: Instant,
        merge: impl FnOnce() -> Result<(), E>,
    ) -> Result<Fate, E> {
        let mut seen = self.lock();
        loop {
            match seen.admit(id) {
                Admission::New => break,
                Admission::Repeat => return Ok(Fate::Repeated),
                Admission::Forgotten => return Ok(Fate::Forgotten),
                Admission::Underway => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Fate::Underway);
            }
            let woken = self.ended.wait_timeout(seen, left);
            (seen, _) = woken.unwrap_or_else(PoisonError::into_inner);
        }
        drop(seen);
        let mut underway = Underway { once: self, id, is_merged: false };
        merge()?;
        underway.is_merged = true;
        Ok(Fate::Merged)
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // `Seen` is never left half changed: nothing panics in it.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch that was admitted: settled or withdrawn when dropped, even by a panic.
struct Underway<'a> {
    once: &'a Once,
    id: BatchId,
    is_merged: bool,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let mut seen = self.once.lock();
        if self.is_merged {
            seen.settle(self.id);
        } else {
            seen.withdraw(self.id);
        }
        drop(seen);
        self.once.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    const ID: BatchId = BatchId { instance: 1, epoch: 1, sequence: 0 };

    fn in_a_minute() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn of_many_at_once_one_merges_and_the_others_wait_for_it() {
        let (once, merges, start) = (Once::default(), AtomicU32::new(0), Barrier::new(8));
        let bring = || {
            start.wait();
            once.run(ID, in_a_minute(), || {
                merges.fetch_add(1, Ordering::Relaxed);
                thread::yield_now();
                Ok::<_, Infallible>(())
            })
        };
        let fates: Vec<Fate> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(bring)).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join();
            threads.into_iter().map(|t| join(t).expect("no panic").expect("infallible")).collect()
        });
        let count = |fate| fates.iter().filter(|f| **f == fate).count();
        assert_eq!((count(Fate::Merged), count(Fate::Repeated)), (1, 7), "{fates:?}");
        assert_eq!(merges.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn when_the_first_fails_the_one_that_waits_tries() {
        let (once, start) = (Once::default(), Barrier::new(2));
        let fates = thread::scope(|scope| {
            let second = scope.spawn(|| {
                start.wait();
                once.run(ID, in_a_minute(), || Ok::<_, &str>(()))
            });
            let first = once.run(ID, in_a_minute(), || {
                start.wait();
                Err("busy")
            });
            (first, second.join().expect("no panic"))
        });
        assert_eq!(fates, (Err("busy"), Ok(Fate::Merged)));
    }

    #[test]
    fn one_that_waits_does_so_until_its_deadline() {
        let once = Once::default();
        let fate = once.run(ID, in_a_minute(), || {
            let inner = once.run(ID, Instant::now(), || Ok(()));
            assert_eq!(inner, Ok::<_, Infallible>(Fate::Underway));
            Ok::<_, Infallible>(())
        });
        assert_eq!(fate, Ok(Fate::Merged));
    }

    #[test]
    fn a_batch_whose_merging_panics_may_come_again() {
        let once = Once::default();
        let panicking = thread::scope(|scope| {
            let run = || once.run(ID, in_a_minute(), || -> Result<(), Infallible> { panic!("!") });
            scope.spawn(run).join()
        });
        assert!(panicking.is_err());
        assert_eq!(once.run(ID, in_a_minute(), || Ok::<_, Infallible>(())), Ok(Fate::Merged));
    }
}
