//! What others may see of this instance, and what it sees of others: the provider of its
//! statistics, the registration with a gatherer, and a gatherer of its own.

use std::time::{Duration, SystemTime};

use axum::Router;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::StartError;
use crate::config::Settings;
use crate::gatherer::Gatherer;
use crate::ingest::{HttpListener, HttpSocket};
use crate::model::Phase;
use crate::provider::process::{self, Watched};
use crate::provider::registration::Registration;
use crate::provider::{self, Identity, Provider, Registered};
use crate::telemetry::Telemetry;

/// The last write of a gatherer may take so long: a second of its own pace, and the disk's.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// All of it, running.
pub(super) struct Insight {
    provider: Provider,
    registration: Option<Registration>,
    gatherer: Option<Gatherer>,
    _producers: [Registered; 2],
    _process: Watched,
}

impl Insight {
    /// Starts what the settings ask for; `gather` is the socket of a gatherer. Needs a tokio
    /// runtime.
    pub(super) fn start(
        settings: &Settings,
        gather: Option<HttpListener>,
        phase: &watch::Sender<Phase>,
        telemetry: &Telemetry,
    ) -> Result<Insight, StartError> {
        let hostname = settings.hostname.as_deref();
        let now = SystemTime::now();
        let provider = Provider::new(Identity::establish(&settings.identity, hostname, now)?);
        let numbers = telemetry.clone();
        let own = provider.register("own", move |facts| provider::telemetry::tell(&numbers, facts));
        let life = phase.subscribe();
        let ready = provider.register("life", move |facts| {
            let is_ready = *life.borrow() == Phase::Ready;
            facts.stat("node.ready", Some(f64::from(u8::from(is_ready))));
        });
        let registration = settings.reference.clone().map(|reference| {
            let mut phases = phase.subscribe();
            let ready = async move {
                // The sender lives as long as the process.
                let _ = phases.wait_for(|phase| *phase == Phase::Ready).await;
            };
            let registration = Registration::start(provider.clone(), reference, ready);
            registration.observe(telemetry);
            registration
        });
        let gatherer = match (&settings.gatherer, gather.map(|listener| listener.socket)) {
            (Some(settings), Some(HttpSocket::Tcp(listener))) => {
                let gatherer = Gatherer::start(settings, listener, hostname, telemetry)?;
                let (address, directory) = (gatherer.address(), settings.directory.display());
                info!(%address, %directory, poll_interval = ?settings.poll_interval, "gathering");
                Some(gatherer)
            }
            (_, Some(HttpSocket::Unix(_)) | None) | (None, _) => None,
        };
        let _process = process::watch(&provider);
        let _producers = [own, ready];
        Ok(Insight { provider, registration, gatherer, _producers, _process })
    }

    /// Pages about it.
    pub(super) fn router(&self, telemetry: &Telemetry) -> Router {
        provider::router(self.provider.clone(), telemetry.clone())
    }

    /// Takes leave of the gatherer, and lets go of providers. Takes no longer than a few seconds.
    pub(super) fn farewell(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let (registration, gatherer) = (self.registration.take(), self.gatherer.take());
        async move {
            let leave = async {
                if let Some(registration) = registration {
                    registration.leave().await;
                }
            };
            let finish = async {
                if let Some(gatherer) = gatherer
                    && timeout(LAST_WRITE, gatherer.finish()).await.is_err()
                {
                    warn!("what was gathered last is not written: the disk does not answer");
                }
            };
            tokio::join!(leave, finish);
        }
    }
}
