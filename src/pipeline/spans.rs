//! What a listener of spans hands its bytes to.
//!
//! The samples in a span, and the timers made of it, take the ordinary way through the router;
//! the span itself waits in the collector for the next flush.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Intake;
use crate::model::{MetricKind, Scope, ServiceCheck, Weight, text};
use crate::protocol::dogstatsd::Sample;
use crate::protocol::ssf::{self, SampleKind, SpanRef};
use crate::telemetry::counters::Count;

/// Bytes of samples written before they are settled: offsets in them have 32 bits, and what is
/// written stays in the cache.
const SETTLE_BYTES: usize = 64 << 10;

/// One listener thread's way for spans into the pipeline.
#[derive(Debug)]
pub struct SpanIntake {
    intake: Intake,
    timers: SpanTimers,
    counts: Arc<SpanCounts>,
    /// Names and tag sections of samples that are not settled yet.
    written: Vec<u8>,
}

/// Histograms, in nanoseconds, made of indicator spans; `None`: not made.
///
/// Source: `indicator_span_timer_name` and `objective_span_timer_name` of Veneur 14.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpanTimers {
    /// The name of one with the tags `service` and `error`.
    pub indicator: Option<String>,
    /// The name of one with the tags `service`, `objective` and `error`, which is finished where
    /// the fleet meets.
    pub objective: Option<String>,
}

/// What a listener thread has counted since the start. Written by that thread alone.
///
/// Every packet is a span, refused, or carries samples alone.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct SpanCounts {
    /// Spans received.
    pub spans: Count,
    /// Packets without a span, for the sake of their samples.
    pub only_samples: Count,
    /// Spans not yet flushed that had to go for a newer one.
    pub overwritten: Count,
}

impl SpanIntake {
    /// One that hands everything but spans to `intake`.
    pub fn new(intake: Intake, timers: SpanTimers, counts: Arc<SpanCounts>) -> SpanIntake {
        SpanIntake { intake, timers, counts, written: Vec::new() }
    }

    /// Takes what one read has brought, one message a packet.
    pub fn read<'a>(&mut self, packets: impl Iterator<Item = &'a [u8]>) {
        for packet in packets {
            self.intake.count_packet(packet.len());
            match ssf::parse(packet) {
                Ok(message) => self.message(&message),
                Err(refusal) => self.intake.refuse_message(refusal),
            }
        }
        self.settle();
    }

    fn message(&mut self, message: &ssf::Message<'_>) {
        for sample in message.samples() {
            match sample {
                Ok(sample) => self.sample(&sample),
                Err(reason) => self.intake.refuse_sample(reason),
            }
        }
        match &message.span {
            Some(span) => self.span(span),
            None => self.counts.only_samples.add(1),
        }
    }

    fn span(&mut self, span: &SpanRef<'_>) {
        self.counts.spans.add(1);
        if span.is_indicator {
            self.time(span);
        }
        self.counts.overwritten.add(self.intake.keep_span(span));
    }

    fn time(&mut self, span: &SpanRef<'_>) {
        let error: &[u8] = if span.is_error() { b"true" } else { b"false" };
        let service = (&b"service"[..], span.service);
        let objective = (&b"objective"[..], span.objective());
        let error = (&b"error"[..], error);
        let value = Value {
            kind: MetricKind::Histogram,
            number: span.duration_ns() as f64,
            member: &[],
            weight: Weight::ONE,
        };
        let SpanTimers { indicator: one, objective: other } = self.timers.clone();
        if let Some(name) = one {
            self.push(name.as_bytes(), [service, error].into_iter(), Scope::Mixed, value);
        }
        if let Some(name) = other {
            let tags = [service, objective, error].into_iter();
            self.push(name.as_bytes(), tags, Scope::GlobalOnly, value);
        }
    }

    fn sample(&mut self, sample: &ssf::Sample<'_>) {
        let kind = match sample.kind {
            SampleKind::Counter => MetricKind::Counter,
            SampleKind::Gauge => MetricKind::Gauge,
            SampleKind::Histogram => MetricKind::Histogram,
            SampleKind::Set => MetricKind::Set,
            SampleKind::Status => return self.intake.take_check(check(sample)),
        };
        let &ssf::Sample { name, value: number, message: member, weight, scope, .. } = sample;
        self.push(name, sample.tags(), scope, Value { kind, number, member, weight });
    }

    /// Writes down the key of a sample as a line would have it, and passes the sample on.
    fn push<'a>(
        &mut self,
        name: &[u8],
        tags: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        scope: Scope,
        value: Value<'_>,
    ) {
        if self.written.len() >= SETTLE_BYTES {
            self.settle();
        }
        let written = &mut self.written;
        let name_at = written.len();
        written.extend_from_slice(name);
        let tags_at = written.len();
        write_tags(written, tags, scope);
        let (_, key) = written.split_at(name_at);
        let (name, tags) = key.split_at(tags_at - name_at);
        let Value { kind, number, member, weight } = value;
        let sample = Sample { name, tags, kind, number, text: member, weight };
        self.intake.take_sample(written, &sample);
    }

    fn settle(&mut self) {
        self.intake.settle(&self.written);
        self.written.clear();
    }

    /// Counts one packet that was longer than allowed and is not looked at.
    pub fn too_long(&mut self) {
        self.intake.too_long();
    }

    /// Counts one packet of a host that may not send.
    pub fn not_allowed(&mut self) {
        self.intake.not_allowed();
    }

    /// As [`Intake::until_due`].
    pub fn until_due(&self, now: Instant) -> Option<Duration> {
        self.intake.until_due(now)
    }

    /// As [`Intake::hand_over_due`].
    pub fn hand_over_due(&mut self, now: Instant) {
        self.intake.hand_over_due(now);
    }

    /// As [`Intake::hand_over_all`].
    pub fn hand_over_all(&mut self) {
        self.intake.hand_over_all();
    }
}

/// What a sample says of its series.
#[derive(Clone, Copy, Debug)]
struct Value<'a> {
    kind: MetricKind,
    number: f64,
    member: &'a [u8],
    weight: Weight,
}

/// The tag that says where a series is finished.
fn scope_tag(scope: Scope) -> Option<&'static [u8]> {
    match scope {
        Scope::Mixed => None,
        Scope::LocalOnly => Some(b"veneurlocalonly"),
        Scope::GlobalOnly => Some(b"veneurglobalonly"),
    }
}

/// Writes a tag section. A comma would part a tag in two, so it becomes `_`.
fn write_tags<'a>(
    out: &mut Vec<u8>,
    tags: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    scope: Scope,
) {
    let whole = |byte: &u8| if *byte == b',' { b'_' } else { *byte };
    out.extend(scope_tag(scope).into_iter().flatten());
    let start = out.len();
    for (name, value) in tags {
        if out.len() > start || scope != Scope::Mixed {
            out.push(b',');
        }
        out.extend(name.iter().map(whole));
        out.push(b':');
        out.extend(value.iter().map(whole));
    }
}

fn check(sample: &ssf::Sample<'_>) -> ServiceCheck {
    let owned = |bytes| text::lossy(bytes).into_owned();
    let tag = |(name, value)| format!("{}:{}", text::lossy(name), text::lossy(value));
    ServiceCheck {
        message: (!sample.message.is_empty()).then(|| owned(sample.message)),
        tags: sample.tags().map(tag).collect(),
        ..ServiceCheck::new(owned(sample.name), sample.status)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::SystemTime;

    use prost::encoding::{WireType, encode_key, encode_varint};

    use super::*;
    use crate::aggregate::{Aggregate, KeyHasher, Shard};
    use crate::model::{ExtendTags, Role};
    use crate::pipeline::worker::Work;
    use crate::pipeline::{Collector, IntakeCounts, Router, Workers};

    fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
        encode_key(field, WireType::LengthDelimited, out);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }

    fn number(out: &mut Vec<u8>, field: u32, number: u64) {
        encode_key(field, WireType::Varint, out);
        encode_varint(number, out);
    }

    fn tag(name: &str, value: &str) -> Vec<u8> {
        let mut tag = Vec::new();
        bytes(&mut tag, 1, name.as_bytes());
        bytes(&mut tag, 2, value.as_bytes());
        tag
    }

    /// A sample of a kind and scope with a tag, and no value.
    fn sample(kind: u64, name: &str, scope: u64) -> Vec<u8> {
        let mut sample = Vec::new();
        number(&mut sample, 1, kind);
        bytes(&mut sample, 2, name.as_bytes());
        bytes(&mut sample, 5, b"alice");
        number(&mut sample, 6, 2);
        bytes(&mut sample, 8, &tag("k", "a,b"));
        number(&mut sample, 10, scope);
        sample
    }

    fn indicator() -> Vec<u8> {
        let mut span = Vec::new();
        for (field, value) in [(2, 7), (3, 8), (5, 1000), (6, 1234), (12, 1)] {
            number(&mut span, field, value);
        }
        bytes(&mut span, 8, b"shop");
        bytes(&mut span, 13, b"pay");
        span
    }

    #[test]
    fn samples_and_timers_take_the_ordinary_way_and_spans_wait() {
        let mut message = indicator();
        for (kind, name, scope) in
            [(0, "c", 0), (1, "g", 1), (2, "h", 2), (3, "s", 0), (4, "up", 0)]
        {
            bytes(&mut message, 10, &sample(kind, name, scope));
        }
        bytes(&mut message, 10, b"");
        let workers = Workers::start([Shard::new(Role::Local, ExtendTags::default())])
            .expect("the system gives a thread");
        let collector = Collector::new(ExtendTags::default(), SystemTime::now).with_spans(1 << 20);
        let collector = Arc::new(collector);
        let (of_samples, of_spans) = (Arc::<IntakeCounts>::default(), Arc::<SpanCounts>::default());
        let router = Router::new(KeyHasher::random(), workers.doors());
        let intake = Intake::new(router, Arc::clone(&collector), Arc::clone(&of_samples));
        let timers =
            SpanTimers { indicator: Some("indicator".into()), objective: Some("objective".into()) };
        let mut intake = SpanIntake::new(intake, timers, Arc::clone(&of_spans));
        intake.read([&message[..], b"page.views:1|c"].into_iter());
        intake.hand_over_all();

        let (reply, answer) = sync_channel(1);
        workers.inboxes()[0].send(Work::Flush(reply)).expect("the worker is there");
        let entries = answer.recv().expect("the worker answers").snapshot.entries;
        let mut series: Vec<_> = entries
            .iter()
            .map(|(key, _)| format!("{} {:?} {:?}", key.name, key.tags, key.scope))
            .collect();
        series.sort();
        assert_eq!(
            series,
            [
                "c #k:a_b Mixed",
                "g #k:a_b Mixed",
                "h #k:a_b GlobalOnly",
                "indicator #error:false,service:shop Mixed",
                "objective #error:false,objective:pay,service:shop GlobalOnly",
                "s #k:a_b Mixed",
            ]
        );
        let timed = entries.iter().find(|(key, _)| &*key.name == "indicator");
        let Some((_, Aggregate::Histogram(timed))) = timed else { panic!("{timed:?}") };
        assert_eq!(timed.clone().into_merged().sum(), 234.0, "nanoseconds");

        let collected = collector.take();
        assert_eq!(collected.spans.len(), 1);
        let [check] = &collected.checks[..] else { panic!("one check") };
        assert_eq!((&*check.name, check.message.as_deref()), ("up", Some("alice")));
        let refused: Vec<_> = of_samples.refused().collect();
        assert_eq!(refused.len(), 2, "an empty sample, and what is no message: {refused:?}");
        assert_eq!((of_samples.packets.get(), of_samples.lines.get()), (2, 9));
        assert_eq!((of_spans.spans.get(), of_spans.only_samples.get()), (1, 0));
        // Workers end when nobody can send them anything.
        drop(intake);
        workers.join();
    }
}
