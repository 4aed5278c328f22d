//! Records in the segments of a directory: appended, marked in place, gone with their segment.
//!
//! A segment is removed when no record in it is of use any more, and only the newest one is
//! appended to. At the start every segment is read: an end that was never written is cut off;
//! one with anything else in it that was not written there is kept aside under another name,
//! and what stands before the damage is moved to a segment of its own.
//!
//! Blocking, but without a thread, a clock or a lock: [`super::writer`] has those, and the
//! simulation drives it on a disk that fails.

mod start;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::Disk;
use super::segment::{self, Head, Next, RECORD_HEAD_BYTES, Record, SEGMENT_HEAD, STATE_AT, State};

const SEGMENT: &str = ".segment";
const ASIDE: &str = ".corrupt";
/// Damaged segments that are kept for people to look at; older ones are removed.
const MAX_ASIDE: usize = 8;

/// The bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Of all segments together.
    pub max_bytes: u64,
    /// A segment that has reached this size is not appended to.
    pub segment_bytes: u64,
    /// Whether each append is synced.
    pub sync: bool,
}

/// Segments in a directory.
#[derive(Debug)]
pub struct Store<D> {
    disk: D,
    limits: StoreLimits,
    segments: BTreeMap<u64, Segment>,
    /// Of all segments.
    bytes: u64,
    active: Option<u64>,
    next: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    bytes: u64,
    /// Records that are of use.
    live: u64,
    /// Whether a record in it could not be read.
    is_corrupt: bool,
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The number of the segment.
    pub segment: u64,
    at: u64,
    length: u32,
}

/// A record that was there at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub location: Location,
    /// As in [`Record`].
    pub kind: u8,
    /// As in [`Record`].
    pub lane: Arc<str>,
    /// As in [`Record`].
    pub items: u64,
    /// As in [`Record`].
    pub since_ms: u64,
    /// Bytes of its body.
    pub body_bytes: usize,
    /// Whether it may have been taken.
    pub is_unsure: bool,
}

/// What the start found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Records that are of use.
    pub found: Vec<Found>,
    /// Segments whose end was never written.
    pub torn: u64,
    /// Damaged segments, by the name under which they are kept.
    pub corrupt: Vec<String>,
    /// Records that stood before a damage and could not be moved.
    pub lost: Vec<Found>,
}

/// Why nothing was appended.
#[derive(Debug)]
pub enum Refused {
    /// There is no room within the bounds.
    Full,
    /// The system refuses.
    Io(io::Error),
}

/// Why a record was not read.
#[derive(Debug)]
pub enum Unreadable {
    /// It is not what was written.
    Corrupt,
    /// The system refuses.
    Io(io::Error),
}

impl<D: Disk> Store<D> {
    /// Reads all there is.
    ///
    /// # Errors
    /// When the directory cannot be read at all. A segment that cannot is left alone.
    pub fn open(disk: D, limits: StoreLimits) -> io::Result<(Store<D>, Scan)> {
        let (segments, active) = (BTreeMap::new(), None);
        let mut store = Store { disk, limits, segments, bytes: 0, active, next: 1 };
        let (mut numbers, mut aside) = (Vec::new(), Vec::new());
        for (name, bytes) in store.disk.list()? {
            if let Some(number) = number_of(&name, SEGMENT) {
                numbers.push((number, bytes));
            } else if let Some(number) = number_of(&name, ASIDE) {
                aside.push(number);
            }
        }
        numbers.sort_unstable();
        aside.sort_unstable();
        let last = numbers.iter().map(|(number, _)| *number).chain(aside.iter().copied()).max();
        store.next = last.map_or(1, |last| last + 1);
        let mut scan = Scan::default();
        for (number, bytes) in numbers {
            // What cannot be read now may be at the next start.
            if let Ok(read) = store.scan_segment(number, bytes) {
                store.take_in(number, bytes, read, &mut scan);
            }
        }
        aside.extend(scan.corrupt.iter().filter_map(|name| number_of(name, ASIDE)));
        for number in aside.iter().take(aside.len().saturating_sub(MAX_ASIDE)) {
            // What is left is tried again at the next start.
            let _ = store.disk.remove(&aside_name(*number));
        }
        Ok((store, scan))
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends records, all or none, and syncs them if that is wanted. Those of one call are in
    /// one segment.
    ///
    /// # Errors
    /// See [`Refused`]. None of them is there then, as far as that can be had.
    pub fn append(&mut self, records: &[(Record, State)]) -> Result<Vec<Location>, Refused> {
        let needed: u64 = records.iter().map(|(record, _)| record.stored_bytes()).sum();
        if self.bytes + needed + SEGMENT_HEAD.len() as u64 > self.limits.max_bytes {
            return Err(Refused::Full);
        }
        self.append_anyhow(records).map_err(Refused::Io)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// See [`Unreadable`].
    pub fn read(&mut self, location: Location) -> Result<Record, Unreadable> {
        let name = segment_name(location.segment);
        let head_and_rest = self.read_at(&name, location).map_err(Unreadable::Io)?;
        let record = head_and_rest.and_then(|(head, rest)| head.record(rest));
        if record.is_none()
            && let Some(segment) = self.segments.get_mut(&location.segment)
        {
            segment.is_corrupt = true;
        }
        record.ok_or(Unreadable::Corrupt)
    }

    /// Writes down what is known of a record; synced if `must_last`.
    ///
    /// # Errors
    /// What the system says; it may be written or not.
    pub fn mark(&mut self, location: Location, state: State, must_last: bool) -> io::Result<()> {
        let name = segment_name(location.segment);
        self.disk.write(&name, location.at + STATE_AT, &[state.as_byte()])?;
        if must_last && self.limits.sync { self.disk.sync(&name) } else { Ok(()) }
    }

    /// Says that a record is of no use any more. `true` if its segment was damaged, and is now
    /// kept aside.
    ///
    /// # Errors
    /// What the system says; the record may be found again at the next start.
    pub fn erase(&mut self, location: Location) -> io::Result<bool> {
        let number = location.segment;
        let Some(segment) = self.segments.get_mut(&number) else { return Ok(false) };
        segment.live = segment.live.saturating_sub(1);
        let Segment { bytes, live, is_corrupt } = *segment;
        if live > 0 {
            return self.mark(location, State::Done, false).map(|()| false);
        }
        self.segments.remove(&number);
        self.bytes -= bytes;
        if self.active == Some(number) {
            self.active = None;
        }
        // Should removing it fail, this keeps it from being delivered again.
        let marked = self.mark(location, State::Done, false);
        let gone = match is_corrupt {
            true => self.disk.rename(&segment_name(number), &aside_name(number)),
            false => self.disk.remove(&segment_name(number)),
        };
        gone.or(marked).map(|()| is_corrupt)
    }

    fn append_anyhow(&mut self, records: &[(Record, State)]) -> io::Result<Vec<Location>> {
        let (number, start) = self.writable_segment()?;
        match self.write_all(number, start, records) {
            Ok(locations) => {
                let end = locations.last().map_or(start, Location::end);
                let segment = self.segments.entry(number).or_default();
                segment.live += locations.len() as u64;
                self.bytes += end - segment.bytes;
                segment.bytes = end;
                Ok(locations)
            }
            Err(error) => {
                // Nothing is known of what a failed sync was for, so this segment is not
                // appended to any more. Should cutting it fail, too, its records may be
                // delivered again after a restart.
                let _ = self.disk.truncate(&segment_name(number), start);
                self.active = None;
                if self.segments.get(&number).is_some_and(|segment| segment.live == 0) {
                    self.forget(number);
                }
                Err(error)
            }
        }
    }

    fn write_all(
        &mut self,
        number: u64,
        start: u64,
        records: &[(Record, State)],
    ) -> io::Result<Vec<Location>> {
        let name = segment_name(number);
        let mut at = start;
        let mut locations = Vec::with_capacity(records.len());
        for (record, state) in records {
            let head = record.encode_head(*state).ok_or(io::ErrorKind::FileTooLarge)?;
            self.disk.write(&name, at, &head)?;
            self.disk.write(&name, at + head.len() as u64, &record.body)?;
            let length = (record.lane.len() + record.body.len()) as u32;
            locations.push(Location { segment: number, at, length });
            at += record.stored_bytes();
        }
        if self.limits.sync {
            self.disk.sync(&name)?;
        }
        Ok(locations)
    }

    /// The segment that is appended to, and its size.
    fn writable_segment(&mut self) -> io::Result<(u64, u64)> {
        if let Some(number) = self.active
            && let Some(segment) = self.segments.get(&number)
            && segment.bytes < self.limits.segment_bytes
        {
            return Ok((number, segment.bytes));
        }
        let number = self.next;
        self.next += 1;
        let name = segment_name(number);
        self.disk.create(&name)?;
        if let Err(error) = self.disk.write(&name, 0, SEGMENT_HEAD) {
            // Without a head it is nothing at the next start.
            let _ = self.disk.remove(&name);
            return Err(error);
        }
        let bytes = SEGMENT_HEAD.len() as u64;
        self.segments.insert(number, Segment { bytes, ..Segment::default() });
        self.bytes += bytes;
        self.active = Some(number);
        Ok((number, bytes))
    }

    fn forget(&mut self, number: u64) {
        if let Some(segment) = self.segments.remove(&number) {
            self.bytes -= segment.bytes;
            // An empty one is removed at the next start.
            let _ = self.disk.remove(&segment_name(number));
        }
    }

    /// Head, lane and body at a place; `None` if there is no record.
    fn read_at(&mut self, name: &str, at: Location) -> io::Result<Option<(Head, Bytes)>> {
        let mut bytes = vec![0; RECORD_HEAD_BYTES + at.length as usize];
        self.disk.read(name, at.at, &mut bytes)?;
        let bytes = Bytes::from(bytes);
        Ok(match segment::next(&bytes, bytes.len() as u64) {
            Next::Record(head) => Some((head, bytes.slice(RECORD_HEAD_BYTES..))),
            Next::Torn | Next::Corrupt => None,
        })
    }

    /// The disk, as a crash leaves it.
    pub fn into_disk(self) -> D {
        self.disk
    }
}

impl Location {
    fn end(&self) -> u64 {
        self.at + RECORD_HEAD_BYTES as u64 + u64::from(self.length)
    }
}

fn segment_name(number: u64) -> String {
    format!("{number:020}{SEGMENT}")
}

fn aside_name(number: u64) -> String {
    format!("{number:020}{ASIDE}")
}

fn number_of(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}
