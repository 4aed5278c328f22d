//! How much is held at once.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;

use super::number;
use crate::config::problem::Report;
use crate::config::raw::{One, Raw};
use crate::config::settings::LimitSettings;

/// About 80 MB of counters.
const CONTEXTS: u64 = 200_000;
const MOST_CONTEXTS: u64 = 1_000_000_000;
/// One name must not take all the room there is.
const NAMES_THAT_FILL: u64 = 4;
/// Far beyond what Datadog takes (100 tags; 200 characters), so that only nonsense is folded.
const TAGS_PER_METRIC: u64 = 256;
const TAG_LENGTH: u64 = 1024;
const NAME_LENGTH: u64 = 512;
/// With what else the daemon takes, a small host has it.
const MEMORY: u64 = 512 << 20;
/// Less would fold what a usual client sends.
const MEMORIES: RangeInclusive<u64> = (16 << 20)..=(1 << 50);
/// Keys have lengths of 16 bits.
const MOST_BYTES: u64 = 65_535;

pub(super) fn limits(raw: &Raw, report: &mut Report) -> LimitSettings {
    let contexts = up_to(MOST_CONTEXTS, &raw.limits_contexts, CONTEXTS, report);
    let share = (contexts.get() as u64).div_ceil(NAMES_THAT_FILL);
    LimitSettings {
        contexts,
        contexts_per_name: up_to(MOST_CONTEXTS, &raw.limits_contexts_per_name, share, report),
        tags_per_metric: up_to(MOST_BYTES, &raw.limits_tags_per_metric, TAGS_PER_METRIC, report),
        tag_length: up_to(MOST_BYTES, &raw.limits_tag_length, TAG_LENGTH, report),
        name_length: up_to(MOST_BYTES, &raw.limits_name_length, NAME_LENGTH, report),
        memory: within(MEMORIES, &raw.limits_memory, MEMORY, report),
    }
}

fn up_to(most: u64, given: &One<u64>, default: u64, report: &mut Report) -> NonZeroUsize {
    within(1..=most, given, default, report)
}

fn within(
    range: RangeInclusive<u64>,
    given: &One<u64>,
    default: u64,
    report: &mut Report,
) -> NonZeroUsize {
    NonZeroUsize::new(number(given, range, default, report))
        .expect("neither the range nor a default has zero")
}
