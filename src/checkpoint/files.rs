//! The files of open intervals: one for each, of records as in a spool's segment.
//!
//! ```text
//! file     "VNOPEN\0" version(1)   record*     see [`crate::spool::segment`]
//! record   lane: the worker; kind: bit 0 the first of a checkpoint, bit 1 the last; items: series;
//!          since: when it was written; body: states, see [`crate::aggregate::stored`]
//! ```
//!
//! The records of a checkpoint count together or not at all, each worker's apart; of several states
//! of a series the last one counts. Blocking, but without a thread, a clock or a lock.

mod kept;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use self::kept::Kept;
use super::last_states;
use crate::aggregate::Aggregate;
use crate::aggregate::stored::{self, Stored};
use crate::model::MetricKey;
use crate::spool::disk::Disk;
use crate::spool::segment::{self, Next, RECORD_HEAD_BYTES, Record, State};

const HEAD: &[u8; 8] = b"VNOPEN\0\x01";
const OPEN: &str = ".open";
const ASIDE: &str = ".corrupt";
/// Damaged files that are kept for people to look at; older ones are removed.
const MAX_ASIDE: usize = 4;
const FIRST: u8 = 1;
const LAST: u8 = 2;

/// A part of a checkpoint of one worker.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// The worker.
    pub(super) lane: Arc<str>,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
    pub(super) series: u64,
    /// Since 1970.
    pub(super) at_ms: u64,
    pub(super) body: Bytes,
}

/// What a process before this one has left.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Those of a later interval before those of an earlier one.
    pub(super) states: Vec<(MetricKey, Aggregate)>,
    /// What series kept at the end of the last interval that was flushed, and when that was.
    pub(super) values: Vec<(MetricKey, Aggregate)>,
    pub(super) values_ms: u64,
    /// When the last of `states` was written.
    pub(super) newest_ms: u64,
    /// Files whose end was never written.
    pub(super) torn: u64,
    /// Damaged ones, by the name under which they are kept.
    pub(super) corrupt: Vec<String>,
}

/// The files in a directory.
#[derive(Debug)]
pub(super) struct Files<D> {
    disk: D,
    kept: Kept,
    max_bytes: u64,
    /// The number of the file of interval 0, of which there is none.
    base: u64,
    /// Those that were there at the start.
    found: Vec<String>,
    /// By interval.
    open: BTreeMap<u32, File>,
}

#[derive(Clone, Copy, Debug)]
struct File {
    bytes: u64,
    /// Why nothing more is written to it.
    broken: Option<io::ErrorKind>,
}

impl<D: Disk> Files<D> {
    /// Reads all there is; nothing is removed before somebody says so.
    ///
    /// # Errors
    /// When the directory cannot be read, or a file in it: it may be another time.
    pub(super) fn open(mut disk: D, max_bytes: u64) -> io::Result<(Files<D>, Found)> {
        let (mut numbers, mut aside) = (Vec::new(), Vec::new());
        for (name, bytes) in disk.list()? {
            if let Some(number) = number_of(&name, OPEN) {
                numbers.push((number, bytes));
            } else if let Some(number) = number_of(&name, ASIDE) {
                aside.push(number);
            }
        }
        numbers.sort_unstable();
        aside.sort_unstable();
        let base = numbers.iter().map(|(number, _)| *number).chain(aside.iter().copied()).max();
        let (mut found, mut left) = (Found::default(), Vec::new());
        for &(number, bytes) in numbers.iter().rev() {
            let name = name_of(number, OPEN);
            let read = read(&mut disk, &name, bytes)?;
            found.states.extend(read.states);
            found.newest_ms = found.newest_ms.max(read.newest_ms);
            match read.damage {
                Damage::None => {}
                Damage::Torn => found.torn += 1,
                Damage::Corrupt => found.corrupt.push(name_of(number, ASIDE)),
            }
            left.push((name, number, read.damage));
        }
        let mut files = Files {
            disk,
            kept: Kept::default(),
            max_bytes,
            base: base.unwrap_or(0),
            found: Vec::new(),
            open: BTreeMap::new(),
        };
        let (values, values_ms) = files.read_kept();
        let held = values.into_iter().filter_map(|(key, held)| Some((key, held?)));
        (found.values, found.values_ms) = (held.collect(), values_ms);
        for (name, number, damage) in left {
            match damage {
                Damage::None | Damage::Torn => files.found.push(name),
                Damage::Corrupt => {
                    // A copy would be safer should we end before what was read is written
                    // again; what is damaged is rare enough to be lost then.
                    files.disk.rename(&name, &name_of(number, ASIDE))?;
                    aside.push(number);
                }
            }
        }
        for number in aside.iter().take(aside.len().saturating_sub(MAX_ASIDE)) {
            // What is left is tried again at the next start.
            let _ = files.disk.remove(&name_of(*number, ASIDE));
        }
        Ok((files, found))
    }

    /// Writes a part to the file of its interval; returns how many bytes that were.
    ///
    /// # Errors
    /// When it is not written, and nothing more will be in this interval: the checkpoints before
    /// are there.
    pub(super) fn append(&mut self, interval: u32, part: Part) -> io::Result<u64> {
        let name = name_of(self.base + u64::from(interval), OPEN);
        let file = match self.open.get(&interval) {
            Some(file) => *file,
            None => self.create(&name)?,
        };
        self.open.insert(interval, file);
        if let Some(broken) = file.broken {
            return Err(broken.into());
        }
        let kind = if part.is_first { FIRST } else { 0 } | if part.is_last { LAST } else { 0 };
        let Part { lane, series, at_ms, body, .. } = part;
        let record = Record { kind, lane, items: series, since_ms: at_ms, body };
        let written = self.write(&name, file.bytes, &record);
        let bytes = record.stored_bytes();
        let file = match &written {
            Ok(()) => File { bytes: file.bytes + bytes, ..file },
            Err(error) => {
                // If it cannot be cut it is torn, or corrupt from here on.
                let _ = self.disk.truncate(&name, file.bytes);
                File { broken: Some(error.kind()), ..file }
            }
        };
        self.open.insert(interval, file);
        written.map(|()| bytes)
    }

    fn create(&mut self, name: &str) -> io::Result<File> {
        self.disk.create(name)?;
        if let Err(error) = self.disk.write(name, 0, HEAD) {
            // Without a head it is nothing at the next start.
            let _ = self.disk.remove(name);
            return Err(error);
        }
        Ok(File { bytes: HEAD.len() as u64, broken: None })
    }

    fn write(&mut self, name: &str, at: u64, record: &Record) -> io::Result<()> {
        if at + record.stored_bytes() > self.max_bytes {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let head = record.encode_head(State::Waiting).ok_or(io::ErrorKind::FileTooLarge)?;
        self.disk.write(name, at, &head)?;
        self.disk.write(name, at + head.len() as u64, &record.body)
    }

    /// Removes the files of the intervals up to this one, and those that were there at the start.
    ///
    /// # Errors
    /// One of them is still there.
    pub(super) fn retire(&mut self, interval: u32) -> io::Result<()> {
        let later = self.open.split_off(&(interval + 1));
        let over = std::mem::replace(&mut self.open, later);
        let mut result = self.forget_found();
        for interval in over.into_keys() {
            let removed = self.remove(&name_of(self.base + u64::from(interval), OPEN));
            result = result.and(removed);
        }
        result
    }

    /// Removes those that were there at the start.
    ///
    /// # Errors
    /// One of them is still there.
    pub(super) fn forget_found(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        for name in std::mem::take(&mut self.found) {
            result = result.and(self.remove(&name));
        }
        result
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match self.disk.remove(name) {
            // Without its head nothing of it is read back.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.disk.truncate(name, 0).map_err(|_| error)
            }
            _ => Ok(()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    None,
    Torn,
    Corrupt,
}

struct Read {
    states: HashMap<MetricKey, Aggregate>,
    newest_ms: u64,
    damage: Damage,
}

/// What one file holds, as far as it can be read.
fn read(disk: &mut impl Disk, name: &str, bytes: u64) -> io::Result<Read> {
    let mut read = Read { states: HashMap::new(), newest_ms: 0, damage: Damage::None };
    let mut head = [0; HEAD.len()];
    if bytes < head.len() as u64 {
        read.damage = Damage::Torn;
        return Ok(read);
    }
    disk.read(name, 0, &mut head)?;
    if head != *HEAD {
        read.damage = if head == [0; HEAD.len()] { Damage::Torn } else { Damage::Corrupt };
        return Ok(read);
    }
    let mut at = head.len() as u64;
    let mut counted: Vec<Stored> = Vec::new();
    let mut waiting: HashMap<Arc<str>, Vec<Stored>> = HashMap::new();
    while at < bytes {
        let left = bytes - at;
        let mut head = vec![0; left.min(RECORD_HEAD_BYTES as u64) as usize];
        disk.read(name, at, &mut head)?;
        let head = match segment::next(&head, left) {
            Next::Record(head) => head,
            Next::Torn => {
                read.damage = Damage::Torn;
                break;
            }
            Next::Corrupt => {
                read.damage = Damage::Corrupt;
                break;
            }
        };
        let mut rest = vec![0; head.length as usize];
        disk.read(name, at + RECORD_HEAD_BYTES as u64, &mut rest)?;
        at += head.stored_bytes();
        let record = head.record(rest.into());
        let states = record.as_ref().and_then(|record| stored::restore(&record.body).ok());
        let (Some(record), Some(states)) = (record, states) else {
            read.damage = Damage::Corrupt;
            break;
        };
        let parts = waiting.entry(Arc::clone(&record.lane)).or_default();
        if record.kind & FIRST != 0 {
            parts.clear();
        }
        parts.extend(states);
        if record.kind & LAST != 0 {
            counted.append(parts);
            read.newest_ms = read.newest_ms.max(record.since_ms);
        }
    }
    read.states = last_states(counted);
    Ok(read)
}

fn name_of(number: u64, ending: &str) -> String {
    format!("{number:020}{ending}")
}

fn number_of(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests;
