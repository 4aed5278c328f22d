//! What identifies a series.

use std::fmt;

use super::{Dialect, Scope, TagSet};

/// The type a client gave a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum MetricKind {
    /// `c`: a sum over the interval.
    Counter,
    /// `g`: the last value.
    Gauge,
    /// `h`: quantiles and local aggregates.
    Histogram,
    /// `ms`: as a histogram, in milliseconds.
    Timer,
    /// `d`: as a histogram, but global by nature: finished where the whole fleet meets.
    Distribution,
    /// `s`: the number of distinct members.
    Set,
}

impl MetricKind {
    /// All kinds, in the order of their discriminants.
    pub const ALL: [MetricKind; 6] = [
        MetricKind::Counter,
        MetricKind::Gauge,
        MetricKind::Histogram,
        MetricKind::Timer,
        MetricKind::Distribution,
        MetricKind::Set,
    ];

    /// The word for it in logs, telemetry tags and `veneur explain`.
    pub const fn as_str(self) -> &'static str {
        match self {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
            MetricKind::Timer => "timer",
            MetricKind::Distribution => "distribution",
            MetricKind::Set => "set",
        }
    }

    /// Whether samples of this kind go into a digest.
    pub const fn has_digest(self) -> bool {
        match self {
            MetricKind::Histogram | MetricKind::Timer | MetricKind::Distribution => true,
            MetricKind::Counter | MetricKind::Gauge | MetricKind::Set => false,
        }
    }
}

impl fmt::Display for MetricKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Canonical identity of a series. Equal keys are the same series, always: equality is on
/// bytes, never on a hash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MetricKey {
    /// Metric name as received, with invalid UTF-8 replaced.
    pub name: Box<str>,
    /// Canonical tags, without scope tags; in a classic dialect in the order given.
    pub tags: TagSet,
    /// The type the client gave it.
    pub kind: MetricKind,
    /// Where the series is finished.
    pub scope: Scope,
    /// By whose rules.
    pub dialect: Dialect,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_listed_in_the_order_of_their_discriminants() {
        for (index, kind) in MetricKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind}");
        }
    }
}
