//! Points as the JSON of Datadog's series endpoint.
//!
//! A point is `{"metric":..,"points":[[at,value]],"tags":[..],"type":..,"host":..,
//! "device_name":..,"interval":..}`, in that order; tags, host, device and interval are left
//! out when empty. Counts become rates per second and carry the interval in whole seconds.
//! The tags `host:` and `device:` become fields instead. The points of one series stand
//! together in a batch, so what they share is rendered once and copied.
//!
//! Source: bodies captured from Veneur v1.1.0; of several `host:` tags the last one counts, as
//! in v14, where v1.1.0 crashed.

use std::ops::Range;
use std::sync::Arc;

use flate2::Compression;

use crate::model::{FlushBatch, MetricKey, PointKind};
use crate::sinks::json::{push_escaped, push_integer, push_number, push_string};
use crate::sinks::post::{Body, BodyWriter, Encoding, Limits};
use crate::sinks::{Node, Reason};

/// What the intake takes in one body of series.
const LIMITS: Limits = Limits { plain_bytes: 62_914_560, wire_bytes: 3_200_000 };

/// Level 2 makes 13 bytes of a point of 224 for a fifth more time than level 1, which makes 18;
/// the default, 6, makes 11 and takes four times as long.
const ZLIB_LEVEL: u32 = 2;

/// Writes some of a batch's points into a body.
///
/// # Errors
/// [`Reason::TooLarge`] when the intake would not take so many in one body.
pub fn encode(batch: &FlushBatch, node: &Node, items: Range<usize>) -> Result<Body, Reason> {
    let mut body = BodyWriter::new(Encoding::Deflate(Compression::new(ZLIB_LEVEL)), LIMITS);
    body.text().extend_from_slice(b"{\"series\":[");
    let mut series = Series::default();
    let mut key: Option<&Arc<MetricKey>> = None;
    for point in &batch.points[items] {
        let value = match point.kind {
            PointKind::Count => point.value / batch.interval.as_secs_f64(),
            PointKind::Gauge => point.value,
        };
        // The division may overflow, and JSON has no infinity: one would void the whole body.
        if !value.is_finite() {
            body.leave_out_item();
            continue;
        }
        if !key.is_some_and(|key| Arc::ptr_eq(key, &point.key)) {
            series.describe(&point.key, node);
            key = Some(&point.key);
        }
        let comma: &[u8] = if body.has_items() { b"," } else { b"" };
        let text = body.text();
        text.extend_from_slice(comma);
        text.extend_from_slice(&series.before_suffix);
        push_escaped(text, batch.suffixes.text(point.suffix));
        text.extend_from_slice(b"\",\"points\":[[");
        push_integer(text, point.at.0);
        text.push(b',');
        push_number(text, value);
        text.extend_from_slice(b"]]");
        text.extend_from_slice(&series.tags);
        text.extend_from_slice(match point.kind {
            PointKind::Count => b",\"type\":\"rate\"",
            PointKind::Gauge => b",\"type\":\"gauge\"",
        });
        text.extend_from_slice(&series.place);
        if point.kind == PointKind::Count && batch.interval.whole_seconds() > 0 {
            text.extend_from_slice(b",\"interval\":");
            push_integer(text, batch.interval.whole_seconds() as i64);
        }
        text.push(b'}');
        body.end_item()?;
    }
    body.text().extend_from_slice(b"]}");
    body.finish()
}

/// What all points of a series have in common, as pieces of JSON.
#[derive(Default)]
struct Series {
    /// `{"metric":"NAME`
    before_suffix: Vec<u8>,
    /// `,"tags":[..]`, or nothing.
    tags: Vec<u8>,
    /// `,"host":..,"device_name":..`, or less.
    place: Vec<u8>,
}

impl Series {
    fn describe(&mut self, key: &MetricKey, node: &Node) {
        self.before_suffix.clear();
        self.before_suffix.extend_from_slice(b"{\"metric\":\"");
        push_escaped(&mut self.before_suffix, &key.name);

        let (mut host, mut device) = ("", "");
        self.tags.clear();
        for tag in key.tags.iter() {
            match tag.split_once(':') {
                Some(("host", name)) => host = name,
                Some(("device", name)) => device = name,
                Some(_) | None => self.push_tag(tag),
            }
        }
        for tag in &node.tags {
            self.push_tag(tag);
        }
        if !self.tags.is_empty() {
            self.tags.push(b']');
        }

        if host.is_empty() {
            host = node.host.as_deref().unwrap_or_default();
        }
        self.place.clear();
        for (field, name) in [(b",\"host\":".as_slice(), host), (b",\"device_name\":", device)] {
            if !name.is_empty() {
                self.place.extend_from_slice(field);
                push_string(&mut self.place, name);
            }
        }
    }

    fn push_tag(&mut self, tag: &str) {
        let opening: &[u8] = if self.tags.is_empty() { b",\"tags\":[" } else { b"," };
        self.tags.extend_from_slice(opening);
        push_string(&mut self.tags, tag);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;
    use crate::model::{
        Dialect, Interval, MetricKind, Point, Scope, Suffix, Suffixes, TagSet, UnixSeconds,
    };

    fn batch(interval: Duration, points: Vec<Point>, suffixes: Suffixes) -> FlushBatch {
        FlushBatch {
            at: UnixSeconds(1_700_000_000),
            interval: Interval::new(interval).expect("not zero"),
            suffixes: Arc::new(suffixes),
            points,
            events: Vec::new(),
            checks: Vec::new(),
            spans: Default::default(),
        }
    }

    fn point(name: &str, tags: &str, kind: PointKind, value: f64) -> Point {
        let key = MetricKey {
            name: name.into(),
            tags: TagSet::canonical(tags.split(',')),
            kind: MetricKind::Counter,
            scope: Scope::Mixed,
            dialect: Dialect::DogStatsD,
        };
        let at = UnixSeconds(1_700_000_000);
        Point { key: Arc::new(key), value, at, kind, suffix: Suffix::NONE }
    }

    fn text(body: &Body) -> String {
        let mut text = String::new();
        flate2::read::ZlibDecoder::new(&body.bytes[..])
            .read_to_string(&mut text)
            .expect("a body is a zlib stream of UTF-8");
        text
    }

    fn encoded(batch: &FlushBatch, node: &Node) -> String {
        text(&encode(batch, node, 0..batch.points.len()).expect("it is small"))
    }

    #[test]
    fn host_and_device_tags_become_fields() {
        for (tags, host, rest) in [
            ("", None, ""),
            ("x:1", None, r#","tags":["x:1"]"#),
            ("", Some("n"), r#""host":"n""#),
            ("host:h,x:1", Some("n"), r#","tags":["x:1"] "host":"h""#),
            ("host:", Some("n"), r#""host":"n""#),
            ("host:", None, ""),
            ("host:,host:a,host:b", Some("n"), r#""host":"b""#),
            ("device:d,host:h,zz:1", None, r#","tags":["zz:1"] "host":"h","device_name":"d""#),
            ("device:", None, ""),
            ("host,hostname:no", None, r#","tags":["host","hostname:no"]"#),
            ("host:a:b", None, r#""host":"a:b""#),
        ] {
            let node = Node { host: host.map(str::to_owned), tags: Vec::new() };
            let batch = batch(
                Duration::from_secs(10),
                vec![point("m", tags, PointKind::Gauge, 1.5)],
                Suffixes::default(),
            );
            let (tag_list, place) = match rest.split_once(' ') {
                Some((tag_list, place)) => (tag_list, format!(",{place}")),
                None if rest.starts_with(',') => (rest, String::new()),
                None if rest.is_empty() => ("", String::new()),
                None => ("", format!(",{rest}")),
            };
            let expected = format!(
                r#"{{"series":[{{"metric":"m","points":[[1700000000,1.5]]{tag_list},"type":"gauge"{place}}}]}}"#
            );
            assert_eq!(encoded(&batch, &node), expected, "{tags:?}");
        }
    }

    #[test]
    fn counts_become_rates_over_the_interval() {
        for (interval_ms, rate, field) in [
            (10_000, "4.2", r#","interval":10"#),
            (1_500, "28", r#","interval":1"#),
            (500, "84", ""),
        ] {
            let points = vec![point("c", "", PointKind::Count, 42.0)];
            let batch = batch(Duration::from_millis(interval_ms), points, Suffixes::default());
            let expected = format!(
                r#"{{"series":[{{"metric":"c","points":[[1700000000,{rate}]],"type":"rate"{field}}}]}}"#
            );
            assert_eq!(encoded(&batch, &Node::default()), expected, "{interval_ms} ms");
        }
    }

    #[test]
    fn points_of_one_series_share_its_tags() {
        let mut suffixes = Suffixes::default();
        let max = suffixes.add(".max").expect("there is room");
        let count = suffixes.add(".count").expect("there is room");
        let mut first = point("t", "b:2,host:h,a:1", PointKind::Gauge, 7.0);
        first.suffix = max;
        let second = Point { kind: PointKind::Count, value: 2.0, suffix: count, ..first.clone() };
        let other = point("u\"", "", PointKind::Gauge, 0.0);
        let batch = batch(Duration::from_secs(2), vec![first, second, other], suffixes);
        let node = Node { host: Some("n".into()), tags: vec!["z:1".into(), "a:0".into()] };
        let expected = concat!(
            r#"{"series":["#,
            r#"{"metric":"t.max","points":[[1700000000,7]],"tags":["a:1","b:2","z:1","a:0"],"#,
            r#""type":"gauge","host":"h"},"#,
            r#"{"metric":"t.count","points":[[1700000000,1]],"tags":["a:1","b:2","z:1","a:0"],"#,
            r#""type":"rate","host":"h","interval":2},"#,
            r#"{"metric":"u\"","points":[[1700000000,0]],"tags":["z:1","a:0"],"#,
            r#""type":"gauge","host":"n"}"#,
            r#"]}"#
        );
        assert_eq!(encoded(&batch, &node), expected);
    }

    #[test]
    fn a_rate_that_overflows_is_left_out_and_costs_its_neighbours_nothing() {
        let points = vec![
            point("huge", "", PointKind::Count, f64::MAX),
            point("fine", "", PointKind::Gauge, 1.0),
        ];
        let batch = batch(Duration::from_millis(500), points, Suffixes::default());
        let body = encode(&batch, &Node::default(), 0..2).expect("it is small");
        assert_eq!((body.items, body.unwritable), (1, 1));
        assert!(text(&body).starts_with(r#"{"series":[{"metric":"fine""#));
    }
}
