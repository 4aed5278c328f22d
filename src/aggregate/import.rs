//! Merging what other nodes forwarded into the series of a shard.
//!
//! An imported series is one with the samples received here: same key, same slot. What it
//! becomes is the ordinary table ([`Scope::disposition`]), which also makes chains come out
//! right: a node that forwards and imports passes on what it imported, whole and with the
//! scope it came with, and emits nothing of it.
//!
//! Source: Veneur v1.1.0 `worker.go`, `ImportMetric`; v14 `ImportMetricGRPC`.

use super::limits::Origin;
use super::shard::Shard;
use super::{Aggregate, Histogram};
use crate::model::{Dialect, MetricKey, MetricKind, Scope};
use crate::protocol::import::{ImportedEntry, ImportedValue};
use crate::sketch::Digest;

impl Shard {
    /// Merges one forwarded aggregate: counters add, the last gauge wins, digests and sets
    /// unite.
    ///
    /// Tags are taken as they are: `extend_tags` has been applied where the samples came in.
    pub fn import(&mut self, entry: ImportedEntry) {
        let ImportedEntry { name, tags, kind, scope, value } = entry;
        let scope = scope_of_imported(kind, scope);
        let slot = self.slot_of_imported(MetricKey {
            name: name.into(),
            tags,
            kind,
            scope,
            dialect: Dialect::DogStatsD,
        });
        let place = self.touch(slot, Origin::Import);
        let aggregate = &mut self.open[place as usize].1;
        let before = aggregate.heap_bytes();
        match (&mut *aggregate, value) {
            (Aggregate::Counter(sum), ImportedValue::Counter(more)) => *sum += more,
            (Aggregate::Gauge(last), ImportedValue::Gauge(value)) => *last = value,
            (Aggregate::Set(members), ImportedValue::Set(more)) => members.import(&more),
            (Aggregate::Histogram(histogram), ImportedValue::Digest(digest)) => {
                import_digest(histogram, digest, kind, scope);
            }
            (aggregate, value) => unreachable!("a {kind} is {aggregate:?}, and comes as {value:?}"),
        }
        self.sketch_bytes = self.sketch_bytes - before + aggregate.heap_bytes();
        self.relieve();
    }
}

/// Counters and gauges are forwarded only if they are global-only, but Veneur 1.1.0 does not
/// say so. Nothing that came here is local-only.
fn scope_of_imported(kind: MetricKind, scope: Scope) -> Scope {
    match kind {
        MetricKind::Counter | MetricKind::Gauge => Scope::GlobalOnly,
        MetricKind::Histogram | MetricKind::Timer | MetricKind::Distribution | MetricKind::Set => {
            match scope {
                Scope::GlobalOnly => Scope::GlobalOnly,
                Scope::Mixed | Scope::LocalOnly => Scope::Mixed,
            }
        }
    }
}

/// The node that sent a mixed histogram has emitted its aggregates; of the others nobody has.
fn import_digest(histogram: &mut Histogram, digest: Digest, kind: MetricKind, scope: Scope) {
    match (kind, scope) {
        (MetricKind::Distribution, _) | (_, Scope::GlobalOnly) => histogram.import_as_own(digest),
        (_, Scope::Mixed | Scope::LocalOnly) => histogram.import(digest),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aggregate::{Plan, Rendered, render};
    use crate::model::{
        ExtendTags, Percentile, Point, Role, Statistic, TagSet, UnixSeconds, Weight,
    };
    use crate::sketch::{Cardinality, member_hash};

    fn entry(kind: MetricKind, scope: Scope, values: &[f64]) -> ImportedEntry {
        let mut digest = Digest::new();
        let mut members = Cardinality::new();
        for value in values {
            digest.add(*value, Weight::ONE);
            members.insert_hash(member_hash(&value.to_le_bytes()));
        }
        let value = match kind {
            MetricKind::Counter => ImportedValue::Counter(values.iter().sum()),
            MetricKind::Gauge => ImportedValue::Gauge(values[0]),
            MetricKind::Set => ImportedValue::Set(members),
            MetricKind::Histogram | MetricKind::Timer | MetricKind::Distribution => {
                ImportedValue::Digest(digest)
            }
        };
        let tags = TagSet::canonical(["a:b", "veneurlocalonly"]);
        ImportedEntry { name: "m".into(), tags, kind, scope, value }
    }

    /// What a node makes of these entries.
    fn node(role: Role, entries: Vec<ImportedEntry>) -> (Vec<String>, Vec<ImportedEntry>) {
        let mut shard = Shard::new(role, ExtendTags::default());
        entries.into_iter().for_each(|entry| shard.import(entry));
        let half = Percentile::new(0.5).expect("0.5 is a quantile");
        let plan = Plan::new(role, &[Statistic::Max, Statistic::Count], &[half]);
        let Rendered { points, forwards, .. } =
            render(shard.take_snapshot(), &plan, UnixSeconds(0));
        let point = |point: &Point| {
            format!("{}{}={}", point.key.name, plan.suffixes().text(point.suffix), point.value)
        };
        let points = points.iter().map(point).collect();
        let forward = |(key, aggregate): (Arc<MetricKey>, Aggregate)| ImportedEntry {
            name: key.name.as_ref().to_owned(),
            tags: key.tags.clone(),
            kind: key.kind,
            scope: key.scope,
            value: match aggregate {
                Aggregate::Counter(sum) => ImportedValue::Counter(sum),
                Aggregate::Gauge(last) => ImportedValue::Gauge(last),
                Aggregate::Set(members) => ImportedValue::Set(members.into_all()),
                Aggregate::Histogram(histogram) => ImportedValue::Digest(histogram.into_merged()),
                other => panic!("it was not imported: {other:?}"),
            },
        };
        (points, forwards.into_iter().map(forward).collect())
    }

    #[test]
    fn what_is_imported_is_finished_at_a_node_that_does_not_forward() {
        use MetricKind::{Counter, Distribution, Gauge, Histogram, Set, Timer};
        use Scope::{GlobalOnly, LocalOnly, Mixed};
        let percentile = &["m.50percentile=1.5"][..];
        let all = &["m.max=3", "m.count=4", "m.50percentile=1.5"][..];
        for (kinds, scopes, points) in [
            (&[Counter][..], &[GlobalOnly, Mixed][..], &["m=7"][..]),
            (&[Gauge], &[GlobalOnly, Mixed], &["m=3"]),
            (&[Set], &[GlobalOnly, Mixed], &["m=3"]),
            (&[Histogram, Timer], &[Mixed, LocalOnly], percentile),
            (&[Histogram, Timer], &[GlobalOnly], all),
            (&[Distribution], &[GlobalOnly, Mixed], all),
        ] {
            for (&kind, &scope) in kinds.iter().flat_map(|k| scopes.iter().map(move |s| (k, s))) {
                let entries = [[1.0, 2.0], [3.0, 1.0]].map(|values| entry(kind, scope, &values));
                let (made, forwards) = node(Role::Global, entries.to_vec());
                assert_eq!(made, points, "{kind} {scope:?}");
                assert_eq!(forwards.len(), 0, "{kind} {scope:?}");
            }
        }
    }

    #[test]
    fn imported_tags_are_taken_as_they_are() {
        let mut shard = Shard::new(Role::Global, ExtendTags::new(vec!["env:prod".to_owned()]));
        shard.import(entry(MetricKind::Counter, Scope::Mixed, &[1.0]));
        let tags = shard.take_snapshot().entries[0].0.tags.clone();
        assert_eq!(tags.as_str(), "a:b,veneurlocalonly");
    }

    /// Below a 1.1.0, which takes no gauges and emits no aggregates of what it imports.
    #[test]
    fn a_node_below_a_1_1_0_emits_of_imports_what_would_be_lost_there() {
        use MetricKind::{Counter, Distribution, Gauge, Histogram, Set, Timer};
        use Scope::{GlobalOnly, Mixed};
        let aggregates = &["m.max=2", "m.count=2"][..];
        for (kinds, scope, points, is_forwarded) in [
            (&[Counter, Set, Histogram, Timer][..], Mixed, &[][..], true),
            (&[Gauge], GlobalOnly, &["m=1"], false),
            (&[Histogram, Timer], GlobalOnly, aggregates, true),
            (&[Distribution], Mixed, aggregates, true),
        ] {
            for &kind in kinds {
                let entries = vec![entry(kind, scope, &[1.0, 2.0])];
                let (made, forwards) = node(Role::LocalToV1, entries);
                assert_eq!(made, points, "{kind}");
                assert_eq!(forwards.len(), usize::from(is_forwarded), "{kind}");
            }
        }
    }

    #[test]
    fn a_node_that_forwards_passes_on_what_it_imported_and_emits_nothing_of_it() {
        for kind in MetricKind::ALL {
            for scope in [Scope::Mixed, Scope::GlobalOnly] {
                let entries = || {
                    [[1.0, 2.0], [3.0, 1.0], [8.0, 2.0]].map(|v| entry(kind, scope, &v)).to_vec()
                };
                let (points, forwards) = node(Role::Local, entries());
                assert_eq!(points, [""; 0], "{kind} {scope:?}");
                assert_eq!(forwards.len(), 1, "{kind} {scope:?}");
                let direct = node(Role::Global, entries()).0;
                assert_eq!(node(Role::Global, forwards).0, direct, "{kind} {scope:?}");
            }
        }
    }
}
