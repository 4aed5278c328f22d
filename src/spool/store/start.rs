//! What the segments of a directory hold when a process starts.

use std::io;
use std::sync::Arc;

use super::{Found, Location, Scan, Segment, Store, aside_name, segment_name};
use crate::spool::disk::Disk;
use crate::spool::segment::{self, Next, RECORD_HEAD_BYTES, Record, SEGMENT_HEAD, State};

impl<D: Disk> Store<D> {
    /// What one segment holds.
    pub(super) fn scan_segment(&mut self, number: u64, bytes: u64) -> io::Result<Read> {
        let name = segment_name(number);
        let mut read = Read::default();
        let mut head = [0; SEGMENT_HEAD.len()];
        if bytes < head.len() as u64 {
            read.damage = Damage::Torn;
            return Ok(read);
        }
        self.disk.read(&name, 0, &mut head)?;
        if head != *SEGMENT_HEAD {
            read.damage =
                if head == [0; SEGMENT_HEAD.len()] { Damage::Torn } else { Damage::Corrupt };
            return Ok(read);
        }
        let mut at = head.len() as u64;
        while at < bytes {
            let left = bytes - at;
            let mut head = vec![0; left.min(RECORD_HEAD_BYTES as u64) as usize];
            self.disk.read(&name, at, &mut head)?;
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
            let location = Location { segment: number, at, length: head.length };
            at += head.stored_bytes();
            if head.state == State::Done {
                read.end = at;
                continue;
            }
            let rest = self.read_at(&name, location)?.map(|(_, rest)| rest);
            match rest.and_then(|rest| head.record(rest)) {
                Some(record) => {
                    let is_unsure = head.state == State::Unsure;
                    read.found.push((Found::of(&record, location, is_unsure), head.state));
                    read.end = at;
                }
                None => {
                    read.damage = Damage::Corrupt;
                    break;
                }
            }
        }
        Ok(read)
    }

    pub(super) fn take_in(&mut self, number: u64, bytes: u64, read: Read, scan: &mut Scan) {
        let Read { found, end, damage } = read;
        if damage == Damage::Corrupt {
            return self.salvage(number, found, scan);
        }
        let mut bytes = bytes;
        if damage == Damage::Torn {
            scan.torn += 1;
            // It is never appended to: this only saves the room.
            if self.disk.truncate(&segment_name(number), end).is_ok() {
                bytes = end;
            }
        }
        if found.is_empty() {
            // Tried again at the next start.
            let _ = self.disk.remove(&segment_name(number));
            return;
        }
        self.bytes += bytes;
        let live = found.len() as u64;
        self.segments.insert(number, Segment { bytes, live, is_corrupt: false });
        scan.found.extend(found.into_iter().map(|(found, _)| found));
    }

    /// Moves what stands before a damage to a segment of its own, and the damaged one aside.
    fn salvage(&mut self, number: u64, found: Vec<(Found, State)>, scan: &mut Scan) {
        for (old, state) in found {
            let record = self.read(old.location).ok();
            let moved = record.and_then(|record| self.append_anyhow(&[(record, state)]).ok());
            match moved.as_deref() {
                Some(&[location]) => scan.found.push(Found { location, ..old }),
                _ => scan.lost.push(old),
            }
        }
        let aside = aside_name(number);
        // If it keeps its name, what was moved is found twice at the next start.
        if self.disk.rename(&segment_name(number), &aside).is_ok() {
            scan.corrupt.push(aside);
        }
    }
}

impl Found {
    fn of(record: &Record, location: Location, is_unsure: bool) -> Found {
        Found {
            location,
            kind: record.kind,
            lane: Arc::clone(&record.lane),
            items: record.items,
            since_ms: record.since_ms,
            body_bytes: record.body.len(),
            is_unsure,
        }
    }
}

/// What a segment holds.
#[derive(Default)]
pub(super) struct Read {
    found: Vec<(Found, State)>,
    /// Where what can be read ends.
    end: u64,
    damage: Damage,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Damage {
    #[default]
    None,
    Torn,
    Corrupt,
}
