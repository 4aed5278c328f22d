//! Names and tags as parts of a Graphite path, so that whatever a client sends stays in its place.
//!
//! A path is nodes joined by dots, which carbon makes directories of, and behind a `;` tags. A
//! line is split at white space (Unicode's, as Python has it), so none gets through; nor do
//! characters that are wildcards in queries, `/` and `;`. Nodes are never empty, so `..` names
//! nothing, and none is longer than a file's name may be.
//!
//! Source: carbon's receivers and `carbon/util.py`, `TaggedSeries`.

use crate::sinks::labels::Spelling;

/// A file's name has 255 bytes at most, and `.wsp` is part of it.
const LONGEST_NODE: usize = 250;
/// Carbon breaks the connection at a line of 16,384 bytes.
pub(super) const LONGEST_PATH: usize = 8 << 10;

/// What stands for a character that does not get through.
const OTHER: u8 = b'_';

/// What becomes of an ASCII character in a name.
const fn in_name(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' => byte,
        b'-' | b'_' | b':' | b'%' | b'+' | b'@' | b'#' | b'$' | b'&' => byte,
        b'/' => b'-',
        _ => OTHER,
    }
}

/// The same where the classic daemons' own names are wanted, which they let through: what carbon
/// keeps apart, and no query takes for something else than a name.
const fn in_classic_name(byte: u8) -> u8 {
    match byte {
        b'(' | b')' | b'=' | b',' | b'!' | b'<' | b'>' | b'^' | b'|' => byte,
        _ => in_name(byte),
    }
}

/// What becomes of each ASCII character.
type Table = [u8; 128];

const NAME: Table = table(false);
const CLASSIC_NAME: Table = table(true);

const fn table(is_classic: bool) -> Table {
    let mut table = [OTHER; 128];
    let mut byte = 0;
    while byte < 128 {
        let of = byte as u8;
        table[byte] = if is_classic { in_classic_name(of) } else { in_name(of) };
        byte += 1;
    }
    table
}

/// Appends a text in which every character is one of a name.
fn push_clean(out: &mut Vec<u8>, text: &str) {
    push_by(out, text, &NAME);
}

fn push_by(out: &mut Vec<u8>, text: &str, table: &Table) {
    if text.is_ascii() {
        out.extend(text.bytes().map(|byte| table[usize::from(byte)]));
        return;
    }
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte @ 0..128) => out.push(table[usize::from(byte)]),
            Ok(_) | Err(_) if c.is_alphanumeric() => {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            Ok(_) | Err(_) => out.push(OTHER),
        }
    }
}

/// Appends a name as nodes, the first behind `out`'s end or a dot of its own. `false` if one of
/// them is too long.
pub(super) fn push_name(out: &mut Vec<u8>, name: &str, is_classic: bool) -> bool {
    let start = out.len();
    push_by(out, name, if is_classic { &CLASSIC_NAME } else { &NAME });
    // Nearly no name has an empty node.
    let bytes = &out[start..];
    let is_whole = !bytes.is_empty()
        && bytes[0] != b'.'
        && bytes[bytes.len() - 1] != b'.'
        && !bytes.windows(2).any(|pair| pair == b"..");
    if !is_whole {
        let clean = out.split_off(start);
        for node in clean.split(|byte| *byte == b'.').filter(|node| !node.is_empty()) {
            if out.len() > start {
                out.push(b'.');
            }
            out.extend_from_slice(node);
        }
        if out.len() == start {
            out.push(OTHER);
        }
    }
    out[start..].split(|byte| *byte == b'.').all(|node| node.len() <= LONGEST_NODE)
}

/// Keys and values of tags.
pub(super) struct Tags;

impl Spelling for Tags {
    fn push_key(out: &mut Vec<u8>, key: &str) {
        // The tag `name` is that of the path itself.
        if key == "name" {
            out.push(OTHER);
        }
        push_clean(out, key);
    }

    fn push_value(out: &mut Vec<u8>, value: &str) {
        push_clean(out, value);
        let is_dots = |pair: &[u8]| pair == b"..";
        while let Some(at) = out.windows(2).position(is_dots) {
            out[at + 1] = OTHER;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).expect("paths are UTF-8")
    }

    #[test]
    fn a_name_is_nodes_without_surprises() {
        for (name, path) in [
            ("web.hits", "web.hits"),
            ("web hits", "web_hits"),
            ("a/b\\c", "a-b_c"),
            ("..a...b.", "a.b"),
            ("../../etc/passwd", "-.-etc-passwd"),
            (".", "_"),
            ("a;b=c", "a_b_c"),
            ("~a", "_a"),
            ("a*?[x]{y,z}", "a___x__y_z_"),
            ("größe", "größe"),
            ("a\u{a0}b\u{2028}c\u{1f}d\u{85}", "a_b_c_d_"),
            ("a\nb 1 2\n", "a_b_1_2_"),
        ] {
            assert_eq!(written(|out| assert!(push_name(out, name, false))), path, "{name:?}");
        }
        assert!(push_name(&mut Vec::new(), &"x".repeat(250), false));
        assert!(!push_name(&mut Vec::new(), &format!("a.{}", "x".repeat(251)), false));
        let classic = written(|out| assert!(push_name(out, "flux.(unknown).a=b;c d/*", true)));
        assert_eq!(classic, "flux.(unknown).a=b_c_d-_");
    }

    #[test]
    fn tags_are_keys_and_values_without_surprises() {
        for (text, key, value) in [
            ("env", "env", "env"),
            ("name", "_name", "name"),
            ("a=b;c!", "a_b_c_", "a_b_c_"),
            ("~x", "_x", "_x"),
            ("1.2.3", "1.2.3", "1.2.3"),
            ("/api/../x", "-api-..-x", "-api-._-x"),
            ("...", "...", "._."),
        ] {
            assert_eq!(written(|out| Tags::push_key(out, text)), key);
            assert_eq!(written(|out| Tags::push_value(out, text)), value);
        }
    }
}
