//! Decimal text to numbers: values, sample rates, timestamps, lengths.
//!
//! Nearly every value is a short number without an exponent, so those are read here; all others
//! go to `fast-float2`, which rounds correctly and knows neither hexadecimal digits nor
//! underscores.

use memchr::memchr;

/// Digits that surely fit a double without rounding: `10^15 < 2^53`.
const EXACT_DIGITS: usize = 15;

/// Reads a decimal number: `1 +1 -1 .5 3. 007 1e3 2.5E-1`.
///
/// Too small for a double is zero; too large is `None`, as is everything that is not a number.
/// NaN and infinities are only returned where the text spells them (`nan`, `-Inf`, `infinity`).
#[inline]
pub(super) fn decimal(text: &[u8]) -> Option<f64> {
    match leading_decimal(text) {
        Some((number, [])) => Some(number),
        _ => any_decimal(text),
    }
}

/// The elements of a packed value, `1:2.5:x`: each as text, and as a number if it is one.
#[inline]
pub(super) fn packed(text: &[u8]) -> impl Iterator<Item = (&[u8], Option<f64>)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (number, after) = match leading_decimal(text) {
            Some((number, after @ ([] | [b':', ..]))) => (Some(number), after),
            _ => {
                let (element, after) = text.split_at(memchr(b':', text).unwrap_or(text.len()));
                (any_decimal(element), after)
            }
        };
        rest = after.get(1..);
        Some((&text[..text.len() - after.len()], number))
    })
}

/// Reads a number at the beginning of `text`, and returns it with what follows it; `None` says
/// only that there is no number of at most 15 digits.
///
/// Such digits are an integer that a double holds exactly, and so is the power of ten below
/// them: one division rounds correctly. An exponent is left to what follows.
#[inline]
pub(super) fn leading_decimal(text: &[u8]) -> Option<(f64, &[u8])> {
    let (negative, text) = match text {
        [b'-', text @ ..] => (true, text),
        [b'+', text @ ..] => (false, text),
        text => (false, text),
    };
    let (whole, digits, rest) = leading_digits(text);
    let (fraction, places, rest) = match rest {
        [b'.', rest @ ..] => leading_digits(rest),
        rest => (0, 0, rest),
    };
    if !(1..=EXACT_DIGITS).contains(&(digits + places)) {
        return None;
    }
    let scale = POWERS_OF_TEN[places];
    let number = (whole * scale + fraction) as f64 / scale as f64;
    Some((if negative { -number } else { number }, rest))
}

const ZEROS: u64 = u64::from_ne_bytes([b'0'; 8]);

/// Signed, because the processor turns signed integers into doubles in one step.
const POWERS_OF_TEN: [i64; 17] = {
    let mut powers = [1; 17];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// The digits at the beginning of `text`, 16 at most: their value, their number, the rest.
///
/// Always inlined: called, it hands three values back through memory, 2 ns for each number.
#[inline(always)]
fn leading_digits(text: &[u8]) -> (i64, usize, &[u8]) {
    let (high, count) = eight_digits(text);
    if count < 8 {
        return (high, count, &text[count..]);
    }
    let (low, more) = eight_digits(&text[8..]);
    (high * POWERS_OF_TEN[more] + low, 8 + more, &text[8 + more..])
}

/// The digits at the beginning of `text`, 8 at most: their value and their number.
///
/// All at once, a byte each of a 64-bit word, because a loop ends with a mispredicted branch
/// whenever a value is as long as the one before it was not.
#[inline(always)]
fn eight_digits(text: &[u8]) -> (i64, usize) {
    let byte = |at: usize| text.get(at).map_or(0, |byte| u64::from(*byte) << (8 * at));
    let word = match text.first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => (0..7).map(byte).sum(),
    };
    let values = word ^ ZEROS;
    let count = not_digits(values).trailing_zeros() / 8;
    // The first digit is in the lowest byte; shifted up, it has zeros before it.
    let digits = values.checked_shl(64 - 8 * count).unwrap_or(0);
    (value_of(digits), count as usize)
}

/// Reads a number of `length` bytes, the first in the lowest byte of `word`: up to seven digits
/// with perhaps a point among them and a `-` before them. `None` says only that it is not so.
///
/// As [`leading_decimal`], but whether there is a sign or a point is computed: where long and
/// short, whole and broken numbers alternate, a processor guesses wrong half of the time.
#[inline(always)]
pub(super) fn short_decimal(word: u64, length: usize) -> Option<f64> {
    let is_negative = word & 0xff == u64::from(b'-');
    let sign = usize::from(is_negative);
    let length = length.wrapping_sub(sign);
    if !(1..8).contains(&length) {
        return None;
    }
    let inside = (1 << (8 * length)) - 1;
    let values = ((word >> (8 * sign)) ^ ZEROS) & inside;
    let others = not_digits(values);
    let has_point = others != 0;
    // Where the point is; without one, behind the digits.
    let whole = (others.trailing_zeros() as usize / 8).min(length);
    let is_point = (values >> (8 * whole)) & 0xff == u64::from(b'.' ^ b'0');
    let digits = length - usize::from(has_point);
    let has_others = others & others.wrapping_sub(1) != 0;
    if has_others || has_point != is_point || digits == 0 {
        return None;
    }
    // The digits behind the point move to its place.
    let low = (1 << (8 * whole)) - 1;
    let values = (values & low) | ((values >> 8) & !low);
    let number = value_of(values << (64 - 8 * digits)) as f64;
    let number = number / POWERS_OF_TEN[digits - whole] as f64;
    Some(if is_negative { -number } else { number })
}

/// The high bit of each byte that is not 0 to 9.
#[inline(always)]
fn not_digits(values: u64) -> u64 {
    const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);
    /// Lifts 10, and nothing below it, to the high bit.
    const ABOVE_NINE: u64 = u64::from_ne_bytes([0x80 - 10; 8]);
    (((values & !HIGH_BITS) + ABOVE_NINE) | values) & HIGH_BITS
}

/// The number whose eight digits are the bytes of `digits`, the first one lowest: neighbours
/// become pairs, pairs become fours, and fours become eight.
#[inline]
fn value_of(digits: u64) -> i64 {
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let eight = (fours * 10_000 + (fours >> 32)) & 0xffff_ffff;
    eight.cast_signed()
}

#[cold]
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
