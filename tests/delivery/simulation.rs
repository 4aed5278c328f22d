//! A node in virtual time: its sink and its forwarder, an intake and three importers, disks
//! that fail, answers that get lost, clocks that are set, and processes that end in every way.
//!
//! What decides is the daemon's own: outbox, backlog, queue, store, retries, and the importers'
//! memory. Of each sequence it is checked, after every step, that what was offered is delivered,
//! dropped for a reason, or still there; and at every end of a process, that what was said to be
//! on disk is found by the next one. No entry is ever merged twice by importers that remember
//! batches, wherever it went, and everything that was acknowledged has arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use veneur::config::settings::ForwardFormat;
use veneur::forward::backlog::{Backlog, Brought, Shelf, Step, Wish};
use veneur::forward::encode::{Encoded, Encoder};
use veneur::forward::identity::Identities;
use veneur::forward::outbox::{self, Batch, Ending, Errand, Origin, Outbox, Settled, Verdict};
use veneur::forward::pack::{BodyLimits, Packed, Packer};
use veneur::forward::reason::Reason;
use veneur::forward::ring::Place;
use veneur::forward::seen::{Admission, Seen};
use veneur::model::UnixSeconds;
use veneur::net::Outcome;
use veneur::sinks::post::retry::{self, Later};
use veneur::spool::{Record, Which};

use crate::random::Random;
use crate::shelf::{Bodies, VirtualClock, VirtualShelf};
use crate::virtual_disk::VirtualDisk;

const SEQUENCES: u64 = 10_000;
const STEPS: u64 = 70;
const FORMAT: ForwardFormat = ForwardFormat::Grpc;
const BODY: BodyLimits = BodyLimits { entries: 6, body_bytes: 1 << 20, plain_bytes: 1 << 20 };
/// More entries in a body are too many for an importer that says so.
const MOST: usize = 3;
const MEMBERS: [&str; 3] = ["a", "b", "c"];

fn encoder() -> Encoder {
    Encoder { format: FORMAT, limits: BODY, ignored: Arc::default() }
}

/// What a receiver does at present.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Takes,
    /// It takes it, but the answer is lost.
    LosesAnswers,
    /// Nothing gets there, and that is known.
    IsDown,
    /// Nothing gets there, and nobody knows.
    Hangs,
    Answers(u16),
    FindsTooLarge,
}

impl Mood {
    fn random(random: &mut Random) -> Mood {
        match random.below(12) {
            0..4 => Mood::Takes,
            4..6 => Mood::LosesAnswers,
            6 | 7 => Mood::IsDown,
            8 => Mood::Hangs,
            9 => Mood::Answers([429, 500, 503][random.below(3) as usize]),
            10 => Mood::Answers([400, 403, 413][random.below(3) as usize]),
            _ => Mood::FindsTooLarge,
        }
    }
}

/// The Datadog intake: one value for each point.
struct Intake {
    mood: Mood,
    taken: BTreeSet<u64>,
}

impl Intake {
    fn post(&mut self, body: &[u8]) -> Outcome {
        let refused =
            |status| Outcome::Refused { status, retry_after: None, answer: String::new() };
        match self.mood {
            Mood::Takes | Mood::FindsTooLarge => {
                self.taken.extend(points_of(body));
                Outcome::Taken
            }
            Mood::LosesAnswers => {
                self.taken.extend(points_of(body));
                Outcome::TimedOut
            }
            Mood::IsDown => Outcome::Unreachable(String::new()),
            Mood::Hangs => Outcome::TimedOut,
            Mood::Answers(status) => refused(status),
        }
    }
}

/// An importer with its memory of batches.
struct Importer {
    mood: Mood,
    seen: Seen,
}

/// Everything outside the process.
struct World {
    random: Random,
    now: Instant,
    wall_ms: u64,
    intake: Intake,
    importers: BTreeMap<Arc<str>, Importer>,
    /// How often each entry was merged, by anyone.
    merged: BTreeMap<u64, u32>,
    disks: [VirtualDisk; 2],
    next_id: u64,
    remembers: bool,
}

/// One life of the process.
struct Node {
    sink: VirtualShelf,
    batches: VirtualShelf,
    outbox: Outbox,
    backlog: Backlog,
    in_flight: Vec<(Arc<str>, Batch, Verdict)>,
    /// Points and entries of this life.
    points: Ledger,
    entries: Ledger,
}

#[derive(Debug, Default)]
struct Ledger {
    offered: u64,
    delivered: u64,
    dropped: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let remembers = random.percent(80);
        let importer =
            |name| (Arc::from(name), Importer { mood: Mood::Takes, seen: Seen::default() });
        World {
            random,
            // Instants before the start must be possible.
            now: Instant::now() + Duration::from_secs(1 << 30),
            wall_ms: 1_700_000_000_000,
            intake: Intake { mood: Mood::Takes, taken: BTreeSet::new() },
            importers: MEMBERS.map(importer).into(),
            merged: BTreeMap::new(),
            disks: [VirtualDisk::new(), VirtualDisk::new()],
            next_id: 0,
            remembers,
        }
    }

    fn ids(&mut self, n: u64) -> Vec<u64> {
        self.next_id += n;
        (self.next_id - n..self.next_id).collect()
    }

    fn wait(&mut self, longest_ms: u64) {
        let ms = self.random.below(longest_ms);
        self.now += Duration::from_millis(ms);
        self.wall_ms += ms;
    }

    /// Starts a process on what the disks hold, which must be at least that.
    fn start(&mut self, expected: [Bodies; 2]) -> Node {
        self.disks.iter().for_each(heal);
        let clock = VirtualClock { started: self.now, wall_ms: self.wall_ms };
        let [points_disk, batches_disk] = self.disks.clone();
        let (sink, found_points) = VirtualShelf::open(points_disk, clock);
        let (batches, found_batches) = VirtualShelf::open(batches_disk, clock);
        for (expected, found) in expected.iter().zip([found_points, found_batches]) {
            for (body, times) in expected {
                let found = found.get(body).copied().unwrap_or_default();
                assert!(found >= *times, "{body:?} was on disk and is not found");
            }
        }
        let limits = outbox::Limits {
            queue_bytes: 2_000,
            queue_age: Duration::from_secs(120),
            in_flight: 2,
            failover_after: Duration::from_secs(8),
            spool_after: Some(Duration::from_secs(10)),
            remembers: self.remembers,
        };
        let mut outbox = Outbox::new(limits, Identities::new(std::time::UNIX_EPOCH));
        outbox.list(MEMBERS.map(Arc::from));
        let (points, entries) = (Ledger::default(), Ledger::default());
        let (backlog, in_flight) = (Backlog::new(FORMAT), Vec::new());
        Node { sink, batches, outbox, backlog, in_flight, points, entries }
    }

    /// What comes of sending a batch, decided when it is sent.
    fn import(&mut self, member: &Arc<str>, batch: &Batch) -> Verdict {
        let ids = entries_of(&batch.packed);
        let importer = self.importers.get_mut(member).expect("only members are sent to");
        let unsure = Verdict::Later { is_unsure: true, wait: None };
        let answer = match importer.mood {
            Mood::IsDown => return Verdict::Later { is_unsure: false, wait: None },
            Mood::Hangs => return unsure,
            Mood::Answers(503) => {
                let wait = Some(Duration::from_secs(1));
                return Verdict::Later { is_unsure: false, wait };
            }
            Mood::Answers(429) => return Verdict::Later { is_unsure: false, wait: None },
            Mood::Answers(413) => return Verdict::TooLarge,
            Mood::Answers(500) => return unsure,
            Mood::Answers(status) => return Verdict::Refused(Reason::Status(status)),
            Mood::FindsTooLarge if ids.len() > MOST => return Verdict::TooLarge,
            Mood::Takes | Mood::FindsTooLarge => Verdict::Taken,
            Mood::LosesAnswers => unsure,
        };
        if self.remembers {
            match importer.seen.admit(batch.id) {
                Admission::New => importer.seen.settle(batch.id),
                Admission::Repeat => return answer,
                Admission::Underway => unreachable!("each batch is settled at once"),
                Admission::Forgotten => return Verdict::Refused(Reason::Status(409)),
            }
        }
        ids.iter().for_each(|id| *self.merged.entry(*id).or_default() += 1);
        answer
    }
}

fn heal(disk: &VirtualDisk) {
    disk.limit(usize::MAX);
    disk.set_read_only(false);
    disk.fail_next(0, 0);
}

fn points_of(body: &[u8]) -> impl Iterator<Item = u64> {
    body.chunks_exact(8).map(|id| u64::from_le_bytes(id.try_into().expect("8 bytes")))
}

/// Bodies of one entry for each number, by ring member.
fn pack(outbox: &Outbox, ids: &[u64]) -> Vec<(Arc<str>, Packed)> {
    let ring = outbox.ring();
    let mut packer = Packer::new(FORMAT, BODY, ring.members().len()).expect("there is memory");
    for id in ids {
        let place = Place((*id as u32).wrapping_mul(2_654_435_761));
        let pile = ring.member_at(place).expect("someone is listed");
        packer.add(pile, place, &id.to_le_bytes());
    }
    let named = |(pile, packed): (usize, Packed)| (Arc::clone(&ring.members()[pile]), packed);
    packer.finish().packed.into_iter().map(named).collect()
}

/// The numbers in a body: behind the head of a gRPC message, each with its tag and length.
fn entries_of(packed: &Packed) -> Vec<u64> {
    let id = |entry: &[u8]| u64::from_le_bytes(entry[2..].try_into().expect("8 bytes"));
    packed.body[5..].chunks_exact(10).map(id).collect()
}

impl Node {
    fn step(&mut self, world: &mut World) {
        match world.random.below(16) {
            0 | 1 => self.flush(world),
            2 | 3 => self.send_batches(world),
            4 | 5 => self.settle_one(world),
            6 | 7 => self.wish(world),
            8 => self.send_points(world),
            9 => world.wait(4_000),
            10 if world.random.percent(30) => world.wait(60_000),
            10 | 11 => {
                let steps = world.random.below(6);
                for shelf in [&self.sink, &self.batches] {
                    (0..steps).for_each(|_| drop(shelf.work(world.now)));
                }
            }
            12 => {
                let mood = Mood::random(&mut world.random);
                match world.random.below(4) {
                    0 => world.intake.mood = mood,
                    n => {
                        let name = MEMBERS[n as usize - 1];
                        world.importers.get_mut(name).expect("it is one").mood = mood;
                    }
                }
            }
            13 => {
                let disk = &world.disks[world.random.below(2) as usize];
                match world.random.below(6) {
                    0 => disk.limit(disk.used() + world.random.below(300) as usize),
                    1 => disk.set_read_only(true),
                    2 => {
                        let partial = world.random.below(100) as usize;
                        disk.fail_next(1 + world.random.below(3) as u32, partial);
                    }
                    _ => heal(disk),
                }
            }
            14 => {
                let mask = 1 + world.random.below(7);
                let listed = (0..3).filter(|bit| mask >> bit & 1 == 1);
                self.outbox.list(listed.map(|bit| Arc::from(MEMBERS[bit])));
            }
            _ => self.tend(world),
        }
        self.tend(world);
        self.check();
    }

    /// One interval's points and entries.
    fn flush(&mut self, world: &mut World) {
        let n = 1 + world.random.below(12);
        let body: Bytes =
            world.ids(n).iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>().into();
        self.points.offered += n;
        match retry::of_kept(&world.intake.post(&body)) {
            Later::Taken => self.points.delivered += n,
            Later::Never(_) => self.points.dropped += n,
            Later::Again => {
                let since_ms = self.sink.ms_at(world.now);
                let record = Record { kind: 1, lane: "".into(), items: n, since_ms, body };
                self.sink.put(record, false);
            }
        }
        let n = 1 + world.random.below(20);
        let ids = world.ids(n);
        self.entries.offered += n;
        let origin = Origin { interval_end: UnixSeconds(0), since: world.now, halvings: 0 };
        for (member, packed) in pack(&self.outbox, &ids) {
            let lost = self.outbox.push(&member, packed, origin);
            self.lose(lost);
        }
    }

    /// What the task of a sink's backlog does.
    fn send_points(&mut self, world: &mut World) {
        let Some(claimed) = self.sink.claim("", Which::Any, world.now) else { return };
        let items = claimed.record.items;
        match retry::of_kept(&world.intake.post(&claimed.record.body)) {
            Later::Taken => {
                self.points.delivered += items;
                let taken = &world.intake.taken;
                assert!(points_of(&claimed.record.body).all(|id| taken.contains(&id)));
                self.sink.finish(claimed.id);
            }
            Later::Never(_) => {
                self.points.dropped += items;
                self.sink.finish(claimed.id);
            }
            Later::Again => {
                let fails_alone = world.random.percent(20);
                self.sink.release(claimed.id, false, fails_alone);
            }
        }
    }

    fn post(&mut self, world: &mut World, member: Arc<str>, batch: Batch) {
        let verdict = world.import(&member, &batch);
        self.in_flight.push((member, batch, verdict));
    }

    fn send_batches(&mut self, world: &mut World) {
        while let Some(errand) = self.outbox.next(world.now) {
            match errand {
                Errand::Post(member, batch) => self.post(world, member, batch),
                Errand::Probe(member) => {
                    let is_there = world.importers[&member].mood == Mood::Takes;
                    let ending = ending(world);
                    self.outbox.probed(&member, is_there, ending);
                }
            }
        }
    }

    fn wish(&mut self, world: &mut World) {
        for member in self.batches.lanes() {
            let wish = self.backlog.wish(&mut self.outbox, &member, world.now, true, true);
            let Some(wish) = wish else { continue };
            let brought = self.bring(&wish, world.now);
            match self.backlog.take_in(&mut self.outbox, &self.batches, wish, brought) {
                Step::Nothing => {}
                Step::Send(member, batch) => self.post(world, member, batch),
                Step::Part(batch) => {
                    let encoded = encoder().regroup(&[batch], self.outbox.ring());
                    self.push(encoded);
                }
                Step::Lose(lost) => self.lose([lost]),
            }
        }
    }

    fn bring(&self, wish: &Wish, now: Instant) -> Brought {
        if wish.may_move
            && let Some(claimed) = self.batches.claim(&wish.member, Which::Sure, now)
            && self.batches.withdraw(claimed.id, now)
        {
            return Brought::Withdrawn(claimed);
        }
        if wish.may_send
            && let Some(claimed) = self.batches.claim(&wish.member, Which::Bound, now)
        {
            return Brought::Bound(claimed);
        }
        Brought::Nothing
    }

    /// One answer comes.
    fn settle_one(&mut self, world: &mut World) {
        if self.in_flight.is_empty() {
            return;
        }
        let which = world.random.below(self.in_flight.len() as u64) as usize;
        let (member, batch, verdict) = self.in_flight.swap_remove(which);
        self.settle(world, &member, batch, verdict);
    }

    fn settle(&mut self, world: &mut World, member: &Arc<str>, batch: Batch, verdict: Verdict) {
        let (entries, spooled) = (batch.packed.entries(), batch.spooled());
        let ids = entries_of(&batch.packed);
        let ending = ending(world);
        let settled = self.outbox.settle(member, batch, verdict, false, ending);
        let must_withdraw = spooled.filter(|&id| self.backlog.settled(&self.batches, id, &settled));
        match settled {
            Settled::Taken => {
                assert!(ids.iter().all(|id| world.merged.contains_key(id)));
                self.entries.delivered += entries;
            }
            Settled::Waits | Settled::Returned { .. } => {}
            Settled::Lost(lost) => self.lose([lost]),
            Settled::TooLarge(batch) => {
                if let Some(id) = must_withdraw {
                    self.backlog.withdrawn();
                    if !self.batches.withdraw(id, world.now) {
                        return;
                    }
                }
                self.push(encoder().halve(member, &batch));
            }
        }
    }

    fn push(&mut self, encoded: Encoded) {
        assert!(encoded.left_out.iter().all(|(_, entries)| *entries == 0));
        for (member, packed, origin) in encoded.bodies {
            let lost = self.outbox.push(&member, packed, origin);
            self.lose(lost);
        }
    }

    /// What the loop of the forwarder does each time.
    fn tend(&mut self, world: &mut World) {
        let lost = self.outbox.tick(world.now);
        self.lose(lost);
        let stranded = self.outbox.take_stranded();
        let encoded = encoder().regroup(&stranded, self.outbox.ring());
        self.push(encoded);
        self.backlog.put_due(&mut self.outbox, &self.batches, world.now, false);
        self.outbox.note_backlog(&self.batches.lanes());
        self.take_lost(world.now);
    }

    fn take_lost(&mut self, now: Instant) {
        let lost = self.sink.take_lost(now);
        self.points.dropped += lost.iter().map(|lost| lost.items).sum::<u64>();
        let lost = self.batches.take_lost(now);
        self.entries.dropped += lost.iter().map(|lost| lost.items).sum::<u64>();
    }

    fn lose(&mut self, lost: impl IntoIterator<Item = outbox::Lost>) {
        self.entries.dropped += lost.into_iter().map(|lost| lost.entries).sum::<u64>();
    }

    /// The books add up.
    fn check(&mut self) {
        // What was dropped to make room is there to be counted.
        self.take_lost(self.sink.clock.started);
        let Ledger { offered, delivered, dropped } = self.points;
        assert_eq!(offered + self.sink.found, delivered + dropped + self.sink.items());
        let Ledger { offered, delivered, dropped } = self.entries;
        // A batch from disk that is on its way is there, too.
        let on_their_way = self.in_flight.iter().filter(|(_, batch, _)| batch.spooled().is_some());
        let twice: u64 = on_their_way.map(|(_, batch, _)| batch.packed.entries()).sum();
        let waiting = self.outbox.entries() - twice + self.batches.items();
        assert_eq!(offered + self.batches.found, delivered + dropped + waiting);
        assert!(self.outbox.bytes() <= 2_000 + 4 * 300, "memory is bounded");
        assert!(self.batches.memory_bytes() <= 6_000 && self.sink.memory_bytes() <= 6_000);
    }

    /// An orderly end: what is on its way is cut off, everything goes to disk.
    fn stop(mut self, world: &mut World) -> [Bodies; 2] {
        for (member, batch, _) in std::mem::take(&mut self.in_flight) {
            let verdict = Verdict::Later { is_unsure: true, wait: None };
            self.settle(world, &member, batch, verdict);
        }
        loop {
            self.backlog.put_due(&mut self.outbox, &self.batches, world.now, true);
            self.check();
            if self.batches.work(world.now).is_none() {
                break;
            }
        }
        let lost = self.outbox.give_up();
        self.lose(lost);
        self.check();
        assert!(self.outbox.is_empty());
        let before = [self.sink.items(), self.batches.items()];
        let lost = [self.sink.close(world.now), self.batches.close(world.now)];
        let shelves = [&self.sink, &self.batches];
        for ((shelf, before), lost) in shelves.into_iter().zip(before).zip(lost) {
            let lost: u64 = lost.iter().map(|lost| lost.items).sum();
            assert!(lost <= before);
            assert_eq!(shelf.items(), 0);
        }
        [self.sink.on_disk(), self.batches.on_disk()]
    }

    fn crash(self) -> [Bodies; 2] {
        [self.sink.on_disk(), self.batches.on_disk()]
    }
}

fn ending(world: &mut World) -> Ending {
    let started = world.now;
    world.wait(500);
    let chance = world.random.below(1_000) as f64 / 1_000.0;
    Ending { started, now: world.now, chance }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    let mut node = world.start([Bodies::new(), Bodies::new()]);
    for _ in 0..STEPS {
        node.step(&mut world);
        if !world.random.percent(4) {
            continue;
        }
        let expected = match world.random.below(3) {
            0 => node.stop(&mut world),
            1 => node.crash(),
            _ => {
                let expected = node.crash();
                let World { disks, random, .. } = &mut world;
                disks.iter().for_each(|disk| disk.lose_power(random));
                expected
            }
        };
        world.wait(30_000);
        if world.random.percent(20) {
            // Somebody sets the clock by up to an hour while nobody looks.
            world.wall_ms = world.wall_ms - 3_600_000 + world.random.below(7_200_000);
        }
        node = world.start(expected);
    }
    // Everybody works again: nothing is left in the end.
    world.disks.iter().for_each(heal);
    world.intake.mood = Mood::Takes;
    world.importers.values_mut().for_each(|importer| importer.mood = Mood::Takes);
    node.outbox.list(MEMBERS.map(Arc::from));
    for _ in 0..400 {
        node.send_batches(&mut world);
        while !node.in_flight.is_empty() {
            node.settle_one(&mut world);
        }
        node.wish(&mut world);
        node.send_points(&mut world);
        node.tend(&mut world);
        node.check();
        if node.outbox.is_empty() && node.batches.items() + node.sink.items() == 0 {
            break;
        }
        world.wait(2_000);
    }
    assert_eq!((node.outbox.entries(), node.batches.items(), node.sink.items()), (0, 0, 0));
    if world.remembers {
        let twice: Vec<_> = world.merged.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "merged more than once: {twice:?}");
    }
}

#[test]
fn ten_thousand_random_sequences_of_faults_lose_and_double_nothing_silently() {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                for seed in (first as u64..SEQUENCES).step_by(threads) {
                    let outcome = std::panic::catch_unwind(|| run(seed));
                    assert!(outcome.is_ok(), "the sequence of seed {seed}");
                }
            });
        }
    });
}
