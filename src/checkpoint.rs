//! The open interval on disk, so that the end of the process costs a second of samples and not
//! an interval.
//!
//! ```text
//! worker ◄── begin, next slice ── thread checkpoint ──► DIRECTORY/N.open     one for an interval
//!    └────────── slice ─────────────► encode, write          │
//! flush: drained ── retire(N) ──► removes N.open ── then the points go to sinks and upstream
//! start: reads all *.open ──► states to the workers, as samples received here
//! ```
//!
//! Once every so often the thread asks each worker for what has changed since the last time
//! ([`crate::aggregate::checkpoint`]), slice by slice; encoding and the disk are its own business.
//! A checkpoint counts once its last record is written ([`files`]); what is torn or damaged costs
//! what stands behind it.
//!
//! **Rather lost than twice.** A file is removed after the workers have been drained and before
//! anything of that interval is handed to a sink or upstream. So what is on disk was never
//! delivered, and all of it is read back; what was handed over is as safe as without a checkpoint:
//! a `kill -9` before it is delivered, or in the spool, loses it.
//!
//! Nothing is synced: files survive the end of the process, not a loss of power. Events, service
//! checks and timestamped values are not in it.
//!
//! Values that a classic series keeps from one interval to the next are in a file of their own, which
//! each flush writes anew when it retires the interval ([`files`], `kept`); nothing is written where
//! there are none.

mod files;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::{error, info, warn};

use self::files::{Files, Found, Part};
use crate::aggregate::shard::Entry;
use crate::aggregate::stored::{self, Stored};
use crate::aggregate::{Aggregate, shard_of_series};
use crate::model::MetricKey;
use crate::pipeline::worker::{GivenAway, Work};
use crate::spool::Turn;
use crate::spool::disk::{Directory, cause};
use crate::telemetry::{Telemetry, names};

/// A directory that another process uses is tried again after so long.
const OPEN_AGAIN: Duration = Duration::from_millis(200);
/// A flush waits for the disk for so long, and is then delivered all the same.
const RETIRE_WITHIN: Duration = Duration::from_secs(1);
/// States that a worker takes in at once.
const TAKEN_IN: usize = 256;

/// What a checkpoint is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where; of this daemon's own.
    pub directory: PathBuf,
    /// How often.
    pub every: Duration,
    /// The file of one interval takes no more.
    pub max_bytes: u64,
    /// What is older is not read back.
    pub max_age: Duration,
}

/// The running thread.
#[derive(Debug)]
pub struct Checkpoint {
    commands: Sender<Command>,
    thread: JoinHandle<()>,
    ended: Receiver<()>,
}

/// For the flush: says that an interval is over.
#[derive(Clone, Debug)]
pub struct Retiring(Sender<Command>);

#[derive(Debug)]
enum Command {
    /// Nothing of the intervals up to this one is to be read back. The answer comes when it is so.
    /// Values that series keep are to be there instead.
    Retire(u32, Vec<Entry>, SyncSender<()>),
    Stop,
}

/// Somebody said [`Command::Stop`], or the workers are gone.
struct Stopped;

impl Checkpoint {
    /// Starts the thread, which reads back what a process before this one left when it is our
    /// `turn`. `inboxes` are those of all workers, in order.
    ///
    /// # Errors
    /// When the directory cannot be written, or the system gives no thread.
    pub fn start(
        plan: Plan,
        turn: &Turn,
        inboxes: Vec<SyncSender<Work>>,
        telemetry: Telemetry,
    ) -> io::Result<Checkpoint> {
        Directory::check(&plan.directory)?;
        let (commands, received) = channel();
        let (end, ended) = sync_channel(1);
        let turn = turn.clone();
        let thread = thread::Builder::new().name("checkpoint".to_owned()).spawn(move || {
            let writer = Writer { plan, inboxes, commands: received, telemetry, has_failed: false };
            let _stopped = writer.run(&turn);
            // Whoever waited may have given up.
            let _ = end.try_send(());
        })?;
        Ok(Checkpoint { commands, thread, ended })
    }

    /// For the flush.
    pub fn retiring(&self) -> Retiring {
        Retiring(self.commands.clone())
    }

    /// Ends the thread; `false` if the disk keeps it, and it may hold on to the workers.
    pub fn stop(self) -> bool {
        // It ends by itself only when the workers have.
        let _ = self.commands.send(Command::Stop);
        let has_ended = self.ended.recv_timeout(RETIRE_WITHIN).is_ok();
        // A panic in it has been reported by the panic hook, which ends the process.
        has_ended && self.thread.join().is_ok()
    }
}

impl Retiring {
    /// The intervals up to this one have been drained: returns when nothing of them can be read
    /// back, or when the disk takes too long for that.
    /// Values that series keep into the next one are written before.
    pub fn retire(&self, interval: u32, kept: Vec<Entry>) {
        let (done, answer) = sync_channel(1);
        if self.0.send(Command::Retire(interval, kept, done)).is_ok()
            && answer.recv_timeout(RETIRE_WITHIN) == Err(RecvTimeoutError::Timeout)
        {
            warn!("the disk is slow: after a crash what is now delivered may be sent again");
        }
    }
}

struct Writer {
    plan: Plan,
    inboxes: Vec<SyncSender<Work>>,
    commands: Receiver<Command>,
    telemetry: Telemetry,
    /// Said once, until it works again.
    has_failed: bool,
}

impl Writer {
    fn run(mut self, turn: &Turn) -> Result<(), Stopped> {
        let (mut files, found) = self.open(turn)?;
        self.read_back(&mut files, found)?;
        let mut next = Instant::now();
        loop {
            match self.commands.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(command) => self.obey(command, Some(&mut files))?,
                Err(RecvTimeoutError::Timeout) => {
                    next = Instant::now() + self.plan.every;
                    self.write(&mut files)?;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
    }

    fn open(&mut self, turn: &Turn) -> Result<(Files<Directory>, Found), Stopped> {
        loop {
            if turn.has_come() {
                let opened = Directory::open(&self.plan.directory)
                    .and_then(|disk| Files::open(disk, self.plan.max_bytes));
                match opened {
                    Ok(opened) => {
                        self.has_failed = false;
                        return Ok(opened);
                    }
                    Err(error) => self.note(&error, &self.plan.directory.clone()),
                }
            }
            match self.commands.recv_timeout(OPEN_AGAIN) {
                Ok(command) => self.obey(command, None)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Stopped),
            }
        }
    }

    fn note(&mut self, error: &io::Error, path: &Path) {
        self.telemetry.count(names::CHECKPOINT_ERROR_TOTAL, &format!("cause:{}", cause(error)), 1);
        if !std::mem::replace(&mut self.has_failed, true) {
            error!(path = %path.display(), %error, "the open interval cannot be kept on disk");
        }
    }

    fn obey(
        &mut self,
        command: Command,
        files: Option<&mut Files<Directory>>,
    ) -> Result<(), Stopped> {
        match command {
            Command::Stop => Err(Stopped),
            Command::Retire(interval, kept, done) => {
                if let Some(files) = files {
                    let mut body = Vec::new();
                    for (key, held) in &kept {
                        stored::store(key, Some(held), &mut body);
                    }
                    let written = files.keep(body.into(), kept.len() as u64, now_ms());
                    let retired = files.retire(interval);
                    if let Err(error) = written.and(retired.map(|()| 0)) {
                        self.note(&error, &self.plan.directory.clone());
                    }
                }
                // Whoever waited may have given up.
                let _ = done.try_send(());
                Ok(())
            }
        }
    }

    /// Does what was said meanwhile.
    fn obey_all(&mut self, files: &mut Files<Directory>) -> Result<(), Stopped> {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.obey(command, Some(files))?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(Stopped),
            }
        }
    }

    /// Gives what was found to the workers. The files stay until a checkpoint has all of it, or
    /// it is flushed.
    fn read_back(&mut self, files: &mut Files<Directory>, found: Found) -> Result<(), Stopped> {
        let Found { states, values, values_ms, newest_ms, torn, corrupt } = found;
        let path = self.plan.directory.display().to_string();
        for file in &corrupt {
            error!(path, file, "a damaged file of the open interval is kept aside");
        }
        let damaged = corrupt.len() as u64;
        self.telemetry.count(names::CHECKPOINT_CORRUPT_TOTAL, "", damaged);
        let age = |at_ms: u64| Duration::from_millis(now_ms().saturating_sub(at_ms));
        if !values.is_empty() && age(values_ms) <= self.plan.max_age {
            let (series, age) = (values.len(), age(values_ms));
            self.give_back(files, values, false)?;
            info!(path, series, ?age, "gauges and totals of the last process go on");
        }
        if states.is_empty() {
            return Ok(());
        }
        let series = states.len() as u64;
        let age = age(newest_ms);
        if age > self.plan.max_age {
            warn!(path, series, ?age, "what is kept of an open interval is too old");
            self.telemetry.count(names::CHECKPOINT_DROPPED_TOTAL, "reason:too_old", series);
            if let Err(error) = files.forget_found() {
                self.note(&error, &self.plan.directory.clone());
            }
            return Ok(());
        }
        self.give_back(files, states, true)?;
        info!(path, series, ?age, torn, "the open interval of the last process goes on");
        self.telemetry.count(names::CHECKPOINT_RESTORED_TOTAL, "", series);
        Ok(())
    }

    /// Gives what series held to the workers that have them: in an open interval, or at the end of
    /// one.
    fn give_back(
        &mut self,
        files: &mut Files<Directory>,
        states: Vec<(MetricKey, Aggregate)>,
        are_open: bool,
    ) -> Result<(), Stopped> {
        let mut shares: Vec<Vec<(MetricKey, Aggregate)>> = Vec::new();
        shares.resize_with(self.inboxes.len(), Vec::new);
        for (key, held) in states {
            shares[shard_of_series(&key, self.inboxes.len())].push((key, held));
        }
        for (worker, mut share) in shares.into_iter().enumerate() {
            while !share.is_empty() {
                let states = share.split_off(share.len().saturating_sub(TAKEN_IN));
                let (done, wait) = channel();
                let work = Work::Restore { states, are_open, done };
                self.inboxes[worker].send(work).map_err(|_| Stopped)?;
                // Nothing is ever sent: this is the error that says that it is done.
                let _ = wait.recv();
                self.obey_all(files)?;
            }
        }
        Ok(())
    }

    /// One checkpoint of all workers.
    fn write(&mut self, files: &mut Files<Directory>) -> Result<(), Stopped> {
        let start = Instant::now();
        let mut is_complete = true;
        for worker in 0..self.inboxes.len() {
            is_complete &= self.write_worker(worker, files)?;
        }
        if is_complete && let Err(error) = files.forget_found() {
            self.note(&error, &self.plan.directory.clone());
        }
        self.has_failed &= !is_complete;
        self.telemetry.duration(names::CHECKPOINT_DURATION_NS, "part:all", start.elapsed());
        Ok(())
    }

    /// Whether all that the worker gave is written.
    fn write_worker(
        &mut self,
        worker: usize,
        files: &mut Files<Directory>,
    ) -> Result<bool, Stopped> {
        let lane = worker.to_string().into();
        let (mut of, mut is_first) = (None, true);
        loop {
            let GivenAway { slice, pause } = self.ask(worker, of.is_none())?;
            self.telemetry.duration(names::CHECKPOINT_DURATION_NS, "part:pause", pause);
            if *of.get_or_insert(slice.interval) != slice.interval {
                // A flush came between: what was missing of the last interval is not needed.
                return Ok(true);
            }
            let mut body = Vec::new();
            for (key, held) in &slice.entries {
                stored::store(key, held.as_ref(), &mut body);
            }
            let part = Part {
                lane: std::sync::Arc::clone(&lane),
                is_first,
                is_last: slice.is_last,
                series: slice.entries.len() as u64,
                at_ms: now_ms(),
                body: body.into(),
            };
            is_first = false;
            let (series, is_last) = (part.series, part.is_last);
            if series > 0 || !is_last {
                match files.append(slice.interval, part) {
                    Ok(bytes) => {
                        self.telemetry.count(names::CHECKPOINT_SERIES_TOTAL, "", series);
                        self.telemetry.count(names::CHECKPOINT_WRITTEN_BYTES_TOTAL, "", bytes);
                    }
                    Err(error) => {
                        self.note(&error, &self.plan.directory.clone());
                        return Ok(false);
                    }
                }
            }
            self.obey_all(files)?;
            if is_last {
                return Ok(true);
            }
        }
    }

    fn ask(&self, worker: usize, begins: bool) -> Result<GivenAway, Stopped> {
        let (reply, answer) = sync_channel(1);
        self.inboxes[worker].send(Work::Checkpoint { begins, reply }).map_err(|_| Stopped)?;
        answer.recv().map_err(|_| Stopped)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The last state of each series; what holds nothing any more is not among them.
fn last_states(states: impl IntoIterator<Item = Stored>) -> HashMap<MetricKey, Aggregate> {
    let mut last = HashMap::new();
    for (key, held) in states {
        match held {
            Some(held) => last.insert(key, held),
            None => last.remove(&key),
        };
    }
    last
}
