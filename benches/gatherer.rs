//! How long a round takes: many providers, each with as many numbers as a daemon has, asked
//! together, and the file written.
//!
//! `taskset -c 0 cargo bench --bench gatherer -- [providers] [rounds]`; 5,000 and 3 by default.
//! Everything is on one thread (the file is written by another), the providers too, so the figures
//! include their half of the work. Each needs two descriptors.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use veneur::config::Secret;
use veneur::config::settings::GathererSettings;
use veneur::gatherer::{Gatherer, STATS_FILE};
use veneur::telemetry::registry::Total;
use veneur::telemetry::{Telemetry, names};

/// As many as a busy daemon tells.
const COUNTERS: usize = 90;
const STATS: usize = 90;
const TOKEN: &str = "bench";

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|word| word.parse::<usize>().ok());
    let providers = numbers.next().unwrap_or(5_000);
    let rounds = numbers.next().unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("there is a runtime").block_on(run(providers, rounds));
}

async fn run(providers: usize, rounds: usize) {
    let name = format!("veneur-bench-gatherer-{}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = GathererSettings {
        address: loopback,
        directory: directory.clone(),
        poll_interval: Duration::from_secs(5),
        poll_timeout: Duration::from_secs(30),
        token: Some(Secret::new(TOKEN.to_owned())),
        tls: None,
        file_mode: 0o644,
        urls: Vec::new(),
        max_providers: NonZeroUsize::new(providers).expect("there is one at least"),
    };
    let telemetry = Telemetry::default();
    let listener = TcpListener::bind(loopback).expect("a port is free");
    let gatherer = Gatherer::start(&settings, listener, None, &telemetry).expect("it starts");
    let address = gatherer.address();

    let begun = Instant::now();
    let stats = stats();
    println!("{providers} providers, answers of {} bytes", stats.len());
    let mut connections = JoinSet::new();
    for number in 0..providers {
        connections.spawn(provide(address, number, stats.clone()));
        // Few enough at once for the queue of the socket.
        if number % 100 == 99 {
            tokio::task::yield_now().await;
            while polls(&telemetry) + 400 < number as u64 {
                sleep(Duration::from_millis(1)).await;
            }
        }
    }
    while polls(&telemetry) < providers as u64 {
        sleep(Duration::from_millis(1)).await;
    }
    println!("all registered and asked once: {:.2?}", begun.elapsed());

    while rounds_done(&telemetry).0 < rounds as u64 {
        sleep(Duration::from_millis(10)).await;
    }
    let (done, seconds) = rounds_done(&telemetry);
    println!("a round, mean of {done}: {:.2} s", seconds / done as f64);
    let begun = Instant::now();
    gatherer.finish().await;
    let size = fs::metadata(directory.join(STATS_FILE)).expect("it is written").len();
    println!("the last write: {:.2?}, {:.1} MB", begun.elapsed(), size as f64 / 1e6);
    connections.shutdown().await;
    fs::remove_dir_all(directory).expect("it is ours");
}

/// The text of what a daemon tells.
fn stats() -> String {
    let counters: Vec<String> =
        (0..COUNTERS).map(|n| format!("\"area.counter_{n}_total\":{}", n * 1_000_003)).collect();
    let stats: Vec<String> =
        (0..STATS).map(|n| format!("\"latencies.area_{n}.mean\":{}", n as f64 / 7.0)).collect();
    format!("{{\"counters\":{{{}}},\"stats\":{{{}}}}}", counters.join(","), stats.join(","))
}

/// A provider, as cheap as it can be: questions are not parsed but for their number.
async fn provide(address: SocketAddr, number: usize, stats: String) {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let (from, mut to) = stream.into_split();
    let first = format!(
        "{{\"op\":\"provide\",\"v\":1,\"id\":\"provider-{number}\",\"epoch\":1,\
         \"nickname\":\"host-{number}\",\"token\":\"{TOKEN}\"}}\n"
    );
    to.write_all(first.as_bytes()).await.expect("it is taken");
    let mut lines = BufReader::with_capacity(256, from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some((_, seq)) = line.split_once("\"seq\":") else { continue };
        let answer =
            format!("{{\"op\":\"stats\",\"seq\":{},\"stats\":{stats}}}\n", &seq[..seq.len() - 1]);
        if to.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

fn polls(telemetry: &Telemetry) -> u64 {
    let totals = telemetry.totals();
    let polls = totals.iter().find(|series| series.name == names::GATHERER_POLLS_TOTAL);
    match polls.map(|series| &series.value) {
        Some(Total::Count(polls)) => *polls,
        _ => 0,
    }
}

/// How many rounds there were, and how many seconds they took together.
fn rounds_done(telemetry: &Telemetry) -> (u64, f64) {
    let totals = telemetry.totals();
    let rounds = totals.iter().find(|series| series.name == names::GATHERER_ROUND_DURATION_NS);
    match rounds.map(|series| &series.value) {
        Some(Total::Durations(summary)) => (summary.count, summary.sum / 1e9),
        _ => (0, 0.0),
    }
}
