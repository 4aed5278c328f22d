//! What an operator asks of the running process: by signals, and by `/quitquitquit`.

use std::io;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{error, warn};

use super::reload::{Reload, Reloader};
use super::signals::{Asked, Signals};
use crate::config::Loaded;
use crate::telemetry::logging::{AT_THE_END, Logs};

/// Signals that follow each other so fast were meant as one: `timeout` sends two.
const ONE_SIGNAL: Duration = Duration::from_millis(100);

/// What is to be done.
pub(super) enum Order {
    /// Drain, and why.
    End(&'static str),
    /// A successor is ready and has our sockets: drain.
    HandOver,
    /// Use another configuration.
    Use(Box<Loaded>),
}

/// Everything an operator can say.
pub(super) struct Steering {
    signals: Signals,
    quits: mpsc::Receiver<()>,
    successions: mpsc::Receiver<()>,
    reloader: Reloader,
}

impl Steering {
    /// From now on signals do not end the process by themselves. Needs a tokio runtime; what is
    /// sent to the second part it returns asks for the end, and to the third says that a
    /// successor is ready.
    ///
    /// # Errors
    /// The system gives no signals, or no thread.
    pub(super) fn start(
        reload: Reload,
    ) -> io::Result<(Steering, mpsc::Sender<()>, mpsc::Sender<()>)> {
        let (quit, quits) = mpsc::channel(1);
        let (succeeded, successions) = mpsc::channel(1);
        let signals = Signals::register()?;
        let reloader = Reloader::start(reload)?;
        Ok((Steering { signals, quits, successions, reloader }, quit, succeeded))
    }

    /// The next order. A configuration that cannot be used is logged and none.
    pub(super) async fn next(&mut self) -> Order {
        loop {
            tokio::select! {
                asked = self.signals.next() => match asked {
                    Asked::End(why) => return Order::End(why),
                    Asked::Reload => self.reloader.ask(),
                },
                loaded = self.reloader.next() => match loaded {
                    Ok(loaded) => {
                        loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
                        return Order::Use(Box::new(loaded));
                    }
                    Err(problems) => {
                        error!("the new configuration is not used, the old one stays:\n{problems}");
                    }
                },
                Some(()) = self.successions.recv() => return Order::HandOver,
                Some(()) = self.quits.recv() => return Order::End("/quitquitquit"),
            }
        }
    }

    /// Why to end, while there is nothing to be done about anything else.
    pub(super) async fn next_end(&mut self) -> &'static str {
        loop {
            match self.next().await {
                Order::End(why) => return why,
                // What is being started has been read a moment ago.
                Order::Use(_) | Order::HandOver => {}
            }
        }
    }

    /// From now on another signal ends the process at once.
    pub(super) fn end_at_a_second_signal(mut self, logs: Logs) {
        let asked_at = Instant::now();
        tokio::spawn(async move {
            loop {
                match self.signals.next().await {
                    Asked::End(signal) if asked_at.elapsed() > ONE_SIGNAL => {
                        let message = "a second signal: exiting, what is not delivered is lost";
                        error!(signal, "{message}");
                        logs.flush(AT_THE_END);
                        std::process::exit(1);
                    }
                    Asked::End(_) | Asked::Reload => {}
                }
            }
        });
    }
}
