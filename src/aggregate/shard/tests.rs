use super::snapshot::IDLE_INTERVALS;
use super::*;
use crate::aggregate::{Batch, KeyHasher};
use crate::model::Scope;
use crate::sketch::legacy_set::Encoded;

fn shard() -> Shard {
    Shard::new(Role::Local, ExtendTags::default())
}

/// One batch of counter samples of value 1, a key each.
fn counters<'a>(hasher: KeyHasher, keys: impl IntoIterator<Item = (&'a str, &'a str)>) -> Batch {
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
