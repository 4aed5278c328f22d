//! What a flush of 100,000 series costs: how long it keeps the worker from its inbox, and what
//! the daemon takes for it in CPU and memory, with the Datadog sink.
//!
//! The second is measured on the daemon itself, as a process: it is sent samples at 100,000 a
//! second, then nothing, and flushes to an intake that only counts. Memory is what the kernel
//! says is resident, once everything is received and at its peak; CPU is user and system time
//! of all threads between the last sample and the last body. It is run with several sizes of
//! body.
//!
//! `cargo bench --bench flush`

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::ZlibDecoder;
use veneur::aggregate::{KeyHasher, Shard};
use veneur::model::{ExtendTags, Role};
use veneur::pipeline::worker::Work;
use veneur::pipeline::{Router, Workers};
use veneur::protocol::dogstatsd::{self, Message};

const SERIES: usize = 100_000;
const METRICS_PER_SECOND: f64 = 100_000.0;
/// Long enough for the most samples of a load to be received within one.
const INTERVAL: Duration = Duration::from_secs(8);

/// What is sent.
struct Load {
    name: &'static str,
    /// Types, in turn.
    kinds: &'static [&'static str],
    /// Of each series.
    samples: usize,
}

const MIXED: Load = Load {
    name: "mixed, 2 samples each",
    kinds: &[
        "c", "ms", "c", "h", "c", "ms", "c", "h", "c", "g", "c", "ms", "c", "h", "c", "ms", "c",
        "h", "c", "s",
    ],
    samples: 2,
};
const TIMERS: Load = Load { name: "timers, 5 samples each", kinds: &["ms"], samples: 5 };

impl Load {
    fn line(&self, series: usize, sample: usize) -> String {
        format!(
            "service.component{:04}.requests:{}|{}|#env:production,region:eu-west-1,\
             host:web-{},team:core",
            series / 20,
            (series * 7919 + sample * 104_729) % 9973,
            self.kinds[series % self.kinds.len()],
            series % 20
        )
    }

    fn samples(&self) -> usize {
        SERIES * self.samples
    }
}

fn main() {
    println!("How long a flush of {SERIES} series keeps the worker from its inbox, us");
    println!("{:<26} {:>8} {:>8} {:>8}", "", "least", "median", "most");
    for load in [&MIXED, &TIMERS] {
        let mut pauses = pauses(load);
        pauses.sort();
        let micros = |pause: Duration| pause.as_micros();
        println!(
            "{:<26} {:>8} {:>8} {:>8}",
            load.name,
            micros(pauses[0]),
            micros(pauses[pauses.len() / 2]),
            micros(pauses[pauses.len() - 1])
        );
    }
    println!();
    println!("The daemon with {SERIES} series and the Datadog sink");
    println!(
        "{:<26} {:>9} {:>8} {:>9} {:>8} {:>9} {:>8} {:>9}",
        "", "per body", "CPU, s", "loaded MB", "peak MB", "points", "bodies", "body MB"
    );
    for load in [&MIXED, &TIMERS] {
        for points_per_body in [5_000, 25_000, 1_000_000] {
            let flushed = flush_of_a_daemon(load, points_per_body);
            println!(
                "{:<26} {:>9} {:>8.2} {:>9.1} {:>8.1} {:>9} {:>8} {:>9.1}",
                load.name,
                points_per_body,
                flushed.cpu.as_secs_f64(),
                flushed.loaded_kb as f64 / 1000.0,
                flushed.peak_kb as f64 / 1000.0,
                flushed.points,
                flushed.bodies,
                flushed.body_bytes as f64 / 1e6,
            );
        }
    }
}

/// The pauses of some flushes, each of all series, in a worker that works on samples of theirs
/// before and after.
fn pauses(load: &Load) -> Vec<Duration> {
    let shard = Shard::new(Role::Global, ExtendTags::default());
    let workers = Workers::start([shard]).expect("threads can be made");
    let inboxes = workers.inboxes();
    let mut router = Router::new(KeyHasher::random(), inboxes.clone());
    let lines: Vec<String> = (0..SERIES).map(|series| load.line(series, 0)).collect();
    // Not in the order of their slots.
    let shuffled = (0..SERIES).map(|n| n * 7919 % SERIES);
    let flush = |_| {
        for _ in 0..load.samples {
            for series in shuffled.clone() {
                let bytes = lines[series].as_bytes();
                if let Ok(Message::Metric(line)) = dogstatsd::parse(bytes) {
                    router.push(bytes, &line);
                    router.settle(bytes);
                }
            }
        }
        router.hand_over_all();
        let (reply, answer) = sync_channel(1);
        inboxes[0].send(Work::Flush(reply)).expect("the worker is there");
        let drained = answer.recv().expect("the worker answers");
        assert_eq!(drained.snapshot.entries.len(), SERIES);
        drained.report.pause
    };
    (0..11).map(flush).collect()
}

/// What one flush of a daemon took.
struct Flushed {
    cpu: Duration,
    loaded_kb: u64,
    peak_kb: u64,
    points: u64,
    bodies: u64,
    body_bytes: u64,
}

fn flush_of_a_daemon(load: &Load, points_per_body: usize) -> Flushed {
    let intake = Intake::start();
    let daemon = Daemon::start(&intake, points_per_body);
    send(load, daemon.statsd);
    // The reader naps for half a millisecond at most.
    thread::sleep(Duration::from_millis(200));
    let (cpu_loaded, loaded_kb) = (daemon.cpu(), daemon.status_kb("VmRSS"));
    assert_eq!(intake.counted(&intake.bodies), 0, "everything was sent within an interval");
    let expected = |load: &Load| {
        let of_kind = |kind: &&str| if matches!(*kind, "ms" | "h") { 6 } else { 1 };
        load.kinds.iter().map(of_kind).sum::<usize>() * SERIES / load.kinds.len()
    };
    let deadline = Instant::now() + 2 * INTERVAL;
    while intake.counted(&intake.points) < expected(load) as u64 {
        assert!(Instant::now() < deadline, "{} points", intake.counted(&intake.points));
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(Duration::from_millis(200));
    Flushed {
        cpu: daemon.cpu() - cpu_loaded,
        loaded_kb,
        peak_kb: daemon.status_kb("VmHWM"),
        points: intake.counted(&intake.points),
        bodies: intake.counted(&intake.bodies),
        body_bytes: intake.counted(&intake.bytes),
    }
}

/// Sends every sample once, in datagrams of up to 1,432 bytes.
fn send(load: &Load, to: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    socket.connect(to).expect("loopback is reachable");
    let samples =
        (0..load.samples).flat_map(|sample| (0..SERIES).map(move |series| (series, sample)));
    let start = Instant::now();
    let mut datagram = Vec::new();
    for (sent, (series, sample)) in samples.enumerate() {
        let line = load.line(series, sample);
        if datagram.len() + line.len() >= 1432 {
            socket.send(&datagram).expect("the daemon listens");
            datagram.clear();
            let due = Duration::from_secs_f64(sent as f64 / METRICS_PER_SECOND);
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
        datagram.extend_from_slice(line.as_bytes());
        datagram.push(b'\n');
    }
    socket.send(&datagram).expect("the daemon listens");
    let late = start.elapsed().as_secs_f64() - load.samples() as f64 / METRICS_PER_SECOND;
    assert!(late < 1.0, "the machine is too busy to send at this rate");
}

/// The daemon as a process; killed when dropped.
struct Daemon {
    process: Child,
    statsd: SocketAddr,
}

impl Daemon {
    fn start(intake: &Intake, points_per_body: usize) -> Daemon {
        let config = std::env::temp_dir().join(format!("veneur-bench-{}.yaml", std::process::id()));
        let text = format!(
            "interval: {}s\nstatsd_listen_addresses: [\"udp://127.0.0.1:0\"]\nhttp_address: \"\"\n\
             read_buffer_size_bytes: 4194304\nstats_address: 127.0.0.1:9\n\
             datadog_api_key: key\ndatadog_api_hostname: http://{}\nflush_max_per_body: {}\n",
            INTERVAL.as_secs(),
            intake.address,
            points_per_body
        );
        fs::write(&config, text).expect("there is a directory for temporary files");
        let mut process = Command::new(env!("CARGO_BIN_EXE_veneur"))
            .arg("-f")
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .expect("cargo has built the daemon");
        let mut log = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let statsd = log.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) =
                line.split_once("statsd=\"udp://").or(line.split_once("statsd=udp://"))?;
            let end = address.find(|c: char| !(c.is_ascii_digit() || ".:".contains(c)));
            address[..end.unwrap_or(address.len())].parse().ok()
        });
        // Whatever else it says is read, so that it never waits for a reader.
        thread::spawn(move || log.for_each(drop));
        fs::remove_file(config).expect("it was written");
        Daemon { process, statsd: statsd.expect("the daemon says where it listens") }
    }

    /// User and system time of all its threads.
    fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).expect("it runs");
        let spent = |task: io::Result<fs::DirEntry>| -> Option<u64> {
            let spent = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            spent.split(' ').next()?.parse().ok()
        };
        Duration::from_nanos(tasks.filter_map(spent).sum())
    }

    fn status_kb(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("it runs");
        let line = status.lines().find(|line| line.starts_with(field)).expect("Linux has it");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number of kB")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An intake that counts points.
struct Intake {
    address: SocketAddr,
    bodies: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    points: Arc<AtomicU64>,
}

impl Intake {
    fn start() -> Intake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let [bodies, bytes, points] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
        let counts = [&bodies, &bytes, &points].map(Arc::clone);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let [bodies, bytes, points] = counts.clone();
                thread::spawn(move || {
                    let mut stream = BufReader::new(stream);
                    while let Ok(Some(body)) = read_request(&mut stream) {
                        bodies.fetch_add(1, Ordering::Relaxed);
                        bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
                        points.fetch_add(count_points(&body), Ordering::Relaxed);
                    }
                });
            }
        });
        Intake { address, bodies, bytes, points }
    }

    fn counted(&self, count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

/// Reads and answers one request; `None` at the end of the connection.
fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    stream.get_mut().write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")?;
    Ok(Some(body))
}

fn count_points(body: &[u8]) -> u64 {
    let mut text = Vec::new();
    ZlibDecoder::new(body).read_to_end(&mut text).expect("a body is a zlib stream");
    memchr::memmem::find_iter(&text, b"\"points\":").count() as u64
}
