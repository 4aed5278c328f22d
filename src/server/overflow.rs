//! Which names have more series than there is room for: in own telemetry, and in the log.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::aggregate::Folded;
use crate::aggregate::limits::Limit;
use crate::telemetry::{Telemetry, names};

/// Names that get a series of own telemetry each, which it then has for good.
const NAMED: usize = 20;
/// All others.
const OTHERS: &str = "_other";
/// Bytes of a name in a tag.
const TAG_BYTES: usize = 200;
/// Between two log lines.
const QUIET: Duration = Duration::from_secs(60);

/// Reports what was folded.
#[derive(Debug, Default)]
pub(super) struct OverflowReport {
    named: BTreeSet<String>,
    /// What was not logged yet.
    unsaid: Folded,
    said: Option<Instant>,
}

impl OverflowReport {
    /// Counts what one flush reports, and says so once a minute.
    pub(super) fn record(&mut self, folded: Folded, telemetry: &Telemetry, now: Instant) {
        self.count(&folded, telemetry);
        self.unsaid.add(folded);
        if self.unsaid.samples == 0 || self.said.is_some_and(|said| now - said < QUIET) {
            return;
        }
        self.said = Some(now);
        let Folded { samples, contexts, by_limit, worst, example } =
            std::mem::take(&mut self.unsaid);
        let names: Vec<String> =
            worst.iter().take(3).map(|of| format!("{} ({})", of.name, of.samples)).collect();
        let limits: Vec<&str> = Limit::ALL
            .into_iter()
            .filter(|limit| by_limit[*limit as usize] > 0)
            .map(Limit::as_str)
            .collect();
        warn!(
            samples,
            series = contexts,
            limits = limits.join(", "),
            names = names.join(", "),
            new_name = example.as_deref().unwrap_or(""),
            "more series than there is room for: new ones count as veneur_overflow:true"
        );
    }

    fn count(&mut self, folded: &Folded, telemetry: &Telemetry) {
        let (mut samples, mut contexts) = (folded.samples, folded.contexts);
        for of_name in &folded.worst {
            let name = tag_value(&of_name.name);
            if self.named.len() < NAMED {
                self.named.insert(name.clone());
            } else if !self.named.contains(&name) {
                continue;
            }
            samples -= of_name.samples;
            contexts -= of_name.contexts;
            let tag = format!("metric:{name}");
            telemetry.count(names::LIMITS_FOLDED_SAMPLES_TOTAL, &tag, of_name.samples);
            telemetry.count(names::LIMITS_FOLDED_CONTEXTS_TOTAL, &tag, of_name.contexts);
        }
        for limit in Limit::ALL {
            let tag = format!("limit:{}", limit.as_str());
            telemetry.count(names::LIMITS_REACHED_TOTAL, &tag, folded.by_limit[limit as usize]);
        }
        let tag = format!("metric:{OTHERS}");
        telemetry.count(names::LIMITS_FOLDED_SAMPLES_TOTAL, &tag, samples);
        telemetry.count(names::LIMITS_FOLDED_CONTEXTS_TOTAL, &tag, contexts);
    }
}

/// A name as the value of one tag.
pub(super) fn tag_value(name: &str) -> String {
    let mut value = String::new();
    for c in name.chars().map(|c| if c == ',' || c.is_control() { '_' } else { c }) {
        if value.len() + c.len_utf8() > TAG_BYTES {
            break;
        }
        value.push(c);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::limits::FoldedName;
    use crate::telemetry::registry::Total;

    fn folded(names: impl IntoIterator<Item = (String, u64)>) -> Folded {
        let worst: Vec<FoldedName> = names
            .into_iter()
            .map(|(name, samples)| FoldedName { name: name.into(), samples, contexts: 1 })
            .collect();
        Folded {
            samples: worst.iter().map(|of| of.samples).sum(),
            contexts: worst.len() as u64,
            worst,
            ..Folded::default()
        }
    }

    #[test]
    fn every_sample_counts_once_and_names_do_not_pile_up() {
        let telemetry = Telemetry::default();
        let mut report = OverflowReport::default();
        for n in 0..100 {
            let names = (0..10).map(|m| (format!("n,{n}.{m}"), 3));
            report.record(folded(names), &telemetry, Instant::now());
        }
        let totals = telemetry.totals();
        let samples: Vec<_> =
            totals.iter().filter(|s| s.name == names::LIMITS_FOLDED_SAMPLES_TOTAL).collect();
        assert_eq!(samples.len(), NAMED + 1);
        assert_eq!(&*samples[1].tags, "metric:n_0.0");
        let sum = samples.iter().map(|series| match series.value {
            Total::Count(n) => n,
            ref other => panic!("a count is {other:?}"),
        });
        assert_eq!(sum.sum::<u64>(), 3_000);
    }

    #[test]
    fn one_line_a_minute_stands_for_all_that_was_folded() {
        let (telemetry, start) = (Telemetry::default(), Instant::now());
        let mut report = OverflowReport::default();
        for (seconds, unsaid) in [(0, 0), (10, 5), (50, 10), (60, 0), (119, 5), (120, 0)] {
            let now = start + Duration::from_secs(seconds);
            report.record(folded([("a".to_owned(), 5)]), &telemetry, now);
            assert_eq!(report.unsaid.samples, unsaid, "after {seconds} s");
        }
    }
}
