//! Who may talk to a listener, and what becomes of the others.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};

use socket2::{Domain, Socket, Type};

use crate::support::{Daemon, Heard, PATIENCE, listener};

/// Another host, as far as an allow-list can tell: all of 127.0.0.0/8 is loopback.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const FRIEND: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn send(from: IpAddr, to: SocketAddr, line: &[u8]) {
    let socket = UdpSocket::bind((from, 0)).expect("loopback is there");
    socket.send_to(line, (from, to.port())).expect("loopback takes it");
}

/// Connects from `from`, sends a line and waits until the daemon has closed.
fn connect(from: IpAddr, to: SocketAddr) {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("sockets");
    socket.bind(&SocketAddr::new(from, 0).into()).expect("loopback is there");
    socket.connect(&to.into()).expect("somebody listens");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a fresh socket");
    // Who was turned away may notice it here, or below.
    let _ = stream.write_all(b"a:1|c\n");
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read(&mut [0]);
}

#[test]
fn a_datagram_of_a_host_that_is_not_listed_is_refused_and_counted() {
    let daemon = Daemon::listen(&listener("udp://0.0.0.0:0?allow=127.0.0.1"));
    let address = daemon.inet();
    for line in ["first:1|c", "second:1|c"] {
        send(STRANGER, address, b"strange:1|c");
        assert_eq!(daemon.hears(), Heard::NotAllowed);
        send(FRIEND, address, line.as_bytes());
        assert_eq!(daemon.hears(), Heard::took(line));
    }
    send(STRANGER, address, &[b'x'; 200]);
    assert_eq!(daemon.hears(), Heard::NotAllowed, "not that it is too long");
    send(FRIEND, address, &[b'x'; 200]);
    assert_eq!(daemon.hears(), Heard::TooLong);
    assert_eq!(daemon.drain(), [Heard::HandedOverAll]);
}

#[test]
fn networks_of_ipv4_hold_on_a_socket_of_both_families() {
    let daemon = Daemon::listen(&listener("udp://[::]:0?allow=127.0.0.1/32"));
    let address = daemon.inet();
    send(FRIEND, address, b"a:1|c");
    assert_eq!(daemon.hears(), Heard::took("a:1|c"));
    for stranger in [STRANGER, Ipv6Addr::LOCALHOST.into()] {
        send(stranger, address, b"a:1|c");
        assert_eq!(daemon.hears(), Heard::NotAllowed, "{stranger}");
    }
}

#[test]
fn a_connection_of_a_host_that_is_not_listed_is_closed_and_counted() {
    let daemon = Daemon::listen(&listener("tcp://127.0.0.1:0?allow=127.0.0.1"));
    let address = daemon.inet();
    connect(STRANGER, address);
    connect(FRIEND, address);
    assert_eq!(daemon.hears(), Heard::took("a:1|c"));
    daemon.ends_having_counted(&[
        "tcp.connects{} 1",
        "tcp.disconnects{} 1",
        "tcp.refused_total{reason:not_allowed} 1",
    ]);
}
