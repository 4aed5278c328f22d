//! Delivering a flush over HTTP: bodies of bounded size, a few at a time, retried until the
//! deadline.
//!
//! A sink gives a range of items and a function that writes a range into a [`Body`]. Each
//! chunk is encoded on the blocking pool when its turn comes, so what a flush takes in memory
//! is bounded by the bodies in flight and not by its size. What is not delivered in time is kept
//! for later, if there is where ([`super::backlog`]). A body that is too large, by our
//! limits or by the other side's (413), is split in two. Every item ends up in the [`Tally`].
//!
//! What is decided is in [`retry`] and tested there; the loops here only wait and count.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::backlog::Keep;
use super::{Reason, Tally};
use crate::model::Interval;
use crate::net::{Outcome, chance};
use crate::telemetry::{Telemetry, names};

pub mod body;
pub mod http;
pub mod retry;

pub use body::{Body, BodyWriter, Encoding, Limits};
pub use http::{Http, SetupError, Target};

/// Requests in flight for one kind of item of one sink.
const MAX_IN_FLIGHT: usize = 4;
/// Bodies one chunk may be split into beyond the first. Finding four bad items among 25,000
/// takes 60; a peer that refuses everything must not be asked once for every item.
const MAX_SPLITS: u32 = 64;
/// No request may take longer, however long the interval.
const LONGEST_REQUEST: Duration = Duration::from_secs(20);

/// The network as a sink sees it; the other implementation is the tests'.
pub trait Transport: Send + Sync + 'static {
    /// Where one kind of request goes; shown as logs call it, without secrets.
    type Target: fmt::Display + Send + Sync + 'static;

    /// Sends one request and says what came of it. The caller cancels it when it takes too long.
    fn post(&self, target: &Self::Target, body: Bytes) -> impl Future<Output = Outcome> + Send;
}

/// What a request is full of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Points.
    Points,
    /// Events.
    Events,
    /// Service checks.
    Checks,
    /// Spans.
    Spans,
}

impl Class {
    /// The number by which it is kept.
    pub const fn as_byte(self) -> u8 {
        match self {
            Class::Points => 1,
            Class::Events => 2,
            Class::Checks => 3,
            Class::Spans => 4,
        }
    }

    /// The class of a number.
    pub fn from_byte(byte: u8) -> Option<Class> {
        let all = [Class::Points, Class::Events, Class::Checks, Class::Spans];
        all.into_iter().find(|class| class.as_byte() == byte)
    }
}

/// One kind of request: where it goes, and what our own metrics call it.
pub struct Route<D> {
    /// What is in it.
    pub class: Class,
    /// Where it goes.
    pub target: D,
    /// The tag of the three below, or nothing.
    pub tag: String,
    /// Timer of encoding and of requests.
    pub duration_ns: &'static str,
    /// Histogram of body sizes.
    pub content_length_bytes: &'static str,
    /// Counter of failed requests.
    pub error_total: &'static str,
    /// Of an answer that is no success: how many items the other side has not taken, if it has
    /// taken the others.
    pub partial: fn(&Outcome) -> Option<u64>,
}

/// The other side takes a body whole or not at all.
pub fn never_partial(_: &Outcome) -> Option<u64> {
    None
}

impl<D> Route<D> {
    /// This tag with those of the route.
    fn tags(&self, tag: &str) -> String {
        match self.tag.as_str() {
            "" => tag.to_owned(),
            of_route => format!("{tag},{of_route}"),
        }
    }
}

/// What became of the items of one delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posted {
    /// All of them.
    pub tally: Tally,
    /// The first failure that lost something.
    pub failure: Option<String>,
}

impl Posted {
    fn add(&mut self, part: Posted) {
        self.tally.add(&part.tally);
        self.failure = self.failure.take().or(part.failure);
    }
}

/// What one sink needs to deliver over HTTP.
pub struct Poster<T> {
    transport: T,
    /// One body is encoded at a time, by all sinks that keep: the readers of the hot path need
    /// the other cores.
    encoder: Arc<Semaphore>,
    request_timeout: Duration,
    /// `sink:NAME`
    tag: String,
    /// Where what is not delivered in time goes, and in which format.
    keep: Option<(Arc<Keep>, &'static str)>,
    telemetry: Telemetry,
}

impl<T: Transport> Poster<T> {
    /// For the sink called `sink`, whose flushes come every `interval`.
    pub fn new(transport: T, sink: &str, interval: Interval, telemetry: Telemetry) -> Poster<T> {
        Poster {
            transport,
            encoder: Arc::new(Semaphore::new(1)),
            request_timeout: interval.length().mul_f64(0.9).min(LONGEST_REQUEST),
            tag: format!("sink:{sink}"),
            keep: None,
            telemetry,
        }
    }

    /// Keeps what is not delivered in time, in bodies of this format, instead of dropping it.
    #[must_use]
    pub fn keeping(self, keep: Arc<Keep>, format: &'static str) -> Poster<T> {
        let encoder = Arc::clone(keep.encoder());
        Poster { keep: Some((keep, format)), encoder, ..self }
    }

    fn keep(&self) -> Option<&Keep> {
        self.keep.as_ref().map(|(keep, _)| &**keep)
    }

    /// Delivers `items` items in even chunks of at most `max_per_body`, and returns by
    /// `deadline`. `encode` writes some of them into a body; no items, no request.
    pub async fn deliver<E>(
        self: &Arc<Self>,
        route: &Arc<Route<T::Target>>,
        items: usize,
        max_per_body: usize,
        encode: E,
        deadline: Instant,
    ) -> Posted
    where
        E: Fn(Range<usize>) -> Result<Body, Reason> + Clone + Send + Sync + 'static,
    {
        let started = Instant::now();
        let mut chunks = chunks(items, max_per_body);
        let mut running = JoinSet::new();
        let mut posted = Posted::default();
        loop {
            while running.len() < MAX_IN_FLIGHT
                && let Some(chunk) = chunks.next()
            {
                let errand = Errand {
                    poster: Arc::clone(self),
                    route: Arc::clone(route),
                    encode: encode.clone(),
                    started,
                    deadline,
                };
                running.spawn(async move { errand.deliver(chunk).await });
            }
            match running.join_next().await {
                Some(Ok(part)) => posted.add(part),
                // The panic has been reported by its hook; the items are counted below.
                Some(Err(_)) => {}
                None => break,
            }
        }
        let unaccounted = (items as u64).saturating_sub(posted.tally.total());
        posted.tally.lose(Reason::Encode, unaccounted);
        posted
    }

    /// Sends one body once.
    pub(super) async fn attempt(&self, route: &Route<T::Target>, body: Bytes) -> Outcome {
        self.attempt_within(self.request_timeout, route, body).await
    }

    async fn attempt_within(
        &self,
        longest: Duration,
        route: &Route<T::Target>,
        body: Bytes,
    ) -> Outcome {
        let started = Instant::now();
        let Poster { transport, request_timeout, telemetry, .. } = self;
        let Route { target, tag, duration_ns, content_length_bytes, error_total, .. } = route;

        telemetry.histogram(content_length_bytes, tag, body.len() as f64);
        let outcome = timeout(longest.min(*request_timeout), transport.post(target, body))
            .await
            .unwrap_or(Outcome::TimedOut);
        telemetry.duration(duration_ns, &route.tags("part:post"), started.elapsed());
        match outcome.cause() {
            // Veneur counts a zero here, so that the counter exists before the first failure.
            None => telemetry.count(error_total, tag, 0),
            Some(cause) => {
                telemetry.count(error_total, &route.tags(&format!("cause:{cause}")), 1);
            }
        }
        outcome
    }
}

/// Splits `n` items into as few ranges of at most `limit` as possible, of even size: 10 items
/// with a limit of 4 are 4, 4 and 2. Source: Veneur v1.1.0's bodies.
fn chunks(n: usize, limit: usize) -> impl Iterator<Item = Range<usize>> {
    let bodies = n.div_ceil(limit.max(1)).max(1);
    let size = n.div_ceil(bodies).max(1);
    (0..n).step_by(size).map(move |start| start..n.min(start + size))
}

/// One chunk on its way.
struct Errand<T: Transport, E> {
    poster: Arc<Poster<T>>,
    route: Arc<Route<T::Target>>,
    encode: E,
    started: Instant,
    deadline: Instant,
}

/// What became of a body.
enum Fate {
    Taken,
    /// But for some items.
    PartlyTaken {
        refused: u64,
        reason: Reason,
        failure: String,
    },
    /// It is delivered later.
    Kept {
        failure: String,
    },
}

/// Why a body was not delivered.
struct Lost {
    reason: Reason,
    failure: String,
    /// Whether it may be taken later.
    is_retryable: bool,
}

impl<T, E> Errand<T, E>
where
    T: Transport,
    E: Fn(Range<usize>) -> Result<Body, Reason> + Clone + Send + Sync + 'static,
{
    async fn deliver(self, chunk: Range<usize>) -> Posted {
        let mut posted = Posted::default();
        let mut splits = 0;
        let mut left = vec![chunk];
        while let Some(items) = left.pop() {
            let n = items.len() as u64;
            let failed = match self.deliver_body(items.clone()).await {
                Ok((body, fate)) => {
                    match fate {
                        Fate::Taken => posted.tally.sent += body.items,
                        Fate::PartlyTaken { refused, reason, failure } => {
                            let refused = refused.min(body.items);
                            posted.tally.sent += body.items - refused;
                            posted.tally.lose(reason, refused);
                            posted.failure.get_or_insert(failure);
                        }
                        Fate::Kept { failure } => {
                            posted.tally.kept += body.items;
                            posted.failure.get_or_insert(failure);
                        }
                    }
                    if body.unwritable > 0 {
                        posted.tally.lose(Reason::Encode, body.unwritable);
                        let failure = || "some values cannot be written".to_owned();
                        posted.failure.get_or_insert_with(failure);
                    }
                    continue;
                }
                Err(failed) => failed,
            };
            if failed.reason == Reason::TooLarge && n > 1 && splits < MAX_SPLITS {
                splits += 1;
                let middle = items.start + items.len() / 2;
                left.extend([middle..items.end, items.start..middle]);
                continue;
            }
            posted.tally.lose(failed.reason, n);
            posted.failure.get_or_insert(failed.failure);
        }
        posted
    }

    /// Sends some items, or keeps them.
    async fn deliver_body(&self, items: Range<usize>) -> Result<(Body, Fate), Lost> {
        let keep = self.poster.keep.as_ref();
        let too_late = || Lost {
            reason: Reason::Timeout,
            failure: "no time was left to send everything".to_owned(),
            is_retryable: true,
        };
        if Instant::now() >= self.deadline && keep.is_none() {
            return Err(too_late());
        }
        let body = self.encoded(items).await?;
        // A body whose items could not be written says nothing.
        if body.items == 0 {
            return Ok((body, Fate::Taken));
        }
        let posted = match Instant::now() >= self.deadline {
            true => Err(too_late()),
            false => self.post(&body.bytes).await,
        };
        match (posted, keep) {
            (Ok(fate), _) => Ok((body, fate)),
            (Err(lost), Some((keep, format))) if lost.is_retryable => {
                let bytes = body.bytes.clone();
                keep.put(format, self.route.class, body.items, self.started, bytes);
                Ok((body, Fate::Kept { failure: lost.failure }))
            }
            (Err(lost), _) => Err(lost),
        }
    }

    async fn encoded(&self, items: Range<usize>) -> Result<Body, Lost> {
        let _turn = self.poster.encoder.acquire().await;
        let started = Instant::now();
        let encode = self.encode.clone();
        let body = spawn_blocking(move || encode(items)).await.unwrap_or(Err(Reason::Encode));
        let Poster { telemetry, .. } = &*self.poster;
        let tags = self.route.tags("part:json");
        telemetry.duration(self.route.duration_ns, &tags, started.elapsed());
        body.map_err(|reason| Lost {
            reason,
            failure: format!("a body cannot be made: {reason}"),
            is_retryable: false,
        })
    }

    /// Sends one body, again and again if need be. If it can be kept, and the other side is
    /// known to fail, it is sent only once.
    async fn post(&self, body: &Bytes) -> Result<Fate, Lost> {
        let target = &self.route.target;
        let keep = self.poster.keep();
        let mut attempt = 0;
        loop {
            let remaining = self.deadline.saturating_duration_since(Instant::now());
            let outcome = self.poster.attempt_within(remaining, &self.route, body.clone()).await;
            let Some(reason) = Reason::of(&outcome) else {
                keep.inspect(|keep| keep.took_one());
                return Ok(Fate::Taken);
            };
            if let Some(refused) = (self.route.partial)(&outcome) {
                keep.inspect(|keep| keep.took_one());
                let failure = format!("{target} {outcome}");
                return Ok(Fate::PartlyTaken { refused, reason, failure });
            }
            let remaining = self.deadline.saturating_duration_since(Instant::now());
            let delay = retry::next_delay(attempt, &outcome, remaining, chance());
            let Some(delay) = delay.filter(|_| !keep.is_some_and(Keep::is_failing)) else {
                let is_retryable = outcome.is_retryable();
                return Err(Lost { reason, failure: format!("{target} {outcome}"), is_retryable });
            };
            debug!(%target, %outcome, attempt, ?delay, "sending again");
            self.poster.telemetry.count(names::SINK_RETRIES_TOTAL, &self.poster.tag, 1);
            sleep(delay).await;
            attempt += 1;
        }
    }
}

#[cfg(test)]
mod tests;
