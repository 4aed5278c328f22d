//! What the daemon counts and measures of itself off the hot path, by name and tags.
//!
//! [`Telemetry`] is handed to everything that has something to say; one lock, taken a few
//! times a second, guards it all. Counts of the hot path stay in the threads that make them
//! ([`super::counters`]): a *source* reads those when somebody asks.
//!
//! Two readers ask: each flush takes what changed since the flush before
//! ([`Telemetry::take_changes`], written as DogStatsD by `telemetry::report`), and `/metrics`
//! looks at everything since the start ([`Telemetry::totals`]). Neither disturbs the other.
//!
//! The name decides what a family of series is ([`names`]). A name that is not listed there, or a
//! call of another kind, is a programming error: a panic in debug builds; otherwise the first
//! call decides and one of another kind is ignored.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::distribution::{Distribution, Samples, Summary};
use super::names::{self, Kind};

/// Flushes that a summary's window lasts: its quantiles cover the last one to two windows, so
/// that `/metrics` shows the recent past and not the average since the start.
const FLUSHES_PER_WINDOW: u32 = 6;

/// Own metrics of everything off the hot path. Cloning shares.
#[derive(Clone, Default)]
pub struct Telemetry(Arc<Mutex<Registry>>);

impl Telemetry {
    /// Adds `n` to a counter. `tags` are joined with `,` (`sink:datadog,cause:io`), or empty.
    ///
    /// A counter exists from its first call on, also with `n = 0`, and is then part of every
    /// report: a monitor sees a zero and not a gap.
    pub fn count(&self, name: &'static str, tags: &str, n: u64) {
        match self.lock().family(name, Kind::Counter) {
            Family::Counters(series) => at(series, tags).counted += n,
            family => family.refuse(name),
        }
    }

    /// Sets a gauge.
    pub fn gauge(&self, name: &'static str, tags: &str, value: f64) {
        match self.lock().family(name, Kind::Gauge) {
            Family::Gauges(series) => at(series, tags).set(value),
            family => family.refuse(name),
        }
    }

    /// Records one duration; names ending in `_ns` are sent as timers in nanoseconds.
    pub fn duration(&self, name: &'static str, tags: &str, length: Duration) {
        self.durations(name, tags, length, 1);
    }

    /// Records `n` durations of the same length.
    pub fn durations(&self, name: &'static str, tags: &str, length: Duration, n: u64) {
        match self.lock().family(name, Kind::Duration) {
            Family::Durations(series) => {
                let series = at(series, tags);
                (0..n).for_each(|_| series.record(length.as_nanos() as f64));
            }
            family => family.refuse(name),
        }
    }

    /// Records one size or amount.
    pub fn histogram(&self, name: &'static str, tags: &str, value: f64) {
        match self.lock().family(name, Kind::Amount) {
            Family::Amounts(series) => at(series, tags).record(value),
            family => family.refuse(name),
        }
    }

    /// Adds a reader of numbers kept elsewhere. It is called once per flush and per request of
    /// `/metrics`, never under the lock, and must not block.
    pub fn add_source(&self, source: impl Fn(&mut Observations) + Send + Sync + 'static) {
        self.lock().sources.push(Arc::new(source));
    }

    /// What changed since the last call, ordered by name and tags; for one caller, the flush.
    pub fn take_changes(&self) -> Vec<Series<Change>> {
        self.observe();
        self.lock().take_changes()
    }

    /// Everything since the start, ordered by name and tags.
    pub fn totals(&self) -> Vec<Series<Total>> {
        self.observe();
        self.lock().totals()
    }

    /// Asks the sources. They run without the lock, so that one may use this `Telemetry`.
    fn observe(&self) {
        let sources = self.lock().sources.clone();
        let mut observations = Observations::default();
        for source in sources {
            source(&mut observations);
        }
        self.lock().apply(observations);
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        // Numbers stay usable after a panic elsewhere: each update is a single assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}

/// What a source tells.
#[derive(Debug, Default)]
pub struct Observations {
    counters: BTreeMap<(&'static str, Box<str>), u64>,
    gauges: BTreeMap<(&'static str, Box<str>), f64>,
}

impl Observations {
    /// A count since the start, which never falls. Several of one name and tags (one per thread)
    /// add up, and are added to what [`Telemetry::count`] counted. Leave out what never happened
    /// if it would only be noise: what was told once is reported for good.
    pub fn counter(&mut self, name: &'static str, tags: &str, total: u64) {
        *self.counters.entry((name, tags.into())).or_default() += total;
    }

    /// A present state. The last of one name and tags wins.
    pub fn gauge(&mut self, name: &'static str, tags: &str, value: f64) {
        self.gauges.insert((name, tags.into()), value);
    }
}

/// One series as a reader gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Series<T> {
    /// Name without the `veneur.` prefix.
    pub name: &'static str,
    /// Tags joined with `,`, or empty.
    pub tags: Box<str>,
    /// Its change or total.
    pub value: T,
}

/// What one series did since the last report.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A counter grew by this much, perhaps 0.
    Count(u64),
    /// A gauge was set, last to this.
    Gauge(f64),
    /// Durations in nanoseconds.
    Durations(Samples),
    /// Sizes or amounts.
    Amounts(Samples),
}

/// What one series did since the start.
#[derive(Clone, Debug, PartialEq)]
pub enum Total {
    /// A counter.
    Count(u64),
    /// A gauge's last value.
    Gauge(f64),
    /// Durations in nanoseconds.
    Durations(Summary),
    /// Sizes or amounts.
    Amounts(Summary),
}

type Source = dyn Fn(&mut Observations) + Send + Sync;

/// All series of one name. `BTreeMap` throughout: readers want them grouped and in order.
enum Family {
    Counters(BTreeMap<Box<str>, Counter>),
    Gauges(BTreeMap<Box<str>, Gauge>),
    Durations(BTreeMap<Box<str>, Distribution>),
    Amounts(BTreeMap<Box<str>, Distribution>),
}

impl Family {
    fn new(kind: Kind) -> Family {
        match kind {
            Kind::Counter => Family::Counters(BTreeMap::new()),
            Kind::Gauge => Family::Gauges(BTreeMap::new()),
            Kind::Duration => Family::Durations(BTreeMap::new()),
            Kind::Amount => Family::Amounts(BTreeMap::new()),
        }
    }

    fn refuse(&self, name: &str) {
        debug_assert!(false, "own metric {name} is used as two kinds");
    }
}

#[derive(Default)]
struct Counter {
    counted: u64,
    observed: u64,
    reported: u64,
}

impl Counter {
    fn total(&self) -> u64 {
        self.counted + self.observed
    }
}

#[derive(Default)]
struct Gauge {
    value: f64,
    is_fresh: bool,
}

impl Gauge {
    fn set(&mut self, value: f64) {
        *self = Gauge { value, is_fresh: true };
    }
}

#[derive(Default)]
struct Registry {
    families: BTreeMap<&'static str, Family>,
    sources: Vec<Arc<Source>>,
    flushes: u32,
}

impl Registry {
    fn family(&mut self, name: &'static str, kind: Kind) -> &mut Family {
        let listed = names::find(name);
        debug_assert!(listed.is_some() || cfg!(test), "own metric {name} is not listed");
        debug_assert!(listed.is_none_or(|it| it.kind == kind), "own metric {name} is no {kind:?}");
        self.families.entry(name).or_insert_with(|| Family::new(kind))
    }

    fn apply(&mut self, observations: Observations) {
        for ((name, tags), total) in observations.counters {
            match self.family(name, Kind::Counter) {
                Family::Counters(series) => {
                    // Two readers may ask at once and arrive here in the other order.
                    let counter = at(series, &tags);
                    counter.observed = counter.observed.max(total);
                }
                family => family.refuse(name),
            }
        }
        for ((name, tags), value) in observations.gauges {
            match self.family(name, Kind::Gauge) {
                Family::Gauges(series) => at(series, &tags).set(value),
                family => family.refuse(name),
            }
        }
    }

    fn take_changes(&mut self) -> Vec<Series<Change>> {
        self.flushes = (self.flushes + 1) % FLUSHES_PER_WINDOW;
        let ends_window = self.flushes == 0;
        let mut changes = Vec::new();
        for (&name, family) in &mut self.families {
            let mut push = |tags: &str, value| {
                changes.push(Series { name, tags: tags.into(), value });
            };
            match family {
                Family::Counters(series) => {
                    for (tags, counter) in series {
                        push(tags, Change::Count(counter.total() - counter.reported));
                        counter.reported = counter.total();
                    }
                }
                Family::Gauges(series) => {
                    for (tags, gauge) in series {
                        if std::mem::take(&mut gauge.is_fresh) {
                            push(tags, Change::Gauge(gauge.value));
                        }
                    }
                }
                Family::Durations(series) => {
                    for (tags, distribution) in series {
                        if let Some(samples) = distribution.take_samples(ends_window) {
                            push(tags, Change::Durations(samples));
                        }
                    }
                }
                Family::Amounts(series) => {
                    for (tags, distribution) in series {
                        if let Some(samples) = distribution.take_samples(ends_window) {
                            push(tags, Change::Amounts(samples));
                        }
                    }
                }
            }
        }
        changes
    }

    fn totals(&self) -> Vec<Series<Total>> {
        let mut totals = Vec::new();
        for (&name, family) in &self.families {
            let mut push = |tags: &str, value| {
                totals.push(Series { name, tags: tags.into(), value });
            };
            match family {
                Family::Counters(series) => {
                    series.iter().for_each(|(tags, it)| push(tags, Total::Count(it.total())));
                }
                Family::Gauges(series) => {
                    series.iter().for_each(|(tags, it)| push(tags, Total::Gauge(it.value)));
                }
                Family::Durations(series) => {
                    series.iter().for_each(|(tags, it)| push(tags, Total::Durations(it.summary())));
                }
                Family::Amounts(series) => {
                    series.iter().for_each(|(tags, it)| push(tags, Total::Amounts(it.summary())));
                }
            }
        }
        totals
    }
}

/// The series of these tags, made if new. (`entry` would allocate a key on every call.)
fn at<'a, S: Default>(series: &'a mut BTreeMap<Box<str>, S>, tags: &str) -> &'a mut S {
    if !series.contains_key(tags) {
        series.insert(tags.into(), S::default());
    }
    series.get_mut(tags).expect("inserted above if it was missing")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn changes(telemetry: &Telemetry) -> Vec<(String, Change)> {
        let named = |it: Series<Change>| (format!("{}#{}", it.name, it.tags), it.value);
        telemetry.take_changes().into_iter().map(named).collect()
    }

    #[test]
    fn a_counter_reports_what_it_grew_by_and_then_zero() {
        let telemetry = Telemetry::default();
        telemetry.count("a.error_total", "cause:io", 2);
        telemetry.clone().count("a.error_total", "cause:io", 3);
        telemetry.count("a.error_total", "", 0);
        let first = [
            ("a.error_total#".to_owned(), Change::Count(0)),
            ("a.error_total#cause:io".to_owned(), Change::Count(5)),
        ];
        assert_eq!(changes(&telemetry), first);
        let then = first.map(|(name, _)| (name, Change::Count(0)));
        assert_eq!(changes(&telemetry), then);
    }

    #[test]
    fn a_gauge_is_reported_once_per_setting() {
        let telemetry = Telemetry::default();
        telemetry.gauge("g", "", 1.0);
        telemetry.gauge("g", "", 2.5);
        assert_eq!(changes(&telemetry), [("g#".to_owned(), Change::Gauge(2.5))]);
        assert_eq!(changes(&telemetry), []);
        assert_eq!(telemetry.totals()[0].value, Total::Gauge(2.5));
    }

    #[test]
    fn reading_totals_does_not_take_changes() {
        let telemetry = Telemetry::default();
        telemetry.count("c", "", 7);
        telemetry.duration("d_ns", "", Duration::from_nanos(1500));
        for _ in 0..2 {
            let totals = telemetry.totals();
            assert_eq!(totals[0].value, Total::Count(7));
            let Total::Durations(summary) = &totals[1].value else { panic!("{totals:?}") };
            assert_eq!((summary.count, summary.sum), (1, 1500.0));
        }
        let expected = Change::Durations(Samples { values: vec![1500.0], seen: 1 });
        assert_eq!(changes(&telemetry)[1], ("d_ns#".to_owned(), expected));
        assert_eq!(changes(&telemetry).len(), 1, "no durations since");
    }

    #[test]
    fn sources_are_asked_for_totals_and_those_of_one_series_add_up() {
        let telemetry = Telemetry::default();
        let packets = Arc::new(AtomicU64::new(4));
        for _thread in 0..2 {
            let packets = Arc::clone(&packets);
            telemetry.add_source(move |observations| {
                observations.counter("p", "t:1", packets.load(Ordering::Relaxed));
                observations.gauge("q", "", 9.0);
            });
        }
        let name = |name: &str| name.to_owned();
        let expected = [(name("p#t:1"), Change::Count(8)), (name("q#"), Change::Gauge(9.0))];
        assert_eq!(changes(&telemetry), expected);
        packets.store(5, Ordering::Relaxed);
        telemetry.count("p", "t:1", 100);
        assert_eq!(telemetry.totals()[0].value, Total::Count(110));
        assert_eq!(changes(&telemetry)[0], (name("p#t:1"), Change::Count(102)));
    }

    #[test]
    fn a_source_may_use_the_telemetry_it_belongs_to() {
        let telemetry = Telemetry::default();
        let own = telemetry.clone();
        telemetry.add_source(move |_| own.count("asked", "", 1));
        assert_eq!(changes(&telemetry), [("asked#".to_owned(), Change::Count(1))]);
    }

    #[test]
    fn quantiles_forget_what_is_two_windows_old() {
        let telemetry = Telemetry::default();
        telemetry.duration("d_ns", "", Duration::from_secs(1));
        let quantiles = || match &telemetry.totals()[0].value {
            Total::Durations(summary) => summary.quantiles.len(),
            other => panic!("{other:?}"),
        };
        for _ in 0..2 * FLUSHES_PER_WINDOW - 1 {
            telemetry.take_changes();
            assert_ne!(quantiles(), 0);
        }
        telemetry.take_changes();
        assert_eq!(quantiles(), 0);
    }
}
