use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use veneur::config::listen::{StatsdAddress, UnixAddress};

use crate::support::{Daemon, Directory, Heard, PATIENCE, bind, listener, settings, taken};

fn unixgram(path: &Path) -> StatsdAddress {
    StatsdAddress::Unixgram(UnixAddress::Path(path.to_owned()))
}

fn unix_stream(path: &Path) -> StatsdAddress {
    StatsdAddress::UnixStream(UnixAddress::Path(path.to_owned()))
}

/// An abstract name nobody else uses.
fn abstract_name(what: &str) -> Vec<u8> {
    format!("veneur-test-{what}-{}", std::process::id()).into_bytes()
}

fn sender_to(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::unbound().expect("a socket is to be had");
    socket.connect(path).expect("somebody listens");
    socket
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short frame");
    [&length.to_le_bytes(), bytes].concat()
}

#[test]
fn a_datagram_arrives_as_it_was_sent() {
    let directory = Directory::new();
    let path = directory.join("statsd.sock");
    let daemon = Daemon::listen(&settings(&[unixgram(&path)]));
    let sender = sender_to(&path);
    for datagram in [&b"a:1|c\nb:2|c\n"[..], b"\xff\x00", &[b'x'; 100]] {
        sender.send(datagram).expect("the daemon reads");
        assert_eq!(daemon.hears(), Heard::took(datagram));
    }
    sender.send(&[b'x'; 101]).expect("the daemon reads");
    assert_eq!(daemon.hears(), Heard::TooLong);
}

#[test]
fn a_socket_has_the_mode_and_the_group_that_were_asked_for() {
    let directory = Directory::new();
    let path = directory.join("statsd.sock");
    let own = fs::metadata(directory.join(".")).expect("the test has made it");
    let (user, group) = (own.uid(), own.gid());
    for scheme in ["unix", "unixgram"] {
        let daemon = Daemon::listen(&listener(&format!(
            "{scheme}://{}?mode=0640&owner={user}&group={group}",
            path.display()
        )));
        let file = fs::metadata(&path).expect("the socket's file");
        assert_eq!((file.mode() & 0o777, file.uid(), file.gid()), (0o640, user, group), "{scheme}");
        daemon.drain();
    }
}

#[test]
fn a_socket_that_cannot_be_given_away_is_not_left_behind() {
    let directory = Directory::new();
    let path = directory.join("statsd.sock");
    let text = format!("unix://{}?owner=4294967294", path.display());
    match bind(&listener(&text)) {
        Ok(listeners) => {
            let owner = fs::metadata(&path).expect("the socket's file").uid();
            assert_eq!(owner, 4_294_967_294, "only the superuser gets here");
            drop(listeners);
        }
        Err(error) => assert_eq!(
            error.to_string(),
            format!(
                "cannot bind {text}: cannot give its file to user 4294967294: Operation not \
                 permitted (os error 1)"
            )
        ),
    }
    assert!(!path.exists());
}

#[test]
fn everyone_on_the_host_may_send_and_the_file_goes_with_the_listener() {
    let directory = Directory::new();
    let path = directory.join("statsd.sock");
    for address in [unixgram(&path), unix_stream(&path)] {
        let daemon = Daemon::listen(&settings(&[address]));
        let mode = fs::metadata(&path).expect("the socket's file").permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        daemon.drain();
        assert!(!path.exists());
    }
}

#[test]
fn abstract_names_need_no_file() {
    let (datagrams, stream) = (abstract_name("datagrams"), abstract_name("stream"));
    let daemon = Daemon::listen(&settings(&[
        StatsdAddress::Unixgram(UnixAddress::Abstract(datagrams.clone())),
        StatsdAddress::UnixStream(UnixAddress::Abstract(stream.clone())),
    ]));
    let address = |name: &[u8]| SocketAddr::from_abstract_name(name).expect("a short name");

    let sender = UnixDatagram::unbound().expect("a socket is to be had");
    sender.connect_addr(&address(&datagrams)).expect("somebody listens");
    sender.send(b"a:1|c").expect("the daemon reads");
    assert_eq!(daemon.hears(), Heard::took("a:1|c"));

    let mut sender = UnixStream::connect_addr(&address(&stream)).expect("somebody listens");
    sender.write_all(&framed(b"b:2|c\nc:3|c")).expect("the daemon reads");
    assert_eq!(daemon.hears(), Heard::took("b:2|c\nc:3|c"));
}

#[test]
fn a_file_that_a_dead_daemon_left_is_replaced_and_one_in_use_is_not() {
    let directory = Directory::new();
    for (name, address) in [("a", unixgram as fn(&Path) -> StatsdAddress), ("b", unix_stream as _)]
    {
        let path = directory.join(name);
        drop(UnixDatagram::bind(&path).expect("a fresh name"));
        assert!(path.exists(), "nothing removes it");
        let daemon = Daemon::listen(&settings(&[address(&path)]));

        for address in [unixgram(&path), unix_stream(&path)] {
            let error = bind(&settings(std::slice::from_ref(&address))).expect_err("it is in use");
            let want = format!("cannot bind {address}: somebody listens there already");
            assert_eq!(error.to_string(), want);
        }
        assert!(path.exists());
        daemon.drain();
    }
}

#[test]
fn what_is_in_the_way_of_a_socket_file_is_said() {
    let directory = Directory::new();
    let file = directory.join("file");
    fs::write(&file, "precious").expect("the directory is ours");
    let nowhere = directory.join("missing/statsd.sock");
    for (path, why) in [
        (&file, "there is a file of that name that is not a socket".to_owned()),
        (&nowhere, format!("there is no directory {}", directory.join("missing").display())),
    ] {
        let error = bind(&settings(&[unixgram(path)])).expect_err("it cannot be bound");
        assert_eq!(error.to_string(), format!("cannot bind unixgram://{}: {why}", path.display()));
    }
    assert_eq!(fs::read_to_string(&file).expect("it is still there"), "precious");
}

/// What clients could send before the drain is read; what they try later fails visibly.
#[test]
fn a_drain_loses_nothing() {
    let directory = Directory::new();
    let path = directory.join("statsd.sock");
    let daemon = Daemon::listen(&settings(&[unixgram(&path)]));
    let sender = sender_to(&path);
    // The reader stands still, so that the queue fills up.
    daemon.gate.close();
    sender.set_nonblocking(true).expect("a fresh socket");
    let mut sent = Vec::new();
    loop {
        let line = format!("m{}:1|c", sent.len()).into_bytes();
        match sender.send(&line) {
            Ok(_) => sent.push(line),
            Err(_) => break,
        }
    }
    assert!(!sent.is_empty());
    let gate = std::sync::Arc::clone(&daemon.gate);
    let draining = std::thread::spawn(|| daemon.drain());
    gate.open();
    assert_eq!(taken(draining.join().expect("the drain ends")), sent);
    assert!(sender.send(b"late:1|c").is_err());
}

#[test]
fn frames_arrive_whole_however_they_are_written() {
    let directory = Directory::new();
    let path = directory.join("statsd.sock");
    let daemon = Daemon::listen(&settings(&[unix_stream(&path)]));
    let mut sender = UnixStream::connect(&path).expect("somebody listens");
    let stream = [
        framed(b"a:1|c\nb:2|c"),
        framed(&[b'x'; 101]),
        framed(b""),
        framed(&[b'y'; 100]),
        framed(b"end"),
    ]
    .concat();
    for byte in &stream {
        sender.write_all(&[*byte]).expect("the daemon reads");
    }
    assert_eq!(daemon.hears(), Heard::took("a:1|c\nb:2|c"));
    assert_eq!(daemon.hears(), Heard::TooLong);
    assert_eq!(daemon.hears(), Heard::took([b'y'; 100]));
    assert_eq!(daemon.hears(), Heard::took("end"));
}

#[test]
fn what_does_not_send_frames_is_counted_and_closed() {
    let directory = Directory::new();
    let path = directory.join("statsd.sock");
    let daemon = Daemon::listen(&settings(&[unix_stream(&path)]));
    let mut sender = UnixStream::connect(&path).expect("somebody listens");
    sender.write_all(b"page.views:1|c\n").expect("the daemon reads");
    assert_eq!(daemon.hears(), Heard::TooLong);
    crate::streams::expect_closed(&mut sender);
}

#[test]
fn a_frame_cut_off_by_its_sender_is_counted() {
    let directory = Directory::new();
    let path = directory.join("statsd.sock");
    let daemon = Daemon::listen(&settings(&[unix_stream(&path)]));
    let mut sender = UnixStream::connect(&path).expect("somebody listens");
    sender.set_read_timeout(Some(PATIENCE)).expect("a fresh socket");
    sender.write_all(&framed(b"a:1|c")[..7]).expect("the daemon reads");
    sender.shutdown(Shutdown::Write).expect("it is open");
    crate::streams::expect_closed(&mut sender);
    daemon.ends_having_counted(&[
        "packet.error_total{packet_type:unknown,reason:incomplete} 1",
        "tcp.connects{} 1",
        "tcp.disconnects{} 1",
    ]);
}

#[test]
fn a_socket_file_of_a_successor_is_left_alone() {
    let directory = Directory::new();
    let path = directory.join("statsd.sock");
    let daemon = Daemon::listen(&settings(&[unixgram(&path)]));
    fs::remove_file(&path).expect("the directory is ours");
    let _successor = UnixListener::bind(&path).expect("the name is free");
    daemon.drain();
    assert!(path.exists());
}
