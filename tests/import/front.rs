//! A front door to a node's `POST /import` that loses answers, refuses and is shut, as a test
//! says; and forwarders that knock.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use veneur::aggregate::Aggregate;
use veneur::config::Settings;
use veneur::config::machine::Machine;
use veneur::forward::{Forwarder, SetupError};
use veneur::http::{self, Limits};
use veneur::model::{MetricKey, MetricKind, Scope, UnixSeconds};
use veneur::telemetry::Telemetry;
use veneur::telemetry::registry::Total;

use crate::support::{DEADLINE, Node, key};

/// What happens to one request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It is refused, unread.
    Refuse(StatusCode),
    /// It is never answered.
    Hang,
    /// It is merged, and never answered.
    TakeAndHang,
}

/// A door.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    faults: Mutex<VecDeque<Fault>>,
    requests: Mutex<Vec<HeaderMap>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds the lock")
}

impl Front {
    /// At `address`, which may have port 0.
    pub(crate) async fn open(node: &Node, address: SocketAddr) -> Front {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let router = node.import.router().layer(from_fn_with_state(Arc::clone(&shared), meddle));
        let (stop, mut stops) = watch::channel(false);
        let stopped = async move { drop(stops.wait_for(|stop| *stop).await) };
        let limits = Limits { drain: Duration::ZERO, ..Limits::default() };
        let task =
            tokio::spawn(http::serve(listener, router, limits, Telemetry::default(), stopped));
        Front { address, shared, stop, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next requests meet these faults, one each.
    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.shared.faults).extend(faults);
    }

    /// The headers of all requests so far.
    pub(crate) fn requests(&self) -> Vec<HeaderMap> {
        lock(&self.shared.requests).clone()
    }

    /// Nobody is let in any more.
    pub(crate) async fn shut(self) {
        self.stop.send_replace(true);
        self.task.await.expect("the server does not panic");
    }
}

async fn meddle(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    lock(&shared.requests).push(request.headers().clone());
    let fault = lock(&shared.faults).pop_front();
    match fault {
        None => next.run(request).await,
        Some(Fault::Refuse(status)) => status.into_response(),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::TakeAndHang) => {
            next.run(request).await;
            std::future::pending().await
        }
    }
}

/// A local node, as far as it forwards.
pub(crate) struct Local {
    forwarder: Forwarder,
    pub(crate) telemetry: Telemetry,
}

impl Local {
    /// From the text of a configuration.
    pub(crate) fn start(yaml: &str) -> Local {
        Local::try_start(yaml).expect("the configuration can be used")
    }

    pub(crate) fn try_start(yaml: &str) -> Result<Local, SetupError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let loaded = veneur::config::parse("test", yaml, [], true, &Machine::this());
        let Settings { forward, interval, .. } = loaded.expect("a good configuration").settings;
        let forward = forward.expect("it has a forward address");
        let telemetry = Telemetry::default();
        let forwarder = Forwarder::spawn(&forward, interval, telemetry.clone(), None)?;
        Ok(Local { forwarder, telemetry })
    }

    pub(crate) fn offer(&self, forwards: Vec<(Arc<MetricKey>, Aggregate)>) {
        self.forwarder.offer(forwards, UnixSeconds(1_700_000_010));
    }

    /// Waits until a counter, summed over all its tags, has reached `n`.
    pub(crate) async fn wait_for(&self, name: &str, n: u64) {
        let reached = async {
            while sum(&self.telemetry, name) < n {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, reached).await;
        assert!(in_time.is_ok(), "{name} is {}, not {n}", sum(&self.telemetry, name));
    }

    /// Delivers what is left.
    pub(crate) async fn finish(self) -> Telemetry {
        self.forwarder.finish().await;
        self.telemetry
    }
}

/// A counter, all its series together.
pub(crate) fn sum(telemetry: &Telemetry, name: &str) -> u64 {
    let totals = telemetry.totals();
    let counts = totals.iter().filter(|series| series.name == name).map(|series| {
        let Total::Count(n) = series.value else { panic!("{name} is no counter") };
        n
    });
    counts.sum()
}

/// Delivered and dropped entries.
pub(crate) fn ledger(telemetry: &Telemetry) -> (u64, u64) {
    let sum = |name| sum(telemetry, name);
    (sum("forward.entries_delivered_total"), sum("forward.entries_dropped_total"))
}

/// Global counters `n0`, `n1` ... of value 1.
pub(crate) fn ones(numbers: std::ops::Range<u32>) -> Vec<(Arc<MetricKey>, Aggregate)> {
    let one = |n: u32| {
        let key = key(MetricKind::Counter, Scope::GlobalOnly, &format!("n{n}"), &["a:1"]);
        (Arc::new(key), Aggregate::Counter(1.0))
    };
    numbers.map(one).collect()
}

/// Asserts that of [`ones`] each has arrived, and none twice.
pub(crate) fn assert_ones<'a>(nodes: impl IntoIterator<Item = &'a Node>, n: u32) {
    let mut arrived = std::collections::BTreeMap::new();
    for node in nodes {
        for (name, value) in node.points() {
            *arrived.entry(name).or_insert(0.0) += value;
        }
    }
    let expected = (0..n).map(|n| (format!("n{n}#a:1"), 1.0)).collect();
    assert_eq!(arrived, expected);
}
