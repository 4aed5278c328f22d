//! What series of classic dialects keep from one interval to the next, as a file that each flush
//! writes anew: values of gauges, and what the totals of clients were last.
//!
//! There are two, `0.kept` and `1.kept`, written in turn, so that one is whole when the other is
//! torn; the later whole one counts. They look like a file of an open interval with one record.
//!
//! It is written before the file of the interval is removed: between the two, a total is in both,
//! and the later one, with what it has grown, wins.

use std::io;

use bytes::Bytes;

use super::{Files, HEAD};
use crate::aggregate::stored::{self, Stored};
use crate::spool::disk::Disk;
use crate::spool::segment::{self, Next, RECORD_HEAD_BYTES, Record};

const NAMES: [&str; 2] = ["0.kept", "1.kept"];

/// What is known of the two files.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Which is written next.
    next: usize,
    /// Whether there may be any.
    is_there: bool,
}

impl<D: Disk> Files<D> {
    /// Writes `body`, which replaces what was kept. Nothing at all removes it.
    ///
    /// # Errors
    /// Then nothing is kept: what is old would count growth twice.
    pub(in crate::checkpoint) fn keep(
        &mut self,
        body: Bytes,
        series: u64,
        at_ms: u64,
    ) -> io::Result<u64> {
        if body.is_empty() {
            return self.forget_kept().map(|()| 0);
        }
        let name = NAMES[self.kept.next];
        self.kept.is_there = true;
        let lane = "kept".into();
        let record = Record { kind: 0, lane, items: series, since_ms: at_ms, body };
        let made = match self.disk.truncate(name, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.disk.create(name),
            made => made,
        };
        let written = made
            .and_then(|()| self.disk.write(name, 0, HEAD))
            .and_then(|()| self.write(name, HEAD.len() as u64, &record));
        if let Err(error) = written {
            // It may be the disk that is full, and then there is no more to be done.
            let _ = self.forget_kept();
            return Err(error);
        }
        self.kept.next = 1 - self.kept.next;
        Ok(HEAD.len() as u64 + record.stored_bytes())
    }

    fn forget_kept(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.kept.is_there) {
            return Ok(());
        }
        // Both, even if one of them stays.
        let [first, second] = NAMES.map(|name| self.remove(name));
        first.and(second)
    }

    /// The later one that is whole, and when it was written.
    pub(super) fn read_kept(&mut self) -> (Vec<Stored>, u64) {
        let read = NAMES.map(|name| read(&mut self.disk, name));
        self.kept.is_there = true;
        let later = (0..NAMES.len()).max_by_key(|&at| read[at].as_ref().map(|(_, at_ms)| *at_ms));
        let Some(later) = later else { return Default::default() };
        self.kept.next = NAMES.len() - 1 - later;
        read.into_iter().nth(later).flatten().unwrap_or_default()
    }
}

fn read(disk: &mut impl Disk, name: &str) -> Option<(Vec<Stored>, u64)> {
    let bytes = disk.list().ok()?.into_iter().find(|(known, _)| known == name)?.1;
    let left = bytes.checked_sub(HEAD.len() as u64 + RECORD_HEAD_BYTES as u64)?;
    let mut head = [0; HEAD.len() + RECORD_HEAD_BYTES];
    disk.read(name, 0, &mut head).ok()?;
    let record = head.strip_prefix(HEAD)?;
    let Next::Record(head) = segment::next(record, left + RECORD_HEAD_BYTES as u64) else {
        return None;
    };
    let mut rest = vec![0; usize::try_from(head.length).ok()?];
    disk.read(name, (HEAD.len() + RECORD_HEAD_BYTES) as u64, &mut rest).ok()?;
    let record: Record = head.record(rest.into())?;
    Some((stored::restore(&record.body).ok()?, record.since_ms))
}
