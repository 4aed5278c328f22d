//! The thread between a queue and its segments: it asks what is to be done and does it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::disk::{Directory, Disk, cause};
use super::queue::{Done, Work};
use super::segment::State;
use super::store::{Refused, Scan, Store, StoreLimits, Unreadable};
use super::{Shared, Turn};
use crate::telemetry::names;

/// A directory that another process uses, or that cannot be read, is tried again after so long.
const OPEN_AGAIN: Duration = Duration::from_millis(500);

/// Starts the thread. `_ended` is dropped when it ends, which it does when the spool is closed.
pub(super) fn start(
    name: &str,
    path: PathBuf,
    limits: StoreLimits,
    turn: Turn,
    shared: Arc<Shared>,
    ended: oneshot::Sender<()>,
) -> io::Result<()> {
    thread::Builder::new().name(format!("spool-{name}")).spawn(move || {
        if let Some(store) = open(&path, limits, &turn, &shared) {
            run(store, &shared);
        }
        drop(ended);
    })?;
    Ok(())
}

/// `None` if the directory cannot be had until the spool is closed, and then neither.
fn open(
    path: &Path,
    limits: StoreLimits,
    turn: &Turn,
    shared: &Shared,
) -> Option<Store<Directory>> {
    let mut was_told = false;
    loop {
        // Asked before, so that what keeps it now may be gone by the last try.
        let is_closing = shared.lock().is_closing;
        if turn.has_come() {
            match Directory::open(path).and_then(|disk| Store::open(disk, limits)) {
                Ok((store, scan)) => {
                    take_in(path, scan, &store, shared);
                    return Some(store);
                }
                Err(error) => {
                    shared.count_error(&error);
                    if !was_told {
                        let path = path.display();
                        warn!(
                            %path, %error,
                            "the spool cannot be used yet: what waits is in memory"
                        );
                        was_told = true;
                    }
                }
            }
        }
        if is_closing {
            return None;
        }
        let state = shared.lock();
        if !state.is_closing {
            drop(shared.work.wait_timeout(state, OPEN_AGAIN));
        }
    }
}

fn take_in(path: &Path, scan: Scan, store: &Store<Directory>, shared: &Shared) {
    let Scan { found, torn, corrupt, lost } = scan;
    let path = path.display();
    for file in &corrupt {
        error!(%path, file, "a damaged segment of the spool is kept aside");
    }
    if !found.is_empty() || torn > 0 {
        let items: u64 = found.iter().map(|found| found.items).sum();
        info!(%path, records = found.len(), items, torn, "the spool holds what is undelivered");
    }
    shared.count_corrupt(corrupt.len() as u64);
    let items = found.iter().chain(&lost).map(|found| found.items).sum();
    shared.telemetry.count(names::SPOOL_FOUND_TOTAL, &shared.tag, items);
    let mut state = shared.lock();
    state.queue.open_disk(found, lost);
    state.disk_bytes = store.bytes();
    drop(state);
    shared.changed.notify_waiters();
}

fn run(mut store: Store<Directory>, shared: &Shared) {
    while let Some(work) = next_work(shared) {
        let (done, trouble) = carry_out(&mut store, work);
        match trouble {
            None => {}
            Some(Trouble::Io(error)) => {
                shared.count_error(&error);
                error!(spool = shared.tag, %error, "the disk of the spool fails");
            }
            Some(Trouble::Corrupt) => {
                shared.count_corrupt(1);
                error!(spool = shared.tag, "a record of the spool is damaged");
            }
        }
        let mut state = shared.lock();
        state.disk_bytes = store.bytes();
        let event = state.queue.finish_work(done, shared.clock.now_ms());
        if let Some(event) = event {
            Shared::answer(&mut state, event);
        }
        drop(state);
        shared.changed.notify_waiters();
    }
}

/// Waits for something to do. `None` when the spool is closed and nothing is left that the
/// disk would take.
fn next_work(shared: &Shared) -> Option<Work> {
    let mut state = shared.lock();
    loop {
        let now_ms = shared.clock.now_ms();
        state.queue.expire(now_ms);
        if let Some(work) = state.queue.next_work(now_ms) {
            return Some(work);
        }
        if state.is_closing {
            return None;
        }
        let event_ms = state.queue.next_event_ms(now_ms);
        state = match event_ms {
            None => shared.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(at) => {
                let wait = Duration::from_millis(at.saturating_sub(now_ms).max(1));
                let woken = shared.work.wait_timeout(state, wait);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
    }
}

/// What went wrong with a piece of work, for the log.
#[derive(Debug)]
pub enum Trouble {
    /// The system refuses.
    Io(io::Error),
    /// A record is not what was written.
    Corrupt,
}

/// Does a piece of work.
pub fn carry_out<D: Disk>(store: &mut Store<D>, work: Work) -> (Done, Option<Trouble>) {
    let noted = |result: io::Result<bool>| match result {
        Ok(false) => (Done::Nothing, None),
        Ok(true) => (Done::Nothing, Some(Trouble::Corrupt)),
        Err(error) => (Done::Nothing, Some(Trouble::Io(error))),
    };
    match work {
        Work::Erase(location) => noted(store.erase(location)),
        Work::Mark(location, state) => noted(store.mark(location, state, false).map(|()| false)),
        Work::Read { id, location, bind } => {
            if bind && let Err(error) = store.mark(location, State::Unsure, true) {
                return (Done::NotMarked(id), Some(Trouble::Io(error)));
            }
            match store.read(location) {
                Ok(record) => (Done::Read(id, record.body), None),
                Err(Unreadable::Corrupt) => (Done::Unreadable(id), Some(Trouble::Corrupt)),
                Err(Unreadable::Io(error)) => (Done::Unreadable(id), Some(Trouble::Io(error))),
            }
        }
        Work::Withdraw(id, location) => match store.mark(location, State::Done, true) {
            Ok(()) => (Done::Withdrawn(id), None),
            Err(error) => (Done::NotMarked(id), Some(Trouble::Io(error))),
        },
        Work::Write(records) => {
            let (ids, records): (Vec<_>, Vec<_>) =
                records.into_iter().map(|(id, record, state)| (id, (record, state))).unzip();
            match store.append(&records) {
                Ok(locations) => (Done::Written(ids.into_iter().zip(locations).collect()), None),
                Err(Refused::Full) => (Done::Full(ids), None),
                Err(Refused::Io(error)) => (Done::Failed(ids), Some(Trouble::Io(error))),
            }
        }
    }
}

impl Shared {
    fn count_error(&self, error: &io::Error) {
        let tags = format!("{},cause:{}", self.tag, cause(error));
        self.telemetry.count(names::SPOOL_ERROR_TOTAL, &tags, 1);
    }

    fn count_corrupt(&self, segments: u64) {
        self.telemetry.count(names::SPOOL_CORRUPT_TOTAL, &self.tag, segments);
    }
}
