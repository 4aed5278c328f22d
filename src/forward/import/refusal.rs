//! Why a body is not taken, and what its sender and our own metrics are told.

use axum::http::StatusCode;
use tonic::Code;

use super::plain::NotPlain;
use crate::forward::identity::BadIdentity;
use crate::forward::relay::NotPassedOn;
use crate::pipeline::NotImported;
use crate::protocol::import::{Cause, ImportError};

/// Why nothing of a body was merged.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// There is a token, and the sender does not show it.
    #[error("missing or wrong token")]
    Token,
    /// `X-Veneur-Batch` is unreadable.
    #[error(transparent)]
    Identity(#[from] BadIdentity),
    /// `Content-Encoding` is none that we read.
    #[error("{0}")]
    UnknownEncoding(String),
    /// Longer than this many bytes as received.
    #[error("body is longer than {0} bytes")]
    TooLong(usize),
    /// Not decompressed.
    #[error(transparent)]
    NotPlain(#[from] NotPlain),
    /// Not decoded.
    #[error(transparent)]
    Undecodable(#[from] ImportError),
    /// The connection broke in the middle of the body.
    #[error("body ended early: {0}")]
    Cut(String),
    /// The body did not come in time.
    #[error("body took too long")]
    Slow,
    /// Too many bodies are being imported.
    #[error("too many imports at once")]
    Crowded,
    /// Not handed to the workers.
    #[error(transparent)]
    NotImported(#[from] NotImported),
    /// Not handed to the outbox of a proxy.
    #[error(transparent)]
    NotPassedOn(#[from] NotPassedOn),
    /// Another request is still merging the same batch.
    #[error("this batch is still being merged")]
    Underway,
    /// The batch is so old that nobody knows whether it was merged.
    #[error("this batch is too old to tell whether it was merged before")]
    Forgotten,
    /// A panic.
    #[error("import failed")]
    Failed,
}

/// What a refusal is called.
pub(super) struct Named {
    /// Value of the tag `cause`.
    pub(super) cause: &'static str,
    /// Status of HTTP.
    pub(super) status: StatusCode,
    /// Status of gRPC.
    pub(super) code: Code,
}

impl Refusal {
    /// The names of it.
    pub(super) fn named(&self) -> Named {
        let (cause, status, code) = match self {
            Refusal::Token => ("token", StatusCode::UNAUTHORIZED, Code::Unauthenticated),
            Refusal::Identity(_) => ("identity", StatusCode::BAD_REQUEST, Code::InvalidArgument),
            Refusal::UnknownEncoding(_) => (
                "unknown_content_encoding",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Code::Unimplemented,
            ),
            Refusal::TooLong(_)
            | Refusal::NotPlain(NotPlain::TooLong(_))
            | Refusal::NotPassedOn(NotPassedOn::TooLarge) => {
                ("too_long", StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted)
            }
            Refusal::NotPlain(NotPlain::Broken { encoding, .. }) => {
                (encoding.as_str(), StatusCode::BAD_REQUEST, Code::InvalidArgument)
            }
            // Smaller bodies of the same entries may be taken.
            Refusal::Undecodable(ImportError { cause: Cause::TooManyEntries, .. }) => (
                Cause::TooManyEntries.as_str(),
                StatusCode::PAYLOAD_TOO_LARGE,
                Code::ResourceExhausted,
            ),
            Refusal::Undecodable(error) => {
                (error.cause.as_str(), StatusCode::BAD_REQUEST, Code::InvalidArgument)
            }
            Refusal::Cut(_) => ("io", StatusCode::BAD_REQUEST, Code::Aborted),
            Refusal::Slow => ("timeout", StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded),
            Refusal::Crowded | Refusal::NotImported(NotImported::Busy) => {
                ("busy", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable)
            }
            Refusal::Underway => ("underway", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
            Refusal::NotImported(NotImported::Closed)
            | Refusal::NotPassedOn(NotPassedOn::Closed) => {
                ("shutdown", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable)
            }
            Refusal::NotPassedOn(NotPassedOn::Full) => {
                ("outbox_full", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable)
            }
            Refusal::NotPassedOn(NotPassedOn::NoUpstream) => {
                ("no_upstream", StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable)
            }
            Refusal::Forgotten => ("forgotten", StatusCode::CONFLICT, Code::FailedPrecondition),
            Refusal::Failed => ("panic", StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
        };
        Named { cause, status, code }
    }
}
