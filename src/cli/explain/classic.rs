//! What a line of a classic dialect becomes: its samples, and the paths that a Graphite sink in
//! the layout of that name would write if they were alone in an interval.

use std::sync::Arc;
use std::time::Duration;

use super::Outcome;
use super::people::{Page, printable};
use crate::aggregate::{Class, KeyHasher, Ops, Plan, Shard, render};
use crate::config::settings::{
    EtsyNames, GraphiteAddress, GraphiteLayout, GraphiteProtocol, GraphiteSettings,
};
use crate::mapping::Mapping;
use crate::model::{
    Dialect, ExtendTags, FlushBatch, Interval, MetricKey, Recorder, Role, Scope, TagSet,
    UnixSeconds, Weight, text,
};
use crate::protocol::classic::{Sample, brubeck, etsy};
use crate::protocol::{Reason, Refusal, dogstatsd};
use crate::sinks::Node;
use crate::sinks::graphite::render::Renderer;

const SECONDS: u64 = 10;

/// What each line of a datagram becomes, or why it is refused, in words; and whether all are
/// accepted. With etsy's defaults, and brubeck's.
pub fn explain_classic(dialect: Dialect, datagram: &[u8]) -> (String, Outcome) {
    explain_mapped(dialect, datagram, None)
}

/// The same where a mapping file says what series are called.
pub(super) fn explain_mapped(
    dialect: Dialect,
    datagram: &[u8],
    mapping: Option<Arc<Mapping>>,
) -> (String, Outcome) {
    let mut page = Page::new();
    let (mut ops, hasher) = (Ops::default(), KeyHasher::random());
    for line in dogstatsd::lines(datagram) {
        page.next();
        let mut take = |class, sample: &Sample<'_>| {
            page.sample(dialect, sample, mapping.as_deref());
            if ops.push_classic(hasher, datagram, class, sample).is_none() {
                page.verdict(Reason::TooLong, accepted(dialect, Reason::TooLong));
            }
        };
        let read = match dialect {
            Dialect::Brubeck => brubeck::read(line, |sample| take(Class::Brubeck, sample)),
            Dialect::Etsy | Dialect::DogStatsD => {
                etsy::read(line, |sample| take(Class::of_etsy(sample.recorder), sample))
            }
        };
        match read {
            Ok(0) => {}
            Ok(left_out) => page.row("left out", &format!("{left_out} bad sample(s) of the line")),
            Err(Refusal { reason, at, .. }) => {
                page.point_at(line, at);
                page.verdict(reason, accepted(dialect, reason));
            }
        }
    }
    if !ops.is_empty() {
        page.flush(dialect, &ops, datagram, mapping);
    }
    page.finish()
}

impl Page {
    fn sample(&mut self, dialect: Dialect, sample: &Sample<'_>, mapping: Option<&Mapping>) {
        let (name, tags) = match dialect {
            Dialect::Etsy => etsy::key(sample.name, sample.tags, true),
            Dialect::Brubeck | Dialect::DogStatsD => {
                (text::lossy(sample.name).into(), TagSet::empty())
            }
        };
        self.line(&format!("{} {}", word_for(sample.recorder), printable(&name)));
        match sample.recorder {
            Recorder::Set => self.row("member", &printable(&text::lossy(sample.text))),
            Recorder::Gauge if sample.is_relative => {
                let number = sample.number;
                self.row("value", &format!("{number}, added to the last one: it has a sign"));
            }
            Recorder::Total => {
                let number = sample.number * sample.weight.as_f64();
                let what = "a running total, of which the growth counts";
                self.row("value", &format!("{number}, {what}"));
            }
            _ => self.row("value", &sample.number.to_string()),
        }
        if sample.weight != Weight::ONE {
            let weight = sample.weight.as_f64();
            let rate = 1.0 / weight;
            self.row("sample rate", &format!("{rate}, {}", meaning_of(sample.recorder, weight)));
        }
        if dialect == Dialect::Etsy {
            let tags: Vec<&str> = tags.iter().collect();
            self.row(
                "tags",
                &if tags.is_empty() { "none".into() } else { printable(&tags.join(", ")) },
            );
        }
        if let Some(mapping) = mapping {
            let (kind, scope) = (sample.recorder.kind(), Scope::LocalOnly);
            self.mapped(mapping, MetricKey { name, tags, kind, scope, dialect });
        }
    }

    /// The paths, as the real pipeline makes them.
    fn flush(&mut self, dialect: Dialect, ops: &Ops, buffer: &[u8], mapping: Option<Arc<Mapping>>) {
        let interval = Interval::new(Duration::from_secs(SECONDS)).expect("it is not zero");
        let plan = Plan::new(Role::Global, &[], &[]).over(interval);
        let mut shard = Shard::new(Role::Global, ExtendTags::default()).with_mapping(mapping);
        shard.apply(ops, buffer);
        let rendered = render(shard.take_snapshot(), &plan, UnixSeconds(0));
        let batch = FlushBatch {
            at: UnixSeconds(0),
            interval,
            suffixes: Arc::clone(plan.suffixes()),
            points: rendered.points,
            events: Vec::new(),
            checks: Vec::new(),
            spans: Arc::default(),
        };
        let settings = GraphiteSettings {
            address: GraphiteAddress::Tcp(String::new()),
            protocol: GraphiteProtocol::Plaintext,
            layout: match dialect {
                Dialect::DogStatsD => GraphiteLayout::Veneur,
                Dialect::Etsy => GraphiteLayout::Etsy,
                Dialect::Brubeck => GraphiteLayout::Brubeck,
            },
            prefix: String::new(),
            names: EtsyNames::default(),
        };
        let node = Node { host: None, tags: Vec::new() };
        let mut renderer = Renderer::new(&settings, &node);
        let layout = settings.layout.as_str();
        self.line(&format!(
            "at flush, if an interval of {SECONDS}s had nothing else, in Graphite (layout {layout})"
        ));
        for point in &batch.points {
            let is_named = renderer.render(&batch, point, |path, value| {
                self.line(&format!("  {} {value}", printable(&text::lossy(path))));
            });
            if !is_named {
                self.line("  nothing: carbon takes no such path");
            }
        }
    }
}

const fn word_for(recorder: Recorder) -> &'static str {
    match recorder {
        Recorder::Counter => "counter",
        Recorder::Total => "running total",
        Recorder::Gauge => "gauge",
        Recorder::Timer => "timer",
        Recorder::Histogram => "histogram",
        Recorder::Set => "set",
    }
}

fn meaning_of(recorder: Recorder, weight: f64) -> String {
    match recorder {
        Recorder::Counter | Recorder::Total => format!("so the value is multiplied by {weight}"),
        Recorder::Timer | Recorder::Histogram => {
            format!("so it counts as {weight}; other figures are of the value as it is")
        }
        Recorder::Gauge | Recorder::Set => "which does not matter here".to_owned(),
    }
}

/// What would be accepted in place of what was refused.
fn accepted(dialect: Dialect, reason: Reason) -> &'static str {
    match reason {
        Reason::UnknownType => "brubeck's types are c, C, g, h and ms",
        Reason::BadValue if dialect == Dialect::Etsy => {
            "a value is a number, and that of a timer not below 0"
        }
        Reason::BadValue => "a value is a decimal number that fits a double",
        Reason::BadSampleRate if dialect == Dialect::Etsy => {
            "behind the type nothing but a sample rate may stand, above 0 and at most 1, as |@0.1"
        }
        Reason::EmptyName if dialect == Dialect::Etsy => {
            "a name has at least one letter, digit or one of _-.="
        }
        _ => super::people::accepted(crate::protocol::PacketType::Metric, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(dialect: Dialect, line: &str) -> String {
        explain_classic(dialect, line.as_bytes()).0
    }

    #[test]
    fn an_etsy_line_is_shown_with_its_paths() {
        let expected = "\
counter my_hits
  value         4
  sample rate   0.5, so the value is multiplied by 2
  tags          env:prod
gauge my_hits
  value         -3, added to the last one: it has a sign
  tags          env:prod
  left out      1 bad sample(s) of the line
at flush, if an interval of 10s had nothing else, in Graphite (layout etsy)
  stats.my_hits;env=prod 0.8
  stats_counts.my_hits;env=prod 8
  stats.gauges.my_hits;env=prod -3
";
        assert_eq!(explained(Dialect::Etsy, "my hits:4|c|@0.5:-3|g:x|c|#env:prod"), expected);
    }

    #[test]
    fn a_brubeck_line_is_shown_with_its_paths() {
        let expected = "\
running total flux.job.count
  value         1000, a running total, of which the growth counts
at flush, if an interval of 10s had nothing else, in Graphite (layout brubeck)
  flux.job.count 0
";
        assert_eq!(explained(Dialect::Brubeck, "flux.job.count:1000|C"), expected);
    }

    #[test]
    fn a_refused_line_is_pointed_at() {
        let (text, outcome) = explain_classic(Dialect::Brubeck, b"a:1|c|#env:prod");
        let expected = "\
a:1|c|#env:prod
     ^
refused (unknown_section): nothing but a sample rate, as |@0.5, behind the type
";
        assert_eq!((&*text, outcome), (expected, Outcome::Refused));
        assert!(explained(Dialect::Etsy, "a:-1|ms").contains("not below 0"));
        assert!(explained(Dialect::Etsy, "\n").contains("blank"));
    }
}
