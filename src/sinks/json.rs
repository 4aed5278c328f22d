//! The pieces of JSON that are written by hand, because a flush has half a million of them.

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// Appends `text` as it stands between the quotes of a JSON string.
pub fn push_escaped(out: &mut Vec<u8>, text: &str) {
    // Nearly no name or tag has anything to escape. Looking at every byte, without an early way
    // out, lets the compiler look at sixteen at once.
    let special = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if !text.bytes().fold(false, |found, byte| found | special(byte)) {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let quoted = serde_json::Value::from(text).to_string();
    out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
}

/// Appends the shortest number that reads back as `value`, which must be finite: JSON has no
/// other. Whole numbers have no fraction, as from Go's encoder; minus zero is zero.
pub fn push_number(out: &mut Vec<u8>, value: f64) {
    debug_assert!(value.is_finite());
    /// From 2^53 on, whole numbers have more digits than the shortest form needs.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.trunc() == value && value.abs() < EXACT {
        push_integer(out, value as i64);
        return;
    }
    out.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
}

/// Appends an integer.
pub fn push_integer(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    #[test]
    fn numbers_are_short_and_legal() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (5.0, "5"),
            (-17.0, "-17"),
            (0.5, "0.5"),
            (4.2, "4.2"),
            (100.0 / 3.0, "33.333333333333336"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (1e21, "1e+21"),
            (1e-7, "1e-7"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
        ] {
            assert_eq!(written(|out| push_number(out, value)), text);
        }
    }

    #[test]
    fn strings_are_escaped() {
        for (text, json) in [
            ("", r#""""#),
            ("env:prod", r#""env:prod""#),
            ("größe", r#""größe""#),
            ("a\"b\\c", r#""a\"b\\c""#),
            ("line\nbreak\u{1b}[0m", r#""line\nbreak\u001b[0m""#),
        ] {
            assert_eq!(written(|out| push_string(out, text)), json);
        }
    }

    proptest! {
        /// What is written reads back as the same value.
        #[test]
        fn numbers_survive(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = written(|out| push_number(out, value));
            prop_assert_eq!(text.parse::<f64>(), Ok(value));
            prop_assert!(serde_json::from_str::<serde_json::Number>(&text).is_ok(), "{}", text);
        }

        /// What is written reads back as the same text.
        #[test]
        fn strings_survive(text in any::<String>()) {
            let json = written(|out| push_string(out, &text));
            prop_assert_eq!(serde_json::from_str::<String>(&json).expect("it is JSON"), text);
        }
    }
}
