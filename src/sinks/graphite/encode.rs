//! Points as carbon reads them: lines, or frames of pickles.

use std::ops::Range;

use super::render::Renderer;
use crate::config::settings::{GraphiteProtocol, GraphiteSettings};
use crate::model::FlushBatch;
use crate::sinks::json::{push_integer, push_number};
use crate::sinks::post::{Body, BodyWriter, Encoding, Limits};
use crate::sinks::{Node, Reason};

/// What is sent over one connection, and is in memory at once. Beyond, a range is halved.
const LIMITS: Limits = Limits { plain_bytes: 4 << 20, wire_bytes: 4 << 20 };

/// A frame is closed with so many points, or bytes. Carbon takes 1 MiB.
const FRAME_POINTS: usize = 500;
const FRAME_BYTES: usize = 64 << 10;

/// Writes some of a batch's points into a body.
///
/// # Errors
/// [`Reason::TooLarge`] when they are too much for one.
pub fn encode(
    batch: &FlushBatch,
    settings: &GraphiteSettings,
    node: &Node,
    items: Range<usize>,
) -> Result<Body, Reason> {
    match settings.protocol {
        GraphiteProtocol::Plaintext => lines(batch, settings, node, items),
        GraphiteProtocol::Pickle => pickles(batch, settings, node, items),
    }
}

/// `path value timestamp`, each on a line.
fn lines(
    batch: &FlushBatch,
    settings: &GraphiteSettings,
    node: &Node,
    items: Range<usize>,
) -> Result<Body, Reason> {
    let mut body = BodyWriter::new(Encoding::Identity, LIMITS);
    let mut renderer = Renderer::new(settings, node);
    for point in &batch.points[items] {
        let text = body.text();
        let is_written = renderer.render(batch, point, |path, value| {
            text.extend_from_slice(path);
            text.push(b' ');
            push_number(text, value);
            text.push(b' ');
            push_integer(text, point.at.0);
            text.push(b'\n');
        });
        match is_written {
            true => body.end_item()?,
            false => body.leave_out_item(),
        }
    }
    body.finish()
}

fn pickles(
    batch: &FlushBatch,
    settings: &GraphiteSettings,
    node: &Node,
    items: Range<usize>,
) -> Result<Body, Reason> {
    let mut body = BodyWriter::new(Encoding::Identity, LIMITS);
    let mut renderer = Renderer::new(settings, node);
    let mut frame = Frame::default();
    for point in &batch.points[items] {
        let is_written = renderer.render(batch, point, |path, value| {
            frame.push(path, point.at.0, value);
        });
        if frame.is_full() {
            frame.close(body.text());
        }
        match is_written {
            true => body.end_item()?,
            false => body.leave_out_item(),
        }
    }
    frame.close(body.text());
    body.finish()
}

/// A frame being written: a length of four bytes, then `[(path, (timestamp, value)), ..]` as a
/// pickle of protocol 2.
///
/// Source: Python, `Lib/pickletools.py`; carbon, `MetricPickleReceiver`.
#[derive(Default)]
struct Frame {
    points: usize,
    /// What is between the mark and the end.
    pickled: Vec<u8>,
}

/// Protocol 2, an empty list, a mark.
const OPENING: &[u8] = b"\x80\x02](";
/// All behind the mark into the list; the end.
const CLOSING: &[u8] = b"e.";

impl Frame {
    fn push(&mut self, path: &[u8], at: i64, value: f64) {
        let out = &mut self.pickled;
        // Paths are shorter than `LONGEST_PATH`.
        let length = u32::try_from(path.len()).unwrap_or(u32::MAX);
        out.push(b'X');
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(path);
        match i32::try_from(at) {
            Ok(at) => {
                out.push(b'J');
                out.extend_from_slice(&at.to_le_bytes());
            }
            Err(_) => {
                out.extend_from_slice(b"\x8a\x08");
                out.extend_from_slice(&at.to_le_bytes());
            }
        }
        out.push(b'G');
        out.extend_from_slice(&value.to_be_bytes());
        // Two pairs: (timestamp, value), and (path, that).
        out.extend_from_slice(b"\x86\x86");
        self.points += 1;
    }

    fn is_full(&self) -> bool {
        self.points >= FRAME_POINTS || self.pickled.len() >= FRAME_BYTES
    }

    /// Appends the frame, if anything is in it, and begins the next one.
    fn close(&mut self, out: &mut Vec<u8>) {
        if self.points == 0 {
            return;
        }
        let length = OPENING.len() + self.pickled.len() + CLOSING.len();
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(OPENING);
        out.extend_from_slice(&self.pickled);
        out.extend_from_slice(CLOSING);
        self.pickled.clear();
        self.points = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::settings::{EtsyNames, GraphiteAddress, GraphiteLayout};
    use crate::model::{
        Dialect, Interval, MetricKey, MetricKind, Point, PointKind, Scope, Suffix, Suffixes,
        TagSet, UnixSeconds,
    };

    fn settings(prefix: &str, protocol: GraphiteProtocol) -> GraphiteSettings {
        GraphiteSettings {
            address: GraphiteAddress::Tcp("127.0.0.1:2003".to_owned()),
            protocol,
            layout: GraphiteLayout::Veneur,
            prefix: prefix.to_owned(),
            names: EtsyNames::default(),
        }
    }

    fn point(name: &str, tags: &str, value: f64, at: i64) -> Point {
        let key = MetricKey {
            name: name.into(),
            tags: TagSet::from_section(tags.as_bytes(), &Default::default()).0,
            kind: MetricKind::Counter,
            scope: Scope::Mixed,
            dialect: Dialect::DogStatsD,
        };
        let (kind, at) = (PointKind::Gauge, UnixSeconds(at));
        Point { key: Arc::new(key), value, at, kind, suffix: Suffix::NONE }
    }

    fn batch(points: Vec<Point>, suffixes: Suffixes) -> FlushBatch {
        FlushBatch {
            at: UnixSeconds(1_700_000_000),
            interval: Interval::new(Duration::from_secs(10)).expect("not zero"),
            suffixes: Arc::new(suffixes),
            points,
            events: Vec::new(),
            checks: Vec::new(),
            spans: Default::default(),
        }
    }

    fn text(points: Vec<Point>, prefix: &str, node: &Node) -> (String, u64) {
        let batch = batch(points, Suffixes::default());
        let settings = settings(prefix, GraphiteProtocol::Plaintext);
        let body = encode(&batch, &settings, node, 0..batch.points.len()).expect("it is small");
        assert_eq!(body.items + body.unwritable, batch.points.len() as u64);
        (String::from_utf8(body.bytes.to_vec()).expect("it is UTF-8"), body.unwritable)
    }

    #[test]
    fn points_of_one_series_share_its_tags() {
        let mut suffixes = Suffixes::default();
        let p999 = suffixes.add(".99.9percentile").expect("there is room");
        let first = point("a b.c", "env:x y,canary,host:h", 1.5, 1_700_000_000);
        let second = Point { suffix: p999, value: 1e21, ..first.clone() };
        let batch = batch(vec![first, second, point("d", "", -0.0, 5)], suffixes);
        let node = Node { host: Some("n".into()), tags: vec!["az:1".into()] };
        let settings = settings("p.q", GraphiteProtocol::Plaintext);
        let body = encode(&batch, &settings, &node, 0..3).expect("it is small");
        let wanted = "p.q.a_b.c;az=1;canary=true;env=x_y;host=h 1.5 1700000000\n\
                      p.q.a_b.c.99.9percentile;az=1;canary=true;env=x_y;host=h 1e+21 1700000000\n\
                      p.q.d;az=1;host=n 0 5\n";
        assert_eq!(body.bytes, wanted);
    }

    #[test]
    fn what_carbon_would_not_take_is_left_out() {
        let long = "x".repeat(251);
        let tags: Vec<String> = (0..100).map(|n| format!("tag{n}:{}", "y".repeat(100))).collect();
        let points = vec![
            point(&long, "", 1.0, 1),
            point("a", &tags.join(","), 1.0, 1),
            point("now", "", 1.0, -1),
            point("b", "", 1.0, 1),
        ];
        assert_eq!(text(points, "", &Node::default()), ("b 1 1\n".to_owned(), 3));
    }

    /// The bytes that `pickletools` explains as
    /// `[('a.b', (1700000000, 1.5)), ('c', (4294967296, -2.0))]`.
    #[test]
    fn a_frame_is_a_pickle() {
        let points = vec![point("a.b", "", 1.5, 1_700_000_000), point("c", "", -2.0, 1 << 32)];
        let batch = batch(points, Suffixes::default());
        let settings = settings("", GraphiteProtocol::Pickle);
        let body = encode(&batch, &settings, &Node::default(), 0..2).expect("it is small");
        let wanted = [
            // 4 bytes before the points, 24 and 27 of them, 2 behind.
            &b"\x00\x00\x00\x39\x80\x02]("[..],
            b"X\x03\x00\x00\x00a.bJ\x00\xf1\x53\x65G\x3f\xf8\x00\x00\x00\x00\x00\x00\x86\x86",
            b"X\x01\x00\x00\x00c\x8a\x08\x00\x00\x00\x00\x01\x00\x00\x00",
            b"G\xc0\x00\x00\x00\x00\x00\x00\x00\x86\x86",
            b"e.",
        ];
        assert_eq!(
            body.bytes.escape_ascii().to_string(),
            wanted.concat().escape_ascii().to_string()
        );
    }

    #[test]
    fn a_frame_ends_before_it_is_too_large() {
        let points: Vec<Point> = (0..1_700).map(|n| point(&format!("m{n}"), "", 0.5, 1)).collect();
        let batch = batch(points, Suffixes::default());
        let settings = settings("", GraphiteProtocol::Pickle);
        let body = encode(&batch, &settings, &Node::default(), 0..1_700).expect("it is small");
        let (mut left, mut frames) = (&body.bytes[..], 0);
        while let Some((length, rest)) = left.split_first_chunk::<4>() {
            let (frame, behind) = rest.split_at(u32::from_be_bytes(*length) as usize);
            assert!(frame.starts_with(OPENING) && frame.ends_with(CLOSING));
            (left, frames) = (behind, frames + 1);
        }
        assert_eq!((frames, left.len()), (4, 0));
    }

    proptest! {
        /// Whatever a client sends, one line of three fields comes out, below the prefix: as
        /// Python splits it, with nodes and tags as carbon wants them.
        #[test]
        fn a_metric_is_one_line_in_its_place(
            name in "(?s).{0,40}|[./; ~\t]{0,20}",
            tags in "(?s).{0,40}|[.:;=,/ ~n]{0,20}|name:.{0,3}",
            host in proptest::option::of("(?s).{0,9}"),
        ) {
            let node = Node { host, tags: vec![tags.clone()] };
            let (line, unwritable) = text(vec![point(&name, &tags, 2.5, 7)], "p.q", &node);
            prop_assert_eq!(unwritable, 0);
            let is_blank = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
            let fields: Vec<&str> = line.split(is_blank).filter(|field| !field.is_empty()).collect();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(&fields[1..], &["2.5", "7"]);
            let mut parts = fields[0].split(';');
            let path = parts.next().expect("there is a first part");
            prop_assert!(path.starts_with("p.q."), "{}", path);
            prop_assert!(path.split('.').all(|node| !node.is_empty()), "{}", path);
            let is_bad = |c: char| "/\\*?[]{}~\"'()".contains(c);
            prop_assert!(!fields[0].contains(is_bad), "{}", fields[0]);
            let mut keys = Vec::new();
            for tag in parts {
                let (key, value) = tag.split_once('=').expect("a tag has a value");
                prop_assert!(!key.is_empty() && !value.is_empty() && !value.contains(".."));
                prop_assert!(key != "name" && !keys.contains(&key), "{}", fields[0]);
                keys.push(key);
            }
        }
    }
}
