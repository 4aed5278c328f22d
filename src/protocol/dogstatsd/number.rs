//! Decimal text to numbers: values, sample rates, timestamps, lengths.
//!
//! Nearly every value is a short integer, so those are read here; all other decimals go to
//! `fast-float2`, which rounds correctly and knows neither hexadecimal digits nor underscores.

/// Digits that surely fit a double without rounding: `10^15 < 2^53`.
const EXACT_DIGITS: usize = 15;

/// Reads a decimal number: `1 +1 -1 .5 3. 007 1e3 2.5E-1`.
///
/// Too small for a double is zero; too large is `None`, as is everything that is not a number.
/// NaN and infinities are only returned where the text spells them (`nan`, `-Inf`, `infinity`).
#[inline]
pub(super) fn decimal(text: &[u8]) -> Option<f64> {
    match short_integer(text) {
        Some(number) => Some(number),
        None => any_decimal(text),
    }
}

/// Up to 15 digits with at most one sign.
#[inline]
fn short_integer(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > EXACT_DIGITS {
        return None;
    }
    let mut number = 0_u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number * 10 + u64::from(digit);
    }
    let number = number as f64;
    Some(if negative { -number } else { number })
}

fn any_decimal(text: &[u8]) -> Option<f64> {
    let number: f64 = fast_float2::parse(text).ok()?;
    // Digits that end as infinity were a number, but not one that a double can hold.
    let too_large = number.is_infinite() && text.iter().any(u8::is_ascii_digit);
    (!too_large).then_some(number)
}

/// Reads digits and nothing else: no sign, no space.
pub(super) fn whole(text: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let (first, rest) = text.split_first()?;
    rest.iter()
        .try_fold(digit(first)?, |number, byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_read_as_go_and_rust_read_them() {
        for (text, number) in [
            ("0", 0.0),
            ("1", 1.0),
            ("+1", 1.0),
            ("-1", -1.0),
            (".5", 0.5),
            ("3.", 3.0),
            ("-.5", -0.5),
            ("007", 7.0),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("2.5E-1", 0.25),
            ("999999999999999", 999_999_999_999_999.0),
            ("9007199254740993", 9_007_199_254_740_992.0),
            ("18446744073709551616", 18_446_744_073_709_551_616.0),
            ("0.1000000000000000055511151231257827", 0.1),
            ("1e-400", 0.0),
            ("1.7976931348623157e308", f64::MAX),
        ] {
            assert_eq!(decimal(text.as_bytes()), Some(number), "{text}");
        }
        assert!(decimal(b"-0").is_some_and(|zero| zero.is_sign_negative()));
    }

    #[test]
    fn what_is_not_a_decimal_is_refused() {
        for text in [
            "", "+", "-", ".", "e", "e5", "1e", "1e+", ".e1", "++1", "--1", "+-1", " 1", "1 ",
            "1_000", "0x1F", "0x1p-2", "1,5", "10ms", "1e400", "-1e400", "infx", "infinit", "na",
            "nan(1)", "1.2.3", "١",
        ] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn nan_and_infinities_are_read_where_the_text_spells_them() {
        for text in ["nan", "NaN", "inf", "+Inf", "-inf", "-Infinity", "INFINITY"] {
            assert!(decimal(text.as_bytes()).is_some_and(|number| !number.is_finite()), "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_digits_alone() {
        for (text, number) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("1.0", None),
            ("1 ", None),
        ] {
            assert_eq!(whole(text.as_bytes()), number, "{text}");
        }
    }

    /// What the standard library says, but for numbers that are too large.
    fn oracle(text: &str) -> Option<f64> {
        let number: f64 = text.parse().ok()?;
        let too_large = number.is_infinite() && text.contains(|c: char| c.is_ascii_digit());
        (!too_large).then_some(number)
    }

    proptest! {
        /// Every text is read, to the last bit, as the standard library reads it.
        #[test]
        fn decimals_agree_with_the_standard_library(
            text in "[-+]{0,2}[0-9]{0,22}(\\.[0-9]{0,22})?([eE][-+]?[0-9]{0,4})?|[-+.0-9eEinfatyINF x_]{0,9}"
        ) {
            let bits = |number: Option<f64>| {
                number.map(|number| if number.is_nan() { f64::NAN.to_bits() } else { number.to_bits() })
            };
            prop_assert_eq!(bits(decimal(text.as_bytes())), bits(oracle(&text)), "{}", text);
        }
    }
}
