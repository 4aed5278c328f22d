//! One daemon takes over from another while clients go on sending: nothing is lost, nothing
//! counts twice, and no client notices.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fs, io};

use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use veneur::ingest::sys;

use crate::fake_intake::{FakeIntake, Fault};
use crate::ledger::settle;
use crate::support::{DEADLINE, Daemon, free_port, http, scratch_directory, wait_until};

/// Where a daemon and its successors are to be found.
pub(crate) struct Place {
    directory: PathBuf,
    config: Value,
    /// Takes their own telemetry, and forgets it.
    _statsd: UdpSocket,
}

impl Place {
    pub(crate) fn new(intake: &FakeIntake, interval: &str) -> Place {
        let directory = scratch_directory();
        let statsd = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let config = json!({
            "interval": interval,
            "api_hostname": intake.url(),
            "key": "0123456789abcdef",
            "statsd_listen_addresses": [
                format!("udp://127.0.0.1:{}", free_port()),
                format!("tcp://127.0.0.1:{}", free_port()),
                format!("unixgram://{}", directory.join("dsd.sock").display()),
                format!("unix://{}", directory.join("dsd.stream").display()),
            ],
            "http_address": format!("127.0.0.1:{}", free_port()),
            "takeover_socket": directory.join("takeover.sock"),
            "stats_address": statsd.local_addr().expect("it is bound").to_string(),
        });
        Place { directory, config, _statsd: statsd }
    }

    pub(crate) fn with(&self, more: Value) -> String {
        let mut config = self.config.clone();
        let fields = config.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        config.to_string()
    }

    fn yaml(&self) -> String {
        self.config.to_string()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left is in the temporary directory.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Clients that send a counter each until they are stopped.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<(&'static str, JoinHandle<u64>)>,
}

/// What a client sends in one go, and how long it then rests.
const BURST: u64 = 10;
const REST: Duration = Duration::from_millis(10);

impl Load {
    pub(crate) fn start(daemon: &Daemon) -> Load {
        let mut load = Load { stop: Arc::default(), clients: Vec::new() };
        let address = |scheme: &str| {
            let found = daemon.statsd.iter().find_map(|address| address.strip_prefix(scheme));
            found.expect("it listens there").to_owned()
        };
        // Connected once: it would notice if the socket went away.
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        udp.connect(address("udp://")).expect("it listens");
        load.client("by.udp", move |line| udp.send(line).map(drop));
        let unix = UnixDatagram::unbound().expect("it is to be had");
        unix.connect(address("unixgram://")).expect("it listens");
        load.client("by.unixgram", move |line| unix.send(line).map(drop));
        let tcp = address("tcp://");
        let mut kept = TcpStream::connect(&tcp).expect("it listens");
        load.client("by.tcp", move |line| {
            let mut stream = TcpStream::connect(&tcp)?;
            stream.write_all(line)?;
            stream.write_all(b"\n")
        });
        // These rest in the middle of a line and of a frame.
        load.client("by.one_tcp", move |line| {
            kept.write_all(b"\n")?;
            kept.write_all(line)
        });
        let mut stream = UnixStream::connect(address("unix://")).expect("it listens");
        let length = |line: &[u8]| u32::try_from(line.len()).expect("it is short").to_le_bytes();
        let mut is_begun = false;
        load.client("by.one_unix", move |line| {
            if !is_begun {
                stream.write_all(&length(line))?;
                is_begun = true;
            }
            stream.write_all(line)?;
            stream.write_all(&length(line))
        });
        load
    }

    fn client(
        &mut self,
        name: &'static str,
        mut send: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) {
        let stop = Arc::clone(&self.stop);
        let line = format!("{name}:1|c");
        let client = thread::spawn(move || {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..BURST {
                    send(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
                }
                sent += BURST;
                thread::sleep(REST);
            }
            sent
        });
        self.clients.push((name, client));
    }

    /// Stops all clients; what each has sent.
    pub(crate) fn stop(self) -> BTreeMap<String, f64> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.clients.into_iter().map(|(name, client)| {
            (name.to_owned(), client.join().expect("nothing it sends fails") as f64)
        });
        sent.collect()
    }
}

/// What has arrived of each counter that was taken. No series has two points of one second.
pub(crate) fn arrived(intake: &FakeIntake) -> BTreeMap<String, f64> {
    let mut totals = BTreeMap::new();
    let mut seconds = BTreeMap::new();
    let taken = intake.received().into_iter().filter(|request| request.is_taken());
    for series in taken
        .filter(|request| request.path == "/api/v1/series")
        .flat_map(|request| request.json()["series"].as_array().cloned().unwrap_or_default())
    {
        let name = series["metric"].as_str().expect("a name").to_owned();
        let second = series["points"][0][0].as_i64().expect("a second");
        let rate = series["points"][0][1].as_f64().expect("a number");
        let count = rate * series["interval"].as_f64().expect("a rate has an interval");
        if let Some(other) = seconds.insert((name.clone(), second), count) {
            panic!("{name} has {other} and {count} at {second}");
        }
        *totals.entry(name).or_insert(0.0) += count;
    }
    totals
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takeovers_lose_nothing_and_double_nothing() {
    let intake = FakeIntake::start().await;
    let place = Place::new(&intake, "1s");
    let sent = blocking(move || {
        let mut daemon = Daemon::start(&place.yaml());
        let load = Load::start(&daemon);
        let inode = |name| fs::metadata(place.file(name)).expect("the socket is there").ino();
        let inodes = (inode("dsd.sock"), inode("takeover.sock"));
        for _ in 0..6 {
            let successor = Daemon::start_successor(&place.yaml());
            let mut old = std::mem::replace(&mut daemon, successor);
            let status = old.wait();
            assert!(status.success(), "{status}:\n{}", old.rest_of_log());
            assert_eq!(http(&daemon.http, "GET", "/ready"), (200, "ready\n".to_owned()));
        }
        assert_eq!((inode("dsd.sock"), inode("takeover.sock")), inodes);
        let sent = load.stop();
        settle(&daemon.http);
        daemon.stop();
        assert!(!place.file("dsd.sock").exists() && !place.file("takeover.sock").exists());
        sent
    });
    let sent = sent.await;
    assert_eq!(arrived(&intake), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_on_disk_passes_to_the_successor() {
    let intake = FakeIntake::start().await;
    intake.fail_always(Some(Fault::Status(503)));
    let place = Place::new(&intake, "1s");
    let yaml = place.with(json!({"spool": {"directory": place.file("spool")}}));
    let (mut daemon, load, _place) = blocking(move || {
        let mut daemon = Daemon::start(&yaml);
        let load = Load::start(&daemon);
        for _ in 0..2 {
            let successor = Daemon::start_successor(&yaml);
            let mut old = std::mem::replace(&mut daemon, successor);
            assert!(old.wait().success(), "{}", old.rest_of_log());
        }
        (daemon, load, place)
    })
    .await;
    intake.fail_always(None);
    // Fresh data that is taken has what waits follow.
    intake.wait_for(|requests| requests.iter().find(|it| it.is_taken()).map(|_| ())).await;
    let sent = load.stop();
    intake.wait_for(|_| (arrived(&intake) == sent).then_some(())).await;
    let stopping = blocking(move || {
        settle(&daemon.http);
        daemon.stop();
    });
    stopping.await;
    assert_eq!(arrived(&intake), sent);
}

/// What a successor is given, as far as it says nothing.
fn sockets_of(control: &Path) -> (Socket, Vec<String>) {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("it is to be had");
    socket.connect(&SockAddr::unix(control).expect("a path")).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("it is open");
    let mut said = Vec::new();
    while said.last().is_none_or(|last| last != "end") {
        let mut bytes = [0; 4096];
        let (length, passed) = sys::receive_message(&socket, &mut bytes).expect("it answers");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        assert_eq!(passed.is_some(), text.starts_with("socket "), "{text}");
        assert!(!text.is_empty() && !text.starts_with("refused"), "{said:?} {text}");
        said.push(text);
    }
    (socket, said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_dies_changes_nothing() {
    let intake = FakeIntake::start().await;
    let place = Place::new(&intake, "1s");
    let sent = blocking(move || {
        let mut daemon = Daemon::start(&place.yaml());
        let load = Load::start(&daemon);
        // One that has all sockets and ends.
        let (successor, said) = sockets_of(&place.file("takeover.sock"));
        // The control socket, four listeners, HTTP; a greeting and an end.
        assert_eq!(said.len(), 8, "{said:?}");
        drop(successor);
        daemon.wait_for_log("going on as before");
        // One that cannot have what it wants beyond.
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let grpc = taken.local_addr().expect("it is bound").to_string();
        let yaml = place.with(json!({"grpc_address": grpc}));
        let mut successor = Daemon::launch_with(&["--takeover"], &yaml, &[]);
        assert_eq!(successor.wait().code(), Some(1));
        successor.wait_for_log("cannot bind grpc_address");
        daemon.wait_for_log("going on as before");
        assert_eq!(http(&daemon.http, "GET", "/ready").0, 200);
        // And one that can.
        let mut successor = Daemon::start_successor(&place.yaml());
        assert!(daemon.wait().success(), "{}", daemon.rest_of_log());
        let sent = load.stop();
        successor.stop();
        sent
    });
    let sent = sent.await;
    assert_eq!(arrived(&intake), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_stopped_amid_a_takeover_leaves_all_to_the_successor() {
    let intake = FakeIntake::start().await;
    let place = Place::new(&intake, "5m");
    blocking(move || {
        let mut daemon = Daemon::start(&place.yaml());
        let (successor, _) = sockets_of(&place.file("takeover.sock"));
        daemon.stop();
        // Its clients are the successor's now, and find it.
        assert!(place.file("dsd.sock").exists() && place.file("takeover.sock").exists());
        let mut bytes = [0; 100];
        let said = sys::receive_message(&successor, &mut bytes).map(|(length, _)| length);
        assert!(said.is_ok_and(|length| length == 0), "it has ended without a word");
    })
    .await;
}

/// A running daemon that has no sockets and then says nothing; and the successor that came to it.
fn stuck_predecessor(place: &Place) -> (Socket, Daemon) {
    let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("it is to be had");
    let path = place.file("takeover.sock");
    listener.bind(&SockAddr::unix(&path).expect("a path")).expect("the directory is ours");
    listener.listen(1).expect("it is bound");
    let successor = Daemon::launch_with(&["--takeover"], &place.yaml(), &[]);
    let (connection, _) = listener.accept().expect("the successor comes");
    drop(listener);
    fs::remove_file(path).expect("it is ours");
    for word in [&b"veneur takeover 1"[..], b"end"] {
        sys::send_message(&connection, word, None).expect("room for it");
    }
    let mut bytes = [0; 100];
    let (length, _) = sys::receive_message(&connection, &mut bytes).expect("it answers");
    assert_eq!(&bytes[..length], b"ready ");
    (connection, successor)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_waits_for_the_last_word_and_not_for_a_dead_one() {
    let intake = FakeIntake::start().await;
    let (one, other) = (Place::new(&intake, "5m"), Place::new(&intake, "5m"));
    let address = one.config["statsd_listen_addresses"][0].as_str().expect("a text").to_owned();
    blocking(move || {
        // It reads meanwhile, and can be stopped.
        let (_stuck, mut successor) = stuck_predecessor(&one);
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let to = address.strip_prefix("udp://").expect("it is");
        client.send_to(b"meanwhile:1|c", to).expect("loopback takes it");
        successor.stop();
        let (stuck, mut successor) = stuck_predecessor(&other);
        drop(stuck);
        successor.wait_for_log("the predecessor ended without a word");
        successor.wait_until_ready();
        successor.stop();
    })
    .await;
    assert_eq!(arrived(&intake), BTreeMap::from([("meanwhile".to_owned(), 1.0)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_predecessor_a_successor_starts_as_usual() {
    let intake = FakeIntake::start().await;
    let place = Place::new(&intake, "5m");
    blocking(move || {
        let mut daemon = Daemon::start_successor(&place.yaml());
        let control = fs::metadata(place.file("takeover.sock")).expect("it is there");
        assert_eq!(control.permissions().mode() & 0o777, 0o600);
        // Its files stay behind.
        daemon.signal("KILL");
        daemon.wait();
        let mut next = Daemon::start_successor(&place.yaml());
        next.stop();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_without_the_key_hands_nothing_over() {
    let intake = FakeIntake::start().await;
    let place = Place::new(&intake, "5m");
    blocking(move || {
        let mut daemon = Daemon::start(&place.with(json!({"takeover_socket": ""})));
        let mut successor = Daemon::launch_with(&["--takeover"], &place.yaml(), &[]);
        assert_eq!(successor.wait().code(), Some(1));
        successor.wait_for_log("cannot bind");
        assert_eq!(http(&daemon.http, "GET", "/ready").0, 200);
        let without = place.with(json!({"takeover_socket": ""}));
        let mut successor = Daemon::launch_with(&["--takeover"], &without, &[]);
        assert_eq!(successor.wait().code(), Some(64));
        successor.wait_for_log("--takeover needs takeover_socket");
        daemon.stop();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_of_another_user_gets_nothing() {
    const NOBODY: u32 = 65_534;
    if sys::own_user() != 0 {
        eprintln!("SKIPPED: only root can be another user");
        return;
    }
    let intake = FakeIntake::start().await;
    let place = Place::new(&intake, "5m");
    blocking(move || {
        let mut daemon = Daemon::start(&place.yaml());
        // Even if the file's mode would let it in.
        let control = place.file("takeover.sock");
        fs::set_permissions(&control, fs::Permissions::from_mode(0o666)).expect("it is ours");
        // A shell's own redirection is no packet socket; Python, where it is, has them.
        let script = "import socket, sys\n\
            s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n\
            s.connect(sys.argv[1])\n\
            print(s.recv(4096).decode())\n";
        let asked = Command::new("python3")
            .args(["-c", script])
            .arg(&control)
            .uid(NOBODY)
            .current_dir("/")
            .output();
        match asked {
            Ok(asked) if asked.status.success() => {
                let said = String::from_utf8_lossy(&asked.stdout);
                assert_eq!(said.trim(), "refused it is of user 0, not of 65534");
                daemon.wait_for_log("a process of user 65534 asked for the sockets");
            }
            other => eprintln!("SKIPPED: Python cannot ask as nobody: {other:?}"),
        }
        daemon.stop();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_is_told_who_goes_on() {
    let intake = FakeIntake::start().await;
    let place = Place::new(&intake, "5m");
    blocking(move || {
        let path = place.file("notify.sock");
        let manager = UnixDatagram::bind(&path).expect("the directory is ours");
        manager.set_read_timeout(Some(DEADLINE)).expect("it is open");
        let told = || {
            let mut bytes = [0; 1000];
            let length = manager.recv(&mut bytes).expect("they say something");
            String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
        };
        let path = path.display().to_string();
        let notify = [("NOTIFY_SOCKET", path.as_str())];
        let mut daemon = Daemon::launch_with(&[], &place.yaml(), &notify);
        assert_eq!(told(), "READY=1");
        let mut successor = Daemon::launch_with(&["--takeover"], &place.yaml(), &notify);
        assert_eq!(told(), format!("MAINPID={}", successor.pid()));
        assert_eq!(told(), "READY=1");
        assert!(daemon.wait().success(), "{}", daemon.rest_of_log());
        successor.stop();
        // The end of the first was none of the service.
        assert_eq!(told(), "STOPPING=1");
        manager.set_nonblocking(true).expect("it is open");
        assert!(manager.recv(&mut [0; 10]).is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_may_have_another_number_of_readers_and_listeners() {
    let intake = FakeIntake::start().await;
    let place = Place::new(&intake, "1s");
    let sent = blocking(move || {
        let mut daemon = Daemon::start(&place.with(json!({"num_readers": 2})));
        let load = Load::start(&daemon);
        for readers in [3, 1, 2] {
            let successor = Daemon::start_successor(&place.with(json!({"num_readers": readers})));
            assert_eq!(successor.statsd, daemon.statsd);
            let mut old = std::mem::replace(&mut daemon, successor);
            assert!(old.wait().success(), "{}", old.rest_of_log());
        }
        let sent = load.stop();
        // One listener less: its file goes with the old one.
        let only = place.with(json!({"statsd_listen_addresses": [daemon.statsd[0]]}));
        let mut last = Daemon::start_successor(&only);
        assert!(daemon.wait().success(), "{}", daemon.rest_of_log());
        wait_until("the file is gone", || !place.file("dsd.sock").exists());
        last.stop();
        sent
    });
    let sent = sent.await;
    assert_eq!(arrived(&intake), sent);
}
