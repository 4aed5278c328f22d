//! Imports that are passed on instead of merged, while upstream is gone.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use veneur::config::machine::Machine;
use veneur::forward::Forwarder;
use veneur::forward::import::Import;
use veneur::forward::import::grpc::{self, GrpcLimits};
use veneur::http::{self, Limits};
use veneur::telemetry::Telemetry;
use veneur::telemetry::registry::Total;

use crate::front::{Front, ledger, sum};
use crate::grpc::{connect, metric, send, stream};
use crate::support::{DEADLINE, Node, counters, listen, post};

const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";

/// A proxy, as far as it takes in and forwards.
struct Proxy {
    http: SocketAddr,
    grpc: SocketAddr,
    import: Import,
    forwarder: Forwarder,
    telemetry: Telemetry,
    _stop: watch::Sender<bool>,
}

impl Proxy {
    /// Starts it, and waits until it knows its upstream nodes.
    async fn start(yaml: &str) -> Proxy {
        let proxy = Proxy::launch(yaml).await;
        let mut ring = proxy.forwarder.ring();
        ring.wait_for(|ring| !ring.members().is_empty()).await.expect("it forwards");
        proxy
    }

    async fn launch(yaml: &str) -> Proxy {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let loaded = veneur::config::parse_proxy("test", yaml, [], true, &Machine::this());
        let settings = loaded.expect("the test's settings are good").settings;
        let forward = settings.forward.expect("a proxy forwards");
        let telemetry = Telemetry::default();
        let forwarder = Forwarder::spawn(&forward, settings.interval, telemetry.clone(), None);
        let forwarder = forwarder.expect("it can be set up");
        let import = Import::new(forwarder.relay(), &settings.import, telemetry.clone());
        let (stop, stops) = watch::channel(false);
        let stopped = || {
            let mut stops = stops.clone();
            async move { drop(stops.wait_for(|stop| *stop).await) }
        };
        let ((listener, http), own) = (listen().await, Telemetry::default());
        let pages = http::serve(listener, import.router(), Limits::default(), own, stopped());
        let ((listener, grpc), own) = (listen().await, Telemetry::default());
        let calls = grpc::serve(listener, import.clone(), GrpcLimits::default(), own, stopped());
        tokio::spawn(pages);
        tokio::spawn(calls);
        Proxy { http, grpc, import, forwarder, telemetry, _stop: stop }
    }

    async fn import(&self, name: &'static str) -> u16 {
        let to = self.http;
        let posted =
            tokio::task::spawn_blocking(move || post(to, PROTOBUF, &counters(&[(name, 1.0)])));
        posted.await.expect("no panic").status
    }

    /// Sends one metric on a stream of its own; returns when it has come so far that it waits.
    async fn begin_stream(&self) -> (mpsc::Sender<Vec<u8>>, JoinHandle<Result<(), Status>>) {
        let before = self.read();
        let (metrics, call) = stream(self.grpc, &[]).await;
        metrics.send(metric("stream", 1.0)).await.expect("it is read");
        let read = async {
            while self.read() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(DEADLINE, read).await.expect("it is read in time");
        (metrics, call)
    }

    /// Bodies and groups of metrics it has read.
    fn read(&self) -> u64 {
        let totals = self.telemetry.totals();
        let bytes = totals.iter().find(|series| series.name == "import.bytes");
        match bytes.map(|series| &series.value) {
            None => 0,
            Some(Total::Amounts(summary)) => summary.count,
            Some(other) => panic!("import.bytes is {other:?}"),
        }
    }

    async fn finish(self) -> Telemetry {
        let import = self.import;
        tokio::task::spawn_blocking(move || import.close()).await.expect("no panic");
        self.forwarder.finish().await;
        self.telemetry
    }
}

/// Fills the outbox of a proxy whose upstream node is not there; returns how many counters it
/// took.
async fn fill(proxy: &Proxy) -> f64 {
    let mut taken = 0.0;
    loop {
        match proxy.import("body").await {
            202 => taken += 1.0,
            status => {
                assert_eq!(status, 503);
                assert!(taken > 0.0);
                return taken;
            }
        }
    }
}

/// What health checks are told, once it is `status`.
async fn wait_for_health(proxy: &Proxy, status: &str) {
    let mut client = HealthClient::new(connect(proxy.grpc).await);
    let request = HealthCheckRequest { service: "forwardrpc.Forward".to_owned() };
    let mut health = client.watch(request).await.expect("the service is known").into_inner();
    let told = async {
        while let Some(told) = health.message().await.expect("it is connected") {
            if told.status().as_str_name() == status {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, told).await.expect("it is told in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_upstream_node_nothing_is_taken_and_health_checks_are_told() {
    let lost = Proxy::launch("forward_address: dns+http://nowhere.invalid:1").await;
    wait_for_health(&lost, "NOT_SERVING").await;
    assert_eq!(lost.import("n").await, 503);
    let refused = send(lost.grpc, &[], counters(&[("n", 1.0)])).await;
    assert_eq!(refused.expect_err("there is nobody").code(), Code::Unavailable);
    let (_metrics, call) = lost.begin_stream().await;
    let telemetry = lost.finish().await;
    let answer = call.await.expect("no panic").expect_err("it was not passed on");
    assert_eq!(answer.code(), Code::Unavailable);
    assert_eq!(ledger(&telemetry), (0, 0));

    let (_, nobody) = listen().await;
    wait_for_health(&Proxy::start(&format!("forward_address: http://{nobody}")).await, "SERVING")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_waits_for_room_where_a_body_is_refused() {
    let (global, (reserved, address)) = (Node::global().await, listen().await);
    drop(reserved);
    let yaml = format!("forward_address: http://{address}\nforward: {{queue_bytes: 1000}}");
    let proxy = Proxy::start(&yaml).await;
    let taken = fill(&proxy).await;
    let refused = send(proxy.grpc, &[], counters(&[("list", 1.0)])).await;
    assert_eq!(refused.expect_err("there is no room").code(), Code::Unavailable);
    let (metrics, call) = proxy.begin_stream().await;
    drop(metrics);
    assert_eq!(proxy.import("body").await, 503);
    assert!(!call.is_finished(), "it waits");

    let front = Front::open(&global, address).await;
    let answer = tokio::time::timeout(DEADLINE, call).await.expect("there is room in time");
    answer.expect("no panic").expect("it was passed on");
    let telemetry = proxy.finish().await;
    let arrived = global.points();
    assert_eq!((arrived["body#"], arrived["stream#"]), (taken, 1.0), "{arrived:?}");
    let passed_on = sum(&telemetry, "import.metrics_total");
    assert_eq!((passed_on as f64, ledger(&telemetry)), (taken + 1.0, (passed_on, 0)));
    front.shut().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_does_not_wait_for_a_stream_that_waits() {
    let (_, nobody) = listen().await;
    let yaml = format!(
        "forward_address: http://{nobody}\nforward: {{queue_bytes: 1000}}\ninterval: 100ms"
    );
    let proxy = Proxy::start(&yaml).await;
    let taken = fill(&proxy).await;
    let (_metrics, call) = proxy.begin_stream().await;
    let finished = tokio::time::timeout(DEADLINE, proxy.finish());
    let telemetry = finished.await.expect("it ends in time");
    let answer = call.await.expect("no panic").expect_err("it was not passed on");
    assert_eq!(answer.code(), Code::Unavailable);
    assert_eq!(ledger(&telemetry), (0, taken as u64), "what it had is counted");
}
