//! Spans as the JSON of a trace agent.
//!
//! Source: bodies captured from Veneur 1.1.0 and 14.2.0, whose fields stand in the order of the
//! alphabet.

use std::sync::Arc;

use crate::config::settings::TraceFormat;
use crate::model::Span;
use crate::sinks::json::{push_integer, push_string};
use crate::sinks::post::{Body, BodyWriter, Encoding, Limits};
use crate::sinks::{Node, Reason};

/// What the trace agent takes in one body, which it wants uncompressed: half of its limit.
const LIMITS: Limits = Limits { plain_bytes: 10 << 20, wire_bytes: 10 << 20 };

/// The spans of each trace together, in the order in which they came.
pub(super) fn by_trace(spans: Arc<[Span]>) -> Arc<[Span]> {
    if spans.is_sorted_by_key(|span| span.trace_id) {
        return spans;
    }
    let mut sorted = spans.to_vec();
    sorted.sort_by_key(|span| span.trace_id);
    sorted.into()
}

/// Writes spans into a body; for v0.3 those of a trace must stand together.
///
/// # Errors
/// [`Reason::TooLarge`] when the agent would not take so many in one body.
pub(super) fn encode(spans: &[Span], node: &Node, format: TraceFormat) -> Result<Body, Reason> {
    let mut body = BodyWriter::new(Encoding::Identity, LIMITS);
    body.text().push(b'[');
    let mut trace = None;
    for span in spans {
        let is_next = trace == Some(span.trace_id);
        let text = body.text();
        text.extend_from_slice(match (format, trace) {
            (TraceFormat::V03, None) => b"[",
            (TraceFormat::V03, Some(_)) if !is_next => b"],[",
            (TraceFormat::Spans, None) => b"",
            (TraceFormat::V03 | TraceFormat::Spans, Some(_)) => b",",
        });
        match format {
            TraceFormat::V03 => push_span(text, span, &node.tags, "web"),
            TraceFormat::Spans => push_span(text, span, &[], "http"),
        }
        trace = Some(span.trace_id);
        body.end_item()?;
    }
    body.text().extend_from_slice(match (format, trace) {
        (TraceFormat::V03, Some(_)) => b"]]",
        (TraceFormat::V03, None) | (TraceFormat::Spans, _) => b"]",
    });
    body.finish()
}

/// Writes one; the node's tags only where it has none of their name.
fn push_span(out: &mut Vec<u8>, span: &Span, node_tags: &[String], kind: &str) {
    let number = |out: &mut Vec<u8>, field: &str, number| {
        out.extend_from_slice(field.as_bytes());
        push_integer(out, number);
    };
    let text = |out: &mut Vec<u8>, field: &str, text| {
        out.extend_from_slice(field.as_bytes());
        push_string(out, text);
    };
    number(out, "{\"duration\":", span.duration_ns);
    number(out, ",\"error\":", span.status as i64);
    out.extend_from_slice(b",\"meta\":{");
    let own = span.tags.iter().map(|(name, value)| (&**name, &**value));
    let is_own = |name: &str| span.tags.iter().any(|(own, _)| **own == *name);
    let of_node = node_tags.iter().map(|tag| tag.split_once(':').unwrap_or((tag, "")));
    for (n, (name, value)) in own.chain(of_node.filter(|(name, _)| !is_own(name))).enumerate() {
        out.extend_from_slice(if n == 0 { b"" } else { b"," });
        push_string(out, name);
        out.push(b':');
        push_string(out, value);
    }
    out.extend_from_slice(b"},\"metrics\":null");
    text(out, ",\"name\":", &span.name);
    if span.parent_id > 0 {
        number(out, ",\"parent_id\":", span.parent_id);
    }
    if !span.resource.is_empty() {
        text(out, ",\"resource\":", &span.resource);
    }
    text(out, ",\"service\":", &span.service);
    number(out, ",\"span_id\":", span.id);
    number(out, ",\"start\":", span.start_ns);
    number(out, ",\"trace_id\":", span.trace_id);
    text(out, ",\"type\":", kind);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceStatus;

    fn span(trace_id: i64, id: i64) -> Span {
        Span {
            trace_id,
            id,
            parent_id: 7,
            start_ns: 1_500_000_000_000_000_000,
            duration_ns: 1234,
            status: ServiceStatus::Critical,
            service: "mysvc".into(),
            name: "svc.op".into(),
            resource: "GET /x".into(),
            tags: vec![("a".into(), "b".into())],
        }
    }

    fn node() -> Node {
        Node { host: None, tags: vec!["env:prod".into(), "a:node's".into()] }
    }

    fn text(spans: &[Span], format: TraceFormat) -> String {
        let body = encode(spans, &node(), format).expect("a short body");
        assert_eq!(body.items, spans.len() as u64);
        String::from_utf8(body.bytes.to_vec()).expect("JSON is UTF-8")
    }

    #[test]
    fn spans_are_written_as_v1_writes_them() {
        let root = Span { parent_id: -1, resource: "".into(), tags: Vec::new(), ..span(7, 9) };
        assert_eq!(
            text(&[span(7, 8), root], TraceFormat::Spans),
            concat!(
                r#"[{"duration":1234,"error":2,"meta":{"a":"b"},"metrics":null,"name":"svc.op","#,
                r#""parent_id":7,"resource":"GET /x","service":"mysvc","span_id":8,"#,
                r#""start":1500000000000000000,"trace_id":7,"type":"http"},"#,
                r#"{"duration":1234,"error":2,"meta":{},"metrics":null,"name":"svc.op","#,
                r#""service":"mysvc","span_id":9,"start":1500000000000000000,"trace_id":7,"#,
                r#""type":"http"}]"#,
            )
        );
    }

    #[test]
    fn spans_of_a_trace_stand_together_for_v14() {
        let spans: Arc<[Span]> = [span(2, 1), span(1, 2), span(2, 3)].into();
        let text = text(&by_trace(spans), TraceFormat::V03);
        let traces: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let ids: Vec<Vec<i64>> = traces
            .as_array()
            .expect("a list of traces")
            .iter()
            .map(|trace| {
                let spans = trace.as_array().expect("a list of spans");
                spans.iter().filter_map(|span| span["span_id"].as_i64()).collect()
            })
            .collect();
        assert_eq!(ids, [vec![2], vec![1, 3]]);
        let span = &traces[0][0];
        assert_eq!(
            (&span["type"], &span["meta"]["env"], &span["meta"]["a"]),
            (&"web".into(), &"prod".into(), &"b".into())
        );
    }
}
