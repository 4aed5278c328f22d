//! Folding samples into centroids.
//!
//! Two ascending lists are walked together, and what fits is folded into the last centroid.
//! How much fits is set by the scale k1: with quantiles q as angles θ (sin θ = 2q − 1), a
//! centroid may reach from θ to θ + π/δ, which is little at the ends and much in the middle.
//!
//! Two neighbouring centroids together always exceed that reach, and the whole scale is δ
//! reaches long: so there are fewer than 2δ = 200 centroids, whatever comes in.

use std::f64::consts::PI;

use super::{
    Centroid, Digest, Mode, UnitSample, reciprocal_sum, reciprocal_sum_of_units, total_weight,
};

/// δ: Veneur's compression, and ours.
const COMPRESSION: f64 = 100.0;
/// One more than a folded list can have.
pub(super) const MAX_CENTROIDS: usize = 200;
/// A list up to this long gets the memory it needs, a longer one room for what usually
/// comes: folding 100,000 samples leaves about 130 centroids.
const SHORT_LIST: usize = 64;
const USUAL_LIST: usize = 160;

/// sin(π/δ), cos(π/δ) and (1 − cos(π/δ)) / 2.
const SIN: f64 = 0.031_410_759_078_128_29;
const COS: f64 = 0.999_506_560_365_731_6;
const FIRST: f64 = 0.000_246_719_817_134_221_5;

impl Digest {
    pub(super) fn fold_units(&mut self) {
        let mut units: Vec<UnitSample> = std::mem::take(&mut self.units);
        self.folded_reciprocal_sum += reciprocal_sum_of_units(&units);
        units.sort_unstable();
        if let (Some(first), Some(last)) = (units.first(), units.last()) {
            self.widen(first.value(), last.value());
        }
        self.fold_in(&units, units.len() as f64);
        units.clear();
        self.units = units;
    }

    pub(super) fn fold_weighted(&mut self) {
        let mut weighted = std::mem::take(&mut self.weighted);
        self.folded_reciprocal_sum += reciprocal_sum(&weighted);
        weighted
            .sort_unstable_by(|a, b| a.mean.total_cmp(&b.mean).then(a.weight.total_cmp(&b.weight)));
        if let (Some(first), Some(last)) = (weighted.first(), weighted.last()) {
            self.widen(first.mean, last.mean);
        }
        self.fold_in(&weighted, total_weight(&weighted));
        weighted.clear();
        self.weighted = weighted;
    }

    pub(super) fn widen(&mut self, min: f64, max: f64) {
        self.folded_min = self.folded_min.min(min);
        self.folded_max = self.folded_max.max(max);
    }

    /// Folds ascending samples or centroids of total weight `weight` into the list. Their
    /// extremes and reciprocal sum are the caller's.
    pub(super) fn fold_in<T: Copy + Into<Centroid>>(&mut self, incoming: &[T], weight: f64) {
        let total = self.folded_weight + weight;
        let mut list = [Centroid::default(); MAX_CENTROIDS];
        let length = match self.mode {
            Mode::Standard => fold_standard(&self.centroids, incoming, total, &mut list),
            Mode::Veneur => fold_as_veneur(&self.centroids, incoming, total, &mut list),
        };
        self.centroids.clear();
        if length > self.centroids.capacity() {
            let room = if length <= SHORT_LIST { length } else { length.max(USUAL_LIST) };
            self.centroids.reserve_exact(room);
        }
        self.centroids.extend_from_slice(&list[..length]);
        self.folded_weight = total_weight(&self.centroids);
    }
}

/// Visits both lists in ascending order; of equal means, the incoming first, as Veneur does.
#[inline(always)]
fn merge_ascending<T: Copy + Into<Centroid>>(
    centroids: &[Centroid],
    incoming: &[T],
    mut visit: impl FnMut(Centroid),
) {
    let (mut at, mut incoming_at) = (0, 0);
    while at < centroids.len() && incoming_at < incoming.len() {
        let (ours, theirs) = (centroids[at], incoming[incoming_at].into());
        let take_ours = ours.mean < theirs.mean;
        at += usize::from(take_ours);
        incoming_at += usize::from(!take_ours);
        visit(if take_ours { ours } else { theirs });
    }
    for &ours in &centroids[at..] {
        visit(ours);
    }
    for &theirs in &incoming[incoming_at..] {
        visit(theirs.into());
    }
}

/// Writes the folded list to `list` and returns its length.
///
/// The arcsine of the scale is not needed. A centroid that starts at weight b of W, that is
/// at angle θ, may end where sin(θ + h) = sin θ·cos h + cos θ·sin h with h = π/δ; as weight,
/// b·cos h + W·(1 − cos h)/2 + √(b·(W − b))·sin h.
fn fold_standard<T: Copy + Into<Centroid>>(
    centroids: &[Centroid],
    incoming: &[T],
    total: f64,
    list: &mut [Centroid; MAX_CENTROIDS],
) -> usize {
    let end_of_centroid_from = |start: f64| {
        if start >= total * (1.0 - FIRST) {
            return f64::INFINITY;
        }
        start * COS + total * FIRST + (start * (total - start)).sqrt() * SIN
    };
    let mut length = 0;
    let mut seen = 0.0;
    let mut end = 0.0;
    // The centroid being filled: its lowest and highest value, its weight, and
    // Σ (value − lowest)·weight, whose terms are never negative. So the mean lies between
    // the two whatever is rounded or overflows, and means ascend.
    let (mut lowest, mut highest, mut weight, mut excess) = (0.0, 0.0, 0.0, 0.0);
    let close = |lowest: f64, highest: f64, weight: f64, excess: f64| Centroid {
        mean: (lowest + excess / weight).min(highest),
        weight,
    };
    merge_ascending(centroids, incoming, |next| {
        let next_seen = seen + next.weight;
        if (next_seen > end && length < MAX_CENTROIDS - 1) || weight == 0.0 {
            if weight > 0.0 {
                list[length] = close(lowest, highest, weight, excess);
                length += 1;
            }
            end = end_of_centroid_from(seen);
            lowest = next.mean;
            weight = 0.0;
            excess = 0.0;
        }
        excess += (next.mean - lowest) * next.weight;
        weight += next.weight;
        highest = next.mean;
        seen = next_seen;
    });
    if weight > 0.0 {
        list[length] = close(lowest, highest, weight, excess);
        length += 1;
    }
    length
}

/// As Veneur's `mergeAllTemps`, operation by operation, so that every bit is the same.
fn fold_as_veneur<T: Copy + Into<Centroid>>(
    centroids: &[Centroid],
    incoming: &[T],
    total: f64,
    list: &mut [Centroid; MAX_CENTROIDS],
) -> usize {
    let scale = |q: f64| COMPRESSION * ((2.0 * q - 1.0).asin() / PI + 0.5);
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

    #[test]
    fn the_constants_are_those_of_the_compression() {
        let step = PI / COMPRESSION;
        assert!((SIN - step.sin()).abs() < 1e-16, "{}", step.sin());
        assert!((COS - step.cos()).abs() < 1e-15, "{}", step.cos());
        let first = (step / 2.0).sin().powi(2);
        assert!((FIRST - first).abs() < 1e-18, "{first:?}");
    }
}
