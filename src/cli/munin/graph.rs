//! What can be drawn.

use std::collections::BTreeMap;

use serde_json::Number;

use crate::gatherer::Entry;

const COUNTER: &str = "counter_";
const STAT: &str = "stat_";

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Work done; drawn as a rate.
    Counter,
    /// Present state.
    Stat,
}

/// A graph that has a name of its own.
#[derive(Debug)]
pub(super) struct Named {
    /// What follows `veneur_`.
    pub(super) plugin: &'static str,
    kind: Kind,
    /// As providers tell it.
    name: &'static str,
    title: &'static str,
    vlabel: &'static str,
    arguments: Option<&'static str>,
}

const RATE: &str = "per ${graph_period}";

const fn rate(plugin: &'static str, name: &'static str, title: &'static str) -> Named {
    Named { plugin, kind: Kind::Counter, name, title, vlabel: RATE, arguments: None }
}

const fn level(
    plugin: &'static str,
    name: &'static str,
    title: &'static str,
    vlabel: &'static str,
) -> Named {
    Named { plugin, kind: Kind::Stat, name, title, vlabel, arguments: None }
}

/// All of them.
pub(super) static NAMED: &[Named] = &[
    rate("packets_received", "listen.received_per_protocol_total", "Packets received"),
    rate("packet_errors", "packet.error_total", "Lines and packets refused"),
    rate("metrics_processed", "worker.metrics_processed_total", "Metrics processed"),
    rate("metrics_imported", "worker.metrics_imported_total", "Metrics imported"),
    rate("metrics_flushed", "worker.metrics_flushed_total", "Metrics flushed"),
    rate("flush_errors", "flush.error_total", "Failed requests to Datadog"),
    rate("forwarded", "forward.entries_delivered_total", "Metrics forwarded"),
    rate("forward_errors", "forward.error_total", "Failed forwards"),
    rate("import_errors", "import.request_error_total", "Imports refused"),
    rate("peer_alerts", "peers.alerts_total", "Alerts about peers"),
    level("load_avg", "load_monitor.avg_load", "Lateness of a timer, mean", "seconds"),
    level("load_peak", "load_monitor.max_load", "Lateness of a timer, maximum", "seconds"),
    level("cpu", "cpu_monitor.5min_avg", "CPU", "cores"),
    Named {
        arguments: Some("--base 1024"),
        ..level("memory", "process.resident_bytes", "Memory", "bytes")
    },
    level("contexts", "worker.contexts", "Series held", "series"),
    level("queue_depth", "forward.queue_entries", "Metrics waiting to be forwarded", "metrics"),
    level("flush_duration", "flush.last_total_duration_ns", "Last flush", "nanoseconds"),
    level("uptime", "node.uptime", "Uptime", "seconds"),
    level("peers", "peers.current", "Peers", "peers"),
    level("peers_failed", "peers.failed", "Peers that failed", "peers"),
];

/// A graph to be drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Graph {
    pub(super) kind: Kind,
    pub(super) title: String,
    pub(super) vlabel: &'static str,
    pub(super) info: String,
    pub(super) arguments: Option<&'static str>,
    /// As providers tell it, the one that counts first.
    names: Vec<String>,
}

impl Graph {
    /// The graph called `plugin`: one of [`NAMED`], or of any number that a provider tells.
    pub(super) fn find(plugin: &str, entries: &BTreeMap<String, Entry>) -> Option<Graph> {
        if let Some(named) = NAMED.iter().find(|named| named.plugin == plugin) {
            return Some(Graph {
                kind: named.kind,
                title: named.title.to_owned(),
                vlabel: named.vlabel,
                info: format!("{} of each instance", named.name),
                arguments: named.arguments,
                names: vec![named.name.to_owned()],
            });
        }
        let (kind, wanted) = match (plugin.strip_prefix(COUNTER), plugin.strip_prefix(STAT)) {
            (Some(wanted), _) => (Kind::Counter, wanted),
            (None, Some(wanted)) => (Kind::Stat, wanted),
            (None, None) => return None,
        };
        let told = entries.values().flat_map(|entry| -> Box<dyn Iterator<Item = &String>> {
            match kind {
                Kind::Counter => Box::new(entry.stats.counters.keys()),
                Kind::Stat => Box::new(entry.stats.stats.keys()),
            }
        });
        let mut names: Vec<String> = told.filter(|name| legal(name) == wanted).cloned().collect();
        names.sort();
        names.dedup();
        let title = names.first()?.clone();
        Some(Graph {
            kind,
            info: format!("{} of each instance", names.join(", ")),
            title,
            vlabel: if kind == Kind::Counter { RATE } else { "value" },
            arguments: None,
            names,
        })
    }

    /// What follows `veneur_` for this counter.
    pub(super) fn counter(name: &str) -> String {
        format!("{COUNTER}{}", legal(name))
    }

    /// What follows `veneur_` for this stat.
    pub(super) fn stat(name: &str) -> String {
        format!("{STAT}{}", legal(name))
    }

    /// The value of a provider: none if it does not tell, `Some(None)` if it does not know.
    pub(super) fn value<'a>(&self, entry: &'a Entry) -> Option<Option<&'a Number>> {
        let stats = &entry.stats;
        self.names.iter().find_map(|name| match self.kind {
            Kind::Counter => stats.counters.get(name).map(Some),
            Kind::Stat => stats.stats.get(name).map(Option::as_ref),
        })
    }

    /// As munin wants it: RRD refuses a fraction where it counts.
    pub(super) fn show(&self, value: &Number) -> String {
        match (self.kind, value.as_f64()) {
            (Kind::Counter, Some(float)) if value.is_f64() => format!("{float:.0}"),
            // Not with an exponent, as the number would be written by itself.
            (Kind::Stat, Some(float)) if value.is_f64() => float.to_string(),
            _ => value.to_string(),
        }
    }
}

fn legal(name: &str) -> String {
    // By bytes, as fields are.
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().map(|byte| if legal(byte) { char::from(byte) } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names;

    /// Told by others than the registry of own metrics.
    const ELSEWHERE: [&str; 5] = ["load_monitor.", "cpu_monitor.", "process.", "node.", "peers."];

    #[test]
    fn what_is_drawn_is_counted() {
        for named in NAMED {
            let is_own = names::find(named.name).is_some_and(|metric| {
                (metric.kind == names::Kind::Counter) == (named.kind == Kind::Counter)
            });
            let is_elsewhere = ELSEWHERE.iter().any(|area| named.name.starts_with(area));
            assert!(is_own || is_elsewhere, "{}: {}", named.plugin, named.name);
        }
    }
}
