//! A digest as bytes for this program itself: every field ([`crate::sketch::stored`]).
//!
//! ```text
//! centroids  units  weighted        lists, a number of 32 bits before each
//! folded_weight(8) min(8) max(8) sum(8) reciprocal_sum(8)
//! ```

use super::{BUFFER, Digest, Mode, UnitSample, fold};
use crate::sketch::stored::{Reader, Writer, centroids, put_centroids, put_values, values};

impl Digest {
    /// Appends all of it. Digests in [`Mode::Veneur`] are for comparisons, and not stored.
    pub fn store(&self, into: &mut Vec<u8>) {
        debug_assert!(self.mode == Mode::Standard, "those of comparisons are not kept");
        put_centroids(into, &self.centroids);
        put_values(into, self.units.iter().map(|unit| unit.value()));
        put_centroids(into, &self.weighted);
        for number in [
            self.folded_weight,
            self.known_min,
            self.known_max,
            self.known_sum,
            self.known_reciprocal_sum,
        ] {
            into.put_f64(number);
        }
    }

    /// Reads what [`Digest::store`] wrote; `None` for anything else.
    pub fn restore(from: &mut Reader<'_>) -> Option<Digest> {
        let list = centroids(from)?;
        let units: Vec<UnitSample> =
            values(from)?.into_iter().map(UnitSample::from_value).collect();
        let weighted = centroids(from)?;
        let is_sound = list.len() <= fold::MAX_CENTROIDS
            && list.is_sorted_by(|a, b| a.mean <= b.mean)
            && units.len() <= BUFFER
            && weighted.len() <= BUFFER;
        let digest = Digest {
            centroids: list,
            units,
            weighted,
            folded_weight: from.f64()?,
            known_min: from.f64()?,
            known_max: from.f64()?,
            known_sum: from.f64()?,
            known_reciprocal_sum: from.f64()?,
            mode: Mode::Standard,
        };
        let weight = digest.folded_weight;
        (is_sound
            && weight >= 0.0
            && weight.is_finite()
            && !digest.known_min.is_nan()
            && !digest.known_max.is_nan())
        .then_some(digest)
    }
}
