//! A parsed message as a line again, so that it can be read once more.

use veneur::model::{MetricKind, Origin, UnixSeconds};
use veneur::protocol::dogstatsd::{Line, Message, Values};

/// A line that says the same, but for what the parser has skipped. It ends in a carriage
/// return, because the parser drops one, and a tag may end in another.
pub(crate) fn print(message: &Message<'_>) -> Vec<u8> {
    let mut line = match message {
        Message::Metric(line) => print_metric(line),
        Message::Event(event) => {
            let (title, text) = (escaped(&event.title), escaped(&event.text));
            let mut line = format!("_e{{{},{}}}:{title}|{text}", title.len(), text.len());
            line += &format!("|p:{}|t:{}", event.priority.as_str(), event.alert_type.as_str());
            line += &section("k:", event.aggregation_key.as_deref());
            line += &section("s:", event.source_type.as_deref());
            line += &section("h:", event.hostname.as_deref());
            line += &shared(event.timestamp, &event.tags, &event.origin);
            line.into_bytes()
        }
        Message::ServiceCheck(check) => {
            let mut line = format!("_sc|{}|{}", check.name, check.status as u8);
            line += &section("h:", check.hostname.as_deref());
            line += &section("m:", check.message.as_deref().map(escaped).as_deref());
            line += &shared(check.timestamp, &check.tags, &check.origin);
            line.into_bytes()
        }
    };
    line.push(b'\r');
    line
}

fn print_metric(line: &Line<'_>) -> Vec<u8> {
    let kind = match line.kind {
        MetricKind::Counter => "c",
        MetricKind::Gauge => "g",
        MetricKind::Histogram => "h",
        MetricKind::Timer => "ms",
        MetricKind::Distribution => "d",
        MetricKind::Set => "s",
    };
    let one = match line.values {
        Values::One(number) => format!("{number:?}"),
        _ => String::new(),
    };
    let values = match line.values {
        Values::One(_) => one.as_bytes(),
        Values::Packed(text) | Values::Member(text) => text,
    };
    let mut out = [line.name, b":", values, b"|", kind.as_bytes()].concat();
    out.extend(format!("|@{:?}", line.sample_rate).bytes());
    out.extend([b"|#", line.tags].concat());
    out.extend(line.timestamp.iter().flat_map(|at| format!("|T{}", at.0).into_bytes()));
    out.extend(line.container_id.iter().flat_map(|id| [b"|c:", *id].concat()));
    out.extend(line.external_data.iter().flat_map(|data| [b"|e:", *data].concat()));
    out.extend(section("card:", line.cardinality).bytes());
    out
}

fn shared(at: Option<UnixSeconds>, tags: &[String], origin: &Origin) -> String {
    [
        section("d:", at.map(|UnixSeconds(at)| at.to_string()).as_deref()),
        section("c:", origin.container_id.as_deref()),
        section("e:", origin.external_data.as_deref()),
        section("card:", origin.cardinality.as_deref()),
        section("#", Some(&*tags.join(","))),
    ]
    .concat()
}

fn section(prefix: &str, text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| format!("|{prefix}{text}"))
}

fn escaped(text: &str) -> String {
    text.replace('\n', "\\n")
}
