//! What could not be delivered, kept until it can be: in memory, and on disk where a directory
//! is given.
//!
//! ```text
//! put ─► queue (memory, bounded) ─► thread spool-NAME ─► segments on disk (bounded)
//!           ▲  │ claim, oldest of a lane first  ▲                 │
//!           │  ▼                                └─────── read ────┘
//!        release, finish
//! ```
//!
//! A sink and the forwarder have one each. Putting something in never waits and never fails;
//! what is where, and what goes when there is no room, is decided in [`queue`], which is pure;
//! [`store`] keeps records in [`segment`]s on a [`disk`], and [`writer`] is the thread between
//! them. Everything that is put in is claimed and finished, is still there, or is [`Lost`] for
//! a reason.
//!
//! **What survives.** The end of the process, `kill -9` included: all that was written, which is
//! milliseconds after it was put in unless the disk is slow. A loss of power: all that was
//! synced, which each piece of writing is at its end. That a record was delivered is not synced:
//! after a loss of power it may be delivered again.

mod clock;
pub mod disk;
pub mod queue;
pub mod segment;
pub mod store;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use self::clock::Clock;
use self::disk::Directory;
use self::queue::{Claim, Event, Queue, QueueLimits};
use self::store::StoreLimits;
use crate::config::settings::SpoolSettings;
use crate::telemetry::registry::Observations;
use crate::telemetry::{Telemetry, names};

pub use self::queue::{Cause, Claimed, Lost, RecordId, Which};
pub use self::segment::Record;
pub use self::writer::{Trouble, carry_out};

/// What waits in memory: without a directory, or before it is written.
const MEMORY_BYTES: usize = 16 << 20;
/// A claim waits for the disk for so long.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// A directory has about so many segments when it is full: what is dropped at once.
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(8 << 20);

/// A queue of what is undelivered. Cloning shares.
#[derive(Clone)]
pub struct Spool(Arc<Shared>);

/// Whether directories may be used yet: a successor leaves them to its predecessor, who has yet
/// to write down what it could not deliver, and puts nothing between the two.
#[derive(Clone, Debug)]
pub struct Turn(Arc<AtomicBool>);

impl Turn {
    /// There is no predecessor.
    pub fn now() -> Turn {
        Turn(Arc::new(AtomicBool::new(true)))
    }

    /// Not before [`Turn::begin`].
    pub fn later() -> Turn {
        Turn(Arc::new(AtomicBool::new(false)))
    }

    /// The predecessor has ended.
    pub fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it has come.
    pub fn has_come(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

struct Shared {
    /// `spool:NAME`
    tag: String,
    clock: Clock,
    has_directory: bool,
    max_age: Duration,
    telemetry: Telemetry,
    /// Held by consumers and the thread for as long as a decision takes, never during I/O.
    state: Mutex<State>,
    /// There may be work for the thread.
    work: Condvar,
    /// There may be something to claim, or something was lost.
    changed: Notify,
}

struct State {
    queue: Queue,
    /// Claims that wait for the disk.
    claims: HashMap<RecordId, oneshot::Sender<Option<Claimed>>>,
    /// Withdrawals that do.
    withdrawals: HashMap<RecordId, oneshot::Sender<()>>,
    disk_bytes: u64,
    is_closing: bool,
    /// Dropped when the thread has done all it can.
    writing: Option<oneshot::Receiver<()>>,
}

impl Spool {
    /// Starts it: `name` is that of its directory within the one configured, and of its thread.
    /// Without a directory there is no thread.
    ///
    /// # Errors
    /// When the directory cannot be written, or the system gives no thread. One that another
    /// process uses, or whose turn has not come, is no error: it is waited for.
    pub fn start(
        name: &str,
        settings: &SpoolSettings,
        turn: &Turn,
        telemetry: Telemetry,
    ) -> io::Result<Spool> {
        let limits = QueueLimits {
            memory_bytes: MEMORY_BYTES,
            max_age_ms: u64::try_from(settings.max_age.as_millis()).unwrap_or(u64::MAX),
        };
        let spool = Spool(Arc::new(Shared {
            tag: format!("spool:{name}"),
            clock: Clock::start(),
            has_directory: settings.directory.is_some(),
            max_age: settings.max_age,
            telemetry,
            state: Mutex::new(State {
                queue: Queue::new(limits),
                claims: HashMap::new(),
                withdrawals: HashMap::new(),
                disk_bytes: 0,
                is_closing: false,
                writing: None,
            }),
            work: Condvar::new(),
            changed: Notify::new(),
        }));
        let seen = Arc::downgrade(&spool.0);
        spool.0.telemetry.add_source(move |observations| {
            if let Some(shared) = seen.upgrade() {
                shared.observe(observations);
            }
        });
        if let Some(directory) = &settings.directory {
            let path = directory.join(name);
            Directory::check(&path)?;
            let limits = StoreLimits {
                max_bytes: settings.max_bytes,
                segment_bytes: (settings.max_bytes / SEGMENTS)
                    .clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()),
                sync: settings.sync,
            };
            let (ended, writing) = oneshot::channel();
            spool.0.lock().writing = Some(writing);
            let shared = Arc::clone(&spool.0);
            writer::start(name, path, limits, turn.clone(), shared, ended)?;
        }
        Ok(spool)
    }

    /// Whether what is put in gets to disk, as far as the disk takes it.
    pub fn has_directory(&self) -> bool {
        self.0.has_directory
    }

    /// Puts a record in. What has no room any more is lost.
    pub fn put(&self, record: Record, is_unsure: bool) {
        self.0.lock().queue.put(record, is_unsure);
        self.0.work.notify_one();
        self.0.changed.notify_waiters();
    }

    /// Whether a record of so many bytes would have room without another being lost.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.0.lock().queue.has_room(bytes)
    }

    /// Lanes in which something waits that nobody has claimed.
    pub fn lanes(&self) -> Vec<Arc<str>> {
        self.0.lock().queue.lanes().map(Arc::clone).collect()
    }

    /// Claims the oldest record of a lane; then one of [`Spool::finish`] and [`Spool::release`]
    /// is called.
    pub async fn claim(&self, lane: &str, which: Which) -> Option<Claimed> {
        let read = {
            let mut state = self.0.lock();
            match state.queue.claim(lane, which) {
                Claim::Nothing => return None,
                Claim::Ready(claimed) => return Some(claimed),
                Claim::Reading(id) => {
                    let (sender, receiver) = oneshot::channel();
                    state.claims.insert(id, sender);
                    receiver
                }
            }
        };
        self.0.work.notify_one();
        // If the disk takes longer, what it reads goes back to where it was.
        timeout(READ_WITHIN, read).await.ok()?.ok().flatten()
    }

    /// Takes a claimed record out, which is to become other records: returns when no crash can
    /// bring it back. `false` if that cannot be had: then it waits as before.
    pub async fn withdraw(&self, id: RecordId) -> bool {
        let withdrawal = {
            let mut state = self.0.lock();
            if state.queue.withdraw(id) {
                return true;
            }
            let (sender, receiver) = oneshot::channel();
            state.withdrawals.insert(id, sender);
            receiver
        };
        self.0.work.notify_one();
        withdrawal.await.is_ok()
    }

    /// A claimed record is to be sent again, later; behind the others, if it is the only one that
    /// fails.
    pub fn release(&self, id: RecordId, is_unsure: bool, fails_alone: bool) {
        self.0.lock().queue.release(id, is_unsure, fails_alone);
        self.0.work.notify_one();
    }

    /// A claimed record is delivered, or will never be.
    pub fn finish(&self, id: RecordId) {
        self.0.lock().queue.finish(id);
        self.0.work.notify_one();
    }

    /// What was lost since the last call, what is too old by now included.
    pub fn take_lost(&self) -> Vec<Lost> {
        let lost = {
            let mut state = self.0.lock();
            state.queue.expire(self.0.clock.now_ms());
            state.queue.take_lost()
        };
        self.0.work.notify_one();
        for Lost { cause, bytes, .. } in &lost {
            let tags = format!("{},reason:{}", self.0.tag, cause.as_str());
            self.0.telemetry.count(names::SPOOL_DROPPED_BYTES_TOTAL, &tags, *bytes);
        }
        lost
    }

    /// Ends when, after this call, there may be something to claim, or something was lost.
    pub fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }

    /// How long something may wait.
    pub fn max_age(&self) -> Duration {
        self.0.max_age
    }

    /// Whether nothing is there, claimed or not.
    pub fn is_empty(&self) -> bool {
        self.0.lock().queue.level().records == 0
    }

    /// A moment as records have it.
    pub fn ms_at(&self, at: Instant) -> u64 {
        self.0.clock.ms_at(at)
    }

    /// The moment that records have as `ms`, or now if it cannot be said.
    pub fn instant_at(&self, ms: u64) -> Instant {
        self.0.clock.instant_at(ms)
    }

    /// Writes what is in memory to disk, which may take so long; what is in memory then is lost.
    /// Nothing may be claimed. Returns all that was lost.
    pub async fn close(&self, within: Duration) -> Vec<Lost> {
        let writing = {
            let mut state = self.0.lock();
            state.is_closing = true;
            state.queue.hurry();
            state.writing.take()
        };
        self.0.work.notify_one();
        if let Some(writing) = writing {
            // Either it has ended, or it takes too long.
            let _ = timeout(within, writing).await;
        }
        self.0.lock().queue.stop();
        self.take_lost()
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spool({})", self.0.tag)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of the thread ends the process; consumers only read and note.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn observe(&self, observations: &mut Observations) {
        let (level, disk_bytes) = {
            let state = self.lock();
            (state.queue.level(), state.disk_bytes)
        };
        let now_ms = self.clock.now_ms();
        let oldest_ms = level.oldest_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
        for (name, value) in [
            (names::SPOOL_RECORDS, level.records as f64),
            (names::SPOOL_ITEMS, level.items as f64),
            (names::SPOOL_MEMORY_BYTES, level.memory_bytes as f64),
            (names::SPOOL_DISK_BYTES, disk_bytes as f64),
            (names::SPOOL_OLDEST_NS, oldest_ms as f64 * 1e6),
        ] {
            observations.gauge(name, &self.tag, value);
        }
    }

    /// Gives a claim or a withdrawal what it waited for.
    fn answer(state: &mut State, event: Event) {
        match event {
            Event::Loaded(claimed) => {
                let Claimed { id, is_unsure, .. } = claimed;
                let claim = state.claims.remove(&id);
                if claim.is_some_and(|claim| claim.send(Some(claimed)).is_err()) {
                    // Nobody waits any more.
                    state.queue.release(id, is_unsure, false);
                }
            }
            // Whoever waits learns that nobody will answer.
            Event::Nothing(id) => {
                state.claims.remove(&id);
                state.withdrawals.remove(&id);
            }
            Event::Withdrawn(id) => {
                // Who waits has the record itself.
                let _ = state.withdrawals.remove(&id).map(|sender| sender.send(()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
