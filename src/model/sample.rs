//! How much one received sample counts.

/// How many real observations one received sample stands for: `1 / rate`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight(f32);

impl Weight {
    /// An unsampled observation.
    pub const ONE: Weight = Weight(1.0);

    /// `None` unless `0 < rate <= 1` (NaN included).
    ///
    /// The division is done in 32 bits, as Veneur does it: `1 / 0.1` is then exactly 10.
    pub fn from_rate(rate: f32) -> Option<Weight> {
        let weight = Weight(1.0 / rate);
        (rate > 0.0 && rate <= 1.0 && weight.0.is_finite()).then_some(weight)
    }

    /// Observations, at least 1.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_outside_zero_to_one_has_no_weight() {
        for rate in [0.0, -0.1, 1.1, f32::NAN, f32::INFINITY, 1e-45] {
            assert_eq!(Weight::from_rate(rate), None, "{rate}");
        }
        assert_eq!(Weight::from_rate(0.1).map(Weight::as_f64), Some(10.0));
        assert_eq!(Weight::from_rate(1.0), Some(Weight::ONE));
    }
}
