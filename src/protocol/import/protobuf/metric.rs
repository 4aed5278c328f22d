//! The message of one series, `metricpb.Metric`, read and written without copies of its texts.
//!
//! Texts are bytes: Veneur sends what clients send, valid or not, and one bad name must not
//! cost a whole body.

use prost::DecodeError;
use prost::encoding::{
    self, DecodeContext, WireType, check_wire_type, decode_key, decode_varint, encode_key,
    encode_varint, encoded_len_varint, message,
};

use super::digest::TDigest;
use super::exact_if_other;
use super::messages::{Counter, Gauge, Set, Value, WireKind, WireScope};
use crate::model::{MetricKey, MetricKind, Scope, text};
use crate::protocol::import::{Cause, ImportedEntry, ImportedValue, canonical, finite};
use crate::sketch::{Cardinality, CardinalityError, Digest};

/// Field numbers.
const NAME: u32 = 1;
const TAGS: u32 = 2;
const TYPE: u32 = 3;
const COUNTER: u32 = 5;
const GAUGE: u32 = 6;
const HISTOGRAM: u32 = 7;
const SET: u32 = 8;
const SCOPE: u32 = 9;
/// Ours: the histogram is a distribution.
const IS_DISTRIBUTION: u32 = 1001;
/// The only field of `metricpb.HistogramValue`.
const T_DIGEST: u32 = 1;

/// `metricpb.Metric`
#[derive(Debug, Default)]
pub(super) struct Metric<'a> {
    pub(super) name: &'a [u8],
    pub(super) tags: Vec<&'a [u8]>,
    pub(super) kind: i32,
    pub(super) value: Option<Value>,
    pub(super) scope: i32,
    pub(super) is_distribution: bool,
}

impl<'a> Metric<'a> {
    pub(super) fn read(mut message: &'a [u8]) -> Result<Metric<'a>, Cause> {
        let mut metric = Metric::default();
        let rest = &mut message;
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(rest)?;
            let context = DecodeContext::default();
            match tag {
                NAME => metric.name = read_bytes(wire_type, rest)?,
                TAGS => metric.tags.push(read_bytes(wire_type, rest)?),
                TYPE => encoding::int32::merge(wire_type, &mut metric.kind, rest, context)?,
                COUNTER..=SET => Value::merge(&mut metric.value, tag, wire_type, rest, context)?,
                SCOPE => encoding::int32::merge(wire_type, &mut metric.scope, rest, context)?,
                IS_DISTRIBUTION => {
                    encoding::bool::merge(wire_type, &mut metric.is_distribution, rest, context)?;
                }
                _ => encoding::skip_field(wire_type, tag, rest, context)?,
            }
        }
        Ok(metric)
    }
}

fn read_bytes<'a>(wire_type: WireType, rest: &mut &'a [u8]) -> Result<&'a [u8], Cause> {
    check_wire_type(WireType::LengthDelimited, wire_type)?;
    let length = usize::try_from(decode_varint(rest)?).map_err(|_| Cause::Protobuf)?;
    let (field, behind) = rest.split_at_checked(length).ok_or(Cause::Protobuf)?;
    *rest = behind;
    Ok(field)
}

impl From<DecodeError> for Cause {
    fn from(_: DecodeError) -> Cause {
        Cause::Protobuf
    }
}

impl TryFrom<Metric<'_>> for ImportedEntry {
    type Error = Cause;

    fn try_from(metric: Metric<'_>) -> Result<ImportedEntry, Cause> {
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
        let tags: Vec<_> = metric.tags.iter().copied().map(text::lossy).collect();
        Ok(ImportedEntry {
            name: text::lossy(metric.name).into_owned(),
            tags: canonical(tags.iter().map(|tag| &**tag)),
            kind,
            scope,
            value,
        })
    }
}

/// Appends the message of one series.
pub(super) fn write(out: &mut Vec<u8>, key: &MetricKey, value: &mut ImportedValue) {
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

    write_bytes(out, NAME, key.name.as_bytes());
    key.tags.iter().for_each(|tag| write_bytes(out, TAGS, tag.as_bytes()));
    write_number(out, TYPE, kind as u8);
    match value {
        ImportedValue::Counter(sum) => {
            let value = sum.round() as i64;
            let counter = Counter { value, exact: exact_if_other(*sum, value as f64) };
            message::encode(COUNTER, &counter, out);
        }
        ImportedValue::Gauge(last) => message::encode(GAUGE, &Gauge { value: *last }, out),
        ImportedValue::Digest(digest) => {
            let digest = TDigest::from(digest.as_parts());
            let length = digest.written_bytes();
            let framed = 1 + encoded_len_varint(length as u64) + length;
            out.reserve(framed + 16);
            write_head(out, HISTOGRAM, framed);
            write_head(out, T_DIGEST, length);
            digest.write(out);
        }
        ImportedValue::Set(set) => {
            let cut = set.cut_registers().into_iter().flat_map(cut_bytes).collect();
            message::encode(SET, &Set { sketch: set.to_bytes(), cut }, out);
        }
    }
    write_number(out, SCOPE, scope as u8);
    write_number(out, IS_DISTRIBUTION, u8::from(is_distribution));
}

fn write_bytes(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    write_head(out, tag, bytes.len());
    out.extend_from_slice(bytes);
}

/// Writes what stands before a field of `length` bytes.
fn write_head(out: &mut Vec<u8>, tag: u32, length: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// Zero is what a field is that is left out.
fn write_number(out: &mut Vec<u8>, tag: u32, number: u8) {
    if number != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(number.into(), out);
    }
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
