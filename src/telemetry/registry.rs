//! What happens rarely, by name and tags: one lock, taken a few times a second at most.

use std::sync::Arc;
use std::time::Duration;

/// Own metrics of everything off the hot path. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct Telemetry(Arc<()>);

impl Telemetry {
    /// Adds `n` to a counter. `tags` are joined with `,` (`sink:datadog,cause:io`), or empty.
    pub fn count(&self, _name: &'static str, _tags: &str, _n: u64) {}

    /// Sets a gauge.
    pub fn gauge(&self, _name: &'static str, _tags: &str, _value: f64) {}

    /// Records one duration; names ending in `_ns` are sent as timers in nanoseconds.
    pub fn duration(&self, _name: &'static str, _tags: &str, _length: Duration) {}

    /// Records one size or amount.
    pub fn histogram(&self, _name: &'static str, _tags: &str, _value: f64) {}
}
