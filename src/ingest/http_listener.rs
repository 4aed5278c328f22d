//! The sockets of the HTTP and gRPC servers, in the forms their addresses may have.
//!
//! It is bound here because half of the forms are those of statsd listeners, and so that
//! everything is bound before anything runs; who serves on it is not known here.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use socket2::Socket;

use super::inherited::{self, Inherited};
use super::unix::{self, SocketFile};
use super::{BindError, socket};
use crate::config::listen::{HttpAddress, StatsdAddress};

/// A bound, non-blocking socket.
#[derive(Debug)]
pub enum HttpListener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix stream; its file, if it is ours, is removed when dropped.
    Unix(UnixListener, Option<SocketFile>),
}

/// Binds the socket of the server whose address is under `key`.
///
/// # Errors
/// The address cannot be had, or is of something that is not a listening stream socket.
pub fn bind_http(
    key: &str,
    address: &HttpAddress,
    inherited: &mut Inherited,
) -> Result<HttpListener, BindError> {
    let bound = match address {
        HttpAddress::Tcp(address) => {
            socket::bind_tcp(*address).map(|socket| HttpListener::Tcp(socket.into()))
        }
        HttpAddress::Unix(address) => {
            unix::bind_stream(address).map(|(listener, file)| HttpListener::Unix(listener, file))
        }
        HttpAddress::Fd(number) => inherited.numbered(*number).and_then(from_socket),
        HttpAddress::Einhorn(index) => inherited.einhorn(*index).and_then(from_socket),
    };
    bound.map_err(|cause| BindError::Refused { address: format!("{key} {address}"), cause })
}

fn from_socket(socket: Socket) -> io::Result<HttpListener> {
    match inherited::address_of(&socket)? {
        StatsdAddress::Tcp(_) => Ok(HttpListener::Tcp(socket.into())),
        StatsdAddress::UnixStream(_) => Ok(HttpListener::Unix(socket.into(), None)),
        other => {
            let why = format!("it is {other}, and HTTP needs a stream");
            Err(io::Error::new(io::ErrorKind::InvalidInput, why))
        }
    }
}
