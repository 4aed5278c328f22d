//! The spellings that fold, and others that are no aliases: what spares their samples the long
//! way.

use crate::aggregate::batch::{KeyHasher, OpKey};
use crate::aggregate::intern::SlotId;

/// Spellings remembered: eight for each series held, as for those that are known, within
/// bounds of 64 KiB and 16 MiB.
const PER_CONTEXT: usize = 8;
const LEAST: usize = 1 << 12;
const MOST: usize = 1 << 20;

/// Spellings that fold, with the overflow series that they go to.
pub(in crate::aggregate) type Refused = Spellings<SlotId>;

/// A table of fixed size from spellings to what is known of them. Each spelling has one place, where
/// the next one that belongs there displaces it; it then goes the long way once more.
///
/// It does not keep bytes, of which a flood has no end, but two seeded hashes, 96 bits. They
/// are no identity: were they the same for two spellings, a sample of the one would count in
/// the overflow series of the other. All series that are held are found by their bytes before.
#[derive(Debug)]
pub(in crate::aggregate) struct Spellings<T> {
    hasher: KeyHasher,
    size: usize,
    /// Empty until there is one.
    places: Vec<Place<T>>,
}

/// Nobody is there if both hashes are 0.
#[derive(Clone, Copy, Debug, Default)]
struct Place<T> {
    hash: u64,
    check: u32,
    known: T,
}

impl<T: Copy + Default> Spellings<T> {
    /// For a shard that holds so many series.
    pub(in crate::aggregate) fn new(contexts: usize) -> Spellings<T> {
        let size = contexts.saturating_mul(PER_CONTEXT).clamp(LEAST, MOST).next_power_of_two();
        Spellings { hasher: KeyHasher::random(), size, places: Vec::new() }
    }

    /// What is known of a spelling in `buffer`.
    pub(in crate::aggregate) fn find(&self, key: OpKey, buffer: &[u8]) -> Option<T> {
        let place = self.places.get(self.index(key))?;
        let is_taken = place.hash != 0 || place.check != 0;
        let is_it = is_taken && place.hash == key.hash && place.check == self.check(key, buffer);
        is_it.then_some(place.known)
    }

    /// Remembers what is known of a spelling in `buffer`.
    pub(in crate::aggregate) fn insert(&mut self, key: OpKey, buffer: &[u8], known: T) {
        if self.places.is_empty() {
            self.places = vec![Place::default(); self.size];
        }
        let (index, check) = (self.index(key), self.check(key, buffer));
        self.places[index] = Place { hash: key.hash, check, known };
    }

    /// Forgets all of them: there may be room now, or slots have other numbers. Gives them back:
    /// to free what is large takes long.
    pub(in crate::aggregate) fn take(&mut self) -> Spellings<T> {
        let Spellings { hasher, size, .. } = *self;
        Spellings { hasher, size, places: std::mem::take(&mut self.places) }
    }

    fn index(&self, key: OpKey) -> usize {
        key.hash as usize & (self.size - 1)
    }

    fn check(&self, key: OpKey, buffer: &[u8]) -> u32 {
        let (name, tags) = key.bytes(buffer);
        (self.hasher.hash(key.class, name, tags) >> 32) as u32
    }
}
