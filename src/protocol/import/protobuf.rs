//! The protobuf that nodes forward: Veneur v14's messages, and a little more of our own.
//!
//! A body is one `MetricList`; on a gRPC stream each message is one `Metric`. What v14 cannot
//! say goes into fields it does not know and skips (numbers from 1001 on, see [`messages`]):
//! sums that are not whole, distributions, exact sums of digests, and registers of sets that
//! do not fit into four bits. So one body serves both, and nothing is lost between our own.

pub mod digest;
pub mod messages;

use prost::Message;

use super::{
    Cause, Collecting, ImportError, Imported, ImportedEntry, ImportedValue, Limits, canonical,
    finite,
};
use crate::model::{MetricKey, MetricKind, Scope, text};
use crate::sketch::{Cardinality, CardinalityError, Centroid, Digest, Parts};

use digest::TDigest;
use messages::metric::Value;
use messages::{Counter, Gauge, Histogram, Metric, Set, WireKind, WireScope};

/// The longest metric that is looked at: a digest of the most centroids needs a fifth of it.
/// It bounds what decoding one message can take.
const MAX_METRIC_BYTES: usize = 1 << 20;
/// The first byte of each metric in a list: field 1, length-delimited.
const METRIC_FOLLOWS: u8 = 0x0a;

/// Reads a `MetricList`.
///
/// # Errors
/// The first entry at fault, and why.
pub fn decode(body: &[u8], limits: Limits) -> Result<Imported, ImportError> {
    let mut collecting = Collecting::new(limits);
    let mut rest = body;
    while !rest.is_empty() {
        let metric = next_metric(&mut rest).map_err(|cause| collecting.fault(cause))?;
        if let Some(metric) = metric {
            collecting.push(decode_metric(metric))?;
        }
    }
    collecting.finish()
}

/// Reads one `Metric`.
///
/// # Errors
/// Why it is no metric that can be merged.
pub fn decode_metric(message: &[u8]) -> Result<ImportedEntry, Cause> {
    if message.len() > MAX_METRIC_BYTES {
        return Err(Cause::TooLong);
    }
    Metric::decode(message).map_err(|_| Cause::Protobuf)?.try_into()
}

/// Appends one metric to a `MetricList`, which is nothing but its metrics in a row.
pub fn append(body: &mut Vec<u8>, key: &MetricKey, value: &mut ImportedValue) {
    let metric = Metric::new(key, value);
    body.push(METRIC_FOLLOWS);
    metric.encode_length_delimited(body).expect("a vector has room for every message");
}

/// The bytes of the next metric; `None` for a field that is none.
fn next_metric<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Cause> {
    let key = varint(rest)?;
    let length = match key & 7 {
        0 => {
            varint(rest)?;
            0
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).map_err(|_| Cause::Protobuf)?,
        5 => 4,
        _ => return Err(Cause::Protobuf),
    };
    let (field, behind) = rest.split_at_checked(length).ok_or(Cause::Protobuf)?;
    *rest = behind;
    Ok((key == u64::from(METRIC_FOLLOWS)).then_some(field))
}

fn varint(rest: &mut &[u8]) -> Result<u64, Cause> {
    prost::encoding::decode_varint(rest).map_err(|_| Cause::Protobuf)
}

impl TryFrom<Metric> for ImportedEntry {
    type Error = Cause;

    fn try_from(metric: Metric) -> Result<ImportedEntry, Cause> {
        if metric.name.is_empty() {
            return Err(Cause::EmptyName);
        }
        let kind = match WireKind::try_from(metric.kind).map_err(|_| Cause::UnknownType)? {
            WireKind::Counter => MetricKind::Counter,
            WireKind::Gauge => MetricKind::Gauge,
            WireKind::Histogram if metric.is_distribution => MetricKind::Distribution,
            WireKind::Histogram => MetricKind::Histogram,
            WireKind::Timer => MetricKind::Timer,
            WireKind::Set => MetricKind::Set,
        };
        let scope = match (kind, WireScope::try_from(metric.scope)) {
            (_, Ok(WireScope::Local) | Err(_)) => return Err(Cause::BadScope),
            // Only global ones are forwarded, whatever the message says.
            (MetricKind::Counter | MetricKind::Gauge, _) => Scope::GlobalOnly,
            // They are global by nature; the message says so for v14's sake.
            (MetricKind::Distribution, _) => Scope::Mixed,
            (_, Ok(WireScope::Mixed)) => Scope::Mixed,
            (_, Ok(WireScope::Global)) => Scope::GlobalOnly,
        };
        let value = match metric.value.ok_or(Cause::WrongValue)? {
            Value::Counter(counter) => {
                ImportedValue::Counter(finite(counter.exact.unwrap_or(counter.value as f64))?)
            }
            Value::Gauge(gauge) => ImportedValue::Gauge(finite(gauge.value)?),
            Value::Histogram(histogram) => {
                let digest = histogram.digest.ok_or(Cause::WrongValue)?;
                ImportedValue::Digest(Digest::from_parts(digest.into())?)
            }
            Value::Set(set) => ImportedValue::Set(read_set(&set)?),
        };
        if !value.fits(kind) {
            return Err(Cause::WrongValue);
        }
        let tags: Vec<_> = metric.tags.iter().map(|tag| text::lossy(tag)).collect();
        Ok(ImportedEntry {
            name: text::lossy(&metric.name).into_owned(),
            tags: canonical(tags.iter().map(|tag| &**tag)),
            kind,
            scope,
            value,
        })
    }
}

impl Metric {
    /// The message for one series.
    pub fn new(key: &MetricKey, value: &mut ImportedValue) -> Metric {
        let kind = match key.kind {
            MetricKind::Counter => WireKind::Counter,
            MetricKind::Gauge => WireKind::Gauge,
            MetricKind::Histogram | MetricKind::Distribution => WireKind::Histogram,
            MetricKind::Timer => WireKind::Timer,
            MetricKind::Set => WireKind::Set,
        };
        let is_distribution = key.kind == MetricKind::Distribution;
        // v14 emits everything about a global histogram, which is what a distribution wants.
        let is_global = is_distribution || key.scope == Scope::GlobalOnly;
        let scope = if is_global { WireScope::Global } else { WireScope::Mixed };
        let value = match value {
            ImportedValue::Counter(sum) => {
                let value = sum.round() as i64;
                Value::Counter(Counter { value, exact: exact_if_other(*sum, value as f64) })
            }
            ImportedValue::Gauge(last) => Value::Gauge(Gauge { value: *last }),
            ImportedValue::Digest(digest) => {
                Value::Histogram(Histogram { digest: Some(digest.to_parts().into()) })
            }
            ImportedValue::Set(set) => Value::Set(Set {
                sketch: set.to_bytes(),
                cut: set.cut_registers().into_iter().flat_map(cut_bytes).collect(),
            }),
        };
        Metric {
            name: key.name.as_bytes().to_vec(),
            tags: key.tags.iter().map(|tag| tag.as_bytes().to_vec()).collect(),
            kind: kind.into(),
            value: Some(value),
            scope: scope.into(),
            is_distribution,
        }
    }
}

/// `exact`, if a receiver would not come to the same bits by itself.
fn exact_if_other(exact: f64, plain: f64) -> Option<f64> {
    (exact.to_bits() != plain.to_bits()).then_some(exact)
}

/// A register that was cut: its index, big-endian, and its rank.
fn cut_bytes((index, rank): (u16, u8)) -> [u8; 3] {
    let [high, low] = index.to_be_bytes();
    [high, low, rank]
}

fn read_set(set: &Set) -> Result<Cardinality, CardinalityError> {
    let mut sketch = Cardinality::from_bytes(&set.sketch)?;
    let (cut, rest) = set.cut.as_chunks::<3>();
    if !rest.is_empty() {
        return Err(CardinalityError::Truncated);
    }
    for &[high, low, rank] in cut {
        sketch.raise_register(u16::from_be_bytes([high, low]), rank)?;
    }
    Ok(sketch)
}

impl From<TDigest> for Parts {
    fn from(digest: TDigest) -> Parts {
        let own = |c: messages::Centroid| Centroid { mean: c.mean, weight: c.weight };
        Parts {
            centroids: digest.centroids.into_iter().map(own).collect(),
            min: digest.min,
            max: digest.max,
            sum: digest.sum,
            reciprocal_sum: Some(digest.reciprocal_sum),
        }
    }
}

impl From<Parts> for TDigest {
    fn from(parts: Parts) -> TDigest {
        let by_means: f64 = parts.centroids.iter().map(|c| c.mean * c.weight).sum();
        let wire = |c: Centroid| messages::Centroid { mean: c.mean, weight: c.weight };
        TDigest {
            centroids: parts.centroids.into_iter().map(wire).collect(),
            compression: Digest::COMPRESSION,
            min: parts.min,
            max: parts.max,
            reciprocal_sum: parts.reciprocal_sum.unwrap_or(0.0),
            sum: parts.sum.and_then(|sum| exact_if_other(sum, by_means)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{TagSet, Weight};
    use crate::sketch::DigestError;

    const LIMITS: Limits = Limits { entries: 3 };

    fn key(name: &str, kind: MetricKind, scope: Scope) -> MetricKey {
        MetricKey { name: name.into(), tags: TagSet::canonical(["k:v"]), kind, scope }
    }

    fn digest_of(samples: &[f64]) -> ImportedValue {
        let mut digest = Digest::new();
        samples.iter().for_each(|&sample| digest.add(sample, Weight::ONE));
        ImportedValue::Digest(digest)
    }

    /// A list of two good metrics, the second spoilt.
    fn list_with(spoil: impl Fn(&mut Metric)) -> Vec<u8> {
        let key = key("m", MetricKind::Histogram, Scope::Mixed);
        let good = Metric::new(&key, &mut digest_of(&[1.0, 3.0]));
        let mut bad = good.clone();
        spoil(&mut bad);
        messages::MetricList { metrics: vec![good, bad] }.encode_to_vec()
    }

    #[test]
    fn messages_are_those_that_v14_sends() {
        // As captured from v14: a global counter, and a histogram of 1 and 3.
        let mut counter = key("c", MetricKind::Counter, Scope::GlobalOnly);
        counter.tags = TagSet::empty();
        let message = Metric::new(&counter, &mut ImportedValue::Counter(3.0)).encode_to_vec();
        assert_eq!(message, b"\x0a\x01c\x2a\x02\x08\x03\x48\x02");

        let histogram = key("h", MetricKind::Histogram, Scope::Mixed);
        let message = Metric::new(&histogram, &mut digest_of(&[1.0, 3.0])).encode_to_vec();
        let expected = [
            &b"\x0a\x01h\x12\x03k:v\x18\x02\x3a\x4e\x0a\x4c"[..],
            b"\x0a\x12\x09\0\0\0\0\0\0\xf0\x3f\x11\0\0\0\0\0\0\xf0\x3f",
            b"\x0a\x12\x09\0\0\0\0\0\0\x08\x40\x11\0\0\0\0\0\0\xf0\x3f",
            b"\x11\0\0\0\0\0\0\x59\x40\x19\0\0\0\0\0\0\xf0\x3f",
            b"\x21\0\0\0\0\0\0\x08\x40\x29\x55\x55\x55\x55\x55\x55\xf5\x3f",
        ];
        assert_eq!(message, expected.concat());
    }

    #[test]
    fn what_v14_cannot_say_is_kept_between_our_own() {
        let mut body = Vec::new();
        let counter = key("c", MetricKind::Counter, Scope::GlobalOnly);
        append(&mut body, &counter, &mut ImportedValue::Counter(0.1));
        let distribution = key("d", MetricKind::Distribution, Scope::Mixed);
        append(&mut body, &distribution, &mut digest_of(&[8.0]));
        let imported = decode(&body, LIMITS).expect("our own body");
        assert!(matches!(imported.entries[0].value, ImportedValue::Counter(0.1)));
        assert_eq!(imported.entries[1].kind, MetricKind::Distribution);
        assert_eq!(imported.entries[1].scope, Scope::Mixed);
        // To v14 it is a global histogram, so that all of it is emitted above.
        let list = messages::MetricList::decode(&*body).expect("protobuf");
        assert_eq!(list.metrics[1].kind(), WireKind::Histogram);
        assert_eq!(list.metrics[1].scope(), WireScope::Global);
    }

    #[test]
    fn a_body_is_refused_when() {
        let value = |metric: &mut Metric, value: Value| metric.value = Some(value);
        let digest = |metric: &mut Metric, spoil: fn(&mut TDigest)| match &mut metric.value {
            Some(Value::Histogram(Histogram { digest: Some(digest) })) => spoil(digest),
            _ => unreachable!("the list is of histograms"),
        };
        let nan = f64::NAN;
        let set = |sketch: &[u8], cut: &[u8]| {
            Value::Set(Set { sketch: sketch.to_vec(), cut: cut.to_vec() })
        };
        let counter = |exact| Value::Counter(Counter { value: 1, exact: Some(exact) });
        for (body, entry, cause) in [
            (vec![], None, Cause::Empty),
            (b"\x12\x00".to_vec(), None, Cause::Empty),
            (b"\x0a\x05\x0a".to_vec(), Some(0), Cause::Protobuf),
            (b"\x0a\x01\x0a".to_vec(), Some(0), Cause::Protobuf),
            (b"\x0b".to_vec(), Some(0), Cause::Protobuf),
            ([list_with(|_| {}), list_with(|_| {})].concat(), None, Cause::TooManyEntries),
            (list_with(|m| m.name.clear()), Some(1), Cause::EmptyName),
            (list_with(|m| m.name.resize(1 << 20, b'n')), Some(1), Cause::TooLong),
            (list_with(|m| m.kind = 5), Some(1), Cause::UnknownType),
            (list_with(|m| m.scope = 1), Some(1), Cause::BadScope),
            (list_with(|m| m.scope = 3), Some(1), Cause::BadScope),
            (list_with(|m| m.value = None), Some(1), Cause::WrongValue),
            (list_with(|m| m.kind = 0), Some(1), Cause::WrongValue),
            (
                list_with(|m| value(m, Value::Gauge(Gauge { value: nan }))),
                Some(1),
                Cause::NonFinite,
            ),
            (
                list_with(|m| value(m, Value::Gauge(Gauge { value: 1.0 }))),
                Some(1),
                Cause::WrongValue,
            ),
            (list_with(|m| value(m, counter(nan))), Some(1), Cause::NonFinite),
            (
                list_with(|m| value(m, set(b"\x01\x0e", b""))),
                Some(1),
                CardinalityError::Truncated.into(),
            ),
            (
                list_with(|m| value(m, set(&Cardinality::new().to_bytes(), b"\x00\x01\x14"))),
                Some(1),
                CardinalityError::ImpossibleValue.into(),
            ),
            (
                list_with(|m| digest(m, |d| d.centroids[1].mean = f64::INFINITY)),
                Some(1),
                DigestError::NonFiniteMean.into(),
            ),
            (
                list_with(|m| digest(m, |d| d.centroids[0].weight = 0.0)),
                Some(1),
                DigestError::BadWeight.into(),
            ),
            (list_with(|m| digest(m, |d| d.min = 7.0)), Some(1), DigestError::BadExtremes.into()),
        ] {
            let refusal = ImportError { entry, cause };
            assert_eq!(decode(&body, LIMITS).err(), Some(refusal), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn a_set_of_another_precision_is_left_out_and_the_rest_is_fine() {
        let body = list_with(|metric| {
            metric.kind = WireKind::Set.into();
            metric.value = Some(Value::Set(Set { sketch: vec![1, 16, 0, 1], cut: vec![] }));
        });
        let imported = decode(&body, LIMITS).expect("the set is the only one at fault");
        assert_eq!((imported.entries.len(), imported.set_precision), (1, 1));
    }

    #[test]
    fn names_and_tags_that_are_no_text_become_what_they_are_in_a_line() {
        let body = list_with(|metric| {
            metric.name = b"caf\xe9".to_vec();
            metric.tags = vec![b"b\xff\xfe".to_vec(), b"a,c".to_vec(), b"".to_vec()];
        });
        let imported = decode(&body, LIMITS).expect("texts may be any bytes");
        let entry = &imported.entries[1];
        assert_eq!((&*entry.name, entry.tags.as_str()), ("caf\u{fffd}", "a,b\u{fffd},c"));
    }

    #[test]
    fn fields_of_the_future_are_skipped() {
        let mut body = list_with(|_| {});
        for field in [&b"\x10\x96\x01"[..], b"\x19\0\0\0\0\0\0\0\0", b"\x22\x02hi", b"\x2d\0\0\0\0"]
        {
            body.extend_from_slice(field);
        }
        assert_eq!(decode(&body, LIMITS).map(|imported| imported.entries.len()), Ok(2));
    }
}
