//! Lines as brubeck reads them: `name:value|type`, perhaps `|@rate`, and nothing else.
//!
//! Source: `github/brubeck`, `src/samplers/statsd.c`. Infinite values, which it takes, are
//! refused; a `\r` at the end of a line, for which it drops the line, is not.

use memchr::memchr;

use super::{Sample, refuse, trim_end};
use crate::model::{Recorder, Weight};
use crate::protocol::{Reason, Refusal, number};

/// Hands the sample of a line to `take`; returns how many were left out, which is none.
///
/// # Errors
/// The first rule the line breaks.
#[inline]
pub fn read<'a>(line: &'a [u8], mut take: impl FnMut(&Sample<'a>)) -> Result<u16, Refusal> {
    let line = trim_end(line);
    let end = memchr(b':', line)
        .ok_or_else(|| refuse(Reason::MissingValue, line, &line[line.len()..]))?;
    let (name, rest) = (&line[..end], &line[end + 1..]);
    if name.is_empty() {
        return Err(refuse(Reason::EmptyName, line, name));
    }
    // Graphite would not take either.
    if name.ends_with(b".") || memchr(b' ', name).is_some() {
        return Err(refuse(Reason::BadName, line, name));
    }
    let bar =
        memchr(b'|', rest).ok_or_else(|| refuse(Reason::MissingType, line, &rest[rest.len()..]))?;
    let (value, rest) = (&rest[..bar], &rest[bar + 1..]);
    let number = read_value(value).map_err(|reason| refuse(reason, line, value))?;
    let (recorder, rest) =
        split_type(rest).ok_or_else(|| refuse(Reason::UnknownType, line, rest))?;
    let weight = match rest {
        [] => Weight::ONE,
        [b'|', b'@', rate @ ..] => number::decimal(rate)
            .and_then(Weight::from_exact_rate)
            .ok_or_else(|| refuse(Reason::BadSampleRate, line, rate))?,
        _ => return Err(refuse(Reason::UnknownSection, line, rest)),
    };
    let is_relative = matches!(value.first(), Some(b'+' | b'-'));
    take(&Sample { name, tags: &[], recorder, number, is_relative, text: &[], weight });
    Ok(0)
}

/// No digits are 0, with or without a sign.
fn read_value(text: &[u8]) -> Result<f64, Reason> {
    if let [] | [b'+' | b'-'] = text {
        return Ok(0.0);
    }
    match number::decimal(text) {
        Some(number) if number.is_finite() => Ok(number),
        Some(_) => Err(Reason::NonFinite),
        None => Err(Reason::BadValue),
    }
}

fn split_type(rest: &[u8]) -> Option<(Recorder, &[u8])> {
    let (recorder, rest) = match rest {
        [b'c', rest @ ..] => (Recorder::Counter, rest),
        [b'C', rest @ ..] => (Recorder::Total, rest),
        [b'g', rest @ ..] => (Recorder::Gauge, rest),
        [b'm', b's', rest @ ..] => (Recorder::Timer, rest),
        [b'h', rest @ ..] => (Recorder::Histogram, rest),
        _ => return None,
    };
    matches!(rest, [] | [b'|', ..]).then_some((recorder, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Said = (String, Recorder, f64, bool, f64);

    fn said(line: &str) -> Result<Said, (Reason, u32)> {
        let mut said = None;
        let read = read(line.as_bytes(), |sample| {
            let name = String::from_utf8_lossy(sample.name).into_owned();
            let Sample { recorder, number, is_relative, weight, .. } = *sample;
            said = Some((name, recorder, number, is_relative, weight.as_f64()));
        });
        match read {
            Ok(_) => Ok(said.expect("a line that is read has a sample")),
            Err(refusal) => Err((refusal.reason, refusal.at)),
        }
    }

    #[test]
    fn a_line_is_a_name_a_value_a_type_and_perhaps_a_rate() {
        for (line, recorder, number, is_relative, weight) in [
            ("a:1|c", Recorder::Counter, 1.0, false, 1.0),
            ("a:1000|C", Recorder::Total, 1000.0, false, 1.0),
            ("a:10|C|@0.5", Recorder::Total, 10.0, false, 2.0),
            ("a:23.25|g", Recorder::Gauge, 23.25, false, 1.0),
            ("a:+5|g", Recorder::Gauge, 5.0, true, 1.0),
            ("a:-20|g|@0.25", Recorder::Gauge, -20.0, true, 4.0),
            ("a:12.345678|ms", Recorder::Timer, 12.345_678, false, 1.0),
            ("a:4|h", Recorder::Histogram, 4.0, false, 1.0),
            ("a:1.5e3|g", Recorder::Gauge, 1500.0, false, 1.0),
            ("a:|g", Recorder::Gauge, 0.0, false, 1.0),
            ("a:-|g", Recorder::Gauge, 0.0, true, 1.0),
            ("a:1|c\r", Recorder::Counter, 1.0, false, 1.0),
        ] {
            let want = Ok(("a".to_owned(), recorder, number, is_relative, weight));
            assert_eq!(said(line), want, "{line}");
        }
        let (name, ..) = said("flux.job.(unknown)/x:1|C").expect("names are taken as they are");
        assert_eq!(name, "flux.job.(unknown)/x");
    }

    #[test]
    fn a_line_is_refused_for() {
        for (line, reason, at) in [
            ("", Reason::MissingValue, 0),
            ("x|g", Reason::MissingValue, 3),
            (":1|c", Reason::EmptyName, 0),
            ("sp ace:1|c", Reason::BadName, 0),
            ("dot.:1|c", Reason::BadName, 0),
            ("x:1", Reason::MissingType, 3),
            ("x:1 |g", Reason::BadValue, 2),
            ("x:12.89.23|g", Reason::BadValue, 2),
            ("x:inf|g", Reason::NonFinite, 2),
            ("x:1e999|g", Reason::BadValue, 2),
            ("x:1|s", Reason::UnknownType, 4),
            ("x:1|a", Reason::UnknownType, 4),
            ("x:1|msx", Reason::UnknownType, 4),
            ("x:1|c:2|c", Reason::UnknownType, 4),
            ("x:1.0|g|1.0", Reason::UnknownSection, 7),
            ("x:1|c|#env:prod", Reason::UnknownSection, 5),
            ("x:1.0|g|@1.5", Reason::BadSampleRate, 9),
            ("x:1.0|g|@0", Reason::BadSampleRate, 9),
            ("x:1.0|g|@-1", Reason::BadSampleRate, 9),
            ("x:1.0|g|@0.5|#a", Reason::BadSampleRate, 9),
        ] {
            assert_eq!(said(line), Err((reason, at)), "{line}");
        }
    }
}
