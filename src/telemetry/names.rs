//! Every metric the daemon emits about itself: name, kind, unit and meaning, in one table.
//!
//! Names are without the `veneur.` prefix, which the reports add. Where Veneur 1.1 or 14 has a
//! metric of the same meaning the name is Veneur's, its unit included: durations are timers of
//! nanoseconds. `/metrics` shows the same series under names made by the rules of OpenMetrics
//! ([`openmetrics_family`]): `flush.total_duration_ns` is `veneur_flush_total_duration_seconds`.
//!
//! Source: the metric tables of the READMEs of Veneur 1.1.0 and 14.2.0.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows: [`super::Telemetry::count`], or a source.
    Counter,
    /// A present state: [`super::Telemetry::gauge`], or a source.
    Gauge,
    /// How long something took: [`super::Telemetry::duration`].
    Duration,
    /// Sizes or amounts of something that happens again and again: [`super::Telemetry::histogram`].
    Amount,
}

/// What its numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    One,
    /// Nanoseconds; shown as seconds on `/metrics`.
    Nanoseconds,
    /// Bytes.
    Bytes,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Without the `veneur.` prefix.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// One sentence for people, tags in parentheses.
    pub help: &'static str,
}

/// The row of a name.
pub fn find(name: &str) -> Option<&'static Metric> {
    ALL.iter().find(|metric| metric.name == name)
}

/// The name of a metric family on `/metrics`: legal characters, no `_total` (counters get it
/// back on their samples), and the unit at the end in base units.
pub fn openmetrics_family(name: &str, unit: Unit) -> String {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let stem = match unit {
        Unit::Nanoseconds => name.strip_suffix("_ns").unwrap_or(name),
        Unit::One | Unit::Bytes => name,
    };
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let mut family: String = "veneur_".chars().chain(stem.chars().map(legal)).collect();
    if unit == Unit::Nanoseconds {
        family.push_str("_seconds");
    }
    family
}

/// Makes a constant of each name, and the table of all.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $constant:ident = $name:literal, $kind:ident, $unit:ident;)+) => {
        $($(#[doc = $help])+ pub const $constant: &str = $name;)+

        /// The table.
        pub const ALL: &[Metric] = &[$(Metric {
            name: $name,
            kind: Kind::$kind,
            unit: Unit::$unit,
            help: concat!($($help),+),
        }),+];
    };
}

metrics! {
    // What comes in.

    /// Lines, datagrams and frames refused (`packet_type`, `reason`).
    PACKET_ERROR_TOTAL = "packet.error_total", Counter, One;
    /// Unknown sections of otherwise good lines that were skipped.
    PACKET_SECTIONS_SKIPPED_TOTAL = "packet.sections_skipped_total", Counter, One;
    /// Elements of packed values that were left out (`reason`).
    PACKET_VALUES_SKIPPED_TOTAL = "packet.values_skipped_total", Counter, One;
    /// Datagrams and stream frames received (`protocol`).
    LISTEN_RECEIVED_PER_PROTOCOL_TOTAL = "listen.received_per_protocol_total", Counter, One;
    /// Bytes of them (`protocol`).
    LISTEN_BYTES_TOTAL = "listen.bytes_total", Counter, Bytes;
    /// Lines in them (`protocol`).
    LISTEN_LINES_TOTAL = "listen.lines_total", Counter, One;
    /// Metric lines taken: lines are these, events, service checks, or refused (`protocol`).
    LISTEN_METRICS_TOTAL = "listen.metrics_total", Counter, One;
    /// Samples in the lines, a packed line having several (`protocol`).
    LISTEN_SAMPLES_TOTAL = "listen.samples_total", Counter, One;
    /// Values that brought a time of their own and skip aggregation (`protocol`).
    LISTEN_TIMESTAMPED_TOTAL = "listen.timestamped_total", Counter, One;
    /// Events received (`protocol`).
    LISTEN_EVENTS_TOTAL = "listen.events_total", Counter, One;
    /// Service checks received (`protocol`).
    LISTEN_CHECKS_TOTAL = "listen.checks_total", Counter, One;
    /// Spans received.
    SSF_SPANS_RECEIVED_TOTAL = "ssf.spans.received_total", Counter, One;
    /// Spans that had to go for newer ones of the same interval (`reason`).
    SSF_SPANS_DROPPED_TOTAL = "ssf.spans.dropped_total", Counter, One;
    /// Messages of SSF that carried samples and no span.
    SSF_ONLY_SAMPLES_TOTAL = "ssf.only_samples_total", Counter, One;
    /// Datagrams the kernel dropped because a receive buffer was full (`listener`, `socket`).
    LISTEN_KERNEL_DROPS_TOTAL = "listen.kernel_drops_total", Counter, One;
    /// Errors of the system while listening (`during` accept, receive, wait, drain).
    LISTEN_ERRORS_TOTAL = "listen.errors_total", Counter, One;
    /// Stream connections accepted.
    TCP_CONNECTS = "tcp.connects", Counter, One;
    /// Stream connections that ended.
    TCP_DISCONNECTS = "tcp.disconnects", Counter, One;
    /// TLS handshakes that failed or took too long (`cause`).
    TCP_TLS_HANDSHAKE_FAILURES = "tcp.tls_handshake_failures", Counter, One;
    /// Stream connections closed at once (`reason` limit: there are too many; not_allowed).
    TCP_REFUSED_TOTAL = "tcp.refused_total", Counter, One;
    /// Stream connections closed because they were silent for too long.
    TCP_IDLE_TIMEOUTS_TOTAL = "tcp.idle_timeouts_total", Counter, One;
    /// What clients report to have dropped before it got here: packets, bytes or metrics, as
    /// `metric` says (their counters `datadog.dogstatsd.client.*dropped*`, without that beginning).
    CLIENTS_DROPPED_TOTAL = "clients.dropped_total", Counter, One;

    /// Datagrams passed on to other statsd servers (`address`).
    REPEATER_SENT_TOTAL = "repeater.sent_total", Counter, One;
    /// Datagrams that were not (`address`, `reason`).
    REPEATER_DROPPED_TOTAL = "repeater.dropped_total", Counter, One;

    // Between readers and workers.

    /// Time readers stood still because a worker's inbox was full.
    ROUTER_BLOCKED_NS_TOTAL = "router.blocked_ns_total", Counter, Nanoseconds;
    /// Samples lost on the way to a worker (`reason`).
    ROUTER_DROPPED_TOTAL = "router.dropped_total", Counter, One;
    /// Samples that a mapping file has left out (`line` of the rule).
    MAPPING_DROPPED_TOTAL = "mapping.dropped_total", Counter, One;
    /// Events, service checks and timestamped values there was no room for, or that a mapping file
    /// has left out (`type` event, check, timestamped; `reason`).
    COLLECTOR_DROPPED_TOTAL = "collector.dropped_total", Counter, One;
    /// Service checks that a later one about the same took the place of.
    COLLECTOR_REPLACED_TOTAL = "collector.replaced_total", Counter, One;
    /// Time from handing a batch over to a worker to its being applied.
    WORKER_QUEUE_DURATION_NS = "worker.queue_duration_ns", Duration, Nanoseconds;
    /// Samples workers applied.
    WORKER_METRICS_PROCESSED_TOTAL = "worker.metrics_processed_total", Counter, One;
    /// Imported entries workers merged.
    WORKER_METRICS_IMPORTED_TOTAL = "worker.metrics_imported_total", Counter, One;
    /// Series held at present.
    WORKER_CONTEXTS = "worker.contexts", Gauge, One;

    /// Samples and imported entries of new series beyond the limits, counted in overflow series
    /// (`metric`: a name, or `_other`).
    LIMITS_FOLDED_SAMPLES_TOTAL = "limits.folded_samples_total", Counter, One;
    /// Those new series; one counts again when it was not remembered (`metric`).
    LIMITS_FOLDED_CONTEXTS_TOTAL = "limits.folded_contexts_total", Counter, One;

    /// The same by what there was too much of (`limit` contexts, contexts_per_name, key_bytes,
    /// tags_per_metric, tag_length, name_length, memory).
    LIMITS_REACHED_TOTAL = "limits.reached_total", Counter, One;
    /// What was held at the last flush, as `limits.memory` counts it (`part` keys, sketches; what
    /// counts is the first and twice the second).
    LIMITS_MEMORY_BYTES = "limits.memory_bytes", Gauge, Bytes;

    // The flush.

    /// Series flushed (`metric_type`).
    WORKER_METRICS_FLUSHED_TOTAL = "worker.metrics_flushed_total", Counter, One;
    /// Events flushed.
    WORKER_EVENTS_FLUSHED_TOTAL = "worker.events_flushed_total", Counter, One;
    /// Service checks flushed.
    WORKER_CHECKS_FLUSHED_TOTAL = "worker.checks_flushed_total", Counter, One;
    /// Time one worker took to hand over what it held.
    FLUSH_WORKER_DURATION_NS = "flush.worker_duration_ns", Duration, Nanoseconds;
    /// Time to take events and service checks out.
    FLUSH_EVENT_WORKER_DURATION_NS = "flush.event_worker_duration_ns", Duration, Nanoseconds;
    /// Time of the parts of a flush (`part` gather, combine, post).
    FLUSH_TOTAL_DURATION_NS = "flush.total_duration_ns", Duration, Nanoseconds;
    /// Points of the last flush.
    FLUSH_POST_METRICS_TOTAL = "flush.post_metrics_total", Gauge, One;
    /// Values not emitted because they were not finite, such as an overflowed sum.
    FLUSH_NON_FINITE_TOTAL = "flush.non_finite_total", Counter, One;
    /// Intervals that passed without a flush.
    FLUSH_MISSED_TOTAL = "flush.missed_total", Counter, One;
    /// Different series received in the interval.
    FLUSH_UNIQUE_TIMESERIES_TOTAL = "flush.unique_timeseries_total", Counter, One;
    /// When the last flush began, since 1970.
    FLUSH_FLUSH_TIMESTAMP_NS = "flush.flush_timestamp_ns", Gauge, Nanoseconds;

    /// How long the last flush took, delivering not included.
    FLUSH_LAST_TOTAL_DURATION_NS = "flush.last_total_duration_ns", Gauge, Nanoseconds;

    // Requests to Datadog, one set for each thing posted.

    /// Time of one request for series (`part` json, post).
    FLUSH_DURATION_NS = "flush.duration_ns", Duration, Nanoseconds;
    /// Size of one body of series, compressed.
    FLUSH_CONTENT_LENGTH_BYTES = "flush.content_length_bytes", Amount, Bytes;
    /// Failed requests for series (`cause`).
    FLUSH_ERROR_TOTAL = "flush.error_total", Counter, One;
    /// Time of one request for events (`part` json, post).
    FLUSH_EVENTS_DURATION_NS = "flush_events.duration_ns", Duration, Nanoseconds;
    /// Size of one body of events, compressed.
    FLUSH_EVENTS_CONTENT_LENGTH_BYTES = "flush_events.content_length_bytes", Amount, Bytes;
    /// Failed requests for events (`cause`).
    FLUSH_EVENTS_ERROR_TOTAL = "flush_events.error_total", Counter, One;
    /// Time of one request for service checks (`part` json, post).
    FLUSH_CHECKS_DURATION_NS = "flush_checks.duration_ns", Duration, Nanoseconds;
    /// Size of one body of service checks.
    FLUSH_CHECKS_CONTENT_LENGTH_BYTES = "flush_checks.content_length_bytes", Amount, Bytes;
    /// Failed requests for service checks (`cause`).
    FLUSH_CHECKS_ERROR_TOTAL = "flush_checks.error_total", Counter, One;
    /// Time of one request for spans (`part` json, post).
    FLUSH_TRACES_DURATION_NS = "flush_traces.duration_ns", Duration, Nanoseconds;
    /// Size of one body of spans.
    FLUSH_TRACES_CONTENT_LENGTH_BYTES = "flush_traces.content_length_bytes", Amount, Bytes;
    /// Failed requests for spans (`cause`).
    FLUSH_TRACES_ERROR_TOTAL = "flush_traces.error_total", Counter, One;

    // Sinks.

    /// Points it was to deliver: taken, skipped or dropped in the end, or kept (`sink`).
    SINK_METRICS_OFFERED_TOTAL = "sink.metrics_offered_total", Counter, One;
    /// Events it was to deliver (`sink`).
    SINK_EVENTS_OFFERED_TOTAL = "sink.events_offered_total", Counter, One;
    /// Service checks it was to deliver (`sink`).
    SINK_CHECKS_OFFERED_TOTAL = "sink.checks_offered_total", Counter, One;
    /// Spans it was to deliver (`sink`).
    SINK_SPANS_OFFERED_TOTAL = "sink.spans_offered_total", Counter, One;
    /// Time one sink took for a flush (`sink`).
    SINK_METRIC_FLUSH_TOTAL_DURATION_NS =
        "sink.metric_flush_total_duration_ns", Duration, Nanoseconds;
    /// Points the other side took (`sink`).
    SINK_METRICS_FLUSHED_TOTAL = "sink.metrics_flushed_total", Counter, One;
    /// Points the sink does not take (`sink`).
    SINK_METRICS_SKIPPED_TOTAL = "sink.metrics_skipped_total", Counter, One;
    /// Points lost (`sink`, `reason`).
    SINK_METRICS_DROPPED_TOTAL = "sink.metrics_dropped_total", Counter, One;
    /// Events the other side took (`sink`).
    SINK_EVENTS_FLUSHED_TOTAL = "sink.events_flushed_total", Counter, One;
    /// Events the sink does not take (`sink`).
    SINK_EVENTS_SKIPPED_TOTAL = "sink.events_skipped_total", Counter, One;
    /// Events lost (`sink`, `reason`).
    SINK_EVENTS_DROPPED_TOTAL = "sink.events_dropped_total", Counter, One;
    /// Service checks the other side took (`sink`).
    SINK_CHECKS_FLUSHED_TOTAL = "sink.checks_flushed_total", Counter, One;
    /// Service checks the sink does not take (`sink`).
    SINK_CHECKS_SKIPPED_TOTAL = "sink.checks_skipped_total", Counter, One;
    /// Service checks lost (`sink`, `reason`).
    SINK_CHECKS_DROPPED_TOTAL = "sink.checks_dropped_total", Counter, One;
    /// Spans the other side took (`sink`).
    SINK_SPANS_FLUSHED_TOTAL = "sink.spans_flushed_total", Counter, One;
    /// Spans the sink does not take (`sink`).
    SINK_SPANS_SKIPPED_TOTAL = "sink.spans_skipped_total", Counter, One;
    /// Spans lost (`sink`, `reason`).
    SINK_SPANS_DROPPED_TOTAL = "sink.spans_dropped_total", Counter, One;
    /// Flushes a sink never saw because it was still busy (`sink`).
    SINK_BATCHES_DROPPED_TOTAL = "sink.batches_dropped_total", Counter, One;
    /// Connections to carbon that took everything and did not close, so that nothing says whether
    /// all was read (`sink`).
    SINK_UNCONFIRMED_TOTAL = "sink.unconfirmed_total", Counter, One;
    /// Requests sent again (`sink`).
    SINK_RETRIES_TOTAL = "sink.retries_total", Counter, One;

    // Forwarding upstream, and importing from downstream.

    /// Time of the parts of forwarding (`part` export, dns, post; `upstream` for post).
    FORWARD_DURATION_NS = "forward.duration_ns", Duration, Nanoseconds;
    /// Size of one body as sent (`upstream`).
    FORWARD_CONTENT_LENGTH_BYTES = "forward.content_length_bytes", Amount, Bytes;
    /// Failed requests and resolutions (`cause`, `upstream`).
    FORWARD_ERROR_TOTAL = "forward.error_total", Counter, One;
    /// Entries of the last forward.
    FORWARD_POST_METRICS_TOTAL = "forward.post_metrics_total", Gauge, One;
    /// Entries that were to be forwarded: taken or dropped in the end, or waiting.
    FORWARD_ENTRIES_OFFERED_TOTAL = "forward.entries_offered_total", Counter, One;
    /// Entries upstream took (`upstream`).
    FORWARD_ENTRIES_DELIVERED_TOTAL = "forward.entries_delivered_total", Counter, One;
    /// Entries lost (`reason`, `upstream` if they had one).
    FORWARD_ENTRIES_DROPPED_TOTAL = "forward.entries_dropped_total", Counter, One;
    /// Memory of the batches lost (`reason`, `upstream`).
    FORWARD_DROPPED_BYTES_TOTAL = "forward.dropped_bytes_total", Counter, Bytes;
    /// Batches sent again (`upstream`).
    FORWARD_RETRIES_TOTAL = "forward.retries_total", Counter, One;
    /// Memory of the batches that wait or are being sent.
    FORWARD_QUEUE_BYTES = "forward.queue_bytes", Gauge, Bytes;
    /// Entries in them.
    FORWARD_QUEUE_ENTRIES = "forward.queue_entries", Gauge, One;
    /// Upstream nodes that have a share.
    FORWARD_RING_MEMBERS = "forward.ring_members", Gauge, One;
    /// Time of one import (`part` request, merge; `encoding`).
    IMPORT_RESPONSE_DURATION_NS = "import.response_duration_ns", Duration, Nanoseconds;
    /// Imports, or single entries of one, that were refused (`cause`).
    IMPORT_REQUEST_ERROR_TOTAL = "import.request_error_total", Counter, One;
    /// Entries imported.
    IMPORT_METRICS_TOTAL = "import.metrics_total", Counter, One;
    /// Batches that were sent again after they had been merged.
    IMPORT_REPEATED_TOTAL = "import.repeated_total", Counter, One;
    /// Size of one imported body as received.
    IMPORT_BYTES = "import.bytes", Amount, Bytes;

    // What waits to be delivered.

    /// Undelivered records that are kept: requests or batches (`spool`).
    SPOOL_RECORDS = "spool.records", Gauge, One;
    /// Points, events, checks or forwarded entries in them (`spool`).
    SPOOL_ITEMS = "spool.items", Gauge, One;
    /// Points, events, checks or forwarded entries that were on disk at the start (`spool`).
    SPOOL_FOUND_TOTAL = "spool.found_total", Counter, One;
    /// Bytes of them that are in memory (`spool`).
    SPOOL_MEMORY_BYTES = "spool.memory_bytes", Gauge, Bytes;
    /// Size of the segments on disk (`spool`).
    SPOOL_DISK_BYTES = "spool.disk_bytes", Gauge, Bytes;
    /// For how long the oldest of them waits (`spool`).
    SPOOL_OLDEST_NS = "spool.oldest_ns", Gauge, Nanoseconds;
    /// Bytes lost from it (`spool`, `reason`); what was in them counts at its sink or upstream.
    SPOOL_DROPPED_BYTES_TOTAL = "spool.dropped_bytes_total", Counter, Bytes;
    /// Segments on disk that were damaged, and are kept aside (`spool`).
    SPOOL_CORRUPT_TOTAL = "spool.corrupt_total", Counter, One;
    /// Failures of the disk (`spool`, `cause` full, read_only, permission, locked, missing, io).
    SPOOL_ERROR_TOTAL = "spool.error_total", Counter, One;

    // Telling a gatherer, and being one.

    /// 1 while registered with the gatherer.
    PROVIDER_REGISTERED = "provider.registered", Gauge, One;
    /// Questions of the gatherer.
    PROVIDER_POLLS_TOTAL = "provider.polls_total", Counter, One;
    /// Providers that are connected.
    GATHERER_PROVIDERS = "gatherer.providers", Gauge, One;
    /// Connections of would-be providers that were refused (`reason`).
    GATHERER_REFUSED_TOTAL = "gatherer.refused_total", Counter, One;
    /// Questions asked.
    GATHERER_POLLS_TOTAL = "gatherer.polls_total", Counter, One;
    /// Those without an answer (`cause` timeout, failed, lost).
    GATHERER_POLL_ERRORS_TOTAL = "gatherer.poll_errors_total", Counter, One;
    /// Time from asking all to the last answer.
    GATHERER_ROUND_DURATION_NS = "gatherer.round_duration_ns", Duration, Nanoseconds;
    /// Writes of stats.json that failed.
    GATHERER_WRITE_ERRORS_TOTAL = "gatherer.write_errors_total", Counter, One;

    // The open interval on disk.

    /// States of series written.
    CHECKPOINT_SERIES_TOTAL = "checkpoint.series_total", Counter, One;
    /// Bytes of them.
    CHECKPOINT_WRITTEN_BYTES_TOTAL = "checkpoint.written_bytes_total", Counter, Bytes;
    /// Time of one checkpoint (`part` all), and for how long a slice of it kept a worker (pause).
    CHECKPOINT_DURATION_NS = "checkpoint.duration_ns", Duration, Nanoseconds;
    /// Series read back at the start.
    CHECKPOINT_RESTORED_TOTAL = "checkpoint.restored_total", Counter, One;
    /// Series that were there and are not used (`reason` too_old).
    CHECKPOINT_DROPPED_TOTAL = "checkpoint.dropped_total", Counter, One;
    /// Damaged files that are kept aside.
    CHECKPOINT_CORRUPT_TOTAL = "checkpoint.corrupt_total", Counter, One;
    /// Failures of the disk (`cause` as for the spool).
    CHECKPOINT_ERROR_TOTAL = "checkpoint.error_total", Counter, One;

    // The rest of the house.

    /// HTTP requests answered (`status`).
    HTTP_REQUESTS_TOTAL = "http.requests_total", Counter, One;
    /// HTTP connections refused or cut (`reason` limit, not_allowed, slow, idle, drain).
    HTTP_CONNECTIONS_CLOSED_TOTAL = "http.connections_closed_total", Counter, One;
    /// gRPC connections refused or cut (`reason` limit, not_allowed, drain).
    GRPC_CONNECTIONS_CLOSED_TOTAL = "grpc.connections_closed_total", Counter, One;
    /// Datagrams of own telemetry that did not get to `stats_address` (`reason`).
    STATS_DROPPED_TOTAL = "stats.dropped_total", Counter, One;
    /// Log lines left out (`reason` repeated: their call site said too much; unread: standard
    /// error takes no more).
    LOG_LEFT_OUT_TOTAL = "log.left_out_total", Counter, One;
    /// Errors not reported to Sentry because their call site reported too many.
    SENTRY_LEFT_OUT_TOTAL = "sentry.left_out_total", Counter, One;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for Metric { name, .. } in ALL {
            assert!(seen.insert(name), "{name} twice");
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let words: Vec<&str> = name.split('.').collect();
            assert!(words.len() >= 2, "{name} has no area");
            assert!(words.iter().all(|word| word.starts_with(|c: char| c.is_ascii_lowercase())));
            assert!(words.iter().all(|word| word.chars().all(legal)), "{name}");
        }
    }

    #[test]
    fn a_name_says_its_unit() {
        for &Metric { name, kind, unit, .. } in ALL {
            let bare = name.strip_suffix("_total").unwrap_or(name);
            assert_eq!(bare.ends_with("_ns"), unit == Unit::Nanoseconds, "{name}");
            assert_eq!(bare.ends_with("bytes"), unit == Unit::Bytes, "{name}");
            if kind == Kind::Duration {
                assert_eq!(unit, Unit::Nanoseconds, "{name}");
            }
        }
    }

    #[test]
    fn every_metric_is_explained_in_one_line() {
        for Metric { name, help, .. } in ALL {
            assert!(help.trim().ends_with('.') && !help.contains('\n'), "{name}: {help}");
        }
    }

    /// A family owns its name and the names of its samples; no other may use them.
    #[test]
    fn names_on_the_metrics_page_are_unique() {
        let mut seen = BTreeSet::new();
        for &Metric { name, kind, unit, .. } in ALL {
            let family = openmetrics_family(name, unit);
            let suffixes: &[&str] = match kind {
                Kind::Counter => &["", "_total"],
                Kind::Gauge => &[""],
                Kind::Duration | Kind::Amount => &["", "_count", "_sum"],
            };
            for suffix in suffixes {
                assert!(seen.insert(format!("{family}{suffix}")), "{family}{suffix} twice");
            }
        }
    }

    #[test]
    fn families_are_named_by_the_rules_of_openmetrics() {
        for (name, family) in [
            (PACKET_ERROR_TOTAL, "veneur_packet_error"),
            (FLUSH_TOTAL_DURATION_NS, "veneur_flush_total_duration_seconds"),
            (ROUTER_BLOCKED_NS_TOTAL, "veneur_router_blocked_seconds"),
            (IMPORT_BYTES, "veneur_import_bytes"),
            (TCP_CONNECTS, "veneur_tcp_connects"),
            (FLUSH_POST_METRICS_TOTAL, "veneur_flush_post_metrics"),
        ] {
            let unit = find(name).expect("it is in the table").unit;
            assert_eq!(openmetrics_family(name, unit), family);
        }
    }

    #[test]
    fn a_row_is_found_by_its_name() {
        assert_eq!(find(TCP_CONNECTS).map(|metric| metric.kind), Some(Kind::Counter));
        assert_eq!(find("tcp.unheard_of"), None);
    }
}
