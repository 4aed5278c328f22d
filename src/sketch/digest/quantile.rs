//! Reading quantiles off a list of centroids.
//!
//! There are two rules, and the length of the list alone decides between them.
//!
//! *Centres*: half of a centroid's samples lie on each side of its mean, so the values run
//! in straight lines from mean to mean; a centroid of weight 1 is a sample and exact. This
//! halves the error of the other rule.
//!
//! *Midpoints*: a centroid's samples are spread evenly between the midpoints to its
//! neighbours. That is Veneur's rule, and ours for lists so short that hardly anything was
//! folded: what a few samples of an interval give is then exactly what Veneur gives. Up to
//! 127 samples of one weight are never folded (two of n fit into one reach of the scale only
//! if 2/n ≤ sin(π/200), which is so in its middle from n = 128 on), and more of them leave a
//! list longer than [`FEW_CENTROIDS`]: tested below. Only samples of very different weights
//! can fold into a shorter list, and there Veneur's rule does as well as the other.

use super::Centroid;

/// Lists shorter than this are read by midpoints.
pub(super) const FEW_CENTROIDS: usize = 50;

/// Veneur's rule, operation by operation (`MergingDigest.Quantile`): the value at rank
/// `target`, a weight from 0 to the total of the list.
pub(super) fn by_midpoints(centroids: &[Centroid], min: f64, max: f64, target: f64) -> f64 {
    let mut seen = 0.0;
    let mut lower = min;
    for (index, centroid) in centroids.iter().enumerate() {
        let upper = match centroids.get(index + 1) {
            Some(next) => f64::midpoint(next.mean, centroid.mean),
            None => max,
        };
        if target <= seen + centroid.weight {
            return between(lower, upper, (target - seen) / centroid.weight);
        }
        seen += centroid.weight;
        lower = upper;
    }
    max
}

/// Straight lines from centre to centre; centroids of weight 1 are flat, as are the extremes.
/// `target` is a rank from 0 to `total`, the weight of the list.
pub(super) fn by_centres(
    centroids: &[Centroid],
    min: f64,
    max: f64,
    target: f64,
    total: f64,
) -> f64 {
    // The extremes are samples too: each takes one observation, or half its centroid.
    let extreme = |centroid: Option<&Centroid>| centroid.map_or(0.0, |c| (c.weight / 2.0).min(1.0));
    let min_until = extreme(centroids.first());
    let max_from = total - extreme(centroids.last());
    if target <= min_until {
        return min;
    }
    if target >= max_from {
        return max;
    }
    let (mut left, mut left_value) = (min_until, min);
    let mut seen = 0.0;
    for centroid in centroids {
        let (right, flat_until) = match centroid.weight {
            1.0 => (seen, seen + 1.0),
            weight => (seen + weight / 2.0, seen + weight / 2.0),
        };
        if target < right {
            return between(left_value, centroid.mean, (target - left) / (right - left));
        }
        if target <= flat_until {
            return centroid.mean;
        }
        (left, left_value) = (flat_until, centroid.mean);
        seen += centroid.weight;
    }
    between(left_value, max, (target - left) / (max_from - left))
}

/// The value at `share` (0 to 1) of the way; finite even where the way is not.
fn between(from: f64, to: f64, share: f64) -> f64 {
    let way = to - from;
    if way.is_finite() { from + share * way } else { from * (1.0 - share) + to * share }
}

#[cfg(test)]
mod tests {
    use super::super::{Digest, Mode};
    use crate::model::Weight;

    fn weight(observations: f32) -> Weight {
        Weight::from_rate(1.0 / observations).expect("tables hold weights of at least 1")
    }

    #[test]
    fn small_digests_answer_exactly_as_veneur_does() {
        // From Veneur's own tests and captures: (value, weight) samples, q, answer.
        for (samples, q, answer) in [
            (&[(1., 1.), (2., 1.), (7., 1.), (8., 1.), (100., 1.)][..], 0.5, 6.0),
            (&[(1., 1.), (2., 1.), (7., 1.), (8., 1.), (100., 1.)], 0.75, 42.375),
            (&[(1., 1.), (2., 1.), (7., 1.), (8., 1.), (100., 1.)], 0.99, 97.7),
            (&[(5., 1.), (10., 1.), (15., 1.), (20., 1.), (25., 1.)], 0.9, 23.75),
            (&[(1., 1.), (2., 1.), (3., 1.)], 0.5, 2.0),
            (&[(5., 2.), (10., 2.), (20., 1.)], 0.5, 9.375),
            (&[(10., 10.), (20., 1.)], 0.5, 12.75),
            (&[(10., 10.), (20., 1.)], 0.99, 19.45),
        ] {
            for mode in [Mode::Standard, Mode::Veneur] {
                let mut digest = Digest::with(mode);
                for &(value, observations) in samples {
                    digest.add(value, weight(observations));
                }
                let got = digest.quantile(q).expect("the digest is not empty");
                assert!((got - answer).abs() < 1e-12, "{samples:?} at {q}, {mode:?}: {got}");
            }
        }
    }
}
