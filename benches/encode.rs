//! What a flush of 100,000 points costs on its way into compressed bodies of series.
//!
//! `deflate` compresses the same text ready-made and `copy` copies it: what `encode` costs
//! beyond the first is rendering, and the second is the floor.
//!
//! `cargo bench --bench encode`

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use veneur::model::{
    Dialect, FlushBatch, Interval, MetricKey, MetricKind, Point, PointKind, Scope, Suffix,
    Suffixes, TagSet, UnixSeconds,
};
use veneur::sinks::Node;
use veneur::sinks::datadog::series;

const POINTS: usize = 100_000;
/// The default of `flush_max_per_body`.
const POINTS_PER_BODY: usize = 25_000;

fn main() {
    divan::main();
}

/// Six counters, two gauges and a timer of eight points, over and over: 16 points from 9
/// series, each with five tags of which one is its host.
fn batch() -> FlushBatch {
    let mut suffixes = Suffixes::default();
    let words =
        ["max", "min", "sum", "avg", "count", "50percentile", "95percentile", "99percentile"];
    let of_timer: Vec<Suffix> = words
        .iter()
        .map(|word| suffixes.add(&format!(".{word}")).expect("there is room for eight"))
        .collect();
    let mut points = Vec::with_capacity(POINTS);
    for series in 0.. {
        if points.len() >= POINTS {
            break;
        }
        let key = Arc::new(key(series));
        let mut push = |kind, suffix| {
            // Values of a few digits and values of seventeen.
            let value = (points.len() * 7919 % 10_000) as f64 / 3.0;
            let (key, at) = (Arc::clone(&key), UnixSeconds(1_700_000_000));
            points.push(Point { key, value, at, kind, suffix });
        };
        match series % 9 {
            0..6 => push(PointKind::Count, Suffix::NONE),
            6..8 => push(PointKind::Gauge, Suffix::NONE),
            _ => of_timer.iter().for_each(|&suffix| push(PointKind::Gauge, suffix)),
        }
    }
    points.truncate(POINTS);
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

fn key(series: usize) -> MetricKey {
    let tags = format!(
        "env:production,region:eu-west-1,host:ip-10-0-0-{:05},version:1.2.3,team:a{}",
        series % 20,
        series % 7
    );
    MetricKey {
        name: format!("service.component{:05}.requests:{}", series / 20, series % 1000).into(),
        tags: TagSet::canonical(tags.split(',')),
        kind: MetricKind::Counter,
        scope: Scope::Mixed,
        dialect: Dialect::DogStatsD,
    }
}

fn node() -> Node {
    Node { host: Some("testhost".into()), tags: vec!["env:production".into()] }
}

/// All bodies of a batch; their size as sent.
fn encode_all(batch: &FlushBatch, node: &Node) -> usize {
    let starts = (0..POINTS).step_by(POINTS_PER_BODY);
    let body = |start| series::encode(batch, node, start..start + POINTS_PER_BODY);
    starts.map(|start| body(start).expect("it is within the limits").bytes.len()).sum()
}

/// The text of one body.
fn text(batch: &FlushBatch) -> Vec<u8> {
    let body = series::encode(batch, &node(), 0..POINTS_PER_BODY).expect("it is within the limits");
    let mut text = Vec::new();
    ZlibDecoder::new(&body.bytes[..]).read_to_end(&mut text).expect("a body is a zlib stream");
    text
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let (batch, node) = (batch(), node());
    println!("{} bytes as sent", encode_all(&batch, &node));
    bencher.counter(ItemsCount::new(POINTS)).bench(|| encode_all(black_box(&batch), &node));
}

#[divan::bench(args = [1, 2, 3, 6])]
fn deflate(bencher: Bencher<'_, '_>, level: u32) {
    let text = text(&batch());
    let deflated = || {
        (0..POINTS / POINTS_PER_BODY)
            .map(|_| {
                let mut zlib = ZlibEncoder::new(Vec::new(), Compression::new(level));
                zlib.write_all(black_box(&text)).expect("a vector takes everything");
                zlib.finish().expect("a vector takes everything").len()
            })
            .sum::<usize>()
    };
    println!("level {level}: {} bytes to {}", 4 * text.len(), deflated());
    bencher
        .counter(ItemsCount::new(POINTS))
        .counter(BytesCount::new(4 * text.len()))
        .bench(deflated);
}

#[divan::bench]
fn copy(bencher: Bencher<'_, '_>) {
    let text = text(&batch());
    bencher
        .counter(ItemsCount::new(POINTS))
        .counter(BytesCount::new(4 * text.len()))
        .bench(|| (0..4).for_each(|_| drop(black_box(text.clone()))));
}
