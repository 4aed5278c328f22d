//! Builds the daemon and runs it: the only module that knows all parts.
//!
//! [`Server::build`] binds every socket or says in one sentence why it cannot; nothing runs
//! until [`Server::run`], which starts consumers before producers and returns when everything
//! is drained.

mod outlet;
pub mod panics;
mod sources;
mod watchdog;

use std::io;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{error, info, warn};

use crate::aggregate::{KeyHasher, Plan, Shard};
use crate::config::{Loaded, Problems, Settings};
use crate::http::{self, ConfigFormat, ConfigText, HttpState, Limits};
use crate::ingest::{
    BindError, EnvironmentError, HttpListener, Inherited, Listeners, Running, bind_http,
};
use crate::model::Phase;
use crate::pipeline::flush::FlushHandle;
use crate::pipeline::{Collector, Flusher, Intake, IntakeCounts, Router, Workers};
use crate::sinks::console::Console;
use crate::sinks::datadog::Datadog;
use crate::sinks::post::SetupError;
use crate::sinks::{Node, SinkTask};
use crate::telemetry::Telemetry;
use crate::telemetry::logging::Logs;
use outlet::{Delivery, OwnTelemetry, Sinks};

/// Threads of the runtime that serves HTTP and the sinks.
const IO_THREADS: usize = 2;
/// Readers get this long to read their sockets empty, whatever the interval.
const MIN_DRAIN: Duration = Duration::from_secs(1);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// What the process inherited.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// A sink.
    #[error("cannot set up the Datadog sink: {0}")]
    Sink(#[from] SetupError),
    /// No thread, descriptor or signal to be had.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

/// Loads the configuration anew, for SIGHUP.
pub type Reload = Box<dyn FnMut() -> Result<Loaded, Problems> + Send>;

/// Everything bound, nothing running.
#[derive(Debug)]
pub struct Server {
    loaded: Loaded,
    inherited: Inherited,
    listeners: Listeners,
    http: Option<HttpListener>,
    telemetry: Telemetry,
    logs: Logs,
}

impl Server {
    /// Binds every socket of the configuration.
    ///
    /// # Errors
    /// The first thing that cannot be had, as one sentence.
    pub fn build(loaded: Loaded, telemetry: Telemetry, logs: Logs) -> Result<Server, StartError> {
        let settings = &loaded.settings;
        let mut inherited = Inherited::from_environment()?;
        let listeners = Listeners::bind(&settings.intake, &mut inherited)?;
        let http = settings.http.address.as_ref();
        let http = http.map(|address| bind_http(address, &mut inherited)).transpose()?;
        listeners.warnings().iter().for_each(|warning| warn!("{warning}"));
        for socket in inherited.unused() {
            warn!(socket, "systemd passed a socket that no listener asks for (fd://NAME)");
        }
        Ok(Server { inherited, loaded, listeners, http, telemetry, logs })
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
            let signals = Signals::register()?;
            let (quit, quits) = mpsc::channel(1);
            let daemon = Daemon::start(self, quit)?;
            daemon.supervise(signals, quits, reload).await;
            Ok(())
        });
        // A standard output nobody reads may hold a thread of the pool for ever.
        runtime.shutdown_background();
        ended
    }
}

/// The signals that mean something to us.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn register() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End("SIGTERM"),
            _ = self.interrupt.recv() => Asked::End("SIGINT"),
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

/// What an operator asks of a running daemon.
enum Asked {
    /// By this signal.
    End(&'static str),
    Reload,
}

/// Everything running.
struct Daemon {
    settings: Settings,
    shown: Arc<Mutex<Loaded>>,
    telemetry: Telemetry,
    logs: Logs,
    phase: watch::Sender<Phase>,
    running: Running,
    workers: Workers,
    flush: FlushHandle,
    sinks: Sinks,
    http: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts every part, consumers before producers. Needs a tokio runtime.
    fn start(server: Server, quit: mpsc::Sender<()>) -> Result<Daemon, StartError> {
        let Server { loaded, inherited, listeners, http, telemetry, logs } = server;
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

        let sinks: Sinks = Arc::new(Mutex::new(start_sinks(&settings, &telemetry)?));
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

        let http_address = http.as_ref().map(|http| bound_http(http, &settings));
        let http = http
            .map(|listener| {
                let state = HttpState {
                    telemetry: telemetry.clone(),
                    phase: phases,
                    config: settings.http.config.then(|| config_text(&shown)),
                    quit: settings.http.quit.then_some(quit),
                };
                serve_http(listener, state, phase.subscribe(), &telemetry)
            })
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
            http = http_address.unwrap_or_else(|| "off".to_owned()),
            interval = ?settings.interval.length(),
            "ready"
        );
        Ok(Daemon { settings, shown, telemetry, logs, phase, running, workers, flush, sinks, http })
    }

    /// Waits for the end, reloading when asked to, and drains.
    async fn supervise(
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
        let started = match start_sinks(new, &self.telemetry) {
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
        tokio::spawn(finish(old));
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
        let Daemon { settings, phase, running, workers, flush, sinks, http, .. } = self;
        phase.send_replace(Phase::Draining);
        notify(sd_notify::NotifyState::Stopping);
        let within = settings.interval.length().max(MIN_DRAIN);
        // These wait for threads, which must not hold up the runtime.
        let threads = spawn_blocking(move || {
            let left = running.drain(within);
            if !left.is_empty() {
                error!(
                    threads = left.join(","),
                    "listeners did not end in time: what they hold is lost"
                );
            }
            flush.stop();
            workers.join();
        });
        if let Err(error) = threads.await {
            error!(%error, "draining failed");
        }
        let sinks = std::mem::take(&mut *sinks.lock().unwrap_or_else(PoisonError::into_inner));
        finish(sinks).await;
        if let Some(http) = http {
            // It has ended by itself, or its drain limit ends it.
            let _ = http.await;
        }
    }
}

/// Lets every sink deliver what it was offered, all at once.
async fn finish(sinks: Vec<SinkTask>) {
    let tasks: Vec<_> = sinks.into_iter().map(|sink| tokio::spawn(sink.finish())).collect();
    for task in tasks {
        // A sink's own task reports its failures.
        let _ = task.await;
    }
}

/// The sinks of a configuration; the console if there is no other.
fn start_sinks(settings: &Settings, telemetry: &Telemetry) -> Result<Vec<SinkTask>, SetupError> {
    let mut sinks = Vec::new();
    if let Some(datadog) = &settings.datadog {
        let node = Node::of(settings);
        let sink = Datadog::new(datadog, node, settings.interval, telemetry.clone())?;
        sinks.push(SinkTask::spawn(sink, settings.interval, telemetry.clone()));
    }
    if sinks.is_empty() || settings.debug_flushed_metrics {
        let console = Console::new(Node::of(settings), settings.debug_flushed_metrics);
        sinks.push(SinkTask::spawn(console, settings.interval, telemetry.clone()));
    }
    Ok(sinks)
}

fn plan(settings: &Settings) -> Plan {
    Plan::new(settings.role(), &settings.aggregates, &settings.percentiles)
}

/// The text of the configuration pages: of the configuration in use when somebody looks.
fn config_text(shown: &Arc<Mutex<Loaded>>) -> ConfigText {
    let shown = Arc::clone(shown);
    Arc::new(move |format| {
        let loaded = shown.lock().unwrap_or_else(PoisonError::into_inner);
        match format {
            ConfigFormat::Json => loaded.settings.effective_json(),
            ConfigFormat::Yaml => loaded.settings.effective_yaml(),
        }
    })
}

fn serve_http(
    listener: HttpListener,
    state: HttpState,
    mut phases: watch::Receiver<Phase>,
    telemetry: &Telemetry,
) -> io::Result<JoinHandle<()>> {
    let router = http::router(state);
    let stop = async move {
        // The sender lives as long as the daemon.
        let _ = phases.wait_for(|phase| *phase == Phase::Draining).await;
    };
    let telemetry = telemetry.clone();
    Ok(match listener {
        HttpListener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(http::serve(listener, router, Limits::default(), telemetry, stop))
        }
        HttpListener::Unix(listener, file) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            tokio::spawn(async move {
                http::serve(listener, router, Limits::default(), telemetry, stop).await;
                drop(file);
            })
        }
    })
}

/// Where the HTTP server can be reached.
fn bound_http(listener: &HttpListener, settings: &Settings) -> String {
    let configured =
        || settings.http.address.as_ref().map_or_else(String::new, ToString::to_string);
    match listener {
        HttpListener::Tcp(listener) => {
            listener.local_addr().map_or_else(|_| configured(), |address| address.to_string())
        }
        HttpListener::Unix(..) => configured(),
    }
}

/// Tells systemd, if it started us and wants to know.
fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "systemd cannot be told");
    }
}
