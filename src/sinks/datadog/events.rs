//! Events and service checks as Datadog's JSON.
//!
//! Both get the node's host if they name none, and the node's tags after their own. What is
//! empty is left out; the order of the fields is that of Veneur v1.1.0.

use std::ops::Range;

use flate2::Compression;
use serde::Serialize;

use crate::model::{Event, FlushBatch, ServiceCheck};
use crate::sinks::post::{Body, BodyWriter, Encoding, Limits};
use crate::sinks::{Node, Reason};

/// What the intake takes in one body of events or checks: the Agent's limits.
const LIMITS: Limits = Limits { plain_bytes: 4_000_000, wire_bytes: 2_500_000 };

#[derive(Serialize)]
struct ApiEvent<'a> {
    msg_title: &'a str,
    msg_text: &'a str,
    timestamp: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregation_key: Option<&'a str>,
    priority: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_type_name: Option<&'a str>,
    alert_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<&'a str>,
}

#[derive(Serialize)]
struct ApiCheck<'a> {
    check: &'a str,
    status: u8,
    host_name: &'a str,
    timestamp: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// Writes some of a batch's events into a body: `{"events":{"api":[..]}}`, zlib.
///
/// # Errors
/// [`Reason::TooLarge`] when the intake would not take so many in one body.
pub fn encode_events(batch: &FlushBatch, node: &Node, items: Range<usize>) -> Result<Body, Reason> {
    let events = batch.events[items].iter().map(|event| {
        let Event { title, text, timestamp, hostname, aggregation_key, source_type, .. } = event;
        ApiEvent {
            msg_title: title,
            msg_text: text,
            timestamp: timestamp.unwrap_or(batch.at).0,
            host: host(hostname.as_deref(), node),
            aggregation_key: non_empty(aggregation_key.as_deref()),
            priority: event.priority.as_str(),
            source_type_name: non_empty(source_type.as_deref()),
            alert_type: event.alert_type.as_str(),
            tags: tags(&event.tags, node),
        }
    });
    let encoding = Encoding::Deflate(Compression::default());
    write(encoding, b"{\"events\":{\"api\":[", events, b"]}}")
}

/// Writes some of a batch's service checks into a body: `[..]`, not compressed.
///
/// # Errors
/// [`Reason::TooLarge`] when the intake would not take so many in one body.
pub fn encode_checks(batch: &FlushBatch, node: &Node, items: Range<usize>) -> Result<Body, Reason> {
    let checks = batch.checks[items].iter().map(|check| {
        let ServiceCheck { name, status, timestamp, hostname, message, .. } = check;
        ApiCheck {
            check: name,
            status: *status as u8,
            host_name: host(hostname.as_deref(), node),
            timestamp: timestamp.unwrap_or(batch.at).0,
            tags: tags(&check.tags, node),
            message: non_empty(message.as_deref()),
        }
    });
    write(Encoding::Identity, b"[", checks, b"]")
}

fn write<T: Serialize>(
    encoding: Encoding,
    before: &[u8],
    items: impl Iterator<Item = T>,
    after: &[u8],
) -> Result<Body, Reason> {
    let mut body = BodyWriter::new(encoding, LIMITS);
    body.text().extend_from_slice(before);
    for item in items {
        if body.has_items() {
            body.text().push(b',');
        }
        serde_json::to_writer(body.text(), &item).map_err(|_| Reason::Encode)?;
        body.end_item()?;
    }
    body.text().extend_from_slice(after);
    body.finish()
}

fn host<'a>(own: Option<&'a str>, node: &'a Node) -> &'a str {
    non_empty(own).or(node.host.as_deref()).unwrap_or_default()
}

fn tags<'a>(own: &'a [String], node: &'a Node) -> Vec<&'a str> {
    own.iter().chain(&node.tags).map(String::as_str).collect()
}

fn non_empty(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AlertType, Interval, Priority, ServiceStatus, UnixSeconds};

    const SOME_TIME: UnixSeconds = UnixSeconds(1_500_000_000);

    fn batch(events: Vec<Event>, checks: Vec<ServiceCheck>) -> FlushBatch {
        FlushBatch {
            at: UnixSeconds(1_700_000_000),
            interval: Interval::new(std::time::Duration::from_secs(10)).expect("not zero"),
            suffixes: Default::default(),
            points: Vec::new(),
            events,
            checks,
            spans: Default::default(),
        }
    }

    fn node() -> Node {
        Node { host: Some("testhost".into()), tags: vec!["env:test".into()] }
    }

    #[test]
    fn checks_are_written_as_veneur_writes_them() {
        let full = ServiceCheck {
            timestamp: Some(SOME_TIME),
            hostname: Some("dbh".into()),
            message: Some("slow".into()),
            tags: vec!["c:d".into()],
            ..ServiceCheck::new("db", ServiceStatus::Warning)
        };
        let batch = batch(Vec::new(), vec![full, ServiceCheck::new("svc", ServiceStatus::Ok)]);
        for (node, items, text) in [
            (
                node(),
                0..2,
                concat!(
                    r#"[{"check":"db","status":1,"host_name":"dbh","timestamp":1500000000,"#,
                    r#""tags":["c:d","env:test"],"message":"slow"},"#,
                    r#"{"check":"svc","status":0,"host_name":"testhost","#,
                    r#""timestamp":1700000000,"tags":["env:test"]}]"#
                ),
            ),
            (
                Node::default(),
                1..2,
                r#"[{"check":"svc","status":0,"host_name":"","timestamp":1700000000}]"#,
            ),
        ] {
            let body = encode_checks(&batch, &node, items).expect("it is small");
            assert_eq!(body.bytes, text);
        }
    }

    #[test]
    fn events_are_written_as_veneur_writes_them() {
        let plain = Event {
            title: "title".into(),
            text: "hello".into(),
            tags: vec!["a:b".into()],
            ..Event::default()
        };
        let full = Event {
            timestamp: Some(SOME_TIME),
            hostname: Some("other".into()),
            aggregation_key: Some("agg".into()),
            source_type: Some("src".into()),
            priority: Priority::Low,
            alert_type: AlertType::Error,
            ..plain.clone()
        };
        let batch = batch(vec![plain, full], Vec::new());
        let body = encode_events(&batch, &node(), 0..2).expect("it is small");
        let json: serde_json::Value =
            serde_json::from_reader(flate2::read::ZlibDecoder::new(&body.bytes[..]))
                .expect("it is JSON in zlib");
        // Field order is pinned by the golden bodies; here it is what the fields say.
        let expected: serde_json::Value = serde_json::from_str(
            r#"{"events":{"api":[
                {"msg_title":"title","msg_text":"hello","timestamp":1700000000,
                 "host":"testhost","priority":"normal","alert_type":"info",
                 "tags":["a:b","env:test"]},
                {"msg_title":"title","msg_text":"hello","timestamp":1500000000,
                 "host":"other","aggregation_key":"agg","priority":"low",
                 "source_type_name":"src","alert_type":"error","tags":["a:b","env:test"]}
            ]}}"#,
        )
        .expect("the test's JSON is right");
        assert_eq!(json, expected);
    }
}
