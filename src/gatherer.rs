//! The gatherer: it asks everybody that registers what they count, and keeps the latest answers
//! in one file.
//!
//! ```text
//! providers ──► accept ─► session ─┐                  ┌► stats.json ─► munin's plugins
//! URLs ◄─────────────────── page ──┴─► roll ─► writer ┘
//!                            ▲
//!                 rounds ────┘ (all asked together)
//! ```
//!
//! A provider connects, says who it is and shows a token ([`crate::provider::wire`]). It is asked
//! at once, and then with all others, each with a time of its own to answer: a slow one delays
//! nobody. What was last heard of one that is gone stays, with its time.
//!
//! Source: Tahoe-LAFS's stats gatherer, whose file this is.

mod page;
mod roll;
mod rounds;
mod session;
mod setup;
mod store;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, sleep};
use tokio_rustls::TlsAcceptor;
use tracing::warn;

use crate::config::secret::Secret;
use crate::config::settings::GathererSettings;
use crate::provider::acceptor;
use crate::telemetry::{Telemetry, names};
use roll::Roll;
pub(crate) use setup::directory as make_directory;
pub use setup::{InitError, init};
use store::Store;
pub use store::{Entry, Gathered, STATS_FILE, read};

/// Connections that have not yet said who they are, beside those of providers.
const STRANGERS: usize = 256;
/// After an error of the system (no descriptors), so long is nobody accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a gatherer cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The directory, or a file in it.
    #[error("cannot use {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What was gathered before cannot be read. It is left as it is.
    #[error("{path} is no file of a gatherer ({what}): restore it or delete it", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// What is kept as the token is none.
    #[error("{path} holds no token", path = .0.display())]
    NoToken(PathBuf),
    /// One of the URLs, as it may be shown.
    #[error("cannot poll {0}: it is no URL")]
    Url(String),
    /// The certificate, or its key.
    #[error("cannot use {0}")]
    Tls(String),
    /// No HTTP client for the URLs.
    #[error("cannot poll over HTTP: {0}")]
    Http(#[from] reqwest::Error),
    /// The socket.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

/// A running gatherer. Dropped, it ends at once.
pub struct Gatherer {
    house: Arc<House>,
    tasks: JoinSet<()>,
    writer: JoinHandle<()>,
    address: SocketAddr,
}

impl Gatherer {
    /// Serves providers on `listener` and polls. `hostname` is how they find us if we listen on
    /// all addresses. Needs a tokio runtime.
    ///
    /// # Errors
    /// The directory cannot be used, or what is in it not be read.
    pub fn start(
        settings: &GathererSettings,
        listener: TcpListener,
        hostname: Option<&str>,
        telemetry: &Telemetry,
    ) -> Result<Gatherer, SetupError> {
        let address = listener.local_addr()?;
        setup::directory(&settings.directory)?;
        let token = setup::token(settings)?;
        let tls = settings.tls.as_ref().map(acceptor).transpose().map_err(SetupError::Tls)?;
        let (tls, fingerprint) = tls.unzip();
        let findable = setup::Findable { address, hostname, fingerprint };
        setup::keep_reference(&settings.directory, &token, &findable)?;
        let store = Store::new(&settings.directory, settings.file_mode);
        let roll = Roll::new(store.read()?, settings.max_providers.get());
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let house = Arc::new(House {
            token,
            tls,
            poll_interval: settings.poll_interval,
            poll_timeout: settings.poll_timeout,
            max_providers: settings.max_providers.get(),
            roll: Mutex::new(roll),
            changed: Notify::new(),
            telemetry: telemetry.clone(),
        });
        house.observe();
        let mut tasks = JoinSet::new();
        let mut pages = Vec::new();
        for url in &settings.urls {
            let (page, polls) = page::Page::new(url)?;
            pages.push(polls);
            tasks.spawn(page.serve(Arc::clone(&house)));
        }
        tasks.spawn(rounds::rounds(Arc::clone(&house), pages));
        tasks.spawn(accept(listener, Arc::clone(&house)));
        let writer = tokio::spawn(rounds::write_changes(Arc::clone(&house), store));
        Ok(Gatherer { house, tasks, writer, address })
    }

    /// Where providers register.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets go of the providers and writes what it has.
    pub async fn finish(mut self) {
        self.tasks.shutdown().await;
        self.house.roll().close();
        self.house.changed.notify_one();
        if let Err(error) = (&mut self.writer).await {
            warn!(%error, "the last write failed");
        }
    }
}

impl Drop for Gatherer {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

/// What all tasks of a gatherer share.
struct House {
    token: Secret,
    tls: Option<TlsAcceptor>,
    poll_interval: Duration,
    poll_timeout: Duration,
    max_providers: usize,
    /// Locked by sessions for as long as they note something, and by rounds and the writer for
    /// a copy; never across a wait.
    roll: Mutex<Roll>,
    /// There is something to write.
    changed: Notify,
    telemetry: Telemetry,
}

impl House {
    fn roll(&self) -> MutexGuard<'_, Roll> {
        // Whole after a panic elsewhere: each change is one insertion or removal.
        self.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counters exist from the start: a monitor sees a zero and not a gap.
    fn observe(self: &Arc<House>) {
        self.telemetry.count(names::GATHERER_POLLS_TOTAL, "", 0);
        self.telemetry.count(names::GATHERER_WRITE_ERRORS_TOTAL, "", 0);
        let house = Arc::downgrade(self);
        self.telemetry.add_source(move |observed| {
            if let Some(house) = house.upgrade() {
                let providers = house.roll().providers() as f64;
                observed.gauge(names::GATHERER_PROVIDERS, "", providers);
            }
        });
    }

    fn refused(&self, peer: SocketAddr, reason: &'static str) {
        let tags = format!("reason:{}", reason.replace(' ', "_"));
        self.telemetry.count(names::GATHERER_REFUSED_TOTAL, &tags, 1);
        warn!(%peer, reason, "a provider is refused");
    }
}

async fn accept(listener: tokio::net::TcpListener, house: Arc<House>) {
    let mut sessions = JoinSet::new();
    // Those that have ended are let go of now and then, also when nobody comes.
    let mut sweep = interval(house.poll_interval);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) if sessions.len() < house.max_providers + STRANGERS => {
                    sessions.spawn(session::serve(stream, peer, Arc::clone(&house)));
                }
                Ok((_, peer)) => house.refused(peer, "too many connections"),
                Err(error) => {
                    warn!(%error, "providers cannot be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            _ = sweep.tick() => {}
        }
        while let Some(ended) = sessions.try_join_next() {
            if let Err(error) = ended {
                warn!(%error, "a session failed");
            }
        }
    }
}
