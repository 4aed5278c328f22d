//! Every key there is: its names, its type, and what may be said about it.
//!
//! [`ROWS`] is the one list of keys. The file, the environment, the nearest known name of a
//! misspelt key and the check that `example.yaml` is complete all read it. [`Raw`] is what was
//! written, typed and with its place; [`super::validate`] makes [`super::Settings`] of it.
//!
//! Names are those of Veneur v1.1.0, flat as they were; aliases are Veneur 14's names of the
//! same things; what Veneur does not have is in sections (`section.key`). A proxy and a
//! gatherer read the same keys; those that mean nothing to them are remarked on.

use std::time::Duration;

use super::bins;
use super::matchers;
use super::reading::{Given, Reading};
use super::settings::Program;
use super::sinks::{self, RawSink};
use crate::model::{Bins, TagMatcher};

/// A scalar, if it was written.
pub(super) type One<T> = Option<Given<T>>;
/// A list, if it was written.
pub(super) type Many<T> = Option<Vec<Given<T>>>;

/// What was written, typed.
#[derive(Debug, Default)]
pub(super) struct Raw {
    pub(super) interval: One<Duration>,
    pub(super) synchronize_with_interval: One<bool>,
    pub(super) flush_watchdog_missed_flushes: One<u64>,
    pub(super) flush_on_shutdown: One<bool>,
    pub(super) percentiles: Many<f64>,
    pub(super) aggregates: Many<String>,
    pub(super) num_workers: One<u64>,
    pub(super) limits_contexts: One<u64>,
    pub(super) limits_contexts_per_name: One<u64>,
    pub(super) limits_tags_per_metric: One<u64>,
    pub(super) limits_tag_length: One<u64>,
    pub(super) limits_name_length: One<u64>,
    pub(super) limits_memory: One<u64>,
    pub(super) hostname: One<String>,
    pub(super) omit_empty_hostname: One<bool>,
    pub(super) tags: Many<String>,
    pub(super) extend_tags: Many<String>,
    pub(super) udp_address: One<String>,
    pub(super) tcp_address: One<String>,
    pub(super) statsd_listen_addresses: Many<String>,
    pub(super) dialect: One<String>,
    pub(super) repeat_to: Many<String>,
    pub(super) num_readers: One<u64>,
    pub(super) metric_max_length: One<u64>,
    pub(super) read_buffer_size_bytes: One<u64>,
    pub(super) tls_certificate: One<String>,
    pub(super) tls_key: One<String>,
    pub(super) tls_authority_certificate: One<String>,
    pub(super) connections_max: One<u64>,
    pub(super) connections_idle_timeout: One<Duration>,
    pub(super) connections_handshake_timeout: One<Duration>,
    pub(super) etsy_percent_threshold: Many<f64>,
    pub(super) etsy_histogram: Many<Bins>,
    pub(super) etsy_calculated_timer_metrics: Many<String>,
    pub(super) etsy_key_name_sanitize: One<bool>,
    pub(super) etsy_delete_idle_stats: One<bool>,
    pub(super) etsy_delete_counters: One<bool>,
    pub(super) etsy_delete_timers: One<bool>,
    pub(super) etsy_delete_sets: One<bool>,
    pub(super) etsy_delete_gauges: One<bool>,
    pub(super) etsy_gauges_max_ttl: One<u64>,
    pub(super) etsy_legacy_namespace: One<bool>,
    pub(super) etsy_global_prefix: One<String>,
    pub(super) etsy_prefix_counter: One<String>,
    pub(super) etsy_prefix_timer: One<String>,
    pub(super) etsy_prefix_gauge: One<String>,
    pub(super) etsy_prefix_set: One<String>,
    pub(super) etsy_global_suffix: One<String>,
    pub(super) etsy_flush_counts: One<bool>,
    pub(super) brubeck_expire: One<Duration>,
    pub(super) mapping_config: One<String>,
    pub(super) http_address: One<String>,
    pub(super) http_config: One<bool>,
    pub(super) http_token: One<String>,
    pub(super) http_tls_certificate: One<String>,
    pub(super) http_tls_key: One<String>,
    pub(super) http_tls_authority_certificate: One<String>,
    pub(super) http_quit: One<bool>,
    pub(super) grpc_address: One<String>,
    pub(super) import_token: One<String>,
    pub(super) import_max_entries_per_body: One<u64>,
    pub(super) import_max_body_bytes: One<u64>,
    pub(super) import_max_plain_bytes: One<u64>,
    pub(super) import_in_flight: One<u64>,
    pub(super) import_timeout: One<Duration>,
    pub(super) forward_address: Many<String>,
    pub(super) forward_format: One<String>,
    pub(super) forward_use_grpc: One<bool>,
    pub(super) forward_token: One<String>,
    pub(super) forward_tls_authority_certificate: One<String>,
    pub(super) forward_tls_certificate: One<String>,
    pub(super) forward_tls_key: One<String>,
    pub(super) forward_max_entries_per_body: One<u64>,
    pub(super) forward_max_body_bytes: One<u64>,
    pub(super) forward_max_plain_bytes: One<u64>,
    pub(super) forward_in_flight: One<u64>,
    pub(super) forward_timeout: One<Duration>,
    pub(super) forward_queue_bytes: One<u64>,
    pub(super) forward_queue_age: One<Duration>,
    pub(super) forward_failover_after: One<Duration>,
    pub(super) grpc_forward_address: Many<String>,
    pub(super) consul_forward_service_name: One<String>,
    pub(super) consul_forward_grpc_service_name: One<String>,
    pub(super) consul_refresh_interval: One<Duration>,
    pub(super) ignore_tags: Many<TagMatcher>,
    pub(super) key: One<String>,
    pub(super) api_hostname: One<String>,
    pub(super) flush_max_per_body: One<u64>,
    pub(super) datadog_key_in_query: One<bool>,
    pub(super) graphite_address: One<String>,
    pub(super) graphite_layout: One<String>,
    pub(super) influx_address: One<String>,
    pub(super) influx_db_name: One<String>,
    pub(super) influx_consistency: One<String>,
    pub(super) flush_file: One<String>,
    pub(super) trace_address: One<String>,
    pub(super) ssf_listen_addresses: Many<String>,
    pub(super) trace_max_length_bytes: One<u64>,
    pub(super) indicator_span_timer_name: One<String>,
    pub(super) objective_span_timer_name: One<String>,
    pub(super) trace_api_address: One<String>,
    pub(super) datadog_trace_api_address: One<String>,
    pub(super) sinks: Option<Vec<RawSink>>,
    pub(super) tags_exclude: Many<String>,
    pub(super) spool_directory: One<String>,
    pub(super) spool_max_bytes: One<u64>,
    pub(super) spool_max_age: One<Duration>,
    pub(super) spool_sync: One<bool>,
    pub(super) spool_checkpoint: One<Duration>,
    pub(super) debug_flushed_metrics: One<bool>,
    pub(super) instance_id: One<String>,
    pub(super) state_directory: One<String>,
    pub(super) gatherer_reference: One<String>,
    pub(super) gatherer_reference_file: One<String>,
    pub(super) gatherer_directory: One<String>,
    pub(super) gatherer_address: One<String>,
    pub(super) gatherer_token: One<String>,
    pub(super) gatherer_tls_certificate: One<String>,
    pub(super) gatherer_tls_key: One<String>,
    pub(super) gatherer_poll_interval: One<Duration>,
    pub(super) gatherer_poll_timeout: One<Duration>,
    pub(super) gatherer_file_mode: One<String>,
    pub(super) gatherer_urls: Many<String>,
    pub(super) gatherer_max_providers: One<u64>,
    pub(super) takeover_socket: One<String>,
    pub(super) sandbox: One<bool>,
    pub(super) stats_address: One<String>,
    pub(super) sentry_dsn: One<String>,
    pub(super) debug: One<bool>,
}

/// One key of the configuration.
pub(super) type Row = RowOf<Raw>;

/// One key, or one setting of a sink, and where in `R` it goes.
pub(super) struct RowOf<R: 'static> {
    /// Its name; `section.key` inside a section.
    pub(super) name: &'static str,
    /// Its other names.
    pub(super) aliases: &'static [&'static str],
    /// How messages may quote its value.
    pub(super) quote: Quote,
    /// What this build does not do yet, if the key is for that.
    pub(super) later: Option<&'static str>,
    /// Reads its value into its field.
    pub(super) set: fn(&mut R, &mut Reading<'_>),
}

/// How a message may quote a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Quote {
    /// As it is.
    Whole,
    /// Without user, password and query.
    Url,
    /// Not at all.
    Never,
}

impl<R> RowOf<R> {
    pub(super) const fn new(name: &'static str, set: fn(&mut R, &mut Reading<'_>)) -> RowOf<R> {
        RowOf { name, aliases: &[], quote: Quote::Whole, later: None, set }
    }

    /// Also known as `aliases`.
    pub(super) const fn also(self, aliases: &'static [&'static str]) -> RowOf<R> {
        RowOf { aliases, ..self }
    }

    /// Its value is never shown.
    pub(super) const fn secret(self) -> RowOf<R> {
        RowOf { quote: Quote::Never, ..self }
    }

    /// Its value is a URL that may carry credentials.
    pub(super) const fn url(self) -> RowOf<R> {
        RowOf { quote: Quote::Url, ..self }
    }

    /// Accepted and checked, but for `feature`, which this build does not have yet.
    const fn later(self, feature: &'static str) -> RowOf<R> {
        RowOf { later: Some(feature), ..self }
    }
}

/// Keys that mean something to a proxy; one that ends in `_` or `.` stands for all that begin so.
const OF_A_PROXY: &[&str] = &[
    "interval",
    "hostname",
    "tags",
    "http_",
    "http.",
    "grpc_",
    "import.",
    "forward_",
    "forward.",
    "consul_",
    "ignore_tags",
    "spool.",
    "instance_id",
    "state_directory",
    "gatherer.",
    "sandbox",
    "stats_address",
    "sentry_dsn",
    "debug",
];

/// The same for a gatherer.
const OF_A_GATHERER: &[&str] = &[
    "interval",
    "hostname",
    "tags",
    "http_",
    "http.",
    "instance_id",
    "state_directory",
    "gatherer.",
    "sandbox",
    "stats_address",
    "sentry_dsn",
    "debug",
];

/// Whether a key means something to a program.
pub(super) fn is_of(program: Program, name: &str) -> bool {
    let keys = match program {
        Program::Daemon => return true,
        Program::Proxy => OF_A_PROXY,
        Program::Gatherer => OF_A_GATHERER,
    };
    keys.iter().any(|key| name == *key || key.ends_with(['_', '.']) && name.starts_with(key))
}

/// Every key, grouped as in `example.yaml`.
pub(super) static ROWS: &[Row] = &[
    // Flushing
    Row::new("interval", |raw, read| raw.interval = read.one()),
    Row::new("synchronize_with_interval", |raw, read| raw.synchronize_with_interval = read.one()),
    Row::new("flush_watchdog_missed_flushes", |raw, read| {
        raw.flush_watchdog_missed_flushes = read.one();
    }),
    Row::new("flush_on_shutdown", |raw, read| raw.flush_on_shutdown = read.one()),
    Row::new("percentiles", |raw, read| raw.percentiles = read.many()),
    Row::new("aggregates", |raw, read| raw.aggregates = read.many()),
    Row::new("num_workers", |raw, read| raw.num_workers = read.one()),
    Row::new("limits.contexts", |raw, read| raw.limits_contexts = read.one()),
    Row::new("limits.contexts_per_name", |raw, read| raw.limits_contexts_per_name = read.one()),
    Row::new("limits.tags_per_metric", |raw, read| raw.limits_tags_per_metric = read.one()),
    Row::new("limits.tag_length", |raw, read| raw.limits_tag_length = read.one()),
    Row::new("limits.name_length", |raw, read| raw.limits_name_length = read.one()),
    Row::new("limits.memory", |raw, read| raw.limits_memory = read.one()),
    // Identity
    Row::new("hostname", |raw, read| raw.hostname = read.one()),
    Row::new("omit_empty_hostname", |raw, read| raw.omit_empty_hostname = read.one()),
    Row::new("tags", |raw, read| raw.tags = read.many()),
    Row::new("extend_tags", |raw, read| raw.extend_tags = read.many()),
    // Listeners
    Row::new("udp_address", |raw, read| raw.udp_address = read.one()),
    Row::new("tcp_address", |raw, read| raw.tcp_address = read.one()),
    Row::new("statsd_listen_addresses", |raw, read| raw.statsd_listen_addresses = read.many()),
    Row::new("dialect", |raw, read| raw.dialect = read.one()),
    Row::new("repeat_to", |raw, read| raw.repeat_to = read.many()),
    Row::new("num_readers", |raw, read| raw.num_readers = read.one()),
    Row::new("metric_max_length", |raw, read| raw.metric_max_length = read.one()),
    Row::new("read_buffer_size_bytes", |raw, read| raw.read_buffer_size_bytes = read.one()),
    Row::new("tls_certificate", |raw, read| raw.tls_certificate = read.one()),
    Row::new("tls_key", |raw, read| raw.tls_key = read.one()).secret(),
    Row::new("tls_authority_certificate", |raw, read| raw.tls_authority_certificate = read.one()),
    Row::new("connections.max", |raw, read| raw.connections_max = read.one()),
    Row::new("connections.idle_timeout", |raw, read| raw.connections_idle_timeout = read.one()),
    Row::new("connections.handshake_timeout", |raw, read| {
        raw.connections_handshake_timeout = read.one();
    }),
    // Spans
    Row::new("trace_address", |raw, read| raw.trace_address = read.one()),
    Row::new("ssf_listen_addresses", |raw, read| raw.ssf_listen_addresses = read.many()),
    Row::new("trace_max_length_bytes", |raw, read| raw.trace_max_length_bytes = read.one()),
    Row::new("indicator_span_timer_name", |raw, read| raw.indicator_span_timer_name = read.one()),
    Row::new("objective_span_timer_name", |raw, read| raw.objective_span_timer_name = read.one()),
    // Classic statsd
    Row::new("etsy.percent_threshold", |raw, read| raw.etsy_percent_threshold = read.one_or_many()),
    Row::new("etsy.histogram", |raw, read| raw.etsy_histogram = bins::read(read)),
    Row::new("etsy.calculated_timer_metrics", |raw, read| {
        raw.etsy_calculated_timer_metrics = read.many()
    }),
    Row::new("etsy.key_name_sanitize", |raw, read| raw.etsy_key_name_sanitize = read.one()),
    Row::new("etsy.delete_idle_stats", |raw, read| raw.etsy_delete_idle_stats = read.one()),
    Row::new("etsy.delete_counters", |raw, read| raw.etsy_delete_counters = read.one()),
    Row::new("etsy.delete_timers", |raw, read| raw.etsy_delete_timers = read.one()),
    Row::new("etsy.delete_sets", |raw, read| raw.etsy_delete_sets = read.one()),
    Row::new("etsy.delete_gauges", |raw, read| raw.etsy_delete_gauges = read.one()),
    Row::new("etsy.gauges_max_ttl", |raw, read| raw.etsy_gauges_max_ttl = read.one()),
    Row::new("etsy.legacy_namespace", |raw, read| raw.etsy_legacy_namespace = read.one()),
    Row::new("etsy.global_prefix", |raw, read| raw.etsy_global_prefix = read.one()),
    Row::new("etsy.prefix_counter", |raw, read| raw.etsy_prefix_counter = read.one()),
    Row::new("etsy.prefix_timer", |raw, read| raw.etsy_prefix_timer = read.one()),
    Row::new("etsy.prefix_gauge", |raw, read| raw.etsy_prefix_gauge = read.one()),
    Row::new("etsy.prefix_set", |raw, read| raw.etsy_prefix_set = read.one()),
    Row::new("etsy.global_suffix", |raw, read| raw.etsy_global_suffix = read.one()),
    Row::new("etsy.flush_counts", |raw, read| raw.etsy_flush_counts = read.one()),
    Row::new("brubeck.expire", |raw, read| raw.brubeck_expire = read.one()),
    Row::new("mapping_config", |raw, read| raw.mapping_config = read.one()),
    // HTTP server
    Row::new("http_address", |raw, read| raw.http_address = read.one()),
    Row::new("http.config", |raw, read| raw.http_config = read.one()).also(&["http.enable_config"]),
    Row::new("http.token", |raw, read| raw.http_token = read.one()).secret(),
    Row::new("http.tls_certificate", |raw, read| raw.http_tls_certificate = read.one()),
    Row::new("http.tls_key", |raw, read| raw.http_tls_key = read.one()).secret(),
    Row::new("http.tls_authority_certificate", |raw, read| {
        raw.http_tls_authority_certificate = read.one();
    }),
    Row::new("http_quit", |raw, read| raw.http_quit = read.one()),
    // Importing
    Row::new("grpc_address", |raw, read| raw.grpc_address = read.one()),
    Row::new("import.token", |raw, read| raw.import_token = read.one()).secret(),
    Row::new("import.max_entries_per_body", |raw, read| {
        raw.import_max_entries_per_body = read.one();
    }),
    Row::new("import.max_body_bytes", |raw, read| raw.import_max_body_bytes = read.one()),
    Row::new("import.max_plain_bytes", |raw, read| raw.import_max_plain_bytes = read.one()),
    Row::new("import.in_flight", |raw, read| raw.import_in_flight = read.one()),
    Row::new("import.timeout", |raw, read| raw.import_timeout = read.one()),
    // Destinations
    Row::new("forward_address", |raw, read| raw.forward_address = read.one_or_many()).url(),
    Row::new("forward_format", |raw, read| raw.forward_format = read.one()),
    Row::new("forward_use_grpc", |raw, read| raw.forward_use_grpc = read.one()),
    Row::new("forward.token", |raw, read| raw.forward_token = read.one()).secret(),
    Row::new("forward.tls_authority_certificate", |raw, read| {
        raw.forward_tls_authority_certificate = read.one();
    }),
    Row::new("forward.tls_certificate", |raw, read| raw.forward_tls_certificate = read.one()),
    Row::new("forward.tls_key", |raw, read| raw.forward_tls_key = read.one()).secret(),
    Row::new("forward.max_entries_per_body", |raw, read| {
        raw.forward_max_entries_per_body = read.one();
    }),
    Row::new("forward.max_body_bytes", |raw, read| raw.forward_max_body_bytes = read.one()),
    Row::new("forward.max_plain_bytes", |raw, read| raw.forward_max_plain_bytes = read.one()),
    Row::new("forward.in_flight", |raw, read| raw.forward_in_flight = read.one()),
    Row::new("forward.timeout", |raw, read| raw.forward_timeout = read.one())
        .also(&["forward_timeout"]),
    Row::new("forward.queue_bytes", |raw, read| raw.forward_queue_bytes = read.one()),
    Row::new("forward.queue_age", |raw, read| raw.forward_queue_age = read.one()),
    Row::new("forward.failover_after", |raw, read| raw.forward_failover_after = read.one()),
    Row::new("grpc_forward_address", |raw, read| raw.grpc_forward_address = read.one_or_many())
        .url(),
    Row::new("consul_forward_service_name", |raw, read| {
        raw.consul_forward_service_name = read.one();
    }),
    Row::new("consul_forward_grpc_service_name", |raw, read| {
        raw.consul_forward_grpc_service_name = read.one();
    }),
    Row::new("consul_refresh_interval", |raw, read| raw.consul_refresh_interval = read.one())
        .also(&["discovery_interval"]),
    Row::new("ignore_tags", |raw, read| raw.ignore_tags = matchers::read(read)),
    Row::new("key", |raw, read| raw.key = read.one()).also(&["datadog_api_key"]).secret(),
    Row::new("api_hostname", |raw, read| raw.api_hostname = read.one())
        .also(&["datadog_api_hostname"])
        .url(),
    Row::new("flush_max_per_body", |raw, read| raw.flush_max_per_body = read.one())
        .also(&["datadog_flush_max_per_body"]),
    Row::new("datadog.key_in_query", |raw, read| raw.datadog_key_in_query = read.one()),
    Row::new("graphite_address", |raw, read| raw.graphite_address = read.one()),
    Row::new("graphite_layout", |raw, read| raw.graphite_layout = read.one()),
    Row::new("influx_address", |raw, read| raw.influx_address = read.one()).url(),
    Row::new("influx_db_name", |raw, read| raw.influx_db_name = read.one()),
    Row::new("influx_consistency", |raw, read| raw.influx_consistency = read.one()),
    Row::new("flush_file", |raw, read| raw.flush_file = read.one()),
    Row::new("trace_api_address", |raw, read| raw.trace_api_address = read.one()).url(),
    Row::new("datadog_trace_api_address", |raw, read| raw.datadog_trace_api_address = read.one())
        .url(),
    Row::new("sinks", |raw, read| raw.sinks = sinks::read(read)).also(&["metric_sinks"]),
    Row::new("tags_exclude", |raw, read| raw.tags_exclude = read.many()),
    Row::new("spool.directory", |raw, read| raw.spool_directory = read.one()),
    Row::new("spool.max_bytes", |raw, read| raw.spool_max_bytes = read.one()),
    Row::new("spool.max_age", |raw, read| raw.spool_max_age = read.one()),
    Row::new("spool.sync", |raw, read| raw.spool_sync = read.one()),
    Row::new("spool.checkpoint", |raw, read| raw.spool_checkpoint = read.one()),
    Row::new("debug_flushed_metrics", |raw, read| raw.debug_flushed_metrics = read.one()),
    // Seeing inside
    Row::new("instance_id", |raw, read| raw.instance_id = read.one()),
    Row::new("state_directory", |raw, read| raw.state_directory = read.one()),
    Row::new("gatherer.reference", |raw, read| raw.gatherer_reference = read.one()).secret(),
    Row::new("gatherer.reference_file", |raw, read| raw.gatherer_reference_file = read.one()),
    Row::new("gatherer.directory", |raw, read| raw.gatherer_directory = read.one()),
    Row::new("gatherer.address", |raw, read| raw.gatherer_address = read.one()),
    Row::new("gatherer.token", |raw, read| raw.gatherer_token = read.one()).secret(),
    Row::new("gatherer.tls_certificate", |raw, read| raw.gatherer_tls_certificate = read.one()),
    Row::new("gatherer.tls_key", |raw, read| raw.gatherer_tls_key = read.one()).secret(),
    Row::new("gatherer.poll_interval", |raw, read| raw.gatherer_poll_interval = read.one()),
    Row::new("gatherer.poll_timeout", |raw, read| raw.gatherer_poll_timeout = read.one()),
    Row::new("gatherer.file_mode", |raw, read| raw.gatherer_file_mode = read.one()),
    Row::new("gatherer.urls", |raw, read| raw.gatherer_urls = read.many()).url(),
    Row::new("gatherer.max_providers", |raw, read| raw.gatherer_max_providers = read.one()),
    // The daemon itself
    Row::new("takeover_socket", |raw, read| raw.takeover_socket = read.one()),
    Row::new("sandbox", |raw, read| raw.sandbox = read.one()),
    Row::new("stats_address", |raw, read| raw.stats_address = read.one()),
    Row::new("sentry_dsn", |raw, read| raw.sentry_dsn = read.one()).secret(),
    Row::new("debug", |raw, read| raw.debug = read.one()),
    Row::new("enable_profiling", |_, read| drop(read.one::<bool>())).later("CPU profiles"),
    // Later
    Row::new("aws_access_key_id", |_, read| text(read)).secret().later("S3"),
    Row::new("aws_secret_access_key", |_, read| text(read)).secret().later("S3"),
    Row::new("aws_region", |_, read| text(read)).later("S3"),
    Row::new("aws_s3_bucket", |_, read| text(read)).later("S3"),
];

fn text(read: &mut Reading<'_>) {
    drop(read.one::<String>());
}

/// Every name a key may be written by.
pub(super) fn names() -> impl Iterator<Item = (&'static Row, &'static str)> {
    ROWS.iter().flat_map(|row| {
        std::iter::once(row.name).chain(row.aliases.iter().copied()).map(move |name| (row, name))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::tree::{self, Entry, Value};

    #[test]
    fn no_two_keys_share_a_name_even_without_underscores() {
        let mut rows = BTreeMap::new();
        for (row, name) in names() {
            let first = rows.entry(name.replace(['_', '.'], "")).or_insert(row.name);
            assert_eq!(*first, row.name, "{name} names two keys");
        }
    }

    #[test]
    fn the_example_lists_every_key_once_in_our_order() {
        fn keys(prefix: &str, entries: &[Entry]) -> Vec<String> {
            let below = |entry: &Entry| match &entry.node.value {
                Value::Map(entries) => keys(&format!("{}.", entry.key), entries),
                Value::Null | Value::Text(_) | Value::List(_) => vec![entry.key.clone()],
            };
            let names = entries.iter().flat_map(below);
            names.map(|name| format!("{prefix}{name}")).collect()
        }
        let root = tree::parse(include_str!("../../example.yaml")).expect("the example is YAML");
        let Value::Map(entries) = root.value else { panic!("the example is a mapping") };
        let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(keys("", &entries), names);
    }
}
