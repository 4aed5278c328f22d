//! Graphite: points as lines or pickles for carbon, over TCP or UDP.
//!
//! What a point is called there is a layout ([`render`], [`layout`]); that no name leaves its place, [`path`]; how it is
//! written, [`encode`]; how it gets there and what is known of it then, [`carbon`]. Bodies,
//! retries and what is kept: [`super::post`]. Events and service checks are skipped.

use std::sync::Arc;

use tokio::time::Instant;

use super::backlog::{Backlog, Courier};
use super::post::{Class, Poster, Route, never_partial};
use super::{Delivered, MetricSink, Node, Tally};
use crate::config::settings::{GraphiteProtocol, GraphiteSettings};
use crate::model::{FlushBatch, Interval};
use crate::telemetry::{Telemetry, names};
use carbon::{Carbon, Target};

pub mod carbon;
pub mod encode;
mod layout;
mod path;
pub mod render;

/// About half a megabyte or one.
const POINTS_PER_BODY: usize = 10_000;

/// The sink.
pub struct Graphite {
    name: String,
    settings: Arc<GraphiteSettings>,
    node: Arc<Node>,
    poster: Arc<Poster<Carbon>>,
    route: Arc<Route<Target>>,
}

impl Graphite {
    /// The sink of this name as configured. Nothing is sent yet. What is not delivered in time
    /// goes to the backlog, which sends it as this sink does from now on; without one, it is
    /// dropped.
    pub fn new(
        name: &str,
        settings: &GraphiteSettings,
        node: Node,
        interval: Interval,
        telemetry: Telemetry,
        backlog: Option<&Backlog>,
    ) -> Graphite {
        let format = match settings.protocol {
            GraphiteProtocol::Plaintext => "graphite-plaintext",
            GraphiteProtocol::Pickle => "graphite-pickle",
        };
        let carbon = Carbon::new(name, telemetry.clone());
        let mut poster = Poster::new(carbon, name, interval, telemetry);
        if let Some(backlog) = backlog {
            poster = poster.keeping(Arc::clone(backlog.keep()), format);
        }
        let poster = Arc::new(poster);
        let route = Arc::new(Route {
            class: Class::Points,
            target: Target { address: settings.address.clone() },
            tag: format!("sink:{name}"),
            duration_ns: names::FLUSH_DURATION_NS,
            content_length_bytes: names::FLUSH_CONTENT_LENGTH_BYTES,
            error_total: names::FLUSH_ERROR_TOTAL,
            partial: never_partial,
        });
        if let Some(backlog) = backlog {
            let (poster, routes) = (Arc::clone(&poster), vec![Arc::clone(&route)]);
            backlog.send_by(Courier { poster, routes, format });
        }
        let (settings, node) = (Arc::new(settings.clone()), Arc::new(node));
        Graphite { name: name.to_owned(), settings, node, poster, route }
    }
}

impl MetricSink for Graphite {
    fn name(&self) -> &str {
        &self.name
    }

    async fn flush(&mut self, batch: Arc<FlushBatch>, deadline: Instant) -> Delivered {
        let (of, settings, node) =
            (Arc::clone(&batch), Arc::clone(&self.settings), Arc::clone(&self.node));
        let encode = move |items| encode::encode(&of, &settings, &node, items);
        let points = batch.points.len();
        let posted =
            self.poster.deliver(&self.route, points, POINTS_PER_BODY, encode, deadline).await;
        Delivered {
            points: posted.tally,
            events: Tally::new(0, batch.events.len() as u64),
            checks: Tally::new(0, batch.checks.len() as u64),
            spans: Tally::new(0, batch.spans.len() as u64),
            failure: posted.failure,
        }
    }
}
