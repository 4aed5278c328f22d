//! Batches on their way up: what is sent next, to whom, and what became of it.
//!
//! Pure: the task that owns it ([`super::client`]) asks for the next [`Errand`], runs it and
//! says how it ended; time and chance are arguments. For every batch exactly one of these
//! happens, and all but the first are counted: it is taken, it is [`Lost`] for a reason, or it
//! is handed out to be parted ([`Settled::TooLarge`], [`Outbox::take_stranded`]) and its
//! entries come back in other batches.
//!
//! **Never twice.** A batch keeps its identity while it is retried, and an importer that has
//! merged it does not merge it again. But only *that* importer knows. So a batch that may have
//! been taken stays bound to its member, even when that member has left the ring, until it is
//! answered or too old; only a batch that was surely not taken may go elsewhere. The price of
//! not counting twice is that what a member had not answered when it died is lost with it.
//! Towards a member that does not remember batches (a real Veneur) an unanswered batch is not
//! sent again at all, but counted as lost at once.
//!
//! **On disk.** If there is one, what has failed or waits for long is taken out ([`Outbox::take_due`])
//! and comes back one at a time for each member, oldest first, beside what is fresh. It is sent
//! from there and returns there; it is never among those that wait here.
//!
//! **Bounded.** Batches wait for `queue_age` at most and take `queue_bytes` at most, the oldest
//! being dropped first; each member has `in_flight` requests at once, and a single one while it
//! fails, after a rest that grows ([`super::health`]).

mod batch;
mod member;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::member::Member;
use super::identity::{BatchId, Identities};
use super::pack::Packed;
use super::reason::Reason;
use super::ring::Ring;

pub use self::batch::{Batch, Lost, Origin, Settled, Verdict};

/// The bounds of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory of all batches.
    pub queue_bytes: usize,
    /// How long a batch may wait.
    pub queue_age: Duration,
    /// Requests at once, per member.
    pub in_flight: usize,
    /// A member that has failed for this long leaves the ring, if another one works.
    pub failover_after: Duration,
    /// A batch that has failed, or waits for so long, goes to disk; `None`: there is none.
    pub spool_after: Option<Duration>,
    /// Whether members are taken to remember batches before they have shown it.
    pub remembers: bool,
}

/// Something to be done now.
#[derive(Debug)]
pub enum Errand {
    /// Send the batch; say how it ended with [`Outbox::settle`].
    Post(Arc<str>, Batch),
    /// Ask whether the member is there; say so with [`Outbox::probed`].
    Probe(Arc<str>),
}

/// How an errand went.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub now: Instant,
    /// A random number in `0.0..1.0`.
    pub chance: f64,
}

/// All batches and members.
#[derive(Debug)]
pub struct Outbox {
    limits: Limits,
    identities: Identities,
    members: BTreeMap<Arc<str>, Member>,
    ring: Arc<Ring>,
    /// Memory of all batches, those in flight included.
    bytes: usize,
    entries: u64,
}

impl Outbox {
    /// Nothing to send, and nobody to send it to.
    pub fn new(limits: Limits, identities: Identities) -> Outbox {
        Outbox {
            limits,
            identities,
            members: BTreeMap::new(),
            ring: Arc::default(),
            bytes: 0,
            entries: 0,
        }
    }

    /// Says who the members are from now on. One that is no more keeps what is bound to it.
    pub fn list(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        self.members.values_mut().for_each(|member| member.is_listed = false);
        for name in names {
            self.member(&name).is_listed = true;
        }
        self.update_ring();
    }

    /// Who has which share.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// Whether there is or was such a member, and something may still be bound to it.
    pub fn is_known(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Memory of all batches.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Entries in all batches.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Whether batches of so many bytes can be pushed without dropping others.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= self.limits.queue_bytes
    }

    /// Whether nothing is waiting or in flight.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Takes a batch for a member, and drops the oldest ones if there is no room.
    pub fn push(&mut self, name: &Arc<str>, packed: Packed, origin: Origin) -> Vec<Lost> {
        self.bytes += packed.memory_bytes();
        self.entries += packed.entries();
        let id = self.identities.issue();
        let batch = Batch { id, packed, origin, attempts: 0, is_unsure: false, spooled: None };
        self.member(name).waiting.insert((0, id), batch);

        let mut lost = Vec::new();
        while self.bytes > self.limits.queue_bytes
            && let Some((name, key)) = self.oldest()
        {
            lost.extend(self.drop_waiting(&name, key, Reason::QueueFull));
        }
        lost
    }

    /// What is to be done now, if anything is.
    pub fn next(&mut self, now: Instant) -> Option<Errand> {
        let in_flight = self.limits.in_flight;
        for (name, member) in &mut self.members {
            if !member.is_free(in_flight) || member.health.rests_until(now).is_some() {
                continue;
            }
            if let Some((_, mut batch)) = member.waiting.pop_first() {
                batch.attempts += 1;
                member.in_flight += 1;
                return Some(Errand::Post(Arc::clone(name), batch));
            }
            if member.wants_a_probe() {
                member.is_probed = true;
                return Some(Errand::Probe(Arc::clone(name)));
            }
        }
        None
    }

    /// Says how [`Errand::Post`] ended; `remembers` is whether the member has shown that it
    /// remembers batches.
    pub fn settle(
        &mut self,
        name: &Arc<str>,
        mut batch: Batch,
        verdict: Verdict,
        remembers: bool,
        ending: Ending,
    ) -> Settled {
        let member = self.member(name);
        let mut fails_alone = false;
        match batch.spooled {
            None => member.in_flight = member.in_flight.saturating_sub(1),
            Some(_) => {
                let taken_before = member.backlog_since.take();
                fails_alone = taken_before.is_some_and(|before| before != member.taken);
            }
        }
        member.remembers |= remembers;
        let reason = match verdict {
            Verdict::Taken => {
                member.taken += 1;
                member.health.took_a_batch();
                self.update_ring();
                self.forget(&batch);
                return Settled::Taken;
            }
            Verdict::TooLarge if batch.may_be_halved() => {
                self.forget(&batch);
                batch.origin.halvings += 1;
                return Settled::TooLarge(batch);
            }
            Verdict::TooLarge => Reason::TooLarge,
            Verdict::Refused(reason) => {
                member.health.refused_a_batch(ending.now);
                reason
            }
            Verdict::Later { is_unsure, wait } => {
                member.health.failed(ending.started, ending.now, wait, ending.chance);
                batch.is_unsure |= is_unsure;
                if (!batch.is_unsure || member.remembers) && batch.spooled.is_some() {
                    let is_unsure = batch.is_unsure;
                    self.forget(&batch);
                    return Settled::Returned { is_unsure, fails_alone };
                }
                if !batch.is_unsure || member.remembers {
                    member.waiting.insert((batch.attempts, batch.id), batch);
                    return Settled::Waits;
                }
                Reason::Unanswered
            }
        };
        Settled::Lost(self.lose(name, &batch, reason))
    }

    /// Says how [`Errand::Probe`] ended.
    pub fn probed(&mut self, name: &Arc<str>, is_there: bool, ending: Ending) {
        let member = self.member(name);
        member.is_probed = false;
        if is_there {
            member.health.answered_a_probe();
        } else {
            member.health.failed(ending.started, ending.now, None, ending.chance);
        }
        self.update_ring();
    }

    /// Drops what is too old, and takes members that have failed for long out of the ring.
    pub fn tick(&mut self, now: Instant) -> Vec<Lost> {
        let age = self.limits.queue_age;
        let lost = self.drop_where(Reason::QueueAge, |batch| batch.origin.since + age <= now);
        let failover_after = self.limits.failover_after;
        if self.members.values().any(|member| member.is_in_ring() && member.health.works()) {
            for member in self.members.values_mut().filter(|member| member.is_in_ring()) {
                if member.health.leaves_at(failover_after).is_some_and(|at| at <= now) {
                    member.health.leave();
                }
            }
        }
        self.members.retain(|_, member| !member.is_done());
        self.update_ring();
        lost
    }

    /// Takes out what waits for members that have no share, and surely was not taken: its
    /// entries are to be pushed again, each to the member that has it now.
    pub fn take_stranded(&mut self) -> Vec<Batch> {
        let mut stranded = Vec::new();
        for (name, member) in &mut self.members {
            let ring = self.ring.members();
            if ring.is_empty() || ring.binary_search(name).is_ok() {
                continue;
            }
            stranded.extend(member.take_where(|batch| !batch.is_unsure));
        }
        stranded.iter().for_each(|batch| self.forget(batch));
        stranded
    }

    /// Takes out what is to wait on disk: what has failed, or has waited for long, or all of it.
    /// Each comes with its member, and whether that remembers batches. `has_room` says whether
    /// one of so many bytes is taken there.
    pub fn take_due(
        &mut self,
        now: Instant,
        is_end: bool,
        mut has_room: impl FnMut(usize) -> bool,
    ) -> Vec<(Arc<str>, Batch, bool)> {
        let Some(after) = self.limits.spool_after else { return Vec::new() };
        let is_due = |batch: &Batch| batch.attempts > 0 || batch.origin.since + after <= now;
        let mut due = Vec::new();
        for (name, member) in &mut self.members {
            let is_one =
                |batch: &Batch| (is_end || is_due(batch)) && has_room(batch.packed.memory_bytes());
            let batches = member.take_where(is_one).into_iter();
            due.extend(batches.map(|batch| (Arc::clone(name), batch, member.remembers)));
        }
        due.iter().for_each(|(_, batch, _)| self.forget(batch));
        due
    }

    /// Says for whom something is on disk.
    pub fn note_backlog(&mut self, names: &[Arc<str>]) {
        for (name, member) in &mut self.members {
            member.has_backlog = names.contains(name);
        }
    }

    /// Whether a member may be sent a batch from disk now; if so, its place is taken, until
    /// [`Outbox::adopt`] and [`Outbox::settle`], or [`Outbox::yield_place`].
    pub fn take_place(&mut self, name: &Arc<str>, now: Instant) -> bool {
        let member = self.member(name);
        let is_free = member.backlog_since.is_none()
            && (member.health.works() || (member.in_flight == 0 && !member.is_probed));
        if !is_free || member.health.rests_until(now).is_some() {
            return false;
        }
        member.backlog_since = Some(member.taken);
        member.has_backlog = true;
        true
    }

    /// There is nothing to send after all.
    pub fn yield_place(&mut self, name: &Arc<str>) {
        self.member(name).backlog_since = None;
    }

    /// Takes a batch from disk that is sent at once: its end is told to [`Outbox::settle`].
    /// `None` if nobody may know whether it was taken; then it is lost.
    pub fn adopt(&mut self, name: &Arc<str>, batch: &mut Batch, remembers: bool) -> Option<Lost> {
        self.bytes += batch.packed.memory_bytes();
        self.entries += batch.packed.entries();
        batch.attempts += 1;
        let member = self.member(name);
        member.remembers |= remembers;
        if batch.is_unsure && !member.remembers {
            member.backlog_since = None;
            return Some(self.lose(name, batch, Reason::Unanswered));
        }
        None
    }

    /// When a member that rests may be sent a batch from disk.
    pub fn rests_until(&self, name: &str, now: Instant) -> Option<Instant> {
        self.members.get(name)?.health.rests_until(now)
    }

    /// Whether a member has a share.
    pub fn has_share(&self, name: &Arc<str>) -> bool {
        self.ring.members().binary_search(name).is_ok()
    }

    /// Whether something waits to be sent for the first time.
    pub fn has_waiting(&self) -> bool {
        self.members.values().any(|member| !member.waiting.is_empty())
    }

    /// When to look again although nothing has ended: [`Outbox::tick`] or [`Outbox::next`]
    /// have something to do then.
    pub fn next_event(&self, now: Instant) -> Option<Instant> {
        let Limits { queue_age, in_flight, failover_after, .. } = self.limits;
        let of_member = |member: &Member| {
            let is_idle = member.waiting.is_empty() && !member.wants_a_probe();
            let rest = member.health.rests_until(now);
            let tried = rest.filter(|_| !is_idle && member.is_free(in_flight));
            let oldest = member.waiting.values().map(|batch| batch.origin.since).min();
            // Once it is due, it waits for another member to work, and that is an event.
            let leaves = member.health.leaves_at(failover_after);
            let leaves = leaves.filter(|&at| member.is_in_ring() && at > now);
            [tried, oldest.map(|since| since + queue_age), leaves].into_iter().flatten().min()
        };
        self.members.values().filter_map(of_member).min()
    }

    /// Lets every member be tried at once: there may be no later.
    pub fn hurry(&mut self) {
        self.members.values_mut().for_each(|member| member.health.wake());
    }

    /// Gives up everything that waits.
    pub fn give_up(&mut self) -> Vec<Lost> {
        self.drop_where(Reason::Shutdown, |_| true)
    }

    fn member(&mut self, name: &Arc<str>) -> &mut Member {
        let remembers = self.limits.remembers;
        self.members
            .entry(Arc::clone(name))
            .or_insert_with(|| Member { remembers, ..Member::default() })
    }

    /// The ring of the members that work; of all, if none does.
    fn update_ring(&mut self) {
        let names = |is_one: fn(&Member) -> bool| -> Vec<Arc<str>> {
            let members = self.members.iter().filter(|(_, member)| is_one(member));
            members.map(|(name, _)| Arc::clone(name)).collect()
        };
        let mut names_in = names(Member::is_in_ring);
        if names_in.is_empty() {
            names_in = names(|member| member.is_listed);
        }
        if names_in != self.ring.members() {
            self.ring = Arc::new(Ring::new(names_in));
        }
    }

    /// The batch that has waited longest.
    fn oldest(&self) -> Option<(Arc<str>, (u32, BatchId))> {
        let of_member = |(name, member): (&Arc<str>, &Member)| {
            let oldest =
                member.waiting.iter().min_by_key(|((_, id), batch)| (batch.origin.since, *id));
            oldest.map(|(&key, batch)| (batch.origin.since, key.1, Arc::clone(name), key))
        };
        let oldest = self.members.iter().filter_map(of_member);
        oldest.min_by_key(|&(since, id, ..)| (since, id)).map(|(_, _, name, key)| (name, key))
    }

    fn drop_where(&mut self, reason: Reason, is_one: impl Fn(&Batch) -> bool) -> Vec<Lost> {
        let mut dropped = Vec::new();
        for (name, member) in &mut self.members {
            let batches = member.take_where(&is_one);
            dropped.extend(batches.into_iter().map(|batch| (Arc::clone(name), batch)));
        }
        dropped.iter().map(|(name, batch)| self.lose(name, batch, reason)).collect()
    }

    fn drop_waiting(
        &mut self,
        name: &Arc<str>,
        key: (u32, BatchId),
        reason: Reason,
    ) -> Option<Lost> {
        let batch = self.members.get_mut(name)?.waiting.remove(&key)?;
        Some(self.lose(name, &batch, reason))
    }

    fn lose(&mut self, name: &Arc<str>, batch: &Batch, reason: Reason) -> Lost {
        self.forget(batch);
        Lost {
            member: Arc::clone(name),
            reason,
            entries: batch.packed.entries(),
            bytes: batch.packed.memory_bytes() as u64,
        }
    }

    fn forget(&mut self, batch: &Batch) {
        self.bytes -= batch.packed.memory_bytes();
        self.entries -= batch.packed.entries();
    }
}

#[cfg(test)]
mod tests;
