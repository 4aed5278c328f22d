//! Bodies: encoded entries, framed, compressed, and never larger than allowed.
//!
//! A body remembers where in its plain form each entry ends, and where its series stands on
//! the ring. So it can be taken apart again, when upstream finds it too large or another
//! member takes over, without decoding an entry.
//!
//! | Format | Plain body | Compressed |
//! |---|---|---|
//! | `protobuf` | `MetricList`: for each entry tag 1, length, `Metric` | zstd |
//! | `grpc` | one gRPC message of that | no |
//! | `grpc-stream` | one gRPC message per entry | no |
//! | `json-gob` | `[` entries, parted by commas `]` | zlib |
//!
//! A gRPC message is a zero byte, its length as four bytes, big-endian, and the message.

use std::io::{self, Read, Write};
use std::ops::Range;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use zstd::bulk::{Compressor, Decompressor};

mod stored;

use super::ring::Place;
use crate::config::settings::ForwardFormat;

/// The fastest whose bodies are smaller than those of Veneur 1.1.0 whatever the digests are.
/// Of digests of 10, 100 and 1,000 samples, level 1 makes 24, 40 and 3 % more bytes in four
/// fifths of the time; level 3 makes 11, 19 and 17 % fewer for 15, 15 and 40 % more
/// (`benches/forward.rs`).
const ZSTD_LEVEL: i32 = 2;
/// Field 1, length-delimited: an entry of a `MetricList`.
const LIST_ENTRY_TAG: u8 = 0x0a;
/// A gRPC message's flag and length.
const GRPC_HEAD_BYTES: usize = 5;

/// What one body may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Entries.
    pub entries: usize,
    /// Bytes as sent.
    pub body_bytes: usize,
    /// Bytes before compression.
    pub plain_bytes: usize,
}

/// A finished body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// As sent.
    pub body: Bytes,
    plain_bytes: usize,
    pieces: Box<[Piece]>,
}

/// One entry of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    place: Place,
    /// Where it ends in the pieces of the body, which are its plain form without head and tail.
    end: u32,
}

impl Packed {
    /// How many entries it holds; at least one.
    pub fn entries(&self) -> u64 {
        self.pieces.len() as u64
    }

    /// What it takes in memory.
    pub fn memory_bytes(&self) -> usize {
        self.body.len() + size_of_val::<[Piece]>(&self.pieces)
    }
}

/// Bodies and what could not be put into one.
#[derive(Debug, Default)]
pub struct Bodies {
    /// Each with the number of the pile it is of, in the order they were finished.
    pub packed: Vec<(usize, Packed)>,
    /// Entries that alone are larger than a body may be.
    pub too_large: u64,
    /// Entries lost because compression failed.
    pub broken: u64,
}

/// Puts entries into bodies, on several piles at once: one for each member of a ring.
pub struct Packer {
    format: ForwardFormat,
    limits: BodyLimits,
    zstd: Option<Compressor<'static>>,
    piles: Vec<Pile>,
    bodies: Bodies,
}

/// A body that is being filled.
#[derive(Default)]
struct Pile {
    pieces: Vec<Piece>,
    plain: Vec<u8>,
}

impl Packer {
    /// With `piles` empty piles.
    ///
    /// # Errors
    /// When the compressor gets no memory.
    pub fn new(format: ForwardFormat, limits: BodyLimits, piles: usize) -> io::Result<Packer> {
        let zstd = match format {
            ForwardFormat::Protobuf => Some(Compressor::new(ZSTD_LEVEL)?),
            ForwardFormat::Grpc | ForwardFormat::GrpcStream | ForwardFormat::JsonGob => None,
        };
        Ok(Packer {
            format,
            limits,
            zstd,
            piles: std::iter::repeat_with(Pile::default).take(piles).collect(),
            bodies: Bodies::default(),
        })
    }

    /// Adds one encoded entry to a pile.
    pub fn add(&mut self, pile: usize, place: Place, entry: &[u8]) {
        // Length and tag of a list entry are at most as long as those of a gRPC message.
        let framed_bytes = entry.len() + GRPC_HEAD_BYTES + 1;
        if framed_bytes > self.limits.plain_bytes {
            self.bodies.too_large += 1;
            return;
        }
        let format = self.format;
        let Pile { pieces, plain } = self.room_for(framed_bytes, pile);
        frame(format, entry, plain);
        pieces.push(Piece { place, end: plain.len() as u32 });
    }

    /// Adds the entries of a finished body again, each to the pile that `choose` names for its
    /// number and place.
    ///
    /// # Errors
    /// When the body is not one of ours.
    pub fn add_again(
        &mut self,
        packed: &Packed,
        mut choose: impl FnMut(usize, Place) -> usize,
    ) -> io::Result<()> {
        let plain = unpack(self.format, packed)?;
        let mut start = 0;
        for (number, piece) in packed.pieces.iter().enumerate() {
            let end = piece.end as usize;
            let framed = plain.get(start..end).ok_or(io::ErrorKind::InvalidData)?;
            start = end;
            let Pile { pieces, plain } = self.room_for(framed.len(), choose(number, piece.place));
            plain.extend_from_slice(framed);
            pieces.push(Piece { end: plain.len() as u32, ..*piece });
        }
        Ok(())
    }

    /// Finishes every pile.
    pub fn finish(mut self) -> Bodies {
        (0..self.piles.len()).for_each(|pile| self.seal(pile));
        self.bodies
    }

    /// A pile that can take another entry of `bytes` bytes.
    fn room_for(&mut self, bytes: usize, pile: usize) -> &mut Pile {
        let Pile { pieces, plain } = &self.piles[pile];
        if pieces.len() == self.limits.entries || plain.len() + bytes > self.limits.plain_bytes {
            self.seal(pile);
        }
        &mut self.piles[pile]
    }

    /// Finishes what is on a pile.
    fn seal(&mut self, pile: usize) {
        let Pile { mut pieces, mut plain } = std::mem::take(&mut self.piles[pile]);
        self.pack_all(pile, &pieces, &plain, 0..pieces.len());
        // The next body is about as large: it takes the same memory.
        pieces.clear();
        plain.clear();
        self.piles[pile] = Pile { pieces, plain };
    }

    /// Makes bodies of some of the pieces, as many as it takes.
    fn pack_all(&mut self, pile: usize, pieces: &[Piece], plain: &[u8], range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        match self.pack(pieces, plain, range.clone()) {
            Err(_) => self.bodies.broken += range.len() as u64,
            Ok(packed) if packed.body.len() <= self.limits.body_bytes => {
                self.bodies.packed.push((pile, packed));
            }
            Ok(_) if range.len() == 1 => self.bodies.too_large += 1,
            Ok(_) => {
                let middle = range.start + range.len() / 2;
                self.pack_all(pile, pieces, plain, range.start..middle);
                self.pack_all(pile, pieces, plain, middle..range.end);
            }
        }
    }

    /// One body of some of the pieces.
    fn pack(&mut self, pieces: &[Piece], plain: &[u8], range: Range<usize>) -> io::Result<Packed> {
        let start = range.start.checked_sub(1).map_or(0, |before| pieces[before].end);
        let end = pieces[range.end - 1].end;
        let plain = &plain[start as usize..end as usize];
        let pieces =
            pieces[range].iter().map(|piece| Piece { end: piece.end - start, ..*piece }).collect();
        let mut body = match self.format {
            ForwardFormat::Protobuf => match &mut self.zstd {
                Some(zstd) => zstd.compress(plain)?,
                None => return Err(io::ErrorKind::Unsupported.into()),
            },
            ForwardFormat::Grpc => {
                let mut body = Vec::with_capacity(GRPC_HEAD_BYTES + plain.len());
                push_grpc_head(plain.len(), &mut body);
                body.extend_from_slice(plain);
                body
            }
            ForwardFormat::GrpcStream => plain.to_vec(),
            ForwardFormat::JsonGob => {
                let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
                zlib.write_all(b"[")?;
                zlib.write_all(plain.strip_suffix(b",").unwrap_or(plain))?;
                zlib.write_all(b"]")?;
                zlib.finish()?
            }
        };
        // It may wait for long, and the compressor was given room for the worst.
        body.shrink_to_fit();
        Ok(Packed { body: body.into(), plain_bytes: plain.len(), pieces })
    }
}

/// Appends an encoded entry as a piece of a body.
fn frame(format: ForwardFormat, entry: &[u8], plain: &mut Vec<u8>) {
    match format {
        ForwardFormat::Protobuf | ForwardFormat::Grpc => {
            plain.push(LIST_ENTRY_TAG);
            push_varint(entry.len(), plain);
            plain.extend_from_slice(entry);
        }
        ForwardFormat::GrpcStream => {
            push_grpc_head(entry.len(), plain);
            plain.extend_from_slice(entry);
        }
        ForwardFormat::JsonGob => {
            plain.extend_from_slice(entry);
            plain.push(b',');
        }
    }
}

/// The pieces of a body, one after the other.
fn unpack(format: ForwardFormat, packed: &Packed) -> io::Result<Vec<u8>> {
    let Packed { body, plain_bytes, .. } = packed;
    match format {
        ForwardFormat::Protobuf => Decompressor::new()?.decompress(body, *plain_bytes),
        ForwardFormat::Grpc => Ok(body.get(GRPC_HEAD_BYTES..).unwrap_or_default().to_vec()),
        ForwardFormat::GrpcStream => Ok(body.to_vec()),
        ForwardFormat::JsonGob => {
            let mut text = Vec::with_capacity(plain_bytes + 2);
            ZlibDecoder::new(&body[..]).read_to_end(&mut text)?;
            // The bracket at the end stands where the last piece has its comma.
            if let Some(end) = text.last_mut() {
                *end = b',';
            }
            text.drain(..text.len().min(1));
            Ok(text)
        }
    }
}

fn push_grpc_head(length: usize, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&(length as u32).to_be_bytes());
}

fn push_varint(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOMY: BodyLimits =
        BodyLimits { entries: 1000, body_bytes: 1 << 20, plain_bytes: 1 << 20 };

    fn pack(format: ForwardFormat, limits: BodyLimits, entries: &[Vec<u8>]) -> Bodies {
        let mut packer = Packer::new(format, limits, 1).expect("there is memory");
        for (number, entry) in entries.iter().enumerate() {
            packer.add(0, Place(number as u32), entry);
        }
        packer.finish()
    }

    /// The entries of a body by an independent reading of its format.
    fn read(format: ForwardFormat, body: &[u8]) -> Vec<Vec<u8>> {
        match format {
            ForwardFormat::Protobuf => {
                read_list(&zstd::stream::decode_all(body).expect("it is zstd"))
            }
            ForwardFormat::Grpc => {
                let [message] = &read_messages(body)[..] else { panic!("one message") };
                read_list(message)
            }
            ForwardFormat::GrpcStream => read_messages(body),
            ForwardFormat::JsonGob => {
                let mut text = String::new();
                ZlibDecoder::new(body).read_to_string(&mut text).expect("it is zlib of text");
                let list: Vec<serde_json::Value> =
                    serde_json::from_str(&text).expect("it is a JSON array");
                list.iter().map(|entry| entry.to_string().into_bytes()).collect()
            }
        }
    }

    fn read_list(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            let key = prost::encoding::decode_key(&mut bytes).expect("a field begins");
            assert_eq!(key, (1, prost::encoding::WireType::LengthDelimited));
            let length = prost::encoding::decode_varint(&mut bytes).expect("a length follows");
            let (entry, rest) = bytes.split_at(length as usize);
            entries.push(entry.to_vec());
            bytes = rest;
        }
        entries
    }

    fn read_messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
            let [0, a, b, c, d] = *head else { panic!("a compressed message") };
            let (message, rest) = rest.split_at(u32::from_be_bytes([a, b, c, d]) as usize);
            messages.push(message.to_vec());
            bytes = rest;
        }
        assert!(bytes.is_empty(), "a message is cut");
        messages
    }

    /// Entries that are whole numbers, so that they are JSON as well.
    fn numbers(n: u32) -> Vec<Vec<u8>> {
        (0..n).map(|n| (1_000_000 + n * n).to_string().into_bytes()).collect()
    }

    #[test]
    fn a_body_holds_its_entries_in_order_in_every_format() {
        for format in ForwardFormat::ALL {
            let entries = numbers(300);
            let bodies = pack(format, ROOMY, &entries);
            let [(0, packed)] = &bodies.packed[..] else { panic!("one body, not {bodies:?}") };
            assert_eq!(read(format, &packed.body), entries, "{format:?}");
            assert_eq!(packed.entries(), 300);
        }
    }

    /// The example of the reference: `c` = 3, global only, on Veneur 14's stream.
    #[test]
    fn a_stream_is_framed_as_grpc_wants_it() {
        let entry = b"\x0a\x01c\x2a\x02\x08\x03\x48\x02".to_vec();
        let stream = pack(ForwardFormat::GrpcStream, ROOMY, std::slice::from_ref(&entry));
        assert_eq!(stream.packed[0].1.body, [&b"\0\0\0\0\x09"[..], &entry].concat());
        let unary = pack(ForwardFormat::Grpc, ROOMY, std::slice::from_ref(&entry));
        assert_eq!(unary.packed[0].1.body, [&b"\0\0\0\0\x0b\x0a\x09"[..], &entry].concat());
    }

    #[test]
    fn nothing_makes_no_body() {
        for format in ForwardFormat::ALL {
            assert!(pack(format, ROOMY, &[]).packed.is_empty());
        }
    }

    #[test]
    fn bodies_keep_every_limit() {
        let entries = numbers(1000);
        for format in ForwardFormat::ALL {
            for (limits, most) in [
                (BodyLimits { entries: 7, ..ROOMY }, 7),
                (BodyLimits { plain_bytes: 200, ..ROOMY }, 200 / 7),
                (BodyLimits { body_bytes: 200, ..ROOMY }, 1000),
            ] {
                let bodies = pack(format, limits, &entries);
                let mut all = Vec::new();
                for (_, packed) in &bodies.packed {
                    assert!(packed.body.len() <= limits.body_bytes, "{format:?} {limits:?}");
                    assert!(packed.entries() <= most, "{format:?} {limits:?}");
                    all.extend(read(format, &packed.body));
                }
                assert_eq!(all, entries, "{format:?} {limits:?}");
                assert_eq!((bodies.too_large, bodies.broken), (0, 0));
            }
        }
    }

    #[test]
    fn an_entry_that_is_larger_than_a_body_is_left_out_alone() {
        let mut entries = numbers(10);
        // Digits of a linear congruence: they do not compress below the limits.
        let next = |x: &u32| Some(x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
        let noise = std::iter::successors(Some(1), next).map(|x| b'1' + (x >> 16) as u8 % 9);
        entries.insert(4, noise.take(400).collect());
        for format in ForwardFormat::ALL {
            let tight = BodyLimits { body_bytes: 100, ..ROOMY };
            for limits in [tight, BodyLimits { plain_bytes: 300, ..ROOMY }] {
                let bodies = pack(format, limits, &entries);
                assert_eq!(bodies.too_large, 1, "{format:?} {limits:?}");
                let entries: u64 = bodies.packed.iter().map(|(_, packed)| packed.entries()).sum();
                assert_eq!(entries, 10, "{format:?} {limits:?}");
            }
        }
    }

    fn formats() -> impl Strategy<Value = ForwardFormat> {
        proptest::sample::select(&ForwardFormat::ALL)
    }

    proptest! {
        /// Taking a body apart and putting it together by any choice of piles loses and
        /// changes nothing, and each entry keeps its place.
        #[test]
        fn a_body_can_be_parted_among_piles(
            format in formats(),
            piles in proptest::collection::vec(0usize..3, 1..60),
        ) {
            let entries = numbers(piles.len() as u32);
            let bodies = pack(format, ROOMY, &entries);
            let mut packer = Packer::new(format, ROOMY, 3).expect("there is memory");
            packer.add_again(&bodies.packed[0].1, |number, place| {
                assert_eq!(place, Place(number as u32));
                piles[number]
            }).expect("it is our own body");
            let parted = packer.finish();
            for (pile, packed) in &parted.packed {
                let belongs = |number: &usize| piles[*number] == *pile;
                let numbers: Vec<usize> = (0..piles.len()).filter(belongs).collect();
                let expected: Vec<_> = numbers.iter().map(|&n| entries[n].clone()).collect();
                prop_assert_eq!(read(format, &packed.body), expected);
                let places: Vec<_> = packed.pieces.iter().map(|piece| piece.place.0 as usize).collect();
                prop_assert_eq!(places, numbers);
            }
            let total: u64 = parted.packed.iter().map(|(_, packed)| packed.entries()).sum();
            prop_assert_eq!(total, entries.len() as u64);
        }
    }
}
