//! Where what becomes of entries is written down: own telemetry, and the log if any were lost.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::outbox::{Batch, Lost, Outbox};
use super::reason::Reason;
use super::ring::Ring;
use super::transport::Unresolved;
use crate::net::Outcome;
use crate::telemetry::{Telemetry, names};

/// The books of forwarding.
#[derive(Clone, Debug)]
pub(super) struct Books {
    telemetry: Telemetry,
}

impl Books {
    pub(super) fn new(telemetry: Telemetry) -> Books {
        Books { telemetry }
    }

    /// So many entries are to be forwarded.
    pub(super) fn offered(&self, entries: u64) {
        self.telemetry.count(names::FORWARD_ENTRIES_OFFERED_TOTAL, "", entries);
    }

    /// A flush has so many entries to forward.
    pub(super) fn flush(&self, entries: usize) {
        self.telemetry.gauge(names::FORWARD_POST_METRICS_TOTAL, "", entries as f64);
    }

    /// Entries were encoded, and some left out.
    pub(super) fn encoded(&self, took: Duration, left_out: &[(Reason, u64)]) {
        self.telemetry.duration(names::FORWARD_DURATION_NS, "part:export", took);
        for &(reason, entries) in left_out.iter().filter(|(_, entries)| *entries > 0) {
            self.left_out(reason, entries);
        }
    }

    /// Entries were lost before anyone knew where they would go.
    pub(super) fn left_out(&self, reason: Reason, entries: u64) {
        let tags = format!("reason:{reason}");
        self.telemetry.count(names::FORWARD_ENTRIES_DROPPED_TOTAL, &tags, entries);
        error!(%reason, entries, "entries were not forwarded");
    }

    /// A batch is sent.
    pub(super) fn sending(&self, member: &str, batch: &Batch) {
        let tag = upstream(member);
        let bytes = batch.packed.body.len() as f64;
        self.telemetry.histogram(names::FORWARD_CONTENT_LENGTH_BYTES, &tag, bytes);
        let retries = u64::from(batch.attempts() > 1);
        self.telemetry.count(names::FORWARD_RETRIES_TOTAL, &tag, retries);
    }

    /// A request ended.
    pub(super) fn answered(&self, member: &str, outcome: &Outcome, took: Duration) {
        let tag = upstream(member);
        let part = format!("part:post,{tag}");
        self.telemetry.duration(names::FORWARD_DURATION_NS, &part, took);
        match outcome.cause() {
            // A counter exists before the first failure, so that a monitor sees a zero.
            None => self.telemetry.count(names::FORWARD_ERROR_TOTAL, &tag, 0),
            Some(cause) => {
                let tags = format!("cause:{cause},{tag}");
                self.telemetry.count(names::FORWARD_ERROR_TOTAL, &tags, 1);
                warn!(upstream = member, %outcome, "an upstream node did not take a batch");
            }
        }
    }

    /// A batch was taken.
    pub(super) fn delivered(&self, member: &str, entries: u64) {
        let tag = upstream(member);
        self.telemetry.count(names::FORWARD_ENTRIES_DELIVERED_TOTAL, &tag, entries);
    }

    /// Batches were given up.
    pub(super) fn lost(&self, lost: &[Lost]) {
        for Lost { member, reason, entries, bytes } in lost {
            let tags = format!("reason:{reason},{}", upstream(member));
            self.telemetry.count(names::FORWARD_ENTRIES_DROPPED_TOTAL, &tags, *entries);
            self.telemetry.count(names::FORWARD_DROPPED_BYTES_TOTAL, &tags, *bytes);
            error!(upstream = &**member, %reason, entries, bytes, "entries were not forwarded");
        }
    }

    /// Names were resolved.
    pub(super) fn resolved(&self, took: Duration, failures: &[Unresolved]) {
        self.telemetry.duration(names::FORWARD_DURATION_NS, "part:dns", took);
        for Unresolved { upstream: member, cause, why } in failures {
            let tags = format!("cause:{cause},{}", upstream(member));
            self.telemetry.count(names::FORWARD_ERROR_TOTAL, &tags, 1);
            warn!(
                upstream = &**member,
                cause, why, "an upstream name cannot be resolved: what it stood for stays"
            );
        }
    }

    /// What waits at present.
    pub(super) fn state(&self, outbox: &Outbox) {
        let members = outbox.ring().members().len();
        self.telemetry.gauge(names::FORWARD_QUEUE_BYTES, "", outbox.bytes() as f64);
        self.telemetry.gauge(names::FORWARD_QUEUE_ENTRIES, "", outbox.entries() as f64);
        self.telemetry.gauge(names::FORWARD_RING_MEMBERS, "", members as f64);
    }

    /// Shares have moved.
    pub(super) fn ring(&self, old: &Ring, new: &Ring) {
        let is_in = |ring: &Ring, member: &Arc<str>| ring.members().binary_search(member).is_ok();
        for member in old.members().iter().filter(|member| !is_in(new, member)) {
            warn!(upstream = &**member, "an upstream node has left the ring: its share moves");
        }
        for member in new.members().iter().filter(|member| !is_in(old, member)) {
            info!(upstream = &**member, "an upstream node has joined the ring");
        }
    }

    /// A probe ended.
    pub(super) fn probed(&self, member: &str, is_there: bool) {
        debug!(upstream = member, is_there, "probed an upstream node");
    }
}

fn upstream(member: &str) -> String {
    format!("upstream:{member}")
}
