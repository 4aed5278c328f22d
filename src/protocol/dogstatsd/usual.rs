//! The shape nearly every line has, read without guesses: `name:value|type`, then perhaps
//! `|@rate` and `|#tags`, and the end of the line.
//!
//! An ordinary parser asks byte after byte: does the name end here, is this a point, which type
//! is it? The processor guesses each answer, and a wrong guess costs as much as reading thirty
//! bytes. Here a window of 64 bytes, more than most lines have, is searched for all separators
//! at once, and what depends on their places is computed rather than chosen. Measured on a mixed
//! packed stream: half the time of the ordinary parser.
//!
//! Nothing is decided here that the ordinary parser ([`super::parse`]) decides otherwise: what
//! this does not recognise is read there, from its beginning. A property holds them together.

use memchr::{memchr, memchr2};

use super::scan::{self, WINDOW};
use super::{is_blank, number};
use crate::model::text::offset;
use crate::model::{MetricKind, Weight};

/// A part of a datagram or stream frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Piece<'a> {
    /// A metric line of the usual shape, read.
    Sample(Sample<'a>),
    /// Another line, without its newline, not blank: to be parsed.
    Line(&'a [u8]),
}

/// A metric line with one value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// Bytes before the first `:`, not empty.
    pub name: &'a [u8],
    /// The `#` section without its `#`, unsplit.
    pub tags: &'a [u8],
    /// The type section.
    pub kind: MetricKind,
    /// The value of all kinds but sets.
    pub number: f64,
    /// The value as text: the member of a set.
    pub text: &'a [u8],
    /// `@`; one if absent.
    pub weight: Weight,
}

/// The lines of `packet`, which is a slice of `buffer`; blank ones are skipped.
#[inline(always)]
pub fn pieces<'a>(buffer: &'a [u8], packet: &'a [u8]) -> impl Iterator<Item = Piece<'a>> {
    let start = offset(buffer, packet);
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(rest) = packet.get(at..).filter(|rest| !rest.is_empty()) {
            let read = match buffer[start + at..].first_chunk() {
                Some(window) => sample(rest, window),
                None => sample(rest, &padded(rest)),
            };
            if let Some((sample, length)) = read {
                at += length + 1;
                return Some(Piece::Sample(sample));
            }
            let line = &rest[..memchr(b'\n', rest).unwrap_or(rest.len())];
            at += line.len() + 1;
            if !is_blank(line) {
                return Some(Piece::Line(line));
            }
        }
        None
    })
}

fn padded(text: &[u8]) -> [u8; WINDOW] {
    let mut window = [0; WINDOW];
    window.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    window
}

/// Reads the line at the beginning of `text`, and says how long it is without its newline.
/// `None` says only that it does not have the shape. `window` begins as `text` does; what it
/// has behind the end of `text` means nothing.
#[inline(always)]
fn sample<'a>(text: &'a [u8], window: &[u8; WINDOW]) -> Option<(Sample<'a>, usize)> {
    let marks = scan::marks(window, text.len());
    let (end, has_bars_behind) = match marks.line_end {
        Some(end) => (end, false),
        None => end_behind_window(text),
    };
    let line = &text[..end];

    // The first `:` ends the name and the first `|` the value; `_e{` and `_sc|` are no names.
    let name_end = marks.colons.trailing_zeros() as usize;
    let value_end = marks.bars.trailing_zeros() as usize;
    if name_end == 0 || value_end < name_end || value_end == WINDOW || window[0] == b'_' {
        return None;
    }
    let name = &line[..name_end];
    let value = &line[name_end + 1..value_end];

    let mut bars = marks.bars & (marks.bars - 1);
    let mut at = section_end(line, value_end + 1, bars, has_bars_behind);
    let kind = match line[value_end + 1..at] {
        [letter] => KINDS[usize::from(letter)]?,
        [b'm', b's'] => MetricKind::Timer,
        _ => return None,
    };
    let number = match read_short(window, name_end + 1, value.len()) {
        Some(number) => number,
        None if kind == MetricKind::Set => 0.0,
        None => number::decimal(value).filter(|number| number.is_finite())?,
    };
    let mut sample = Sample { name, tags: &[], kind, number, text: value, weight: Weight::ONE };
    while at < end {
        bars &= bars.wrapping_sub(1);
        let from = at + 1;
        at = section_end(line, from, bars, has_bars_behind);
        match &line[from..at] {
            [b'#', tags @ ..] if tags.last() != Some(&b'\r') => sample.tags = tags,
            [b'@', text @ ..] => sample.weight = Weight::from_rate(number::decimal(text)? as f32)?,
            _ => return None,
        }
    }
    Some((sample, end))
}

/// Where a line ends that is longer than the window, and whether it has a `|` behind it. Nearly
/// none has, and is searched once.
fn end_behind_window(text: &[u8]) -> (usize, bool) {
    let Some(first) = memchr2(b'\n', b'|', &text[WINDOW..]).map(|at| WINDOW + at) else {
        return (text.len(), false);
    };
    if text[first] == b'\n' {
        return (first, false);
    }
    (memchr(b'\n', &text[first..]).map_or(text.len(), |at| first + at), true)
}

/// Where the section ends that begins at `from`; `bars` are those behind it in the window.
#[inline(always)]
fn section_end(line: &[u8], from: usize, bars: u64, has_bars_behind: bool) -> usize {
    if bars != 0 {
        return bars.trailing_zeros() as usize;
    }
    if !has_bars_behind {
        return line.len();
    }
    let behind = from.max(WINDOW);
    memchr(b'|', &line[behind..]).map_or(line.len(), |at| behind + at)
}

/// The kinds whose type is one letter.
const KINDS: [Option<MetricKind>; 256] = {
    let mut kinds = [None; 256];
    kinds[b'c' as usize] = Some(MetricKind::Counter);
    kinds[b'g' as usize] = Some(MetricKind::Gauge);
    kinds[b'h' as usize] = Some(MetricKind::Histogram);
    kinds[b'd' as usize] = Some(MetricKind::Distribution);
    kinds[b's' as usize] = Some(MetricKind::Set);
    kinds
};

#[inline(always)]
fn read_short(window: &[u8; WINDOW], at: usize, length: usize) -> Option<f64> {
    let word = u64::from_le_bytes(*window[at..].first_chunk()?);
    number::short_decimal(word, length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::dogstatsd::{Line, Message, Values, lines, parse};

    /// What the ordinary parser makes of a line that has the usual shape.
    fn as_line<'a>(sample: &Sample<'a>, sample_rate: f32) -> Line<'a> {
        let values = match sample.kind {
            MetricKind::Set => Values::Member(sample.text),
            _ => Values::One(sample.number),
        };
        Line {
            name: sample.name,
            values,
            kind: sample.kind,
            weight: sample.weight,
            sample_rate,
            tags: sample.tags,
            timestamp: None,
            container_id: None,
            external_data: None,
            cardinality: None,
            unknown_sections: 0,
            skipped_values: 0,
        }
    }

    /// The pieces of a packet that stands at `at` in a buffer with other things around it; and
    /// that they are its lines, read as the ordinary parser reads them.
    fn check<'a>(buffer: &'a [u8], packet: &'a [u8]) -> Vec<Piece<'a>> {
        let pieces: Vec<Piece<'a>> = pieces(buffer, packet).collect();
        let mut lines = lines(packet);
        for piece in &pieces {
            let line = lines.next().expect("a piece is a line");
            match piece {
                Piece::Line(piece) => assert_eq!(*piece, line),
                Piece::Sample(sample) => {
                    let Ok(Message::Metric(parsed)) = parse(line) else {
                        panic!("no metric: {}", line.escape_ascii());
                    };
                    let expected = as_line(sample, parsed.sample_rate);
                    assert_eq!(parsed, expected, "{}", line.escape_ascii());
                }
            }
        }
        assert_eq!(lines.next(), None, "every line is a piece");
        pieces
    }

    #[test]
    fn lines_of_the_usual_shape_are_samples_and_others_are_not() {
        let long = format!("x:1|c|#{}", "long:tag,".repeat(20));
        let long_name = format!("{}:1|c", "name".repeat(16));
        for (line, is_usual) in [
            ("a.b:1|c", true),
            ("a.b:-12.375|g", true),
            ("a.b:1234567.5|h", true),
            ("a.b:320|ms|@0.5|#env:prod,b", true),
            ("a.b:320|ms|#env:prod,b|@0.5", true),
            ("a.b:u:954|s|#x", true),
            ("a.b:|s", true),
            ("a.b:1|d", true),
            (&long, true),
            (&long_name, false),
            ("a.b:1:2|c", false),
            ("a.b:nan|g", false),
            ("a.b:1|c\r", false),
            ("a.b:1|c|#x\r", false),
            ("a.b:1|c|T1656581400", false),
            ("a.b:1|c|#x|c:in-7", false),
            ("a.b:1|q", false),
            ("a.b:.|c", false),
            ("a.b:|c", false),
            ("a.b:1", false),
            (":1|c", false),
            ("_e{1,1}:5|c", false),
            ("_sc|a:1|c", false),
        ] {
            let pieces = check(line.as_bytes(), line.as_bytes());
            assert_eq!(matches!(pieces[..], [Piece::Sample(_)]), is_usual, "{line}");
        }
    }

    #[test]
    fn what_lies_behind_a_packet_means_nothing() {
        let buffer = b"old:1|c|#older:thing|\na:1|c|#x:y|@0.1|T1\n|||:::";
        for end in 0..buffer.len() {
            for start in 0..=end {
                check(buffer, &buffer[start..end]);
            }
        }
    }

    fn packet() -> impl Strategy<Value = String> {
        let value = "-?[0-9]{0,9}\\.?[0-9]{0,4}|[a-z]{1,4}|1e3|inf|1:2";
        let section = "@0\\.[0-9]{1,3}|@1|#[a-z:,]{0,70}\r?|c:x|T12|";
        let kind = "c|g|ms|h|d|s|m|x|c\r";
        let line = format!("[a-z._]{{0,20}}:({value})\\|({kind})(\\|({section})){{0,3}}");
        let lines = format!("({line}|\r|[a-z:|\r]{{0,9}})(\n({line}|[a-z:|]{{0,9}})){{0,4}}\n?");
        proptest::string::string_regex(&lines).expect("a pattern")
    }

    proptest! {
        /// For all packets, wherever they stand: each piece is what the ordinary parser makes
        /// of the line at its place.
        #[test]
        fn samples_are_what_the_ordinary_parser_reads(
            before in "[a-z:|\n]{0,9}", packet in packet(), behind in "[0-9a-z:|#@\n]{0,70}"
        ) {
            let buffer = format!("{before}{packet}{behind}");
            let at = before.len()..before.len() + packet.len();
            check(buffer.as_bytes(), &buffer.as_bytes()[at]);
        }
    }
}
