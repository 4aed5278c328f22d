//! Own metrics as counters and stats: the same numbers as on `/metrics`, under the same names.
//!
//! | Own metric | Told as |
//! |---|---|
//! | counter | a counter: the sum over its tags |
//! | gauge | a stat: the sum over its tags; of times the longest |
//! | durations | stats `latencies.OP.…` for each set of tags, in seconds |
//!
//! `OP` is the name without `duration_ns`, then the values of the tags, joined by `_`:
//! `flush.total_duration_ns` with `part:gather` is `latencies.flush_total_gather.mean`. The mean
//! is since the start, percentiles are of the last minutes; they are null with too few
//! observations. Sizes are on `/metrics` alone.

use std::collections::BTreeMap;

use super::Facts;
use crate::telemetry::distribution::Summary;
use crate::telemetry::names::{self, Unit};
use crate::telemetry::registry::{Series, Total};
use crate::telemetry::{Observations, Telemetry};

/// Percentiles by what they are called, and the observations they need.
///
/// Source: Tahoe-LAFS's latencies.
const PERCENTILES: [(f64, &str, u64); 3] =
    [(0.5, "50_0_percentile", 10), (0.9, "90_0_percentile", 10), (0.99, "99_0_percentile", 100)];
/// The mean needs so many.
const MEAN_NEEDS: u64 = 2;

/// Tells everything `telemetry` has.
pub fn tell(telemetry: &Telemetry, facts: &mut Facts) {
    let mut gauges: BTreeMap<&str, f64> = BTreeMap::new();
    let mut counters: BTreeMap<&str, u64> = BTreeMap::new();
    for Series { name, tags, value } in telemetry.totals() {
        match value {
            Total::Count(total) => {
                let sum = counters.entry(name).or_default();
                *sum = sum.saturating_add(total);
            }
            Total::Gauge(value) => {
                let is_time = names::find(name).is_some_and(|it| it.unit == Unit::Nanoseconds);
                let told = gauges.entry(name).or_default();
                *told = if is_time { told.max(value) } else { *told + value };
            }
            Total::Durations(summary) => tell_latency(&operation(name, &tags), &summary, facts),
            Total::Amounts(_) => {}
        }
    }
    counters.into_iter().for_each(|(name, total)| facts.counter(name, total));
    gauges.into_iter().for_each(|(name, value)| facts.stat(name, Some(value)));
}

/// Shows as own metrics what a registration with a gatherer does.
pub(super) fn observe_registration(observed: &mut Observations, is_registered: bool, polls: u64) {
    observed.gauge(names::PROVIDER_REGISTERED, "", f64::from(u8::from(is_registered)));
    observed.counter(names::PROVIDER_POLLS_TOTAL, "", polls);
}

fn tell_latency(operation: &str, summary: &Summary, facts: &mut Facts) {
    let Summary { count, sum, quantiles } = summary;
    let seconds = |nanoseconds: f64| nanoseconds / 1e9;
    facts.stat(format!("latencies.{operation}.samplesize"), Some(*count as f64));
    let mean = (*count >= MEAN_NEEDS).then(|| seconds(sum / *count as f64));
    facts.stat(format!("latencies.{operation}.mean"), mean);
    for (quantile, name, needs) in PERCENTILES {
        let value = quantiles.iter().find(|(known, _)| *known == quantile);
        let value = value.filter(|_| *count >= needs).map(|(_, value)| seconds(*value));
        facts.stat(format!("latencies.{operation}.{name}"), value);
    }
}

fn operation(name: &str, tags: &str) -> String {
    let bare = name.strip_suffix("duration_ns").unwrap_or(name);
    let values = tags.split(',').filter(|tag| !tag.is_empty());
    let values = values.map(|tag| tag.split_once(':').map_or(tag, |(_, value)| value));
    let words: Vec<&str> =
        std::iter::once(bare.trim_end_matches(['_', '.'])).chain(values).collect();
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    words.join("_").chars().map(legal).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::provider::Statistics;

    fn told(telemetry: &Telemetry) -> Statistics {
        let mut facts = Facts::default();
        tell(telemetry, &mut facts);
        facts.0
    }

    #[test]
    fn counters_and_gauges_are_sums_over_their_tags() {
        let telemetry = Telemetry::default();
        telemetry.count(names::PACKET_ERROR_TOTAL, "reason:a", 2);
        telemetry.count(names::PACKET_ERROR_TOTAL, "reason:b", 3);
        telemetry.gauge(names::SPOOL_ITEMS, "spool:a", 2.0);
        telemetry.gauge(names::SPOOL_ITEMS, "spool:b", 3.0);
        telemetry.gauge(names::SPOOL_OLDEST_NS, "spool:a", 2.0);
        telemetry.gauge(names::SPOOL_OLDEST_NS, "spool:b", 3.0);
        let told = told(&telemetry);
        assert_eq!(told.counters, [(names::PACKET_ERROR_TOTAL.to_owned(), 5)].into());
        assert_eq!(told.stats[names::SPOOL_ITEMS], Some(5.0));
        assert_eq!(told.stats[names::SPOOL_OLDEST_NS], Some(3.0));
    }

    #[test]
    fn durations_are_latencies_in_seconds_null_until_there_are_enough() {
        let telemetry = Telemetry::default();
        let record = |n: u64| {
            for _ in 0..n {
                let length = Duration::from_millis(500);
                telemetry.duration(names::FLUSH_TOTAL_DURATION_NS, "part:gather", length);
            }
            told(&telemetry).stats
        };
        let of = |stats: &BTreeMap<String, Option<f64>>, what: &str| {
            stats[&format!("latencies.flush_total_gather.{what}")]
        };
        for (more, mean, median, last) in
            [(1, false, false, false), (9, true, true, false), (90, true, true, true)]
        {
            let stats = record(more);
            assert_eq!(of(&stats, "mean"), mean.then_some(0.5));
            for (what, is_there) in [("50_0_percentile", median), ("99_0_percentile", last)] {
                let value = of(&stats, what);
                assert_eq!(value.is_some(), is_there, "{what} after {more}");
                assert!(value.is_none_or(|value| (value / 0.5 - 1.0).abs() <= 0.01), "{value:?}");
            }
        }
        assert_eq!(of(&record(0), "samplesize"), Some(100.0));
    }

    #[test]
    fn an_operation_is_named_by_its_metric_and_tags() {
        for (name, tags, operation_name) in [
            (names::FLUSH_DURATION_NS, "", "flush"),
            (names::FLUSH_TOTAL_DURATION_NS, "part:gather", "flush_total_gather"),
            (names::FORWARD_DURATION_NS, "part:post,upstream:h:1", "forward_post_h_1"),
        ] {
            assert_eq!(operation(name, tags), operation_name);
        }
    }
}
