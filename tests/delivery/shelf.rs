//! A queue and its store in virtual time: what the thread of a spool does, step by step.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use veneur::forward::backlog::Shelf;
use veneur::spool::queue::{Claim, Done, Event, Queue, QueueLimits, Work};
use veneur::spool::store::{Location, Store, StoreLimits};
use veneur::spool::{Claimed, Lost, Record, RecordId, Which, carry_out};

use crate::virtual_disk::VirtualDisk;

const STORE: StoreLimits = StoreLimits { max_bytes: 12 << 10, segment_bytes: 1 << 10, sync: true };
const QUEUE: QueueLimits = QueueLimits { memory_bytes: 6_000, max_age_ms: 120_000 };

/// One life of a spool.
pub(crate) struct VirtualShelf {
    queue: RefCell<Queue>,
    store: RefCell<Store<VirtualDisk>>,
    /// What is on disk, as it was said to be.
    on_disk: RefCell<BTreeMap<Location, Bytes>>,
    /// Items on disk at the start.
    pub(crate) found: u64,
    pub(crate) clock: VirtualClock,
}

/// The steady clock of one life, and what records have for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VirtualClock {
    pub(crate) started: Instant,
    pub(crate) wall_ms: u64,
}

impl VirtualClock {
    fn ms_at(&self, at: Instant) -> u64 {
        match at.checked_duration_since(self.started) {
            Some(after) => self.wall_ms + after.as_millis() as u64,
            None => self.wall_ms - (self.started - at).as_millis() as u64,
        }
    }

    fn instant_at(&self, ms: u64) -> Instant {
        match ms.checked_sub(self.wall_ms) {
            Some(after) => self.started + Duration::from_millis(after),
            None => self.started - Duration::from_millis(self.wall_ms - ms),
        }
    }
}

/// What a disk holds, by body.
pub(crate) type Bodies = BTreeMap<Bytes, u32>;

impl VirtualShelf {
    /// Opens what a disk holds; also says what that is.
    pub(crate) fn open(disk: VirtualDisk, clock: VirtualClock) -> (VirtualShelf, Bodies) {
        let (mut store, scan) = Store::open(disk, STORE).expect("the directory can be read");
        let mut queue = Queue::new(QUEUE);
        let mut on_disk = BTreeMap::new();
        let mut bodies = Bodies::new();
        for found in &scan.found {
            let record = store.read(found.location).expect("what was found can be read");
            *bodies.entry(record.body.clone()).or_default() += 1;
            on_disk.insert(found.location, record.body);
        }
        let found = scan.found.iter().map(|found| found.items).sum();
        assert!(scan.lost.is_empty(), "the disk works when it is opened");
        queue.open_disk(scan.found, scan.lost);
        let (queue, store) = (RefCell::new(queue), RefCell::new(store));
        let on_disk = RefCell::new(on_disk);
        (VirtualShelf { queue, store, on_disk, found, clock }, bodies)
    }

    /// What must be there after a crash.
    pub(crate) fn on_disk(&self) -> Bodies {
        let mut bodies = Bodies::new();
        for body in self.on_disk.borrow().values() {
            *bodies.entry(body.clone()).or_default() += 1;
        }
        bodies
    }

    /// Does one piece of work, if there is one.
    pub(crate) fn work(&self, now: Instant) -> Option<Option<Event>> {
        let now_ms = self.clock.ms_at(now);
        let work = self.queue.borrow_mut().next_work(now_ms)?;
        let written: Vec<Bytes> = match &work {
            Work::Write(records) => {
                records.iter().map(|(_, record, _)| record.body.clone()).collect()
            }
            // Whether it works or not: nobody relies on it any more.
            Work::Erase(location) | Work::Withdraw(_, location) => {
                self.on_disk.borrow_mut().remove(location);
                Vec::new()
            }
            Work::Mark(..) | Work::Read { .. } => Vec::new(),
        };
        let (done, _) = carry_out(&mut self.store.borrow_mut(), work);
        if let Done::Written(locations) = &done {
            let locations = locations.iter().map(|(_, location)| *location);
            self.on_disk.borrow_mut().extend(locations.zip(written));
        }
        Some(self.queue.borrow_mut().finish_work(done, now_ms))
    }

    /// Claims a record, doing all work there is if it is on disk.
    pub(crate) fn claim(&self, lane: &str, which: Which, now: Instant) -> Option<Claimed> {
        let claim = self.queue.borrow_mut().claim(lane, which);
        let id = match claim {
            Claim::Nothing => return None,
            Claim::Ready(claimed) => return Some(claimed),
            Claim::Reading(id) => id,
        };
        loop {
            match self.work(now).expect("a read is to be done") {
                Some(Event::Loaded(claimed)) if claimed.id == id => return Some(claimed),
                Some(Event::Nothing(nothing)) if nothing == id => return None,
                Some(_) | None => {}
            }
        }
    }

    /// Takes a claimed record out for good.
    pub(crate) fn withdraw(&self, id: RecordId, now: Instant) -> bool {
        if self.queue.borrow_mut().withdraw(id) {
            return true;
        }
        loop {
            match self.work(now).expect("a withdrawal is to be done") {
                Some(Event::Withdrawn(withdrawn)) if withdrawn == id => return true,
                Some(Event::Nothing(nothing)) if nothing == id => return false,
                Some(_) | None => {}
            }
        }
    }

    pub(crate) fn lanes(&self) -> Vec<std::sync::Arc<str>> {
        self.queue.borrow().lanes().cloned().collect()
    }

    pub(crate) fn items(&self) -> u64 {
        self.queue.borrow().level().items
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.queue.borrow().level().memory_bytes
    }

    pub(crate) fn take_lost(&self, now: Instant) -> Vec<Lost> {
        let mut queue = self.queue.borrow_mut();
        queue.expire(self.clock.ms_at(now));
        queue.take_lost()
    }

    /// An orderly end: what the disk takes is written. Says what is lost.
    pub(crate) fn close(&self, now: Instant) -> Vec<Lost> {
        self.queue.borrow_mut().hurry();
        while self.work(now).is_some() {}
        let mut queue = self.queue.borrow_mut();
        queue.stop();
        queue.take_lost()
    }
}

impl Shelf for VirtualShelf {
    fn put(&self, record: Record, is_unsure: bool) {
        self.queue.borrow_mut().put(record, is_unsure);
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.queue.borrow().has_room(bytes)
    }

    fn release(&self, id: RecordId, is_unsure: bool, fails_alone: bool) {
        self.queue.borrow_mut().release(id, is_unsure, fails_alone);
    }

    fn finish(&self, id: RecordId) {
        self.queue.borrow_mut().finish(id);
    }

    fn ms_at(&self, at: Instant) -> u64 {
        self.clock.ms_at(at)
    }

    fn instant_at(&self, ms: u64) -> Instant {
        self.clock.instant_at(ms)
    }
}
