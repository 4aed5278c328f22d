//! The thread behind one stream listener, and its connections.
//!
//! One thread with a tokio runtime of its own serves all of them: they are many and slow, and
//! so share one [`Receive`] without a lock. A connection takes at most one portion of bytes
//! before the others have their turn. None can do the daemon harm: there are limits to how
//! many there are, how long a handshake and silence may last, and how long a line or frame may
//! be. What a client sends wrong never closes its connection, except where nothing more could
//! be understood.

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use socket2::{Domain, Socket};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::{self, Runtime};
use tokio::select;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinSet, LocalSet, spawn_local, yield_now};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::binding::Owner;
use super::framing::{Frames, Framing, Lines};
use super::hold::Hold;
use super::stop::Stop;
use super::takeover::{MOST_KEPT, Moved};
use super::{Receive, tls};
use crate::config::listen::{ListenOptions, StatsdAddress};
use crate::config::settings::IntakeSettings;
use crate::telemetry::{Telemetry, names};

/// The most bytes read from one connection before the others have their turn.
const PORTION: usize = 64 << 10;

/// How long to accept nothing after an error: what is missing, descriptors or memory, will
/// not be there at once.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// At the end a connection is closed when it has been silent for this long. The reactor is
/// always asked before a timer fires, so what the kernel has is read however short this is;
/// it leaves some time for what is still on its way.
const SILENCE_AT_END: Duration = Duration::from_millis(50);

/// At the end a connection is closed after this long however busy it is: what the kernel had
/// has long been read, and a client that never pauses would have us wait until the deadline.
const BUSY_AT_END: Duration = Duration::from_secs(2);

/// A bound socket, nothing accepted yet.
#[derive(Debug)]
pub(super) struct StreamListener {
    pub(super) socket: Socket,
    pub(super) address: StatsdAddress,
    pub(super) options: ListenOptions,
    pub(super) owner: Owner,
    /// For TCP.
    pub(super) tls: Option<Arc<ServerConfig>>,
    /// The address as configured.
    pub(super) label: String,
    /// Where connections go that a successor is to go on with.
    pub(super) heir: Sender<Moved>,
    /// A predecessor's connections.
    pub(super) arrivals: Option<mpsc::Receiver<Moved>>,
}

/// What one connection may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) longest: usize,
    max_connections: usize,
    idle_timeout: Duration,
    handshake_timeout: Duration,
}

impl Limits {
    pub(super) fn of(settings: &IntakeSettings) -> Limits {
        Limits {
            longest: settings.metric_max_length,
            max_connections: settings.max_connections,
            idle_timeout: settings.idle_timeout,
            handshake_timeout: settings.handshake_timeout,
        }
    }
}

/// A listener and all it needs to run, except for what receives.
pub(super) struct Server {
    runtime: Runtime,
    listener: Listener,
    address: StatsdAddress,
    owner: Owner,
    label: String,
    heir: Sender<Moved>,
    arrivals: Option<mpsc::Receiver<Moved>>,
    limits: Limits,
    stop: Arc<Stop>,
    /// Readable when stopped.
    stopped: pipe::Receiver,
}

impl Server {
    /// Takes everything from the system that running needs.
    pub(super) fn new(
        bound: StreamListener,
        limits: Limits,
        stop: Arc<Stop>,
    ) -> io::Result<Server> {
        let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let entered = runtime.enter();
        let StreamListener { socket, address, options: _, owner, tls, label, heir, arrivals } =
            bound;
        let listener = if socket.domain()? == Domain::UNIX {
            Listener::Unix(UnixListener::from_std(socket.into())?)
        } else {
            let tls = tls.map(TlsAcceptor::from);
            Listener::Tcp(TcpListener::from_std(socket.into())?, tls)
        };
        let stopped = pipe::Receiver::from_owned_fd(stop.pipe()?)?;
        drop(entered);
        Ok(Server {
            runtime,
            listener,
            address,
            owner,
            label,
            heir,
            arrivals,
            limits,
            stop,
            stopped,
        })
    }

    /// Serves connections until stopped, and reads what they have sent until then.
    pub(super) fn run<R: Receive>(self, telemetry: Telemetry, receive: R) {
        let Server { runtime, listener, address, owner, limits, stop, stopped, .. } = self;
        let turn = Turn { receive, portion: vec![0; PORTION].into_boxed_slice() };
        let shared = Rc::new(Shared {
            turn: RefCell::new(turn),
            fed: Notify::new(),
            address,
            limits,
            stop,
            stopped,
            telemetry,
            hold: owner.hold().cloned(),
            label: self.label,
            heir: self.heir,
        });
        let mut arrivals = self.arrivals;
        LocalSet::new().block_on(&runtime, async {
            spawn_local(Rc::clone(&shared).hand_over_when_due());
            let mut connections = JoinSet::new();
            shared.accept_until_stopped(&listener, &mut arrivals, &mut connections).await;
            while let Some(Ok(moved)) = arrivals.as_mut().map(mpsc::Receiver::try_recv) {
                shared.adopt(&listener, moved, &mut connections);
            }
            if owner.is_us() {
                drop(owner);
                shared.accept_the_rest(&listener, &mut connections).await;
            }
            drop(listener);
            while let Some(ended) = connections.join_next().await {
                pass_panic_on(ended);
            }
            shared.turn.borrow_mut().receive.hand_over_all();
        });
    }
}

enum Listener {
    Tcp(TcpListener, Option<TlsAcceptor>),
    Unix(UnixListener),
}

/// What has been read of it already stands beside a connection that a predecessor had.
enum Connection {
    Lines(TcpStream, Vec<u8>),
    LinesOverTls(TcpStream, TlsAcceptor),
    Frames(UnixStream, Vec<u8>),
}

impl Listener {
    async fn accept(&self) -> io::Result<Connection> {
        match self {
            Listener::Tcp(listener, None) => {
                Ok(Connection::Lines(listener.accept().await?.0, Vec::new()))
            }
            Listener::Tcp(listener, Some(tls)) => {
                Ok(Connection::LinesOverTls(listener.accept().await?.0, tls.clone()))
            }
            Listener::Unix(listener) => {
                Ok(Connection::Frames(listener.accept().await?.0, Vec::new()))
            }
        }
    }

    /// A connection that a predecessor had.
    fn adopt(&self, Moved { socket, kept, .. }: Moved) -> io::Result<Connection> {
        match self {
            Listener::Tcp(_, None) => {
                Ok(Connection::Lines(TcpStream::from_std(socket.into())?, kept))
            }
            Listener::Tcp(_, Some(_)) => Err(io::Error::other("it is without TLS")),
            Listener::Unix(_) => Ok(Connection::Frames(UnixStream::from_std(socket.into())?, kept)),
        }
    }
}

/// What the connections of one listener share; all in one thread.
struct Shared<R> {
    turn: RefCell<Turn<R>>,
    /// Something has been received.
    fed: Notify,
    address: StatsdAddress,
    limits: Limits,
    stop: Arc<Stop>,
    /// Readable when stopped.
    stopped: pipe::Receiver,
    telemetry: Telemetry,
    /// Of the listener.
    hold: Option<Hold>,
    label: String,
    heir: Sender<Moved>,
}

/// What a connection uses while it has its turn, which is never across an await.
struct Turn<R> {
    receive: R,
    portion: Box<[u8]>,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("closed by the peer")]
    Closed,
    /// Or what it carries cannot be understood.
    #[error("broken: {0}")]
    Broken(io::Error),
    #[error("silent for too long")]
    Silent,
    #[error("no TLS handshake")]
    NoHandshake,
    #[error("the daemon stops")]
    Stopped,
    /// It has not ended: a successor goes on with it.
    #[error("handed over")]
    Moves,
}

impl<R: Receive> Shared<R> {
    async fn accept_until_stopped(
        self: &Rc<Self>,
        listener: &Listener,
        arrivals: &mut Option<mpsc::Receiver<Moved>>,
        connections: &mut JoinSet<()>,
    ) {
        let mut stopped = pin!(self.stopped.readable());
        loop {
            select! {
                biased;
                _ = &mut stopped => return,
                moved = next(arrivals) => self.adopt(listener, moved, connections),
                Some(ended) = connections.join_next() => pass_panic_on(ended),
                connection = self.accept(listener) => self.admit(connection, connections),
            }
        }
    }

    /// Goes on with a connection of a predecessor.
    fn adopt(self: &Rc<Self>, listener: &Listener, moved: Moved, connections: &mut JoinSet<()>) {
        match listener.adopt(moved) {
            Ok(connection) => self.admit(connection, connections),
            Err(error) => {
                debug!(address = %self.address, %error, "cannot go on with a connection");
            }
        }
    }

    /// Accepts those whose connection the kernel completed before we stopped.
    async fn accept_the_rest(self: &Rc<Self>, listener: &Listener, connections: &mut JoinSet<()>) {
        while !self.is_overdue()
            && let Ok(connection) = timeout(SILENCE_AT_END, self.accept(listener)).await
        {
            self.admit(connection, connections);
        }
    }

    /// The next connection. Errors are counted, and waited out.
    async fn accept(&self, listener: &Listener) -> Connection {
        loop {
            match listener.accept().await {
                Ok(connection) => return connection,
                // The client has changed its mind.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(address = %self.address, %error, "cannot accept connections");
                    self.telemetry.count(names::LISTEN_ERRORS_TOTAL, "during:accept", 1);
                    sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    fn admit(self: &Rc<Self>, connection: Connection, connections: &mut JoinSet<()>) {
        if connections.len() >= self.limits.max_connections {
            debug!(address = %self.address, "too many connections");
            self.telemetry.count(names::TCP_REFUSED_TOTAL, "", 1);
            return;
        }
        connections.spawn_local(Rc::clone(self).converse(connection));
    }

    /// Everything one connection does.
    async fn converse(self: Rc<Self>, connection: Connection) {
        self.telemetry.count(names::TCP_CONNECTS, "", 1);
        let longest = self.limits.longest;
        let lines = || Framing::Lines(Lines::new(longest));
        let end = match connection {
            Connection::Lines(stream, kept) => {
                let detach = |stream: TcpStream| Ok(stream.into_std()?.into());
                self.read_or_move(stream, lines(), &kept, detach).await
            }
            Connection::LinesOverTls(stream, tls) => match self.shake_hands(stream, &tls).await {
                Some(mut stream) => {
                    let end = self.read(&mut stream, &mut lines(), || false).await;
                    // The peer, if it still listens, is to know that nobody cut this off.
                    let _ = timeout(SILENCE_AT_END, stream.shutdown()).await;
                    end
                }
                None => End::NoHandshake,
            },
            Connection::Frames(stream, kept) => {
                let detach = |stream: UnixStream| Ok(stream.into_std()?.into());
                let frames = Framing::Frames(Frames::new(longest));
                self.read_or_move(stream, frames, &kept, detach).await
            }
        };
        debug!(address = %self.address, reason = %end, "connection ended");
        self.telemetry.count(names::TCP_DISCONNECTS, "", 1);
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        tls: &TlsAcceptor,
    ) -> Option<TlsStream<TcpStream>> {
        let handshake = timeout(self.limits.handshake_timeout, tls.accept(stream));
        let outcome = select! {
            biased;
            _ = self.stopped.readable() => return None,
            outcome = handshake => outcome,
        };
        let cause = match outcome {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => {
                debug!(address = %self.address, %error, "TLS handshake failed");
                tls::cause_of(&error)
            }
            Err(_) => "timeout",
        };
        let tags = format!("cause:{cause}");
        self.telemetry.count(names::TCP_TLS_HANDSHAKE_FAILURES, &tags, 1);
        None
    }

    /// Reads until the connection is over, or a successor goes on with it.
    async fn read_or_move<S: AsyncRead + Unpin>(
        &self,
        mut stream: S,
        mut framing: Framing,
        kept: &[u8],
        detach: impl FnOnce(S) -> io::Result<OwnedFd>,
    ) -> End {
        // What was kept was believed to be a frame before.
        if let Err(not) = framing.take(kept, &mut self.turn.borrow_mut().receive) {
            return End::Broken(io::Error::new(io::ErrorKind::InvalidData, not));
        }
        let moves = || self.hold.as_ref().is_some_and(Hold::is_given);
        let end = self.read(&mut stream, &mut framing, moves).await;
        let (End::Moves, Some(kept)) = (&end, framing.kept()) else { return end };
        let label = self.label.clone();
        match detach(stream) {
            // Nobody takes it only if the process is about to end.
            Ok(socket) => drop(self.heir.send(Moved { label, socket, kept })),
            Err(error) => return End::Broken(error),
        }
        end
    }

    /// Reads until the connection is over, or, when stopped, it can move and `moves`.
    async fn read(
        &self,
        mut stream: impl AsyncRead + Unpin,
        framing: &mut Framing,
        moves: impl Fn() -> bool,
    ) -> End {
        let mut stopped = pin!(self.stopped.readable());
        let mut is_stopped = false;
        let end = loop {
            let portion = timeout(self.patience(), self.read_portion(&mut stream, framing));
            select! {
                biased;
                _ = &mut stopped, if !is_stopped => {
                    if moves() && framing.kept().is_some_and(|kept| kept.len() <= MOST_KEPT) {
                        return End::Moves;
                    }
                    is_stopped = true;
                }
                read = portion => match read {
                    Ok(Ok(0)) => break End::Closed,
                    Ok(Ok(_)) if self.is_overdue() => break End::Stopped,
                    Ok(Ok(_)) => yield_now().await,
                    Ok(Err(error)) => break End::Broken(error),
                    Err(_) if is_stopped => break End::Stopped,
                    Err(_) => break End::Silent,
                },
            }
        };
        match end {
            End::Closed => {
                framing.end(&mut self.turn.borrow_mut().receive);
                self.fed.notify_one();
            }
            End::Silent => self.telemetry.count(names::TCP_IDLE_TIMEOUTS_TOTAL, "", 1),
            End::Broken(_) | End::NoHandshake | End::Stopped | End::Moves => {}
        }
        if framing.is_amid() {
            let tags = "packet_type:unknown,reason:incomplete";
            self.telemetry.count(names::PACKET_ERROR_TOTAL, tags, 1);
        }
        end
    }

    /// Reads one portion and passes on what is complete; 0 if the peer has closed.
    async fn read_portion(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        framing: &mut Framing,
    ) -> io::Result<usize> {
        let read = poll_fn(|context| {
            let Turn { receive, portion } = &mut *self.turn.borrow_mut();
            let mut buffer = ReadBuf::new(portion);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            let bytes = buffer.filled();
            let taken = framing.take(bytes, receive);
            receive.hand_over_due(Instant::now());
            taken.map_err(|not| io::Error::new(io::ErrorKind::InvalidData, not))?;
            Poll::Ready(Ok(bytes.len()))
        });
        let read = read.await;
        self.fed.notify_one();
        read
    }

    async fn hand_over_when_due(self: Rc<Self>) {
        loop {
            let until_due = self.turn.borrow().receive.until_due(Instant::now());
            match until_due {
                Some(wait) => {
                    sleep(wait).await;
                    self.turn.borrow_mut().receive.hand_over_due(Instant::now());
                }
                None => self.fed.notified().await,
            }
        }
    }

    /// How long a connection may be silent.
    fn patience(&self) -> Duration {
        match self.deadline() {
            None => self.limits.idle_timeout,
            Some(deadline) => {
                SILENCE_AT_END.min(deadline.saturating_duration_since(Instant::now()))
            }
        }
    }

    /// When to stop reading, once stopped.
    fn deadline(&self) -> Option<Instant> {
        self.stop.deadline_within(BUSY_AT_END)
    }

    fn is_overdue(&self) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// The next connection of a predecessor; never, if there are no more.
async fn next(arrivals: &mut Option<mpsc::Receiver<Moved>>) -> Moved {
    if let Some(moved) = arrivals.as_mut()
        && let Some(moved) = moved.recv().await
    {
        return moved;
    }
    *arrivals = None;
    pending().await
}

/// A panic in a connection is one of the thread: half a daemon is worse than none.
fn pass_panic_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        resume_unwind(panic);
    }
}
