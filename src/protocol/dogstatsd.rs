//! DogStatsD: a datagram is lines, a line is a metric, an event or a service check.
//!
//! Bytes in, borrowed bytes out; pure. Events and checks are rare and own their text.
//!
//! Source: DogStatsD datagram format, protocol 1.0 to 1.6. Where Veneur and the Datadog Agent
//! differ we are lenient as the Agent is; a metric whose name merely begins with `_sc` is a
//! metric, which the Agent loses.

mod check;
mod event;
mod fields;
mod metric;
mod scan;
mod usual;

use memchr::memchr;

pub use usual::{Piece, Sample, pieces};

use super::{PacketType, Reason, Refusal, number};
use crate::model::text::offset;
use crate::model::{Event, MetricKind, ServiceCheck, UnixSeconds, Weight};

/// What one line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// The common case; borrows from the line.
    Metric(Line<'a>),
    /// Rare, so it owns its text.
    Event(Box<Event>),
    /// Rare, so it owns its text.
    ServiceCheck(Box<ServiceCheck>),
}

/// A metric line, split into borrowed fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    /// Bytes before the first `:`, not empty.
    pub name: &'a [u8],
    /// What it says, one or more values.
    pub values: Values<'a>,
    /// The type section.
    pub kind: MetricKind,
    /// `@`; one if absent.
    pub weight: Weight,
    /// The rate as given, for those who show it; 1 if absent.
    pub sample_rate: f32,
    /// The last `#` section without its `#`, unsplit.
    pub tags: &'a [u8],
    /// `T`
    pub timestamp: Option<UnixSeconds>,
    /// `c:`, unless empty.
    pub container_id: Option<&'a [u8]>,
    /// `e:`, unless empty.
    pub external_data: Option<&'a [u8]>,
    /// `card:`, one of the four known words in lower case.
    pub cardinality: Option<&'static str>,
    /// Sections nobody knows, skipped.
    pub unknown_sections: u16,
    /// Non-finite elements of a packed value, left out.
    pub skipped_values: u16,
}

/// The values of a line. Every number in it has been checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values<'a> {
    /// One finite number.
    One(f64),
    /// Several numbers separated by `:`; empty and non-finite elements are to be skipped.
    Packed(&'a [u8]),
    /// The member of a set; may be empty.
    Member(&'a [u8]),
}

impl<'a> Values<'a> {
    /// The finite numbers, in the order given; none for a set's member.
    #[inline]
    pub fn numbers(self) -> impl Iterator<Item = f64> + use<'a> {
        let (one, packed) = match self {
            Values::One(number) => (Some(number), None),
            Values::Packed(text) => (None, Some(text)),
            Values::Member(_) => (None, None),
        };
        let packed = packed.into_iter().flat_map(number::packed).filter_map(|(_, number)| number);
        one.into_iter().chain(packed.filter(|number| number.is_finite()))
    }
}

/// The lines of a datagram or stream frame, without their newlines; blank ones are skipped.
pub fn lines(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    datagram.split(|&byte| byte == b'\n').filter(|line| !is_blank(line))
}

fn is_blank(line: &[u8]) -> bool {
    matches!(line, [] | [b'\r'])
}

/// Reads one line, without its newline; a `\r` at its end is dropped.
///
/// # Errors
/// The first rule the line breaks.
#[inline]
pub fn parse(line: &[u8]) -> Result<Message<'_>, Refusal> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.starts_with(b"_e{") {
        return event::parse(line).map(|event| Message::Event(Box::new(event)));
    }
    if line.starts_with(b"_sc|") {
        return check::parse(line).map(|check| Message::ServiceCheck(Box::new(check)));
    }
    metric::parse(line).map(Message::Metric)
}

/// The sections of what follows a type, a text or a status: each has its `|` before it.
#[inline]
fn sections(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let [b'|', section @ ..] = rest else {
            return None;
        };
        let end = memchr(b'|', section).unwrap_or(section.len());
        let (section, after) = section.split_at(end);
        rest = after;
        Some(section)
    })
}

/// A refusal that points at `part`, which is a slice of `line`.
#[cold]
fn refuse(packet: PacketType, reason: Reason, line: &[u8], part: &[u8]) -> Refusal {
    Refusal { packet, reason, at: u32::try_from(offset(line, part)).unwrap_or(u32::MAX) }
}

/// The known word behind `card:`, whatever its case; `orch` is short for `orchestrator`.
fn cardinality(word: &[u8]) -> Option<&'static str> {
    const WORDS: [(&str, &str); 5] = [
        ("none", "none"),
        ("low", "low"),
        ("orchestrator", "orchestrator"),
        ("orch", "orchestrator"),
        ("high", "high"),
    ];
    WORDS
        .iter()
        .find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(word))
        .map(|&(_, cardinality)| cardinality)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the line became, or the reason why not.
    fn kind_of(line: &[u8]) -> &'static str {
        match parse(line) {
            Ok(Message::Metric(_)) => "metric",
            Ok(Message::Event(_)) => "event",
            Ok(Message::ServiceCheck(_)) => "service check",
            Err(refusal) => refusal.reason.as_str(),
        }
    }

    #[test]
    fn its_beginning_says_which_message_a_line_is() {
        for (line, kind) in [
            ("a:1|c", "metric"),
            ("_:1|c", "metric"),
            ("_e:1|c", "metric"),
            ("_events.seen:1|c", "metric"),
            ("_scheduler.x:1|c", "metric"),
            ("_sc:1|c", "metric"),
            ("_e{1,1}:a|b", "event"),
            ("_e{1:1|c", "bad_event_header"),
            ("_sc|db.up|0", "service check"),
            ("_sc|db:1|c", "bad_status"),
        ] {
            assert_eq!(kind_of(line.as_bytes()), kind, "{line}");
        }
    }

    #[test]
    fn one_carriage_return_at_the_end_of_a_line_is_dropped() {
        for (line, kind) in [
            ("a:1|c\r", "metric"),
            ("_e{1,1}:a|b\r", "event"),
            ("_sc|db.up|0\r", "service check"),
            ("a:1|c\r\r", "unknown_type"),
            ("\r", "missing_value"),
        ] {
            assert_eq!(kind_of(line.as_bytes()), kind, "{line:?}");
        }
    }

    #[test]
    fn a_datagram_is_the_lines_that_are_not_blank() {
        for (datagram, expected) in [
            ("", &[][..]),
            ("\n\n", &[]),
            ("\r\n\n\r", &[]),
            ("a", &["a"]),
            ("a\n", &["a"]),
            ("\n\na\n\n\nb", &["a", "b"]),
            ("a\r\nb\r\n", &["a\r", "b\r"]),
        ] {
            let expected: Vec<&[u8]> = expected.iter().map(|line| line.as_bytes()).collect();
            let found: Vec<&[u8]> = lines(datagram.as_bytes()).collect();
            assert_eq!(found, expected, "{datagram:?}");
        }
    }

    #[test]
    fn the_numbers_of_a_line_are_its_finite_values() {
        for (line, expected) in [
            (&b"x:1.5|g"[..], &[1.5][..]),
            (b"x:1:2:3|c", &[1.0, 2.0, 3.0]),
            (b"x:21::22:|c", &[21.0, 22.0]),
            (b"x:nan:1:-inf|h", &[1.0]),
            (b"x:1:2|s", &[]),
        ] {
            let Ok(Message::Metric(parsed)) = parse(line) else {
                panic!("not a metric: {}", line.escape_ascii());
            };
            let found: Vec<f64> = parsed.values.numbers().collect();
            assert_eq!(found, expected, "{}", line.escape_ascii());
        }
    }
}
