//! The running daemon hands everything to a successor: the thread it talks to.
//!
//! It lends the sockets to whoever asks, as long as nobody has said to be ready, and has the
//! daemon drain when somebody has. [`crate::ingest`] has the words they use.

use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::ingest::{ControlSocket, Ending, Moved, Offer, SocketFile, Successor, Successors};
use crate::pipeline::flush::FlushSuccession;
use crate::spool::Turn;

/// How long to leave the control socket alone after an error.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// What successors may have; `None` when this process is ending. Shared by the thread that talks
/// to them and the one that drains, which may be at any moment.
type Offers = Arc<Mutex<Option<Arc<Vec<Offer>>>>>;

/// Waiting for a successor.
pub(super) struct Succession {
    offers: Offers,
    /// Removed in the end, unless a successor has it.
    _file: Option<SocketFile>,
}

impl Succession {
    /// Starts the thread, which ends with the process. It waits until our own predecessor has
    /// ended, so that there are never more than two of us, and says that it is our `turn`; then
    /// it tells `succeeded` when a successor is ready and everything is its own.
    pub(super) fn start(
        control: ControlSocket,
        offers: Vec<Offer>,
        moved: Receiver<Moved>,
        flush: FlushSuccession,
        succeeded: mpsc::Sender<()>,
        predecessor: Option<Ending>,
        turn: Turn,
    ) -> io::Result<Succession> {
        let (file, successors) = control.into_parts();
        let offers: Offers = Arc::new(Mutex::new(Some(Arc::new(offers))));
        let host = Host { offers: Arc::clone(&offers), moved, flush, succeeded };
        thread::Builder::new().name("takeover".to_owned()).spawn(move || {
            if let Some(Err(error)) = predecessor.map(Ending::wait) {
                warn!(%error, "cannot tell whether the predecessor has ended");
            }
            turn.begin();
            host.receive(successors);
        })?;
        Ok(Succession { offers, _file: file })
    }

    /// From now on successors are sent away, to wait for our end.
    pub(super) fn close(&self) {
        close(&self.offers);
    }
}

fn close(offers: &Offers) {
    drop(offers.lock().unwrap_or_else(PoisonError::into_inner).take());
}

struct Host {
    offers: Offers,
    /// Connections that can go on, when listeners have ended for a successor.
    moved: Receiver<Moved>,
    flush: FlushSuccession,
    succeeded: mpsc::Sender<()>,
}

/// How it went with a successor.
enum Outcome {
    /// It has everything.
    Succeeded,
    /// It has ended before it was ready.
    Died,
    /// We are ending; it waits for that as long as it is connected.
    TooLate,
}

impl Host {
    fn receive(self, successors: Successors) {
        let mut waiting = Vec::new();
        loop {
            let outcome = successors.next().and_then(|successor| {
                info!("a successor has come");
                let outcome = self.talk(&successor)?;
                Ok((successor, outcome))
            });
            match outcome {
                Ok((successor, Outcome::Succeeded)) => {
                    // Whoever comes now is for the successor.
                    drop(successors);
                    // Nobody listens only if we are ending anyway.
                    let _ = self.succeeded.blocking_send(());
                    // Until the last listener has ended.
                    for connection in &self.moved {
                        if let Err(error) = successor.pass_on(connection) {
                            warn!(%error, "a connection is closed");
                        }
                    }
                    // The connection, by which it learns when we have ended, ends with the process.
                    loop {
                        thread::park();
                    }
                }
                Ok((_, Outcome::Died)) => {
                    warn!("the successor ended before it was ready: going on as before");
                }
                Ok((successor, Outcome::TooLate)) => waiting.push(successor),
                Err(error) => {
                    warn!(%error, "nothing was handed over: going on as before");
                    thread::sleep(PAUSE_AFTER_ERROR);
                }
            }
        }
    }

    fn talk(&self, successor: &Successor) -> io::Result<Outcome> {
        let lent = {
            let offers = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(offers) = &*offers else {
                successor.send_away()?;
                return Ok(Outcome::TooLate);
            };
            // Before it can have any, and before a drain can begin: that must do nothing to
            // sockets which another process reads.
            offers.iter().for_each(Offer::lend);
            Arc::clone(offers)
        };
        let outcome = self.hand_over(successor, &lent);
        if !matches!(outcome, Ok(Outcome::Succeeded | Outcome::TooLate)) {
            lent.iter().for_each(Offer::keep);
            self.flush.go_on(None);
        }
        outcome
    }

    fn hand_over(&self, successor: &Successor, offers: &[Offer]) -> io::Result<Outcome> {
        successor.send(offers)?;
        let Some(taken) = successor.ready()? else { return Ok(Outcome::Died) };
        let Some(last) = self.flush.promise_last() else { return Ok(Outcome::TooLate) };
        // What it has not taken is drained and closed.
        for (place, offer) in offers.iter().enumerate() {
            match taken.contains(&place) {
                true => offer.give(),
                false => offer.keep(),
            }
        }
        successor.leave(last)?;
        close(&self.offers);
        Ok(Outcome::Succeeded)
    }
}
