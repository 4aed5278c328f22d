//! The effective configuration: every setting as it is in force, secrets hidden.
//!
//! What is printed can be loaded again and means the same, but for the hidden values.

mod classic;
mod sinks;

use serde_json::{Map, Value, json};

use super::duration;
use super::raw::is_of;
use super::reference::Reference;
use super::secret::{BaseUrl, REDACTED};
use super::settings::{
    ClientTlsSettings, ForwardSettings, GathererSettings, HttpSettings, IdentitySettings,
    ImportSettings, IntakeSettings, LimitSettings, Settings, SpanSettings, SpoolSettings,
    TlsSettings,
};
use crate::model::{Percentile, Statistic, TagMatcher};

impl Settings {
    /// The effective configuration as YAML, secrets hidden.
    pub fn effective_yaml(&self) -> String {
        let mut text = String::new();
        let mut open = "";
        for (name, value) in effective(self) {
            let (section, key) = name.split_once('.').unwrap_or(("", name));
            if !section.is_empty() && section != open {
                text.push_str(&format!("{section}:\n"));
            }
            open = section;
            let indent = if section.is_empty() { "" } else { "  " };
            // JSON values are YAML values, if no more than YAML's printable characters are bare.
            text.push_str(&format!("{indent}{key}: {}\n", printable(&value.to_string())));
        }
        text
    }

    /// The effective configuration as JSON, secrets hidden.
    pub fn effective_json(&self) -> String {
        let mut root = Map::new();
        for (name, value) in effective(self) {
            match name.split_once('.') {
                None => root.insert(name.to_owned(), value),
                Some((section, key)) => root
                    .entry(section)
                    .or_insert_with(|| json!({}))
                    .as_object_mut()
                    .and_then(|section| section.insert(key.to_owned(), value)),
            };
        }
        printable(&format!("{:#}\n", Value::Object(root)))
    }
}

/// JSON in which the control characters that JSON allows in strings, and YAML does not, are
/// escaped.
fn printable(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => {
                text.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            _ => text.push(c),
        }
    }
    text
}

/// Every key with its value, in the order of `example.yaml`.
///
/// Taken apart field by field, so that a new setting cannot be forgotten here.
fn effective(settings: &Settings) -> Vec<(&'static str, Value)> {
    let Settings {
        program,
        interval,
        synchronize_with_interval,
        flush_watchdog_missed_flushes,
        hostname,
        tags,
        extend_tags,
        percentiles,
        aggregates,
        intake,
        classic: classic_settings,
        mapping,
        num_workers,
        limits,
        http,
        import,
        forward,
        identity,
        reference,
        gatherer,
        takeover_socket,
        sandbox,
        stats_address,
        sinks,
        spool,
        sentry_dsn,
        debug,
    } = settings;
    let quantiles: Vec<f64> = percentiles.iter().copied().map(Percentile::quantile).collect();
    let aggregates: Vec<&str> = aggregates.iter().copied().map(Statistic::as_str).collect();
    let mut shown = vec![
        ("interval", json!(duration::show(interval.length()))),
        ("synchronize_with_interval", json!(synchronize_with_interval)),
        (
            "flush_watchdog_missed_flushes",
            json!(flush_watchdog_missed_flushes.map_or(0, u32::from)),
        ),
        ("flush_on_shutdown", json!(true)),
        ("percentiles", json!(quantiles)),
        ("aggregates", json!(aggregates)),
        ("num_workers", json!(num_workers.get())),
    ];
    shown.extend(shown_limits(limits));
    shown.extend([
        ("hostname", json!(hostname.as_deref().unwrap_or(""))),
        ("omit_empty_hostname", json!(hostname.is_none())),
        ("tags", json!(tags)),
        ("extend_tags", json!(extend_tags.iter().collect::<Vec<_>>())),
    ]);
    shown.extend(shown_intake(intake));
    shown.extend(classic::shown(classic_settings, *interval));
    let mapping = mapping.as_ref().map_or(String::new(), |it| it.path.display().to_string());
    shown.push(("mapping_config", json!(mapping)));
    shown.extend(shown_http(http));
    shown.extend(shown_import(import));
    shown.extend(shown_forward(forward.as_ref()));
    shown.push(("sinks", json!(sinks.iter().map(sinks::shown).collect::<Vec<_>>())));
    shown.extend(shown_spool(spool));
    let takeover_socket =
        takeover_socket.as_ref().map_or(String::new(), |it| it.display().to_string());
    shown.extend(shown_identity(identity));
    shown.extend(shown_gatherer(reference.as_ref(), gatherer.as_ref()));
    shown.extend([
        ("takeover_socket", json!(takeover_socket)),
        ("sandbox", json!(sandbox)),
        ("stats_address", json!(stats_address.as_deref().unwrap_or(""))),
        ("sentry_dsn", json!(hidden(sentry_dsn.is_some()))),
        ("debug", json!(debug)),
    ]);
    shown.retain(|(name, _)| is_of(*program, name));
    shown
}

fn shown_limits(limits: &LimitSettings) -> Vec<(&'static str, Value)> {
    let LimitSettings {
        contexts,
        contexts_per_name,
        tags_per_metric,
        tag_length,
        name_length,
        memory,
    } = limits;
    vec![
        ("limits.contexts", json!(contexts)),
        ("limits.contexts_per_name", json!(contexts_per_name)),
        ("limits.tags_per_metric", json!(tags_per_metric)),
        ("limits.tag_length", json!(tag_length)),
        ("limits.name_length", json!(name_length)),
        ("limits.memory", json!(memory)),
    ]
}

fn shown_intake(intake: &IntakeSettings) -> Vec<(&'static str, Value)> {
    let IntakeSettings {
        listeners,
        dialect,
        repeat_to,
        num_readers,
        metric_max_length,
        read_buffer_bytes,
        tls,
        max_connections,
        idle_timeout,
        handshake_timeout,
        spans,
    } = intake;
    let addresses: Vec<String> = listeners.iter().map(ToString::to_string).collect();
    let mut shown = Vec::new();
    if listeners.is_empty() {
        // Without it, no listener would mean the default one.
        shown.push(("udp_address", json!("")));
    }
    let (certificate, authority) = shown_tls(tls.as_ref());
    shown.extend([
        ("statsd_listen_addresses", json!(addresses)),
        ("dialect", json!(dialect.as_str())),
        ("repeat_to", json!(repeat_to.iter().map(ToString::to_string).collect::<Vec<_>>())),
        ("num_readers", json!(num_readers.get())),
        ("metric_max_length", json!(metric_max_length)),
        ("read_buffer_size_bytes", json!(read_buffer_bytes)),
        ("tls_certificate", json!(certificate)),
        ("tls_key", json!(hidden(tls.is_some()))),
        ("tls_authority_certificate", json!(authority)),
        ("connections.max", json!(max_connections)),
        ("connections.idle_timeout", json!(duration::show(*idle_timeout))),
        ("connections.handshake_timeout", json!(duration::show(*handshake_timeout))),
    ]);
    shown.extend(shown_spans(spans));
    shown
}

fn shown_spans(spans: &SpanSettings) -> [(&'static str, Value); 4] {
    let SpanSettings { listeners, max_length, indicator_timer, objective_timer } = spans;
    let addresses: Vec<String> = listeners.iter().map(ToString::to_string).collect();
    let name = |name: &Option<String>| json!(name.as_deref().unwrap_or_default());
    [
        ("ssf_listen_addresses", json!(addresses)),
        ("trace_max_length_bytes", json!(max_length)),
        ("indicator_span_timer_name", name(indicator_timer)),
        ("objective_span_timer_name", name(objective_timer)),
    ]
}

/// Certificate and authority; the key is not shown.
fn shown_tls(tls: Option<&TlsSettings>) -> (&str, &str) {
    match tls {
        Some(TlsSettings { certificate, key: _, client_authority }) => {
            (certificate, client_authority.as_deref().unwrap_or(""))
        }
        None => ("", ""),
    }
}

fn shown_http(http: &HttpSettings) -> Vec<(&'static str, Value)> {
    let HttpSettings { address, config, quit, token, tls } = http;
    let (certificate, authority) = shown_tls(tls.as_ref());
    let address = address.as_ref().map_or(String::new(), ToString::to_string);
    vec![
        ("http_address", json!(address)),
        ("http.config", json!(config)),
        ("http.token", json!(hidden(token.is_some()))),
        ("http.tls_certificate", json!(certificate)),
        ("http.tls_key", json!(hidden(tls.is_some()))),
        ("http.tls_authority_certificate", json!(authority)),
        ("http_quit", json!(quit)),
    ]
}

fn shown_import(import: &ImportSettings) -> Vec<(&'static str, Value)> {
    let ImportSettings {
        grpc_address,
        token,
        max_entries_per_body,
        max_body_bytes,
        max_plain_bytes,
        in_flight,
        timeout,
    } = import;
    let address = grpc_address.as_ref().map_or(String::new(), ToString::to_string);
    vec![
        ("grpc_address", json!(address)),
        ("import.token", json!(hidden(token.is_some()))),
        ("import.max_entries_per_body", json!(max_entries_per_body)),
        ("import.max_body_bytes", json!(max_body_bytes)),
        ("import.max_plain_bytes", json!(max_plain_bytes)),
        ("import.in_flight", json!(in_flight)),
        ("import.timeout", json!(duration::show(*timeout))),
    ]
}

fn shown_forward(forward: Option<&ForwardSettings>) -> Vec<(&'static str, Value)> {
    let Some(ForwardSettings {
        upstreams,
        format,
        token,
        tls: ClientTlsSettings { authority, certificate },
        max_entries_per_body,
        max_body_bytes,
        max_plain_bytes,
        in_flight,
        timeout,
        queue_bytes,
        queue_age,
        failover_after,
        refresh,
        ignored_tags,
    }) = forward
    else {
        return vec![("forward_address", json!([]))];
    };
    let addresses: Vec<String> = upstreams.iter().map(|upstream| upstream.redacted()).collect();
    let (certificate, has_key) = match certificate {
        Some((certificate, _)) => (certificate.as_str(), true),
        None => ("", false),
    };
    vec![
        ("forward_address", json!(addresses)),
        ("forward_format", json!(format.as_str())),
        ("forward_use_grpc", json!(format.is_grpc())),
        ("forward.token", json!(hidden(token.is_some()))),
        ("forward.tls_authority_certificate", json!(authority.as_deref().unwrap_or(""))),
        ("forward.tls_certificate", json!(certificate)),
        ("forward.tls_key", json!(hidden(has_key))),
        ("forward.max_entries_per_body", json!(max_entries_per_body)),
        ("forward.max_body_bytes", json!(max_body_bytes)),
        ("forward.max_plain_bytes", json!(max_plain_bytes)),
        ("forward.in_flight", json!(in_flight)),
        ("forward.timeout", json!(duration::show(*timeout))),
        ("forward.queue_bytes", json!(queue_bytes)),
        ("forward.queue_age", json!(duration::show(*queue_age))),
        ("forward.failover_after", json!(duration::show(*failover_after))),
        ("consul_refresh_interval", json!(duration::show(*refresh))),
        ("ignore_tags", json!(ignored_tags.iter().map(shown_matcher).collect::<Vec<_>>())),
    ]
}

fn shown_matcher(matcher: &TagMatcher) -> Value {
    match matcher {
        TagMatcher::Any => json!({"kind": "any"}),
        TagMatcher::Exact(value) => json!({"kind": "exact", "value": value}),
        TagMatcher::Prefix(value) => json!({"kind": "prefix", "value": value}),
        TagMatcher::Substring(value) => json!({"kind": "substring", "value": value}),
        TagMatcher::Glob(glob) => json!(glob.as_str()),
    }
}

fn shown_spool(spool: &SpoolSettings) -> Vec<(&'static str, Value)> {
    let SpoolSettings { directory, max_bytes, max_age, sync, checkpoint } = spool;
    let directory = directory.as_ref().map_or(String::new(), |path| path.display().to_string());
    vec![
        ("spool.directory", json!(directory)),
        ("spool.max_bytes", json!(max_bytes)),
        ("spool.max_age", json!(duration::show(*max_age))),
        ("spool.sync", json!(sync)),
        ("spool.checkpoint", json!(duration::show(checkpoint.unwrap_or_default()))),
    ]
}

fn shown_identity(identity: &IdentitySettings) -> Vec<(&'static str, Value)> {
    let IdentitySettings { instance_id, state_directory } = identity;
    let directory = state_directory.as_ref().map_or(String::new(), |it| it.display().to_string());
    vec![
        ("instance_id", json!(instance_id.as_deref().unwrap_or(""))),
        ("state_directory", json!(directory)),
    ]
}

fn shown_gatherer(
    reference: Option<&Reference>,
    gatherer: Option<&GathererSettings>,
) -> Vec<(&'static str, Value)> {
    let reference = reference.map_or(String::new(), ToString::to_string);
    let mut shown = vec![("gatherer.reference", json!(reference))];
    let Some(GathererSettings {
        address,
        directory,
        poll_interval,
        poll_timeout,
        token,
        tls,
        file_mode,
        urls,
        max_providers,
    }) = gatherer
    else {
        shown.push(("gatherer.directory", json!("")));
        return shown;
    };
    let urls: Vec<String> = urls.iter().map(BaseUrl::redacted).collect();
    shown.extend([
        ("gatherer.directory", json!(directory.display().to_string())),
        ("gatherer.address", json!(address.to_string())),
        ("gatherer.token", json!(hidden(token.is_some()))),
        ("gatherer.tls_certificate", json!(shown_tls(tls.as_ref()).0)),
        ("gatherer.tls_key", json!(hidden(tls.is_some()))),
        ("gatherer.poll_interval", json!(duration::show(*poll_interval))),
        ("gatherer.poll_timeout", json!(duration::show(*poll_timeout))),
        ("gatherer.file_mode", json!(format!("{file_mode:04o}"))),
        ("gatherer.urls", json!(urls)),
        ("gatherer.max_providers", json!(max_providers)),
    ]);
    shown
}

/// What stands for a secret that is or is not set.
fn hidden(is_set: bool) -> &'static str {
    if is_set { REDACTED } else { "" }
}
