//! Lines as etsy's statsd reads them: `name:sample:sample|#tags`, a sample being
//! `value|type|@rate`.
//!
//! Source: `statsd/statsd` 0.10, `stats.js` and `lib/helpers.js`. It ends at some sample rates,
//! counts infinities, and takes a blank for 0: such samples are refused. A rate above 1, of
//! which it makes less, is refused as everywhere; and a `\r` at the end of a line is none of it.

use std::borrow::Cow;

use memchr::{memchr, memmem};

use super::{Sample, refuse, trim_end};
use crate::model::{Recorder, TagSet, Weight, text};
use crate::protocol::{Reason, Refusal, number};

/// Hands the samples of a line to `take`, one by one; returns how many there are besides that
/// break a rule: they cost the others nothing.
///
/// # Errors
/// The first rule broken, if nothing is left.
#[inline]
pub fn read<'a>(line: &'a [u8], mut take: impl FnMut(&Sample<'a>)) -> Result<u16, Refusal> {
    let line = trim_end(line);
    let (said, tags) = split_tags(line);
    let Some(end) = memchr(b':', said) else {
        return Err(refuse(Reason::MissingValue, line, &said[said.len()..]));
    };
    let (name, samples) = (&said[..end], &said[end + 1..]);
    if !has_name(name) {
        return Err(refuse(Reason::EmptyName, line, name));
    }
    let mut first = None;
    let (mut taken, mut left_out) = (false, 0_u16);
    for text in samples.split(|&byte| byte == b':') {
        match read_sample(text) {
            Ok(sample) => {
                take(&Sample { name, tags, ..sample });
                taken = true;
            }
            Err((reason, part)) => {
                first.get_or_insert((reason, part));
                left_out = left_out.saturating_add(1);
            }
        }
    }
    match first {
        Some((reason, part)) if !taken => Err(refuse(reason, line, part)),
        _ => Ok(left_out),
    }
}

/// What stands before the first `|#`, and what between it and the second.
fn split_tags(line: &[u8]) -> (&[u8], &[u8]) {
    let find = |text: &[u8]| memchr(b'#', text).and_then(|_| memmem::find(text, b"|#"));
    let Some(at) = find(line) else { return (line, &[]) };
    let tags = &line[at + 2..];
    (&line[..at], &tags[..find(tags).unwrap_or(tags.len())])
}

/// Whether something is left of a name when it is sanitised.
fn has_name(name: &[u8]) -> bool {
    for &byte in name {
        match byte {
            b';' => return false,
            b'/' => return true,
            _ if is_kept(byte) || byte.is_ascii_whitespace() || byte == 0x0b => return true,
            _ if !byte.is_ascii() => {
                // Of the rest only a blank is left.
                let text = String::from_utf8_lossy(name);
                return text.split(';').next().is_some_and(|name| !sanitised(name).is_empty());
            }
            _ => {}
        }
    }
    false
}

type Wrong<'a> = (Reason, &'a [u8]);

/// Reads `value|type|@rate`; what stands behind that does not matter.
fn read_sample(text: &[u8]) -> Result<Sample<'_>, Wrong<'_>> {
    let mut fields = text.split(|&byte| byte == b'|');
    let value = fields.next().unwrap_or(text);
    let Some(kind) = fields.next() else {
        return Err((Reason::MissingType, &text[text.len()..]));
    };
    let recorder = match kind.trim_ascii() {
        b"ms" => Recorder::Timer,
        b"g" => Recorder::Gauge,
        b"s" => Recorder::Set,
        _ => Recorder::Counter,
    };
    let weight = match fields.next() {
        None => Weight::ONE,
        Some([b'@', rate @ ..]) => read_number(rate)
            .ok()
            .and_then(Weight::from_exact_rate)
            .ok_or((Reason::BadSampleRate, rate))?,
        Some(other) => return Err((Reason::BadSampleRate, other)),
    };
    let mut sample = Sample {
        name: &[],
        tags: &[],
        recorder,
        number: 0.0,
        is_relative: matches!(value.first(), Some(b'+' | b'-')),
        text: value,
        weight,
    };
    match recorder {
        Recorder::Set if value.is_empty() => sample.text = b"0",
        Recorder::Set => {}
        _ => sample.number = read_number(value).map_err(|reason| (reason, value))?,
    }
    if recorder == Recorder::Timer && sample.number < 0.0 {
        return Err((Reason::BadValue, value));
    }
    Ok(sample)
}

/// A number as JavaScript reads it: with blanks around it, and other bases than ten.
fn read_number(text: &[u8]) -> Result<f64, Reason> {
    let text = text.trim_ascii();
    let read = match text {
        [b'0', b'x' | b'X', digits @ ..] => whole(digits, 16),
        [b'0', b'o' | b'O', digits @ ..] => whole(digits, 8),
        [b'0', b'b' | b'B', digits @ ..] => whole(digits, 2),
        _ => number::decimal(text),
    };
    match read {
        Some(number) if number.is_finite() => Ok(number),
        Some(_) => Err(Reason::NonFinite),
        None => Err(Reason::BadValue),
    }
}

fn whole(digits: &[u8], base: u32) -> Option<f64> {
    let digits = str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u64::from_str_radix(digits, base).ok().map(|number| number as f64)
}

/// What a series is called, and its tags in the order given, as `key:value`: a name may have
/// tags of its own, in Graphite's way (`name;key=value`).
pub fn key(name: &[u8], tags: &[u8], sanitise: bool) -> (Box<str>, TagSet) {
    let clean = |text: &str| match sanitise {
        true => sanitised(text),
        false => text.to_owned(),
    };
    let (name, tags) = (text::lossy(name), text::lossy(tags));
    let (name, own) = match name.split_once(';') {
        Some((name, own)) => (name, own),
        None => (&*name, ""),
    };
    let own = own.split(';').map(Cow::Borrowed);
    let given = tags.split(',').map(|tag| Cow::Owned(tag.replace(';', "_").replacen(':', "=", 1)));
    let all = own.chain(given).map(|tag| clean(&tag).replacen('=', ":", 1));
    (clean(name).into(), TagSet::as_given(all))
}

/// What all names have in common that may be one when they are sanitised: by it a series finds its
/// worker, whatever its spelling.
pub fn routed(name: &[u8]) -> Cow<'_, [u8]> {
    match name.iter().all(|&byte| is_kept(byte) && byte != b';') {
        true => Cow::Borrowed(name),
        false => {
            let text = text::lossy(name);
            let name = text.split(';').next().unwrap_or(&text);
            Cow::Owned(sanitised(name).into_bytes())
        }
    }
}

/// Runs of blanks become `_` and slashes `-`; what is neither a letter, a digit nor one of
/// `_-.;=` is left out.
fn sanitised(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut in_blanks = false;
    for c in text.chars() {
        let is_blank = is_blank(c);
        match c {
            _ if is_blank && in_blanks => {}
            _ if is_blank => clean.push('_'),
            '/' => clean.push('-'),
            _ if u8::try_from(c).is_ok_and(is_kept) => clean.push(c),
            _ => {}
        }
        in_blanks = is_blank;
    }
    clean
}

fn is_kept(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.;=".contains(&byte)
}

/// What JavaScript takes for a blank.
fn is_blank(c: char) -> bool {
    c == '\u{feff}' || c.is_whitespace() && c != '\u{85}'
}

#[cfg(test)]
mod tests {
    use super::*;

    type Said = (Recorder, f64, bool, f64);

    fn said(line: &str) -> Result<(Vec<Said>, u16), (Reason, u32)> {
        let mut samples = Vec::new();
        let read = read(line.as_bytes(), |sample| {
            let Sample { recorder, number, is_relative, weight, .. } = *sample;
            samples.push((recorder, number, is_relative, weight.as_f64()));
        });
        match read {
            Ok(left_out) => Ok((samples, left_out)),
            Err(refusal) => Err((refusal.reason, refusal.at)),
        }
    }

    #[test]
    fn a_line_becomes_its_samples() {
        use Recorder::{Counter, Gauge, Timer};
        for (line, samples, left_out) in [
            ("a:1|c", &[(Counter, 1.0, false, 1.0)][..], 0),
            ("a:1|c|@0.1", &[(Counter, 1.0, false, 10.0)], 0),
            ("a:2|c|@0.5|#a:b", &[(Counter, 2.0, false, 2.0)], 0),
            ("a:320|ms|@0.1", &[(Timer, 320.0, false, 10.0)], 0),
            ("a:-10|g", &[(Gauge, -10.0, true, 1.0)], 0),
            ("a:5|h", &[(Counter, 5.0, false, 1.0)], 0),
            ("a:5|", &[(Counter, 5.0, false, 1.0)], 0),
            ("a:5| ms \r", &[(Timer, 5.0, false, 1.0)], 0),
            ("a:0x10|c", &[(Counter, 16.0, false, 1.0)], 0),
            ("a: 1e3 |c|@1|junk", &[(Counter, 1000.0, false, 1.0)], 0),
            (
                "a:1|c:20|ms:x|c:7|g",
                &[(Counter, 1.0, false, 1.0), (Timer, 20.0, false, 1.0), (Gauge, 7.0, false, 1.0)],
                1,
            ),
        ] {
            assert_eq!(said(line), Ok((samples.to_vec(), left_out)), "{line}");
        }
    }

    #[test]
    fn a_line_is_refused_for() {
        for (line, reason, at) in [
            ("", Reason::MissingValue, 0),
            ("nonsense", Reason::MissingValue, 8),
            (":1|c", Reason::EmptyName, 0),
            ("$%:1|c", Reason::EmptyName, 0),
            (";a=b:1|c", Reason::EmptyName, 0),
            ("é:1|c", Reason::EmptyName, 0),
            ("a:1", Reason::MissingType, 3),
            ("a:", Reason::MissingType, 2),
            ("a:|c", Reason::BadValue, 2),
            ("a: |c", Reason::BadValue, 2),
            ("a:x|c", Reason::BadValue, 2),
            ("a:0x|c", Reason::BadValue, 2),
            ("a:Infinity|c", Reason::NonFinite, 2),
            ("a:-5|ms", Reason::BadValue, 2),
            ("a:1|c|", Reason::BadSampleRate, 6),
            ("a:1|c|0.1", Reason::BadSampleRate, 6),
            ("a:1|c|@", Reason::BadSampleRate, 7),
            ("a:1|c|@x", Reason::BadSampleRate, 7),
            ("a:1|c|@0", Reason::BadSampleRate, 7),
            ("a:1|c|@Infinity", Reason::BadSampleRate, 7),
            ("a:1|c|@-0.5", Reason::BadSampleRate, 7),
        ] {
            assert_eq!(said(line), Err((reason, at)), "{line}");
        }
        // Rates at which etsy's own ends.
        for line in ["a:1|c|@+0.5", "a:1|c|@ 0.5"] {
            assert!(said(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn an_empty_member_of_a_set_is_0() {
        let mut members = Vec::new();
        let read = read(b"a:|s:zoe|s", |sample| members.push(sample.text));
        assert_eq!((read, members), (Ok(0), vec![&b"0"[..], b"zoe"]));
    }

    #[test]
    fn spellings_that_may_be_one_series_go_one_way() {
        for name in ["my metric/x", "my_metric-x", "my\t\tmetric-x;k=v", "my_$metric-%x"] {
            assert_eq!(&*routed(name.as_bytes()), b"my_metric-x", "{name}");
        }
    }

    #[test]
    fn a_key_is_sanitised_and_its_tags_stay_in_their_order() {
        let read = |line: &[u8], sanitise| {
            let (said, tags) = split_tags(line);
            let (name, tags) = key(said, tags, sanitise);
            format!("{name}#{}", tags.as_str())
        };
        for (line, clean, raw) in [
            ("my metric/path$name", "my_metric-pathname#", "my metric/path$name#"),
            ("tab\t \u{a0}key", "tab_key#", "tab\t \u{a0}key#"),
            ("a|#env:prod,dc:eu", "a#env:prod,dc:eu", "a#env:prod,dc:eu"),
            ("a|#b:1,a:2,b:1", "a#b:1,a:2,b:1", "a#b:1,a:2,b:1"),
            ("a;k=v|#bare,x:y:z", "a#k:v,bare,x:yz", "a#k:v,bare,x:y:z"),
            ("a|#x;y:z,,u=v:w", "a#x_y:z,u:v=w", "a#x_y:z,u:v=w"),
            ("a|#b:c|@0.5", "a#b:c0.5", "a#b:c|@0.5"),
            ("a|#b:c|#d:e", "a#b:c", "a#b:c"),
        ] {
            assert_eq!(
                (&*read(line.as_bytes(), true), &*read(line.as_bytes(), false)),
                (clean, raw)
            );
        }
    }
}
