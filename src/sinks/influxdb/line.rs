//! Points as InfluxDB's line protocol.
//!
//! | `layout` | A counter | A gauge | A set | A timer and its like |
//! |---|---|---|---|---|
//! | `fields` | `NAME count=..,rate=..` | `NAME value=..` | `NAME count=..` | `NAME max=..,min=..,99percentile=..` |
//! | `values` | `NAME value=RATE` | `NAME value=..` | `NAME value=..` | `NAME.max value=..`, `NAME.count value=RATE` |
//!
//! With tags behind the name, and seconds behind the fields. `fields` has one line for a series
//! and moment, with all its statistics; `values` is what Veneur v1.1.0 sent, but in lines that
//! InfluxDB reads.
//!
//! Source: InfluxDB v1 and v2, "Line protocol reference": measurements escape `,` and blanks, keys
//! and values of tags also `=`; a line that starts with `#` is a comment, and control characters
//! have no escape.

use std::ops::Range;
use std::sync::Arc;

use flate2::Compression;

use crate::config::settings::InfluxdbLayout;
use crate::model::{FlushBatch, MetricKey, MetricKind, Point, PointKind, UnixSeconds};
use crate::sinks::json::{push_integer, push_number};
use crate::sinks::labels::{Labels, Spelling};
use crate::sinks::post::{Body, BodyWriter, Encoding, Limits};
use crate::sinks::{Node, Reason};

/// InfluxDB takes 25 MB (v1) or 50 MB (v2), after decompression, unless told otherwise; a range
/// beyond is halved.
const LIMITS: Limits = Limits { plain_bytes: 8 << 20, wire_bytes: 8 << 20 };

/// As for Datadog.
const GZIP_LEVEL: u32 = 2;

/// Writes some of a batch's points into a body.
///
/// # Errors
/// [`Reason::TooLarge`] when they are too much for one.
pub fn encode(
    batch: &FlushBatch,
    layout: InfluxdbLayout,
    node: &Node,
    items: Range<usize>,
) -> Result<Body, Reason> {
    let mut body = BodyWriter::new(Encoding::Gzip(Compression::new(GZIP_LEVEL)), LIMITS);
    let mut writer = Writer { batch, layout, node, series: Series::default(), line: None };
    for point in &batch.points[items] {
        match writer.push(point, body.text()) {
            true => body.end_item()?,
            false => body.leave_out_item(),
        }
    }
    writer.end_line(body.text());
    body.finish()
}

/// Writes one point after the other.
struct Writer<'a> {
    batch: &'a FlushBatch,
    layout: InfluxdbLayout,
    node: &'a Node,
    series: Series,
    /// Of which series and moment the open line is.
    line: Option<(Arc<MetricKey>, UnixSeconds)>,
}

/// What the lines of a series have in common.
#[derive(Default)]
struct Series {
    key: Option<Arc<MetricKey>>,
    measurement: Vec<u8>,
    /// `,key=value,key=value`
    tags: Vec<u8>,
    labels: Labels,
}

impl Writer<'_> {
    /// `false` if the value cannot be written.
    fn push(&mut self, point: &Point, text: &mut Vec<u8>) -> bool {
        if !self.series.key.as_ref().is_some_and(|key| Arc::ptr_eq(key, &point.key)) {
            self.series.describe(&point.key, self.node);
        }
        match self.layout {
            InfluxdbLayout::Fields => self.push_fields(point, text),
            InfluxdbLayout::Values => self.push_value(point, text),
        }
    }

    fn push_fields(&mut self, point: &Point, text: &mut Vec<u8>) -> bool {
        let is_open = self
            .line
            .as_ref()
            .is_some_and(|(key, at)| Arc::ptr_eq(key, &point.key) && *at == point.at);
        if is_open {
            text.push(b',');
        } else {
            self.end_line(text);
            text.extend_from_slice(&self.series.measurement);
            text.extend_from_slice(&self.series.tags);
            text.push(b' ');
            self.line = Some((Arc::clone(&point.key), point.at));
        }
        let suffix = self.batch.suffixes.text(point.suffix);
        match (point.kind, suffix) {
            (PointKind::Count, "") => {
                push_field(text, "count", point.value);
                let rate = point.value / self.batch.interval.as_secs_f64();
                if rate.is_finite() {
                    text.push(b',');
                    push_field(text, "rate", rate);
                }
            }
            (PointKind::Gauge, "") if point.key.kind == MetricKind::Set => {
                push_field(text, "count", point.value);
            }
            (PointKind::Gauge, "") => push_field(text, "value", point.value),
            (PointKind::Count | PointKind::Gauge, suffix) => {
                push_field(text, suffix.trim_start_matches('.'), point.value)
            }
        }
        true
    }

    fn push_value(&mut self, point: &Point, text: &mut Vec<u8>) -> bool {
        let value = match point.kind {
            PointKind::Count => point.value / self.batch.interval.as_secs_f64(),
            PointKind::Gauge => point.value,
        };
        if !value.is_finite() {
            return false;
        }
        text.extend_from_slice(&self.series.measurement);
        text.extend_from_slice(self.batch.suffixes.text(point.suffix).as_bytes());
        text.extend_from_slice(&self.series.tags);
        text.push(b' ');
        push_field(text, "value", value);
        push_time(text, point.at);
        true
    }

    fn end_line(&mut self, text: &mut Vec<u8>) {
        if let Some((_, at)) = self.line.take() {
            push_time(text, at);
        }
    }
}

impl Series {
    fn describe(&mut self, key: &Arc<MetricKey>, node: &Node) {
        self.measurement.clear();
        push_escaped(&mut self.measurement, &key.name, b", ");
        if self.measurement.first() == Some(&b'#') {
            self.measurement[0] = OTHER;
        }
        self.labels.describe::<Tags>(key, node);
        self.tags.clear();
        for (key, value) in self.labels.iter() {
            self.tags.push(b',');
            self.tags.extend_from_slice(key);
            self.tags.push(b'=');
            self.tags.extend_from_slice(value);
        }
        self.key = Some(Arc::clone(key));
    }
}

/// A field of ours: a name without anything to escape, and a finite number. A number without a
/// point is a float, too.
fn push_field(text: &mut Vec<u8>, name: &str, value: f64) {
    text.extend_from_slice(name.as_bytes());
    text.push(b'=');
    push_number(text, value);
}

fn push_time(text: &mut Vec<u8>, at: UnixSeconds) {
    text.push(b' ');
    push_integer(text, at.0);
    text.push(b'\n');
}

/// What stands for a character that cannot be written.
const OTHER: u8 = b'_';
/// Keys that mean something else to InfluxDB.
const RESERVED: [&str; 3] = ["time", "_field", "_measurement"];

/// Appends a text in which `special` characters have a `\` before them.
fn push_escaped(out: &mut Vec<u8>, text: &str, special: &[u8]) {
    let start = out.len();
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte) if special.contains(&byte) => out.extend_from_slice(&[b'\\', byte]),
            Ok(byte @ 0x20..0x7f) => out.push(byte),
            _ if c.is_control() => out.push(OTHER),
            _ => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    // It would escape what follows.
    if out.len() > start
        && let Some(last @ b'\\') = out.last_mut()
    {
        *last = OTHER;
    }
}

/// Keys and values of tags.
struct Tags;

impl Spelling for Tags {
    fn push_key(out: &mut Vec<u8>, key: &str) {
        push_escaped(out, key, b",= ");
        if RESERVED.contains(&key) {
            out.push(OTHER);
        }
    }

    fn push_value(out: &mut Vec<u8>, value: &str) {
        push_escaped(out, value, b",= ");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Dialect, Interval, Scope, Suffix, Suffixes, TagSet};

    fn point(kind: MetricKind, name: &str, tags: &str, value: f64) -> Point {
        let (tags, scope) = (TagSet::canonical(tags.split(',')), Scope::Mixed);
        let key = Arc::new(MetricKey {
            name: name.into(),
            tags,
            kind,
            scope,
            dialect: Dialect::DogStatsD,
        });
        let kind = if kind == MetricKind::Counter { PointKind::Count } else { PointKind::Gauge };
        Point { key, value, at: UnixSeconds(7), kind, suffix: Suffix::NONE }
    }

    fn text(points: Vec<Point>, suffixes: Suffixes, layout: InfluxdbLayout, node: &Node) -> String {
        let batch = FlushBatch {
            at: UnixSeconds(7),
            interval: Interval::new(Duration::from_secs(10)).expect("not zero"),
            suffixes: Arc::new(suffixes),
            points,
            events: Vec::new(),
            checks: Vec::new(),
            spans: Default::default(),
        };
        let body = encode(&batch, layout, node, 0..batch.points.len()).expect("it is small");
        assert_eq!(body.items, batch.points.len() as u64);
        let mut text = String::new();
        flate2::read::GzDecoder::new(&body.bytes[..])
            .read_to_string(&mut text)
            .expect("a body is gzip of UTF-8");
        text
    }

    #[test]
    fn a_series_is_a_line_of_fields_or_lines_of_values() {
        let mut suffixes = Suffixes::default();
        let max = suffixes.add(".max").expect("there is room");
        let count = suffixes.add(".count").expect("there is room");
        let p999 = suffixes.add(".99.9percentile").expect("there is room");
        let timer = point(MetricKind::Timer, "load", "env:prod", 7.5);
        let points = vec![
            Point { suffix: max, ..timer.clone() },
            Point { suffix: count, kind: PointKind::Count, value: 20.0, ..timer.clone() },
            Point { suffix: p999, at: UnixSeconds(6), ..timer },
            point(MetricKind::Counter, "hits", "", 5.0),
            point(MetricKind::Gauge, "fuel", "host:a", 1e21),
            point(MetricKind::Set, "users", "", 3.0),
        ];
        let node = Node { host: Some("n".into()), tags: vec!["az:1".into()] };
        assert_eq!(
            text(points.clone(), suffixes.clone(), InfluxdbLayout::Fields, &node),
            "load,az=1,env=prod,host=n max=7.5,count=20 7\n\
             load,az=1,env=prod,host=n 99.9percentile=7.5 6\n\
             hits,az=1,host=n count=5,rate=0.5 7\n\
             fuel,az=1,host=a value=1e+21 7\n\
             users,az=1,host=n count=3 7\n"
        );
        assert_eq!(
            text(points, suffixes, InfluxdbLayout::Values, &node),
            "load.max,az=1,env=prod,host=n value=7.5 7\n\
             load.count,az=1,env=prod,host=n value=2 7\n\
             load.99.9percentile,az=1,env=prod,host=n value=7.5 6\n\
             hits,az=1,host=n value=0.5 7\n\
             fuel,az=1,host=a value=1e+21 7\n\
             users,az=1,host=n value=3 7\n"
        );
    }

    #[test]
    fn what_has_a_meaning_is_escaped() {
        for (name, tags, line) in [
            ("a b,c=d", "k=1 2:v=1 2", r"a\ b\,c=d,k\=1\ 2=v\=1\ 2"),
            ("#a", "time:x", "_a,time_=x"),
            (r"a\", r"k\:v\", "a_,k_=v_"),
            (r"a\,b", r"k:a\ b", r"a\\,b,k=a\\ b"),
            ("a\nb\tc", "k:\r\u{1}ü", "a_b_c,k=__ü"),
            ("a\"b", "k:\"v\"", "a\"b,k=\"v\""),
            ("bare", "canary", "bare,canary=true"),
        ] {
            let points = vec![point(MetricKind::Gauge, name, tags, 1.0)];
            let text = text(points, Suffixes::default(), InfluxdbLayout::Fields, &Node::default());
            assert_eq!(text, format!("{line} value=1 7\n"));
        }
    }

    /// Splits at what has no `\` before it.
    fn split(text: &str, at: char) -> Vec<&str> {
        let (mut parts, mut from, mut before) = (Vec::new(), 0, ' ');
        for (index, c) in text.char_indices() {
            if c == at && before != '\\' {
                parts.push(&text[from..index]);
                from = index + c.len_utf8();
            }
            before = c;
        }
        parts.push(&text[from..]);
        parts
    }

    proptest! {
        /// Whatever a client sends, one line comes out, with as many tags as it has keys.
        #[test]
        fn a_metric_is_one_line(
            name in "(?s).{1,30}|[\\\\, =#]{1,9}",
            tags in "(?s).{0,40}|[\\\\, =:ab]{0,20}",
        ) {
            let points = vec![point(MetricKind::Gauge, &name, &tags, 1.0)];
            let text = text(points, Suffixes::default(), InfluxdbLayout::Fields, &Node::default());
            let line = text.strip_suffix('\n').expect("it ends");
            prop_assert!(!line.contains(char::is_control) && !line.starts_with('#'), "{}", line);
            let parts = split(line, ' ');
            prop_assert_eq!(&parts[1..], &["value=1", "7"], "{}", line);
            let mut keys = Vec::new();
            for tag in &split(parts[0], ',')[1..] {
                let pair = split(tag, '=');
                prop_assert!(pair.len() == 2 && pair.iter().all(|part| !part.is_empty()), "{}", line);
                prop_assert!(!keys.contains(&pair[0]), "{}", line);
                keys.push(pair[0]);
            }
            prop_assert!(!split(parts[0], ',')[0].is_empty());
        }
    }
}
