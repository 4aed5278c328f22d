//! Laws of the limits on series: nothing is lost, and no more is held than they say.

use std::num::NonZeroUsize;

use proptest::prelude::*;
use veneur::aggregate::{Aggregate, ContextLimits, KeyHasher, OpKey, Ops, Shard, Snapshot};
use veneur::model::{ExtendTags, MetricKind, Role, Scope, TagSet, Weight};
use veneur::protocol::import::{ImportedEntry, ImportedValue};

/// Beyond `limits.contexts`: one overflow series for each 16 and 64 at least, 1,024 series of own
/// telemetry, and those of `veneur.overflow`, one for each kind and scope.
fn most_series(contexts: usize) -> usize {
    contexts + (contexts / 16).max(64) + 1024 + 18
}

#[derive(Clone, Debug)]
enum Step {
    Sample { name: u8, tags: u8, scope: u8, value: u32 },
    Import { name: u8, tags: u8, value: u32 },
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (any::<u8>(), 0..8u8, 0..3u8, 1..1000u32)
            .prop_map(|(name, tags, scope, value)| Step::Sample { name, tags, scope, value }),
        10 => (0..3u8, any::<u8>(), 0..3u8, 1..1000u32)
            .prop_map(|(name, tags, scope, value)| Step::Sample { name, tags, scope, value }),
        5 => (any::<u8>(), any::<u8>(), 1..1000u32)
            .prop_map(|(name, tags, value)| Step::Import { name, tags, value }),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 0..600)
}

fn limits() -> impl Strategy<Value = ContextLimits> {
    (1..100usize, 1..40usize, 1..6usize).prop_map(|(contexts, contexts_per_name, tag_length)| {
        // Tags of the first two laws have three to five bytes, and `b`.
        ContextLimits { contexts, contexts_per_name, tag_length, ..ContextLimits::NONE }
    })
}

fn name(n: u8) -> String {
    let own = if n.is_multiple_of(16) { "veneur." } else { "" };
    format!("{own}n{n}")
}

fn sample(shard: &mut Shard, hasher: KeyHasher, name: &str, tags: &str, value: f64) {
    let line = format!("{name}{tags}");
    let (name, tags) = line.as_bytes().split_at(name.len());
    let key = OpKey::of(hasher, line.as_bytes(), MetricKind::Counter, name, tags);
    let mut ops = Ops::default();
    ops.push(key.expect("it is short"), value.to_bits(), Weight::ONE);
    shard.apply(&ops, line.as_bytes());
}

fn sum(snapshot: &Snapshot) -> f64 {
    let sum = |aggregate: &Aggregate| match aggregate {
        Aggregate::Counter(sum) => *sum,
        other => panic!("not a counter: {other:?}"),
    };
    snapshot.entries.iter().map(|(_, aggregate)| sum(aggregate)).sum()
}

fn sum_of_overflows(snapshot: &Snapshot) -> f64 {
    let is_overflow = |tags: &TagSet| tags.iter().any(|tag| tag == "veneur_overflow:true");
    let entries = snapshot.entries.iter().filter(|(key, _)| is_overflow(&key.tags)).cloned();
    sum(&Snapshot { entries: entries.collect(), ..Snapshot::default() })
}

proptest! {
    /// For all samples, imports, flushes and limits: the sums of all series are the sum of all
    /// samples, what is said to have been folded is what is in overflow series, and no more
    /// series are held than the limits and the room for overflow series.
    #[test]
    fn totals_are_exact_and_series_are_bounded(steps in steps(), limits in limits()) {
        let hasher = KeyHasher::random();
        let mut shard = Shard::with_limits(Role::Local, ExtendTags::default(), limits, 0);
        let (mut sent, mut received) = (0.0, 0.0);
        let mut flush = |shard: &mut Shard| {
            let snapshot = shard.take_snapshot();
            received += sum(&snapshot);
            let of_names: u64 = snapshot.folded.worst.iter().map(|name| name.samples).sum();
            assert!(of_names <= snapshot.folded.samples);
            assert_eq!(sum_of_overflows(&snapshot) > 0.0, snapshot.folded.samples > 0);
        };
        for step in steps {
            match step {
                Step::Sample { name: n, tags, scope, value } => {
                    let scope = ["veneurlocalonly", "", "veneurglobalonly"][usize::from(scope)];
                    // Two spellings of each series.
                    let tags = match tags % 2 {
                        0 => format!("a:{},b,{scope}", tags / 2),
                        _ => format!("{scope},b,a:{}", tags / 2),
                    };
                    sample(&mut shard, hasher, &name(n), &tags, f64::from(value));
                    sent += f64::from(value);
                }
                Step::Import { name: n, tags, value } => {
                    shard.import(ImportedEntry {
                        name: name(n),
                        tags: TagSet::canonical([format!("a:{tags}").as_str()]),
                        kind: MetricKind::Counter,
                        scope: Scope::GlobalOnly,
                        value: ImportedValue::Counter(f64::from(value)),
                    });
                    sent += f64::from(value);
                }
                Step::Flush => flush(&mut shard),
            }
            prop_assert!(shard.series() <= most_series(limits.contexts));
        }
        flush(&mut shard);
        prop_assert_eq!(received, sent);
    }

    /// A series that has been given a slot keeps it as long as it has samples: whatever else
    /// comes, its total is its own.
    #[test]
    fn known_series_are_not_affected(steps in steps(), limits in limits()) {
        let limits = ContextLimits { tag_length: limits.tag_length.max(3), ..limits };
        let hasher = KeyHasher::random();
        let mut shard = Shard::with_limits(Role::Global, ExtendTags::default(), limits, 0);
        sample(&mut shard, hasher, "known", "x:1,y:2", 1.0);
        let mut due = 1.0;
        let check = |shard: &mut Shard, due: f64| {
            let snapshot = shard.take_snapshot();
            let known = snapshot.entries.iter().find(|(key, _)| {
                &*key.name == "known" && key.tags.as_str() == "x:1,y:2"
            });
            let Some((_, Aggregate::Counter(sum))) = known else { panic!("it is gone") };
            assert_eq!(*sum, due);
        };
        for (n, step) in steps.into_iter().enumerate() {
            match step {
                Step::Sample { name: n, tags, scope: _, value }
                | Step::Import { name: n, tags, value } => {
                    sample(&mut shard, hasher, &name(n), &format!("a:{tags}"), f64::from(value));
                }
                Step::Flush => {
                    check(&mut shard, due);
                    due = 0.0;
                }
            }
            let tags = if n.is_multiple_of(2) { "x:1,y:2" } else { "y:2,x:1" };
            sample(&mut shard, hasher, "known", tags, 1.0);
            due += 1.0;
        }
        check(&mut shard, due);
    }

    /// All shards together hold what was asked for, but for rounding up.
    #[test]
    fn shares_add_up(contexts in 1..10_000usize, shards in 1..64usize) {
        let limits = ContextLimits { contexts, ..ContextLimits::NONE };
        let shards = NonZeroUsize::new(shards).expect("at least one");
        let all = limits.share(shards).contexts * shards.get();
        prop_assert!((contexts..contexts + shards.get()).contains(&all));
    }
}
