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
fn feed_two(new: fn() -> Framing, stream: &[u8], portion: usize, moved: usize) -> Option<Pieces> {
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
    for (new, stream) in [(lines as fn() -> Framing, &text[..]), (frames, &packets), (ssf, &spans)]
    {
        let (whole, _) = feed(new(), stream, stream.len());
        let moves =
            (0..=stream.len()).filter_map(|moved| Some((moved, feed_two(new, stream, 3, moved)?)));
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
