//! A sink that writes a file.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{filled, length, number};
use crate::config::problem::Report;
use crate::config::settings::{FileSettings, SinkKind};
use crate::config::sinks::RawSink;

const MAX_BYTES: u64 = 100 << 20;
const MAX_AGE: Duration = Duration::from_secs(86_400);
const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);
const KEEP: u64 = 7;

pub(in crate::config) fn sink(raw: &RawSink, report: &mut Report) -> Option<SinkKind> {
    let path = filled(&raw.path).map(|given| PathBuf::from(&given.value));
    if path.is_none() {
        report.refuse(&raw.source, "a file sink without a path", "path: /var/log/veneur.tsv");
    }
    let max_bytes = number(&raw.max_bytes, 1 << 10..=1 << 50, MAX_BYTES, report) as u64;
    let max_age = length(&raw.max_age, &AGES, MAX_AGE, report);
    let keep = match &raw.keep {
        // Here 0 is a number like any other.
        Some(given) if given.value == 0 => 0,
        keep => number(keep, 0..=1_000, KEEP, report) as u32,
    };
    Some(SinkKind::File(FileSettings { path: path?, max_bytes, max_age, keep }))
}
