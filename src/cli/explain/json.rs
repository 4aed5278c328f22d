//! What a datagram becomes, as JSON for programs; and the loop that answers line by line.
//!
//! Field names and the rules for what is left out are those of the conformance cases in
//! `tests/conformance/`: numbers are not scaled by the rate, tags stand in the order given with
//! scope tags removed, and what was not given is absent.

use std::io::{self, BufRead, Write};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use super::{Outcome, refused_at_intake, tags_and_scope};
use crate::model::{Event, Origin, ServiceCheck, UnixSeconds, text};
use crate::protocol::Reason;
use crate::protocol::dogstatsd::{self, Line, Message, Values};

/// One line of input.
#[derive(Deserialize)]
struct Input {
    packet: Option<String>,
    packet_b64: Option<String>,
}

/// What is answered to a line of input that cannot be understood.
#[derive(Serialize)]
struct Malformed {
    error: String,
}

/// What one datagram becomes.
#[derive(Serialize, Default)]
struct Explained {
    metrics: Vec<MetricJson>,
    events: Vec<EventJson>,
    service_checks: Vec<CheckJson>,
    rejected: Vec<Rejected>,
    /// Lines that can be read, and are among the metrics, but are not aggregated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused_at_intake: Vec<Rejected>,
}

#[derive(Serialize)]
struct MetricJson {
    name: String,
    r#type: &'static str,
    values: ValuesJson,
    sample_rate: f32,
    tags: Vec<String>,
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(flatten)]
    origin: OriginJson,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ValuesJson {
    Numbers(Vec<f64>),
    Member([String; 1]),
}

#[derive(Serialize)]
struct EventJson {
    title: String,
    text: String,
    priority: &'static str,
    alert_type: &'static str,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aggregation_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_type: Option<String>,
    #[serde(flatten)]
    origin: OriginJson,
}

#[derive(Serialize)]
struct CheckJson {
    name: String,
    status: u8,
    tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(flatten)]
    origin: OriginJson,
}

#[derive(Serialize)]
struct OriginJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    container_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cardinality: Option<String>,
}

#[derive(Serialize)]
struct Rejected {
    line: String,
    error: &'static str,
}

/// Answers each line of `input`, a datagram, with one line of JSON. A malformed one is answered
/// with an `error` and makes the outcome [`Outcome::Refused`], and the run goes on.
pub(super) fn answer(mut input: impl BufRead, mut output: impl Write) -> io::Result<Outcome> {
    let mut outcome = Outcome::Accepted;
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let answer = match packet_of(&line) {
            Ok(packet) => explain_json(&packet),
            Err(error) => {
                outcome = Outcome::Refused;
                to_json(&Malformed { error })
            }
        };
        output.write_all(answer.as_bytes())?;
        output.write_all(b"\n")?;
        output.flush()?; // Who asks may wait for this answer before asking again.
        line.clear();
    }
    Ok(outcome)
}

fn packet_of(line: &[u8]) -> Result<Vec<u8>, String> {
    let input: Input =
        serde_json::from_slice(line).map_err(|error| format!("not as expected: {error}"))?;
    match (input.packet, input.packet_b64) {
        (Some(packet), None) => Ok(packet.into_bytes()),
        (None, Some(base64)) => {
            BASE64_STANDARD.decode(base64).map_err(|error| format!("packet_b64: {error}"))
        }
        _ => Err("one of packet and packet_b64 is needed".to_owned()),
    }
}

/// What a datagram becomes, as one line of JSON:
/// `{"metrics":[..],"events":[..],"service_checks":[..],"rejected":[{"line","error"}]}`, and
/// `"refused_at_intake":[{"line","error"}]` if there are any such.
pub fn explain_json(datagram: &[u8]) -> String {
    let mut explained = Explained::default();
    for line in dogstatsd::lines(datagram) {
        match dogstatsd::parse(line) {
            Ok(Message::Metric(parsed)) => {
                explained.metrics.push(metric(&parsed));
                let refused = refused_at_intake(&parsed).map(|reason| rejected(line, reason));
                explained.refused_at_intake.extend(refused);
            }
            Ok(Message::Event(message)) => explained.events.push(event(*message)),
            Ok(Message::ServiceCheck(message)) => explained.service_checks.push(check(*message)),
            Err(refusal) => explained.rejected.push(rejected(line, refusal.reason)),
        }
    }
    to_json(&explained)
}

fn rejected(line: &[u8], reason: Reason) -> Rejected {
    Rejected { line: text::lossy(line).into_owned(), error: reason.as_str() }
}

fn to_json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).expect("text, numbers and lists can always be written")
}

fn metric(line: &Line<'_>) -> MetricJson {
    let owned = |field: &[u8]| text::lossy(field).into_owned();
    let (tags, scope) = tags_and_scope(line.tags);
    MetricJson {
        name: owned(line.name),
        r#type: line.kind.as_str(),
        values: match line.values {
            Values::Member(member) => ValuesJson::Member([owned(member)]),
            Values::One(_) | Values::Packed(_) => {
                ValuesJson::Numbers(line.values.numbers().collect())
            }
        },
        sample_rate: line.sample_rate,
        tags,
        scope: scope.as_str(),
        timestamp: line.timestamp.map(|UnixSeconds(at)| at),
        origin: OriginJson {
            container_id: line.container_id.map(owned),
            external_data: line.external_data.map(owned),
            cardinality: line.cardinality.map(str::to_owned),
        },
    }
}

fn event(event: Event) -> EventJson {
    EventJson {
        title: event.title,
        text: event.text,
        priority: event.priority.as_str(),
        alert_type: event.alert_type.as_str(),
        tags: event.tags,
        timestamp: event.timestamp.map(|UnixSeconds(at)| at),
        hostname: event.hostname,
        aggregation_key: event.aggregation_key,
        source_type: event.source_type,
        origin: origin(event.origin),
    }
}

fn check(check: ServiceCheck) -> CheckJson {
    CheckJson {
        name: check.name,
        status: check.status as u8,
        tags: check.tags,
        timestamp: check.timestamp.map(|UnixSeconds(at)| at),
        hostname: check.hostname,
        message: check.message,
        origin: origin(check.origin),
    }
}

fn origin(origin: Origin) -> OriginJson {
    let Origin { container_id, external_data, cardinality } = origin;
    OriginJson { container_id, external_data, cardinality }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_becomes_one_line_of_json() {
        for (datagram, json) in [
            ("", r#"{"metrics":[],"events":[],"service_checks":[],"rejected":[]}"#),
            (
                "a:1:2|c|@0.1|#b:1,veneurglobalonly,a|T7|c:in-1\nx\n",
                concat!(
                    r#"{"metrics":[{"name":"a","type":"counter","values":[1.0,2.0],"#,
                    r#""sample_rate":0.1,"tags":["b:1","a"],"scope":"global","timestamp":7,"#,
                    r#""container_id":"in-1"}],"events":[],"service_checks":[],"#,
                    r#""rejected":[{"line":"x","error":"missing_value"}]}"#
                ),
            ),
            (
                "h:1|h|T7",
                concat!(
                    r#"{"metrics":[{"name":"h","type":"histogram","values":[1.0],"#,
                    r#""sample_rate":1.0,"tags":[],"scope":"mixed","timestamp":7}],"#,
                    r#""events":[],"service_checks":[],"rejected":[],"refused_at_intake":"#,
                    r#"[{"line":"h:1|h|T7","error":"timestamp_unsupported"}]}"#
                ),
            ),
            (
                "u:1:2|s\n_e{1,1}:a|b|h:w|t:error\n_sc|db|2|m:no",
                concat!(
                    r#"{"metrics":[{"name":"u","type":"set","values":["1:2"],"sample_rate":1.0,"#,
                    r#""tags":[],"scope":"mixed"}],"events":[{"title":"a","text":"b","#,
                    r#""priority":"normal","alert_type":"error","tags":[],"hostname":"w"}],"#,
                    r#""service_checks":[{"name":"db","status":2,"tags":[],"message":"no"}],"#,
                    r#""rejected":[]}"#
                ),
            ),
        ] {
            assert_eq!(explain_json(datagram.as_bytes()), json, "{datagram:?}");
        }
    }

    #[test]
    fn each_line_of_input_gets_one_line_of_output() {
        let input = concat!(
            "{\"packet\": \"a:1|c\", \"name\": \"ignored\"}\n",
            "nonsense\n",
            "{}\n",
            "{\"packet\": \"\", \"packet_b64\": \"\"}\n",
            "{\"packet_b64\": \"?\"}\n",
            "\n",
            "{\"packet_b64\": \"YToxfGM=\"}",
        );
        let mut output = Vec::new();
        let outcome = answer(input.as_bytes(), &mut output).expect("memory does not fail");
        let output = String::from_utf8(output).expect("JSON is text");
        let answers: Vec<&str> = output.lines().collect();
        let good = explain_json(b"a:1|c");
        assert_eq!((answers[0], answers[6]), (&*good, &*good));
        assert!(answers[1..6].iter().all(|line| line.starts_with("{\"error\":")), "{output}");
        assert_eq!((answers.len(), outcome), (7, Outcome::Refused));
    }
}
