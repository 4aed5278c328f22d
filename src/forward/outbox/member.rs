//! One member of the ring: what waits for it, and whether it may have more.

use std::collections::BTreeMap;

use super::Batch;
use crate::forward::health::Health;
use crate::forward::identity::BatchId;

/// A member, and the batches bound to it.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// Whether it is configured, or resolved at present.
    pub(super) is_listed: bool,
    pub(super) health: Health,
    pub(super) remembers: bool,
    /// By attempts and age: a batch that fails alone does not hold up the others.
    pub(super) waiting: BTreeMap<(u32, BatchId), Batch>,
    pub(super) in_flight: usize,
    pub(super) is_probed: bool,
    /// Batches it took.
    pub(super) taken: u64,
    /// What it had taken when a batch on disk was claimed for it, while that one is under way.
    pub(super) backlog_since: Option<u64>,
    /// Whether something for it is on disk.
    pub(super) has_backlog: bool,
}

impl Member {
    /// Takes out what waits and is such a batch, oldest first among those tried as often.
    pub(super) fn take_where(&mut self, mut is_one: impl FnMut(&Batch) -> bool) -> Vec<Batch> {
        let all = self.waiting.iter();
        let keys: Vec<_> = all.filter(|(_, batch)| is_one(batch)).map(|(key, _)| *key).collect();
        keys.iter().filter_map(|key| self.waiting.remove(key)).collect()
    }

    pub(super) fn is_in_ring(&self) -> bool {
        self.is_listed && !self.health.is_out()
    }

    /// Whether another request may be under way.
    pub(super) fn is_free(&self, in_flight: usize) -> bool {
        if self.health.works() {
            return self.in_flight + usize::from(self.is_probed) < in_flight;
        }
        self.in_flight == 0 && !self.is_probed && self.backlog_since.is_none()
    }

    /// Whether only a probe can tell that it works again: there is no batch to try it with.
    pub(super) fn wants_a_probe(&self) -> bool {
        self.is_listed && self.health.is_out() && self.waiting.is_empty()
    }

    /// Whether it is not listed any more and has nothing left.
    pub(super) fn is_done(&self) -> bool {
        let is_busy = self.in_flight > 0 || self.is_probed || self.backlog_since.is_some();
        !self.is_listed && self.waiting.is_empty() && !is_busy && !self.has_backlog
    }
}
