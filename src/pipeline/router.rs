//! From a parsed line to the inbox of the worker that owns its series.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use crate::aggregate::batch::{Batch, KeyHasher, shard_of};
use crate::pipeline::worker::Work;
use crate::protocol::{Line, Values};
use crate::sketch::{legacy_set, member_hash};

/// An open batch is handed over when it is this old, full or not.
const MAX_AGE: Duration = Duration::from_millis(10);

/// Collects samples into one open batch per worker and hands them over by size or age.
/// Owned by one listener thread.
#[derive(Debug)]
pub struct Router {
    hasher: KeyHasher,
    /// Whether members are also hashed for an upstream Veneur 1.1.0.
    legacy_sets: bool,
    lanes: Vec<Lane>,
    /// When the oldest open batch got its first sample.
    open_since: Option<Instant>,
    /// Time spent waiting for a worker whose inbox was full.
    blocked: Duration,
    /// Samples that could not be handed over because their worker is gone.
    lost: u64,
}

#[derive(Debug)]
struct Lane {
    open: Batch,
    inbox: SyncSender<Work>,
    /// Room for the next batch: as large as recent ones were, so that none has to grow.
    ops: usize,
    key_bytes: usize,
}

impl Router {
    /// A router to these workers. All routers of a process share `hasher`.
    pub fn new(hasher: KeyHasher, inboxes: impl IntoIterator<Item = SyncSender<Work>>) -> Router {
        let lane = |inbox| Lane { open: Batch::with_capacity(0, 0), inbox, ops: 0, key_bytes: 0 };
        Router {
            hasher,
            legacy_sets: false,
            lanes: inboxes.into_iter().map(lane).collect(),
            open_since: None,
            blocked: Duration::ZERO,
            lost: 0,
        }
    }

    /// Has sets kept in the form of Veneur 1.1.0 too.
    pub fn with_legacy_sets(self, legacy_sets: bool) -> Router {
        Router { legacy_sets, ..self }
    }

    /// Appends every value of a line to the batch of its worker. Returns the number of
    /// samples, or `None` if name and tags are longer than a batch can say.
    #[inline]
    pub fn push(&mut self, line: &Line<'_>) -> Option<u64> {
        let index = shard_of(line.name, self.lanes.len());
        let batch = &mut self.lanes[index].open;
        let key = batch.push_key(self.hasher, line.kind, line.name, line.tags)?;
        let before = batch.len();
        match line.values {
            Values::One(value) => batch.push(key, value.to_bits(), line.weight),
            Values::Member(member) => {
                batch.push(key, member_hash(member), line.weight);
                if self.legacy_sets {
                    batch.push_legacy_hash(legacy_set::member_hash(member));
                }
            }
            Values::Packed(_) => {
                for value in line.values.numbers() {
                    batch.push(key, value.to_bits(), line.weight);
                }
            }
        }
        let samples = (batch.len() - before) as u64;
        if batch.is_full() {
            self.hand_over(index);
        }
        Some(samples)
    }

    /// Tells the router what time it is, once per read: open batches age from here.
    pub fn hand_over_due(&mut self, now: Instant) {
        match self.open_since {
            Some(since) if now.duration_since(since) >= MAX_AGE => self.hand_over_all(),
            Some(_) => {}
            None if self.lanes.iter().any(|lane| !lane.open.is_empty()) => {
                self.open_since = Some(now);
            }
            None => {}
        }
    }

    /// How long until [`Router::hand_over_due`] has something to do; `None` if nothing is open.
    pub fn until_due(&self, now: Instant) -> Option<Duration> {
        self.open_since.map(|since| (since + MAX_AGE).saturating_duration_since(now))
    }

    /// Hands over every open batch.
    pub fn hand_over_all(&mut self) {
        for index in 0..self.lanes.len() {
            if !self.lanes[index].open.is_empty() {
                self.hand_over(index);
            }
        }
        self.open_since = None;
    }

    /// Gives one lane's open batch to its worker, waiting while its inbox is full: what then
    /// overflows is the socket's buffer, the one place where datagrams are dropped.
    fn hand_over(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        lane.ops = recent_maximum(lane.ops, lane.open.len());
        lane.key_bytes = recent_maximum(lane.key_bytes, lane.open.key_bytes());
        let next =
            Batch::with_capacity(lane.ops.next_power_of_two(), lane.key_bytes.next_power_of_two());
        let mut batch = std::mem::replace(&mut lane.open, next);
        let samples = batch.len() as u64;
        let now = Instant::now();
        batch.handed_over = Some(now);
        let taken = match lane.inbox.try_send(Work::Samples(batch)) {
            Ok(()) => true,
            Err(TrySendError::Full(work)) => {
                let taken = lane.inbox.send(work).is_ok();
                self.blocked += now.elapsed();
                taken
            }
            Err(TrySendError::Disconnected(_)) => false,
        };
        if !taken {
            self.lost += samples;
        }
    }

    /// Time spent waiting for workers since the last call.
    pub fn take_blocked(&mut self) -> Duration {
        std::mem::take(&mut self.blocked)
    }

    /// Samples lost to a worker that is gone, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

/// The largest of recent sizes: it grows at once and shrinks slowly.
fn recent_maximum(before: usize, now: usize) -> usize {
    now.max(before - before / 16)
}
