//! A Datadog trace agent, as Veneur sends it spans.
//!
//! | Format | Request | Body |
//! |---|---|---|
//! | `v0.3` (Veneur 14) | `PUT /v0.3/traces` | JSON, a list of traces, each a list of spans |
//! | `spans` (v1.1.0) | `POST /spans` | JSON, a list of spans, oldest first |
//!
//! Sizes, retries and what is counted: [`super::post`].

mod encode;

use std::sync::Arc;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::backlog::{Backlog, Courier};
use super::post::{Class, Http, Poster, Route, SetupError, Target, never_partial};
use super::{Delivered, MetricSink, Node, Tally};
use crate::config::settings::{TraceFormat, TracesSettings};
use crate::model::{FlushBatch, Interval};
use crate::telemetry::{Telemetry, names};

/// Spans in one body; the limits of a body in bytes are in [`encode`].
const MAX_SPANS_PER_BODY: usize = 20_000;
/// What is kept is JSON of a trace agent.
const FORMAT: &str = "traces";

/// The sink.
pub struct Traces {
    name: String,
    format: TraceFormat,
    poster: Arc<Poster<Http>>,
    route: Arc<Route<Target>>,
    node: Arc<Node>,
}

impl Traces {
    /// The sink of this name as configured. Nothing is sent yet. The process must have a default TLS
    /// provider. What is not delivered in time goes to the backlog; without one, it is dropped.
    ///
    /// # Errors
    /// The address is no URL, or the TLS set-up is broken.
    pub fn new(
        name: &str,
        settings: &TracesSettings,
        node: Node,
        interval: Interval,
        telemetry: Telemetry,
        backlog: Option<&Backlog>,
    ) -> Result<Traces, SetupError> {
        let http = Http::new(&settings.address, None)?;
        let poster = Poster::new(http, name, interval, telemetry);
        let poster = Arc::new(match backlog {
            Some(backlog) => poster.keeping(Arc::clone(backlog.keep()), FORMAT),
            None => poster,
        });
        let json = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let headers = HeaderMap::from_iter(json);
        let target = match settings.format {
            TraceFormat::Spans => Target::new(&settings.address, "/spans", headers)?,
            TraceFormat::V03 => Target::new(&settings.address, "/v0.3/traces", headers)?.put(),
        };
        let route = Arc::new(Route {
            class: Class::Spans,
            target,
            tag: format!("sink:{name}"),
            duration_ns: names::FLUSH_TRACES_DURATION_NS,
            content_length_bytes: names::FLUSH_TRACES_CONTENT_LENGTH_BYTES,
            error_total: names::FLUSH_TRACES_ERROR_TOTAL,
            partial: never_partial,
        });
        if let Some(backlog) = backlog {
            let (poster, routes) = (Arc::clone(&poster), vec![Arc::clone(&route)]);
            backlog.send_by(Courier { poster, routes, format: FORMAT });
        }
        Ok(Traces {
            name: name.to_owned(),
            format: settings.format,
            poster,
            route,
            node: Arc::new(node),
        })
    }
}

impl MetricSink for Traces {
    fn name(&self) -> &str {
        &self.name
    }

    async fn flush(&mut self, batch: Arc<FlushBatch>, deadline: Instant) -> Delivered {
        let mut spans = Arc::clone(&batch.spans);
        if self.format == TraceFormat::V03 {
            // Sorting many is many steps.
            let sorting = spawn_blocking(move || encode::by_trace(spans));
            spans = sorting.await.expect("it neither panics nor is it aborted");
        }
        let (all, node, format) = (spans.len(), Arc::clone(&self.node), self.format);
        let encode = move |items| encode::encode(&spans[items], &node, format);
        let posted =
            self.poster.deliver(&self.route, all, MAX_SPANS_PER_BODY, encode, deadline).await;
        Delivered {
            points: Tally::new(0, batch.points.len() as u64),
            events: Tally::new(0, batch.events.len() as u64),
            checks: Tally::new(0, batch.checks.len() as u64),
            spans: posted.tally,
            failure: posted.failure,
        }
    }
}
