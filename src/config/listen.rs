//! Addresses we listen on, as types.

use std::net::SocketAddr;
use std::path::PathBuf;

/// A Unix socket's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnixAddress {
    /// A file.
    Path(PathBuf),
    /// A name in the abstract namespace (written `@name`), without the leading NUL.
    Abstract(Vec<u8>),
}

/// One statsd listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StatsdAddress {
    /// `udp://HOST:PORT` (also `udp4://`, `udp6://`), one datagram a packet.
    Udp(SocketAddr),
    /// `tcp://HOST:PORT`, newline-terminated lines; TLS if the `tls_*` keys are set.
    Tcp(SocketAddr),
    /// `unixgram:///PATH` or `unixgram://@NAME`, one datagram a packet.
    Unixgram(UnixAddress),
    /// `unix:///PATH` (or `unixstream://`): frames of a 4-byte little-endian length and that
    /// many bytes, each holding lines.
    UnixStream(UnixAddress),
    /// `fd://NAME` or `fd://N`: a socket systemd handed over (`FileDescriptorName=` or its
    /// place among them, from 0); its kind is read off the socket.
    Inherited(String),
}

/// Where the HTTP server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAddress {
    /// `HOST:PORT` or `:PORT`.
    Tcp(SocketAddr),
    /// A path starting with `/` or `.`, or an abstract name starting with `@`.
    Unix(UnixAddress),
    /// `fd@N`: descriptor `N` of this process.
    Fd(i32),
    /// `einhorn@N`: socket `N` of Einhorn (`EINHORN_FD_N`).
    Einhorn(usize),
}
