//! The configuration, validated and complete: what the rest of the daemon sees.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::listen::{HttpAddress, StatsdAddress};
use super::secret::{BaseUrl, Secret};
use crate::model::{ExtendTags, Interval, Percentile, Role, Statistic};

/// Everything the daemon needs to know to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Flush period.
    pub interval: Interval,
    /// First flush on a multiple of the interval.
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
    /// Worker threads.
    pub num_workers: NonZeroUsize,
    /// The HTTP server.
    pub http: HttpSettings,
    /// Base URL of the upstream node; set means [`Role::Local`].
    pub forward_address: Option<BaseUrl>,
    /// Where own telemetry goes as DogStatsD (`HOST:PORT`, UDP); `None` is into our own pipeline.
    pub stats_address: Option<String>,
    /// The Datadog sink, if configured.
    pub datadog: Option<DatadogSettings>,
    /// Print every flush to standard output although another sink is configured.
    pub debug_flushed_metrics: bool,
    /// Where errors and panics are reported.
    pub sentry_dsn: Option<Secret>,
    /// Log at debug level.
    pub debug: bool,
}

impl Settings {
    /// What this instance is in the fleet.
    pub fn role(&self) -> Role {
        match self.forward_address {
            Some(_) => Role::Local,
            None => Role::Global,
        }
    }
}

/// Statsd listeners and their limits.
#[derive(Clone, Debug, PartialEq)]
pub struct IntakeSettings {
    /// All listeners, in the order configured.
    pub listeners: Vec<StatsdAddress>,
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
    pub address: Option<HttpAddress>,
    /// Serve `/config/json` and `/config/yaml`, secrets hidden.
    pub config: bool,
    /// Serve `POST /quitquitquit`.
    pub quit: bool,
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
