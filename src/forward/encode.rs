//! Aggregates to bodies: who gets an entry, how it is written, and how bodies are taken apart.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::outbox::{Batch, Origin};
use super::pack::{Bodies, BodyLimits, Packed, Packer};
use super::reason::Reason;
use super::ring::{Place, Ring};
use crate::aggregate::Aggregate;
use crate::config::settings::ForwardFormat;
use crate::model::{MetricKey, MetricKind, TagMatcher};
use crate::protocol::import::{ImportedValue, json, protobuf};

/// For whom bodies wait as long as no upstream name has been resolved.
const NOBODY: &str = "unresolved";

/// How bodies are made. Cloning shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoder {
    /// What upstream understands.
    pub format: ForwardFormat,
    /// What one body may hold.
    pub limits: BodyLimits,
    /// Tags that play no part in who gets a series.
    pub ignored: Arc<[TagMatcher]>,
}

/// What a series has accumulated, here or elsewhere.
pub trait Entry {
    /// Appends it as it is in a body, without framing. `Some` says why a part of it was left
    /// out, which then counts as an entry.
    ///
    /// # Errors
    /// Why nothing was appended.
    fn write(
        self,
        format: ForwardFormat,
        key: &MetricKey,
        out: &mut Vec<u8>,
    ) -> Result<Option<Reason>, Reason>;
}

/// Bodies, and what is in none.
#[derive(Debug, Default)]
pub struct Encoded {
    /// Each with the member it is for.
    pub bodies: Vec<(Arc<str>, Packed, Origin)>,
    /// Entries that are in none.
    pub left_out: Vec<(Reason, u64)>,
}

impl Encoder {
    /// Makes bodies of these entries.
    pub fn encode<K: Borrow<MetricKey>, E: Entry>(
        &self,
        forwards: impl ExactSizeIterator<Item = (K, E)>,
        ring: &Ring,
        origin: Origin,
    ) -> Encoded {
        let members = members_of(ring);
        let entries = forwards.len() as u64;
        let Ok(mut packer) = Packer::new(self.format, self.limits, members.len()) else {
            return Encoded { left_out: vec![(Reason::Encode, entries)], ..Encoded::default() };
        };
        let mut left_out = BTreeMap::new();
        let mut entry = Vec::new();
        for (key, value) in forwards {
            let key = key.borrow();
            entry.clear();
            match value.write(self.format, key, &mut entry) {
                Ok(part) => {
                    let place = Place::ignoring(key, &self.ignored);
                    packer.add(ring.member_at(place).unwrap_or(0), place, &entry);
                    if let Some(reason) = part {
                        *left_out.entry(reason).or_default() += 1;
                    }
                }
                Err(reason) => *left_out.entry(reason).or_default() += 1,
            }
        }
        let mut encoded =
            Encoded { left_out: left_out.into_iter().collect(), ..Encoded::default() };
        encoded.add(packer.finish(), &members, origin);
        encoded
    }

    /// Makes other bodies of the entries of some, each for the member that has it now.
    pub fn regroup(&self, batches: &[Batch], ring: &Ring) -> Encoded {
        let members = members_of(ring);
        let by_ring = |_, place| ring.member_at(place).unwrap_or(0);
        let mut encoded = Encoded::default();
        for batch in batches {
            encoded.add_parted(batch, &members, self.part(&batch.packed, members.len(), by_ring));
        }
        encoded
    }

    /// Makes two bodies of one.
    pub fn halve(&self, member: &Arc<str>, batch: &Batch) -> Encoded {
        let half = batch.packed.entries() as usize / 2;
        let by_number = |number, _| usize::from(number >= half);
        let members = [Arc::clone(member), Arc::clone(member)];
        let mut encoded = Encoded::default();
        encoded.add_parted(batch, &members, self.part(&batch.packed, 2, by_number));
        encoded
    }

    fn part(
        &self,
        packed: &Packed,
        piles: usize,
        choose: impl FnMut(usize, Place) -> usize,
    ) -> io::Result<Bodies> {
        let mut packer = Packer::new(self.format, self.limits, piles)?;
        packer.add_again(packed, choose)?;
        Ok(packer.finish())
    }
}

impl Encoded {
    /// What is in bodies, and what is in none.
    pub fn entries(&self) -> u64 {
        let left_out: u64 = self.left_out.iter().map(|(_, entries)| entries).sum();
        self.bodies.iter().map(|(_, packed, _)| packed.entries()).sum::<u64>() + left_out
    }

    /// What its bodies take in memory.
    pub fn memory_bytes(&self) -> usize {
        self.bodies.iter().map(|(_, packed, _)| packed.memory_bytes()).sum()
    }

    fn add(&mut self, bodies: Bodies, members: &[Arc<str>], origin: Origin) {
        let Bodies { packed, too_large, broken } = bodies;
        let named = |(pile, packed): (usize, Packed)| (Arc::clone(&members[pile]), packed, origin);
        self.bodies.extend(packed.into_iter().map(named));
        self.left_out.extend([(Reason::TooLarge, too_large), (Reason::Encode, broken)]);
    }

    fn add_parted(&mut self, batch: &Batch, members: &[Arc<str>], bodies: io::Result<Bodies>) {
        match bodies {
            Ok(bodies) => self.add(bodies, members, batch.origin),
            Err(_) => self.left_out.push((Reason::Encode, batch.packed.entries())),
        }
    }
}

fn members_of(ring: &Ring) -> Vec<Arc<str>> {
    match ring.members() {
        [] => vec![Arc::from(NOBODY)],
        members => members.to_vec(),
    }
}

/// Veneur 1.1 knows no global gauges, and its sets have another hash and precision: of members
/// that came from other nodes there is nothing that it could read.
impl Entry for Aggregate {
    fn write(
        self,
        format: ForwardFormat,
        key: &MetricKey,
        out: &mut Vec<u8>,
    ) -> Result<Option<Reason>, Reason> {
        let value = match self {
            Aggregate::Counter(sum) | Aggregate::Gauge(sum) if !sum.is_finite() => {
                return Err(Reason::Encode);
            }
            Aggregate::Counter(sum) => ImportedValue::Counter(sum),
            Aggregate::Gauge(last) => ImportedValue::Gauge(last),
            Aggregate::Histogram(histogram) => ImportedValue::Digest(histogram.into_merged()),
            Aggregate::Set(members) if format == ForwardFormat::JsonGob => {
                let (legacy, has_others) = members.into_legacy();
                json::write_legacy_set(out, key, &mut *legacy.ok_or(Reason::Unsupported)?);
                return Ok(has_others.then_some(Reason::Unsupported));
            }
            Aggregate::Set(members) => ImportedValue::Set(members.into_all()),
            // Series of classic dialects are finished where they are received.
            Aggregate::Total(_) | Aggregate::Timings(_) => return Err(Reason::Unsupported),
        };
        value.write(format, key, out)
    }
}

/// Passed on as it came: nothing is merged or rounded on the way.
impl Entry for ImportedValue {
    fn write(
        mut self,
        format: ForwardFormat,
        key: &MetricKey,
        out: &mut Vec<u8>,
    ) -> Result<Option<Reason>, Reason> {
        match (format, key.kind) {
            (ForwardFormat::Protobuf | ForwardFormat::Grpc | ForwardFormat::GrpcStream, _) => {
                protobuf::write_metric(out, key, &mut self);
            }
            (ForwardFormat::JsonGob, MetricKind::Gauge | MetricKind::Set) => {
                return Err(Reason::Unsupported);
            }
            (
                ForwardFormat::JsonGob,
                MetricKind::Counter
                | MetricKind::Histogram
                | MetricKind::Timer
                | MetricKind::Distribution,
            ) => json::write_entry(out, key, &mut self),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::Members;
    use crate::model::{Dialect, Scope, TagSet};
    use crate::sketch::Cardinality;

    #[test]
    fn towards_veneur_1_1_what_it_cannot_read_is_counted() {
        let (own, mut imported) = (7, Cardinality::new());
        imported.insert_hash(8);
        let set = |is_own: bool, is_imported: bool| {
            let mut members = Members::default();
            if is_own {
                members.insert_hash(own);
                members.insert_legacy_hash(own);
            }
            if is_imported {
                members.import(&imported);
            }
            Aggregate::Set(Box::new(members))
        };
        let unsupported = Reason::Unsupported;
        for (kind, aggregate, outcome) in [
            (MetricKind::Counter, Aggregate::Counter(1.0), Ok(None)),
            (MetricKind::Counter, Aggregate::Counter(f64::INFINITY), Err(Reason::Encode)),
            (MetricKind::Gauge, Aggregate::Gauge(1.0), Err(unsupported)),
            (MetricKind::Distribution, Aggregate::Histogram(Box::default()), Ok(None)),
            (MetricKind::Set, set(true, false), Ok(None)),
            (MetricKind::Set, set(true, true), Ok(Some(unsupported))),
            (MetricKind::Set, set(false, true), Err(unsupported)),
        ] {
            let key = MetricKey {
                name: "m".into(),
                tags: TagSet::empty(),
                kind,
                scope: Scope::Mixed,
                dialect: Dialect::DogStatsD,
            };
            let mut entry = Vec::new();
            let case = format!("{aggregate:?}");
            let found = aggregate.write(ForwardFormat::JsonGob, &key, &mut entry);
            assert_eq!(found, outcome, "{case}");
            assert_eq!(entry.is_empty(), outcome.is_err(), "{case}");
        }
    }
}
