//! From configured addresses to bound sockets.

use std::io;
use std::sync::mpsc::Sender;

use socket2::{Socket, Type};

use super::datagram::DatagramSocket;
use super::hold::Hold;
use super::inherited::{self, Inherited};
use super::socket;
use super::stream::StreamListener;
use super::takeover::Moved;
use super::tls::{Certificates, Shown, TlsError};
use super::unix::{self, SocketFile};
use crate::config::listen::{ListenOptions, Listener, StatsdAddress};
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
        certificates: &Certificates,
        heir: &Sender<Moved>,
        inherited: &mut Inherited,
    ) -> Result<Sockets, BindError> {
        let mut binding = Binding {
            sockets: Sockets { datagrams: Vec::new(), streams: Vec::new() },
            readers: settings.num_readers.get(),
            buffer_bytes: settings.read_buffer_bytes,
            tls: certificates.statsd(),
            heir: heir.clone(),
        };
        for listener in settings.listeners.iter().chain(&settings.spans.listeners) {
            binding
                .bind(listener, inherited)
                .map_err(|cause| BindError::Refused { address: listener.to_string(), cause })?;
        }
        Ok(binding.sockets)
    }
}

/// Whose a socket is.
#[derive(Debug)]
pub(super) enum Owner {
    /// Ours, unless a predecessor or a successor has it too; with its file if it has one.
    Us(Hold, Option<SocketFile>),
    /// Whoever opened it and passed it on has it too, and may give it to our successor.
    Shared,
}

impl Owner {
    /// Whether nobody else has it, if that may change.
    pub(super) fn hold(&self) -> Option<&Hold> {
        match self {
            Owner::Us(hold, _) => Some(hold),
            Owner::Shared => None,
        }
    }

    /// Whether nobody else has it.
    pub(super) fn is_us(&self) -> bool {
        self.hold().is_some_and(Hold::is_ours)
    }
}

/// Sockets, and what is needed to make more.
struct Binding {
    sockets: Sockets,
    readers: usize,
    buffer_bytes: usize,
    tls: Shown,
    heir: Sender<Moved>,
}

/// What a socket is wanted for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// The address as configured.
    label: &'a str,
    options: &'a ListenOptions,
}

impl Binding {
    fn bind(
        &mut self,
        listener: &Listener<StatsdAddress>,
        inherited: &mut Inherited,
    ) -> io::Result<()> {
        let Listener { address, options } = listener;
        // Without options: a successor may have others for the same socket.
        let wanted = Wanted { label: &address.to_string(), options };
        let bound = self.take_over(address, wanted, inherited)?;
        let readers = match address {
            StatsdAddress::Udp(_) => self.readers,
            // One thread: it takes many datagrams a call, and several would wake each other.
            StatsdAddress::Tcp(_)
            | StatsdAddress::Unixgram(_)
            | StatsdAddress::UnixStream(_)
            | StatsdAddress::Inherited(_) => 1,
        };
        if let Some(missing) = readers.checked_sub(bound.len()).filter(|missing| *missing > 0) {
            // More readers than the predecessor had join its sockets.
            let address = bound.first().unwrap_or(address);
            self.open(address, wanted, missing, inherited)?;
        }
        Ok(())
    }

    /// Takes the sockets of a predecessor, no more than there are to be readers: the others it
    /// reads empty. Returns what they are really bound to.
    fn take_over(
        &mut self,
        address: &StatsdAddress,
        wanted: Wanted<'_>,
        inherited: &mut Inherited,
    ) -> io::Result<Vec<StatsdAddress>> {
        let most = match address {
            StatsdAddress::Udp(_) => self.readers,
            StatsdAddress::Tcp(_) | StatsdAddress::Unixgram(_) | StatsdAddress::UnixStream(_) => 1,
            // As many as systemd has under this name.
            StatsdAddress::Inherited(_) => usize::MAX,
        };
        let mut bound = Vec::new();
        while bound.len() < most
            && let Some((socket, hold)) = inherited.take_over(wanted.label)
        {
            let own = inherited::address_of(&socket)?;
            let owner = match address {
                StatsdAddress::Inherited(_) => Owner::Shared,
                StatsdAddress::Udp(_) | StatsdAddress::Tcp(_) => Owner::Us(hold, None),
                StatsdAddress::Unixgram(unix) | StatsdAddress::UnixStream(unix) => {
                    let file = unix::adopt_file(unix, wanted.options.file, &hold)?;
                    Owner::Us(hold, file)
                }
            };
            bound.push(own.clone());
            self.add(socket, own, owner, wanted, inherited)?;
        }
        Ok(bound)
    }

    /// Opens what was not handed over.
    fn open(
        &mut self,
        address: &StatsdAddress,
        wanted: Wanted<'_>,
        readers: usize,
        inherited: &mut Inherited,
    ) -> io::Result<()> {
        match address {
            StatsdAddress::Udp(at) => {
                for udp in socket::bind_udp_group(*at, readers)? {
                    let address = StatsdAddress::Udp(socket::inet_address(&udp)?);
                    self.add(udp, address, Owner::Us(Hold::ours(), None), wanted, inherited)?;
                }
            }
            StatsdAddress::Tcp(at) => {
                let tcp = socket::bind_tcp(*at)?;
                let address = StatsdAddress::Tcp(socket::inet_address(&tcp)?);
                self.add(tcp, address, Owner::Us(Hold::ours(), None), wanted, inherited)?;
            }
            StatsdAddress::Unixgram(at) => {
                let hold = Hold::ours();
                let (unix, file) = unix::bind_datagram(at, wanted.options.file, &hold)?;
                self.add(unix, address.clone(), Owner::Us(hold, file), wanted, inherited)?;
            }
            StatsdAddress::UnixStream(at) => {
                let hold = Hold::ours();
                let (unix, file) = unix::bind_stream(at, wanted.options.file, &hold)?;
                self.add(unix, address.clone(), Owner::Us(hold, file), wanted, inherited)?;
            }
            StatsdAddress::Inherited(name) => {
                for socket in inherited.named(name)? {
                    let address = inherited::address_of(&socket)?;
                    self.add(socket, address, Owner::Shared, wanted, inherited)?;
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        socket: Socket,
        address: StatsdAddress,
        owner: Owner,
        wanted: Wanted<'_>,
        inherited: &mut Inherited,
    ) -> io::Result<()> {
        let Wanted { label, options } = wanted;
        inherited.offer(label, &socket, owner.hold())?;
        if socket.r#type()? == Type::STREAM {
            let tls = self.tls.clone();
            let (heir, label) = (self.heir.clone(), label.to_owned());
            let arrivals = inherited.arrivals(&label);
            let listener = StreamListener {
                socket,
                address,
                options: options.clone(),
                owner,
                tls,
                label,
                heir,
                arrivals,
            };
            self.sockets.streams.push(listener);
            return Ok(());
        }
        if matches!(address, StatsdAddress::Udp(_)) {
            socket::ask_for_receive_buffer(&socket, self.buffer_bytes)?;
        }
        self.sockets.datagrams.push(DatagramSocket::new(socket, address, options.clone(), owner)?);
        Ok(())
    }
}
