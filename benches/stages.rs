//! What one line costs, step by step: parse; route (hash the key, note the sample); apply (find
//! the series and add); and, where there are several workers, copy (what a sample needs to
//! leave its reader). Then the snapshot and its rendering. Nanoseconds per line or series, at
//! 1k, 10k and 100k series, all visited evenly.
//!
//! `cargo bench --bench stages`

use std::hint::black_box;
use std::time::{Duration, Instant};

use veneur::aggregate::{Batch, KeyHasher, OpKey, Ops, Plan, Shard, render};
use veneur::model::{ExtendTags, Percentile, Role, Statistic, UnixSeconds};
use veneur::protocol::dogstatsd::{Piece, Sample, pieces};

/// Samples that are applied together, as the router does it.
const TOGETHER: usize = 256;

/// Lines of 107 bytes with five tags, as many series, kinds mixed 50/20/20/5/5.
fn lines(series: usize) -> Vec<String> {
    let kinds = ["c", "c", "c", "c", "c", "ms", "ms", "h", "h", "g"];
    (0..series)
        .map(|n| {
            let kind = kinds[n % kinds.len()];
            let line = format!(
                "service.component{:05}.requests:{}|{kind}|#env:production,region:eu-west-1,\
                 host:ip-10-0-0-{:05},version:1.2.3,team:a{}",
                n / 20,
                n % 1000,
                n % 20,
                n % 7
            );
            line
        })
        .collect()
}

/// Visits every series once before any twice, in an order the cache cannot guess.
fn shuffled(n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    for i in (1..n).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(i, (state % (i as u64 + 1)) as usize);
    }
    order
}

fn best_of(runs: usize, mut run: impl FnMut() -> Duration) -> Duration {
    (0..runs).map(|_| run()).min().unwrap_or_default()
}

fn per_line(total: Duration, lines: usize) -> f64 {
    total.as_nanos() as f64 / lines as f64
}

fn samples(buffer: &[u8]) -> impl Iterator<Item = Sample<'_>> {
    pieces(buffer, buffer).map(|piece| match piece {
        Piece::Sample(sample) => sample,
        Piece::Line(line) => panic!("not the usual shape: {}", line.escape_ascii()),
    })
}

fn main() {
    let total = 1_000_000;
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>10} {:>14} {:>14}",
        "series", "parse", "route", "apply", "copy", "snapshot", "render"
    );
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>10} {:>14} {:>14}",
        "", "ns/line", "ns/line", "ns/line", "ns/line", "ns/series", "ns/series"
    );
    for series in [1_000, 10_000, 100_000] {
        let texts = lines(series);
        let order = shuffled(series);
        let rounds = total / series;
        let stream: Vec<&str> =
            (0..rounds).flat_map(|_| order.iter().map(|&n| texts[n].as_str())).collect();
        let buffer = stream.join("\n").into_bytes();

        let parse = best_of(5, || {
            let start = Instant::now();
            for sample in samples(&buffer) {
                black_box(sample);
            }
            start.elapsed()
        });

        let hasher = KeyHasher::random();
        let key = |sample: &Sample<'_>| {
            OpKey::of(hasher, &buffer, sample.kind, sample.name, sample.tags).expect("short keys")
        };
        let mut ops = Ops::default();
        let parse_and_route = best_of(5, || {
            let start = Instant::now();
            for sample in samples(&buffer) {
                ops.push(key(&sample), sample.number.to_bits(), sample.weight);
                if ops.len() == TOGETHER {
                    black_box(&ops);
                    ops.clear();
                }
            }
            start.elapsed()
        });

        let mut chunks: Vec<Ops> = Vec::new();
        for sample in samples(&buffer) {
            if chunks.last().is_none_or(|ops| ops.len() == TOGETHER) {
                chunks.push(Ops::default());
            }
            if let Some(ops) = chunks.last_mut() {
                ops.push(key(&sample), sample.number.to_bits(), sample.weight);
            }
        }
        let mut batch = Batch::default();
        let copy = best_of(5, || {
            let start = Instant::now();
            for ops in &chunks {
                batch.copy_from(ops, &buffer);
                if batch.is_full() {
                    black_box(&batch);
                    batch.clear();
                }
            }
            start.elapsed()
        });

        let mut shard = Shard::new(Role::Global, ExtendTags::default());
        chunks.iter().for_each(|ops| shard.apply(ops, &buffer));
        shard.take_snapshot();
        let mut snapshot = None;
        let mut taking = Duration::MAX;
        let apply = best_of(5, || {
            let start = Instant::now();
            chunks.iter().for_each(|ops| shard.apply(ops, &buffer));
            let took = start.elapsed();
            let start = Instant::now();
            snapshot = Some(shard.take_snapshot());
            taking = taking.min(start.elapsed());
            took
        });

        let half = [0.5, 0.75, 0.99].map(|q| Percentile::new(q).expect("a quantile"));
        let plan =
            Plan::new(Role::Global, &[Statistic::Max, Statistic::Min, Statistic::Count], &half);
        let start = Instant::now();
        black_box(render(snapshot.take().expect("taken above"), &plan, UnixSeconds(0)));
        let rendering = start.elapsed();

        println!(
            "{series:>8} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>14.2} {:>14.1}",
            per_line(parse, total),
            per_line(parse_and_route.saturating_sub(parse), total),
            per_line(apply, total),
            per_line(copy, total),
            per_line(taking, series),
            per_line(rendering, series),
        );
    }
    println!("{:>8} {:>10} {:>10} {:>10}   at 10,000 series", "target", 35, 15, 30);
}
