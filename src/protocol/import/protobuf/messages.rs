//! Veneur v14's messages (`forwardrpc`, `metricpb`, `tdigest`), written out by hand.
//!
//! Field numbers from 1001 on are ours; v14 skips them. Texts are bytes here: Veneur sends
//! what clients send, valid or not, and one bad name must not cost a whole body.
//!
//! ```text
//! service Forward {
//!   rpc SendMetrics(MetricList) returns (google.protobuf.Empty);
//!   rpc SendMetricsV2(stream Metric) returns (google.protobuf.Empty);
//! }
//! ```

use super::digest::TDigest;

/// `forwardrpc.MetricList`
#[derive(Clone, PartialEq, prost::Message)]
pub struct MetricList {
    /// In no order.
    #[prost(message, repeated, tag = "1")]
    pub metrics: Vec<Metric>,
}

/// `metricpb.Metric`
#[derive(Clone, PartialEq, prost::Message)]
pub struct Metric {
    /// Name as the client wrote it.
    #[prost(bytes = "vec", tag = "1")]
    pub name: Vec<u8>,
    /// Sorted, scope tags taken out.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub tags: Vec<Vec<u8>>,
    /// `type`
    #[prost(enumeration = "WireKind", tag = "3")]
    pub kind: i32,
    /// What was accumulated.
    #[prost(oneof = "metric::Value", tags = "5, 6, 7, 8")]
    pub value: Option<metric::Value>,
    /// Where the series is finished.
    #[prost(enumeration = "WireScope", tag = "9")]
    pub scope: i32,
    /// Ours: the histogram is a distribution.
    #[prost(bool, tag = "1001")]
    pub is_distribution: bool,
}

/// What belongs to [`Metric`].
pub mod metric {
    /// `metricpb.Metric.value`
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Value {
        /// Of a counter.
        #[prost(message, tag = "5")]
        Counter(super::Counter),
        /// Of a gauge.
        #[prost(message, tag = "6")]
        Gauge(super::Gauge),
        /// Of a histogram or timer.
        #[prost(message, tag = "7")]
        Histogram(super::Histogram),
        /// Of a set.
        #[prost(message, tag = "8")]
        Set(super::Set),
    }
}

/// `metricpb.Type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WireKind {
    /// `c`
    Counter = 0,
    /// `g`
    Gauge = 1,
    /// `h`, and `d` with [`Metric::is_distribution`]
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
