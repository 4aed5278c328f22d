//! The values a digest series is finished into, and what they are called.

/// An aggregate of the samples received here, chosen by the `aggregates` key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Statistic {
    /// `.max`
    Max,
    /// `.min`
    Min,
    /// `.sum`: weighted by the sample rate.
    Sum,
    /// `.avg`: sum by count.
    Avg,
    /// `.count`: weighted by the sample rate.
    Count,
    /// `.median`: the 50th percentile of the samples received here.
    Median,
    /// `.hmean`: the harmonic mean; 0 once a sample was 0.
    Hmean,
}

impl Statistic {
    /// All of them, in the order Veneur emits them.
    pub const ALL: [Statistic; 7] = [
        Statistic::Max,
        Statistic::Min,
        Statistic::Sum,
        Statistic::Avg,
        Statistic::Count,
        Statistic::Median,
        Statistic::Hmean,
    ];

    /// What `aggregates` is if not configured, as in Veneur.
    pub const DEFAULT: [Statistic; 3] = [Statistic::Max, Statistic::Min, Statistic::Count];

    /// The word in the configuration, and behind the dot in the point's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Statistic::Max => "max",
            Statistic::Min => "min",
            Statistic::Sum => "sum",
            Statistic::Avg => "avg",
            Statistic::Count => "count",
            Statistic::Median => "median",
            Statistic::Hmean => "hmean",
        }
    }
}

/// A quantile in 0..=1, chosen by the `percentiles` key.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percentile(f64);

impl Percentile {
    /// What `percentiles` is if not configured. Veneur has no default.
    pub const DEFAULT: [Percentile; 3] = [Percentile(0.5), Percentile(0.75), Percentile(0.99)];

    /// `None` unless `0 <= quantile <= 1` (NaN included).
    pub fn new(quantile: f64) -> Option<Percentile> {
        (0.0..=1.0).contains(&quantile).then_some(Percentile(quantile))
    }

    /// The quantile, 0 to 1.
    pub fn quantile(self) -> f64 {
        self.0
    }

    /// What its points' names end in: `.99percentile`, and `.99.9percentile` for 0.999.
    ///
    /// Veneur cuts to whole percents, so that 0.999 collides with 0.99 and 0.29 is called 28.
    /// Here up to nine decimals of the percentage count.
    pub fn suffix(self) -> String {
        let percent = format!("{:.9}", self.0 * 100.0);
        let percent = percent.trim_end_matches('0').trim_end_matches('.');
        format!(".{percent}percentile")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_called_by_its_exact_percentage() {
        for (quantile, suffix) in [
            (0.0, ".0percentile"),
            (0.29, ".29percentile"),
            (0.57, ".57percentile"),
            (0.5, ".50percentile"),
            (0.999, ".99.9percentile"),
            (0.9999, ".99.99percentile"),
            (1.0, ".100percentile"),
        ] {
            let percentile = Percentile::new(quantile).expect("the table stays within 0..=1");
            assert_eq!(percentile.suffix(), suffix);
        }
        assert_eq!(Percentile::new(1.01), None);
        assert_eq!(Percentile::new(f64::NAN), None);
    }
}
