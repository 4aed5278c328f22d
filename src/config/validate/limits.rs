//! How much is held at once.

use std::num::NonZeroUsize;

use super::number;
use crate::config::problem::Report;
use crate::config::raw::{One, Raw};
use crate::config::settings::LimitSettings;

/// About 80 MB of counters.
const CONTEXTS: u64 = 200_000;
const MOST_CONTEXTS: u64 = 1_000_000_000;
/// One name must not take all the room there is.
const NAMES_THAT_FILL: u64 = 4;

pub(super) fn limits(raw: &Raw, report: &mut Report) -> LimitSettings {
    let contexts = at_least_one(&raw.limits_contexts, CONTEXTS, report);
    let share = (contexts.get() as u64).div_ceil(NAMES_THAT_FILL);
    LimitSettings {
        contexts,
        contexts_per_name: at_least_one(&raw.limits_contexts_per_name, share, report),
    }
}

fn at_least_one(given: &One<u64>, default: u64, report: &mut Report) -> NonZeroUsize {
    NonZeroUsize::new(number(given, 1..=MOST_CONTEXTS, default, report))
        .expect("neither the range nor a default has zero")
}
