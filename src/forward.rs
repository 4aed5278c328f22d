//! What goes up: aggregates that only make sense for the whole fleet, on their way to the
//! upstream nodes.
//!
//! ```text
//! flush ─► Forwarder::offer ─► encode: by ring member, in bodies ─► outbox ─► HTTP, gRPC
//!                                 (blocking pool)                    │  ▲
//! import of a proxy ─► Relay ─────────┘                              └──┘ retry, move, halve
//! ```
//!
//! One task ([`client`]) owns it all; what is decided is pure and in files of its own: which
//! member a series goes to ([`ring`]), what a body is ([`pack`]), what is sent when and what
//! its answer means ([`outbox`]). Every entry is delivered or counted as dropped for a reason,
//! and none is merged twice by importers that remember batches ([`identity`], [`seen`]).

pub mod backlog;
mod books;
mod client;
mod discovery;
pub mod encode;
mod grpc;
mod health;
mod http;
pub mod identity;
pub mod import;
pub mod outbox;
pub mod pack;
pub mod reason;
pub mod relay;
pub mod ring;
pub mod seen;
pub mod stored;
mod transport;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::error;

use self::books::Books;
use self::client::{Client, Times};
use self::encode::{Encoded, Encoder};
use self::http::Http;
use self::identity::Identities;
use self::outbox::Outbox;
use self::pack::BodyLimits;
use self::reason::Reason;
use self::relay::Relay;
use self::ring::Ring;
use crate::aggregate::Aggregate;
use crate::config::settings::{ForwardFormat, ForwardSettings};
use crate::model::{Interval, MetricKey, UnixSeconds};
use crate::spool::Spool;
use crate::telemetry::Telemetry;

pub use self::http::SetupError;

/// Flushes that may wait to be encoded. Encoding takes milliseconds, so more would only hide
/// that something is wrong.
const QUEUE_FLUSHES: usize = 2;

/// Forwarding to the upstream nodes.
#[derive(Debug)]
pub struct Forwarder {
    offers: mpsc::Sender<Offer>,
    task: JoinHandle<()>,
    books: Books,
    encoder: Encoder,
    queue_bytes: usize,
    ring: watch::Receiver<Arc<Ring>>,
}

/// What comes to be forwarded.
#[derive(Debug)]
enum Offer {
    /// What one flush has gathered.
    Flush { forwards: Vec<(Arc<MetricKey>, Aggregate)>, at: UnixSeconds },
    /// What came from other nodes in one request. It is taken whole, or given back.
    Bodies { encoded: Encoded, took: Duration, reply: oneshot::Sender<Result<(), Encoded>> },
}

impl Forwarder {
    /// Starts the task. Needs a tokio runtime, and a default TLS provider of the process.
    /// Delivering what is left at the end may take one `interval`.
    /// What upstream does not take within one `interval` waits in `spool`, if there is one.
    ///
    /// # Errors
    /// When an address, certificate or token cannot be used.
    pub fn spawn(
        settings: &ForwardSettings,
        interval: Interval,
        telemetry: Telemetry,
        spool: Option<Spool>,
    ) -> Result<Forwarder, SetupError> {
        let encoder = Encoder {
            format: settings.format,
            limits: body_limits(settings),
            ignored: settings.ignored_tags.as_slice().into(),
        };
        let mut waiting = outbox_limits(settings);
        if let Some(spool) = &spool {
            waiting.spool_after = Some(interval.length());
            waiting.queue_age = spool.max_age();
        }
        let outbox = Outbox::new(waiting, Identities::new(SystemTime::now()));
        let books = Books::new(telemetry);
        let client = Client::new(
            Http::new(settings)?,
            encoder.clone(),
            outbox,
            Times {
                request: settings.timeout,
                refresh: settings.refresh,
                drain: interval.length(),
            },
            spool,
            books.clone(),
        );
        let ring = client.ring();
        let (offers, receiver) = mpsc::channel(QUEUE_FLUSHES);
        let task = tokio::spawn(client.run(receiver));
        Ok(Forwarder { offers, task, books, encoder, queue_bytes: settings.queue_bytes, ring })
    }

    /// Offers what a flush has to forward, `at` being the end of its interval. Never blocks: if
    /// encoding cannot keep up, the entries are dropped and counted.
    pub fn offer(&self, forwards: Vec<(Arc<MetricKey>, Aggregate)>, at: UnixSeconds) {
        let entries = forwards.len() as u64;
        self.books.offered(entries);
        let reason = match self.offers.try_send(Offer::Flush { forwards, at }) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => Reason::Busy,
            Err(TrySendError::Closed(_)) => Reason::Shutdown,
        };
        if entries > 0 {
            self.books.left_out(reason, entries);
        }
    }

    /// A way to pass on what comes from other nodes. It must be closed before
    /// [`Forwarder::finish`] can end.
    pub fn relay(&self) -> Relay {
        Relay::new(self.offers.clone(), self.ring.clone(), self.encoder.clone(), self.queue_bytes)
    }

    /// Who has which share, as it changes; without members as long as none is known.
    pub fn ring(&self) -> watch::Receiver<Arc<Ring>> {
        self.ring.clone()
    }

    /// Delivers what has been offered, for one more interval at most; what is left then is
    /// dropped and counted.
    pub async fn finish(self) {
        drop(self.offers);
        if let Err(error) = self.task.await {
            error!(%error, "the task that forwards failed");
        }
    }
}

fn body_limits(settings: &ForwardSettings) -> BodyLimits {
    BodyLimits {
        entries: settings.max_entries_per_body.get(),
        body_bytes: settings.max_body_bytes.get(),
        plain_bytes: settings.max_plain_bytes.get(),
    }
}

fn outbox_limits(settings: &ForwardSettings) -> outbox::Limits {
    outbox::Limits {
        queue_bytes: settings.queue_bytes,
        queue_age: settings.queue_age,
        in_flight: settings.in_flight.get(),
        failover_after: settings.failover_after,
        spool_after: None,
        // Only nodes of our own kind understand the others' format.
        remembers: settings.format == ForwardFormat::Protobuf,
    }
}
