//! One worker's table of series.

mod series;
mod snapshot;

use std::collections::VecDeque;
use std::sync::Arc;

pub(super) use series::{Found, Way};
pub use snapshot::{Forgotten, Snapshot};

use super::Aggregate;
use super::apply::Scratch;
use super::checkpoint::Tracks;
use super::classic::Standing;
use super::intern::{Interner, SlotId};
use super::limits::refused::Refused;
use super::limits::{Census, ContextLimits, FoldCounts, Origin, OverflowKeys};
use super::mapped::Mapper;
use super::memory::Thresholds;
use crate::mapping::Mapping;
use crate::model::{ClassicRules, ExtendTags, MetricKey, MetricKind, Role};

/// A table from keys to aggregates, owned by one thread.
///
/// What accumulates lies apart from what is known of a series: a flush takes the one away whole,
/// whatever its size, and the other stays.
#[derive(Debug)]
pub struct Shard {
    role: Role,
    extend_tags: ExtendTags,
    pub(super) interner: Interner,
    /// By slot: the series.
    pub(super) keys: Vec<Arc<MetricKey>>,
    /// By slot: where its aggregate is.
    pub(super) places: Vec<Place>,
    /// The series with samples in this interval.
    pub(super) open: Vec<Entry>,
    /// Their slots.
    pub(super) open_slots: Vec<SlotId>,
    /// On the heap, of all that is open.
    pub(super) sketch_bytes: usize,
    /// Which of them the next checkpoint is about.
    pub(super) tracks: Tracks,
    /// Counts up, from 1, at the beginning of each interval and at each checkpoint.
    pub(super) epoch: u32,
    /// The epoch with which the running interval began.
    pub(super) began: u32,
    /// Intervals so far.
    pub(super) intervals: u32,
    /// The epochs with which recent intervals began, the running one first.
    beginnings: VecDeque<u32>,
    /// Slots below this one were known before the interval.
    pub(super) known: usize,
    /// Who takes how much room, by slot.
    pub(super) census: Census,
    pub(super) thresholds: Thresholds,
    /// Where series go for which there is none.
    overflow: OverflowKeys,
    /// Spellings that do.
    refused: Refused,
    pub(super) folds: FoldCounts,
    /// What series are called, if a file says so.
    mapper: Option<Box<Mapper>>,
    /// What outlives an interval, of classic series.
    pub(super) standing: Standing,
    /// Whether snapshots have what of these is to outlive the process.
    keeps_values: bool,
    /// For [`Shard::apply`].
    pub(super) scratch: Option<Box<Scratch>>,
}

/// A series and what it accumulated.
pub type Entry = (Arc<MetricKey>, Aggregate);

/// Where the aggregate of a series is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The epoch of its last sample; 0 if it has had none. With [`FOLDED`] its samples go to
    /// another series, until the interval ends.
    pub(super) epoch: u32,
    /// Its index among the open series; or the slot of the other one.
    pub(super) at: u32,
}

/// No epoch has this bit, so samples of such a series are noticed without being looked for.
pub(super) const FOLDED: u32 = 1 << 31;

impl Shard {
    /// An empty shard without limits. `role` and `extend_tags` decide which keys are the same
    /// series.
    pub fn new(role: Role, extend_tags: ExtendTags) -> Shard {
        Shard::with_limits(role, extend_tags, ContextLimits::NONE, 0)
    }

    /// An empty shard that holds no more than `limits`; `worker` is its number.
    pub fn with_limits(
        role: Role,
        extend_tags: ExtendTags,
        limits: ContextLimits,
        worker: usize,
    ) -> Shard {
        // What a local node forwards must not meet what a global one folds itself.
        let name = format!("{}-{worker}", role.as_str());
        Shard {
            overflow: OverflowKeys::new(&extend_tags, &name),
            census: Census::new(limits),
            thresholds: Thresholds::new(limits.memory, 0),
            refused: Refused::new(limits.contexts),
            folds: FoldCounts::default(),
            mapper: None,
            standing: Standing::new(ClassicRules::default()),
            keeps_values: false,
            role,
            extend_tags,
            interner: Interner::default(),
            keys: Vec::new(),
            places: Vec::new(),
            open: Vec::new(),
            open_slots: Vec::new(),
            sketch_bytes: 0,
            tracks: Tracks::default(),
            epoch: 1,
            began: 1,
            intervals: 1,
            beginnings: VecDeque::from([1]),
            known: 0,
            scratch: None,
        }
    }

    /// The same with other rules for classic series.
    #[must_use]
    pub fn with_classic(self, rules: ClassicRules) -> Shard {
        Shard { standing: Standing::new(rules), ..self }
    }

    /// The same with [`Snapshot::kept`].
    #[must_use]
    pub fn keeping_values(self, keeps_values: bool) -> Shard {
        Shard { keeps_values, ..self }
    }

    /// The same with series called as a mapping file says.
    #[must_use]
    pub fn with_mapping(self, mapping: Option<Arc<Mapping>>) -> Shard {
        let contexts = self.census.contexts();
        let mapper = mapping.map(|mapping| Box::new(Mapper::new(mapping, contexts)));
        Shard { mapper, ..self }
    }

    /// Where the aggregate of a series is among the open ones.
    #[inline(always)]
    pub(super) fn touch(&mut self, slot: SlotId, origin: Origin) -> u32 {
        let place = self.places[slot as usize];
        if place.epoch == self.epoch { place.at } else { self.touch_anew(slot, origin) }
    }

    /// The same where it is not open, or not where it should be.
    #[inline]
    fn touch_anew(&mut self, slot: SlotId, origin: Origin) -> u32 {
        let place = self.places[slot as usize];
        if (self.began..FOLDED).contains(&place.epoch) {
            // Open since before the last checkpoint.
            self.tracks.touch(slot);
            self.places[slot as usize].epoch = self.epoch;
            return place.at;
        }
        let kind = self.keys[slot as usize].kind;
        let has_digest_or_set = kind.has_digest() || kind == MetricKind::Set;
        if has_digest_or_set {
            if place.epoch >= FOLDED | self.began {
                return self.touch_folded(place.at, origin);
            }
            if !self.has_memory_for(slot) {
                let target = self.open_elsewhere(slot, origin);
                return self.touch_folded(target, origin);
            }
        }
        self.tracks.touch(slot);
        let at = self.open.len() as u32;
        let key = Arc::clone(&self.keys[slot as usize]);
        let aggregate = match key.dialect.is_classic() {
            false => Aggregate::new(kind),
            true => self.standing.resume(slot),
        };
        self.sketch_bytes += aggregate.heap_bytes();
        self.places[slot as usize] = Place { epoch: self.epoch, at };
        self.open.push((key, aggregate));
        self.open_slots.push(slot);
        at
    }

    /// The same for a sample of a series whose samples go to another one.
    #[cold]
    fn touch_folded(&mut self, mut target: SlotId, origin: Origin) -> u32 {
        let Place { epoch, at } = self.places[target as usize];
        if epoch >= FOLDED | self.began {
            target = at;
        } else if epoch < self.began && !self.has_memory_for(target) {
            target = self.open_elsewhere(target, origin);
        }
        self.folds.sample(target);
        self.touch(target, origin)
    }

    /// Takes an open aggregate out.
    pub(super) fn close(&mut self, at: u32) -> Entry {
        let entry = self.open.swap_remove(at as usize);
        self.open_slots.swap_remove(at as usize);
        if let Some(&moved) = self.open_slots.get(at as usize) {
            self.places[moved as usize].at = at;
        }
        entry
    }

    /// Series the shard knows, idle ones included.
    pub fn series(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests;
