//! The running daemon: started part by part, supervised, reloaded, drained.

use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use sd_notify::NotifyState;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{error, info, warn};

use super::destinations::{Backlogs, Sink, Sinks};
use super::insight::Insight;
use super::outlet::{Delivery, OwnTelemetry};
use super::overflow::OverflowReport;
use super::pages::{self, Doors, Sockets};
use super::stats::StatsAddress;
use super::steering::{Order, Steering};
use super::takeover::Succession;
use super::watchdog::{self, Watchdog};
use super::{Server, StartError, destinations, sources};
use crate::aggregate::{ContextLimits, KeyHasher, Plan, Shard};
use crate::checkpoint::Checkpoint;
use crate::config::listen::StatsdAddress;
use crate::config::settings::SpanSettings;
use crate::config::{Loaded, Settings};
use crate::forward::Forwarder;
use crate::forward::import::Import;
use crate::http;
use crate::ingest::{
    Certificates, ControlSocket, Inherited, Moved, Offer, Reception, Repeater, Running, Takeover,
};
use crate::model::{Phase, Role};
use crate::pipeline::flush::FlushHandle;
use crate::pipeline::{
    Collector, Flusher, Importer, Intake, IntakeCounts, Router, SpanCounts, SpanIntake, SpanTimers,
    Workers,
};
use crate::spool::Turn;
use crate::telemetry::Telemetry;
use crate::telemetry::logging::Logs;

/// Readers get this long to read their sockets empty, whatever the interval.
const MIN_DRAIN: Duration = Duration::from_secs(1);

/// What waits to be repeated gets an interval, and no longer than this.
const MOST_TO_REPEAT: Duration = Duration::from_secs(10);

/// What the spans of an interval may take in memory.
const SPAN_BYTES: usize = 64 << 20;

/// Why a daemon drains that a successor has told to.
const HANDED_OVER: &str = "takeover";

/// Everything running.
pub(super) struct Daemon {
    /// What is in effect.
    settings: Settings,
    /// The same for the configuration pages.
    shown: Arc<Mutex<Settings>>,
    telemetry: Telemetry,
    logs: Logs,
    phase: watch::Sender<Phase>,
    running: Running,
    repeater: Repeater,
    import: Import,
    workers: Workers,
    flush: FlushHandle,
    /// What the open interval has on disk.
    checkpoint: Option<Checkpoint>,
    watchdog: Option<Watchdog>,
    sinks: Sinks,
    /// What they could not deliver.
    backlogs: Backlogs,
    /// Shared with the flush thread for as long as that runs.
    forwarder: Option<Arc<Forwarder>>,
    /// Sinks that a reload has replaced, finishing.
    retiring: Vec<JoinHandle<()>>,
    /// HTTP and gRPC.
    doors: Doors,
    certificates: Certificates,
    insight: Insight,
    /// Until ready.
    inherited: Inherited,
    /// To be told when we are ready.
    predecessor: Option<Takeover>,
    turn: Turn,
    /// For a successor, once we are ready ourselves.
    control: Option<ControlSocket>,
    offers: Vec<Offer>,
    moved: Option<Receiver<Moved>>,
    succeeded: mpsc::Sender<()>,
    succession: Option<Succession>,
    /// Where it listens, for the log.
    addresses: String,
    /// The same for spans; may be empty.
    span_addresses: String,
}

impl Daemon {
    /// Starts every part, consumers before producers. Needs a tokio runtime.
    pub(super) fn start(
        server: Server,
        quit: mpsc::Sender<()>,
        succeeded: mpsc::Sender<()>,
    ) -> Result<Daemon, StartError> {
        let Server {
            loaded,
            mut inherited,
            mut listeners,
            http,
            grpc,
            certificates,
            gather,
            control,
            telemetry,
            logs,
        } = server;
        let offers = inherited.take_offers();
        let predecessor = inherited.take_predecessor();
        let turn = if predecessor.is_some() { Turn::later() } else { Turn::now() };
        let settings = loaded.settings;
        let shown = Arc::new(Mutex::new(settings.clone()));
        let (phase, _) = watch::channel(Phase::Starting);

        let role = settings.role();
        let extend = settings.extend_tags.clone();
        let limits = ContextLimits {
            contexts: settings.limits.contexts.get(),
            contexts_per_name: settings.limits.contexts_per_name.get(),
            tags_per_metric: settings.limits.tags_per_metric.get(),
            tag_length: settings.limits.tag_length.get(),
            name_length: settings.limits.name_length.get(),
            memory: settings.limits.memory.get(),
        };
        let share = limits.share(settings.num_workers);
        let mapping = settings.mapping.as_ref().map(|it| Arc::clone(&it.mapping));
        let shards = (0..settings.num_workers.get())
            .map(|worker| Shard::with_limits(role, extend.clone(), share, worker))
            .map(|shard| {
                let keeps = destinations::has_checkpoint(&settings);
                shard.with_classic(settings.classic.rules).keeping_values(keeps)
            })
            .map(|shard| shard.with_mapping(mapping.clone()));
        let workers = Workers::start(shards)?;
        let collector = Collector::new(extend.clone(), SystemTime::now);
        let collector = collector.with_mapping(mapping.clone());
        let collector = Arc::new(match settings.sinks.iter().any(|sink| sink.takes_spans()) {
            true => collector.with_spans(SPAN_BYTES),
            false => collector,
        });
        let hasher = KeyHasher::random();
        let intake = |protocol| {
            let counts = Arc::new(IntakeCounts::default());
            sources::add_intake(&telemetry, protocol, Arc::clone(&counts));
            let router =
                Router::new(hasher, workers.doors()).with_legacy_sets(role == Role::LocalToV1);
            let router = router.with_mapping(mapping.clone(), settings.classic.rules.sanitise);
            Intake::new(router, Arc::clone(&collector), counts)
        };

        let backlogs = Backlogs::start(&settings, &turn, &telemetry)?;
        let sinks = destinations::start(&settings, &backlogs, &telemetry)?;
        let own = match &settings.stats_address {
            None => OwnTelemetry::Pipeline(Box::new(intake("own"))),
            Some(address) => OwnTelemetry::Statsd {
                stats: StatsAddress::start(address.clone(), telemetry.clone())?,
                tags: settings.tags.clone(),
            },
        };
        let flusher = Flusher {
            inboxes: workers.inboxes(),
            collector: Arc::clone(&collector),
            plan: plan(&settings),
            interval: settings.interval,
            synchronize: settings.synchronize_with_interval,
            waits: predecessor.is_some(),
            now: SystemTime::now,
        };
        let forwarder = settings
            .forward
            .as_ref()
            .map(|forward| {
                let spool = destinations::start_forward_spool(&settings, &turn, &telemetry)?;
                let telemetry = telemetry.clone();
                let forwarder = Forwarder::spawn(forward, settings.interval, telemetry, spool)?;
                Ok::<_, StartError>(forwarder)
            })
            .transpose()?
            .map(Arc::new);
        let checkpoint = destinations::start_checkpoint(&settings, &turn, &workers, &telemetry)?;
        let delivery = Delivery {
            sinks: Arc::clone(&sinks),
            forwarder: forwarder.clone(),
            own,
            telemetry: telemetry.clone(),
            logs: logs.clone(),
            overflow: OverflowReport::default(),
            checkpoint: checkpoint.as_ref().map(Checkpoint::retiring),
        };
        let flush = flusher.start(delivery)?;
        let watchdog = settings
            .flush_watchdog_missed_flushes
            .map(|missed| {
                watchdog::start(flush.completed(), settings.interval, missed, logs.clone())
            })
            .transpose()?;

        let importer = Importer::new(workers.inboxes());
        let import = Import::new(importer, &settings.import, telemetry.clone());
        let insight = Insight::start(&settings, gather, &phase, &telemetry)?;
        let offer = pages::Offer { import: Some(&import), pages: insight.router(&telemetry) };
        let sockets = Sockets { http, grpc };
        let doors = pages::open(sockets, offer, &shown, &phase, quit, &telemetry)?;

        let join = |addresses: Vec<StatsdAddress>| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let addresses = join(listeners.addresses());
        let span_addresses = join(listeners.span_addresses());
        sources::add_drops(&telemetry, listeners.drop_probes()?);
        let moved = listeners.take_moved();
        let repeater = Repeater::start(&settings.intake.repeat_to, &telemetry)?;
        let running = listeners.start(&telemetry, |info| {
            let intake = intake(sources::protocol_of(&info.address));
            if info.options.spans {
                let counts = Arc::new(SpanCounts::default());
                sources::add_spans(&telemetry, Arc::clone(&counts));
                return Reception::Spans(SpanIntake::new(intake, span_timers(&settings), counts));
            }
            let dialect = info.options.dialect.unwrap_or(settings.intake.dialect);
            let intake = intake.with_dialect(dialect);
            let comes_in_datagrams =
                matches!(info.address, StatsdAddress::Udp(_) | StatsdAddress::Unixgram(_));
            match repeater.tap().filter(|_| comes_in_datagrams) {
                Some(tap) => Reception::Repeated(intake, tap),
                None => Reception::Lines(intake),
            }
        })?;

        Ok(Daemon {
            settings,
            shown,
            telemetry,
            logs,
            phase,
            running,
            repeater,
            import,
            workers,
            flush,
            checkpoint,
            watchdog,
            sinks,
            backlogs,
            forwarder,
            retiring: Vec::new(),
            doors,
            certificates,
            insight,
            inherited,
            predecessor,
            turn,
            control,
            offers,
            moved,
            succeeded,
            succession: None,
            addresses,
            span_addresses,
        })
    }

    /// Gets ready, waits for the end, reloading when asked to, and drains.
    ///
    /// # Errors
    /// Taking over has failed: then the predecessor goes on.
    pub(super) async fn supervise(mut self, mut steering: Steering) -> Result<(), StartError> {
        let ended = tokio::select! {
            succeeded = self.succeed() => succeeded.err().map(|error| ("takeover failed", Some(error))),
            why = steering.next_end() => Some((why, None)),
        };
        if let Some((why, error)) = ended {
            self.end(steering, why).await;
            return error.map_or(Ok(()), |error| Err(error.into()));
        }
        self.say_ready();
        let why = loop {
            match steering.next().await {
                Order::End(why) => break why,
                Order::HandOver => break HANDED_OVER,
                Order::Use(loaded) => self.apply(*loaded),
            }
        };
        self.end(steering, why).await;
        Ok(())
    }

    /// Has the predecessor, if there is one, leave everything to us; from here on it is ours
    /// alone, until a successor comes.
    async fn succeed(&mut self) -> io::Result<()> {
        let mut ending = None;
        if let Some(predecessor) = self.predecessor.take() {
            // It waits for the predecessor, which must not hold up the runtime.
            let told = spawn_blocking(|| predecessor.complete()).await;
            let (last, predecessor) = told.map_err(io::Error::other)??;
            if last.is_none() {
                warn!("the predecessor ended without a word");
            }
            let last = last.unwrap_or_else(|| SystemTime::now().into());
            self.flush.succession().go_on(Some(last));
            info!("took over from the running daemon");
            // Before the predecessor ends, lest its end be taken for ours.
            notify(&[NotifyState::MainPid(std::process::id())]);
            ending = Some(predecessor);
        }
        // Without a control socket nobody comes, and nobody has been taken over from.
        if let (Some(control), Some(moved)) = (self.control.take(), self.moved.take()) {
            let (flush, succeeded) = (self.flush.succession(), self.succeeded.clone());
            let (offers, turn) = (std::mem::take(&mut self.offers), self.turn.clone());
            self.succession =
                Some(Succession::start(control, offers, moved, flush, succeeded, ending, turn)?);
        }
        self.offers.clear();
        Ok(())
    }

    fn say_ready(&self) {
        self.phase.send_replace(Phase::Ready);
        notify(&[NotifyState::Ready]);
        if let Err(error) = self.inherited.acknowledge() {
            warn!(%error, "Einhorn cannot be told");
        }
        info!(
            version = http::VERSION,
            statsd = self.addresses,
            ssf = Some(&self.span_addresses).filter(|addresses| !addresses.is_empty()),
            role = self.settings.role().as_str(),
            http = self.doors.http,
            grpc = self.doors.grpc,
            interval = ?self.settings.interval.length(),
            "ready"
        );
    }

    async fn end(self, steering: Steering, why: &'static str) {
        if let Some(succession) = &self.succession {
            succession.close();
        }
        self.phase.send_replace(Phase::Draining);
        info!(why, "draining");
        if why != HANDED_OVER {
            // Otherwise the service goes on without us.
            notify(&[NotifyState::Stopping]);
        }
        steering.end_at_a_second_signal(self.logs.clone());
        self.drain().await;
        info!("drained");
    }

    /// Uses what of a new configuration can be used without a restart, from the next flush on.
    fn apply(&mut self, loaded: Loaded) {
        let waiting = self.settings.needs_restart(&loaded.settings);
        let settings = self.settings.with_live(loaded.settings);
        let Some(certificates) = pages::certificates(&settings) else { return };
        let (sinks, backlogs) = (&self.sinks, &self.backlogs);
        match destinations::replace(sinks, &settings, backlogs, &self.telemetry) {
            Ok(replaced) => self.retire(replaced),
            Err(error) => {
                error!(%error, "the new configuration is not used, the old one stays");
                return;
            }
        }
        self.certificates.replace(certificates);
        self.flush.replan(plan(&settings));
        self.logs.set_debug(settings.debug);
        pages::say_what_waits(&waiting);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = settings.clone();
        self.settings = settings;
    }

    fn retire(&mut self, sinks: Vec<Sink>) {
        self.retiring.retain(|task| !task.is_finished());
        if !sinks.is_empty() {
            self.retiring.push(tokio::spawn(destinations::finish(sinks)));
        }
    }

    /// Takes nothing more in, flushes what there is and lets the sinks deliver it.
    async fn drain(mut self) {
        let farewell = tokio::spawn(self.insight.farewell());
        let Daemon {
            settings,
            phase,
            running,
            repeater,
            import,
            workers,
            flush,
            watchdog,
            sinks,
            ..
        } = self;
        let checkpoint = self.checkpoint;
        let (forwarder, backlogs) = (self.forwarder, self.backlogs);
        drop(watchdog);
        let within = settings.interval.length().max(MIN_DRAIN);
        // These wait for threads, which must not hold up the runtime.
        let threads = spawn_blocking(move || {
            // What was answered with yes until here is part of the last flush.
            import.close();
            let left = running.drain(within);
            let repeated = thread::spawn(move || repeater.finish(within.min(MOST_TO_REPEAT)));
            flush.stop();
            // A panic there has been reported by the panic hook, which ends the process.
            let _ = repeated.join();
            let has_let_go = checkpoint.is_none_or(Checkpoint::stop);
            if left.is_empty() {
                if has_let_go {
                    workers.join();
                }
            } else {
                let threads = left.join(", ");
                error!(threads, "listeners did not end in time: what they hold is lost");
            }
        });
        let deliveries = async {
            if let Err(error) = threads.await {
                error!(%error, "draining failed");
            }
            let sinks = std::mem::take(&mut *sinks.lock().unwrap_or_else(PoisonError::into_inner));
            let forward = async {
                // The flush thread has ended and let go of its share.
                if let Some(forwarder) = forwarder.and_then(Arc::into_inner) {
                    forwarder.finish().await;
                }
            };
            let by = tokio::time::Instant::now() + settings.interval.length();
            let retiring = async {
                for task in self.retiring {
                    // A sink's own task reports its failures.
                    let _ = task.await;
                }
            };
            let sinks = async {
                tokio::join!(destinations::finish(sinks), retiring);
                backlogs.finish(by).await;
            };
            tokio::join!(sinks, forward);
        };
        deliveries.await;
        if let Err(error) = farewell.await {
            error!(%error, "the farewell failed");
        }
        phase.send_replace(Phase::Stopped);
        self.doors.close().await;
    }
}

fn span_timers(settings: &Settings) -> SpanTimers {
    let SpanSettings { indicator_timer, objective_timer, .. } = &settings.intake.spans;
    SpanTimers { indicator: indicator_timer.clone(), objective: objective_timer.clone() }
}

fn plan(settings: &Settings) -> Plan {
    Plan::new(settings.role(), &settings.aggregates, &settings.percentiles)
        .with_etsy(&settings.classic.statistics)
}

/// Tells systemd, if it started us and wants to know.
pub(super) fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd cannot be told");
    }
}
