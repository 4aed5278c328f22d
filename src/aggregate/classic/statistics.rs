//! What a classic timer is finished into, and what that is called.
//!
//! Source: etsy's `lib/process_metrics.js`, and `src/histogram.c` of brubeck, whose ranks are
//! 32-bit numbers: 0.95 of ten samples is then the tenth, not the ninth.

use super::timings::{Sums, Timings};
use crate::model::{Bins, EtsyStatistics, PointKind, Suffix, Suffixes};

/// Takes one finished value after the other.
pub(in crate::aggregate) trait Emit {
    /// One of them.
    fn emit(&mut self, suffix: Suffix, kind: PointKind, value: f64);
}

/// The suffixes of etsy's statistics, made once; `None` where one is not wanted.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::aggregate) struct EtsyPlan {
    lower: Option<Suffix>,
    upper: Option<Suffix>,
    count: Option<Suffix>,
    count_ps: Option<Suffix>,
    sum: Option<Suffix>,
    sum_squares: Option<Suffix>,
    mean: Option<Suffix>,
    median: Option<Suffix>,
    std: Option<Suffix>,
    thresholds: Vec<Threshold>,
    histogram: Vec<(String, Vec<Bin>)>,
}

/// The upper limit of a bin, and what it is called.
type Bin = (f64, Option<Suffix>);

#[derive(Clone, Debug, PartialEq)]
struct Threshold {
    percent: f64,
    count: Option<Suffix>,
    mean: Option<Suffix>,
    /// `upper_` or, of the largest, `lower_`.
    boundary: Option<Suffix>,
    sum: Option<Suffix>,
    sum_squares: Option<Suffix>,
}

impl EtsyPlan {
    pub(in crate::aggregate) fn new(chosen: &EtsyStatistics, suffixes: &mut Suffixes) -> EtsyPlan {
        let is_wanted =
            |word: &str| chosen.only.is_empty() || chosen.only.iter().any(|only| only == word);
        let mut suffix = |word: &str, text: &str| match is_wanted(word) {
            true => suffixes.add(&format!(".{text}")),
            false => None,
        };
        let thresholds = chosen.thresholds.iter().map(|&percent| {
            let name = percent.to_string().replacen('.', "_", 1).replacen('-', "top", 1);
            let mut of = |stat: &str| suffix(&format!("{stat}_percent"), &format!("{stat}_{name}"));
            Threshold {
                percent,
                count: of("count"),
                mean: of("mean"),
                boundary: of(if percent > 0.0 { "upper" } else { "lower" }),
                sum: of("sum"),
                sum_squares: of("sum_squares"),
            }
        });
        let thresholds = thresholds.collect();
        let histogram = chosen.histogram.iter().map(|Bins { metric, limits }| {
            let bins = limits.iter().map(|&limit| {
                let name = format!("bin_{limit}").replacen('.', "_", 1);
                (limit, suffix("histogram", &format!("histogram.{name}")))
            });
            (metric.clone(), bins.collect())
        });
        let histogram = histogram.collect();
        EtsyPlan {
            thresholds,
            histogram,
            lower: suffix("lower", "lower"),
            upper: suffix("upper", "upper"),
            count: suffix("count", "count"),
            count_ps: suffix("count_ps", "count_ps"),
            sum: suffix("sum", "sum"),
            sum_squares: suffix("sum_squares", "sum_squares"),
            mean: suffix("mean", "mean"),
            median: suffix("median", "median"),
            std: suffix("std", "std"),
        }
    }

    /// Finishes what the timer `name` has accumulated in an interval of so many seconds.
    pub(in crate::aggregate) fn finish(
        &self,
        name: &str,
        timings: Timings,
        seconds: f64,
        to: &mut impl Emit,
    ) {
        let mut gauge = |suffix: Option<Suffix>, value: f64| {
            if let Some(suffix) = suffix {
                to.emit(suffix, PointKind::Gauge, value);
            }
        };
        let count = timings.count();
        if let Some(mut sorted) = timings.into_sorted() {
            let number = sorted.number();
            let all = sorted.sums();
            for threshold in &self.thresholds {
                // Halves go up.
                let share = (threshold.percent.abs() / 100.0 * number as f64 + 0.5).floor() as u64;
                let inside = if number == 1 { 1 } else { share.min(number) };
                if inside == 0 {
                    continue;
                }
                let (boundary, Sums { sum, squares }) = match threshold.percent > 0.0 {
                    true => (sorted.at(inside), sorted.sums_of_first(inside)),
                    false => {
                        let below = sorted.sums_of_first(number - inside);
                        let sums =
                            Sums { sum: all.sum - below.sum, squares: all.squares - below.squares };
                        (sorted.at(number - inside + 1), sums)
                    }
                };
                gauge(threshold.count, inside as f64);
                gauge(threshold.mean, sum / inside as f64);
                gauge(threshold.boundary, boundary);
                gauge(threshold.sum, sum);
                gauge(threshold.sum_squares, squares);
            }
            gauge(self.lower, sorted.at(1));
            gauge(self.upper, sorted.at(number));
            gauge(self.sum, all.sum);
            gauge(self.sum_squares, all.squares);
            gauge(self.mean, all.sum / number as f64);
            gauge(self.median, sorted.median());
            gauge(self.std, sorted.deviation());
            let bins = self.histogram.iter().find(|(metric, _)| name.contains(metric));
            let mut before = 0;
            for &(limit, suffix) in bins.map_or(&[][..], |(_, bins)| bins) {
                let below = if limit.is_infinite() { number } else { sorted.below(limit) };
                gauge(suffix, below.saturating_sub(before) as f64);
                before = before.max(below);
            }
        }
        gauge(self.count_ps, count / seconds);
        if let Some(suffix) = self.count {
            to.emit(suffix, PointKind::Count, count);
        }
    }
}

/// The suffixes of brubeck's statistics.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::aggregate) struct BrubeckPlan {
    count: Option<Suffix>,
    count_ps: Option<Suffix>,
    min: Option<Suffix>,
    max: Option<Suffix>,
    sum: Option<Suffix>,
    mean: Option<Suffix>,
    ranks: [(f32, Option<Suffix>); 6],
}

const RANKS: [(f32, &str); 6] = [
    (0.5, ".median"),
    (0.75, ".percentile.75"),
    (0.95, ".percentile.95"),
    (0.98, ".percentile.98"),
    (0.99, ".percentile.99"),
    (0.999, ".percentile.999"),
];

impl BrubeckPlan {
    pub(in crate::aggregate) fn new(suffixes: &mut Suffixes) -> BrubeckPlan {
        BrubeckPlan {
            count: suffixes.add(".count"),
            count_ps: suffixes.add(".count_ps"),
            min: suffixes.add(".min"),
            max: suffixes.add(".max"),
            sum: suffixes.add(".sum"),
            mean: suffixes.add(".mean"),
            ranks: RANKS.map(|(rank, text)| (rank, suffixes.add(text))),
        }
    }

    /// Finishes what a timer has accumulated in an interval of so many seconds.
    pub(in crate::aggregate) fn finish(&self, timings: Timings, seconds: f64, to: &mut impl Emit) {
        let mut gauge = |suffix: Option<Suffix>, value: f64| {
            if let Some(suffix) = suffix {
                to.emit(suffix, PointKind::Gauge, value);
            }
        };
        let count = timings.count();
        if let Some(mut sorted) = timings.into_sorted() {
            let number = sorted.number();
            let Sums { sum, .. } = sorted.sums();
            gauge(self.min, sorted.at(1));
            gauge(self.max, sorted.at(number));
            gauge(self.sum, sum);
            gauge(self.mean, sum / number as f64);
            for (rank, suffix) in self.ranks {
                gauge(suffix, sorted.at((rank * number as f32 + 0.5).floor() as u64));
            }
        }
        gauge(self.count_ps, count / seconds);
        if let Some(suffix) = self.count {
            to.emit(suffix, PointKind::Count, count);
        }
    }
}
