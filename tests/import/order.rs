//! Importing in any order gives the same, exactly or within the error sketches have.

use std::f64::consts::PI;

use proptest::prelude::*;
use proptest::test_runner::Config;
use veneur::aggregate::{Aggregate, Shard};
use veneur::model::{ExtendTags, MetricKind, Role, Scope, Weight};
use veneur::protocol::import::{ImportedEntry, ImportedValue};
use veneur::sketch::{Cardinality, Digest, member_hash};

use crate::support::key;

fn entry(kind: MetricKind, value: ImportedValue) -> ImportedEntry {
    let key = key(kind, Scope::GlobalOnly, kind.as_str(), &["a:b"]);
    ImportedEntry { name: key.name.into(), tags: key.tags, kind: key.kind, scope: key.scope, value }
}

/// What one host forwards of its samples.
fn host(samples: &[u32]) -> Vec<ImportedEntry> {
    let (mut digest, mut members) = (Digest::new(), Cardinality::new());
    for &sample in samples {
        digest.add(f64::from(sample), Weight::ONE);
        members.insert_hash(member_hash(&sample.to_le_bytes()));
    }
    let sum = samples.iter().copied().map(f64::from).sum();
    vec![
        entry(MetricKind::Counter, ImportedValue::Counter(sum)),
        entry(MetricKind::Timer, ImportedValue::Digest(digest)),
        entry(MetricKind::Set, ImportedValue::Set(members)),
    ]
}

/// What a global node makes of it.
fn import(entries: impl IntoIterator<Item = ImportedEntry>) -> (f64, Digest, Cardinality) {
    let mut shard = Shard::new(Role::Global, ExtendTags::default());
    entries.into_iter().for_each(|entry| shard.import(entry));
    let (mut sum, mut digest, mut members) = (None, None, None);
    for (_, aggregate) in shard.take_snapshot().entries {
        match aggregate {
            Aggregate::Counter(value) => sum = Some(value),
            Aggregate::Histogram(histogram) => digest = Some(histogram.into_merged()),
            Aggregate::Set(value) => members = Some(value.into_all()),
            other => panic!("nobody sent {other:?}"),
        }
    }
    let all = sum.zip(digest).zip(members);
    let ((sum, digest), members) = all.expect("every host sends all three");
    (sum, digest, members)
}

/// Hosts with their samples, and their entries in another order.
fn hosts() -> impl Strategy<Value = (Vec<Vec<u32>>, Vec<ImportedEntry>)> {
    let samples = proptest::collection::vec(0u32..1_000_000, 1..400);
    let hosts = proptest::collection::vec(samples, 1..30);
    hosts.prop_flat_map(|hosts| {
        let entries: Vec<ImportedEntry> = hosts.iter().flat_map(|samples| host(samples)).collect();
        (Just(hosts), Just(entries).prop_shuffle())
    })
}

proptest! {
    #![proptest_config(Config { cases: 64, ..Config::default() })]

    /// For all orders: sums, sets, counts and extremes are the same to the bit; quantiles are
    /// within the widest centroid that scale k1 allows there, pi / 100 * sqrt(q (1 - q)) of the
    /// ranks, one sample of slack.
    #[test]
    fn the_order_of_imports_does_not_matter((hosts, shuffled) in hosts()) {
        let mut samples: Vec<u32> = hosts.concat();
        samples.sort_unstable();
        let in_order = import(hosts.iter().flat_map(|samples| host(samples)));
        let in_another = import(shuffled);
        prop_assert_eq!(in_order.0, in_another.0);
        prop_assert_eq!(&in_order.2, &in_another.2);
        let n = samples.len() as f64;
        for mut digest in [in_order.1, in_another.1] {
            prop_assert_eq!(digest.weight(), n);
            prop_assert_eq!(digest.min(), samples.first().copied().map(f64::from));
            prop_assert_eq!(digest.max(), samples.last().copied().map(f64::from));
            for quantile in [0.25, 0.5, 0.75, 0.9, 0.99] {
                let answer = digest.quantile(quantile).expect("there are samples");
                let rank = |below: &dyn Fn(f64) -> bool| {
                    samples.partition_point(|&sample| below(f64::from(sample))) as f64 / n
                };
                let low = rank(&|sample| sample < answer) - quantile;
                let high = quantile - rank(&|sample| sample <= answer);
                let widest = PI / 100.0 * (quantile * (1.0 - quantile)).sqrt();
                prop_assert!(low.max(high) <= widest + 1.0 / n, "{} {}", quantile, answer);
            }
        }
    }
}
