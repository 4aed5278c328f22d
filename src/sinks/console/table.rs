//! A flush as text for people: a line that sums it up, then aligned rows.
//!
//! ```text
//! 2023-11-14 22:13:20Z  3 series, 1 event, 0 checks  on web-1 #env:prod
//!   NAME              KIND   VALUE  PER SECOND  TAGS
//!   page.latency.max  gauge     17              az:b
//!   page.views        rate      42         4.2  az:a
//!   page.views        rate     100          10  az:b
//!   event  2023-11-14 22:13:18Z  error     Deploy failed: exit 1  #service:web
//!   and 31 of veneur's own series
//! ```
//!
//! Rows are sorted by name and tags. Tags come last, so that long ones push nothing out of
//! line and none is cut. Clients choose names, tags and texts: control characters are
//! escaped, so that nobody writes escape sequences to an operator's terminal.

use std::borrow::Cow;
use std::fmt::Write;

use crate::model::{Event, FlushBatch, PointKind, ServiceCheck, ServiceStatus, UnixSeconds, Utc};
use crate::sinks::Node;

/// A longer name takes room from its own row, not from all others.
const WIDEST_NAME: usize = 60;
/// What the daemon's own series are called.
const OWN_PREFIX: &str = "veneur.";

/// What a table shows.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Named in the first line, since it applies to all others.
    pub node: Node,
    /// Show the daemon's own series instead of their number.
    pub show_own: bool,
}

/// A rendered flush.
#[derive(Clone, Debug)]
pub struct Table {
    /// Lines, the last one ended too.
    pub text: String,
    /// How many of the batch's points have a row.
    pub points: u64,
}

/// Renders a flush.
pub fn render(batch: &FlushBatch, options: &Options) -> Table {
    let mut rows = rows(batch, options.show_own);
    rows.sort_unstable_by(|a, b| (&a.name, &a.tags, &a.at).cmp(&(&b.name, &b.tags, &b.at)));
    let points = rows.len() as u64;
    let own = batch.points.len() - rows.len();

    let mut text = utc(batch.at);
    if rows.is_empty() && batch.events.is_empty() && batch.checks.is_empty() {
        text.push_str("  nothing to show");
        if own > 0 {
            push(&mut text, format_args!(", {own} of veneur's own series"));
        }
        text.push('\n');
        return Table { text, points };
    }

    push(
        &mut text,
        format_args!(
            "  {} series, {}, {}",
            rows.len(),
            counted(batch.events.len(), "event"),
            counted(batch.checks.len(), "check")
        ),
    );
    push_node(&mut text, &options.node);
    text.push('\n');
    push_rows(&mut text, &rows);
    for event in &batch.events {
        push_event(&mut text, event, batch.at);
    }
    for check in &batch.checks {
        push_check(&mut text, check, batch.at);
    }
    if own > 0 {
        push(&mut text, format_args!("  and {own} of veneur's own series\n"));
    }
    Table { text, points }
}

struct Row<'a> {
    name: String,
    kind: &'static str,
    value: String,
    per_second: String,
    /// Empty unless the point has a time of its own.
    at: String,
    tags: Cow<'a, str>,
}

fn rows(batch: &FlushBatch, show_own: bool) -> Vec<Row<'_>> {
    let shown = |name: &str| show_own || !name.starts_with(OWN_PREFIX);
    let points = batch.points.iter().filter(|point| shown(&point.key.name));
    let row = |point| {
        let (name, suffix) = batch.name_of(point);
        let (kind, per_second) = match point.kind {
            PointKind::Count => ("rate", number(point.value / batch.interval.as_secs_f64())),
            PointKind::Gauge => ("gauge", String::new()),
        };
        Row {
            name: [escaped(name), escaped(suffix)].concat(),
            kind,
            value: number(point.value),
            per_second,
            at: if point.at == batch.at { String::new() } else { utc(point.at) },
            tags: escaped(point.key.tags.as_str()),
        }
    };
    points.map(row).collect()
}

fn push_rows(text: &mut String, rows: &[Row<'_>]) {
    if rows.is_empty() {
        return;
    }
    let widest = |heading: &str, width: fn(&Row<'_>) -> usize| {
        rows.iter().map(width).chain([heading.len()]).max().unwrap_or_default()
    };
    let name = widest("NAME", |row| row.name.chars().count()).min(WIDEST_NAME);
    let value = widest("VALUE", |row| row.value.len());
    let rate = widest("PER SECOND", |row| row.per_second.len());
    // Points with a time of their own are rare: no column for none.
    let at = rows.iter().map(|row| row.at.len()).max().unwrap_or_default();

    let mut line = |cells: [&str; 6]| {
        let [n, k, v, r, t, tags] = cells;
        let start = text.len();
        push(text, format_args!("  {n:name$}  {k:5}  {v:>value$}  {r:>rate$}  "));
        if at > 0 {
            push(text, format_args!("{t:at$}  "));
        }
        text.push_str(tags);
        text.truncate(start + text[start..].trim_end().len());
        text.push('\n');
    };
    line(["NAME", "KIND", "VALUE", "PER SECOND", "TIME", "TAGS"]);
    for Row { name, kind, value, per_second, at, tags } in rows {
        line([name, kind, value, per_second, at, tags]);
    }
}

fn push_event(text: &mut String, event: &Event, received: UnixSeconds) {
    let at = utc(event.timestamp.unwrap_or(received));
    let (title, body) = (escaped(&event.title), escaped(&event.text));
    push(text, format_args!("  event  {at}  {:8}  {title}: {body}", event.alert_type.as_str()));
    let priority = Some(event.priority.as_str()).filter(|word| *word != "normal");
    push_fields(
        text,
        [
            ("host", event.hostname.as_deref()),
            ("priority", priority),
            ("key", event.aggregation_key.as_deref()),
            ("source", event.source_type.as_deref()),
        ],
    );
    push_tags(text, &event.tags);
    text.push('\n');
}

fn push_check(text: &mut String, check: &ServiceCheck, received: UnixSeconds) {
    let at = utc(check.timestamp.unwrap_or(received));
    let status = match check.status {
        ServiceStatus::Ok => "ok",
        ServiceStatus::Warning => "warning",
        ServiceStatus::Critical => "critical",
        ServiceStatus::Unknown => "unknown",
    };
    push(text, format_args!("  check  {at}  {status:8}  {}", escaped(&check.name)));
    if let Some(message) = &check.message {
        push(text, format_args!(": {}", escaped(message)));
    }
    push_fields(text, [("host", check.hostname.as_deref())]);
    push_tags(text, &check.tags);
    text.push('\n');
}

fn push_node(text: &mut String, node: &Node) {
    if let Some(host) = &node.host {
        push(text, format_args!("  on {}", escaped(host)));
    }
    push_tags(text, &node.tags);
}

fn push_fields<const N: usize>(text: &mut String, fields: [(&str, Option<&str>); N]) {
    for (name, value) in fields {
        if let Some(value) = value {
            push(text, format_args!("  {name}:{}", escaped(value)));
        }
    }
}

fn push_tags(text: &mut String, tags: &[String]) {
    if !tags.is_empty() {
        push(text, format_args!("  #{}", escaped(&tags.join(","))));
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(what);
}

fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// A number as people read it: exact if that is short, else rounded to six digits.
fn number(value: f64) -> String {
    const SHORT: usize = 12;
    let exact = format!("{value}");
    if exact.len() <= SHORT {
        return exact;
    }
    if (1e-3..1e9).contains(&value.abs()) {
        let rounded = format!("{value:.6}");
        return rounded.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    format!("{value:.6e}")
}

/// `text` with what could act on a terminal made visible: control characters, and those that
/// change the direction of writing.
fn escaped(text: &str) -> Cow<'_, str> {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if acts(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// `2023-11-14 22:13:20Z`
fn utc(at: UnixSeconds) -> String {
    let Utc { year, month, day, hour, minute, second } = at.into();
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::model::{
        AlertType, Dialect, Interval, MetricKey, MetricKind, Point, Scope, Suffix, TagSet,
    };

    const AT: UnixSeconds = UnixSeconds(1_700_000_000);

    fn point(name: &str, tags: &str, kind: PointKind, value: f64) -> Point {
        let key = MetricKey {
            name: name.into(),
            tags: TagSet::canonical(tags.split(',')),
            kind: MetricKind::Counter,
            scope: Scope::Mixed,
            dialect: Dialect::DogStatsD,
        };
        Point { key: Arc::new(key), value, at: AT, kind, suffix: Suffix::NONE }
    }

    fn batch(points: Vec<Point>) -> FlushBatch {
        FlushBatch {
            at: AT,
            interval: Interval::new(Duration::from_secs(10)).expect("not zero"),
            suffixes: Default::default(),
            points,
            events: Vec::new(),
            checks: Vec::new(),
            spans: Default::default(),
        }
    }

    fn rendered(batch: &FlushBatch) -> String {
        render(batch, &Options::default()).text
    }

    #[test]
    fn a_flush_is_an_aligned_table() {
        let mut batch = batch(vec![
            point("page.views", "az:b", PointKind::Count, 100.0),
            point("veneur.flush.total", "", PointKind::Gauge, 1.0),
            point("page.views", "az:a", PointKind::Count, 42.0),
            point("page.latency.max", "", PointKind::Gauge, 100.0 / 3.0),
        ]);
        batch.events.push(Event {
            title: "Deploy\nfailed".into(),
            text: "exit 1".into(),
            timestamp: Some(UnixSeconds(AT.0 - 2)),
            hostname: Some("web-1".into()),
            alert_type: AlertType::Error,
            tags: vec!["service:web".into()],
            ..Event::default()
        });
        batch.checks.push(ServiceCheck {
            message: Some("timeout".into()),
            ..ServiceCheck::new("db.up", ServiceStatus::Critical)
        });
        let node = Node { host: Some("testhost".into()), tags: vec!["env:test".into()] };
        let table = render(&batch, &Options { node, show_own: false });
        let expected = "\
2023-11-14 22:13:20Z  3 series, 1 event, 1 check  on testhost  #env:test
  NAME              KIND       VALUE  PER SECOND  TAGS
  page.latency.max  gauge  33.333333
  page.views        rate          42         4.2  az:a
  page.views        rate         100          10  az:b
  event  2023-11-14 22:13:18Z  error     Deploy\\nfailed: exit 1  host:web-1  #service:web
  check  2023-11-14 22:13:20Z  critical  db.up: timeout
  and 1 of veneur's own series
";
        assert_eq!(table.text, expected);
        assert_eq!(table.points, 3);
    }

    #[test]
    fn an_empty_flush_is_one_short_line() {
        assert_eq!(rendered(&batch(vec![])), "2023-11-14 22:13:20Z  nothing to show\n");
        let own = batch(vec![point("veneur.x", "", PointKind::Gauge, 1.0)]);
        assert_eq!(
            rendered(&own),
            "2023-11-14 22:13:20Z  nothing to show, 1 of veneur's own series\n"
        );
        let shown = render(&own, &Options { show_own: true, ..Options::default() });
        assert!(shown.text.contains("  veneur.x  gauge"), "{}", shown.text);
        assert_eq!(shown.points, 1);
    }

    #[test]
    fn a_point_with_a_time_of_its_own_shows_it() {
        let mut early = point("m", "", PointKind::Gauge, 1.0);
        early.at = UnixSeconds(0);
        let expected = "\
2023-11-14 22:13:20Z  2 series, 0 events, 0 checks
  NAME  KIND   VALUE  PER SECOND  TIME                  TAGS
  m     gauge      2
  m     gauge      1              1970-01-01 00:00:00Z
";
        assert_eq!(rendered(&batch(vec![early, point("m", "", PointKind::Gauge, 2.0)])), expected);
    }

    #[test]
    fn long_names_and_tags_lose_nothing_and_move_nobody_else() {
        let long = "n".repeat(100);
        let tags = format!("t:{}", "x".repeat(300));
        let text = rendered(&batch(vec![
            point("a", "b", PointKind::Gauge, 1.0),
            point(&long, &tags, PointKind::Gauge, 2.0),
        ]));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[2], format!("  {:60}  gauge      1              b", "a"));
        assert_eq!(lines[3], format!("  {long}  gauge      2              {tags}"));
    }

    #[test]
    fn nothing_a_client_sends_acts_on_the_terminal() {
        for (text, shown) in [
            ("plain größe", "plain größe"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\tb\r\n\0", "a\\tb\\r\\n\\u{0}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("\u{202e}evil", "\\u{202e}evil"),
        ] {
            assert_eq!(escaped(text), shown);
        }
        let row = point("m\u{1b}]0;x\u{7}", "t:\u{1b}c", PointKind::Gauge, 1.0);
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!rendered(&batch(vec![row])).contains(control));
    }

    #[test]
    fn numbers_are_exact_or_rounded_to_six_digits() {
        for (value, text) in [
            (0.0, "0"),
            (42.0, "42"),
            (-0.5, "-0.5"),
            (123_456_789_012.0, "123456789012"),
            (100.0 / 3.0, "33.333333"),
            (2.0 / 3.0, "0.666667"),
            (1e-9 / 3.0, "3.333333e-10"),
            (1e300, "1.000000e300"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn times_are_shown_in_utc() {
        for (at, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (-1, "1969-12-31 23:59:59Z"),
            (951_827_696, "2000-02-29 12:34:56Z"),
            (1_700_000_000, "2023-11-14 22:13:20Z"),
            (4_102_444_800, "2100-01-01 00:00:00Z"),
        ] {
            assert_eq!(utc(UnixSeconds(at)), text);
        }
        // Clients may send any number as a time.
        utc(UnixSeconds(i64::MAX));
        utc(UnixSeconds(i64::MIN));
    }
}
