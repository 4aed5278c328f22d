//! What one connection of a stream listener does, from its handshake to its end.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::select;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::listener::Connection;
use super::{SILENCE_AT_END, Shared, Turn};
use crate::ingest::framing::{Frames, Framing, Head, Lines};
use crate::ingest::hold::Hold;
use crate::ingest::takeover::{MOST_KEPT, Moved};
use crate::ingest::{Receive, tls};
use crate::telemetry::names;

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
    /// Everything one connection does.
    pub(super) async fn converse(self: Rc<Self>, connection: Connection) {
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
                let head = if self.limits.spans { Head::Ssf } else { Head::Statsd };
                let frames = Framing::Frames(Frames::new(head, longest));
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
            Err(error) => {
                self.count_incomplete(framing.is_amid());
                return End::Broken(error);
            }
        }
        end
    }

    /// Counts the beginning of a line or frame whose rest will not come.
    pub(super) fn count_incomplete(&self, is_amid: bool) {
        // None is no series.
        if is_amid {
            let tags = "packet_type:unknown,reason:incomplete";
            self.telemetry.count(names::PACKET_ERROR_TOTAL, tags, 1);
        }
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
                let receive = &mut self.turn.borrow_mut().receive;
                framing.end(receive);
                // Nobody else may come for long, and it is to be counted.
                receive.hand_over_due(Instant::now());
                self.fed.notify_one();
            }
            End::Silent => self.telemetry.count(names::TCP_IDLE_TIMEOUTS_TOTAL, "", 1),
            End::Broken(_) | End::NoHandshake | End::Stopped | End::Moves => {}
        }
        self.count_incomplete(framing.is_amid());
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

    /// How long a connection may be silent.
    fn patience(&self) -> Duration {
        match self.deadline() {
            None => self.limits.idle_timeout,
            Some(deadline) => {
                SILENCE_AT_END.min(deadline.saturating_duration_since(Instant::now()))
            }
        }
    }
}
