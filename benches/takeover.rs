//! What restarts by `--takeover` lose under load: nothing, it is to be.
//!
//! The real program is replaced again and again, a second apart, while clients that connected
//! once send it 25,000 counters a second each over UDP and a Unix socket, one a datagram, and
//! one that keeps its TCP connection 1,000. Every sample must arrive once at a stand-in for the
//! intake, and no series may have two points of one second.
//!
//! `cargo bench --bench takeover [-- RESTARTS]`

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fake_intake::FakeIntake;

#[path = "../tests/support/fake_intake.rs"]
mod fake_intake;

const SERIES: u64 = 1_000;
const BETWEEN: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(2);

fn launch(config: &Path) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_veneur"))
        .arg("--takeover")
        .arg("-f")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    let log = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut lines = log.lines().map_while(Result::ok);
    lines.find(|line| line.contains(" ready ")).expect("it gets ready");
    thread::spawn(move || {
        for line in lines.filter(|line| line.contains("WARN") || line.contains("ERROR")) {
            eprintln!("{line}");
        }
    });
    child
}

/// Sends so many samples a second until it is told to stop; how many it has sent.
fn client(
    name: &'static str,
    per_second: u64,
    stop: &Arc<AtomicBool>,
    mut send: impl FnMut(&[u8]) + Send + 'static,
) -> JoinHandle<u64> {
    let stop = Arc::clone(stop);
    let lines: Vec<String> = (0..SERIES).map(|n| format!("by.{name}:1|c|#n:{n}\n")).collect();
    thread::spawn(move || {
        let (start, mut sent) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) {
            let due = (start.elapsed().as_secs_f64() * per_second as f64) as u64;
            while sent < due {
                send(lines[(sent % SERIES) as usize].as_bytes());
                sent += 1;
            }
            thread::sleep(TICK);
        }
        sent
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let restarts: u32 = asked.unwrap_or(20);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("the system gives threads");
    let intake = runtime.block_on(FakeIntake::start());
    let directory = std::env::temp_dir().join(format!("veneur-takeover-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("the temporary directory can be written");
    let elsewhere = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let (udp, tcp) = (free_port(), free_port());
    let socket = directory.join("dsd.sock");
    let config = directory.join("veneur.yaml");
    let yaml = format!(
        "interval: 1s\nkey: x\napi_hostname: {}\nstats_address: {}\n\
         http_address: 127.0.0.1:{}\ntakeover_socket: {}\nread_buffer_size_bytes: 8388608\n\
         statsd_listen_addresses: ['udp://127.0.0.1:{udp}', 'tcp://127.0.0.1:{tcp}', 'unixgram://{}']\n",
        intake.url(),
        elsewhere.local_addr().expect("it is bound"),
        free_port(),
        directory.join("takeover.sock").display(),
        socket.display(),
    );
    fs::write(&config, yaml).expect("the temporary directory can be written");

    let mut daemon = launch(&config);
    let stop = Arc::new(AtomicBool::new(false));
    let by_udp = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    by_udp.connect(("127.0.0.1", udp)).expect("it listens");
    let by_unix = UnixDatagram::unbound().expect("it is to be had");
    by_unix.connect(&socket).expect("it listens");
    let mut by_tcp = TcpStream::connect(("127.0.0.1", tcp)).expect("it listens");
    let clients = [
        (
            "udp",
            client("udp", 25_000, &stop, move |line| {
                by_udp.send(line).expect("nobody refuses it");
            }),
        ),
        (
            "unixgram",
            client("unixgram", 25_000, &stop, move |line| {
                by_unix.send(line).expect("nobody refuses it");
            }),
        ),
        (
            "tcp",
            client("tcp", 1_000, &stop, move |line| {
                by_tcp.write_all(line).expect("nobody closes it");
            }),
        ),
    ];
    let mut longest = Duration::ZERO;
    for _ in 0..restarts {
        thread::sleep(BETWEEN);
        let start = Instant::now();
        let successor = launch(&config);
        longest = longest.max(start.elapsed());
        let mut old = std::mem::replace(&mut daemon, successor);
        assert!(old.wait().expect("it is our child").success());
    }
    thread::sleep(BETWEEN);
    stop.store(true, Ordering::Relaxed);
    let sent = clients.map(|(name, client)| (name, client.join().expect("it does not fail")));
    let stopping = Command::new("kill").arg(daemon.id().to_string()).status();
    assert!(stopping.expect("there is kill").success());
    assert!(daemon.wait().expect("it is our child").success());

    let (mut arrived, mut points, mut collisions) = (BTreeMap::new(), BTreeMap::new(), 0);
    for body in intake.received_at("/api/v1/series").iter().filter(|body| body.is_taken()) {
        for series in body.json()["series"].as_array().expect("a list") {
            let (at, rate) = (&series["points"][0][0], &series["points"][0][1]);
            let count = rate.as_f64().expect("a number")
                * series["interval"].as_f64().expect("a rate has an interval");
            let name = series["metric"].as_str().expect("a name").to_owned();
            let identity = format!("{name}{}{at}", series["tags"]);
            collisions += u64::from(points.insert(identity, ()).is_some());
            *arrived.entry(name).or_insert(0.0) += count;
        }
    }
    for (name, sent) in sent {
        let arrived = arrived.get(&format!("by.{name}")).copied().unwrap_or(0.0);
        println!("{name}: {sent} sent, {arrived} arrived, {} lost", sent as f64 - arrived);
    }
    println!(
        "{restarts} restarts, the longest took {longest:.2?} from start to ready; \
         {collisions} points share a series and a second"
    );
    // It is the temporary directory's otherwise.
    let _ = fs::remove_dir_all(directory);
}
