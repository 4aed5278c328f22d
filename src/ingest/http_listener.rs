//! The sockets of the HTTP and gRPC servers, in the forms their addresses may have.
//!
//! It is bound here because half of the forms are those of statsd listeners, and so that
//! everything is bound before anything runs; who serves on it is not known here.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use socket2::Socket;

use super::hold::Hold;
use super::inherited::{self, Inherited};
use super::tls::Shown;
use super::unix::{self, SocketFile};
use super::{BindError, socket};
use crate::config::listen::{AllowList, FileAccess, HttpAddress, Listener, StatsdAddress};

/// The bound socket of a server, and who may come in.
#[derive(Debug)]
pub struct HttpListener {
    /// The socket.
    pub socket: HttpSocket,
    /// Its file if it has one, which is removed when this is dropped, if it is ours.
    pub file: Option<SocketFile>,
    pub(super) hold: Hold,
    /// As configured.
    pub(super) address: String,
    pub(super) allow: AllowList,
    pub(super) tls: Shown,
}

/// A non-blocking socket that listens.
#[derive(Debug)]
pub enum HttpSocket {
    /// TCP.
    Tcp(TcpListener),
    /// Unix stream.
    Unix(UnixListener),
}

impl HttpListener {
    /// Whose it is.
    pub fn hold(&self) -> &Hold {
        &self.hold
    }
}

/// Binds the socket of the server whose address is under `key`, or takes it over. Over TCP it
/// shows what `tls` has.
///
/// # Errors
/// The address cannot be had, or is of something that is not a listening stream socket.
pub fn bind_http(
    key: &str,
    listener: &Listener<HttpAddress>,
    tls: Shown,
    inherited: &mut Inherited,
) -> Result<HttpListener, BindError> {
    let Listener { address, options } = listener;
    let label = format!("{key} {address}");
    let bound = match inherited.take_over(&label) {
        Some((socket, hold)) => adopt(address, options.file, socket, hold),
        None => bind(address, options.file, inherited),
    };
    let offered = bound.and_then(|(socket, hold, file)| {
        match &socket {
            HttpSocket::Tcp(socket) => inherited.offer(&label, socket, Some(&hold))?,
            HttpSocket::Unix(socket) => inherited.offer(&label, socket, Some(&hold))?,
        }
        let (address, allow) = (label.clone(), options.allow.clone());
        Ok(HttpListener { socket, file, hold, address, allow, tls })
    });
    offered.map_err(|cause| BindError::Refused { address: label, cause })
}

type Bound = (HttpSocket, Hold, Option<SocketFile>);

fn bind(address: &HttpAddress, access: FileAccess, inherited: &mut Inherited) -> io::Result<Bound> {
    let hold = Hold::ours();
    match address {
        HttpAddress::Tcp(address) => {
            Ok((HttpSocket::Tcp(socket::bind_tcp(*address)?.into()), hold, None))
        }
        HttpAddress::Unix(address) => {
            let (listener, file) = unix::bind_stream(address, access, &hold)?;
            Ok((HttpSocket::Unix(listener.into()), hold, file))
        }
        HttpAddress::Fd(number) => Ok((from_socket(inherited.numbered(*number)?)?, hold, None)),
        HttpAddress::Einhorn(index) => Ok((from_socket(inherited.einhorn(*index)?)?, hold, None)),
    }
}

/// A socket of a predecessor, with its file if that will be ours.
fn adopt(
    address: &HttpAddress,
    access: FileAccess,
    socket: Socket,
    hold: Hold,
) -> io::Result<Bound> {
    let socket = from_socket(socket)?;
    let file = match (&socket, address) {
        (HttpSocket::Unix(_), HttpAddress::Unix(address)) => {
            unix::adopt_file(address, access, &hold)?
        }
        _ => None,
    };
    Ok((socket, hold, file))
}

fn from_socket(socket: Socket) -> io::Result<HttpSocket> {
    match inherited::address_of(&socket)? {
        StatsdAddress::Tcp(_) => Ok(HttpSocket::Tcp(socket.into())),
        StatsdAddress::UnixStream(_) => Ok(HttpSocket::Unix(socket.into())),
        other => {
            let why = format!("it is {other}, and HTTP needs a stream");
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
    }
}
