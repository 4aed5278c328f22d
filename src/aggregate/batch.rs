//! Samples on their way from a reader to a shard.
//!
//! A batch is a list of fixed-size operations beside the raw bytes of their keys: nothing in
//! it is split, checked or owned per sample, so filling it costs a copy and applying it lets
//! the shard's table probes overlap.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::model::{MetricKind, Weight};

/// One sample: 32 bytes, `Copy`. Its key bytes are in the batch.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Hash of kind, name and tag section; seeded per process.
    pub(super) hash: u64,
    /// The bits of a double, or for sets the 64-bit hash of the member.
    pub(super) value: u64,
    /// Where the key starts in [`Batch::keys`]: the name, then the tag section as received.
    pub(super) key_at: u32,
    pub(super) key_len: u16,
    pub(super) name_len: u16,
    pub(super) weight: Weight,
    pub(super) kind: MetricKind,
}

/// What a reader hands to a worker.
#[derive(Debug)]
pub struct Batch {
    pub(super) ops: Vec<Op>,
    pub(super) keys: Vec<u8>,
    /// Of each set sample in turn, or of none, the member's hash as Veneur 1.1.0 makes it.
    pub(super) legacy_hashes: Vec<u64>,
    /// When it was handed over, for the time it spends in the inbox.
    pub handed_over: Option<Instant>,
}

impl Batch {
    /// Operations a batch takes before it is handed over.
    pub const MAX_OPS: usize = 1024;
    /// Key bytes a batch takes before it is handed over.
    pub const MAX_KEY_BYTES: usize = 64 * 1024;

    /// An empty batch with room for `ops` operations and `key_bytes` bytes of keys.
    pub fn with_capacity(ops: usize, key_bytes: usize) -> Batch {
        Batch {
            ops: Vec::with_capacity(ops),
            keys: Vec::with_capacity(key_bytes),
            legacy_hashes: Vec::new(),
            handed_over: None,
        }
    }

    /// Appends the key of one line; follow it with [`Batch::push`] for each of its values.
    ///
    /// `None` if name and tag section together are longer than 65,535 bytes.
    #[inline]
    pub fn push_key(
        &mut self,
        hasher: KeyHasher,
        kind: MetricKind,
        name: &[u8],
        tags: &[u8],
    ) -> Option<OpKey> {
        let key_len = u16::try_from(name.len() + tags.len()).ok()?;
        let name_len = name.len() as u16; // not longer than `key_len`
        let key_at = self.keys.len();
        self.keys.extend_from_slice(name);
        self.keys.extend_from_slice(tags);
        let hash = hasher.hash(kind, name_len, &self.keys[key_at..]);
        Some(OpKey { hash, key_at: key_at as u32, key_len, name_len, kind })
    }

    /// Appends one sample of the key `push_key` gave.
    #[inline]
    pub fn push(&mut self, key: OpKey, value: u64, weight: Weight) {
        let OpKey { hash, key_at, key_len, name_len, kind } = key;
        self.ops.push(Op { hash, value, key_at, key_len, name_len, weight, kind });
    }

    /// Appends the second hash of the set sample just pushed: for all set samples of a batch,
    /// or for none.
    #[inline]
    pub fn push_legacy_hash(&mut self, hash: u64) {
        self.legacy_hashes.push(hash);
    }

    /// Samples in it.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Bytes of keys in it.
    pub fn key_bytes(&self) -> usize {
        self.keys.len()
    }

    /// Whether no sample is in it.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Whether it should be handed over.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.ops.len() >= Batch::MAX_OPS || self.keys.len() >= Batch::MAX_KEY_BYTES
    }
}

/// The part of an operation that all values of a line share.
#[derive(Clone, Copy, Debug)]
pub struct OpKey {
    hash: u64,
    key_at: u32,
    key_len: u16,
    name_len: u16,
    kind: MetricKind,
}

/// Hashes raw keys. The seed differs from process to process, so that nobody can prepare
/// keys that collide.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    seed: u64,
}

impl KeyHasher {
    /// With a random seed. All readers of a process share one.
    pub fn random() -> KeyHasher {
        KeyHasher { seed: RandomState::new().hash_one("veneur") }
    }

    /// Hash of a raw key, for the shard's table.
    #[inline]
    pub fn hash(self, kind: MetricKind, name_len: u16, key: &[u8]) -> u64 {
        let fields = (u64::from(name_len) << 8) | kind as u64;
        xxh3_64_with_seed(key, self.seed ^ fields.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }
}

/// Which of `shards` a name belongs to: by name alone, so that neither the order of tags nor
/// any rewriting of them can part equal keys. The same in every process.
#[inline]
pub fn shard_of(name: &[u8], shards: usize) -> usize {
    if shards == 1 {
        return 0;
    }
    let wide = u128::from(xxh3_64(name)) * shards as u128;
    (wide >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_has_32_bytes() {
        assert_eq!(size_of::<Op>(), 32);
    }

    #[test]
    fn a_key_longer_than_its_length_field_is_refused() {
        let mut batch = Batch::with_capacity(0, 0);
        let hasher = KeyHasher::random();
        let long = vec![b'a'; 65_535];
        assert!(batch.push_key(hasher, MetricKind::Counter, &long, b"").is_some());
        assert!(batch.push_key(hasher, MetricKind::Counter, &long, b"t").is_none());
    }

    #[test]
    fn the_border_between_name_and_tags_is_part_of_the_hash() {
        let hasher = KeyHasher::random();
        let one = hasher.hash(MetricKind::Counter, 2, b"abc");
        assert_ne!(one, hasher.hash(MetricKind::Counter, 1, b"abc"));
        assert_ne!(one, hasher.hash(MetricKind::Gauge, 2, b"abc"));
    }

    #[test]
    fn every_shard_gets_names() {
        for shards in [1, 2, 3, 7] {
            let mut names = vec![0; shards];
            for n in 0..1000 {
                names[shard_of(format!("service.{n}.requests").as_bytes(), shards)] += 1;
            }
            let fair = 1000 / shards;
            assert!(names.iter().all(|&n| n > fair / 2 && n < fair * 2), "{names:?}");
        }
    }
}
