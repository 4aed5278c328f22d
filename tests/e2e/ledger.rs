//! What is counted adds up: nothing disappears without a number.

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use crate::books::Page;
use crate::fake_intake::FakeIntake;
use crate::support::{DEADLINE, Daemon, http};

const QUIET: &str = "
interval: 5m
udp_address: 127.0.0.1:0
http_address: 127.0.0.1:0
num_readers: 1
";

/// The sum of all series of a family on `/metrics` whose labels contain `label`.
pub(crate) fn total(daemon: &Daemon, family: &str, label: &str) -> u64 {
    let (status, page) = http(&daemon.http, "GET", "/metrics");
    assert_eq!(status, 200);
    let series = page.lines().filter(|line| line.starts_with(family) && line.contains(label));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
}

/// Waits until nothing is kept and everything adds up.
pub(crate) fn settle(http: &str) {
    let start = Instant::now();
    loop {
        let page = Page::read(http).expect("the server is there");
        let (kept, wrong) = (page.sum("veneur_spool_items", ""), page.imbalances());
        if kept == 0 && wrong.is_empty() {
            return;
        }
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert!(start.elapsed() < DEADLINE, "{kept} are kept, and {wrong:#?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until as many datagrams were taken or refused.
fn wait_for_packets(daemon: &Daemon, packets: u64) {
    crate::support::wait_until("all datagrams are read", || {
        total(daemon, "veneur_listen_received_per_protocol_total", "udp") >= packets
    });
}

#[test]
fn every_line_is_taken_or_refused_for_a_reason() {
    let daemon = Daemon::start(&format!("{QUIET}metric_max_length: 1000\n"));
    let long = vec![b'x'; 1001];
    daemon.send([
        &b"a:1|c\nb:2:3:nan|g\n_e{1,1}:a|b\n_sc|db|0"[..],
        b"bad\na:x|c\na:1|q\nok:1|c|@7",
        b"late:1|c|T1700000000\nlate:1|h|T1700000000",
        b"new:1|c|~what",
        &long,
    ]);
    wait_for_packets(&daemon, 5);
    let udp = "protocol=\"udp\"";
    for (family, label, want) in [
        ("veneur_listen_received_per_protocol_total", udp, 5),
        ("veneur_listen_lines_total", udp, 11),
        ("veneur_listen_samples_total", udp, 4),
        ("veneur_listen_timestamped_total", udp, 1),
        ("veneur_listen_events_total", udp, 1),
        ("veneur_listen_checks_total", udp, 1),
        ("veneur_packet_sections_skipped_total", "", 1),
        ("veneur_packet_values_skipped_total", "", 1),
        ("veneur_packet_error_total", "reason=\"missing_value\"", 1),
        ("veneur_packet_error_total", "reason=\"bad_value\"", 1),
        ("veneur_packet_error_total", "reason=\"unknown_type\"", 1),
        ("veneur_packet_error_total", "reason=\"bad_sample_rate\"", 1),
        ("veneur_packet_error_total", "reason=\"timestamp_unsupported\"", 1),
        ("veneur_packet_error_total", "reason=\"toolong\"", 1),
        ("veneur_packet_error_total", "", 6),
    ] {
        assert_eq!(total(&daemon, family, label), want, "{family} {label}");
    }
    let page = Page::read(&daemon.http).expect("the server is there");
    assert!(page.imbalances().iter().all(|wrong| wrong.of != "lines"), "{:?}", page.imbalances());
}

#[test]
fn what_clients_report_to_have_dropped_is_summed_up() {
    let daemon =
        Daemon::start("interval: 100ms\nudp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\n");
    let client = |what: &str| format!("datadog.dogstatsd.client.{what}|c|#client:go,host:a");
    let lines = [
        client("packets_dropped:3"),
        client("packets_dropped:4") + ",client_transport:uds",
        client("bytes_dropped_queue:4096"),
        client("packets_sent:9"),
    ];
    daemon.send(lines.iter().map(String::as_bytes));
    let family = "veneur_clients_dropped_total";
    crate::support::wait_until("they are flushed", || {
        total(&daemon, family, "metric=\"packets_dropped\"") == 7
            && total(&daemon, family, "") == 7 + 4096
    });
}

#[test]
fn a_last_line_without_a_newline_is_counted_at_once() {
    let daemon =
        Daemon::start("interval: 5m\ntcp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\n");
    let address = daemon.statsd.iter().find_map(|address| address.strip_prefix("tcp://"));
    let mut client = TcpStream::connect(address.expect("it listens")).expect("it accepts");
    client.write_all(b"last:1|c").expect("it takes it");
    drop(client);
    crate::support::wait_until("it is counted", || {
        total(&daemon, "veneur_listen_samples_total", "tcp") == 1
    });
}

#[test]
fn what_the_kernel_drops_is_counted_to_the_datagram() {
    const SENT: u64 = 20_000;
    let mut daemon = Daemon::start(&format!("{QUIET}read_buffer_size_bytes: 65536\n"));
    daemon.signal("STOP");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    for _ in 0..SENT {
        socket.send_to(b"flood:1|c", daemon.udp()).expect("loopback takes it, or drops it");
    }
    daemon.signal("CONT");
    let dropped = total(&daemon, "veneur_listen_kernel_drops_total", "");
    assert!(dropped > 0, "a socket of 64 KiB does not hold {SENT} datagrams");
    wait_for_packets(&daemon, SENT - dropped);
    daemon.stop();
    let output = daemon.rest_of_output();
    let row = output.lines().find(|line| line.contains("flood")).expect("some were taken");
    let counted: u64 = row.split_whitespace().nth(2).and_then(|n| n.parse().ok()).expect("a count");
    assert_eq!(counted + dropped, SENT);
}

/// Steady traffic over several flushes: what arrives at the intake is what was sent, less what
/// the kernel is said to have dropped, for every counter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_add_up_over_many_flushes() {
    const COUNTERS: usize = 100;
    const ROUNDS: usize = 1_000;
    let intake = FakeIntake::start().await;
    let elsewhere = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let mut daemon = Daemon::start(&format!(
        "interval: 250ms\nudp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\n\
         key: x\napi_hostname: {}\nstats_address: {}\n",
        intake.url(),
        elsewhere.local_addr().expect("it is bound"),
    ));
    let lines: Vec<String> = (0..COUNTERS).map(|n| format!("steady.{n}:1|c|#env:x")).collect();
    let send_half = |daemon: &Daemon| {
        for _ in 0..ROUNDS / 2 {
            daemon.send(lines.iter().map(String::as_bytes));
        }
    };
    send_half(&daemon);
    intake.wait_for(|requests| requests.first().map(|_| ())).await;
    send_half(&daemon);
    let stopping = tokio::task::spawn_blocking(move || {
        settle(&daemon.http);
        // Read before the end: the page goes with the process.
        let dropped = total(&daemon, "veneur_listen_kernel_drops_total", "");
        daemon.stop();
        dropped
    });
    let dropped = stopping.await.expect("it does not panic");
    let mut counted = [0.0; COUNTERS];
    for series in intake.series() {
        let name = series["metric"].as_str().expect("a name");
        let number = name.strip_prefix("steady.").and_then(|n| n.parse::<usize>().ok());
        // A quarter of a second has no interval field: the rate is per second all the same.
        let rate = series["points"][0][1].as_f64().expect("a number");
        counted[number.expect("one of ours")] += rate * 0.25;
    }
    let all: f64 = counted.iter().sum();
    assert_eq!(all.round() as u64 + dropped, (COUNTERS * ROUNDS) as u64);
    if dropped == 0 {
        assert!(counted.iter().all(|&n| (n - ROUNDS as f64).abs() < 1e-6), "{counted:?}");
    }
    assert!(intake.received_at("/api/v1/series").len() > 1, "there was more than one flush");
}

#[test]
fn own_telemetry_goes_to_stats_address_with_the_nodes_tags() {
    let statsd = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    statsd.set_read_timeout(Some(crate::support::DEADLINE)).expect("a timeout can be set");
    let address = statsd.local_addr().expect("it is bound");
    let mut daemon = Daemon::start(&format!("{QUIET}stats_address: {address}\ntags: [env:test]\n"));
    daemon.send([&b"bad"[..], b"good:1|c"]);
    daemon.stop();
    let mut lines = Vec::new();
    let mut buffer = [0; 65_536];
    while !lines.iter().any(|line: &String| line.starts_with("veneur.packet.error_total:1|c")) {
        let length = statsd.recv(&mut buffer).expect("own telemetry arrives");
        assert!(length <= 1432, "a datagram fits one frame");
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        lines.extend(text.lines().map(str::to_owned));
    }
    for line in &lines {
        assert!(line.starts_with("veneur."), "{line}");
        assert!(line.contains("#env:test,veneurlocalonly"), "{line}");
    }
    // Nothing of it is in the flush.
    assert!(!daemon.rest_of_output().contains("veneur's own"));
}
