//! One worker's table of series.

use std::sync::Arc;

use super::Aggregate;
use super::batch::{Batch, Op};
use super::intern::{Interner, SlotId};
use crate::model::{ExtendTags, MetricKey, MetricKind, Role, Scope, TagSet, text};

/// A series without samples for this many intervals is forgotten.
const IDLE_INTERVALS: u32 = 30;
/// Forgetting rebuilds the tables, so it waits until it frees this many series at least.
const MIN_FORGOTTEN: usize = 1024;

/// A table from keys to aggregates, owned by one thread.
#[derive(Debug)]
pub struct Shard {
    role: Role,
    extend_tags: ExtendTags,
    interner: Interner,
    slots: Vec<Slot>,
    /// Slots with samples in this interval, in the order of their first one.
    touched: Vec<SlotId>,
    /// Number of the running interval.
    interval: u32,
}

#[derive(Debug)]
struct Slot {
    key: Arc<MetricKey>,
    aggregate: Aggregate,
    /// The interval of its last sample.
    last_touched: u32,
}

/// What a shard hands over at flush: the series touched since the last one.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Keys and what they accumulated, in the order of their first sample.
    pub entries: Vec<(Arc<MetricKey>, Aggregate)>,
    /// Series the shard knows, idle ones included.
    pub series: usize,
}

impl Shard {
    /// An empty shard. `role` and `extend_tags` decide which keys are the same series.
    pub fn new(role: Role, extend_tags: ExtendTags) -> Shard {
        Shard {
            role,
            extend_tags,
            interner: Interner::default(),
            slots: Vec::new(),
            touched: Vec::new(),
            interval: 0,
        }
    }

    /// Adds every sample of a batch to its series.
    pub fn apply(&mut self, batch: &Batch) {
        // Values of a packed line share their key: look it up once.
        let mut last: Option<(u32, MetricKind, SlotId)> = None;
        let mut legacy_hashes = batch.legacy_hashes.iter();
        for op in &batch.ops {
            let slot = match last {
                Some((at, kind, slot)) if at == op.key_at && kind == op.kind => slot,
                _ => {
                    let key = &batch.keys[op.key_at as usize..][..usize::from(op.key_len)];
                    match self.interner.find(op, key) {
                        Some(slot) => slot,
                        None => self.learn(op, key),
                    }
                }
            };
            last = Some((op.key_at, op.kind, slot));
            self.touch(slot).apply(op.kind, op.value, op.weight);
            if op.kind == MetricKind::Set
                && let Some(&hash) = legacy_hashes.next()
            {
                self.insert_legacy_hash(slot, hash);
            }
        }
    }

    /// Keeps a member in the form of Veneur 1.1.0 too, unless its set is finished here.
    fn insert_legacy_hash(&mut self, id: SlotId, hash: u64) {
        let slot = &mut self.slots[id as usize];
        if slot.key.scope != Scope::LocalOnly
            && let Aggregate::Set(members) = &mut slot.aggregate
        {
            members.insert_legacy_hash(hash);
        }
    }

    /// The aggregate of a slot, to be changed.
    #[inline]
    pub(super) fn touch(&mut self, id: SlotId) -> &mut Aggregate {
        let slot = &mut self.slots[id as usize];
        if slot.aggregate.is_empty() {
            slot.last_touched = self.interval;
            self.touched.push(id);
        }
        &mut slot.aggregate
    }

    /// Finds or makes the slot for key bytes not seen before: off the common path.
    #[cold]
    fn learn(&mut self, op: &Op, key: &[u8]) -> SlotId {
        let (name, tags) = key.split_at(usize::from(op.name_len));
        let (tags, scope) = TagSet::from_section(tags, &self.extend_tags);
        let name = text::lossy(name).into();
        let slot = self.slot_of(MetricKey { name, tags, kind: op.kind, scope });
        self.interner.add_alias(op, key, slot, self.slots.len());
        slot
    }

    /// Finds or makes the slot of a series. Its scope is made canonical for this role.
    pub(super) fn slot_of(&mut self, mut key: MetricKey) -> SlotId {
        key.scope = key.scope.canonical(key.kind, self.role);
        let slots = &self.slots;
        let known = self.interner.find_canonical(&key, |id| &slots[id as usize].key);
        known.unwrap_or_else(|| {
            let id = self.slots.len() as SlotId;
            self.interner.add_canonical(&key, id);
            self.slots.push(Slot {
                key: Arc::new(key),
                aggregate: Aggregate::Empty,
                last_touched: self.interval,
            });
            id
        })
    }

    /// Hands over everything accumulated and starts the next interval.
    pub fn take_snapshot(&mut self) -> Snapshot {
        let slots = &mut self.slots;
        let entries = self.touched.drain(..).map(|id| {
            let slot = &mut slots[id as usize];
            (Arc::clone(&slot.key), std::mem::replace(&mut slot.aggregate, Aggregate::Empty))
        });
        let entries = entries.collect();
        let series = self.slots.len();
        self.interval += 1;
        self.forget_idle();
        Snapshot { entries, series }
    }

    /// Forgets series that have been idle for long, once there are enough of them.
    fn forget_idle(&mut self) {
        let now = self.interval;
        let is_idle = |slot: &Slot| now - slot.last_touched > IDLE_INTERVALS;
        // Looking costs as much as a flush, so not every interval.
        if !now.is_multiple_of(IDLE_INTERVALS / 4) {
            return;
        }
        let idle = self.slots.iter().filter(|slot| is_idle(slot)).count();
        if idle < MIN_FORGOTTEN.max(self.slots.len() / 4) {
            return;
        }
        let mut kept = 0;
        let new_ids: Vec<Option<SlotId>> = self
            .slots
            .iter()
            .map(|slot| {
                let id = (!is_idle(slot)).then_some(kept);
                kept += SlotId::from(id.is_some());
                id
            })
            .collect();
        self.interner.renumber(|id| new_ids[id as usize]);
        self.slots.retain(|slot| !is_idle(slot));
        self.slots.shrink_to_fit();
    }

    /// Series the shard knows, idle ones included.
    pub fn series(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::batch::KeyHasher;
    use crate::model::Weight;
    use crate::sketch::legacy_set::Encoded;

    fn shard() -> Shard {
        Shard::new(Role::Local, ExtendTags::default())
    }

    /// One batch of counter samples of value 1, a key each.
    fn counters<'a>(
        hasher: KeyHasher,
        keys: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Batch {
        let mut batch = Batch::with_capacity(0, 0);
        for (name, tags) in keys {
            let key = batch
                .push_key(hasher, MetricKind::Counter, name.as_bytes(), tags.as_bytes())
                .expect("short keys fit");
            batch.push(key, 1f64.to_bits(), Weight::ONE);
        }
        batch
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
        shard.apply(&counters(KeyHasher::random(), spellings));
        assert_eq!(sums(&shard.take_snapshot()), [("hits#a:1,b:2".to_owned(), 3.0)]);
    }

    #[test]
    fn the_same_bytes_parted_elsewhere_are_another_series() {
        let mut shard = shard();
        shard.apply(&counters(KeyHasher::random(), [("ab", "c"), ("a", "bc"), ("ab", "c")]));
        let sums = sums(&shard.take_snapshot());
        assert_eq!(sums, [("ab#c".to_owned(), 2.0), ("a#bc".to_owned(), 1.0)]);
    }

    #[test]
    fn a_snapshot_holds_only_what_was_touched_since_the_last() {
        let hasher = KeyHasher::random();
        let mut shard = shard();
        shard.apply(&counters(hasher, [("a", ""), ("b", "")]));
        assert_eq!(shard.take_snapshot().entries.len(), 2);
        shard.apply(&counters(hasher, [("b", "")]));
        assert_eq!(sums(&shard.take_snapshot()), [("b#".to_owned(), 1.0)]);
        assert!(shard.take_snapshot().entries.is_empty());
    }

    #[test]
    fn a_global_node_makes_one_series_of_all_scopes() {
        let mut shard = Shard::new(Role::Global, ExtendTags::default());
        let scoped = [("c", "veneurlocalonly"), ("c", ""), ("c", "veneurglobalonly")];
        shard.apply(&counters(KeyHasher::random(), scoped));
        assert_eq!(sums(&shard.take_snapshot()), [("c#".to_owned(), 3.0)]);
    }

    #[test]
    fn idle_series_are_forgotten_and_the_others_keep_their_slots() {
        let hasher = KeyHasher::random();
        let mut shard = shard();
        let names: Vec<String> = (0..4000).map(|n| format!("n{n}")).collect();
        let all = || names.iter().map(|name| (name.as_str(), "t:1"));
        shard.apply(&counters(hasher, all()));
        for _ in 0..2 * IDLE_INTERVALS {
            shard.apply(&counters(hasher, all().skip(1).step_by(2)));
            shard.take_snapshot();
        }
        assert_eq!(shard.series(), 2000);
        assert_eq!(shard.interner.aliases(), 2000);
        shard.apply(&counters(hasher, all()));
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
            shard.apply(&counters(hasher, [("x", tags.join(",").as_str())]));
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
            shard.apply(&counters(hasher, [("x", tags.as_str())]));
        }
        assert_eq!(shard.series(), 1);
        assert!(shard.interner.aliases() <= (8 << 20) / long.len(), "of 8 MiB at most");
        assert_eq!(sums(&shard.take_snapshot()), [(format!("x#{long}"), 1000.0)]);
    }

    #[test]
    fn a_set_with_a_scope_is_finished_where_it_says() {
        let mut shard = shard();
        let mut batch = Batch::with_capacity(0, 0);
        for tags in ["veneurlocalonly", "veneurglobalonly", ""] {
            let key = batch
                .push_key(KeyHasher::random(), MetricKind::Set, b"s", tags.as_bytes())
                .expect("short keys fit");
            batch.push(key, 7, Weight::ONE);
        }
        shard.apply(&batch);
        let scopes: Vec<Scope> =
            shard.take_snapshot().entries.iter().map(|(key, _)| key.scope).collect();
        assert_eq!(scopes, [Scope::LocalOnly, Scope::Mixed]);
    }

    #[test]
    fn second_hashes_go_to_the_sets_they_came_with() {
        let mut shard = Shard::new(Role::LocalToV1, ExtendTags::default());
        let mut batch = Batch::with_capacity(0, 0);
        let samples =
            [("l", "veneurlocalonly", 1), ("a", "", 2), ("b", "", 3), ("a", "", 4), ("b", "", 3)];
        for (name, tags, hash) in samples {
            for kind in [MetricKind::Set, MetricKind::Counter] {
                let key = batch
                    .push_key(KeyHasher::random(), kind, name.as_bytes(), tags.as_bytes())
                    .expect("short keys fit");
                batch.push(key, 0, Weight::ONE);
            }
            batch.push_legacy_hash(hash << 40);
        }
        shard.apply(&batch);
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
