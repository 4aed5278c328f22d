//! What is not aggregated: events, service checks, spans, values with a time of their own.
//!
//! They are rare, so all listener threads share one mutex; what an interval may hold is
//! bounded, and the rest is counted by whoever brings it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::span_ring::SpanRing;
use crate::mapping::{Mapped, Mapping, scaled};
use crate::model::{
    Dialect, Event, ExtendTags, MetricKey, MetricKind, Point, PointKind, ServiceCheck, Span,
    Suffix, TagSet, text,
};
use crate::protocol::Line;
use crate::protocol::ssf::SpanRef;

/// Events, and service checks, kept per interval.
const MAX_EVENTS: usize = 10_000;
/// Timestamped values kept per interval.
const MAX_POINTS: usize = 1_000_000;
/// Bytes of text that all of them may have together.
const MAX_BYTES: usize = 64 << 20;

/// What has come in since the last flush.
#[derive(Debug, Default)]
pub struct Collected {
    /// Oldest first, each with a timestamp.
    pub events: Vec<Event>,
    /// Of several for one name, host and tags, the last; each with a timestamp.
    pub checks: Vec<ServiceCheck>,
    /// Counters and gauges that bring their own time.
    pub points: Vec<Point>,
    /// Oldest first.
    pub spans: Vec<Span>,
}

/// Shared by all listener threads and the flush.
#[derive(Debug)]
pub struct Collector {
    extend_tags: ExtendTags,
    mapping: Option<Arc<Mapping>>,
    now: fn() -> SystemTime,
    inside: Mutex<Inside>,
    /// If anybody wants them.
    spans: Option<SpanRing>,
}

#[derive(Debug, Default)]
struct Inside {
    collected: Collected,
    /// Place in `collected.checks` of what a check says about.
    check_places: HashMap<CheckKey, usize>,
    /// Of all text in it.
    bytes: usize,
}

impl Inside {
    /// Whether `bytes` of text more may come in; counts them if so.
    fn admits(&mut self, bytes: usize) -> bool {
        let fits = self.bytes + bytes <= MAX_BYTES;
        self.bytes += if fits { bytes } else { 0 };
        fits
    }
}

/// What a service check is about: name, host, tags.
type CheckKey = (String, Option<String>, Vec<String>);

/// What became of the values of one timestamped line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Values kept.
    pub kept: u64,
    /// Values there was no room for.
    pub dropped: u64,
    /// Values that a mapping file leaves out.
    pub left_out: u64,
}

/// What became of a service check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It is the only one about that.
    New,
    /// It took the place of an earlier one.
    Replaces,
    /// The interval is full.
    NoRoom,
}

impl Collector {
    /// An empty collector; `now` stamps what brings no time of its own.
    pub fn new(extend_tags: ExtendTags, now: fn() -> SystemTime) -> Collector {
        Collector { extend_tags, mapping: None, now, inside: Mutex::default(), spans: None }
    }

    /// Has timestamped values called as a mapping file says.
    pub fn with_mapping(self, mapping: Option<Arc<Mapping>>) -> Collector {
        Collector { mapping, ..self }
    }

    /// Keeps spans, too, as many as have room in `max_bytes`.
    pub fn with_spans(self, max_bytes: usize) -> Collector {
        Collector { spans: Some(SpanRing::new(max_bytes)), ..self }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inside> {
        // Nothing is left half done under the lock, so a panic elsewhere does not spoil it.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an event; `false` if the interval is full.
    pub fn event(&self, mut event: Event) -> bool {
        event.timestamp.get_or_insert_with(|| (self.now)().into());
        let inside = &mut *self.lock();
        let bytes = event.title.len() + event.text.len() + length_of(&event.tags);
        let room = inside.collected.events.len() < MAX_EVENTS && inside.admits(bytes);
        if room {
            inside.collected.events.push(event);
        }
        room
    }

    /// Keeps a service check, in place of an earlier one about the same.
    pub fn check(&self, mut check: ServiceCheck) -> Checked {
        check.timestamp.get_or_insert_with(|| (self.now)().into());
        let key = (check.name.clone(), check.hostname.clone(), check.tags.clone());
        let inside = &mut *self.lock();
        let message = check.message.as_ref().map_or(0, String::len);
        let bytes = message + check.name.len() + length_of(&check.tags);
        let known = inside.check_places.get(&key).copied();
        let is_few = known.is_some() || inside.collected.checks.len() < MAX_EVENTS;
        if !is_few || !inside.admits(bytes) {
            return Checked::NoRoom;
        }
        match known {
            Some(place) => {
                inside.collected.checks[place] = check;
                Checked::Replaces
            }
            None => {
                inside.check_places.insert(key, inside.collected.checks.len());
                inside.collected.checks.push(check);
                Checked::New
            }
        }
    }

    /// Keeps the values of a timestamped counter or gauge; `None` for other kinds.
    ///
    /// Values are not scaled by the sample rate, as in the Datadog Agent: such lines come
    /// from clients that have aggregated already.
    pub fn timestamped(&self, line: &Line<'_>) -> Option<Taken> {
        let kind = match line.kind {
            MetricKind::Counter => PointKind::Count,
            MetricKind::Gauge => PointKind::Gauge,
            MetricKind::Histogram
            | MetricKind::Timer
            | MetricKind::Distribution
            | MetricKind::Set => return None,
        };
        let at = line.timestamp?;
        let (tags, scope) = TagSet::from_section(line.tags, &self.extend_tags);
        let name = text::lossy(line.name).into();
        let dialect = Dialect::DogStatsD;
        let mut key = MetricKey { name, tags, kind: line.kind, scope, dialect };
        let mut scale = 1.0;
        if let Some(mapping) = &self.mapping {
            match mapping.apply(key, &self.extend_tags) {
                Mapped::Dropped { .. } => {
                    let left_out = line.values.numbers().count() as u64;
                    return Some(Taken { left_out, ..Taken::default() });
                }
                Mapped::Series { key: mapped, rule } => {
                    scale = rule.and_then(|rule| mapping.scale(rule)).unwrap_or(scale);
                    key = mapped;
                }
            }
        }
        let key = Arc::new(key);
        let inside = &mut *self.lock();
        let has_room = inside.admits(key.name.len() + key.tags.as_str().len());
        let points = &mut inside.collected.points;
        let mut taken = Taken::default();
        for value in line.values.numbers().map(|value| scaled(value, scale)) {
            if !has_room || points.len() >= MAX_POINTS {
                taken.dropped += 1;
                continue;
            }
            taken.kept += 1;
            let key = Arc::clone(&key);
            points.push(Point { key, value, at, kind, suffix: Suffix::NONE });
        }
        Some(taken)
    }

    /// Keeps a span, if anybody wants them; how many others, or itself, had to go.
    pub fn span(&self, span: &SpanRef<'_>) -> u64 {
        self.spans.as_ref().map_or(0, |ring| ring.push(span.to_owned()))
    }

    /// Everything since the last call.
    pub fn take(&self) -> Collected {
        let mut inside = self.lock();
        inside.check_places = HashMap::new();
        inside.bytes = 0;
        let collected = std::mem::take(&mut inside.collected);
        drop(inside);
        let spans = self.spans.as_ref().map(SpanRing::take).unwrap_or_default();
        Collected { spans, ..collected }
    }
}

fn length_of(texts: &[String]) -> usize {
    texts.iter().map(String::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixSeconds;
    use crate::protocol::dogstatsd::{self, Message};
    use std::time::{Duration, UNIX_EPOCH};

    fn collector() -> Collector {
        let extend = ExtendTags::new(vec!["env:prod".into()]);
        Collector::new(extend, || UNIX_EPOCH + Duration::from_secs(1000))
    }

    fn take(collector: &Collector, line: &[u8]) -> Option<Taken> {
        match dogstatsd::parse(line).expect("the line is good") {
            Message::Metric(line) => collector.timestamped(&line),
            Message::Event(event) => {
                collector.event(*event).then_some(Taken { kept: 1, ..Taken::default() })
            }
            Message::ServiceCheck(check) => (collector.check(*check) != Checked::NoRoom)
                .then_some(Taken { kept: 1, ..Taken::default() }),
        }
    }

    #[test]
    fn timestamped_values_keep_their_time_and_are_not_scaled() {
        let collector = collector();
        let taken = take(&collector, b"x:4:5|c|@0.5|#a:b|T1700000000");
        assert_eq!(taken, Some(Taken { kept: 2, ..Taken::default() }));
        assert_eq!(take(&collector, b"x:4|h|T1700000000"), None);
        let points = collector.take().points;
        let seen: Vec<_> = points.iter().map(|p| (p.value, p.at, p.key.tags.as_str())).collect();
        let at = UnixSeconds(1_700_000_000);
        assert_eq!(seen, [(4.0, at, "a:b,env:prod"), (5.0, at, "a:b,env:prod")]);
    }

    #[test]
    fn the_last_check_about_the_same_wins_and_events_all_stay() {
        let collector = collector();
        for line in [
            &b"_sc|db|2|#a"[..],
            b"_sc|db|0|#b",
            b"_sc|db|0|#a|d:5",
            b"_e{1,1}:a|b",
            b"_e{1,1}:a|b",
        ] {
            assert!(take(&collector, line).is_some());
        }
        let collected = collector.take();
        let checks: Vec<_> =
            collected.checks.iter().map(|c| (c.status as u8, c.timestamp.map(|t| t.0))).collect();
        assert_eq!(checks, [(0, Some(5)), (0, Some(1000))]);
        assert_eq!(collected.events.len(), 2);
        assert_eq!(collected.events[0].timestamp, Some(UnixSeconds(1000)));
        assert!(collector.take().checks.is_empty());
    }

    #[test]
    fn what_an_interval_holds_is_bounded_in_bytes_too() {
        let collector = collector();
        let long = format!("_e{{1,60000}}:a|{}", "x".repeat(60_000));
        let kept = (0..2_000).filter(|_| take(&collector, long.as_bytes()).is_some()).count();
        assert_eq!(kept, MAX_BYTES / 60_001);
        // There is room again in the next interval.
        collector.take();
        assert!(take(&collector, long.as_bytes()).is_some());
    }
}
