//! Weighted quantiles of a stream of values: a merging t-digest.
//!
//! Samples collect in a buffer; when it is full they are sorted and folded into a list of
//! centroids, finely at the ends and coarsely in the middle ([`fold`]). Quantiles are read
//! off that list ([`quantile`]). Weight, minimum and maximum stay exact, merged or not.
//!
//! A key that sees few samples stays small: nothing is allocated before the first sample, and
//! the buffer grows 16, 64, 256. Once it has grown, adding allocates nothing.
//!
//! Sources: Dunning and Ertl, Computing Extremely Accurate Quantiles Using t-Digests (2019),
//! scale function k1 with compression 100; [`Mode::Veneur`] follows Veneur's
//! `tdigest/merging_digest.go` step by step, for comparison with the real one.

mod fold;
mod parts;
mod quantile;
mod stored;

pub use parts::{DigestError, Parts};

use crate::model::Weight;

/// Samples that are buffered before they are folded.
const BUFFER: usize = 256;
/// The same in Veneur: ⌊7.5 + 0.37·100 − 0.0002·100²⌋.
const VENEUR_BUFFER: usize = 42;
/// Lists up to this long are buffered when merged, so that many of them are folded at once;
/// up to so many centroids together, to keep a global node's digests small.
const SHORT_LIST: usize = 16;
const MERGE_BUFFER: usize = 64;

/// Some neighbouring samples: how many, and their mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Centroid {
    /// Mean of the samples' values; finite.
    pub mean: f64,
    /// How many observations they stand for; above 0 and finite.
    pub weight: f64,
}

/// How a digest folds and interpolates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Buffers of 256; interpolation between centroid centres.
    #[default]
    Standard,
    /// Veneur's steps, buffers of 42: the same centroids and quantiles for the same input.
    Veneur,
}

/// A mergeable summary of the distribution of a stream of finite values.
#[derive(Clone, Debug)]
pub struct Digest {
    /// Folded samples, means ascending.
    centroids: Vec<Centroid>,
    /// Samples of weight 1 that are not folded yet; empty in Veneur mode.
    units: Vec<UnitSample>,
    /// Other samples that are not folded yet; in Veneur mode, all of them.
    weighted: Vec<Centroid>,
    /// Total weight of `centroids`.
    folded_weight: f64,
    /// Of all samples but those in `units`, merged ones included: the extremes (`INFINITY` and
    /// `NEG_INFINITY` without any), Σ value · weight and Σ weight / value.
    known_min: f64,
    known_max: f64,
    known_sum: f64,
    known_reciprocal_sum: f64,
    mode: Mode,
}

impl Default for Digest {
    fn default() -> Self {
        Digest::with(Mode::Standard)
    }
}

impl Digest {
    /// An empty digest; allocates nothing.
    pub fn new() -> Digest {
        Digest::default()
    }

    /// An empty digest of the given mode.
    pub fn with(mode: Mode) -> Digest {
        Digest {
            centroids: Vec::new(),
            units: Vec::new(),
            weighted: Vec::new(),
            folded_weight: 0.0,
            known_min: f64::INFINITY,
            known_max: f64::NEG_INFINITY,
            known_sum: 0.0,
            known_reciprocal_sum: 0.0,
            mode,
        }
    }

    /// Adds one sample. `value` must be finite: the parser and the importer see to it.
    #[inline]
    pub fn add(&mut self, value: f64, weight: Weight) {
        self.add_growing(value, weight);
    }

    /// The same; returns by how much [`Digest::heap_bytes`] has grown.
    #[inline]
    pub fn add_growing(&mut self, value: f64, weight: Weight) -> usize {
        debug_assert!(value.is_finite(), "a digest takes finite values only");
        let value = without_sign_of_zero(value);
        // In Veneur mode `units` has no capacity, so every sample takes the other way.
        if weight == Weight::ONE && self.units.len() < self.units.capacity() {
            self.units.push(UnitSample::from_value(value));
            0
        } else {
            self.add_with_room(value, weight)
        }
    }

    /// Adds everything in `other`. The result depends on the two digests alone; weight,
    /// minimum and maximum are exact.
    ///
    /// A longer list is folded in, in one pass over both; a short one is buffered first.
    pub fn merge(&mut self, other: &Digest) {
        self.widen(other.known_min, other.known_max);
        self.known_sum += other.known_sum;
        self.known_reciprocal_sum += other.known_reciprocal_sum;
        if other.centroids.len() > SHORT_LIST {
            self.fold_list(&other.centroids, other.folded_weight);
        } else {
            self.buffer(&other.centroids, MERGE_BUFFER);
        }
        for samples in other.weighted.chunks(SHORT_LIST) {
            self.buffer(samples, self.buffer_size());
        }
        for unit in &other.units {
            self.add(unit.value(), Weight::ONE);
        }
    }

    /// The value below which the share `q` (0 to 1) of the samples lies. `None` when empty.
    ///
    /// Digests of fewer than 50 centroids, and all in Veneur mode, answer exactly as Veneur
    /// does; see [`quantile`] for both rules.
    pub fn quantile(&mut self, q: f64) -> Option<f64> {
        self.compress();
        if self.centroids.is_empty() {
            return None;
        }
        let (min, max, total) = (self.known_min, self.known_max, self.folded_weight);
        if self.mode == Mode::Veneur || self.centroids.len() < quantile::FEW_CENTROIDS {
            return Some(quantile::by_midpoints(&self.centroids, min, max, q * total));
        }
        Some(quantile::by_centres(&self.centroids, min, max, q * total, total))
    }

    /// Folds what is buffered; does nothing if nothing is.
    pub fn compress(&mut self) {
        if !self.units.is_empty() {
            self.fold_units();
        }
        if !self.weighted.is_empty() {
            self.fold_weighted();
        }
    }

    /// The compressed list, means ascending; at most 214, usually fewer than 140.
    pub fn centroids(&mut self) -> &[Centroid] {
        self.compress();
        &self.centroids
    }

    /// Observations added, sampled ones counted as often as they stand for.
    pub fn weight(&self) -> f64 {
        self.folded_weight + self.units.len() as f64 + total_weight(&self.weighted)
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.centroids.is_empty() && self.units.is_empty() && self.weighted.is_empty()
    }

    /// The smallest value added.
    pub fn min(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.unit_values().fold(self.known_min, f64::min))
    }

    /// The largest value added.
    pub fn max(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.unit_values().fold(self.known_max, f64::max))
    }

    /// Σ value · weight. Of what a peer sent, Σ mean · weight, which differs by rounding only.
    pub fn sum(&self) -> f64 {
        self.known_sum + self.unit_values().sum::<f64>()
    }

    /// Σ weight / value: infinite once a value was 0, as in Veneur.
    pub fn reciprocal_sum(&self) -> f64 {
        self.known_reciprocal_sum + self.unit_values().map(|value| 1.0 / value).sum::<f64>()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        (self.centroids.capacity() + self.weighted.capacity()) * size_of::<Centroid>()
            + self.units.capacity() * size_of::<UnitSample>()
    }

    fn unit_values(&self) -> impl Iterator<Item = f64> {
        self.units.iter().map(|unit| unit.value())
    }

    /// The way of a sample that does not simply fit into `units`.
    #[inline(never)]
    fn add_with_room(&mut self, value: f64, weight: Weight) -> usize {
        let before = self.heap_bytes();
        if weight != Weight::ONE || self.mode == Mode::Veneur {
            self.add_weighted(value, weight.as_f64());
            return self.heap_bytes() - before;
        }
        match next_capacity(self.units.len()) {
            Some(capacity) => self.units.reserve_exact(capacity - self.units.len()),
            None => self.fold_units(),
        }
        self.units.push(UnitSample::from_value(value));
        self.heap_bytes() - before
    }

    fn add_weighted(&mut self, value: f64, weight: f64) {
        self.widen(value, value);
        self.known_sum += value * weight;
        self.known_reciprocal_sum += 1.0 / value * weight;
        self.buffer(&[Centroid { mean: value, weight }], self.buffer_size());
    }

    fn buffer_size(&self) -> usize {
        match self.mode {
            Mode::Standard => BUFFER,
            Mode::Veneur => VENEUR_BUFFER,
        }
    }

    /// Buffers samples or centroids whose extremes and sums are known already; folds the
    /// buffer before it would hold more than `full`.
    #[inline]
    fn buffer(&mut self, samples: &[Centroid], full: usize) {
        if self.weighted.len() + samples.len() > full {
            self.fold_weighted();
        }
        let needed = self.weighted.len() + samples.len();
        if needed > self.weighted.capacity() {
            let capacity = next_capacity(needed - 1).unwrap_or(needed);
            self.weighted.reserve_exact(capacity - self.weighted.len());
        }
        self.weighted.extend_from_slice(samples);
    }

    fn widen(&mut self, min: f64, max: f64) {
        self.known_min = self.known_min.min(min);
        self.known_max = self.known_max.max(max);
    }
}

/// The next size of a buffer of `capacity` samples; `None` when it is to be emptied instead.
fn next_capacity(capacity: usize) -> Option<usize> {
    [16, 64, BUFFER].into_iter().find(|&next| next > capacity)
}

/// Protobuf does not carry −0; as a sample it would also turn the reciprocal sum to NaN once
/// it meets 0.
#[inline]
fn without_sign_of_zero(value: f64) -> f64 {
    value + 0.0
}

fn total_weight(centroids: &[Centroid]) -> f64 {
    centroids.iter().map(|centroid| centroid.weight).sum()
}

fn sum(samples: &[Centroid]) -> f64 {
    samples.iter().map(|sample| sample.mean * sample.weight).sum()
}

/// A value as an integer of the same order, which sorts faster than a float.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnitSample(i64);

impl UnitSample {
    /// A negative float's bits descend as it ascends; turning all but the sign round fixes it.
    fn from_value(value: f64) -> UnitSample {
        UnitSample(turn(value.to_bits() as i64))
    }

    fn value(self) -> f64 {
        f64::from_bits(turn(self.0) as u64)
    }
}

fn turn(bits: i64) -> i64 {
    bits ^ (bits >> 63 & i64::MAX)
}

impl From<UnitSample> for Centroid {
    fn from(unit: UnitSample) -> Centroid {
        Centroid { mean: unit.value(), weight: 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(samples: impl IntoIterator<Item = f64>) -> Digest {
        let mut digest = Digest::new();
        samples.into_iter().for_each(|sample| digest.add(sample, Weight::ONE));
        digest
    }

    fn weight(observations: f32) -> Weight {
        Weight::from_rate(1.0 / observations).expect("tests use weights of at least 1")
    }

    #[test]
    fn memory_follows_the_number_of_samples() {
        assert_eq!(size_of::<Digest>(), 120);
        assert_eq!(Digest::new().heap_bytes(), 0);
        for (samples, buffer) in [(1, 16), (5, 16), (16, 16), (17, 64), (65, 256), (256, 256)] {
            let digest = digest_of((0..samples).map(f64::from));
            assert_eq!(digest.heap_bytes(), 8 * buffer, "{samples} samples");
        }
        for samples in [257, 1_000, 100_000] {
            let digest = digest_of((0..samples).map(|i| f64::from(i * 7919 % 100_003)));
            assert!(digest.heap_bytes() <= 8 * 256 + 16 * 257, "{samples} samples");
        }
    }

    #[test]
    fn weight_and_extremes_are_exact_at_any_moment() {
        let mut digest = Digest::new();
        assert_eq!((digest.weight(), digest.min(), digest.max()), (0.0, None, None));
        let (mut total, mut min, mut max) = (0.0, f64::INFINITY, f64::NEG_INFINITY);
        for i in 0..2_000u32 {
            let value = f64::from(i * 7919 % 2_003) - 1_000.0;
            let rated = [Weight::ONE, weight(2.0), Weight::ONE, weight(10.0)][i as usize % 4];
            digest.add(value, rated);
            total += rated.as_f64();
            min = value.min(min);
            max = value.max(max);
            assert_eq!(digest.weight(), total);
            assert_eq!((digest.min(), digest.max()), (Some(min), Some(max)));
        }
        assert_eq!(digest.centroids().iter().map(|c| c.weight).sum::<f64>(), total);
        assert_eq!((digest.quantile(0.0), digest.quantile(1.0)), (Some(min), Some(max)));
    }

    #[test]
    fn sums_are_kept() {
        let mut digest = digest_of([1.0, 2.0, 4.0]);
        digest.add(5.0, weight(10.0));
        assert_eq!((digest.sum(), digest.reciprocal_sum()), (57.0, 3.75));
        digest.compress();
        assert_eq!((digest.sum(), digest.reciprocal_sum()), (57.0, 3.75));
        digest.add(0.0, Weight::ONE);
        digest.add(-0.0, Weight::ONE);
        assert_eq!(digest.reciprocal_sum(), f64::INFINITY);
        // Whole numbers stay whole, folded or not.
        let mut digest = digest_of((1..=100_000).map(f64::from));
        digest.compress();
        assert_eq!(digest.sum(), 5_000_050_000.0);
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let samples = (0..10_000).map(|i| [f64::MAX, 1.0, f64::MIN, f64::MIN_POSITIVE][i % 4]);
        let mut digest = digest_of(samples);
        for q in [0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0] {
            let answer = digest.quantile(q).expect("it has samples");
            assert!(answer.is_finite(), "{q}: {answer}");
        }
        assert!(digest.centroids().iter().all(|c| c.mean.is_finite()));
    }

    #[test]
    fn equal_samples_give_exactly_their_value() {
        let mut digest = digest_of(std::iter::repeat_n(0.1, 100_000));
        for q in [0.0, 0.001, 0.3, 0.5, 0.999, 1.0] {
            assert_eq!(digest.quantile(q), Some(0.1));
        }
    }
}
