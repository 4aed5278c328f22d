//! Lines to a daemon, over any transport it listens on.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::EmitError;
use crate::config::listen::{StatsdAddress, UnixAddress};
use crate::config::machine::Machine;

/// How long connecting, writing and waiting for the end of a stream may each take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where to send.
#[derive(Debug)]
pub(super) enum Destination {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    /// With the name the certificate must have.
    Tls(SocketAddr, ServerName<'static>),
    Unixgram(UnixAddress),
    UnixStream(UnixAddress),
}

/// Files in PEM for `tls://`.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    pub(super) authority: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl Destination {
    /// From `HOST:PORT`, or an address with a scheme.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub(super) fn parse(text: &str) -> Result<Destination, String> {
        let with_scheme = match text.split_once("://") {
            Some(("tls", rest)) => format!("tcp://{rest}"),
            Some(_) => text.to_owned(),
            None => format!("udp://{text}"),
        };
        match StatsdAddress::parse(&with_scheme, &Machine::this())? {
            StatsdAddress::Udp(at) => Ok(Destination::Udp(at)),
            StatsdAddress::Tcp(at) => match text.strip_prefix("tls://") {
                Some(host_and_port) => {
                    let (host, _) = host_and_port.rsplit_once(':').ok_or("no port")?;
                    let host = host.trim_matches(['[', ']']).to_owned();
                    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
                    Ok(Destination::Tls(at, name))
                }
                None => Ok(Destination::Tcp(at)),
            },
            StatsdAddress::Unixgram(at) => Ok(Destination::Unixgram(at)),
            StatsdAddress::UnixStream(at) => Ok(Destination::UnixStream(at)),
            StatsdAddress::Inherited(_) => Err("nothing can be sent there".to_owned()),
        }
    }

    /// Sends all lines, as one datagram or over one connection.
    ///
    /// # Errors
    /// The files for TLS cannot be used, or the daemon cannot be reached or breaks off.
    pub(super) fn send(&self, lines: &[String], files: &Credentials) -> Result<(), EmitError> {
        let datagram = lines.join("\n").into_bytes();
        let stream = lines.iter().flat_map(|line| [line, "\n"]).collect::<String>().into_bytes();
        let sent = match self {
            Destination::Udp(to) => send_udp(*to, &datagram),
            Destination::Tcp(to) => send_tcp(*to, &stream),
            Destination::Tls(to, name) => {
                let config = client_config(files)?;
                let connection = ClientConnection::new(Arc::new(config), name.clone())?;
                send_tls(*to, connection, &stream)
            }
            Destination::Unixgram(to) => send_unixgram(to, &datagram),
            Destination::UnixStream(to) => send_frame(to, &datagram),
        };
        sent.map_err(|cause| EmitError::Send { to: self.to_string(), cause })
    }

    /// Sends one message of SSF.
    ///
    /// # Errors
    /// There is no such listener, or it cannot be reached or breaks off.
    pub(super) fn send_ssf(&self, message: &[u8]) -> Result<(), EmitError> {
        let sent = match self {
            Destination::Udp(to) => send_udp(*to, message),
            Destination::UnixStream(to) => {
                let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
                // Version 0 of the framing.
                send_stream(to, &[&[0], &length[..], message].concat())
            }
            Destination::Tcp(_) | Destination::Tls(..) | Destination::Unixgram(_) => {
                return Err(lexopt::Error::from("--ssf goes to udp:// or unix://").into());
            }
        };
        sent.map_err(|cause| EmitError::Send { to: self.to_string(), cause })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Udp(to) => write!(f, "udp://{to}"),
            Destination::Tcp(to) => write!(f, "tcp://{to}"),
            Destination::Tls(to, _) => write!(f, "tls://{to}"),
            Destination::Unixgram(to) => write!(f, "unixgram://{to}"),
            Destination::UnixStream(to) => write!(f, "unix://{to}"),
        }
    }
}

fn send_udp(to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0u16; 8]),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.send(datagram)?;
    // Where nobody listens on this host, the kernel has already said so.
    socket.take_error()?.map_or(Ok(()), Err)
}

fn send_unixgram(to: &UnixAddress, datagram: &[u8]) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.connect_addr(&unix_address(to)?)?;
    socket.send(datagram)?;
    Ok(())
}

fn send_frame(to: &UnixAddress, frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    send_stream(to, &[&length.to_le_bytes(), frame].concat())
}

fn send_stream(to: &UnixAddress, bytes: &[u8]) -> io::Result<()> {
    let mut stream = UnixStream::connect_addr(&unix_address(to)?)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    stream.shutdown(Shutdown::Write)?;
    wait_for_end(stream)
}

fn unix_address(address: &UnixAddress) -> io::Result<net::SocketAddr> {
    match address {
        UnixAddress::Path(path) => net::SocketAddr::from_pathname(path),
        UnixAddress::Abstract(name) => net::SocketAddr::from_abstract_name(name),
    }
}

fn connect_tcp(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn send_tcp(to: SocketAddr, lines: &[u8]) -> io::Result<()> {
    let mut stream = connect_tcp(to)?;
    stream.write_all(lines)?;
    stream.shutdown(Shutdown::Write)?;
    wait_for_end(stream)
}

fn send_tls(to: SocketAddr, connection: ClientConnection, lines: &[u8]) -> io::Result<()> {
    let mut stream = StreamOwned::new(connection, connect_tcp(to)?);
    stream.write_all(lines)?;
    stream.conn.send_close_notify();
    stream.flush()?;
    stream.sock.shutdown(Shutdown::Write)?;
    wait_for_end(stream)
}

/// Waits until the daemon closes the connection too: then it has read everything, and has not
/// turned us away, as it does with one connection too many or a bad certificate.
fn wait_for_end(mut stream: impl Read) -> io::Result<()> {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => Ok(()),
        // A TLS peer that closes without saying goodbye.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(error) => Err(error),
    }
}

fn client_config(files: &Credentials) -> Result<ClientConfig, EmitError> {
    let Some(authority) = &files.authority else {
        let missing = "tls:// needs --cacert, the authority that signed the daemon's certificate";
        return Err(lexopt::Error::from(missing).into());
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("--cacert", authority)? {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match (&files.certificate, &files.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|cause| EmitError::Pem { option: "--key", cause })?;
            Ok(builder.with_client_auth_cert(certificates("--cert", certificate)?, key)?)
        }
        _ => Err(lexopt::Error::from("--cert and --key belong together").into()),
    }
}

fn certificates(
    option: &'static str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, EmitError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|cause| EmitError::Pem { option, cause })
}
