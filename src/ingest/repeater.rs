//! Datagrams passed on to other statsd servers as they came, as etsy's repeater does and the
//! Datadog Agent with `statsd_forward_host`.
//!
//! A reader copies what one read has brought, and puts it into the queue of each server if there
//! is room: it never waits. Each server has a thread, so that a slow one delays no other.

use std::convert::Infallible;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::config::settings::RepeatAddress;
use crate::telemetry::{Telemetry, names};

/// Reads, and bytes of them, that wait for one server.
const QUEUE_READS: usize = 4_096;
const QUEUE_BYTES: usize = 8 << 20;
/// An address is looked up again after this long.
const LOOK_UP_AFTER: Duration = Duration::from_secs(60);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A connection that takes nothing for this long is given up.
const STALLED_AFTER: Duration = Duration::from_secs(10);
/// A write looks up so often.
const WRITE_FOR: Duration = Duration::from_millis(100);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// For threads to end once their time is over.
const GRACE: Duration = Duration::from_millis(500);

/// What one read has brought.
#[derive(Debug, Default)]
struct Read {
    bytes: Vec<u8>,
    /// Where each datagram ends.
    ends: Vec<usize>,
}

impl Read {
    fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[*start..*end])
    }
}

/// A way into the queue of a server.
#[derive(Clone, Debug)]
struct Queue {
    sender: SyncSender<Arc<Read>>,
    /// Bytes that wait. Readers add, the server's thread takes away.
    bytes: Arc<AtomicUsize>,
    tags: Arc<Tags>,
    telemetry: Telemetry,
}

impl Queue {
    fn offer(&self, read: &Arc<Read>) {
        let length = read.bytes.len();
        let before = self.bytes.fetch_add(length, Ordering::Relaxed);
        let has_room = before + length <= QUEUE_BYTES;
        if !has_room || self.sender.try_send(Arc::clone(read)).is_err() {
            self.bytes.fetch_sub(length, Ordering::Relaxed);
            let lost = read.ends.len() as u64;
            self.telemetry.count(names::REPEATER_DROPPED_TOTAL, &self.tags.queue_full, lost);
        }
    }
}

/// Of one server's counters.
#[derive(Debug)]
struct Tags {
    server: String,
    queue_full: String,
    io: String,
    stopped: String,
}

impl Tags {
    fn new(address: &RepeatAddress) -> Tags {
        let server = format!("address:{address}");
        let dropped = |reason| format!("{server},reason:{reason}");
        Tags {
            queue_full: dropped("queue_full"),
            io: dropped("io"),
            stopped: dropped("stopped"),
            server,
        }
    }
}

/// One reader's way to all servers.
#[derive(Debug)]
pub struct Tap {
    queues: Vec<Queue>,
    open: Read,
}

impl Tap {
    /// Copies a datagram.
    pub(super) fn copy(&mut self, datagram: &[u8]) {
        self.open.bytes.extend_from_slice(datagram);
        self.open.ends.push(self.open.bytes.len());
    }

    /// Puts what was copied since the last call into the queues.
    pub(super) fn hand_over(&mut self) {
        if self.open.ends.is_empty() {
            return;
        }
        let read = Arc::new(std::mem::take(&mut self.open));
        for queue in &self.queues {
            queue.offer(&read);
        }
    }
}

/// By when everything is to end, and who is told.
type Ending = Arc<(Mutex<Option<Instant>>, Condvar)>;

/// All servers that datagrams are repeated to.
#[derive(Debug)]
pub struct Repeater {
    queues: Vec<Queue>,
    ending: Ending,
    /// Each disconnects when its thread has ended.
    ended: Vec<Receiver<Infallible>>,
}

impl Repeater {
    /// Starts a thread for each server.
    ///
    /// # Errors
    /// When the system gives no thread or no socket.
    pub fn start(addresses: &[RepeatAddress], telemetry: &Telemetry) -> io::Result<Repeater> {
        let ending = Ending::default();
        let mut repeater = Repeater { queues: Vec::new(), ending, ended: Vec::new() };
        for (number, address) in addresses.iter().enumerate() {
            let (sender, reads) = sync_channel(QUEUE_READS);
            let (alive, ended) = mpsc::channel();
            let queue = Queue {
                sender,
                bytes: Arc::default(),
                tags: Arc::new(Tags::new(address)),
                telemetry: telemetry.clone(),
            };
            let mut server = Server {
                wire: Wire::new(address)?,
                bytes: Arc::clone(&queue.bytes),
                tags: Arc::clone(&queue.tags),
                telemetry: telemetry.clone(),
                ending: Arc::clone(&repeater.ending),
                backoff: FIRST_BACKOFF,
                is_down: false,
            };
            thread::Builder::new().name(format!("repeat-{number}")).spawn(move || {
                for read in reads {
                    server.pass_on(&read);
                }
                drop(alive);
            })?;
            repeater.queues.push(queue);
            repeater.ended.push(ended);
        }
        Ok(repeater)
    }

    /// For one reader; `None` if there is no server.
    pub fn tap(&self) -> Option<Tap> {
        let queues = self.queues.clone();
        (!queues.is_empty()).then(|| Tap { queues, open: Read::default() })
    }

    /// Waits until what is queued is sent, or until `within` is over: then the rest is dropped,
    /// and counted. Readers have ended before.
    pub fn finish(self, within: Duration) {
        let by = Instant::now() + within;
        let (time, told) = &*self.ending;
        *time.lock().unwrap_or_else(PoisonError::into_inner) = Some(by);
        told.notify_all();
        drop(self.queues);
        for ended in self.ended {
            // Disconnected is what we wait for; a timeout is a name server's fault.
            let _ = ended.recv_timeout((by + GRACE).saturating_duration_since(Instant::now()));
        }
    }
}

/// What a server's thread has.
struct Server {
    wire: Wire,
    bytes: Arc<AtomicUsize>,
    tags: Arc<Tags>,
    telemetry: Telemetry,
    ending: Ending,
    backoff: Duration,
    /// Whether that was said.
    is_down: bool,
}

impl Server {
    fn pass_on(&mut self, read: &Read) {
        let (sent, reason) = loop {
            if self.is_over() {
                break (0, &self.tags.stopped);
            }
            match self.wire.open() {
                Ok(()) => {
                    let (ending, is_over) = (&self.ending, is_over as fn(&Ending) -> bool);
                    break match self.wire.send(read, || is_over(ending)) {
                        (sent, Ok(())) => (sent, &self.tags.io),
                        (sent, Err(error)) => {
                            self.wire.close();
                            let stopped = error.kind() == ErrorKind::Interrupted;
                            let tags = &self.tags;
                            (sent, if stopped { &tags.stopped } else { &tags.io })
                        }
                    };
                }
                Err(error) => {
                    if !self.is_down {
                        warn!(address = %self.wire.address, %error, "nothing can be repeated");
                    }
                    self.is_down = true;
                    self.wait();
                }
            }
        };
        let dropped = read.ends.len() - sent;
        self.telemetry.count(names::REPEATER_SENT_TOTAL, &self.tags.server, sent as u64);
        self.telemetry.count(names::REPEATER_DROPPED_TOTAL, reason, dropped as u64);
        self.bytes.fetch_sub(read.bytes.len(), Ordering::Relaxed);
        if dropped == 0 {
            self.backoff = FIRST_BACKOFF;
            if std::mem::take(&mut self.is_down) {
                info!(address = %self.wire.address, "repeating again");
            }
        }
    }

    fn is_over(&self) -> bool {
        is_over(&self.ending)
    }

    /// Until it is time to try again, or to end.
    fn wait(&mut self) {
        let (time, told) = &*self.ending;
        let time = time.lock().unwrap_or_else(PoisonError::into_inner);
        let left = time.map(|by| by.saturating_duration_since(Instant::now()));
        let longest = left.map_or(self.backoff, |left| left.min(FIRST_BACKOFF));
        // Woken or not, it is tried again.
        drop(told.wait_timeout(time, longest));
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
    }
}

fn is_over(ending: &Ending) -> bool {
    let time = ending.0.lock().unwrap_or_else(PoisonError::into_inner);
    time.is_some_and(|by| Instant::now() >= by)
}

/// The socket to a server.
struct Wire {
    address: RepeatAddress,
    /// Where the address was found, and when.
    found: Option<(SocketAddr, Instant)>,
    udp: Option<UdpSocket>,
    tcp: Option<TcpStream>,
}

impl Wire {
    fn new(address: &RepeatAddress) -> io::Result<Wire> {
        let bind = || UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"));
        let udp = match address {
            RepeatAddress::Udp(_) => Some(bind()?),
            RepeatAddress::Tcp(_) => None,
        };
        Ok(Wire { address: address.clone(), found: None, udp, tcp: None })
    }

    /// Finds the server, and connects if that is how to reach it.
    fn open(&mut self) -> io::Result<()> {
        let (RepeatAddress::Udp(name) | RepeatAddress::Tcp(name)) = &self.address;
        if self.tcp.is_some() {
            return Ok(());
        }
        let is_recent = self.found.is_some_and(|(_, when)| when.elapsed() < LOOK_UP_AFTER);
        if !is_recent {
            let first = name.to_socket_addrs()?.next();
            let first = first.ok_or_else(|| io::Error::other("the name has no address"))?;
            self.found = Some((first, Instant::now()));
        }
        if let (RepeatAddress::Tcp(_), Some((to, _))) = (&self.address, self.found) {
            // It may be elsewhere if it does not answer here.
            self.found = None;
            let stream = TcpStream::connect_timeout(&to, CONNECT_WITHIN)?;
            stream.set_write_timeout(Some(WRITE_FOR))?;
            self.tcp = Some(stream);
        }
        Ok(())
    }

    fn close(&mut self) {
        (self.tcp, self.found) = (None, None);
    }

    /// How many datagrams were sent, and why not all: [`ErrorKind::Interrupted`] if it is over.
    fn send(&mut self, read: &Read, is_over: impl Fn() -> bool) -> (usize, io::Result<()>) {
        let mut sent = 0;
        if let (Some(socket), Some((to, _))) = (&self.udp, self.found) {
            // IPv6 sockets reach IPv4 hosts by addresses of their own kind.
            let to = match (socket.local_addr(), to) {
                (Ok(SocketAddr::V6(_)), SocketAddr::V4(v4)) => {
                    SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()))
                }
                _ => to,
            };
            let mut result = Ok(());
            for datagram in read.datagrams() {
                match socket.send_to(datagram, to) {
                    Ok(_) => sent += 1,
                    Err(error) => result = Err(error),
                }
            }
            return (sent, result);
        }
        let Some(stream) = &mut self.tcp else {
            return (0, Err(ErrorKind::NotConnected.into()));
        };
        // Lines of one datagram and the next must not become one.
        let (mut bytes, mut ends) = (Vec::with_capacity(read.bytes.len() + 64), Vec::new());
        for datagram in read.datagrams() {
            bytes.extend_from_slice(datagram);
            if !datagram.ends_with(b"\n") {
                bytes.push(b'\n');
            }
            ends.push(bytes.len());
        }
        let (written, result) = write(stream, &bytes, is_over);
        (ends.partition_point(|end| *end <= written), result)
    }
}

fn write(
    stream: &mut TcpStream,
    bytes: &[u8],
    is_over: impl Fn() -> bool,
) -> (usize, io::Result<()>) {
    let (mut written, mut since) = (0, Instant::now());
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(more) => (written, since) = (written + more, Instant::now()),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut if is_over() => {
                    return (written, Err(ErrorKind::Interrupted.into()));
                }
                ErrorKind::WouldBlock | ErrorKind::TimedOut if since.elapsed() < STALLED_AFTER => {}
                ErrorKind::Interrupted => {}
                _ => return (written, Err(error)),
            },
        }
    }
    (written, Ok(()))
}
