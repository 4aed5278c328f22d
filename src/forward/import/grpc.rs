//! The gRPC service of Veneur 14, `forwardrpc.Forward`, with health checks and reflection.
//!
//! | Method | What comes | What is all or nothing |
//! |---|---|---|
//! | `SendMetrics` | one `MetricList` | the list |
//! | `SendMetricsV2` with `x-veneur-batch` | a stream of `Metric`, one batch | the stream |
//! | `SendMetricsV2` without | a stream of `Metric` that need not end | each metric |
//!
//! A veneur-proxy keeps one stream open for as long as it lives and sends what many nodes gave
//! it. So metrics of a stream without identity are merged while it goes on, in groups; one that
//! is refused is counted and costs its neighbours nothing; and where memory or workers are
//! short, the stream is not read for a while instead of being refused.
//!
//! Messages are not decoded by tonic but by [`crate::protocol::import`], as everywhere.
//!
//! Source: `forwardrpc/forward.proto` and `proxy/connect` of Veneur 14.2.0. Its own server never
//! answers on the stream; this one does, when the stream ends.

mod codec;
mod group;
mod reflection;
mod serve;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;
use tonic::metadata::MetadataMap;
use tonic::server::Grpc;
use tonic::{Code, Status, Streaming};
use tower::service_fn;
use tracing::warn;

use self::codec::Raw;
use self::group::Group;
use super::onward::Patience;
use super::plain::Encoding;
use super::refusal::Refusal;
use super::{Format, Import, Received, identity, interval_end, wait};
use crate::forward::identity::{BATCH_HEADER, BatchId};
use crate::pipeline::NotImported;
use crate::telemetry::names;

pub use serve::{GrpcLimits, serve};

/// Tag and length that make a message an entry of a `MetricList`.
const MAX_ENTRY_HEAD_BYTES: usize = 11;
/// The longest message of a stream, which is one metric: what gRPC takes by default.
const MAX_METRIC_BYTES: usize = 4 << 20;

/// The service.
fn router(import: Import) -> Router {
    let calls = Calls { import };
    Router::new()
        .route("/forwardrpc.Forward/SendMetrics", post(send_metrics))
        .route("/forwardrpc.Forward/SendMetricsV2", post(send_metrics_v2))
        .with_state(calls)
        .fallback(async || Status::unimplemented("no such method").into_http::<Body>())
}

#[derive(Clone)]
struct Calls {
    import: Import,
}

type Messages = Streaming<Bytes>;
type Answer = Result<tonic::Response<()>, Status>;

async fn send_metrics(State(calls): State<Calls>, request: Request) -> Response {
    let service = service_fn(|request: tonic::Request<Messages>| {
        let calls = calls.clone();
        async move {
            let (metadata, _, messages) = request.into_parts();
            let taken = calls.list(&metadata, messages).await;
            calls.answer(&metadata, taken)
        }
    });
    let mut grpc = Grpc::new(Raw).max_decoding_message_size(calls.most());
    grpc.client_streaming(service, request).await.map(Body::new)
}

async fn send_metrics_v2(State(calls): State<Calls>, request: Request) -> Response {
    let service = service_fn(|request: tonic::Request<Messages>| {
        let calls = calls.clone();
        async move {
            let (metadata, _, messages) = request.into_parts();
            let taken = calls.stream(&metadata, messages).await;
            calls.answer(&metadata, taken)
        }
    });
    let mut grpc = Grpc::new(Raw).max_decoding_message_size(MAX_METRIC_BYTES);
    grpc.client_streaming(service, request).await.map(Body::new)
}

impl Calls {
    /// The longest list, in one message or as a stream.
    fn most(&self) -> usize {
        self.import.0.settings.max_body_bytes.get()
    }

    /// What is told to the caller; an identity is repeated.
    fn answer(&self, metadata: &MetadataMap, taken: Result<(), Refusal>) -> Answer {
        let mut told = MetadataMap::new();
        if let Some(batch) = metadata.get(BATCH_HEADER) {
            told.insert(BATCH_HEADER, batch.clone());
        }
        match taken {
            Ok(()) => {
                let mut response = tonic::Response::new(());
                *response.metadata_mut() = told;
                Ok(response)
            }
            Err(refusal) => {
                self.import.count_refusal(&refusal);
                let code = refusal.named().code;
                Err(Status::with_metadata(code, refusal.to_string(), told))
            }
        }
    }

    /// One list, in one message.
    async fn list(&self, metadata: &MetadataMap, mut messages: Messages) -> Result<(), Refusal> {
        let headers = metadata.as_ref();
        self.import.authorize(headers)?;
        let id = identity(headers)?;
        let room = self.import.room(None).await?;
        let list = timeout_at(room.deadline.into(), self.only(&mut messages));
        let bytes = list.await.unwrap_or(Err(Refusal::Slow))?;
        self.import.take(room, received(bytes, id, headers)).await
    }

    /// The one message there is.
    async fn only(&self, messages: &mut Messages) -> Result<Bytes, Refusal> {
        let Some(list) = next(messages, self.most()).await? else {
            return Err(Refusal::Cut("no message".to_owned()));
        };
        match next(messages, self.most()).await? {
            None => Ok(list),
            Some(_) => Err(Refusal::Cut("a second message".to_owned())),
        }
    }

    async fn stream(&self, metadata: &MetadataMap, messages: Messages) -> Result<(), Refusal> {
        let headers = metadata.as_ref();
        self.import.authorize(headers)?;
        match identity(headers)? {
            Some(id) => {
                let room = self.import.room(None).await?;
                let list = timeout_at(room.deadline.into(), self.whole(messages));
                let bytes = list.await.unwrap_or(Err(Refusal::Slow))?;
                self.import.take(room, received(bytes, Some(id), headers)).await
            }
            None => self.endless(messages).await,
        }
    }

    /// A whole stream, as a list: its metrics are the list's field 1.
    async fn whole(&self, mut messages: Messages) -> Result<Bytes, Refusal> {
        let mut list = Vec::new();
        while let Some(metric) = next(&mut messages, MAX_METRIC_BYTES).await? {
            if list.len() + metric.len() + MAX_ENTRY_HEAD_BYTES > self.most() {
                return Err(Refusal::TooLong(self.most()));
            }
            encode_key(1, WireType::LengthDelimited, &mut list);
            encode_varint(metric.len() as u64, &mut list);
            list.extend_from_slice(&metric);
        }
        Ok(list.into())
    }

    /// A stream that is merged while it goes on. When this node is about to end, so does the
    /// stream: its sender learns that it must go elsewhere.
    async fn endless(&self, mut messages: Messages) -> Result<(), Refusal> {
        let _until_all_is_merged = self.import.0.streams.read().await;
        let mut closing = self.import.0.closing.subscribe();
        if *closing.borrow() {
            return Err(NotImported::Closed.into());
        }
        let mut group = Group::default();
        let end = loop {
            let next = async {
                tokio::select! {
                    metric = next(&mut messages, MAX_METRIC_BYTES) => metric,
                    _ = closing.wait_for(|is_closing| *is_closing) => Ok(None),
                }
            };
            // `None` is time to merge.
            let next = match group.due() {
                Some(due) => timeout_at(due.into(), next).await.ok(),
                None => Some(next.await),
            };
            match next {
                Some(Ok(Some(metric))) => group.push(metric, Instant::now()),
                Some(Ok(None)) => break Ok(()),
                Some(Err(refusal)) => break Err(refusal),
                None => {}
            }
            if group.is_full() || group.due().is_some_and(|due| due <= Instant::now()) {
                self.merge(std::mem::take(&mut group)).await?;
            }
        };
        // What came before the stream broke came whole.
        self.merge(group).await?;
        end
    }

    /// Merges what is good of a group, and counts the rest.
    async fn merge(&self, group: Group) -> Result<(), Refusal> {
        if group.due().is_none() {
            return Ok(());
        }
        let inside = Arc::clone(&self.import.0);
        let patience = Patience::Endless;
        let turn = wait(patience.deadline(), Arc::clone(&inside.turns).acquire_owned()).await?;
        let merged = spawn_blocking(move || {
            inside.telemetry.histogram(names::IMPORT_BYTES, "", group.bytes() as f64);
            let (entries, causes) = group.decode();
            for cause in causes {
                inside.count_cause(cause.as_str(), 1);
                warn!(%cause, "refused a metric of a stream");
            }
            let merged = inside.merge(entries, None, SystemTime::now().into(), patience);
            drop(turn);
            merged.map(|_is_merged| ())
        });
        merged.await.unwrap_or(Err(Refusal::Failed))
    }
}

/// The next message; none is longer than `most` bytes.
async fn next(messages: &mut Messages, most: usize) -> Result<Option<Bytes>, Refusal> {
    messages.message().await.map_err(|status| match status.code() {
        Code::OutOfRange => Refusal::TooLong(most),
        _ => Refusal::Cut(status.message().to_owned()),
    })
}

fn received(list: Bytes, id: Option<BatchId>, headers: &HeaderMap) -> Received {
    let (encoding, format) = (Encoding::Identity, Format::Protobuf);
    let interval_end = interval_end(headers);
    Received { bytes: list, encoding, format, id, interval_end, tag: "grpc" }
}
