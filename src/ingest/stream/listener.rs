//! What a stream listener accepts.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use crate::ingest::takeover::Moved;
use crate::ingest::tls::Shown;

pub(super) enum Listener {
    Tcp(TcpListener, Shown),
    Unix(UnixListener),
}

/// What has been read of it already stands beside a connection that a predecessor had.
pub(super) enum Connection {
    Lines(TcpStream, Vec<u8>),
    LinesOverTls(TcpStream, TlsAcceptor),
    Frames(UnixStream, Vec<u8>),
}

impl Listener {
    /// The next connection; `None` if it is of a peer whom `admits` does not let in.
    pub(super) async fn accept(
        &self,
        admits: impl FnOnce(IpAddr) -> bool,
    ) -> io::Result<Option<Connection>> {
        let (listener, tls) = match self {
            Listener::Tcp(listener, tls) => (listener, tls),
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                return Ok(Some(Connection::Frames(stream, Vec::new())));
            }
        };
        let (stream, peer) = listener.accept().await?;
        if !admits(peer.ip()) {
            return Ok(None);
        }
        Ok(Some(match tls {
            None => Connection::Lines(stream, Vec::new()),
            Some(tls) => {
                let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
                Connection::LinesOverTls(stream, acceptor)
            }
        }))
    }

    /// A connection that a predecessor had.
    pub(super) fn adopt(&self, Moved { socket, kept, .. }: Moved) -> io::Result<Connection> {
        match self {
            Listener::Tcp(_, None) => {
                Ok(Connection::Lines(TcpStream::from_std(socket.into())?, kept))
            }
            Listener::Tcp(_, Some(_)) => Err(io::Error::other("it is without TLS")),
            Listener::Unix(_) => Ok(Connection::Frames(UnixStream::from_std(socket.into())?, kept)),
        }
    }
}
