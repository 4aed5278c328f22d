//! What clients do to a daemon: thousands that say nothing, or a byte now and then, or go with a
//! reset. Others notice nothing, and the ledger adds up.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};
use socket2::SockRef;

use crate::fake_intake::FakeIntake;
use crate::host::{leave_out, works};
use crate::node::{Node, Scratch, taken};
use crate::support::{Daemon, http, wait_until};

/// Thousands of connections need more files than a process usually may have open: 1,024.
const FILES: &str = "--nofile=12000:";

/// How many there are of each kind.
fn many() -> usize {
    if works(&["prlimit", "--pid", &std::process::id().to_string(), FILES]) {
        return 1_500;
    }
    leave_out("this process may not have thousands of connections: it has hundreds");
    200
}

/// A node that may have as many as its test.
async fn start(intake: &FakeIntake, more: Value) -> Node {
    let has_limits = works(&["prlimit", FILES, "true"]);
    Node::start_by(intake, more, move |yaml| match has_limits {
        true => Daemon::start_by(&["prlimit", FILES], yaml, &[]),
        false => Daemon::start(yaml),
    })
    .await
}

/// Where a node listens for TCP.
fn tcp(node: &Node) -> &str {
    let address = node.daemon.statsd.iter().find_map(|address| address.strip_prefix("tcp://"));
    address.expect("it listens")
}

fn connect(address: &str) -> TcpStream {
    TcpStream::connect(address).expect("it accepts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_slow_connections_cost_others_nothing() {
    let (many, scratch) = (many(), Scratch::new());
    let file = scratch.0.join("dsd.stream");
    let intake = FakeIntake::start().await;
    let more = json!({
        "connections": {"max": 2 * many},
        "udp_address": "",
        "statsd_listen_addresses":
            ["udp://127.0.0.1:0", "tcp://127.0.0.1:0", format!("unix://{}", file.display())],
    });
    let node = start(&intake, more).await;
    let going = tokio::task::spawn_blocking(move || {
        let idle: Vec<TcpStream> = (0..many).map(|_| connect(tcp(&node))).collect();
        let idle_unix: Vec<UnixStream> =
            (0..many).map(|_| UnixStream::connect(&file).expect("it accepts")).collect();
        let mut slow: Vec<TcpStream> = (1..many).map(|_| connect(tcp(&node))).collect();
        // Each of them says a line, a byte at a time, all of them in turn.
        for byte in b"slow:1|c\n" {
            slow.iter_mut().for_each(|it| it.write_all(&[*byte]).expect("it takes it"));
        }
        let mut fresh = connect(tcp(&node));
        fresh.write_all(b"fresh:1|c\n").expect("it takes it");
        wait_until("all lines are taken", || {
            node.total("veneur_listen_samples_total", "tcp") == many as u64
        });
        // Some more, and there is no room: those who were there do not notice.
        let more: Vec<TcpStream> = (0..many).map(|_| connect(tcp(&node))).collect();
        wait_until("they are refused", || {
            node.total("veneur_tcp_refused_total", "") == many as u64
        });
        fresh.write_all(b"fresh:1|c\n").expect("it is still open");
        wait_until("it is taken", || {
            node.total("veneur_listen_samples_total", "tcp") == many as u64 + 1
        });
        drop((idle, idle_unix, slow, more, fresh));
        wait_until("all are gone", || {
            node.total("veneur_tcp_disconnects", "") == node.total("veneur_tcp_connects", "")
        });
        node
    });
    let node = going.await.expect("it does not panic");
    node.settle().await.stop().await;
    assert_eq!(taken(&intake, "slow").0, many as u64 - 1);
    assert_eq!(taken(&intake, "fresh").0, 2);
}

/// Connections that end with a reset, each amid a line, at every kind of door.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storms_of_resets_cost_a_counted_piece_of_a_line_each() {
    const STORM: usize = 2_000;
    let intake = FakeIntake::start().await;
    let more = json!({"tcp_address": "127.0.0.1:0"});
    let node = start(&intake, more).await;
    let going = tokio::task::spawn_blocking(move || {
        for door in [tcp(&node), &node.daemon.http] {
            for _ in 0..STORM {
                let mut stream = connect(door);
                let reset = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                reset.expect("it can be set");
                // It may have been refused by then.
                let _ = stream.write_all(b"GET /metrics");
            }
        }
        let mut client = connect(tcp(&node));
        client.write_all(b"hits:1|c\n").expect("it takes it");
        wait_until("a line is taken", || node.total("veneur_listen_samples_total", "tcp") == 1);
        drop(client);
        wait_until("all are gone", || {
            let gone = node.total("veneur_tcp_disconnects", "");
            // A connection that was reset before it was accepted never was one.
            gone == node.total("veneur_tcp_connects", "")
        });
        let cut = node.total("veneur_packet_error_total", "reason=\"incomplete\"");
        assert!(cut <= STORM as u64, "{cut} pieces of {STORM} connections");
        assert_eq!(http(&node.daemon.http, "GET", "/healthcheck").0, 200);
        node
    });
    going.await.expect("it does not panic").settle().await.stop().await;
    assert_eq!(taken(&intake, "hits").0, 1);
}

/// They are cut after a while (`tests/http`); until then they keep nobody out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_never_end_keep_nobody_from_the_http_server() {
    let (many, intake) = (many(), FakeIntake::start().await);
    let node = start(&intake, json!({})).await;
    let going = tokio::task::spawn_blocking(move || {
        let mut slow: Vec<TcpStream> = (0..many).map(|_| connect(&node.daemon.http)).collect();
        for part in [&b"POST /import HTTP/1.1\r\nHo"[..], b"st: x\r\nX-", b"Slow: "] {
            slow.iter_mut().for_each(|it| it.write_all(part).expect("it takes it"));
            for path in ["/healthcheck", "/ready", "/metrics"] {
                assert_eq!(http(&node.daemon.http, "GET", path).0, 200, "{path}");
            }
        }
        // These say how much is to come, and send nothing of it.
        let body = b"1\r\nContent-Length: 1000000\r\n\r\n";
        slow.iter_mut().for_each(|it| it.write_all(body).expect("it takes it"));
        assert_eq!(http(&node.daemon.http, "GET", "/ready").0, 200);
        (node, slow)
    });
    let (node, slow) = going.await.expect("it does not panic");
    let flushed = |node: &Node| node.total("veneur_sink_metrics_flushed_total", "") > 0;
    let (node, sent) = node.send_until("hits:1|c", flushed).await;
    let node = node.settle().await;
    drop(slow);
    node.stop().await;
    assert_eq!(taken(&intake, "hits").0, sent);
}
