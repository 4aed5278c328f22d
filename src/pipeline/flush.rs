//! The flush: once per interval, everything the workers hold becomes one batch of points.
//!
//! It runs on a thread of its own, so flushes cannot overlap and the readers' threads are
//! never held up: a worker only moves its aggregates out and goes back to work.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::Collector;
use super::worker::{Drained, Work, WorkerReport};
use crate::aggregate::{Aggregate, Folded, Plan, Rendered, render};
use crate::model::{FlushBatch, Interval, MetricKey, MetricKind, UnixSeconds};

/// Where flushes go. The server's hands them to the sinks and the forwarder.
pub trait Outlet: Send + 'static {
    /// Called before the workers are drained: what is put into the pipeline now is part of
    /// this flush.
    fn before_flush(&mut self);

    /// Takes one finished flush; must not block for long.
    fn deliver(&mut self, flushed: Flushed);
}

/// One finished flush.
#[derive(Debug)]
pub struct Flushed {
    /// For the sinks.
    pub batch: Arc<FlushBatch>,
    /// For the upstream node.
    pub forwards: Vec<(Arc<MetricKey>, Aggregate)>,
    /// How it went.
    pub report: FlushReport,
}

/// How a flush went.
#[derive(Debug, Default)]
pub struct FlushReport {
    /// From every worker, in order.
    pub workers: Vec<WorkerReport>,
    /// Series flushed, by kind (index: [`MetricKind`] as a number).
    pub series: [u64; MetricKind::ALL.len()],
    /// Series known, idle ones included.
    pub series_known: usize,
    /// What there was no room for.
    pub folded: Folded,
    /// Values not emitted because they were not finite.
    pub non_finite: u64,
    /// Intervals that passed without a flush before this one.
    pub missed: u32,
    /// Draining the workers.
    pub gather: Duration,
    /// Taking out events, service checks and timestamped values.
    pub collect: Duration,
    /// Finishing points.
    pub render: Duration,
}

/// What a running flusher can be told.
#[derive(Debug)]
enum Command {
    Replan(Plan),
    Stop,
}

/// Everything a flush needs.
#[derive(Debug)]
pub struct Flusher {
    /// Inboxes of all workers.
    pub inboxes: Vec<SyncSender<Work>>,
    /// Events, checks and timestamped points.
    pub collector: Arc<Collector>,
    /// Which points are made.
    pub plan: Plan,
    /// The flush period.
    pub interval: Interval,
    /// Flush on multiples of the interval.
    pub synchronize: bool,
    /// The wall clock.
    pub now: fn() -> SystemTime,
}

/// A running flusher.
#[derive(Debug)]
pub struct FlushHandle {
    commands: Sender<Command>,
    completed: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl FlushHandle {
    /// Uses another plan from the next flush on.
    pub fn replan(&self, plan: Plan) {
        self.tell(Command::Replan(plan));
    }

    /// Flushes what is left and ends; returns when that is delivered to the outlet.
    pub fn stop(self) {
        self.tell(Command::Stop);
        // A panic in the thread has been reported by the panic hook, which ends the process.
        let _ = self.thread.join();
    }

    /// Flushes completed since the start; for the watchdog.
    pub fn completed(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.completed)
    }

    fn tell(&self, command: Command) {
        // The thread ends only by `stop`, which consumes the handle.
        let _ = self.commands.send(command);
    }
}

impl Flusher {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self, outlet: impl Outlet) -> io::Result<FlushHandle> {
        let (commands, receiver) = mpsc::channel();
        let completed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&completed);
        let thread = thread::Builder::new()
            .name("flush".to_owned())
            .spawn(move || self.run(&receiver, outlet, &counter))?;
        Ok(FlushHandle { commands, completed, thread })
    }

    fn run(mut self, commands: &Receiver<Command>, mut outlet: impl Outlet, done: &AtomicU64) {
        let (now, wall) = (Instant::now(), (self.now)());
        let mut schedule = Schedule::new(self.interval, self.synchronize, now, wall);
        let mut last_at = UnixSeconds(i64::MIN);
        loop {
            let (missed, stop) = match commands.recv_timeout(schedule.wait(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => {
                    (schedule.advance(Instant::now(), (self.now)()), false)
                }
                Ok(Command::Replan(plan)) => {
                    self.plan = plan;
                    continue;
                }
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => (0, true),
            };
            let mut at = UnixSeconds::from((self.now)());
            if stop && at == last_at {
                // Backends keep the last value of a series for a second: the final flush must
                // not overwrite the one before it.
                at.0 += 1;
            }
            last_at = at;
            outlet.before_flush();
            outlet.deliver(self.flush(at, missed));
            done.fetch_add(1, Ordering::Relaxed);
            if stop {
                return;
            }
        }
    }

    /// Drains every worker and the collector.
    fn flush(&self, at: UnixSeconds, missed: u32) -> Flushed {
        let start = Instant::now();
        let drained = self.drain_workers();
        let gathered = Instant::now();
        let collected = self.collector.take();
        let collect = gathered.elapsed();

        let gather = gathered - start;
        let mut report = FlushReport { missed, gather, collect, ..FlushReport::default() };
        let mut points = collected.points;
        let mut forwards = Vec::new();
        for Drained { mut snapshot, report: worker } in drained {
            report.workers.push(worker);
            report.series_known += snapshot.series;
            report.folded.add(std::mem::take(&mut snapshot.folded));
            let rendered: Rendered = render(snapshot, &self.plan, at);
            for (all, n) in report.series.iter_mut().zip(rendered.series) {
                *all += n;
            }
            report.non_finite += rendered.non_finite;
            append(&mut points, rendered.points);
            append(&mut forwards, rendered.forwards);
        }
        report.render = gathered.elapsed() - collect;
        let batch = FlushBatch {
            at,
            // Honest about what the points stand for: a skipped flush makes a longer one.
            interval: self.interval.times(missed + 1),
            suffixes: Arc::clone(self.plan.suffixes()),
            points,
            events: collected.events,
            checks: collected.checks,
        };
        Flushed { batch: Arc::new(batch), forwards, report }
    }

    /// Asks all workers at once, then waits for each: they take their snapshots in parallel.
    fn drain_workers(&self) -> Vec<Drained> {
        let replies: Vec<Receiver<Drained>> = self
            .inboxes
            .iter()
            .filter_map(|inbox| {
                let (reply, answer) = sync_channel(1);
                inbox.send(Work::Flush(reply)).is_ok().then_some(answer)
            })
            .collect();
        replies.into_iter().filter_map(|answer| answer.recv().ok()).collect()
    }
}

/// Like `Vec::append`, but the first part is moved rather than copied.
fn append<T>(all: &mut Vec<T>, mut part: Vec<T>) {
    if all.is_empty() {
        *all = part;
    } else {
        all.append(&mut part);
    }
}

/// When to flush next: on a grid of whole intervals, from the first flush on or, aligned, from
/// 1970 on.
#[derive(Debug)]
struct Schedule {
    interval: Interval,
    aligned: bool,
    next: Instant,
    last: Instant,
}

/// An aligned flush comes so much late, rather than a moment early and into the wrong second.
const AFTER_MULTIPLE: Duration = Duration::from_millis(2);

impl Schedule {
    fn new(interval: Interval, aligned: bool, now: Instant, wall: SystemTime) -> Schedule {
        let mut schedule = Schedule { interval, aligned, next: now, last: now };
        schedule.next = now + schedule.until_next(wall);
        schedule
    }

    fn until_next(&self, wall: SystemTime) -> Duration {
        match self.aligned {
            true => self.interval.until_next_multiple(wall) + AFTER_MULTIPLE,
            false => self.interval.length(),
        }
    }

    fn wait(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// Moves on to the next time; returns how many whole intervals have passed beyond one.
    ///
    /// What passed is told by the monotonic clock; where the grid of an aligned schedule is, by
    /// the wall clock, each time anew: it may have been set, and the machine may have slept.
    fn advance(&mut self, now: Instant, wall: SystemTime) -> u32 {
        let length = self.interval.length();
        let passed = (now - self.last + length / 2).as_nanos() / length.as_nanos();
        self.last = now;
        if self.aligned {
            self.next = now + self.until_next(wall);
        } else {
            let late = now.saturating_duration_since(self.next).as_nanos() / length.as_nanos();
            self.next += length * (u32::try_from(late).unwrap_or(u32::MAX - 1) + 1);
        }
        u32::try_from(passed.saturating_sub(1)).unwrap_or(u32::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn interval(seconds: u64) -> Interval {
        Interval::new(Duration::from_secs(seconds)).expect("not zero")
    }

    #[test]
    fn a_late_flush_keeps_the_grid_and_says_what_it_missed() {
        let start = Instant::now();
        let mut schedule = Schedule::new(interval(10), false, start, UNIX_EPOCH);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(schedule.wait(start), Duration::from_secs(10));
        assert_eq!(schedule.advance(at(10), UNIX_EPOCH), 0);
        assert_eq!(schedule.advance(at(41), UNIX_EPOCH), 2);
        assert_eq!(schedule.wait(at(41)), Duration::from_secs(9));
    }

    #[test]
    fn an_aligned_schedule_follows_the_wall_clock_even_when_it_is_set() {
        let wall = |millis: u64| UNIX_EPOCH + Duration::from_millis(1_000_000_000 + millis);
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let wait = |schedule: &Schedule, millis| schedule.wait(at(millis)).as_millis();
        let mut schedule = Schedule::new(interval(10), true, start, wall(3_000));
        assert_eq!(wait(&schedule, 0), 7_002);
        assert_eq!(schedule.advance(at(7_002), wall(10_002)), 0);
        assert_eq!(wait(&schedule, 7_002), 10_000);
        // The clock is set forward by an hour and four seconds: no interval was missed.
        assert_eq!(schedule.advance(at(17_002), wall(3_624_002)), 0);
        assert_eq!(wait(&schedule, 17_002), 5_998 + 2);
    }
}
