//! What a mapping file makes of series, where they are learnt.
//!
//! A spelling that is only called otherwise becomes an alias of its series like any other, and
//! costs nothing from then on. Those whose samples are left out or multiplied are kept apart: for
//! them alone a chunk of samples is written anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::{Op, OpKey};
use super::class::Class;
use super::intern::SlotId;
use super::limits::refused::Spellings;
use crate::mapping::{Mapped, Mapping, scaled};
use crate::model::{ExtendTags, MetricKey, Recorder};

/// A mapping, and what is remembered of it.
#[derive(Debug)]
pub(super) struct Mapper {
    mapping: Arc<Mapping>,
    special: Specials,
    /// Samples left out since the last flush, by rule.
    dropped: Vec<u64>,
}

/// Spellings whose samples are not added as they are.
pub(super) type Specials = Spellings<Special>;

/// What is known of one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Special {
    /// Where they go; nowhere, if the rule has no scale.
    slot: SlotId,
    rule: u32,
    /// Whether that is an overflow series.
    is_folded: bool,
}

/// What becomes of a sample that is not added as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Change {
    /// It is left out.
    Drop,
    /// Its value is multiplied.
    Scale(f64),
}

/// A spelling that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) slot: SlotId,
    pub(super) change: Change,
    /// Whether its samples go to an overflow series.
    pub(super) is_folded: bool,
}

impl Mapper {
    /// For a shard that holds so many series.
    pub(super) fn new(mapping: Arc<Mapping>, contexts: usize) -> Mapper {
        let dropped = vec![0; mapping.rules().len()];
        Mapper { mapping, special: Spellings::new(contexts), dropped }
    }

    /// What becomes of a series.
    pub(super) fn apply(&self, key: MetricKey, extend: &ExtendTags) -> Mapped {
        self.mapping.apply(key, extend)
    }

    /// What a rule multiplies values by, if it does.
    pub(super) fn scale(&self, rule: Option<usize>) -> Option<(usize, f64)> {
        rule.and_then(|rule| Some((rule, self.mapping.scale(rule)?)))
    }

    /// What is known of a spelling in `buffer` whose samples are not added as they are. Counts
    /// the one that is asked for if it is left out.
    pub(super) fn find(&mut self, key: OpKey, buffer: &[u8]) -> Option<Known> {
        let Special { slot, rule, is_folded } = self.special.find(key, buffer)?;
        let rule = rule as usize;
        let change = match self.mapping.scale(rule) {
            Some(factor) => Change::Scale(factor),
            None => {
                self.dropped[rule] += 1;
                Change::Drop
            }
        };
        Some(Known { slot, change, is_folded })
    }

    /// Remembers that samples of a spelling in `buffer` are left out, and counts this one.
    pub(super) fn leave_out(&mut self, key: OpKey, buffer: &[u8], rule: usize) {
        self.dropped[rule] += 1;
        let special = Special { rule: rule as u32, ..Special::default() };
        self.special.insert(key, buffer, special);
    }

    /// Remembers that samples of a spelling in `buffer` go to `slot`, multiplied.
    pub(super) fn scaled(
        &mut self,
        key: OpKey,
        buffer: &[u8],
        rule: usize,
        slot: SlotId,
        is_folded: bool,
    ) {
        self.special.insert(key, buffer, Special { slot, rule: rule as u32, is_folded });
    }

    /// Forgets all spellings: slots have other numbers. Gives them back: to free what is large
    /// takes long.
    pub(super) fn forget(&mut self) -> Specials {
        self.special.take()
    }

    /// Samples left out since the last call, by the line of the rule.
    pub(super) fn take_dropped(&mut self) -> BTreeMap<u64, u64> {
        let lines = self.mapping.rules().iter().map(|rule| rule.line);
        let counted = lines.zip(&mut self.dropped).filter(|(_, count)| **count > 0);
        counted.map(|(line, count)| (line, std::mem::take(count))).collect()
    }
}

/// A chunk of samples with its slots and second hashes, some of which are changed.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pub(super) ops: Vec<Op>,
    pub(super) legacy_hashes: Vec<u64>,
}

impl Changed {
    /// `changes` are by their place in `ops`, in order. Also takes out of `slots` what is left
    /// out.
    pub(super) fn fill(
        &mut self,
        ops: &[Op],
        slots: &mut Vec<SlotId>,
        changes: &[(usize, Change)],
        legacy_hashes: &mut impl Iterator<Item = u64>,
    ) {
        self.ops.clear();
        self.legacy_hashes.clear();
        let mut changes = changes.iter().peekable();
        let mut kept = 0;
        for (index, op) in ops.iter().enumerate() {
            let change = changes.next_if(|(place, _)| *place == index).map(|(_, change)| change);
            let hash = (op.key.class == Class::Set).then(|| legacy_hashes.next()).flatten();
            if change == Some(&Change::Drop) {
                continue;
            }
            slots[kept] = slots[index];
            kept += 1;
            self.legacy_hashes.extend(hash);
            self.ops.push(match change {
                Some(Change::Scale(factor)) if !is_set(op) => {
                    let scaled = scaled(f64::from_bits(op.value), *factor);
                    Op { value: scaled.to_bits(), ..*op }
                }
                _ => *op,
            });
        }
        slots.truncate(kept);
    }
}

/// Whether the value is the hash of a member.
fn is_set(op: &Op) -> bool {
    match op.key.class {
        Class::Set => true,
        Class::EtsySet | Class::Brubeck => op.key.recorder == Recorder::Set,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
