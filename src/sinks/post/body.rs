//! A request body that is compressed while it is written and never outgrows its limits.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::sinks::Reason;

/// Written text goes to the compressor in pieces of about this size: small enough to stay in
/// the cache, large enough to call it rarely.
const PIECE_BYTES: usize = 16 << 10;

/// What the other side takes in one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Before compression.
    pub plain_bytes: usize,
    /// As sent.
    pub wire_bytes: usize,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// A zlib stream of this level: `Content-Encoding: deflate`.
    Deflate(Compression),
    /// A gzip member of this level: `Content-Encoding: gzip`.
    Gzip(Compression),
}

/// A body on its way through a compressor.
enum Compressor {
    Zlib(ZlibEncoder<Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Compressor {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Compressor::Zlib(zlib) => zlib.write_all(bytes),
            Compressor::Gzip(gzip) => gzip.write_all(bytes),
        }
    }

    /// Bytes that have left it so far.
    fn written(&self) -> usize {
        match self {
            Compressor::Zlib(zlib) => zlib.get_ref().len(),
            Compressor::Gzip(gzip) => gzip.get_ref().len(),
        }
    }

    fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Compressor::Zlib(zlib) => zlib.finish(),
            Compressor::Gzip(gzip) => gzip.finish(),
        }
    }
}

/// A finished body.
#[derive(Clone, Debug)]
pub struct Body {
    /// As sent.
    pub bytes: Bytes,
    /// How many items it holds.
    pub items: u64,
    /// How many more could not be written in its format, and are not in it.
    pub unwritable: u64,
}

/// A body being written.
pub struct BodyWriter {
    text: Vec<u8>,
    compressor: Option<Compressor>,
    /// Bytes that have left `text` for the compressor.
    compressed_from: usize,
    limits: Limits,
    items: u64,
    unwritable: u64,
}

impl BodyWriter {
    /// An empty body.
    pub fn new(encoding: Encoding, limits: Limits) -> BodyWriter {
        let compressor = match encoding {
            Encoding::Identity => None,
            Encoding::Deflate(level) => Some(Compressor::Zlib(ZlibEncoder::new(Vec::new(), level))),
            Encoding::Gzip(level) => Some(Compressor::Gzip(GzEncoder::new(Vec::new(), level))),
        };
        BodyWriter {
            text: Vec::new(),
            compressor,
            compressed_from: 0,
            limits,
            items: 0,
            unwritable: 0,
        }
    }

    /// Whether an item has been written.
    pub fn has_items(&self) -> bool {
        self.items > 0
    }

    /// Where the next bytes are appended; nothing else may be done to it.
    pub fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Says that an item is complete.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] when the body has outgrown its limits; it is of no use any more.
    pub fn end_item(&mut self) -> Result<(), Reason> {
        self.items += 1;
        if self.text.len() >= PIECE_BYTES {
            self.compress()?;
        }
        self.check_plain_size()
    }

    /// Says that an item cannot be written in this format. Nothing of it may have been.
    pub fn leave_out_item(&mut self) {
        self.unwritable += 1;
    }

    /// The body as it is sent.
    ///
    /// # Errors
    /// [`Reason::TooLarge`] when it has outgrown its limits.
    pub fn finish(mut self) -> Result<Body, Reason> {
        self.check_plain_size()?;
        self.compress()?;
        let bytes = match self.compressor {
            None => self.text,
            Some(compressor) => compressor.finish().map_err(|_| Reason::Encode)?,
        };
        if bytes.len() > self.limits.wire_bytes {
            return Err(Reason::TooLarge);
        }
        Ok(Body { bytes: bytes.into(), items: self.items, unwritable: self.unwritable })
    }

    fn check_plain_size(&self) -> Result<(), Reason> {
        let plain_bytes = self.compressed_from + self.text.len();
        if plain_bytes > self.limits.plain_bytes { Err(Reason::TooLarge) } else { Ok(()) }
    }

    fn compress(&mut self) -> Result<(), Reason> {
        let Some(compressor) = &mut self.compressor else { return Ok(()) };
        compressor.write_all(&self.text).map_err(|_| Reason::Encode)?;
        self.compressed_from += self.text.len();
        self.text.clear();
        if compressor.written() > self.limits.wire_bytes {
            return Err(Reason::TooLarge);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const ROOMY: Limits = Limits { plain_bytes: 1 << 20, wire_bytes: 1 << 20 };

    fn deflate() -> Encoding {
        Encoding::Deflate(Compression::fast())
    }

    fn write(encoding: Encoding, limits: Limits, items: &[&[u8]]) -> Result<Body, Reason> {
        let mut body = BodyWriter::new(encoding, limits);
        for item in items {
            body.text().extend_from_slice(item);
            body.end_item()?;
        }
        body.finish()
    }

    #[test]
    fn a_deflated_body_is_a_zlib_stream_of_everything_written() {
        let item: Vec<u8> = (0..PIECE_BYTES).map(|i| (i % 251) as u8).collect();
        let items = [&item[..], &item[..100], &item[..]];
        let body = write(deflate(), ROOMY, &items).expect("it is within the limits");
        let mut plain = Vec::new();
        flate2::read::ZlibDecoder::new(&body.bytes[..])
            .read_to_end(&mut plain)
            .expect("it is a zlib stream");
        assert_eq!(plain, items.concat());

        let body = write(Encoding::Gzip(Compression::fast()), ROOMY, &items).expect("it fits");
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body.bytes[..])
            .read_to_end(&mut plain)
            .expect("it is a gzip member");
        assert_eq!(plain, items.concat());

        let body = write(Encoding::Identity, ROOMY, &items).expect("it is within the limits");
        assert_eq!(body.bytes, items.concat());
    }

    #[test]
    fn a_body_that_outgrows_a_limit_is_refused() {
        // What a linear congruence makes does not compress.
        let mut x = 1u32;
        let noise: Vec<u8> = (0..100_000)
            .map(|_| {
                x = x.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                (x >> 16) as u8
            })
            .collect();
        let pieces: Vec<&[u8]> = noise.chunks(1_000).collect();
        for (encoding, plain_bytes, wire_bytes, fits) in [
            (Encoding::Identity, 100_000, 100_000, true),
            (Encoding::Identity, 99_999, 100_000, false),
            (Encoding::Identity, 100_000, 99_999, false),
            (deflate(), 100_000, 120_000, true),
            (deflate(), 100_000, 99_999, false),
            (deflate(), 99_999, 120_000, false),
        ] {
            let limits = Limits { plain_bytes, wire_bytes };
            let result = write(encoding, limits, &pieces).map(|_| ());
            let expected = if fits { Ok(()) } else { Err(Reason::TooLarge) };
            assert_eq!(result, expected, "{encoding:?} {limits:?}");
        }
    }
}
