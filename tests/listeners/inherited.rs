//! Each test starts this program again, through a shell that hands descriptors over as systemd
//! and Einhorn do, to run the same test; there it is the child.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use veneur::config::listen::{HttpAddress, StatsdAddress};
use veneur::ingest::{Certificates, HttpSocket, Inherited, Listeners, bind_http};

use crate::support::{Daemon, Directory, Heard, PATIENCE, settings};

/// Runs `test` in a child that gets `first` as descriptor 3 and `second` as 4, after `script`,
/// in which `$$` is the child's process id.
fn start_child(test: &str, script: &str, first: OwnedFd, second: OwnedFd) -> Child {
    let script = format!("exec 3<&0 4>&1 </dev/null >&2; {script}; exec \"$0\" \"$@\"");
    Command::new("sh")
        .args(["-c", &script])
        .arg(env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture"])
        .stdin(Stdio::from(first))
        .stdout(Stdio::from(second))
        .spawn()
        .expect("there is a shell")
}

fn inherited() -> Inherited {
    Inherited::from_environment().expect("the shell sets it right")
}

fn by_name(name: &str) -> StatsdAddress {
    StatsdAddress::Inherited(name.to_owned())
}

#[test]
fn sockets_of_systemd_are_served_and_stay_usable() {
    if env::var_os("LISTEN_FDS").is_some() {
        return serve_sockets_of_systemd();
    }
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let udp_address = udp.local_addr().expect("it is bound");
    let tcp_address = tcp.local_addr().expect("it is bound");
    let shared = |socket: &UdpSocket| OwnedFd::from(socket.try_clone().expect("it is open"));

    // Sent before anybody reads, as at the start of a host.
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    sender.send_to(b"udp:1|c", udp_address).expect("loopback takes it");
    let mut stream = TcpStream::connect(tcp_address).expect("it listens");
    stream.write_all(b"tcp:1|c\n").expect("the kernel has room");

    let mut child = start_child(
        "inherited::sockets_of_systemd_are_served_and_stay_usable",
        "exec 5<&3; export LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=statsd:lines:spare",
        shared(&udp),
        tcp.try_clone().expect("it is open").into(),
    );
    assert!(child.wait().expect("it runs").success());

    // What comes between two processes waits for the next.
    sender.send_to(b"next:1|c", udp_address).expect("loopback takes it");
    udp.set_read_timeout(Some(PATIENCE)).expect("it is open");
    udp.set_nonblocking(false).expect("it is open");
    let mut datagram = [0; 100];
    let length = udp.recv(&mut datagram).expect("it has not been closed or connected");
    assert_eq!(&datagram[..length], b"next:1|c");
    let _waiting = TcpStream::connect(tcp_address).expect("it still listens");
}

fn serve_sockets_of_systemd() {
    let mut inherited = inherited();
    // By name, and by place.
    let addresses = settings(&[by_name("statsd"), by_name("1")]);
    let listeners = Listeners::bind(&addresses, &Certificates::default(), &mut inherited)
        .expect("they are there");
    assert_eq!(inherited.unused().collect::<Vec<_>>(), ["spare"]);
    let daemon = Daemon::start(listeners);
    let kinds = daemon.addresses.iter().map(|address| match address {
        StatsdAddress::Udp(_) => "udp",
        StatsdAddress::Tcp(_) => "tcp",
        other => panic!("{other}"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["udp", "tcp"]);
    let mut heard = [daemon.hears(), daemon.hears()];
    heard.sort();
    assert_eq!(heard, [Heard::took("tcp:1|c"), Heard::took("udp:1|c")]);
    daemon.drain();

    let error =
        Listeners::bind(&settings(&[by_name("web")]), &Certificates::default(), &mut inherited);
    assert_eq!(
        error.expect_err("there is none").to_string(),
        "cannot bind fd://web: the sockets systemd passed are statsd, lines, spare"
    );
}

#[test]
fn an_http_socket_of_einhorn_is_served_and_acknowledged() {
    if env::var_os("EINHORN_FD_COUNT").is_some() {
        return serve_http_socket_of_einhorn();
    }
    let directory = Directory::new();
    let control = directory.join("einhorn.sock");
    let einhorn = UnixListener::bind(&control).expect("the directory is ours");
    let http = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = http.local_addr().expect("it is bound");

    let script = format!(
        "export EINHORN_MASTER_PID=$PPID EINHORN_FD_COUNT=1 EINHORN_FD_0=4 EINHORN_SOCK_PATH='{}'",
        control.display()
    );
    let mut child = start_child(
        "inherited::an_http_socket_of_einhorn_is_served_and_acknowledged",
        &script,
        UdpSocket::bind("127.0.0.1:0").expect("a port is free").into(),
        http.into(),
    );
    let mut client = TcpStream::connect(address).expect("it listens");
    client.write_all(b"GET").expect("the kernel has room");
    client.shutdown(Shutdown::Write).expect("it is open");

    let mut acknowledged = String::new();
    let mut control = BufReader::new(einhorn.accept().expect("the child connects").0);
    control.read_line(&mut acknowledged).expect("the child writes");
    assert_eq!(acknowledged, format!("{{\"command\": \"worker:ack\", \"pid\": {}}}\n", child.id()));
    assert!(child.wait().expect("it runs").success());
}

fn serve_http_socket_of_einhorn() {
    let mut inherited = inherited();
    let bound = bind_http("http_address", &HttpAddress::Einhorn(0).into(), None, &mut inherited)
        .expect("it is there");
    inherited.acknowledge().expect("Einhorn listens");
    let HttpSocket::Tcp(listener) = bound.socket else { panic!("not TCP") };
    listener.set_nonblocking(false).expect("it is open");
    let mut said = String::new();
    listener.accept().expect("a client").0.read_to_string(&mut said).expect("it is open");
    assert_eq!(said, "GET");

    let error = bind_http("http_address", &HttpAddress::Einhorn(1).into(), None, &mut inherited);
    assert_eq!(
        error.expect_err("there is none").to_string(),
        "cannot bind http_address einhorn@1: Einhorn has 1 sockets, counted from 0"
    );
}
