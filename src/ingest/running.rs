//! The threads of all listeners: started one by one, ended together.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::stop::Stop;

/// Listener threads at work. They go on if this is dropped.
#[derive(Debug)]
pub struct Running {
    stop: Arc<Stop>,
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    name: String,
    handle: JoinHandle<()>,
    /// Nothing is ever sent: it disconnects when the thread ends.
    end: mpsc::Receiver<Infallible>,
}

impl Running {
    /// No thread yet.
    pub(super) fn new() -> io::Result<Running> {
        Ok(Running { stop: Arc::new(Stop::new()?), threads: Vec::new() })
    }

    /// Starts a thread on the work that `prepare` makes, which is to end when stopped.
    ///
    /// `prepare` runs in that thread, and has done so when this returns: what it makes, such as
    /// a runtime, may be one that must not be dropped in the caller's, and is not if it fails.
    pub(super) fn spawn<W: FnOnce()>(
        &mut self,
        name: String,
        prepare: impl FnOnce(Arc<Stop>) -> io::Result<W> + Send + 'static,
    ) -> io::Result<()> {
        let stop = Arc::clone(&self.stop);
        let (alive, end) = mpsc::channel();
        let (tell, prepared) = mpsc::sync_channel(1);
        let handle = thread::Builder::new().name(name.clone()).spawn(move || {
            let (work, outcome) = match prepare(stop) {
                Ok(work) => (Some(work), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // Nobody listens only if there was a panic, and then nobody wants this thread.
            if tell.send(outcome).is_ok()
                && let Some(work) = work
            {
                work();
            }
            drop(alive);
        })?;
        prepared.recv().map_err(|_| io::Error::other(format!("{name} has panicked")))??;
        self.threads.push(Thread { name, handle, end });
        Ok(())
    }

    /// Stops accepting, reads what the kernel has queued, hands over and ends every thread.
    ///
    /// Threads stop reading when nine tenths of `within` are over, even if more keeps coming,
    /// so that there is time to hand over; streams, whose clients may go on for ever, stop after
    /// two seconds. Returns the names of those that did not end.
    pub fn drain(self, within: Duration) -> Vec<String> {
        let start = Instant::now();
        self.stop.set(start, within * 9 / 10);
        let mut still_running = Vec::new();
        for Thread { name, handle, end } in self.threads {
            let left = within.saturating_sub(start.elapsed());
            match end.recv_timeout(left) {
                Ok(never) => match never {},
                Err(RecvTimeoutError::Timeout) => still_running.push(name),
                // A panic has been reported where it happened; there is nothing to add.
                Err(RecvTimeoutError::Disconnected) => drop(handle.join()),
            }
        }
        still_running
    }
}
