//! What goes up: aggregates that only make sense for the whole fleet, on their way to the
//! upstream nodes.
//!
//! ```text
//! flush ─► Forwarder::offer ─► encode: by ring member, in bodies ─► outbox ─► HTTP, gRPC
//!                                 (blocking pool)                    │  ▲
//!                                                                    └──┘ retry, move, halve
//! ```
//!
//! One task ([`client`]) owns it all; what is decided is pure and in files of its own: which
//! member a series goes to ([`ring`]), what a body is ([`pack`]), what is sent when and what
//! its answer means ([`outbox`]). Every entry is delivered or counted as dropped for a reason,
//! and none is merged twice by importers that remember batches ([`identity`], [`seen`]).

mod books;
mod client;
pub mod encode;
mod grpc;
mod health;
mod http;
pub mod identity;
pub mod import;
pub mod outbox;
pub mod pack;
pub mod reason;
pub mod ring;
pub mod seen;
mod transport;

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;
use tracing::error;

use self::books::Books;
use self::client::Client;
use self::encode::Encoder;
use self::http::Http;
use self::identity::Identities;
use self::outbox::Outbox;
use self::pack::BodyLimits;
use self::reason::Reason;
use crate::aggregate::Aggregate;
use crate::config::settings::{ForwardFormat, ForwardSettings};
use crate::model::{Interval, MetricKey, UnixSeconds};
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
}

/// What one flush has to forward.
#[derive(Debug)]
struct Offer {
    forwards: Vec<(Arc<MetricKey>, Aggregate)>,
    at: UnixSeconds,
}

impl Forwarder {
    /// Starts the task. Needs a tokio runtime, and a default TLS provider of the process.
    /// Flushes come every `interval`, which is also how long delivering the last one may take.
    ///
    /// # Errors
    /// When an address, certificate or token cannot be used.
    pub fn spawn(
        settings: &ForwardSettings,
        interval: Interval,
        telemetry: Telemetry,
    ) -> Result<Forwarder, SetupError> {
        let (format, limits) = (settings.format, body_limits(settings));
        let outbox = Outbox::new(outbox_limits(settings), Identities::new(SystemTime::now()));
        let books = Books::new(telemetry);
        let client = Client::new(
            Http::new(settings)?,
            Encoder { format, limits },
            outbox,
            settings.timeout,
            interval.length(),
            books.clone(),
        );
        let (offers, receiver) = mpsc::channel(QUEUE_FLUSHES);
        let task = tokio::spawn(client.run(receiver));
        Ok(Forwarder { offers, task, books })
    }

    /// Offers what a flush has to forward, `at` being the end of its interval. Never blocks: if
    /// encoding cannot keep up, the entries are dropped and counted.
    pub fn offer(&self, forwards: Vec<(Arc<MetricKey>, Aggregate)>, at: UnixSeconds) {
        let (offer, reason) = match self.offers.try_send(Offer { forwards, at }) {
            Ok(()) => return,
            Err(TrySendError::Full(offer)) => (offer, Reason::Busy),
            Err(TrySendError::Closed(offer)) => (offer, Reason::Shutdown),
        };
        if !offer.forwards.is_empty() {
            self.books.left_out(reason, offer.forwards.len() as u64);
        }
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
        // Only nodes of our own kind understand the others' format.
        remembers: settings.format == ForwardFormat::Protobuf,
    }
}
