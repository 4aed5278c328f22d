//! InfluxDB: points as lines over HTTP, to v1's `/write` or v2's `/api/v2/write`.
//!
//! How a point is written: [`line`]. Bodies, retries and what is kept: [`super::post`]. An answer
//! that says how many points it has dropped means that the others were taken. Events, checks and
//! spans are skipped.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::backlog::{Backlog, Courier};
use super::post::{Class, Http, Poster, Route, SetupError, Target};
use super::{Delivered, MetricSink, Node, Tally};
use crate::config::secret::Secret;
use crate::config::settings::{InfluxdbApi, InfluxdbSettings};
use crate::model::{FlushBatch, Interval};
use crate::net::Outcome;
use crate::telemetry::{Telemetry, names};

pub mod line;

/// As InfluxDB advises; in layout `fields` a line has several points.
const POINTS_PER_BODY: usize = 5_000;
const FORMAT: &str = "influxdb";

/// The sink.
pub struct Influxdb {
    name: String,
    settings: InfluxdbSettings,
    node: Arc<Node>,
    poster: Arc<Poster<Http>>,
    route: Arc<Route<Target>>,
}

impl Influxdb {
    /// The sink of this name as configured. Nothing is sent yet. The process must have a default
    /// TLS provider. What is not delivered in time goes to the backlog, which sends it as this
    /// sink does from now on; without one, it is dropped.
    ///
    /// # Errors
    /// The address is no URL, the token cannot be a header, or the TLS set-up is broken.
    pub fn new(
        name: &str,
        settings: &InfluxdbSettings,
        node: Node,
        interval: Interval,
        telemetry: Telemetry,
        backlog: Option<&Backlog>,
    ) -> Result<Influxdb, SetupError> {
        let secret = match &settings.api {
            InfluxdbApi::V1 { password, .. } => password.clone(),
            InfluxdbApi::V2 { token, .. } => Some(token.clone()),
        };
        let http = Http::new(&settings.address, secret)?;
        let mut poster = Poster::new(http, name, interval, telemetry);
        if let Some(backlog) = backlog {
            poster = poster.keeping(Arc::clone(backlog.keep()), FORMAT);
        }
        let poster = Arc::new(poster);
        let route = Arc::new(Route {
            class: Class::Points,
            target: target(settings)?,
            tag: format!("sink:{name}"),
            duration_ns: names::FLUSH_DURATION_NS,
            content_length_bytes: names::FLUSH_CONTENT_LENGTH_BYTES,
            error_total: names::FLUSH_ERROR_TOTAL,
            partial: dropped,
        });
        if let Some(backlog) = backlog {
            let (poster, routes) = (Arc::clone(&poster), vec![Arc::clone(&route)]);
            backlog.send_by(Courier { poster, routes, format: FORMAT });
        }
        let (name, settings) = (name.to_owned(), settings.clone());
        Ok(Influxdb { name, settings, node: Arc::new(node), poster, route })
    }
}

fn target(settings: &InfluxdbSettings) -> Result<Target, SetupError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let (path, parameters, authorization) = match &settings.api {
        InfluxdbApi::V1 { database, retention_policy, consistency, user, password } => {
            let password = password.as_ref().map_or("", Secret::reveal);
            let basic = |user| format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            let parameters = [
                ("db", Some(database)),
                ("rp", retention_policy.as_ref()),
                ("consistency", consistency.as_ref()),
            ];
            ("/write", parameters, user.as_ref().map(basic))
        }
        InfluxdbApi::V2 { org, bucket, token } => {
            let parameters = [("org", Some(org)), ("bucket", Some(bucket)), ("", None)];
            ("/api/v2/write", parameters, Some(format!("Token {}", token.reveal())))
        }
    };
    if let Some(authorization) = authorization {
        let mut value = HeaderValue::from_str(&authorization).map_err(|_| SetupError::Key)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let mut target = Target::new(&settings.address, path, headers)?;
    for (name, value) in parameters {
        if let Some(value) = value {
            target.add_parameter(name, value);
        }
    }
    target.add_parameter("precision", "s");
    Ok(target)
}

/// How many points an answer says were dropped, if it says that the others were written: v1's 400
/// and v2's 422 with `partial write: field type conflict: .. dropped=N`. A line that cannot be
/// read counts as 0 there.
///
/// Source: InfluxDB 1.6 `tsdb/shard.go`, `PartialWriteError`, and `services/httpd/handler.go`.
fn dropped(outcome: &Outcome) -> Option<u64> {
    let Outcome::Refused { status: 400 | 422, answer, .. } = outcome else { return None };
    if !answer.contains("partial write") {
        return None;
    }
    let (_, behind) = answer.rsplit_once("dropped=")?;
    let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
    Some(behind[..digits].parse().unwrap_or(0).max(1))
}

impl MetricSink for Influxdb {
    fn name(&self) -> &str {
        &self.name
    }

    async fn flush(&mut self, batch: Arc<FlushBatch>, deadline: Instant) -> Delivered {
        let (of, node, layout) = (Arc::clone(&batch), Arc::clone(&self.node), self.settings.layout);
        let encode = move |items| line::encode(&of, layout, &node, items);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_say_how_many_points_were_dropped() {
        let v1 = r#"{"error":"partial write: field type conflict: input field \"value\" on measurement \"x\" is type float, already exists as type integer dropped=12"}"#;
        let unread = r#"{"error":"partial write: unable to parse 'x': missing fields dropped=0"}"#;
        for (status, answer, number) in [
            (400, v1, Some(12)),
            (422, v1, Some(12)),
            (400, unread, Some(1)),
            (400, r#"{"error":"unable to parse 'x': missing fields"}"#, None),
            (404, r#"{"error":"database not found: \"dropped=1\""}"#, None),
            (500, v1, None),
        ] {
            let outcome = Outcome::Refused { status, retry_after: None, answer: answer.to_owned() };
            assert_eq!(dropped(&outcome), number, "{status} {answer}");
        }
        assert_eq!(dropped(&Outcome::Taken), None);
    }
}
