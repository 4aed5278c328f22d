//! What is sent: lines as services send them, one or many a datagram, paced or not.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// The longest datagram of a packed workload: what fits an Ethernet frame.
const PACKED: usize = 1_432;

/// What is sent, and how fast.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// What the daemon may cost.
    pub(crate) target: Target,
    pub(crate) datagrams: Vec<Vec<u8>>,
    pub(crate) metrics_per_datagram: f64,
    /// Datagrams a second; as fast as possible if there is none.
    rate: Option<f64>,
}

/// CPU time the daemon may take.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Times what the bare loop with a nap takes.
    Times(f64),
    /// Microseconds a metric.
    Micros(f64),
}

/// How lines look.
#[derive(Clone, Copy)]
pub(crate) enum Dialect {
    /// Four tags; kinds 50 % c, 20 % ms, 20 % h, 5 % g, 5 % s.
    DogStatsD,
    /// No tags; kinds 60 % c, 30 % ms, 10 % g.
    Etsy,
}

impl Workload {
    /// `metrics_per_second` is for the steady ones.
    pub(crate) fn new(
        name: &'static str,
        target: Target,
        (dialect, series): (Dialect, usize),
        is_packed: bool,
        metrics_per_second: Option<f64>,
    ) -> Workload {
        let longest = if is_packed { PACKED } else { 1 };
        let metrics = series.max(20_000);
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        let mut random = Random(1);
        for n in 0..metrics {
            let line = dialect.line(n * 7919 % series, &mut random);
            match datagrams.last_mut() {
                Some(open) if open.len() + line.len() < longest => {
                    open.push(b'\n');
                    open.extend_from_slice(line.as_bytes());
                }
                _ => datagrams.push(line.into_bytes()),
            }
        }
        let metrics_per_datagram = metrics as f64 / datagrams.len() as f64;
        let rate = metrics_per_second.map(|rate| rate / metrics_per_datagram);
        Workload { name, target, datagrams, metrics_per_datagram, rate }
    }

    /// Sends for `length`, a millisecond's share at a time; returns the datagrams sent.
    pub(crate) fn send(&self, to: SocketAddr, length: Duration) -> u64 {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        socket.connect(to).expect("loopback is reachable");
        let start = Instant::now();
        let mut sent = 0;
        let mut next = self.datagrams.iter().cycle();
        while start.elapsed() < length {
            let due = match self.rate {
                Some(rate) => (start.elapsed().as_secs_f64() * rate) as u64,
                None => sent + 64,
            };
            for datagram in next.by_ref().take((due - sent) as usize) {
                // A full queue shows as loss at the receiver.
                let _ = socket.send(datagram);
            }
            sent = due;
            if self.rate.is_some() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        sent
    }
}

impl Dialect {
    /// A sample of one of the series.
    fn line(self, series: usize, random: &mut Random) -> String {
        const SERVICES: [&str; 10] =
            ["web", "api", "auth", "pay", "cart", "mail", "img", "feed", "user", "push"];
        const PARTS: [&str; 8] = ["db", "req", "cache", "queue", "page", "conn", "task", "lock"];
        // Twenty series share a name, and so a kind.
        let name = series / 20;
        let shares: &[(&str, &str, usize)] = match self {
            Dialect::DogStatsD => &[
                ("count", "c", 50),
                ("time", "ms", 20),
                ("size", "h", 20),
                ("depth", "g", 5),
                ("users", "s", 5),
            ],
            Dialect::Etsy => &[("count", "c", 60), ("time", "ms", 30), ("depth", "g", 10)],
        };
        let mut place = name * 37 % 100;
        let (what, kind) = shares
            .iter()
            .find_map(|&(what, kind, share)| {
                let found = place < share;
                place = place.wrapping_sub(share);
                found.then_some((what, kind))
            })
            .unwrap_or(("count", "c"));
        let value = match kind {
            "c" if random.below(4) > 0 => "1".to_owned(),
            "c" | "h" => random.below(1_000).to_string(),
            "s" => format!("u{}", random.below(1_000)),
            _ => format!("{:.3}", random.below(200_000) as f64 / 1000.0),
        };
        let (service, part) = (SERVICES[name % 10], PARTS[name / 10 % 8]);
        let number = match name / 80 {
            0 => String::new(),
            more => more.to_string(),
        };
        let tag = series % 20;
        let (env, az) = (["prod", "stage", "qa", "dev"][tag % 4], ["a", "b", "c"][tag % 3]);
        match self {
            Dialect::DogStatsD => format!(
                "{service}{number}.{part}.{what}:{value}|{kind}|#env:{env},az:{az},code:20{},host:h{tag}",
                tag % 5
            ),
            Dialect::Etsy => format!("{service}{number}.{part}.{what}.h{tag}:{value}|{kind}"),
        }
    }
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
