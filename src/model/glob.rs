//! Patterns for names and tags, as shells have them: `*` is any text, `?` any character.

use std::fmt;

use super::tags::key_of;

/// A pattern that a whole text fits or not. There is nothing it does not accept, and no other
/// character with a meaning.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// From its text.
    pub fn new(text: &str) -> Glob {
        Glob(text.into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a tag fits, or its part before the `:`.
    pub fn matches_tag(&self, tag: &str) -> bool {
        self.matches(key_of(tag)) || self.matches(tag)
    }

    /// Whether the whole of `text` fits. Takes at most as many steps as the two lengths
    /// multiplied: only the last star is ever tried again.
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Behind the last star, and what it stands for up to there.
        let mut again: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    p += 1;
                    again = Some((p, t));
                    continue;
                }
                Some(b'?') => {
                    (p, t) = (p + 1, t + character_at(text, t));
                    continue;
                }
                Some(byte) if *byte == text[t] => {
                    (p, t) = (p + 1, t + 1);
                    continue;
                }
                Some(_) | None => {}
            }
            let Some((behind, from)) = again else { return false };
            let longer = from + character_at(text, from);
            (p, t) = (behind, longer);
            again = Some((behind, longer));
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

/// The bytes of the character that starts at `at`.
fn character_at(text: &[u8], at: usize) -> usize {
    let following = text[at + 1..].iter().take_while(|byte| **byte & 0xC0 == 0x80);
    1 + following.count()
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Which metrics are meant: an entry of a sink's `include` or `exclude`.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// Those whose name fits.
    Name(Glob),
    /// Those with a tag that fits, or whose key does ([`Glob::matches_tag`]).
    Tag(Glob),
}

impl Pattern {
    /// From the text of a configuration: behind a `#` it is about tags.
    pub fn new(text: &str) -> Pattern {
        match text.strip_prefix('#') {
            Some(tag) => Pattern::Tag(Glob::new(tag)),
            None => Pattern::Name(Glob::new(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_fits_a_glob_when() {
        for (glob, fits, not) in [
            ("", &[""][..], &["a"][..]),
            ("*", &["", "a", "a.b"], &[]),
            ("a.*", &["a.", "a.b", "a.b.c"], &["a", "ba.b"]),
            ("*.count", &["a.count", "a.count.count"], &["count", "a.counts"]),
            ("a*b*c", &["abc", "a.b.c", "abbcc", "abcbc"], &["ab", "acb"]),
            ("?", &["a", "ß"], &["", "ab"]),
            ("a?c*", &["abc", "aßcd"], &["ac", "abbc"]),
            ("**?", &["a", "abc"], &[""]),
            ("[ab]", &["[ab]"], &["a"]),
        ] {
            let glob = Glob::new(glob);
            assert!(fits.iter().all(|text| glob.matches(text)), "{glob:?}");
            assert!(!not.iter().any(|text| glob.matches(text)), "{glob:?}");
        }
    }

    /// The definition, as slow as it may be.
    fn fits(glob: &[char], text: &[char]) -> bool {
        match glob {
            [] => text.is_empty(),
            ['*', rest @ ..] => (0..=text.len()).any(|n| fits(rest, &text[n..])),
            ['?', rest @ ..] => !text.is_empty() && fits(rest, &text[1..]),
            [c, rest @ ..] => text.first() == Some(c) && fits(rest, &text[1..]),
        }
    }

    proptest! {
        /// What fits is what the definition says.
        #[test]
        fn a_glob_is_what_its_definition_says(glob in "[ab*?ß]{0,6}", text in "[abß]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let wanted = fits(&chars(&glob), &chars(&text));
            prop_assert_eq!(Glob::new(&glob).matches(&text), wanted);
        }
    }
}
