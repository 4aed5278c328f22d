//! The message of a digest, whose centroids are read and written in one go.
//!
//! Nearly all of what is forwarded is centroids, and nearly all of them 20 bytes of the same
//! form: a tag, a length of 18, and two doubles behind their tags.

use bytes::{Buf, BufMut};
use prost::encoding::{self, DecodeContext, WireType, double, message};
use prost::{DecodeError, Message};

use super::{exact_if_other, messages};
use crate::sketch::{Centroid, Digest, Parts};

/// Field numbers.
const CENTROIDS: u32 = 1;
const COMPRESSION: u32 = 2;
const MIN: u32 = 3;
const MAX: u32 = 4;
const RECIPROCAL_SUM: u32 = 5;
const SUM: u32 = 1001;

/// A centroid behind its tag: length, tag of the mean, mean, tag of the weight, weight.
const CENTROID_BYTES: usize = 19;
const CENTROID_FOLLOWS: u8 = 0x0a;
const LENGTH: u8 = 18;
const MEAN_FOLLOWS: u8 = 0x09;
const WEIGHT_FOLLOWS: u8 = 0x11;

/// A digest of ours has no more centroids: memory is taken at once for so many at most.
const MAX_RESERVED: usize = 256;

/// `tdigest.MergingDigestData`; its centroids are borrowed where it is only written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TDigest<C = Vec<Centroid>> {
    /// `main_centroids`, ascending.
    pub centroids: C,
    /// δ, 100 everywhere.
    pub compression: f64,
    /// The smallest sample.
    pub min: f64,
    /// The largest sample.
    pub max: f64,
    /// Σ weight / value
    pub reciprocal_sum: f64,
    /// Ours: Σ value · weight
    pub sum: Option<f64>,
}

impl<C: AsRef<[Centroid]>> TDigest<C> {
    /// The fields that are doubles and left out when zero.
    fn doubles(&self) -> [(u32, f64); 4] {
        [
            (COMPRESSION, self.compression),
            (MIN, self.min),
            (MAX, self.max),
            (RECIPROCAL_SUM, self.reciprocal_sum),
        ]
    }

    /// Appends the message.
    pub fn write(&self, out: &mut impl BufMut) {
        for &centroid in self.centroids.as_ref() {
            if centroid.mean == 0.0 || centroid.weight == 0.0 {
                message::encode(CENTROIDS, &messages::Centroid::from(centroid), out);
                continue;
            }
            out.put_slice(&whole(centroid));
        }
        for (tag, value) in self.doubles() {
            if value != 0.0 {
                double::encode(tag, &value, out);
            }
        }
        if let Some(sum) = &self.sum {
            double::encode(SUM, sum, out);
        }
    }

    /// How many bytes that are.
    pub fn written_bytes(&self) -> usize {
        let double = |value: f64| if value == 0.0 { 0 } else { 9 };
        let centroid = |c: &Centroid| 2 + double(c.mean) + double(c.weight);
        let centroids: usize = self.centroids.as_ref().iter().map(centroid).sum();
        let doubles = self.doubles().into_iter().filter(|(_, value)| *value != 0.0);
        let doubles: usize = doubles.map(|(tag, value)| double::encoded_len(tag, &value)).sum();
        centroids + doubles + self.sum.map_or(0, |sum| double::encoded_len(SUM, &sum))
    }
}

impl Message for TDigest {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.write(buf);
    }

    fn encoded_len(&self) -> usize {
        self.written_bytes()
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            CENTROIDS => {
                if self.centroids.is_empty() {
                    // What follows is centroids for the most part.
                    self.centroids.reserve(MAX_RESERVED.min(buf.remaining() / CENTROID_BYTES));
                }
                if wire_type == WireType::LengthDelimited
                    && let Some(centroid) = buf.chunk().first_chunk().and_then(from_whole)
                {
                    buf.advance(CENTROID_BYTES);
                    self.centroids.push(centroid);
                    return Ok(());
                }
                let mut centroid = messages::Centroid::default();
                message::merge(wire_type, &mut centroid, buf, ctx)?;
                self.centroids.push(centroid.into());
                Ok(())
            }
            COMPRESSION => double::merge(wire_type, &mut self.compression, buf, ctx),
            MIN => double::merge(wire_type, &mut self.min, buf, ctx),
            MAX => double::merge(wire_type, &mut self.max, buf, ctx),
            RECIPROCAL_SUM => double::merge(wire_type, &mut self.reciprocal_sum, buf, ctx),
            SUM => double::merge(wire_type, self.sum.get_or_insert_default(), buf, ctx),
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn clear(&mut self) {
        *self = TDigest::default();
    }
}

/// A centroid without zeros, its tag included.
fn whole(centroid: Centroid) -> [u8; 1 + CENTROID_BYTES] {
    let mut bytes = [0; 1 + CENTROID_BYTES];
    bytes[..3].copy_from_slice(&[CENTROID_FOLLOWS, LENGTH, MEAN_FOLLOWS]);
    bytes[3..11].copy_from_slice(&centroid.mean.to_le_bytes());
    bytes[11] = WEIGHT_FOLLOWS;
    bytes[12..].copy_from_slice(&centroid.weight.to_le_bytes());
    bytes
}

/// The reverse; `None` if it is written in another way.
fn from_whole(bytes: &[u8; CENTROID_BYTES]) -> Option<Centroid> {
    let [LENGTH, MEAN_FOLLOWS, a, b, c, d, e, f, g, h, WEIGHT_FOLLOWS, weight @ ..] = *bytes else {
        return None;
    };
    let mean = f64::from_le_bytes([a, b, c, d, e, f, g, h]);
    Some(Centroid { mean, weight: f64::from_le_bytes(weight) })
}

impl<C: AsRef<[Centroid]>> From<Parts<C>> for TDigest<C> {
    fn from(parts: Parts<C>) -> TDigest<C> {
        let by_means: f64 = parts.centroids.as_ref().iter().map(|c| c.mean * c.weight).sum();
        TDigest {
            centroids: parts.centroids,
            compression: Digest::COMPRESSION,
            min: parts.min,
            max: parts.max,
            reciprocal_sum: parts.reciprocal_sum.unwrap_or(0.0),
            sum: parts.sum.and_then(|sum| exact_if_other(sum, by_means)),
        }
    }
}

impl From<TDigest> for Parts {
    fn from(digest: TDigest) -> Parts {
        let TDigest { centroids, min, max, sum, reciprocal_sum, .. } = digest;
        Parts { centroids, min, max, sum, reciprocal_sum: Some(reciprocal_sum) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same message as prost writes and reads it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct ByProst {
        #[prost(message, repeated, tag = "1")]
        centroids: Vec<messages::Centroid>,
        #[prost(double, tag = "2")]
        compression: f64,
        #[prost(double, tag = "3")]
        min: f64,
        #[prost(double, tag = "4")]
        max: f64,
        #[prost(double, tag = "5")]
        reciprocal_sum: f64,
        #[prost(double, optional, tag = "1001")]
        sum: Option<f64>,
    }

    fn by_prost(digest: &TDigest) -> ByProst {
        let TDigest { centroids, compression, min, max, reciprocal_sum, sum } = digest.clone();
        let centroids = centroids.into_iter().map(messages::Centroid::from).collect();
        ByProst { centroids, compression, min, max, reciprocal_sum, sum }
    }

    fn digests() -> impl Strategy<Value = TDigest> {
        let double = || prop_oneof![Just(0.0), Just(-0.0), -1e9..1e9f64];
        let centroid = (double(), double()).prop_map(|(mean, weight)| Centroid { mean, weight });
        let doubles = (double(), double(), double(), double(), proptest::option::of(double()));
        (proptest::collection::vec(centroid, 0..20), doubles).prop_map(|(centroids, doubles)| {
            let (compression, min, max, reciprocal_sum, sum) = doubles;
            TDigest { centroids, compression, min, max, reciprocal_sum, sum }
        })
    }

    proptest! {
        /// It writes the bytes that prost writes, announces their number, and reads them back.
        #[test]
        fn it_is_the_message_that_prost_would_make_of_it(digest in digests()) {
            let bytes = digest.encode_to_vec();
            prop_assert_eq!(&bytes, &by_prost(&digest).encode_to_vec());
            prop_assert_eq!(bytes.len(), digest.encoded_len());
            prop_assert_eq!(by_prost(&TDigest::decode(&bytes[..])?), ByProst::decode(&bytes[..])?);
        }

        /// Whatever the bytes are, it reads what prost reads, or fails where prost fails.
        #[test]
        fn other_bytes_are_read_as_prost_reads_them(
            digest in digests(),
            spoilt in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = digest.encode_to_vec();
            for (at, byte) in spoilt {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            bytes.truncate(cut.index(bytes.len() + 1).max(bytes.len() / 2));
            let ours = TDigest::decode(&bytes[..]).map(|digest| by_prost(&digest).encode_to_vec());
            let theirs = ByProst::decode(&bytes[..]).map(|digest| digest.encode_to_vec());
            prop_assert_eq!(ours.ok(), theirs.ok());
        }
    }
}
