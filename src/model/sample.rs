//! How much one received sample counts.

/// How many real observations one received sample stands for: `1 / rate`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight(f64);

impl Weight {
    /// An unsampled observation.
    pub const ONE: Weight = Weight(1.0);

    /// `None` unless `0 < rate <= 1` (NaN included).
    ///
    /// The division is done in 32 bits, as Veneur does it: `1 / 0.1` is then exactly 10.
    #[inline(always)]
    pub fn from_rate(rate: f32) -> Option<Weight> {
        let weight = 1.0 / rate;
        (rate > 0.0 && rate <= 1.0 && weight.is_finite()).then_some(Weight(f64::from(weight)))
    }

    /// The same divided in 64 bits, as etsy's statsd and brubeck do it.
    pub fn from_exact_rate(rate: f64) -> Option<Weight> {
        let weight = 1.0 / rate;
        (rate > 0.0 && rate <= 1.0 && weight.is_finite()).then_some(Weight(weight))
    }

    /// Observations, at least 1.
    #[inline(always)]
    pub fn as_f64(self) -> f64 {
        self.0
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
        for rate in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY, 5e-324] {
            assert_eq!(Weight::from_exact_rate(rate), None, "{rate}");
        }
        assert_eq!(Weight::from_rate(0.1).map(Weight::as_f64), Some(10.0));
        assert_eq!(Weight::from_rate(1.0), Some(Weight::ONE));
        assert_eq!(Weight::from_exact_rate(0.3).map(Weight::as_f64), Some(1.0 / 0.3));
    }
}
