use super::census::BYTES_PER_CONTEXT;
use super::*;
use crate::aggregate::{Aggregate, Batch, KeyHasher, Shard};
use crate::model::{Role, Scope};
use crate::protocol::import::{ImportedEntry, ImportedValue};

const LIMITS: ContextLimits = limits(8, 4);

const fn limits(contexts: usize, contexts_per_name: usize) -> ContextLimits {
    ContextLimits { contexts, contexts_per_name, ..ContextLimits::NONE }
}

fn shard(limits: ContextLimits) -> Shard {
    Shard::with_limits(Role::Global, ExtendTags::default(), limits, 0)
}

/// Applies counter samples of value 1.
fn count(shard: &mut Shard, keys: &[(&str, &str)]) {
    let hasher = KeyHasher::fixed();
    let mut batch = Batch::default();
    for &key in keys {
        batch.push(hasher, MetricKind::Counter, key, 1f64.to_bits());
    }
    let (ops, buffer) = batch.parts();
    shard.apply(ops, buffer);
}

fn count_ids(shard: &mut Shard, name: &str, ids: std::ops::Range<usize>) {
    let tags: Vec<String> = ids.map(|id| format!("id:{id}")).collect();
    let keys: Vec<(&str, &str)> = tags.iter().map(|tags| (name, tags.as_str())).collect();
    count(shard, &keys);
}

/// The flush: its counters in order, and what was folded.
fn flush(shard: &mut Shard) -> (Vec<(String, f64)>, Folded) {
    let snapshot = shard.take_snapshot();
    let mut sums: Vec<(String, f64)> = snapshot
        .entries
        .iter()
        .map(|(key, aggregate)| match aggregate {
            Aggregate::Counter(sum) => (format!("{}{:?}", key.name, key.tags), *sum),
            other => panic!("not a counter: {other:?}"),
        })
        .collect();
    sums.sort_by(|a, b| a.0.cmp(&b.0));
    (sums, snapshot.folded)
}

fn named(sums: &[(&str, f64)]) -> Vec<(String, f64)> {
    sums.iter().map(|&(name, sum)| (name.to_owned(), sum)).collect()
}

#[test]
fn new_series_of_a_full_name_are_one_series_and_others_are_not_affected() {
    let mut shard = shard(LIMITS);
    count(&mut shard, &[("known", "b:2,a:1")]);
    count_ids(&mut shard, "flood", 0..100);
    count_ids(&mut shard, "flood", 0..100);
    count(&mut shard, &[("known", "a:1,b:2"), ("new", "")]);
    let (sums, folded) = flush(&mut shard);
    let wanted = [
        ("flood#id:0", 2.0),
        ("flood#id:1", 2.0),
        ("flood#id:2", 2.0),
        ("flood#id:3", 2.0),
        ("flood#veneur_overflow:true", 192.0),
        ("known#a:1,b:2", 2.0),
        ("new#", 1.0),
    ];
    assert_eq!(sums, named(&wanted));
    assert_eq!((folded.samples, folded.contexts), (192, 96));
    assert_eq!(folded.worst, [FoldedName { name: "flood".into(), samples: 192, contexts: 96 }]);
    assert_eq!(flush(&mut shard).1, Folded::default());
}

#[test]
fn a_new_name_in_a_full_table_has_an_overflow_series_of_its_own() {
    let mut shard = shard(LIMITS);
    count_ids(&mut shard, "a", 0..4);
    count_ids(&mut shard, "b", 0..4);
    count(&mut shard, &[("c", "x"), ("c", "y"), ("d", "z"), ("c", "x")]);
    let (sums, folded) = flush(&mut shard);
    let overflow = &sums[8..];
    let wanted = [("c#veneur_overflow:true", 3.0), ("d#veneur_overflow:true", 1.0)];
    assert_eq!(overflow, named(&wanted));
    assert_eq!((folded.samples, folded.contexts, &folded.example), (4, 3, &None));
}

#[test]
fn names_without_end_meet_in_one_series() {
    let mut shard = shard(LIMITS);
    let names: Vec<String> = (0..1000).map(|n| format!("user.{n}")).collect();
    let keys: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "t:1")).collect();
    count(&mut shard, &keys);
    assert_eq!(shard.series(), 8 + MIN_OVERFLOWS + 1);
    let (sums, folded) = flush(&mut shard);
    let key = "veneur.overflow#metric_type:counter,veneur_overflow:true,worker:global-0";
    let last = (1000 - 8 - MIN_OVERFLOWS) as f64;
    assert!(sums.contains(&(key.to_owned(), last)), "{sums:?}");
    assert_eq!(sums.iter().map(|(_, sum)| sum).sum::<f64>(), 1000.0);
    assert_eq!(folded.worst[0].name.as_ref(), OVERFLOW_NAME);
    assert_eq!(folded.example.as_deref(), Some("user.72"));
}

#[test]
fn own_telemetry_has_room_when_the_table_is_full() {
    let mut shard = shard(LIMITS);
    count_ids(&mut shard, "a", 0..100);
    count_ids(&mut shard, "b", 0..100);
    count(&mut shard, &[("veneur.x", "y")]);
    assert!(flush(&mut shard).0.contains(&("veneur.x#y".to_owned(), 1.0)));
}

#[test]
fn overflow_series_keep_the_tags_of_the_node() {
    let extend = ExtendTags::new(vec!["env:prod".to_owned()]);
    let mut shard = Shard::with_limits(Role::Global, extend, limits(1, 1), 0);
    count(&mut shard, &[("a", ""), ("a", "env:dev,x")]);
    let wanted = [("a#env:prod", 1.0), ("a#env:prod,veneur_overflow:true", 1.0)];
    assert_eq!(flush(&mut shard).0, named(&wanted));
}

#[test]
fn long_keys_take_the_room_of_many() {
    let mut shard = shard(limits(1000, 1000));
    let long = "x".repeat(8 << 10);
    let tags: Vec<String> = (0..1000).map(|n| format!("{long}{n}")).collect();
    let keys: Vec<(&str, &str)> = tags.iter().map(|tags| ("a", tags.as_str())).collect();
    keys.chunks(100).for_each(|keys| count(&mut shard, keys));
    assert!(shard.series() < 1000 * BYTES_PER_CONTEXT / long.len() + 2, "{}", shard.series());
    let (sums, folded) = flush(&mut shard);
    assert_eq!(sums.iter().map(|(_, sum)| sum).sum::<f64>(), 1000.0);
    assert_eq!(folded.samples, 1000 - (sums.len() - 1) as u64);
}

#[test]
fn series_that_are_idle_make_room_when_it_is_needed() {
    let mut shard = shard(LIMITS);
    count(&mut shard, &[("other", "")]);
    count_ids(&mut shard, "flood", 0..100);
    flush(&mut shard);
    count(&mut shard, &[("flood", "new")]);
    let (sums, _) = flush(&mut shard);
    assert_eq!(sums, named(&[("flood#veneur_overflow:true", 1.0)]), "nothing was idle before");
    count(&mut shard, &[("flood", "new")]);
    let (sums, folded) = flush(&mut shard);
    assert_eq!((sums, folded.samples), (named(&[("flood#new", 1.0)]), 0));
    // Only what stood in the way is gone.
    assert_eq!(shard.series(), 3, "other, flood#new and the overflow series");
}

#[test]
fn a_name_may_grow_again_by_as_much_as_was_forgotten() {
    let mut shard = shard(LIMITS);
    for burst in 0..5 {
        count_ids(&mut shard, "flood", burst * 100..burst * 100 + 50);
        let (sums, folded) = flush(&mut shard);
        assert_eq!((sums.len(), folded.samples), (5, 46), "{burst}: {sums:?}");
        // All that is held is idle in this interval.
        count_ids(&mut shard, "flood", burst * 100 + 50..burst * 100 + 100);
        let (sums, folded) = flush(&mut shard);
        assert_eq!((sums.len(), folded.samples), (1, 50), "{burst}: {sums:?}");
        assert_eq!(shard.series(), 1, "the overflow series");
    }
}

#[test]
fn what_other_nodes_forward_folds_as_samples_do() {
    let mut shard = shard(limits(1, 1));
    for (tags, sum) in [("a", 1.0), ("b", 2.0), ("c", 4.0), ("b", 8.0)] {
        let (kind, scope) = (MetricKind::Counter, Scope::GlobalOnly);
        let value = ImportedValue::Counter(sum);
        let tags = TagSet::canonical([tags]);
        shard.import(ImportedEntry { name: "m".to_owned(), tags, kind, scope, value });
    }
    let (sums, folded) = flush(&mut shard);
    assert_eq!(sums, named(&[("m#a", 1.0), ("m#veneur_overflow:true", 14.0)]));
    assert_eq!((folded.samples, folded.contexts), (3, 3));
}

#[test]
fn a_share_is_rounded_up_and_a_name_is_in_one_share() {
    let shards = NonZeroUsize::new(4).expect("it is four");
    let whole = ContextLimits { memory: 1001, ..limits(10, 7) };
    assert_eq!(whole.share(shards), ContextLimits { memory: 251, ..limits(3, 7) });
}

#[test]
fn what_is_too_long_folds_and_what_is_just_not_is_a_series() {
    let limits =
        ContextLimits { tags_per_metric: 2, tag_length: 8, name_length: 10, ..limits(100, 100) };
    let mut shard = shard(limits);
    let keys = [
        ("name.short", "a,b"),
        ("name.short", "b,a,a,"),
        ("name.short", "tag:1234"),
        ("name.short", "tag:12345"),
        ("name.short", "a,tag:12345"),
        ("name.short", "a,b,c"),
        ("name.longer", "a"),
        ("name.short", "tag:12345"),
    ];
    count(&mut shard, &keys);
    let (sums, folded) = flush(&mut shard);
    let wanted = [
        ("name.short#a,b", 2.0),
        ("name.short#tag:1234", 1.0),
        ("name.short#veneur_overflow:true", 4.0),
        ("veneur.overflow#metric_type:counter,veneur_overflow:true,worker:global-0", 1.0),
    ];
    assert_eq!(sums, named(&wanted));
    let by_limit: Vec<(&str, u64)> =
        Limit::ALL.map(|limit| (limit.as_str(), folded.by_limit[limit as usize])).to_vec();
    let wanted = [
        ("contexts", 0),
        ("contexts_per_name", 0),
        ("key_bytes", 0),
        ("tags_per_metric", 1),
        ("tag_length", 2),
        ("name_length", 1),
        ("memory", 0),
    ];
    assert_eq!(by_limit, wanted);
}
