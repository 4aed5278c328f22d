//! The sinks a configuration asks for.

use crate::config::Settings;
use crate::sinks::console::Console;
use crate::sinks::datadog::Datadog;
use crate::sinks::post::SetupError;
use crate::sinks::{Node, SinkTask};
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
) -> Result<Vec<SinkTask>, SetupError> {
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

/// Whether two configurations ask for different sinks.
pub(super) fn differ(one: &Settings, other: &Settings) -> bool {
    let asked = |settings: &Settings| (settings.datadog.clone(), Node::of(settings));
    asked(one) != asked(other)
}
