//! What a listener's thread hands its bytes to: parse, count, route.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::collector::Checked;
use super::{Collector, Router};
use crate::aggregate::Class;
use crate::model::{Dialect, ServiceCheck};
use crate::protocol::dogstatsd::{self, Line, Message, Piece, Sample};
use crate::protocol::ssf::SpanRef;
use crate::protocol::{PacketType, Reason, Refusal, classic};
use crate::telemetry::counters::Count;

const REASONS: usize = Reason::ALL.len();
const REFUSALS: usize = PacketType::ALL.len() * REASONS;

/// One listener thread's way into the pipeline. Owned by one thread; nothing in it allocates
/// or locks for a metric whose type, values and sections are in order.
#[derive(Debug)]
pub struct Intake {
    router: Router,
    collector: Arc<Collector>,
    counts: Arc<IntakeCounts>,
    dialect: Dialect,
    /// Counted since the last publication.
    tally: Tally,
}

/// What a listener thread has counted since the start. Written by that thread alone.
///
/// They add up: every line is a metric, an event, a service check or refused, and every packet
/// longer than allowed is refused without a line. Alone on its cache lines, so that no other
/// thread's writes reach into them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct IntakeCounts {
    /// Datagrams, stream frames and stream lines received, refused ones included.
    pub packets: Count,
    /// Their bytes.
    pub bytes: Count,
    /// Lines in them.
    pub lines: Count,
    /// Metric lines taken.
    pub metrics: Count,
    /// Values of those lines: what the workers get.
    pub samples: Count,
    /// Timestamped values, which skip aggregation.
    pub timestamped: Count,
    /// Events taken.
    pub events: Count,
    /// Service checks taken.
    pub checks: Count,
    /// Sections of metric lines that nobody knows; skipped.
    pub unknown_sections: Count,
    /// Values of lines that were taken that were not themselves: NaN and infinite elements of
    /// packed ones, and samples of etsy lines that break a rule. Left out.
    pub skipped_values: Count,
    /// Events there was no room for.
    pub events_full: Count,
    /// Service checks there was no room for.
    pub checks_full: Count,
    /// Service checks that a later one about the same took the place of.
    pub checks_replaced: Count,
    /// Timestamped values there was no room for.
    pub timestamped_full: Count,
    /// Timestamped values that a mapping file leaves out.
    pub timestamped_mapped: Count,
    /// Samples lost because their worker is gone.
    pub worker_gone: Count,
    /// Nanoseconds spent waiting for a worker.
    pub blocked_ns: Count,
    refused: Refused,
}

/// A count for each packet type and reason.
#[derive(Debug)]
struct Refused([Count; REFUSALS]);

impl Default for Refused {
    fn default() -> Self {
        Refused(std::array::from_fn(|_| Count::default()))
    }
}

impl IntakeCounts {
    /// Lines (or whole packets) refused, for each type and reason that occurred.
    pub fn refused(&self) -> impl Iterator<Item = (PacketType, Reason, u64)> {
        PacketType::ALL.into_iter().flat_map(move |packet| {
            Reason::ALL.into_iter().filter_map(move |reason| {
                let n = self.refused.0[place(packet, reason)].get();
                (n > 0).then_some((packet, reason, n))
            })
        })
    }
}

fn place(packet: PacketType, reason: Reason) -> usize {
    packet as usize * REASONS + reason as usize
}

/// Counts in locals: added to the shared ones once per read, not per line.
#[derive(Debug, Default)]
struct Tally {
    packets: u64,
    bytes: u64,
    lines: u64,
    metrics: u64,
    samples: u64,
    unknown_sections: u64,
    skipped_values: u64,
}

/// Takes a sample of a classic line.
type Push<'p, 'a> = &'p mut dyn FnMut(Class, &classic::Sample<'a>);

impl Intake {
    /// An intake of DogStatsD's lines that counts into `counts`.
    pub fn new(router: Router, collector: Arc<Collector>, counts: Arc<IntakeCounts>) -> Intake {
        let dialect = Dialect::DogStatsD;
        Intake { router, collector, counts, dialect, tally: Tally::default() }
    }

    /// The same for lines of another dialect.
    #[must_use]
    pub fn with_dialect(self, dialect: Dialect) -> Intake {
        Intake { dialect, ..self }
    }

    /// Takes what one read has brought: datagrams, stream frames or stream lines, all of them
    /// slices of `buffer`. A bad line costs its neighbours nothing.
    #[inline]
    pub fn read<'a>(&mut self, buffer: &'a [u8], packets: impl Iterator<Item = &'a [u8]>) {
        match self.dialect {
            Dialect::DogStatsD => self.read_dogstatsd(buffer, packets),
            Dialect::Etsy => self.read_classic(buffer, packets, |line, push| {
                classic::etsy::read(line, |sample| push(Class::of_etsy(sample.recorder), sample))
            }),
            Dialect::Brubeck => self.read_classic(buffer, packets, |line, push| {
                classic::brubeck::read(line, |sample| push(Class::Brubeck, sample))
            }),
        }
        self.router.settle(buffer);
    }

    #[inline(always)]
    fn read_dogstatsd<'a>(&mut self, buffer: &'a [u8], packets: impl Iterator<Item = &'a [u8]>) {
        for packet in packets {
            self.tally.packets += 1;
            self.tally.bytes += packet.len() as u64;
            for piece in dogstatsd::pieces(buffer, packet) {
                self.tally.lines += 1;
                match piece {
                    Piece::Sample(sample) => self.sample(buffer, &sample),
                    Piece::Line(line) => self.line(buffer, line),
                }
            }
        }
    }

    /// Has `read` hand over the samples of each line.
    #[inline(never)]
    fn read_classic<'a>(
        &mut self,
        buffer: &'a [u8],
        packets: impl Iterator<Item = &'a [u8]>,
        read: impl Fn(&'a [u8], Push<'_, 'a>) -> Result<u16, Refusal>,
    ) {
        for packet in packets {
            self.tally.packets += 1;
            self.tally.bytes += packet.len() as u64;
            for line in dogstatsd::lines(packet) {
                self.tally.lines += 1;
                self.classic_line(buffer, |push| read(line, push));
            }
        }
    }

    fn classic_line<'a>(
        &mut self,
        buffer: &'a [u8],
        read: impl FnOnce(Push<'_, 'a>) -> Result<u16, Refusal>,
    ) {
        let router = &mut self.router;
        let (mut samples, mut too_long) = (0, false);
        let read = read(&mut |class, sample| match router.push_classic(buffer, class, sample) {
            Some(()) => samples += 1,
            None => too_long = true,
        });
        match read {
            Err(refusal) => self.refuse(refusal),
            // A key that is too long is so for all samples of its line.
            Ok(_) if too_long => self.refuse(refusal_of_metric(Reason::TooLong)),
            Ok(left_out) => {
                self.tally.metrics += 1;
                self.tally.samples += samples;
                self.tally.skipped_values += u64::from(left_out);
            }
        }
    }

    /// Takes a single packet.
    pub fn packet(&mut self, bytes: &[u8]) {
        self.read(bytes, std::iter::once(bytes));
    }

    /// Takes one sample that is no line; its name and tags are slices of `buffer`.
    pub(super) fn take_sample(&mut self, buffer: &[u8], sample: &Sample<'_>) {
        self.tally.lines += 1;
        self.sample(buffer, sample);
    }

    /// Takes a check that is no line.
    pub(super) fn take_check(&mut self, check: ServiceCheck) {
        self.tally.lines += 1;
        self.check(check);
    }

    /// Counts a sample that is no line, and cannot be used.
    pub(super) fn refuse_sample(&mut self, reason: Reason) {
        self.tally.lines += 1;
        self.refuse(refusal_of_metric(reason));
    }

    /// Counts a message that is no line, and says nothing.
    pub(super) fn refuse_message(&mut self, refusal: Refusal) {
        self.tally.lines += 1;
        self.refuse(refusal);
    }

    /// Counts one packet that somebody else takes apart.
    pub(super) fn count_packet(&mut self, bytes: usize) {
        self.tally.packets += 1;
        self.tally.bytes += bytes as u64;
    }

    /// Keeps a span for the next flush; how many others had to go for it.
    pub(super) fn keep_span(&mut self, span: &SpanRef<'_>) -> u64 {
        self.collector.span(span)
    }

    /// Has everything taken since the last call applied, or copied: `buffer` may go.
    pub(super) fn settle(&mut self, buffer: &[u8]) {
        self.router.settle(buffer);
    }

    #[inline(always)]
    fn sample(&mut self, buffer: &[u8], sample: &Sample<'_>) {
        if self.router.push_sample(buffer, sample).is_none() {
            return self.refuse(refusal_of_metric(Reason::TooLong));
        }
        self.tally.metrics += 1;
        self.tally.samples += 1;
    }

    #[inline(never)]
    fn line(&mut self, buffer: &[u8], line: &[u8]) {
        match dogstatsd::parse(line) {
            Ok(Message::Metric(line)) => self.metric(buffer, &line),
            Ok(Message::Event(event)) => {
                self.counts.events.add(1);
                let kept = self.collector.event(*event);
                self.counts.events_full.add(u64::from(!kept));
            }
            Ok(Message::ServiceCheck(check)) => self.check(*check),
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn check(&mut self, check: ServiceCheck) {
        self.counts.checks.add(1);
        match self.collector.check(check) {
            Checked::New => {}
            Checked::Replaces => self.counts.checks_replaced.add(1),
            Checked::NoRoom => self.counts.checks_full.add(1),
        }
    }

    fn metric(&mut self, buffer: &[u8], line: &Line<'_>) {
        if line.timestamp.is_some() {
            return self.timestamped(line);
        }
        let Some(samples) = self.router.push(buffer, line) else {
            return self.refuse(refusal_of_metric(Reason::TooLong));
        };
        self.tally.metrics += 1;
        self.tally.samples += samples;
        self.tally.unknown_sections += u64::from(line.unknown_sections);
        self.tally.skipped_values += u64::from(line.skipped_values);
    }

    /// A counter or gauge with a time of its own skips the window; other kinds cannot keep
    /// one, and are refused rather than counted into an interval they do not belong to.
    #[cold]
    fn timestamped(&mut self, line: &Line<'_>) {
        let Some(taken) = self.collector.timestamped(line) else {
            return self.refuse(refusal_of_metric(Reason::TimestampUnsupported));
        };
        self.tally.metrics += 1;
        self.tally.unknown_sections += u64::from(line.unknown_sections);
        self.tally.skipped_values += u64::from(line.skipped_values);
        self.counts.timestamped.add(taken.kept);
        self.counts.timestamped_full.add(taken.dropped);
        self.counts.timestamped_mapped.add(taken.left_out);
    }

    #[cold]
    fn refuse(&mut self, refusal: Refusal) {
        self.counts.refused.0[place(refusal.packet, refusal.reason)].add(1);
        tracing::debug!(packet = refusal.packet.as_str(), %refusal, "refused a line");
    }

    /// Counts one datagram, frame or line that was longer than allowed and is not looked at.
    pub fn too_long(&mut self) {
        self.unseen(Reason::TooLong);
    }

    /// Counts one datagram of a host that may not send here and is not looked at.
    pub fn not_allowed(&mut self) {
        self.unseen(Reason::NotAllowed);
    }

    fn unseen(&mut self, reason: Reason) {
        self.tally.packets += 1;
        self.refuse(Refusal { packet: PacketType::Unknown, reason, at: 0 });
    }

    /// How long until the oldest open batch must be handed over; `None` if nothing is open.
    pub fn until_due(&self, now: Instant) -> Option<Duration> {
        self.router.until_due(now)
    }

    /// Hands over batches that are old enough, and publishes counts.
    pub fn hand_over_due(&mut self, now: Instant) {
        self.router.hand_over_due(now);
        self.publish();
    }

    /// Hands over all open batches: the thread is about to end.
    pub fn hand_over_all(&mut self) {
        self.router.hand_over_all();
        self.publish();
    }

    fn publish(&mut self) {
        let Tally { packets, bytes, lines, metrics, samples, unknown_sections, skipped_values } =
            std::mem::take(&mut self.tally);
        self.counts.packets.add(packets);
        self.counts.bytes.add(bytes);
        self.counts.lines.add(lines);
        self.counts.metrics.add(metrics);
        self.counts.samples.add(samples);
        self.counts.unknown_sections.add(unknown_sections);
        self.counts.skipped_values.add(skipped_values);
        let blocked = u64::try_from(self.router.take_blocked().as_nanos()).unwrap_or(u64::MAX);
        self.counts.blocked_ns.add(blocked);
        self.counts.worker_gone.add(self.router.take_lost());
    }
}

fn refusal_of_metric(reason: Reason) -> Refusal {
    Refusal { packet: PacketType::Metric, reason, at: 0 }
}
