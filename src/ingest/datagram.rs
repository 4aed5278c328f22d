//! The thread behind one datagram socket.
//!
//! It takes up to 64 datagrams with one call, and sleeps only when there are none. After a
//! short read it naps, so that the next call finds more: under load waking up costs more than
//! receiving (measured: a third to a sixth of the CPU time a datagram). A nap needs room in
//! the socket for what comes meanwhile, so it is off where the receive buffer is small, and
//! for Unix sockets, whose queue of ten would make clients wait.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;
use tracing::warn;

use super::binding::Owner;
use super::guard::Guard;
use super::stop::Stop;
use super::sys::{self, Datagram, RecvSlab};
use super::{Receive, socket};
use crate::config::listen::{ListenOptions, StatsdAddress};
use crate::telemetry::{Telemetry, names};

/// Datagrams per call. Measured: 32 to 256 make no difference.
const BATCH: usize = 64;

/// Length of a nap. A longer one would cost less, and leave less room for a burst.
const NAP: Duration = Duration::from_millis(1);

/// A read that brings fewer than this is of a quiet socket, which is napped away from for
/// longer: what is received costs nothing there, only waking up does.
const FEW: usize = 8;
const NAP_IF_QUIET: Duration = Duration::from_millis(2);

/// The receive buffer, as the kernel counts it, below which there is no nap. A datagram of 90
/// bytes is charged 832 and one of 1,432 bytes 2,304, so this is 5,000 or 1,800 of them: more
/// than comes in a long nap at 800,000 a second.
const NAP_NEEDS_BYTES: usize = 4 << 20;

/// How long to leave a socket alone that answers with an error.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// A bound socket, not yet read.
#[derive(Debug)]
pub(super) struct DatagramSocket {
    socket: Socket,
    address: StatsdAddress,
    options: ListenOptions,
    owner: Owner,
    /// What the kernel granted, as it counts it: twice what was asked for.
    buffer_bytes: usize,
}

impl DatagramSocket {
    pub(super) fn new(
        socket: Socket,
        address: StatsdAddress,
        options: ListenOptions,
        owner: Owner,
    ) -> io::Result<DatagramSocket> {
        let buffer_bytes = socket.recv_buffer_size()?;
        Ok(DatagramSocket { socket, address, options, owner, buffer_bytes })
    }

    pub(super) fn address(&self) -> &StatsdAddress {
        &self.address
    }

    pub(super) fn options(&self) -> &ListenOptions {
        &self.options
    }

    /// Whether the kernel drops what does not fit, rather than make the sender wait.
    pub(super) fn can_drop(&self) -> bool {
        matches!(self.address, StatsdAddress::Udp(_))
    }

    pub(super) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }

    /// One sentence if the kernel granted less than `asked` bytes.
    pub(super) fn warning(&self, asked: usize) -> Option<String> {
        // Linux doubles what it is asked for, to have room for its own bookkeeping.
        let granted = self.buffer_bytes / 2;
        (self.can_drop() && granted < asked).then(|| {
            format!(
                "{}: the receive buffer is {granted} bytes where {asked} were asked for, so \
                 bursts may be lost: set the sysctl net.core.rmem_max to {asked} or more",
                self.address
            )
        })
    }

    /// Has the kernel direct elsewhere, or refuse, what is still to come; what is queued stays
    /// readable.
    fn take_no_more(&mut self) -> io::Result<()> {
        let is_udp = self.can_drop();
        match &mut self.owner {
            Owner::Us(hold, file) if hold.is_ours() => {
                if is_udp {
                    return socket::leave_group(&self.socket);
                }
                // First the file, so that new clients find a successor's or none.
                drop(file.take());
                self.socket.shutdown(Shutdown::Read)
            }
            // What is still to come may be for our successor.
            Owner::Us(..) | Owner::Shared => Ok(()),
        }
    }

    /// Whether another process reads it too: a predecessor, or a successor.
    pub(super) fn is_handed_over(&self) -> bool {
        self.owner.hold().is_some_and(|hold| !hold.is_ours())
    }

    fn naps(&self) -> bool {
        self.can_drop() && self.buffer_bytes >= NAP_NEEDS_BYTES
    }
}

/// Reads `socket` until stopped, and then until it is empty.
pub(super) fn read<R: Receive>(
    socket: DatagramSocket,
    longest: usize,
    stop: &Stop,
    telemetry: &Telemetry,
    receive: &mut R,
) {
    let guard = Guard::new(socket.options.allow.clone(), socket.address.to_string());
    let slab = RecvSlab::new(BATCH, longest);
    let (slab, guard) = match guard.is_needed() {
        true => (slab.with_sources(), Some(guard)),
        false => (slab, None),
    };
    let mut reader = Reader { socket, slab, guard, stop, telemetry };
    let naps = reader.socket.naps();
    while !stop.is_set() {
        match reader.take(receive) {
            0 => reader.wait(receive.until_due(Instant::now())),
            BATCH => {}
            1..FEW if naps => thread::sleep(NAP_IF_QUIET),
            _ if naps => thread::sleep(NAP),
            _ => {}
        }
        receive.hand_over_due(Instant::now());
    }
    reader.drain(receive);
    receive.hand_over_all();
}

struct Reader<'a> {
    socket: DatagramSocket,
    slab: RecvSlab,
    /// Only where somebody may have to be turned away.
    guard: Option<Guard>,
    stop: &'a Stop,
    telemetry: &'a Telemetry,
}

impl Reader<'_> {
    /// Passes on what is queued, at most [`BATCH`] datagrams; returns how many.
    fn take<R: Receive>(&mut self, receive: &mut R) -> usize {
        match self.slab.receive(self.socket.socket.as_fd()) {
            Ok(received) if self.guard.is_some() => {
                self.take_allowed(receive);
                received
            }
            Ok(received) => {
                let mut too_long = 0;
                let whole = self.slab.datagrams().filter_map(|datagram| match datagram {
                    Datagram::Whole(bytes) => Some(bytes),
                    Datagram::TooLong => {
                        too_long += 1;
                        None
                    }
                });
                receive.read(self.slab.bytes(), whole);
                (0..too_long).for_each(|_| receive.too_long());
                received
            }
            Err(error) => {
                self.failed("receive", &error);
                0
            }
        }
    }

    /// Passes on what was received from those who may send.
    fn take_allowed<R: Receive>(&mut self, receive: &mut R) {
        let Some(guard) = &mut self.guard else { return };
        let (mut too_long, mut not_allowed) = (0, 0);
        let now = Instant::now();
        let (slab, places) = (&self.slab, 0..);
        let whole = slab.datagrams().zip(places).filter_map(|(datagram, place)| {
            // A datagram without a source is of no host that is listed.
            if !slab.source(place).is_some_and(|source| guard.admits(source, now)) {
                not_allowed += 1;
                return None;
            }
            match datagram {
                Datagram::Whole(bytes) => Some(bytes),
                Datagram::TooLong => {
                    too_long += 1;
                    None
                }
            }
        });
        receive.read(slab.bytes(), whole);
        (0..too_long).for_each(|_| receive.too_long());
        (0..not_allowed).for_each(|_| receive.not_allowed());
    }

    /// Sleeps until there is something to do.
    fn wait(&self, until_due: Option<Duration>) {
        let fds = [self.socket.socket.as_fd(), self.stop.as_fd()];
        if let Err(error) = sys::wait_readable(fds, until_due) {
            self.failed("wait", &error);
        }
    }

    fn drain<R: Receive>(&mut self, receive: &mut R) {
        if self.socket.is_handed_over() {
            // Our successor reads it already.
            return;
        }
        if let Err(error) = self.socket.take_no_more() {
            self.failed("drain", &error);
        }
        while self.stop.deadline().is_some_and(|deadline| Instant::now() < deadline) {
            if self.take(receive) == 0 {
                return;
            }
            receive.hand_over_due(Instant::now());
        }
        warn!(address = %self.socket.address, "stopped before the socket was empty");
    }

    /// Counts and logs what went wrong, and leaves the socket alone for a while: an error that
    /// stays must not keep a processor busy.
    fn failed(&self, during: &'static str, error: &io::Error) {
        let address = &self.socket.address;
        warn!(%address, %error, during, "listener failed");
        self.telemetry.count(names::LISTEN_ERRORS_TOTAL, &format!("during:{during}"), 1);
        // Nothing is to be done if this fails too.
        let _ = sys::wait_readable([self.stop.as_fd()], Some(PAUSE_AFTER_ERROR));
    }
}
