//! Finished values on their way to the sinks.
//!
//! A flush of 100,000 timers makes more than half a million points, so a point owns no text:
//! it shares the key of its series and names its suffix by number.

use std::sync::Arc;

use super::{Event, Interval, MetricKey, ServiceCheck, Span, UnixSeconds};

/// How a value is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointKind {
    /// How much was counted in the interval; a sink that wants a rate divides.
    Count,
    /// A value at a moment.
    Gauge,
}

/// What is appended to a series' name: a number into [`Suffixes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suffix(u16);

impl Suffix {
    /// Nothing is appended.
    pub const NONE: Suffix = Suffix(0);
}

/// The suffixes points may have: `.max`, `.99percentile` and so on, made once from the
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suffixes(Vec<Box<str>>);

impl Default for Suffixes {
    fn default() -> Self {
        Suffixes(vec!["".into()])
    }
}

impl Suffixes {
    /// Adds a suffix, or finds it. `None` when 65,535 are taken.
    pub fn add(&mut self, text: &str) -> Option<Suffix> {
        let index = self.0.iter().position(|known| **known == *text).unwrap_or_else(|| {
            self.0.push(text.into());
            self.0.len() - 1
        });
        u16::try_from(index).ok().map(Suffix)
    }

    /// The text, with its leading dot; empty for [`Suffix::NONE`].
    pub fn text(&self, suffix: Suffix) -> &str {
        &self.0[usize::from(suffix.0)]
    }
}

/// One finished value (Veneur: `InterMetric`).
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The series it belongs to.
    pub key: Arc<MetricKey>,
    /// The value; never NaN or infinite.
    pub value: f64,
    /// The moment it stands for.
    pub at: UnixSeconds,
    /// How to read it.
    pub kind: PointKind,
    /// What its name has beyond the series' name.
    pub suffix: Suffix,
}

/// Everything one flush offers to the sinks.
#[derive(Clone, Debug)]
pub struct FlushBatch {
    /// The end of the interval.
    pub at: UnixSeconds,
    /// The nominal interval, for rates.
    pub interval: Interval,
    /// The texts of the points' suffixes.
    pub suffixes: Arc<Suffixes>,
    /// All points; those of one series stand together.
    pub points: Vec<Point>,
    /// Events received since the last flush, oldest first.
    pub events: Vec<Event>,
    /// Service checks; of several for one name, host and tags, the last.
    pub checks: Vec<ServiceCheck>,
    /// Spans received since the last flush, oldest first.
    pub spans: Arc<[Span]>,
}

impl FlushBatch {
    /// The two parts of a point's name.
    pub fn name_of<'a>(&'a self, point: &'a Point) -> (&'a str, &'a str) {
        (&point.key.name, self.suffixes.text(point.suffix))
    }
}
