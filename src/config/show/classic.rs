//! The sections `etsy` and `brubeck`.

use serde_json::{Value, json};

use crate::config::duration;
use crate::config::settings::{ClassicSettings, EtsyNames};
use crate::model::{Bins, ClassicRules, EtsyStatistics, Idle, Interval};

/// Keys and values of the sections `etsy` and `brubeck`.
pub(super) fn shown(classic: &ClassicSettings, interval: Interval) -> Vec<(&'static str, Value)> {
    let ClassicSettings { rules, statistics, names } = classic;
    let ClassicRules { sanitise, etsy_counters, etsy_gauges, etsy_timers, etsy_sets, brubeck } =
        *rules;
    let EtsyStatistics { thresholds, histogram, only } = statistics;
    let EtsyNames {
        legacy_namespace,
        global_prefix,
        prefix_counter,
        prefix_timer,
        prefix_gauge,
        prefix_set,
        global_suffix,
        flush_counts,
    } = names;
    let deletes = |idle: Idle| idle != Idle::ALWAYS;
    let flushes = |idle: Idle| if deletes(idle) { idle.0 } else { 0 };
    vec![
        ("etsy.percent_threshold", json!(thresholds)),
        ("etsy.histogram", json!(histogram.iter().map(bins).collect::<Vec<_>>())),
        ("etsy.calculated_timer_metrics", json!(only)),
        ("etsy.key_name_sanitize", json!(sanitise)),
        ("etsy.delete_idle_stats", json!(false)),
        ("etsy.delete_counters", json!(deletes(etsy_counters))),
        ("etsy.delete_timers", json!(deletes(etsy_timers))),
        ("etsy.delete_sets", json!(deletes(etsy_sets))),
        ("etsy.delete_gauges", json!(deletes(etsy_gauges))),
        ("etsy.gauges_max_ttl", json!(flushes(etsy_gauges) + 1)),
        ("etsy.legacy_namespace", json!(legacy_namespace)),
        ("etsy.global_prefix", json!(global_prefix)),
        ("etsy.prefix_counter", json!(prefix_counter)),
        ("etsy.prefix_timer", json!(prefix_timer)),
        ("etsy.prefix_gauge", json!(prefix_gauge)),
        ("etsy.prefix_set", json!(prefix_set)),
        ("etsy.global_suffix", json!(global_suffix)),
        ("etsy.flush_counts", json!(flush_counts)),
        ("brubeck.expire", json!(duration::show(interval.length() * flushes(brubeck)))),
    ]
}

fn bins(of: &Bins) -> Value {
    let limit = |limit: &f64| if limit.is_finite() { json!(limit) } else { json!("inf") };
    json!({"metric": of.metric, "bins": of.limits.iter().map(limit).collect::<Vec<_>>()})
}
