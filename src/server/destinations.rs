//! The sinks a configuration asks for: started, replaced, finished.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::StartError;
use crate::checkpoint::{self, Checkpoint};
use crate::config::Settings;
use crate::config::settings::{SinkKind, SinkSettings};
use crate::pipeline::Workers;
use crate::sinks::backlog::Backlog;
use crate::sinks::console::Console;
use crate::sinks::datadog::Datadog;
use crate::sinks::file::LocalFile;
use crate::sinks::graphite::Graphite;
use crate::sinks::influxdb::Influxdb;
use crate::sinks::post::SetupError;
use crate::sinks::traces::Traces;
use crate::sinks::{Filter, Node, SinkTask};
use crate::spool::{Spool, Turn};
use crate::telemetry::Telemetry;

/// The running sinks; a reload replaces them between two flushes.
///
/// The lock is held for as long as an offer takes, by the flush thread or by a reload.
pub(super) type Sinks = Arc<Mutex<Vec<Sink>>>;

/// A running sink, and what it was started with.
pub(super) struct Sink {
    asked: (SinkSettings, Node),
    pub(super) task: SinkTask,
}

/// Lets every sink deliver what it was offered, all at once.
pub(super) async fn finish(sinks: Vec<Sink>) {
    let tasks: JoinSet<()> = sinks.into_iter().map(|sink| sink.task.finish()).collect();
    tasks.join_all().await;
}

/// The sinks of a configuration.
///
/// # Errors
/// [`StartError::Sink`]
pub(super) fn start(
    settings: &Settings,
    backlogs: &Backlogs,
    telemetry: &Telemetry,
) -> Result<Sinks, StartError> {
    let parts = Parts { settings, backlogs, telemetry };
    let sinks: Result<Vec<Sink>, StartError> =
        settings.sinks.iter().map(|asked| parts.sink(asked)).collect();
    Ok(Arc::new(Mutex::new(sinks?)))
}

/// Puts sinks in the place of those from which `settings` differ, and returns the latter.
///
/// # Errors
/// [`StartError::Sink`]; then nothing is replaced.
pub(super) fn replace(
    sinks: &Sinks,
    settings: &Settings,
    backlogs: &Backlogs,
    telemetry: &Telemetry,
) -> Result<Vec<Sink>, StartError> {
    let parts = Parts { settings, backlogs, telemetry };
    let mut running = sinks.lock().unwrap_or_else(PoisonError::into_inner);
    let differs = |asked: &&SinkSettings| {
        let node = parts.node(asked);
        !running.iter().any(|sink| (&sink.asked.0, &sink.asked.1) == (*asked, &node))
    };
    let started: Result<Vec<Sink>, StartError> =
        settings.sinks.iter().filter(differs).map(|asked| parts.sink(asked)).collect();
    let mut replaced = Vec::new();
    for sink in started? {
        let place = running.iter_mut().find(|old| old.asked.0.name == sink.asked.0.name);
        // Sinks of other names wait for a restart.
        if let Some(place) = place {
            replaced.push(std::mem::replace(place, sink));
        }
    }
    Ok(replaced)
}

/// What sinks are made of.
struct Parts<'a> {
    settings: &'a Settings,
    backlogs: &'a Backlogs,
    telemetry: &'a Telemetry,
}

impl Parts<'_> {
    fn node(&self, asked: &SinkSettings) -> Node {
        Node::of(self.settings, &Filter::new(&asked.name, asked.filter.clone()))
    }

    /// Starts one sink.
    fn sink(&self, asked: &SinkSettings) -> Result<Sink, StartError> {
        let SinkSettings { name, kind, filter } = asked;
        let node = self.node(asked);
        let task = self.task(name, kind, Filter::new(name, filter.clone()), node.clone());
        let task = task.map_err(|source| StartError::Sink { name: name.clone(), source })?;
        Ok(Sink { asked: (asked.clone(), node), task })
    }

    fn task(
        &self,
        name: &str,
        kind: &SinkKind,
        filter: Filter,
        node: Node,
    ) -> Result<SinkTask, SetupError> {
        let (interval, telemetry) = (self.settings.interval, self.telemetry.clone());
        let backlog = self.backlogs.of(name);
        Ok(match kind {
            SinkKind::Datadog(settings) => {
                let own = telemetry.clone();
                let sink = Datadog::new(name, settings, node, interval, own, backlog)?;
                SinkTask::spawn(sink, filter, interval, telemetry)
            }
            SinkKind::Graphite(settings) => {
                let own = telemetry.clone();
                let sink = Graphite::new(name, settings, node, interval, own, backlog);
                SinkTask::spawn(sink, filter, interval, telemetry)
            }
            SinkKind::Influxdb(settings) => {
                let own = telemetry.clone();
                let sink = Influxdb::new(name, settings, node, interval, own, backlog)?;
                SinkTask::spawn(sink, filter, interval, telemetry)
            }
            SinkKind::File(settings) => {
                let sink = LocalFile::new(name, settings, node);
                SinkTask::spawn(sink, filter, interval, telemetry)
            }
            SinkKind::Traces(settings) => {
                let own = telemetry.clone();
                let sink = Traces::new(name, settings, node, interval, own, backlog)?;
                SinkTask::spawn(sink, filter, interval, telemetry)
            }
            SinkKind::Console { own } => {
                SinkTask::spawn(Console::new(name, node, *own), filter, interval, telemetry)
            }
        })
    }
}

/// Where what sinks could not deliver waits, by the name of the sink. It outlives the sinks, which
/// a reload replaces.
pub(super) struct Backlogs(BTreeMap<String, Backlog>);

impl Backlogs {
    /// One for each sink that delivers elsewhere.
    ///
    /// # Errors
    /// [`StartError::Spool`]
    pub(super) fn start(
        settings: &Settings,
        turn: &Turn,
        telemetry: &Telemetry,
    ) -> Result<Backlogs, StartError> {
        let mut backlogs = BTreeMap::new();
        let encoder = Arc::new(Semaphore::new(1));
        for SinkSettings { name, kind, .. } in &settings.sinks {
            match kind {
                SinkKind::Datadog(_)
                | SinkKind::Graphite(_)
                | SinkKind::Influxdb(_)
                | SinkKind::Traces(_) => {
                    let spool = start_spool(name, settings, turn, telemetry)?;
                    let encoder = Arc::clone(&encoder);
                    let backlog = Backlog::start(name, spool, encoder, telemetry.clone());
                    backlogs.insert(name.clone(), backlog);
                }
                SinkKind::File(_) | SinkKind::Console { .. } => {}
            }
        }
        Ok(Backlogs(backlogs))
    }

    fn of(&self, name: &str) -> Option<&Backlog> {
        self.0.get(name)
    }

    /// Ends them all at once ([`Backlog::finish`]); their sinks must have finished.
    pub(super) async fn finish(self, by: Instant) {
        let tasks: JoinSet<()> = self.0.into_values().map(|backlog| backlog.finish(by)).collect();
        tasks.join_all().await;
    }
}

/// Where what upstream nodes do not take waits, if it is to be on disk.
pub(super) fn start_forward_spool(
    settings: &Settings,
    turn: &Turn,
    telemetry: &Telemetry,
) -> Result<Option<Spool>, StartError> {
    let has_directory = settings.spool.directory.is_some();
    has_directory.then(|| start_spool("forward", settings, turn, telemetry)).transpose()
}

fn start_spool(
    name: &str,
    settings: &Settings,
    turn: &Turn,
    telemetry: &Telemetry,
) -> Result<Spool, StartError> {
    let started = Spool::start(name, &settings.spool, turn, telemetry.clone());
    started.map_err(|source| StartError::Spool {
        path: settings.spool.directory.clone().unwrap_or_default(),
        source,
    })
}

/// Whether the open interval is to be on disk.
pub(super) fn has_checkpoint(settings: &Settings) -> bool {
    settings.spool.directory.is_some() && settings.spool.checkpoint.is_some()
}

/// The open interval on disk, if it is to be there.
pub(super) fn start_checkpoint(
    settings: &Settings,
    turn: &Turn,
    workers: &Workers,
    telemetry: &Telemetry,
) -> Result<Option<Checkpoint>, StartError> {
    let spool = &settings.spool;
    let (Some(directory), Some(every)) = (&spool.directory, spool.checkpoint) else {
        return Ok(None);
    };
    let plan = checkpoint::Plan {
        directory: directory.join("checkpoint"),
        every,
        max_bytes: spool.max_bytes,
        max_age: spool.max_age,
    };
    Checkpoint::start(plan, turn, workers.inboxes(), telemetry.clone())
        .map(Some)
        .map_err(|source| StartError::Spool { path: directory.clone(), source })
}
