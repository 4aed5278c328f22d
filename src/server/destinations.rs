//! The sinks a configuration asks for.

use super::StartError;
use crate::config::Settings;
use crate::sinks::backlog::Backlog;
use crate::sinks::console::Console;
use crate::sinks::datadog::{self, Datadog};
use crate::sinks::post::{Http, SetupError};
use crate::sinks::{Node, SinkTask};
use crate::spool::{Spool, Turn};
use crate::telemetry::Telemetry;

/// Lets every sink deliver what it was offered, all at once.
pub(super) async fn finish(sinks: Vec<SinkTask>) {
    let tasks: Vec<_> = sinks.into_iter().map(|sink| tokio::spawn(sink.finish())).collect();
    for task in tasks {
        // A sink's own task reports its failures.
        let _ = task.await;
    }
}

/// The sinks of a configuration; the console if there is no other.
pub(super) fn start(
    settings: &Settings,
    telemetry: &Telemetry,
    backlog: Option<&Backlog<Http>>,
) -> Result<Vec<SinkTask>, SetupError> {
    let mut sinks = Vec::new();
    if let Some(datadog) = &settings.datadog {
        let node = Node::of(settings);
        let sink = Datadog::new(datadog, node, settings.interval, telemetry.clone(), backlog)?;
        sinks.push(SinkTask::spawn(sink, settings.interval, telemetry.clone()));
    }
    if sinks.is_empty() || settings.debug_flushed_metrics {
        let console = Console::new(Node::of(settings), settings.debug_flushed_metrics);
        sinks.push(SinkTask::spawn(console, settings.interval, telemetry.clone()));
    }
    Ok(sinks)
}

/// Where what Datadog does not take waits; it outlives the sinks, which a reload replaces.
pub(super) fn start_backlog(
    settings: &Settings,
    turn: &Turn,
    telemetry: &Telemetry,
) -> Result<Option<Backlog<Http>>, StartError> {
    if settings.datadog.is_none() {
        return Ok(None);
    }
    let spool = start_spool(datadog::NAME, settings, turn, telemetry)?;
    Ok(Some(Backlog::start(datadog::NAME, spool, telemetry.clone())))
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
    name: &'static str,
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

/// Whether two configurations ask for different sinks.
pub(super) fn differ(one: &Settings, other: &Settings) -> bool {
    let asked = |settings: &Settings| (settings.datadog.clone(), Node::of(settings));
    asked(one) != asked(other)
}
