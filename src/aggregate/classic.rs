//! Series of the classic dialects, which live on when nobody speaks of them.
//!
//! DogStatsD's series are there while they have samples. A classic gauge keeps its value and
//! has it emitted at each flush, and `+5` adds to it; a counter, timer or set is emitted as 0;
//! a running total of brubeck's is compared with the one before it, however long ago that was.
//! So beside what an interval accumulates ([`super::Aggregate`]) a shard has, for its classic
//! series alone, what outlives it: [`Standing`]. DogStatsD's never come here.

pub mod statistics;
pub mod timings;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::Aggregate;
use super::intern::SlotId;
use super::shard::{Entry, FOLDED, Place};
use crate::model::{ClassicRules, Dialect, Idle, MetricKey, MetricKind, Recorder};
use timings::{EXACT, EXACT_WHEN_MANY};

/// Samples of timers in an interval, 32 MiB if all are kept as they are, from which on a shard
/// keeps only few of each series.
const MANY_SAMPLES: usize = 4 << 20;

/// For how long a series is emitted without samples.
fn idle_of(rules: &ClassicRules, dialect: Dialect, kept: &Value) -> Idle {
    match (dialect, kept) {
        (Dialect::DogStatsD, _) => Idle::NEVER,
        (Dialect::Brubeck, _) => rules.brubeck,
        (Dialect::Etsy, Value::Counter | Value::Total { .. }) => rules.etsy_counters,
        (Dialect::Etsy, Value::Gauge(_)) => rules.etsy_gauges,
        (Dialect::Etsy, Value::Timer) => rules.etsy_timers,
        (Dialect::Etsy, Value::Set) => rules.etsy_sets,
    }
}

/// What outlives an interval, of each classic series of a shard.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) rules: ClassicRules,
    series: Vec<Kept>,
    /// Where a series is among them.
    by_slot: HashMap<SlotId, u32>,
    /// Samples of timers in this interval.
    samples: usize,
}

#[derive(Debug)]
struct Kept {
    slot: SlotId,
    dialect: Dialect,
    /// Whether it is an overflow series.
    stands_for_others: bool,
    /// Flushes since its last sample for which it was emitted.
    idle: u32,
    value: Value,
}

/// What a series starts its next interval with.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Counter,
    Gauge(f64),
    Timer,
    Set,
    /// See [`Total::last`].
    Total {
        last: f64,
    },
}

impl Value {
    fn new(recorder: Recorder) -> Value {
        match recorder {
            Recorder::Counter => Value::Counter,
            Recorder::Total => Value::Total { last: 0.0 },
            Recorder::Gauge => Value::Gauge(0.0),
            Recorder::Timer | Recorder::Histogram => Value::Timer,
            Recorder::Set => Value::Set,
        }
    }

    /// Notes what is to outlive an interval, of what it has accumulated.
    fn take(&mut self, held: &Aggregate) {
        match (self, held) {
            (Value::Gauge(last), Aggregate::Gauge(now)) => *last = *now,
            (Value::Total { last }, Aggregate::Total(total)) => *last = total.last,
            _ => {}
        }
    }

    /// As if it were new.
    fn forget(&mut self) {
        match self {
            Value::Gauge(last) => *last = 0.0,
            Value::Total { last } => *last = 0.0,
            Value::Counter | Value::Timer | Value::Set => {}
        }
    }
}

/// A client's running total, of which the growth counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Total {
    /// By how much it has grown in the interval.
    pub grown: f64,
    /// What it was last; 0 if there has been none.
    pub last: f64,
}

impl Total {
    /// Takes what it is now: the first one is where it starts, and a smaller one is that of a
    /// client that has restarted.
    pub(super) fn add(&mut self, now: f64) {
        if !now.is_finite() {
            return;
        }
        let before = std::mem::replace(&mut self.last, now);
        // As in brubeck, 0 is as good as none.
        self.grown += match before {
            _ if before <= 0.0 => 0.0,
            _ if now >= before => now - before,
            _ => now,
        };
    }
}

/// A classic series without samples in an interval, and what is emitted of it: the value of a
/// gauge, and of others 0.
pub type IdleEntry = (Arc<MetricKey>, f64);

impl Standing {
    pub(super) fn new(rules: ClassicRules) -> Standing {
        Standing { rules, series: Vec::new(), by_slot: HashMap::new(), samples: 0 }
    }

    /// Keeps something of a series from now on, if nothing is kept yet. The first recorder asked
    /// for stays.
    pub(super) fn keep(&mut self, slot: SlotId, dialect: Dialect, recorder: Recorder) {
        let value = Value::new(recorder);
        self.add(Kept { slot, dialect, stands_for_others: false, idle: 0, value });
    }

    /// The same for an overflow series. The totals of several counters cannot be compared with
    /// each other, so that these are all counters.
    pub(super) fn keep_for_others(&mut self, slot: SlotId, key: &MetricKey) {
        let value = match key.kind {
            MetricKind::Counter => Value::Counter,
            MetricKind::Gauge => Value::Gauge(0.0),
            MetricKind::Timer | MetricKind::Histogram | MetricKind::Distribution => Value::Timer,
            MetricKind::Set => Value::Set,
        };
        let dialect = key.dialect;
        self.add(Kept { slot, dialect, stands_for_others: true, idle: 0, value });
    }

    fn add(&mut self, kept: Kept) {
        let series = &mut self.series;
        self.by_slot.entry(kept.slot).or_insert_with(|| {
            series.push(kept);
            (series.len() - 1) as u32 // not more than slots
        });
    }

    fn kept(&mut self, slot: SlotId) -> &mut Kept {
        let index = self.by_slot.get(&slot).expect("a classic slot is kept when it is learnt");
        &mut self.series[*index as usize]
    }

    /// What the series accumulates into from its first sample of an interval on.
    pub(super) fn resume(&mut self, slot: SlotId) -> Aggregate {
        match self.kept(slot).value {
            Value::Counter => Aggregate::Counter(0.0),
            Value::Gauge(last) => Aggregate::Gauge(last),
            Value::Timer => Aggregate::Timings(Box::default()),
            Value::Set => Aggregate::Set(Box::default()),
            Value::Total { last } => Aggregate::Total(Box::new(Total { grown: 0.0, last })),
        }
    }

    /// Whether its samples are of several series.
    pub(super) fn stands_for_others(&mut self, slot: SlotId) -> bool {
        self.kept(slot).stands_for_others
    }

    /// How many samples of a timer, which is about to have one more, are kept as they are.
    pub(super) fn exact_samples(&mut self) -> usize {
        self.samples += 1;
        if self.samples <= MANY_SAMPLES { EXACT } else { EXACT_WHEN_MANY }
    }

    /// Whether a series is to stay however long it has been idle.
    pub(super) fn holds(&self, slot: SlotId) -> bool {
        let Some(&index) = self.by_slot.get(&slot) else { return false };
        let Kept { dialect, stands_for_others, idle, value, .. } = &self.series[index as usize];
        let remembers =
            *dialect == Dialect::Brubeck && matches!(value, Value::Gauge(_) | Value::Total { .. });
        !stands_for_others && (remembers || *idle < idle_of(&self.rules, *dialect, value).0)
    }

    /// Notes what outlives the interval that ends, of these epochs; returns what is emitted of
    /// series that had no sample in it.
    pub(super) fn end_interval(
        &mut self,
        epochs: RangeInclusive<u32>,
        keys: &[Arc<MetricKey>],
        places: &[Place],
        open: &[Entry],
    ) -> Vec<IdleEntry> {
        self.samples = 0;
        let mut emitted = Vec::new();
        for Kept { slot, dialect, stands_for_others, idle, value } in &mut self.series {
            let place = places[*slot as usize];
            let last = place.epoch & !FOLDED;
            if epochs.contains(&last) {
                *idle = 0;
                // With checkpoints an interval has several epochs.
                if place.epoch & FOLDED == 0 {
                    value.take(&open[place.at as usize].1);
                }
                continue;
            }
            let most = match stands_for_others {
                true => Idle::NEVER,
                false => idle_of(&self.rules, *dialect, value),
            };
            if *idle < most.0 {
                // What is emitted for good is never counted to its end.
                *idle += u32::from(most != Idle::ALWAYS);
                let value = if let Value::Gauge(last) = *value { last } else { 0.0 };
                emitted.push((Arc::clone(&keys[*slot as usize]), value));
            } else if *dialect == Dialect::Etsy {
                value.forget();
            }
        }
        emitted
    }

    /// What is to outlive the process, of series that are still there: values of gauges, and
    /// totals.
    pub(super) fn values(&self, keys: &[Arc<MetricKey>]) -> Vec<Entry> {
        let kept = self.series.iter().filter(|kept| self.holds(kept.slot));
        let kept = kept.filter_map(|kept| {
            let held = match kept.value {
                Value::Gauge(last) => Aggregate::Gauge(last),
                Value::Total { last } => Aggregate::Total(Box::new(Total { grown: 0.0, last })),
                Value::Counter | Value::Timer | Value::Set => return None,
            };
            Some((Arc::clone(&keys[kept.slot as usize]), held))
        });
        kept.collect()
    }

    /// Takes in what has outlived a process before this one, of a series without samples here.
    pub(super) fn restore(&mut self, slot: SlotId, held: &Aggregate) {
        self.kept(slot).value.take(held);
    }

    /// Renumbers all slots: `new_id` tells the new number, or `None` for one that goes.
    pub(super) fn renumber(&mut self, new_id: impl Fn(SlotId) -> Option<SlotId>) {
        self.series.retain_mut(|kept| match new_id(kept.slot) {
            Some(slot) => {
                kept.slot = slot;
                true
            }
            None => false,
        });
        let slots = self.series.iter().enumerate();
        self.by_slot = slots.map(|(index, kept)| (kept.slot, index as u32)).collect();
    }
}
