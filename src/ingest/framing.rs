//! Where one piece of a stream ends and the next begins; pure.
//!
//! TCP carries [`Lines`], Unix streams carry [`Frames`], each behind a [`Head`]. Bytes come in whatever portions the
//! kernel has; a piece that lies whole in one portion is passed on without a copy, and one that
//! does not is kept until the rest comes, never more than the longest piece allowed.
//!
//! Source: the transports of the DogStatsD documentation; Veneur 1.1.0 for TCP, Veneur 14 for
//! SSF.

use std::mem;

use super::Receive;

/// The peer does not send frames; nothing behind this can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame")]
pub(super) struct NotAFrame;

/// How a stream is divided.
#[derive(Debug)]
pub(super) enum Framing {
    Lines(Lines),
    Frames(Frames),
}

impl Framing {
    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// The stream cannot be read any further.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        receive: &mut impl Receive,
    ) -> Result<(), NotAFrame> {
        match self {
            Framing::Lines(lines) => {
                lines.take(bytes, receive);
                Ok(())
            }
            Framing::Frames(frames) => frames.take(bytes, receive),
        }
    }

    /// The peer has closed the stream: a last line needs no newline.
    pub(super) fn end(&mut self, receive: &mut impl Receive) {
        if let Framing::Lines(lines) = self {
            lines.take(b"\n", receive);
        }
    }

    /// What has been read of an unfinished piece, so that taking it anew comes to the same.
    /// `None` in the middle of a piece that was refused.
    pub(super) fn kept(&self) -> Option<Vec<u8>> {
        match self {
            Framing::Lines(lines) => (!lines.is_skipping).then(|| lines.kept.clone()),
            Framing::Frames(frames) => match &frames.expected {
                Expected::Head { bytes, known } => Some(bytes[..*known].to_vec()),
                Expected::Frame { length, kept } => {
                    Some([&frames.head.write(*length)?[..], kept].concat())
                }
                Expected::Rest { .. } => None,
            },
        }
    }

    /// Whether the stream stands in the middle of a piece, which is then lost.
    pub(super) fn is_amid(&self) -> bool {
        match self {
            Framing::Lines(lines) => !lines.kept.is_empty(),
            Framing::Frames(frames) => {
                !matches!(frames.expected, Expected::Head { known: 0, .. } | Expected::Rest { .. })
            }
        }
    }
}

/// Lines that end with a newline. One that is too long is counted once, and reading goes on
/// behind its newline.
#[derive(Debug)]
pub(super) struct Lines {
    longest: usize,
    /// The beginning of a line.
    kept: Vec<u8>,
    /// What comes up to the next newline belongs to a line already refused.
    is_skipping: bool,
}

impl Lines {
    pub(super) fn new(longest: usize) -> Lines {
        Lines { longest, kept: Vec::new(), is_skipping: false }
    }

    fn take(&mut self, bytes: &[u8], receive: &mut impl Receive) {
        let Some(first_end) = memchr::memchr(b'\n', bytes) else {
            return self.keep(bytes, receive);
        };
        self.take_end(&bytes[..first_end], receive);
        let rest = &bytes[first_end + 1..];
        let last_end = memchr::memrchr(b'\n', rest).map_or(0, |at| at + 1);
        let (lines, begun) = rest.split_at(last_end);
        let mut too_long = 0;
        let lines_of = memchr::memchr_iter(b'\n', lines).scan(0, |start, end| {
            let line = &lines[*start..end];
            *start = end + 1;
            Some(line)
        });
        let whole = lines_of.filter(|line| {
            too_long += usize::from(line.len() > self.longest);
            (1..=self.longest).contains(&line.len())
        });
        receive.read(lines, whole);
        (0..too_long).for_each(|_| receive.too_long());
        self.keep(begun, receive);
    }

    /// Takes the end of a line, which is the whole of it if nothing has been kept.
    fn take_end(&mut self, end: &[u8], receive: &mut impl Receive) {
        if mem::take(&mut self.is_skipping) {
            return;
        }
        match (self.kept.len(), end.len()) {
            (0, 0) => {}
            (kept, end) if kept + end > self.longest => receive.too_long(),
            (0, _) => receive.packet(end),
            _ => {
                self.kept.extend_from_slice(end);
                receive.packet(&self.kept);
            }
        }
        self.kept.clear();
    }

    /// Takes a part of a line that goes on.
    fn keep(&mut self, part: &[u8], receive: &mut impl Receive) {
        if self.is_skipping {
            return;
        }
        if self.kept.len() + part.len() > self.longest {
            self.kept.clear();
            self.is_skipping = true;
            receive.too_long();
            return;
        }
        self.kept.extend_from_slice(part);
    }
}

/// What stands before each frame and says how many bytes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
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
pub(super) struct Frames {
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
    pub(super) fn new(head: Head, longest: usize) -> Frames {
        Frames { head, longest, expected: Expected::A_HEAD }
    }

    fn take(&mut self, mut bytes: &[u8], receive: &mut impl Receive) -> Result<(), NotAFrame> {
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
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    /// Pieces taken, and how many were too long.
    #[derive(Debug, Default, PartialEq)]
    struct Pieces(Vec<Vec<u8>>, usize);

    impl Pieces {
        fn of<const N: usize>(pieces: [Option<&[u8]>; N]) -> Pieces {
            let too_long = pieces.iter().filter(|piece| piece.is_none()).count();
            Pieces(pieces.into_iter().flatten().map(<[u8]>::to_vec).collect(), too_long)
        }
    }

    impl Receive for Pieces {
        fn read<'a>(&mut self, _: &'a [u8], packets: impl Iterator<Item = &'a [u8]>) {
            self.0.extend(packets.map(<[u8]>::to_vec));
        }

        fn too_long(&mut self) {
            self.1 += 1;
        }

        fn not_allowed(&mut self) {}

        fn until_due(&self, _: Instant) -> Option<Duration> {
            None
        }

        fn hand_over_due(&mut self, _: Instant) {}

        fn hand_over_all(&mut self) {}
    }

    const LONGEST: usize = 8;

    fn lines() -> Framing {
        Framing::Lines(Lines::new(LONGEST))
    }

    fn frames() -> Framing {
        Framing::Frames(Frames::new(Head::Statsd, LONGEST))
    }

    fn ssf() -> Framing {
        Framing::Frames(Frames::new(Head::Ssf, LONGEST))
    }

    /// Feeds `stream` in portions of `portion` bytes.
    fn feed(mut framing: Framing, stream: &[u8], portion: usize) -> (Pieces, Framing) {
        let mut pieces = Pieces::default();
        for portion in stream.chunks(portion) {
            framing.take(portion, &mut pieces).expect("nothing but frames");
        }
        (pieces, framing)
    }

    fn framed(piece: &[u8]) -> Vec<u8> {
        let length = u32::try_from(piece.len()).expect("a short piece");
        [&length.to_le_bytes(), piece].concat()
    }

    fn framed_for_ssf(piece: &[u8]) -> Vec<u8> {
        let length = u32::try_from(piece.len()).expect("a short piece");
        [&[0], &length.to_be_bytes()[..], piece].concat()
    }

    /// What `stream` comes to if it is moved to another process after `moved` bytes, unless that
    /// is amid a piece that was refused.
    fn feed_two(
        new: fn() -> Framing,
        stream: &[u8],
        portion: usize,
        moved: usize,
    ) -> Option<Pieces> {
        let (before, after) = stream.split_at(moved);
        let (mut pieces, framing) = feed(new(), before, portion);
        let rest = [&framing.kept()?[..], after].concat();
        let (others, _) = feed(new(), &rest, portion);
        pieces.0.extend(others.0);
        pieces.1 += others.1;
        Some(pieces)
    }

    #[test]
    fn a_stream_may_move_to_another_process_anywhere() {
        let text = b"a:1|c\n123456789\nb:2|c\n\nc:3";
        let pieces: [&[u8]; 4] = [b"a:1|c", b"123456789", b"b:2|c", b"12345678"];
        let packets = pieces.map(framed).concat();
        let spans = pieces.map(framed_for_ssf).concat();
        for (new, stream) in
            [(lines as fn() -> Framing, &text[..]), (frames, &packets), (ssf, &spans)]
        {
            let (whole, _) = feed(new(), stream, stream.len());
            let moves = (0..=stream.len())
                .filter_map(|moved| Some((moved, feed_two(new, stream, 3, moved)?)));
            let moves: Vec<_> = moves.collect();
            assert!(moves.len() > stream.len() / 2, "most places will do");
            for (moved, pieces) in moves {
                assert_eq!(pieces, whole, "after {moved} bytes");
            }
        }
    }

    #[test]
    fn a_stream_of_lines_is_split_at_newlines_however_it_is_cut() {
        for (stream, want) in [
            (&b"a:1|c\nb:2|c\n"[..], Pieces::of([Some(b"a:1|c"), Some(b"b:2|c")])),
            (b"\n\na:1|c\n\n", Pieces::of([Some(b"a:1|c")])),
            (b"a:1|c\r\n", Pieces::of([Some(b"a:1|c\r")])),
            (b"12345678\n", Pieces::of([Some(b"12345678")])),
            (b"123456789\nb:2|c\n", Pieces::of([None, Some(b"b:2|c")])),
            (b"123456789012345678901234567890\nb:2|c\n", Pieces::of([None, Some(b"b:2|c")])),
            (b"a:1|c\nrest", Pieces::of([Some(b"a:1|c")])),
        ] {
            for portion in 1..=stream.len() {
                let (pieces, _) = feed(lines(), stream, portion);
                assert_eq!(pieces, want, "{} by {portion}", stream.escape_ascii());
            }
        }
    }

    #[test]
    fn the_last_line_of_a_closed_stream_needs_no_newline() {
        for (stream, want) in [
            (&b"a:1|c\nb:2|c"[..], Pieces::of([Some(b"a:1|c"), Some(b"b:2|c")])),
            (b"a:1|c\n", Pieces::of([Some(b"a:1|c")])),
            (b"a:1|c\n1234567890", Pieces::of([Some(b"a:1|c"), None])),
            (b"", Pieces::of([])),
        ] {
            let (mut pieces, mut framing) = feed(lines(), stream, 3);
            framing.end(&mut pieces);
            assert_eq!(pieces, want, "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn a_stream_of_frames_is_split_by_their_lengths_however_it_is_cut() {
        for (stream, want) in [
            (
                [framed(b"a:1|c"), framed(b"b\nc\n")].concat(),
                Pieces::of([Some(b"a:1|c"), Some(b"b\nc\n")]),
            ),
            ([framed(b""), framed(b"a:1|c")].concat(), Pieces::of([Some(b"a:1|c")])),
            (
                [framed(b"123456789"), framed(b"12345678")].concat(),
                Pieces::of([None, Some(b"12345678")]),
            ),
            (
                [framed(&[b'x'; 300]), framed(b"a:1|c"), framed(b"rest")[..6].to_vec()].concat(),
                Pieces::of([None, Some(b"a:1|c")]),
            ),
        ] {
            for portion in 1..=stream.len() {
                let (pieces, _) = feed(frames(), &stream, portion);
                assert_eq!(pieces, want, "{} by {portion}", stream.escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_counted_and_ends_the_stream() {
        for stream in [&b"page.views:1|c\n"[..], b"\x16\x03\x01\x02\x00", b"\x01\x00\x10\x00"] {
            let (mut framing, mut pieces) = (frames(), Pieces::default());
            assert_eq!(framing.take(stream, &mut pieces), Err(NotAFrame));
            assert_eq!(pieces, Pieces::of([None]));
            assert!(!framing.is_amid(), "it is counted once");
        }
    }

    #[test]
    fn frames_of_ssf_have_a_version_before_their_length() {
        let stream = [framed_for_ssf(b"span"), framed_for_ssf(b"123456789"), framed_for_ssf(b"")];
        let (pieces, framing) = feed(ssf(), &stream.concat(), 3);
        assert_eq!(pieces, Pieces::of([Some(b"span"), None]));
        assert!(!framing.is_amid());
        for stream in [&b"\x01\0\0\0\x01x"[..], b"\0\x01\0\0\x01", b"page.views:1|c"] {
            let (mut framing, mut pieces) = (ssf(), Pieces::default());
            assert_eq!(framing.take(stream, &mut pieces), Err(NotAFrame), "{stream:?}");
            assert_eq!(pieces, Pieces::of([None]));
        }
    }

    #[test]
    fn a_stream_knows_whether_it_stands_amid_a_piece() {
        for (framing, stream, is_amid) in [
            (lines(), &b""[..], false),
            (lines(), b"a:1|c\n", false),
            (lines(), b"a:1|c\nb", true),
            // Refused already.
            (lines(), b"12345678901", false),
            (frames(), b"", false),
            (frames(), b"\x01", true),
            (frames(), b"\x01\x00\x00\x00", true),
            (frames(), b"\x02\x00\x00\x00x", true),
            (frames(), b"\x01\x00\x00\x00x", false),
            (frames(), b"\x09\x00\x00\x00x", false),
        ] {
            let (_, framing) = feed(framing, stream, 100);
            assert_eq!(framing.is_amid(), is_amid, "{framing:?}");
        }
    }

    proptest! {
        /// Cutting a stream elsewhere changes nothing:
        /// for all cuts, pieces(stream cut into portions) == pieces(stream).
        #[test]
        fn where_a_stream_is_cut_does_not_matter(
            stream in prop::collection::vec(prop_oneof![Just(b'\n'), Just(0), Just(3), any::<u8>()], 0..200),
            portion in 1usize..50,
            as_lines in any::<bool>(),
        ) {
            let run = |portion| {
                let mut framing = if as_lines { lines() } else { frames() };
                let mut pieces = Pieces::default();
                let mut portions = stream.chunks(portion);
                let end = portions.try_for_each(|bytes| framing.take(bytes, &mut pieces));
                (pieces, end)
            };
            prop_assert_eq!(run(portion), run(200));
        }
    }
}
