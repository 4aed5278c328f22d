//! A stand-in for the Datadog intake: keeps what it is sent and fails as a test says.
#![allow(dead_code, reason = "each test binary uses the part it needs")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

/// A test that has waited so long for requests has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happens to one request instead of 202.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// This status, with a body that repeats the query and the key, as careless proxies do.
    Status(u16),
    /// This status and body.
    Says(u16, &'static str),
    /// This status and a `Retry-After` header.
    RetryAfter(u16, String),
    /// This status and a body that never ends.
    Endless(u16),
    /// 202, but only after so long.
    Slow(Duration),
    /// No answer ever.
    Hang,
    /// The connection is torn down.
    Reset,
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// When its head was read.
    pub(crate) at: Instant,
    /// Without query.
    pub(crate) path: String,
    /// What is behind the `?`.
    pub(crate) query: Option<String>,
    /// All headers.
    pub(crate) headers: HeaderMap,
    /// Size of the body as sent.
    pub(crate) wire_bytes: usize,
    /// The body, inflated; empty if it was not read.
    pub(crate) plain: Vec<u8>,
    /// What was answered; `None` if nothing was.
    pub(crate) status: Option<u16>,
}

impl Received {
    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.plain).expect("bodies are JSON")
    }

    /// Whether it was answered with success.
    pub(crate) fn is_taken(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// A running intake. Dropping it closes its socket; connections end with the runtime.
pub(crate) struct FakeIntake {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    faults: Mutex<VecDeque<(String, Fault)>>,
    /// What every request meets that has no fault of its own.
    always: Mutex<Option<Fault>>,
    max_wire_bytes: Mutex<Option<usize>>,
    connections: AtomicUsize,
    arrived: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds the lock")
}

impl FakeIntake {
    /// Listens on a free port of 127.0.0.1.
    pub(crate) async fn start() -> FakeIntake {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        FakeIntake { address, shared, accepting }
    }

    /// The base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next requests for `path` meet these faults, one each, in this order.
    pub(crate) fn fail(&self, path: &str, faults: impl IntoIterator<Item = Fault>) {
        let faults = faults.into_iter().map(|fault| (path.to_owned(), fault));
        lock(&self.shared.faults).extend(faults);
    }

    /// All requests meet this fault from now on, or none.
    pub(crate) fn fail_always(&self, fault: Option<Fault>) {
        *lock(&self.shared.always) = fault;
    }

    /// Larger bodies are answered with 413.
    pub(crate) fn limit_bodies(&self, max_wire_bytes: usize) {
        *lock(&self.shared.max_wire_bytes) = Some(max_wire_bytes);
    }

    /// All requests so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// All requests so far, which it forgets.
    pub(crate) fn take_received(&self) -> Vec<Received> {
        std::mem::take(&mut *lock(&self.shared.received))
    }

    /// The requests for one path so far.
    pub(crate) fn received_at(&self, path: &str) -> Vec<Received> {
        self.received().into_iter().filter(|request| request.path == path).collect()
    }

    /// All series that were taken so far.
    pub(crate) fn series(&self) -> Vec<serde_json::Value> {
        let bodies = self.received_at("/api/v1/series").into_iter().filter(Received::is_taken);
        bodies
            .flat_map(|body| body.json()["series"].as_array().cloned().unwrap_or_default())
            .collect()
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Waits until what was received makes `find` find something.
    pub(crate) async fn wait_for<T>(&self, mut find: impl FnMut(&[Received]) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                let arrived = self.shared.arrived.notified();
                if let Some(found) = find(&self.received()) {
                    return found;
                }
                arrived.await;
            }
        });
        match found.await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain; received so far: {:#?}", self.received()),
        }
    }
}

impl Drop for FakeIntake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| answer(request, &shared));
    // It fails when the client goes away, or by a fault the test asked for.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Body>, TornDown> {
    let (head, body) = request.into_parts();
    let mut received = Received {
        at: Instant::now(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        headers: head.headers,
        wire_bytes: 0,
        plain: Vec::new(),
        status: None,
    };
    let fault = shared.next_fault(&received.path);
    if let Some(Fault::Reset) = fault {
        shared.keep(received);
        // The body is not read, so that the kernel answers with a reset.
        return Err(TornDown);
    }
    let wire = to_bytes(Body::new(body), usize::MAX).await.map_err(|_| TornDown)?;
    received.wire_bytes = wire.len();
    received.plain = inflated(&received.headers, &wire);
    let echo = format!("{:?} {:?}", received.query, received.headers.get("dd-api-key"));

    let is_too_large = lock(&shared.max_wire_bytes).is_some_and(|limit| wire.len() > limit);
    let fault = if is_too_large { Some(Fault::Status(413)) } else { fault };
    let (status, retry_after, body) = match fault {
        None => (202, None, Body::from(r#"{"status":"ok"}"#)),
        Some(Fault::Status(status)) => (status, None, Body::from(echo)),
        Some(Fault::Says(status, body)) => (status, None, Body::from(body)),
        Some(Fault::RetryAfter(status, after)) => (status, Some(after), Body::empty()),
        Some(Fault::Endless(status)) => (status, None, Body::new(Endless)),
        Some(Fault::Slow(wait)) => {
            sleep(wait).await;
            (202, None, Body::empty())
        }
        Some(Fault::Hang) => {
            shared.keep(received);
            return std::future::pending().await;
        }
        Some(Fault::Reset) => unreachable!("handled before the body was read"),
    };
    received.status = Some(status);
    shared.keep(received);
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).expect("tests use real statuses");
    if let Some(after) = retry_after {
        let after = after.parse().expect("tests use legal header values");
        response.headers_mut().insert(header::RETRY_AFTER, after);
    }
    Ok(response)
}

impl Shared {
    fn next_fault(&self, path: &str) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        match faults.iter().position(|(of, _)| of == path) {
            Some(index) => faults.remove(index).map(|(_, fault)| fault),
            None => lock(&self.always).clone(),
        }
    }

    fn keep(&self, received: Received) {
        lock(&self.received).push(received);
        self.arrived.notify_waiters();
    }
}

fn inflated(headers: &HeaderMap, wire: &Bytes) -> Vec<u8> {
    match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None => wire.to_vec(),
        Some(b"deflate") => {
            let mut plain = Vec::new();
            flate2::read::ZlibDecoder::new(&wire[..])
                .read_to_end(&mut plain)
                .expect("deflate bodies are zlib streams");
            plain
        }
        Some(b"gzip") => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&wire[..])
                .read_to_end(&mut plain)
                .expect("gzip bodies are gzip");
            plain
        }
        Some(other) => panic!("unexpected Content-Encoding {}", other.escape_ascii()),
    }
}

/// A body whose end never comes.
struct Endless;

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// Makes the server drop the connection.
#[derive(Debug)]
struct TornDown;

impl fmt::Display for TornDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("torn down as the test asked")
    }
}

impl std::error::Error for TornDown {}
