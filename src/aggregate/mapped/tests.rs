use std::sync::Arc;

use super::*;
use crate::aggregate::{Aggregate, Batch, ContextLimits, KeyHasher, Shard};
use crate::config::mapping;
use crate::model::{MetricKind, Role};

const FILE: &str = "\
mappings:
- {match: a.*.seen, name: seen, labels: {host: $1}}
- {match: b.*.seen, name: seen, labels: {host: $1}, scale: 10}
- {match: drop.*, action: drop}
";

fn shard(limits: ContextLimits) -> Shard {
    let (mapping, _) = mapping::parse(&"m".into(), FILE, false).expect("it is good");
    Shard::with_limits(Role::Global, ExtendTags::default(), limits, 0)
        .with_mapping(Some(Arc::new(mapping)))
}

/// A sample of value 1 for each name.
fn count(shard: &mut Shard, names: &[&str]) {
    let mut batch = Batch::default();
    for name in names {
        batch.push(KeyHasher::fixed(), MetricKind::Counter, (name, "z:1"), 1f64.to_bits());
    }
    let (ops, keys) = batch.parts();
    shard.apply(ops, keys);
}

type Sums = Vec<(String, f64)>;

/// Series with their sums, and what was left out.
fn flushed(shard: &mut Shard) -> (Sums, Vec<(u64, u64)>) {
    let snapshot = shard.take_snapshot();
    let sums = snapshot.entries.into_iter().map(|(key, aggregate)| match aggregate {
        Aggregate::Counter(sum) => (format!("{}{:?}", key.name, key.tags), sum),
        other => panic!("not a counter: {other:?}"),
    });
    let mut sums: Vec<_> = sums.collect();
    sums.sort_by(|one, other| one.0.cmp(&other.0));
    (sums, snapshot.dropped.into_iter().collect())
}

fn sums<const N: usize>(sums: [(&str, f64); N]) -> Sums {
    sums.map(|(name, sum)| (name.to_owned(), sum)).into()
}

#[test]
fn names_become_series_with_tags_however_often_they_come() {
    let mut shard = shard(ContextLimits::NONE);
    for _ in 0..3 {
        // What comes between keeps its place, whatever becomes of its neighbours.
        count(&mut shard, &["drop.x", "a.h.seen", "b.h.seen", "c", "drop.y", "a.i.seen", "drop.x"]);
        count(&mut shard, &["a.h.seen", "c"]);
        let expected = sums([("c#z:1", 2.0), ("seen#host:h,z:1", 12.0), ("seen#host:i,z:1", 1.0)]);
        assert_eq!(flushed(&mut shard), (expected, vec![(4, 3)]));
    }
    assert_eq!(shard.series(), 3, "what is left out takes no room");
}

#[test]
fn what_is_multiplied_stays_so_where_there_is_no_room() {
    let mut shard = shard(ContextLimits { contexts_per_name: 1, ..ContextLimits::NONE });
    count(&mut shard, &["b.h.seen", "b.i.seen", "b.i.seen", "a.j.seen"]);
    count(&mut shard, &["b.i.seen"]);
    let expected = sums([("seen#host:h,z:1", 10.0), ("seen#veneur_overflow:true", 31.0)]);
    assert_eq!(flushed(&mut shard), (expected, Vec::new()));
}

#[test]
fn second_hashes_stay_with_the_sets_they_came_with() {
    let op = |name: &str, kind| {
        let mut batch = Batch::default();
        batch.push(KeyHasher::fixed(), kind, (name, ""), 1);
        batch.parts().0.list[0]
    };
    use MetricKind::{Counter, Set};
    let ops =
        [("a", Set), ("b", Counter), ("c", Set), ("d", Set)].map(|(name, kind)| op(name, kind));
    let (mut changed, mut slots) = (Changed::default(), vec![0, 1, 2, 3]);
    let changes = [(0, Change::Drop), (2, Change::Scale(2.0))];
    let mut hashes = [10, 12, 13, 99].into_iter();
    changed.fill(&ops, &mut slots, &changes, &mut hashes);
    assert_eq!((slots, changed.legacy_hashes.as_slice()), (vec![1, 2, 3], &[12, 13][..]));
    let values: Vec<u64> = changed.ops.iter().map(|op| op.value).collect();
    assert_eq!(values, [1, 1, 1], "no member is multiplied");
    assert_eq!(hashes.next(), Some(99));
}
