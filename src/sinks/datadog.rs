//! The Datadog intake: series, events and service checks, as Veneur v1.1.0 posts them.
//!
//! | What | Request | Body |
//! |---|---|---|
//! | points | `POST /api/v1/series` | `{"series":[..]}`, zlib ([`series`]) |
//! | events | `POST /intake` | `{"events":{"api":[..]}}`, zlib ([`events`]) |
//! | service checks | `POST /api/v1/check_run` | `[..]` ([`events`]) |
//!
//! The three are sent side by side, and nothing is sent where there is nothing to say. The key
//! is in the header `DD-API-KEY`; as `?api_key=` too only if asked, since queries end up in
//! logs. Sizes, retries and what is counted: [`super::post`].

use std::num::NonZeroUsize;
use std::sync::Arc;

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::backlog::{Backlog, Courier};
use super::post::{Class, Http, Poster, Route, SetupError, Target, never_partial};
use super::{Delivered, MetricSink, Node, Tally};
use crate::config::settings::DatadogSettings;
use crate::model::{FlushBatch, Interval};
use crate::telemetry::{Telemetry, names};

pub mod events;
pub mod series;

/// The sink of this name has Veneur's metrics as Veneur has them, without a tag of its name.
const NAME: &str = "datadog";
/// What is kept is JSON of the intake; the first there was, so it has no name.
const FORMAT: &str = "";
const API_KEY: HeaderName = HeaderName::from_static("dd-api-key");

/// The sink.
pub struct Datadog {
    name: String,
    poster: Arc<Poster<Http>>,
    series: Arc<Route<Target>>,
    events: Arc<Route<Target>>,
    checks: Arc<Route<Target>>,
    max_series_per_body: NonZeroUsize,
    node: Arc<Node>,
    telemetry: Telemetry,
}

impl Datadog {
    /// The sink of this name as configured. Nothing is sent yet. The process must have a default TLS
    /// provider. What is not delivered in time goes to the backlog, which sends it as this sink
    /// does from now on; without one, it is dropped.
    ///
    /// # Errors
    /// The address is no URL, the key cannot be a header, or the TLS set-up is broken.
    pub fn new(
        name: &str,
        settings: &DatadogSettings,
        node: Node,
        interval: Interval,
        telemetry: Telemetry,
        backlog: Option<&Backlog>,
    ) -> Result<Datadog, SetupError> {
        let http = Http::new(&settings.api_hostname, settings.key.clone())?;
        let poster = Poster::new(http, name, interval, telemetry.clone());
        let poster = match backlog {
            Some(backlog) => poster.keeping(Arc::clone(backlog.keep()), FORMAT),
            None => poster,
        };
        let deflate = Some("deflate");
        let tag = if name == NAME { String::new() } else { format!("sink:{name}") };
        let datadog = Datadog {
            name: name.to_owned(),
            poster: Arc::new(poster),
            series: Arc::new(Route {
                class: Class::Points,
                target: target(settings, "/api/v1/series", deflate)?,
                tag: tag.clone(),
                duration_ns: names::FLUSH_DURATION_NS,
                content_length_bytes: names::FLUSH_CONTENT_LENGTH_BYTES,
                error_total: names::FLUSH_ERROR_TOTAL,
                partial: never_partial,
            }),
            events: Arc::new(Route {
                class: Class::Events,
                target: target(settings, "/intake", deflate)?,
                tag: tag.clone(),
                duration_ns: names::FLUSH_EVENTS_DURATION_NS,
                content_length_bytes: names::FLUSH_EVENTS_CONTENT_LENGTH_BYTES,
                error_total: names::FLUSH_EVENTS_ERROR_TOTAL,
                partial: never_partial,
            }),
            checks: Arc::new(Route {
                class: Class::Checks,
                target: target(settings, "/api/v1/check_run", None)?,
                tag,
                duration_ns: names::FLUSH_CHECKS_DURATION_NS,
                content_length_bytes: names::FLUSH_CHECKS_CONTENT_LENGTH_BYTES,
                error_total: names::FLUSH_CHECKS_ERROR_TOTAL,
                partial: never_partial,
            }),
            max_series_per_body: settings.flush_max_per_body,
            node: Arc::new(node),
            telemetry,
        };
        if let Some(backlog) = backlog {
            let routes = [&datadog.series, &datadog.events, &datadog.checks].map(Arc::clone);
            let poster = Arc::clone(&datadog.poster);
            backlog.send_by(Courier { poster, routes: routes.to_vec(), format: FORMAT });
        }
        Ok(datadog)
    }
}

fn target(
    settings: &DatadogSettings,
    path: &str,
    encoding: Option<&'static str>,
) -> Result<Target, SetupError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    if let Some(key) = &settings.key {
        let mut value = HeaderValue::from_str(key.reveal()).map_err(|_| SetupError::Key)?;
        value.set_sensitive(true);
        headers.insert(API_KEY, value);
    }
    let mut target = Target::new(&settings.api_hostname, path, headers)?;
    if let Some(key) = &settings.key
        && settings.key_in_query
    {
        target.add_parameter("api_key", key.reveal());
    }
    Ok(target)
}

impl MetricSink for Datadog {
    fn name(&self) -> &str {
        &self.name
    }

    async fn flush(&mut self, batch: Arc<FlushBatch>, deadline: Instant) -> Delivered {
        let start = Instant::now();
        let (of, node) = (Arc::clone(&batch), Arc::clone(&self.node));
        let encode = move |items| series::encode(&of, &node, items);
        let limit = self.max_series_per_body.get();
        let series = self.poster.deliver(&self.series, batch.points.len(), limit, encode, deadline);

        let (of, node) = (Arc::clone(&batch), Arc::clone(&self.node));
        let encode = move |items| events::encode_events(&of, &node, items);
        let all = batch.events.len();
        let events = self.poster.deliver(&self.events, all, all, encode, deadline);

        let (of, node) = (Arc::clone(&batch), Arc::clone(&self.node));
        let encode = move |items| events::encode_checks(&of, &node, items);
        let all = batch.checks.len();
        let checks = self.poster.deliver(&self.checks, all, all, encode, deadline);

        let (series, events, checks) = tokio::join!(series, events, checks);
        if !batch.points.is_empty() {
            let part = "part:post";
            self.telemetry.duration(names::FLUSH_TOTAL_DURATION_NS, part, start.elapsed());
        }
        Delivered {
            points: series.tally,
            events: events.tally,
            checks: checks.tally,
            spans: Tally::new(0, batch.spans.len() as u64),
            failure: series.failure.or(events.failure).or(checks.failure),
        }
    }
}
