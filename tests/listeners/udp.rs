use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use veneur::config::settings::IntakeSettings;

use crate::support::{Daemon, Heard, bind, settings, taken, udp};

fn sender_to(address: SocketAddr) -> UdpSocket {
    let any = match address {
        SocketAddr::V4(_) => "127.0.0.1:0",
        SocketAddr::V6(_) => "[::1]:0",
    };
    let socket = UdpSocket::bind(any).expect("a port is free");
    socket.connect(address).expect("loopback is there");
    socket
}

fn readers(count: usize, address: &str) -> IntakeSettings {
    let num_readers = NonZeroUsize::new(count).expect("a test wants some");
    IntakeSettings { num_readers, ..settings(&[udp(address)]) }
}

#[test]
fn a_datagram_arrives_as_it_was_sent() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let daemon = Daemon::listen(&settings(&[udp(address)]));
        let sender = sender_to(daemon.inet());
        for datagram in [&b"a:1|c\nb:2|c\n"[..], b"", b"\xff\x00", &[b'x'; 100]] {
            sender.send(datagram).expect("loopback takes it");
            assert_eq!(daemon.hears(), Heard::took(datagram), "{address}");
        }
        assert_eq!(daemon.drain(), [Heard::HandedOverAll]);
    }
}

#[test]
fn a_dual_stack_listener_hears_both_families() {
    let daemon = Daemon::listen(&settings(&[udp("[::]:0")]));
    let port = daemon.inet().port();
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        sender_to((ip, port).into()).send(b"a:1|c").expect("loopback takes it");
        assert_eq!(daemon.hears(), Heard::took("a:1|c"));
    }
    assert_eq!(daemon.drain(), [Heard::HandedOverAll]);
}

#[test]
fn a_datagram_that_is_too_long_is_refused_whole_and_costs_its_neighbours_nothing() {
    let daemon = Daemon::listen(&settings(&[udp("127.0.0.1:0")]));
    let sender = sender_to(daemon.inet());
    for datagram in [&b"before:1|c"[..], &[b'x'; 101], &[b'x'; 10_000], b"after:1|c"] {
        sender.send(datagram).expect("loopback takes it");
    }
    // How many of them one read brings, and so their order, is the kernel's business.
    let mut heard = [(); 4].map(|()| daemon.hears());
    heard.sort();
    let took = [Heard::took("after:1|c"), Heard::took("before:1|c")];
    assert_eq!(heard[..2], took);
    assert_eq!(heard[2..], [Heard::TooLong, Heard::TooLong]);
}

#[test]
fn readers_share_one_address() {
    let daemon = Daemon::listen(&readers(4, "127.0.0.1:0"));
    let address = daemon.inet();
    // The kernel chooses a socket by the sender's port: many senders reach all of them.
    let senders: Vec<_> = (0..64).map(|_| sender_to(address)).collect();
    let mut sent: Vec<_> = (0..64).map(|i| format!("m{i}:1|c").into_bytes()).collect();
    for (sender, line) in senders.iter().zip(&sent) {
        sender.send(line).expect("loopback takes it");
    }
    let mut taken = daemon.takes(64);
    taken.sort();
    sent.sort();
    assert_eq!(taken, sent);
    assert_eq!(daemon.drain(), vec![Heard::HandedOverAll; 4]);
}

#[test]
fn what_was_taken_is_handed_over_when_due_although_nothing_more_comes() {
    let daemon = Daemon::listen(&settings(&[udp("127.0.0.1:0")]));
    sender_to(daemon.inet()).send(b"a:1|c").expect("loopback takes it");
    assert_eq!(daemon.next(), Heard::took("a:1|c"));
    assert_eq!(daemon.next(), Heard::HandedOver);
}

/// What the sockets hold when the drain begins is read; of what comes meanwhile, nothing is
/// lost between the old sockets and a successor's; later nothing reaches the old ones.
#[test]
fn a_drain_loses_nothing() {
    for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"] {
        let old = Daemon::listen(&readers(2, address));
        let port = old.inet().port();
        let to = match old.inet() {
            SocketAddr::V4(_) => SocketAddr::from(([127, 0, 0, 1], port)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        };
        let senders: Vec<_> = (0..16).map(|_| sender_to(to)).collect();
        let send = |numbers: Range<usize>| -> Vec<Vec<u8>> {
            let lines = numbers.map(|i| {
                let line = format!("m{i:04}:1|c").into_bytes();
                senders[i % senders.len()].send(&line).expect("loopback takes it");
                line
            });
            lines.collect()
        };
        // The readers stand still, so that everything queues in their sockets.
        old.gate.close();
        let before = send(0..1000);
        let new = Daemon::listen(&readers(2, &old.inet().to_string()));
        let gate = Arc::clone(&old.gate);
        let draining = thread::spawn(|| old.drain());
        gate.open();
        let during = send(1000..2000);
        let heard_by_old = taken(draining.join().expect("the drain ends"));
        let after = send(2000..3000);

        let heard_by_new = new.takes(3000 - heard_by_old.len());
        assert!(before.iter().all(|line| heard_by_old.contains(line)), "{address}");
        assert!(after.iter().all(|line| heard_by_new.contains(line)), "{address}");
        let mut heard = [heard_by_old, heard_by_new].concat();
        heard.sort();
        assert_eq!(heard, [before, during, after].concat(), "{address}");
    }
}

#[test]
fn datagrams_the_kernel_dropped_are_told() {
    let small = IntakeSettings { read_buffer_bytes: 1, ..settings(&[udp("127.0.0.1:0")]) };
    let listeners = bind(&small).expect("a port is free");
    let probes = listeners.drop_probes().expect("descriptors are to be had");
    let daemon = Daemon::start(listeners);
    let sender = sender_to(daemon.inet());
    daemon.gate.close();
    for _ in 0..1000 {
        sender.send(&[b'x'; 100]).expect("loopback takes it");
    }
    daemon.gate.open();
    let taken = daemon.drain().len() - 1;
    let [probe] = &probes[..] else { panic!("one socket, one probe") };
    for _ in 0..2 {
        let dropped = probe.dropped().expect("the kernel tells") as usize;
        assert!(dropped > 0);
        assert_eq!(taken + dropped, 1000);
    }
    assert_eq!(probe.info().thread, "reader-0");
}

#[test]
fn an_address_in_use_is_named_with_the_cause() {
    // Without SO_REUSEPORT, which every socket of ours has.
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let error = bind(&settings(&[udp(&address)])).expect_err("the port is taken");
    assert_eq!(
        error.to_string(),
        format!("cannot bind udp://{address}: Address already in use (os error 98)")
    );
}

#[test]
fn a_receive_buffer_smaller_than_asked_is_a_warning_with_the_sysctl_to_set() {
    let asked = 1 << 30;
    let greedy = IntakeSettings { read_buffer_bytes: asked, ..readers(2, "127.0.0.1:0") };
    let listeners = bind(&greedy).expect("a port is free");
    match listeners.warnings() {
        // With CAP_NET_ADMIN everything asked for is granted.
        [] => {}
        [warning] => {
            assert!(warning.contains("net.core.rmem_max to 1073741824"), "{warning}");
        }
        more => panic!("one sentence for one address: {more:?}"),
    }
}
