//! What a sink could not deliver within its interval, delivered later: oldest first, one request
//! at a time, beside the fresh flushes and never before them.
//!
//! A request is kept as it was finished: compressed, with the time of its points in it, without
//! address or key. These are those of the sink at the moment it is sent, so a reload that mends
//! the key mends what waits, too. What is in it depends on the sink: it waits in a lane of that
//! format, so that a sink that is configured anew as another kind leaves it alone. While the other side fails, requests wait for it to take a
//! fresh one, or for a rest that grows; one that fails alone goes behind the others.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info};

use super::owner::Books;
use super::post::retry::{self, Later};
use super::post::{Class, Poster, Route, Transport};
use super::{Delivered, Reason, Tally};
use crate::net::{Outcome, chance};
use crate::spool::{Claimed, Lost, Record, Spool, Which};
use crate::telemetry::Telemetry;

/// What was lost is looked for so often when nothing else happens.
const LOOK: Duration = Duration::from_secs(1);

/// Where a sink puts what it could not deliver.
#[derive(Debug)]
pub struct Keep {
    spool: Spool,
    /// Whether something was kept and nothing taken since. Fresh requests and the backlog learn
    /// it from each other, so no one owns it.
    is_failing: AtomicBool,
    /// Requests taken so far; counted by the same.
    taken: AtomicU64,
    /// The other side took something after it had failed.
    recovered: Notify,
    /// Who encodes a body.
    encoder: Arc<Semaphore>,
}

impl Keep {
    fn new(spool: Spool, encoder: Arc<Semaphore>) -> Keep {
        let (is_failing, taken) = (AtomicBool::new(false), AtomicU64::new(0));
        Keep { spool, is_failing, taken, recovered: Notify::new(), encoder }
    }

    /// Who encodes a body: those whose keeps were started with the same one take turns.
    pub(super) fn encoder(&self) -> &Arc<Semaphore> {
        &self.encoder
    }

    /// Whether the other side fails: then nothing fresh is sent twice before it is kept.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// The other side took a request.
    pub(super) fn took_one(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        if self.is_failing.swap(false, Ordering::Relaxed) {
            self.recovered.notify_waiters();
        }
    }

    /// Keeps a finished request of a format that waits since then.
    pub(super) fn put(
        &self,
        format: &'static str,
        class: Class,
        items: u64,
        since: Instant,
        body: Bytes,
    ) {
        self.is_failing.store(true, Ordering::Relaxed);
        let since_ms = self.spool.ms_at(since.into_std());
        let record = Record { kind: class.as_byte(), lane: format.into(), items, since_ms, body };
        self.spool.put(record, false);
    }
}

/// How what was kept is sent now.
pub struct Courier<T: Transport> {
    /// By whom.
    pub poster: Arc<Poster<T>>,
    /// Where each class goes.
    pub routes: Vec<Arc<Route<T::Target>>>,
    /// What the sink's bodies are: a backlog sends those of this format.
    pub format: &'static str,
}

/// A [`Courier`] whatever its transport: a daemon has backlogs of several.
trait Carry: Send + Sync {
    fn format(&self) -> &'static str;

    /// Sends one request once: what came of it, and where it went. `None` if nothing of this class
    /// is sent anywhere.
    fn carry(
        &self,
        class: Class,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Carried> + Send + '_>>;
}

type Carried = Option<(Outcome, Sent)>;

/// What is known of a request that was sent.
struct Sent {
    target: String,
    /// Items that were not taken, if the others were.
    refused: Option<u64>,
}

impl<T: Transport> Carry for Courier<T> {
    fn format(&self) -> &'static str {
        self.format
    }

    fn carry(
        &self,
        class: Class,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Carried> + Send + '_>> {
        Box::pin(async move {
            let route = self.routes.iter().find(|route| route.class == class)?;
            let outcome = self.poster.attempt(route, body).await;
            let (target, refused) = (route.target.to_string(), (route.partial)(&outcome));
            Some((outcome, Sent { target, refused }))
        })
    }
}

/// The task that delivers what a sink has kept.
pub struct Backlog {
    keep: Arc<Keep>,
    couriers: watch::Sender<Option<Arc<dyn Carry>>>,
    /// When it must be over, once that is known.
    end: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

impl Backlog {
    /// Starts it for the sink of this name. Needs a tokio runtime. Nothing is sent before there
    /// is a courier. Sinks whose backlogs share an `encoder` of one permit encode one body at a time.
    pub fn start(
        sink: &str,
        spool: Spool,
        encoder: Arc<Semaphore>,
        telemetry: Telemetry,
    ) -> Backlog {
        let keep = Arc::new(Keep::new(spool, encoder));
        let (couriers, courier) = watch::channel(None);
        let (end, ends) = watch::channel(None);
        let books = Books::new(sink, telemetry);
        let task = Task { keep: Arc::clone(&keep), courier, ends, books };
        Backlog { keep, couriers, end, task: tokio::spawn(task.run()) }
    }

    /// Where the sink puts what it cannot deliver.
    pub fn keep(&self) -> &Arc<Keep> {
        &self.keep
    }

    /// Sends by another courier from now on.
    pub fn send_by<T: Transport>(&self, courier: Courier<T>) {
        self.couriers.send_replace(Some(Arc::new(courier)));
    }

    /// Ends it: with a directory, what is left goes to disk; without, it is delivered as far as
    /// that goes until `by`, and lost then. The sink must have finished.
    pub async fn finish(self, by: Instant) {
        self.end.send_replace(Some(by));
        if let Err(error) = self.task.await {
            error!(%error, "the task of a backlog failed");
        }
    }
}

/// To write what is left to disk it gets at least so long.
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// What a later version wrote, of a class that this one does not know, is lost as if it were that.
const UNKNOWN: Class = Class::Points;

struct Task {
    keep: Arc<Keep>,
    courier: watch::Receiver<Option<Arc<dyn Carry>>>,
    ends: watch::Receiver<Option<Instant>>,
    books: Books,
}

impl Task {
    async fn run(mut self) {
        let keep = Arc::clone(&self.keep);
        let spool = &keep.spool;
        let mut failures = 0;
        let mut rests_until = None;
        loop {
            self.lose(spool.take_lost());
            let end = *self.ends.borrow();
            if end.is_some_and(|by| spool.has_directory() || by <= Instant::now()) {
                break;
            }
            let changed = spool.changed();
            let recovered = keep.recovered.notified();
            let courier = self.courier.borrow().clone();
            let rest = rests_until.filter(|&until| until > Instant::now());
            let ready = courier.filter(|_| rest.is_none());
            let claimed = match &ready {
                Some(courier) => spool.claim(courier.format(), Which::Any).await,
                None => None,
            };
            let Some((courier, claimed)) = ready.zip(claimed) else {
                if end.is_some() && spool.is_empty() {
                    break;
                }
                let look = Instant::now() + LOOK;
                tokio::select! {
                    () = changed, if rest.is_none() => {}
                    () = recovered => (failures, rests_until) = (0, None),
                    () = sleep_until(rest.unwrap_or(look).min(look)) => {}
                    Ok(()) = self.courier.changed() => {}
                    // There is no later: what waits is tried at once.
                    Ok(()) = self.ends.changed() => rests_until = None,
                }
                continue;
            };
            match self.deliver(&*courier, claimed).await {
                None => failures = 0,
                Some(outcome) => {
                    rests_until = Some(Instant::now() + retry::rest(failures, &outcome, chance()));
                    failures += 1;
                }
            }
        }
        let by = self.ends.borrow().unwrap_or_else(Instant::now);
        let within = by.saturating_duration_since(Instant::now()).max(WRITE_WITHIN);
        let lost = spool.close(within).await;
        self.lose(lost);
    }

    /// Sends one request once. `Some` if it failed and is to be sent again.
    async fn deliver(&self, courier: &dyn Carry, claimed: Claimed) -> Option<Outcome> {
        let Claimed { id, record: Record { kind, items, body, .. }, .. } = claimed;
        let keep = &self.keep;
        let Some(class) = Class::from_byte(kind) else {
            self.books.enter(&of_class(UNKNOWN, Tally::lost(Reason::Encode, items)));
            keep.spool.finish(id);
            return None;
        };
        let taken_before = keep.taken.load(Ordering::Relaxed);
        let Some((outcome, Sent { target, refused })) = courier.carry(class, body).await else {
            self.books.enter(&of_class(class, Tally::lost(Reason::Encode, items)));
            keep.spool.finish(id);
            return None;
        };
        match retry::of_kept(&outcome) {
            Later::Taken => {
                keep.took_one();
                keep.spool.finish(id);
                info_once_empty(&keep.spool);
                self.books.enter(&of_class(class, Tally::new(items, 0)));
                None
            }
            Later::Never(reason) => {
                keep.spool.finish(id);
                let failure = Some(format!("{target} {outcome}"));
                let refused = refused.map_or(items, |refused| refused.min(items));
                let mut tally = Tally::lost(reason, refused);
                tally.sent = items - refused;
                let lost = of_class(class, tally);
                self.books.enter(&Delivered { failure, ..lost });
                None
            }
            Later::Again => {
                debug!(%outcome, "what was kept still cannot be delivered");
                let fails_alone = keep.taken.load(Ordering::Relaxed) != taken_before;
                keep.spool.release(id, false, fails_alone);
                Some(outcome)
            }
        }
    }

    fn lose(&self, lost: Vec<Lost>) {
        for Lost { cause, kind, items, .. } in lost {
            let class = Class::from_byte(kind).unwrap_or(UNKNOWN);
            self.books.enter(&of_class(class, Tally::lost(Reason::from(cause), items)));
        }
    }
}

fn info_once_empty(spool: &Spool) {
    if spool.is_empty() {
        info!("everything that was kept has been delivered");
    }
}

fn of_class(class: Class, tally: Tally) -> Delivered {
    let mut delivered = Delivered::default();
    match class {
        Class::Points => delivered.points = tally,
        Class::Events => delivered.events = tally,
        Class::Checks => delivered.checks = tally,
        Class::Spans => delivered.spans = tally,
    }
    delivered
}

#[cfg(test)]
mod tests;
