//! What came from other nodes, passed on as it came: the way into the outbox of a proxy.
//!
//! Entries are written for the members of the ring on the thread that brings them, and handed to
//! the task that owns the outbox, all bodies of one request at once. It takes them all or none:
//! whoever is told yes may forget them, and whoever is told no keeps them. So an outbox that is
//! full pushes back on its senders; it drops nothing to make room.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::Offer;
use super::encode::Encoder;
use super::outbox::Origin;
use super::ring::Ring;
use crate::model::{Dialect, MetricKey, UnixSeconds};
use crate::protocol::import::{ImportedEntry, ImportedValue};

/// How often one who waits looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why nothing of a body was passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPassedOn {
    /// There is no room: it may be sent again later.
    #[error("the outbox is full")]
    Full,
    /// It is larger than all the room there is.
    #[error("body is larger than forward.queue_bytes")]
    TooLarge,
    /// No upstream node has been found yet.
    #[error("no upstream node is known")]
    NoUpstream,
    /// This node is about to end.
    #[error("shutting down")]
    Closed,
}

/// The way into the outbox. Shared by all who receive.
#[derive(Debug)]
pub struct Relay {
    /// Read while a body is handed over, written once, at the end: so whoever closes waits for
    /// the bodies that have begun.
    offers: RwLock<Option<mpsc::Sender<Offer>>>,
    /// Read by those who wait, written at the end.
    is_closing: AtomicBool,
    ring: watch::Receiver<Arc<Ring>>,
    encoder: Encoder,
    queue_bytes: usize,
}

impl Relay {
    pub(super) fn new(
        offers: mpsc::Sender<Offer>,
        ring: watch::Receiver<Arc<Ring>>,
        encoder: Encoder,
        queue_bytes: usize,
    ) -> Relay {
        let (offers, is_closing) = (RwLock::new(Some(offers)), AtomicBool::new(false));
        Relay { offers, is_closing, ring, encoder, queue_bytes }
    }

    /// Passes all entries on, or none; returns when they are in the outbox. Those that the
    /// format of upstream cannot hold are counted as dropped. Blocks its thread: if it `waits`,
    /// until there is an upstream node, and room, or this node ends.
    ///
    /// # Errors
    /// Why nothing was passed on.
    ///
    /// # Panics
    /// On a thread of the runtime.
    pub fn pass_on(
        &self,
        entries: Vec<ImportedEntry>,
        interval_end: UnixSeconds,
        waits: bool,
    ) -> Result<(), NotPassedOn> {
        // A panic under the lock leaves nothing half done: it only guards the way.
        let offers = self.offers.read().unwrap_or_else(PoisonError::into_inner);
        let offers = offers.as_ref().ok_or(NotPassedOn::Closed)?;
        while self.ring.borrow().members().is_empty() {
            self.wait(waits).ok_or(NotPassedOn::NoUpstream)?;
        }
        let ring = Arc::clone(&self.ring.borrow());
        let started = Instant::now();
        let origin = Origin { interval_end, since: started, halvings: 0 };
        let mut encoded = self.encoder.encode(entries.into_iter().map(apart), &ring, origin);
        let took = started.elapsed();
        if encoded.memory_bytes() > self.queue_bytes {
            return Err(NotPassedOn::TooLarge);
        }
        loop {
            let (reply, answer) = oneshot::channel();
            let offer = Offer::Bodies { encoded, took, reply };
            offers.blocking_send(offer).map_err(|_| NotPassedOn::Closed)?;
            match answer.blocking_recv() {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(refused)) => encoded = refused,
                Err(_gone) => return Err(NotPassedOn::Closed),
            }
            self.wait(waits).ok_or(NotPassedOn::Full)?;
        }
    }

    /// Who has which share, as it changes.
    pub(super) fn ring(&self) -> watch::Receiver<Arc<Ring>> {
        self.ring.clone()
    }

    /// Waits a moment for one who `waits`; `None` if there is no point in it.
    fn wait(&self, waits: bool) -> Option<()> {
        if !waits || self.is_closing.load(Ordering::Relaxed) {
            return None;
        }
        thread::sleep(LOOK_AGAIN);
        Some(())
    }

    /// Lets nobody wait any more for an upstream node or for room.
    pub fn end_waiting(&self) {
        self.is_closing.store(true, Ordering::Relaxed);
    }

    /// Takes no more bodies, and waits for those that have begun.
    pub fn close(&self) {
        self.end_waiting();
        self.offers.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// An entry as what identifies its series and what that has accumulated.
fn apart(entry: ImportedEntry) -> (MetricKey, ImportedValue) {
    let ImportedEntry { name, tags, kind, scope, value } = entry;
    (MetricKey { name: name.into(), tags, kind, scope, dialect: Dialect::DogStatsD }, value)
}
