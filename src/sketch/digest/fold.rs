//! Folding samples into centroids.
//!
//! Two ascending lists are walked together, and what fits is folded into the last centroid.
//! How much fits is set by the scale k1: with quantiles q as angles θ (sin θ = 2q − 1), a
//! centroid may reach from θ to θ + π/δ, which is little at the ends and much in the middle.
//!
//! In standard mode a centroid also ends before a gap wider than 1/16 of the whole range:
//! where values come in two heaps (cache hits and misses), none lies between them, and no
//! quantile is taken from there. That cuts the worst error at such a median to a third.
//!
//! Two neighbours without such a gap between them always exceed the reach, and the whole
//! scale is δ reaches long: so at most 15 gaps make 16 runs of centroids, and all runs
//! together have fewer than δ disjoint pairs: 2·(δ − 1) + 16 = 214 centroids at most.

use std::f64::consts::PI;

use super::{Centroid, Digest, Mode, UnitSample, total_weight};

/// The most centroids a folded list can have.
pub(super) const MAX_CENTROIDS: usize = 214;
/// So many samples of one weight are never folded: two of n fit into one reach of the scale
/// only if 2/n ≤ sin(π/2δ), which is so in its middle from n = 128 on.
const NEVER_FOLDED: usize = 127;
/// Gaps wider than one part in so many of the range stay between centroids.
const GAPS: f64 = 16.0;
/// A list up to this long gets the memory it needs, a longer one room for what usually
/// comes: folding 100,000 samples leaves about 130 centroids.
const EXACT_ROOM: usize = 64;
const USUAL_ROOM: usize = 160;

/// sin(π/δ), cos(π/δ) and (1 − cos(π/δ)) / 2.
const SIN: f64 = 0.031_410_759_078_128_29;
const COS: f64 = 0.999_506_560_365_731_6;
const FIRST: f64 = 0.000_246_719_817_134_221_5;

impl Digest {
    /// δ: Veneur's compression, and ours.
    pub const COMPRESSION: f64 = 100.0;

    pub(super) fn fold_units(&mut self) {
        let mut units: Vec<UnitSample> = std::mem::take(&mut self.units);
        for value in units.iter().map(|unit| unit.value()) {
            self.known_sum += value;
            self.known_reciprocal_sum += 1.0 / value;
        }
        units.sort_unstable();
        if let (Some(first), Some(last)) = (units.first(), units.last()) {
            self.widen(first.value(), last.value());
        }
        if self.centroids.is_empty() && units.len() <= NEVER_FOLDED {
            self.centroids.reserve_exact(units.len());
            self.centroids.extend(units.iter().copied().map(Centroid::from));
            self.folded_weight = units.len() as f64;
        } else {
            self.fold_list(&units, units.len() as f64);
        }
        units.clear();
        self.units = units;
    }

    pub(super) fn fold_weighted(&mut self) {
        let mut weighted = std::mem::take(&mut self.weighted);
        weighted.sort_unstable_by(|a, b| a.mean.total_cmp(&b.mean));
        self.fold_list(&weighted, total_weight(&weighted));
        weighted.clear();
        self.weighted = weighted;
    }

    /// Folds ascending samples or centroids of total weight `weight` into the list. Extremes
    /// must cover them already.
    pub(super) fn fold_list<T: Copy + Into<Centroid>>(&mut self, incoming: &[T], weight: f64) {
        let total = self.folded_weight + weight;
        let mut list = [Centroid::default(); MAX_CENTROIDS];
        let length = match self.mode {
            Mode::Standard => {
                let widest_gap = (self.known_max - self.known_min) / GAPS;
                fold_standard(&self.centroids, incoming, total, widest_gap, &mut list)
            }
            Mode::Veneur => fold_as_veneur(&self.centroids, incoming, total, &mut list),
        };
        self.centroids.clear();
        if length > self.centroids.capacity() {
            let room = if length <= EXACT_ROOM { length } else { length.max(USUAL_ROOM) };
            self.centroids.reserve_exact(room);
        }
        self.centroids.extend_from_slice(&list[..length]);
        self.folded_weight = total;
    }
}

/// Visits both lists in ascending order; of equal means, the incoming first, as Veneur does.
#[inline(always)]
fn merge_ascending<T: Copy + Into<Centroid>>(
    mut centroids: &[Centroid],
    incoming: &[T],
    mut visit: impl FnMut(Centroid),
) {
    for &theirs in incoming {
        let theirs = theirs.into();
        while let [ours, rest @ ..] = centroids
            && ours.mean < theirs.mean
        {
            visit(*ours);
            centroids = rest;
        }
        visit(theirs);
    }
    for &ours in centroids {
        visit(ours);
    }
}

/// A list in the making, in standard mode; the last centroid is still open.
struct Folding<'a> {
    list: &'a mut [Centroid; MAX_CENTROIDS],
    length: usize,
    /// Total weight that will come, and has come.
    total: f64,
    seen: f64,
    /// The widest gap within a centroid.
    widest_gap: f64,
    /// Of the open centroid: the weight at which it must end, and what is in it. `excess` is
    /// Σ (value − lowest)·weight, whose terms are never negative: so the mean stays between
    /// `lowest` and `highest` whatever is rounded or overflows, and means ascend.
    end: f64,
    lowest: f64,
    highest: f64,
    weight: f64,
    excess: f64,
}

impl Folding<'_> {
    #[inline(always)]
    fn push(&mut self, next: Centroid) {
        let seen = self.seen + next.weight;
        // One jump for two reasons: the first is a coin toss, the second nearly never true.
        if (seen > self.end) | (next.mean - self.highest > self.widest_gap) {
            self.open(next.mean);
        }
        self.excess += (next.mean - self.lowest) * next.weight;
        self.weight += next.weight;
        self.highest = next.mean;
        self.seen = seen;
    }

    #[inline(always)]
    fn open(&mut self, lowest: f64) {
        if self.length == MAX_CENTROIDS {
            return;
        }
        self.close();
        self.length += 1;
        self.end = end_of_centroid(self.seen, self.total);
        self.lowest = lowest;
        self.weight = 0.0;
        self.excess = 0.0;
    }

    /// Writes the open centroid, if there is one.
    #[inline(always)]
    fn close(&mut self) {
        if let Some(index) = self.length.checked_sub(1) {
            let mean = (self.lowest + self.excess / self.weight).min(self.highest);
            self.list[index] = Centroid { mean, weight: self.weight };
        }
    }
}

/// Where a centroid must end that starts at weight b of W.
///
/// No arcsine is needed: from angle θ it reaches to θ + h with h = π/δ, and
/// sin(θ + h) = sin θ·cos h + cos θ·sin h; as weight,
/// b·cos h + W·(1 − cos h)/2 + √(b·(W − b))·sin h.
#[inline(always)]
fn end_of_centroid(start: f64, total: f64) -> f64 {
    if start >= total * (1.0 - FIRST) {
        return f64::INFINITY;
    }
    start * COS + total * FIRST + (start * (total - start)).sqrt() * SIN
}

/// Writes the folded list to `list` and returns its length.
fn fold_standard<T: Copy + Into<Centroid>>(
    centroids: &[Centroid],
    incoming: &[T],
    total: f64,
    widest_gap: f64,
    list: &mut [Centroid; MAX_CENTROIDS],
) -> usize {
    let mut folding = Folding {
        list,
        length: 0,
        total,
        seen: 0.0,
        widest_gap,
        end: f64::NEG_INFINITY,
        lowest: 0.0,
        highest: 0.0,
        weight: 0.0,
        excess: 0.0,
    };
    merge_ascending(centroids, incoming, |next| folding.push(next));
    folding.close();
    folding.length
}

/// As Veneur's `mergeAllTemps`, operation by operation, so that every bit is the same.
fn fold_as_veneur<T: Copy + Into<Centroid>>(
    centroids: &[Centroid],
    incoming: &[T],
    total: f64,
    list: &mut [Centroid; MAX_CENTROIDS],
) -> usize {
    let scale = |q: f64| Digest::COMPRESSION * ((2.0 * q - 1.0).asin() / PI + 0.5);
    let mut length = 0;
    let mut seen = 0.0;
    let mut start = 0.0;
    merge_ascending(centroids, incoming, |next| {
        let fits = scale((seen + next.weight) / total) - start <= 1.0;
        if length == 0 || (!fits && length < MAX_CENTROIDS) {
            list[length] = next;
            length += 1;
            start = scale(seen / total);
        } else {
            let last = &mut list[length - 1];
            last.weight += next.weight;
            last.mean += (next.mean - last.mean) * next.weight / last.weight;
        }
        seen += next.weight;
    });
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Weight;

    /// `count` values in an order that looks random; distinct if `count` is below 100,003.
    fn shuffled(count: u32) -> impl Iterator<Item = f64> {
        (0..count).map(|i| f64::from(i.wrapping_mul(7919) % 100_003))
    }

    fn digest_of(samples: impl Iterator<Item = f64>) -> Digest {
        let mut digest = Digest::new();
        samples.for_each(|sample| digest.add(sample, Weight::ONE));
        digest
    }

    #[test]
    fn up_to_127_samples_of_one_weight_are_kept_as_they_are() {
        for weight in [Weight::ONE, Weight::from_rate(0.1).expect("a valid rate")] {
            for count in 1..=127 {
                let mut digest = Digest::new();
                shuffled(count).for_each(|sample| digest.add(sample, weight));
                assert_eq!(digest.centroids().len(), count as usize);
            }
        }
        assert!(digest_of(shuffled(128)).centroids().len() < 128);
    }

    /// So the length of a list tells whether something was folded: see [`super::quantile`].
    #[test]
    fn more_samples_of_similar_weight_leave_no_short_list() {
        let rates = [1.0, 0.5, 0.1].map(|rate| Weight::from_rate(rate).expect("a valid rate"));
        for count in (128..1_500).chain([10_000, 100_000]) {
            let mut digest = digest_of(shuffled(count));
            assert!(digest.centroids().len() >= 50, "{count} samples");
            let mut digest = Digest::new();
            let weights = rates.iter().cycle();
            shuffled(count).zip(weights).for_each(|(sample, weight)| digest.add(sample, *weight));
            assert!(digest.centroids().len() >= 50, "{count} samples of several weights");
        }
    }

    #[test]
    fn a_wide_gap_stays_between_two_centroids() {
        let low = shuffled(491).map(|sample| sample / 100_003.0);
        let high = shuffled(509).map(|sample| 100.0 + sample / 100_003.0);
        let mut digest = digest_of(low.chain(high));
        let below: f64 =
            digest.centroids().iter().filter(|c| c.mean < 50.0).map(|c| c.weight).sum();
        assert_eq!(below, 491.0);
        assert!(digest.centroids().iter().all(|c| c.mean < 1.0 || c.mean > 100.0));
    }

    #[test]
    fn folding_a_folded_list_again_changes_nothing() {
        for count in [10, 127, 128, 300, 1_000, 10_000, 100_000] {
            let mut digest = digest_of(shuffled(count));
            digest.compress();
            let mut merged = Digest::new();
            merged.merge(&digest);
            assert_eq!(merged.centroids(), digest.centroids(), "{count} samples");
        }
    }

    #[test]
    fn the_constants_are_those_of_the_compression() {
        let step = PI / Digest::COMPRESSION;
        assert!((SIN - step.sin()).abs() < 1e-16, "{}", step.sin());
        assert!((COS - step.cos()).abs() < 1e-15, "{}", step.cos());
        let first = (step / 2.0).sin().powi(2);
        assert!((FIRST - first).abs() < 1e-18, "{first:?}");
    }
}
