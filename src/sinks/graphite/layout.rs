//! What series are called in Graphite, but for their own names.
//!
//! A dialect decides what is computed, a layout how that is named; any goes with any. A path is
//! a prefix, the name of the series, the point's own suffix (`.upper_90`, `.99percentile`), what
//! stands behind it, an ending, and the tags: prefix, what stands behind and the ending are the
//! layout's, and depend on the kind of the series alone.
//!
//! Source: etsy's `backends/graphite.js`, `src/backends/carbon.c` of brubeck.

use crate::config::settings::{EtsyNames, GraphiteLayout, GraphiteSettings};
use crate::model::MetricKind;

/// How the points of a series are named.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    /// Of a counter's rate: what stands before its name, and what behind.
    rate: Option<(String, &'static str)>,
    count: Option<(String, &'static str)>,
    gauge: String,
    timer: String,
    set: (String, &'static str),
    /// Behind everything but the tags.
    ending: String,
}

/// One of the names of a point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Named<'a> {
    /// Stands before the name of the series.
    pub(super) prefix: &'a str,
    /// Stands behind the point's own suffix, before the tags.
    pub(super) behind: &'static str,
    /// What the point is under this name.
    pub(super) value: f64,
}

impl Layout {
    /// That of a sink.
    pub(super) fn of(settings: &GraphiteSettings) -> Layout {
        match settings.layout {
            GraphiteLayout::Veneur | GraphiteLayout::Brubeck => Layout::plain(),
            GraphiteLayout::Etsy => Layout::etsy(&settings.names),
        }
    }

    /// The name of the series and the point's suffix alone: layouts `veneur` and `brubeck`.
    fn plain() -> Layout {
        Layout {
            rate: None,
            count: Some((String::new(), "")),
            gauge: String::new(),
            timer: String::new(),
            set: (String::new(), ""),
            ending: String::new(),
        }
    }

    /// As etsy's statsd names them: a counter has its rate a second, and its count beside it.
    fn etsy(names: &EtsyNames) -> Layout {
        let ending = match names.global_suffix.as_str() {
            "" => String::new(),
            suffix => format!(".{suffix}"),
        };
        let set_ending = ".count";
        if names.legacy_namespace {
            let count = names.flush_counts.then(|| ("stats_counts.".to_owned(), ""));
            return Layout {
                rate: Some(("stats.".to_owned(), "")),
                count,
                gauge: "stats.gauges.".to_owned(),
                timer: "stats.timers.".to_owned(),
                set: ("stats.sets.".to_owned(), set_ending),
                ending,
            };
        }
        let below = |node: &str| -> String {
            let nodes = [names.global_prefix.as_str(), node];
            nodes.iter().filter(|node| !node.is_empty()).flat_map(|node| [*node, "."]).collect()
        };
        let counter = below(&names.prefix_counter);
        Layout {
            rate: Some((counter.clone(), ".rate")),
            count: names.flush_counts.then_some((counter, ".count")),
            gauge: below(&names.prefix_gauge),
            timer: below(&names.prefix_timer),
            set: (below(&names.prefix_set), set_ending),
            ending,
        }
    }

    /// What stands at the end of every name, before the tags.
    pub(super) fn ending(&self) -> &str {
        &self.ending
    }

    /// The names of a point of a series of that kind, in an interval of so many seconds.
    pub(super) fn names(
        &self,
        kind: MetricKind,
        value: f64,
        seconds: f64,
    ) -> impl Iterator<Item = Named<'_>> {
        let one = |prefix, behind| Some(Named { prefix, behind, value });
        let (first, second) = match kind {
            MetricKind::Counter => {
                (named(self.rate.as_ref(), value / seconds), named(self.count.as_ref(), value))
            }
            MetricKind::Gauge => (one(&self.gauge, ""), None),
            MetricKind::Set => (one(&self.set.0, self.set.1), None),
            MetricKind::Timer | MetricKind::Histogram | MetricKind::Distribution => {
                (one(&self.timer, ""), None)
            }
        };
        first.into_iter().chain(second)
    }
}

fn named<'a>(place: Option<&'a (String, &'static str)>, value: f64) -> Option<Named<'a>> {
    place.map(|(prefix, behind)| Named { prefix, behind, value })
}
