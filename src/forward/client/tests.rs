use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard};
use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use tokio::sync::oneshot;

use super::*;
use crate::aggregate::Aggregate;
use crate::config::settings::ForwardFormat;
use crate::forward::identity::{BatchId, Identities};
use crate::forward::outbox::Limits;
use crate::forward::pack::BodyLimits;
use crate::forward::seen::{Admission, Seen};
use crate::model::{Dialect, MetricKey, MetricKind, Scope, TagSet, UnixSeconds};
use crate::protocol::import;
use crate::telemetry::Telemetry;
use crate::telemetry::registry::Total;

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(10);

/// What a member does with one request.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Take,
    /// Merges it, but the answer is lost.
    TakeAndHang,
    Hang,
    Refuse(u16),
    Unreachable,
    Reset,
    Panic,
}

/// Members that play their turns, then take everything.
#[derive(Default)]
struct Script {
    members: Mutex<BTreeMap<Arc<str>, Member>>,
}

#[derive(Default)]
struct Member {
    turns: VecDeque<Turn>,
    /// When there are no more turns.
    always: Option<Turn>,
    /// A body of more entries is answered with 413.
    max_entries: Option<usize>,
    seen: Seen,
    /// How often each entry was merged.
    merged: BTreeMap<String, u32>,
    requests: Vec<(Instant, BatchId, usize)>,
    probes: usize,
}

impl Script {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Member>> {
        self.members.lock().expect("nothing panics while it holds the lock")
    }

    fn turn(&self, name: &Arc<str>, batch: &Batch) -> Turn {
        let mut members = self.lock();
        let member = members.get_mut(name).expect("only members are sent to");
        let entries = entries_of(batch);
        member.requests.push((Instant::now(), batch.id, entries.len()));
        if member.max_entries.is_some_and(|most| entries.len() > most) {
            return Turn::Refuse(413);
        }
        let turn = member.turns.pop_front().or(member.always).unwrap_or(Turn::Take);
        if matches!(turn, Turn::Take | Turn::TakeAndHang)
            && member.seen.admit(batch.id) == Admission::New
        {
            member.seen.settle(batch.id);
            entries.into_iter().for_each(|name| *member.merged.entry(name).or_default() += 1);
        }
        turn
    }
}

impl Transport for Arc<Script> {
    type Peer = Arc<str>;

    fn configured(&self) -> Vec<(Arc<str>, Arc<str>)> {
        self.lock().keys().map(|name| (Arc::clone(name), Arc::clone(name))).collect()
    }

    async fn resolve(&self) -> Resolved<Arc<str>> {
        Resolved { members: self.configured(), failures: Vec::new(), took: Duration::ZERO }
    }

    async fn post(&self, name: &Arc<str>, batch: &Batch) -> Answer {
        let outcome = match self.turn(name, batch) {
            Turn::Take => Outcome::Taken,
            Turn::TakeAndHang | Turn::Hang => std::future::pending().await,
            Turn::Refuse(status) => {
                Outcome::Refused { status, retry_after: None, answer: "no".to_owned() }
            }
            Turn::Unreachable => Outcome::Unreachable("connection refused".to_owned()),
            Turn::Reset => Outcome::Failed("connection reset".to_owned()),
            Turn::Panic => panic!("the test wants it"),
        };
        Answer { outcome, remembers: true }
    }

    async fn probe(&self, name: &Arc<str>) -> bool {
        let mut members = self.lock();
        let member = members.get_mut(name).expect("only members are probed");
        member.probes += 1;
        member.always.is_none()
    }
}

fn entries_of(batch: &Batch) -> Vec<String> {
    let plain = zstd::stream::decode_all(&batch.packed.body[..]).expect("it is zstd");
    let limits = import::Limits { entries: 100_000 };
    let imported = import::protobuf::decode(&plain, limits).expect("it is a MetricList");
    imported.entries.into_iter().map(|entry| entry.name).collect()
}

/// Counters with these numbers in their names.
fn counters(numbers: std::ops::Range<u32>) -> Vec<(Arc<MetricKey>, Aggregate)> {
    let counter = |n| {
        let key = MetricKey {
            name: format!("n{n}").into(),
            tags: TagSet::empty(),
            kind: MetricKind::Counter,
            scope: Scope::GlobalOnly,
            dialect: Dialect::DogStatsD,
        };
        (Arc::new(key), Aggregate::Counter(1.0))
    };
    numbers.map(counter).collect()
}

struct Rig {
    script: Arc<Script>,
    telemetry: Telemetry,
    offers: mpsc::Sender<Offer>,
    task: tokio::task::JoinHandle<()>,
    offered: u32,
}

impl Rig {
    fn new(members: &[&str], limits: Limits) -> Rig {
        let script = Arc::new(Script::default());
        let named = members.iter().map(|&name| (Arc::from(name), Member::default()));
        script.lock().extend(named);
        let telemetry = Telemetry::default();
        let body = BodyLimits { entries: 10, body_bytes: 1 << 20, plain_bytes: 1 << 20 };
        let client = Client::new(
            Arc::clone(&script),
            Encoder { format: ForwardFormat::Protobuf, limits: body, ignored: Arc::default() },
            Outbox::new(limits, Identities::new(UNIX_EPOCH)),
            Times { request: SECOND, refresh: INTERVAL, drain: INTERVAL },
            None,
            Books::new(telemetry.clone()),
        );
        let (offers, receiver) = mpsc::channel(2);
        let task = tokio::spawn(client.run(receiver));
        Rig { script, telemetry, offers, task, offered: 0 }
    }

    fn play(&self, member: &str, turns: &[Turn]) {
        self.member(member, |member| member.turns.extend(turns));
    }

    fn member<R>(&self, name: &str, look: impl FnOnce(&mut Member) -> R) -> R {
        look(self.script.lock().get_mut(name).expect("it is a member"))
    }

    /// One flush.
    async fn offer(&mut self, entries: u32) {
        let forwards = counters(self.offered..self.offered + entries);
        self.offered += entries;
        let offer = Offer::Flush { forwards, at: UnixSeconds(10) };
        self.offers.send(offer).await.expect("the task runs");
    }

    /// Bodies from other nodes, of so many entries; whether they were taken.
    async fn pass_on(&mut self, entries: u32) -> bool {
        let body = BodyLimits { entries: 10, body_bytes: 1 << 20, plain_bytes: 1 << 20 };
        let encoder =
            Encoder { format: ForwardFormat::Protobuf, limits: body, ignored: Arc::default() };
        let ring = Ring::new(self.script.lock().keys().map(Arc::clone));
        let since = Instant::now().into_std();
        let origin = Origin { interval_end: UnixSeconds(10), since, halvings: 0 };
        let forwards = counters(self.offered..self.offered + entries);
        let encoded = encoder.encode(forwards.into_iter(), &ring, origin);
        let (reply, answer) = oneshot::channel();
        let offer = Offer::Bodies { encoded, took: Duration::ZERO, reply };
        self.offers.send(offer).await.expect("the task runs");
        let is_taken = answer.await.expect("it is answered").is_ok();
        if is_taken {
            self.offered += entries;
        }
        is_taken
    }

    /// Lets the task deliver what is left; returns what the books say.
    async fn finish(self) -> Ledger {
        drop(self.offers);
        self.task.await.expect("the task does not panic");
        let totals = self.telemetry.totals();
        let counts = totals.iter().filter_map(|series| match series.value {
            Total::Count(n) if n > 0 => Some((format!("{}#{}", series.name, series.tags), n)),
            Total::Count(_) | Total::Gauge(_) | Total::Durations(_) | Total::Amounts(_) => None,
        });
        let counts: BTreeMap<String, u64> = counts.collect();
        let sum = |name: &str| {
            counts.iter().filter(|(key, _)| key.starts_with(name)).map(|(_, n)| n).sum()
        };
        let mut merged = BTreeMap::new();
        for member in self.script.lock().values() {
            for (entry, times) in &member.merged {
                *merged.entry(entry.clone()).or_default() += times;
            }
        }
        Ledger {
            offered: u64::from(self.offered),
            delivered: sum("forward.entries_delivered_total"),
            dropped: sum("forward.entries_dropped_total"),
            counts,
            merged,
        }
    }
}

/// What the books say at the end.
#[derive(Debug)]
struct Ledger {
    offered: u64,
    delivered: u64,
    dropped: u64,
    counts: BTreeMap<String, u64>,
    merged: BTreeMap<String, u32>,
}

impl Ledger {
    fn assert_all_delivered_once(&self) {
        assert_eq!((self.delivered, self.dropped), (self.offered, 0), "{self:?}");
        assert_eq!(self.merged.len() as u64, self.offered, "{self:?}");
        assert!(self.merged.values().all(|&times| times == 1), "{self:?}");
    }

    fn count(&self, series: &str) -> u64 {
        self.counts.get(series).copied().unwrap_or_default()
    }
}

const LIMITS: Limits = Limits {
    queue_bytes: 1 << 20,
    queue_age: Duration::from_secs(60),
    in_flight: 4,
    failover_after: Duration::from_secs(5),
    spool_after: None,
    remembers: true,
};

#[tokio::test(start_paused = true)]
async fn a_flush_goes_up_in_bodies_and_each_series_to_its_member() {
    let mut rig = Rig::new(&["a", "b"], LIMITS);
    rig.offer(95).await;
    let script = Arc::clone(&rig.script);
    let ledger = rig.finish().await;
    ledger.assert_all_delivered_once();
    let ring = Ring::new(["a", "b"].map(Arc::from));
    for (name, member) in &*script.lock() {
        for (key, _) in counters(0..95) {
            let place = crate::forward::ring::Place::of(&key);
            let owner = &ring.members()[ring.member_at(place).expect("two members")];
            assert_eq!(member.merged.contains_key(&*key.name), owner == name, "{key:?} at {name}");
        }
        assert!(member.requests.iter().all(|(_, _, entries)| *entries <= 10));
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_sent_again_with_its_identity() {
    use Turn::{Hang, Panic, Refuse, Reset, TakeAndHang, Unreachable};
    let refusals = [500, 503, 429].map(Refuse);
    for turn in [Hang, TakeAndHang, Reset, Unreachable, Panic].into_iter().chain(refusals) {
        let mut rig = Rig::new(&["a"], LIMITS);
        rig.play("a", &[turn, turn]);
        rig.offer(3).await;
        let script = Arc::clone(&rig.script);
        let ledger = rig.finish().await;
        ledger.assert_all_delivered_once();
        let members = script.lock();
        let ids: Vec<BatchId> = members["a"].requests.iter().map(|(_, id, _)| *id).collect();
        assert_eq!(ids.len(), 3, "{turn:?}");
        assert!(ids.iter().all(|id| *id == ids[0]), "{turn:?}");
        assert_eq!(ledger.count("forward.retries_total#upstream:a"), 2, "{turn:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_not_sent_again() {
    for status in [400, 404, 409, 501] {
        let mut rig = Rig::new(&["a"], LIMITS);
        rig.play("a", &[Turn::Refuse(status)]);
        rig.offer(3).await;
        let script = Arc::clone(&rig.script);
        let ledger = rig.finish().await;
        assert_eq!((ledger.delivered, ledger.dropped), (0, 3));
        let series = format!("forward.entries_dropped_total#reason:{status},upstream:a");
        assert_eq!(ledger.count(&series), 3);
        assert_eq!(script.lock()["a"].requests.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_is_halved_until_it_fits() {
    let mut rig = Rig::new(&["a"], LIMITS);
    rig.member("a", |member| member.max_entries = Some(3));
    rig.offer(10).await;
    let script = Arc::clone(&rig.script);
    let ledger = rig.finish().await;
    ledger.assert_all_delivered_once();
    // 10 and both halves of 5 are refused; 2, 3, 2 and 3 are taken.
    assert_eq!(script.lock()["a"].requests.len(), 7);
    let ids: std::collections::BTreeSet<_> =
        script.lock()["a"].requests.iter().map(|(_, id, _)| *id).collect();
    assert_eq!(ids.len(), 7, "halves are batches of their own");
}

#[tokio::test(start_paused = true)]
async fn what_others_send_is_taken_whole_or_not_at_all_and_pushes_nothing_out() {
    let mut rig = Rig::new(&["a", "b"], Limits { queue_bytes: 2_000, ..LIMITS });
    rig.member("a", |member| member.turns.extend([Turn::Unreachable; 3]));
    rig.member("b", |member| member.turns.extend([Turn::Unreachable; 3]));
    let mut taken = 0;
    while rig.pass_on(25).await {
        taken += 1;
    }
    assert!(taken > 1);
    assert!(!rig.pass_on(25).await, "as long as there is no room");
    tokio::time::sleep(60 * SECOND).await;
    assert!(rig.pass_on(25).await, "there is room again");
    let ledger = rig.finish().await;
    assert_eq!(ledger.offered, 25 * (taken + 1));
    ledger.assert_all_delivered_once();
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_down_loses_its_share_and_gets_it_back() {
    let mut rig = Rig::new(&["a", "b"], LIMITS);
    rig.member("a", |member| member.always = Some(Turn::Unreachable));
    for _ in 0..5 {
        rig.offer(40).await;
        tokio::time::sleep(INTERVAL).await;
    }
    rig.member("b", |member| assert_eq!(member.merged.len(), 200, "b has everything"));
    rig.member("a", |member| {
        assert!(member.probes > 0);
        member.always = None;
    });
    tokio::time::sleep(60 * SECOND).await;
    rig.offer(40).await;
    let script = Arc::clone(&rig.script);
    rig.finish().await.assert_all_delivered_once();
    assert!(!script.lock()["a"].merged.is_empty(), "a has its share again");
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_member_may_have_merged_goes_nowhere_else() {
    let mut rig = Rig::new(&["a", "b"], LIMITS);
    rig.play("a", &[Turn::TakeAndHang]);
    rig.member("a", |member| member.always = Some(Turn::Unreachable));
    rig.offer(10).await;
    for _ in 0..8 {
        tokio::time::sleep(INTERVAL).await;
        rig.offer(10).await;
    }
    let ledger = rig.finish().await;
    assert_eq!(ledger.delivered + ledger.dropped, ledger.offered);
    assert_eq!(
        ledger.dropped,
        ledger.count("forward.entries_dropped_total#reason:queue_age,upstream:a")
    );
    assert!((1..=10).contains(&ledger.dropped), "{ledger:?}");
    assert_eq!(ledger.merged.len() as u64, ledger.offered);
    assert!(ledger.merged.values().all(|&times| times == 1), "{ledger:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_takes_one_interval_at_most_and_what_is_left_is_counted() {
    let mut rig = Rig::new(&["a"], LIMITS);
    rig.member("a", |member| member.always = Some(Turn::Hang));
    rig.offer(30).await;
    tokio::time::sleep(SECOND / 2).await;
    let started = Instant::now();
    let ledger = rig.finish().await;
    assert_eq!(started.elapsed(), INTERVAL);
    assert_eq!(
        ledger.count("forward.entries_dropped_total#reason:shutdown,upstream:a"),
        30,
        "{ledger:?}"
    );
    assert_eq!((ledger.delivered, ledger.dropped), (0, 30));
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_when_there_is_nothing_to_wait_for() {
    let mut rig = Rig::new(&["a"], LIMITS);
    rig.play("a", &[Turn::Unreachable; 4]);
    rig.offer(3).await;
    tokio::time::sleep(SECOND / 10).await;
    let started = Instant::now();
    rig.finish().await.assert_all_delivered_once();
    assert!(started.elapsed() < INTERVAL, "{:?}", started.elapsed());
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        4 => Just(Turn::Take),
        2 => Just(Turn::TakeAndHang),
        1 => Just(Turn::Hang),
        1 => prop::sample::select(vec![400, 408, 413, 429, 500, 503]).prop_map(Turn::Refuse),
        2 => Just(Turn::Unreachable),
        1 => Just(Turn::Reset),
    ];
    prop::collection::vec(turn, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever two members do: nothing is merged twice, and everything is delivered or
    /// counted as dropped.
    #[test]
    fn the_books_add_up(
        a in turns(),
        b in turns(),
        flushes in prop::collection::vec((1u32..60, 0u64..15_000), 1..8),
        room in 300usize..10_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing");
        let ledger = runtime.block_on(async {
            let mut rig = Rig::new(&["a", "b"], Limits { queue_bytes: room, ..LIMITS });
            rig.play("a", &a);
            rig.play("b", &b);
            for (entries, pause_ms) in flushes {
                rig.offer(entries).await;
                tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            }
            rig.finish().await
        });
        prop_assert_eq!(ledger.delivered + ledger.dropped, ledger.offered, "{:?}", ledger);
        prop_assert!(ledger.merged.values().all(|&times| times == 1), "{:?}", ledger);
        prop_assert!(ledger.merged.len() as u64 >= ledger.delivered, "{:?}", ledger);
    }
}
