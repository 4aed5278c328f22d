//! The thread behind one stream listener, and its connections.
//!
//! One thread with a tokio runtime of its own serves all of them: they are many and slow, and
//! so share one [`Receive`] without a lock. A connection takes at most one portion of bytes
//! before the others have their turn. None can do the daemon harm: there are limits to how
//! many there are, how long a handshake and silence may last, and how long a line or frame may
//! be. What a client sends wrong never closes its connection, except where nothing more could
//! be understood.

mod connection;
mod listener;

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{self, Runtime};
use tokio::select;
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinSet, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use self::listener::{Connection, Listener};
use super::Receive;
use super::binding::Owner;
use super::guard::Guard;
use super::hold::Hold;
use super::stop::Stop;
use super::takeover::Moved;
use super::tls::Shown;
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
    pub(super) tls: Shown,
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
    longest_span: usize,
    /// Of SSF.
    spans: bool,
    max_connections: usize,
    idle_timeout: Duration,
    handshake_timeout: Duration,
}

impl Limits {
    pub(super) fn of(settings: &IntakeSettings) -> Limits {
        Limits {
            longest: settings.metric_max_length,
            longest_span: settings.spans.max_length,
            spans: false,
            max_connections: settings.max_connections,
            idle_timeout: settings.idle_timeout,
            handshake_timeout: settings.handshake_timeout,
        }
    }

    /// Those of one listener.
    pub(super) fn with(self, options: &ListenOptions) -> Limits {
        let longest = if options.spans { self.longest_span } else { self.longest };
        Limits { longest, spans: options.spans, ..self }
    }
}

/// A listener and all it needs to run, except for what receives.
pub(super) struct Server {
    runtime: Runtime,
    listener: Listener,
    address: StatsdAddress,
    guard: Guard,
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
        let StreamListener { socket, address, options, owner, tls, label, heir, arrivals } = bound;
        let guard = Guard::new(options.allow, address.to_string());
        let listener = if socket.domain()? == Domain::UNIX {
            Listener::Unix(UnixListener::from_std(socket.into())?)
        } else {
            Listener::Tcp(TcpListener::from_std(socket.into())?, tls)
        };
        let stopped = pipe::Receiver::from_owned_fd(stop.pipe()?)?;
        drop(entered);
        Ok(Server {
            runtime,
            listener,
            address,
            guard,
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
        let Server { runtime, listener, address, guard, owner, limits, stop, stopped, .. } = self;
        let turn = Turn { receive, portion: vec![0; PORTION].into_boxed_slice() };
        let shared = Rc::new(Shared {
            turn: RefCell::new(turn),
            fed: Notify::new(),
            address,
            guard: RefCell::new(guard),
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

/// What the connections of one listener share; all in one thread.
struct Shared<R> {
    turn: RefCell<Turn<R>>,
    /// Something has been received.
    fed: Notify,
    address: StatsdAddress,
    /// Asked while accepting, which is never across an await.
    guard: RefCell<Guard>,
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
        let was_amid = !moved.kept.is_empty();
        match listener.adopt(moved) {
            Ok(connection) => self.admit(connection, connections),
            Err(error) => {
                debug!(address = %self.address, %error, "cannot go on with a connection");
                self.count_incomplete(was_amid);
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
            let admits = |peer| self.guard.borrow_mut().admits(peer, Instant::now());
            match listener.accept(admits).await {
                Ok(Some(connection)) => return connection,
                Ok(None) => self.telemetry.count(names::TCP_REFUSED_TOTAL, "reason:not_allowed", 1),
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
            self.telemetry.count(names::TCP_REFUSED_TOTAL, "reason:limit", 1);
            return;
        }
        connections.spawn_local(Rc::clone(self).converse(connection));
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
