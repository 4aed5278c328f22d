//! What waits to be delivered, in memory and on disk: what is where, who gets it next, and what
//! has to go when there is no room. Pure; times are arguments.
//!
//! Whoever has something undelivered puts it in, which never fails and never waits. It is in
//! memory then. A thread ([`super::writer`]) asks for [`Work`], does it on the [`Store`] and
//! says how it went: so records get to disk behind the back of those who put them in, and a
//! disk that is full, broken or slow leaves them in memory, where there is less room.
//!
//! A consumer claims the oldest record of a lane, and says what became of it. A claimed record
//! is neither dropped nor written. One whose double delivery the receiver may notice only at one
//! place is bound before it is sent: the disk says that it may have been taken, so that it is
//! never sent elsewhere after a crash.
//!
//! [`Store`]: super::store::Store

mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::segment::{Record, State};
use super::store::{Found, Location};

pub use self::words::{
    Cause, Claim, Claimed, Done, Event, Level, Lost, QueueLimits, RecordId, Which, Work,
};

/// Bytes that one piece of work writes, unless a single record has more.
const WRITE_BYTES: u64 = 4 << 20;
/// After a failure the disk is left alone for so long.
const DISK_REST_MS: u64 = 1_000;
/// What a record takes in memory beside its body, roughly.
const RECORD_BYTES: usize = 200;

#[derive(Debug)]
struct Entry {
    kind: u8,
    lane: Arc<str>,
    items: u64,
    body_bytes: usize,
    place: Place,
    is_unsure: bool,
    is_claimed: bool,
    /// How often it went behind the others.
    postponed: u32,
}

#[derive(Debug)]
enum Place {
    Memory(Bytes),
    /// In memory, and on its way to disk.
    Writing(Bytes),
    Disk(Location),
}

/// Everything that waits.
#[derive(Debug)]
pub struct Queue {
    limits: QueueLimits,
    entries: BTreeMap<RecordId, Entry>,
    /// Unclaimed ones of each lane, in the order they are claimed.
    lanes: BTreeMap<Arc<str>, BTreeSet<(u32, RecordId)>>,
    /// Records in memory that are to be written.
    unwritten: BTreeSet<RecordId>,
    items: u64,
    memory_bytes: usize,
    next: u64,
    has_disk: bool,
    disk_rests_until_ms: u64,
    marks: VecDeque<Work>,
    reads: VecDeque<Work>,
    lost: Vec<Lost>,
}

impl Queue {
    /// Nothing, and no disk.
    pub fn new(limits: QueueLimits) -> Queue {
        Queue {
            limits,
            entries: BTreeMap::new(),
            lanes: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            items: 0,
            memory_bytes: 0,
            next: 0,
            has_disk: false,
            disk_rests_until_ms: 0,
            marks: VecDeque::new(),
            reads: VecDeque::new(),
            lost: Vec::new(),
        }
    }

    /// There is a disk from now on, with these records on it, and without those lost from it.
    pub fn open_disk(&mut self, found: Vec<Found>, lost: Vec<Found>) {
        self.has_disk = true;
        for Found { kind, lane, items, body_bytes, .. } in lost {
            let (cause, bytes) = (Cause::Unreadable, body_bytes as u64);
            self.lost.push(Lost { cause, kind, lane, items, bytes });
        }
        for found in found {
            let Found { location, kind, lane, items, since_ms, body_bytes, is_unsure } = found;
            let place = Place::Disk(location);
            let (is_claimed, postponed) = (false, 0);
            let entry =
                Entry { kind, lane, items, body_bytes, place, is_unsure, is_claimed, postponed };
            self.insert(since_ms, entry);
        }
    }

    /// Takes a record; drops the oldest ones in memory if there is no room.
    pub fn put(&mut self, record: Record, is_unsure: bool) {
        let Record { kind, lane, items, since_ms, body } = record;
        let body_bytes = body.len();
        self.memory_bytes += body_bytes + RECORD_BYTES;
        let place = Place::Memory(body);
        let (is_claimed, postponed) = (false, 0);
        let entry =
            Entry { kind, lane, items, body_bytes, place, is_unsure, is_claimed, postponed };
        let id = self.insert(since_ms, entry);
        self.unwritten.insert(id);
        while self.memory_bytes > self.limits.memory_bytes
            && let Some(oldest) = self.unwritten.iter().find(|id| !self.entries[id].is_claimed)
        {
            self.lose(*oldest, Cause::MemoryFull);
        }
    }

    /// Whether records of so many bytes could be put in without others being dropped.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.memory_bytes + bytes + RECORD_BYTES <= self.limits.memory_bytes
    }

    /// Lanes in which something waits that nobody has claimed.
    pub fn lanes(&self) -> impl Iterator<Item = &Arc<str>> {
        self.lanes.keys()
    }

    /// Claims the oldest record of a lane.
    pub fn claim(&mut self, lane: &str, which: Which) -> Claim {
        let Some(waiting) = self.lanes.get(lane) else { return Claim::Nothing };
        let fits = |(_, id): &&(u32, RecordId)| which != Which::Sure || !self.entries[id].is_unsure;
        let Some(&(_, id)) = waiting.iter().find(fits) else { return Claim::Nothing };
        let Some(entry) = self.entries.get_mut(&id) else { return Claim::Nothing };
        let was_unsure = entry.is_unsure;
        let claim = match &entry.place {
            // What is being written would be on disk as it was.
            Place::Writing(_) => return Claim::Nothing,
            Place::Memory(body) => {
                let Entry { kind, lane, items, .. } = &*entry;
                let (kind, items, since_ms) = (*kind, *items, id.since_ms);
                let lane = Arc::clone(lane);
                let record = Record { kind, lane, items, since_ms, body: body.clone() };
                Claim::Ready(Claimed { id, record, is_unsure: was_unsure })
            }
            Place::Disk(location) => {
                let bind = which == Which::Bound && !was_unsure;
                self.reads.push_back(Work::Read { id, location: *location, bind });
                Claim::Reading(id)
            }
        };
        entry.is_claimed = true;
        self.leave_lane(id);
        claim
    }

    /// Gives a claimed record back: it is to be sent again, later; behind the others, if it is
    /// the only one that fails.
    pub fn release(&mut self, id: RecordId, is_unsure: bool, fails_alone: bool) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.is_claimed = false;
        entry.is_unsure = is_unsure;
        entry.postponed += u32::from(fails_alone);
        if let Place::Disk(location) = entry.place {
            let state = if is_unsure { State::Unsure } else { State::Waiting };
            self.marks.push_back(Work::Mark(location, state));
        }
        let (lane, turn) = (Arc::clone(&entry.lane), (entry.postponed, id));
        self.lanes.entry(lane).or_default().insert(turn);
    }

    /// Says that a claimed record is delivered, or will never be.
    pub fn finish(&mut self, id: RecordId) {
        self.remove(id);
    }

    /// Takes a claimed record out, which is to become other records: no crash may bring it back
    /// then. `true` if that is done; else it comes as [`Event`].
    pub fn withdraw(&mut self, id: RecordId) -> bool {
        match self.entries.get(&id).map(|entry| &entry.place) {
            Some(Place::Disk(location)) => {
                self.reads.push_back(Work::Withdraw(id, *location));
                false
            }
            Some(Place::Memory(_) | Place::Writing(_)) | None => {
                self.remove(id);
                true
            }
        }
    }

    /// Drops what has waited for too long.
    pub fn expire(&mut self, now_ms: u64) {
        let is_old = |id: &RecordId| id.since_ms.saturating_add(self.limits.max_age_ms) <= now_ms;
        let is_idle = |entry: &Entry| !entry.is_claimed && !entry.place.is_writing();
        let old = self.entries.iter().take_while(|(id, _)| is_old(id));
        let old: Vec<_> = old.filter(|(_, entry)| is_idle(entry)).map(|(id, _)| *id).collect();
        old.into_iter().for_each(|id| self.lose(id, Cause::Age));
    }

    /// When [`Queue::expire`] has something to do, or [`Queue::next_work`] may have.
    pub fn next_event_ms(&self, now_ms: u64) -> Option<u64> {
        let oldest = self.entries.keys().next();
        let expires = oldest.map(|id| id.since_ms.saturating_add(self.limits.max_age_ms));
        let waits = self.has_disk && !self.unwritten.is_empty();
        let writes = waits.then_some(self.disk_rests_until_ms).filter(|&at| at > now_ms);
        [expires, writes].into_iter().flatten().min()
    }

    /// What is to be done on disk now.
    pub fn next_work(&mut self, now_ms: u64) -> Option<Work> {
        if !self.has_disk {
            return None;
        }
        if let Some(work) = self.marks.pop_front().or_else(|| self.reads.pop_front()) {
            return Some(work);
        }
        if self.disk_rests_until_ms > now_ms {
            return None;
        }
        let mut bytes = 0;
        let mut records = Vec::new();
        for &id in &self.unwritten {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if entry.is_claimed {
                continue;
            }
            let Place::Memory(body) = &entry.place else { continue };
            let Entry { kind, lane, items, .. } = &*entry;
            let (kind, items, since_ms, body) = (*kind, *items, id.since_ms, body.clone());
            let record = Record { kind, lane: Arc::clone(lane), items, since_ms, body };
            bytes += record.stored_bytes();
            if bytes > WRITE_BYTES && !records.is_empty() {
                break;
            }
            entry.place = Place::Writing(record.body.clone());
            let state = if entry.is_unsure { State::Unsure } else { State::Waiting };
            records.push((id, record, state));
        }
        for (id, ..) in &records {
            self.unwritten.remove(id);
        }
        (!records.is_empty()).then_some(Work::Write(records))
    }

    /// Says how work went.
    pub fn finish_work(&mut self, done: Done, now_ms: u64) -> Option<Event> {
        match done {
            Done::Nothing => None,
            Done::Read(id, body) => {
                let entry = self.entries.get_mut(&id)?;
                let Entry { kind, lane, items, is_unsure, .. } = &*entry;
                let (kind, items, since_ms, is_unsure) = (*kind, *items, id.since_ms, *is_unsure);
                let record = Record { kind, lane: Arc::clone(lane), items, since_ms, body };
                Some(Event::Loaded(Claimed { id, record, is_unsure }))
            }
            Done::Unreadable(id) => {
                self.lose(id, Cause::Unreadable);
                Some(Event::Nothing(id))
            }
            Done::Withdrawn(id) => {
                self.remove(id);
                Some(Event::Withdrawn(id))
            }
            Done::NotMarked(id) => {
                let is_unsure = self.entries.get(&id).is_some_and(|entry| entry.is_unsure);
                self.release(id, is_unsure, false);
                Some(Event::Nothing(id))
            }
            Done::Written(written) => {
                for (id, location) in written {
                    match self.entries.get_mut(&id) {
                        Some(entry) => {
                            entry.place = Place::Disk(location);
                            self.memory_bytes -= entry.body_bytes + RECORD_BYTES;
                        }
                        None => self.marks.push_back(Work::Erase(location)),
                    }
                }
                None
            }
            Done::Full(ids) => {
                self.unwrite(ids);
                if !self.drop_oldest_segment() {
                    self.disk_rests_until_ms = now_ms + DISK_REST_MS;
                }
                None
            }
            Done::Failed(ids) => {
                self.unwrite(ids);
                self.disk_rests_until_ms = now_ms + DISK_REST_MS;
                None
            }
        }
    }

    /// The disk may be tried at once: there may be no later.
    pub fn hurry(&mut self) {
        self.disk_rests_until_ms = 0;
    }

    /// The end: what is in memory is lost, what is on disk stays there.
    pub fn stop(&mut self) {
        let in_memory = |entry: &Entry| !matches!(entry.place, Place::Disk(_));
        let left = self.entries.iter().filter(|(_, entry)| in_memory(entry));
        let left: Vec<_> = left.map(|(id, _)| *id).collect();
        left.into_iter().for_each(|id| self.lose(id, Cause::Stopped));
        self.entries.clear();
        self.lanes.clear();
        self.items = 0;
    }

    /// What was lost since the last call.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// What is there.
    pub fn level(&self) -> Level {
        Level {
            records: self.entries.len() as u64,
            items: self.items,
            memory_bytes: self.memory_bytes as u64,
            oldest_since_ms: self.entries.keys().next().map(|id| id.since_ms),
        }
    }

    fn insert(&mut self, since_ms: u64, entry: Entry) -> RecordId {
        let id = RecordId { since_ms, number: self.next };
        self.next += 1;
        self.items += entry.items;
        self.lanes.entry(Arc::clone(&entry.lane)).or_default().insert((entry.postponed, id));
        self.entries.insert(id, entry);
        id
    }

    fn lose(&mut self, id: RecordId, cause: Cause) {
        if let Some(Entry { kind, lane, items, body_bytes, .. }) = self.remove(id) {
            self.lost.push(Lost { cause, kind, lane, items, bytes: body_bytes as u64 });
        }
    }

    fn remove(&mut self, id: RecordId) -> Option<Entry> {
        self.leave_lane(id);
        self.unwritten.remove(&id);
        let entry = self.entries.remove(&id)?;
        self.items -= entry.items;
        match entry.place {
            Place::Memory(_) | Place::Writing(_) => {
                self.memory_bytes -= entry.body_bytes + RECORD_BYTES;
            }
            Place::Disk(location) => self.marks.push_back(Work::Erase(location)),
        }
        Some(entry)
    }

    fn leave_lane(&mut self, id: RecordId) {
        let Some(entry) = self.entries.get(&id) else { return };
        if let Some(waiting) = self.lanes.get_mut(&entry.lane) {
            waiting.remove(&(entry.postponed, id));
            if waiting.is_empty() {
                self.lanes.remove(&entry.lane);
            }
        }
    }

    /// What was not written is in memory only, as it was before.
    fn unwrite(&mut self, ids: Vec<RecordId>) {
        for id in ids {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            if let Place::Writing(body) = &mut entry.place {
                entry.place = Place::Memory(std::mem::take(body));
                self.unwritten.insert(id);
            }
        }
    }

    /// Drops all of the oldest segment that nobody has claimed. `false` if there is nothing.
    fn drop_oldest_segment(&mut self) -> bool {
        let place = |entry: &Entry| match entry.place {
            Place::Disk(location) if !entry.is_claimed => Some(location.segment),
            Place::Disk(_) | Place::Memory(_) | Place::Writing(_) => None,
        };
        let Some(oldest) = self.entries.values().find_map(place) else { return false };
        let in_it = self.entries.iter().filter(|(_, entry)| place(entry) == Some(oldest));
        let in_it: Vec<_> = in_it.map(|(id, _)| *id).collect();
        in_it.into_iter().for_each(|id| self.lose(id, Cause::SpoolFull));
        true
    }
}

impl Place {
    fn is_writing(&self) -> bool {
        matches!(self, Place::Writing(_))
    }
}

#[cfg(test)]
mod tests;
