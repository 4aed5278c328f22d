//! Bytes of the wire as text.

use std::borrow::Cow;

/// `bytes` as text, with one U+FFFD for each contiguous run of invalid UTF-8.
///
/// Datadog's data plane replaces a run by one character; the standard library uses one for
/// each maximal invalid sequence. Source: `tag_invalid_utf8` in the DogStatsD cases.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    let mut chunks = bytes.utf8_chunks();
    let Some(first) = chunks.next() else {
        return Cow::Borrowed("");
    };
    if first.invalid().is_empty() {
        return Cow::Borrowed(first.valid());
    }
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push_str(first.valid());
    text.push(char::REPLACEMENT_CHARACTER);
    for chunk in chunks {
        let continues_bad_run = chunk.valid().is_empty();
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() && !continues_bad_run {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    Cow::Owned(text)
}

/// Where `part`, which is a slice of `whole`, begins in it.
#[inline(always)]
pub fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().wrapping_sub(whole.as_ptr().addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_of_bad_bytes_becomes_one_replacement_character() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"ok", "ok"),
            ("größe".as_bytes(), "größe"),
            (b"bad:\xff\xfe", "bad:\u{fffd}"),
            (b"\xff\xfea\xffb", "\u{fffd}a\u{fffd}b"),
            (b"caf\xe9.open", "caf\u{fffd}.open"),
        ] {
            assert_eq!(lossy(bytes), text, "{}", bytes.escape_ascii());
        }
    }
}
