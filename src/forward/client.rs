//! The task that owns forwarding: a loop that waits for whatever comes next.
//!
//! What is decided is in [`super::outbox`]; this starts requests and encoding, and tells how
//! they ended. Encoding and compressing run on the blocking pool, one flush at a time; what comes
//! from other nodes is encoded already ([`super::relay`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};

use super::Offer;
use super::backlog::{Backlog, Brought, Wish};
use super::books::Books;
use super::encode::{Encoded, Encoder};
use super::outbox::{Batch, Ending, Errand, Origin, Outbox, Settled};
use super::reason::Reason;
use super::ring::Ring;
use super::transport::{Answer, Resolved, Transport, verdict};
use crate::aggregate::Aggregate;
use crate::model::{MetricKey, UnixSeconds};
use crate::net::{Outcome, chance};
use crate::spool::Spool;

mod backlog;

use backlog::Depot;

/// At the end, a disk that does not take everything is waited for so long.
const DISK_WITHIN: Duration = Duration::from_secs(5);
/// And looked at so often.
const LOOK: Duration = Duration::from_millis(20);

/// What the task needs.
pub(super) struct Client<T: Transport> {
    transport: Arc<T>,
    encoder: Encoder,
    outbox: Outbox,
    peers: HashMap<Arc<str>, T::Peer>,
    times: Times,
    /// When to look anew who the members are; `None` while that is being done.
    resolve_at: Option<Instant>,
    /// Where waits what was not taken in time.
    depot: Option<Depot>,
    books: Books,
    work: JoinSet<Done<T::Peer>>,
    /// Of them, how many make bodies.
    encoding: usize,
    /// Whether one of these makes them of a flush: then the next flush waits. What comes from
    /// other nodes does not, for it holds threads that making bodies may need.
    is_gathering: bool,
    /// Turns true when requests must end.
    stop: watch::Sender<bool>,
    /// The ring as it was logged, for those who look on.
    ring: watch::Sender<Arc<Ring>>,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// One request.
    pub(super) request: Duration,
    /// Until the members are looked up anew.
    pub(super) refresh: Duration,
    /// Delivering what is left at the end.
    pub(super) drain: Duration,
}

/// What bodies are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Flush,
    /// Of others, that go elsewhere or were too large.
    Batches,
}

/// What the task has waited for.
enum Done<P> {
    Resolved(Resolved<P>),
    Encoded { of: Of, encoded: Option<Encoded>, entries: u64, took: Duration },
    Posted { member: Arc<str>, batch: Batch, answer: Answer, started: Instant },
    Probed { member: Arc<str>, is_there: bool, started: Instant },
    Claimed(Wish, Brought),
    Withdrawn(Arc<str>, Option<Batch>),
}

impl<T: Transport> Client<T> {
    pub(super) fn new(
        transport: T,
        encoder: Encoder,
        outbox: Outbox,
        times: Times,
        spool: Option<Spool>,
        books: Books,
    ) -> Client<T> {
        let format = encoder.format;
        Client {
            transport: Arc::new(transport),
            encoder,
            ring: watch::Sender::new(Arc::clone(outbox.ring())),
            outbox,
            peers: HashMap::new(),
            times,
            resolve_at: None,
            depot: spool.map(|spool| Depot { spool, backlog: Backlog::new(format) }),
            books,
            work: JoinSet::new(),
            encoding: 0,
            is_gathering: false,
            stop: watch::Sender::new(false),
        }
    }

    /// The ring, as it changes.
    pub(super) fn ring(&self) -> watch::Receiver<Arc<Ring>> {
        self.ring.subscribe()
    }

    /// Forwards what is offered until nobody can offer any more, and then delivers what is
    /// left for as long as that may take.
    pub(super) async fn run(mut self, mut offers: mpsc::Receiver<Offer>) {
        self.meet(self.transport.configured());
        self.resolve();
        let mut drain_by = None;
        loop {
            let changed = self.depot.as_ref().map(|depot| depot.spool.clone());
            let changed = changed.as_ref().map(Spool::changed);
            let event = self.dispatch(drain_by.is_some());
            if drain_by.is_some() && self.outbox.is_empty() && self.encoding == 0 {
                break;
            }
            let wake = [event, drain_by, self.resolve_at].into_iter().flatten().min();
            tokio::select! {
                Some(done) = self.work.join_next() => self.take_in(done),
                offer = offers.recv(), if !self.is_gathering && drain_by.is_none() => match offer {
                    Some(offer) => self.take_offer(offer),
                    None => {
                        drain_by = Some(Instant::now() + self.times.drain);
                        self.outbox.hurry();
                    }
                },
                () = of(changed) => {}
                () = until(wake) => {
                    if drain_by.is_some_and(|by| by <= Instant::now()) {
                        break;
                    }
                }
            }
        }
        self.give_up().await;
    }

    /// Starts everything that can be done now; returns when there will be more.
    fn dispatch(&mut self, is_draining: bool) -> Option<Instant> {
        let now = Instant::now().into_std();
        let lost = self.outbox.tick(now);
        self.books.lost(&lost);
        if self.resolve_at.is_some_and(|at| at.into_std() <= now) {
            self.resolve();
        }
        let ring = self.outbox.ring();
        if !Arc::ptr_eq(&self.ring.borrow(), ring) {
            let before = self.ring.send_replace(Arc::clone(ring));
            self.books.ring(&before, ring);
        }
        let stranded = self.outbox.take_stranded();
        if !stranded.is_empty() {
            let entries = stranded.iter().map(|batch| batch.packed.entries()).sum();
            self.start(Of::Batches, entries, move |encoder, ring| encoder.regroup(&stranded, ring));
        }
        while let Some(errand) = self.outbox.next(now) {
            self.run_errand(errand);
        }
        let look = self.tend_backlog(now, is_draining);
        self.books.state(&self.outbox);
        let event = self.outbox.next_event(now).map(Instant::from_std);
        [event, look].into_iter().flatten().min()
    }

    /// What is known of the members.
    fn meet(&mut self, members: Vec<(Arc<str>, T::Peer)>) {
        self.outbox.list(members.iter().map(|(name, _)| Arc::clone(name)));
        // Those of members that are no more are kept while something is bound to them.
        self.peers.retain(|name, _| self.outbox.is_known(name));
        self.peers.extend(members);
    }

    fn resolve(&mut self) {
        self.resolve_at = None;
        let transport = Arc::clone(&self.transport);
        self.work.spawn(async move { Done::Resolved(transport.resolve().await) });
    }

    fn take_offer(&mut self, offer: Offer) {
        match offer {
            Offer::Flush { forwards, at } => self.encode(forwards, at),
            Offer::Bodies { encoded, took, reply } => {
                let answer = if self.outbox.has_room_for(encoded.memory_bytes()) {
                    self.books.offered(encoded.entries());
                    self.push(encoded, took);
                    Ok(())
                } else {
                    Err(encoded)
                };
                // Whoever brought them waits for the answer.
                let _ = reply.send(answer);
            }
        }
    }

    /// Makes bodies of a flush.
    fn encode(&mut self, forwards: Vec<(Arc<MetricKey>, Aggregate)>, at: UnixSeconds) {
        self.books.flush(forwards.len());
        if forwards.is_empty() {
            return;
        }
        let origin = Origin { interval_end: at, since: Instant::now().into_std(), halvings: 0 };
        let entries = forwards.len() as u64;
        self.is_gathering = true;
        self.start(Of::Flush, entries, move |encoder, ring| {
            encoder.encode(forwards.into_iter(), ring, origin)
        });
    }

    /// Runs `job` on the blocking pool; it makes bodies of so many entries.
    fn start<F>(&mut self, of: Of, entries: u64, job: F)
    where
        F: FnOnce(&Encoder, &Ring) -> Encoded + Send + 'static,
    {
        let (encoder, ring) = (self.encoder.clone(), Arc::clone(self.outbox.ring()));
        self.encoding += 1;
        self.work.spawn(async move {
            let started = Instant::now();
            // A panic has been reported by its hook; its entries are counted.
            let encoded = spawn_blocking(move || job(&encoder, &ring)).await.ok();
            Done::Encoded { of, encoded, entries, took: started.elapsed() }
        });
    }

    fn run_errand(&mut self, errand: Errand) {
        let transport = Arc::clone(&self.transport);
        let (limit, mut stop, started) =
            (self.times.request, self.stop.subscribe(), Instant::now());
        match errand {
            Errand::Post(member, batch) => {
                self.books.sending(&member, &batch);
                let peer = self.peers.get(&member).cloned();
                let batch = Arc::new(batch);
                let sent = Arc::clone(&batch);
                let failed = |outcome| Answer { outcome, remembers: false };
                // A task of its own, so that a transport that panics does not take the batch
                // with it uncounted.
                let post = tokio::spawn(async move {
                    let Some(peer) = &peer else {
                        return failed(Outcome::Unreachable("no address".to_owned()));
                    };
                    tokio::select! {
                        answer = timeout(limit, transport.post(peer, &sent)) => {
                            answer.unwrap_or_else(|_| failed(Outcome::TimedOut))
                        }
                        _ = stop.wait_for(|stop| *stop) => failed(Outcome::TimedOut),
                    }
                });
                self.work.spawn(async move {
                    let panicked = |_| failed(Outcome::Failed("the request panicked".to_owned()));
                    let answer = post.await.unwrap_or_else(panicked);
                    let batch = Arc::unwrap_or_clone(batch);
                    Done::Posted { member, batch, answer, started }
                });
            }
            Errand::Probe(member) => {
                let peer = self.peers.get(&member).cloned();
                let probe = tokio::spawn(async move {
                    let Some(peer) = &peer else { return false };
                    timeout(limit, transport.probe(peer)).await.unwrap_or(false)
                });
                self.work.spawn(async move {
                    let is_there = probe.await.unwrap_or(false);
                    Done::Probed { member, is_there, started }
                });
            }
        }
    }

    fn take_in(&mut self, done: Result<Done<T::Peer>, tokio::task::JoinError>) {
        let ending = |started: Instant| Ending {
            started: started.into_std(),
            now: Instant::now().into_std(),
            chance: chance(),
        };
        match done {
            Ok(Done::Resolved(Resolved { members, failures, took })) => {
                self.books.resolved(took, &failures);
                self.meet(members);
                self.resolve_at = Some(Instant::now() + self.times.refresh);
            }
            Ok(Done::Encoded { of, encoded, entries, took }) => {
                self.encoding -= 1;
                self.is_gathering &= of != Of::Flush;
                match encoded {
                    None => self.books.left_out(Reason::Encode, entries),
                    Some(encoded) => {
                        // An entry of which a part is left out counts as two.
                        self.books.offered(encoded.entries().saturating_sub(entries));
                        self.push(encoded, took);
                    }
                }
            }
            Ok(Done::Posted { member, batch, answer, started }) => {
                self.books.answered(&member, &answer.outcome, started.elapsed());
                self.settle(&member, batch, &answer, ending(started));
            }
            Ok(Done::Claimed(wish, brought)) => self.take_claimed(wish, brought),
            Ok(Done::Withdrawn(member, batch)) => self.take_withdrawn(member, batch),
            Ok(Done::Probed { member, is_there, started }) => {
                self.books.probed(&member, is_there);
                self.outbox.probed(&member, is_there, ending(started));
            }
            // Resolving panicked, which its hook has reported.
            Err(_) => {
                self.resolve_at.get_or_insert(Instant::now() + self.times.refresh);
            }
        }
    }

    fn push(&mut self, encoded: Encoded, took: Duration) {
        self.books.encoded(took, &encoded.left_out);
        for (member, packed, origin) in encoded.bodies {
            let lost = self.outbox.push(&member, packed, origin);
            self.books.lost(&lost);
        }
    }

    fn settle(&mut self, member: &Arc<str>, batch: Batch, answer: &Answer, ending: Ending) {
        let entries = batch.packed.entries();
        let verdict = verdict(&answer.outcome);
        let spooled = batch.spooled();
        let settled = self.outbox.settle(member, batch, verdict, answer.remembers, ending);
        let Some(settled) = self.settle_spooled(spooled, member, settled) else { return };
        match settled {
            Settled::Taken => self.books.delivered(member, entries),
            Settled::Waits | Settled::Returned { .. } => {}
            Settled::Lost(lost) => self.books.lost(&[lost]),
            Settled::TooLarge(batch) => {
                let member = Arc::clone(member);
                self.start(Of::Batches, entries, move |encoder, _| encoder.halve(&member, &batch));
            }
        }
    }

    /// The time is over: what is not delivered is counted.
    async fn give_up(mut self) {
        self.stop.send_replace(true);
        // Probes and names are of no use any more, but the rest is accounted for.
        let by = Instant::now() + DISK_WITHIN;
        loop {
            let changed = self.depot.as_ref().map(|depot| depot.spool.clone());
            let changed = changed.as_ref().map(Spool::changed);
            self.spool_all();
            let has_time = Instant::now() < by;
            if !has_time || self.depot.is_none() {
                let lost = self.outbox.give_up();
                self.books.lost(&lost);
            }
            let is_done = self.outbox.is_empty() && self.encoding == 0;
            if is_done && !(has_time && self.is_claiming()) {
                break;
            }
            tokio::select! {
                done = self.work.join_next() => match done {
                    Some(done) => self.take_in(done),
                    // Only the disk is waited for.
                    None if self.depot.is_none() || !has_time => break,
                    None => sleep_until(by.min(Instant::now() + LOOK)).await,
                },
                () = of(changed) => {}
                () = sleep_until(by), if has_time => {}
            }
        }
        self.close_backlog().await;
        self.books.state(&self.outbox);
    }
}

async fn of(changed: Option<Notified<'_>>) {
    match changed {
        Some(changed) => changed.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
