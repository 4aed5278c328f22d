//! Builds the daemon, the proxy or the gatherer and runs it: the only module that knows all parts.
//!
//! [`Server::build`] binds every socket or says in one sentence why it cannot; nothing runs
//! until [`Server::run`], which starts consumers before producers and returns when everything
//! is drained.

mod daemon;
mod destinations;
mod gathering;
mod insight;
mod outlet;
mod overflow;
mod pages;
pub mod panics;
mod proxy;
mod reload;
pub mod sandbox;
mod signals;
mod sources;
mod stats;
mod steering;
mod takeover;
mod watchdog;

use std::io;
use std::path::PathBuf;

use tracing::warn;

use crate::config::listen::HttpAddress;
use crate::config::{Loaded, Program};
use crate::forward;
use crate::gatherer;
use crate::ingest::{
    BindError, Certificates, ControlSocket, EnvironmentError, HttpListener, Inherited, Listeners,
    TakeoverError, bind_http,
};
use crate::provider::IdentityError;
use crate::sinks::post::SetupError;
use crate::telemetry::Telemetry;
use crate::telemetry::logging::Logs;
use daemon::Daemon;
use gathering::Gathering;
use proxy::Proxy;
pub use reload::Reload;
use steering::Steering;

/// Threads of the runtime that serves HTTP and the sinks.
const IO_THREADS: usize = 2;

/// Why the process could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// What the process inherited.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// A running daemon that does not hand over.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// A sink.
    #[error("cannot set up the sink {name}: {source}")]
    Sink {
        /// What it is called.
        name: String,
        /// Why.
        source: SetupError,
    },
    /// Forwarding.
    #[error("cannot set up forwarding: {0}")]
    Forward(#[from] forward::SetupError),
    /// Who we are.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Gathering.
    #[error("cannot gather: {0}")]
    Gatherer(#[from] gatherer::SetupError),
    /// Settings that are no gatherer's.
    #[error("a gatherer needs a directory")]
    NoDirectory,
    /// Settings that are no proxy's.
    #[error("a proxy needs an upstream node")]
    NoUpstream,
    /// The directory for what is undelivered.
    #[error("cannot use spool.directory {path}: {source}", path = path.display())]
    Spool {
        /// As configured.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No thread, descriptor or signal to be had.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

/// Everything bound, nothing running.
#[derive(Debug)]
pub struct Server {
    loaded: Loaded,
    inherited: Inherited,
    listeners: Listeners,
    http: Option<HttpListener>,
    grpc: Option<HttpListener>,
    certificates: Certificates,
    gather: Option<HttpListener>,
    control: Option<ControlSocket>,
    telemetry: Telemetry,
    logs: Logs,
}

impl Server {
    /// Binds every socket of the configuration, or with `takeover` gets those it can from the
    /// running daemon, if there is one.
    ///
    /// # Errors
    /// The first thing that cannot be had, as one sentence.
    pub fn build(
        loaded: Loaded,
        takeover: bool,
        telemetry: Telemetry,
        logs: Logs,
    ) -> Result<Server, StartError> {
        let settings = &loaded.settings;
        let mut inherited = Inherited::from_environment()?;
        if takeover && let Some(path) = &settings.takeover_socket {
            inherited.meet_predecessor(path)?;
        }
        let control = settings.takeover_socket.as_ref();
        let control = control.map(|path| ControlSocket::bind(path, &mut inherited)).transpose()?;
        let tls = (settings.intake.tls.as_ref(), settings.http.tls.as_ref());
        let certificates = Certificates::new(tls.0, tls.1).map_err(BindError::from)?;
        let listeners = Listeners::bind(&settings.intake, &certificates, &mut inherited)?;
        let mut bind_http = |key, address: &Option<_>, shown| {
            let address = address.as_ref();
            address.map(|address| bind_http(key, address, shown, &mut inherited)).transpose()
        };
        let http = bind_http("http_address", &settings.http.address, certificates.http())?;
        let grpc = bind_http("grpc_address", &settings.import.grpc_address, certificates.grpc())?;
        let gather = settings.gatherer.as_ref();
        let gather = gather.map(|it| HttpAddress::Tcp(it.address).into());
        let gather = bind_http("gatherer.address", &gather, None)?;
        listeners.warnings().iter().for_each(|warning| warn!("{warning}"));
        for socket in inherited.unused() {
            warn!(socket, "systemd passed a socket that no listener asks for (fd://NAME)");
        }
        Ok(Server {
            inherited,
            loaded,
            listeners,
            http,
            grpc,
            certificates,
            gather,
            control,
            telemetry,
            logs,
        })
    }

    /// Runs until SIGTERM, SIGINT or `/quitquitquit`, and drains.
    ///
    /// # Errors
    /// Something could not be started.
    pub fn run(self, reload: Reload) -> Result<(), StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(IO_THREADS)
            .thread_name("io")
            .enable_all()
            .build()?;
        let ended = runtime.block_on(async {
            let (steering, quit, succeeded) = Steering::start(reload)?;
            match self.loaded.settings.program {
                Program::Daemon => {
                    Daemon::start(self, quit, succeeded)?.supervise(steering).await?;
                }
                Program::Proxy => Proxy::start(self, quit)?.supervise(steering).await,
                Program::Gatherer => Gathering::start(self, quit)?.supervise(steering).await,
            }
            Ok(())
        });
        // A standard output nobody reads may hold a thread of the pool for ever.
        runtime.shutdown_background();
        ended
    }
}
