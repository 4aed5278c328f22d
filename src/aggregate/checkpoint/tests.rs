use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::aggregate::{Batch, ContextLimits, KeyHasher, Plan, render, stored};
use crate::model::MetricKind;
use crate::model::{ExtendTags, Percentile, Role, Statistic, UnixSeconds};

#[derive(Clone, Debug)]
enum Step {
    Samples {
        kind: MetricKind,
        series: u8,
        values: Vec<u16>,
    },
    /// So many parts of a checkpoint, the first of which begins one if none is running.
    Parts(u8),
    Flush,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let values = prop::collection::vec(any::<u16>(), 1..300);
    let step = prop_oneof![
        8 => (prop::sample::select(MetricKind::ALL.to_vec()), 0..12u8, values)
            .prop_map(|(kind, series, values)| Step::Samples { kind, series, values }),
        4 => (1..3u8).prop_map(Step::Parts),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 0..40)
}

fn shard(limits: ContextLimits) -> Shard {
    Shard::with_limits(Role::Global, ExtendTags::default(), limits, 0)
}

fn send(shard: &mut Shard, kind: MetricKind, series: u8, values: &[u16]) {
    let mut batch = Batch::default();
    let (name, tags) = (format!("m{}", series % 3), format!("t:{series}"));
    for &value in values {
        let bits = match kind {
            MetricKind::Set => u64::from(value).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            _ => f64::from(value).to_bits(),
        };
        batch.push(KeyHasher::fixed(), kind, (&name, &tags), bits);
    }
    let (ops, keys) = batch.parts();
    shard.apply(ops, keys);
}

/// What the files of a checkpoint would hold: what is not through does not count.
#[derive(Default)]
struct File {
    parts: Vec<u8>,
    is_running: bool,
    all: HashMap<MetricKey, Aggregate>,
}

impl File {
    fn take_part(&mut self, shard: &mut Shard) {
        if !self.is_running {
            shard.begin_checkpoint();
            self.parts.clear();
        }
        let Slice { entries, is_last, .. } = shard.take_slice();
        for (key, held) in entries {
            stored::store(&key, held.as_ref(), &mut self.parts);
        }
        self.is_running = !is_last;
        if is_last {
            for (key, held) in stored::restore(&self.parts).expect("it was stored") {
                match held {
                    Some(held) => self.all.insert(key, held),
                    None => self.all.remove(&key),
                };
            }
        }
    }
}

/// Every point of a flush.
fn points(shard: &mut Shard) -> BTreeMap<String, f64> {
    let plan = Plan::new(Role::Global, &Statistic::ALL, Percentile::DEFAULT.as_ref());
    let rendered = render(shard.take_snapshot(), &plan, UnixSeconds(0));
    let name = |point: &crate::model::Point| {
        let (key, suffix) = (&point.key, plan.suffixes().text(point.suffix));
        format!("{}{suffix}{:?} {} {:?}", key.name, key.tags, key.kind, key.scope)
    };
    rendered.points.iter().map(|point| (name(point), point.value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For all samples and flushes, wherever checkpoints are in between: what is restored from a
    /// checkpoint that is through makes the points that the shard itself makes.
    #[test]
    fn what_is_restored_makes_the_same_points(steps in steps()) {
        let mut before = shard(ContextLimits::NONE);
        let mut file = File::default();
        for step in steps {
            match step {
                Step::Samples { kind, series, values } => {
                    send(&mut before, kind, series, &values);
                }
                Step::Parts(parts) => (0..parts).for_each(|_| file.take_part(&mut before)),
                Step::Flush => {
                    before.take_snapshot();
                    file = File::default();
                }
            }
        }
        // One that is running is finished, and one begins and ends after the last sample.
        while file.is_running {
            file.take_part(&mut before);
        }
        file.take_part(&mut before);
        while file.is_running {
            file.take_part(&mut before);
        }
        let mut after = shard(ContextLimits::NONE);
        for (key, held) in file.all {
            after.restore(key, held);
        }
        prop_assert_eq!(points(&mut after), points(&mut before));
    }

    /// Where sketches are merged for want of memory no sample is there twice.
    #[test]
    fn what_was_merged_is_restored_once(steps in steps()) {
        let limits = ContextLimits { memory: 40_000, ..ContextLimits::NONE };
        let (mut before, mut file, mut due) = (shard(limits), File::default(), 0.0);
        for step in steps {
            match step {
                Step::Samples { kind, series, values } if kind.has_digest() => {
                    send(&mut before, kind, series, &values);
                    due += values.len() as f64;
                }
                Step::Samples { .. } => {}
                Step::Parts(_) => {
                    file.take_part(&mut before);
                    while file.is_running {
                        file.take_part(&mut before);
                    }
                }
                Step::Flush => {
                    before.take_snapshot();
                    (file, due) = (File::default(), 0.0);
                }
            }
        }
        file.take_part(&mut before);
        while file.is_running {
            file.take_part(&mut before);
        }
        let mut after = shard(ContextLimits::NONE);
        for (key, held) in file.all {
            after.restore(key, held);
        }
        let counts = points(&mut after).into_iter().filter(|(name, _)| name.contains(".count"));
        prop_assert_eq!(counts.map(|(_, count)| count).sum::<f64>(), due);
    }
}

fn through(shard: &mut Shard) -> Vec<(String, bool)> {
    shard.begin_checkpoint();
    let mut given = Vec::new();
    loop {
        let slice = shard.take_slice();
        let name = |key: &MetricKey| format!("{}{:?}", key.name, key.tags);
        given.extend(slice.entries.iter().map(|(key, held)| (name(key), held.is_some())));
        if slice.is_last {
            given.sort();
            return given;
        }
    }
}

#[test]
fn a_checkpoint_is_about_what_had_samples_since_the_last_one() {
    let mut shard = shard(ContextLimits::NONE);
    for series in 0..3 {
        send(&mut shard, MetricKind::Counter, series, &[1]);
    }
    assert_eq!(through(&mut shard).len(), 3, "the first is about everything");
    assert_eq!(through(&mut shard), []);
    for _ in 0..5 {
        send(&mut shard, MetricKind::Counter, 1, &[1]);
    }
    assert_eq!(through(&mut shard), [("m1#t:1".to_owned(), true)]);
    shard.take_snapshot();
    assert_eq!(through(&mut shard), [], "a flush begins anew");
    send(&mut shard, MetricKind::Counter, 2, &[1]);
    assert_eq!(through(&mut shard), [("m2#t:2".to_owned(), true)]);
}

#[test]
fn a_gauge_that_was_set_since_is_kept() {
    let mut shard = shard(ContextLimits::NONE);
    send(&mut shard, MetricKind::Gauge, 0, &[7]);
    let key = |series: u8| MetricKey {
        name: format!("m{series}").as_str().into(),
        tags: crate::model::TagSet::canonical([format!("t:{series}").as_str()]),
        kind: MetricKind::Gauge,
        scope: crate::model::Scope::Mixed,
        dialect: crate::model::Dialect::DogStatsD,
    };
    shard.restore(key(0), Aggregate::Gauge(3.0));
    shard.restore(key(1), Aggregate::Gauge(4.0));
    let values: Vec<f64> = points(&mut shard).into_values().collect();
    assert_eq!(values, [7.0, 4.0]);
}

#[test]
fn slices_are_small() {
    let mut shard = shard(ContextLimits::NONE);
    let mut batch = Batch::default();
    for n in 0..5_000 {
        let tags = format!("t:{n}");
        batch.push(KeyHasher::fixed(), MetricKind::Set, ("s", tags.as_str()), n << 40);
    }
    let (ops, keys) = batch.parts();
    shard.apply(ops, keys);
    shard.begin_checkpoint();
    let mut parts = 1;
    while !shard.take_slice().is_last {
        parts += 1;
    }
    assert!(parts > 2, "{parts}");
}
