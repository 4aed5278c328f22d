//! What a shard does when its keys and sketches take the memory that they may take.
//!
//! Sketches say by how much they have grown when they allocate, so the count is kept without
//! asking: nothing is done for a sample that finds room. Where there is none left,
//!
//! 1. a series learnt in this interval opens no digest or set once three quarters are taken: its
//!    samples go to the overflow series of its name until the flush;
//! 2. where open ones grow until fifteen sixteenths are taken, those whose series were learnt last
//!    are merged into the overflow series of their names, until an eighth is free.
//!
//! So series that were there before a flood keep their digests and sets. What the limit can be
//! exceeded by is what grows within a chunk of 256 samples (8 KiB each, so 2 MiB; sets for a Veneur
//! 1.1.0 up to 256 KiB each), and the eighteen series of [`super::limits::OVERFLOW_NAME`].

use super::limits::{Limit, Origin, Room};
use super::shard::{FOLDED, Place};
use super::{Aggregate, Shard, SlotId};

/// Below this many bytes it is not worth while to fold a sketch, as long as there are larger ones.
const SMALL: usize = 1024;

/// What keys and sketches take, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Keys and what is known of their series, about.
    pub keys: usize,
    /// Digests and sets of the interval.
    pub sketches: usize,
}

impl Memory {
    /// What counts for the limit. Sketches count twice: those of the last interval are being
    /// flushed while the next ones grow.
    pub fn counted(self) -> usize {
        self.keys + 2 * self.sketches
    }

    /// Adds that of another shard.
    pub fn add(&mut self, other: Memory) {
        self.keys += other.keys;
        self.sketches += other.sketches;
    }
}

/// Bytes of sketches from which on less is done for series; they follow from what keys take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thresholds {
    /// Series learnt in this interval open none, from here on.
    near: usize,
    /// No series does, and the newest are folded, until there are no more than `relieved`.
    full: usize,
    relieved: usize,
    /// Not even those that stand for others do, but the last resort of all.
    over: usize,
}

impl Thresholds {
    /// If so much may be taken in all, and keys take so much of it.
    pub(super) fn new(limit: usize, keys: usize) -> Thresholds {
        let sketches = |part: usize| part.saturating_sub(keys) / 2;
        Thresholds {
            near: sketches(limit - limit / 4),
            full: sketches(limit - limit / 16),
            relieved: sketches(limit - limit / 8),
            over: sketches(limit),
        }
    }
}

impl Shard {
    /// What is held.
    pub fn memory(&self) -> Memory {
        Memory { keys: self.census.key_memory(), sketches: self.sketch_bytes }
    }

    /// Whether a series may open a digest or set.
    #[inline]
    pub(super) fn has_memory_for(&self, slot: SlotId) -> bool {
        let Thresholds { near, full, over, .. } = self.thresholds;
        let is_known = (slot as usize) < self.known;
        self.sketch_bytes < near
            || self.sketch_bytes
                < match self.census.room(slot) {
                    Room::Clients if is_known => full,
                    Room::Clients => near,
                    Room::Own | Room::Overflow => over,
                    Room::Last => usize::MAX,
                }
    }

    /// Has the samples of a series go to another one until the flush; returns that.
    #[cold]
    pub(super) fn open_elsewhere(&mut self, slot: SlotId, origin: Origin) -> SlotId {
        let key = self.keys[slot as usize].as_ref().clone();
        let target = match self.census.room(slot) {
            Room::Clients | Room::Own => self.overflow_slot(key, origin),
            Room::Overflow | Room::Last => self.last_slot(&key),
        };
        self.places[slot as usize] = Place { epoch: self.epoch | FOLDED, at: target };
        self.folds.context(target, Limit::Memory);
        target
    }

    /// Makes room if all is taken; called after every chunk.
    #[inline]
    pub(super) fn relieve(&mut self) {
        if self.sketch_bytes >= self.thresholds.full {
            self.fold_the_newest();
        }
    }

    #[cold]
    fn fold_the_newest(&mut self) {
        for least in [SMALL, 1] {
            for slot in (0..self.keys.len()).rev() {
                if self.sketch_bytes <= self.thresholds.relieved {
                    return;
                }
                let place = self.places[slot];
                if place.epoch < self.began || place.epoch & FOLDED != 0 {
                    continue;
                }
                let bytes = self.open[place.at as usize].1.heap_bytes();
                let is_spared = match self.census.room(slot as SlotId) {
                    Room::Clients => false,
                    // Those that stand for others are new during a flood, too, and few.
                    Room::Own | Room::Overflow => least == SMALL,
                    Room::Last => true,
                };
                if bytes >= least && !is_spared {
                    self.fold_open(slot as SlotId);
                }
            }
        }
    }

    /// Merges an open sketch into the series that stands for it, until the flush.
    fn fold_open(&mut self, slot: SlotId) {
        let place = self.places[slot as usize];
        let (_, sketch) = self.close(place.at);
        self.tracks.fold(slot);
        self.sketch_bytes -= sketch.heap_bytes();
        let target = self.open_elsewhere(slot, Origin::Sample);
        self.folds.sample(target);
        self.merge_into(target, sketch);
    }

    /// Adds what a series has accumulated to another one.
    pub(super) fn merge_into(&mut self, slot: SlotId, more: Aggregate) {
        let place = self.touch(slot, Origin::Sample);
        let aggregate = &mut self.open[place as usize].1;
        let before = aggregate.heap_bytes();
        aggregate.merge(more);
        self.sketch_bytes = self.sketch_bytes - before + aggregate.heap_bytes();
    }
}
