//! Sinks, as entries of `sinks`.

use serde_json::{Map, Value, json};

use super::{duration, hidden, shown_matcher};
use crate::config::settings::{
    DatadogSettings, FileSettings, FilterSettings, GraphiteSettings, InfluxdbApi, InfluxdbSettings,
    SinkKind, SinkSettings, TracesSettings,
};
use crate::model::Pattern;

/// One entry.
///
/// Taken apart field by field, so that a new setting cannot be forgotten here.
pub(super) fn shown(sink: &SinkSettings) -> Value {
    let SinkSettings { name, kind, filter } = sink;
    let mut shown = Map::new();
    shown.insert("kind".to_owned(), json!(kind.as_str()));
    shown.insert("name".to_owned(), json!(name));
    let settings = match kind {
        SinkKind::Datadog(datadog) => shown_datadog(datadog),
        SinkKind::Graphite(graphite) => shown_graphite(graphite),
        SinkKind::Influxdb(influxdb) => shown_influxdb(influxdb),
        SinkKind::File(file) => shown_file(file),
        SinkKind::Traces(TracesSettings { address, format }) => {
            vec![("address", json!(address.redacted())), ("format", json!(format.as_str()))]
        }
        SinkKind::Console { own } => vec![("own", json!(own))],
    };
    let settings = settings.into_iter().chain(shown_filter(filter));
    shown.extend(settings.map(|(name, value)| (name.to_owned(), value)));
    Value::Object(shown)
}

fn shown_filter(filter: &FilterSettings) -> Vec<(&'static str, Value)> {
    let FilterSettings { include, exclude, strip_tags } = filter;
    let patterns = |patterns: &[Pattern]| patterns.iter().map(shown_pattern).collect::<Vec<_>>();
    vec![
        ("include", json!(patterns(include))),
        ("exclude", json!(patterns(exclude))),
        ("strip_tags", json!(strip_tags.iter().map(shown_matcher).collect::<Vec<_>>())),
    ]
}

fn shown_pattern(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Name(glob) => glob.as_str().to_owned(),
        Pattern::Tag(glob) => format!("#{}", glob.as_str()),
    }
}

fn shown_datadog(datadog: &DatadogSettings) -> Vec<(&'static str, Value)> {
    let DatadogSettings { api_hostname, key, key_in_query, flush_max_per_body } = datadog;
    vec![
        ("key", json!(hidden(key.is_some()))),
        ("api_hostname", json!(api_hostname.redacted())),
        ("flush_max_per_body", json!(flush_max_per_body.get())),
        ("key_in_query", json!(key_in_query)),
    ]
}

fn shown_graphite(graphite: &GraphiteSettings) -> Vec<(&'static str, Value)> {
    let GraphiteSettings { address, protocol, layout, prefix, names: _ } = graphite;
    vec![
        ("address", json!(address.to_string())),
        ("protocol", json!(protocol.as_str())),
        ("layout", json!(layout.as_str())),
        ("prefix", json!(prefix)),
    ]
}

fn shown_influxdb(influxdb: &InfluxdbSettings) -> Vec<(&'static str, Value)> {
    let InfluxdbSettings { address, api, layout } = influxdb;
    let mut shown = vec![("address", json!(address.redacted()))];
    match api {
        InfluxdbApi::V1 { database, retention_policy, consistency, user, password } => {
            let text = |text: &Option<String>| json!(text.as_deref().unwrap_or(""));
            shown.extend([
                ("database", json!(database)),
                ("retention_policy", text(retention_policy)),
                ("consistency", text(consistency)),
                ("user", text(user)),
                ("password", json!(hidden(password.is_some()))),
            ]);
        }
        InfluxdbApi::V2 { org, bucket, token: _ } => {
            shown.extend([
                ("org", json!(org)),
                ("bucket", json!(bucket)),
                ("token", json!(hidden(true))),
            ]);
        }
    }
    shown.push(("layout", json!(layout.as_str())));
    shown
}

fn shown_file(file: &FileSettings) -> Vec<(&'static str, Value)> {
    let FileSettings { path, max_bytes, max_age, keep } = file;
    vec![
        ("path", json!(path.display().to_string())),
        ("max_bytes", json!(max_bytes)),
        ("max_age", json!(duration::show(*max_age))),
        ("keep", json!(keep)),
    ]
}
