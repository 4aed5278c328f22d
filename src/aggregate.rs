//! What a series accumulates within an interval, and the tables that find it.
//!
//! No I/O, no clock, no logging: a worker thread calls [`Shard`] with batches, and the flush
//! calls [`render`] on what a shard handed over.

mod apply;
pub mod batch;
pub mod checkpoint;
pub mod class;
pub mod classic;
pub mod client_drops;
pub mod histogram;
mod import;
pub mod intern;
pub mod limits;
mod mapped;
pub mod members;
pub mod memory;
pub mod render;
pub mod shard;
pub mod stored;

pub(crate) use batch::routed;
pub use batch::{Batch, KeyHasher, OpKey, Ops, shard_of, shard_of_series};
pub use class::Class;
pub use classic::Total;
pub use classic::timings::Timings;
pub use client_drops::ClientDrops;
pub use histogram::Histogram;
pub use intern::SlotId;
pub use limits::{ContextLimits, Folded};
pub use members::Members;
pub use memory::Memory;
pub use render::{Plan, Rendered, render};
pub use shard::{Shard, Snapshot};

use crate::model::{MetricKind, Weight};

/// What one series has accumulated. Big ones are boxed: most series are counters.
#[derive(Clone, Debug)]
pub enum Aggregate {
    /// The sum of value / rate.
    Counter(f64),
    /// The last value.
    Gauge(f64),
    /// Quantiles.
    Histogram(Box<Histogram>),
    /// Distinct members.
    Set(Box<Members>),
    /// A client's running total; of a classic series.
    Total(Box<Total>),
    /// Samples; of a classic series.
    Timings(Box<Timings>),
}

impl Aggregate {
    /// What a series of this kind, in DogStatsD's dialect, has before its first sample.
    fn new(kind: MetricKind) -> Aggregate {
        match kind {
            MetricKind::Counter => Aggregate::Counter(0.0),
            MetricKind::Gauge => Aggregate::Gauge(0.0),
            MetricKind::Histogram | MetricKind::Timer | MetricKind::Distribution => {
                Aggregate::Histogram(Box::default())
            }
            MetricKind::Set => Aggregate::Set(Box::default()),
        }
    }

    /// Adds one sample of DogStatsD's: `value` holds the bits of a double, or for sets a
    /// member's hash. Returns by how much [`Aggregate::heap_bytes`] has grown.
    #[inline]
    pub fn apply(&mut self, value: u64, weight: Weight) -> usize {
        match self {
            Aggregate::Counter(sum) => *sum += f64::from_bits(value) * weight.as_f64(),
            Aggregate::Gauge(last) => *last = f64::from_bits(value),
            Aggregate::Histogram(histogram) => return histogram.add(f64::from_bits(value), weight),
            Aggregate::Set(members) => return members.insert_hash(value),
            Aggregate::Total(_) | Aggregate::Timings(_) => {
                unreachable!("samples of classic series are recorded by their shard")
            }
        }
        0
    }

    /// Adds what another of the same kind has accumulated, as if its samples came now: of two
    /// gauges, its value stays.
    fn merge(&mut self, other: Aggregate) {
        match (self, other) {
            (Aggregate::Counter(sum), Aggregate::Counter(more)) => *sum += more,
            (Aggregate::Counter(sum), Aggregate::Total(more)) => *sum += more.grown,
            (Aggregate::Total(total), Aggregate::Counter(more)) => total.grown += more,
            (Aggregate::Total(total), Aggregate::Total(more)) => total.grown += more.grown,
            (Aggregate::Gauge(last), Aggregate::Gauge(value)) => *last = value,
            (Aggregate::Histogram(ours), Aggregate::Histogram(theirs)) => ours.merge(*theirs),
            (Aggregate::Set(ours), Aggregate::Set(theirs)) => ours.merge(&theirs),
            (Aggregate::Timings(ours), Aggregate::Timings(theirs)) => ours.merge(*theirs),
            (ours, theirs) => unreachable!("{ours:?} and {theirs:?} are of one kind"),
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            // A total is as good as none.
            Aggregate::Counter(_) | Aggregate::Gauge(_) | Aggregate::Total(_) => 0,
            Aggregate::Histogram(histogram) => size_of::<Histogram>() + histogram.heap_bytes(),
            Aggregate::Set(members) => size_of::<Members>() + members.heap_bytes(),
            Aggregate::Timings(timings) => size_of::<Timings>() + timings.heap_bytes(),
        }
    }
}
