//! Laws of the limit on memory: totals stay right, the count is exact, and the bound holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use proptest::prelude::*;
use veneur::aggregate::{Aggregate, ContextLimits, KeyHasher, OpKey, Ops, Shard, Snapshot};
use veneur::model::{ExtendTags, MetricKind, Role, Scope, Statistic, TagSet, Weight};
use veneur::protocol::import::{ImportedEntry, ImportedValue};
use veneur::sketch::{Cardinality, Digest, member_hash};

/// Readers of a process have one in common.
static HASHER: LazyLock<KeyHasher> = LazyLock::new(KeyHasher::random);

#[derive(Clone, Debug)]
enum Step {
    /// So many samples of a timer or members of a set, each from `first` on.
    Samples {
        is_set: bool,
        name: u8,
        tag: u8,
        first: u16,
        count: u16,
    },
    Import {
        is_set: bool,
        name: u8,
        tag: u8,
        first: u16,
        count: u16,
    },
    Count {
        name: u8,
        tag: u8,
    },
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let count = prop_oneof![1..20u16, 100..1_000u16];
    let of = (any::<bool>(), 0..6u8, any::<u8>(), 0..2_000u16, count);
    let step = prop_oneof![
        12 => of.clone().prop_map(|(is_set, name, tag, first, count)| {
            Step::Samples { is_set, name, tag, first, count }
        }),
        3 => of.prop_map(|(is_set, name, tag, first, count)| {
            Step::Import { is_set, name, tag, first, count }
        }),
        2 => (0..6u8, any::<u8>()).prop_map(|(name, tag)| Step::Count { name, tag }),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 0..80)
}

fn sample(shard: &mut Shard, kind: MetricKind, line: (&str, &str), values: &[u64]) {
    let text = format!("{}{}", line.0, line.1);
    let (name, tags) = text.as_bytes().split_at(line.0.len());
    let key = OpKey::of(*HASHER, text.as_bytes(), kind, name, tags);
    let mut ops = Ops::default();
    for value in values {
        ops.push(key.expect("it is short"), *value, Weight::ONE);
    }
    shard.apply(&ops, text.as_bytes());
}

fn hash(member: u16) -> u64 {
    member_hash(&member.to_le_bytes())
}

fn imported(is_set: bool, members: std::ops::Range<u16>) -> ImportedValue {
    if is_set {
        let mut set = Cardinality::new();
        members.for_each(|member| set.insert_hash(hash(member)));
        return ImportedValue::Set(set);
    }
    let mut digest = Digest::new();
    members.for_each(|value| digest.add(f64::from(value), Weight::ONE));
    ImportedValue::Digest(digest)
}

/// What was sent, by name where it can be told: `veneur.overflow` has those of several.
#[derive(Debug, Default, PartialEq)]
struct Totals {
    counted: f64,
    timed: f64,
    members: BTreeSet<u16>,
}

fn totals(snapshot: Snapshot) -> (Totals, Cardinality) {
    let (mut totals, mut union) = (Totals::default(), Cardinality::new());
    for (_, aggregate) in snapshot.entries {
        match aggregate {
            Aggregate::Counter(sum) => totals.counted += sum,
            other @ (Aggregate::Gauge(_) | Aggregate::Total(_) | Aggregate::Timings(_)) => {
                panic!("no such series was sent: {other:?}")
            }
            Aggregate::Histogram(mut histogram) => {
                totals.timed += histogram.statistic(Statistic::Count).unwrap_or(0.0);
            }
            Aggregate::Set(members) => union.merge(&members.into_all()),
        }
    }
    (totals, union)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// For all samples, imports and flushes: no sample and no member is lost, what is said to be
    /// held is the sum of what is there, and the limit holds but for what one step brings.
    #[test]
    fn totals_stay_right_and_memory_is_bounded(steps in steps(), limit in 20_000..600_000usize) {
        let limits = ContextLimits { memory: limit, ..ContextLimits::NONE };
        let mut shard = Shard::with_limits(Role::Global, ExtendTags::default(), limits, 0);
        let mut due = Totals::default();
        let flush = |shard: &mut Shard, due: Totals| {
            let snapshot = shard.take_snapshot();
            let held: usize = snapshot.entries.iter().map(|(_, held)| held.heap_bytes()).sum();
            assert_eq!(snapshot.memory.sketches, held);
            assert_eq!(shard.memory().sketches, 0);
            let (mut totals, union) = totals(snapshot);
            let distinct = due.members.len() as u64;
            let most_off = if distinct <= 1_000 { 1 } else { distinct / 20 };
            assert!(union.estimate().abs_diff(distinct) <= most_off);
            totals.members.clone_from(&due.members);
            assert_eq!(totals, due);
        };
        for step in steps {
            match step {
                Step::Samples { is_set: true, name, tag, first, count } => {
                    let members = first..first + count;
                    let hashes: Vec<u64> = members.clone().map(hash).collect();
                    let line = (format!("s{name}"), format!("t:{tag}"));
                    sample(&mut shard, MetricKind::Set, (&line.0, &line.1), &hashes);
                    due.members.extend(members);
                }
                Step::Samples { is_set: false, name, tag, first, count } => {
                    let values: Vec<u64> =
                        (first..first + count).map(|value| f64::from(value).to_bits()).collect();
                    let line = (format!("t{name}"), format!("t:{tag}"));
                    sample(&mut shard, MetricKind::Timer, (&line.0, &line.1), &values);
                    due.timed += f64::from(count);
                }
                Step::Import { is_set, name, tag, first, count } => {
                    let (kind, letter) = match is_set {
                        true => (MetricKind::Set, 's'),
                        false => (MetricKind::Timer, 't'),
                    };
                    shard.import(ImportedEntry {
                        name: format!("{letter}{name}"),
                        tags: TagSet::canonical([format!("t:{tag}").as_str()]),
                        kind,
                        scope: Scope::GlobalOnly,
                        value: imported(is_set, first..first + count),
                    });
                    match is_set {
                        true => due.members.extend(first..first + count),
                        false => due.timed += f64::from(count),
                    }
                }
                Step::Count { name, tag } => {
                    let line = (format!("c{name}"), format!("t:{tag}"));
                    let one = [1f64.to_bits()];
                    sample(&mut shard, MetricKind::Counter, (&line.0, &line.1), &one);
                    due.counted += 1.0;
                }
                Step::Flush => flush(&mut shard, std::mem::take(&mut due)),
            }
            // The last resort: a set and digests of each scope; and what one series grew by.
            let beyond = 2 * (6 * 20_000 + 20_000);
            prop_assert!(shard.memory().counted() <= limit + beyond, "{:?}", shard.memory());
        }
        flush(&mut shard, due);
    }

    /// A series that was there before a flood keeps its digest, however much others send.
    #[test]
    fn what_is_known_for_longer_is_kept(steps in steps()) {
        let limits = ContextLimits { memory: 300_000, ..ContextLimits::NONE };
        let mut shard = Shard::with_limits(Role::Global, ExtendTags::default(), limits, 0);
        let known = |shard: &mut Shard| {
            sample(shard, MetricKind::Timer, ("known", "a:b"), &[1f64.to_bits()]);
        };
        known(&mut shard);
        shard.take_snapshot();
        let mut due: BTreeMap<String, f64> = BTreeMap::new();
        for step in steps {
            if let Step::Samples { is_set: _, name, tag, first, count } = step {
                let hashes: Vec<u64> = (first..first + count).map(hash).collect();
                let line = (format!("s{name}"), format!("t:{tag}"));
                sample(&mut shard, MetricKind::Set, (&line.0, &line.1), &hashes);
            }
            known(&mut shard);
            *due.entry("known#a:b".to_owned()).or_default() += 1.0;
        }
        let entries = shard.take_snapshot().entries.into_iter();
        let timers: BTreeMap<String, f64> = entries
            .filter_map(|(key, aggregate)| match aggregate {
                Aggregate::Histogram(mut timer) => Some((
                    format!("{}{:?}", key.name, key.tags),
                    timer.statistic(Statistic::Count).unwrap_or(0.0),
                )),
                _ => None,
            })
            .collect();
        prop_assert_eq!(timers, due);
    }
}

/// One client opens sets without end that grow, another one has a timer and a counter.
#[test]
fn a_flood_of_growing_sets_folds_and_others_are_exact() {
    let limits = ContextLimits { memory: 4 << 20, ..ContextLimits::NONE };
    let mut shard = Shard::with_limits(Role::Global, ExtendTags::default(), limits, 0);
    for interval in 0..3 {
        let mut most = 0;
        for round in 0..40u16 {
            for tag in 0..1_000 {
                let hashes: Vec<u64> = (round * 100..(round + 1) * 100).map(hash).collect();
                sample(&mut shard, MetricKind::Set, ("flood", &format!("id:{tag}")), &hashes);
            }
            sample(&mut shard, MetricKind::Timer, ("steady", "host:a"), &[2f64.to_bits()]);
            sample(&mut shard, MetricKind::Counter, ("steady", "host:a"), &[1f64.to_bits()]);
            most = most.max(shard.memory().counted());
        }
        assert!(most <= 4 << 20, "{most}");
        let snapshot = shard.take_snapshot();
        let folded = snapshot.folded.clone();
        assert!(folded.contexts > 500, "{folded:?}");
        assert_eq!(&*folded.worst[0].name, "flood");
        assert_eq!(folded.by_limit.iter().sum::<u64>(), folded.contexts);
        let find = |name: &str, tags: &str, kind| {
            let is_it = |key: &veneur::model::MetricKey| {
                (&*key.name, key.tags.as_str(), key.kind) == (name, tags, kind)
            };
            let found = snapshot.entries.iter().find(|(key, _)| is_it(key));
            found.map(|(_, aggregate)| aggregate.clone())
        };
        let Some(Aggregate::Set(all)) = find("flood", "veneur_overflow:true", MetricKind::Set)
        else {
            panic!("interval {interval}: no overflow series")
        };
        assert!(all.estimate().abs_diff(4_000) < 200, "{}", all.estimate());
        let counter = find("steady", "host:a", MetricKind::Counter);
        assert!(matches!(counter, Some(Aggregate::Counter(40.0))), "{counter:?}");
        if interval > 0 {
            let Some(Aggregate::Histogram(mut timer)) = find("steady", "host:a", MetricKind::Timer)
            else {
                panic!("interval {interval}: the timer is folded")
            };
            assert_eq!(timer.statistic(Statistic::Count), Some(40.0));
        }
    }
}
