//! Connections of the HTTP server, and what they may cost.
//!
//! Every connection ends: a client that sends its request slowly, takes its answer slowly, or
//! says nothing at all is cut after a time. At the end running requests get a last while.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::AfterAnswer;
use crate::telemetry::{Telemetry, names};

/// What clients may take. At most 100 headers is a limit that is not ours to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more is closed at once. Nodes that forward here keep theirs.
    pub max_connections: usize,
    /// Request line and headers together.
    pub max_header_bytes: usize,
    /// From the connection, or the last answer on it, to the end of the next request's headers.
    /// No common flush interval: else a client that sends once per interval might use a kept
    /// connection just when it is closed.
    pub header_read: Duration,
    /// From the end of the headers to the answer, reading the body included.
    pub request: Duration,
    /// How long running requests have after the stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_connections: 4096,
            max_header_bytes: 16 * 1024,
            header_read: Duration::from_secs(45),
            request: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// A connection on which no request began for this long is stuck in an answer that its
    /// client does not read: headers and handling have limits of their own.
    fn stall(&self) -> Duration {
        self.header_read + 2 * self.request
    }
}

/// Serves `router` until `stop` resolves and the running requests have ended or been cut.
pub async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    limits: Limits,
    telemetry: Telemetry,
    stop: impl Future<Output = ()>,
) {
    let router = router
        .fallback(async || (StatusCode::NOT_FOUND, "404 page not found\n"))
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n")
        });
    let house = House { router, limits: limits.clone(), telemetry: telemetry.clone() };
    let (drain, draining) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_ended) = connections.join_next() => {}
            (stream, _peer) = listener.accept() => {
                if connections.len() < limits.max_connections {
                    connections.spawn(house.clone().connection(stream, draining.clone()));
                } else {
                    house.count_closed("limit", 1);
                }
            }
        }
    }
    drop(listener);
    drain.send_replace(true);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.drain, ended).await.is_err() {
        house.count_closed("drain", connections.len() as u64);
        connections.shutdown().await;
    }
}

/// What all connections share.
#[derive(Clone)]
struct House {
    router: Router,
    limits: Limits,
    telemetry: Telemetry,
}

impl House {
    /// One connection, until it ends or is cut.
    async fn connection<S>(self, stream: S, mut draining: watch::Receiver<bool>)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let begun = Arc::new(AtomicU64::new(0));
        // Shared with the service below, which hyper owns and calls for one request at a time.
        let after_answer: Arc<Mutex<Option<AfterAnswer>>> = Arc::default();
        let service = service_fn(|request: Request<Incoming>| {
            begun.fetch_add(1, Ordering::Relaxed);
            let (house, after_answer) = (self.clone(), Arc::clone(&after_answer));
            async move {
                let mut response = house.answer(request).await;
                if let Some(after) = response.extensions_mut().remove::<AfterAnswer>() {
                    *after_answer.lock().unwrap_or_else(PoisonError::into_inner) = Some(after);
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.header_read)
                .max_header_size(self.limits.max_header_bytes)
                .serve_connection(TokioIo::new(stream), service)
        );
        let mut seen = 0;
        let mut stalled = pin!(sleep(self.limits.stall()));
        loop {
            tokio::select! {
                result = &mut connection => {
                    if result.is_err_and(|error| error.is_timeout()) {
                        let is_first = begun.load(Ordering::Relaxed) == 0;
                        self.count_closed(if is_first { "slow" } else { "idle" }, 1);
                    }
                    break;
                }
                () = &mut stalled => {
                    let begun = begun.load(Ordering::Relaxed);
                    if begun == seen {
                        self.count_closed("slow", 1);
                        break;
                    }
                    seen = begun;
                    stalled.as_mut().reset(tokio::time::Instant::now() + self.limits.stall());
                }
                Ok(_) = draining.changed() => {
                    // hyper would wait for the first request of a silent connection.
                    if begun.load(Ordering::Relaxed) == 0 {
                        break;
                    }
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
        let after = after_answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(AfterAnswer(sender)) = after {
            // If it is full, the same message is on its way already.
            let _full = sender.try_send(());
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response {
        let router = self.router.clone();
        let response = match timeout(self.limits.request, router.oneshot(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_elapsed) => {
                (StatusCode::REQUEST_TIMEOUT, [(CONNECTION, "close")], "request took too long\n")
                    .into_response()
            }
        };
        let status = format!("status:{}", response.status().as_u16());
        self.telemetry.count(names::HTTP_REQUESTS_TOTAL, &status, 1);
        response
    }

    fn count_closed(&self, reason: &str, n: u64) {
        let tags = format!("reason:{reason}");
        self.telemetry.count(names::HTTP_CONNECTIONS_CLOSED_TOTAL, &tags, n);
    }
}
