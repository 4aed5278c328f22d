//! What to say about a key that is not known.

/// Keys of later Veneurs whose features are not ours: without this list the nearest known name
/// would be bad advice (`ssf_address` is no misspelt `udp_address`).
///
/// Source: the example.yaml and example_proxy.yaml of Veneur 2.0 to 14.2.0.
const FOREIGN: [&str; 43] = [
    "block_profile_rate",
    "consul_trace_service_name",
    "count_unique_timeseries",
    "datadog_exclude_tags_prefix_by_prefix_metric",
    "datadog_metric_name_prefix_drops",
    "datadog_span_buffer_size",
    "debug_ingested_spans",
    "diagnostics_metrics_enabled",
    "dial_timeout",
    "falconer_address",
    "features",
    "forward_service",
    "grpc_listen_addresses",
    "grpc_server",
    "idle_connection_timeout",
    "max_idle_conns",
    "max_idle_conns_per_host",
    "metric_sink_routing",
    "mutex_profile_fraction",
    "num_span_workers",
    "runtime_metrics_interval",
    "send_buffer_size",
    "shutdown_timeout",
    "sources",
    "span_channel_capacity",
    "span_sinks",
    "ssf_address",
    "ssf_buffer_size",
    "ssf_destination_address",
    "veneur_metrics_additional_tags",
    "veneur_metrics_scopes",
    // Families: every key that starts so.
    "aws_",
    "cloudwatch_",
    "kafka_",
    "lightstep_",
    "newrelic_",
    "prometheus_",
    "signalfx_",
    "splunk_hec_",
    "splunk_span_",
    "trace_lightstep_",
    "tracing_client_",
    "xray_",
];

/// What to say about `written`, which is none of `names`.
pub(super) fn remark<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> String {
    if is_foreign(written) {
        return "a key of Veneur that this build does not have; it has no effect".to_owned();
    }
    match nearest(written, names) {
        Some(name) => format!("unknown key, it has no effect; did you mean {name}?"),
        None => "unknown key, it has no effect".to_owned(),
    }
}

/// Whether `written` is a key of a Veneur, and none of ours.
pub(super) fn is_foreign(written: &str) -> bool {
    let top = written.split('.').next().unwrap_or(written);
    FOREIGN.iter().any(|name| top == *name || name.ends_with('_') && top.starts_with(name))
}

/// The name of `names` nearest to `written`, if it is near enough to be meant: at most a third
/// of its characters differ.
pub(super) fn nearest<'a>(written: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (distance(written, name), name))
        .filter(|(distance, name)| *distance * 3 <= name.len().max(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Edits from `a` to `b`: a character inserted, removed or replaced, or two neighbours swapped
/// (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(100).collect();
    let b: Vec<char> = b.chars().take(100).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("intervall", "interval", 1),
            ("intreval", "interval", 1),
            ("num_worker", "num_readers", 5),
            ("größe", "grosse", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn keys_of_later_veneurs_are_known_to_be_foreign() {
        let names = || ["http_address", "sources_of_joy"].into_iter();
        for written in ["ssf_address", "features.proxy_protocol", "kafka_broker", "sources"] {
            let remark = remark(written, names());
            assert!(remark.starts_with("a key of Veneur "), "{written}: {remark}");
        }
        assert_eq!(
            remark("htp_address", names()),
            "unknown key, it has no effect; did you mean http_address?"
        );
        assert_eq!(remark("colour", names()), "unknown key, it has no effect");
    }

    #[test]
    fn only_a_near_name_is_named() {
        let names = ["interval", "tags", "num_workers", "num_readers"];
        for (written, meant) in [
            ("intervall", Some("interval")),
            ("tag", Some("tags")),
            ("num_worker", Some("num_workers")),
            ("num-readers", Some("num_readers")),
            ("percentiles", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, names.into_iter()), meant, "{written}");
        }
    }
}
