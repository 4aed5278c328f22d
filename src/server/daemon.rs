//! The running daemon: started part by part, supervised, reloaded, drained.

use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{error, info, warn};

use super::outlet::{Delivery, OwnTelemetry, Sinks};
use super::signals::{Asked, Signals};
use super::{Reload, Server, StartError, destinations, pages, sources, watchdog};
use crate::aggregate::{KeyHasher, Plan, Shard};
use crate::config::{Loaded, Settings};
use crate::forward::import::Import;
use crate::http::{self, HttpState};
use crate::ingest::Running;
use crate::model::Phase;
use crate::pipeline::flush::FlushHandle;
use crate::pipeline::{Collector, Flusher, Importer, Intake, IntakeCounts, Router, Workers};
use crate::telemetry::Telemetry;
use crate::telemetry::logging::Logs;

/// Readers get this long to read their sockets empty, whatever the interval.
const MIN_DRAIN: Duration = Duration::from_secs(1);

/// Everything running.
pub(super) struct Daemon {
    settings: Settings,
    shown: Arc<Mutex<Loaded>>,
    telemetry: Telemetry,
    logs: Logs,
    phase: watch::Sender<Phase>,
    running: Running,
    import: Import,
    workers: Workers,
    flush: FlushHandle,
    sinks: Sinks,
    /// HTTP and gRPC.
    servers: Vec<JoinHandle<()>>,
}

impl Daemon {
    /// Starts every part, consumers before producers. Needs a tokio runtime.
    pub(super) fn start(server: Server, quit: mpsc::Sender<()>) -> Result<Daemon, StartError> {
        let Server { loaded, inherited, listeners, http, grpc, telemetry, logs } = server;
        let settings = loaded.settings.clone();
        let shown = Arc::new(Mutex::new(loaded));
        let (phase, phases) = watch::channel(Phase::Starting);

        let role = settings.role();
        let extend = settings.extend_tags.clone();
        let shards = (0..settings.num_workers.get()).map(|_| Shard::new(role, extend.clone()));
        let workers = Workers::start(shards)?;
        let collector = Arc::new(Collector::new(extend.clone(), SystemTime::now));
        let hasher = KeyHasher::random();
        let intake = |protocol| {
            let counts = Arc::new(IntakeCounts::default());
            sources::add_intake(&telemetry, protocol, Arc::clone(&counts));
            let router = Router::new(hasher, workers.inboxes());
            Intake::new(router, Arc::clone(&collector), counts)
        };

        let sinks: Sinks = Arc::new(Mutex::new(destinations::start(&settings, &telemetry)?));
        let own = match &settings.stats_address {
            None => OwnTelemetry::Pipeline(Box::new(intake("own"))),
            Some(address) => OwnTelemetry::Statsd {
                socket: UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"))?,
                address: address.clone(),
                tags: settings.tags.clone(),
            },
        };
        let flusher = Flusher {
            inboxes: workers.inboxes(),
            collector: Arc::clone(&collector),
            plan: plan(&settings),
            interval: settings.interval,
            synchronize: settings.synchronize_with_interval,
            now: SystemTime::now,
        };
        let delivery = Delivery {
            sinks: Arc::clone(&sinks),
            own,
            telemetry: telemetry.clone(),
            logs: logs.clone(),
        };
        let flush = flusher.start(delivery)?;
        if let Some(missed) = settings.flush_watchdog_missed_flushes {
            tokio::spawn(watchdog::watch(flush.completed(), settings.interval, missed));
        }

        let importer = Importer::new(workers.inboxes());
        let import = Import::new(importer, &settings.import, telemetry.clone());
        let http_address = pages::address(http.as_ref(), settings.http.address.as_ref());
        let grpc_address = pages::address(grpc.as_ref(), settings.import.grpc_address.as_ref());
        let http = http
            .map(|listener| {
                let state = HttpState {
                    telemetry: telemetry.clone(),
                    phase: phases,
                    config: settings.http.config.then(|| pages::config_text(&shown)),
                    quit: settings.http.quit.then_some(quit),
                };
                let router = http::router(state).merge(import.router());
                pages::serve(listener, router, phase.subscribe(), &telemetry)
            })
            .transpose()?;
        let grpc = grpc
            .map(|grpc| pages::serve_grpc(grpc, import.clone(), phase.subscribe(), &telemetry))
            .transpose()?;

        let addresses: Vec<String> =
            listeners.addresses().iter().map(ToString::to_string).collect();
        sources::add_drops(&telemetry, listeners.drop_probes()?);
        let running =
            listeners.start(&telemetry, |info| intake(sources::protocol_of(&info.address)))?;

        phase.send_replace(Phase::Ready);
        notify(sd_notify::NotifyState::Ready);
        if let Err(error) = inherited.acknowledge() {
            warn!(%error, "Einhorn cannot be told");
        }
        info!(
            version = http::VERSION,
            statsd = addresses.join(","),
            http = http_address,
            grpc = grpc_address,
            interval = ?settings.interval.length(),
            "ready"
        );
        let servers = http.into_iter().chain(grpc).collect();
        Ok(Daemon {
            settings,
            shown,
            telemetry,
            logs,
            phase,
            running,
            import,
            workers,
            flush,
            sinks,
            servers,
        })
    }

    /// Waits for the end, reloading when asked to, and drains.
    pub(super) async fn supervise(
        mut self,
        mut signals: Signals,
        mut quits: mpsc::Receiver<()>,
        mut reload: Reload,
    ) {
        let why = loop {
            tokio::select! {
                asked = signals.next() => match asked {
                    Asked::End(why) => break why,
                    Asked::Reload => self.reload(&mut reload),
                },
                Some(()) = quits.recv() => break "/quitquitquit",
            }
        };
        tokio::spawn(async move {
            loop {
                if let Asked::End(signal) = signals.next().await {
                    error!(
                        signal,
                        "a second signal: exiting at once, what is not delivered is lost"
                    );
                    std::process::exit(1);
                }
            }
        });
        info!(why, "draining");
        self.drain().await;
        info!("drained");
    }

    /// Uses what of a new configuration can be used without a restart, from the next flush on.
    fn reload(&mut self, reload: &mut Reload) {
        match reload() {
            Ok(loaded) => self.apply(loaded),
            Err(problems) => {
                error!("the new configuration is not used, the old one stays:\n{problems}");
            }
        }
    }

    fn apply(&mut self, loaded: Loaded) {
        loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
        let new = &loaded.settings;
        let waiting = self.settings.needs_restart(new);
        let started = match destinations::start(new, &self.telemetry) {
            Ok(sinks) => sinks,
            Err(error) => {
                error!(%error, "the new configuration is not used, the old one stays");
                return;
            }
        };
        let old = {
            let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *sinks, started)
        };
        tokio::spawn(destinations::finish(old));
        self.flush.replan(plan(new));
        self.logs.set_debug(new.debug);
        if waiting.is_empty() {
            info!("the new configuration is in use");
        } else {
            warn!(
                keys = waiting.join(","),
                "the new configuration is in use, but these keys wait for a restart"
            );
        }
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    /// Takes nothing more in, flushes what there is and lets the sinks deliver it.
    async fn drain(self) {
        let Daemon { settings, phase, running, import, workers, flush, sinks, servers, .. } = self;
        phase.send_replace(Phase::Draining);
        notify(sd_notify::NotifyState::Stopping);
        let within = settings.interval.length().max(MIN_DRAIN);
        // These wait for threads, which must not hold up the runtime.
        let readers = spawn_blocking(move || {
            let left = running.drain(within);
            if !left.is_empty() {
                error!(
                    threads = left.join(","),
                    "listeners did not end in time: what they hold is lost"
                );
            }
        });
        // They have ended by themselves, or their drain limit ends them. What was imported until
        // then is part of the last flush.
        for task in servers.into_iter().chain([readers]) {
            if let Err(error) = task.await {
                error!(%error, "draining failed");
            }
        }
        let threads = spawn_blocking(move || {
            import.close();
            flush.stop();
            workers.join();
        });
        if let Err(error) = threads.await {
            error!(%error, "draining failed");
        }
        let sinks = std::mem::take(&mut *sinks.lock().unwrap_or_else(PoisonError::into_inner));
        destinations::finish(sinks).await;
    }
}

fn plan(settings: &Settings) -> Plan {
    Plan::new(settings.role(), &settings.aggregates, &settings.percentiles)
}

/// Tells systemd, if it started us and wants to know.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "systemd cannot be told");
    }
}
