//! The protobuf that nodes forward: Veneur v14's messages, and a little more of our own.
//!
//! A body is one `MetricList`; on a gRPC stream each message is one `Metric`. What v14 cannot
//! say goes into fields it does not know and skips (numbers from 1001 on, see [`messages`]):
//! sums that are not whole, distributions, exact sums of digests, and registers of sets that
//! do not fit into four bits. So one body serves both, and nothing is lost between our own.

pub mod digest;
pub mod messages;
mod metric;

use prost::encoding::{WireType, encode_key, encode_varint};

use super::{Cause, Collecting, ImportError, Imported, ImportedEntry, ImportedValue, Limits};
use crate::model::MetricKey;
use crate::protocol::fields::{Field, Fields, NotProtobuf};

use metric::Metric;

/// The longest metric that is looked at: a digest of the most centroids needs a fifth of it.
/// It bounds what decoding one message can take.
const MAX_METRIC_BYTES: usize = 1 << 20;
/// The only field of a list.
const METRICS: u32 = 1;

/// Reads a `MetricList`.
///
/// # Errors
/// The first entry at fault, and why.
pub fn decode(body: &[u8], limits: Limits) -> Result<Imported, ImportError> {
    let mut collecting = Collecting::new(limits);
    for field in Fields::of(body) {
        match field {
            Ok((METRICS, Field::Bytes(metric))) => collecting.push(decode_metric(metric))?,
            Ok(_) => {}
            Err(NotProtobuf) => return Err(collecting.fault(Cause::Protobuf)),
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
    Metric::read(message)?.try_into()
}

/// Appends one `Metric`.
pub fn write_metric(out: &mut Vec<u8>, key: &MetricKey, value: &mut ImportedValue) {
    metric::write(out, key, value);
}

/// Appends one metric to a `MetricList`, which is nothing but its metrics in a row.
pub fn append(body: &mut Vec<u8>, key: &MetricKey, value: &mut ImportedValue) {
    let mut metric = Vec::new();
    metric::write(&mut metric, key, value);
    encode_key(METRICS, WireType::LengthDelimited, body);
    encode_varint(metric.len() as u64, body);
    body.extend_from_slice(&metric);
}

/// `exact`, if a receiver would not come to the same bits by itself.
fn exact_if_other(exact: f64, plain: f64) -> Option<f64> {
    (exact.to_bits() != plain.to_bits()).then_some(exact)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::digest::TDigest;
    use super::messages::{Counter, Gauge, Histogram, Set, Value, WireKind, WireScope};
    use super::*;
    use crate::model::{Dialect, MetricKind, Scope, TagSet, Weight};
    use crate::sketch::{Cardinality, CardinalityError, Digest, DigestError};

    const LIMITS: Limits = Limits { entries: 3 };

    /// The messages as prost reads and writes them.
    #[derive(Clone, PartialEq, Message)]
    struct MetricList {
        #[prost(message, repeated, tag = "1")]
        metrics: Vec<ByProst>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct ByProst {
        #[prost(bytes = "vec", tag = "1")]
        name: Vec<u8>,
        #[prost(bytes = "vec", repeated, tag = "2")]
        tags: Vec<Vec<u8>>,
        #[prost(enumeration = "WireKind", tag = "3")]
        kind: i32,
        #[prost(oneof = "Value", tags = "5, 6, 7, 8")]
        value: Option<Value>,
        #[prost(enumeration = "WireScope", tag = "9")]
        scope: i32,
        #[prost(bool, tag = "1001")]
        is_distribution: bool,
    }

    fn message(key: &MetricKey, mut value: ImportedValue) -> Vec<u8> {
        let mut message = Vec::new();
        write_metric(&mut message, key, &mut value);
        message
    }

    fn key(name: &str, kind: MetricKind, scope: Scope) -> MetricKey {
        MetricKey {
            name: name.into(),
            tags: TagSet::canonical(["k:v"]),
            kind,
            scope,
            dialect: Dialect::DogStatsD,
        }
    }

    fn digest_of(samples: &[f64]) -> ImportedValue {
        let mut digest = Digest::new();
        samples.iter().for_each(|&sample| digest.add(sample, Weight::ONE));
        ImportedValue::Digest(digest)
    }

    /// A list of two good metrics, the second spoilt.
    fn list_with(spoil: impl Fn(&mut ByProst)) -> Vec<u8> {
        let key = key("m", MetricKind::Histogram, Scope::Mixed);
        let good = message(&key, digest_of(&[1.0, 3.0]));
        let good = ByProst::decode(&*good).expect("our own message");
        let mut bad = good.clone();
        spoil(&mut bad);
        MetricList { metrics: vec![good, bad] }.encode_to_vec()
    }

    #[test]
    fn messages_are_those_that_v14_sends() {
        // As captured from v14: a global counter, and a histogram of 1 and 3.
        let mut counter = key("c", MetricKind::Counter, Scope::GlobalOnly);
        counter.tags = TagSet::empty();
        let counter = message(&counter, ImportedValue::Counter(3.0));
        assert_eq!(counter, b"\x0a\x01c\x2a\x02\x08\x03\x48\x02");

        let histogram = key("h", MetricKind::Histogram, Scope::Mixed);
        let histogram = message(&histogram, digest_of(&[1.0, 3.0]));
        let expected = [
            &b"\x0a\x01h\x12\x03k:v\x18\x02\x3a\x4e\x0a\x4c"[..],
            b"\x0a\x12\x09\0\0\0\0\0\0\xf0\x3f\x11\0\0\0\0\0\0\xf0\x3f",
            b"\x0a\x12\x09\0\0\0\0\0\0\x08\x40\x11\0\0\0\0\0\0\xf0\x3f",
            b"\x11\0\0\0\0\0\0\x59\x40\x19\0\0\0\0\0\0\xf0\x3f",
            b"\x21\0\0\0\0\0\0\x08\x40\x29\x55\x55\x55\x55\x55\x55\xf5\x3f",
        ];
        assert_eq!(histogram, expected.concat());
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
        let list = MetricList::decode(&*body).expect("protobuf");
        assert_eq!(list.metrics[1].kind(), WireKind::Histogram);
        assert_eq!(list.metrics[1].scope(), WireScope::Global);
    }

    #[test]
    fn a_body_is_refused_when() {
        let value = |metric: &mut ByProst, value: Value| metric.value = Some(value);
        let digest = |metric: &mut ByProst, spoil: fn(&mut TDigest)| match &mut metric.value {
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

    fn values() -> impl Strategy<Value = (MetricKind, ImportedValue)> {
        let samples = proptest::collection::vec(-1e3..1e3f64, 0..40);
        prop_oneof![
            (-1e9..1e9f64).prop_map(|sum| (MetricKind::Counter, ImportedValue::Counter(sum))),
            Just((MetricKind::Gauge, ImportedValue::Gauge(0.0))),
            samples.prop_map(|samples| (MetricKind::Timer, digest_of(&samples))),
            proptest::collection::vec(any::<u64>(), 0..9).prop_map(|hashes| {
                let mut set = Cardinality::new();
                hashes.into_iter().for_each(|hash| set.insert_hash(hash));
                (MetricKind::Set, ImportedValue::Set(set))
            }),
            Just((MetricKind::Distribution, digest_of(&[0.0, 1.5]))),
        ]
    }

    proptest! {
        /// It writes the bytes that prost writes of what it reads in them.
        #[test]
        fn it_is_the_message_that_prost_would_make_of_it(
            name in "[a-zé]{1,200}",
            tags in proptest::collection::vec("[a-c:]{0,150}", 0..4),
            (kind, value) in values(),
            is_global in any::<bool>(),
        ) {
            let scope = if is_global { Scope::GlobalOnly } else { Scope::Mixed };
            let tags = TagSet::canonical(tags.iter().map(String::as_str));
            let key = MetricKey { name: name.into(), tags, kind, scope, dialect: Dialect::DogStatsD };
            let bytes = message(&key, value);
            let read = ByProst::decode(&bytes[..])?;
            prop_assert_eq!(&*read.name, key.name.as_bytes());
            prop_assert_eq!(read.encode_to_vec(), bytes);
        }

        /// Whatever the bytes are, it reads what prost reads, or fails where prost fails.
        #[test]
        fn other_bytes_are_read_as_prost_reads_them(
            (kind, value) in values(),
            spoilt in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = message(&key("name", kind, Scope::Mixed), value);
            for (at, byte) in spoilt {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
            let ours = Metric::read(&bytes).map(|metric| {
                let Metric { name, tags, kind, value, scope, is_distribution } = metric;
                let tags = tags.into_iter().map(<[u8]>::to_vec).collect();
                ByProst { name: name.to_vec(), tags, kind, value, scope, is_distribution }
            });
            let theirs = ByProst::decode(&bytes[..]);
            // Compared as bytes: a NaN is not equal to itself.
            prop_assert_eq!(
                ours.ok().map(|metric| metric.encode_to_vec()),
                theirs.ok().map(|metric| metric.encode_to_vec())
            );
        }
    }
}
