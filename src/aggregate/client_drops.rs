//! What clients say that they have dropped before it got here.
//!
//! Client libraries report it as counters of their own, [`PREFIX`] before the name. These are
//! series like all others; at the flush their sums are taken down here, so that the daemon's
//! own figures have everything that was lost on the way to it.
//!
//! Source: the telemetry of Datadog's client libraries (`packets_dropped`, `bytes_dropped`,
//! each also with `_queue` and `_writer`; `metric_dropped_on_receive`).

use std::collections::BTreeMap;

/// What the names of clients' telemetry begin with.
const PREFIX: &str = "datadog.dogstatsd.client.";
/// Part of the names of what is meant here.
const DROPPED: &str = "dropped";
/// Names told apart: clients may send any.
const NAMED: usize = 20;
/// All others.
const OTHERS: &str = "_other";

/// Sums of clients' drop counters within an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientDrops(BTreeMap<Box<str>, f64>);

impl ClientDrops {
    /// Takes down the sum of a counter, if it is one of those.
    #[inline]
    pub(super) fn note(&mut self, name: &str, sum: f64) {
        if let Some(what) = name.strip_prefix(PREFIX)
            && what.contains(DROPPED)
            && sum > 0.0
        {
            self.add_to(what, sum);
        }
    }

    /// Adds those of another shard.
    pub fn add(&mut self, other: ClientDrops) {
        for (what, sum) in other.0 {
            self.add_to(&what, sum);
        }
    }

    /// Names behind [`PREFIX`], and their sums.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(what, sum)| (&**what, *sum))
    }

    fn add_to(&mut self, what: &str, sum: f64) {
        let is_named = self.0.contains_key(what) || self.0.len() < NAMED;
        *self.0.entry(if is_named { what } else { OTHERS }.into()).or_default() += sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(names: impl IntoIterator<Item = (String, f64)>) -> ClientDrops {
        let mut drops = ClientDrops::default();
        names.into_iter().for_each(|(name, sum)| drops.note(&name, sum));
        drops
    }

    #[test]
    fn only_what_clients_dropped_is_taken_down() {
        let names = [
            ("datadog.dogstatsd.client.packets_dropped", 2.0),
            ("datadog.dogstatsd.client.bytes_dropped_queue", 700.0),
            ("datadog.dogstatsd.client.packets_dropped", 3.0),
            ("datadog.dogstatsd.client.metric_dropped_on_receive", 1.0),
            ("datadog.dogstatsd.client.packets_dropped_writer", 0.0),
            ("datadog.dogstatsd.client.packets_sent", 9.0),
            ("orders.dropped", 9.0),
        ];
        let drops = noted(names.map(|(name, sum)| (name.to_owned(), sum)));
        let told: Vec<_> = drops.iter().collect();
        let wanted = [
            ("bytes_dropped_queue", 700.0),
            ("metric_dropped_on_receive", 1.0),
            ("packets_dropped", 5.0),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn names_without_end_are_one() {
        let mut drops = ClientDrops::default();
        for shard in 0..3 {
            let names = (0..50).map(|n| (format!("{PREFIX}dropped_{shard}_{n}"), 2.0));
            drops.add(noted(names));
        }
        assert!(drops.iter().count() <= NAMED + 1);
        assert_eq!(drops.iter().map(|(_, sum)| sum).sum::<f64>(), 300.0);
    }
}
