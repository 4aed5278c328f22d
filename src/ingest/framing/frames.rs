//! A stream of frames, each behind a head that says how long it is.

use super::NotAFrame;
use crate::ingest::Receive;

/// What stands before each frame and says how many bytes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) enum Head {
    /// DogStatsD's: four bytes, little-endian.
    Statsd,
    /// SSF's: the version, which is 0, and four bytes, big-endian.
    Ssf,
}

/// The longest of them.
const LONGEST_HEAD: usize = 5;

impl Head {
    const fn length(self) -> usize {
        match self {
            Head::Statsd => 4,
            Head::Ssf => 5,
        }
    }

    /// A frame that claims to be longer is none: what speaks another protocol here (text, TLS,
    /// lengths of the other byte order) says at least that much with its first bytes.
    const fn longest_believable(self) -> usize {
        match self {
            Head::Statsd => 1 << 20,
            Head::Ssf => 16 << 20,
        }
    }

    /// How long the frame is; `None` if it is of another version.
    fn read(self, [a, b, c, d, e]: [u8; LONGEST_HEAD]) -> Option<usize> {
        match (self, a) {
            (Head::Statsd, a) => Some(u32::from_le_bytes([a, b, c, d]) as usize),
            (Head::Ssf, 0) => Some(u32::from_be_bytes([b, c, d, e]) as usize),
            (Head::Ssf, _) => None,
        }
    }

    fn write(self, length: usize) -> Option<Vec<u8>> {
        let length = u32::try_from(length).ok()?;
        Some(match self {
            Head::Statsd => length.to_le_bytes().to_vec(),
            Head::Ssf => [&[0], &length.to_be_bytes()[..]].concat(),
        })
    }
}

/// Frames: a head that says how many bytes follow, and those.
///
/// A frame that is too long is counted and passed over by its own length, so that it costs its
/// neighbours nothing. A length that no client would send is not trusted that far: then the
/// stream is of another protocol and must be closed, or it would be swallowed in silence.
#[derive(Debug)]
pub(in crate::ingest) struct Frames {
    head: Head,
    longest: usize,
    expected: Expected,
}

#[derive(Debug)]
enum Expected {
    /// A head, of which `known` bytes are there.
    Head { bytes: [u8; LONGEST_HEAD], known: usize },
    /// A frame of that length, and its beginning.
    Frame { length: usize, kept: Vec<u8> },
    /// What is left of a frame that is too long.
    Rest { length: usize },
}

impl Expected {
    const A_HEAD: Expected = Expected::Head { bytes: [0; LONGEST_HEAD], known: 0 };
}

impl Frames {
    pub(in crate::ingest) fn new(head: Head, longest: usize) -> Frames {
        Frames { head, longest, expected: Expected::A_HEAD }
    }

    pub(super) fn take(
        &mut self,
        mut bytes: &[u8],
        receive: &mut impl Receive,
    ) -> Result<(), NotAFrame> {
        while !bytes.is_empty() {
            match &mut self.expected {
                Expected::Head { bytes: head, known } => {
                    let missing = self.head.length() - *known;
                    let (part, rest) = bytes.split_at(bytes.len().min(missing));
                    head[*known..*known + part.len()].copy_from_slice(part);
                    *known += part.len();
                    bytes = rest;
                    if *known == self.head.length() {
                        let head = *head;
                        self.expect(head, receive)?;
                    }
                }
                Expected::Frame { length, kept } => {
                    let (part, rest) = bytes.split_at(bytes.len().min(*length - kept.len()));
                    bytes = rest;
                    if part.len() == *length {
                        receive.packet(part);
                    } else {
                        kept.extend_from_slice(part);
                        if kept.len() < *length {
                            return Ok(());
                        }
                        receive.packet(kept);
                    }
                    self.expected = Expected::A_HEAD;
                }
                Expected::Rest { length } => {
                    let skipped = bytes.len().min(*length);
                    *length -= skipped;
                    bytes = &bytes[skipped..];
                    if *length == 0 {
                        self.expected = Expected::A_HEAD;
                    }
                }
            }
        }
        Ok(())
    }

    fn expect(
        &mut self,
        head: [u8; LONGEST_HEAD],
        receive: &mut impl Receive,
    ) -> Result<(), NotAFrame> {
        self.expected = Expected::A_HEAD;
        // Of another version: as little to be believed as the longest there could be.
        let length = self.head.read(head).unwrap_or(usize::MAX);
        if length > self.longest {
            receive.too_long();
            if length > self.head.longest_believable() {
                return Err(NotAFrame);
            }
            self.expected = Expected::Rest { length };
        } else if length > 0 {
            self.expected = Expected::Frame { length, kept: Vec::new() };
        }
        Ok(())
    }

    /// As [`super::Framing::kept`].
    pub(super) fn kept(&self) -> Option<Vec<u8>> {
        match &self.expected {
            Expected::Head { bytes, known } => Some(bytes[..*known].to_vec()),
            Expected::Frame { length, kept } => {
                Some([&self.head.write(*length)?[..], kept].concat())
            }
            Expected::Rest { .. } => None,
        }
    }

    /// As [`super::Framing::is_amid`].
    pub(super) fn is_amid(&self) -> bool {
        !matches!(self.expected, Expected::Head { known: 0, .. } | Expected::Rest { .. })
    }
}
