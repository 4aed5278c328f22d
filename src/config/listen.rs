//! Addresses we listen on, as types.

use std::fmt;
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

/// As it is written in the configuration: `/run/veneur.sock` or `@veneur`.
impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnixAddress::Path(path) => write!(f, "{}", path.display()),
            UnixAddress::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

/// As it is written in the configuration: `udp://127.0.0.1:8126`.
impl fmt::Display for StatsdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatsdAddress::Udp(address) => write!(f, "udp://{address}"),
            StatsdAddress::Tcp(address) => write!(f, "tcp://{address}"),
            StatsdAddress::Unixgram(address) => write!(f, "unixgram://{address}"),
            StatsdAddress::UnixStream(address) => write!(f, "unix://{address}"),
            StatsdAddress::Inherited(name) => write!(f, "fd://{name}"),
        }
    }
}

/// As it is written in the configuration: `127.0.0.1:8127`, `einhorn@0`.
impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpAddress::Tcp(address) => write!(f, "{address}"),
            HttpAddress::Unix(address) => write!(f, "{address}"),
            HttpAddress::Fd(number) => write!(f, "fd@{number}"),
            HttpAddress::Einhorn(number) => write!(f, "einhorn@{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_as_it_is_written() {
        let unix = |path: &str| UnixAddress::Path(path.into());
        let statsd = |address: StatsdAddress| address.to_string();
        let local = SocketAddr::from(([127, 0, 0, 1], 8126));
        let any = SocketAddr::from(([0u16; 8], 8126));
        for (shown, written) in [
            (statsd(StatsdAddress::Udp(local)), "udp://127.0.0.1:8126"),
            (statsd(StatsdAddress::Udp(any)), "udp://[::]:8126"),
            (statsd(StatsdAddress::Tcp(local)), "tcp://127.0.0.1:8126"),
            (statsd(StatsdAddress::Unixgram(unix("/run/v.sock"))), "unixgram:///run/v.sock"),
            (statsd(StatsdAddress::UnixStream(UnixAddress::Abstract(b"v".to_vec()))), "unix://@v"),
            (statsd(StatsdAddress::Inherited("statsd".into())), "fd://statsd"),
            (HttpAddress::Tcp(local).to_string(), "127.0.0.1:8126"),
            (HttpAddress::Unix(unix("./v.sock")).to_string(), "./v.sock"),
            (HttpAddress::Fd(3).to_string(), "fd@3"),
            (HttpAddress::Einhorn(0).to_string(), "einhorn@0"),
        ] {
            assert_eq!(shown, written);
        }
    }
}
