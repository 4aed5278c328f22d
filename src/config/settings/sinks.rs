//! Where finished points go.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::EtsyNames;
use crate::config::secret::{BaseUrl, Secret};
use crate::model::{Pattern, TagMatcher};

/// One sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkSettings {
    /// Unique; what logs, own metrics and its directory in the spool are called.
    pub name: String,
    /// What it is, and the settings of that.
    pub kind: SinkKind,
    /// What it gets.
    pub filter: FilterSettings,
}

impl SinkSettings {
    /// Whether it delivers spans.
    pub fn takes_spans(&self) -> bool {
        matches!(self.kind, SinkKind::Traces(_))
    }
}

/// What a sink is.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkKind {
    /// Datadog's intake.
    Datadog(DatadogSettings),
    /// Carbon, or something that reads what carbon does.
    Graphite(GraphiteSettings),
    /// InfluxDB, or something that reads its line protocol.
    Influxdb(InfluxdbSettings),
    /// Rows in a local file.
    File(FileSettings),
    /// A Datadog trace agent.
    Traces(TracesSettings),
    /// A table on standard output.
    Console {
        /// Show the daemon's own telemetry, too.
        own: bool,
    },
}

impl SinkKind {
    /// Its word in the configuration.
    pub const fn as_str(&self) -> &'static str {
        match self {
            SinkKind::Datadog(_) => "datadog",
            SinkKind::Graphite(_) => "graphite",
            SinkKind::Influxdb(_) => "influxdb",
            SinkKind::File(_) => "file",
            SinkKind::Traces(_) => "traces",
            SinkKind::Console { .. } => "console",
        }
    }

    /// Where it delivers to, for people.
    pub fn place(&self) -> String {
        match self {
            SinkKind::Datadog(datadog) => datadog.api_hostname.redacted(),
            SinkKind::Graphite(GraphiteSettings { address, protocol, layout, prefix, .. }) => {
                let prefix = if prefix.is_empty() { "" } else { &format!(", below {prefix}") };
                let (protocol, layout) = (protocol.as_str(), layout.as_str());
                format!("{address}, {protocol}, layout {layout}{prefix}")
            }
            SinkKind::Influxdb(InfluxdbSettings { address, api, layout }) => {
                let target = match api {
                    InfluxdbApi::V1 { database, .. } => format!("database {database}"),
                    InfluxdbApi::V2 { org, bucket, .. } => format!("bucket {bucket} of {org}"),
                };
                format!("{}, {target}, layout {}", address.redacted(), layout.as_str())
            }
            SinkKind::File(file) => file.path.display().to_string(),
            SinkKind::Traces(traces) => {
                format!("{}, {}", traces.address.redacted(), traces.format.as_str())
            }
            SinkKind::Console { .. } => "standard output".to_owned(),
        }
    }
}

/// What a sink gets of a flush.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterSettings {
    /// If there are any, only metrics that one of them means.
    pub include: Vec<Pattern>,
    /// Not the metrics that one of them means.
    pub exclude: Vec<Pattern>,
    /// Without these tags.
    pub strip_tags: Vec<TagMatcher>,
}

/// The Datadog sink.
#[derive(Clone, Debug, PartialEq)]
pub struct DatadogSettings {
    /// Where the Datadog API is.
    pub api_hostname: BaseUrl,
    /// API key.
    pub key: Option<Secret>,
    /// Also send the key as v1.1.0 did, as `?api_key=`.
    pub key_in_query: bool,
    /// Most series in one body.
    pub flush_max_per_body: NonZeroUsize,
}

/// A Graphite sink.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphiteSettings {
    /// Where carbon listens.
    pub address: GraphiteAddress,
    /// What it reads there.
    pub protocol: GraphiteProtocol,
    /// What series are called.
    pub layout: GraphiteLayout,
    /// The nodes above all others, joined by dots; may be empty.
    pub prefix: String,
    /// What is in layout `etsy` as its own configuration says.
    pub names: EtsyNames,
}

/// Where carbon listens, as `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GraphiteAddress {
    /// For connections.
    Tcp(String),
    /// For datagrams.
    Udp(String),
}

impl fmt::Display for GraphiteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GraphiteAddress::Tcp(address) => write!(f, "tcp://{address}"),
            GraphiteAddress::Udp(address) => write!(f, "udp://{address}"),
        }
    }
}

/// How points are written for carbon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphiteProtocol {
    /// `path value timestamp`, each on a line.
    Plaintext,
    /// Frames of pickled lists.
    Pickle,
}

impl GraphiteProtocol {
    /// All of them.
    pub const ALL: [GraphiteProtocol; 2] = [GraphiteProtocol::Plaintext, GraphiteProtocol::Pickle];

    /// Its word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            GraphiteProtocol::Plaintext => "plaintext",
            GraphiteProtocol::Pickle => "pickle",
        }
    }
}

/// What series are called in Graphite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphiteLayout {
    /// `name.aggregate;tag=value`.
    Veneur,
    /// As etsy's statsd names them: `stats.timers.name.aggregate;tag=value`.
    Etsy,
    /// As brubeck names them: `name.aggregate`.
    Brubeck,
}

impl GraphiteLayout {
    /// All of them.
    pub const ALL: [GraphiteLayout; 3] =
        [GraphiteLayout::Veneur, GraphiteLayout::Etsy, GraphiteLayout::Brubeck];

    /// Its word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            GraphiteLayout::Veneur => "veneur",
            GraphiteLayout::Etsy => "etsy",
            GraphiteLayout::Brubeck => "brubeck",
        }
    }
}

/// A Datadog trace agent.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesSettings {
    /// Where it is.
    pub address: BaseUrl,
    /// What it reads.
    pub format: TraceFormat,
}

/// How spans are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceFormat {
    /// As Veneur 14 does.
    V03,
    /// As v1.1.0 does.
    Spans,
}

impl TraceFormat {
    /// All of them.
    pub const ALL: [TraceFormat; 2] = [TraceFormat::V03, TraceFormat::Spans];

    /// Its word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            TraceFormat::V03 => "v0.3",
            TraceFormat::Spans => "spans",
        }
    }
}

/// An InfluxDB sink.
#[derive(Clone, Debug, PartialEq)]
pub struct InfluxdbSettings {
    /// Where InfluxDB is.
    pub address: BaseUrl,
    /// Which of its interfaces, and where in it.
    pub api: InfluxdbApi,
    /// What becomes of a series.
    pub layout: InfluxdbLayout,
}

/// How InfluxDB is spoken to.
#[derive(Clone, Debug, PartialEq)]
pub enum InfluxdbApi {
    /// `/write`.
    V1 {
        /// The database.
        database: String,
        /// `None`: that of the database.
        retention_policy: Option<String>,
        /// How many nodes of a cluster must have it: `any`, `one`, `quorum` or `all`.
        consistency: Option<String>,
        /// Who writes; `None` if nobody asks.
        user: Option<String>,
        /// That user's.
        password: Option<Secret>,
    },
    /// `/api/v2/write`.
    V2 {
        /// The organisation.
        org: String,
        /// Its bucket.
        bucket: String,
        /// What allows us to write there.
        token: Secret,
    },
}

/// What becomes of a series in InfluxDB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InfluxdbLayout {
    /// A measurement with a field for each statistic.
    Fields,
    /// A measurement for each statistic, with the field `value`, as Veneur v1.1.0 has it.
    Values,
}

impl InfluxdbLayout {
    /// All of them.
    pub const ALL: [InfluxdbLayout; 2] = [InfluxdbLayout::Fields, InfluxdbLayout::Values];

    /// Its word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            InfluxdbLayout::Fields => "fields",
            InfluxdbLayout::Values => "values",
        }
    }
}

/// A sink that writes a file.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSettings {
    /// Where it is.
    pub path: PathBuf,
    /// So large it may become before it is renamed; it has whole flushes, so one more.
    pub max_bytes: u64,
    /// So old.
    pub max_age: Duration,
    /// So many renamed ones are left.
    pub keep: u32,
}
