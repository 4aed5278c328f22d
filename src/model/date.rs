//! A moment as people write it, in UTC.

use super::UnixSeconds;

/// Date and time of day, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc {
    /// Astronomical: the year before 1 is 0.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl From<UnixSeconds> for Utc {
    fn from(at: UnixSeconds) -> Utc {
        let (days, second) = (at.0.div_euclid(86_400), at.0.rem_euclid(86_400));
        let (year, month, day) = civil(days);
        let (hour, minute) = (second / 3_600, second / 60 % 60);
        // All are far below 256.
        let [month, day, hour, minute, second] =
            [month, day, hour, minute, second % 60].map(|part| part as u8);
        Utc { year, month, day, hour, minute, second }
    }
}

/// Year, month and day of a number of days since 1970.
///
/// Years are counted from March, so that the leap day is the last of a year, in eras of 400
/// years, which all have the same 146,097 days. Source: H. Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms".
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // from 0000-03-01
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // from March
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}
