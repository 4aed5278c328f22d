//! Sockets that others have opened: systemd and Einhorn, who started us, and a predecessor from
//! whom we take over ([`super::takeover`]).
//!
//! Those of systemd and Einhorn are shared with their owner, who may give them to our successor. So nothing is done to
//! them that would outlast us: they are not connected, shut down or removed, and what they
//! have queued when we stop is the successor's.
//!
//! Sources: sd_listen_fds(3); Einhorn's README, "Einhorn API", and goji's `bind`.

use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{env, process};

use socket2::{Domain, Socket, Type};
use tokio::sync::mpsc;

use super::hold::Hold;
use super::sys;
use super::takeover::{Moved, Offer, Predecessor, Takeover, TakeoverError};
use crate::config::listen::{StatsdAddress, UnixAddress};

/// The first descriptor systemd passes; the others follow without a gap.
const FIRST_LISTEN_FD: RawFd = 3;

/// What we were given, what of it has been asked for, and what we have to give in turn.
#[derive(Debug, Default)]
pub struct Inherited {
    systemd: Vec<Passed>,
    einhorn: Option<Einhorn>,
    predecessor: Option<Predecessor>,
    offers: Vec<Offer>,
}

#[derive(Debug)]
struct Passed {
    number: RawFd,
    name: String,
    is_used: bool,
}

#[derive(Debug)]
struct Einhorn {
    sockets: Vec<RawFd>,
    control: Option<PathBuf>,
}

/// The environment says something that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// A variable that should hold a number does not.
    #[error("environment variable {variable}={value} is not a number")]
    NotANumber {
        /// Its name.
        variable: String,
        /// What it holds.
        value: String,
    },
    /// Sockets and their names do not match.
    #[error("LISTEN_FDNAMES has {names} names for {sockets} sockets")]
    Names {
        /// How many names there are.
        names: usize,
        /// What `LISTEN_FDS` says.
        sockets: usize,
    },
    /// Einhorn counts more sockets than it names.
    #[error("environment variable {0} is not set although EINHORN_FD_COUNT counts it")]
    Missing(String),
}

impl Inherited {
    /// Reads `LISTEN_*` and `EINHORN_*`, if they are meant for this process.
    ///
    /// # Errors
    /// A variable that makes no sense.
    pub fn from_environment() -> Result<Inherited, EnvironmentError> {
        let variable = |name: &str| env::var_os(name)?.into_string().ok();
        let parent = std::os::unix::process::parent_id();
        Inherited::from_variables(variable, process::id(), parent)
    }

    /// Gets the sockets of the process whose control socket is at `path`, if there is one.
    ///
    /// # Errors
    /// There is one, and it gives nothing.
    pub fn meet_predecessor(&mut self, path: &Path) -> Result<(), TakeoverError> {
        self.predecessor = Predecessor::meet(path)?;
        Ok(())
    }

    /// A socket that the predecessor labels so and that has not been taken yet.
    pub(super) fn take_over(&mut self, label: &str) -> Option<(Socket, Hold)> {
        self.predecessor.as_mut()?.take(label)
    }

    /// The connections that come from the predecessor's listener with this label.
    pub(super) fn arrivals(&mut self, label: &str) -> Option<mpsc::Receiver<Moved>> {
        self.predecessor.as_mut().map(|predecessor| predecessor.home(label))
    }

    /// A successor may have this socket; without a hold, it is somebody else's anyway.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub(super) fn offer(
        &mut self,
        label: &str,
        socket: &impl AsFd,
        hold: Option<&Hold>,
    ) -> io::Result<()> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        self.offers.push(Offer::new(label.to_owned(), socket, hold.cloned()));
        Ok(())
    }

    /// What a successor may have: every socket that was bound with the help of this.
    pub fn take_offers(&mut self) -> Vec<Offer> {
        mem::take(&mut self.offers)
    }

    /// The predecessor, to be told when we are ready. Its sockets that nobody has asked for are
    /// closed here.
    pub fn take_predecessor(&mut self) -> Option<Takeover> {
        self.predecessor.take().map(Takeover::from)
    }

    fn from_variables(
        get: impl Fn(&str) -> Option<String>,
        own_pid: u32,
        parent_pid: u32,
    ) -> Result<Inherited, EnvironmentError> {
        let number = |variable: &str| match get(variable) {
            None => Ok(None),
            Some(value) => match value.parse::<u32>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => {
                    Err(EnvironmentError::NotANumber { variable: variable.to_owned(), value })
                }
            },
        };
        let mut inherited = Inherited::default();
        if number("LISTEN_PID")? == Some(own_pid) {
            let sockets = number("LISTEN_FDS")?.unwrap_or(0) as usize;
            let names = match get("LISTEN_FDNAMES") {
                Some(names) => names.split(':').map(str::to_owned).collect(),
                // What systemd calls a socket without a name.
                None => vec!["unknown".to_owned(); sockets],
            };
            if names.len() != sockets {
                return Err(EnvironmentError::Names { names: names.len(), sockets });
            }
            let numbered = (FIRST_LISTEN_FD..).zip(names);
            inherited.systemd =
                numbered.map(|(number, name)| Passed { number, name, is_used: false }).collect();
        }
        if number("EINHORN_MASTER_PID")? == Some(parent_pid) {
            let count = number("EINHORN_FD_COUNT")?.unwrap_or(0);
            let sockets = (0..count).map(|i| {
                let variable = format!("EINHORN_FD_{i}");
                let number = number(&variable)?.and_then(|number| RawFd::try_from(number).ok());
                number.ok_or(EnvironmentError::Missing(variable))
            });
            inherited.einhorn = Some(Einhorn {
                sockets: sockets.collect::<Result<_, _>>()?,
                control: get("EINHORN_SOCK_PATH").map(PathBuf::from),
            });
        }
        Ok(inherited)
    }

    /// The sockets systemd calls `name`, which may be several; or else the one with that place
    /// among them, from 0.
    ///
    /// # Errors
    /// There is none, or it is not a socket.
    pub(super) fn named(&mut self, name: &str) -> io::Result<Vec<Socket>> {
        let place = name.parse().unwrap_or(usize::MAX);
        let has_name = self.systemd.iter().any(|passed| passed.name == name);
        let mut sockets = Vec::new();
        for (i, passed) in self.systemd.iter_mut().enumerate() {
            if passed.name == name || (!has_name && i == place) {
                passed.is_used = true;
                sockets.push(socket(passed.number)?);
            }
        }
        if sockets.is_empty() {
            let known: Vec<_> = self.systemd.iter().map(|passed| passed.name.as_str()).collect();
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                match known[..] {
                    [] => "systemd passed no sockets to this process".to_owned(),
                    _ => format!("the sockets systemd passed are {}", known.join(", ")),
                },
            ));
        }
        Ok(sockets)
    }

    /// Descriptor `number`, whoever opened it.
    ///
    /// # Errors
    /// It is not a socket.
    pub(super) fn numbered(&mut self, number: RawFd) -> io::Result<Socket> {
        for passed in &mut self.systemd {
            passed.is_used |= passed.number == number;
        }
        socket(number)
    }

    /// Socket `index` of Einhorn.
    ///
    /// # Errors
    /// There is none, or it is not a socket.
    pub(super) fn einhorn(&self, index: usize) -> io::Result<Socket> {
        let Some(einhorn) = &self.einhorn else {
            let none = "this process was not started by Einhorn";
            return Err(io::Error::new(io::ErrorKind::NotFound, none));
        };
        let Some(&number) = einhorn.sockets.get(index) else {
            let few = format!("Einhorn has {} sockets, counted from 0", einhorn.sockets.len());
            return Err(io::Error::new(io::ErrorKind::NotFound, few));
        };
        socket(number)
    }

    /// Names of the sockets systemd passed that no listener has asked for. What clients send
    /// there waits for ever.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        let unused = self.systemd.iter().filter(|passed| !passed.is_used);
        unused.map(|passed| passed.name.as_str())
    }

    /// Tells Einhorn, if it started us, that we are ready to take over from our predecessor.
    ///
    /// # Errors
    /// Its control socket does not take it.
    pub fn acknowledge(&self) -> io::Result<()> {
        let Some(control) = self.einhorn.as_ref().and_then(|einhorn| einhorn.control.as_ref())
        else {
            return Ok(());
        };
        let message = format!("{{\"command\": \"worker:ack\", \"pid\": {}}}\n", process::id());
        UnixStream::connect(control)?.write_all(message.as_bytes())
    }
}

fn socket(number: RawFd) -> io::Result<Socket> {
    let socket =
        Socket::from(sys::duplicate(number).map_err(|error| {
            io::Error::new(error.kind(), format!("descriptor {number}: {error}"))
        })?);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What `socket` listens on, in the words of a configured address.
///
/// # Errors
/// Nothing we can listen on; says why.
pub(super) fn address_of(socket: &Socket) -> io::Result<StatsdAddress> {
    let unusable = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    let (domain, r#type) = (socket.domain()?, socket.r#type()?);
    if r#type == Type::STREAM && !socket.is_listener()? {
        return Err(unusable("it is a connection, not a socket that listens"));
    }
    let own = socket.local_addr()?;
    match (r#type, own.as_socket()) {
        (Type::DGRAM, Some(address)) => return Ok(StatsdAddress::Udp(address)),
        (Type::STREAM, Some(address)) => return Ok(StatsdAddress::Tcp(address)),
        _ => {}
    }
    let address = match (own.as_pathname(), own.as_abstract_namespace()) {
        (Some(path), _) => UnixAddress::Path(path.to_owned()),
        (None, Some(name)) => UnixAddress::Abstract(name.to_owned()),
        (None, None) => return Err(unusable("it has no address")),
    };
    match (domain, r#type) {
        (Domain::UNIX, Type::DGRAM) => Ok(StatsdAddress::Unixgram(address)),
        (Domain::UNIX, Type::STREAM) => Ok(StatsdAddress::UnixStream(address)),
        _ => Err(unusable("it is neither a datagram nor a stream socket")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: u32 = 100;
    const PARENT: u32 = 1;

    fn read(variables: &[(&str, &str)]) -> Result<Inherited, EnvironmentError> {
        let get = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Inherited::from_variables(get, OWN, PARENT)
    }

    fn numbered(inherited: &Inherited) -> Vec<(RawFd, &str)> {
        inherited.systemd.iter().map(|passed| (passed.number, passed.name.as_str())).collect()
    }

    #[test]
    fn systemd_passes_descriptors_from_3_on_with_names() {
        for (variables, want) in [
            (&[][..], &[][..]),
            (&[("LISTEN_PID", "100"), ("LISTEN_FDS", "0")], &[]),
            (
                &[("LISTEN_PID", "100"), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a:b.socket")],
                &[(3, "a"), (4, "b.socket")],
            ),
            (&[("LISTEN_PID", "100"), ("LISTEN_FDS", "1")], &[(3, "unknown")]),
            // Meant for another process, such as the one that started us.
            (&[("LISTEN_PID", "99"), ("LISTEN_FDS", "2")], &[]),
        ] {
            let inherited = read(variables).expect("it makes sense");
            assert_eq!(numbered(&inherited), want, "{variables:?}");
        }
    }

    #[test]
    fn einhorn_names_each_descriptor() {
        let variables = [
            ("EINHORN_MASTER_PID", "1"),
            ("EINHORN_FD_COUNT", "2"),
            ("EINHORN_FD_0", "6"),
            ("EINHORN_FD_1", "9"),
        ];
        let einhorn = read(&variables).expect("it makes sense").einhorn.expect("it is our parent");
        assert_eq!(einhorn.sockets, [6, 9]);
        // Not our parent: inherited from a shell that Einhorn once started.
        let variables = [("EINHORN_MASTER_PID", "2"), ("EINHORN_FD_COUNT", "2")];
        assert!(read(&variables).expect("it is not for us").einhorn.is_none());
    }

    #[test]
    fn an_environment_that_makes_no_sense_is_an_error() {
        for (variables, error) in [
            (
                &[("LISTEN_PID", "100"), ("LISTEN_FDS", "two")][..],
                "environment variable LISTEN_FDS=two is not a number",
            ),
            (
                &[("LISTEN_PID", "100"), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a")],
                "LISTEN_FDNAMES has 1 names for 2 sockets",
            ),
            (
                &[("EINHORN_MASTER_PID", "1"), ("EINHORN_FD_COUNT", "1")],
                "environment variable EINHORN_FD_0 is not set although EINHORN_FD_COUNT counts it",
            ),
        ] {
            assert_eq!(read(variables).expect_err("no sense").to_string(), error);
        }
    }
}
