//! Datagrams repeated to other statsd servers.

use std::io::Read;
use std::net::{TcpListener, UdpSocket};

use serde_json::json;

use crate::ledger::total;
use crate::support::{DEADLINE, Daemon, free_port, wait_until};

fn config(repeat_to: &[String]) -> String {
    json!({
        "interval": "200ms",
        "udp_address": "127.0.0.1:0",
        "http_address": "127.0.0.1:0",
        "stats_address": "127.0.0.1:9",
        "metric_max_length": 8192,
        "read_buffer_size_bytes": 212_992,
        "repeat_to": repeat_to,
    })
    .to_string()
}

#[test]
fn every_datagram_is_repeated_as_it_came_over_udp_and_as_lines_over_tcp() {
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    udp.set_read_timeout(Some(DEADLINE)).expect("a timeout can be set");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let addresses = [
        format!("udp://{}", udp.local_addr().expect("it is bound")),
        format!("tcp://{}", tcp.local_addr().expect("it is bound")),
    ];
    let mut daemon = Daemon::start(&config(&addresses));
    let sent = [&b"a:1|c\nb:2|g"[..], b"not even a line\n", b"c:3|ms|#x:y"];
    daemon.send(sent);
    let mut buffer = [0; 65_536];
    for datagram in sent {
        let length = udp.recv(&mut buffer).expect("it arrives");
        assert_eq!(
            buffer[..length].escape_ascii().to_string(),
            datagram.escape_ascii().to_string()
        );
    }
    let too_long = [b'x'; 8_193];
    daemon.send([&too_long[..]]);
    wait_until("all is sent", || total(&daemon, "veneur_repeater_sent_total", "") == 6);
    let (mut stream, _) = tcp.accept().expect("it connects");
    daemon.stop();
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the connection ends with the daemon");
    assert_eq!(text, "a:1|c\nb:2|g\nnot even a line\nc:3|ms|#x:y\n");
}

/// One takes no connection, one takes it and reads nothing: the third one gets all, nobody else
/// waits, and what there is no room for is counted.
#[test]
fn a_dead_and_a_slow_server_delay_nobody() {
    let slow = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let good = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let (slow_at, good_at) = (slow.local_addr(), good.local_addr());
    let addresses = [
        format!("tcp://127.0.0.1:{}", free_port()),
        format!("tcp://{}", slow_at.expect("it is bound")),
        format!("udp://{}", good_at.expect("it is bound")),
    ];
    let mut daemon = Daemon::start(&config(&addresses));
    let of = |address: &str| format!("address=\"{address}\"");
    let datagram = [b"x:1|c|#long:".to_vec(), vec![b'y'; 8_000]].concat();
    let mut sent = 0;
    wait_until("there is no room for both", || {
        daemon.send((0..100).map(|_| &datagram[..]));
        sent += 100;
        let full = |address: &str| {
            let page = total(&daemon, "veneur_repeater_dropped_total", &of(address));
            page > 0
        };
        full(&addresses[0]) && full(&addresses[1])
    });
    wait_until("the good one got what was read", || {
        let taken = total(&daemon, "veneur_listen_received_per_protocol_total", "udp");
        let lost = total(&daemon, "veneur_listen_kernel_drops_total", "");
        let passed_on = total(&daemon, "veneur_repeater_sent_total", &of(&addresses[2]))
            + total(&daemon, "veneur_repeater_dropped_total", &of(&addresses[2]));
        taken + lost >= sent && passed_on == taken
    });
    daemon.stop();
    drop(slow);
}

#[test]
fn what_may_not_come_in_is_not_repeated_and_what_waits_is_sent_at_the_end() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = format!("tcp://{}", tcp.local_addr().expect("it is bound"));
    let start = |listener: &str| {
        let config = json!({
            "interval": "5m",
            "statsd_listen_addresses": [listener],
            "http_address": "127.0.0.1:0",
            "stats_address": "127.0.0.1:9",
            "repeat_to": [address],
        });
        Daemon::start(&config.to_string())
    };
    let mut closed = start("udp://127.0.0.1:0?allow=10.0.0.0/8");
    closed.send([&b"a:1|c"[..]]);
    wait_until("it is refused", || {
        total(&closed, "veneur_packet_error_total", "reason=\"not_allowed\"") == 1
    });
    closed.stop();
    let mut open = start("udp://127.0.0.1:0");
    open.send((0..100).map(|_| &b"b:1|c"[..]));
    open.stop();
    let (mut stream, _) = tcp.accept().expect("it has connected");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the connection ends with the daemon");
    assert_eq!(text, "b:1|c\n".repeat(100));
}
