//! What a shard gives away of its open interval, so that its samples outlive the process.
//!
//! A checkpoint costs what has changed since the one before, not what is held: it advances the
//! epoch, so that the next sample of every series is seen as its first one
//! ([`Shard::touch`](super::Shard)) and notes the series; samples that follow cost nothing. What is
//! noted is given away in [`Slice`]s, small enough not to keep readers waiting, each series with all
//! that it holds: the last one stored wins. What was merged away for want of memory is given as
//! nothing, in the same checkpoint as what it was merged into, or before.
//!
//! Nothing is noted before the first checkpoint, and then that is about everything.

use std::sync::Arc;

use super::limits::Origin;
use super::shard::{FOLDED, Found};
use super::{Aggregate, Shard, SlotId};
use crate::model::{MetricKey, Recorder};

/// What a slice may weigh, in bytes that are copied: 0.3 ms of work.
const SLICE: usize = 256 << 10;
/// What a series weighs beside its sketch: a few lines of memory that are not in the cache.
const WEIGHT: usize = 128;

/// Which open series are to be given away.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    /// Whether there was a checkpoint.
    is_on: bool,
    /// Those with samples since the running checkpoint began.
    touched: Vec<SlotId>,
    /// Those that it has yet to give away.
    pending: Vec<SlotId>,
}

impl Tracks {
    #[inline]
    pub(super) fn touch(&mut self, slot: SlotId) {
        if self.is_on {
            self.touched.push(slot);
        }
    }

    /// A series was merged into another one.
    pub(super) fn fold(&mut self, slot: SlotId) {
        match self.pending.is_empty() {
            true => self.touch(slot),
            // It may have been given away already. If the other one is only in the next
            // checkpoint, and there is none, it is lost rather than there twice.
            false => self.pending.push(slot),
        }
    }

    /// The interval ends.
    pub(super) fn clear(&mut self) {
        self.touched.clear();
        self.pending.clear();
    }
}

/// A part of a checkpoint.
#[derive(Debug)]
pub struct Slice {
    /// Which interval of the shard it is of, from 1.
    pub interval: u32,
    /// Series and what they hold; `None` if that is in another one now.
    pub entries: Vec<(Arc<MetricKey>, Option<Aggregate>)>,
    /// Whether the checkpoint ends with it.
    pub is_last: bool,
}

impl Shard {
    /// Begins a checkpoint. One that is not through yet is given up.
    pub fn begin_checkpoint(&mut self) {
        let Tracks { is_on, touched, pending } = &mut self.tracks;
        if *is_on {
            pending.append(touched);
        } else {
            *is_on = true;
            pending.extend_from_slice(&self.open_slots);
        }
        self.epoch += 1;
    }

    /// The next part of a checkpoint.
    pub fn take_slice(&mut self) -> Slice {
        let (mut entries, mut weight) = (Vec::new(), 0);
        while weight < SLICE
            && let Some(slot) = self.tracks.pending.pop()
        {
            let place = self.places[slot as usize];
            let held = match place.epoch & FOLDED {
                0 => Some(self.open[place.at as usize].1.clone()),
                _ => None,
            };
            weight += WEIGHT + held.as_ref().map_or(0, Aggregate::heap_bytes);
            entries.push((Arc::clone(&self.keys[slot as usize]), held));
        }
        let is_last = self.tracks.pending.is_empty();
        Slice { interval: self.intervals, entries, is_last }
    }

    /// Adds what a process before this one held: samples received here, earlier than those that
    /// are there.
    pub fn restore(&mut self, key: MetricKey, held: Aggregate) {
        let dialect = key.dialect;
        let slot = self.slot_of_imported(key);
        if dialect.is_classic() {
            // An overflow series knows already what it is.
            self.standing.keep(slot, dialect, recorder_of(&held));
        }
        let is_open = self.places[slot as usize].epoch >= self.began;
        if dialect.is_classic() && !is_open {
            // A total grows from where it was then.
            self.standing.restore(slot, &held);
        }
        if !(is_open && matches!(held, Aggregate::Gauge(_))) {
            self.merge_into(slot, held);
            self.relieve();
        }
    }
}

impl Shard {
    /// Takes in a value that a classic series had at the last flush of a process before this one:
    /// of one that has had samples here it is not needed any more.
    pub fn restore_value(&mut self, key: MetricKey, held: &Aggregate) {
        let dialect = key.dialect;
        if !dialect.is_classic() {
            return;
        }
        // Without room for it, it is as if it had never been.
        if let Found::Own(slot) = self.slot_of(key, Origin::Import) {
            self.standing.keep(slot, dialect, recorder_of(held));
            if self.places[slot as usize].epoch == 0 {
                self.standing.restore(slot, held);
            }
        }
    }
}

/// What a classic series was recorded in.
fn recorder_of(held: &Aggregate) -> Recorder {
    match held {
        Aggregate::Counter(_) => Recorder::Counter,
        Aggregate::Total(_) => Recorder::Total,
        Aggregate::Gauge(_) => Recorder::Gauge,
        Aggregate::Histogram(_) | Aggregate::Timings(_) => Recorder::Timer,
        Aggregate::Set(_) => Recorder::Set,
    }
}

#[cfg(test)]
mod tests;
