//! Addresses we listen on: how they are written, and as types.
//!
//! Host names are resolved while the configuration is read, so that a wrong one is a sentence
//! at start and not a surprise later. An empty host (`:8126`) is `[::]`, which is every
//! address of both families, as in Go. Behind an address there may be options
//! ([`ListenOptions`]).
//!
//! Sources: Veneur v1.1.0 `udp_address`, `tcp_address`; v14 `statsd_listen_addresses`; goji's
//! `bind` for `http_address`.

mod allow;
mod options;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::machine::Machine;

pub use allow::AllowList;
pub use options::{FileAccess, ListenOptions, Listener};

/// What a `HOST:PORT` setting takes, for messages.
pub const HOST_PORT: &str = "HOST:PORT, [IPV6]:PORT or :PORT";
/// What `statsd_listen_addresses` takes, for messages.
pub const STATSD_FORMS: &str = "udp://HOST:PORT, tcp://HOST:PORT, unixgram:///PATH, \
     unixgram://@NAME, unix:///PATH, unix://@NAME or fd://NAME";
/// What `http_address` takes, for messages.
pub const HTTP_FORMS: &str = "HOST:PORT, :PORT, /PATH, ./PATH, @NAME, fd@N or einhorn@N";

/// `sun_path` holds 108 bytes, one of them for the NUL at its end or, of an abstract name, at
/// its start.
const MAX_UNIX_NAME: usize = 107;

/// Why an address cannot be used: a phrase that fits behind its text and a colon.
pub type Wrong = String;

/// A Unix socket's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UnixAddress {
    /// A file.
    Path(PathBuf),
    /// A name in the abstract namespace (written `@name`), without the leading NUL.
    Abstract(Vec<u8>),
}

impl UnixAddress {
    /// From `/PATH`, `./PATH` or `@NAME`.
    ///
    /// # Errors
    /// A sentence if it is none of these, or too long for a socket address.
    pub(super) fn parse(text: &str) -> Result<UnixAddress, Wrong> {
        let name = text.strip_prefix('@').unwrap_or(text);
        if name.is_empty() || !text.starts_with(['/', '.', '@']) || text.contains('\0') {
            return Err("not a path or an abstract name".to_owned());
        }
        if name.len() > MAX_UNIX_NAME {
            return Err(format!("longer than the {MAX_UNIX_NAME} bytes a socket name may have"));
        }
        if text.starts_with('@') {
            return Ok(UnixAddress::Abstract(name.as_bytes().to_vec()));
        }
        Ok(UnixAddress::Path(PathBuf::from(text)))
    }
}

impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnixAddress::Path(path) => write!(f, "{}", path.display()),
            UnixAddress::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
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

impl StatsdAddress {
    /// From one entry of `statsd_listen_addresses`.
    ///
    /// # Errors
    /// Why not; what is accepted is [`STATSD_FORMS`].
    pub fn parse(text: &str, machine: &Machine) -> Result<StatsdAddress, Wrong> {
        let (scheme, rest) = text.split_once(':').ok_or("no scheme")?;
        let slashed = rest.strip_prefix("//");
        // Veneur 14 writes abstract names without slashes: `unixgram:@name`.
        let unix = || UnixAddress::parse(slashed.unwrap_or(rest));
        let inet = |family| resolve(slashed.ok_or("no // after the scheme")?, family, machine);
        match scheme {
            "udp" => inet(Family::Any).map(StatsdAddress::Udp),
            "udp4" => inet(Family::V4).map(StatsdAddress::Udp),
            "udp6" => inet(Family::V6).map(StatsdAddress::Udp),
            "tcp" => inet(Family::Any).map(StatsdAddress::Tcp),
            "tcp4" => inet(Family::V4).map(StatsdAddress::Tcp),
            "tcp6" => inet(Family::V6).map(StatsdAddress::Tcp),
            "unixgram" => unix().map(StatsdAddress::Unixgram),
            "unix" | "unixstream" => unix().map(StatsdAddress::UnixStream),
            "fd" => match slashed {
                Some(name) if !name.is_empty() => Ok(StatsdAddress::Inherited(name.to_owned())),
                _ => Err("no name after fd://".to_owned()),
            },
            _ => Err("unknown scheme".to_owned()),
        }
    }
}

impl StatsdAddress {
    /// Whether the kernel chooses the port: then the same address twice means two listeners.
    pub fn is_any_port(&self) -> bool {
        match self {
            StatsdAddress::Udp(address) | StatsdAddress::Tcp(address) => address.port() == 0,
            StatsdAddress::Unixgram(_)
            | StatsdAddress::UnixStream(_)
            | StatsdAddress::Inherited(_) => false,
        }
    }
}

/// As it may be written in `statsd_listen_addresses`.
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

impl HttpAddress {
    /// From `http_address`.
    ///
    /// # Errors
    /// Why not; what is accepted is [`HTTP_FORMS`].
    pub fn parse(text: &str, machine: &Machine) -> Result<HttpAddress, Wrong> {
        if text.starts_with(['/', '.', '@']) {
            return UnixAddress::parse(text).map(HttpAddress::Unix);
        }
        if let Some(number) = text.strip_prefix("fd@") {
            let number: u16 = number.parse().map_err(|_| "no descriptor number after fd@")?;
            return Ok(HttpAddress::Fd(number.into()));
        }
        if let Some(number) = text.strip_prefix("einhorn@") {
            let number: u16 = number.parse().map_err(|_| "no socket number after einhorn@")?;
            return Ok(HttpAddress::Einhorn(number.into()));
        }
        resolve(text, Family::Any, machine).map(HttpAddress::Tcp)
    }
}

/// As it may be written in `http_address`.
impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpAddress::Tcp(address) => address.fmt(f),
            HttpAddress::Unix(address) => address.fmt(f),
            HttpAddress::Fd(number) => write!(f, "fd@{number}"),
            HttpAddress::Einhorn(number) => write!(f, "einhorn@{number}"),
        }
    }
}

/// Which addresses of a name will do.
#[derive(Clone, Copy)]
pub enum Family {
    /// IPv4 if there is one, else IPv6.
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The one address to listen on for `HOST:PORT`.
///
/// # Errors
/// Why not; what is accepted is [`HOST_PORT`].
pub fn resolve(text: &str, family: Family, machine: &Machine) -> Result<SocketAddr, Wrong> {
    let (host, port) = split_host_port(text)?;
    if host.is_empty() {
        let every: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::Any | Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        return Ok((every, port).into());
    }
    let found = match host.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => (machine.resolve)(host, port).map_err(|error| error.to_string())?,
    };
    let v4 = found.iter().find(|address| address.is_ipv4());
    let v6 = found.iter().find(|address| address.is_ipv6());
    let chosen = match family {
        Family::Any => v4.or(v6).ok_or("the name has no address"),
        Family::V4 => v4.ok_or("no IPv4 address"),
        Family::V6 => v6.ok_or("no IPv6 address"),
    };
    Ok(*chosen?)
}

/// `HOST` (brackets removed, perhaps empty) and `PORT` of `HOST:PORT`.
///
/// # Errors
/// Why not; what is accepted is [`HOST_PORT`].
pub fn split_host_port(text: &str) -> Result<(&str, u16), Wrong> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:").ok_or("no port after the brackets")?,
        None => text.rsplit_once(':').ok_or("no port")?,
    };
    let bracketed = text.starts_with('[');
    if bracketed && host.parse::<Ipv6Addr>().is_err() {
        return Err("no IPv6 address between the brackets".to_owned());
    }
    if !bracketed && host.contains(':') {
        return Err("an IPv6 address needs brackets".to_owned());
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || "/@?#".contains(c)) {
        return Err("not a host name".to_owned());
    }
    // Digits alone: `+80` parses as a number.
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the port is not a number".to_owned());
    }
    let port = port.parse().map_err(|_| "the port is not within 0 to 65535")?;
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    fn machine() -> Machine {
        fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
            let v4 = SocketAddr::from(([10, 0, 0, 1], port));
            let v6 = SocketAddr::from(([1, 0, 0, 0, 0, 0, 0, 2], port));
            match host {
                "both" => Ok(vec![v6, v4]),
                "six" => Ok(vec![v6]),
                "none" => Ok(vec![]),
                _ => Err(io::Error::other("no such name")),
            }
        }
        Machine { resolve, ..Machine::this() }
    }

    #[test]
    fn a_statsd_address_means() {
        for (text, means) in [
            ("udp://127.0.0.1:8126", "udp://127.0.0.1:8126"),
            ("udp://:8126", "udp://[::]:8126"),
            ("udp4://:8126", "udp://0.0.0.0:8126"),
            ("udp6://:8126", "udp://[::]:8126"),
            ("udp://[::1]:0", "udp://[::1]:0"),
            ("udp://both:1", "udp://10.0.0.1:1"),
            ("udp6://both:1", "udp://[1::2]:1"),
            ("tcp://six:1", "tcp://[1::2]:1"),
            ("tcp4://both:1", "tcp://10.0.0.1:1"),
            ("tcp6://[::1]:1", "tcp://[::1]:1"),
            ("unixgram:///run/veneur.sock", "unixgram:///run/veneur.sock"),
            ("unixgram://@veneur", "unixgram://@veneur"),
            ("unixgram:@veneur", "unixgram://@veneur"),
            ("unix:///run/v.sock", "unix:///run/v.sock"),
            ("unixstream://@v", "unix://@v"),
            ("fd://statsd", "fd://statsd"),
            ("fd://0", "fd://0"),
        ] {
            let address = StatsdAddress::parse(text, &machine()).expect(text);
            assert_eq!(address.to_string(), means);
            let again = StatsdAddress::parse(means, &machine()).expect(means);
            assert_eq!(again, address, "what is shown can be read again");
        }
    }

    #[test]
    fn a_statsd_address_is_refused_because() {
        for (text, why) in [
            ("", "no scheme"),
            ("8126", "no scheme"),
            ("127.0.0.1:8126", "unknown scheme"),
            ("http://127.0.0.1:8126", "unknown scheme"),
            ("udp:127.0.0.1:8126", "no // after the scheme"),
            ("udp://127.0.0.1", "no port"),
            ("udp://127.0.0.1:", "the port is not within 0 to 65535"),
            ("udp://127.0.0.1:x", "the port is not a number"),
            ("udp://127.0.0.1:+1", "the port is not a number"),
            ("udp://127.0.0.1:65536", "the port is not within 0 to 65535"),
            ("udp://::1:8126", "an IPv6 address needs brackets"),
            ("udp://[::1]", "no port after the brackets"),
            ("udp://[::g]:1", "no IPv6 address between the brackets"),
            ("udp://a/b:1", "not a host name"),
            ("udp://nowhere:1", "no such name"),
            ("udp://none:1", "the name has no address"),
            ("udp4://six:1", "no IPv4 address"),
            ("udp6://127.0.0.1:1", "no IPv6 address"),
            ("unixgram://run/veneur.sock", "not a path or an abstract name"),
            ("unixgram://", "not a path or an abstract name"),
            ("unixgram://@", "not a path or an abstract name"),
            ("unix:///a\0b", "not a path or an abstract name"),
            ("fd://", "no name after fd://"),
            ("fd:3", "no name after fd://"),
        ] {
            let error = StatsdAddress::parse(text, &machine()).expect_err(text);
            assert_eq!(error, why, "{text}");
        }
    }

    #[test]
    fn a_unix_name_must_fit_a_socket_address() {
        let longest = format!("unix:///{}", "a".repeat(106));
        assert!(StatsdAddress::parse(&longest, &machine()).is_ok());
        let error = StatsdAddress::parse(&format!("{longest}a"), &machine());
        let error = error.expect_err("108 bytes leave no room for the NUL");
        assert_eq!(error, "longer than the 107 bytes a socket name may have");
    }

    #[test]
    fn an_http_address_means() {
        for (text, means) in [
            ("127.0.0.1:8127", "127.0.0.1:8127"),
            (":8127", "[::]:8127"),
            ("both:80", "10.0.0.1:80"),
            ("/run/veneur/http.sock", "/run/veneur/http.sock"),
            ("./http.sock", "./http.sock"),
            ("@veneur", "@veneur"),
            ("fd@3", "fd@3"),
            ("einhorn@0", "einhorn@0"),
        ] {
            let address = HttpAddress::parse(text, &machine()).expect(text);
            assert_eq!(address.to_string(), means);
        }
        for text in ["", "8127", "localhost", "fd@", "fd@-1", "einhorn@x", "@", "http://h:1"] {
            assert!(HttpAddress::parse(text, &machine()).is_err(), "{text}");
        }
    }
}
