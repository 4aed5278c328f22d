//! Forwarding to a gRPC server that answers as one of Veneur 14 does.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::front::{Local, ledger, ones, sum};

/// An answer: nothing but a status, or one message and a status.
struct Answer {
    message: Option<Bytes>,
    status: Option<&'static str>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        let trailers = self.status.take().map(|status| {
            let status = ("grpc-status".parse().expect("a name"), HeaderValue::from_static(status));
            Ok(Frame::trailers(HeaderMap::from_iter([status])))
        });
        Poll::Ready(trailers)
    }
}

/// What the server does with a call.
#[derive(Clone, Copy)]
struct Manners {
    sends_a_message: bool,
    status: &'static str,
}

/// A server; returns its address and the paths that were called.
async fn serve(manners: Manners) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let called: Arc<Mutex<Vec<String>>> = Arc::default();
    let paths = Arc::clone(&called);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let paths = Arc::clone(&paths);
            let service = service_fn(move |request: Request<Incoming>| {
                let paths = Arc::clone(&paths);
                async move {
                    let path = request.uri().path().to_owned();
                    let body = axum::body::Body::new(request.into_body());
                    let read = axum::body::to_bytes(body, usize::MAX).await;
                    read.expect("the client sends it all");
                    paths.lock().expect("nothing panics here").push(path);
                    let message = manners.sends_a_message.then(|| Bytes::from_static(&[0; 5]));
                    let mut response =
                        Response::new(Answer { message, status: Some(manners.status) });
                    let kind = HeaderValue::from_static("application/grpc");
                    response.headers_mut().insert("content-type", kind);
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (address, called)
}

#[tokio::test]
async fn a_stream_that_ends_without_a_message_was_taken() {
    for (format, method, sends_a_message) in [
        ("grpc", "/forwardrpc.Forward/SendMetrics", true),
        ("grpc-stream", "/forwardrpc.Forward/SendMetricsV2", false),
    ] {
        let (address, called) = serve(Manners { sends_a_message, status: "0" }).await;
        // As Veneur 14 writes the address.
        let local = Local::start(&format!("forward_address: {address}\nforward_format: {format}"));
        local.offer(ones(0..100));
        assert_eq!(ledger(&local.finish().await), (100, 0), "{format}");
        assert_eq!(*called.lock().expect("nothing panics here"), [method]);
    }
}

#[tokio::test]
async fn a_failure_that_may_have_been_a_success_is_not_repeated() {
    for (status, cause) in [("14", "503"), ("2", "500"), ("3", "400"), ("12", "501")] {
        let (address, called) = serve(Manners { sends_a_message: false, status }).await;
        let local = Local::start(&format!("forward_address: {address}\nforward_use_grpc: true"));
        local.offer(ones(0..3));
        let telemetry = local.finish().await;
        assert_eq!(ledger(&telemetry), (0, 3), "status {status}");
        assert_eq!(called.lock().expect("nothing panics here").len(), 1, "status {status}");
        let tags = format!("cause:{cause},upstream:{address}");
        let errors = telemetry.totals().into_iter().find(|series| *series.tags == *tags);
        assert!(errors.is_some_and(|errors| errors.name == "forward.error_total"), "{status}");
        assert_eq!(sum(&telemetry, "forward.retries_total"), 0);
    }
}
