use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, thread};

use veneur::config::listen::StatsdAddress;
use veneur::config::settings::IntakeSettings;

use crate::support::{Daemon, Heard, PATIENCE, bind, settings, taken};

fn tcp(address: &str) -> StatsdAddress {
    StatsdAddress::Tcp(address.parse().expect("an address in a test"))
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_nodelay(true).expect("a fresh socket");
    stream.set_read_timeout(Some(PATIENCE)).expect("a fresh socket");
    stream
}

/// Waits until the daemon has closed the connection.
pub(crate) fn expect_closed(stream: &mut impl Read) {
    let mut nothing = [0; 1];
    match stream.read(&mut nothing) {
        Ok(0) => {}
        // It had not read everything when it closed.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not closed: {other:?}"),
    }
}

#[test]
fn lines_arrive_one_by_one() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let daemon = Daemon::listen(&settings(&[tcp(address)]));
        let mut client = connect(daemon.inet());
        client.write_all(b"a:1|c\nb:2|c\r\n\nc:").expect("the daemon reads");
        assert_eq!(daemon.hears(), Heard::took("a:1|c"));
        assert_eq!(daemon.hears(), Heard::took("b:2|c\r"));
        client.write_all(b"3|c\nd:4|c").expect("the daemon reads");
        assert_eq!(daemon.hears(), Heard::took("c:3|c"));
        client.shutdown(Shutdown::Write).expect("it is open");
        assert_eq!(daemon.hears(), Heard::took("d:4|c"), "the last line needs no newline");
        expect_closed(&mut client);
        daemon.ends_having_counted(&["tcp.connects{} 1", "tcp.disconnects{} 1"]);
    }
}

#[test]
fn a_line_that_is_too_long_is_counted_once_and_reading_goes_on_behind_it() {
    let daemon = Daemon::listen(&settings(&[tcp("127.0.0.1:0")]));
    let mut client = connect(daemon.inet());
    client.write_all(&vec![b'x'; 1 << 20]).expect("the daemon reads");
    client.write_all(b"\na:1|c\n").expect("the daemon reads");
    assert_eq!(daemon.hears(), Heard::TooLong);
    assert_eq!(daemon.hears(), Heard::took("a:1|c"));
}

#[test]
fn what_was_taken_is_handed_over_when_due_although_nothing_more_comes() {
    let daemon = Daemon::listen(&settings(&[tcp("127.0.0.1:0")]));
    let mut client = connect(daemon.inet());
    client.write_all(b"a:1|c\n").expect("the daemon reads");
    assert_eq!(daemon.next(), Heard::took("a:1|c"));
    assert_eq!(daemon.next(), Heard::HandedOver);

    // The last line, which is taken only when the client has gone, as well.
    client.write_all(b"last:1|c").expect("the daemon reads");
    drop(client);
    assert_eq!(daemon.next(), Heard::took("last:1|c"));
    assert_eq!(daemon.next(), Heard::HandedOver);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_counted_and_others_go_on() {
    let few = IntakeSettings { max_connections: 2, ..settings(&[tcp("127.0.0.1:0")]) };
    let daemon = Daemon::listen(&few);
    let mut clients = [connect(daemon.inet()), connect(daemon.inet())];
    for client in &mut clients {
        client.write_all(b"a:1|c\n").expect("the daemon reads");
        assert_eq!(daemon.hears(), Heard::took("a:1|c"));
    }
    expect_closed(&mut connect(daemon.inet()));

    // Once one has gone there is room again. Its last line is heard when it goes.
    let [mut first, mut second] = clients;
    second.write_all(b"gone:1|c").expect("the daemon reads");
    second.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(daemon.hears(), Heard::took("gone:1|c"));
    let mut third = connect(daemon.inet());
    for client in [&mut first, &mut third] {
        client.write_all(b"d:1|c\n").expect("the daemon reads");
        assert_eq!(daemon.hears(), Heard::took("d:1|c"));
    }
    let (_, counted) = daemon.drain_and_count();
    assert_eq!(
        counted,
        ["tcp.connects{} 3", "tcp.disconnects{} 3", "tcp.refused_total{reason:limit} 1"]
    );
}

#[test]
fn a_silent_connection_is_closed_and_its_half_line_counted() {
    let idle_timeout = Duration::from_millis(50);
    let impatient = IntakeSettings { idle_timeout, ..settings(&[tcp("127.0.0.1:0")]) };
    let daemon = Daemon::listen(&impatient);
    let mut client = connect(daemon.inet());
    client.write_all(b"a:1|c\nb:").expect("the daemon reads");
    expect_closed(&mut client);
    assert_eq!(daemon.hears(), Heard::took("a:1|c"));
    daemon.ends_having_counted(&[
        "packet.error_total{packet_type:unknown,reason:incomplete} 1",
        "tcp.connects{} 1",
        "tcp.disconnects{} 1",
        "tcp.idle_timeouts_total{} 1",
    ]);
}

/// Runs `test`, whose name is given, again in a child that may open few descriptors.
fn with_few_descriptors(name: &str, test: fn()) {
    if env::var_os("FEW_DESCRIPTORS").is_some() {
        return test();
    }
    let status = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
        .arg(env::current_exe().expect("this program"))
        .args([name, "--exact", "--nocapture"])
        .env("FEW_DESCRIPTORS", "1")
        .status();
    assert!(status.expect("there is a shell").success());
}

/// Opens all files it may.
fn every_descriptor() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// The daemon starts its listeners from within its own runtime.
#[test]
fn a_lack_of_descriptors_at_the_start_is_an_error() {
    with_few_descriptors("streams::a_lack_of_descriptors_at_the_start_is_an_error", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("there are descriptors yet");
        let start = |free| {
            let listeners = bind(&settings(&[tcp("127.0.0.1:0")])).expect("the address is free");
            let mut taken = every_descriptor();
            taken.truncate(taken.len().saturating_sub(free));
            runtime.block_on(async { Daemon::try_start(listeners) })
        };
        let mut free = 0;
        while let Err(error) = start(free) {
            assert_eq!(error.raw_os_error(), Some(24), "EMFILE, with {free} free: {error}");
            free += 1;
        }
        assert!(free > 2, "a pipe and a reactor take more than {free}");
    });
}

#[test]
fn a_lack_of_descriptors_is_counted_and_passes() {
    with_few_descriptors("streams::a_lack_of_descriptors_is_counted_and_passes", lack_descriptors);
}

fn lack_descriptors() {
    let daemon = Daemon::listen(&settings(&[tcp("127.0.0.1:0")]));
    let address = daemon.inet();
    let mut taken = every_descriptor();
    // One for the client, none for the daemon.
    taken.pop();
    let mut client = connect(address);
    client.write_all(b"a:1|c\n").expect("the kernel has room");
    let start = Instant::now();
    while daemon.counted().is_empty() {
        assert!(start.elapsed() < PATIENCE, "the daemon notices");
        thread::yield_now();
    }
    drop(taken);
    assert_eq!(daemon.hears(), Heard::took("a:1|c"));
    let (_, counted) = daemon.drain_and_count();
    assert!(counted[0].starts_with("listen.errors_total{during:accept} "), "{counted:?}");
    assert_eq!(counted[1..], ["tcp.connects{} 1", "tcp.disconnects{} 1"]);
}

/// What the kernel has when the drain begins is read: of open connections, and of one that has
/// not been accepted.
#[test]
fn a_drain_loses_nothing() {
    let daemon = Daemon::listen(&settings(&[tcp("127.0.0.1:0")]));
    let mut client = connect(daemon.inet());
    client.write_all(b"first:1|c\n").expect("the daemon reads");
    assert_eq!(daemon.hears(), Heard::took("first:1|c"));

    daemon.gate.close();
    let mut sent: Vec<_> = (0..1000).map(|i| format!("m{i:04}:1|c")).collect();
    client.write_all((sent.join("\n") + "\n").as_bytes()).expect("the kernel has room");
    let mut late = connect(daemon.inet());
    late.write_all(b"late:1|c\n").expect("the kernel has room");
    let gate = Arc::clone(&daemon.gate);
    let draining = thread::spawn(|| daemon.drain());
    gate.open();
    let mut heard = taken(draining.join().expect("the drain ends"));
    heard.sort();
    sent.insert(0, "late:1|c".to_owned());
    let sent: Vec<_> = sent.into_iter().map(String::into_bytes).collect();
    assert_eq!(heard, sent);
    expect_closed(&mut client);
    expect_closed(&mut late);
}

/// A client that never stops sending keeps the daemon from ending neither for ever nor for as
/// long as a drain may take.
#[test]
fn a_drain_ends_soon_although_a_client_goes_on() {
    let daemon = Daemon::listen(&settings(&[tcp("127.0.0.1:0")]));
    let mut client = connect(daemon.inet());
    let sending = thread::spawn(move || while client.write_all(b"a:1|c\n").is_ok() {});
    assert_eq!(daemon.hears(), Heard::took("a:1|c"));
    let start = Instant::now();
    assert_eq!(daemon.drain().last(), Some(&Heard::HandedOverAll));
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    sending.join().expect("writing ends with an error");
}

#[test]
fn a_busy_connection_does_not_keep_others_waiting() {
    let daemon = Daemon::listen(&settings(&[tcp("127.0.0.1:0")]));
    let mut busy = connect(daemon.inet());
    let flood = "busy:1|c\n".repeat(1000);
    let flooding = thread::spawn(move || while busy.write_all(flood.as_bytes()).is_ok() {});
    assert_eq!(daemon.hears(), Heard::took("busy:1|c"));
    let mut quiet = connect(daemon.inet());
    quiet.write_all(b"quiet:1|c\n").expect("the daemon reads");
    while daemon.hears() != Heard::took("quiet:1|c") {}
    assert_eq!(daemon.drain_within(Duration::from_millis(500)), Vec::<String>::new());
    flooding.join().expect("writing ends with an error");
}
