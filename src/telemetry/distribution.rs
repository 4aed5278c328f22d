//! Durations or amounts of one own series: raw samples for the next report, a summary for
//! `/metrics`.

use hdrhistogram::Histogram;

/// Raw samples kept between two reports. Beyond it every second one is dropped, then every
/// second of those that follow, and so on: memory is bounded, the rest stays evenly spread
/// over the interval, and the report says how many the kept ones stand for.
const MOST_SAMPLES: usize = 256;

/// Quantiles of a summary.
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Two digits: a quantile is within 1 % of a sample's value. More would cost ten times the
/// memory for each.
const SIGNIFICANT_DIGITS: u8 = 2;

/// What is larger counts as this: an hour in nanoseconds, or 3.6 TB.
const LARGEST: u64 = 3_600_000_000_000;

/// The samples of one series.
#[derive(Debug)]
pub(crate) struct Distribution {
    count: u64,
    sum: f64,
    /// Since the last report; every `stride`th of `seen`.
    pending: Vec<f64>,
    seen: u64,
    stride: u64,
    /// Of the present window and the one before. `None` until there is a sample.
    current: Option<Histogram<u32>>,
    previous: Option<Histogram<u32>>,
}

impl Default for Distribution {
    fn default() -> Self {
        Distribution {
            count: 0,
            sum: 0.0,
            pending: Vec::new(),
            seen: 0,
            stride: 1,
            current: None,
            previous: None,
        }
    }
}

impl Distribution {
    /// Takes one sample. What is not a finite number of at least 0 is not a size and ignored.
    pub(crate) fn record(&mut self, value: f64) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        self.count += 1;
        self.sum += value;
        let current = self.current.get_or_insert_with(new_histogram);
        // Rounded to whole units; an error would say that `LARGEST` does not fit in memory.
        let _fits = current.record((value.round() as u64).min(LARGEST));
        self.keep(value);
    }

    fn keep(&mut self, value: f64) {
        if self.seen.is_multiple_of(self.stride) {
            if self.pending.len() == MOST_SAMPLES {
                let mut index = 0;
                self.pending.retain(|_| {
                    index += 1;
                    index % 2 == 1
                });
                self.stride *= 2;
            }
            self.pending.push(value);
        }
        self.seen += 1;
    }

    /// The samples since the last call, `None` if there were none. `ends_window` says that
    /// quantiles now begin a new window.
    pub(crate) fn take_samples(&mut self, ends_window: bool) -> Option<Samples> {
        if ends_window {
            self.previous = self.current.take();
        }
        let samples = Samples { values: std::mem::take(&mut self.pending), seen: self.seen };
        (self.seen, self.stride) = (0, 1);
        (samples.seen > 0).then_some(samples)
    }

    /// Count and sum since the start, and quantiles of the present and the previous window.
    pub(crate) fn summary(&self) -> Summary {
        let mut recent = new_histogram();
        for window in self.previous.iter().chain(&self.current) {
            // Grows as needed, so it cannot fail: no window holds more than `LARGEST`.
            let _fits = recent.add(window);
        }
        let quantiles = match recent.is_empty() {
            true => Vec::new(),
            false => QUANTILES.map(|q| (q, recent.value_at_quantile(q) as f64)).to_vec(),
        };
        Summary { count: self.count, sum: self.sum, quantiles }
    }
}

fn new_histogram() -> Histogram<u32> {
    let mut histogram = Histogram::new(SIGNIFICANT_DIGITS).expect("2 digits are at most 5");
    // Starts with a few hundred bytes and grows to the largest value it sees.
    histogram.auto(true);
    histogram
}

/// What a report gets of one series: some samples, each standing for `seen / values.len()`.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// In order of arrival, at most 256. Never empty.
    pub values: Vec<f64>,
    /// How many there were.
    pub seen: u64,
}

/// What `/metrics` gets of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Samples since the start.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// Quantile (0 to 1) and value, over the recent past; empty without recent samples.
    pub quantiles: Vec<(f64, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_samples_are_kept_as_they_are() {
        let mut distribution = Distribution::default();
        for value in 0..MOST_SAMPLES {
            distribution.record(value as f64);
        }
        let samples = distribution.take_samples(false).expect("there were samples");
        assert_eq!(samples.seen, MOST_SAMPLES as u64);
        assert_eq!(samples.values, (0..MOST_SAMPLES).map(|n| n as f64).collect::<Vec<_>>());
        assert_eq!(distribution.take_samples(false), None);
    }

    #[test]
    fn of_many_samples_every_nth_is_kept() {
        let mut distribution = Distribution::default();
        for value in 0..1000 {
            distribution.record(f64::from(value));
        }
        let samples = distribution.take_samples(false).expect("there were samples");
        // At most 256 of 1000: every 4th, 250 of them.
        assert_eq!(samples.values, (0..250).map(|n| f64::from(4 * n)).collect::<Vec<_>>());
        assert_eq!(samples.seen, 1000);
        distribution.record(7.0);
        let next = distribution.take_samples(false).expect("there was a sample");
        assert_eq!(next, Samples { values: vec![7.0], seen: 1 });
    }

    #[test]
    fn a_summary_counts_exactly_and_its_quantiles_are_within_a_percent() {
        let mut distribution = Distribution::default();
        for millis in 1..=1000 {
            distribution.record(f64::from(millis) * 1e6);
        }
        let summary = distribution.summary();
        assert_eq!((summary.count, summary.sum), (1000, 500_500.0 * 1e6));
        for ((quantile, value), expected) in summary.quantiles.iter().zip([500e6, 900e6, 990e6]) {
            assert!((value / expected - 1.0).abs() <= 0.01, "{quantile}: {value}");
        }
    }

    #[test]
    fn what_is_no_size_is_ignored_and_what_is_too_large_is_cut() {
        let mut distribution = Distribution::default();
        for value in [f64::NAN, f64::INFINITY, -1.0] {
            distribution.record(value);
        }
        assert_eq!(distribution.summary().count, 0);
        distribution.record(1e300);
        let summary = distribution.summary();
        assert_eq!(summary.sum, 1e300);
        let (_, p99) = summary.quantiles[2];
        assert!((p99 / LARGEST as f64 - 1.0).abs() <= 0.01, "{p99}");
    }
}
