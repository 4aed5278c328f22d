//! The flush: once per interval, everything the workers hold becomes one batch of points.
//!
//! It runs on a thread of its own, so flushes cannot overlap and the readers' threads are
//! never held up: a worker only moves its aggregates out and goes back to work.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use super::Collector;
use super::worker::{Drained, Work, WorkerReport};
use crate::aggregate::shard::Entry;
use crate::aggregate::{Aggregate, ClientDrops, Folded, Memory, Plan, Rendered, render};
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
    /// Which interval of the workers it was, from 1.
    pub interval: u32,
    /// What series keep into the next one, if somebody wants to know.
    pub kept: Vec<Entry>,
    /// From every worker, in order.
    pub workers: Vec<WorkerReport>,
    /// Series flushed, by kind (index: [`MetricKind`] as a number).
    pub series: [u64; MetricKind::ALL.len()],
    /// Series known, idle ones included.
    pub series_known: usize,
    /// What they and their sketches took.
    pub memory: Memory,
    /// What there was no room for.
    pub folded: Folded,
    /// Samples that a mapping file has left out, by the line of the rule.
    pub dropped: BTreeMap<u64, u64>,
    /// Values not emitted because they were not finite.
    pub non_finite: u64,
    /// What clients say that they have dropped.
    pub client_drops: ClientDrops,
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
    Replan(Box<Plan>),
    /// Say which second the last flush will be of, and flush no more until then.
    Promise(SyncSender<UnixSeconds>),
    /// Flush, and in no second up to this one.
    GoOn(Option<UnixSeconds>),
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
    /// Flush only when told to go on: a predecessor has not flushed for the last time.
    pub waits: bool,
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
        self.tell(Command::Replan(Box::new(plan)));
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

    /// For whoever hands this process's work to another.
    pub fn succession(&self) -> FlushSuccession {
        FlushSuccession { commands: self.commands.clone() }
    }

    fn tell(&self, command: Command) {
        // The thread ends only by `stop`, which consumes the handle.
        let _ = self.commands.send(command);
    }
}

/// How the flushes of two processes, one of which takes over from the other, keep apart: backends
/// keep one value of a series for a second.
#[derive(Clone, Debug)]
pub struct FlushSuccession {
    commands: Sender<Command>,
}

impl FlushSuccession {
    /// The second of the last flush, which is the next one, and comes when this process stops.
    /// `None` if it has stopped.
    pub fn promise_last(&self) -> Option<UnixSeconds> {
        let (reply, promised) = sync_channel(1);
        self.commands.send(Command::Promise(reply)).ok()?;
        promised.recv().ok()
    }

    /// Flushes go on, or begin, at the earliest in the second after `last`.
    pub fn go_on(&self, last: Option<UnixSeconds>) {
        // If the thread has ended, there is nothing to go on with.
        let _ = self.commands.send(Command::GoOn(last));
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
        let mut seconds = Seconds::new(self.interval);
        let mut promised = None;
        loop {
            let command = match self.waits || promised.is_some() {
                true => commands.recv().map_err(RecvTimeoutError::from),
                false => commands.recv_timeout(schedule.wait(Instant::now())),
            };
            let (missed, stop) = match command {
                Err(RecvTimeoutError::Timeout) => {
                    (schedule.advance(Instant::now(), (self.now)()), false)
                }
                Ok(Command::Replan(plan)) => {
                    self.plan = *plan;
                    continue;
                }
                Ok(Command::Promise(reply)) => {
                    let at = seconds.of_last((self.now)().into());
                    promised = Some(at);
                    // Who asked is there, or tells us to go on.
                    let _ = reply.send(at);
                    continue;
                }
                Ok(Command::GoOn(after)) => {
                    (self.waits, promised) = (false, None);
                    seconds.begin_after(after);
                    continue;
                }
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => (0, true),
            };
            let now = (self.now)().into();
            let at = match (stop, promised) {
                (true, Some(promised)) => promised,
                (true, None) => seconds.of_last(now),
                (false, _) => seconds.of_next(now),
            };
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
        // Honest about what the points stand for: a skipped flush makes a longer one.
        let interval = self.interval.times(missed + 1);
        let plan = self.plan.clone().over(interval);
        let mut forwards = Vec::new();
        for Drained { mut snapshot, report: worker } in drained {
            report.workers.push(worker);
            report.interval = snapshot.interval;
            append(&mut report.kept, std::mem::take(&mut snapshot.kept));
            report.series_known += snapshot.series;
            report.memory.add(snapshot.memory);
            report.folded.add(std::mem::take(&mut snapshot.folded));
            for (line, samples) in std::mem::take(&mut snapshot.dropped) {
                *report.dropped.entry(line).or_default() += samples;
            }
            let rendered: Rendered = render(snapshot, &plan, at);
            for (all, n) in report.series.iter_mut().zip(rendered.series) {
                *all += n;
            }
            report.non_finite += rendered.non_finite;
            report.client_drops.add(rendered.client_drops);
            append(&mut points, rendered.points);
            append(&mut forwards, rendered.forwards);
        }
        report.render = gathered.elapsed() - collect;
        let batch = FlushBatch {
            at,
            interval,
            suffixes: Arc::clone(self.plan.suffixes()),
            points,
            events: collected.events,
            checks: collected.checks,
            spans: collected.spans.into(),
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

/// Which second each flush is of. Backends keep one value of a series for a second, so a flush
/// that would come within the second of an earlier one is of the next one: of the one before it,
/// or, when the clock was set back, of one long ago.
#[derive(Debug)]
struct Seconds {
    last: Option<UnixSeconds>,
    /// The seconds of the last flushes.
    recent: VecDeque<UnixSeconds>,
    /// Several flushes fit into a second, and share it: not with a predecessor, though, and the
    /// last one not with those before it.
    may_share: bool,
    predecessors: Option<UnixSeconds>,
}

/// A flush is at most so many seconds ahead of the clock. If it would be more, the clock was set
/// back.
const MOST_AHEAD: i64 = 60;
/// Flushes remembered for when the clock is set back: eleven hours of ten seconds each.
const REMEMBERED: usize = 4_096;

impl Seconds {
    fn new(interval: Interval) -> Seconds {
        let may_share = interval.length() < Duration::from_secs(1);
        Seconds { last: None, recent: VecDeque::new(), may_share, predecessors: None }
    }

    /// A predecessor's last flush is of this second.
    fn begin_after(&mut self, last: Option<UnixSeconds>) {
        self.predecessors = last;
        self.last = self.last.max(last);
    }

    fn of_next(&mut self, now: UnixSeconds) -> UnixSeconds {
        let used = if self.may_share { self.predecessors } else { self.last };
        self.keep(after(used, now))
    }

    fn of_last(&mut self, now: UnixSeconds) -> UnixSeconds {
        self.keep(after(self.last, now))
    }

    /// Uses a second, or a free one soon after it. If there is none the clock was set back
    /// among flushes of every second, and is followed.
    fn keep(&mut self, at: UnixSeconds) -> UnixSeconds {
        let mut soon = (at.0..=at.0 + MOST_AHEAD).map(UnixSeconds);
        let at = soon.find(|at| !self.recent.contains(at)).unwrap_or(at);
        self.last = Some(at);
        if !self.may_share {
            self.recent.truncate(REMEMBERED - 1);
            self.recent.push_front(at);
        }
        at
    }
}

/// Now, or the second after `used`.
fn after(used: Option<UnixSeconds>, now: UnixSeconds) -> UnixSeconds {
    match used.map(|used| used.0 + 1 - now.0) {
        Some(ahead @ 1..=MOST_AHEAD) => UnixSeconds(now.0 + ahead),
        Some(_) | None => now,
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
    fn each_flush_has_a_second_of_its_own() {
        let mut seconds = Seconds::new(interval(1));
        let times = [100, 100, 101, 103, 103].map(|now| seconds.of_next(UnixSeconds(now)).0);
        assert_eq!(times, [100, 101, 102, 103, 104]);
        assert_eq!(seconds.of_last(UnixSeconds(104)).0, 105);
        // What a predecessor or a promise has used is used.
        seconds.begin_after(Some(UnixSeconds(107)));
        seconds.begin_after(None);
        assert_eq!(seconds.of_next(UnixSeconds(105)).0, 108);
        // The clock is set back by an hour.
        assert_eq!([9, 9].map(|now| seconds.of_next(UnixSeconds(now)).0), [9, 10]);
    }

    #[test]
    fn a_clock_that_is_set_back_meets_no_second_of_an_earlier_flush() {
        let mut seconds = Seconds::new(interval(10));
        let before: Vec<i64> = (0..60).map(|n| 1_000 + 10 * n).collect();
        let at = |now: &i64, seconds: &mut Seconds| seconds.of_next(UnixSeconds(*now)).0;
        let first: Vec<i64> = before.iter().map(|now| at(now, &mut seconds)).collect();
        assert_eq!(first, before);
        // It is set back by 590 seconds, twice.
        for later in [1, 2] {
            let again: Vec<i64> = before.iter().map(|now| at(now, &mut seconds)).collect();
            assert_eq!(again, before.iter().map(|now| now + later).collect::<Vec<_>>());
        }
        // Where every second has a flush, the clock is followed.
        let mut seconds = Seconds::new(interval(1));
        let all: Vec<i64> = (0..600).map(|now| at(&now, &mut seconds)).collect();
        assert_eq!(all.last(), Some(&599));
        assert_eq!([100, 101].map(|now| at(&now, &mut seconds)), [100, 101]);
    }

    #[test]
    fn flushes_within_a_second_do_not_run_ahead_of_the_clock() {
        let tenth = Interval::new(Duration::from_millis(100)).expect("not zero");
        let mut seconds = Seconds::new(tenth);
        seconds.begin_after(Some(UnixSeconds(100)));
        let times = [100, 101, 101, 101].map(|now| seconds.of_next(UnixSeconds(now)).0);
        assert_eq!(times, [101, 101, 101, 101]);
        assert_eq!(seconds.of_last(UnixSeconds(101)).0, 102);
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
