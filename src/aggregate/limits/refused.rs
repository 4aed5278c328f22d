//! The spellings that fold: what spares their samples the long way.

use crate::aggregate::batch::{KeyHasher, OpKey};
use crate::aggregate::intern::SlotId;

/// Spellings remembered: eight for each series held, as for those that are known, within
/// bounds of 64 KiB and 16 MiB.
const PER_CONTEXT: usize = 8;
const LEAST: usize = 1 << 12;
const MOST: usize = 1 << 20;

/// No slot has this number.
const EMPTY: SlotId = SlotId::MAX;

/// A table of fixed size from spellings to overflow series. Each spelling has one place, where
/// the next one that belongs there displaces it; it then goes the long way once more.
///
/// It does not keep bytes, of which a flood has no end, but two seeded hashes, 96 bits. They
/// are no identity: were they the same for two spellings, a sample of the one would count in
/// the overflow series of the other. All series that are held are found by their bytes before.
#[derive(Debug)]
pub(in crate::aggregate) struct Refused {
    hasher: KeyHasher,
    size: usize,
    /// Empty until something is refused.
    places: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    hash: u64,
    check: u32,
    slot: SlotId,
}

impl Refused {
    /// For a shard that holds so many series.
    pub(in crate::aggregate) fn new(contexts: usize) -> Refused {
        let size = contexts.saturating_mul(PER_CONTEXT).clamp(LEAST, MOST).next_power_of_two();
        Refused { hasher: KeyHasher::random(), size, places: Vec::new() }
    }

    /// The overflow series of a spelling in `buffer`.
    pub(in crate::aggregate) fn find(&self, key: OpKey, buffer: &[u8]) -> Option<SlotId> {
        let place = self.places.get(self.index(key))?;
        let is_it =
            place.slot != EMPTY && place.hash == key.hash && place.check == self.check(key, buffer);
        is_it.then_some(place.slot)
    }

    /// Remembers that a spelling in `buffer` folds into `slot`.
    pub(in crate::aggregate) fn insert(&mut self, key: OpKey, buffer: &[u8], slot: SlotId) {
        if self.places.is_empty() {
            self.places = vec![Place { hash: 0, check: 0, slot: EMPTY }; self.size];
        }
        let (index, check) = (self.index(key), self.check(key, buffer));
        self.places[index] = Place { hash: key.hash, check, slot };
    }

    /// Forgets all of them: there may be room now, or slots have other numbers. Gives them back:
    /// to free what is large takes long.
    pub(in crate::aggregate) fn take(&mut self) -> Refused {
        let Refused { hasher, size, .. } = *self;
        Refused { hasher, size, places: std::mem::take(&mut self.places) }
    }

    fn index(&self, key: OpKey) -> usize {
        key.hash as usize & (self.size - 1)
    }

    fn check(&self, key: OpKey, buffer: &[u8]) -> u32 {
        let (name, tags) = key.bytes(buffer);
        (self.hasher.hash(key.class, name, tags) >> 32) as u32
    }
}
