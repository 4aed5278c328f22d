//! Where statsd traffic comes in: sockets, and the threads that read them.
//!
//! Nothing here looks into a datagram. Each thread owns a [`Receive`] and passes it what
//! arrives, whole; in the daemon that is the pipeline's [`Intake`].
//!
//! Building and running are two steps. [`Listeners::bind`] opens every socket or says in one
//! sentence why it cannot; [`Listeners::start`] puts a thread behind each; and
//! [`Running::drain`] ends them without losing what the kernel has already taken.
//!
//! Datagrams have a blocking thread per socket ([`datagram`]).

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::config::listen::StatsdAddress;
use crate::config::settings::IntakeSettings;
use crate::pipeline::Intake;
use crate::telemetry::Telemetry;

mod datagram;
mod socket;
mod stop;
pub mod sys;

use datagram::DatagramSocket;
use stop::Stop;

/// Takes what a listener's thread reads. Owned by that thread.
pub trait Receive: Send + 'static {
    /// Takes one datagram or stream frame (lines separated by newlines), or one stream line.
    fn datagram(&mut self, bytes: &[u8]);

    /// Counts one datagram, frame or line that was longer than allowed, unseen.
    fn too_long(&mut self);

    /// How long until something taken must be handed over; `None` if nothing waits.
    fn until_due(&self, now: Instant) -> Option<Duration>;

    /// Hands over what has waited long enough. Called after each read and when due.
    fn hand_over_due(&mut self, now: Instant);

    /// Hands over everything: the thread is about to end.
    fn hand_over_all(&mut self);
}

impl Receive for Intake {
    fn datagram(&mut self, bytes: &[u8]) {
        Intake::datagram(self, bytes);
    }

    fn too_long(&mut self) {
        Intake::too_long(self);
    }

    fn until_due(&self, now: Instant) -> Option<Duration> {
        Intake::until_due(self, now)
    }

    fn hand_over_due(&mut self, now: Instant) {
        Intake::hand_over_due(self, now);
    }

    fn hand_over_all(&mut self) {
        Intake::hand_over_all(self);
    }
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refuses.
    #[error("cannot bind {address}: {cause}")]
    Refused {
        /// The address as configured.
        address: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
}

/// Every configured listener, bound; nothing is read yet.
#[derive(Debug, Default)]
pub struct Listeners {
    datagrams: Vec<DatagramSocket>,
    warnings: Vec<String>,
    longest: usize,
}

impl Listeners {
    /// Binds every listener of `settings`.
    ///
    /// # Errors
    /// The first one that cannot be had.
    pub fn bind(settings: &IntakeSettings) -> Result<Listeners, BindError> {
        let mut bound = Listeners { longest: settings.metric_max_length, ..Listeners::default() };
        for address in &settings.listeners {
            let refused = |cause| BindError::Refused { address: address.to_string(), cause };
            match address {
                StatsdAddress::Udp(at) => {
                    let (readers, asked) = (settings.num_readers.get(), settings.read_buffer_bytes);
                    for udp in socket::bind_udp_group(*at, readers, asked).map_err(refused)? {
                        bound.datagrams.push(DatagramSocket::udp(udp).map_err(refused)?);
                    }
                }
                _ => return Err(refused(io::ErrorKind::Unsupported.into())),
            }
        }
        for socket in &bound.datagrams {
            bound.warnings.extend(socket.warning(settings.read_buffer_bytes));
        }
        // One sentence per address, however many sockets share it.
        bound.warnings.dedup();
        Ok(bound)
    }

    /// The addresses really bound, ports included, each once.
    pub fn addresses(&self) -> Vec<StatsdAddress> {
        let mut addresses: Vec<_> =
            self.datagrams.iter().map(|socket| socket.address().clone()).collect();
        addresses.dedup();
        addresses
    }

    /// What an operator should know although it stops nothing: one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A way to ask for the kernel's drops, for each socket that has any.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub fn drop_probes(&self) -> io::Result<Vec<DropProbe>> {
        let probed = self.datagrams.iter().filter(|socket| socket.can_drop());
        probed
            .map(|socket| {
                let address = socket.address().clone();
                Ok(DropProbe { socket: socket.duplicate()?, address, seen: 0 })
            })
            .collect()
    }

    /// Starts a thread per socket, each with what `make` makes for it.
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn start<R: Receive>(
        self,
        telemetry: &Telemetry,
        mut make: impl FnMut(&ListenerInfo) -> R,
    ) -> io::Result<Running> {
        let mut running = Running { stop: Arc::new(Stop::new()?), threads: Vec::new() };
        for (number, socket) in self.datagrams.into_iter().enumerate() {
            let info = ListenerInfo {
                thread: format!("reader-{number}"),
                address: socket.address().clone(),
            };
            let mut receive = make(&info);
            let (stop, telemetry) = (Arc::clone(&running.stop), telemetry.clone());
            let longest = self.longest;
            running.spawn(info.thread, move || {
                datagram::read(socket, longest, &stop, &telemetry, &mut receive);
            })?;
        }
        Ok(running)
    }
}

/// One thread that is about to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Name of the thread: `reader-0`, `stream-1`.
    pub thread: String,
    /// What it listens on.
    pub address: StatsdAddress,
}

/// Asks the kernel how many datagrams it dropped at one socket, from any thread.
///
/// It keeps the socket open, so that the drops of the last moments can be read after a drain.
#[derive(Debug)]
pub struct DropProbe {
    socket: OwnedFd,
    address: StatsdAddress,
    seen: u32,
}

impl DropProbe {
    /// What the socket listens on.
    pub fn address(&self) -> &StatsdAddress {
        &self.address
    }

    /// Datagrams dropped since the last call, or since the socket was bound.
    ///
    /// # Errors
    /// The kernel does not tell (before Linux 4.12).
    pub fn newly_dropped(&mut self) -> io::Result<u32> {
        use std::os::fd::AsFd;
        let now = sys::dropped_datagrams(self.socket.as_fd())?;
        let new = now.wrapping_sub(self.seen);
        self.seen = now;
        Ok(new)
    }
}

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
    fn spawn(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (alive, end) = mpsc::channel();
        let handle = thread::Builder::new().name(name.clone()).spawn(move || {
            work();
            drop(alive);
        })?;
        self.threads.push(Thread { name, handle, end });
        Ok(())
    }

    /// Stops accepting, reads what the kernel has queued, hands over and ends every thread.
    ///
    /// Threads stop reading when nine tenths of `within` are over, even if more keeps coming,
    /// so that there is time to hand over. Returns the names of those that did not end.
    pub fn drain(self, within: Duration) -> Vec<String> {
        let start = Instant::now();
        self.stop.set(start + within * 9 / 10);
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
