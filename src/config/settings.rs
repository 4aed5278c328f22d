//! The configuration, validated and complete: what the rest of the daemon sees.

mod sinks;

use std::fmt;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::listen::{HttpAddress, Listener, StatsdAddress};
use super::reference::Reference;
use super::secret::{BaseUrl, Secret};
use super::upstream::UpstreamAddress;
use crate::mapping::Mapping;
use crate::model::{
    ClassicRules, Dialect, EtsyStatistics, ExtendTags, Interval, Percentile, Role, Statistic,
    TagMatcher,
};

pub use sinks::{
    DatadogSettings, FileSettings, FilterSettings, GraphiteAddress, GraphiteLayout,
    GraphiteProtocol, GraphiteSettings, InfluxdbApi, InfluxdbLayout, InfluxdbSettings, SinkKind,
    SinkSettings, TraceFormat, TracesSettings,
};

/// Whose settings they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Program {
    /// The daemon.
    #[default]
    Daemon,
    /// The stateless proxy: it listens over HTTP and gRPC, and forwards.
    Proxy,
    /// It polls what others count and measure of themselves.
    Gatherer,
}

impl Program {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Program::Daemon => "daemon",
            Program::Proxy => "proxy",
            Program::Gatherer => "gatherer",
        }
    }
}

/// Everything the daemon or the proxy needs to know to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Whose they are.
    pub program: Program,
    /// Flush period.
    pub interval: Interval,
    /// Flush on multiples of the interval.
    pub synchronize_with_interval: bool,
    /// Abort after this many intervals without a completed flush; `None` is never.
    pub flush_watchdog_missed_flushes: Option<NonZeroU32>,
    /// `host` of what we emit; `None` leaves it out.
    pub hostname: Option<String>,
    /// Added to everything at the sinks.
    pub tags: Vec<String>,
    /// Laid over the tags of every metric on receipt.
    pub extend_tags: ExtendTags,
    /// Percentiles of digests, without duplicates.
    pub percentiles: Vec<Percentile>,
    /// Aggregates of digests, in the order of [`Statistic::ALL`], without duplicates.
    pub aggregates: Vec<Statistic>,
    /// Where statsd traffic comes in.
    pub intake: IntakeSettings,
    /// What becomes of lines in a classic dialect.
    pub classic: ClassicSettings,
    /// What series are called, if a file says so.
    pub mapping: Option<MappingSettings>,
    /// Worker threads.
    pub num_workers: NonZeroUsize,
    /// How much is held at once.
    pub limits: LimitSettings,
    /// The HTTP server.
    pub http: HttpSettings,
    /// What other nodes may send here, over HTTP and gRPC.
    pub import: ImportSettings,
    /// Forwarding upstream; set means a local [`Role`].
    pub forward: Option<ForwardSettings>,
    /// Who this instance is to those that look at it.
    pub identity: IdentitySettings,
    /// The gatherer it registers with.
    pub reference: Option<Reference>,
    /// What it gathers itself, if it does.
    pub gatherer: Option<GathererSettings>,
    /// Where a successor comes for our sockets; `None`: there is none.
    pub takeover_socket: Option<PathBuf>,
    /// Give up all files and ports that are not needed.
    pub sandbox: bool,
    /// Where own telemetry goes as DogStatsD (`HOST:PORT`, UDP); `None` is into our own pipeline.
    pub stats_address: Option<String>,
    /// Where points go: at least one, but for a proxy; no two of a name.
    pub sinks: Vec<SinkSettings>,
    /// Where undelivered points and batches wait.
    pub spool: SpoolSettings,
    /// Where errors and panics are reported.
    pub sentry_dsn: Option<Secret>,
    /// Log at debug level.
    pub debug: bool,
}

impl Settings {
    /// What this instance is in the fleet.
    pub fn role(&self) -> Role {
        match self.forward.as_ref().map(|forward| forward.format) {
            None => Role::Global,
            Some(ForwardFormat::JsonGob) => Role::LocalToV1,
            Some(ForwardFormat::Protobuf | ForwardFormat::Grpc | ForwardFormat::GrpcStream) => {
                Role::Local
            }
        }
    }
}

/// How much is held at once.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitSettings {
    /// Series, in all workers together.
    pub contexts: NonZeroUsize,
    /// Series of one name.
    pub contexts_per_name: NonZeroUsize,
    /// Tags of one series.
    pub tags_per_metric: NonZeroUsize,
    /// Bytes of one tag.
    pub tag_length: NonZeroUsize,
    /// Bytes of a name.
    pub name_length: NonZeroUsize,
    /// Bytes that keys, digests and sets may take.
    pub memory: NonZeroUsize,
}

/// Statsd listeners and their limits.
#[derive(Clone, Debug, PartialEq)]
pub struct IntakeSettings {
    /// All listeners, in the order configured.
    pub listeners: Vec<Listener<StatsdAddress>>,
    /// What is spoken on those of which nothing else is said.
    pub dialect: Dialect,
    /// Other statsd servers that get every datagram, too.
    pub repeat_to: Vec<RepeatAddress>,
    /// Sockets, each with a thread, per UDP address.
    pub num_readers: NonZeroUsize,
    /// Longest datagram, stream line or frame; a longer one is refused whole.
    pub metric_max_length: usize,
    /// Receive buffer to ask the kernel for, per socket.
    pub read_buffer_bytes: usize,
    /// TLS on the TCP listeners.
    pub tls: Option<TlsSettings>,
    /// Connections at once, per stream listener.
    pub max_connections: usize,
    /// A stream connection that sends nothing for this long is closed.
    pub idle_timeout: Duration,
    /// A TLS handshake may take this long.
    pub handshake_timeout: Duration,
    /// Where spans come in.
    pub spans: SpanSettings,
}

/// A statsd server, as `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepeatAddress {
    /// That takes datagrams.
    Udp(String),
    /// That takes lines over connections.
    Tcp(String),
}

impl fmt::Display for RepeatAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RepeatAddress::Udp(address) => write!(f, "udp://{address}"),
            RepeatAddress::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Listeners of SSF, and what is made of what they receive. By default there are none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanSettings {
    /// All of them, in the order configured: UDP, and Unix streams.
    pub listeners: Vec<Listener<StatsdAddress>>,
    /// Longest message; a longer one is refused whole.
    pub max_length: usize,
    /// The name of a histogram of indicator spans.
    pub indicator_timer: Option<String>,
    /// The name of the same for the whole fleet, by objective.
    pub objective_timer: Option<String>,
}

/// A mapping file of statsd_exporter.
#[derive(Clone, Debug, PartialEq)]
pub struct MappingSettings {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub mapping: Arc<Mapping>,
}

/// What becomes of lines in a classic dialect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassicSettings {
    /// How they are aggregated.
    pub rules: ClassicRules,
    /// What is computed of etsy's timers.
    pub statistics: EtsyStatistics,
    /// What series are called in Graphite's layout `etsy`.
    pub names: EtsyNames,
}

/// What etsy's statsd calls series in Graphite: its configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct EtsyNames {
    /// `stats.NAME` and `stats_counts.NAME` for counters, and no prefixes of one's own.
    pub legacy_namespace: bool,
    /// The first node of the newer namespace, if it is not empty.
    pub global_prefix: String,
    /// The next one of counters, if it is not empty.
    pub prefix_counter: String,
    /// Of timers, histograms and distributions.
    pub prefix_timer: String,
    /// Of gauges.
    pub prefix_gauge: String,
    /// Of sets.
    pub prefix_set: String,
    /// The last node of every name, if it is not empty.
    pub global_suffix: String,
    /// Counters have their count beside their rate.
    pub flush_counts: bool,
}

impl Default for EtsyNames {
    fn default() -> EtsyNames {
        EtsyNames {
            legacy_namespace: true,
            global_prefix: "stats".to_owned(),
            prefix_counter: "counters".to_owned(),
            prefix_timer: "timers".to_owned(),
            prefix_gauge: "gauges".to_owned(),
            prefix_set: "sets".to_owned(),
            global_suffix: String::new(),
            flush_counts: true,
        }
    }
}

/// Server side of TLS, as PEM text.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsSettings {
    /// Certificate chain.
    pub certificate: String,
    /// Its private key.
    pub key: Secret,
    /// If set, clients must present a certificate signed by one of these.
    pub client_authority: Option<String>,
}

/// The HTTP server.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpSettings {
    /// `None`: no server.
    pub address: Option<Listener<HttpAddress>>,
    /// Serve `/config/json` and `/config/yaml`, secrets hidden.
    pub config: bool,
    /// Serve `POST /quitquitquit`.
    pub quit: bool,
    /// What a client must show as `Authorization: Bearer TOKEN`.
    pub token: Option<Secret>,
    /// TLS, over HTTP and gRPC.
    pub tls: Option<TlsSettings>,
}

/// Importing what other nodes forward.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportSettings {
    /// Where the gRPC server listens; `None`: there is none.
    pub grpc_address: Option<Listener<HttpAddress>>,
    /// What a sender must show as `Authorization: Bearer TOKEN`; the HTTP server's, unless there
    /// is one for imports alone.
    pub token: Option<Secret>,
    /// Most entries in one body.
    pub max_entries_per_body: NonZeroUsize,
    /// Largest body as received.
    pub max_body_bytes: NonZeroUsize,
    /// Largest body after decompression.
    pub max_plain_bytes: NonZeroUsize,
    /// Bodies of the longest kind in memory at once, and bodies decoded at once; others wait.
    pub in_flight: NonZeroUsize,
    /// One body may take this long, waiting for its turn included.
    pub timeout: Duration,
}

/// Forwarding to upstream nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardSettings {
    /// Where to; at least one, each once.
    pub upstreams: Vec<UpstreamAddress>,
    /// What upstream understands.
    pub format: ForwardFormat,
    /// Sent as `Authorization: Bearer TOKEN`.
    pub token: Option<Secret>,
    /// TLS towards `https` upstreams.
    pub tls: ClientTlsSettings,
    /// Most entries in one body.
    pub max_entries_per_body: NonZeroUsize,
    /// Largest body as sent.
    pub max_body_bytes: NonZeroUsize,
    /// Largest body before compression.
    pub max_plain_bytes: NonZeroUsize,
    /// Requests at once, per upstream node.
    pub in_flight: NonZeroUsize,
    /// One request may take this long.
    pub timeout: Duration,
    /// What waits to be sent may take this much memory.
    pub queue_bytes: usize,
    /// It may wait this long.
    pub queue_age: Duration,
    /// A node that has failed for this long loses its share to the others.
    pub failover_after: Duration,
    /// How often it is looked up who the upstream nodes are.
    pub refresh: Duration,
    /// Tags that play no part in which node gets a series.
    pub ignored_tags: Vec<TagMatcher>,
}

/// How aggregates are written for the upstream nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardFormat {
    /// `POST /import` with a protobuf `metricpb.MetricList`, zstd: our own nodes.
    Protobuf,
    /// gRPC `forwardrpc.Forward/SendMetrics`: Veneur 14, and our own nodes.
    Grpc,
    /// gRPC `forwardrpc.Forward/SendMetricsV2`, a stream: Veneur 14, and our own nodes.
    GrpcStream,
    /// `POST /import` with JSON whose values are gob, zlib: Veneur 1.1.
    JsonGob,
}

impl ForwardFormat {
    /// All of them.
    pub const ALL: [ForwardFormat; 4] = [
        ForwardFormat::Protobuf,
        ForwardFormat::Grpc,
        ForwardFormat::GrpcStream,
        ForwardFormat::JsonGob,
    ];

    /// Its word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            ForwardFormat::Protobuf => "protobuf",
            ForwardFormat::Grpc => "grpc",
            ForwardFormat::GrpcStream => "grpc-stream",
            ForwardFormat::JsonGob => "json-gob",
        }
    }

    /// Whether it is spoken over gRPC.
    pub const fn is_grpc(self) -> bool {
        match self {
            ForwardFormat::Grpc | ForwardFormat::GrpcStream => true,
            ForwardFormat::Protobuf | ForwardFormat::JsonGob => false,
        }
    }
}

/// What could not be delivered, and waits.
#[derive(Clone, Debug, PartialEq)]
pub struct SpoolSettings {
    /// Where it waits on disk; `None`: in memory alone.
    pub directory: Option<PathBuf>,
    /// Room on disk, for each destination.
    pub max_bytes: u64,
    /// It may wait this long.
    pub max_age: Duration,
    /// Whether what is written is synced.
    pub sync: bool,
    /// How often the open interval is written; `None`: never.
    pub checkpoint: Option<Duration>,
}

/// Who an instance is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IdentitySettings {
    /// `None`: made once and kept in the state directory, or made at each start.
    pub instance_id: Option<String>,
    /// Where it is kept; `None`: nowhere.
    pub state_directory: Option<PathBuf>,
}

/// Polling what others count and measure of themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct GathererSettings {
    /// Where providers register.
    pub address: SocketAddr,
    /// Where `stats.json`, the token and the reference are.
    pub directory: PathBuf,
    /// How often everybody is polled.
    pub poll_interval: Duration,
    /// How long one may take to answer.
    pub poll_timeout: Duration,
    /// What a provider must present; `None`: made at the first start, and kept in the directory.
    pub token: Option<Secret>,
    /// TLS towards providers.
    pub tls: Option<TlsSettings>,
    /// Permissions of `stats.json`.
    pub file_mode: u32,
    /// Instances to poll over HTTP, because they do not register.
    pub urls: Vec<BaseUrl>,
    /// Most providers, connected or remembered.
    pub max_providers: NonZeroUsize,
}

/// Client side of TLS, as PEM text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientTlsSettings {
    /// If set, only servers whose certificate is signed by one of these are trusted, in place
    /// of those the system trusts.
    pub authority: Option<String>,
    /// What we show a server that asks: certificate chain and private key.
    pub certificate: Option<(String, Secret)>,
}
