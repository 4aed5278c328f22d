//! One metric line: `name:values|type[|@rate][|#tags][|T..][|c:..][|e:..][|card:..]`.
//!
//! Readers call this on bytes still in the receive buffer; nothing here allocates, nothing
//! checks UTF-8, and no input can make it panic (fuzzed). Each byte is looked at once: `memchr`
//! jumps from `|` to `|`, and tags stay one unsplit slice, which only the shard splits, and
//! only for a key it has not seen.
//!
//! Sections come in any order; of a repeated one the last counts; empty and unknown ones are
//! skipped. Values and rates are strict: a wrong number is worse than a missing one.
//!
//! Source: DogStatsD datagram format 1.0 to 1.6, read as the Datadog Agent reads it; the cases
//! are in `tests/conformance/`.

use memchr::{memchr, memchr2};

use super::{Line, Values, cardinality, number, refuse, sections};
use crate::model::{MetricKind, UnixSeconds, Weight};
use crate::protocol::{PacketType, Reason, Refusal};

/// Splits one metric line.
#[inline]
pub(super) fn parse(line: &[u8]) -> Result<Line<'_>, Refusal> {
    let refuse = |reason, part: &[u8]| refuse(PacketType::Metric, reason, line, part);

    let (name, rest) = split_name(line).map_err(|end| refuse(Reason::MissingValue, end))?;
    if name.is_empty() {
        return Err(refuse(Reason::EmptyName, line));
    }
    let Some((number, text, rest)) = split_values(rest) else {
        return Err(refuse(Reason::MissingType, &rest[rest.len()..]));
    };
    let Some((kind, rest)) = split_kind(rest) else {
        return Err(refuse(Reason::UnknownType, rest));
    };
    let (values, skipped_values) = match (kind, number) {
        (MetricKind::Set, _) => (Values::Member(text), 0), // Never packed: colons belong to it.
        (_, Some(number)) => (Values::One(number), 0),
        (_, None) => read_values(text).map_err(|(reason, part)| refuse(reason, part))?,
    };

    let mut parsed = Line {
        name,
        values,
        kind,
        weight: Weight::ONE,
        sample_rate: 1.0,
        tags: &[],
        timestamp: None,
        container_id: None,
        external_data: None,
        cardinality: None,
        unknown_sections: 0,
        skipped_values,
    };
    for section in sections(rest) {
        match section {
            [b'#', tags @ ..] => parsed.tags = tags,
            [b'@', text @ ..] => {
                let Some((rate, weight)) = read_rate(text) else {
                    return Err(refuse(Reason::BadSampleRate, text));
                };
                parsed.sample_rate = rate;
                parsed.weight = weight;
            }
            [b'T', text @ ..] => match read_timestamp(text) {
                Some(at) => parsed.timestamp = Some(at),
                None => return Err(refuse(Reason::BadTimestamp, text)),
            },
            [b'c', b':', id @ ..] => parsed.container_id = non_empty(id),
            [b'e', b':', external @ ..] => parsed.external_data = non_empty(external),
            [b'c', b'a', b'r', b'd', b':', word @ ..] => parsed.cardinality = cardinality(word),
            [] => {}
            _ => parsed.unknown_sections = parsed.unknown_sections.saturating_add(1),
        }
    }
    Ok(parsed)
}

/// The name and what follows its `:`, or the place where the `:` is missing. A `|` ends the
/// name as well, so `a|b:1|c` has no value.
#[inline]
fn split_name(line: &[u8]) -> Result<(&[u8], &[u8]), &[u8]> {
    let end = memchr2(b':', b'|', line).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    match rest {
        [b':', rest @ ..] => Ok((name, rest)),
        _ => Err(rest),
    }
}

/// The values as text, and as a number where that is what they are at first sight; and what
/// follows their `|`.
#[inline]
fn split_values(rest: &[u8]) -> Option<(Option<f64>, &[u8], &[u8])> {
    // Nearly every value is one short number, and reading it finds the `|` behind it.
    if let Some((number, after @ [b'|', ..])) = number::leading_decimal(rest) {
        return Some((Some(number), &rest[..rest.len() - after.len()], &after[1..]));
    }
    let bar = memchr(b'|', rest)?;
    Some((None, &rest[..bar], &rest[bar + 1..]))
}

/// The type, and the sections behind it, each with its `|` before it.
#[inline]
fn split_kind(rest: &[u8]) -> Option<(MetricKind, &[u8])> {
    let (kind, rest) = match rest {
        [b'c', rest @ ..] => (MetricKind::Counter, rest),
        [b'g', rest @ ..] => (MetricKind::Gauge, rest),
        [b'm', b's', rest @ ..] => (MetricKind::Timer, rest),
        [b'h', rest @ ..] => (MetricKind::Histogram, rest),
        [b'd', rest @ ..] => (MetricKind::Distribution, rest),
        [b's', rest @ ..] => (MetricKind::Set, rest),
        _ => return None,
    };
    matches!(rest, [] | [b'|', ..]).then_some((kind, rest))
}

/// The values, checked, and how many of a packed line are left out; or what is wrong where.
fn read_values(text: &[u8]) -> Result<(Values<'_>, u16), (Reason, &[u8])> {
    let mut last = None;
    let mut finite = 0_usize;
    let mut skipped = 0_u16;
    for (element, number) in number::packed(text) {
        match number {
            Some(number) if number.is_finite() => {
                last = Some(number);
                finite += 1;
            }
            Some(_) => skipped = skipped.saturating_add(1),
            None if element.is_empty() => {}
            None => return Err((Reason::BadValue, element)),
        }
    }
    match last {
        Some(number) if finite == 1 => Ok((Values::One(number), skipped)),
        Some(_) => Ok((Values::Packed(text), skipped)),
        None if skipped > 0 => Err((Reason::NonFinite, text)),
        None => Err((Reason::BadValue, text)),
    }
}

#[inline]
fn read_rate(text: &[u8]) -> Option<(f32, Weight)> {
    let rate = number::decimal(text)? as f32;
    Some((rate, Weight::from_rate(rate)?))
}

#[inline]
fn read_timestamp(text: &[u8]) -> Option<UnixSeconds> {
    let seconds = i64::try_from(number::whole(text)?).ok()?;
    (seconds > 0).then_some(UnixSeconds(seconds))
}

#[inline]
fn non_empty(text: &[u8]) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Reason::{
        BadSampleRate, BadTimestamp, BadValue, EmptyName, MissingType, MissingValue, NonFinite,
        UnknownType,
    };

    const PLAIN: Line<'static> = Line {
        name: b"x",
        values: Values::One(1.0),
        kind: MetricKind::Counter,
        weight: Weight::ONE,
        sample_rate: 1.0,
        tags: b"",
        timestamp: None,
        container_id: None,
        external_data: None,
        cardinality: None,
        unknown_sections: 0,
        skipped_values: 0,
    };

    #[test]
    fn a_line_becomes_its_parts() {
        let half = Weight::from_rate(0.5).expect("a half is a rate");
        for (line, parts) in [
            ("x:1|c", PLAIN),
            ("x:-2.5|g", Line { kind: MetricKind::Gauge, values: Values::One(-2.5), ..PLAIN }),
            ("x:1|ms", Line { kind: MetricKind::Timer, ..PLAIN }),
            ("x:1|h", Line { kind: MetricKind::Histogram, ..PLAIN }),
            ("x:1|d", Line { kind: MetricKind::Distribution, ..PLAIN }),
            ("x:a:b|s", Line { kind: MetricKind::Set, values: Values::Member(b"a:b"), ..PLAIN }),
            ("x:|s", Line { kind: MetricKind::Set, values: Values::Member(b""), ..PLAIN }),
            ("x:1:2|c", Line { values: Values::Packed(b"1:2"), ..PLAIN }),
            ("x::1:|c", PLAIN),
            ("x:1:inf|c", Line { skipped_values: 1, ..PLAIN }),
            (
                "x:1:inf:2|c",
                Line { values: Values::Packed(b"1:inf:2"), skipped_values: 1, ..PLAIN },
            ),
            ("a#b c:1|c", Line { name: b"a#b c", ..PLAIN }),
            ("x:1|c|@0.5", Line { sample_rate: 0.5, weight: half, ..PLAIN }),
            ("x:1|c|@1|@.5", Line { sample_rate: 0.5, weight: half, ..PLAIN }),
            ("x:1|c|#a,b:1,,a", Line { tags: b"a,b:1,,a", ..PLAIN }),
            ("x:1|c|#a|#b", Line { tags: b"b", ..PLAIN }),
            ("x:1|c|##a,@b", Line { tags: b"#a,@b", ..PLAIN }),
            ("x:1|c|T1656581400", Line { timestamp: Some(UnixSeconds(1_656_581_400)), ..PLAIN }),
            ("x:1|c|c:in-7", Line { container_id: Some(b"in-7"), ..PLAIN }),
            ("x:1|c|c:in-7|c:", PLAIN),
            ("x:1|c|e:it-false", Line { external_data: Some(b"it-false"), ..PLAIN }),
            ("x:1|c|card:HIGH", Line { cardinality: Some("high"), ..PLAIN }),
            ("x:1|c|card:orch", Line { cardinality: Some("orchestrator"), ..PLAIN }),
            ("x:1|c|card:low|card:what", PLAIN),
            ("x:1|c|||", PLAIN),
            ("x:1|c|foo||q:1|#a", Line { unknown_sections: 2, tags: b"a", ..PLAIN }),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(parts), "{line}");
        }
    }

    #[test]
    fn a_line_is_refused_for_the_first_rule_it_breaks_and_the_place_is_told() {
        for (line, reason, at) in [
            ("", MissingValue, 0),
            ("page.views", MissingValue, 10),
            ("x|c", MissingValue, 1),
            ("x|c:1", MissingValue, 1),
            (":1|c", EmptyName, 0),
            ("x:1", MissingType, 3),
            ("x:1|", UnknownType, 4),
            ("x:1||c", UnknownType, 4),
            ("x:1|q|c", UnknownType, 4),
            ("x:1|C", UnknownType, 4),
            ("x:1|count", UnknownType, 4),
            ("x:1|m", UnknownType, 4),
            ("x:1|c |#a", UnknownType, 4),
            ("x:1|@0.5|c", UnknownType, 4),
            ("x:|c", BadValue, 2),
            ("x:::|c", BadValue, 2),
            ("x:abc|c", BadValue, 2),
            ("x:1 |c", BadValue, 2),
            ("x:1e400|c", BadValue, 2),
            ("x:1:2:b:4|c", BadValue, 6),
            ("x:nan:1e400|c", BadValue, 6),
            ("x:NaN|c", NonFinite, 2),
            ("x:-inf:nan|c", NonFinite, 2),
            ("x:1|c|@", BadSampleRate, 7),
            ("x:1|c|@often", BadSampleRate, 7),
            ("x:1|c|@0|@1", BadSampleRate, 7),
            ("x:1|c|#a|@1.5", BadSampleRate, 10),
            ("x:1|c|@-1", BadSampleRate, 7),
            ("x:1|c|@nan", BadSampleRate, 7),
            ("x:1|c|@1e-46", BadSampleRate, 7),
            ("x:1|c|T", BadTimestamp, 7),
            ("x:1|c|T0", BadTimestamp, 7),
            ("x:1|c|T-5", BadTimestamp, 7),
            ("x:1|c|T1.5", BadTimestamp, 7),
            ("x:1|c|T9223372036854775808", BadTimestamp, 7),
        ] {
            let refusal = Refusal { packet: PacketType::Metric, reason, at };
            assert_eq!(parse(line.as_bytes()), Err(refusal), "{line}");
        }
    }

    #[test]
    fn counts_of_what_was_skipped_do_not_overflow() {
        let sections = "x:1|c".to_owned() + &"|y".repeat(70_000);
        let values = "x:1".to_owned() + &":nan".repeat(70_000) + "|c";
        let count = |line: &str| {
            let parsed = parse(line.as_bytes()).expect("strange, but a metric");
            (parsed.unknown_sections, parsed.skipped_values)
        };
        assert_eq!((count(&sections), count(&values)), ((u16::MAX, 0), (0, u16::MAX)));
    }
}
