//! What was folded, counted.

use std::collections::HashMap;
use std::sync::Arc;

use super::Limit;
use crate::aggregate::intern::SlotId;
use crate::model::MetricKey;

/// Names told in one report.
const WORST: usize = 10;
/// Bytes of a name quoted as an example.
const QUOTED: usize = 200;

/// What was folded within an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    /// Samples, and entries of other nodes.
    pub samples: u64,
    /// New series they would have made. One counts again when the shard does not remember it.
    pub contexts: u64,
    /// Those by what there was too much of (index: [`Limit`] as a number).
    pub by_limit: [u64; Limit::ALL.len()],
    /// The names with most samples, at most ten, the worst one first.
    pub worst: Vec<FoldedName>,
    /// One of the names that went to [`OVERFLOW_NAME`]; a long one is cut.
    pub example: Option<Box<str>>,
}

/// What was folded of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldedName {
    /// The name, or [`OVERFLOW_NAME`].
    pub name: Box<str>,
    /// Its part of [`Folded::samples`].
    pub samples: u64,
    /// Its part of [`Folded::contexts`].
    pub contexts: u64,
}

/// Counts what is folded.
#[derive(Debug, Default)]
pub(in crate::aggregate) struct FoldCounts {
    /// By slot of the overflow series: samples and series.
    by_slot: HashMap<SlotId, (u64, u64)>,
    by_limit: [u64; Limit::ALL.len()],
    example: Option<Box<str>>,
}

impl FoldCounts {
    pub(in crate::aggregate) fn sample(&mut self, slot: SlotId) {
        self.by_slot.entry(slot).or_default().0 += 1;
    }

    pub(in crate::aggregate) fn context(&mut self, slot: SlotId, limit: Limit) {
        self.by_slot.entry(slot).or_default().1 += 1;
        self.by_limit[limit as usize] += 1;
    }

    /// `name` went to [`OVERFLOW_NAME`].
    pub(in crate::aggregate) fn name(&mut self, name: &str) {
        if self.example.is_none() {
            let end = (0..=QUOTED.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
            self.example = Some(name[..end.unwrap_or(0)].into());
        }
    }

    /// What was counted since the last call; `keys` are by slot.
    pub(in crate::aggregate) fn take(&mut self, keys: &[Arc<MetricKey>]) -> Folded {
        let mut folded = Folded {
            by_limit: std::mem::take(&mut self.by_limit),
            example: self.example.take(),
            ..Folded::default()
        };
        let mut by_name: HashMap<&str, (u64, u64)> = HashMap::new();
        for (slot, (samples, contexts)) in std::mem::take(&mut self.by_slot) {
            folded.samples += samples;
            folded.contexts += contexts;
            let of_name = by_name.entry(&keys[slot as usize].name).or_default();
            of_name.0 += samples;
            of_name.1 += contexts;
        }
        let mut worst: Vec<_> = by_name.into_iter().collect();
        worst.sort_unstable_by_key(|&(name, (samples, _))| (u64::MAX - samples, name));
        worst.truncate(WORST);
        let told = worst.into_iter().map(|(name, (samples, contexts))| FoldedName {
            name: name.into(),
            samples,
            contexts,
        });
        folded.worst = told.collect();
        folded
    }
}

impl Folded {
    /// Adds what another shard has folded, whose names are others.
    pub fn add(&mut self, other: Folded) {
        self.samples += other.samples;
        self.contexts += other.contexts;
        for (all, n) in self.by_limit.iter_mut().zip(other.by_limit) {
            *all += n;
        }
        self.example = self.example.take().or(other.example);
        for more in other.worst {
            match self.worst.iter_mut().find(|known| known.name == more.name) {
                Some(known) => {
                    known.samples += more.samples;
                    known.contexts += more.contexts;
                }
                None => self.worst.push(more),
            }
        }
        self.worst.sort_by_key(|of_name| u64::MAX - of_name.samples);
        self.worst.truncate(WORST);
    }
}
