//! Where the separators of a line are: 64 bytes looked at together.

use wide::u8x16;

/// Bytes looked at together: more than most lines have.
pub(super) const WINDOW: usize = 64;

/// The separators in a window, as far as they belong to its first line: a bit each.
#[derive(Debug, PartialEq)]
pub(super) struct Marks {
    pub(super) colons: u64,
    pub(super) bars: u64,
    /// The length of the line, if it ends in the window.
    pub(super) line_end: Option<usize>,
}

/// The separators of the line that a text of `length` bytes begins with, of which the window
/// has the first.
#[inline(always)]
pub(super) fn marks(window: &[u8; WINDOW], length: usize) -> Marks {
    let inside = if length < WINDOW { (1 << length) - 1 } else { u64::MAX };
    let newlines = places(window, b'\n') & inside;
    // All bits below the first newline; all there are, if there is none.
    let line = newlines.wrapping_sub(1) & !newlines & inside;
    let line_end = match newlines {
        0 => (length <= WINDOW).then_some(length),
        _ => Some(newlines.trailing_zeros() as usize),
    };
    Marks { colons: places(window, b':') & line, bars: places(window, b'|') & line, line_end }
}

/// A bit for each byte of the window: whether it is the one wanted.
#[inline(always)]
fn places(window: &[u8; WINDOW], wanted: u8) -> u64 {
    let (blocks, _) = window.as_chunks::<16>();
    let wanted = u8x16::splat(wanted);
    let block = |i: usize| u64::from(u8x16::new(blocks[i]).simd_eq(wanted).to_bitmask());
    block(0) | block(1) << 16 | block(2) << 32 | block(3) << 48
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks_of(text: &str, length: usize) -> Marks {
        let mut window = [b' '; WINDOW];
        window.iter_mut().zip(text.bytes()).for_each(|(to, from)| *to = from);
        marks(&window, length)
    }

    #[test]
    fn only_the_separators_of_the_first_line_are_marked() {
        let marks = |text, length| {
            let Marks { colons, bars, line_end } = marks_of(text, length);
            (colons, bars, line_end)
        };
        assert_eq!(marks("a:1|c\nb:2|c", 11), (0b10, 0b1000, Some(5)));
        assert_eq!(marks("a:1|c|x", 4), (0b10, 0b1000, Some(4)));
        assert_eq!(marks("\n:|", 3), (0, 0, Some(0)));
        assert_eq!(marks("", 0), (0, 0, Some(0)));
        assert_eq!(marks(":", 64), (1, 0, Some(64)));
        assert_eq!(marks("|", 65), (0, 1, None));
    }

    #[test]
    fn every_place_of_a_window_has_its_bit() {
        for place in 0..WINDOW {
            let text = " ".repeat(place) + "|";
            assert_eq!(marks_of(&text, WINDOW).bars, 1 << place);
        }
    }
}
