//! What an outage of Datadog costs: memory and disk while it lasts, and how long the backlog
//! takes afterwards beside the fresh flushes.
//!
//! The real program flushes 10,000 counters each second to a stand-in for the intake, which
//! fails for a while. Time is scaled: 60 flushes are ten minutes at the default interval. Every
//! point must arrive once, with its own time.
//!
//! `cargo bench --bench outage [-- INTERVALS]`

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use fake_intake::{FakeIntake, Fault};
use launch::{field, launch};

#[path = "../tests/support/fake_intake.rs"]
mod fake_intake;
#[path = "support/launch.rs"]
mod launch;

const SERIES: usize = 10_000;
const INTERVAL: Duration = Duration::from_secs(1);
const HEALTHY: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(120);

/// The program, killed when dropped.
struct Daemon {
    child: Child,
    statsd: String,
    http: String,
}

impl Daemon {
    fn start(directory: &Path, intake: &str, elsewhere: &str, has_spool: bool) -> Daemon {
        let spool = match has_spool {
            true => format!("spool: {{directory: {}}}\n", directory.join("spool").display()),
            false => String::new(),
        };
        let yaml = format!(
            "interval: 1s\nsynchronize_with_interval: true\nkey: x\napi_hostname: {intake}\nstats_address: {elsewhere}\n\
             udp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\n{spool}"
        );
        let file = directory.join("veneur.yaml");
        fs::write(&file, yaml).expect("the temporary directory can be written");
        let (child, ready) = launch(&file);
        let statsd = field(&ready, "statsd=").replace("udp://", "");
        Daemon { child, statsd, http: field(&ready, "http=") }
    }

    /// Resident memory in MB.
    fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("it is there");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
        kib.expect("a number") / 1024.0
    }

    /// A gauge of the spool on `/metrics`.
    fn spool(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(&self.http).expect("the server is there");
        let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("the server takes it");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("the server answers");
        let start = format!("veneur_spool_{name}{{");
        let line = page.lines().find(|line| line.starts_with(&start)).expect("it is there");
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn datagrams() -> Vec<Vec<u8>> {
    let line = |n| {
        format!(
            "service.component{:04}.requests:1|c|#env:production,region:eu-west-1,shard:{}",
            n / 20,
            n % 20
        )
    };
    let lines: Vec<String> = (0..SERIES).map(line).collect();
    lines.chunks(15).map(|lines| lines.join("\n").into_bytes()).collect()
}

/// Sends every counter once, spread over an interval.
fn send(to: &str, datagrams: &[Vec<u8>]) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let started = Instant::now();
    for (number, datagram) in datagrams.iter().enumerate() {
        socket.send_to(datagram, to).expect("loopback takes it");
        if number % 50 == 49 {
            thread::sleep(Duration::from_millis(10));
        }
    }
    thread::sleep(INTERVAL.saturating_sub(started.elapsed()));
}

fn run(runtime: &tokio::runtime::Runtime, intervals: u32, has_spool: bool) {
    let directory = std::env::temp_dir().join(format!("veneur-outage-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("the temporary directory can be written");
    let intake = runtime.block_on(FakeIntake::start());
    let elsewhere = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = elsewhere.local_addr().expect("it is bound").to_string();
    let mut daemon = Daemon::start(&directory, &intake.url(), &address, has_spool);
    let datagrams = datagrams();
    let mut rounds = 0;
    let mut round = |daemon: &Daemon| {
        send(&daemon.statsd, &datagrams);
        rounds += 1;
    };

    (0..HEALTHY).for_each(|_| round(&daemon));
    let before = daemon.resident();
    intake.fail_always(Some(Fault::Status(503)));
    let mut most: f64 = 0.0;
    for _ in 0..intervals {
        round(&daemon);
        most = most.max(daemon.resident());
    }
    let (records, disk) = (daemon.spool("records"), daemon.spool("disk_bytes"));
    intake.fail_always(None);
    let (back, back_at) = (tokio::time::Instant::now(), UNIX_EPOCH.elapsed());
    let back_at = back_at.expect("it is after 1970").as_secs();
    while daemon.spool("records") > 0.0 {
        assert!(back.elapsed() < PATIENCE, "the backlog is delivered");
        round(&daemon);
    }
    most = most.max(daemon.resident());
    let stopping = Command::new("kill").arg(daemon.child.id().to_string()).status();
    assert!(stopping.expect("there is kill").success());
    assert!(daemon.child.wait().expect("it is our child").success());

    let (mut seen, mut doubled, mut counted) = (BTreeSet::new(), 0u64, 0.0);
    let mut late = Vec::new();
    for body in intake.received_at("/api/v1/series").iter().filter(|body| body.is_taken()) {
        for series in body.json()["series"].as_array().expect("a list") {
            let (at, rate) = (&series["points"][0][0], &series["points"][0][1]);
            let interval = series["interval"].as_f64().expect("a whole interval");
            counted += rate.as_f64().expect("a number") * interval;
            let identity = format!("{}{}{at}", series["metric"], series["tags"]);
            doubled += u64::from(!seen.insert(identity));
            if body.at > back && at.as_u64().is_some_and(|at| at < back_at) {
                late.push(body.at);
            }
        }
    }
    let took = late.iter().max().zip(late.iter().min()).map(|(last, first)| *last - *first);
    let took = took.expect("there was a backlog");
    let lost = (rounds * SERIES) as f64 - counted;
    println!(
        "{} | {records} requests of {intervals} intervals wait, {:.1} MB on disk | \
         memory {before:.0} MB, then {most:.0} MB | backlog delivered in {:.2} s | \
         {lost:.0} lost, {doubled} doubled",
        if has_spool { "spool " } else { "memory" },
        disk / 1e6,
        took.as_secs_f64(),
    );
    // It is the temporary directory's otherwise.
    let _ = fs::remove_dir_all(directory);
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the system gives threads");
    for has_spool in [true, false] {
        run(&runtime, asked.unwrap_or(60), has_spool);
    }
}
