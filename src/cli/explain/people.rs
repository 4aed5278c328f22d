//! What a line becomes, in words: its parts and its series at flush, or what is wrong where.

use super::{Outcome, refused_at_intake, tags_and_scope};
use crate::mapping::{Mapped, Mapping, Rule};
use crate::model::{
    Dialect, Emit, Event, ExtendTags, MetricKey, MetricKind, Origin, Percentile, Role, Scope,
    ServiceCheck, Statistic, TagSet, UnixSeconds, text,
};
use crate::protocol::dogstatsd::{self, Line, Message, Values};
use crate::protocol::{PacketType, Reason, Refusal};

/// What each line of a datagram becomes, or why it is refused, in words; and whether all are
/// accepted.
pub fn explain_text(datagram: &[u8]) -> (String, Outcome) {
    explain_mapped(datagram, None)
}

/// The same where a mapping file says what series are called.
pub(super) fn explain_mapped(datagram: &[u8], mapping: Option<&Mapping>) -> (String, Outcome) {
    let mut page = Page::new();
    for line in dogstatsd::lines(datagram) {
        page.next();
        match dogstatsd::parse(line) {
            Ok(Message::Metric(parsed)) => page.metric(&parsed, mapping),
            Ok(Message::Event(event)) => page.event(&event),
            Ok(Message::ServiceCheck(check)) => page.check(&check),
            Err(refusal) => page.refused(line, refusal),
        }
    }
    page.finish()
}

/// What is printed, as it grows.
pub(super) struct Page {
    text: String,
    outcome: Outcome,
}

impl Page {
    pub(super) fn new() -> Page {
        Page { text: String::new(), outcome: Outcome::Accepted }
    }

    /// Begins what is said of the next line.
    pub(super) fn next(&mut self) {
        if !self.text.is_empty() {
            self.line("");
        }
    }

    pub(super) fn finish(mut self) -> (String, Outcome) {
        if self.text.is_empty() {
            self.line("nothing: blank lines are skipped");
        }
        (self.text, self.outcome)
    }

    pub(super) fn line(&mut self, text: &str) {
        self.text.push_str(text);
        self.text.push('\n');
    }

    pub(super) fn row(&mut self, label: &str, text: &str) {
        self.line(&format!("  {label:<13} {text}"));
    }

    fn optional_row(&mut self, label: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.row(label, &printable(text));
        }
    }

    /// What a mapping file makes of a series; its name then, if its samples are not left out.
    pub(super) fn mapped(&mut self, mapping: &Mapping, key: MetricKey) -> Option<String> {
        let (rule, key) = match mapping.apply(key, &ExtendTags::default()) {
            Mapped::Dropped { rule } => (Some(rule), None),
            Mapped::Series { key, rule } => (rule, Some(key)),
        };
        match rule {
            None => self.row("mapping", "no rule is about this name"),
            Some(rule) => {
                let Rule { line, matcher, .. } = &mapping.rules()[rule];
                let matcher = printable(&matcher.to_string());
                self.row("mapping", &format!("the rule of line {line}, match: {matcher}"));
                if let Some(scale) = mapping.scale(rule) {
                    self.row("scale", &format!("values are multiplied by {scale}"));
                }
            }
        }
        let Some(key) = key else {
            self.line("at flush");
            self.row("any node", "nothing: action: drop");
            return None;
        };
        if rule.is_some() {
            self.row("name", &printable(&key.name));
            let tags: Vec<String> = key.tags.iter().map(str::to_owned).collect();
            self.tags(&tags);
        }
        Some(printable(&key.name))
    }

    fn metric(&mut self, line: &Line<'_>, mapping: Option<&Mapping>) {
        let name = printable(&text::lossy(line.name));
        let (tags, scope) = tags_and_scope(line.tags);
        self.line(&format!("{} {name}", line.kind));
        match line.values {
            Values::Member(member) => self.row("member", &printable(&text::lossy(member))),
            Values::One(_) | Values::Packed(_) => {
                let numbers: Vec<String> = line.values.numbers().map(|n| n.to_string()).collect();
                self.row(if numbers.len() == 1 { "value" } else { "values" }, &numbers.join(", "));
            }
        }
        if line.sample_rate != 1.0 {
            self.row("sample rate", &format!("{}, {}", line.sample_rate, meaning_of_rate(line)));
        }
        self.tags(&tags);
        self.row("scope", words_for(scope));
        if let Some(UnixSeconds(at)) = line.timestamp {
            self.row("timestamp", &format!("{at} seconds since 1970"));
        }
        let owned = |field: &[u8]| text::lossy(field).into_owned();
        self.origin(&Origin {
            container_id: line.container_id.map(owned),
            external_data: line.external_data.map(owned),
            cardinality: line.cardinality.map(str::to_owned),
        });
        if line.skipped_values > 0 {
            self.row("left out", &format!("{} of the values, not finite", line.skipped_values));
        }
        if line.unknown_sections > 0 {
            self.row("skipped", &format!("{} unknown section(s)", line.unknown_sections));
        }
        let refused = refused_at_intake(line);
        let name = match mapping.filter(|_| refused.is_none()) {
            None => name,
            Some(mapping) => {
                let key = MetricKey {
                    name: text::lossy(line.name).into(),
                    tags: TagSet::canonical(tags.iter().map(String::as_str)),
                    kind: line.kind,
                    scope,
                    dialect: Dialect::DogStatsD,
                };
                let Some(name) = self.mapped(mapping, key) else { return };
                name
            }
        };
        match (refused, line.timestamp) {
            (Some(reason), _) => self.verdict(reason, accepted(PacketType::Metric, reason)),
            (None, Some(_)) => {
                self.line("at flush, with its own time and not added to any interval");
                self.row("any node", &name);
            }
            (None, None) => self.at_flush(line.kind, scope, &name),
        }
    }

    fn at_flush(&mut self, kind: MetricKind, scope: Scope, name: &str) {
        let local = scope.disposition(kind, Role::Local);
        let global = scope.disposition(kind, Role::Global);
        self.line(match kind.has_digest() {
            true => "at flush, with the default aggregates and percentiles",
            false => "at flush",
        });
        self.row("local node", &listed(&series(name, local.emit)));
        if local.forward {
            let here = series(name, local.emit);
            let mut finished = series(name, global.emit);
            finished.retain(|point| !here.contains(point));
            self.row("upstream", &format!("{}, from its {}", listed(&finished), sent_up(kind)));
        }
        self.row("global node", &listed(&series(name, global.emit)));
    }

    fn event(&mut self, event: &Event) {
        self.line(&format!("event {}", printable(&event.title)));
        self.row("text", &printable(&event.text));
        self.row("priority", event.priority.as_str());
        self.row("alert type", event.alert_type.as_str());
        self.optional_row("key", event.aggregation_key.as_deref());
        self.optional_row("source", event.source_type.as_deref());
        self.delivered(event.timestamp, event.hostname.as_deref(), &event.tags, &event.origin);
    }

    fn check(&mut self, check: &ServiceCheck) {
        const STATUS: [&str; 4] = ["ok", "warning", "critical", "unknown"];
        self.line(&format!("service check {}", printable(&check.name)));
        self.row("status", STATUS[check.status as usize]);
        self.optional_row("message", check.message.as_deref());
        self.delivered(check.timestamp, check.hostname.as_deref(), &check.tags, &check.origin);
    }

    /// What events and checks have in common.
    fn delivered(
        &mut self,
        at: Option<UnixSeconds>,
        hostname: Option<&str>,
        tags: &[String],
        origin: &Origin,
    ) {
        let at = at.map(|UnixSeconds(at)| format!("{at} seconds since 1970"));
        self.row("timestamp", at.as_deref().unwrap_or("when it is received"));
        self.optional_row("host", hostname);
        self.tags(tags);
        self.origin(origin);
        self.line("at flush, delivered as it is by the node that receives it");
    }

    fn tags(&mut self, tags: &[String]) {
        self.row(
            "tags",
            &if tags.is_empty() { "none".into() } else { printable(&tags.join(", ")) },
        );
    }

    fn origin(&mut self, origin: &Origin) {
        self.optional_row("container", origin.container_id.as_deref());
        self.optional_row("external data", origin.external_data.as_deref());
        self.optional_row("cardinality", origin.cardinality.as_deref());
    }

    /// The line, a caret under what is wrong, and what would be accepted.
    fn refused(&mut self, line: &[u8], refusal: Refusal) {
        self.point_at(line, refusal.at);
        self.verdict(refusal.reason, accepted(refusal.packet, refusal.reason));
    }

    /// The line, and a caret under a place in it.
    pub(super) fn point_at(&mut self, line: &[u8], at: u32) {
        let at = line.len().min(at as usize);
        let width = printable(&text::lossy(&line[..at])).chars().count();
        self.line(&printable(&text::lossy(line)));
        self.line(&format!("{:width$}^", ""));
    }

    pub(super) fn verdict(&mut self, reason: Reason, sentence: &str) {
        self.line(&format!("refused ({}): {sentence}", reason.as_str()));
        self.outcome = Outcome::Refused;
    }
}

/// `text` with control characters escaped: it comes from outside and goes to a terminal.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    shown
}

fn listed(series: &[String]) -> String {
    if series.is_empty() { "nothing".to_owned() } else { series.join(", ") }
}

/// The names of the points that are emitted.
fn series(name: &str, emit: Emit) -> Vec<String> {
    let aggregates = Statistic::DEFAULT.map(|statistic| format!("{name}.{}", statistic.as_str()));
    let percentiles =
        Percentile::DEFAULT.map(|percentile| format!("{name}{}", percentile.suffix()));
    match emit {
        Emit::Nothing => Vec::new(),
        Emit::Value => vec![name.to_owned()],
        Emit::Aggregates => aggregates.into(),
        Emit::AggregatesAndPercentiles => aggregates.into_iter().chain(percentiles).collect(),
    }
}

/// What a local node sends to its upstream node.
fn sent_up(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter => "sum",
        MetricKind::Gauge => "last value",
        MetricKind::Histogram | MetricKind::Timer | MetricKind::Distribution => "digest",
        MetricKind::Set => "sketch of distinct members",
    }
}

fn words_for(scope: Scope) -> &'static str {
    match scope {
        Scope::Mixed => "mixed: it has no scope tag",
        Scope::LocalOnly => "local: finished where it is received (veneurlocalonly)",
        Scope::GlobalOnly => "global: finished at the global node (veneurglobalonly)",
    }
}

fn meaning_of_rate(line: &Line<'_>) -> String {
    let weight = line.weight.as_f64() as f32;
    match line.kind {
        MetricKind::Counter if line.timestamp.is_some() => {
            "ignored: a counter with a timestamp is not scaled".to_owned()
        }
        MetricKind::Counter => format!("so each value is multiplied by {weight}"),
        MetricKind::Histogram | MetricKind::Timer | MetricKind::Distribution => {
            format!("so each value stands for {weight} observations")
        }
        MetricKind::Gauge => "ignored: a gauge keeps the last value".to_owned(),
        MetricKind::Set => "ignored: a set counts distinct members".to_owned(),
    }
}

/// What would be accepted in place of what was refused.
pub(super) fn accepted(packet: PacketType, reason: Reason) -> &'static str {
    match reason {
        Reason::MissingValue => "a metric is name:value|type, and no : ends the name here",
        Reason::EmptyName if packet == PacketType::ServiceCheck => {
            "a service check is _sc|name|status, and the name is empty"
        }
        Reason::EmptyName => "a metric is name:value|type, and the name is empty",
        Reason::MissingType => "a metric is name:value|type, and no | ends the value here",
        Reason::UnknownType => {
            "the type is c, g, ms, h, d or s, in lower case and up to the next | or the end"
        }
        Reason::BadValue => {
            "a value is a decimal number that fits a double, as 1, -2.5 or 1e3; several are \
             separated by :"
        }
        Reason::NonFinite => "a value is a finite number, neither NaN nor infinite",
        Reason::BadSampleRate => "a sample rate is a number above 0 and at most 1, as @0.1",
        Reason::BadTimestamp => "a timestamp is whole seconds since 1970, as T1656581400",
        Reason::BadEventHeader => {
            "an event is _e{5,9}:title|text, and both lengths are the exact numbers of bytes"
        }
        Reason::EventTruncated => {
            "the lengths in an event's header count bytes; title, | and text must be that long"
        }
        Reason::EmptyTitle => "the title of an event is at least one byte long",
        Reason::BadServiceCheck => {
            "a service check is _sc|name|status, and no | ends the name here"
        }
        Reason::BadStatus => "the status of a service check is 0, 1, 2 or 3",
        Reason::TooLong => "a line is at most metric_max_length bytes long",
        Reason::TimestampUnsupported => "only counters and gauges can have a timestamp",
        Reason::NotAllowed => "a host sends to a listener that allows its network",
        Reason::BadProtobuf => "an SSF message is a protobuf message",
        Reason::EmptySpan => "a span has ids, times and a name; otherwise samples come with it",
        Reason::BadName => "a name without blanks and without a dot at its end",
        Reason::UnknownSection => "nothing but a sample rate, as |@0.5, behind the type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(line: &str) -> String {
        explain_text(line.as_bytes()).0
    }

    #[test]
    fn a_metric_is_shown_with_its_series_at_flush() {
        let shown = explained("page.views:1:2|c|@0.1|#env:prod,az:b|c:in-7|new:1");
        let expected = "\
counter page.views
  values        1, 2
  sample rate   0.1, so each value is multiplied by 10
  tags          env:prod, az:b
  scope         mixed: it has no scope tag
  container     in-7
  skipped       1 unknown section(s)
at flush
  local node    page.views
  global node   page.views
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn its_series_depend_on_kind_scope_and_node() {
        let all = "x.max, x.min, x.count, x.50percentile, x.75percentile, x.99percentile";
        let sketch = "x, from its sketch of distinct members";
        for (line, local, upstream, global) in [
            ("x:1|c", "x", None, "x"),
            ("x:1|c|#veneurglobalonly", "nothing", Some("x, from its sum"), "x"),
            ("x:1|g|#veneurglobalonly", "nothing", Some("x, from its last value"), "x"),
            ("x:a|s", "nothing", Some(sketch), "x"),
            ("x:a|s|#veneurlocalonly", "x", None, "x"),
            (
                "x:1|ms",
                "x.max, x.min, x.count",
                Some("x.50percentile, x.75percentile, x.99percentile, from its digest"),
                all,
            ),
            ("x:1|h|#veneurlocalonly", all, None, all),
            ("x:1|d", "nothing", Some(&*format!("{all}, from its digest")), all),
        ] {
            let shown = explained(line);
            let row = |label: &str| {
                let row = shown.lines().find_map(|row| row.trim_start().strip_prefix(label));
                row.map(str::trim)
            };
            let rows = (row("local node"), row("upstream"), row("global node"));
            assert_eq!(rows, (Some(local), upstream, Some(global)), "{line}");
        }
    }

    #[test]
    fn a_timestamp_keeps_its_own_time_or_refuses_the_line() {
        let (shown, outcome) = explain_text(b"x:1|c|@0.5|T1656581400");
        assert!(shown.contains("with its own time") && shown.contains("is not scaled"), "{shown}");
        assert_eq!(outcome, Outcome::Accepted);
        let (shown, outcome) = explain_text(b"x:1|h|T1656581400");
        assert!(shown.ends_with("only counters and gauges can have a timestamp\n"), "{shown}");
        assert_eq!(outcome, Outcome::Refused);
    }

    #[test]
    fn a_refused_line_has_a_caret_under_the_place() {
        for (line, place, word) in [
            ("page.views:1x|c", "           ^", "bad_value"),
            ("größe:x|c", "      ^", "bad_value"),
            ("\tname:x|c", "       ^", "bad_value"),
            ("page.views", "          ^", "missing_value"),
            ("a:1|c|#x|@2", "          ^", "bad_sample_rate"),
        ] {
            let shown = explained(line);
            let mut rows = shown.lines().skip(1);
            assert_eq!(rows.next(), Some(place), "{shown}");
            assert!(rows.next().is_some_and(|row| row.contains(word)), "{shown}");
        }
    }

    #[test]
    fn events_and_checks_are_shown_with_their_fields() {
        let shown = explained("_e{2,5}:Hi|there|h:web1|t:error\n_sc|db.up|2|m:a\\nb|d:7");
        let expected = r"event Hi
  text          there
  priority      normal
  alert type    error
  timestamp     when it is received
  host          web1
  tags          none
at flush, delivered as it is by the node that receives it

service check db.up
  status        critical
  message       a\nb
  timestamp     7 seconds since 1970
  tags          none
at flush, delivered as it is by the node that receives it
";
        assert_eq!(shown, expected);
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(explained("\x1b[2J:1|c").lines().next(), Some("counter \\u{1b}[2J"));
    }
}
