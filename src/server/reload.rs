//! Loading a configuration while the daemon runs.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use tokio::sync::mpsc;

use crate::config::{Loaded, Problems};

/// Loads the configuration anew.
pub type Reload = Box<dyn FnMut() -> Result<Loaded, Problems> + Send>;

/// Loads one configuration at a time in a thread of its own: a file system or a name server
/// may keep it waiting, and signals must be heard meanwhile.
pub(super) struct Reloader {
    asks: SyncSender<()>,
    results: mpsc::Receiver<Result<Loaded, Problems>>,
}

impl Reloader {
    /// Starts the thread. It ends with the process.
    pub(super) fn start(mut reload: Reload) -> io::Result<Reloader> {
        let (asks, asked) = sync_channel(1);
        let (result, results) = mpsc::channel(1);
        thread::Builder::new().name("reload".to_owned()).spawn(move || {
            for () in asked {
                if result.blocking_send(reload()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Reloader { asks, results })
    }

    /// Asks for a load. One that has not begun yet serves all who ask.
    pub(super) fn ask(&self) {
        // Full: it has been asked for, and what is loaded then is what is there then.
        let _ = self.asks.try_send(());
    }

    /// The next configuration that was asked for.
    pub(super) async fn next(&mut self) -> Result<Loaded, Problems> {
        match self.results.recv().await {
            Some(result) => result,
            // The thread has panicked, which was reported: nothing will come any more.
            None => std::future::pending().await,
        }
    }
}
