//! Where the entries of a body go: into the shards of a daemon, or on through a proxy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::refusal::Refusal;
use crate::forward::relay::Relay;
use crate::forward::ring::Ring;
use crate::model::UnixSeconds;
use crate::pipeline::Importer;
use crate::protocol::import::ImportedEntry;

/// Where the entries of a body go. It takes all of them or none.
#[derive(Debug)]
pub enum Onward {
    /// Into the shards of this node, where they are merged.
    Shards(Importer),
    /// To other nodes, as they came.
    Nodes(Relay),
}

impl From<Importer> for Onward {
    fn from(importer: Importer) -> Onward {
        Onward::Shards(importer)
    }
}

impl From<Relay> for Onward {
    fn from(relay: Relay) -> Onward {
        Onward::Nodes(relay)
    }
}

/// How long entries may wait to be taken.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// Those of a body: its sender keeps it and comes again.
    Until(Instant),
    /// Those of a stream, as long as it takes: their sender does not keep them.
    Endless,
}

impl Patience {
    /// Until when.
    pub(super) fn deadline(self) -> Instant {
        const ENDLESS: Duration = Duration::from_secs(365 * 86_400);
        match self {
            Patience::Until(deadline) => deadline,
            Patience::Endless => Instant::now() + ENDLESS,
        }
    }
}

impl Onward {
    /// Takes all entries, or none; returns when they are merged, or in the outbox. Blocks its
    /// thread. Workers are busy for milliseconds, so a body waits for them; an outbox is full
    /// for as long as its upstream is gone, so only a stream waits for that.
    ///
    /// # Errors
    /// Why nothing was taken.
    pub(super) fn take(
        &self,
        entries: Vec<ImportedEntry>,
        interval_end: UnixSeconds,
        patience: Patience,
    ) -> Result<(), Refusal> {
        match self {
            Onward::Shards(importer) => importer.import(entries, patience.deadline())?,
            Onward::Nodes(relay) => {
                let waits = matches!(patience, Patience::Endless);
                relay.pass_on(entries, interval_end, waits)?;
            }
        }
        Ok(())
    }

    /// Who has which share, as that changes, if there must be somebody to pass entries on to.
    pub(super) fn ring(&self) -> Option<watch::Receiver<Arc<Ring>>> {
        match self {
            Onward::Shards(_) => None,
            Onward::Nodes(relay) => Some(relay.ring()),
        }
    }

    /// Lets nobody wait for an outbox any more: it may be full for ever. Workers go on taking.
    pub(super) fn end_waiting(&self) {
        match self {
            Onward::Shards(_) => {}
            Onward::Nodes(relay) => relay.end_waiting(),
        }
    }

    /// Takes nothing more, and waits for what has begun.
    pub(super) fn close(&self) {
        match self {
            Onward::Shards(importer) => importer.close(),
            Onward::Nodes(relay) => relay.close(),
        }
    }
}
