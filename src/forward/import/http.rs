//! `POST /import`: what other nodes forward, over HTTP.
//!
//! | Request | Answer |
//! |---|---|
//! | a good body, or one that was merged before | 202, empty |
//! | wrong token | 401 |
//! | not what its encoding or content type says, an impossible value, nothing in it | 400 |
//! | a `Content-Encoding` other than identity, deflate, gzip, zstd | 415 |
//! | longer than allowed, before or after decompression | 413 |
//! | body comes too slowly | 408 |
//! | a batch of which nobody knows whether it was merged | 409 |
//! | too many at once, workers busy, shutting down; of a proxy, its outbox full or no upstream node known | 503, `Retry-After` |
//!
//! A body of content type `application/x-protobuf` (or `application/protobuf`) is a
//! `MetricList`; any other is JSON, since Veneur never looks at the content type. An answer
//! other than 202 has one line of text that says why, and none of it was merged. Every answer
//! repeats `X-Veneur-Batch`.
//!
//! Source: Veneur v1.1.0 `handlers_global.go`; 401, 408, 409, 413, 503, gzip and zstd are ours.

use std::future::poll_fn;
use std::pin::Pin;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use tokio::time::timeout_at;

use super::plain::Encoding;
use super::refusal::Refusal;
use super::{Format, Import, Received, identity, interval_end};
use crate::forward::identity::BATCH_HEADER;

/// Seconds after which a sender may come again: senders have a backoff of their own.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

pub(super) fn router(import: &Import) -> Router {
    Router::new().route("/import", post(answer)).with_state(import.clone())
}

async fn answer(State(import): State<Import>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let taken = post_import(&import, &head.headers, body).await;
    let mut response = match taken {
        Ok(()) => StatusCode::ACCEPTED.into_response(),
        Err(refusal) => {
            import.count_refusal(&refusal);
            refused(&refusal)
        }
    };
    if let Some(batch) = head.headers.get(BATCH_HEADER) {
        response.headers_mut().insert(BATCH_HEADER, batch.clone());
    }
    response
}

async fn post_import(import: &Import, headers: &HeaderMap, body: Body) -> Result<(), Refusal> {
    import.authorize(headers)?;
    let id = identity(headers)?;
    let interval_end = interval_end(headers);
    let encoding = encoding(headers)?;
    let format = format(headers);
    let room = import.room(body.size_hint().exact()).await?;
    let read = read(body, import.0.settings.max_body_bytes.get());
    let bytes = timeout_at(room.deadline.into(), read).await.unwrap_or(Err(Refusal::Slow))?;
    let tag = encoding.as_str();
    import.take(room, Received { bytes, encoding, format, id, interval_end, tag }).await
}

fn refused(refusal: &Refusal) -> Response {
    let status = refusal.named().status;
    let mut response = (status, format!("{refusal}\n")).into_response();
    let headers = response.headers_mut();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Refusal> {
    let value = headers.get(CONTENT_ENCODING).map_or(&b""[..], |value| value.as_bytes());
    let value = String::from_utf8_lossy(value);
    Encoding::from_header(&value).ok_or_else(|| Refusal::UnknownEncoding(value.into_owned()))
}

fn format(headers: &HeaderMap) -> Format {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (kind, _parameters) = value.split_once(';').unwrap_or((value, ""));
    match kind.trim().to_ascii_lowercase().as_str() {
        "application/x-protobuf" | "application/protobuf" => Format::Protobuf,
        _ => Format::Json,
    }
}

/// The whole body, if it has `most` bytes at most.
async fn read(mut body: Body, most: usize) -> Result<Bytes, Refusal> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| Refusal::Cut(error.to_string()))?;
        // The other frames are trailers, which mean nothing here.
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > most {
            return Err(Refusal::TooLong(most));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.into())
}
