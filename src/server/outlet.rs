//! Where flushes go: to the sinks, with what the daemon says about itself put in before.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use tracing::{debug, warn};

use super::destinations::Sinks;
use super::overflow::{OverflowReport, tag_value};
use super::stats::StatsAddress;
use crate::checkpoint::Retiring;
use crate::forward::Forwarder;
use crate::model::MetricKind;
use crate::pipeline::flush::{FlushReport, Outlet};
use crate::pipeline::{Flushed, Intake};
use crate::sinks::filter;
use crate::telemetry::logging::Logs;
use crate::telemetry::{Telemetry, names, report};

/// The flush thread's way out.
pub(super) struct Delivery {
    pub(super) sinks: Sinks,
    /// None at a global node.
    pub(super) forwarder: Option<Arc<Forwarder>>,
    pub(super) own: OwnTelemetry,
    pub(super) telemetry: Telemetry,
    pub(super) logs: Logs,
    pub(super) overflow: OverflowReport,
    /// What the open interval has on disk.
    pub(super) checkpoint: Option<Retiring>,
}

impl Outlet for Delivery {
    fn before_flush(&mut self) {
        self.logs.report_left_out(&self.telemetry);
        self.own.report(&self.telemetry);
    }

    fn deliver(&mut self, mut flushed: Flushed) {
        let folded = std::mem::take(&mut flushed.report.folded);
        self.overflow.record(folded, &self.telemetry, Instant::now());
        record(&self.telemetry, &flushed);
        // Before anybody has any of it, so that it cannot be there twice.
        if let Some(checkpoint) = &self.checkpoint {
            let kept = std::mem::take(&mut flushed.report.kept);
            checkpoint.retire(flushed.report.interval, kept);
        }
        let is_routed = filter::is_routed(&flushed.batch);
        for sink in self.sinks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            sink.task.offer(Arc::clone(&flushed.batch), is_routed);
        }
        if let Some(forwarder) = &self.forwarder {
            forwarder.offer(flushed.forwards, flushed.batch.at);
        }
    }
}

/// Where our own metrics go.
pub(super) enum OwnTelemetry {
    /// Into our own pipeline, ahead of the drain: a flush contains its own figures.
    Pipeline(Box<Intake>),
    /// To a statsd server elsewhere.
    Statsd {
        stats: StatsAddress,
        /// The node's tags: the server there does not know them.
        tags: Vec<String>,
    },
}

impl OwnTelemetry {
    /// Reports what has changed since the last time.
    pub(super) fn report(&mut self, telemetry: &Telemetry) {
        match self {
            OwnTelemetry::Pipeline(intake) => {
                intake.packet(&report::take_lines(telemetry, &[]));
                intake.hand_over_all();
            }
            OwnTelemetry::Statsd { stats, tags } => stats.send(report::take_lines(telemetry, tags)),
        }
    }
}

/// Counts what a flush was like; the next one reports it.
fn record(telemetry: &Telemetry, flushed: &Flushed) {
    let Flushed { batch, forwards: _, report } = flushed;
    let FlushReport {
        interval: _,
        kept: _,
        workers,
        series,
        series_known,
        memory,
        folded: _,
        dropped,
        non_finite,
        client_drops,
        missed,
        gather,
        collect,
        render,
    } = report;
    for worker in workers {
        telemetry.duration(names::FLUSH_WORKER_DURATION_NS, "", worker.pause);
        telemetry.count(names::WORKER_METRICS_PROCESSED_TOTAL, "", worker.samples);
        telemetry.count(names::WORKER_METRICS_IMPORTED_TOTAL, "", worker.imported);
        for step in worker.queue_ns.iter_recorded() {
            let waited = Duration::from_nanos(step.value_iterated_to());
            let batches = step.count_since_last_iteration();
            telemetry.durations(names::WORKER_QUEUE_DURATION_NS, "", waited, batches);
        }
    }
    for (line, samples) in dropped {
        telemetry.count(names::MAPPING_DROPPED_TOTAL, &format!("line:{line}"), *samples);
    }
    for kind in MetricKind::ALL {
        let tag = format!("metric_type:{kind}");
        telemetry.count(names::WORKER_METRICS_FLUSHED_TOTAL, &tag, series[kind as usize]);
    }
    telemetry.count(names::FLUSH_UNIQUE_TIMESERIES_TOTAL, "", series.iter().sum());
    telemetry.gauge(names::WORKER_CONTEXTS, "", *series_known as f64);
    telemetry.gauge(names::LIMITS_MEMORY_BYTES, "part:keys", memory.keys as f64);
    telemetry.gauge(names::LIMITS_MEMORY_BYTES, "part:sketches", memory.sketches as f64);
    telemetry.count(names::WORKER_EVENTS_FLUSHED_TOTAL, "", batch.events.len() as u64);
    telemetry.count(names::WORKER_CHECKS_FLUSHED_TOTAL, "", batch.checks.len() as u64);
    for (what, sum) in client_drops.iter() {
        let tag = format!("metric:{}", tag_value(what));
        telemetry.count(names::CLIENTS_DROPPED_TOTAL, &tag, sum.round() as u64);
    }
    telemetry.count(names::FLUSH_NON_FINITE_TOTAL, "", *non_finite);
    telemetry.count(names::FLUSH_MISSED_TOTAL, "", u64::from(*missed));
    telemetry.duration(names::FLUSH_EVENT_WORKER_DURATION_NS, "", *collect);
    telemetry.duration(names::FLUSH_TOTAL_DURATION_NS, "part:gather", *gather);
    telemetry.duration(names::FLUSH_TOTAL_DURATION_NS, "part:combine", *render);
    let took = *gather + *render;
    telemetry.gauge(names::FLUSH_LAST_TOTAL_DURATION_NS, "", took.as_nanos() as f64);
    telemetry.gauge(names::FLUSH_POST_METRICS_TOTAL, "", batch.points.len() as f64);
    let now = UNIX_EPOCH.elapsed().unwrap_or_default();
    telemetry.gauge(names::FLUSH_FLUSH_TIMESTAMP_NS, "", now.as_nanos() as f64);
    if *missed > 0 {
        warn!(missed, "flushes were missed: this one stands for all their intervals");
    }
    debug!(
        points = batch.points.len(),
        events = batch.events.len(),
        checks = batch.checks.len(),
        series = series_known,
        gather = ?gather,
        render = ?render,
        "flushed"
    );
}
