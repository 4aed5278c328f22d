//! From raw key bytes to the slot of a series.
//!
//! Two tables. The *alias* table maps the bytes a client sent (class, name, unsplit tag
//! section) to a slot: that is all the hot path does, one probe and one comparison. The
//! *canonical* table maps a [`MetricKey`] to its slot and is asked only for bytes not seen
//! before: `a:1,b:2` and `b:2,a:1` become two aliases of one slot, and neither is sorted
//! again. Equality is always on bytes; a hash only finds the place to look.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use super::batch::OpKey;
use super::class::Class;
use crate::model::MetricKey;

/// Index of a series in its shard.
pub type SlotId = u32;

/// How many spellings of each series are remembered, and how many bytes of them, on average,
/// before all are forgotten and learnt anew: a client that shuffles its tags costs time, not
/// memory.
const MAX_ALIASES_PER_SLOT: usize = 8;
const MIN_ALIASES: usize = 8 * 1024;
const MAX_BYTES_PER_SLOT: usize = 512;
const MIN_BYTES: usize = 8 << 20;

/// The two tables of one shard.
#[derive(Debug, Default)]
pub struct Interner {
    aliases: HashTable<Alias>,
    /// Key bytes of all aliases, one behind the other.
    alias_bytes: Vec<u8>,
    canonical: HashTable<(u64, SlotId)>,
    canonical_hasher: RandomState,
}

/// A spelling of a key.
#[derive(Clone, Copy, Debug)]
struct Alias {
    hash: u64,
    at: u32,
    slot: SlotId,
    name_len: u16,
    tags_len: u16,
    class: Class,
}

/// A spelling that has the hash looked for, its bytes not yet compared.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    at: u32,
    slot: SlotId,
    name_len: u16,
    tags_len: u16,
    class: Class,
}

impl Alias {
    #[inline(always)]
    fn bytes<'a>(&self, all: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let (name, rest) = all[self.at as usize..].split_at(usize::from(self.name_len));
        (name, &rest[..usize::from(self.tags_len)])
    }
}

impl Interner {
    /// A spelling with the hash of this key: the first half of [`Interner::find`].
    #[inline(always)]
    pub fn candidate(&self, key: OpKey) -> Option<Candidate> {
        let alias = self.aliases.find(key.hash, |alias| alias.hash == key.hash)?;
        let Alias { at, slot, name_len, tags_len, class, .. } = *alias;
        Some(Candidate { at, slot, name_len, tags_len, class })
    }

    /// The slot, if the candidate is that key in `buffer`, byte for byte: the second half.
    /// Nothing may have been learnt in between.
    #[inline(always)]
    pub fn confirm(&self, known: &Candidate, key: OpKey, buffer: &[u8]) -> Option<SlotId> {
        let (name, tags) = key.bytes(buffer);
        let (name_len, tags_len) = (usize::from(known.name_len), usize::from(known.tags_len));
        let (known_name, rest) = self.alias_bytes[known.at as usize..].split_at(name_len);
        let is_it = known.class == key.class
            && name_len == name.len()
            && tags_len == tags.len()
            && equal(known_name, name)
            && equal(&rest[..tags_len], tags);
        is_it.then_some(known.slot)
    }

    /// The slot of a raw key in `buffer`, if it was seen before.
    pub fn find(&self, key: OpKey, buffer: &[u8]) -> Option<SlotId> {
        self.aliases
            .find(key.hash, |alias| {
                alias.hash == key.hash
                    && alias.class == key.class
                    && alias.bytes(&self.alias_bytes) == key.bytes(buffer)
            })
            .map(|alias| alias.slot)
    }

    /// Remembers that a raw key in `buffer` means `slot`, one of `slots` in all.
    pub fn add_alias(&mut self, key: OpKey, buffer: &[u8], slot: SlotId, slots: usize) {
        let (name, tags) = key.bytes(buffer);
        let bytes = self.alias_bytes.len() + name.len() + tags.len();
        if self.aliases.len() >= MIN_ALIASES.max(slots * MAX_ALIASES_PER_SLOT)
            || bytes > MIN_BYTES.max(slots * MAX_BYTES_PER_SLOT)
        {
            self.aliases.clear();
            self.alias_bytes.clear();
        }
        // Offsets have 32 bits. Past that spellings are looked up canonically every time,
        // until the next compaction.
        let Ok(at) = u32::try_from(self.alias_bytes.len()) else { return };
        self.alias_bytes.extend_from_slice(name);
        self.alias_bytes.extend_from_slice(tags);
        let (name_len, tags_len) = (name.len() as u16, tags.len() as u16); // as in a key
        let alias = Alias { hash: key.hash, at, slot, name_len, tags_len, class: key.class };
        self.aliases.insert_unique(alias.hash, alias, |alias| alias.hash);
    }

    /// The slot of a canonical key, if it has one; `key_of` gives the key of a slot.
    pub fn find_canonical<'a>(
        &self,
        key: &MetricKey,
        key_of: impl Fn(SlotId) -> &'a Arc<MetricKey>,
    ) -> Option<SlotId> {
        let hash = self.canonical_hasher.hash_one(key);
        self.canonical
            .find(hash, |&(known, slot)| known == hash && **key_of(slot) == *key)
            .map(|&(_, slot)| slot)
    }

    /// Gives a canonical key its slot; it must not have one yet.
    pub fn add_canonical(&mut self, key: &MetricKey, slot: SlotId) {
        let hash = self.canonical_hasher.hash_one(key);
        self.canonical.insert_unique(hash, (hash, slot), |&(hash, _)| hash);
    }

    /// Renumbers all slots: `new_id` tells the new number, or `None` for one that goes; `kept`
    /// is how many stay. Gives back the old tables: to free what is large takes long.
    pub fn renumber(&mut self, kept: usize, new_id: impl Fn(SlotId) -> Option<SlotId>) -> Interner {
        let room = kept.min(self.aliases.len());
        let mut new = Interner {
            aliases: HashTable::with_capacity(room),
            alias_bytes: Vec::new(),
            canonical: HashTable::with_capacity(kept),
            canonical_hasher: self.canonical_hasher.clone(),
        };
        for alias in &self.aliases {
            let Some(slot) = new_id(alias.slot) else { continue };
            let Ok(at) = u32::try_from(new.alias_bytes.len()) else { break };
            let (name, tags) = alias.bytes(&self.alias_bytes);
            new.alias_bytes.extend_from_slice(name);
            new.alias_bytes.extend_from_slice(tags);
            let alias = Alias { slot, at, ..*alias };
            new.aliases.insert_unique(alias.hash, alias, |alias| alias.hash);
        }
        for &(hash, slot) in &self.canonical {
            if let Some(slot) = new_id(slot) {
                new.canonical.insert_unique(hash, (hash, slot), |&(hash, _)| hash);
            }
        }
        std::mem::replace(self, new)
    }

    /// Spellings remembered.
    pub fn aliases(&self) -> usize {
        self.aliases.len()
    }
}

/// Whether two slices are equal that have the same length. Most are short, and a call to
/// compare them would cost more than comparing.
#[inline(always)]
fn equal(a: &[u8], b: &[u8]) -> bool {
    let (Some(last_a), Some(last_b)) = (a.last_chunk::<16>(), b.last_chunk::<16>()) else {
        return equal_few(a, b);
    };
    let (a, _) = a.as_chunks::<16>();
    let (b, _) = b.as_chunks::<16>();
    let difference = |a: &[u8; 16], b| u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(b);
    let all = a.iter().zip(b).fold(0, |all, (a, b)| all | difference(a, *b));
    all | difference(last_a, *last_b) == 0
}

#[inline(always)]
fn equal_few(a: &[u8], b: &[u8]) -> bool {
    match (a.first_chunk::<8>(), a.last_chunk::<8>()) {
        (Some(first), Some(last)) => b.first_chunk() == Some(first) && b.last_chunk() == Some(last),
        _ => a == b,
    }
}
