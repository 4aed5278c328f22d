//! What other nodes forward, taken in: [`Import`] is shared by `POST /import` and by the gRPC
//! service of Veneur 14.
//!
//! ```text
//! token, headers ─► room ─► read ─► turn ─► decompress ─► decode, check ─► once ─► onward ─► answer
//!   └──────── on the runtime ────────┘       └────────── on the blocking pool ─────────┘
//! ```
//!
//! - All of a body or nothing: it is decoded and checked before anything is merged, and the
//!   answer is yes only when the shards have it; of a proxy, when its outbox has it
//!   ([`Onward`]). A batch that is sent again is known by its identity, answered with yes and
//!   not merged.
//! - Memory is bounded. There is room for `in_flight` bodies of the longest kind as received,
//!   or for more that are shorter, so that a whole fleet may send at the same second; the
//!   others wait unread. `in_flight` of them at a time have a turn to be decompressed, which
//!   is limited in bytes again, and decoded, which is limited in entries.
//! - Time is bounded: one that has not begun to be merged after `timeout` is refused, and may
//!   come again. One that has begun is carried through.
//!
//! Source: Veneur v1.1.0 `handlers_global.go`; limits, identity and waiting are ours.

pub mod grpc;
mod http;
mod once;
mod onward;
mod plain;
mod refusal;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::http::HeaderMap;
use bytes::Bytes;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, RwLock, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout_at;
use tracing::warn;

use self::once::{Fate, Once};
pub use self::onward::Onward;
use self::onward::Patience;
use self::plain::Encoding;
use self::refusal::Refusal;
use crate::config::settings::ImportSettings;
use crate::forward::identity::{BATCH_HEADER, BatchId, INTERVAL_END_HEADER};
use crate::model::UnixSeconds;
use crate::net::bearer;
use crate::pipeline::NotImported;
use crate::protocol::import::{ImportError, Imported, ImportedEntry, Limits, json, protobuf};
use crate::telemetry::{Telemetry, names};

/// Takes in what other nodes forward. Cloning shares.
#[derive(Clone)]
pub struct Import(Arc<Inside>);

struct Inside {
    onward: Onward,
    once: Once,
    /// A permit for each [`UNIT`] of bodies as received.
    room: Arc<Semaphore>,
    /// A permit for each body being decompressed, decoded and merged.
    turns: Arc<Semaphore>,
    /// Turns true when nothing more is taken.
    closing: watch::Sender<bool>,
    /// Read while a stream is merged that does not end by itself; written once, at the end.
    streams: RwLock<()>,
    settings: ImportSettings,
    telemetry: Telemetry,
}

/// Bytes that bodies as received are counted in.
const UNIT: usize = 1024;

/// The right to read a body.
struct Room {
    began: Instant,
    /// Until then merging must have begun.
    deadline: Instant,
    _permit: OwnedSemaphorePermit,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// A `forwardrpc.MetricList`: of our own nodes, and of Veneur 14 over gRPC.
    Protobuf,
    /// The JSON of Veneur 1.1 and 14.
    Json,
}

impl Format {
    fn decode(self, plain: &[u8], limits: Limits) -> Result<Imported, ImportError> {
        match self {
            Format::Protobuf => protobuf::decode(plain, limits),
            Format::Json => json::decode(plain, limits),
        }
    }
}

/// A body as received.
struct Received {
    bytes: Bytes,
    encoding: Encoding,
    format: Format,
    id: Option<BatchId>,
    interval_end: UnixSeconds,
    /// Value of the tag `encoding` in our own metrics.
    tag: &'static str,
}

impl Import {
    /// Hands what comes in on to an importer, or of a proxy to a relay.
    pub fn new(
        onward: impl Into<Onward>,
        settings: &ImportSettings,
        telemetry: Telemetry,
    ) -> Import {
        let in_flight = settings.in_flight.get();
        let room = in_flight.saturating_mul(settings.max_body_bytes.get().div_ceil(UNIT));
        Import(Arc::new(Inside {
            onward: onward.into(),
            once: Once::default(),
            room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))),
            turns: Arc::new(Semaphore::new(in_flight)),
            closing: watch::Sender::new(false),
            streams: RwLock::default(),
            settings: settings.clone(),
            telemetry,
        }))
    }

    /// The page `POST /import`.
    pub fn router(&self) -> axum::Router {
        http::router(self)
    }

    /// Refuses what has not begun to be merged, waits for the rest, and lets go of the workers
    /// or the outbox: what was answered with yes is in their next flush, or in it. Blocks its
    /// thread.
    ///
    /// # Panics
    /// On a thread of the runtime.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
        self.0.onward.end_waiting();
        drop(self.0.streams.blocking_write());
        self.0.room.close();
        self.0.turns.close();
        self.0.onward.close();
    }

    /// Checks the token.
    fn authorize(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match &self.0.settings.token {
            Some(token) if !bearer::shows(headers, token) => Err(Refusal::Token),
            Some(_) | None => Ok(()),
        }
    }

    /// Waits for room for a body, if need be for as long as a body may take. One whose length
    /// is not announced needs as much as the longest.
    async fn room(&self, announced: Option<u64>) -> Result<Room, Refusal> {
        let began = Instant::now();
        let deadline = began + self.0.settings.timeout;
        let most = self.0.settings.max_body_bytes.get();
        let length = match announced.map(usize::try_from) {
            Some(Ok(length)) if length <= most => length,
            Some(_) => return Err(Refusal::TooLong(most)),
            None => most,
        };
        // The most is a gigabyte, which fits.
        let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.0.room).acquire_many_owned(units);
        let permit = wait(deadline, permit).await?;
        Ok(Room { began, deadline, _permit: permit })
    }

    /// Decodes a body and merges it, all or nothing. Its room and turn are held until that is
    /// done, even if nobody waits for it any more.
    async fn take(&self, room: Room, received: Received) -> Result<(), Refusal> {
        let turn = wait(room.deadline, Arc::clone(&self.0.turns).acquire_owned()).await?;
        let inside = Arc::clone(&self.0);
        let taken = spawn_blocking(move || {
            let taken = inside.take(&room, received);
            drop((turn, room));
            taken
        });
        taken.await.unwrap_or(Err(Refusal::Failed))
    }

    /// Counts a refusal, and says so where the operator looks.
    fn count_refusal(&self, refusal: &Refusal) {
        let cause = refusal.named().cause;
        self.0.count_cause(cause, 1);
        warn!(cause, %refusal, "refused an import");
    }
}

impl Inside {
    fn take(&self, room: &Room, received: Received) -> Result<(), Refusal> {
        let Received { bytes, encoding, format, id, interval_end, tag } = received;
        self.telemetry.histogram(names::IMPORT_BYTES, "", bytes.len() as f64);
        let ImportSettings { max_plain_bytes, max_entries_per_body, .. } = self.settings;
        let plain = encoding.decompress(bytes, max_plain_bytes.get())?;
        let limits = Limits { entries: max_entries_per_body.get() };
        let Imported { entries, set_precision } = format.decode(&plain, limits)?;
        drop(plain);
        let part = format!("part:request,encoding:{tag}");
        self.telemetry.duration(names::IMPORT_RESPONSE_DURATION_NS, &part, room.began.elapsed());
        let is_merged = self.merge(entries, id, interval_end, Patience::Until(room.deadline))?;
        if is_merged && set_precision > 0 {
            self.count_cause("set_precision", set_precision);
        }
        Ok(())
    }

    /// Merges what was decoded; `false` if it is a batch that had been merged before.
    fn merge(
        &self,
        entries: Vec<ImportedEntry>,
        id: Option<BatchId>,
        interval_end: UnixSeconds,
        patience: Patience,
    ) -> Result<bool, Refusal> {
        let began = Instant::now();
        let count = entries.len() as u64;
        let merge = || self.onward.take(entries, interval_end, patience);
        let fate = match id {
            Some(id) => self.once.run(id, patience.deadline(), merge)?,
            None => merge().map(|()| Fate::Merged)?,
        };
        match fate {
            Fate::Merged => {}
            Fate::Repeated => {
                self.telemetry.count(names::IMPORT_REPEATED_TOTAL, "", 1);
                return Ok(false);
            }
            Fate::Underway => return Err(Refusal::Underway),
            Fate::Forgotten => return Err(Refusal::Forgotten),
        }
        self.telemetry.duration(names::IMPORT_RESPONSE_DURATION_NS, "part:merge", began.elapsed());
        self.telemetry.count(names::IMPORT_METRICS_TOTAL, "", count);
        Ok(true)
    }

    fn count_cause(&self, cause: &str, n: u64) {
        self.telemetry.count(names::IMPORT_REQUEST_ERROR_TOTAL, &format!("cause:{cause}"), n);
    }
}

/// Waits for a permit, but not beyond `deadline`.
async fn wait(
    deadline: Instant,
    permit: impl Future<Output = Result<OwnedSemaphorePermit, AcquireError>>,
) -> Result<OwnedSemaphorePermit, Refusal> {
    match timeout_at(deadline.into(), permit).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_closed)) => Err(NotImported::Closed.into()),
        Err(_elapsed) => Err(Refusal::Crowded),
    }
}

/// The identity of a batch, if its sender gives it one.
fn identity(headers: &HeaderMap) -> Result<Option<BatchId>, Refusal> {
    let Some(value) = headers.get(BATCH_HEADER) else { return Ok(None) };
    // What is no text is no identity either.
    let text = value.to_str().unwrap_or_default();
    Ok(Some(text.parse()?))
}

/// The end of the interval a body is of: now, unless its sender says so in a way we read.
fn interval_end(headers: &HeaderMap) -> UnixSeconds {
    let told = headers.get(INTERVAL_END_HEADER).and_then(|value| value.to_str().ok());
    let told = told.and_then(|seconds| seconds.parse().ok()).map(UnixSeconds);
    told.unwrap_or_else(|| SystemTime::now().into())
}
