//! A node that imports, without sockets for samples and without sinks, and its clients.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use veneur::aggregate::{Aggregate, Plan, Shard, render};
use veneur::config::settings::ImportSettings;
use veneur::forward::import::Import;
use veneur::forward::import::grpc::{self, GrpcLimits};
use veneur::http::{self, Limits};
use veneur::model::{
    Dialect, ExtendTags, MetricKey, MetricKind, Percentile, Role, Scope, Statistic, TagSet,
    UnixSeconds,
};
use veneur::pipeline::worker::Work;
use veneur::pipeline::{Importer, Workers};
use veneur::protocol::import::{ImportedValue, protobuf};
use veneur::telemetry::Telemetry;
use veneur::telemetry::registry::Total;

/// Nothing here takes seconds on an idle machine; on a busy one it may.
pub(crate) const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

/// Percentiles of all nodes here.
pub(crate) const QUANTILES: [f64; 9] = [0.0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0];

/// The default settings, with `yaml` in the section `import`.
pub(crate) fn settings(yaml: &str) -> ImportSettings {
    let text = format!("import: {{{yaml}}}");
    let machine = veneur::config::machine::Machine::this();
    let loaded = veneur::config::parse("test", &text, [], true, &machine);
    loaded.expect("the test's settings are good").settings.import
}

/// A running node.
pub(crate) struct Node {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) import: Import,
    pub(crate) telemetry: Telemetry,
    workers: Workers,
    role: Role,
    stop: watch::Sender<bool>,
    pub(crate) servers: Vec<JoinHandle<()>>,
}

impl Node {
    pub(crate) async fn start(role: Role, settings: &ImportSettings) -> Node {
        let shards = (0..2).map(|_| Shard::new(role, ExtendTags::default()));
        let workers = Workers::start(shards).expect("the system gives threads");
        let telemetry = Telemetry::default();
        let importer = Importer::new(workers.inboxes());
        let import = Import::new(importer, settings, telemetry.clone());
        let (stop, stops) = watch::channel(false);
        let stopped = || {
            let mut stops = stops.clone();
            // An error means that the node is gone, and with it the server.
            async move { drop(stops.wait_for(|stop| *stop).await) }
        };
        let (listener, http) = listen().await;
        let pages =
            http::serve(listener, import.router(), Limits::default(), telemetry.clone(), stopped());
        let (listener, grpc) = listen().await;
        let limits = GrpcLimits::default();
        let calls = grpc::serve(listener, import.clone(), limits, telemetry.clone(), stopped());
        let servers = vec![tokio::spawn(pages), tokio::spawn(calls)];
        Node { http, grpc, import, telemetry, workers, role, stop, servers }
    }

    pub(crate) async fn global() -> Node {
        Node::start(Role::Global, &settings("")).await
    }

    /// Tells the servers to end.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// What was imported since the last call: points by name, suffix and tags
    /// (`name.max#a:1`), and what goes upstream.
    pub(crate) fn flush(&self) -> (Points, Vec<(Arc<MetricKey>, Aggregate)>) {
        let percentiles = QUANTILES.map(|q| Percentile::new(q).expect("quantiles"));
        let aggregates = [Statistic::Min, Statistic::Max, Statistic::Sum, Statistic::Count];
        let plan = Plan::new(self.role, &aggregates, &percentiles);
        let (mut points, mut forwards) = (Points::new(), Vec::new());
        for inbox in self.workers.inboxes() {
            let (reply, drained) = sync_channel(1);
            inbox.send(Work::Flush(reply)).expect("the worker is there");
            let snapshot = drained.recv().expect("the worker answers").snapshot;
            let rendered = render(snapshot, &plan, UnixSeconds(0));
            for point in rendered.points {
                let suffix = plan.suffixes().text(point.suffix);
                let name = format!("{}{suffix}#{}", point.key.name, point.key.tags.as_str());
                assert_eq!(points.insert(name.clone(), point.value), None, "{name} twice");
            }
            forwards.extend(rendered.forwards);
        }
        (points, forwards)
    }

    /// Only the points.
    pub(crate) fn points(&self) -> Points {
        self.flush().0
    }

    /// What a counter of its own says.
    pub(crate) fn count(&self, name: &str, tags: &str) -> u64 {
        let totals = self.telemetry.totals();
        let series = totals.iter().find(|series| series.name == name && *series.tags == *tags);
        match series.map(|series| &series.value) {
            None => 0,
            Some(Total::Count(n)) => *n,
            Some(other) => panic!("{name} is {other:?}"),
        }
    }

    /// How many imports it refused for this cause.
    pub(crate) fn refused(&self, cause: &str) -> u64 {
        self.count("import.request_error_total", &format!("cause:{cause}"))
    }
}

/// Values by name, suffix and tags.
pub(crate) type Points = BTreeMap<String, f64>;

pub(crate) fn points<const N: usize>(points: [(&str, f64); N]) -> Points {
    points.map(|(name, value)| (name.to_owned(), value)).into()
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: String,
}

/// `POST /import` on a connection of its own; `headers` end in a line break each.
pub(crate) fn post(to: SocketAddr, headers: &str, body: &[u8]) -> Answer {
    let length = format!("Content-Length: {}\r\n", body.len());
    let mut stream = send_head(to, &format!("{headers}{length}"));
    // A server that refuses early may not read it all.
    let _ = stream.write_all(body);
    answer(stream)
}

/// Sends the head of a `POST /import`.
pub(crate) fn send_head(to: SocketAddr, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("the deadline is not zero");
    let head = format!("POST /import HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).expect("it is connected");
    stream
}

/// Reads the answer, to the end of the connection.
pub(crate) fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // A server that did not read all of the body resets the connection behind its answer.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).expect("answers are text");
    let (head, body) = text.split_once("\r\n\r\n").expect("there is an answer");
    let (status, headers) = head.split_once("\r\n").expect("there are headers");
    let status = status.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.expect("there is a status"),
        headers: headers.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// A file of `tests/conformance`.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The key of a series.
pub(crate) fn key(kind: MetricKind, scope: Scope, name: &str, tags: &[&str]) -> MetricKey {
    let tags = TagSet::canonical(tags.iter().copied());
    MetricKey { name: name.into(), tags, kind, scope, dialect: Dialect::DogStatsD }
}

/// A `MetricList` of global counters.
pub(crate) fn counters(counters: &[(&str, f64)]) -> Vec<u8> {
    let mut list = Vec::new();
    for &(name, sum) in counters {
        let key = key(MetricKind::Counter, Scope::GlobalOnly, name, &[]);
        protobuf::append(&mut list, &key, &mut ImportedValue::Counter(sum));
    }
    list
}
