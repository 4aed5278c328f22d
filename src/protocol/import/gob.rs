//! The part of Go's gob format that carries digests, and v1.1.0's sets: read as far as their
//! precision, written in full.
//!
//! A stream is a row of messages; one defines a type or carries a value. The numbers of
//! types are the sender's choice, so the definitions are followed and nothing is assumed
//! about them; struct fields are found by name, others are skipped.
//!
//! A digest is four values: centroids, compression, minimum, maximum; Veneur v14 and we add
//! Σ weight / value. A set is four values: registers, their number, precision, whether it is
//! sparse; if so, four more: new keys, and of the list of the others number, bytes and last.
//! Source: documentation of Go's `encoding/gob`; Veneur's `tdigest/merging_digest.go`,
//! `GobEncode`; the same of `hyperloglog.HyperLogLogPlus`.

mod types;
mod wire;

use crate::sketch::legacy_set::{self, Encoded, LegacySet};
use crate::sketch::{Centroid, Digest, Parts};

use types::{TypeId, Types};
use wire::{Input, push_float, push_message, push_uint};

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GobError {
    /// They end too early.
    #[error("gob stream is cut short")]
    Truncated,
    /// A number of more than 64 bits, or a length or field number beyond all bounds.
    #[error("gob stream has an impossible number")]
    BadNumber,
    /// A type definition that makes no sense, is missing, or nests too deeply.
    #[error("gob stream has a bad type")]
    BadType,
    /// A value of another type, or bytes behind a value.
    #[error("gob stream holds something else")]
    Unexpected,
    /// More centroids than any digest has.
    #[error("gob stream has too many centroids")]
    TooManyCentroids,
}

/// Reads a digest; what it says is yet to be checked ([`Digest::from_parts`]). Further values
/// behind it are left alone.
///
/// # Errors
/// The first rule the stream breaks.
pub fn read_digest(stream: &[u8]) -> Result<Parts, GobError> {
    let (usual, rest) = usual_centroids(stream).unzip();
    let mut stream = Stream::new(rest.unwrap_or(stream));
    let centroids = usual.map_or_else(|| stream.centroids(), Ok)?;
    let _compression = stream.float()?;
    let (min, max) = (stream.float()?, stream.float()?);
    let reciprocal_sum = if stream.is_at_end() { None } else { Some(stream.float()?) };
    Ok(Parts { centroids, min, max, sum: None, reciprocal_sum })
}

/// The precision of a set as v1.1.0 sends it: registers, their number, then this.
///
/// # Errors
/// The first rule the stream breaks.
pub fn read_set_precision(stream: &[u8]) -> Result<u64, GobError> {
    let mut stream = Stream::new(stream);
    let (id, mut registers) = stream.value()?;
    if id != TypeId::BYTES {
        return Err(GobError::Unexpected);
    }
    let length = registers.length()?;
    registers.take(length)?;
    stream.uint()?;
    stream.uint()
}

/// Defines `[]Centroid` as type 67, with fields `Mean`, `Weight` and `Samples`: as v1.1.0
/// captured itself, byte for byte.
const CENTROID_TYPES: &[u8] = b"\
    \x0d\xff\x85\x02\x01\x02\xff\x86\x00\x01\xff\x82\x00\x00\
    \x37\xff\x81\x03\x01\x01\x08Centroid\x01\xff\x82\x00\x01\x03\
        \x01\x04Mean\x01\x08\x00\x01\x06Weight\x01\x08\x00\x01\x07Samples\x01\xff\x84\x00\x00\x00\
    \x17\xff\x83\x02\x01\x01\x09[]float64\x01\xff\x84\x00\x01\x08\x00\x00";
/// Type 67 as an integer, and the zero that goes before a value that is no struct.
const CENTROIDS_FOLLOW: &[u8] = b"\xff\x86\x00";
const FLOAT_FOLLOWS: &[u8] = b"\x08\x00";

/// The centroids of a stream as every Veneur writes it, and what is behind them: definitions
/// that are always the same need not be read. `None` where anything is otherwise.
fn usual_centroids(stream: &[u8]) -> Option<(Vec<Centroid>, &[u8])> {
    let mut rest = Input(stream.strip_prefix(CENTROID_TYPES)?);
    let length = rest.length().ok()?;
    let mut list = Input(rest.take(length).ok()?.strip_prefix(CENTROIDS_FOLLOW)?);
    let count = list.length().ok().filter(|count| *count <= Digest::MAX_PARTS_CENTROIDS)?;
    let mut centroids = Vec::with_capacity(count);
    for _ in 0..count {
        // The distance to the first field that is there: a mean of zero is not.
        let mean = match list.uint().ok()? {
            1 => {
                let mean = list.float().ok()?;
                list.uint().ok().filter(|distance| *distance == 1)?;
                mean
            }
            2 => 0.0,
            _ => return None,
        };
        centroids.push(Centroid { mean, weight: list.float().ok()? });
        list.uint().ok().filter(|distance| *distance == 0)?;
    }
    list.finish().ok()?;
    Some((centroids, rest.0))
}

/// Writes a digest as Veneur v14 does; v1.1.0 does not look at the fifth value.
pub fn write_digest(parts: &Parts) -> Vec<u8> {
    let mut list = Vec::with_capacity(16 + 22 * parts.centroids.len());
    list.extend_from_slice(CENTROIDS_FOLLOW);
    push_uint(&mut list, parts.centroids.len() as u64);
    for centroid in &parts.centroids {
        // Fields are numbered by their distance from the one before; zeros are left out.
        let mut weight_follows = 2;
        if centroid.mean.to_bits() != 0 {
            list.push(1);
            push_float(&mut list, centroid.mean);
            weight_follows = 1;
        }
        list.push(weight_follows);
        push_float(&mut list, centroid.weight);
        list.push(0);
    }
    let mut stream = Vec::with_capacity(CENTROID_TYPES.len() + list.len() + 56);
    stream.extend_from_slice(CENTROID_TYPES);
    push_message(&mut stream, &list);
    let reciprocal_sum = parts.reciprocal_sum.unwrap_or(0.0);
    for float in [Digest::COMPRESSION, parts.min, parts.max, reciprocal_sum] {
        let mut message = FLOAT_FOLLOWS.to_vec();
        push_float(&mut message, float);
        push_message(&mut stream, &message);
    }
    stream
}

/// Defines `set`, a map from unsigned integers to booleans, as type 68, and has an empty one
/// follow: as v1.1.0 captured itself.
const NO_NEW_KEYS: &[u8] = b"\
    \x13\xff\x87\x04\x01\x01\x03set\x01\xff\x88\x00\x01\x06\x01\x02\x00\x00\
    \x04\xff\x88\x00\x00";

/// Writes a set as v1.1.0 does, with all its keys in the list.
pub fn write_legacy_set(set: &mut LegacySet) -> Vec<u8> {
    let encoded = set.encode();
    let (registers, is_sparse): (&[u8], _) = match &encoded {
        Encoded::Sparse { .. } => (&[], true),
        Encoded::Dense(registers) => (registers, false),
    };
    let mut stream = Vec::with_capacity(64 + registers.len());
    push_bytes(&mut stream, registers);
    push_number(&mut stream, TypeId::UINT, legacy_set::REGISTERS as u64);
    push_number(&mut stream, TypeId::UINT, legacy_set::PRECISION.into());
    push_number(&mut stream, TypeId::BOOL, is_sparse.into());
    if let Encoded::Sparse { count, list, last } = &encoded {
        stream.extend_from_slice(NO_NEW_KEYS);
        push_number(&mut stream, TypeId::UINT, *count as u64);
        push_bytes(&mut stream, list);
        push_number(&mut stream, TypeId::UINT, u64::from(*last));
    }
    stream
}

/// Appends a value of a type whose number is small and known beforehand.
fn push_number(stream: &mut Vec<u8>, id: TypeId, value: u64) {
    let mut message = begin(id);
    push_uint(&mut message, value);
    push_message(stream, &message);
}

fn push_bytes(stream: &mut Vec<u8>, bytes: &[u8]) {
    let mut message = begin(TypeId::BYTES);
    message.reserve(bytes.len() + 9);
    push_uint(&mut message, bytes.len() as u64);
    message.extend_from_slice(bytes);
    push_message(stream, &message);
}

/// The number of a type, and the zero that goes before a value that is no struct.
fn begin(id: TypeId) -> Vec<u8> {
    vec![(id.0 << 1) as u8, 0]
}

/// What is left of a stream, and the types it has defined so far.
struct Stream<'a> {
    rest: Input<'a>,
    types: Types,
}

impl<'a> Stream<'a> {
    fn new(stream: &'a [u8]) -> Stream<'a> {
        Stream { rest: Input(stream), types: Types::default() }
    }

    fn is_at_end(&self) -> bool {
        self.rest.0.is_empty()
    }

    /// The next value's type and bytes; takes in the definitions before it.
    fn value(&mut self) -> Result<(TypeId, Input<'a>), GobError> {
        loop {
            let length = self.rest.length()?;
            let mut message = Input(self.rest.take(length)?);
            let id = message.int()?;
            if id < 0 {
                self.types.define(id, &mut message)?;
                continue;
            }
            let id = TypeId(id);
            if !self.types.is_struct(id) && message.uint()? != 0 {
                return Err(GobError::Unexpected);
            }
            return Ok((id, message));
        }
    }

    fn float(&mut self) -> Result<f64, GobError> {
        let (id, mut message) = self.value()?;
        if id != TypeId::FLOAT {
            return Err(GobError::Unexpected);
        }
        let float = message.float()?;
        message.finish()?;
        Ok(float)
    }

    fn uint(&mut self) -> Result<u64, GobError> {
        let (id, mut message) = self.value()?;
        if id != TypeId::UINT {
            return Err(GobError::Unexpected);
        }
        let uint = message.uint()?;
        message.finish()?;
        Ok(uint)
    }

    /// A list of structs with floats `Mean` and `Weight`.
    fn centroids(&mut self) -> Result<Vec<Centroid>, GobError> {
        let (id, mut message) = self.value()?;
        let element = self.types.element_of(id).ok_or(GobError::Unexpected)?;
        let fields = self.types.fields_of(element).ok_or(GobError::Unexpected)?;
        let place = |name: &str| fields.iter().position(|field| field.is(name, TypeId::FLOAT));
        let (mean, weight) = (place("Mean"), place("Weight"));
        if mean.is_none() || weight.is_none() {
            return Err(GobError::Unexpected);
        }
        // Each centroid takes a byte at least, so `length` is no more than is there.
        let count = message.length()?;
        if count > Digest::MAX_PARTS_CENTROIDS {
            return Err(GobError::TooManyCentroids);
        }
        let mut centroids = Vec::with_capacity(count);
        for _ in 0..count {
            let mut centroid = Centroid::default();
            message.fields(|index, message| {
                if Some(index) == mean {
                    centroid.mean = message.float()?;
                } else if Some(index) == weight {
                    centroid.weight = message.float()?;
                } else {
                    let field = fields.get(index).ok_or(GobError::BadNumber)?;
                    self.types.skip(field.id, message)?;
                }
                Ok(())
            })?;
            centroids.push(centroid);
        }
        message.finish()?;
        Ok(centroids)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts() -> impl Strategy<Value = Parts> {
        let mean = prop_oneof![Just(0.0), Just(1.0), -1e9..1e9f64];
        let weight = prop_oneof![Just(0.0), Just(1.0), 0.0..1e9f64];
        let centroid = (mean, weight).prop_map(|(mean, weight)| Centroid { mean, weight });
        let centroids = proptest::collection::vec(centroid, 0..20);
        centroids.prop_map(|centroids| Parts { centroids, ..Parts::default() })
    }

    proptest! {
        /// Streams as Veneur writes them are read in one go, and that reads what reading by
        /// their types reads.
        #[test]
        fn the_usual_stream_is_read_as_its_types_say(parts in parts()) {
            let bytes = write_digest(&parts);
            let (usual, rest) = usual_centroids(&bytes).expect("it is a usual one");
            let mut stream = Stream::new(&bytes);
            prop_assert_eq!(usual, stream.centroids()?);
            prop_assert_eq!(rest, stream.rest.0);
        }

        /// What is not refused by the short way is no other thing by the long one.
        #[test]
        fn spoilt_streams_are_read_as_their_types_say(
            parts in parts(),
            spoilt in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = write_digest(&parts);
            for (at, byte) in spoilt {
                let behind_types = CENTROID_TYPES.len() + at.index(bytes.len() - CENTROID_TYPES.len());
                bytes[behind_types] = byte;
            }
            if let Some((usual, rest)) = usual_centroids(&bytes) {
                let mut stream = Stream::new(&bytes);
                let bits = |list: Vec<Centroid>| -> Vec<_> {
                    list.iter().map(|c| (c.mean.to_bits(), c.weight.to_bits())).collect()
                };
                prop_assert_eq!(bits(usual), bits(stream.centroids()?));
                prop_assert_eq!(rest, stream.rest.0);
            }
        }
    }
}
