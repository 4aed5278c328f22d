//! Somewhere finished points go.

use std::future::Future;
use std::sync::Arc;

use crate::model::FlushBatch;

/// What became of one flush at one sink. `sent + skipped + dropped` is what was offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Points the other side took.
    pub sent: u64,
    /// Points this sink does not take.
    pub skipped: u64,
    /// Points lost; the sink has counted the reasons.
    pub dropped: u64,
}

/// Somewhere finished points go. Each sink is owned by one task, so it needs no locks.
pub trait MetricSink: Send + 'static {
    /// Config name, log field and `sink:` tag of our own metrics. Unique per instance.
    fn name(&self) -> &str;

    /// Delivers one interval, retrying as it sees fit; the caller cancels it when the
    /// interval after this one ends.
    fn flush(&mut self, batch: Arc<FlushBatch>) -> impl Future<Output = Delivered> + Send;
}
