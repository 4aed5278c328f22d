//! Where statsd traffic comes in: sockets, and the threads that read them.
//!
//! Nothing here looks into a datagram. Each thread owns a [`Receive`] and passes it what
//! arrives, whole; in the daemon that is the pipeline's [`Intake`].
//!
//! Building and running are two steps. [`Listeners::bind`] opens every socket or says in one
//! sentence why it cannot; [`Listeners::start`] puts a thread behind each; and
//! [`Running::drain`] ends them without losing what the kernel has already taken.
//!
//! Datagrams have a blocking thread per socket (`datagram`); the connections of a stream
//! listener share one thread (`stream`). Sockets may also be [`Inherited`], and are handed to a
//! successor (`takeover`).

use std::io;
use std::iter;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::config::listen::{ListenOptions, StatsdAddress};
use crate::config::settings::IntakeSettings;
use crate::pipeline::{Intake, SpanIntake};
use crate::telemetry::Telemetry;

mod binding;
mod datagram;
mod door;
mod drops;
mod framing;
mod guard;
mod hold;
mod http_listener;
mod inherited;
mod repeater;
mod running;
mod socket;
mod stop;
mod stream;
pub mod sys;
mod takeover;
mod tls;
mod unix;

pub use binding::BindError;
pub use door::Door;
pub use drops::DropProbe;
pub use hold::Hold;
pub use http_listener::{HttpListener, HttpSocket, bind_http};
pub use inherited::{EnvironmentError, Inherited};
pub use repeater::{Repeater, Tap};
pub use running::Running;
pub use takeover::{
    ControlSocket, Ending, Moved, Offer, Successor, Successors, Takeover, TakeoverError,
};
pub use tls::{Certificates, Shown, TlsError};
pub use unix::SocketFile;

use binding::Sockets;
use datagram::DatagramSocket;
use stream::{Limits, Server};

/// Takes what a listener's thread reads. Owned by that thread.
pub trait Receive: Send + 'static {
    /// Takes what one read has brought: datagrams or stream frames (lines separated by
    /// newlines), or stream lines, all of them slices of `buffer`.
    fn read<'a>(&mut self, buffer: &'a [u8], packets: impl Iterator<Item = &'a [u8]>);

    /// Takes a single packet.
    fn packet(&mut self, bytes: &[u8]) {
        self.read(bytes, iter::once(bytes));
    }

    /// Counts one datagram, frame or line that was longer than allowed, unseen.
    fn too_long(&mut self);

    /// Counts one datagram of a host that may not send here, unseen.
    fn not_allowed(&mut self);

    /// How long until something taken must be handed over; `None` if nothing waits.
    fn until_due(&self, now: Instant) -> Option<Duration>;

    /// Hands over what has waited long enough. Called after each read and when due.
    fn hand_over_due(&mut self, now: Instant);

    /// Hands over everything: the thread is about to end.
    fn hand_over_all(&mut self);
}

impl Receive for Intake {
    fn read<'a>(&mut self, buffer: &'a [u8], packets: impl Iterator<Item = &'a [u8]>) {
        Intake::read(self, buffer, packets);
    }

    fn too_long(&mut self) {
        Intake::too_long(self);
    }

    fn not_allowed(&mut self) {
        Intake::not_allowed(self);
    }

    fn until_due(&self, now: Instant) -> Option<Duration> {
        Intake::until_due(self, now)
    }

    fn hand_over_due(&mut self, now: Instant) {
        Intake::hand_over_due(self, now);
    }

    fn hand_over_all(&mut self) {
        Intake::hand_over_all(self);
    }
}

/// What a listener's thread reads, by what comes in there.
#[derive(Debug)]
pub enum Reception {
    /// Statsd lines.
    Lines(Intake),
    /// The same in datagrams that others get, too.
    Repeated(Intake, Tap),
    /// Messages of SSF.
    Spans(SpanIntake),
}

impl Receive for Reception {
    fn read<'a>(&mut self, buffer: &'a [u8], packets: impl Iterator<Item = &'a [u8]>) {
        match self {
            Reception::Lines(intake) => intake.read(buffer, packets),
            Reception::Repeated(intake, tap) => {
                intake.read(buffer, packets.inspect(|packet| tap.copy(packet)));
                tap.hand_over();
            }
            Reception::Spans(intake) => intake.read(packets),
        }
    }

    fn too_long(&mut self) {
        match self {
            Reception::Lines(intake) | Reception::Repeated(intake, _) => intake.too_long(),
            Reception::Spans(intake) => intake.too_long(),
        }
    }

    fn not_allowed(&mut self) {
        match self {
            Reception::Lines(intake) | Reception::Repeated(intake, _) => intake.not_allowed(),
            Reception::Spans(intake) => intake.not_allowed(),
        }
    }

    fn until_due(&self, now: Instant) -> Option<Duration> {
        match self {
            Reception::Lines(intake) | Reception::Repeated(intake, _) => intake.until_due(now),
            Reception::Spans(intake) => intake.until_due(now),
        }
    }

    fn hand_over_due(&mut self, now: Instant) {
        match self {
            Reception::Lines(intake) | Reception::Repeated(intake, _) => intake.hand_over_due(now),
            Reception::Spans(intake) => intake.hand_over_due(now),
        }
    }

    fn hand_over_all(&mut self) {
        match self {
            Reception::Lines(intake) | Reception::Repeated(intake, _) => intake.hand_over_all(),
            Reception::Spans(intake) => intake.hand_over_all(),
        }
    }
}

/// Every configured listener, bound; nothing is read yet.
#[derive(Debug)]
pub struct Listeners {
    sockets: Sockets,
    warnings: Vec<String>,
    limits: Limits,
    moved: Option<Receiver<Moved>>,
}

impl Listeners {
    /// Binds every listener of `settings`, or takes it from `inherited`. Over TCP they show what
    /// `certificates` has for them.
    ///
    /// # Errors
    /// The first one that cannot be had.
    pub fn bind(
        settings: &IntakeSettings,
        certificates: &Certificates,
        inherited: &mut Inherited,
    ) -> Result<Listeners, BindError> {
        let (heir, moved) = mpsc::channel();
        let sockets = Sockets::bind(settings, certificates, &heir, inherited)?;
        let asked = settings.read_buffer_bytes;
        let mut warnings: Vec<_> =
            sockets.datagrams.iter().filter_map(|socket| socket.warning(asked)).collect();
        // One sentence per address, however many sockets share it.
        warnings.dedup();
        Ok(Listeners { sockets, warnings, limits: Limits::of(settings), moved: Some(moved) })
    }

    /// The addresses really bound for lines, ports included, each once.
    pub fn addresses(&self) -> Vec<StatsdAddress> {
        self.bound_for(false)
    }

    /// The same for spans.
    pub fn span_addresses(&self) -> Vec<StatsdAddress> {
        self.bound_for(true)
    }

    fn bound_for(&self, spans: bool) -> Vec<StatsdAddress> {
        let infos = self.infos().filter(|info| info.options.spans == spans);
        let mut addresses: Vec<_> = infos.map(|info| info.address).collect();
        addresses.dedup();
        addresses
    }

    /// The connections that a successor is to go on with, which come when the threads are stopped
    /// for one; until the last of them has ended. `None` if they have been taken.
    pub fn take_moved(&mut self) -> Option<Receiver<Moved>> {
        self.moved.take()
    }

    /// What an operator should know although it stops nothing: one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A way to ask for the kernel's drops, for each socket that can have any.
    ///
    /// # Errors
    /// No descriptor to be had.
    pub fn drop_probes(&self) -> io::Result<Vec<DropProbe>> {
        let sockets = self.sockets.datagrams.iter().zip(self.infos());
        let probed = sockets.filter(|(socket, _)| socket.can_drop());
        let probe = |(socket, info): (&DatagramSocket, _)| {
            Ok(DropProbe::new(socket.duplicate()?, info, socket.is_handed_over()))
        };
        probed.map(probe).collect()
    }

    /// The threads there will be, those of datagrams first.
    fn infos(&self) -> impl Iterator<Item = ListenerInfo> {
        let readers = self.sockets.datagrams.iter().map(|it| (it.address(), it.options()));
        let streams = self.sockets.streams.iter().map(|it| (&it.address, &it.options));
        let readers = readers.enumerate().map(|(i, it)| (format!("reader-{i}"), it));
        let streams = streams.enumerate().map(|(i, it)| (format!("stream-{i}"), it));
        readers.chain(streams).map(|(thread, (address, options))| ListenerInfo {
            thread,
            address: address.clone(),
            options: options.clone(),
        })
    }

    /// Starts every thread, each with what `make` makes for it.
    ///
    /// # Errors
    /// The system has no thread or descriptor left.
    pub fn start<R: Receive>(
        self,
        telemetry: &Telemetry,
        mut make: impl FnMut(&ListenerInfo) -> R,
    ) -> io::Result<Running> {
        let mut infos = self.infos().collect::<Vec<_>>().into_iter();
        let Listeners { sockets: Sockets { datagrams, streams }, limits, .. } = self;
        let mut running = Running::new()?;
        for (socket, info) in datagrams.into_iter().zip(infos.by_ref()) {
            let mut receive = make(&info);
            let telemetry = telemetry.clone();
            let limits = limits.with(&info.options);
            running.spawn(info.thread, move |stop| {
                Ok(move || datagram::read(socket, limits.longest, &stop, &telemetry, &mut receive))
            })?;
        }
        for (listener, info) in streams.into_iter().zip(infos) {
            let receive = make(&info);
            let telemetry = telemetry.clone();
            let limits = limits.with(&info.options);
            running.spawn(info.thread, move |stop| {
                let server = Server::new(listener, limits, stop)?;
                Ok(move || server.run(telemetry, receive))
            })?;
        }
        Ok(running)
    }
}

/// One thread that is about to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerInfo {
    /// Name of the thread: `reader-0`, `stream-1`.
    pub thread: String,
    /// What it listens on.
    pub address: StatsdAddress,
    /// What was said about it.
    pub options: ListenOptions,
}
