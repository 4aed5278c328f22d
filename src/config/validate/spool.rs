//! What waits to be delivered.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::{filled, flag, length, number};
use crate::config::problem::Report;
use crate::config::raw::{One, Raw};
use crate::config::settings::SpoolSettings;

const MAX_BYTES: u64 = 1 << 30;
/// At least a few of the largest requests.
const MOST_BYTES: RangeInclusive<u64> = 1 << 20..=1 << 50;
/// Datadog ignores points that are older.
const MAX_AGE: Duration = Duration::from_secs(3_600);
const AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
/// More often costs more than it saves; less often is not worth the disk.
const CHECKPOINTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

pub(super) fn spool(raw: &Raw, report: &mut Report) -> SpoolSettings {
    let directory = filled(&raw.spool_directory).map(|given| {
        let path = PathBuf::from(&given.value);
        if !path.is_absolute() {
            report.refuse(
                &given.source,
                "not an absolute path",
                "a directory such as /var/lib/veneur",
            );
        }
        path
    });
    let checkpoint = checkpoint(&raw.spool_checkpoint, directory.is_some(), report);
    SpoolSettings {
        directory,
        checkpoint,
        max_bytes: number(&raw.spool_max_bytes, MOST_BYTES, MAX_BYTES, report) as u64,
        max_age: length(&raw.spool_max_age, &AGES, MAX_AGE, report),
        sync: flag(&raw.spool_sync, true),
    }
}

fn checkpoint(given: &One<Duration>, has_directory: bool, report: &mut Report) -> Option<Duration> {
    let given = given.as_ref().filter(|given| !given.value.is_zero())?;
    if !has_directory {
        report.refuse(&given.source, "nowhere to write to", "spool.directory");
    }
    let every = length(&Some(given.clone()), &CHECKPOINTS, *CHECKPOINTS.start(), report);
    Some(every)
}
