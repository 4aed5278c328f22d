//! What becomes of lines in a classic dialect.

use std::time::Duration;

use super::{filled, flag, length, number};
use crate::config::problem::Report;
use crate::config::raw::{Many, One, Raw};
use crate::config::settings::{ClassicSettings, EtsyNames};
use crate::model::{ClassicRules, Dialect, EtsyStatistics, Idle, Interval};

const MOST_THRESHOLDS: usize = 20;
const MOST_HISTOGRAMS: usize = 100;
const LONGEST_EXPIRY: Duration = Duration::from_secs(30 * 86_400);

/// What is computed of a timer, and what of each threshold.
const STATISTICS: [&str; 16] = [
    "count",
    "count_ps",
    "lower",
    "upper",
    "sum",
    "sum_squares",
    "mean",
    "median",
    "std",
    "histogram",
    "count_percent",
    "mean_percent",
    "upper_percent",
    "lower_percent",
    "sum_percent",
    "sum_squares_percent",
];

/// What is spoken on listeners of which nothing else is said.
pub(super) fn dialect(raw: &Raw, report: &mut Report) -> Dialect {
    let Some(given) = filled(&raw.dialect) else { return Dialect::default() };
    Dialect::from_name(&given.value).unwrap_or_else(|| {
        let accepted = Dialect::ALL.map(Dialect::as_str).join(", ");
        report.refuse(&given.source, "unknown dialect", accepted);
        Dialect::default()
    })
}

/// The sections `etsy` and `brubeck`.
pub(super) fn classic(raw: &Raw, interval: Interval, report: &mut Report) -> ClassicSettings {
    ClassicSettings {
        rules: rules(raw, interval, report),
        statistics: EtsyStatistics {
            thresholds: thresholds(&raw.etsy_percent_threshold, report),
            histogram: few(&raw.etsy_histogram, MOST_HISTOGRAMS, report),
            only: only(&raw.etsy_calculated_timer_metrics, report),
        },
        names: names(raw, report),
    }
}

fn rules(raw: &Raw, interval: Interval, report: &mut Report) -> ClassicRules {
    let delete_all = flag(&raw.etsy_delete_idle_stats, false);
    let idle = |delete: &One<bool>| match flag(delete, delete_all) {
        true => Idle::NEVER,
        false => Idle::ALWAYS,
    };
    let ttl = number(&raw.etsy_gauges_max_ttl, 1..=1_000_000, 1, report);
    let expire = &raw.brubeck_expire;
    let expire = length(expire, &(Duration::ZERO..=LONGEST_EXPIRY), Duration::ZERO, report);
    ClassicRules {
        sanitise: flag(&raw.etsy_key_name_sanitize, true),
        etsy_counters: idle(&raw.etsy_delete_counters),
        etsy_gauges: match idle(&raw.etsy_delete_gauges) {
            // The flush of the interval that had a sample is the first of them.
            Idle::NEVER => Idle(u32::try_from(ttl - 1).unwrap_or(u32::MAX)),
            idle => idle,
        },
        etsy_timers: idle(&raw.etsy_delete_timers),
        etsy_sets: idle(&raw.etsy_delete_sets),
        brubeck: match expire.as_nanos().div_ceil(interval.length().as_nanos()) {
            0 => Idle::ALWAYS,
            flushes => Idle(u32::try_from(flushes).unwrap_or(u32::MAX)),
        },
    }
}

fn thresholds(given: &Many<f64>, report: &mut Report) -> Vec<f64> {
    let Some(given) = given else { return EtsyStatistics::default().thresholds };
    let mut chosen = Vec::new();
    for threshold in given {
        if !(-100.0..=100.0).contains(&threshold.value) || threshold.value == 0.0 {
            report.refuse(&threshold.source, "out of range", "-100 to 100, but for 0");
        } else if chosen.contains(&threshold.value) {
            report.warn(&threshold.source, "listed twice; it counts once");
        } else if chosen.len() == MOST_THRESHOLDS {
            report.refuse(&threshold.source, "too many", format!("{MOST_THRESHOLDS} at most"));
            break;
        } else {
            chosen.push(threshold.value);
        }
    }
    chosen
}

fn few<T: Clone>(given: &Many<T>, most: usize, report: &mut Report) -> Vec<T> {
    let given = given.as_deref().unwrap_or_default();
    if let Some(next) = given.get(most) {
        report.refuse(&next.source, "too many", format!("{most} at most"));
    }
    given.iter().take(most).map(|given| given.value.clone()).collect()
}

fn only(given: &Many<String>, report: &mut Report) -> Vec<String> {
    let given = given.as_deref().unwrap_or_default();
    for word in given {
        if !STATISTICS.contains(&word.value.as_str()) {
            report.refuse(&word.source, "unknown statistic", STATISTICS.join(", "));
        }
    }
    given.iter().map(|given| given.value.clone()).collect()
}

fn names(raw: &Raw, report: &mut Report) -> EtsyNames {
    let default = EtsyNames::default();
    let mut node = |given: &One<String>, default: String| match given {
        None => default,
        Some(given) => {
            if given.value.contains(|c: char| c.is_whitespace() || c.is_control() || c == ';') {
                report.refuse(&given.source, "not a part of a name", "text without blanks and ;");
            }
            given.value.clone()
        }
    };
    EtsyNames {
        legacy_namespace: flag(&raw.etsy_legacy_namespace, default.legacy_namespace),
        global_prefix: node(&raw.etsy_global_prefix, default.global_prefix),
        prefix_counter: node(&raw.etsy_prefix_counter, default.prefix_counter),
        prefix_timer: node(&raw.etsy_prefix_timer, default.prefix_timer),
        prefix_gauge: node(&raw.etsy_prefix_gauge, default.prefix_gauge),
        prefix_set: node(&raw.etsy_prefix_set, default.prefix_set),
        global_suffix: node(&raw.etsy_global_suffix, default.global_suffix),
        flush_counts: flag(&raw.etsy_flush_counts, default.flush_counts),
    }
}
