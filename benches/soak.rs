//! What hours of trouble do to a daemon: whether its memory stays flat and its ledger exact.
//!
//! The real program takes samples by UDP and a Unix socket, flushes every two seconds to a
//! stand-in for the intake, and forwards to a second one. All the while the intake fails in one
//! way after the other, the global node is stopped and started, the local one is told to reload,
//! and series come and go. In the end every sample must have arrived once, or been counted by
//! the kernel as dropped, and no series may have two points of one second.
//!
//! `cargo bench --bench soak [-- MINUTES [PER_SECOND]]`

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use books::Page;
use fake_intake::{FakeIntake, Fault, Received};
use launch::{field, launch};

#[path = "../tests/support/books.rs"]
mod books;
#[path = "../tests/support/fake_intake.rs"]
mod fake_intake;
#[path = "support/launch.rs"]
mod launch;

/// Lines of one datagram, each with one sample.
const LINES: u64 = 10;
/// Series of each kind that are there all the time.
const SERIES: u64 = 500;
/// A series of those that come and go gets so many samples.
const CHURN: u64 = 50;
const TICK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(180);

/// The program, killed when dropped.
struct Daemon {
    child: Child,
    http: String,
    config: PathBuf,
}

impl Daemon {
    fn start(config: PathBuf, yaml: &str) -> Daemon {
        fs::write(&config, yaml).expect("the temporary directory can be written");
        let (child, ready) = launch(&config);
        Daemon { child, http: field(&ready, "http="), config }
    }

    fn page(&self) -> Page {
        Page::read(&self.http).expect("the server is there")
    }

    /// Resident memory in MB.
    fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("it is there");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
        kib.expect("a number") / 1024.0
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        assert!(sent.expect("there is kill").success());
    }

    fn stop(&mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().expect("it is our child").success());
    }

    /// Waits until nothing is kept and everything adds up.
    fn settle(&self) {
        let start = Instant::now();
        loop {
            let (page, kept) = (self.page(), self.page().sum("veneur_spool_items", ""));
            let wrong: Vec<String> = page.imbalances().iter().map(ToString::to_string).collect();
            if kept == 0 && wrong.is_empty() {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{kept} are kept, and {wrong:#?}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was sent, by name: counters and timers by how many samples.
#[derive(Default)]
struct Sent {
    counters: AtomicU64,
    global: AtomicU64,
    timers: AtomicU64,
    churn: AtomicU64,
    samples: AtomicU64,
    datagrams: AtomicU64,
}

impl Sent {
    /// Datagram number `n`, which counts as sent.
    fn datagram(&self, n: u64, client: u64) -> String {
        let lines: Vec<String> = (n * LINES..(n + 1) * LINES)
            .map(|n| {
                let id = n / LINES % SERIES;
                let counter = match n % LINES {
                    0..=4 => {
                        self.counters.fetch_add(1, Ordering::Relaxed);
                        return format!("soak.hits.{}:1|c|#env:prod,id:{id}", n % 5);
                    }
                    5 => &self.global,
                    6 | 7 => &self.timers,
                    8 => return format!("soak.users:u{n}|s|#env:prod,id:{}", id % 20),
                    _ => &self.churn,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                match n % LINES {
                    5 => format!("soak.global:1|c|#env:prod,id:{id},veneurglobalonly"),
                    6 | 7 => format!("soak.load:{}|ms|#env:prod,id:{}", n % 997, id % 100),
                    _ => format!("soak.churn:1|c|#client:{client},id:{}", n / LINES / CHURN),
                }
            })
            .collect();
        self.samples.fetch_add(LINES, Ordering::Relaxed);
        self.datagrams.fetch_add(1, Ordering::Relaxed);
        lines.join("\n")
    }
}

/// Sends so many samples a second until told to stop.
fn client(
    number: u64,
    per_second: u64,
    sent: &Arc<Sent>,
    stop: &Arc<AtomicBool>,
    mut send: impl FnMut(&[u8]) + Send + 'static,
) -> JoinHandle<()> {
    let (sent, stop) = (Arc::clone(sent), Arc::clone(stop));
    thread::spawn(move || {
        let (start, mut n) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            let due = start.elapsed().as_secs_f64() * per_second as f64 / LINES as f64;
            while n < due as u64 {
                send(sent.datagram(n, number).as_bytes());
                n += 1;
            }
            thread::sleep(TICK);
        }
    })
}

/// What has arrived at an intake, by name; and points that came twice.
#[derive(Default)]
struct Arrived {
    counts: BTreeMap<String, f64>,
    points: HashSet<u64>,
    twice: u64,
}

impl Arrived {
    fn take_in(&mut self, requests: Vec<Received>) {
        let bodies = requests.iter().filter(|it| it.is_taken() && it.path == "/api/v1/series");
        for body in bodies {
            for series in body.json()["series"].as_array().expect("a list") {
                let name = series["metric"].as_str().expect("a name");
                let (at, value) = (&series["points"][0][0], &series["points"][0][1]);
                let mut hasher = DefaultHasher::new();
                (name, series["tags"].to_string(), at.to_string()).hash(&mut hasher);
                self.twice += u64::from(!self.points.insert(hasher.finish()));
                if series["type"] == "rate" {
                    let name = match name.strip_prefix("soak.hits.") {
                        Some(_) => "soak.hits",
                        None => name,
                    };
                    let interval = series["interval"].as_f64().expect("a whole interval");
                    *self.counts.entry(name.to_owned()).or_default() +=
                        value.as_f64().expect("a number") * interval;
                }
            }
        }
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.get(name).map_or(0, |count| count.round() as u64)
    }
}

/// Everything that runs.
struct Scene {
    directory: PathBuf,
    intakes: [FakeIntake; 2],
    arrived: [Arrived; 2],
    local: Daemon,
    global: Option<Daemon>,
    global_yaml: String,
    restarts: u32,
    reloads: u32,
    faults: u32,
}

impl Scene {
    /// What happens in second number `second`.
    fn second(&mut self, second: u64) {
        let faults = [
            Fault::Status(503),
            Fault::Hang,
            Fault::Reset,
            Fault::RetryAfter(429, "3".to_owned()),
            Fault::Slow(Duration::from_secs(1)),
            Fault::Endless(500),
        ];
        // Out of 50 seconds the intake fails for 20.
        match second % 50 {
            15 => {
                self.faults += 1;
                let fault = faults[(second / 50) as usize % faults.len()].clone();
                self.intakes[0].fail_always(Some(fault));
            }
            35 => self.intakes[0].fail_always(None),
            _ => {}
        }
        match second % 70 {
            20 => {
                // It flushes what it has.
                if let Some(mut global) = self.global.take() {
                    global.stop();
                }
            }
            30 => {
                self.restarts += 1;
                self.global = Some(self.start_global());
            }
            _ => {}
        }
        if second % 30 == 25 {
            self.reloads += 1;
            let yaml = fs::read_to_string(&self.local.config).expect("it was written");
            let (one, other) = ("percentiles: [0.5, 0.99]", "percentiles: [0.5, 0.95]");
            let yaml = match yaml.contains(one) {
                true => yaml.replace(one, other),
                false => yaml.replace(other, one),
            };
            fs::write(&self.local.config, yaml).expect("it can be written");
            self.local.signal("-HUP");
        }
        self.take_in();
    }

    fn start_global(&self) -> Daemon {
        Daemon::start(self.directory.join("global.yaml"), &self.global_yaml)
    }

    fn take_in(&mut self) {
        for (arrived, intake) in self.arrived.iter_mut().zip(&self.intakes) {
            arrived.take_in(intake.take_received());
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

fn set(runtime: &tokio::runtime::Runtime, directory: &Path, statsd: &str) -> Scene {
    let intakes = [(); 2].map(|()| runtime.block_on(FakeIntake::start()));
    let port = free_port();
    let global_yaml = format!(
        "interval: 2s\nsynchronize_with_interval: true\nkey: x\napi_hostname: {}\n\
         stats_address: {statsd}\nudp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:{port}\n",
        intakes[1].url()
    );
    let yaml = format!(
        "interval: 2s\nsynchronize_with_interval: true\nkey: x\napi_hostname: {}\n\
         stats_address: {statsd}\nhttp_address: 127.0.0.1:0\nread_buffer_size_bytes: 8388608\n\
         forward_address: http://127.0.0.1:{port}\naggregates: [count, max]\n\
         percentiles: [0.5, 0.99]\nspool: {{directory: {}}}\n\
         statsd_listen_addresses: ['udp://127.0.0.1:{}', 'unixgram://{}']\n",
        intakes[0].url(),
        directory.join("spool").display(),
        free_port(),
        directory.join("dsd.sock").display(),
    );
    let global = Daemon::start(directory.join("global.yaml"), &global_yaml);
    let local = Daemon::start(directory.join("local.yaml"), &yaml);
    Scene {
        directory: directory.to_owned(),
        intakes,
        arrived: Default::default(),
        local,
        global: Some(global),
        global_yaml,
        restarts: 0,
        reloads: 0,
        faults: 0,
    }
}

fn main() {
    let numbers: Vec<f64> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let minutes = numbers.first().copied().unwrap_or(30.0);
    let per_second = numbers.get(1).map_or(30_000, |&asked| asked as u64);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("the system gives threads");
    let directory = std::env::temp_dir().join(format!("veneur-soak-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("the temporary directory can be written");
    let elsewhere = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let statsd = elsewhere.local_addr().expect("it is bound").to_string();
    let mut scene = set(&runtime, &directory, &statsd);

    let (sent, stop) = (Arc::new(Sent::default()), Arc::new(AtomicBool::new(false)));
    let yaml = fs::read_to_string(&scene.local.config).expect("it was written");
    let udp = yaml.split("udp://").nth(1).and_then(|rest| rest.split('\'').next());
    let by_udp = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    by_udp.connect(udp.expect("it is there")).expect("it listens");
    let by_unix = UnixDatagram::unbound().expect("it is to be had");
    by_unix.connect(directory.join("dsd.sock")).expect("it listens");
    let clients = [
        client(0, per_second / 2, &sent, &stop, move |datagram| {
            by_udp.send(datagram).expect("nobody refuses it");
        }),
        client(1, per_second / 2, &sent, &stop, move |datagram| {
            by_unix.send(datagram).expect("nobody refuses it");
        }),
    ];

    let (start, mut resident) = (Instant::now(), Vec::new());
    let seconds = (minutes * 60.0) as u64;
    for second in 1..=seconds {
        let due = Duration::from_secs(second);
        thread::sleep(due.saturating_sub(start.elapsed()));
        scene.second(second);
        resident.push(scene.local.resident());
        if second % 60 == 0 {
            let minute = second / 60;
            println!("{minute} min: {:.1} MB", resident.last().copied().unwrap_or(0.0));
        }
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("it does not fail"));
    scene.intakes[0].fail_always(None);
    let mut global = scene.global.take().unwrap_or_else(|| scene.start_global());
    scene.local.settle();
    let page = scene.local.page();
    scene.local.stop();
    global.settle();
    global.stop();
    scene.take_in();
    report(&scene, &sent, &page, &resident);
    // It is the temporary directory's otherwise.
    let _ = fs::remove_dir_all(directory);
}

fn report(scene: &Scene, sent: &Sent, page: &Page, resident: &[f64]) {
    let part = |part: usize| {
        let third = &resident[resident.len() * part / 3..resident.len() * (part + 1) / 3];
        let mean = third.iter().sum::<f64>() / third.len().max(1) as f64;
        (mean, third.iter().copied().fold(0.0, f64::max))
    };
    let thirds = [part(0), part(1), part(2)];
    println!(
        "{} samples in {} s; the intake failed {} times, {} restarts of the global node, {} reloads",
        sent.samples.load(Ordering::Relaxed),
        resident.len(),
        scene.faults,
        scene.restarts,
        scene.reloads
    );
    for ((mean, most), name) in thirds.iter().zip(["first", "second", "last"]) {
        println!("resident, {name} third: {mean:.1} MB, at most {most:.1}");
    }
    let kernel = page.sum("veneur_listen_kernel_drops_total", "");
    let received = page.sum("veneur_listen_received_per_protocol_total", "");
    let datagrams = sent.datagrams.load(Ordering::Relaxed);
    println!("{datagrams} datagrams sent, {received} received, {kernel} dropped by the kernel");
    assert_eq!(datagrams, received + kernel);
    let mut lost = 0;
    for (name, at, sent) in [
        ("soak.hits", 0, &sent.counters),
        ("soak.churn", 0, &sent.churn),
        ("soak.load.count", 0, &sent.timers),
        ("soak.global", 1, &sent.global),
    ] {
        let (sent, arrived) = (sent.load(Ordering::Relaxed), scene.arrived[at].count(name));
        println!("{name}: {sent} sent, {arrived} arrived");
        assert!(arrived <= sent);
        lost += sent - arrived;
    }
    let twice = scene.arrived[0].twice + scene.arrived[1].twice;
    println!("{lost} lost beyond the socket, {twice} points share a series and a second");
    assert_eq!(twice, 0);
    // A datagram has nine lines of these.
    assert_eq!(lost, kernel * (LINES - 1), "what the kernel dropped is all that is missing");
    let ((before, _), (after, _)) = (thirds[1], thirds[2]);
    assert!(after < before * 1.1 + 1.0, "memory grows: {before:.1} MB, then {after:.1}");
    println!("the ledger is exact and memory is flat");
}
