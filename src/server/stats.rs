//! Own telemetry on its way to `stats_address`.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::debug;

use crate::telemetry::{Telemetry, names, report};

/// Reports that may wait for a name server.
const QUEUE_REPORTS: usize = 2;
/// How long the end of the process waits for the last report.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// Sends reports from a thread of its own: looking up the address may take long, and the flush
/// must not wait for it.
pub(super) struct StatsAddress {
    /// `None` once finished.
    queue: Option<SyncSender<Vec<u8>>>,
    /// Disconnects when the thread has ended.
    ended: Receiver<Infallible>,
    telemetry: Telemetry,
}

impl StatsAddress {
    /// Starts the thread.
    pub(super) fn start(address: String, telemetry: Telemetry) -> io::Result<StatsAddress> {
        let socket = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?;
        let (queue, reports) = sync_channel::<Vec<u8>>(QUEUE_REPORTS);
        let (alive, ended) = mpsc::channel();
        let mut sender = Sender { socket, address, last: None, telemetry: telemetry.clone() };
        thread::Builder::new().name("stats".to_owned()).spawn(move || {
            for lines in reports {
                sender.send(&lines);
            }
            drop(alive);
        })?;
        Ok(StatsAddress { queue: Some(queue), ended, telemetry })
    }

    /// Sends these lines soon; counts them if there are too many waiting.
    pub(super) fn send(&self, lines: Vec<u8>) {
        let Some(queue) = &self.queue else { return };
        if let Err(TrySendError::Full(lines) | TrySendError::Disconnected(lines)) =
            queue.try_send(lines)
        {
            let lost = report::datagrams(&lines).count() as u64;
            self.telemetry.count(names::STATS_DROPPED_TOTAL, "reason:queue_full", lost);
        }
    }
}

impl Drop for StatsAddress {
    /// Waits a moment for what is queued.
    fn drop(&mut self) {
        self.queue = None;
        // Disconnected is what we wait for; a timeout is the name server's fault.
        let _ = self.ended.recv_timeout(FINISH_WITHIN);
    }
}

struct Sender {
    socket: UdpSocket,
    address: String,
    /// Where the address was found last.
    last: Option<SocketAddr>,
    telemetry: Telemetry,
}

impl Sender {
    fn send(&mut self, lines: &[u8]) {
        // Looked up each time: the server there may move. If that fails it has not.
        let found = self.address.to_socket_addrs().ok().and_then(|mut all| all.next());
        self.last = found.or(self.last);
        for datagram in report::datagrams(lines) {
            let lost = match self.last {
                None => "reason:dns",
                Some(to) => match self.socket.send_to(datagram, to) {
                    Ok(_) => continue,
                    Err(error) => {
                        debug!(address = self.address, %error, "own telemetry is lost");
                        "reason:io"
                    }
                },
            };
            self.telemetry.count(names::STATS_DROPPED_TOTAL, lost, 1);
        }
    }
}
