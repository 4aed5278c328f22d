//! What an operator asks of a running daemon by signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that mean something to us.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
    hangup: Signal,
    /// Heard so that it does not end the process, as in Veneur.
    ignored: Signal,
}

impl Signals {
    /// From now on these signals no longer end the process by themselves.
    pub(super) fn register() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
            hangup: signal(SignalKind::hangup())?,
            ignored: signal(SignalKind::user_defined1())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Asked {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Asked::End("SIGTERM"),
                _ = self.interrupt.recv() => return Asked::End("SIGINT"),
                _ = self.upgrade.recv() => return Asked::End("SIGUSR2"),
                _ = self.hangup.recv() => return Asked::Reload,
                _ = self.ignored.recv() => {}
            }
        }
    }
}

/// What an operator asks of a running daemon.
pub(super) enum Asked {
    /// By this signal. SIGUSR2 is how Einhorn says that a successor has taken over.
    End(&'static str),
    /// SIGHUP.
    Reload,
}
