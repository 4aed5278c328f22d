//! Metrics of a stream that are merged together.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::protocol::import::{Cause, ImportedEntry, protobuf};

/// A group is full with so many bytes ...
const BYTES: usize = 256 * 1024;
/// ... or so many metrics.
const METRICS: usize = 1024;
/// It is merged when its first metric has waited so long.
const AGE: Duration = Duration::from_millis(100);

/// Some encoded metrics.
#[derive(Debug, Default)]
pub(super) struct Group {
    metrics: Vec<Bytes>,
    bytes: usize,
    due: Option<Instant>,
}

impl Group {
    /// Adds a metric that came `now`.
    pub(super) fn push(&mut self, metric: Bytes, now: Instant) {
        self.bytes += metric.len();
        self.metrics.push(metric);
        self.due.get_or_insert(now + AGE);
    }

    /// When it is to be merged; `None` while it is empty.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is to be merged although its time has not come.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BYTES || self.metrics.len() >= METRICS
    }

    /// Bytes in it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What can be merged, and why each of the others cannot.
    pub(super) fn decode(self) -> (Vec<ImportedEntry>, Vec<Cause>) {
        let (mut entries, mut causes) = (Vec::with_capacity(self.metrics.len()), Vec::new());
        for metric in self.metrics {
            match protobuf::decode_metric(&metric) {
                Ok(entry) => entries.push(entry),
                Err(cause) => causes.push(cause),
            }
        }
        (entries, causes)
    }
}
