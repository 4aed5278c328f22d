//! Registering with a gatherer: we connect to it, stay connected, and answer when it asks.
//!
//! The connection goes outwards, so that a provider may be behind a firewall or an address that
//! nobody knows, and only the gatherer needs one. Nothing is sent before the instance is ready,
//! and when it drains it takes its leave.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, BufReader, split};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::wire::{self, FromGatherer, FromProvider, LineReader, MAX_LINE_BYTES, VERSION};
use super::{Provider, pinned};
use crate::config::reference::Reference;
use crate::net::chance;
use crate::telemetry::Telemetry;

/// Connecting, name service included, being accepted, and sending an answer: each this long.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest wait before the first new attempt, and before any.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A gatherer that has not asked for so many intervals is gone, whatever the connection says.
const MISSED_POLLS: u32 = 3;
/// No shorter interval is believed.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// A farewell takes no longer.
const FAREWELL: Duration = Duration::from_secs(2);

/// How a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not yet, or not any more.
    Off,
    /// Trying.
    Connecting,
    /// The gatherer has accepted us.
    Registered,
    /// The gatherer does not want us; tried again all the same.
    Rejected,
}

/// A registration, kept up by a task of its own. Dropped, it ends without a farewell.
#[derive(Debug)]
pub struct Registration {
    state: watch::Receiver<State>,
    polls: Arc<AtomicU64>,
    leave: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Registration {
    /// Registers `provider` once `ready` resolves, again whenever the connection is lost, until
    /// it is told to leave. Needs a tokio runtime.
    pub fn start(
        provider: Provider,
        reference: Reference,
        ready: impl Future<Output = ()> + Send + 'static,
    ) -> Registration {
        let (state, state_seen) = watch::channel(State::Off);
        let (leave, mut left) = watch::channel(false);
        let polls = Arc::<AtomicU64>::default();
        let client = Client { provider, reference, state, polls: Arc::clone(&polls) };
        let task = tokio::spawn(async move {
            tokio::select! {
                () = ready => {}
                () = told(&mut left) => return,
            }
            client.run(left).await;
        });
        Registration { state: state_seen, polls, leave, task }
    }

    /// How it stands, to be looked at or waited for.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Shows it in `telemetry`: whether we are registered, and how often we were asked.
    pub fn observe(&self, telemetry: &Telemetry) {
        let (state, polls) = (self.state.clone(), Arc::clone(&self.polls));
        telemetry.add_source(move |observed| {
            let is_registered = *state.borrow() == State::Registered;
            let polls = polls.load(Ordering::Relaxed);
            super::telemetry::observe_registration(observed, is_registered, polls);
        });
    }

    /// Tells the gatherer that this is the end, if it can be told within two seconds.
    pub async fn leave(mut self) {
        self.leave.send_replace(true);
        if timeout(FAREWELL, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Client {
    provider: Provider,
    reference: Reference,
    state: watch::Sender<State>,
    polls: Arc<AtomicU64>,
}

/// How a connection ended.
enum End {
    /// With the gatherer's reason.
    Rejected(String),
    /// We have said that we leave.
    Left,
}

impl Client {
    async fn run(self, mut left: watch::Receiver<bool>) {
        let gatherer = self.reference.to_string();
        let mut attempt = 0;
        loop {
            self.state.send_replace(State::Connecting);
            let begun = Instant::now();
            match self.connection(&mut left).await {
                Ok(End::Left) => break,
                Err(error) => {
                    let was = self.state.send_replace(State::Connecting);
                    // The first of a row is news.
                    if attempt == 0 || was == State::Registered {
                        warn!(gatherer, %error, "not registered with the gatherer: trying again");
                    } else {
                        debug!(gatherer, %error, "not registered with the gatherer");
                    }
                }
                Ok(End::Rejected(reason)) => {
                    self.state.send_replace(State::Rejected);
                    let reason = reason.escape_debug().to_string();
                    warn!(gatherer, reason, "the gatherer rejects us: trying again");
                }
            }
            // Two instances with one id would otherwise take turns as fast as they can.
            attempt = if begun.elapsed() > LONGEST_WAIT { 0 } else { attempt + 1 };
            tokio::select! {
                () = sleep(wait_before(attempt, chance())) => {}
                () = told(&mut left) => break,
            }
        }
        self.state.send_replace(State::Off);
    }

    /// One connection, from its beginning to its end.
    async fn connection(&self, left: &mut watch::Receiver<bool>) -> io::Result<End> {
        let stream = tokio::select! {
            stream = within(PATIENCE, TcpStream::connect(self.reference.address())) => stream?,
            () = told(left) => return Ok(End::Left),
        };
        match self.reference.fingerprint() {
            None => self.talk(stream, left).await,
            Some(fingerprint) => {
                let stream = within(PATIENCE, pinned::connect(stream, fingerprint)).await?;
                self.talk(stream, left).await
            }
        }
    }

    async fn talk(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        left: &mut watch::Receiver<bool>,
    ) -> io::Result<End> {
        let (from, mut to) = split(stream);
        let mut from = LineReader::new(BufReader::new(from));
        let identity = self.provider.identity();
        let provide = FromProvider::<()>::Provide {
            v: VERSION,
            id: identity.id.clone(),
            epoch: identity.epoch,
            nickname: identity.nickname.clone(),
            token: self.reference.token().reveal().to_owned(),
        };
        within(PATIENCE, wire::write(&mut to, &provide)).await?;
        // What we do not understand is no sign that it still knows us.
        let (mut patience, mut heard) = (PATIENCE, Instant::now());
        loop {
            let patience_left = patience.saturating_sub(heard.elapsed());
            let message = tokio::select! {
                message = within(patience_left, from.next(MAX_LINE_BYTES)) => message?,
                () = told(left) => {
                    wire::write(&mut to, &FromProvider::<()>::Leave).await?;
                    return Ok(End::Left);
                }
            };
            match message {
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(FromGatherer::Error { reason }) => return Ok(End::Rejected(reason)),
                Some(FromGatherer::Provided { poll_interval_ms }) => {
                    let interval = Duration::from_millis(poll_interval_ms).max(SHORTEST_INTERVAL);
                    patience = interval.saturating_mul(MISSED_POLLS).saturating_add(PATIENCE);
                    heard = Instant::now();
                    self.state.send_replace(State::Registered);
                    info!(gatherer = %self.reference, "registered with the gatherer");
                }
                Some(FromGatherer::GetStats { seq }) => {
                    let answer = self.answer(seq).await;
                    self.polls.fetch_add(1, Ordering::Relaxed);
                    within(PATIENCE, wire::write(&mut to, &answer)).await?;
                    heard = Instant::now();
                }
                Some(FromGatherer::Unknown) => {}
            }
        }
    }

    async fn answer(&self, seq: u64) -> FromProvider {
        let provider = self.provider.clone();
        // It waits for producers, which must not hold up the runtime.
        match spawn_blocking(move || provider.statistics()).await {
            Ok(stats) => FromProvider::Stats { seq, stats },
            Err(error) => FromProvider::Failed { seq, reason: error.to_string() },
        }
    }
}

/// Waits until it is told to leave, or nobody can tell any more.
async fn told(left: &mut watch::Receiver<bool>) {
    let _ = left.wait_for(|left| *left).await;
}

async fn within<T>(limit: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, what).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Uniformly between nothing and a wait that doubles from a second to a minute, so that a fleet
/// that has lost its gatherer does not come back together. `attempt` counts from 1.
fn wait_before(attempt: u32, chance: f64) -> Duration {
    let doublings = attempt.saturating_sub(1);
    FIRST_WAIT.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_WAIT).mul_f64(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute() {
        for (attempt, longest) in [(0, 1), (1, 1), (2, 2), (6, 32), (7, 60), (99, 60)] {
            let longest = Duration::from_secs(longest);
            assert_eq!(wait_before(attempt, 0.5), longest / 2, "attempt {attempt}");
            assert_eq!(wait_before(attempt, 0.0), Duration::ZERO);
        }
    }
}
