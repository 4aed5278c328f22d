//! The list of sinks: those of `sinks`, and those that keys of earlier times mean.

use super::{filled, flag};
use crate::config::problem::{Report, Source};
use crate::config::raw::{Many, Raw};
use crate::config::reading::Given;
use crate::config::settings::{FilterSettings, InfluxdbLayout, SinkKind, SinkSettings};
use crate::config::sinks::{CONSOLE, DATADOG, FILE, GRAPHITE, INFLUXDB, RawSink, TRACES};
use crate::model::{Glob, Pattern, TagMatcher};

const MOST_SINKS: usize = 32;
const MOST_PATTERNS: usize = 1_000;
/// A name is that of a directory and of a thread.
const LONGEST_NAME: usize = 40;
const NAMES: &str = "up to 40 letters, digits, - and _";
/// The forwarder's directory in the spool.
const RESERVED: &str = "forward";

/// All sinks, in the order written, those of flat keys first. The console if there is no other.
pub(super) fn sinks(raw: &Raw, report: &mut Report) -> Vec<SinkSettings> {
    let flat = flat(raw);
    let given = flat.iter().chain(raw.sinks.iter().flatten());
    let mut sinks: Vec<SinkSettings> = Vec::new();
    for given in given {
        if sinks.len() == MOST_SINKS {
            report.refuse(&given.source, "too many sinks", format!("{MOST_SINKS} at most"));
            break;
        }
        let name = name(given, &sinks, report);
        let filter = filter(given, report);
        let kind = (given.kind.validate)(given, report);
        sinks.extend(kind.map(|kind| SinkSettings { name, kind, filter }));
    }
    // Spans are all that this one takes.
    let takes_points = |sink: &SinkSettings| !sink.takes_spans();
    let has_console = sinks.iter().any(|sink| matches!(sink.kind, SinkKind::Console { .. }));
    let is_debug = flag(&raw.debug_flushed_metrics, false);
    if !sinks.iter().any(takes_points) || is_debug && !has_console {
        let name = CONSOLE.name.to_owned();
        let kind = SinkKind::Console { own: is_debug };
        sinks.push(SinkSettings { name, kind, filter: FilterSettings::default() });
    }
    exclude_tags(&raw.tags_exclude, &mut sinks, report);
    sinks
}

/// What flat keys say, as entries of the list.
fn flat(raw: &Raw) -> Vec<RawSink> {
    let mut sinks = Vec::new();
    if let Some(first) = filled(&raw.key).or(filled(&raw.api_hostname)) {
        sinks.push(RawSink {
            key: raw.key.clone(),
            address: raw.api_hostname.clone(),
            max_per_body: raw.flush_max_per_body.clone(),
            key_in_query: raw.datadog_key_in_query.clone(),
            ..RawSink::new(&DATADOG, first.source.clone())
        });
    }
    if let Some(first) = filled(&raw.graphite_address) {
        sinks.push(RawSink {
            address: raw.graphite_address.clone(),
            layout: raw.graphite_layout.clone(),
            ..RawSink::new(&GRAPHITE, first.source.clone())
        });
    }
    if let Some(first) = filled(&raw.influx_address) {
        // As in v1.1.0, which had no other.
        let value = InfluxdbLayout::Values.as_str().to_owned();
        sinks.push(RawSink {
            address: raw.influx_address.clone(),
            database: raw.influx_db_name.clone(),
            consistency: raw.influx_consistency.clone(),
            layout: Some(Given { value, source: Source::built_in("layout") }),
            ..RawSink::new(&INFLUXDB, first.source.clone())
        });
    }
    if let Some(first) = filled(&raw.flush_file) {
        let path = raw.flush_file.clone();
        sinks.push(RawSink { path, ..RawSink::new(&FILE, first.source.clone()) });
    }
    for (address, format) in
        [(&raw.trace_api_address, "spans"), (&raw.datadog_trace_api_address, "v0.3")]
    {
        let Some(first) = filled(address) else { continue };
        let source = first.source.clone();
        let format = Given { value: format.to_owned(), source: source.clone() };
        sinks.push(RawSink {
            address: address.clone(),
            format: Some(format),
            ..RawSink::new(&TRACES, source)
        });
    }
    sinks
}

fn name(given: &RawSink, others: &[SinkSettings], report: &mut Report) -> String {
    let source = filled(&given.name).map_or(&given.source, |name| &name.source);
    let name = filled(&given.name).map_or(given.kind.name, |name| name.value.as_str());
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.len() > LONGEST_NAME || !name.chars().all(is_name) || name == RESERVED {
        report.refuse(source, "not a name of a sink", NAMES);
    } else if others.iter().any(|other| other.name == name) {
        let what = format!("a second sink called {name}");
        report.refuse(source, what, "a name of its own, as in {kind: datadog, name: datadog-eu}");
    }
    name.to_owned()
}

fn filter(given: &RawSink, report: &mut Report) -> FilterSettings {
    let mut patterns = |given: &Many<String>| {
        let given = given.as_deref().unwrap_or_default();
        if let Some(first) = given.get(MOST_PATTERNS) {
            report.refuse(&first.source, "too many", format!("{MOST_PATTERNS} at most"));
        }
        given.iter().map(|pattern| Pattern::new(&pattern.value)).collect()
    };
    let (include, exclude) = (patterns(&given.include), patterns(&given.exclude));
    let strip_tags = given.strip_tags.iter().flatten().map(|tags| tags.value.clone()).collect();
    FilterSettings { include, exclude, strip_tags }
}

/// `tags_exclude`: each is a tag or the key of one, and behind it, separated by `|`, the sinks that
/// shall not get it; none are all.
///
/// Source: Veneur 14. There it is the beginning of a tag for Datadog, and its key for others; here
/// it is the key, or the whole tag, for all.
fn exclude_tags(given: &Many<String>, sinks: &mut [SinkSettings], report: &mut Report) {
    for given in given.iter().flatten().filter(|given| !given.value.is_empty()) {
        let mut parts = given.value.split('|');
        let Some(tag) = parts.next() else { continue };
        let names: Vec<&str> = parts.collect();
        for name in names.iter().filter(|name| !sinks.iter().any(|sink| sink.name == ***name)) {
            report.warn(&given.source, format!("there is no sink called {name}"));
        }
        for sink in sinks.iter_mut() {
            if names.is_empty() || names.contains(&sink.name.as_str()) {
                sink.filter.strip_tags.push(TagMatcher::Glob(Glob::new(tag)));
            }
        }
    }
}
