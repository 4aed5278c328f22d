//! What one line costs behind the parser: route (copy into a batch), apply (find the series
//! and add), and taking the snapshot. Nanoseconds per line at 1k, 10k and 100k series.
//!
//! `cargo bench --bench stages`

use std::hint::black_box;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use veneur::aggregate::{Batch, KeyHasher, Plan, Shard, render};
use veneur::model::{ExtendTags, Percentile, Role, Statistic, UnixSeconds};
use veneur::pipeline::Router;
use veneur::pipeline::worker::Work;
use veneur::protocol::dogstatsd::{self, Message};

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

fn main() {
    let total = 1_000_000;
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>14} {:>14}",
        "series", "parse", "route", "apply", "snapshot", "render"
    );
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>14} {:>14}",
        "", "ns/line", "ns/line", "ns/line", "ns/series", "ns/series"
    );
    for series in [1_000, 10_000, 100_000] {
        let texts = lines(series);
        let order = shuffled(series);
        let rounds = total / series;
        let stream: Vec<&[u8]> =
            (0..rounds).flat_map(|_| order.iter().map(|&n| texts[n].as_bytes())).collect();

        let parse = best_of(5, || {
            let start = Instant::now();
            for line in &stream {
                let _ = black_box(dogstatsd::parse(black_box(line)));
            }
            start.elapsed()
        });

        let hasher = KeyHasher::random();
        let mut batches: Vec<Batch> = Vec::new();
        let parse_and_route = best_of(5, || {
            batches.clear();
            let (inbox, receiver) = sync_channel(total / 100);
            let mut router = Router::new(hasher, [inbox]);
            let start = Instant::now();
            for line in &stream {
                if let Ok(Message::Metric(line)) = dogstatsd::parse(black_box(line)) {
                    black_box(router.push(&line));
                }
            }
            router.hand_over_all();
            let took = start.elapsed();
            batches.extend(receiver.try_iter().filter_map(|work| match work {
                Work::Samples(batch) => Some(batch),
                Work::Import(_) | Work::Flush(_) => None,
            }));
            took
        });

        let mut shard = Shard::new(Role::Global, ExtendTags::default());
        batches.iter().for_each(|batch| shard.apply(batch));
        shard.take_snapshot();
        let mut snapshot = None;
        let mut taking = Duration::MAX;
        let apply = best_of(5, || {
            let start = Instant::now();
            batches.iter().for_each(|batch| shard.apply(batch));
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
            "{series:>8} {:>10.1} {:>10.1} {:>10.1} {:>14.1} {:>14.1}",
            per_line(parse, total),
            per_line(parse_and_route.saturating_sub(parse), total),
            per_line(apply, total),
            per_line(taking, series),
            per_line(rendering, series),
        );
    }
}
