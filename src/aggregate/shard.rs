//! One worker's table of series.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Aggregate;
use super::apply::Scratch;
use super::batch::OpKey;
use super::checkpoint::Tracks;
use super::classic::{IdleEntry, Standing};
use super::intern::{Interner, SlotId};
use super::limits::refused::Refused;
use super::limits::{Census, ContextLimits, FoldCounts, Folded, Limit, Origin, OverflowKeys, Room};
use super::mapped::{Change, Known, Mapper, Specials};
use super::memory::{Memory, Thresholds};
use crate::mapping::{Mapped, Mapping};
use crate::model::{
    ClassicRules, Dialect, ExtendTags, MetricKey, MetricKind, Role, Scope, TagSet, text,
};
use crate::protocol::classic::etsy;

/// A series without samples for this many intervals is forgotten.
const IDLE_INTERVALS: u32 = 30;
/// Forgetting rebuilds the tables, so it waits until it frees this many series at least.
const MIN_FORGOTTEN: usize = 1024;
/// Where a limit is reached, series that have had no sample for a whole interval make room, as
/// long as they are at least one of so many.
const IDLE_IN_THE_WAY: u32 = 1;
const PART_IN_THE_WAY: usize = 64;

/// A table from keys to aggregates, owned by one thread.
///
/// What accumulates lies apart from what is known of a series: a flush takes the one away whole,
/// whatever its size, and the other stays.
#[derive(Debug)]
pub struct Shard {
    role: Role,
    extend_tags: ExtendTags,
    pub(super) interner: Interner,
    /// By slot: the series.
    pub(super) keys: Vec<Arc<MetricKey>>,
    /// By slot: where its aggregate is.
    pub(super) places: Vec<Place>,
    /// The series with samples in this interval.
    pub(super) open: Vec<Entry>,
    /// Their slots.
    pub(super) open_slots: Vec<SlotId>,
    /// On the heap, of all that is open.
    pub(super) sketch_bytes: usize,
    /// Which of them the next checkpoint is about.
    pub(super) tracks: Tracks,
    /// Counts up, from 1, at the beginning of each interval and at each checkpoint.
    pub(super) epoch: u32,
    /// The epoch with which the running interval began.
    pub(super) began: u32,
    /// Intervals so far.
    pub(super) intervals: u32,
    /// The epochs with which recent intervals began, the running one first.
    beginnings: VecDeque<u32>,
    /// Slots below this one were known before the interval.
    pub(super) known: usize,
    /// Who takes how much room, by slot.
    pub(super) census: Census,
    pub(super) thresholds: Thresholds,
    /// Where series go for which there is none.
    overflow: OverflowKeys,
    /// Spellings that do.
    refused: Refused,
    pub(super) folds: FoldCounts,
    /// What series are called, if a file says so.
    mapper: Option<Box<Mapper>>,
    /// What outlives an interval, of classic series.
    pub(super) standing: Standing,
    /// Whether snapshots have what of these is to outlive the process.
    keeps_values: bool,
    /// For [`Shard::apply`].
    pub(super) scratch: Option<Box<Scratch>>,
}

/// A series and what it accumulated.
pub type Entry = (Arc<MetricKey>, Aggregate);

/// Where the aggregate of a series is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The epoch of its last sample; 0 if it has had none. With [`FOLDED`] its samples go to
    /// another series, until the interval ends.
    pub(super) epoch: u32,
    /// Its index among the open series; or the slot of the other one.
    pub(super) at: u32,
}

/// No epoch has this bit, so samples of such a series are noticed without being looked for.
pub(super) const FOLDED: u32 = 1 << 31;

/// What a shard hands over at flush: the series touched since the last one, and classic ones
/// that are emitted all the same.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Which interval of the shard, from 1.
    pub interval: u32,
    /// Keys and what they accumulated.
    pub entries: Vec<Entry>,
    /// Classic series without samples that are emitted all the same.
    pub idle: Vec<IdleEntry>,
    /// What of classic series is to outlive the process, if that is wanted: gauges, and totals
    /// that have not grown.
    pub kept: Vec<Entry>,
    /// Series the shard knows, idle ones included.
    pub series: usize,
    /// What was held.
    pub memory: Memory,
    /// What there was no room for.
    pub folded: Folded,
    /// Samples that a mapping file has left out, by the line of the rule.
    pub dropped: BTreeMap<u64, u64>,
    /// What was forgotten. Letting go of much takes longer than the shard should be kept waiting.
    pub forgotten: Forgotten,
}

/// Series that were forgotten, and the tables they were in.
#[derive(Debug, Default)]
pub struct Forgotten {
    keys: Vec<Arc<MetricKey>>,
    _tables: Option<(Interner, Refused, Option<Specials>)>,
}

impl Forgotten {
    /// How many series.
    pub fn series(&self) -> usize {
        self.keys.len()
    }
}

/// Where the samples of a key go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// To its own series.
    Own(SlotId),
    /// To one that stands for others.
    Overflow(SlotId),
}

/// Where the samples of a spelling go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Of no meaning if they are left out.
    pub(super) slot: SlotId,
    /// Whether an alias was learnt for them.
    pub(super) is_new: bool,
    /// What becomes of them before.
    pub(super) change: Option<Change>,
}

impl Way {
    const fn to(slot: SlotId) -> Way {
        Way { slot, is_new: false, change: None }
    }
}

impl Shard {
    /// An empty shard without limits. `role` and `extend_tags` decide which keys are the same
    /// series.
    pub fn new(role: Role, extend_tags: ExtendTags) -> Shard {
        Shard::with_limits(role, extend_tags, ContextLimits::NONE, 0)
    }

    /// An empty shard that holds no more than `limits`; `worker` is its number.
    pub fn with_limits(
        role: Role,
        extend_tags: ExtendTags,
        limits: ContextLimits,
        worker: usize,
    ) -> Shard {
        // What a local node forwards must not meet what a global one folds itself.
        let name = format!("{}-{worker}", role.as_str());
        Shard {
            overflow: OverflowKeys::new(&extend_tags, &name),
            census: Census::new(limits),
            thresholds: Thresholds::new(limits.memory, 0),
            refused: Refused::new(limits.contexts),
            folds: FoldCounts::default(),
            mapper: None,
            standing: Standing::new(ClassicRules::default()),
            keeps_values: false,
            role,
            extend_tags,
            interner: Interner::default(),
            keys: Vec::new(),
            places: Vec::new(),
            open: Vec::new(),
            open_slots: Vec::new(),
            sketch_bytes: 0,
            tracks: Tracks::default(),
            epoch: 1,
            began: 1,
            intervals: 1,
            beginnings: VecDeque::from([1]),
            known: 0,
            scratch: None,
        }
    }

    /// The same with other rules for classic series.
    #[must_use]
    pub fn with_classic(self, rules: ClassicRules) -> Shard {
        Shard { standing: Standing::new(rules), ..self }
    }

    /// The same with [`Snapshot::kept`].
    #[must_use]
    pub fn keeping_values(self, keeps_values: bool) -> Shard {
        Shard { keeps_values, ..self }
    }

    /// The same with series called as a mapping file says.
    #[must_use]
    pub fn with_mapping(self, mapping: Option<Arc<Mapping>>) -> Shard {
        let contexts = self.census.contexts();
        let mapper = mapping.map(|mapping| Box::new(Mapper::new(mapping, contexts)));
        Shard { mapper, ..self }
    }

    /// Where the aggregate of a series is among the open ones.
    #[inline(always)]
    pub(super) fn touch(&mut self, slot: SlotId, origin: Origin) -> u32 {
        let place = self.places[slot as usize];
        if place.epoch == self.epoch { place.at } else { self.touch_anew(slot, origin) }
    }

    /// The same where it is not open, or not where it should be.
    #[inline]
    fn touch_anew(&mut self, slot: SlotId, origin: Origin) -> u32 {
        let place = self.places[slot as usize];
        if (self.began..FOLDED).contains(&place.epoch) {
            // Open since before the last checkpoint.
            self.tracks.touch(slot);
            self.places[slot as usize].epoch = self.epoch;
            return place.at;
        }
        let kind = self.keys[slot as usize].kind;
        let has_digest_or_set = kind.has_digest() || kind == MetricKind::Set;
        if has_digest_or_set {
            if place.epoch >= FOLDED | self.began {
                return self.touch_folded(place.at, origin);
            }
            if !self.has_memory_for(slot) {
                let target = self.open_elsewhere(slot, origin);
                return self.touch_folded(target, origin);
            }
        }
        self.tracks.touch(slot);
        let at = self.open.len() as u32;
        let key = Arc::clone(&self.keys[slot as usize]);
        let aggregate = match key.dialect.is_classic() {
            false => Aggregate::new(kind),
            true => self.standing.resume(slot),
        };
        self.sketch_bytes += aggregate.heap_bytes();
        self.places[slot as usize] = Place { epoch: self.epoch, at };
        self.open.push((key, aggregate));
        self.open_slots.push(slot);
        at
    }

    /// The same for a sample of a series whose samples go to another one.
    #[cold]
    fn touch_folded(&mut self, mut target: SlotId, origin: Origin) -> u32 {
        let Place { epoch, at } = self.places[target as usize];
        if epoch >= FOLDED | self.began {
            target = at;
        } else if epoch < self.began && !self.has_memory_for(target) {
            target = self.open_elsewhere(target, origin);
        }
        self.folds.sample(target);
        self.touch(target, origin)
    }

    /// Takes an open aggregate out.
    pub(super) fn close(&mut self, at: u32) -> Entry {
        let entry = self.open.swap_remove(at as usize);
        self.open_slots.swap_remove(at as usize);
        if let Some(&moved) = self.open_slots.get(at as usize) {
            self.places[moved as usize].at = at;
        }
        entry
    }

    /// Where the samples of a raw key in `buffer` go, which is learnt if it is new.
    #[cold]
    pub(super) fn find_or_learn(&mut self, key: OpKey, buffer: &[u8]) -> Way {
        if let Some(slot) = self.interner.find(key, buffer) {
            return Way::to(slot);
        }
        if let Some(slot) = self.refused.find(key, buffer) {
            self.folds.sample(slot);
            return Way::to(slot);
        }
        let known = self.mapper.as_mut().and_then(|mapper| mapper.find(key, buffer));
        if let Some(Known { slot, change, is_folded }) = known {
            if is_folded {
                self.folds.sample(slot);
            }
            return Way { slot, is_new: false, change: Some(change) };
        }
        self.learn(key, buffer)
    }

    fn learn(&mut self, key: OpKey, buffer: &[u8]) -> Way {
        let mut series = self.series_of(key, buffer);
        let mut scale = None;
        if let Some(mapper) = &mut self.mapper {
            match mapper.apply(series, &self.extend_tags) {
                Mapped::Dropped { rule } => {
                    mapper.leave_out(key, buffer, rule);
                    return Way { change: Some(Change::Drop), ..Way::to(SlotId::MAX) };
                }
                Mapped::Series { key, rule } => {
                    scale = mapper.scale(rule);
                    series = key;
                }
            }
        }
        if series.dialect == Dialect::Brubeck {
            series = self.known_of_another_kind(&series).unwrap_or(series);
        }
        let dialect = series.dialect;
        let found = self.slot_of(series, Origin::Sample);
        let (slot, is_folded) = match found {
            Found::Own(slot) => {
                if dialect.is_classic() {
                    self.standing.keep(slot, dialect, key.recorder);
                }
                (slot, false)
            }
            Found::Overflow(slot) => {
                self.folds.sample(slot);
                (slot, true)
            }
        };
        match (scale, &mut self.mapper) {
            (Some((rule, factor)), Some(mapper)) => {
                mapper.scaled(key, buffer, rule, slot, is_folded);
                Way { change: Some(Change::Scale(factor)), ..Way::to(slot) }
            }
            _ if is_folded => {
                self.refused.insert(key, buffer, slot);
                Way::to(slot)
            }
            _ => {
                self.interner.add_alias(key, buffer, slot, self.keys.len());
                Way { is_new: true, ..Way::to(slot) }
            }
        }
    }

    /// The series that a raw key in `buffer` means.
    fn series_of(&self, key: OpKey, buffer: &[u8]) -> MetricKey {
        let (name, tags) = key.bytes(buffer);
        let dialect = key.class.dialect();
        // Classic dialects have no scopes: their series are finished where they are received.
        let scope = Scope::LocalOnly;
        let kind = key.recorder.kind();
        if let Some(kind) = key.class.kind() {
            let (tags, scope) = TagSet::from_section(tags, &self.extend_tags);
            return MetricKey { name: text::lossy(name).into(), tags, kind, scope, dialect };
        }
        if dialect == Dialect::Etsy {
            let (name, tags) = etsy::key(name, tags, self.standing.rules.sanitise);
            return MetricKey {
                name,
                tags: self.extend_tags.laid_over(tags),
                kind,
                scope,
                dialect,
            };
        }
        let tags = TagSet::canonical(self.extend_tags.iter());
        MetricKey { name: text::lossy(name).into(), tags, kind, scope, dialect }
    }

    /// brubeck's series of that name, if there is one: its first line has said of which kind.
    fn known_of_another_kind(&self, key: &MetricKey) -> Option<MetricKey> {
        use MetricKind::{Counter, Gauge, Histogram, Timer};
        [Counter, Gauge, Histogram, Timer].into_iter().find_map(|kind| {
            let scope = key.scope.canonical(kind, self.role);
            let other = MetricKey { kind, scope, ..key.clone() };
            let slot = self.interner.find_canonical(&other, |slot| &self.keys[slot as usize])?;
            Some(MetricKey::clone(&self.keys[slot as usize]))
        })
    }

    /// The same for what another node has merged.
    pub(super) fn slot_of_imported(&mut self, key: MetricKey) -> SlotId {
        match self.slot_of(key, Origin::Import) {
            Found::Own(slot) => slot,
            Found::Overflow(slot) => {
                self.folds.sample(slot);
                slot
            }
        }
    }

    /// Finds or makes the slot of a series, or of what stands for it if there is no room. Its
    /// scope is made canonical for this role.
    pub(super) fn slot_of(&mut self, mut key: MetricKey, origin: Origin) -> Found {
        key.scope = key.scope.canonical(key.kind, self.role);
        let room = Census::room_of(&key);
        match self.find_or_add(key, room) {
            Ok(slot) => Found::Own(slot),
            Err((key, limit)) => Found::Overflow(self.fold(key, limit, origin)),
        }
    }

    /// The slot of what stands for a new series that there is no room for.
    fn fold(&mut self, key: MetricKey, limit: Limit, origin: Origin) -> SlotId {
        let slot = self.overflow_slot(key, origin);
        self.folds.context(slot, limit);
        slot
    }

    /// The slot of what stands for series of a name.
    pub(super) fn overflow_slot(&mut self, key: MetricKey, origin: Origin) -> SlotId {
        match self.find_or_add(self.overflow.of_name(key, origin), Room::Overflow) {
            Ok(slot) => slot,
            Err((key, _)) => self.last_slot(&key),
        }
    }

    /// The slot of what stands for a series that there is no room for under its name.
    pub(super) fn last_slot(&mut self, key: &MetricKey) -> SlotId {
        self.folds.name(&key.name);
        let last = self.overflow.last(key);
        self.find_or_add(last, Room::Last).expect("there is always room for the last")
    }

    /// Finds or makes the slot of a canonical key; gives the key back if there is no room.
    fn find_or_add(&mut self, key: MetricKey, room: Room) -> Result<SlotId, (MetricKey, Limit)> {
        let keys = &self.keys;
        if let Some(slot) = self.interner.find_canonical(&key, |slot| &keys[slot as usize]) {
            return Ok(slot);
        }
        if let Err(limit) = self.census.admit(&key, room) {
            return Err((key, limit));
        }
        self.note_keys();
        let slot = self.keys.len() as SlotId;
        self.interner.add_canonical(&key, slot);
        if key.dialect.is_classic() && matches!(room, Room::Overflow | Room::Last) {
            self.standing.keep_for_others(slot, &key);
        }
        self.keys.push(Arc::new(key));
        self.places.push(Place { epoch: 0, at: 0 });
        Ok(slot)
    }

    /// What sketches may take depends on what keys do.
    fn note_keys(&mut self) {
        self.thresholds = Thresholds::new(self.census.memory_limit(), self.census.key_memory());
    }

    /// Hands over everything accumulated and starts the next interval.
    pub fn take_snapshot(&mut self) -> Snapshot {
        let epochs = self.began..=self.epoch;
        let idle = self.standing.end_interval(epochs, &self.keys, &self.places, &self.open);
        let kept = match self.keeps_values {
            true => self.standing.values(&self.keys),
            false => Vec::new(),
        };
        let room = Vec::with_capacity(self.open.len());
        let entries = std::mem::replace(&mut self.open, room);
        let series = self.keys.len();
        let memory = self.memory();
        let folded = self.folds.take(&self.keys);
        let dropped = self.mapper.as_mut().map(|mapper| mapper.take_dropped()).unwrap_or_default();
        let interval = self.intervals;
        self.open_slots.clear();
        self.tracks.clear();
        self.sketch_bytes = 0;
        self.begin_interval();
        let forgotten = self.forget_idle(folded.samples > 0);
        self.known = self.keys.len();
        self.note_keys();
        Snapshot { interval, entries, idle, kept, series, memory, folded, dropped, forgotten }
    }

    fn begin_interval(&mut self) {
        self.intervals += 1;
        self.epoch += 1;
        self.began = self.epoch;
        self.beginnings.truncate(IDLE_INTERVALS as usize);
        self.beginnings.push_front(self.began);
    }

    /// Forgets series that have been idle for long, once there are enough of them; and those
    /// that are in the way of others, where there is no room.
    fn forget_idle(&mut self, is_short_of_room: bool) -> Forgotten {
        // Looking costs as much as a flush, so not every interval.
        if !is_short_of_room && !self.intervals.is_multiple_of(IDLE_INTERVALS / 4) {
            return Forgotten::default();
        }
        let (census, standing) = (&self.census, &self.standing);
        // Whether it has had no sample in so many intervals before this one.
        let beginning = |intervals: u32| self.beginnings.get(intervals as usize).copied();
        let (long_ago, lately) = (beginning(IDLE_INTERVALS), beginning(IDLE_IN_THE_WAY));
        let is_idle = |slot: usize, place: &Place| {
            let last = place.epoch & !FOLDED;
            long_ago.is_some_and(|began| last < began) && !standing.holds(slot as SlotId)
                || is_short_of_room
                    && lately.is_some_and(|began| last < began)
                    && census.is_in_the_way(slot)
        };
        let mut kept = 0;
        let places = self.places.iter().enumerate();
        let new_slots: Vec<Option<SlotId>> = places
            .map(|(slot, place)| {
                let new = (!is_idle(slot, place)).then_some(kept);
                kept += SlotId::from(new.is_some());
                new
            })
            .collect();
        let idle = new_slots.len() - kept as usize;
        let enough = match is_short_of_room {
            true => (self.places.len() / PART_IN_THE_WAY).max(1),
            false => MIN_FORGOTTEN.max(self.places.len() / 4),
        };
        if idle < enough {
            return Forgotten::default();
        }
        let is_kept = |slot: usize| new_slots[slot].is_some();
        let kept = kept as usize;
        let interner = self.interner.renumber(kept, |slot| new_slots[slot as usize]);
        self.standing.renumber(|slot| new_slots[slot as usize]);
        self.census.keep(kept, is_kept);
        let refused = self.refused.take();
        let special = self.mapper.as_mut().map(|mapper| mapper.forget());
        let mut forgotten = Vec::with_capacity(idle);
        let mut keys = Vec::with_capacity(kept);
        for (slot, key) in std::mem::take(&mut self.keys).into_iter().enumerate() {
            if is_kept(slot) {
                keys.push(key);
            } else {
                forgotten.push(key);
            }
        }
        self.keys = keys;
        let mut slots = new_slots.iter();
        self.places.retain(|_| slots.next().is_some_and(Option::is_some));
        self.places.shrink_to_fit();
        Forgotten { keys: forgotten, _tables: Some((interner, refused, special)) }
    }

    /// Series the shard knows, idle ones included.
    pub fn series(&self) -> usize {
        self.keys.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::{Batch, KeyHasher};
    use crate::model::Scope;
    use crate::sketch::legacy_set::Encoded;

    fn shard() -> Shard {
        Shard::new(Role::Local, ExtendTags::default())
    }

    /// One batch of counter samples of value 1, a key each.
    fn counters<'a>(
        hasher: KeyHasher,
        keys: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Batch {
        let mut batch = Batch::default();
        for (name, tags) in keys {
            batch.push(hasher, MetricKind::Counter, (name, tags), 1f64.to_bits());
        }
        batch
    }

    fn apply(shard: &mut Shard, batch: &Batch) {
        let (ops, keys) = batch.parts();
        shard.apply(ops, keys);
    }

    fn sums(snapshot: &Snapshot) -> Vec<(String, f64)> {
        let sum = |aggregate: &Aggregate| match aggregate {
            Aggregate::Counter(sum) => *sum,
            other => panic!("not a counter: {other:?}"),
        };
        snapshot
            .entries
            .iter()
            .map(|(key, aggregate)| (format!("{}{:?}", key.name, key.tags), sum(aggregate)))
            .collect()
    }

    #[test]
    fn spellings_of_one_key_are_one_series() {
        let mut shard = shard();
        let spellings = [("hits", "b:2,a:1"), ("hits", "a:1,b:2"), ("hits", "a:1,,b:2,a:1")];
        apply(&mut shard, &counters(KeyHasher::random(), spellings));
        assert_eq!(sums(&shard.take_snapshot()), [("hits#a:1,b:2".to_owned(), 3.0)]);
    }

    #[test]
    fn the_same_bytes_parted_elsewhere_are_another_series() {
        let mut shard = shard();
        apply(&mut shard, &counters(KeyHasher::random(), [("ab", "c"), ("a", "bc"), ("ab", "c")]));
        let sums = sums(&shard.take_snapshot());
        assert_eq!(sums, [("ab#c".to_owned(), 2.0), ("a#bc".to_owned(), 1.0)]);
    }

    #[test]
    fn a_snapshot_holds_only_what_was_touched_since_the_last() {
        let hasher = KeyHasher::random();
        let mut shard = shard();
        apply(&mut shard, &counters(hasher, [("a", ""), ("b", "")]));
        assert_eq!(shard.take_snapshot().entries.len(), 2);
        apply(&mut shard, &counters(hasher, [("b", "")]));
        assert_eq!(sums(&shard.take_snapshot()), [("b#".to_owned(), 1.0)]);
        assert!(shard.take_snapshot().entries.is_empty());
    }

    #[test]
    fn a_global_node_makes_one_series_of_all_scopes() {
        let mut shard = Shard::new(Role::Global, ExtendTags::default());
        let scoped = [("c", "veneurlocalonly"), ("c", ""), ("c", "veneurglobalonly")];
        apply(&mut shard, &counters(KeyHasher::random(), scoped));
        assert_eq!(sums(&shard.take_snapshot()), [("c#".to_owned(), 3.0)]);
    }

    #[test]
    fn idle_series_are_forgotten_and_the_others_keep_their_slots() {
        let hasher = KeyHasher::random();
        let mut shard = shard();
        let names: Vec<String> = (0..4000).map(|n| format!("n{n}")).collect();
        let all = || names.iter().map(|name| (name.as_str(), "t:1"));
        apply(&mut shard, &counters(hasher, all()));
        for _ in 0..2 * IDLE_INTERVALS {
            apply(&mut shard, &counters(hasher, all().skip(1).step_by(2)));
            shard.take_snapshot();
        }
        assert_eq!(shard.series(), 2000);
        assert_eq!(shard.interner.aliases(), 2000);
        apply(&mut shard, &counters(hasher, all()));
        let sums = sums(&shard.take_snapshot());
        assert_eq!(sums.len(), 4000);
        assert!(sums.iter().all(|(_, sum)| *sum == 1.0));
    }

    #[test]
    fn a_client_that_shuffles_its_tags_costs_bounded_memory() {
        let hasher = KeyHasher::random();
        let mut shard = shard();
        for n in 0..20_000u32 {
            // 2^15 spellings of one series: its tags repeated by the bits of n.
            let tags: Vec<&str> =
                (0..15).map(|bit| if n >> bit & 1 == 1 { "a" } else { "" }).chain(["a"]).collect();
            apply(&mut shard, &counters(hasher, [("x", tags.join(",").as_str())]));
        }
        assert_eq!(shard.series(), 1);
        assert!(shard.interner.aliases() <= 8 * 1024, "{}", shard.interner.aliases());
        assert_eq!(sums(&shard.take_snapshot()), [("x#a".to_owned(), 20_000.0)]);
    }

    #[test]
    fn a_client_that_shuffles_long_tags_costs_bounded_memory() {
        let hasher = KeyHasher::random();
        let mut shard = shard();
        let long = "b".repeat(32 << 10);
        for n in 0..1000 {
            // 1000 spellings of one series, 32 MiB of them: the long tag behind n commas.
            let tags = format!("{}{long}", ",".repeat(n));
            apply(&mut shard, &counters(hasher, [("x", tags.as_str())]));
        }
        assert_eq!(shard.series(), 1);
        assert!(shard.interner.aliases() <= (8 << 20) / long.len(), "of 8 MiB at most");
        assert_eq!(sums(&shard.take_snapshot()), [(format!("x#{long}"), 1000.0)]);
    }

    #[test]
    fn a_set_with_a_scope_is_finished_where_it_says() {
        let mut shard = shard();
        let mut batch = Batch::default();
        for tags in ["veneurlocalonly", "veneurglobalonly", ""] {
            batch.push(KeyHasher::random(), MetricKind::Set, ("s", tags), 7);
        }
        apply(&mut shard, &batch);
        let scopes: Vec<Scope> =
            shard.take_snapshot().entries.iter().map(|(key, _)| key.scope).collect();
        assert_eq!(scopes, [Scope::LocalOnly, Scope::Mixed]);
    }

    #[test]
    fn second_hashes_go_to_the_sets_they_came_with() {
        let mut shard = Shard::new(Role::LocalToV1, ExtendTags::default());
        let mut batch = Batch::default();
        let samples =
            [("l", "veneurlocalonly", 1), ("a", "", 2), ("b", "", 3), ("a", "", 4), ("b", "", 3)];
        for (name, tags, hash) in samples {
            for kind in [MetricKind::Set, MetricKind::Counter] {
                batch.push(KeyHasher::random(), kind, (name, tags), 0);
            }
            batch.push_legacy_hash(hash << 40);
        }
        apply(&mut shard, &batch);
        let mut counts = Vec::new();
        for (key, aggregate) in shard.take_snapshot().entries {
            let Aggregate::Set(members) = aggregate else { continue };
            let count = members.into_legacy().0.map(|mut set| match set.encode() {
                Encoded::Sparse { count, .. } => count,
                Encoded::Dense(_) => panic!("few members are sparse"),
            });
            counts.push((key.name.to_string(), count));
        }
        let wanted = [("l", None), ("a", Some(2)), ("b", Some(1))];
        assert_eq!(counts, wanted.map(|(name, count)| (name.to_owned(), count)));
    }
}
