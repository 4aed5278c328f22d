//! The way to carbon: a connection for each body, or datagrams.
//!
//! The protocol acknowledges nothing, but closing does: we send a body, say that this was all, and
//! carbon, when it has read to the end, closes its side. A reset instead, or an end before
//! we said so, means that some of it may not have been read, and the body is sent again: carbon keeps one
//! value for a path and second. One that takes everything and does not close counts as served after a
//! while, and that is counted, too: had it died after its kernel took the bytes, they were lost.
//! Of datagrams nothing is known but that they have left.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::config::settings::GraphiteAddress;
use crate::net::Outcome;
use crate::sinks::post::Transport;
use crate::telemetry::{Telemetry, names};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// For so long we wait for the other side to close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// What fits an Ethernet frame, as etsy's clients have it.
const DATAGRAM_BYTES: usize = 1432;

/// Where a body goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// Resolved for each connection, since names move.
    pub address: GraphiteAddress,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Carbon over the network.
pub struct Carbon {
    /// `sink:NAME`
    tag: String,
    telemetry: Telemetry,
}

impl Carbon {
    /// For the sink called `sink`.
    pub fn new(sink: &str, telemetry: Telemetry) -> Carbon {
        Carbon { tag: format!("sink:{sink}"), telemetry }
    }

    async fn over_tcp(&self, address: &str, body: &[u8]) -> Outcome {
        let mut stream = match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Outcome::Unreachable(error.to_string()),
            Err(_) => return Outcome::Unreachable("no connection in time".to_owned()),
        };
        match self.deliver(&mut stream, body).await {
            Ok(()) => Outcome::Taken,
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    async fn deliver(&self, stream: &mut TcpStream, body: &[u8]) -> io::Result<()> {
        stream.write_all(body).await?;
        stream.shutdown().await?;
        match timeout(CLOSE_WITHIN, read_to_end(stream)).await {
            Ok(read) => read,
            Err(_) => {
                self.telemetry.count(names::SINK_UNCONFIRMED_TOTAL, &self.tag, 1);
                Ok(())
            }
        }
    }
}

/// Waits for the other side to close.
async fn read_to_end(stream: &mut TcpStream) -> io::Result<()> {
    let mut ignored = [0; 1024];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}

async fn over_udp(address: &str, body: &[u8]) -> Outcome {
    let sent = async {
        let mut last = None;
        for peer in tokio::net::lookup_host(address).await? {
            let any = if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await?;
            match socket.connect(peer).await {
                Ok(()) => return send_lines(&socket, body).await,
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| io::Error::other("the name has no address")))
    };
    match sent.await {
        Ok(()) => Outcome::Taken,
        Err(error) => Outcome::Unreachable(error.to_string()),
    }
}

/// Sends lines in datagrams, as many whole ones in each as fit.
async fn send_lines(socket: &UdpSocket, lines: &[u8]) -> io::Result<()> {
    for datagram in datagrams(lines) {
        socket.send(datagram).await?;
    }
    Ok(())
}

/// Parts of `lines`, each of whole lines and at most [`DATAGRAM_BYTES`] if a line is not longer.
fn datagrams(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = lines;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let fits = &left[..left.len().min(DATAGRAM_BYTES)];
        let end = memchr::memrchr(b'\n', fits).or_else(|| memchr::memchr(b'\n', left));
        let (datagram, rest) = left.split_at(end.map_or(left.len(), |at| at + 1));
        left = rest;
        Some(datagram)
    })
}

impl Transport for Carbon {
    type Target = Target;

    async fn post(&self, target: &Target, body: Bytes) -> Outcome {
        match &target.address {
            GraphiteAddress::Tcp(address) => self.over_tcp(address, &body).await,
            GraphiteAddress::Udp(address) => over_udp(address, &body).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_whole_lines() {
        let lines: String = (0..200).map(|n| format!("metric.{n} {n} 1700000000\n")).collect();
        let parts: Vec<&[u8]> = datagrams(lines.as_bytes()).collect();
        assert_eq!(parts.concat(), lines.as_bytes());
        assert!(parts.iter().all(|part| part.len() <= DATAGRAM_BYTES && part.ends_with(b"\n")));
        assert!(parts.len() < 5);
        let long = format!("a 1 1\n{} 1 1\nb 1 1\n", "x".repeat(2_000));
        let lengths: Vec<usize> = datagrams(long.as_bytes()).map(<[u8]>::len).collect();
        assert_eq!(lengths, [6, 2_005, 6]);
    }
}
