//! What a flush of 100,000 series costs on its way to Graphite and InfluxDB: rendered and encoded,
//! body by body as the sinks do it. CPU of this thread, least of the runs, and the most memory that
//! is taken beyond the batch.
//!
//! `cargo bench --bench sinks`

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use veneur::config::settings::{
    EtsyNames, GraphiteAddress, GraphiteLayout, GraphiteProtocol, GraphiteSettings, InfluxdbLayout,
};
use veneur::model::{
    Dialect, FlushBatch, Interval, MetricKey, MetricKind, Point, PointKind, Scope, Suffix,
    Suffixes, TagSet, UnixSeconds,
};
use veneur::sinks::post::Body;
use veneur::sinks::{Node, graphite, influxdb};

const SERIES: usize = 100_000;
const RUNS: usize = 20;

/// The system's allocator, and how much it has given.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "an allocator cannot be without; it only counts")]
// SAFETY: all is passed on to the system's as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let held = HELD.fetch_add(size, Ordering::Relaxed) + size;
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        MOST.fetch_max(held - layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let node = Node { host: Some("testhost".into()), tags: vec!["dc:one".into()] };
    for (name, batch) in [("counters", counters()), ("mixed types", mixed())] {
        println!("{SERIES} series, {name}: {} points", batch.points.len());
        for (way, protocol) in [
            ("Graphite, plaintext", GraphiteProtocol::Plaintext),
            ("Graphite, pickle", GraphiteProtocol::Pickle),
        ] {
            let settings = graphite_settings(protocol);
            measure(way, &batch, 10_000, |from, to| {
                graphite::encode::encode(&batch, &settings, &node, from..to).expect("it fits")
            });
        }
        for (way, layout) in [
            ("InfluxDB, fields, gzip", InfluxdbLayout::Fields),
            ("InfluxDB, values, gzip", InfluxdbLayout::Values),
        ] {
            measure(way, &batch, 5_000, |from, to| {
                influxdb::line::encode(&batch, layout, &node, from..to).expect("it fits")
            });
        }
    }
}

fn graphite_settings(protocol: GraphiteProtocol) -> GraphiteSettings {
    GraphiteSettings {
        address: GraphiteAddress::Tcp("127.0.0.1:2003".to_owned()),
        protocol,
        layout: GraphiteLayout::Veneur,
        prefix: "hosts".to_owned(),
        names: EtsyNames::default(),
    }
}

/// Encodes the batch in bodies of so many points, four of which are held at a time as a sink has
/// them on their way.
fn measure(
    way: &str,
    batch: &FlushBatch,
    points_per_body: usize,
    encode: impl Fn(usize, usize) -> Body,
) {
    let points = batch.points.len();
    let mut least = Duration::MAX;
    let (mut bytes, mut most) = (0, 0);
    for _ in 0..RUNS {
        let before = HELD.load(Ordering::Relaxed);
        MOST.store(before, Ordering::Relaxed);
        let started = cpu();
        let mut on_their_way = VecDeque::new();
        bytes = 0;
        for from in (0..points).step_by(points_per_body) {
            let body = encode(from, points.min(from + points_per_body));
            bytes += body.bytes.len();
            on_their_way.push_back(black_box(body));
            if on_their_way.len() == 4 {
                on_their_way.pop_front();
            }
        }
        least = least.min(cpu() - started);
        most = most.max(MOST.load(Ordering::Relaxed) - before);
    }
    println!(
        "  {way}: {:.0} ms, {:.1} MB extra, {:.1} MB as sent",
        least.as_secs_f64() * 1e3,
        most as f64 / 1e6,
        bytes as f64 / 1e6
    );
}

/// What this thread has run so far.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("it starts with nanoseconds"))
}

/// One point a series.
fn counters() -> FlushBatch {
    let points = (0..SERIES).map(|n| point(&key(n), PointKind::Count, Suffix::NONE, n)).collect();
    batch(points, Suffixes::default())
}

/// Six counters, two gauges and a timer of six points, over and over.
fn mixed() -> FlushBatch {
    let mut suffixes = Suffixes::default();
    let words = ["max", "min", "count", "50percentile", "75percentile", "99percentile"];
    let of_timer: Vec<Suffix> = words
        .iter()
        .map(|word| suffixes.add(&format!(".{word}")).expect("there is room for six"))
        .collect();
    let mut points = Vec::new();
    for n in 0..SERIES {
        let key = key(n);
        match n % 9 {
            0..6 => points.push(point(&key, PointKind::Count, Suffix::NONE, n)),
            6..8 => points.push(point(&key, PointKind::Gauge, Suffix::NONE, n)),
            _ => points.extend(of_timer.iter().map(|&it| point(&key, PointKind::Gauge, it, n))),
        }
    }
    batch(points, suffixes)
}

fn batch(points: Vec<Point>, suffixes: Suffixes) -> FlushBatch {
    FlushBatch {
        at: UnixSeconds(1_700_000_000),
        interval: Interval::new(Duration::from_secs(10)).expect("not zero"),
        suffixes: Arc::new(suffixes),
        points,
        events: Vec::new(),
        checks: Vec::new(),
        spans: Default::default(),
    }
}

fn point(key: &Arc<MetricKey>, kind: PointKind, suffix: Suffix, n: usize) -> Point {
    // Values of a few digits and values of seventeen.
    let value = (n * 7919 % 10_000) as f64 / 3.0;
    Point { key: Arc::clone(key), value, at: UnixSeconds(1_700_000_000), kind, suffix }
}

fn key(n: usize) -> Arc<MetricKey> {
    let tags = format!("env:production,region:eu-west-1,version:1.2.3,team:a{}", n % 7);
    Arc::new(MetricKey {
        name: format!("service.component{:05}.requests.{}", n / 20, n % 1000).into(),
        tags: TagSet::canonical(tags.split(',')),
        kind: match n % 9 {
            8 => MetricKind::Timer,
            6 | 7 => MetricKind::Gauge,
            _ => MetricKind::Counter,
        },
        scope: Scope::Mixed,
        dialect: Dialect::DogStatsD,
    })
}
