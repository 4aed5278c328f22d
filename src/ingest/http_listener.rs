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
use super::unix::{self, SocketFile};
use super::{BindError, socket};
use crate::config::listen::{FileAccess, HttpAddress, Listener, StatsdAddress};

/// A bound, non-blocking socket.
#[derive(Debug)]
pub enum HttpListener {
    /// TCP.
    Tcp(TcpListener, Hold),
    /// Unix stream; its file, if it is ours, is removed when dropped.
    Unix(UnixListener, Hold, Option<SocketFile>),
}

impl HttpListener {
    /// Whose it is.
    pub fn hold(&self) -> &Hold {
        match self {
            HttpListener::Tcp(_, hold) | HttpListener::Unix(_, hold, _) => hold,
        }
    }
}

/// Binds the socket of the server whose address is under `key`, or takes it over.
///
/// # Errors
/// The address cannot be had, or is of something that is not a listening stream socket.
pub fn bind_http(
    key: &str,
    listener: &Listener<HttpAddress>,
    inherited: &mut Inherited,
) -> Result<HttpListener, BindError> {
    let Listener { address, options } = listener;
    let label = format!("{key} {address}");
    let bound = match inherited.take_over(&label) {
        Some((socket, hold)) => adopt(address, options.file, socket, hold),
        None => bind(address, options.file, inherited),
    };
    let offered = bound.and_then(|listener| {
        match &listener {
            HttpListener::Tcp(socket, hold) => inherited.offer(&label, socket, Some(hold))?,
            HttpListener::Unix(socket, hold, _) => inherited.offer(&label, socket, Some(hold))?,
        }
        Ok(listener)
    });
    offered.map_err(|cause| BindError::Refused { address: label, cause })
}

fn bind(
    address: &HttpAddress,
    access: FileAccess,
    inherited: &mut Inherited,
) -> io::Result<HttpListener> {
    let hold = Hold::ours();
    match address {
        HttpAddress::Tcp(address) => {
            socket::bind_tcp(*address).map(|socket| HttpListener::Tcp(socket.into(), hold))
        }
        HttpAddress::Unix(address) => {
            let (listener, file) = unix::bind_stream(address, access, &hold)?;
            Ok(HttpListener::Unix(listener.into(), hold, file))
        }
        HttpAddress::Fd(number) => from_socket(inherited.numbered(*number)?, hold),
        HttpAddress::Einhorn(index) => from_socket(inherited.einhorn(*index)?, hold),
    }
}

/// A socket of a predecessor, with its file if that will be ours.
fn adopt(
    address: &HttpAddress,
    access: FileAccess,
    socket: Socket,
    hold: Hold,
) -> io::Result<HttpListener> {
    let mut listener = from_socket(socket, hold)?;
    if let (HttpListener::Unix(_, hold, file), HttpAddress::Unix(address)) =
        (&mut listener, address)
    {
        *file = unix::adopt_file(address, access, hold)?;
    }
    Ok(listener)
}

fn from_socket(socket: Socket, hold: Hold) -> io::Result<HttpListener> {
    match inherited::address_of(&socket)? {
        StatsdAddress::Tcp(_) => Ok(HttpListener::Tcp(socket.into(), hold)),
        StatsdAddress::UnixStream(_) => Ok(HttpListener::Unix(socket.into(), hold, None)),
        other => {
            let why = format!("it is {other}, and HTTP needs a stream");
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
    }
}
