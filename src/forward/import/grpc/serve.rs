//! Connections of the gRPC server, and what they may cost.
//!
//! HTTP/2, without TLS as Veneur 14 speaks it unless whoever listens adds it. A connection on which nothing goes on is closed
//! after a time, a peer that is gone is found out by pings, and at the end running calls get a
//! last while.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Status;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::ServiceExt;

use super::reflection::{self, SERVICE};
use super::{Import, router};
use crate::forward::ring::Ring;
use crate::telemetry::{Telemetry, names};

/// What clients may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcLimits {
    /// Connections at once; one more is closed at once.
    pub max_connections: usize,
    /// Calls at once, per connection.
    pub max_calls: u32,
    /// All headers of a call together.
    pub max_header_bytes: u32,
    /// A connection without a call for this long is closed. Longer than any interval, so that
    /// who sends once per interval keeps his connection.
    pub idle: Duration,
    /// How long running calls have after the stop.
    pub drain: Duration,
}

impl Default for GrpcLimits {
    fn default() -> Self {
        GrpcLimits {
            max_connections: 4096,
            max_calls: 32,
            max_header_bytes: 16 * 1024,
            idle: Duration::from_secs(600),
            drain: Duration::from_secs(5),
        }
    }
}

/// A peer that does not answer a ping for so long is gone.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What a peer may send ahead of what we have read, per call and per connection.
const WINDOW_BYTES: u32 = 1 << 20;

/// Serves the gRPC services until `stop` resolves and the running calls have ended or been cut.
pub async fn serve<L: Listener>(
    mut listener: L,
    import: Import,
    limits: GrpcLimits,
    telemetry: Telemetry,
    stop: impl Future<Output = ()>,
) {
    let (drain, draining) = watch::channel(false);
    let (health_checks, health) = reflection::health();
    // Health is told to everyone: load balancers ask for it.
    let described =
        reflection::reflection().layer(middleware::from_fn_with_state(import.clone(), authorize));
    let (mut closing, mut ring) = (import.0.closing.subscribe(), import.0.onward.ring());
    let mut is_serving = ring.as_ref().is_none_or(has_members);
    let mut is_closing = false;
    say(&health, is_serving).await;
    let router = router(import).merge(health_checks).merge(described);
    let house = House { router, limits: limits.clone() };
    let count_closed = |reason: &str, n| {
        telemetry.count(names::GRPC_CONNECTIONS_CLOSED_TOTAL, &format!("reason:{reason}"), n);
    };
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            () = member_of(&mut ring), if !is_serving && !is_closing => {
                is_serving = true;
                say(&health, true).await;
            }
            Ok(()) = closing.changed(), if !is_closing => {
                is_closing = true;
                say(&health, false).await;
            }
            Some(_ended) = connections.join_next() => {}
            (stream, _peer) = listener.accept() => {
                if connections.len() < limits.max_connections {
                    connections.spawn(house.clone().connection(stream, draining.clone()));
                } else {
                    count_closed("limit", 1);
                }
            }
        }
    }
    drop(listener);
    say(&health, false).await;
    drain.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.drain, ended).await.is_err() {
        count_closed("drain", connections.len() as u64);
        connections.shutdown().await;
    }
}

/// Answers those who show the token, if there is one.
async fn authorize(State(import): State<Import>, request: Request<Body>, next: Next) -> Response {
    match import.authorize(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => Status::unauthenticated(refusal.to_string()).into_http(),
    }
}

/// Tells whoever checks our health whether to come here or to go elsewhere.
async fn say(health: &HealthReporter, is_serving: bool) {
    let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    health.set_service_status("", status).await;
    health.set_service_status(SERVICE, status).await;
}

fn has_members(ring: &watch::Receiver<Arc<Ring>>) -> bool {
    !ring.borrow().members().is_empty()
}

/// Waits for the first upstream node of a proxy.
async fn member_of(ring: &mut Option<watch::Receiver<Arc<Ring>>>) {
    let Some(ring) = ring else { return std::future::pending().await };
    if ring.wait_for(|ring| !ring.members().is_empty()).await.is_err() {
        // Nobody will say any more.
        std::future::pending().await
    }
}

/// What all connections share.
#[derive(Clone)]
struct House {
    router: Router,
    limits: GrpcLimits,
}

impl House {
    /// One connection, until it ends or is cut.
    async fn connection<S>(self, stream: S, mut draining: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let calls = Arc::new(CallCounts::default());
        let service = service_fn(|request: Request<Incoming>| {
            let running = Running::begin(&calls);
            let router = self.router.clone();
            async move {
                let response: Result<Response, Infallible> = router.oneshot(request).await;
                drop(running);
                response
            }
        });
        let mut connection = pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(self.limits.max_calls)
                .max_header_list_size(self.limits.max_header_bytes)
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(WINDOW_BYTES)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
        );
        let mut seen = 0;
        let mut is_ending = false;
        let mut idle = pin!(sleep(self.limits.idle));
        loop {
            tokio::select! {
                _ = &mut connection => return,
                () = &mut idle => {
                    let begun = calls.begun.load(Ordering::Relaxed);
                    let ended = calls.ended.load(Ordering::Relaxed);
                    if begun == seen && begun == ended {
                        if is_ending {
                            return;
                        }
                        is_ending = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    seen = begun;
                    idle.as_mut().reset(tokio::time::Instant::now() + self.limits.idle);
                }
                Ok(_) = draining.changed() => {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// Calls of one connection; hyper runs them on tasks of their own.
#[derive(Debug, Default)]
struct CallCounts {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A call that is being answered.
struct Running(Arc<CallCounts>);

impl Running {
    fn begin(counts: &Arc<CallCounts>) -> Running {
        counts.begun.fetch_add(1, Ordering::Relaxed);
        Running(Arc::clone(counts))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}
