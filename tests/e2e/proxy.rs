//! `veneur proxy` between local and global nodes: what arrives is what was sent, once, where a
//! sender with a ring of its own would have sent it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use veneur::forward::ring::{Place, Ring};
use veneur::model::{Dialect, MetricKey, MetricKind, Scope, TagSet, Weight};
use veneur::protocol::import::{ImportedValue, json as veneur_json, protobuf};
use veneur::sketch::{Cardinality, Digest};

use crate::fleet::{Node, assert_true_for_the_fleet, run_fleet, stop, value_of};
use crate::ledger::total;
use crate::relay::{Behaviour, Relay};
use crate::support::{Daemon, free_port, http, wait_until};

fn url(node: &Node) -> String {
    format!("http://{}", node.daemon.http)
}

async fn globals(count: usize) -> Vec<Node> {
    let mut globals = Vec::new();
    for _ in 0..count {
        globals.push(Node::start(json!({"grpc_address": "127.0.0.1:0"})).await);
    }
    globals
}

fn key(kind: MetricKind, scope: Scope, name: &str, tags: &[&str]) -> MetricKey {
    let tags = TagSet::canonical(tags.iter().copied());
    MetricKey { name: name.into(), tags, kind, scope, dialect: Dialect::DogStatsD }
}

/// `POST /import`; `headers` end in a line break each. Status and headers of the answer.
pub(crate) fn import(to: &str, headers: &str, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(to).expect("the server is there");
    let head = format!(
        "POST /import HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("the server takes it");
    stream.write_all(body).expect("the server takes it");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the server answers");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status line"), answer.to_ascii_lowercase())
}

pub(crate) const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";

/// A `MetricList` of one global counter.
pub(crate) fn counter(name: &str) -> Vec<u8> {
    let mut list = Vec::new();
    let key = key(MetricKind::Counter, Scope::GlobalOnly, name, &[]);
    protobuf::append(&mut list, &key, &mut ImportedValue::Counter(1.0));
    list
}

/// Runs what blocks beside the servers of a test.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

/// The series that a node emitted, own telemetry aside: name and tags, and the value.
fn emitted(node: &Node) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for series in node.intake.series() {
        let name = format!("{} {}", series["metric"], series["tags"]);
        assert_eq!(found.insert(name.clone(), value_of(&series)), None, "{name} twice");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_changes_nothing_whatever_is_spoken_on_either_side() {
    for (below, above) in [("protobuf", "protobuf"), ("grpc", "protobuf"), ("grpc-stream", "grpc")]
    {
        let globals = globals(2).await;
        let upstream: Vec<String> = match above {
            "grpc" => globals.iter().map(|node| node.daemon.grpc.clone()).collect(),
            _ => globals.iter().map(url).collect(),
        };
        let proxy = Node::proxy(json!({
            "forward_address": upstream,
            "forward_format": above,
            "grpc_address": "127.0.0.1:0",
        }));
        let proxy = proxy.await;
        let upstream = match below {
            "protobuf" => url(&proxy),
            _ => proxy.daemon.grpc.clone(),
        };
        let mut above = vec![proxy];
        above.extend(globals);
        let more = json!({"forward_format": below});
        let (locals, above) = run_fleet(json!(upstream), more, above).await;
        assert_true_for_the_fleet(&locals, &above[1..]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_series_goes_to_the_node_that_a_direct_sender_would_choose() {
    const SERIES: usize = 200;
    let globals = globals(2).await;
    let upstream: Vec<String> = globals.iter().map(url).collect();
    let ring = Ring::new(upstream.iter().map(|name| Arc::from(name.as_str())));
    let keys: Vec<MetricKey> = (0..SERIES)
        .map(|n| key(MetricKind::Counter, Scope::GlobalOnly, &format!("c{n}"), &["a:1", "host:x"]))
        .collect();
    // JSON of Veneur 1.1 and a protobuf list, as two nodes might send them.
    let mut list = Vec::new();
    let mut array = veneur_json::Body::default();
    for key in &keys {
        protobuf::append(&mut list, key, &mut ImportedValue::Counter(2.0));
        array.push(key, &mut ImportedValue::Counter(3.0));
    }
    let array = array.finish();
    let proxy = Node::proxy(json!({"forward_address": upstream, "forward_format": "json-gob"}));
    let proxy = proxy.await;
    let to = proxy.daemon.http.clone();
    blocking(move || {
        assert_eq!(import(&to, PROTOBUF, &list).0, 202);
        assert_eq!(import(&to, "", &array).0, 202);
    })
    .await;
    let mut nodes = vec![proxy];
    nodes.extend(globals);
    let nodes = stop(nodes).await;
    for key in &keys {
        let member = ring.member_at(Place::of(key)).expect("there are members");
        for (node, name) in nodes[1..].iter().zip(&upstream) {
            let expected = if *name == *ring.members()[member] { 5.0 } else { 0.0 };
            assert_eq!(node.total(&key.name), expected, "{} at {name}", key.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_through_a_proxy_is_the_same_to_the_last_bit() {
    let globals = globals(2).await;
    let proxy = Node::proxy(json!({"forward_address": url(&globals[1])})).await;
    let mut list = Vec::new();
    let mut add = |kind, scope, name: &str, mut value| {
        protobuf::append(&mut list, &key(kind, scope, name, &["a:1"]), &mut value);
    };
    add(MetricKind::Counter, Scope::GlobalOnly, "counter", ImportedValue::Counter(0.1 + 0.2));
    add(MetricKind::Gauge, Scope::GlobalOnly, "gauge", ImportedValue::Gauge(-1.0 / 3.0));
    for (kind, scope, name) in [
        (MetricKind::Histogram, Scope::Mixed, "histogram"),
        (MetricKind::Timer, Scope::GlobalOnly, "timer"),
        (MetricKind::Distribution, Scope::Mixed, "distribution"),
    ] {
        let mut digest = Digest::new();
        let weight = Weight::from_rate(0.7).expect("a rate");
        (1..5_000).for_each(|n| digest.add(f64::from(n).ln() / 3.0, weight));
        add(kind, scope, name, ImportedValue::Digest(digest));
    }
    for (name, members) in [("few", 50), ("many", 200_000)] {
        let mut set = Cardinality::new();
        (0..members).for_each(|n: u64| set.insert_hash(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        add(MetricKind::Set, Scope::Mixed, name, ImportedValue::Set(set));
    }
    let (direct, through) = (globals[0].daemon.http.clone(), proxy.daemon.http.clone());
    blocking(move || {
        for to in [direct, through] {
            assert_eq!(import(&to, PROTOBUF, &list).0, 202);
        }
    })
    .await;
    let mut nodes = vec![proxy];
    nodes.extend(globals);
    let nodes = stop(nodes).await;
    let (direct, through) = (emitted(&nodes[1]), emitted(&nodes[2]));
    assert!(direct.len() > 10, "{direct:?}");
    assert_eq!(direct, through);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_share_of_a_node_that_died_moves_behind_a_proxy() {
    let mut globals = globals(3).await;
    let upstream: Vec<String> = globals.iter().map(url).collect();
    let proxy = Node::proxy(json!({
        "forward_address": upstream,
        "forward": {"failover_after": "200ms"},
    }));
    let proxy = proxy.await;
    // Killed, not stopped.
    drop(globals.pop());
    let upstream = url(&proxy);
    let mut above = vec![proxy];
    above.extend(globals);
    let (locals, above) = run_fleet(json!(upstream), json!({}), above).await;
    assert_true_for_the_fleet(&locals, &above[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_costs_what_it_had_and_no_more() {
    const SERIES: u64 = 100;
    let mut globals = globals(2).await;
    let upstream: Vec<String> = globals.iter().map(url).collect();
    let ring = Ring::new(upstream.iter().map(|name| Arc::from(name.as_str())));
    let proxy = Node::proxy(json!({
        "forward_address": upstream,
        "forward": {"failover_after": "200ms", "queue_age": "3s"},
    }));
    let proxy = proxy.await;
    let list: Vec<u8> = (0..SERIES).flat_map(|n| counter(&format!("c{n}"))).collect();
    let mut killed = globals.pop().expect("there are two");
    let (proxy, dropped) = blocking(move || {
        let settled = |daemon: &Daemon| {
            total(daemon, "veneur_forward_entries_delivered_total", "")
                + total(daemon, "veneur_forward_entries_dropped_total", "")
        };
        for taken in [SERIES, 2 * SERIES] {
            assert_eq!(import(&proxy.daemon.http, PROTOBUF, &list).0, 202);
            if taken == SERIES {
                wait_until("both have their share", || settled(&proxy.daemon) == taken);
                killed.daemon.signal("KILL");
                killed.daemon.wait();
            }
        }
        wait_until("it is settled", || settled(&proxy.daemon) == 2 * SERIES);
        let dropped = total(&proxy.daemon, "veneur_forward_entries_dropped_total", "");
        (proxy, dropped)
    })
    .await;
    let nodes = stop(vec![proxy, globals.remove(0)]).await;
    let mut moved = 0.0;
    let mut of_the_killed = 0.0;
    for n in 0..SERIES {
        let key = key(MetricKind::Counter, Scope::GlobalOnly, &format!("c{n}"), &[]);
        let member = &ring.members()[ring.member_at(Place::of(&key)).expect("there are members")];
        let found = nodes[1].total(&key.name);
        if **member == *upstream[0] {
            assert_eq!(found, 2.0, "{} stays where it was", key.name);
        } else {
            of_the_killed += 1.0;
            moved += found;
        }
    }
    // What may have reached it before it died goes nowhere else, and is counted.
    assert!(of_the_killed > 0.0);
    assert_eq!(moved, of_the_killed - dropped as f64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_on_either_side_of_a_proxy_count_nothing_twice() {
    let global = Node::start(json!({})).await;
    let above = Relay::start(&global.daemon.http, [Behaviour::LoseAnswer; 3]).await;
    let proxy = Node::proxy(json!({"forward_address": above.url()})).await;
    let below = Relay::start(&proxy.daemon.http, [Behaviour::LoseAnswer; 4]).await;
    let nodes = vec![proxy, global];
    let (locals, nodes) = run_fleet(json!(below.url()), json!({}), nodes).await;
    assert!(above.misbehaved() >= 3 && below.misbehaved() >= 3);
    assert_true_for_the_fleet(&locals, &nodes[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_restarts_in_order_under_load_loses_nothing() {
    let port = free_port();
    let global = Node::start(json!({})).await;
    let config = json!({
        "http_address": format!("127.0.0.1:{port}"),
        "forward_address": url(&global),
    });
    let upstream = format!("http://127.0.0.1:{port}");
    let local = Node::start(json!({"forward_address": upstream, "interval": "1s"})).await;
    let line = b"work:1|c|#veneurglobalonly";
    let rounds = 300;
    for _ in 0..3 {
        let proxy = Node::proxy(config.clone()).await;
        local.daemon.send((0..rounds).map(|_| &line[..]));
        let proxy = blocking(move || {
            wait_until("a batch is on its way", || {
                total(&proxy.daemon, "veneur_import_metrics_total", "") > 0
            });
            proxy
        })
        .await;
        // The local node goes on while the proxy drains and is gone.
        local.daemon.send((0..rounds).map(|_| &line[..]));
        stop(vec![proxy]).await;
    }
    let last = Node::proxy(config).await;
    let nodes = stop(vec![local, last, global]).await;
    assert_eq!(nodes[2].total("work"), f64::from(6 * rounds));
}

#[test]
fn an_outbox_that_is_full_pushes_back_and_drops_nothing() {
    let port = free_port();
    let config = json!({
        "interval": "60s",
        "http_address": "127.0.0.1:0",
        "forward_address": format!("http://127.0.0.1:{port}"),
        "forward": {"queue_bytes": 2_000},
    });
    let mut proxy = Daemon::start_proxy(&config.to_string());
    let mut taken = 0;
    let refusal = loop {
        let (status, answer) = import(&proxy.http, PROTOBUF, &counter("n"));
        match status {
            202 => taken += 1,
            _ => break answer,
        }
        assert!(taken < 1_000, "2000 bytes hold so many");
    };
    assert!(refusal.contains(" 503 ") && refusal.contains("retry-after: 1"), "{refusal}");
    assert!(refusal.contains("the outbox is full"), "{refusal}");
    assert!(taken > 1);
    assert_eq!(total(&proxy, "veneur_import_metrics_total", ""), taken);
    assert_eq!(total(&proxy, "veneur_import_request_error_total", "outbox_full"), 1);
    assert_eq!(total(&proxy, "veneur_forward_queue_entries", ""), taken);
    assert_eq!(total(&proxy, "veneur_forward_entries_dropped_total", ""), 0);
    // More than there will ever be room for.
    let long: Vec<u8> = (0..1_000).flat_map(|n| counter(&format!("series-{n}"))).collect();
    assert_eq!(import(&proxy.http, PROTOBUF, &long).0, 413);

    let global = format!("interval: 60s\nudp_address: ''\nhttp_address: 127.0.0.1:{port}\n");
    let global = Daemon::start(&global);
    wait_until("all is delivered", || {
        total(&proxy, "veneur_forward_entries_delivered_total", "") == taken
    });
    assert_eq!(total(&global, "veneur_import_metrics_total", ""), taken);
    assert_eq!(import(&proxy.http, PROTOBUF, &counter("n")).0, 202);
    proxy.stop();
    assert_eq!(total(&global, "veneur_import_metrics_total", ""), taken + 1);
}

#[test]
fn what_cannot_be_delivered_at_the_end_is_counted() {
    let config = json!({
        "interval": "300ms",
        "http_address": "127.0.0.1:0",
        "forward_address": format!("http://127.0.0.1:{}", free_port()),
    });
    let mut proxy = Daemon::start_proxy(&config.to_string());
    assert_eq!(import(&proxy.http, PROTOBUF, &counter("n")).0, 202);
    proxy.stop();
    let log = proxy.whole_log();
    let lost = log.lines().find(|line| line.contains("entries were not forwarded"));
    assert!(lost.is_some_and(|line| line.contains("shutdown")), "{log}");
}

/// Headers of the imports that an upstream node took.
type Taken = Arc<Mutex<Vec<HeaderMap>>>;

async fn take(State(taken): State<Taken>, headers: HeaderMap) -> (StatusCode, HeaderMap) {
    let mut answer = HeaderMap::new();
    if let Some(batch) = headers.get("x-veneur-batch") {
        answer.insert("x-veneur-batch", batch.clone());
    }
    taken.lock().expect("nobody panics with it").push(headers);
    (StatusCode::ACCEPTED, answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_passed_on_once_with_the_end_of_its_interval() {
    let taken = Taken::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let router = Router::new().route("/import", post(take)).with_state(Arc::clone(&taken));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = json!({
        "interval": "10s",
        "http_address": "127.0.0.1:0",
        "forward_address": format!("http://{address}"),
        "import": {"token": "below"},
        "forward": {"token": "above"},
    });
    blocking(move || {
        let mut proxy = Daemon::start_proxy(&config.to_string());
        let batch = "X-Veneur-Batch: 00000000000000aa/1700000000000/7\r\n";
        let headers = format!(
            "{PROTOBUF}{batch}X-Veneur-Interval-End: 1700000010\r\nAuthorization: Bearer below\r\n"
        );
        for _ in 0..3 {
            let (status, answer) = import(&proxy.http, &headers, &counter("n"));
            assert_eq!(status, 202);
            assert!(answer.contains("x-veneur-batch: 00000000000000aa/1700000000000/7"));
        }
        assert_eq!(import(&proxy.http, PROTOBUF, &counter("n")).0, 401);
        assert_eq!(import(&proxy.http, &headers, b"\x0a").0, 400);
        assert_eq!(total(&proxy, "veneur_import_repeated_total", ""), 2);
        proxy.stop();
    })
    .await;
    let taken = taken.lock().expect("nobody panics with it");
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0]["x-veneur-interval-end"], "1700000010");
    assert_eq!(taken[0]["authorization"], "Bearer above");
    assert_ne!(taken[0]["x-veneur-batch"], "00000000000000aa/1700000000000/7", "it has its own");
}

#[test]
fn a_proxy_shows_the_pages_of_a_daemon() {
    let config = json!({
        "http_address": "127.0.0.1:0",
        "forward_address": format!("http://127.0.0.1:{}", free_port()),
        "http": {"config": true},
        "http_quit": true,
    });
    let mut proxy = Daemon::start_proxy(&config.to_string());
    for (path, status, text) in [
        ("/healthcheck", 200, "ok\n"),
        ("/ready", 200, "ready\n"),
        ("/version", 200, concat!(env!("CARGO_PKG_VERSION"), "\n")),
        ("/metrics", 200, "veneur_forward_ring_members 1\n"),
        ("/config/yaml", 200, "forward_format: \"protobuf\"\n"),
        ("/nowhere", 404, ""),
    ] {
        let (found, body) = http(&proxy.http, "GET", path);
        assert_eq!(found, status, "{path}");
        assert!(body.contains(text), "{path}: {body}");
    }
    let yaml = http(&proxy.http, "GET", "/config/yaml").1;
    assert!(!yaml.contains("percentiles"), "{yaml}");
    proxy.configure(&json!({"debug": true, "forward_address": "http://h"}).to_string());
    proxy.signal("HUP");
    proxy.wait_for_log("wait for a restart");
    assert_eq!(http(&proxy.http, "POST", "/quitquitquit").0, 200);
    assert!(proxy.wait().success());
}

#[test]
fn own_telemetry_of_a_proxy_goes_to_the_stats_address() {
    let statsd = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    statsd.set_read_timeout(Some(crate::support::DEADLINE)).expect("it is not zero");
    let config = json!({
        "interval": "100ms",
        "http_address": "127.0.0.1:0",
        "forward_address": format!("http://127.0.0.1:{}", free_port()),
        "stats_address": statsd.local_addr().expect("it is bound").to_string(),
        "tags": ["az:1"],
    });
    let proxy = Daemon::start_proxy(&config.to_string());
    let reader = thread::spawn(move || {
        let mut datagram = [0; 65_536];
        loop {
            let length = statsd.recv(&mut datagram).expect("reports come");
            let lines = String::from_utf8_lossy(&datagram[..length]).into_owned();
            if let Some(line) = lines.lines().find(|line| line.contains("import.metrics_total")) {
                return line.to_owned();
            }
        }
    });
    assert_eq!(import(&proxy.http, PROTOBUF, &counter("n")).0, 202);
    let line = reader.join().expect("it comes");
    assert!(line.starts_with("veneur.import.metrics_total:1|c|#az:1"), "{line}");
}

/// Fails where a proxy's file is wrong, and says what would be right.
#[test]
fn a_file_is_checked_without_running() {
    let directory = crate::support::scratch_directory();
    let file = directory.join("p.yaml");
    let check = |config: Value| {
        std::fs::write(&file, config.to_string()).expect("the scratch directory can be written");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_veneur"))
            .args(["proxy", "--validate-config-strict", "-f"])
            .arg(&file)
            .output()
            .expect("the program can be run");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = check(json!({"consul_forward_service_name": "veneur-global"}));
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let (code, said) = check(json!({"percentiles": [0.5]}));
    assert_eq!(code, Some(64));
    assert!(said.contains("a proxy without an upstream node; accepted: forward_address"), "{said}");
    assert!(said.contains("percentiles: without effect in a proxy"), "{said}");
    std::fs::remove_dir_all(&directory).expect("it is ours");
}
