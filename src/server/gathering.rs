//! The running gatherer as a program of its own: what [`crate::gatherer`] does, with the life, the
//! pages and the own metrics that every program has.

use std::sync::{Arc, Mutex};

use sd_notify::NotifyState;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::daemon::notify;
use super::insight::Insight;
use super::outlet::OwnTelemetry;
use super::pages::{self, Doors, Offer, Sockets};
use super::proxy::report;
use super::stats::StatsAddress;
use super::steering::{Order, Steering};
use super::{Server, StartError};
use crate::config::Settings;
use crate::http;
use crate::ingest::{Certificates, Inherited};
use crate::model::Phase;
use crate::telemetry::Telemetry;
use crate::telemetry::logging::Logs;

/// Everything running.
pub(super) struct Gathering {
    /// What is in effect.
    settings: Settings,
    /// The same for the configuration pages.
    shown: Arc<Mutex<Settings>>,
    telemetry: Telemetry,
    logs: Logs,
    phase: watch::Sender<Phase>,
    inherited: Inherited,
    insight: Insight,
    /// None without `stats_address`: then `/metrics` alone has it.
    own: Option<OwnTelemetry>,
    doors: Doors,
    certificates: Certificates,
}

impl Gathering {
    /// Starts every part. Needs a tokio runtime.
    pub(super) fn start(server: Server, quit: mpsc::Sender<()>) -> Result<Gathering, StartError> {
        let Server { loaded, mut inherited, http, gather, certificates, telemetry, logs, .. } =
            server;
        drop(inherited.take_offers());
        let settings = loaded.settings;
        if gather.is_none() {
            return Err(StartError::NoDirectory);
        }
        let own = settings.stats_address.clone().map(|address| {
            let stats = StatsAddress::start(address, telemetry.clone())?;
            Ok::<_, StartError>(OwnTelemetry::Statsd { stats, tags: settings.tags.clone() })
        });
        let own = own.transpose()?;
        let shown = Arc::new(Mutex::new(settings.clone()));
        let (phase, _) = watch::channel(Phase::Starting);
        let insight = Insight::start(&settings, gather, &phase, &telemetry)?;
        let offer = Offer { import: None, pages: insight.router(&telemetry) };
        let sockets = Sockets { http, grpc: None };
        let doors = pages::open(sockets, offer, &shown, &phase, quit, &telemetry)?;
        Ok(Gathering {
            settings,
            shown,
            telemetry,
            logs,
            phase,
            inherited,
            insight,
            own,
            doors,
            certificates,
        })
    }

    /// Gets ready, waits for the end, reloading and reporting meanwhile, and drains.
    pub(super) async fn supervise(mut self, mut steering: Steering) {
        self.say_ready();
        let mut reports = interval(self.settings.interval.length());
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let why = loop {
            tokio::select! {
                order = steering.next() => match order {
                    Order::End(why) => break why,
                    Order::HandOver => break "takeover",
                    Order::Use(loaded) => {
                        pages::reload(&mut self.settings, *loaded, &self.shown, &self.certificates);
                        self.logs.set_debug(self.settings.debug);
                    }
                },
                _ = reports.tick() => report(&self.logs, &mut self.own, &self.telemetry),
            }
        };
        self.phase.send_replace(Phase::Draining);
        info!(why, "draining");
        steering.end_at_a_second_signal(self.logs.clone());
        self.drain().await;
        info!("drained");
    }

    fn say_ready(&self) {
        self.phase.send_replace(Phase::Ready);
        notify(&[NotifyState::Ready]);
        if let Err(error) = self.inherited.acknowledge() {
            warn!(%error, "Einhorn cannot be told");
        }
        info!(
            version = http::VERSION,
            role = "gatherer",
            http = self.doors.http,
            grpc = self.doors.grpc,
            "ready"
        );
    }

    /// Lets go of the providers, and writes what they have said.
    async fn drain(self) {
        let Gathering { telemetry, logs, phase, mut insight, own, doors, .. } = self;
        notify(&[NotifyState::Stopping]);
        insight.farewell().await;
        // Letting go of `own` waits a moment for the name server.
        let last_report = spawn_blocking(move || {
            let mut own = own;
            report(&logs, &mut own, &telemetry);
        });
        if let Err(error) = last_report.await {
            error!(%error, "the last report failed");
        }
        phase.send_replace(Phase::Stopped);
        doors.close().await;
    }
}
