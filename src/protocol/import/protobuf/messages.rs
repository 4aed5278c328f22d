//! Veneur v14's messages (`forwardrpc`, `metricpb`, `tdigest`), written out by hand.
//!
//! Field numbers from 1001 on are ours; v14 skips them. A `MetricList` is nothing but its
//! metrics in a row as field 1, and a `Metric` is read and written by [`super::metric`].
//!
//! ```text
//! service Forward {
//!   rpc SendMetrics(MetricList) returns (google.protobuf.Empty);
//!   rpc SendMetricsV2(stream Metric) returns (google.protobuf.Empty);
//! }
//! ```

use super::digest::TDigest;

/// `metricpb.Metric.value`
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Value {
    /// Of a counter.
    #[prost(message, tag = "5")]
    Counter(Counter),
    /// Of a gauge.
    #[prost(message, tag = "6")]
    Gauge(Gauge),
    /// Of a histogram or timer.
    #[prost(message, tag = "7")]
    Histogram(Histogram),
    /// Of a set.
    #[prost(message, tag = "8")]
    Set(Set),
}

/// `metricpb.Type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WireKind {
    /// `c`
    Counter = 0,
    /// `g`
    Gauge = 1,
    /// `h`, and `d` with a field of ours: see [`super::metric`]
    Histogram = 2,
    /// `s`
    Set = 3,
    /// `ms`
    Timer = 4,
}

/// `metricpb.Scope`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WireScope {
    /// Aggregates below, percentiles above.
    Mixed = 0,
    /// Never forwarded.
    Local = 1,
    /// Everything above.
    Global = 2,
}

/// `metricpb.CounterValue`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Counter {
    /// The sum, rounded.
    #[prost(int64, tag = "1")]
    pub value: i64,
    /// Ours: the sum, where it is not whole.
    #[prost(double, optional, tag = "1001")]
    pub exact: Option<f64>,
}

/// `metricpb.GaugeValue`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Gauge {
    /// The last value.
    #[prost(double, tag = "1")]
    pub value: f64,
}

/// `metricpb.HistogramValue`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Histogram {
    /// `t_digest`
    #[prost(message, optional, tag = "1")]
    pub digest: Option<TDigest>,
}

/// `metricpb.SetValue`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Set {
    /// `hyper_log_log`: see [`crate::sketch::cardinality::wire`].
    #[prost(bytes = "vec", tag = "1")]
    pub sketch: Vec<u8>,
    /// Ours: registers that four bits cut, three bytes each.
    #[prost(bytes = "vec", tag = "1001")]
    pub cut: Vec<u8>,
}

impl From<Centroid> for crate::sketch::Centroid {
    fn from(Centroid { mean, weight }: Centroid) -> crate::sketch::Centroid {
        crate::sketch::Centroid { mean, weight }
    }
}

impl From<crate::sketch::Centroid> for Centroid {
    fn from(centroid: crate::sketch::Centroid) -> Centroid {
        Centroid { mean: centroid.mean, weight: centroid.weight }
    }
}

/// `tdigest.Centroid`; its field 3, samples, is never set.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Centroid {
    /// Mean of its samples.
    #[prost(double, tag = "1")]
    pub mean: f64,
    /// How many observations it stands for.
    #[prost(double, tag = "2")]
    pub weight: f64,
}
