//! A digest from what a peer sent: checked, since one NaN would spoil all it is merged into.

use super::{Centroid, Digest, fold, sum, total_weight, without_sign_of_zero};

/// The largest weight that is believed: beyond it, doubles no longer count by ones anyway.
const MAX_WEIGHT: f64 = 1e18;

/// What of a digest travels between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts<C = Vec<Centroid>> {
    /// In any order.
    pub centroids: C,
    /// The smallest sample; without centroids it means nothing.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Σ value · weight, if the peer knows better than Σ mean · weight.
    pub sum: Option<f64>,
    /// Σ weight / value, if the peer knows better than Σ weight / mean. May be infinite.
    pub reciprocal_sum: Option<f64>,
}

/// Why parts from a peer do not make a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// More centroids than any digest has.
    #[error("digest has too many centroids")]
    TooManyCentroids,
    /// A mean that is NaN or infinite.
    #[error("digest has a centroid whose mean is not finite")]
    NonFiniteMean,
    /// A weight that is NaN, infinite, not above 0, or beyond belief.
    #[error("digest has a centroid of impossible weight")]
    BadWeight,
    /// Minimum or maximum that is NaN or infinite, or in the wrong order.
    #[error("digest has impossible extremes")]
    BadExtremes,
}

impl Digest {
    /// The most centroids that parts may have; one of ours has at most 214.
    pub const MAX_PARTS_CENTROIDS: usize = 10_000;

    /// Puts a digest together. There may be more centroids than ours would be; extremes are
    /// widened to cover the means. No centroids make an empty digest.
    ///
    /// # Errors
    /// Anything that would spoil what it is merged into: see [`DigestError`].
    pub fn from_parts(parts: Parts) -> Result<Digest, DigestError> {
        let Parts { mut centroids, min, max, .. } = parts;
        if centroids.len() > Digest::MAX_PARTS_CENTROIDS {
            return Err(DigestError::TooManyCentroids);
        }
        if centroids.iter().any(|centroid| !centroid.mean.is_finite()) {
            return Err(DigestError::NonFiniteMean);
        }
        let weights_above_zero = centroids.iter().all(|centroid| centroid.weight > 0.0);
        let weight = total_weight(&centroids);
        if !weights_above_zero || weight.is_nan() || weight > MAX_WEIGHT {
            return Err(DigestError::BadWeight);
        }
        for centroid in &mut centroids {
            centroid.mean = without_sign_of_zero(centroid.mean);
        }
        if !centroids.is_sorted_by(|a, b| a.mean <= b.mean) {
            centroids.sort_by(|a, b| a.mean.total_cmp(&b.mean));
        }
        let (Some(first), Some(last)) = (centroids.first(), centroids.last()) else {
            return Ok(Digest::new());
        };
        if !(min.is_finite() && max.is_finite() && min <= max) {
            return Err(DigestError::BadExtremes);
        }
        let own_sum = parts.sum.filter(|sum| sum.is_finite());
        let sum = own_sum.unwrap_or_else(|| sum(&centroids));
        let reciprocal_sum = parts
            .reciprocal_sum
            .unwrap_or_else(|| centroids.iter().map(|c| 1.0 / c.mean * c.weight).sum());
        let mut digest = Digest {
            known_min: without_sign_of_zero(min.min(first.mean)),
            known_max: without_sign_of_zero(max.max(last.mean)),
            known_sum: without_sign_of_zero(sum),
            known_reciprocal_sum: without_sign_of_zero(reciprocal_sum),
            ..Digest::new()
        };
        if centroids.len() <= fold::MAX_CENTROIDS {
            digest.centroids = centroids;
            digest.folded_weight = weight;
        } else {
            digest.fold_list(&centroids, weight);
        }
        Ok(digest)
    }

    /// What travels; a digest made of it gives the same answers, bit for bit. An empty one
    /// has extremes that mean nothing.
    pub fn as_parts(&mut self) -> Parts<&[Centroid]> {
        self.compress();
        Parts {
            centroids: &self.centroids,
            min: self.known_min,
            max: self.known_max,
            sum: Some(self.known_sum),
            reciprocal_sum: Some(self.known_reciprocal_sum),
        }
    }

    /// The same, to be kept.
    pub fn to_parts(&mut self) -> Parts {
        let Parts { centroids, min, max, sum, reciprocal_sum } = self.as_parts();
        Parts { centroids: centroids.to_vec(), min, max, sum, reciprocal_sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn centroid(mean: f64, weight: f64) -> Centroid {
        Centroid { mean, weight }
    }

    fn parts(centroids: Vec<Centroid>, min: f64, max: f64) -> Parts {
        Parts { centroids, min, max, sum: None, reciprocal_sum: None }
    }

    #[test]
    fn parts_are_refused_when() {
        let fine = centroid(1.0, 2.0);
        for (centroids, min, max, error) in [
            (vec![fine; 10_001], 1.0, 1.0, DigestError::TooManyCentroids),
            (vec![fine, centroid(f64::NAN, 1.0)], 0.0, 2.0, DigestError::NonFiniteMean),
            (vec![centroid(f64::NEG_INFINITY, 1.0)], 0.0, 2.0, DigestError::NonFiniteMean),
            (vec![centroid(1.0, 0.0)], 0.0, 2.0, DigestError::BadWeight),
            (vec![fine, centroid(1.0, -1.0)], 0.0, 2.0, DigestError::BadWeight),
            (vec![centroid(1.0, f64::NAN)], 0.0, 2.0, DigestError::BadWeight),
            (vec![centroid(1.0, f64::INFINITY)], 0.0, 2.0, DigestError::BadWeight),
            (vec![centroid(1.0, 6e17), centroid(2.0, 6e17)], 1.0, 2.0, DigestError::BadWeight),
            (vec![fine], f64::NAN, 2.0, DigestError::BadExtremes),
            (vec![fine], 0.0, f64::INFINITY, DigestError::BadExtremes),
            (vec![fine], 2.0, 0.0, DigestError::BadExtremes),
        ] {
            assert_eq!(Digest::from_parts(parts(centroids, min, max)).err(), Some(error));
        }
    }

    #[test]
    fn parts_are_taken_as_they_are_as_far_as_possible() {
        let unsorted = vec![centroid(3.0, 1.0), centroid(1.0, 2.0)];
        let mut digest = Digest::from_parts(parts(unsorted, 2.0, 2.5)).expect("valid parts");
        assert_eq!(digest.centroids(), [centroid(1.0, 2.0), centroid(3.0, 1.0)]);
        assert_eq!((digest.min(), digest.max()), (Some(1.0), Some(3.0)), "widened");
        assert_eq!((digest.weight(), digest.sum()), (3.0, 5.0));
        assert_eq!(digest.reciprocal_sum(), 2.0 + 1.0 / 3.0);

        // Neither sign of zero is taken for a difference.
        let zeros = Digest::from_parts(parts(vec![centroid(-0.0, 1.0)], -0.0, -0.0));
        let mut zeros = zeros.expect("valid parts");
        assert_eq!(zeros.quantile(0.5).map(f64::to_bits), Some(0));
        assert_eq!(zeros.reciprocal_sum(), f64::INFINITY);

        // Veneur's empty digest.
        let empty = Digest::from_parts(parts(vec![], f64::INFINITY, f64::NEG_INFINITY));
        assert_eq!(empty.map(|mut digest| digest.quantile(0.5)), Ok(None));

        let many = (0..10_000).map(|i| centroid(f64::from(i), 1.0)).collect();
        let mut digest = Digest::from_parts(parts(many, 0.0, 9_999.0)).expect("valid parts");
        assert!(digest.centroids().len() <= fold::MAX_CENTROIDS);
        assert_eq!(digest.weight(), 10_000.0);
    }
}
