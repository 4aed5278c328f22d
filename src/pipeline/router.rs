//! From a parsed line to the inbox of the worker that owns its series.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lane::{Door, Lane};
use super::route::Routes;
use crate::aggregate::{Class, KeyHasher, OpKey, routed, shard_of};
use crate::mapping::Mapping;
use crate::model::MetricKind;
use crate::protocol::dogstatsd::Sample;
use crate::protocol::{Line, Values, classic};
use crate::sketch::{legacy_set, member_hash};

/// An open batch is handed over when it is this old, full or not.
const MAX_AGE: Duration = Duration::from_millis(10);

/// Samples that are fresh before they are settled: their operations, 10 KiB, and the keys they
/// point to stay in the fastest cache.
const MAX_FRESH: usize = 256;

/// Collects samples into one open batch per worker, and has them applied or handed over.
/// Owned by one listener thread.
#[derive(Debug)]
pub struct Router {
    hasher: KeyHasher,
    /// Whether members are also hashed for an upstream Veneur 1.1.0.
    legacy_sets: bool,
    lanes: Vec<Lane>,
    /// Where names are mapped and there are several workers.
    routes: Option<Box<Routes>>,
    /// When the oldest open batch got its first sample.
    open_since: Option<Instant>,
    /// Time spent waiting for a worker whose inbox was full.
    blocked: Duration,
    /// Samples that could not be handed over because their worker is gone.
    lost: u64,
}

impl Router {
    /// A router to these workers. All routers of a process share `hasher`.
    pub fn new<D: Into<Door>>(hasher: KeyHasher, doors: impl IntoIterator<Item = D>) -> Router {
        Router {
            hasher,
            legacy_sets: false,
            lanes: doors.into_iter().map(|door| Lane::new(door.into())).collect(),
            routes: None,
            open_since: None,
            blocked: Duration::ZERO,
            lost: 0,
        }
    }

    /// Has sets kept in the form of Veneur 1.1.0 too.
    pub fn with_legacy_sets(self, legacy_sets: bool) -> Router {
        Router { legacy_sets, ..self }
    }

    /// Has names routed by what a mapping file makes of them; `sanitise` is etsy's rule.
    pub fn with_mapping(self, mapping: Option<Arc<Mapping>>, sanitise: bool) -> Router {
        let mapping = mapping.filter(|_| self.lanes.len() > 1);
        let routes = mapping.map(|mapping| Box::new(Routes::new(mapping, sanitise, self.hasher)));
        Router { routes, ..self }
    }

    /// The lane of a name.
    #[inline(always)]
    fn lane_of(&mut self, class: Class, name: &[u8]) -> usize {
        match (self.lanes.len(), &mut self.routes) {
            (1, _) => 0,
            (lanes, Some(routes)) => routes.shard_of(class, name, lanes),
            // Only classic names are spelt in several ways.
            (lanes, None) if class.kind().is_some() => shard_of(name, lanes),
            (lanes, None) => shard_of(&routed(class.dialect(), name), lanes),
        }
    }

    /// Takes every value of a line, which is in `buffer`. Returns the number of samples, or
    /// `None` if the parts of the line are longer than an operation can say.
    pub fn push(&mut self, buffer: &[u8], line: &Line<'_>) -> Option<u64> {
        let &Line { name, tags, kind, weight, .. } = line;
        let (number, text) = match line.values {
            Values::One(number) => (number, &[][..]),
            Values::Member(member) => (0.0, member),
            Values::Packed(_) => return self.push_packed(buffer, line),
        };
        let sample = Sample { name, tags, kind, number, text, weight };
        self.push_sample(buffer, &sample).map(|()| 1)
    }

    fn push_packed(&mut self, buffer: &[u8], line: &Line<'_>) -> Option<u64> {
        let key = OpKey::of(self.hasher, buffer, line.kind, line.name, line.tags)?;
        let index = self.lane_of(Class::of(line.kind), line.name);
        let mut samples = 0;
        for value in line.values.numbers() {
            self.lanes[index].fresh.push(key, value.to_bits(), line.weight);
            self.settle_if_full(buffer, index);
            samples += 1;
        }
        Some(samples)
    }

    /// The same for one sample.
    #[inline(always)]
    pub fn push_sample(&mut self, buffer: &[u8], sample: &Sample<'_>) -> Option<()> {
        let Sample { name, tags, kind, number, text, weight } = *sample;
        let key = OpKey::of(self.hasher, buffer, kind, name, tags)?;
        let index = self.lane_of(Class::of(kind), name);
        let fresh = &mut self.lanes[index].fresh;
        if kind == MetricKind::Set {
            fresh.push(key, member_hash(text), weight);
            if self.legacy_sets {
                fresh.push_legacy_hash(legacy_set::member_hash(text));
            }
        } else {
            fresh.push(key, number.to_bits(), weight);
        }
        self.settle_if_full(buffer, index);
        Some(())
    }

    /// The same for one sample of a classic dialect.
    #[inline]
    pub fn push_classic(
        &mut self,
        buffer: &[u8],
        class: Class,
        sample: &classic::Sample<'_>,
    ) -> Option<()> {
        let index = self.lane_of(class, sample.name);
        self.lanes[index].fresh.push_classic(self.hasher, buffer, class, sample)?;
        self.settle_if_full(buffer, index);
        Some(())
    }

    #[inline(always)]
    fn settle_if_full(&mut self, buffer: &[u8], index: usize) {
        if self.lanes[index].fresh.len() >= MAX_FRESH {
            self.settle(buffer);
        }
    }

    /// Has everything pushed since the last call applied, or copied: `buffer` may go.
    pub fn settle(&mut self, buffer: &[u8]) {
        for lane in &mut self.lanes {
            let price = lane.settle(buffer);
            self.blocked += price.blocked;
            self.lost += price.lost;
        }
    }

    /// Has what waits applied or handed over, if it can be or is old enough: call it once per
    /// read, and say what time it is.
    pub fn hand_over_due(&mut self, now: Instant) {
        let mut is_open = false;
        for lane in &mut self.lanes {
            is_open |= !lane.retry();
        }
        match self.open_since {
            _ if !is_open => self.open_since = None,
            None => self.open_since = Some(now),
            Some(since) if now.duration_since(since) >= MAX_AGE => self.hand_over_all(),
            Some(_) => {}
        }
    }

    /// How long until [`Router::hand_over_due`] has something to do; `None` if nothing is open.
    pub fn until_due(&self, now: Instant) -> Option<Duration> {
        self.open_since.map(|since| (since + MAX_AGE).saturating_duration_since(now))
    }

    /// Hands over everything that waits.
    pub fn hand_over_all(&mut self) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_open()) {
            let price = lane.hand_over();
            self.blocked += price.blocked;
            self.lost += price.lost;
        }
        self.open_since = None;
    }

    /// Time spent waiting for workers since the last call.
    pub fn take_blocked(&mut self) -> Duration {
        std::mem::take(&mut self.blocked)
    }

    /// Samples lost to a worker that is gone, since the last call.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use super::*;
    use crate::aggregate::{Aggregate, Shard, Snapshot};
    use crate::model::{ExtendTags, Role};
    use crate::pipeline::Workers;
    use crate::pipeline::worker::Work;
    use crate::protocol::dogstatsd::{Piece, pieces};

    fn sum(snapshot: Snapshot) -> f64 {
        let value = |(_, aggregate)| match aggregate {
            Aggregate::Counter(sum) => sum,
            other => panic!("a counter is {other:?}"),
        };
        snapshot.entries.into_iter().map(value).sum()
    }

    /// Readers meet each other and flushes at the shard, so that some samples are applied at
    /// once, some wait, and some go through the inbox.
    #[test]
    fn every_sample_is_counted_once_however_many_are_at_the_shard() {
        const READS: usize = 3_000;
        const READERS: usize = 3;
        let lines: Vec<String> = (0..100).map(|n| format!("c{n}:1|c|#a:b")).collect();
        let packet = lines.join("\n");
        let workers = Workers::start([Shard::new(Role::Global, ExtendTags::default())])
            .expect("the system gives a thread");
        let (hasher, ended) = (KeyHasher::random(), AtomicBool::new(false));
        let flush = || {
            let (reply, answer) = sync_channel(1);
            workers.inboxes()[0].send(Work::Flush(reply)).expect("the worker is there");
            sum(answer.recv().expect("the worker answers").snapshot)
        };
        let read = || {
            let mut router = Router::new(hasher, workers.doors());
            for _ in 0..READS {
                for piece in pieces(packet.as_bytes(), packet.as_bytes()) {
                    let Piece::Sample(sample) = piece else { panic!("{piece:?} is no sample") };
                    router.push_sample(packet.as_bytes(), &sample).expect("a short key");
                }
                router.settle(packet.as_bytes());
                router.hand_over_due(Instant::now());
            }
            router.hand_over_all();
            router.take_lost()
        };
        let total = thread::scope(|scope| {
            let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
            let flushing = scope.spawn(|| {
                let mut total = 0.0;
                while !ended.load(Ordering::Acquire) {
                    total += flush();
                }
                total
            });
            let lost: Result<Vec<u64>, _> =
                readers.into_iter().map(|reader| reader.join()).collect();
            ended.store(true, Ordering::Release);
            assert_eq!(lost.expect("no reader panics"), [0; READERS]);
            flushing.join().expect("it does not panic") + flush()
        });
        assert_eq!(total, (READS * READERS * lines.len()) as f64);
        workers.join();
    }
}
