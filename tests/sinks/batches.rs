//! Batches for the tests of sinks.

use std::sync::Arc;
use std::time::Duration;

use veneur::model::{
    AlertType, Dialect, Event, FlushBatch, Interval, MetricKey, MetricKind, Point, PointKind,
    Priority, Scope, ServiceCheck, ServiceStatus, Suffix, Suffixes, TagSet, UnixSeconds,
};
use veneur::telemetry::Telemetry;
use veneur::telemetry::registry::Total;

pub(crate) const AT: UnixSeconds = UnixSeconds(1_700_000_000);

pub(crate) fn interval() -> Interval {
    Interval::new(Duration::from_secs(10)).expect("ten seconds are not zero")
}

pub(crate) fn key(name: &str, tags: &str) -> Arc<MetricKey> {
    let (kind, scope) = (MetricKind::Counter, Scope::Mixed);
    Arc::new(MetricKey {
        name: name.into(),
        tags: TagSet::canonical(tags.split(',')),
        kind,
        scope,
        dialect: Dialect::DogStatsD,
    })
}

pub(crate) fn gauge(name: &str, value: f64) -> Point {
    let (key, kind) = (key(name, ""), PointKind::Gauge);
    Point { key, value, at: AT, kind, suffix: Suffix::NONE }
}

/// `n` gauges, and nothing else.
pub(crate) fn gauges(n: usize) -> FlushBatch {
    FlushBatch {
        at: AT,
        interval: interval(),
        suffixes: Arc::default(),
        points: (0..n).map(|i| gauge(&format!("m{i}"), i as f64)).collect(),
        events: Vec::new(),
        checks: Vec::new(),
        spans: Default::default(),
    }
}

/// Something of everything.
pub(crate) fn mixed() -> FlushBatch {
    let mut suffixes = Suffixes::default();
    let max = suffixes.add(".max").expect("there is room");
    let count = suffixes.add(".count").expect("there is room");
    let p99 = suffixes.add(".99percentile").expect("there is room");
    let timer = key("page.latency", "host:web1,device:sda,route:/a\"b");
    let of_timer =
        |suffix, kind, value| Point { key: Arc::clone(&timer), value, at: AT, kind, suffix };
    let mut early = gauge("queue", 17.25);
    early.at = UnixSeconds(AT.0 - 60);
    let views =
        Point { kind: PointKind::Count, key: key("page.views", "b:2,a:1"), ..gauge("", 42.0) };
    FlushBatch {
        suffixes: Arc::new(suffixes),
        points: vec![
            of_timer(max, PointKind::Gauge, 3.0),
            of_timer(count, PointKind::Count, 5.0),
            of_timer(p99, PointKind::Gauge, 100.0 / 3.0),
            early,
        ]
        .into_iter()
        .chain([views])
        .collect(),
        events: vec![
            Event {
                title: "title".into(),
                text: "two\nlines".into(),
                timestamp: Some(UnixSeconds(1_500_000_000)),
                tags: vec!["a:b".into(), "veneurlocalonly".into()],
                ..Event::default()
            },
            Event {
                title: "x".into(),
                text: "y".into(),
                hostname: Some("other".into()),
                aggregation_key: Some("agg".into()),
                source_type: Some("src".into()),
                priority: Priority::Low,
                alert_type: AlertType::Error,
                ..Event::default()
            },
        ],
        checks: vec![
            ServiceCheck {
                timestamp: Some(UnixSeconds(1_500_000_002)),
                hostname: Some("dbh".into()),
                message: Some("slow".into()),
                tags: vec!["c:d".into()],
                ..ServiceCheck::new("db", ServiceStatus::Warning)
            },
            ServiceCheck::new("svc", ServiceStatus::Ok),
        ],
        ..gauges(0)
    }
}

/// The series of a counter that are not zero, with their tags.
pub(crate) fn counts(telemetry: &Telemetry, name: &str) -> Vec<(String, u64)> {
    let totals = telemetry.totals().into_iter().filter(|series| series.name == name);
    let counts = totals.filter_map(|series| match series.value {
        Total::Count(n) if n > 0 => Some((series.tags.into_string(), n)),
        _ => None,
    });
    counts.collect()
}
