//! The task that owns a sink: one queue, one flush at a time, every point accounted for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};
use tracing::{error, warn};

use super::{Delivered, Filter, MetricSink, Reason};
use crate::model::{FlushBatch, Interval};
use crate::telemetry::{Telemetry, names};

/// Batches that may wait for a sink that is busy. With a deadline one interval after its offer
/// a flush is over when the next one comes, so one place is enough for every sink that keeps
/// its deadline.
const QUEUE_BATCHES: usize = 1;

/// How long past its deadline a flush is let live: sinks keep the deadline themselves, late where
/// the host is starved of processors. What is cut off may have been taken or kept in part, which
/// nobody can tell any more, so it is for sinks that hang.
const GRACE: Duration = Duration::from_secs(10);

/// A sink and the task it runs in.
#[derive(Debug)]
pub struct SinkTask {
    queue: mpsc::Sender<Offer>,
    interval: Interval,
    books: Books,
    task: JoinHandle<()>,
}

/// One flush and the moment by which it must be delivered.
#[derive(Debug)]
struct Offer {
    batch: Arc<FlushBatch>,
    is_routed: bool,
    deadline: Instant,
}

impl SinkTask {
    /// Starts the task. Needs a tokio runtime.
    pub fn spawn<S: MetricSink>(
        sink: S,
        filter: Filter,
        interval: Interval,
        telemetry: Telemetry,
    ) -> SinkTask {
        let (queue, offers) = mpsc::channel(QUEUE_BATCHES);
        let books = Books::new(sink.name(), telemetry);
        let task = tokio::spawn(run(sink, Arc::new(filter), offers, books.clone()));
        SinkTask { queue, interval, books, task }
    }

    /// Offers one flush, of which [`super::filter::is_routed`] says this; it has until the end of
    /// the next interval. Never blocks: a sink that is still busy skips this one, and its points
    /// are counted as dropped.
    pub fn offer(&self, batch: Arc<FlushBatch>, is_routed: bool) {
        let deadline = Instant::now() + self.interval.length();
        self.books.offered(&batch);
        let (offer, reason) = match self.queue.try_send(Offer { batch, is_routed, deadline }) {
            Ok(()) => return,
            Err(TrySendError::Full(offer)) => (offer, Reason::QueueFull),
            Err(TrySendError::Closed(offer)) => (offer, Reason::Stopped),
        };
        self.books.miss();
        self.books.enter(&Delivered::nothing(&offer.batch, reason));
    }

    /// Lets the sink finish what it has been offered, each batch by its deadline.
    pub async fn finish(self) {
        drop(self.queue);
        if let Err(error) = self.task.await {
            error!(sink = %self.books.sink, %error, "the task of a sink failed");
        }
    }
}

async fn run<S: MetricSink>(
    mut sink: S,
    filter: Arc<Filter>,
    mut offers: mpsc::Receiver<Offer>,
    books: Books,
) {
    while let Some(Offer { batch, is_routed, deadline }) = offers.recv().await {
        let started = Instant::now();
        let offered = Arc::clone(&batch);
        let filter = Arc::clone(&filter);
        // A task of its own, so that a sink that panics does not take its batch with it
        // uncounted.
        let flush = tokio::spawn(async move {
            let (batch, skipped) = filtered(filter, batch, is_routed).await;
            let flush = sink.flush(Arc::clone(&batch), deadline);
            let delivered = timeout_at(deadline + GRACE, flush).await;
            let mut delivered =
                delivered.unwrap_or_else(|_| Delivered::nothing(&batch, Reason::Timeout));
            delivered.points.skipped += skipped;
            (sink, delivered)
        });
        let Ok((returned, delivered)) = flush.await else {
            books.enter(&Delivered::nothing(&offered, Reason::Stopped));
            break;
        };
        sink = returned;
        books.time(started.elapsed());
        books.enter(&delivered);
    }
    // Only a sink that panicked leaves something behind.
    offers.close();
    while let Some(Offer { batch, .. }) = offers.recv().await {
        books.enter(&Delivered::nothing(&batch, Reason::Stopped));
    }
}

/// What the sink gets of a batch, and how many points it does not. That is many steps, so they are
/// taken on the blocking pool.
async fn filtered(
    filter: Arc<Filter>,
    batch: Arc<FlushBatch>,
    is_routed: bool,
) -> (Arc<FlushBatch>, u64) {
    if !filter.concerns(is_routed) {
        return (batch, 0);
    }
    let filtering = spawn_blocking(move || filter.apply(&batch));
    let (batch, skipped) = filtering.await.expect("it neither panics nor is it aborted");
    (Arc::new(batch), skipped)
}

/// Where what became of a flush is written down: telemetry, and the log if anything was lost.
#[derive(Clone, Debug)]
pub(super) struct Books {
    sink: Arc<str>,
    /// `sink:NAME`
    tag: Arc<str>,
    telemetry: Telemetry,
}

impl Books {
    pub(super) fn new(sink: &str, telemetry: Telemetry) -> Books {
        Books { sink: sink.into(), tag: format!("sink:{sink}").into(), telemetry }
    }

    /// Counts what the sink is to deliver.
    fn offered(&self, batch: &FlushBatch) {
        let FlushBatch { points, events, checks, spans, .. } = batch;
        let all = [
            (points.len(), &POINTS),
            (events.len(), &EVENTS),
            (checks.len(), &CHECKS),
            (spans.len(), &SPANS),
        ];
        for (n, names) in all {
            self.telemetry.count(names.offered, &self.tag, n as u64);
        }
    }

    /// Counts a flush the sink never sees.
    fn miss(&self) {
        self.telemetry.count(names::SINK_BATCHES_DROPPED_TOTAL, &self.tag, 1);
    }

    fn time(&self, length: Duration) {
        self.telemetry.duration(names::SINK_METRIC_FLUSH_TOTAL_DURATION_NS, &self.tag, length);
    }

    pub(super) fn enter(&self, delivered: &Delivered) {
        let Delivered { points, events, checks, spans, failure } = delivered;
        let all = [(points, &POINTS), (events, &EVENTS), (checks, &CHECKS), (spans, &SPANS)];
        let mut reasons = BTreeSet::new();
        for (tally, names) in all {
            self.telemetry.count(names.flushed, &self.tag, tally.sent);
            self.telemetry.count(names.skipped, &self.tag, tally.skipped);
            for (reason, n) in tally.losses() {
                reasons.insert(reason.to_string());
                self.telemetry.count(names.dropped, &format!("{},reason:{reason}", self.tag), n);
            }
        }
        if !reasons.is_empty() {
            error!(
                sink = %self.sink,
                points = points.dropped(),
                events = events.dropped(),
                checks = checks.dropped(),
                spans = spans.dropped(),
                ?reasons,
                failure = failure.as_deref(),
                "a flush lost data"
            );
        }
        let kept = points.kept + events.kept + checks.kept + spans.kept;
        if kept > 0 {
            let failure = failure.as_deref();
            warn!(sink = %self.sink, kept, failure, "a flush is kept to be delivered later");
        }
    }
}

/// The names under which a [`Tally`](super::Tally) is counted.
struct Names {
    offered: &'static str,
    flushed: &'static str,
    skipped: &'static str,
    dropped: &'static str,
}

const POINTS: Names = Names {
    offered: names::SINK_METRICS_OFFERED_TOTAL,
    flushed: names::SINK_METRICS_FLUSHED_TOTAL,
    skipped: names::SINK_METRICS_SKIPPED_TOTAL,
    dropped: names::SINK_METRICS_DROPPED_TOTAL,
};

const EVENTS: Names = Names {
    offered: names::SINK_EVENTS_OFFERED_TOTAL,
    flushed: names::SINK_EVENTS_FLUSHED_TOTAL,
    skipped: names::SINK_EVENTS_SKIPPED_TOTAL,
    dropped: names::SINK_EVENTS_DROPPED_TOTAL,
};

const CHECKS: Names = Names {
    offered: names::SINK_CHECKS_OFFERED_TOTAL,
    flushed: names::SINK_CHECKS_FLUSHED_TOTAL,
    skipped: names::SINK_CHECKS_SKIPPED_TOTAL,
    dropped: names::SINK_CHECKS_DROPPED_TOTAL,
};

const SPANS: Names = Names {
    offered: names::SINK_SPANS_OFFERED_TOTAL,
    flushed: names::SINK_SPANS_FLUSHED_TOTAL,
    skipped: names::SINK_SPANS_SKIPPED_TOTAL,
    dropped: names::SINK_SPANS_DROPPED_TOTAL,
};

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::config::settings::FilterSettings;
    use crate::model::{Event, UnixSeconds};
    use crate::sinks::Tally;
    use crate::telemetry::registry::Total;

    /// What the sink of a test does with a flush.
    #[derive(Clone, Copy)]
    enum Behaviour {
        Deliver,
        Hang,
        Panic,
    }

    struct TestSink {
        behaviour: Behaviour,
        /// Told when a flush begins.
        begun: Arc<Notify>,
        /// A flush waits for it.
        go: Arc<Notify>,
    }

    impl MetricSink for TestSink {
        fn name(&self) -> &str {
            "test"
        }

        async fn flush(&mut self, batch: Arc<FlushBatch>, _deadline: Instant) -> Delivered {
            self.begun.notify_one();
            self.go.notified().await;
            match self.behaviour {
                Behaviour::Deliver => {}
                Behaviour::Hang => std::future::pending().await,
                Behaviour::Panic => panic!("the test wants it"),
            }
            Delivered { events: Tally::new(batch.events.len() as u64, 0), ..Delivered::default() }
        }
    }

    struct Rig {
        task: SinkTask,
        telemetry: Telemetry,
        begun: Arc<Notify>,
        go: Arc<Notify>,
    }

    impl Rig {
        fn new(behaviour: Behaviour) -> Rig {
            let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let sink = TestSink { behaviour, begun: begun.clone(), go: go.clone() };
            let interval = Interval::new(Duration::from_secs(10)).expect("not zero");
            let telemetry = Telemetry::default();
            let filter = Filter::new("test", FilterSettings::default());
            let task = SinkTask::spawn(sink, filter, interval, telemetry.clone());
            Rig { task, telemetry, begun, go }
        }

        /// Offers a batch of `n` events.
        fn offer(&self, n: usize) {
            self.task.offer(
                Arc::new(FlushBatch {
                    at: UnixSeconds(0),
                    interval: self.task.interval,
                    suffixes: Default::default(),
                    points: Vec::new(),
                    events: vec![Event::default(); n],
                    checks: Vec::new(),
                    spans: Default::default(),
                }),
                false,
            );
        }
    }

    /// Counters of events, and of batches never seen, that are not zero.
    fn counted(telemetry: &Telemetry) -> Vec<(String, u64)> {
        let totals = telemetry.totals().into_iter();
        let counts = totals.filter_map(|series| match series.value {
            Total::Count(n) if n > 0 => Some((format!("{}#{}", series.name, series.tags), n)),
            Total::Count(_) | Total::Gauge(_) | Total::Durations(_) | Total::Amounts(_) => None,
        });
        counts.collect()
    }

    fn count(name: &str, n: u64) -> (String, u64) {
        (name.to_owned(), n)
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_sink_skips_a_flush_and_its_items_are_counted() {
        let rig = Rig::new(Behaviour::Deliver);
        rig.offer(1); // being delivered
        rig.begun.notified().await;
        rig.offer(20); // waits in the queue
        rig.offer(300); // one too many
        assert_eq!(
            counted(&rig.telemetry),
            [
                count("sink.batches_dropped_total#sink:test", 1),
                count("sink.events_dropped_total#sink:test,reason:queue_full", 300),
                count("sink.events_offered_total#sink:test", 321),
            ]
        );
        rig.go.notify_one();
        rig.begun.notified().await;
        rig.go.notify_one();
        rig.task.finish().await;
        assert!(
            counted(&rig.telemetry).contains(&count("sink.events_flushed_total#sink:test", 21)),
            "what was queued is delivered before the task ends"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_that_outlives_its_deadline_is_cut_off() {
        let rig = Rig::new(Behaviour::Hang);
        let started = Instant::now();
        rig.go.notify_one();
        rig.offer(5);
        rig.task.finish().await;
        assert_eq!(started.elapsed(), Duration::from_secs(20), "the interval and the grace");
        assert_eq!(
            counted(&rig.telemetry),
            [
                count("sink.events_dropped_total#sink:test,reason:timeout", 5),
                count("sink.events_offered_total#sink:test", 5),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_that_panics_leaves_nothing_uncounted() {
        let rig = Rig::new(Behaviour::Panic);
        rig.offer(1);
        rig.begun.notified().await;
        rig.offer(20);
        rig.go.notify_one();
        rig.task.queue.closed().await;
        rig.offer(300);
        rig.task.finish().await;
        assert_eq!(
            counted(&rig.telemetry),
            [
                count("sink.batches_dropped_total#sink:test", 1),
                count("sink.events_dropped_total#sink:test,reason:stopped", 321),
                count("sink.events_offered_total#sink:test", 321),
            ]
        );
    }
}
