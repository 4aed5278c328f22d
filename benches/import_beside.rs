//! What samples cost while imports run at full rate, beside what they cost alone.
//!
//! Reader: one thread takes in datagrams at a steady rate and applies them, or has the worker
//! do it when that is merging; beside them a third decodes and imports bodies of 5,000 small
//! digests, one after the other, as fast as the worker merges them. CPU is what the kernel
//! accounts to the reading thread (`schedstat`); waiting is from the hand-over of a batch to
//! its turn in the worker.
//!
//! Worker: the batches of the same datagrams, applied one after the other by one thread; and
//! with as many entries merged between two of them as imports at full rate bring.
//!
//! `cargo bench --bench import_beside [-- SECONDS]`

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use veneur::aggregate::{KeyHasher, Shard};
use veneur::model::{Dialect, ExtendTags, MetricKey, MetricKind, Role, Scope, TagSet, Weight};
use veneur::pipeline::worker::{Work, WorkerReport};
use veneur::pipeline::{Collector, Importer, Intake, IntakeCounts, Router, Workers};
use veneur::protocol::import::{ImportedEntry, ImportedValue, Limits, protobuf};
use veneur::sketch::Digest;

/// Datagrams a second; each has [`LINES`] lines.
const RATE: u64 = 10_000;
const LINES: usize = 20;
const ENTRIES: usize = 5_000;
const HOSTS: usize = 8;
/// Between two batches of a thousand samples, at 700,000 entries and 200,000 samples a second.
const ENTRIES_PER_BATCH: usize = 3_500;

fn main() {
    let seconds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(3.0);
    let length = Duration::from_secs_f64(seconds);
    let bodies: Vec<Vec<u8>> = (0..HOSTS).map(body).collect();
    println!(
        "{:<26} {:>10} {:>17} {:>13} {:>13} {:>11} {:>16}",
        "series",
        "samples/s",
        "reader ns/sample",
        "waits p50 us",
        "waits p99 us",
        "imports/s",
        "worker ns/sample"
    );
    for series in [1_000, 100_000] {
        let datagrams = datagrams(series);
        for (name, bodies) in [("alone", &[][..]), ("beside imports", &bodies)] {
            let run = run(&datagrams, bodies, length);
            let per_second = |n: u64| n as f64 / length.as_secs_f64();
            println!(
                "{:<26} {:>10.0} {:>17.1} {:>13} {:>13} {:>11.0} {:>16.1}",
                format!("{series} {name}"),
                per_second(run.report.samples),
                run.reader_ns as f64 / run.report.samples as f64,
                run.report.queue_ns.value_at_quantile(0.5) / 1000,
                run.report.queue_ns.value_at_quantile(0.99) / 1000,
                per_second(run.report.imported),
                apply(&datagrams, bodies).as_nanos() as f64 / datagrams.len() as f64 / LINES as f64,
            );
        }
    }
}

/// How long a shard takes for all datagrams once, without what it merges between batches; the
/// best of some rounds.
fn apply(datagrams: &[Vec<u8>], bodies: &[Vec<u8>]) -> Duration {
    let (inbox, batches) = sync_channel(1_000);
    let collector = Arc::new(Collector::new(ExtendTags::default(), SystemTime::now));
    let router = Router::new(KeyHasher::random(), [inbox]);
    let mut intake = Intake::new(router, collector, Arc::new(IntakeCounts::default()));
    datagrams.iter().for_each(|datagram| intake.packet(datagram));
    intake.hand_over_all();
    let batches: Vec<_> = batches.try_iter().collect();
    let mut bodies = bodies.iter().cycle();
    let mut shard = Shard::new(Role::Global, ExtendTags::default());
    let mut round = || {
        let mut took = Duration::ZERO;
        for batch in &batches {
            let imported = bodies.next().map(|body| decode(body)).unwrap_or_default();
            imported.into_iter().take(ENTRIES_PER_BATCH).for_each(|entry| shard.import(entry));
            let Work::Samples(queued) = batch else { panic!("nothing else was handed over") };
            let (ops, keys) = queued.batch.parts();
            let start = Instant::now();
            shard.apply(ops, keys);
            took += start.elapsed();
        }
        took
    };
    (0..7).map(|_| round()).min().unwrap_or_default()
}

/// What the threads did.
struct Run {
    report: WorkerReport,
    reader_ns: u64,
}

/// Takes in `datagrams` and imports `bodies` for `length`, either in turn; none of one, if
/// there are none.
fn run(datagrams: &[Vec<u8>], bodies: &[Vec<u8>], length: Duration) -> Run {
    let shard = Shard::new(Role::Global, ExtendTags::default());
    let workers = Workers::start([shard]).expect("threads can be made");
    let importer = Importer::new(workers.inboxes());
    let collector = Arc::new(Collector::new(ExtendTags::default(), SystemTime::now));
    let router = Router::new(KeyHasher::random(), workers.doors());
    let mut intake = Intake::new(router, collector, Arc::new(IntakeCounts::default()));
    let ended = AtomicBool::new(false);
    let flush = || {
        let (reply, answer) = sync_channel(1);
        workers.inboxes()[0].send(Work::Flush(reply)).expect("the worker is there");
        answer.recv().expect("the worker answers").report
    };
    // Learning the series is not what is measured.
    datagrams.iter().for_each(|datagram| intake.packet(datagram));
    intake.hand_over_all();
    bodies.iter().for_each(|body| import(&importer, body));
    flush();
    let reader_ns = thread::scope(|scope| {
        let reader = thread::Builder::new().name("reader".into());
        let reader = reader
            .spawn_scoped(scope, || read(&mut intake, datagrams, length))
            .expect("threads can be made");
        scope.spawn(|| {
            for body in bodies.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                import(&importer, body);
            }
        });
        let reader_ns = reader.join();
        ended.store(true, Ordering::Relaxed);
        reader_ns.expect("it does not panic")
    });
    let report = flush();
    importer.close();
    drop(intake);
    workers.join();
    Run { report, reader_ns }
}

fn decode(body: &[u8]) -> Vec<ImportedEntry> {
    protobuf::decode(body, Limits { entries: ENTRIES }).expect("just encoded").entries
}

fn import(importer: &Importer, body: &[u8]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    importer.import(decode(body), deadline).expect("the worker keeps up");
}

/// Takes in datagrams for `length`, a millisecond's share at a time; returns its CPU.
fn read(intake: &mut Intake, datagrams: &[Vec<u8>], length: Duration) -> u64 {
    let start = Instant::now();
    let mut next = datagrams.iter().cycle();
    let mut read = 0;
    while start.elapsed() < length {
        let due = start.elapsed().as_nanos() as u64 * RATE / 1_000_000_000;
        for datagram in next.by_ref().take((due - read) as usize) {
            intake.packet(datagram);
        }
        read = due;
        intake.hand_over_due(Instant::now());
        thread::sleep(Duration::from_millis(1));
    }
    intake.hand_over_all();
    cpu_ns("reader")
}

/// CPU nanoseconds of this process's threads of such a name.
fn cpu_ns(wanted: &str) -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("this is Linux");
    tasks
        .filter_map(|task| {
            let path = task.ok()?.path();
            let name = fs::read_to_string(path.join("comm")).ok()?;
            let spent = fs::read_to_string(path.join("schedstat")).ok()?;
            name.starts_with(wanted).then(|| spent.split(' ').next()?.parse::<u64>().ok())?
        })
        .sum()
}

fn datagrams(series: usize) -> Vec<Vec<u8>> {
    let kinds = ["c", "c", "c", "c", "c", "ms", "ms", "h", "h", "g"];
    let line = |n: usize| {
        format!(
            "service.component{:04}.requests:{}|{}|#env:production,region:eu-west-1,\
             host:web-{},team:core",
            n / 20,
            n % 97,
            kinds[n % kinds.len()],
            n % 20
        )
    };
    let lines: Vec<String> = (0..series).map(line).collect();
    lines.chunks(LINES).map(|lines| lines.join("\n").into_bytes()).collect()
}

/// What one host forwards: timers of ten samples.
fn body(host: usize) -> Vec<u8> {
    let mut list = Vec::new();
    for series in 0..ENTRIES {
        let tags = [format!("path:/v1/objects/{series}"), "env:production".to_owned()];
        let key = MetricKey {
            name: format!("service.endpoint.{}.latency", series % 100).into(),
            tags: TagSet::canonical(tags.iter().map(String::as_str)),
            kind: MetricKind::Timer,
            scope: Scope::Mixed,
            dialect: Dialect::DogStatsD,
        };
        let mut digest = Digest::new();
        let samples = (0..10).map(|n| ((host + series * 7919 + n * 104_729) % 10_007) as f64);
        samples.for_each(|sample| digest.add(sample, Weight::ONE));
        protobuf::append(&mut list, &key, &mut ImportedValue::Digest(digest));
    }
    list
}
