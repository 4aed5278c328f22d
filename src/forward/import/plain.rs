//! A body as it was before it was compressed, if that is not too long.
//!
//! Never holds more than the longest plain body allowed, and twice that for a moment while it
//! grows: however small a body is, what it inflates to is cut off there.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use zstd::stream::read::Decoder as ZstdDecoder;
use zstd::zstd_safe::get_frame_content_size;

/// Windows of up to 8 MiB, as RFC 8878 recommends to decoders: what a frame asks for beyond
/// is memory we do not give it.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body is compressed: what `Content-Encoding` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Not at all.
    Identity,
    /// zlib (RFC 1950), as HTTP means it and Veneur sends it.
    Deflate,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
}

/// Why there is no plain body.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotPlain {
    /// It is longer than this many bytes.
    #[error("body is longer than {0} bytes when decompressed")]
    TooLong(usize),
    /// The bytes are not what their encoding says.
    #[error("{}: {what}", .encoding.as_str())]
    Broken {
        /// The encoding.
        encoding: Encoding,
        /// What its decoder says.
        what: String,
    },
}

impl Encoding {
    /// From the value of `Content-Encoding`; `None` if there is no such encoding.
    pub(super) fn from_header(value: &str) -> Option<Encoding> {
        const ALL: [Encoding; 4] =
            [Encoding::Identity, Encoding::Deflate, Encoding::Gzip, Encoding::Zstd];
        let value = value.trim();
        if value.is_empty() {
            return Some(Encoding::Identity);
        }
        ALL.into_iter().find(|encoding| encoding.as_str().eq_ignore_ascii_case(value))
    }

    /// Its name in `Content-Encoding`, and in our own metrics.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Encoding::Identity => "identity",
            Encoding::Deflate => "deflate",
            Encoding::Gzip => "gzip",
            Encoding::Zstd => "zstd",
        }
    }

    /// The plain body. Blocks the thread for as long as decompressing takes.
    ///
    /// # Errors
    /// It is longer than `most` bytes, or is not what it is said to be.
    pub(super) fn decompress(self, body: Bytes, most: usize) -> Result<Bytes, NotPlain> {
        let broken = |error: io::Error| NotPlain::Broken { encoding: self, what: words(&error) };
        let bytes = &body[..];
        let plain = match self {
            Encoding::Identity if body.len() > most => return Err(NotPlain::TooLong(most)),
            Encoding::Identity => return Ok(body),
            Encoding::Deflate if !is_zlib(bytes) => {
                return Err(NotPlain::Broken { encoding: self, what: "invalid header".to_owned() });
            }
            Encoding::Deflate => read_at_most(ZlibDecoder::new(bytes), most),
            Encoding::Gzip => read_at_most(GzDecoder::new(bytes), most),
            Encoding::Zstd => decompress_zstd(bytes, most),
        };
        let plain = plain.map_err(broken)?;
        if plain.len() > most {
            return Err(NotPlain::TooLong(most));
        }
        Ok(Bytes::from(plain))
    }
}

/// Everything, or one byte more than `most`.
fn decompress_zstd(bytes: &[u8], most: usize) -> io::Result<Vec<u8>> {
    // Who compresses at one go says how long the plain body is. Decompressing at one go saves a
    // third of the time; what fails is left to the decoder below to judge.
    let announced = get_frame_content_size(bytes).ok().flatten().map(usize::try_from);
    if let Some(Ok(length)) = announced
        && length <= most
        && let Ok(plain) = zstd::bulk::decompress(bytes, length)
    {
        return Ok(plain);
    }
    let mut decoder = ZstdDecoder::with_buffer(bytes)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    read_at_most(decoder, most)
}

/// Everything, or one byte more than `most`.
fn read_at_most(reader: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    reader.take(most as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}

/// Whether the first two bytes are a zlib header without dictionary.
fn is_zlib(bytes: &[u8]) -> bool {
    match bytes {
        [method, flags, ..] => {
            let check = u16::from_be_bytes([*method, *flags]);
            method & 0x0f == 8 && flags & 0x20 == 0 && check.is_multiple_of(31)
        }
        _ => false,
    }
}

/// What to tell the sender.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "unexpected end".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{GzEncoder, ZlibEncoder};

    use super::*;

    fn compressed(encoding: Encoding, plain: &[u8]) -> Bytes {
        let compressed = match encoding {
            Encoding::Identity => Ok(plain.to_vec()),
            Encoding::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain).and_then(|()| encoder.finish())
            }
            Encoding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(plain).and_then(|()| encoder.finish())
            }
            Encoding::Zstd => zstd::encode_all(plain, 1),
        };
        compressed.expect("writing to memory cannot fail").into()
    }

    const ALL: [Encoding; 4] =
        [Encoding::Identity, Encoding::Deflate, Encoding::Gzip, Encoding::Zstd];

    #[test]
    fn an_encoding_is_named_as_in_http() {
        for (value, encoding) in [
            ("", Some(Encoding::Identity)),
            ("identity", Some(Encoding::Identity)),
            ("deflate", Some(Encoding::Deflate)),
            ("Deflate ", Some(Encoding::Deflate)),
            ("gzip", Some(Encoding::Gzip)),
            ("zstd", Some(Encoding::Zstd)),
            ("br", None),
            ("gzip, deflate", None),
        ] {
            assert_eq!(Encoding::from_header(value), encoding, "{value:?}");
        }
    }

    #[test]
    fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
        for encoding in ALL {
            let body = compressed(encoding, b"0123456789");
            let plain = |most| encoding.decompress(body.clone(), most);
            assert_eq!(plain(10).as_deref(), Ok(&b"0123456789"[..]), "{encoding:?}");
            assert_eq!(plain(9), Err(NotPlain::TooLong(9)), "{encoding:?}");
        }
    }

    #[test]
    fn a_bomb_is_cut_off_at_the_limit() {
        let zeros = vec![0; 3_000_000];
        for encoding in [Encoding::Deflate, Encoding::Gzip, Encoding::Zstd] {
            let bomb = compressed(encoding, &zeros);
            assert!(bomb.len() < zeros.len() / 50, "{encoding:?}");
            assert_eq!(encoding.decompress(bomb, 50_000), Err(NotPlain::TooLong(50_000)));
        }
    }

    #[test]
    fn what_is_not_what_it_is_said_to_be_is_refused() {
        for encoding in [Encoding::Deflate, Encoding::Gzip, Encoding::Zstd] {
            let whole = compressed(encoding, b"0123456789");
            for body in [&b""[..], b"[]", b"{\"a\":1}", &whole[..whole.len() - 5]] {
                let refused = encoding.decompress(Bytes::copy_from_slice(body), 1000);
                let Err(NotPlain::Broken { encoding: named, .. }) = refused else {
                    panic!("{encoding:?} {}: {refused:?}", body.escape_ascii());
                };
                assert_eq!(named, encoding);
            }
        }
    }

    #[test]
    fn frames_of_zstd_are_taken_with_and_without_their_length_and_several_of_them() {
        let with = zstd::bulk::compress(b"0123456789", 1).expect("memory takes everything");
        let without = compressed(Encoding::Zstd, b"0123456789").to_vec();
        assert_eq!(get_frame_content_size(&with).ok().flatten(), Some(10));
        assert_eq!(get_frame_content_size(&without).ok().flatten(), None);
        for (body, times) in [
            (with.clone(), 1),
            (without.clone(), 1),
            ([with.clone(), without.clone()].concat(), 2),
            ([without.clone(), with.clone()].concat(), 2),
            (with.repeat(3), 3),
        ] {
            let plain = |most| Encoding::Zstd.decompress(body.clone().into(), most);
            let length = 10 * times;
            assert_eq!(plain(length).as_deref(), Ok(&b"0123456789".repeat(times)[..]));
            assert_eq!(plain(length - 1), Err(NotPlain::TooLong(length - 1)));
        }
    }

    #[test]
    fn a_frame_that_wants_a_huge_window_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("level 1 exists");
        encoder.window_log(27).expect("27 is a window");
        encoder.include_contentsize(false).expect("it may be left out");
        encoder.write_all(&[1; 100]).expect("writing to memory cannot fail");
        let body = encoder.finish().expect("writing to memory cannot fail");
        let refused = Encoding::Zstd.decompress(body.into(), 1000);
        assert!(matches!(refused, Err(NotPlain::Broken { .. })), "{refused:?}");
    }
}
