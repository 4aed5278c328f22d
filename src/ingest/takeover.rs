//! How one process hands its listening sockets to the next, without a moment in which nobody
//! listens.
//!
//! Both have the very same sockets then, so that what is queued in them stays, a Unix socket
//! keeps its inode, and clients that have connected notice nothing. The running process has a
//! control socket (one message a packet, so that a descriptor and its label stay together):
//!
//! | Who | says | with |
//! |---|---|---|
//! | running | `veneur takeover 1` | |
//! | running | `socket LABEL`, for each | the socket |
//! | running | `end` | |
//! | successor, once it reads them | `ready PLACE,PLACE...`: those it has taken, from 0 | |
//! | running, and ends | `last SECOND`: its last flush is of that second, no later one will be | |
//! | running | `connection LABEL`, a newline and what it has read of an unfinished line or frame, for each that can go on | the connection |
//!
//! The connection ends with the process; only then does the successor use what both write to,
//! and serve a successor of its own. Until `ready` the running process goes on as if nothing had happened, and does so if the
//! successor ends before. If the running process ends before `last`, the sockets are the
//! successor's alone. Neither waits for the other with a deadline: each notices the other's end.
//! Instead of the first message `refused WHY` may come.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::mpsc;

use super::hold::Hold;
use super::inherited::Inherited;
use super::unix::{self, SocketFile};
use super::{BindError, sys};
use crate::model::UnixSeconds;

const HELLO: &str = "veneur takeover 1";
const REFUSED: &str = "refused ";
const SOCKET: &str = "socket ";
const END: &str = "end";
const READY: &str = "ready ";
const LAST: &str = "last ";
const CONNECTION: &str = "connection ";

/// Said to a successor that comes when the running process is ending anyway.
const ENDING: &str = "this process is ending";

/// Label of the control socket itself, which is handed over as well.
const CONTROL: &str = "takeover_socket";

/// Only the owner may ask for our sockets.
const MODE: u32 = 0o600;

/// A message is a word and an address, or the places of all sockets.
const LONGEST_MESSAGE: usize = 64 << 10;

/// The running process has everything at hand; one that does not say it is stuck.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// Successors that wait while another one is served.
const BACKLOG: i32 = 8;

/// A socket that a successor may have.
#[derive(Debug)]
pub struct Offer {
    /// The address as configured.
    label: String,
    socket: OwnedFd,
    /// `None`: somebody else's anyway, such as systemd's.
    hold: Option<Hold>,
}

impl Offer {
    pub(super) fn new(label: String, socket: OwnedFd, hold: Option<Hold>) -> Offer {
        Offer { label, socket, hold }
    }

    /// Nobody else has the socket.
    pub fn keep(&self) {
        self.hold.iter().for_each(Hold::keep);
    }

    /// Somebody else gets it, too, who may turn out to be no successor.
    pub fn lend(&self) {
        self.hold.iter().for_each(Hold::lend);
    }

    /// A successor has it.
    pub fn give(&self) {
        self.hold.iter().for_each(Hold::give);
    }
}

/// A connection on its way from one process to the next.
#[derive(Debug)]
pub struct Moved {
    /// Of the listener that has accepted it.
    pub(super) label: String,
    pub(super) socket: OwnedFd,
    /// The beginning of what comes next, already read.
    pub(super) kept: Vec<u8>,
}

/// What a connection may have kept to be moved.
pub(super) const MOST_KEPT: usize = 32 << 10;

/// Why there can be no takeover.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// Nobody who would answer.
    #[error("cannot take over from the process at {path}: {source}", path = path.display())]
    Unreachable {
        /// Its control socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It says no.
    #[error("the process at {path} hands nothing over: {why}", path = path.display())]
    Refused {
        /// Its control socket.
        path: PathBuf,
        /// In its words.
        why: String,
    },
    /// Somebody else would give us sockets.
    #[error("the process at {path} is of user {theirs} and this one of {ours}", path = path.display())]
    WrongUser {
        /// Its control socket.
        path: PathBuf,
        /// Theirs.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
}

/// Where successors come.
#[derive(Debug)]
pub struct ControlSocket {
    socket: Socket,
    /// Removed when dropped, unless a successor has it.
    file: Option<SocketFile>,
}

impl ControlSocket {
    /// Binds it, or takes it from a predecessor.
    ///
    /// # Errors
    /// The path cannot be had.
    pub fn bind(path: &Path, inherited: &mut Inherited) -> Result<ControlSocket, BindError> {
        let mut bound = || {
            let (socket, hold) = match inherited.take_over(CONTROL) {
                Some(handed) => handed,
                None => (listen(path)?, Hold::ours()),
            };
            socket.set_nonblocking(false)?;
            inherited.offer(CONTROL, &socket, Some(&hold))?;
            Ok(ControlSocket { socket, file: SocketFile::of(path, hold).ok() })
        };
        let address = format!("takeover_socket {}", path.display());
        bound().map_err(|cause| BindError::Refused { address, cause })
    }

    /// The file, to be kept for as long as successors may come, and what waits for them.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub fn into_parts(self) -> (Option<SocketFile>, Successors) {
        (self.file, Successors(self.socket))
    }
}

fn listen(path: &Path) -> io::Result<Socket> {
    unix::make_way(path)?;
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before anybody can connect.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Waits for successors.
#[derive(Debug)]
pub struct Successors(Socket);

impl Successors {
    /// The next one, of our own user; others are told that they are not.
    ///
    /// # Errors
    /// What the system says, or why the one who came is not served.
    pub fn next(&self) -> io::Result<Successor> {
        let (socket, _) = self.0.accept()?;
        socket.set_write_timeout(Some(ANSWERS_WITHIN))?;
        let (theirs, ours) = (sys::peer_user(socket.as_fd())?, sys::own_user());
        let successor = Successor(Connection(socket));
        if theirs != ours {
            successor.refuse(&format!("it is of user {ours}, not of {theirs}"))?;
            let why = format!("a process of user {theirs} asked for the sockets");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(successor)
    }
}

/// A process that wants our sockets.
#[derive(Debug)]
pub struct Successor(Connection);

impl Successor {
    /// Sends it all sockets there are.
    ///
    /// # Errors
    /// It does not take them.
    pub fn send(&self, offers: &[Offer]) -> io::Result<()> {
        self.0.send(HELLO, None)?;
        for Offer { label, socket, .. } in offers {
            self.0.send(format!("{SOCKET}{label}"), Some(socket))?;
        }
        self.0.send(END, None)
    }

    /// Tells it that this process ends. It waits for that: keep this until then.
    ///
    /// # Errors
    /// It does not listen.
    pub fn send_away(&self) -> io::Result<()> {
        self.refuse(ENDING)
    }

    fn refuse(&self, why: &str) -> io::Result<()> {
        self.0.send(format!("{REFUSED}{why}"), None)
    }

    /// Waits until it is ready; the places of the sockets it has taken. `None`: it has ended.
    ///
    /// # Errors
    /// It cannot be understood.
    pub fn ready(&self) -> io::Result<Option<Vec<usize>>> {
        let Some((said, _)) = self.0.receive()? else { return Ok(None) };
        let places = said.strip_prefix(READY).ok_or(io::ErrorKind::InvalidData)?;
        let places = places.split(',').filter(|place| !place.is_empty());
        let places = places.map(|place| place.parse().map_err(|_| io::ErrorKind::InvalidData));
        Ok(Some(places.collect::<Result<_, _>>()?))
    }

    /// Leaves everything to it: our last flush is of second `last`.
    ///
    /// # Errors
    /// It has ended: nothing has been left to it.
    pub fn leave(&self, last: UnixSeconds) -> io::Result<()> {
        self.0.send(format!("{LAST}{}", last.0), None)
    }

    /// Has it go on with a connection.
    ///
    /// # Errors
    /// It does not take it.
    pub fn pass_on(&self, Moved { label, socket, kept }: Moved) -> io::Result<()> {
        let mut message = format!("{CONNECTION}{label}\n").into_bytes();
        message.extend(kept);
        self.0.send(message, Some(&socket))
    }
}

/// The running process, from whom we have sockets and are to take over.
#[derive(Debug)]
pub(super) struct Predecessor {
    connection: Connection,
    /// By their places; `None` when taken.
    handed: Vec<(String, Option<Socket>)>,
    taken: Vec<(usize, Hold)>,
    /// Where connections go on, by the labels of their listeners.
    homes: Homes,
}

type Homes = HashMap<String, mpsc::Sender<Moved>>;

/// Connections that wait until their listener has time for them.
const MOST_MOVING: usize = 64;

impl Predecessor {
    /// Gets the sockets of the process at `path`. `None` if there is none.
    pub(super) fn meet(path: &Path) -> Result<Option<Predecessor>, TakeoverError> {
        let unreachable = |source| TakeoverError::Unreachable { path: path.to_owned(), source };
        match Connection::open(path) {
            Ok(connection) => {
                let theirs = sys::peer_user(connection.0.as_fd()).map_err(unreachable)?;
                let ours = sys::own_user();
                if theirs != ours {
                    return Err(TakeoverError::WrongUser { path: path.to_owned(), theirs, ours });
                }
                match connection.sockets().map_err(unreachable)? {
                    Ok(handed) => Ok(Some(Predecessor {
                        connection,
                        handed,
                        taken: Vec::new(),
                        homes: Homes::new(),
                    })),
                    Err(why) if why == ENDING => {
                        tracing::info!("the running process is ending: waiting for it");
                        connection.wait_for_end().map_err(unreachable)?;
                        Ok(None)
                    }
                    Err(why) => Err(TakeoverError::Refused { path: path.to_owned(), why }),
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(unreachable(error)),
        }
    }

    /// A socket with this label that has not been taken yet.
    pub(super) fn take(&mut self, label: &str) -> Option<(Socket, Hold)> {
        let mut places = self.handed.iter_mut().enumerate();
        let (place, socket) = places.find_map(|(place, (of, socket))| {
            Some((place, (of == label).then_some(socket)?.take()?))
        })?;
        let hold = Hold::predecessors();
        self.taken.push((place, hold.clone()));
        Some((socket, hold))
    }
}

impl Predecessor {
    /// The connections of the listener with this label.
    pub(super) fn home(&mut self, label: &str) -> mpsc::Receiver<Moved> {
        let (sender, arrivals) = mpsc::channel(MOST_MOVING);
        self.homes.insert(label.to_owned(), sender);
        arrivals
    }
}

/// A predecessor whose sockets we read, and who has not been told yet.
#[derive(Debug)]
pub struct Takeover {
    connection: Connection,
    taken: Vec<(usize, Hold)>,
    homes: Homes,
}

impl From<Predecessor> for Takeover {
    /// Lets go of the sockets that were not taken.
    fn from(predecessor: Predecessor) -> Takeover {
        let Predecessor { connection, handed: _, taken, homes } = predecessor;
        Takeover { connection, taken, homes }
    }
}

impl Takeover {
    /// Says that we are ready and waits until the predecessor leaves everything to us; the second
    /// of its last flush, or `None` if it has ended without a word. From then on the sockets are
    /// ours alone; it may still have something to deliver.
    ///
    /// # Errors
    /// It cannot be understood.
    pub fn complete(self) -> io::Result<(Option<UnixSeconds>, Ending)> {
        let mut ready = READY.to_owned();
        for (place, _) in &self.taken {
            // Writing to a string does not fail.
            let _ = write!(ready, "{place},");
        }
        // If nobody takes it, nobody answers either.
        let last = match self.connection.send(ready, None) {
            Ok(()) => self.connection.last()?,
            Err(_) => None,
        };
        for (_, hold) in &self.taken {
            hold.keep();
        }
        Ok((last, Ending { connection: self.connection, homes: self.homes }))
    }
}

/// A predecessor that delivers what it has.
#[derive(Debug)]
pub struct Ending {
    connection: Connection,
    homes: Homes,
}

impl Ending {
    /// Returns when its process has ended; its connections go on here.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(self) -> io::Result<()> {
        self.connection.0.set_read_timeout(None)?;
        while let Some((message, socket)) = self.connection.receive_bytes()? {
            let rest = message.strip_prefix(CONNECTION.as_bytes());
            let end = rest.and_then(|rest| memchr::memchr(b'\n', rest));
            let (Some(rest), Some(end), Some(socket)) = (rest, end, socket) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            let label = String::from_utf8_lossy(&rest[..end]).into_owned();
            if let Some(home) = self.homes.get(&label) {
                // A listener that has ended closes it, as it would have.
                let _ = home.blocking_send(Moved { label, socket, kept: rest[end + 1..].to_vec() });
            }
        }
        Ok(())
    }
}

/// Packets between two processes.
#[derive(Debug)]
struct Connection(Socket);

impl Connection {
    fn open(path: &Path) -> io::Result<Connection> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        socket.set_read_timeout(Some(ANSWERS_WITHIN))?;
        Ok(Connection(socket))
    }

    fn send(&self, message: impl AsRef<[u8]>, socket: Option<&OwnedFd>) -> io::Result<()> {
        sys::send_message(&self.0, message.as_ref(), socket.map(AsFd::as_fd))
    }

    /// The next message, as text.
    fn receive(&self) -> io::Result<Option<(String, Option<Socket>)>> {
        let received = self.receive_bytes()?;
        Ok(received.map(|(bytes, socket)| {
            (String::from_utf8_lossy(&bytes).into_owned(), socket.map(Socket::from))
        }))
    }

    /// The next message and what came with it; `None` if the other end is closed.
    fn receive_bytes(&self) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
        let mut bytes = vec![0; LONGEST_MESSAGE];
        let (length, socket) = loop {
            match sys::receive_message(&self.0, &mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                received => break received?,
            }
        };
        bytes.truncate(length);
        Ok((length > 0).then_some((bytes, socket)))
    }

    /// The sockets the other end offers, or why it does not.
    #[allow(clippy::type_complexity, reason = "what is in it has names where it is used")]
    fn sockets(&self) -> io::Result<Result<Vec<(String, Option<Socket>)>, String>> {
        let next = || self.receive()?.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof));
        let (hello, _) = next()?;
        if let Some(why) = hello.strip_prefix(REFUSED) {
            return Ok(Err(why.to_owned()));
        }
        if hello != HELLO {
            return Ok(Err(format!("it speaks another protocol: {hello}")));
        }
        let mut sockets = Vec::new();
        loop {
            match next()? {
                (text, None) if text == END => return Ok(Ok(sockets)),
                (text, socket @ Some(_)) => {
                    let label = text.strip_prefix(SOCKET).ok_or(io::ErrorKind::InvalidData)?;
                    sockets.push((label.to_owned(), socket));
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// The second of the other end's last flush; `None` if it has ended.
    fn last(&self) -> io::Result<Option<UnixSeconds>> {
        let said = loop {
            match self.receive() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tracing::warn!("the running process does not answer: still waiting for it");
                    self.0.set_read_timeout(None)?;
                }
                received => break received?,
            }
        };
        let Some((said, _)) = said else { return Ok(None) };
        let last = said.strip_prefix(LAST).and_then(|second| second.parse().ok());
        Ok(Some(UnixSeconds(last.ok_or(io::ErrorKind::InvalidData)?)))
    }

    fn wait_for_end(&self) -> io::Result<()> {
        self.0.set_read_timeout(None)?;
        while self.receive()?.is_some() {}
        Ok(())
    }
}
