//! The running proxy: what other nodes forward comes in, and goes on to the node it belongs to.
//!
//! ```text
//! POST /import, gRPC ─► Import: check whole, each batch once ─► Relay ─► outbox ─► upstream nodes
//! ```
//!
//! It merges nothing and keeps nothing but its outbox. It is ready once it knows an upstream
//! node; until then, and while the outbox is full, senders are told to come again.

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
use super::stats::StatsAddress;
use super::steering::{Order, Steering};
use super::{Server, StartError, destinations};
use crate::config::Settings;
use crate::forward::Forwarder;
use crate::forward::import::Import;
use crate::forward::ring::Ring;
use crate::http;
use crate::ingest::{Certificates, Inherited};
use crate::model::Phase;
use crate::spool::Turn;
use crate::telemetry::Telemetry;
use crate::telemetry::logging::{AT_THE_END, Logs};

/// Everything running.
pub(super) struct Proxy {
    /// What is in effect.
    settings: Settings,
    /// The same for the configuration pages.
    shown: Arc<Mutex<Settings>>,
    telemetry: Telemetry,
    logs: Logs,
    phase: watch::Sender<Phase>,
    inherited: Inherited,
    import: Import,
    forwarder: Forwarder,
    ring: watch::Receiver<Arc<Ring>>,
    /// None without `stats_address`: then `/metrics` alone has it.
    own: Option<OwnTelemetry>,
    doors: Doors,
    certificates: Certificates,
    insight: Insight,
}

impl Proxy {
    /// Starts every part, consumers before producers. Needs a tokio runtime.
    pub(super) fn start(server: Server, quit: mpsc::Sender<()>) -> Result<Proxy, StartError> {
        let Server {
            loaded,
            mut inherited,
            listeners: _,
            http,
            grpc,
            certificates,
            gather,
            control: _,
            telemetry,
            logs,
        } = server;
        drop(inherited.take_offers());
        let settings = loaded.settings;
        let forward = settings.forward.as_ref().ok_or(StartError::NoUpstream)?;
        let own = settings.stats_address.clone().map(|address| {
            let stats = StatsAddress::start(address, telemetry.clone())?;
            Ok::<_, StartError>(OwnTelemetry::Statsd { stats, tags: settings.tags.clone() })
        });
        let own = own.transpose()?;
        let spool = destinations::start_forward_spool(&settings, &Turn::now(), &telemetry)?;
        let forwarder = Forwarder::spawn(forward, settings.interval, telemetry.clone(), spool)?;
        let ring = forwarder.ring();
        let import = Import::new(forwarder.relay(), &settings.import, telemetry.clone());
        let shown = Arc::new(Mutex::new(settings.clone()));
        let (phase, _) = watch::channel(Phase::Starting);
        let insight = Insight::start(&settings, gather, &phase, &telemetry)?;
        let offer = Offer { import: Some(&import), pages: insight.router(&telemetry) };
        let sockets = Sockets { http, grpc };
        let doors = pages::open(sockets, offer, &shown, &phase, quit, &telemetry)?;
        Ok(Proxy {
            settings,
            shown,
            telemetry,
            logs,
            phase,
            inherited,
            import,
            forwarder,
            ring,
            own,
            doors,
            certificates,
            insight,
        })
    }

    /// Waits for the end, reloading and reporting meanwhile, and drains.
    pub(super) async fn supervise(mut self, mut steering: Steering) {
        let mut reports = interval(self.settings.interval.length());
        reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ring, mut lives) = (self.ring.clone(), self.ring.clone());
        let why = loop {
            let is_starting = *self.phase.borrow() == Phase::Starting;
            tokio::select! {
                order = steering.next() => match order {
                    Order::End(why) => break why,
                    Order::HandOver => break "takeover",
                    Order::Use(loaded) => {
                        pages::reload(&mut self.settings, *loaded, &self.shown, &self.certificates);
                        self.logs.set_debug(self.settings.debug);
                    }
                },
                Ok(_) = ring.wait_for(|ring| !ring.members().is_empty()), if is_starting => {
                    self.say_ready();
                }
                () = ended(&mut lives) => {
                    error!("the task that forwards has ended: aborting");
                    self.logs.flush(AT_THE_END);
                    std::process::abort();
                }
                _ = reports.tick() => {
                    if is_starting {
                        error!("no upstream node is known: not ready");
                    }
                    report(&self.logs, &mut self.own, &self.telemetry);
                }
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
            role = "proxy",
            http = self.doors.http,
            grpc = self.doors.grpc,
            upstream_nodes = self.ring.borrow().members().len(),
            interval = ?self.settings.interval.length(),
            "ready"
        );
    }

    /// Takes nothing more in, and delivers what is in the outbox.
    async fn drain(self) {
        let Proxy { telemetry, logs, phase, import, forwarder, own, doors, mut insight, .. } = self;
        notify(&[NotifyState::Stopping]);
        let farewell = tokio::spawn(insight.farewell());
        // It waits for threads, which must not hold up the runtime. What was answered with yes
        // until here is in the outbox.
        if let Err(error) = spawn_blocking(move || import.close()).await {
            error!(%error, "draining failed");
        }
        forwarder.finish().await;
        // Letting go of `own` waits a moment for the name server.
        let last_report = spawn_blocking(move || {
            let mut own = own;
            report(&logs, &mut own, &telemetry);
        });
        if let Err(error) = last_report.await {
            error!(%error, "the last report failed");
        }
        if let Err(error) = farewell.await {
            error!(%error, "the farewell failed");
        }
        phase.send_replace(Phase::Stopped);
        doors.close().await;
    }
}

/// Waits until the task that forwards has ended, which it does only by a panic as long as there
/// is somebody to pass entries on: a proxy that forwards nothing is worse than a restart.
async fn ended(ring: &mut watch::Receiver<Arc<Ring>>) {
    while ring.changed().await.is_ok() {}
}

/// Says what there is to say about ourselves.
pub(super) fn report(logs: &Logs, own: &mut Option<OwnTelemetry>, telemetry: &Telemetry) {
    logs.report_left_out(telemetry);
    if let Some(own) = own {
        own.report(telemetry);
    }
}
