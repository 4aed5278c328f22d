//! The end of an interval: what has accumulated is given away whole, and idle series are forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Entry, FOLDED, Place, Shard};
use crate::aggregate::classic::IdleEntry;
use crate::aggregate::intern::{Interner, SlotId};
use crate::aggregate::limits::Folded;
use crate::aggregate::limits::refused::Refused;
use crate::aggregate::mapped::Specials;
use crate::aggregate::memory::Memory;
use crate::model::MetricKey;

/// A series without samples for this many intervals is forgotten.
pub(super) const IDLE_INTERVALS: u32 = 30;
/// Forgetting rebuilds the tables, so it waits until it frees this many series at least.
const MIN_FORGOTTEN: usize = 1024;
/// Where a limit is reached, series that have had no sample for a whole interval make room, as
/// long as they are at least one of so many.
const IDLE_IN_THE_WAY: u32 = 1;
const PART_IN_THE_WAY: usize = 64;

/// What a shard hands over at flush: the series touched since the last one, and classic ones
/// that are emitted all the same.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Which interval of the shard, from 1.
    pub interval: u32,
    /// Keys and what they accumulated.
    pub entries: Vec<Entry>,
    /// Classic series without samples that are emitted all the same.
    pub idle: Vec<IdleEntry>,
    /// What of classic series is to outlive the process, if that is wanted: gauges, and totals
    /// that have not grown.
    pub kept: Vec<Entry>,
    /// Series the shard knows, idle ones included.
    pub series: usize,
    /// What was held.
    pub memory: Memory,
    /// What there was no room for.
    pub folded: Folded,
    /// Samples that a mapping file has left out, by the line of the rule.
    pub dropped: BTreeMap<u64, u64>,
    /// What was forgotten. Letting go of much takes longer than the shard should be kept waiting.
    pub forgotten: Forgotten,
}

/// Series that were forgotten, and the tables they were in.
#[derive(Debug, Default)]
pub struct Forgotten {
    keys: Vec<Arc<MetricKey>>,
    _tables: Option<(Interner, Refused, Option<Specials>)>,
}

impl Forgotten {
    /// How many series.
    pub fn series(&self) -> usize {
        self.keys.len()
    }
}

impl Shard {
    /// Hands over everything accumulated and starts the next interval.
    pub fn take_snapshot(&mut self) -> Snapshot {
        let epochs = self.began..=self.epoch;
        let idle = self.standing.end_interval(epochs, &self.keys, &self.places, &self.open);
        let kept = match self.keeps_values {
            true => self.standing.values(&self.keys),
            false => Vec::new(),
        };
        let room = Vec::with_capacity(self.open.len());
        let entries = std::mem::replace(&mut self.open, room);
        let series = self.keys.len();
        let memory = self.memory();
        let folded = self.folds.take(&self.keys);
        let dropped = self.mapper.as_mut().map(|mapper| mapper.take_dropped()).unwrap_or_default();
        let interval = self.intervals;
        self.open_slots.clear();
        self.tracks.clear();
        self.sketch_bytes = 0;
        self.begin_interval();
        let forgotten = self.forget_idle(folded.samples > 0);
        self.known = self.keys.len();
        self.note_keys();
        Snapshot { interval, entries, idle, kept, series, memory, folded, dropped, forgotten }
    }

    fn begin_interval(&mut self) {
        self.intervals += 1;
        self.epoch += 1;
        self.began = self.epoch;
        self.beginnings.truncate(IDLE_INTERVALS as usize);
        self.beginnings.push_front(self.began);
    }

    /// Forgets series that have been idle for long, once there are enough of them; and those
    /// that are in the way of others, where there is no room.
    fn forget_idle(&mut self, is_short_of_room: bool) -> Forgotten {
        // Looking costs as much as a flush, so not every interval.
        if !is_short_of_room && !self.intervals.is_multiple_of(IDLE_INTERVALS / 4) {
            return Forgotten::default();
        }
        let (census, standing) = (&self.census, &self.standing);
        // Whether it has had no sample in so many intervals before this one.
        let beginning = |intervals: u32| self.beginnings.get(intervals as usize).copied();
        let (long_ago, lately) = (beginning(IDLE_INTERVALS), beginning(IDLE_IN_THE_WAY));
        let is_idle = |slot: usize, place: &Place| {
            let last = place.epoch & !FOLDED;
            long_ago.is_some_and(|began| last < began) && !standing.holds(slot as SlotId)
                || is_short_of_room
                    && lately.is_some_and(|began| last < began)
                    && census.is_in_the_way(slot)
        };
        let mut kept = 0;
        let places = self.places.iter().enumerate();
        let new_slots: Vec<Option<SlotId>> = places
            .map(|(slot, place)| {
                let new = (!is_idle(slot, place)).then_some(kept);
                kept += SlotId::from(new.is_some());
                new
            })
            .collect();
        let idle = new_slots.len() - kept as usize;
        let enough = match is_short_of_room {
            true => (self.places.len() / PART_IN_THE_WAY).max(1),
            false => MIN_FORGOTTEN.max(self.places.len() / 4),
        };
        if idle < enough {
            return Forgotten::default();
        }
        let is_kept = |slot: usize| new_slots[slot].is_some();
        let kept = kept as usize;
        let interner = self.interner.renumber(kept, |slot| new_slots[slot as usize]);
        self.standing.renumber(|slot| new_slots[slot as usize]);
        self.census.keep(kept, is_kept);
        let refused = self.refused.take();
        let special = self.mapper.as_mut().map(|mapper| mapper.forget());
        let mut forgotten = Vec::with_capacity(idle);
        let mut keys = Vec::with_capacity(kept);
        for (slot, key) in std::mem::take(&mut self.keys).into_iter().enumerate() {
            if is_kept(slot) {
                keys.push(key);
            } else {
                forgotten.push(key);
            }
        }
        self.keys = keys;
        let mut slots = new_slots.iter();
        self.places.retain(|_| slots.next().is_some_and(Option::is_some));
        self.places.shrink_to_fit();
        Forgotten { keys: forgotten, _tables: Some((interner, refused, special)) }
    }
}
