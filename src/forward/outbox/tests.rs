use std::collections::{BTreeMap, BTreeSet};
use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::batch::MAX_HALVINGS;
use super::*;
use crate::config::settings::ForwardFormat;
use crate::forward::pack::{BodyLimits, Packer};
use crate::forward::ring::Place;
use crate::model::UnixSeconds;

const SECOND: Duration = Duration::from_secs(1);

const LIMITS: Limits = Limits {
    queue_bytes: 1 << 20,
    queue_age: Duration::from_secs(60),
    in_flight: 2,
    failover_after: Duration::from_secs(10),
    spool_after: None,
    remembers: true,
};

const LATER: Verdict = Verdict::Later { is_unsure: false, wait: None };
const UNSURE: Verdict = Verdict::Later { is_unsure: true, wait: None };

fn name(name: &str) -> Arc<str> {
    Arc::from(name)
}

/// A body of these entries, which are numbers; each stands at a place of its own.
fn packed(entries: impl IntoIterator<Item = u32>) -> Packed {
    let limits = BodyLimits { entries: 10_000, body_bytes: 1 << 20, plain_bytes: 1 << 20 };
    let mut packer =
        Packer::new(ForwardFormat::GrpcStream, limits, 1).expect("no compressor is needed");
    for entry in entries {
        packer.add(0, Place(entry.wrapping_mul(2_654_435_761)), &entry.to_be_bytes());
    }
    packer.finish().packed.remove(0).1
}

/// The entries of a body: behind each head of five bytes, a number of four.
fn entries(packed: &Packed) -> Vec<u32> {
    let (messages, rest) = packed.body.as_chunks::<9>();
    assert!(rest.is_empty());
    let number = |message: &[u8; 9]| *message.last_chunk::<4>().expect("nine are more than four");
    messages.iter().map(|message| u32::from_be_bytes(number(message))).collect()
}

struct Rig {
    outbox: Outbox,
    now: Instant,
}

impl Rig {
    fn new(limits: Limits, members: &[&str]) -> Rig {
        let mut outbox = Outbox::new(limits, Identities::new(UNIX_EPOCH));
        outbox.list(members.iter().map(|&member| name(member)));
        Rig { outbox, now: Instant::now() }
    }

    fn origin(&self) -> Origin {
        Origin { interval_end: UnixSeconds(10), since: self.now, halvings: 0 }
    }

    fn push(&mut self, member: &str, entries: impl IntoIterator<Item = u32>) -> Vec<Lost> {
        let origin = self.origin();
        self.outbox.push(&name(member), packed(entries), origin)
    }

    /// The next batch that is to be sent, and to whom.
    fn post(&mut self) -> Option<(String, Batch)> {
        match self.outbox.next(self.now)? {
            Errand::Post(member, batch) => Some((member.to_string(), batch)),
            Errand::Probe(member) => panic!("a probe of {member}"),
        }
    }

    fn settle(&mut self, (member, batch): (String, Batch), verdict: Verdict) -> Settled {
        let ending = self.ending();
        self.outbox.settle(&name(&member), batch, verdict, false, ending)
    }

    fn ending(&self) -> Ending {
        Ending { started: self.now, now: self.now, chance: 0.5 }
    }

    fn advance(&mut self, by: Duration) -> Vec<Lost> {
        self.now += by;
        self.outbox.tick(self.now)
    }
}

fn reasons(lost: &[Lost]) -> Vec<(Reason, u64)> {
    lost.iter().map(|lost| (lost.reason, lost.entries)).collect()
}

#[test]
fn a_batch_keeps_its_identity_until_it_is_taken() {
    let mut rig = Rig::new(LIMITS, &["a"]);
    rig.push("a", [1, 2]);
    let first = rig.post().expect("it can be sent at once");
    let id = first.1.id;
    assert!(matches!(rig.settle(first, UNSURE), Settled::Waits));
    assert!(rig.post().is_none(), "the member rests");
    rig.advance(SECOND);
    let second = rig.post().expect("it has rested");
    assert_eq!((second.1.id, second.1.attempts()), (id, 2));
    assert!(matches!(rig.settle(second, Verdict::Taken), Settled::Taken));
    assert!(rig.outbox.is_empty());
    assert_eq!(rig.outbox.bytes(), 0);
}

#[test]
fn the_oldest_batches_are_dropped_first_when_memory_is_full() {
    let room_for = |bodies| Limits { queue_bytes: bodies * packed([0]).memory_bytes(), ..LIMITS };
    let mut rig = Rig::new(room_for(2), &["a", "b"]);
    rig.push("b", [1]);
    rig.now += SECOND;
    rig.push("a", [2]);
    assert_eq!(reasons(&rig.push("a", [3])), [(Reason::QueueFull, 1)]);
    let left: Vec<u32> =
        std::iter::from_fn(|| rig.post()).flat_map(|(_, batch)| entries(&batch.packed)).collect();
    assert_eq!(left, [2, 3]);
    assert_eq!(reasons(&rig.push("a", [4])), [(Reason::QueueFull, 1)], "the others are in flight");
}

#[test]
fn a_batch_does_not_wait_for_ever() {
    let mut rig = Rig::new(LIMITS, &["a"]);
    rig.push("a", [1, 2, 3]);
    let post = rig.post().expect("it can be sent");
    rig.settle(post, LATER);
    assert!(rig.advance(59 * SECOND).is_empty());
    assert_eq!(rig.outbox.next_event(rig.now), Some(rig.now + SECOND));
    assert_eq!(reasons(&rig.advance(SECOND)), [(Reason::QueueAge, 3)]);
    assert!(rig.outbox.is_empty());
}

#[test]
fn a_refused_batch_is_given_up_and_holds_up_no_other() {
    let mut rig = Rig::new(LIMITS, &["a"]);
    rig.push("a", [1]);
    rig.push("a", [2]);
    let post = rig.post().expect("it can be sent");
    let Settled::Lost(lost) = rig.settle(post, Verdict::Refused(Reason::Status(400))) else {
        panic!("it is lost")
    };
    assert_eq!((lost.reason, lost.entries), (Reason::Status(400), 1));
    assert!(rig.post().is_some());
}

#[test]
fn a_batch_that_fails_alone_goes_behind_those_not_tried_yet() {
    let mut rig = Rig::new(LIMITS, &["a"]);
    rig.push("a", [1]);
    let poison = rig.post().expect("it can be sent");
    rig.push("a", [2]);
    rig.settle(poison, LATER);
    rig.advance(SECOND);
    let (_, batch) = rig.post().expect("the member has rested");
    assert_eq!(entries(&batch.packed), [2]);
}

#[test]
fn requests_run_side_by_side_and_one_at_a_time_while_they_fail() {
    let mut rig = Rig::new(LIMITS, &["a", "b"]);
    for entry in 0..4 {
        rig.push("a", [entry]);
        rig.push("b", [10 + entry]);
    }
    let posts: Vec<_> = std::iter::from_fn(|| rig.post()).collect();
    assert_eq!(
        posts.iter().map(|(member, _)| member.as_str()).collect::<Vec<_>>(),
        ["a", "a", "b", "b"]
    );
    for post in posts {
        rig.settle(post, LATER);
    }
    rig.advance(SECOND);
    let retries: Vec<_> = std::iter::from_fn(|| rig.post()).collect();
    assert_eq!(retries.len(), 2, "one for each member");
    for retry in retries {
        rig.settle(retry, Verdict::Taken);
    }
    assert_eq!(std::iter::from_fn(|| rig.post()).count(), 4);
}

#[test]
fn a_batch_that_is_too_large_comes_back_in_halves_a_few_times() {
    let mut rig = Rig::new(LIMITS, &["a"]);
    rig.push("a", 0..1000);
    for halvings in 1..=MAX_HALVINGS {
        let post = rig.post().expect("it can be sent");
        let Settled::TooLarge(batch) = rig.settle(post, Verdict::TooLarge) else {
            panic!("it can be halved")
        };
        assert_eq!((batch.origin.halvings, rig.outbox.bytes()), (halvings, 0));
        rig.outbox.push(&name("a"), packed(0..1000), batch.origin);
    }
    let post = rig.post().expect("it can be sent");
    let Settled::Lost(lost) = rig.settle(post, Verdict::TooLarge) else { panic!("it is lost") };
    assert_eq!((lost.reason, lost.entries), (Reason::TooLarge, 1000));

    rig.push("a", [1]);
    let post = rig.post().expect("it can be sent");
    assert!(matches!(rig.settle(post, Verdict::TooLarge), Settled::Lost(_)), "one has no halves");
}

#[test]
fn an_unanswered_batch_is_not_sent_again_to_a_member_that_would_count_it_twice() {
    let mut rig = Rig::new(Limits { remembers: false, ..LIMITS }, &["a"]);
    rig.push("a", [1]);
    let post = rig.post().expect("it can be sent");
    assert!(matches!(rig.settle(post, LATER), Settled::Waits), "it was not taken");
    rig.advance(SECOND);
    let post = rig.post().expect("the member has rested");
    let Settled::Lost(lost) = rig.settle(post, UNSURE) else { panic!("it is lost") };
    assert_eq!(lost.reason, Reason::Unanswered);

    rig.push("a", [2]);
    rig.advance(10 * SECOND);
    let (_, batch) = rig.post().expect("the member has rested");
    let ending = rig.ending();
    rig.outbox.settle(&name("a"), batch, Verdict::Taken, true, ending);
    rig.push("a", [3]);
    let post = rig.post().expect("it can be sent");
    assert!(matches!(rig.settle(post, UNSURE), Settled::Waits), "it has shown that it remembers");
}

/// Fails `a` until it has left the ring; `b` works.
fn without_a(rig: &mut Rig, verdict: Verdict) {
    let deadline = rig.now + LIMITS.failover_after;
    while rig.now <= deadline {
        if let Some((member, batch)) = rig.post() {
            assert_eq!(member, "a");
            rig.settle((member, batch), verdict);
        }
        rig.advance(SECOND);
    }
    assert_eq!(rig.outbox.ring().members(), [name("b")]);
}

#[test]
fn a_member_that_keeps_failing_loses_its_share_and_what_it_surely_did_not_take() {
    let mut rig = Rig::new(LIMITS, &["a", "b"]);
    rig.push("a", [1, 2]);
    without_a(&mut rig, LATER);
    let stranded = rig.outbox.take_stranded();
    assert_eq!(
        stranded.iter().flat_map(|batch| entries(&batch.packed)).collect::<Vec<_>>(),
        [1, 2]
    );
    assert!(rig.outbox.is_empty());
}

#[test]
fn what_a_member_may_have_taken_stays_bound_to_it() {
    let mut rig = Rig::new(LIMITS, &["a", "b"]);
    rig.push("a", [1]);
    without_a(&mut rig, UNSURE);
    assert!(rig.outbox.take_stranded().is_empty());
    rig.advance(30 * SECOND);
    let post = rig.post().expect("it is tried although it is out");
    rig.settle(post, Verdict::Taken);
    assert_eq!(rig.outbox.ring().members(), [name("a"), name("b")], "it works again");
}

#[test]
fn a_member_that_is_out_is_probed_and_then_on_trial() {
    let mut rig = Rig::new(LIMITS, &["a", "b"]);
    rig.push("a", [1]);
    without_a(&mut rig, LATER);
    rig.outbox.take_stranded();
    for is_there in [false, true] {
        rig.advance(30 * SECOND);
        let Some(Errand::Probe(member)) = rig.outbox.next(rig.now) else { panic!("a probe") };
        assert_eq!(&*member, "a");
        assert!(rig.outbox.next(rig.now).is_none(), "one probe at a time");
        let ending = rig.ending();
        rig.outbox.probed(&member, is_there, ending);
        rig.advance(Duration::ZERO);
        assert_eq!(rig.outbox.ring().members().len(), 1 + usize::from(is_there));
    }
    rig.push("a", [2]);
    let post = rig.post().expect("it is in again");
    rig.settle(post, LATER);
    rig.advance(Duration::ZERO);
    assert_eq!(rig.outbox.ring().members(), [name("b")], "one failure was enough");
}

#[test]
fn the_last_member_that_works_never_leaves() {
    let mut rig = Rig::new(LIMITS, &["a", "b"]);
    for round in 0..100 {
        rig.push("a", [round]);
        rig.push("b", [round]);
        while let Some(post) = rig.post() {
            rig.settle(post, LATER);
        }
        rig.advance(SECOND);
        assert_eq!(rig.outbox.ring().members().len(), 2, "nobody works better");
    }
}

#[test]
fn a_member_that_is_listed_no_more_keeps_what_is_bound_to_it() {
    let mut rig = Rig::new(LIMITS, &["a", "b"]);
    rig.push("a", [1]);
    rig.push("a", [2]);
    let unsure = rig.post().expect("it can be sent");
    rig.settle(unsure, UNSURE);
    rig.outbox.list([name("b")]);
    assert_eq!(rig.outbox.ring().members(), [name("b")]);
    let stranded = rig.outbox.take_stranded();
    assert_eq!(stranded.iter().flat_map(|batch| entries(&batch.packed)).collect::<Vec<_>>(), [2]);
    rig.advance(SECOND);
    let (member, batch) = rig.post().expect("it is still tried");
    assert_eq!((member.as_str(), entries(&batch.packed)), ("a", vec![1]));
    rig.settle((member, batch), Verdict::Taken);
    rig.advance(SECOND);
    assert_eq!(rig.outbox.members.len(), 1, "nothing binds us to it any more");
}

#[test]
fn without_a_ring_batches_wait_for_one() {
    let mut rig = Rig::new(LIMITS, &[]);
    rig.push("nobody", [1]);
    assert!(rig.outbox.take_stranded().is_empty());
    rig.outbox.list([name("a")]);
    assert_eq!(rig.outbox.take_stranded().len(), 1);
}

#[test]
fn giving_up_accounts_for_what_waits() {
    let mut rig = Rig::new(LIMITS, &["a"]);
    (0..3).for_each(|entry| drop(rig.push("a", [entry])));
    let in_flight = rig.post().expect("it can be sent");
    assert_eq!(reasons(&rig.outbox.give_up()), [(Reason::Shutdown, 1), (Reason::Shutdown, 1)]);
    rig.settle(in_flight, Verdict::Taken);
    assert!(rig.outbox.is_empty());
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    AnswerLost,
    NeverArrived,
    NotConnected,
    Refused,
    Busy,
    TooLarge,
}

#[derive(Clone, Debug)]
enum Step {
    Flush(u8),
    Send(Fate),
    Wait(u16),
    List(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        2 => Just(Fate::AnswerLost),
        2 => Just(Fate::NeverArrived),
        3 => Just(Fate::NotConnected),
        1 => Just(Fate::Refused),
        1 => Just(Fate::Busy),
        1 => Just(Fate::TooLarge),
    ];
    let step = prop_oneof![
        2 => (1u8..20).prop_map(Step::Flush),
        6 => fate.prop_map(Step::Send),
        2 => (0u16..8000).prop_map(Step::Wait),
        1 => (1u8..8).prop_map(Step::List),
    ];
    prop::collection::vec(step, 1..120)
}

/// Three importers with a memory, and an outbox that forwards to them.
struct Fleet {
    rig: Rig,
    names: [Arc<str>; 3],
    remembers: bool,
    pushed: u32,
    merged: BTreeMap<u32, u32>,
    seen: BTreeSet<(Arc<str>, BatchId)>,
    lost: u64,
    taken: u64,
}

impl Fleet {
    /// Hands entries to those who have them on the ring.
    fn push_by_ring(&mut self, all: &Packed, origin: Origin) {
        let ring = Arc::clone(self.rig.outbox.ring());
        let mut shares: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for entry in entries(all) {
            let place = Place(entry.wrapping_mul(2_654_435_761));
            shares
                .entry(ring.member_at(place).expect("someone is listed"))
                .or_default()
                .push(entry);
        }
        for (member, share) in shares {
            let lost = self.rig.outbox.push(&ring.members()[member], packed(share), origin);
            self.count(&lost);
        }
    }

    fn count(&mut self, lost: &[Lost]) {
        self.lost += lost.iter().map(|lost| lost.entries).sum::<u64>();
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Flush(n) => {
                let first = self.pushed;
                self.pushed += u32::from(n);
                let origin = self.rig.origin();
                self.push_by_ring(&packed(first..self.pushed), origin);
            }
            Step::Wait(ms) => {
                let lost = self.rig.advance(Duration::from_millis(u64::from(ms)));
                self.count(&lost);
            }
            Step::List(mask) => {
                let listed = (0..3).filter(|bit| mask >> bit & 1 == 1);
                let listed: Vec<_> = listed.map(|bit| Arc::clone(&self.names[bit])).collect();
                self.rig.outbox.list(listed);
            }
            Step::Send(fate) => self.send(fate),
        }
        for batch in self.rig.outbox.take_stranded() {
            self.push_by_ring(&batch.packed, batch.origin);
        }
    }

    fn send(&mut self, fate: Fate) {
        let Some(errand) = self.rig.outbox.next(self.rig.now) else { return };
        let ending = self.rig.ending();
        let (member, batch) = match errand {
            Errand::Post(member, batch) => (member, batch),
            Errand::Probe(member) => {
                return self.rig.outbox.probed(&member, fate == Fate::Answered, ending);
            }
        };
        let is_merged = matches!(fate, Fate::Answered | Fate::AnswerLost);
        let is_new = !self.remembers || self.seen.insert((Arc::clone(&member), batch.id));
        if is_merged && is_new {
            for entry in entries(&batch.packed) {
                *self.merged.entry(entry).or_default() += 1;
            }
        } else if !is_merged && is_new {
            self.seen.remove(&(Arc::clone(&member), batch.id));
        }
        let verdict = match fate {
            Fate::Answered => Verdict::Taken,
            Fate::AnswerLost | Fate::NeverArrived => UNSURE,
            Fate::NotConnected => LATER,
            Fate::Busy => Verdict::Later { is_unsure: false, wait: Some(SECOND) },
            Fate::Refused => Verdict::Refused(Reason::Status(400)),
            Fate::TooLarge => Verdict::TooLarge,
        };
        let n = batch.packed.entries();
        match self.rig.outbox.settle(&member, batch, verdict, false, ending) {
            Settled::Taken => self.taken += n,
            Settled::Waits => {}
            Settled::Returned { .. } => unreachable!("nothing is on disk here"),
            Settled::Lost(lost) => self.count(&[lost]),
            Settled::TooLarge(batch) => {
                let all = entries(&batch.packed);
                for half in all.chunks(all.len().div_ceil(2)) {
                    let half = packed(half.iter().copied());
                    let lost = self.rig.outbox.push(&member, half, batch.origin);
                    self.count(&lost);
                }
            }
        }
    }
}

proptest! {
    /// Whatever goes wrong, no entry is merged twice by anyone, every entry is taken, counted
    /// as lost or still there, and what is taken has been merged.
    #[test]
    fn nothing_is_merged_twice_and_everything_is_accounted_for(
        steps in steps(),
        remembers: bool,
        room in 200usize..4000,
    ) {
        let limits = Limits { queue_bytes: room, remembers, ..LIMITS };
        let mut fleet = Fleet {
            rig: Rig::new(limits, &["a", "b", "c"]),
            names: ["a", "b", "c"].map(name),
            remembers,
            pushed: 0,
            merged: BTreeMap::new(),
            seen: BTreeSet::new(),
            lost: 0,
            taken: 0,
        };
        for step in steps {
            fleet.run(step);
            let outbox = &fleet.rig.outbox;
            prop_assert!(outbox.bytes() <= room);
            prop_assert_eq!(
                fleet.taken + fleet.lost + outbox.entries(),
                u64::from(fleet.pushed)
            );
        }
        let twice: Vec<_> = fleet.merged.iter().filter(|(_, times)| **times > 1).collect();
        prop_assert!(twice.is_empty(), "{:?}", twice);
        prop_assert!(fleet.taken <= fleet.merged.len() as u64);
        // Given time and working members, nothing is left behind.
        for _ in 0..200 {
            fleet.run(Step::Send(Fate::Answered));
            fleet.run(Step::Wait(500));
        }
        prop_assert!(fleet.rig.outbox.is_empty());
        prop_assert_eq!(fleet.rig.outbox.bytes(), 0);
        prop_assert_eq!(fleet.taken + fleet.lost, u64::from(fleet.pushed));
    }
}
