//! A fleet of real processes: what the global nodes say is true for all of it, once.
//!
//! Local nodes get values whose quantiles, counts and distinct members are known; between them
//! and the global nodes stand relays that lose answers or refuse.

use std::net::UdpSocket;

use serde_json::{Value, json};

use crate::fake_intake::FakeIntake;
use crate::relay::{Behaviour, Relay};
use crate::support::{Daemon, free_port, http, wait_until};

const LOCALS: usize = 3;
const VALUES_PER_LOCAL: usize = 20_000;
const MEMBERS_PER_LOCAL: usize = 1_000;

/// A node whose own telemetry goes to a socket of this test's.
pub(crate) struct Node {
    pub(crate) daemon: Daemon,
    pub(crate) intake: FakeIntake,
    _statsd: UdpSocket,
}

impl Node {
    pub(crate) async fn start(more: Value) -> Node {
        Node::start_as(Daemon::start, more).await
    }

    /// One that takes over.
    pub(crate) async fn succeed(more: Value) -> Node {
        Node::start_as(Daemon::start_successor, more).await
    }

    /// A proxy.
    pub(crate) async fn proxy(more: Value) -> Node {
        Node::start_as(Daemon::start_proxy, more).await
    }

    async fn start_as(start: fn(&str) -> Daemon, more: Value) -> Node {
        let intake = FakeIntake::start().await;
        let statsd = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let mut config = json!({
            "interval": "60s",
            "api_hostname": intake.url(),
            "key": "0123456789abcdef",
            "udp_address": "127.0.0.1:0",
            "http_address": "127.0.0.1:0",
            "num_workers": 2,
            "percentiles": [0.5, 0.99, 0.999],
            "aggregates": ["count"],
            "stats_address": statsd.local_addr().expect("it is bound").to_string(),
        });
        let fields = config.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        let daemon = tokio::task::spawn_blocking(move || start(&config.to_string()));
        Node { daemon: daemon.await.expect("it starts"), intake, _statsd: statsd }
    }

    /// What the points of a count add up to. They are sent as rates, so to whole numbers.
    pub(crate) fn total(&self, name: &str) -> f64 {
        let series = self.intake.series();
        let points = series.iter().filter(|one| one["metric"] == name);
        points.map(|one| (value_of(one) * one["interval"].as_f64().unwrap_or(1.0)).round()).sum()
    }

    pub(crate) fn values(&self, name: &str) -> Vec<f64> {
        let series = self.intake.series();
        series.iter().filter(|one| one["metric"] == name).map(value_of).collect()
    }
}

pub(crate) fn value_of(series: &Value) -> f64 {
    series["points"][0][1].as_f64().expect("a number")
}

/// Stops nodes one after the other, so that what one forwards is in before the next flushes.
pub(crate) async fn stop(mut nodes: Vec<Node>) -> Vec<Node> {
    let stopping = tokio::task::spawn_blocking(move || {
        nodes.iter_mut().for_each(|node| node.daemon.stop());
        nodes
    });
    stopping.await.expect("they stop")
}

/// SplitMix64 from a fixed seed: the same values in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// Lognormal with sigma 1, to six decimals.
    fn lognormal(&mut self) -> f64 {
        let mut unit = || ((self.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        let normal = (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos();
        (normal.exp() * 1e6).round() / 1e6
    }
}

/// What all local nodes of a run are sent: per node its lines, and the values in all of them.
fn traffic() -> (Vec<Vec<String>>, Vec<f64>) {
    let mut random = Random(20_261_120);
    let mut all = Vec::new();
    let lines = (0..LOCALS).map(|node| {
        let values: Vec<f64> = (0..VALUES_PER_LOCAL).map(|_| random.lognormal()).collect();
        let mut lines: Vec<String> = values
            .chunks(50)
            .map(|chunk| {
                let packed: Vec<String> = chunk.iter().map(f64::to_string).collect();
                let packed = packed.join(":");
                format!("lat:{packed}|ms|#svc:api\ndist:{packed}|d\nwork:1|c|#veneurglobalonly")
            })
            .collect();
        // Half of a node's members are also the next one's.
        let first = node * MEMBERS_PER_LOCAL / 2;
        lines.extend((first..first + MEMBERS_PER_LOCAL).map(|n| format!("users:user-{n}|s")));
        all.extend(values);
        lines
    });
    let lines = lines.collect();
    all.sort_unstable_by(f64::total_cmp);
    (lines, all)
}

/// The rank error of an estimate, one sample of slack granted.
fn rank_error(sorted: &[f64], quantile: f64, estimate: f64) -> f64 {
    let n = sorted.len() as f64;
    let below = sorted.partition_point(|value| *value < estimate) as f64;
    let up_to = sorted.partition_point(|value| *value <= estimate) as f64;
    let (low, high) = ((below - 1.0) / n, (up_to + 1.0) / n);
    (low - quantile).max(quantile - high).max(0.0)
}

/// Sends the traffic to local nodes that forward to `upstream`, stops them, then the globals.
pub(crate) async fn run_fleet(
    upstream: Value,
    more: Value,
    globals: Vec<Node>,
) -> (Vec<Node>, Vec<Node>) {
    let (lines, _) = traffic();
    let mut locals = Vec::new();
    for lines in &lines {
        let mut config = json!({"forward_address": upstream});
        let fields = config.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        let local = Node::start(config).await;
        local.daemon.send(lines.iter().map(String::as_bytes));
        locals.push(local);
    }
    let locals = stop(locals).await;
    (locals, stop(globals).await)
}

/// Whether what the global nodes emitted, together, is the truth about the traffic.
pub(crate) fn assert_true_for_the_fleet(locals: &[Node], globals: &[Node]) {
    let (lines, sorted) = traffic();
    let sent = (LOCALS * VALUES_PER_LOCAL) as f64;
    let counted: f64 = locals.iter().map(|node| node.total("lat.count")).sum();
    assert_eq!(counted, sent, "local aggregates stay local");
    let at_globals = |name: &str| globals.iter().map(|node| node.total(name)).sum::<f64>();
    assert_eq!(at_globals("dist.count"), sent, "distributions are finished globally, once");
    assert_eq!(at_globals("lat.count"), 0.0, "aggregates of timers were finished locally");
    let packets: usize = lines.iter().map(|lines| lines.len() - MEMBERS_PER_LOCAL).sum();
    assert_eq!(at_globals("work"), packets as f64, "global counters are exact");
    for name in ["lat", "dist"] {
        for (suffix, quantile, bar) in [
            ("50percentile", 0.5, 0.003),
            ("99percentile", 0.99, 0.001),
            ("99.9percentile", 0.999, 0.0003),
        ] {
            let name = format!("{name}.{suffix}");
            let values: Vec<f64> = globals.iter().flat_map(|node| node.values(&name)).collect();
            assert_eq!(values.len(), 1, "{name} is emitted once: {values:?}");
            let error = rank_error(&sorted, quantile, values[0]);
            assert!(error <= bar, "{name} = {}: rank error {error}", values[0]);
        }
    }
    let users: Vec<f64> = globals.iter().flat_map(|node| node.values("users")).collect();
    let truth = (MEMBERS_PER_LOCAL * (LOCALS + 1) / 2) as f64;
    assert_eq!(users.len(), 1);
    assert!((users[0] - truth).abs() <= truth * 0.03, "{} users, truly {truth}", users[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_global_node_is_right_about_the_whole_fleet() {
    for format in ["protobuf", "grpc", "grpc-stream"] {
        let grpc = json!({"grpc_address": "127.0.0.1:0"});
        let global = Node::start(grpc).await;
        let upstream = match format {
            "grpc" | "grpc-stream" => json!(global.daemon.grpc),
            _ => json!(format!("http://{}", global.daemon.http)),
        };
        let more = json!({"forward_format": format});
        let (locals, globals) = run_fleet(upstream, more, vec![global]).await;
        assert_true_for_the_fleet(&locals, &globals);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_between_changes_nothing() {
    let global = Node::start(json!({})).await;
    let onward = format!("http://{}", global.daemon.http);
    let middle = Node::start(json!({"forward_address": onward})).await;
    let upstream = format!("http://{}", middle.daemon.http);
    let (locals, above) = run_fleet(json!(upstream), json!({}), vec![middle, global]).await;
    assert!(above[0].intake.series().is_empty(), "what is passed on is finished elsewhere");
    assert_true_for_the_fleet(&locals, &above[1..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_after_merging_counts_nothing_twice() {
    let global = Node::start(json!({})).await;
    let relay = Relay::start(&global.daemon.http, [Behaviour::LoseAnswer; 4]).await;
    let upstream = json!(relay.url());
    let (locals, globals) = run_fleet(upstream, json!({}), vec![global]).await;
    assert!(relay.misbehaved() >= 3, "every node lost an answer");
    assert_true_for_the_fleet(&locals, &globals);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_refuses_for_a_while_loses_nothing() {
    let global = Node::start(json!({})).await;
    let refusals = [Behaviour::Refuse, Behaviour::Close, Behaviour::Refuse, Behaviour::Close];
    let relay = Relay::start(&global.daemon.http, refusals).await;
    let (locals, globals) = run_fleet(json!(relay.url()), json!({}), vec![global]).await;
    assert_eq!(relay.misbehaved(), 4);
    assert_true_for_the_fleet(&locals, &globals);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ring_sends_each_series_to_exactly_one_node() {
    for count in [2, 3] {
        let mut globals = Vec::new();
        for _ in 0..count {
            globals.push(Node::start(json!({})).await);
        }
        let upstream: Vec<String> =
            globals.iter().map(|node| format!("http://{}", node.daemon.http)).collect();
        let (locals, globals) = run_fleet(json!(upstream), json!({}), globals).await;
        assert_true_for_the_fleet(&locals, &globals);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_share_of_a_dead_node_moves_to_the_others() {
    let alive = [Node::start(json!({})).await, Node::start(json!({})).await];
    let dead = format!("http://127.0.0.1:{}", free_port());
    let mut upstream: Vec<String> =
        alive.iter().map(|node| format!("http://{}", node.daemon.http)).collect();
    upstream.push(dead);
    let more = json!({"forward": {"failover_after": "200ms"}});
    let (locals, globals) = run_fleet(json!(upstream), more, alive.into()).await;
    assert_true_for_the_fleet(&locals, &globals);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_global_node_that_restarts_in_between_loses_nothing_it_took() {
    let port = free_port();
    let on_port = json!({"http_address": format!("127.0.0.1:{port}")});
    let upstream = format!("http://127.0.0.1:{port}");
    let local = Node::start(json!({"forward_address": upstream, "interval": "300ms"})).await;
    let before = Node::start(on_port.clone()).await;
    let line = b"work:1|c|#veneurglobalonly";
    let rounds = 500;
    local.daemon.send((0..rounds).map(|_| &line[..]));
    let http_address = before.daemon.http.clone();
    let taken = tokio::task::spawn_blocking(move || {
        wait_until("the first batch is taken", || {
            let page = http(&http_address, "GET", "/metrics").1;
            let taken = page.lines().find(|line| line.starts_with("veneur_import_metrics_total"));
            taken.is_some_and(|line| !line.ends_with(" 0"))
        });
    });
    taken.await.expect("it is taken");
    let before = stop(vec![before]).await;
    // The local node goes on while nobody is there.
    local.daemon.send((0..rounds).map(|_| &line[..]));
    let after = Node::start(on_port).await;
    let stopped = stop(vec![local, after]).await;
    let total = before[0].total("work") + stopped[1].total("work");
    assert_eq!(total, f64::from(2 * rounds));
}
