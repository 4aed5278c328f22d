//! The socket of an HTTP or gRPC server at work: lets in who may come in, over TLS if there is
//! a certificate.
//!
//! Who serves on it sees a listener like any other. A handshake is part of its connection, so
//! that a slow one keeps nobody waiting: it goes on when the connection is first read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::guard::Guard;
use super::http_listener::{HttpListener, HttpSocket};
use super::tls;
use super::unix::SocketFile;
use crate::telemetry::{Telemetry, names};

/// How long to accept nothing after an error: what is missing, descriptors or memory, will
/// not be there at once.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// How long a client that is refused may take to hear it.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A listener at work.
pub struct Door {
    socket: Listening,
    guard: Guard,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    handshake_timeout: Duration,
    closed: Closed,
    /// Removed at the end if it is ours.
    _file: Option<SocketFile>,
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Counts connections that came to nothing.
#[derive(Clone)]
struct Closed {
    telemetry: Telemetry,
    /// What counts them, with a tag `reason`.
    metric: &'static str,
}

impl Door {
    /// Opens it. Connections that come to nothing count under `closed_metric`. Needs a tokio
    /// runtime.
    ///
    /// # Errors
    /// The runtime does not take the socket.
    pub fn open(
        listener: HttpListener,
        handshake_timeout: Duration,
        telemetry: &Telemetry,
        closed_metric: &'static str,
    ) -> io::Result<Door> {
        let HttpListener { socket, address, hold: _, file, allow, tls } = listener;
        let socket = match socket {
            HttpSocket::Tcp(socket) => Listening::Tcp(TcpListener::from_std(socket)?),
            HttpSocket::Unix(socket) => Listening::Unix(UnixListener::from_std(socket)?),
        };
        Ok(Door {
            socket,
            guard: Guard::new(allow, address),
            tls,
            handshake_timeout,
            closed: Closed { telemetry: telemetry.clone(), metric: closed_metric },
            _file: file,
        })
    }

    /// The next connection; `None` if it is of somebody who may not come in.
    async fn next(&mut self) -> io::Result<Option<Stream>> {
        let listener = match &self.socket {
            Listening::Tcp(listener) => listener,
            Listening::Unix(listener) => {
                return Ok(Some(Stream::Unix(listener.accept().await?.0)));
            }
        };
        let (stream, peer) = listener.accept().await?;
        if !self.guard.admits(peer.ip(), Instant::now()) {
            self.closed.count("reason:not_allowed");
            return Ok(None);
        }
        let Some(tls) = &self.tls else { return Ok(Some(Stream::Tcp(stream))) };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
        let handshake = shake_hands(stream, acceptor, self.handshake_timeout, self.closed.clone());
        Ok(Some(Stream::Shaking(Box::pin(handshake))))
    }
}

impl Closed {
    fn count(&self, tags: &str) {
        self.telemetry.count(self.metric, tags, 1);
    }
}

impl Listener for Door {
    type Io = Visitor;
    type Addr = ();

    async fn accept(&mut self) -> (Visitor, ()) {
        loop {
            match self.next().await {
                Ok(Some(stream)) => return (Visitor(stream), ()),
                Ok(None) => {}
                // The client has changed its mind.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    warn!(%error, "cannot accept connections");
                    self.closed.telemetry.count(names::LISTEN_ERRORS_TOTAL, "during:accept", 1);
                    sleep(PAUSE_AFTER_ERROR).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

type Handshake = Pin<Box<dyn Future<Output = io::Result<TlsStream<TcpStream>>> + Send>>;

async fn shake_hands(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    patience: Duration,
    closed: Closed,
) -> io::Result<TlsStream<TcpStream>> {
    let shaken = timeout(patience, acceptor.accept(stream).into_fallible()).await;
    let (cause, error, stream) = match shaken {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err((error, stream))) => (tls::cause_of(&error), error, Some(stream)),
        Err(_) => ("timeout", io::ErrorKind::TimedOut.into(), None),
    };
    debug!(cause, %error, "TLS handshake failed");
    closed.count(&format!("reason:tls,cause:{cause}"));
    if let Some(stream) = stream {
        let _ = timeout(LAST_WORD, let_hear(stream)).await;
    }
    Err(error)
}

/// Has a client hear why it is refused: it may have sent a request already, and to close with
/// that unread would reset the connection, and with it what we have said.
async fn let_hear(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut unread = [0; 4096];
    while stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// A connection that came in.
pub struct Visitor(Stream);

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// With TLS, still shaking hands.
    Shaking(Handshake),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Visitor {
    /// The connection, once hands are shaken; else why it comes to nothing.
    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<io::Result<&mut Stream>> {
        if let Stream::Shaking(handshake) = &mut self.0 {
            let stream = ready!(handshake.as_mut().poll(context))?;
            self.0 = Stream::Tls(Box::new(stream));
        }
        Poll::Ready(Ok(&mut self.0))
    }
}

/// Does the same to a stream of any kind; one that still shakes hands is `$shaking`.
macro_rules! each {
    ($stream:expr, $io:ident => $does:expr, $shaking:expr) => {
        match $stream {
            Stream::Tcp($io) => $does,
            Stream::Unix($io) => $does,
            Stream::Tls($io) => $does,
            Stream::Shaking(..) => $shaking,
        }
    };
}

impl AsyncRead for Visitor {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = ready!(self.poll_stream(context))?;
        each!(stream, io => Pin::new(io).poll_read(context, buffer), Poll::Pending)
    }
}

impl AsyncWrite for Visitor {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = ready!(self.poll_stream(context))?;
        each!(stream, io => Pin::new(io).poll_write(context, bytes), Poll::Pending)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = ready!(self.poll_stream(context))?;
        each!(stream, io => Pin::new(io).poll_write_vectored(context, slices), Poll::Pending)
    }

    fn is_write_vectored(&self) -> bool {
        each!(&self.0, io => io.is_write_vectored(), true)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is written before hands are shaken.
        each!(&mut self.0, io => Pin::new(io).poll_flush(context), Poll::Ready(Ok(())))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.0, io => Pin::new(io).poll_shutdown(context), Poll::Ready(Ok(())))
    }
}
