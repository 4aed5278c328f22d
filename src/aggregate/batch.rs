//! Samples on their way from a reader to a shard.
//!
//! A list of fixed-size operations beside the bytes their keys are in: nothing in it is split,
//! checked or owned per sample. As long as a reader still has what it received, its operations
//! point there ([`Ops`]); those that must wait have their keys copied ([`Batch`]).

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::class::Class;
use crate::model::text::offset;
use crate::model::{Dialect, MetricKey, MetricKind, Recorder, Weight};
use crate::protocol::classic;
use crate::sketch::member_hash;

/// The key of one or more operations: raw bytes in a buffer, name and tag section apart.
#[derive(Clone, Copy, Debug)]
pub struct OpKey {
    /// Hash of class, name and tag section; seeded per process.
    pub(super) hash: u64,
    /// Where the name starts in the buffer.
    name_at: u32,
    name_len: u16,
    /// How far behind the name the tag section as received starts.
    gap: u16,
    tags_len: u16,
    pub(super) class: Class,
    /// Of a classic sample: where it belongs, if its series is new.
    pub(super) recorder: Recorder,
    /// Of a classic gauge's: whether it changes the value rather than replaces it.
    pub(super) is_relative: bool,
}

impl OpKey {
    /// The key that `name` and `tags` are, both slices of `buffer` in this order; without tags
    /// they may be anywhere.
    ///
    /// `None` if one of them, or what is between them, is longer than 65,535 bytes.
    #[inline(always)]
    pub fn of(
        hasher: KeyHasher,
        buffer: &[u8],
        kind: MetricKind,
        name: &[u8],
        tags: &[u8],
    ) -> Option<OpKey> {
        OpKey::of_class(hasher, buffer, Class::of(kind), name, tags)
    }

    /// The same in any dialect.
    #[inline(always)]
    fn of_class(
        hasher: KeyHasher,
        buffer: &[u8],
        class: Class,
        name: &[u8],
        tags: &[u8],
    ) -> Option<OpKey> {
        let name_at = offset(buffer, name);
        let behind = || offset(buffer, tags).wrapping_sub(name_at + name.len());
        let gap = if tags.is_empty() { 0 } else { behind() };
        Some(OpKey {
            hash: hasher.hash(class, name, tags),
            name_at: u32::try_from(name_at).ok()?,
            name_len: u16::try_from(name.len()).ok()?,
            gap: u16::try_from(gap).ok()?,
            tags_len: u16::try_from(tags.len()).ok()?,
            class,
            recorder: Recorder::Counter,
            is_relative: false,
        })
    }

    /// Name and tag section, as received.
    #[inline(always)]
    pub(super) fn bytes(self, buffer: &[u8]) -> (&[u8], &[u8]) {
        let (name, rest) = buffer[self.name_at as usize..].split_at(usize::from(self.name_len));
        (name, &rest[usize::from(self.gap)..][..usize::from(self.tags_len)])
    }
}

/// One sample, `Copy`.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub(super) key: OpKey,
    /// The bits of a double, or for sets the 64-bit hash of the member.
    pub(super) value: u64,
    pub(super) weight: Weight,
}

/// Samples whose keys are in a buffer of somebody else's.
#[derive(Debug, Default)]
pub struct Ops {
    pub(super) list: Vec<Op>,
    /// Of each set sample in turn, or of none, the member's hash as Veneur 1.1.0 makes it.
    pub(super) legacy_hashes: Vec<u64>,
}

impl Ops {
    /// Appends one sample.
    #[inline(always)]
    pub fn push(&mut self, key: OpKey, value: u64, weight: Weight) {
        self.list.push(Op { key, value, weight });
    }

    /// Appends a sample of a classic line, which is in `buffer`. `None` if its name, its tags or
    /// what is between them are longer than a key can say.
    #[inline]
    pub fn push_classic(
        &mut self,
        hasher: KeyHasher,
        buffer: &[u8],
        class: Class,
        sample: &classic::Sample<'_>,
    ) -> Option<()> {
        let classic::Sample { name, tags, recorder, number, is_relative, text, weight } = *sample;
        let key = OpKey::of_class(hasher, buffer, class, name, tags)?;
        let value = match recorder {
            Recorder::Set => member_hash(text),
            _ => number.to_bits(),
        };
        self.push(OpKey { recorder, is_relative, ..key }, value, weight);
        Some(())
    }

    /// Appends the second hash of the set sample just pushed: for all set samples, or for none.
    #[inline]
    pub fn push_legacy_hash(&mut self, hash: u64) {
        self.legacy_hashes.push(hash);
    }

    /// Samples in it.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether no sample is in it.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Empties it; its memory stays.
    pub fn clear(&mut self) {
        self.list.clear();
        self.legacy_hashes.clear();
    }
}

/// Samples with their keys: what a reader hands to a worker.
#[derive(Debug, Default)]
pub struct Batch {
    ops: Ops,
    keys: Vec<u8>,
}

impl Batch {
    /// Operations a batch takes before it is handed over.
    pub const MAX_OPS: usize = 1024;
    /// Key bytes a batch takes before it is handed over.
    pub const MAX_KEY_BYTES: usize = 64 * 1024;

    /// An empty batch with room for `ops` operations and `key_bytes` bytes of keys.
    pub fn with_capacity(ops: usize, key_bytes: usize) -> Batch {
        let ops = Ops { list: Vec::with_capacity(ops), legacy_hashes: Vec::new() };
        Batch { ops, keys: Vec::with_capacity(key_bytes) }
    }

    /// Appends `ops`, whose keys are in `buffer`.
    pub fn copy_from(&mut self, ops: &Ops, buffer: &[u8]) {
        // Values of a packed line share their key.
        let mut last: Option<(OpKey, u32)> = None;
        for op in &ops.list {
            let name_at = match last {
                Some((key, at)) if key.name_at == op.key.name_at => at,
                _ => {
                    let (name, tags) = op.key.bytes(buffer);
                    let at = self.keys.len() as u32; // at most as many as in `buffer` more
                    self.keys.extend_from_slice(name);
                    self.keys.extend_from_slice(tags);
                    at
                }
            };
            last = Some((op.key, name_at));
            self.ops.list.push(Op { key: OpKey { name_at, gap: 0, ..op.key }, ..*op });
        }
        self.ops.legacy_hashes.extend_from_slice(&ops.legacy_hashes);
    }

    /// Its samples, and the buffer their keys are in.
    pub fn parts(&self) -> (&Ops, &[u8]) {
        (&self.ops, &self.keys)
    }

    /// Empties it; its memory stays.
    pub fn clear(&mut self) {
        self.ops.clear();
        self.keys.clear();
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
    #[inline(always)]
    pub fn hash(self, class: Class, name: &[u8], tags: &[u8]) -> u64 {
        let seed = xxh3_64_with_seed(name, self.seed ^ class as u64);
        xxh3_64_with_seed(tags, seed)
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

/// The same for a series: where its samples go.
pub fn shard_of_series(key: &MetricKey, shards: usize) -> usize {
    shard_of(&routed(key.dialect, key.name.as_bytes()), shards)
}

/// By what of a name its shard is chosen: spellings of one are to be in one.
pub(crate) fn routed(dialect: Dialect, name: &[u8]) -> Cow<'_, [u8]> {
    match dialect {
        Dialect::Etsy => classic::etsy::routed(name),
        Dialect::DogStatsD | Dialect::Brubeck => Cow::Borrowed(name),
    }
}

#[cfg(test)]
impl KeyHasher {
    /// The same each time, so that a later batch is known.
    pub(super) fn fixed() -> KeyHasher {
        KeyHasher { seed: 1 }
    }
}

#[cfg(test)]
impl Batch {
    /// Appends a sample of weight 1.
    pub(super) fn push(
        &mut self,
        hasher: KeyHasher,
        kind: MetricKind,
        key: (&str, &str),
        value: u64,
    ) {
        let buffer = [key.0, key.1].concat();
        let (name, tags) = buffer.as_bytes().split_at(key.0.len());
        let key = OpKey::of(hasher, buffer.as_bytes(), kind, name, tags).expect("it is short");
        let mut ops = Ops::default();
        ops.push(key, value, Weight::ONE);
        self.copy_from(&ops, buffer.as_bytes());
    }

    pub(super) fn push_legacy_hash(&mut self, hash: u64) {
        self.ops.push_legacy_hash(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(line: &str, name: usize, tags: std::ops::Range<usize>) -> Option<OpKey> {
        let (hasher, line) = (KeyHasher { seed: 1 }, line.as_bytes());
        OpKey::of(hasher, line, MetricKind::Counter, &line[..name], &line[tags])
    }

    #[test]
    fn an_operation_has_40_bytes() {
        assert_eq!(size_of::<Op>(), 40);
    }

    #[test]
    fn a_key_is_found_again_where_it_was_received_and_where_it_was_copied() {
        let line = "ab:1|c|#x:y";
        let key = key(line, 2, 8..11).expect("it is short");
        assert_eq!(key.bytes(line.as_bytes()), (&b"ab"[..], &b"x:y"[..]));
        let (mut ops, mut batch) = (Ops::default(), Batch::default());
        ops.push(key, 1, Weight::ONE);
        ops.push(key, 2, Weight::ONE);
        batch.copy_from(&ops, line.as_bytes());
        assert_eq!((batch.len(), batch.key_bytes()), (2, 5), "the key once");
        for op in &batch.ops.list {
            assert_eq!(op.key.bytes(&batch.keys), (&b"ab"[..], &b"x:y"[..]));
        }
    }

    #[test]
    fn a_key_whose_parts_are_longer_than_their_length_fields_is_refused() {
        let long = "a".repeat(200_000);
        let most = 65_535;
        assert!(key(&long, most, most..2 * most).is_some());
        assert!(key(&long, most + 1, 0..0).is_none());
        assert!(key(&long, 1, 1..most + 2).is_none());
        assert!(key(&long, 1, most + 1..most + 2).is_some());
        assert!(key(&long, 1, most + 2..most + 3).is_none());
    }

    #[test]
    fn kind_and_the_border_between_name_and_tags_are_part_of_the_hash() {
        let hasher = KeyHasher::random();
        let one = hasher.hash(Class::Counter, b"ab", b"c");
        assert_ne!(one, hasher.hash(Class::Counter, b"a", b"bc"));
        assert_ne!(one, hasher.hash(Class::Gauge, b"ab", b"c"));
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
