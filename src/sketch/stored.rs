//! Sketches as bytes for this program itself, started anew: nothing of them is lost.
//!
//! What travels between nodes is less: a digest is folded before it is sent, and of a set's
//! registers the wire form cuts some. Here a restored sketch is in every field what it was, so
//! that an interval goes on where it ended. Numbers are little-endian. The bytes carry no checksum
//! of their own; whoever stores them has one. Reading believes nothing that could spoil a sketch
//! or take more memory than the bytes themselves.

use super::Centroid;

/// Reads what was written with [`Writer`].
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// From the first of these bytes.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `length` bytes; `None` if there are fewer.
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    /// A number of 32 bits.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number of 64 bits.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A double, bit for bit.
    pub fn f64(&mut self) -> Option<f64> {
        self.u64().map(f64::from_bits)
    }

    /// A list as long as the number before it says, each item of so many bytes.
    fn list<T>(
        &mut self,
        bytes_each: usize,
        item: impl Fn(&mut Reader<'a>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let count = self.u32()? as usize;
        let mut items = Reader(self.take(count.checked_mul(bytes_each)?)?);
        (0..count).map(|_| item(&mut items)).collect()
    }
}

/// Appends to bytes what [`Reader`] reads.
pub trait Writer {
    /// A number of 32 bits.
    fn put_u32(&mut self, number: u32);
    /// A number of 64 bits.
    fn put_u64(&mut self, number: u64);
    /// A double, bit for bit.
    fn put_f64(&mut self, number: f64);
}

impl Writer for Vec<u8> {
    fn put_u32(&mut self, number: u32) {
        self.extend_from_slice(&number.to_le_bytes());
    }

    fn put_u64(&mut self, number: u64) {
        self.extend_from_slice(&number.to_le_bytes());
    }

    fn put_f64(&mut self, number: f64) {
        self.put_u64(number.to_bits());
    }
}

/// How long a list is. Those of sketches are short.
fn put_length(into: &mut Vec<u8>, length: usize) {
    into.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

pub(super) fn put_centroids(into: &mut Vec<u8>, centroids: &[Centroid]) {
    put_length(into, centroids.len());
    for Centroid { mean, weight } in centroids {
        into.put_f64(*mean);
        into.put_f64(*weight);
    }
}

/// `None` also for centroids that no digest has.
pub(super) fn centroids(from: &mut Reader<'_>) -> Option<Vec<Centroid>> {
    let centroids =
        from.list(16, |from| Some(Centroid { mean: from.f64()?, weight: from.f64()? }))?;
    let is_sound = |it: &Centroid| it.mean.is_finite() && it.weight > 0.0 && it.weight.is_finite();
    centroids.iter().all(is_sound).then_some(centroids)
}

pub(super) fn put_words(into: &mut Vec<u8>, words: impl ExactSizeIterator<Item = u32>) {
    put_length(into, words.len());
    words.for_each(|word| into.put_u32(word));
}

pub(super) fn words(from: &mut Reader<'_>) -> Option<Vec<u32>> {
    from.list(4, Reader::u32)
}

/// Values behind their number.
pub fn put_values(into: &mut Vec<u8>, values: impl ExactSizeIterator<Item = f64>) {
    put_length(into, values.len());
    values.for_each(|value| into.put_f64(value));
}

/// Reads them; `None` also for values that are not finite.
pub fn values(from: &mut Reader<'_>) -> Option<Vec<f64>> {
    let values = from.list(8, Reader::f64)?;
    values.iter().all(|value| value.is_finite()).then_some(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Weight;
    use crate::sketch::{Cardinality, Digest, LegacySet};

    fn digest(samples: &[(f64, bool)]) -> Digest {
        let half = Weight::from_rate(0.5).expect("0.5 is a rate");
        let mut digest = Digest::new();
        for &(value, is_sampled) in samples {
            digest.add(value, if is_sampled { half } else { Weight::ONE });
        }
        digest
    }

    fn stored(store: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        store(&mut bytes);
        bytes
    }

    proptest! {
        /// store(restore(store(digest))) == store(digest), which has every field; and what is
        /// added afterwards makes the same of both.
        #[test]
        fn a_digest_goes_on_where_it_ended(
            samples in prop::collection::vec((-1e9..1e9f64, any::<bool>()), 0..1500),
            more in prop::collection::vec((-1e9..1e9f64, any::<bool>()), 0..300),
        ) {
            let mut before = digest(&samples);
            let bytes = stored(|into| before.store(into));
            let mut reader = Reader::new(&bytes);
            let mut after = Digest::restore(&mut reader).expect("it was stored");
            prop_assert!(reader.is_empty());
            prop_assert_eq!(stored(|into| after.store(into)), bytes);
            for digest in [&mut before, &mut after] {
                more.iter().for_each(|&(value, _)| digest.add(value, Weight::ONE));
            }
            prop_assert_eq!(before.to_parts(), after.to_parts());
        }

        /// A set is the same with its members, few or many.
        #[test]
        fn a_set_is_what_it_was(members in 0..6000u64, seed: u64) {
            let hash = |n: u64| (n ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31);
            let (mut set, mut legacy) = (Cardinality::new(), LegacySet::default());
            for n in 0..members {
                set.insert_hash(hash(n).wrapping_mul(0xBF58_476D_1CE4_E5B9));
                legacy.insert_hash(hash(n));
            }
            let bytes = stored(|into| set.store(into));
            prop_assert_eq!(Cardinality::restore(&mut Reader::new(&bytes)), Some(set));
            let bytes = stored(|into| legacy.store(into));
            let mut after = LegacySet::restore(&mut Reader::new(&bytes)).expect("it was stored");
            prop_assert_eq!(after.encode(), legacy.encode());
        }

        /// No bytes make reading panic, and none make a sketch that does.
        #[test]
        fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(mut digest) = Digest::restore(&mut Reader::new(&bytes)) {
                digest.add(1.0, Weight::ONE);
                digest.quantile(0.5);
            }
            Cardinality::restore(&mut Reader::new(&bytes)).map(|set| set.estimate());
            if let Some(mut set) = LegacySet::restore(&mut Reader::new(&bytes)) {
                set.encode();
            }
        }

        /// What is cut short is not read.
        #[test]
        fn a_part_is_nothing(samples in prop::collection::vec((0.0..9.0f64, any::<bool>()), 1..400), at: prop::sample::Index) {
            let bytes = stored(|into| digest(&samples).store(into));
            let cut = &bytes[..at.index(bytes.len())];
            prop_assert!(Digest::restore(&mut Reader::new(cut)).is_none());
        }
    }

    #[test]
    fn a_large_legacy_set_is_what_it_was() {
        let mut legacy = LegacySet::default();
        for n in 0..300_000u64 {
            legacy.insert_hash(n.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        }
        let bytes = stored(|into| legacy.store(into));
        let mut after = LegacySet::restore(&mut Reader::new(&bytes)).expect("it was stored");
        assert_eq!(after.encode(), legacy.encode());
    }
}
