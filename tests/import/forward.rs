//! From a forwarder to an importer, whatever happens in between.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use veneur::aggregate::{Aggregate, Histogram, Members};
use veneur::forward::identity::BatchId;
use veneur::model::{MetricKey, MetricKind, Role, Scope, Weight};
use veneur::sketch::member_hash;

use crate::front::{Fault, Front, Local, assert_ones, ledger, ones, sum};
use crate::support::{Node, key, points, settings};

const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// One series of each kind.
fn one_of_each() -> Vec<(Arc<MetricKey>, Aggregate)> {
    let mut histogram = Histogram::default();
    for value in [1.0, 2.0, 9.0] {
        histogram.add(value, Weight::ONE);
    }
    let mut set = Members::default();
    for member in ["alice", "bob"] {
        set.insert_hash(member_hash(member.as_bytes()));
    }
    let histogram = Aggregate::Histogram(Box::new(histogram));
    let series = [
        (MetricKind::Counter, Scope::GlobalOnly, "c", Aggregate::Counter(2.5)),
        (MetricKind::Gauge, Scope::GlobalOnly, "g", Aggregate::Gauge(-7.0)),
        (MetricKind::Histogram, Scope::Mixed, "h", histogram.clone()),
        (MetricKind::Timer, Scope::Mixed, "t", histogram.clone()),
        (MetricKind::Distribution, Scope::Mixed, "d", histogram),
        (MetricKind::Set, Scope::Mixed, "s", Aggregate::Set(Box::new(set))),
    ];
    series
        .map(|(kind, scope, name, value)| (Arc::new(key(kind, scope, name, &["a:1"])), value))
        .into()
}

#[tokio::test]
async fn every_kind_arrives_in_every_format() {
    for (format, counter, left_out) in
        [("protobuf", 2.5, 0), ("grpc", 2.5, 0), ("grpc-stream", 2.5, 0), ("json-gob", 3.0, 2)]
    {
        let node = Node::global().await;
        let address = if format.starts_with("grpc") { node.grpc } else { node.http };
        let yaml = format!("forward_address: http://{address}\nforward_format: {format}");
        let local = Local::start(&yaml);
        local.offer(one_of_each());
        let telemetry = local.finish().await;
        assert_eq!(ledger(&telemetry), (6 - left_out, left_out), "{format}");
        let mut got = node.points();
        got.retain(|name, _| !name.contains("percentile") || name.contains(".100percentile"));
        let mut expected = points([
            ("c#a:1", counter),
            ("h.100percentile#a:1", 9.0),
            ("t.100percentile#a:1", 9.0),
            ("d.100percentile#a:1", 9.0),
        ]);
        if left_out == 0 {
            expected.extend(points([
                ("g#a:1", -7.0),
                ("s#a:1", 2.0),
                ("d.min#a:1", 1.0),
                ("d.max#a:1", 9.0),
                ("d.sum#a:1", 12.0),
                ("d.count#a:1", 3.0),
            ]));
        }
        assert_eq!(got, expected, "{format}");
    }
}

#[tokio::test]
async fn a_batch_shows_who_it_is_and_what_it_is_of() {
    let node = Node::start(Role::Global, &settings("token: hunter2")).await;
    let front = Front::open(&node, ANYWHERE).await;
    let forward = "forward: {token: hunter2, max_entries_per_body: 1}";
    let local = Local::start(&format!("forward_address: {}/\n{forward}", front.url()));
    local.offer(ones(0..2));
    assert_eq!(ledger(&local.finish().await), (2, 0));
    let requests = front.requests();
    let header = |n: usize, name: &str| requests[n].get(name).and_then(|value| value.to_str().ok());
    let id = |n| header(n, "x-veneur-batch").and_then(|id| id.parse::<BatchId>().ok());
    let mut ids = [0, 1].map(|n| id(n).expect("it has an identity"));
    ids.sort();
    assert_eq!((ids[0].instance, ids[0].epoch), (ids[1].instance, ids[1].epoch));
    assert_eq!((ids[0].sequence, ids[1].sequence), (0, 1));
    assert_eq!(header(0, "x-veneur-interval-end"), Some("1700000010"));
    assert_eq!(header(0, "content-type"), Some("application/x-protobuf"));
    assert_eq!(header(0, "content-encoding"), Some("zstd"));
    assert_eq!(header(0, "authorization"), Some("Bearer hunter2"));
}

#[tokio::test]
async fn a_lost_answer_does_not_make_anything_count_twice() {
    let node = Node::global().await;
    let front = Front::open(&node, ANYWHERE).await;
    front.fail([
        Fault::TakeAndHang,
        Fault::Refuse(StatusCode::INTERNAL_SERVER_ERROR),
        Fault::Hang,
        Fault::TakeAndHang,
        Fault::Refuse(StatusCode::SERVICE_UNAVAILABLE),
    ]);
    let forward = "forward: {timeout: 300ms, max_entries_per_body: 40}";
    let local = Local::start(&format!("forward_address: {}\n{forward}", front.url()));
    local.offer(ones(0..100));
    local.wait_for("forward.entries_delivered_total", 100).await;
    let telemetry = local.finish().await;
    assert_eq!(ledger(&telemetry), (100, 0));
    assert!(sum(&telemetry, "forward.retries_total") >= 4);
    assert_ones([&node], 100);
}

#[tokio::test]
async fn what_is_offered_while_upstream_is_down_arrives_when_it_is_back() {
    let node = Node::global().await;
    let front = Front::open(&node, ANYWHERE).await;
    let local = Local::start(&format!("forward_address: {}", front.url()));
    local.offer(ones(0..30));
    local.wait_for("forward.entries_delivered_total", 30).await;
    let address = front.address;
    front.shut().await;
    local.offer(ones(30..60));
    local.wait_for("forward.error_total", 2).await;
    let front = Front::open(&node, address).await;
    local.offer(ones(60..90));
    local.wait_for("forward.entries_delivered_total", 90).await;
    assert_eq!(ledger(&local.finish().await), (90, 0));
    assert_ones([&node], 90);
    front.shut().await;
}

#[tokio::test]
async fn a_body_that_upstream_finds_too_large_arrives_in_parts() {
    let node = Node::start(Role::Global, &settings("max_entries_per_body: 7")).await;
    let local = Local::start(&format!("forward_address: http://{}", node.http));
    local.offer(ones(0..50));
    assert_eq!(ledger(&local.finish().await), (50, 0));
    assert_ones([&node], 50);

    let node = Node::start(Role::Global, &settings("max_entries_per_body: 7")).await;
    let yaml = format!("forward_address: {}\nforward_format: grpc", node.grpc);
    let local = Local::start(&yaml);
    local.offer(ones(0..50));
    assert_eq!(ledger(&local.finish().await), (50, 0));
    assert_ones([&node], 50);
}

#[tokio::test]
async fn a_node_that_dies_loses_its_share_and_nothing_else() {
    let (a, b) = (Node::global().await, Node::global().await);
    let (front_a, front_b) = (Front::open(&a, ANYWHERE).await, Front::open(&b, ANYWHERE).await);
    let forward = "forward: {failover_after: 500ms}";
    let urls = format!("[{}, {}]", front_a.url(), front_b.url());
    let local = Local::start(&format!("forward_address: {urls}\n{forward}"));
    local.offer(ones(0..100));
    local.wait_for("forward.entries_delivered_total", 100).await;
    assert!(!front_a.requests().is_empty() && !front_b.requests().is_empty());
    front_a.shut().await;
    local.offer(ones(100..200));
    local.wait_for("forward.entries_delivered_total", 200).await;
    assert_eq!(ledger(&local.finish().await), (200, 0));
    assert_ones([&a, &b], 200);
}

#[tokio::test]
async fn every_address_of_a_name_is_a_node() {
    let node = Node::global().await;
    let port = node.http.port();
    let local = Local::start(&format!("forward_address: dns+http://localhost:{port}"));
    local.offer(ones(0..40));
    local.wait_for("forward.entries_delivered_total", 40).await;
    let telemetry = local.finish().await;
    assert_eq!(ledger(&telemetry), (40, 0));
    assert_ones([&node], 40);
    let tags = format!("upstream:http://127.0.0.1:{port}");
    let delivered = telemetry.totals().into_iter().filter(|series| *series.tags == *tags);
    assert!(delivered.count() > 0, "it is called by its address");
}

#[tokio::test]
async fn with_a_wrong_token_nothing_is_taken_and_it_is_kept_until_that_is_put_right() {
    for is_grpc in [false, true] {
        let node = Node::start(Role::Global, &settings("token: hunter2")).await;
        let address = if is_grpc { node.grpc } else { node.http };
        let local = Local::start(&format!(
            "interval: 500ms\nforward_address: http://{address}\nforward_use_grpc: {is_grpc}\n\
             forward: {{token: wrong}}"
        ));
        local.offer(ones(0..3));
        local.wait_for("forward.error_total", 1).await;
        assert_eq!(ledger(&local.telemetry), (0, 0), "it is kept");
        let telemetry = local.finish().await;
        assert_eq!(ledger(&telemetry), (0, 3), "there is no more time for it");
        assert_eq!(sum(&telemetry, "forward.error_total"), node.refused("token"));
    }
}

#[tokio::test]
async fn a_real_veneur_is_not_asked_twice_when_it_does_not_answer() {
    let node = Node::global().await;
    let front = Front::open(&node, ANYWHERE).await;
    front.fail([Fault::Hang]);
    let yaml = format!(
        "forward_address: {}\nforward_format: json-gob\nforward: {{timeout: 200ms}}",
        front.url()
    );
    let local = Local::start(&yaml);
    local.offer(ones(0..3));
    local.wait_for("forward.entries_dropped_total", 3).await;
    // This answer shows that it remembers batches after all.
    local.offer(ones(0..1));
    local.wait_for("forward.entries_delivered_total", 1).await;
    front.fail([Fault::TakeAndHang]);
    local.offer(ones(1..4));
    local.wait_for("forward.entries_delivered_total", 4).await;
    assert_eq!(ledger(&local.finish().await), (4, 3));
    assert_ones([&node], 4);
}

#[tokio::test]
async fn an_upstream_that_is_not_there_costs_one_interval_at_the_end() {
    let local = Local::start("forward_address: http://127.0.0.1:1\ninterval: 1s");
    local.offer(ones(0..3));
    let started = std::time::Instant::now();
    assert_eq!(ledger(&local.finish().await), (0, 3));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
