//! From configured addresses to bound sockets.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use socket2::{Socket, Type};

use super::datagram::DatagramSocket;
use super::inherited::{self, Inherited};
use super::socket;
use super::stream::StreamListener;
use super::tls::{self, TlsError};
use super::unix::{self, SocketFile};
use crate::config::listen::StatsdAddress;
use crate::config::settings::IntakeSettings;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refuses.
    #[error("cannot bind {address}: {cause}")]
    Refused {
        /// The address as configured.
        address: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// TLS cannot be offered.
    #[error("cannot offer TLS: {0}")]
    Tls(#[from] TlsError),
}

/// Every socket there is, bound.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) datagrams: Vec<DatagramSocket>,
    pub(super) streams: Vec<StreamListener>,
}

impl Sockets {
    /// Binds every listener of `settings`, or takes it from `inherited`.
    pub(super) fn bind(
        settings: &IntakeSettings,
        inherited: &mut Inherited,
    ) -> Result<Sockets, BindError> {
        let mut binding = Binding {
            sockets: Sockets { datagrams: Vec::new(), streams: Vec::new() },
            readers: settings.num_readers.get(),
            buffer_bytes: settings.read_buffer_bytes,
            tls: settings.tls.as_ref().map(tls::server_config).transpose()?,
        };
        for address in &settings.listeners {
            binding
                .bind(address, inherited)
                .map_err(|cause| BindError::Refused { address: address.to_string(), cause })?;
        }
        Ok(binding.sockets)
    }
}

/// Whose a socket is.
#[derive(Debug)]
pub(super) enum Owner {
    /// Ours, with its file if it has one.
    Us(Option<SocketFile>),
    /// Whoever opened it and passed it on has it too, and may give it to our successor.
    Shared,
}

/// Sockets, and what is needed to make more.
struct Binding {
    sockets: Sockets,
    readers: usize,
    buffer_bytes: usize,
    tls: Option<Arc<ServerConfig>>,
}

impl Binding {
    fn bind(&mut self, address: &StatsdAddress, inherited: &mut Inherited) -> io::Result<()> {
        match address {
            StatsdAddress::Udp(at) => {
                for udp in socket::bind_udp_group(*at, self.readers)? {
                    let address = StatsdAddress::Udp(socket::inet_address(&udp)?);
                    self.add(udp, address, Owner::Us(None))?;
                }
            }
            StatsdAddress::Tcp(at) => {
                let tcp = socket::bind_tcp(*at)?;
                let address = StatsdAddress::Tcp(socket::inet_address(&tcp)?);
                self.add(tcp, address, Owner::Us(None))?;
            }
            // One thread: it takes many datagrams a call, and several would wake each other.
            StatsdAddress::Unixgram(at) => {
                let (unix, file) = unix::bind_datagram(at)?;
                self.add(unix.into(), address.clone(), Owner::Us(file))?;
            }
            StatsdAddress::UnixStream(at) => {
                let (unix, file) = unix::bind_stream(at)?;
                self.add(unix.into(), address.clone(), Owner::Us(file))?;
            }
            StatsdAddress::Inherited(name) => {
                for socket in inherited.named(name)? {
                    let address = inherited::address_of(&socket)?;
                    self.add(socket, address, Owner::Shared)?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, socket: Socket, address: StatsdAddress, owner: Owner) -> io::Result<()> {
        if socket.r#type()? == Type::STREAM {
            let tls = self.tls.clone();
            self.sockets.streams.push(StreamListener { socket, address, owner, tls });
            return Ok(());
        }
        if matches!(address, StatsdAddress::Udp(_)) {
            socket::ask_for_receive_buffer(&socket, self.buffer_bytes)?;
        }
        self.sockets.datagrams.push(DatagramSocket::new(socket, address, owner)?);
        Ok(())
    }
}
