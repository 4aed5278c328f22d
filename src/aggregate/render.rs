//! A snapshot becomes finished points, and what goes upstream.

use std::sync::Arc;

use super::classic::statistics::{BrubeckPlan, Emit as Finish, EtsyPlan};
use super::{Aggregate, ClientDrops, Histogram, Snapshot, Timings};
use crate::model::{
    Dialect, Emit, EtsyStatistics, Interval, MetricKey, MetricKind, Percentile, Point, PointKind,
    Role, Statistic, Suffix, Suffixes, UnixSeconds,
};

/// Which points digests are finished into.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    role: Role,
    aggregates: Vec<(Statistic, Suffix)>,
    percentiles: Vec<(Percentile, Suffix)>,
    etsy: EtsyPlan,
    brubeck: BrubeckPlan,
    /// What a count is divided by for one a second.
    seconds: f64,
    suffixes: Arc<Suffixes>,
}

impl Plan {
    /// `aggregates` and `percentiles` are emitted in the order given, of DogStatsD's digests; of
    /// etsy's timers what it emits by default. An interval has ten seconds.
    pub fn new(role: Role, aggregates: &[Statistic], percentiles: &[Percentile]) -> Plan {
        let mut suffixes = Suffixes::default();
        let aggregates = aggregates
            .iter()
            .filter_map(|&s| Some((s, suffixes.add(&format!(".{}", s.as_str()))?)))
            .collect();
        let percentiles =
            percentiles.iter().filter_map(|&p| Some((p, suffixes.add(&p.suffix())?))).collect();
        let etsy = EtsyPlan::new(&EtsyStatistics::default(), &mut suffixes);
        let brubeck = BrubeckPlan::new(&mut suffixes);
        let suffixes = Arc::new(suffixes);
        Plan { role, aggregates, percentiles, etsy, brubeck, seconds: 10.0, suffixes }
    }

    /// The same with other statistics of etsy's timers.
    #[must_use]
    pub fn with_etsy(mut self, statistics: &EtsyStatistics) -> Plan {
        let mut suffixes = Suffixes::clone(&self.suffixes);
        self.etsy = EtsyPlan::new(statistics, &mut suffixes);
        self.suffixes = Arc::new(suffixes);
        self
    }

    /// The same for an interval of another length.
    #[must_use]
    pub fn over(self, interval: Interval) -> Plan {
        Plan { seconds: interval.as_secs_f64(), ..self }
    }

    /// The texts of the suffixes that points made by this plan carry.
    pub fn suffixes(&self) -> &Arc<Suffixes> {
        &self.suffixes
    }
}

/// What one snapshot became.
#[derive(Debug, Default)]
pub struct Rendered {
    /// Finished here; the points of a series stand together.
    pub points: Vec<Point>,
    /// Finished upstream.
    pub forwards: Vec<(Arc<MetricKey>, Aggregate)>,
    /// Series by kind (index: [`MetricKind`] as a number).
    pub series: [u64; MetricKind::ALL.len()],
    /// Values that were not finite (an overflowed sum), and therefore not emitted.
    pub non_finite: u64,
    /// What clients say that they have dropped.
    pub client_drops: ClientDrops,
}

/// Finishes a snapshot for the interval that ends `at`.
pub fn render(snapshot: Snapshot, plan: &Plan, at: UnixSeconds) -> Rendered {
    let mut out = Rendered::default();
    out.points.reserve(snapshot.entries.len());
    for (key, aggregate) in snapshot.entries {
        out.series[key.kind as usize] += 1;
        if let Aggregate::Counter(sum) = aggregate {
            out.client_drops.note(&key.name, sum);
        }
        let disposition = key.scope.disposition(key.kind, plan.role);
        let mut emit = Emitter { key: &key, at, out: &mut out };
        match (aggregate, disposition.emit) {
            (Aggregate::Counter(sum), Emit::Value) => {
                emit.point(Suffix::NONE, PointKind::Count, sum);
            }
            (Aggregate::Total(total), Emit::Value) => {
                emit.point(Suffix::NONE, PointKind::Count, total.grown);
            }
            (Aggregate::Gauge(last), Emit::Value) => {
                emit.point(Suffix::NONE, PointKind::Gauge, last);
            }
            (Aggregate::Set(members), Emit::Value) => {
                emit.point(Suffix::NONE, PointKind::Gauge, members.estimate() as f64);
            }
            (Aggregate::Histogram(mut histogram), Emit::Aggregates) => {
                emit.aggregates(plan, &mut histogram);
                out.forwards.push((key, Aggregate::Histogram(histogram)));
            }
            (Aggregate::Histogram(mut histogram), Emit::AggregatesAndPercentiles) => {
                emit.aggregates(plan, &mut histogram);
                emit.percentiles(plan, *histogram);
            }
            (Aggregate::Timings(timings), Emit::AggregatesAndPercentiles) => {
                emit.timings(plan, *timings);
            }
            (aggregate, Emit::Nothing) => out.forwards.push((key, aggregate)),
            (
                Aggregate::Counter(_)
                | Aggregate::Total(_)
                | Aggregate::Gauge(_)
                | Aggregate::Set(_),
                Emit::Aggregates | Emit::AggregatesAndPercentiles,
            )
            | (Aggregate::Histogram(_), Emit::Value)
            | (Aggregate::Timings(_), Emit::Value | Emit::Aggregates) => {
                unreachable!("a shard makes aggregates of the kind in the key")
            }
        }
    }
    for (key, value) in snapshot.idle {
        out.series[key.kind as usize] += 1;
        let mut emit = Emitter { key: &key, at, out: &mut out };
        match key.kind {
            MetricKind::Counter => emit.point(Suffix::NONE, PointKind::Count, value),
            MetricKind::Gauge | MetricKind::Set => {
                emit.point(Suffix::NONE, PointKind::Gauge, value);
            }
            MetricKind::Timer | MetricKind::Histogram | MetricKind::Distribution => {
                emit.timings(plan, Timings::default());
            }
        }
    }
    out
}

/// Appends the points of one series.
struct Emitter<'a> {
    key: &'a Arc<MetricKey>,
    at: UnixSeconds,
    out: &'a mut Rendered,
}

impl Emitter<'_> {
    fn point(&mut self, suffix: Suffix, kind: PointKind, value: f64) {
        if !value.is_finite() {
            self.out.non_finite += 1;
            return;
        }
        let key = Arc::clone(self.key);
        self.out.points.push(Point { key, value, at: self.at, kind, suffix });
    }

    fn timings(&mut self, plan: &Plan, timings: Timings) {
        match self.key.dialect {
            Dialect::Etsy => {
                let name = Arc::clone(self.key);
                plan.etsy.finish(&name.name, timings, plan.seconds, self);
            }
            Dialect::Brubeck => plan.brubeck.finish(timings, plan.seconds, self),
            Dialect::DogStatsD => unreachable!("its timers are digests"),
        }
    }

    fn aggregates(&mut self, plan: &Plan, histogram: &mut Histogram) {
        for &(statistic, suffix) in &plan.aggregates {
            let kind = match statistic {
                Statistic::Count => PointKind::Count,
                _ => PointKind::Gauge,
            };
            if let Some(value) = histogram.statistic(statistic) {
                self.point(suffix, kind, value);
            }
        }
    }

    fn percentiles(&mut self, plan: &Plan, histogram: Histogram) {
        if plan.percentiles.is_empty() {
            return;
        }
        let mut digest = histogram.into_merged();
        for &(percentile, suffix) in &plan.percentiles {
            if let Some(value) = digest.quantile(percentile.quantile()) {
                self.point(suffix, PointKind::Gauge, value);
            }
        }
    }
}

impl Finish for Emitter<'_> {
    fn emit(&mut self, suffix: Suffix, kind: PointKind, value: f64) {
        self.point(suffix, kind, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Scope, TagSet, Weight};

    fn key(kind: MetricKind, scope: Scope) -> Arc<MetricKey> {
        Arc::new(MetricKey {
            name: "m".into(),
            tags: TagSet::empty(),
            kind,
            scope,
            dialect: Dialect::DogStatsD,
        })
    }

    fn histogram(values: &[f64]) -> Aggregate {
        let mut histogram = Histogram::default();
        for &value in values {
            histogram.add(value, Weight::ONE);
        }
        Aggregate::Histogram(Box::new(histogram))
    }

    fn plan(role: Role) -> Plan {
        let half = Percentile::new(0.5).expect("0.5 is a quantile");
        Plan::new(role, &[Statistic::Max, Statistic::Min, Statistic::Count], &[half])
    }

    fn rendered(role: Role, entries: Vec<(Arc<MetricKey>, Aggregate)>) -> (Vec<String>, usize) {
        let snapshot = Snapshot { entries, ..Snapshot::default() };
        let plan = plan(role);
        let out = render(snapshot, &plan, UnixSeconds(1));
        let name = |point: &Point| {
            format!("{}{}={}", point.key.name, plan.suffixes().text(point.suffix), point.value)
        };
        (out.points.iter().map(name).collect(), out.forwards.len())
    }

    #[test]
    fn a_histogram_is_finished_by_role_and_scope() {
        let all = &["m.max=3", "m.min=1", "m.count=2", "m.50percentile=2"][..];
        for (role, scope, points, forwards) in [
            (Role::Local, Scope::Mixed, &all[..3], 1),
            (Role::Local, Scope::LocalOnly, all, 0),
            (Role::Local, Scope::GlobalOnly, &[][..], 1),
            (Role::Global, Scope::Mixed, all, 0),
        ] {
            let entries = vec![(key(MetricKind::Histogram, scope), histogram(&[1.0, 3.0]))];
            let want = (points.iter().map(|&p| p.to_owned()).collect(), forwards);
            assert_eq!(rendered(role, entries), want, "{role:?} {scope:?}");
        }
    }

    #[test]
    fn an_overflowed_sum_is_counted_and_not_emitted() {
        let entries =
            vec![(key(MetricKind::Counter, Scope::Mixed), Aggregate::Counter(f64::INFINITY))];
        let out = render(
            Snapshot { entries, series: 1, ..Snapshot::default() },
            &plan(Role::Local),
            UnixSeconds(1),
        );
        assert_eq!((out.points.len(), out.non_finite), (0, 1));
    }
}
