//! What a datagram costs from the socket to the shard, beside loops that only receive.
//!
//! Each receiver gets the same paced traffic over loopback in the same run: a bare `recvmmsg`
//! loop, the same with the reader's nap, and the daemon's own reader, worker and flush
//! threads. CPU is what the kernel accounts to the receiving threads (`schedstat`), flushes
//! included. Ratios are what counts; the sender shares the machine.
//!
//! `cargo bench --bench ingest_e2e [-- SECONDS]`

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use veneur::aggregate::{KeyHasher, Plan, Shard};
use veneur::config::listen::StatsdAddress;
use veneur::config::settings::IntakeSettings;
use veneur::ingest::sys::{RecvSlab, wait_readable};
use veneur::ingest::{Inherited, Listeners};
use veneur::model::{ExtendTags, Interval, Percentile, Role, Statistic};
use veneur::pipeline::flush::Outlet;
use veneur::pipeline::{Collector, Flushed, Flusher, Intake, IntakeCounts, Router, Workers};
use veneur::telemetry::Telemetry;

const BUFFER_BYTES: usize = 4 << 20;
const NAP: Duration = Duration::from_micros(500);

/// What is sent, and how fast.
struct Workload {
    name: &'static str,
    datagrams: Vec<Vec<u8>>,
    metrics_per_datagram: f64,
    /// Datagrams a second.
    rate: u64,
}

impl Workload {
    fn new(name: &'static str, series: usize, longest: usize, rate: u64) -> Workload {
        let kinds = ["c", "c", "c", "c", "c", "ms", "ms", "h", "h", "g"];
        let lines = (0..series).map(|n| {
            format!(
                "service.component{:04}.requests:{}|{}|#env:production,region:eu-west-1,\
                 host:web-{},team:core",
                n / 20,
                n % 97,
                kinds[n % kinds.len()],
                n % 20
            )
        });
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        for line in lines {
            match datagrams.last_mut() {
                Some(open) if open.len() + line.len() < longest => {
                    open.push(b'\n');
                    open.extend_from_slice(line.as_bytes());
                }
                _ => datagrams.push(line.into_bytes()),
            }
        }
        let metrics_per_datagram = series as f64 / datagrams.len() as f64;
        Workload { name, datagrams, metrics_per_datagram, rate }
    }

    /// Sends for `length`, a millisecond's share at a time; returns the datagrams sent.
    fn send(&self, to: SocketAddr, length: Duration) -> u64 {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        socket.connect(to).expect("loopback is reachable");
        let start = Instant::now();
        let mut sent = 0;
        let mut next = self.datagrams.iter().cycle();
        while start.elapsed() < length {
            let due = (start.elapsed().as_nanos() as u64).saturating_mul(self.rate) / 1_000_000_000;
            while sent < due {
                let datagram = next.next().expect("a cycle has no end");
                // A full queue shows as loss at the receiver.
                let _ = socket.send(datagram);
                sent += 1;
            }
            thread::sleep(Duration::from_millis(1));
        }
        sent
    }
}

/// CPU nanoseconds of this process's threads with such names.
fn cpu_ns(names: &[&str]) -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("this is Linux");
    tasks
        .filter_map(|task| {
            let path = task.ok()?.path();
            let name = fs::read_to_string(path.join("comm")).ok()?;
            let ours = names.iter().any(|wanted| name.trim().starts_with(wanted));
            let spent = fs::read_to_string(path.join("schedstat")).ok()?;
            ours.then(|| spent.split(' ').next()?.parse::<u64>().ok())?
        })
        .sum()
}

/// What one receiver did.
struct Outcome {
    received: u64,
    sent: u64,
    cpu_ns: u64,
}

/// A loop that only receives and counts.
fn null(workload: &Workload, length: Duration, nap: Option<Duration>) -> Outcome {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)
        .expect("sockets can be made");
    socket.set_nonblocking(true).expect("it is a socket");
    if veneur::ingest::sys::force_receive_buffer(socket.as_fd(), BUFFER_BYTES).is_err() {
        socket.set_recv_buffer_size(BUFFER_BYTES).expect("a smaller size is granted silently");
    }
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port is free");
    let to = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("it is an IPv4 socket");
    let stop = Arc::new(AtomicBool::new(false));
    let received = Arc::new(AtomicU64::new(0));
    let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&received));
    let receiver = thread::Builder::new()
        .name("null".into())
        .spawn(move || {
            let mut slab = RecvSlab::new(64, 8192);
            while !stopped.load(Ordering::Relaxed) {
                let n = slab.receive(socket.as_fd()).expect("the socket is good");
                counted.fetch_add(n as u64, Ordering::Relaxed);
                match (n, nap) {
                    (0, _) => wait_readable([socket.as_fd()], Some(Duration::from_millis(10)))
                        .expect("the socket is good"),
                    (64, _) | (_, None) => {}
                    (_, Some(nap)) => thread::sleep(nap),
                }
            }
            cpu_ns(&["null"])
        })
        .expect("threads can be made");
    let sent = workload.send(to, length);
    thread::sleep(Duration::from_millis(50));
    stop.store(true, Ordering::Relaxed);
    let cpu_ns = receiver.join().expect("it does not panic");
    Outcome { received: received.load(Ordering::Relaxed), sent, cpu_ns }
}

/// Throws flushes away: sinks have a bench of their own.
struct Nowhere;

impl Outlet for Nowhere {
    fn before_flush(&mut self) {}
    fn deliver(&mut self, _flushed: Flushed) {}
}

/// The daemon's path: reader, worker, flush every second.
fn veneur(workload: &Workload, length: Duration) -> Outcome {
    let one = NonZeroUsize::MIN;
    let minute = Duration::from_secs(60);
    let settings = IntakeSettings {
        listeners: vec![StatsdAddress::Udp(SocketAddr::from(([127, 0, 0, 1], 0)))],
        num_readers: one,
        metric_max_length: 8192,
        read_buffer_bytes: BUFFER_BYTES,
        tls: None,
        max_connections: 1,
        idle_timeout: minute,
        handshake_timeout: minute,
    };
    let listeners = Listeners::bind(&settings, &mut Inherited::default()).expect("a port is free");
    let to = match listeners.addresses()[..] {
        [StatsdAddress::Udp(to)] => to,
        ref other => panic!("one UDP listener, not {other:?}"),
    };
    let shard = Shard::new(Role::Global, ExtendTags::default());
    let workers = Workers::start([shard]).expect("threads can be made");
    let collector = Arc::new(Collector::new(ExtendTags::default(), SystemTime::now));
    let quantiles = [0.5, 0.75, 0.99].map(|q| Percentile::new(q).expect("a quantile"));
    let flusher = Flusher {
        inboxes: workers.inboxes(),
        collector: Arc::clone(&collector),
        plan: Plan::new(
            Role::Global,
            &[Statistic::Max, Statistic::Min, Statistic::Count],
            &quantiles,
        ),
        interval: Interval::new(Duration::from_secs(1)).expect("not zero"),
        synchronize: false,
        waits: false,
        now: SystemTime::now,
    };
    let flush = flusher.start(Nowhere).expect("threads can be made");
    let counts = Arc::new(IntakeCounts::default());
    let hasher = KeyHasher::random();
    let running = listeners
        .start(&Telemetry::default(), |_| {
            let router = Router::new(hasher, workers.doors());
            Intake::new(router, Arc::clone(&collector), Arc::clone(&counts))
        })
        .expect("threads can be made");
    let sent = workload.send(to, length);
    thread::sleep(Duration::from_millis(50));
    let cpu_ns = cpu_ns(&["reader", "worker", "flush"]);
    let left = running.drain(Duration::from_secs(5));
    assert!(left.is_empty(), "{left:?} did not end");
    flush.stop();
    workers.join();
    assert_eq!(counts.refused().count(), 0, "every line is good");
    Outcome { received: counts.packets.get(), sent, cpu_ns }
}

fn main() {
    let seconds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(3.0);
    let length = Duration::from_secs_f64(seconds);
    let workloads = [
        Workload::new("W1 one metric, 1,000 series", 1_000, 1, 50_000),
        Workload::new("W1 at 150k/s", 1_000, 1, 150_000),
        Workload::new("W2 packed to 1,432 bytes", 1_000, 1_432, 15_000),
        Workload::new("W3 packed, 100,000 series", 100_000, 1_432, 15_000),
    ];
    println!(
        "{:<30} {:<16} {:>10} {:>8} {:>12} {:>12} {:>8}",
        "workload", "receiver", "datagrams", "lost", "us/datagram", "us/metric", "x nap"
    );
    for workload in &workloads {
        let base = null(workload, length, Some(NAP));
        let outcomes = [
            ("recvmmsg", null(workload, length, None)),
            ("recvmmsg + nap", base),
            ("veneur", veneur(workload, length)),
        ];
        let per_datagram =
            |outcome: &Outcome| outcome.cpu_ns as f64 / outcome.received.max(1) as f64 / 1000.0;
        let floor = per_datagram(&outcomes[1].1);
        for (receiver, outcome) in &outcomes {
            let cost = per_datagram(outcome);
            println!(
                "{:<30} {receiver:<16} {:>10} {:>8} {cost:>12.3} {:>12.4} {:>8.2}",
                workload.name,
                outcome.received,
                outcome.sent.saturating_sub(outcome.received),
                cost / workload.metrics_per_datagram,
                cost / floor,
            );
        }
    }
}
