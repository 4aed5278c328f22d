//! From raw key bytes to the slot of a series.
//!
//! Two tables. The *alias* table maps the bytes a client sent (kind, name, unsplit tag
//! section) to a slot: that is all the hot path does, one probe and one comparison. The
//! *canonical* table maps a [`MetricKey`] to its slot and is asked only for bytes not seen
//! before: `a:1,b:2` and `b:2,a:1` become two aliases of one slot, and neither is sorted
//! again. Equality is always on bytes; a hash only finds the place to look.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;

use super::batch::Op;
use crate::model::{MetricKey, MetricKind};

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
    len: u16,
    name_len: u16,
    kind: MetricKind,
}

impl Alias {
    fn bytes<'a>(&self, all: &'a [u8]) -> &'a [u8] {
        &all[self.at as usize..][..usize::from(self.len)]
    }
}

impl Interner {
    /// The slot of these raw key bytes, if they were seen before.
    #[inline]
    pub fn find(&self, op: &Op, key: &[u8]) -> Option<SlotId> {
        self.aliases
            .find(op.hash, |alias| {
                alias.hash == op.hash
                    && alias.name_len == op.name_len
                    && alias.kind == op.kind
                    && alias.bytes(&self.alias_bytes) == key
            })
            .map(|alias| alias.slot)
    }

    /// Remembers that these raw key bytes mean `slot`, one of `slots` in all.
    pub fn add_alias(&mut self, op: &Op, key: &[u8], slot: SlotId, slots: usize) {
        let bytes = self.alias_bytes.len() + key.len();
        if self.aliases.len() >= MIN_ALIASES.max(slots * MAX_ALIASES_PER_SLOT)
            || bytes > MIN_BYTES.max(slots * MAX_BYTES_PER_SLOT)
        {
            self.aliases.clear();
            self.alias_bytes.clear();
        }
        // Offsets have 32 bits. Past that spellings are looked up canonically every time,
        // until the next compaction.
        let Ok(at) = u32::try_from(self.alias_bytes.len()) else { return };
        self.alias_bytes.extend_from_slice(key);
        let alias = Alias {
            hash: op.hash,
            at,
            slot,
            len: op.key_len,
            name_len: op.name_len,
            kind: op.kind,
        };
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

    /// Renumbers all slots: `new_id` tells the new number, or `None` for one that goes.
    pub fn renumber(&mut self, new_id: impl Fn(SlotId) -> Option<SlotId>) {
        let mut kept_bytes = Vec::new();
        let old_bytes = std::mem::take(&mut self.alias_bytes);
        self.aliases.retain(|alias| {
            let (Some(slot), Ok(at)) = (new_id(alias.slot), u32::try_from(kept_bytes.len())) else {
                return false;
            };
            kept_bytes.extend_from_slice(alias.bytes(&old_bytes));
            alias.slot = slot;
            alias.at = at;
            true
        });
        self.alias_bytes = kept_bytes;
        self.canonical.retain(|(_, slot)| match new_id(*slot) {
            Some(new) => {
                *slot = new;
                true
            }
            None => false,
        });
        self.aliases.shrink_to_fit(|alias| alias.hash);
        self.canonical.shrink_to_fit(|&(hash, _)| hash);
    }

    /// Spellings remembered.
    pub fn aliases(&self) -> usize {
        self.aliases.len()
    }
}
