//! Durations as Go writes them: `10s`, `500ms`, `1m30s`, `1.5h`.
//!
//! Source: Go's `time.ParseDuration`. A number needs a unit, except `0`; there are no days;
//! a sign is not read, since no setting takes one.

use std::time::Duration;

/// What a duration looks like, for messages.
pub(super) const EXAMPLES: &str = "a duration such as 10s, 500ms or 1m30s";

/// Units and their length in nanoseconds. Longer names first: `ms` is not `m`.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Duration, &'static str> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err("not a duration");
    }
    let mut total = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        if behind.is_empty() {
            return Err("no unit behind the number");
        }
        let unit = UNITS.iter().find(|(name, _)| behind.starts_with(name));
        let (name, nanoseconds) = unit.ok_or("not a duration")?;
        let part = times(number, *nanoseconds).ok_or("not a duration")?;
        total = total.checked_add(part).ok_or("too long")?;
        rest = &behind[name.len()..];
    }
    Ok(Duration::from_nanos(total))
}

/// `number` (digits with at most one point) times `unit`, cut to whole nanoseconds.
fn times(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // 12 decimals of an hour are below a nanosecond's share: further ones change nothing.
    let digits = fraction.get(..12.min(fraction.len()))?;
    let numerator: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = numerator * u128::from(unit) / 10u128.pow(u32::try_from(digits.len()).ok()?);
    whole.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

/// Writes a duration so that [`parse`] reads the same one.
pub(super) fn show(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, nanoseconds) in UNITS.iter().rev().filter(|(name, _)| name.is_ascii()) {
        let count = rest / nanoseconds;
        rest %= nanoseconds;
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_duration_is_a_sum_of_numbers_with_units() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("0s", 0),
            ("10s", 10_000_000_000),
            ("500ms", 500_000_000),
            ("1500ms", 1_500_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("7µs", 7_000),
            ("0.0000000001s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
        }
    }

    #[test]
    fn a_duration_is_refused_because() {
        for (text, why) in [
            ("", "not a duration"),
            ("10", "no unit behind the number"),
            ("1m30", "no unit behind the number"),
            ("s", "not a duration"),
            (".s", "not a duration"),
            ("1..5s", "not a duration"),
            ("1.5.5s", "not a duration"),
            ("-1s", "not a duration"),
            ("10 s", "not a duration"),
            ("1d", "not a duration"),
            ("10sec", "not a duration"),
            ("999999999999h", "not a duration"),
            ("5000000h5000000h", "too long"),
            ("1.ä", "not a duration"),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }

    proptest! {
        /// What is shown reads back as itself.
        #[test]
        fn shown_durations_read_back(nanoseconds: u64) {
            let duration = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
