//! What a flood of a million series in one interval does to the daemon, with room for 100,000:
//! memory, CPU, the pause of the worker at each flush, and whether every sample is counted.
//!
//! The real program, with its Datadog sink and a stand-in for the intake. One client sends a
//! million series once, and the same again in the next interval; another one increments a hundred
//! counters all the while. Both use TCP, which loses nothing however busy the machine is. In the third interval one more new series comes: all that the flood
//! has left is idle then, and is forgotten.
//!
//! The last flood is of samples of timers whose digests together would take 170 MB: some are folded
//! when they take their half of `limits.memory`.
//!
//! `cargo bench --bench flood [-- MILLIONS [WORDS OF THE NAME]]`

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use fake_intake::{FakeIntake, Received};
use launch::{field, launch};

#[path = "../tests/support/fake_intake.rs"]
mod fake_intake;
#[path = "support/launch.rs"]
mod launch;

const LIMIT: usize = 100_000;
const KNOWN: usize = 100;
/// Most lines of the flood a second.
const PER_SECOND: f64 = 150_000.0;
const PATIENCE: Duration = Duration::from_secs(120);

/// A flood: its name, `limits.memory` in MiB, and line number `n` of it.
type Flood = (&'static str, usize, fn(usize) -> String);

const FLOODS: [Flood; 5] = [
    ("ids in the tags of one counter", 512, |n| {
        format!("flood.requests:1|c|#env:production,region:eu-west-1,user:{n}")
    }),
    ("ids in the tags of 1,000 counters", 512, |n| {
        format!("flood.requests{}:1|c|#env:production,region:eu-west-1,user:{n}", n % 1_000)
    }),
    ("ids in names of counters", 512, |n| {
        format!("flood.user{n}.requests:1|c|#env:production,region:eu-west-1")
    }),
    ("ids in the tags of one timer", 512, |n| {
        format!("flood.requests:{}|ms|#env:production,region:eu-west-1,user:{n}", n % 997)
    }),
    ("sketches: 30,000 timers that grow by 100 samples a line, with 128 MiB", 128, |n| {
        let values: Vec<String> = (0..100).map(|m| ((n + m * 37) % 1_009).to_string()).collect();
        format!("flood.load:{}|ms|#env:production,page:{}", values.join(":"), n % 30_000)
    }),
];

/// The program, killed when dropped.
struct Daemon {
    child: Child,
    statsd: String,
    http: String,
}

impl Daemon {
    fn start(
        directory: &Path,
        intake: &str,
        elsewhere: &str,
        interval: Duration,
        memory: usize,
    ) -> Daemon {
        let yaml = format!(
            "interval: {}s\nkey: x\napi_hostname: {intake}\nstats_address: {elsewhere}\n\
             tcp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\naggregates: [count]\n\
             percentiles: [0.99]\nlimits: {{contexts: {LIMIT}, contexts_per_name: {LIMIT}, \
             memory: {}}}\n",
            interval.as_secs(),
            memory << 20,
        );
        let file = directory.join("veneur.yaml");
        fs::write(&file, yaml).expect("the temporary directory can be written");
        let (child, ready) = launch(&file);
        let statsd = field(&ready, "statsd=").replace("tcp://", "");
        Daemon { child, statsd, http: field(&ready, "http=") }
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("it runs")
    }

    /// A line of its status in MB.
    fn memory(&self, name: &str) -> f64 {
        let status = self.proc("status");
        let line = status.lines().find(|line| line.starts_with(name)).expect("it is there");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
        kib.expect("a number") / 1024.0
    }

    /// User and system time so far; the kernel counts hundredths.
    fn cpu(&self) -> f64 {
        let stat = self.proc("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split(' ').collect();
        let ticks = |n: usize| fields[n].parse::<f64>().expect("a number");
        (ticks(12) + ticks(13)) / 100.0
    }

    /// The sum of all series of a family on `/metrics`.
    fn total(&self, family: &str) -> f64 {
        let mut stream = TcpStream::connect(&self.http).expect("the server is there");
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("the server takes it");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("the server answers");
        let lines = page.lines().filter(|line| {
            line.strip_prefix(family).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What was sent so far.
#[derive(Default)]
struct Sent {
    flood: u64,
    rounds: u64,
}

impl Sent {
    fn lines(&self) -> u64 {
        self.flood + self.rounds * KNOWN as u64
    }

    /// Sends a flood and, while it comes, the known counters over another connection.
    fn send(&mut self, to: &str, lines: usize, flood: fn(usize) -> String) {
        let connect = || TcpStream::connect(to).expect("it listens");
        let (mut flooding, mut steady) = (connect(), connect());
        let known: Vec<String> =
            (0..KNOWN).map(|n| format!("steady.{n}:1|c|#env:production,host:web-{n}")).collect();
        let started = Instant::now();
        let mut sent = 0;
        while sent < lines {
            if sent.is_multiple_of(10_000) {
                let text: String = known.iter().flat_map(|line| [line, "\n"]).collect();
                steady.write_all(text.as_bytes()).expect("it takes them");
                self.rounds += 1;
            }
            let end = lines.min(sent + 100);
            let text: String = (sent..end).flat_map(|n| [flood(n), "\n".to_owned()]).collect();
            flooding.write_all(text.as_bytes()).expect("it takes them");
            self.flood += (end - sent) as u64;
            sent = end;
            let due = Duration::from_secs_f64(sent as f64 / PER_SECOND);
            if due > started.elapsed() + Duration::from_millis(1) {
                thread::sleep(due.saturating_sub(started.elapsed()));
            }
        }
    }
}

/// What one interval showed.
struct Shown {
    cpu: f64,
    peak: f64,
    pause: f64,
    series: f64,
}

fn scratch() -> PathBuf {
    let directory = std::env::temp_dir().join(format!("veneur-flood-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("the temporary directory can be written");
    directory
}

fn run(runtime: &tokio::runtime::Runtime, (name, memory, flood): Flood, lines: usize) {
    let directory = scratch();
    let intake = runtime.block_on(FakeIntake::start());
    let elsewhere = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = elsewhere.local_addr().expect("it is bound").to_string();
    // The whole flood fits with room to spare.
    let interval = Duration::from_secs_f64((lines as f64 / PER_SECOND * 2.0).ceil() + 3.0);
    let mut daemon = Daemon::start(&directory, &intake.url(), &address, interval, memory);
    let mut sent = Sent::default();
    let (flushes, pauses) =
        ("veneur_flush_worker_duration_seconds_count", "veneur_flush_worker_duration_seconds_sum");
    let mut shown = Vec::new();
    for part in 0..3 {
        let (flushed, paused, cpu) = (daemon.total(flushes), daemon.total(pauses), daemon.cpu());
        match part {
            0 | 1 => sent.send(&daemon.statsd, lines, flood),
            _ => sent.send(&daemon.statsd, 1, |_| "flood.late:1|c".to_owned()),
        }
        wait_until("everything is taken", || {
            daemon.total("veneur_listen_lines_total") >= sent.lines() as f64
        });
        let cpu = daemon.cpu() - cpu;
        wait_until("it is flushed", || daemon.total(flushes) > flushed);
        assert_eq!(daemon.total(flushes), flushed + 1.0, "the flood was within an interval");
        shown.push(Shown {
            cpu,
            peak: daemon.memory("VmHWM"),
            pause: (daemon.total(pauses) - paused) * 1e3,
            series: daemon.total("veneur_worker_contexts"),
        });
    }
    let folded = daemon.total("veneur_limits_folded_samples_total");
    let stopping = Command::new("kill").arg(daemon.child.id().to_string()).status();
    assert!(stopping.expect("there is kill").success());
    assert!(daemon.child.wait().expect("it is our child").success());
    // It is the temporary directory's otherwise.
    let _ = fs::remove_dir_all(directory);

    let (mut counted, mut known) = (0.0, vec![0.0; KNOWN]);
    for body in intake.received_at("/api/v1/series").iter().filter(|body| Received::is_taken(body))
    {
        for series in body.json()["series"].as_array().expect("a list") {
            let name = series["metric"].as_str().expect("a name");
            if series["type"] != "rate" {
                continue;
            }
            let rate = series["points"][0][1].as_f64().expect("a number");
            let count = (rate * series["interval"].as_f64().unwrap_or(1.0)).round();
            match name.strip_prefix("steady.").and_then(|n| n.parse::<usize>().ok()) {
                Some(n) => known[n] += count,
                None => counted += count,
            }
        }
    }
    let exact = known.iter().filter(|&&count| count == sent.rounds as f64).count();
    println!("{name}: {lines} series, twice");
    for (part, shown) in ["flood", "the same again", "one new series"].iter().zip(&shown) {
        println!(
            "  {part:<16} CPU {:>5.2} s | peak {:>4.0} MB | pause {:>5.1} ms | {:>6} series held",
            shown.cpu, shown.peak, shown.pause, shown.series
        );
    }
    println!(
        "  sent {}, counted {counted}, {folded} of them folded; {exact} of {KNOWN} known counters exact",
        sent.flood
    );
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse::<f64>().ok());
    let lines = (asked.unwrap_or(1.0) * 1e6) as usize;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system gives threads");
    let wanted = std::env::args().skip(1).filter(|it| !it.starts_with('-')).nth(1);
    let is_wanted = |name: &str| wanted.as_deref().is_none_or(|wanted| name.contains(wanted));
    for flood in FLOODS.into_iter().filter(|(name, ..)| is_wanted(name)) {
        run(&runtime, flood, lines);
    }
}
