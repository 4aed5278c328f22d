//! What series hold, as bytes for this program itself, started anew.
//!
//! ```text
//! state   length(4)  what(1)  key  value
//! key     kind(1) scope(1) dialect(1) name_length(4) tags_length(4) name tags
//! what    0 nothing is held any more; of the open interval: 1 a counter, 2 a gauge, 3 a digest,
//!         4 a set, 5 a running total, 6 timings
//! value   1, 2     a double
//!         5        by how much it has grown, and what it was last
//!         3        its own, 0 or 1 and the imported one
//!         4        all, 0 or 1 and that of 1.1.0, imported?
//!         6        [`super::Timings`]
//! ```
//!
//! Numbers are little-endian; `length` is that of everything behind it. A reader skips a `what` that
//! it does not know, so that there can be more of them. What a series keeps from one interval to the
//! next is written as a gauge or a total that has not grown.

use super::{Aggregate, Histogram, Members, Timings, Total};
use crate::model::{Dialect, MetricKey, MetricKind, Scope, TagSet};
use crate::sketch::stored::{Reader, Writer};
use crate::sketch::{Cardinality, Digest, LegacySet};

const NOTHING: u8 = 0;
const COUNTER: u8 = 1;
const GAUGE: u8 = 2;
const DIGEST: u8 = 3;
const SET: u8 = 4;
const TOTAL: u8 = 5;
const TIMINGS: u8 = 6;

/// What was stored of a series: what it held, or that it holds nothing any more.
pub type Stored = (MetricKey, Option<Aggregate>);

/// The bytes are not what [`store`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is stored of a series cannot be read")]
pub struct Unreadable;

/// Appends what a series holds.
pub fn store(key: &MetricKey, held: Option<&Aggregate>, into: &mut Vec<u8>) {
    let start = into.len();
    into.put_u32(0);
    into.push(match held {
        None => NOTHING,
        Some(Aggregate::Counter(_)) => COUNTER,
        Some(Aggregate::Gauge(_)) => GAUGE,
        Some(Aggregate::Histogram(_)) => DIGEST,
        Some(Aggregate::Set(_)) => SET,
        Some(Aggregate::Total(_)) => TOTAL,
        Some(Aggregate::Timings(_)) => TIMINGS,
    });
    into.push(key.kind as u8);
    into.push(scope_byte(key.scope));
    into.push(dialect_byte(key.dialect));
    // Both are of 16 bits, or little more with the tags of the node.
    into.put_u32(key.name.len() as u32);
    into.put_u32(key.tags.as_str().len() as u32);
    into.extend_from_slice(key.name.as_bytes());
    into.extend_from_slice(key.tags.as_str().as_bytes());
    match held {
        None => {}
        Some(Aggregate::Counter(value) | Aggregate::Gauge(value)) => into.put_f64(*value),
        Some(Aggregate::Total(total)) => {
            into.put_f64(total.grown);
            into.put_f64(total.last);
        }
        Some(Aggregate::Timings(timings)) => timings.store(into),
        Some(Aggregate::Histogram(histogram)) => histogram.store(into),
        Some(Aggregate::Set(members)) => members.store(into),
    }
    let length = (into.len() - start - 4) as u32; // sketches have 300 KB at most
    into[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Everything that was appended to these bytes.
///
/// # Errors
/// Something else is among it.
pub fn restore(bytes: &[u8]) -> Result<Vec<Stored>, Unreadable> {
    let mut all = Reader::new(bytes);
    let mut states = Vec::new();
    while !all.is_empty() {
        let length = all.u32().ok_or(Unreadable)?;
        let state = all.take(length as usize).ok_or(Unreadable)?;
        match state.first() {
            Some(&(NOTHING..=TIMINGS)) => states.push(read(Reader::new(state)).ok_or(Unreadable)?),
            Some(_) => {}
            None => return Err(Unreadable),
        }
    }
    Ok(states)
}

fn read(mut from: Reader<'_>) -> Option<Stored> {
    let what = from.byte()?;
    let kind = *MetricKind::ALL.get(usize::from(from.byte()?))?;
    let scope = scope_of(from.byte()?)?;
    let dialect = dialect_of(from.byte()?)?;
    let (name, tags) = (from.u32()?, from.u32()?);
    let name = std::str::from_utf8(from.take(name as usize)?).ok()?.into();
    let tags = std::str::from_utf8(from.take(tags as usize)?).ok()?;
    let tags = TagSet::as_given(tags.split(',').map(str::to_owned));
    let key = MetricKey { name, tags, kind, scope, dialect };
    if what == NOTHING {
        return from.is_empty().then_some((key, None));
    }
    let is_classic = dialect.is_classic();
    let held = match (what, kind) {
        (COUNTER, MetricKind::Counter) => Aggregate::Counter(from.f64()?),
        (TOTAL, MetricKind::Counter) if is_classic => {
            Aggregate::Total(Box::new(Total { grown: from.f64()?, last: from.f64()? }))
        }
        (GAUGE, MetricKind::Gauge) => Aggregate::Gauge(from.f64()?),
        (DIGEST, kind) if kind.has_digest() && !is_classic => {
            Aggregate::Histogram(Box::new(Histogram::restore(&mut from)?))
        }
        (TIMINGS, kind) if kind.has_digest() && is_classic => {
            Aggregate::Timings(Box::new(Timings::restore(&mut from)?))
        }
        (SET, MetricKind::Set) => Aggregate::Set(Box::new(Members::restore(&mut from)?)),
        _ => return None,
    };
    from.is_empty().then_some((key, Some(held)))
}

impl Histogram {
    fn store(&self, into: &mut Vec<u8>) {
        self.own.store(into);
        into.push(u8::from(self.imported.is_some()));
        if let Some(imported) = &self.imported {
            imported.store(into);
        }
    }

    fn restore(from: &mut Reader<'_>) -> Option<Histogram> {
        let own = Digest::restore(from)?;
        let imported = match from.byte()? {
            0 => None,
            _ => Some(Box::new(Digest::restore(from)?)),
        };
        Some(Histogram { own, imported })
    }
}

impl Members {
    fn store(&self, into: &mut Vec<u8>) {
        self.all.store(into);
        into.push(u8::from(self.legacy.is_some()));
        if let Some(legacy) = &self.legacy {
            legacy.store(into);
        }
        into.push(u8::from(self.has_imported));
    }

    fn restore(from: &mut Reader<'_>) -> Option<Members> {
        let all = Cardinality::restore(from)?;
        let legacy = match from.byte()? {
            0 => None,
            _ => Some(Box::new(LegacySet::restore(from)?)),
        };
        Some(Members { all, legacy, has_imported: from.byte()? != 0 })
    }
}

const fn dialect_byte(dialect: Dialect) -> u8 {
    match dialect {
        Dialect::DogStatsD => 0,
        Dialect::Etsy => 1,
        Dialect::Brubeck => 2,
    }
}

const fn dialect_of(byte: u8) -> Option<Dialect> {
    match byte {
        0 => Some(Dialect::DogStatsD),
        1 => Some(Dialect::Etsy),
        2 => Some(Dialect::Brubeck),
        _ => None,
    }
}

const fn scope_byte(scope: Scope) -> u8 {
    match scope {
        Scope::Mixed => 0,
        Scope::LocalOnly => 1,
        Scope::GlobalOnly => 2,
    }
}

const fn scope_of(byte: u8) -> Option<Scope> {
    match byte {
        0 => Some(Scope::Mixed),
        1 => Some(Scope::LocalOnly),
        2 => Some(Scope::GlobalOnly),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Weight;

    fn aggregate(key: &MetricKey, values: &[f64], imported: &[f64], legacy: bool) -> Aggregate {
        let digest = |values: &[f64]| {
            let mut digest = Digest::new();
            values.iter().for_each(|&value| digest.add(value, Weight::ONE));
            digest
        };
        match key.kind {
            MetricKind::Counter if legacy && key.dialect.is_classic() => {
                Aggregate::Total(Box::new(Total { grown: 3.5, last: 1e9 }))
            }
            MetricKind::Counter => Aggregate::Counter(values.iter().sum()),
            kind if kind.has_digest() && key.dialect.is_classic() => {
                let mut timings = Timings::default();
                for value in values {
                    timings.add(*value, 2.0, if legacy { 4096 } else { 100 });
                }
                Aggregate::Timings(Box::new(timings))
            }
            MetricKind::Gauge => Aggregate::Gauge(values.first().copied().unwrap_or(0.0)),
            MetricKind::Histogram | MetricKind::Timer | MetricKind::Distribution => {
                let imported = (!imported.is_empty()).then(|| Box::new(digest(imported)));
                Aggregate::Histogram(Box::new(Histogram { own: digest(values), imported }))
            }
            MetricKind::Set => {
                let mut members = Members::default();
                for value in values {
                    members.insert_hash(value.to_bits().wrapping_mul(0x9E37_79B9_7F4A_7C15));
                    if legacy {
                        members.insert_legacy_hash(value.to_bits());
                    }
                }
                Aggregate::Set(Box::new(members))
            }
        }
    }

    fn key() -> impl Strategy<Value = MetricKey> {
        let scopes = prop::sample::select(vec![Scope::Mixed, Scope::LocalOnly, Scope::GlobalOnly]);
        let tags = prop::collection::vec("[a-zä:.0-9]{0,12}", 0..6);
        let kinds = prop::sample::select(MetricKind::ALL.to_vec());
        let dialects = prop::sample::select(Dialect::ALL.to_vec());
        (kinds, scopes, dialects, "\\PC{0,40}", tags).prop_map(
            |(kind, scope, dialect, name, tags)| {
                let tags = TagSet::as_given(tags);
                MetricKey { name: name.as_str().into(), tags, kind, scope, dialect }
            },
        )
    }

    fn state() -> impl Strategy<Value = Stored> {
        let values = || prop::collection::vec(-1e6..1e6f64, 0..400);
        (key(), any::<bool>(), values(), values(), any::<bool>()).prop_map(
            |(key, is_gone, values, imported, legacy)| {
                let held = (!is_gone).then(|| aggregate(&key, &values, &imported, legacy));
                (key, held)
            },
        )
    }

    fn bytes_of(states: &[Stored]) -> Vec<u8> {
        let mut bytes = Vec::new();
        states.iter().for_each(|(key, held)| store(key, held.as_ref(), &mut bytes));
        bytes
    }

    proptest! {
        /// restore(store(states)) == states: the keys are equal, and what they hold has the
        /// same bytes again. Aggregates cannot be compared; [`crate::sketch::stored`] shows that
        /// the bytes have every field of a sketch.
        #[test]
        fn what_is_stored_comes_back(states in prop::collection::vec(state(), 0..6)) {
            let bytes = bytes_of(&states);
            let restored = restore(&bytes).expect("it was stored");
            let keys = |states: &[Stored]| -> Vec<(MetricKey, bool)> {
                states.iter().map(|(key, held)| (key.clone(), held.is_some())).collect()
            };
            prop_assert_eq!(keys(&restored), keys(&states));
            // A set's codes lie in another order when it is made anew.
            let again = bytes_of(&restored);
            prop_assert_eq!(again.len(), bytes.len());
            prop_assert_eq!(bytes_of(&restore(&again).expect("it was stored")).len(), bytes.len());
        }

        /// What somebody else will write among it is skipped.
        #[test]
        fn other_things_are_skipped(states in prop::collection::vec(state(), 0..3), what in TIMINGS + 1.., rest in prop::collection::vec(any::<u8>(), 0..20)) {
            let mut bytes = bytes_of(&states);
            bytes.put_u32(1 + rest.len() as u32);
            bytes.push(what);
            bytes.extend(rest);
            bytes.extend(bytes_of(&states));
            prop_assert_eq!(restore(&bytes).expect("it was stored").len(), 2 * states.len());
        }

        /// No bytes make reading panic.
        #[test]
        fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..100), states in prop::collection::vec(state(), 0..2), at: prop::sample::Index, by: u8) {
            let _ = restore(&bytes);
            let mut bytes = bytes_of(&states);
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] ^= by;
                let _ = restore(&bytes);
            }
        }
    }
}
