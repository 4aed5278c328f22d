//! Points as rows of tab-separated values, as Veneur's plugins write them to files and to S3.
//!
//! | Column | |
//! |---|---|
//! | Name | with its suffix |
//! | Tags | `{a,b}`, without `host:` and `device:`, with the node's |
//! | MetricType | `rate` or `gauge` |
//! | Hostname | of the tag `host:`, or the node's |
//! | VeneurHostname | the node's |
//! | DeviceName | of the tag `device:` |
//! | Interval | whole seconds; 0 for gauges |
//! | Timestamp | `2006-01-02 15:04:05`, UTC |
//! | Value | a plain decimal |
//! | Partition | `20060102`, UTC: of the flush |
//!
//! No header. A field with a tab, a quote, a newline or a blank at its start is quoted, with
//! its quotes doubled.
//!
//! Source: rows of Veneur v1.1.0, which has its hours on a clock of twelve; and Go's
//! `encoding/csv` for the quotes.

use std::io::{self, Write};

use super::Node;
use crate::model::{FlushBatch, Point, PointKind, Utc};

/// Writes points, one after the other.
pub struct Rows<'a> {
    batch: &'a FlushBatch,
    node: &'a Node,
    partition: String,
    field: String,
}

impl<'a> Rows<'a> {
    /// The rows of a batch.
    pub fn new(batch: &'a FlushBatch, node: &'a Node) -> Rows<'a> {
        let Utc { year, month, day, .. } = batch.at.into();
        let partition = format!("{year:04}{month:02}{day:02}");
        Rows { batch, node, partition, field: String::new() }
    }

    /// Writes one point; `false` if its rate is not finite: then nothing is written.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&mut self, point: &Point, out: &mut impl Write) -> io::Result<bool> {
        let (kind, value, interval) = match point.kind {
            PointKind::Count => {
                let interval = self.batch.interval;
                ("rate", point.value / interval.as_secs_f64(), interval.whole_seconds())
            }
            PointKind::Gauge => ("gauge", point.value, 0),
        };
        if !value.is_finite() {
            return Ok(false);
        }
        let (name, suffix) = self.batch.name_of(point);
        self.field.clear();
        self.field.extend([name, suffix]);
        write_field(out, &self.field)?;

        let (mut host, mut device) = ("", "");
        self.field.clear();
        self.field.push('{');
        for tag in point.key.tags.iter().chain(self.node.tags.iter().map(String::as_str)) {
            match tag.split_once(':') {
                Some(("host", name)) => host = name,
                Some(("device", name)) => device = name,
                Some(_) | None => {
                    if self.field.len() > 1 {
                        self.field.push(',');
                    }
                    self.field.push_str(tag);
                }
            }
        }
        self.field.push('}');
        let own_host = self.node.host.as_deref().unwrap_or_default();
        if host.is_empty() {
            host = own_host;
        }
        for field in [&self.field, kind, host, own_host, device] {
            out.write_all(b"\t")?;
            write_field(out, field)?;
        }
        let Utc { year, month, day, hour, minute, second } = point.at.into();
        writeln!(
            out,
            "\t{interval}\t{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}\t{value}\t{}",
            self.partition
        )?;
        Ok(true)
    }
}

fn write_field(out: &mut impl Write, field: &str) -> io::Result<()> {
    let special = |c: char| matches!(c, '\t' | '"' | '\n' | '\r');
    if !field.contains(special) && !field.starts_with(char::is_whitespace) && field != r"\." {
        return out.write_all(field.as_bytes());
    }
    write!(out, "\"{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::{
        Dialect, Interval, MetricKey, MetricKind, Scope, Suffix, Suffixes, TagSet, UnixSeconds,
    };

    fn row(name: &str, tags: &str, kind: PointKind, value: f64) -> String {
        let mut suffixes = Suffixes::default();
        suffixes.add(".max").expect("there is room");
        let key = MetricKey {
            name: name.into(),
            tags: TagSet::canonical(tags.split(',')),
            kind: MetricKind::Gauge,
            scope: Scope::Mixed,
            dialect: Dialect::DogStatsD,
        };
        // 2016-10-10 17:04:18
        let at = UnixSeconds(1_476_119_058);
        let point = Point { key: Arc::new(key), value, at, kind, suffix: Suffix::NONE };
        let batch = FlushBatch {
            at: UnixSeconds(at.0 + 86_400),
            interval: Interval::new(Duration::from_secs(10)).expect("not zero"),
            suffixes: Arc::new(suffixes),
            points: Vec::new(),
            events: Vec::new(),
            checks: Vec::new(),
            spans: Default::default(),
        };
        let node = Node { host: Some("vhost".into()), tags: vec!["dc:1".into()] };
        let mut out = Vec::new();
        let is_written = Rows::new(&batch, &node).write(&point, &mut out).expect("it has room");
        assert_eq!(is_written, !out.is_empty());
        String::from_utf8(out).expect("rows are UTF-8")
    }

    #[test]
    fn a_point_is_a_row() {
        assert_eq!(
            row("a.b.max", "foo:bar,baz:quz,host:h,device:d", PointKind::Gauge, 100.0),
            "a.b.max\t{baz:quz,foo:bar,dc:1}\tgauge\th\tvhost\td\t0\t2016-10-10 17:04:18\t100\t20161011\n"
        );
        assert_eq!(
            row("c", "", PointKind::Count, 1e22),
            "c\t{dc:1}\trate\tvhost\tvhost\t\t10\t2016-10-10 17:04:18\t1000000000000000000000\t20161011\n"
        );
        assert_eq!(row("c", "", PointKind::Gauge, f64::INFINITY), "");
    }

    #[test]
    fn a_field_with_a_meaning_is_quoted() {
        let row = row("a\tb\"c\nd", " x:1", PointKind::Gauge, 0.5);
        assert!(row.starts_with("\"a\tb\"\"c\nd\"\t{ x:1,dc:1}\tgauge"), "{row}");
    }
}
