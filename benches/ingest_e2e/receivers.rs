//! Who receives: loops that only count, and the daemon's own threads.

use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use veneur::aggregate::{KeyHasher, Plan, Shard};
use veneur::config::listen::StatsdAddress;
use veneur::config::settings::{IntakeSettings, SpanSettings};
use veneur::ingest::sys::{RecvSlab, wait_readable};
use veneur::ingest::{Certificates, Inherited, Listeners};
use veneur::model::{ExtendTags, Interval, Percentile, Role, Statistic};
use veneur::pipeline::flush::Outlet;
use veneur::pipeline::{Collector, Flushed, Flusher, Intake, IntakeCounts, Router, Workers};
use veneur::telemetry::Telemetry;

use crate::load::Workload;

const BUFFER_BYTES: usize = 4 << 20;

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
pub(crate) struct Outcome {
    /// Datagrams.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) cpu_ns: u64,
}

/// A loop that only receives and counts.
pub(crate) fn null(workload: &Workload, length: Duration, nap: Option<Duration>) -> Outcome {
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
pub(crate) fn veneur(workload: &Workload, length: Duration) -> Outcome {
    let one = NonZeroUsize::MIN;
    let minute = Duration::from_secs(60);
    let settings = IntakeSettings {
        dialect: veneur::model::Dialect::DogStatsD,
        repeat_to: Vec::new(),
        listeners: vec![StatsdAddress::Udp(SocketAddr::from(([127, 0, 0, 1], 0))).into()],
        num_readers: one,
        metric_max_length: 8192,
        read_buffer_bytes: BUFFER_BYTES,
        tls: None,
        max_connections: 1,
        idle_timeout: minute,
        handshake_timeout: minute,
        spans: SpanSettings::default(),
    };
    let listeners = Listeners::bind(&settings, &Certificates::default(), &mut Inherited::default())
        .expect("a port is free");
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
