//! What a metric costs from the socket to the shard, beside loops that only receive.
//!
//! Each receiver gets the same traffic over loopback in the same run: a bare `recvmmsg` loop,
//! the same with a nap of 500 us after a short read, and the daemon's own reader, worker and
//! flush threads. CPU is what the kernel accounts to the receiving threads (`schedstat`),
//! flushes included; the figures are medians. Ratios are what counts: the sender shares the
//! machine, and another one has other digits.
//!
//! `cargo bench --bench ingest_e2e [-- SECONDS RUNS]`

mod load;
mod receivers;

use std::time::Duration;

use load::{Dialect, Target, Workload};
use receivers::{Outcome, null, veneur};

const NAP: Duration = Duration::from_micros(500);

fn workloads() -> Vec<Workload> {
    use Dialect::{DogStatsD, Etsy};
    use Target::{Micros, Times};
    let thousand = (DogStatsD, 1_000);
    vec![
        Workload::new("W1 single, 50k/s", Times(1.35), thousand, false, Some(50e3)),
        Workload::new("W1 single, flood", Micros(0.72), thousand, false, None),
        Workload::new("W2 packed, 200k/s", Micros(0.25), thousand, true, Some(200e3)),
        Workload::new("W2 packed, flood", Micros(0.085), thousand, true, None),
        Workload::new("W3 100k series, flood", Micros(0.18), (DogStatsD, 100_000), true, None),
        Workload::new("W4 etsy single, flood", Micros(0.60), (Etsy, 1_000), false, None),
        Workload::new("W4p etsy packed, flood", Micros(0.065), (Etsy, 1_000), true, None),
    ]
}

/// The middle one of what some runs cost, in microseconds a metric; and of what they lost, as
/// a share.
fn medians(workload: &Workload, runs: &[Outcome]) -> (f64, f64) {
    let median = |of: &dyn Fn(&Outcome) -> f64| {
        let mut all: Vec<f64> = runs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let metrics = |run: &Outcome| run.received.max(1) as f64 * workload.metrics_per_datagram;
    let cost = median(&|run| run.cpu_ns as f64 / metrics(run) / 1000.0);
    let lost = median(&|run| 1.0 - run.received as f64 / run.sent.max(1) as f64);
    (cost, lost)
}

fn main() {
    let mut numbers = std::env::args().filter_map(|arg| arg.parse::<f64>().ok());
    let length = Duration::from_secs_f64(numbers.next().unwrap_or(1.0));
    let runs = numbers.next().unwrap_or(5.0) as usize;
    println!("CPU, us a metric; lost is what the kernel dropped");
    println!(
        "{:<24} {:>10} {:>10} {:>10} {:>8} {:>8}   target",
        "workload", "recvmmsg", "with nap", "veneur", "x nap", "lost"
    );
    for workload in workloads() {
        // In turn, so that what else the machine does meets all of them.
        let (mut bare, mut napping, mut ours) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..runs.max(1) {
            bare.push(null(&workload, length, None));
            napping.push(null(&workload, length, Some(NAP)));
            ours.push(veneur(&workload, length));
        }
        let (bare, _) = medians(&workload, &bare);
        let (napping, _) = medians(&workload, &napping);
        let (cost, lost) = medians(&workload, &ours);
        let target = match workload.target {
            Target::Times(times) => format!("{times} x nap"),
            Target::Micros(micros) => format!("{micros} us"),
        };
        println!(
            "{:<24} {bare:>10.3} {napping:>10.3} {cost:>10.3} {:>8.2} {:>7.1}%   {target}",
            workload.name,
            cost / napping,
            lost * 100.0
        );
    }
}
