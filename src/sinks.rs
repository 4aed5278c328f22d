//! Somewhere finished points go.
//!
//! The flush offers one [`FlushBatch`] per interval to a [`SinkTask`] for each configured
//! sink. The task owns its [`MetricSink`], hands it one batch after the other and enters what
//! became of each into our own telemetry; a slow sink delays neither the flush nor another
//! sink. Sinks that speak HTTP share [`post`]: bodies of bounded size, retries, splitting; what they
//! could not deliver waits in a [`backlog`].

use std::future::Future;
use std::sync::Arc;

use tokio::time::Instant;

use crate::config::Settings;
use crate::model::FlushBatch;

pub mod backlog;
pub mod console;
pub mod datadog;
pub mod delivered;
pub mod file;
pub mod filter;
pub mod graphite;
pub mod influxdb;
pub mod json;
pub mod labels;
pub mod owner;
pub mod post;
pub mod traces;
pub mod tsv;

pub use delivered::{Delivered, Reason, Tally};
pub use filter::Filter;
pub use owner::SinkTask;

/// Somewhere finished points go. Each sink is owned by one task, so it needs no locks.
pub trait MetricSink: Send + 'static {
    /// Config name, log field and `sink:` tag of our own metrics. Unique per instance.
    fn name(&self) -> &str;

    /// Delivers one interval, retrying as it sees fit, and returns by `deadline`.
    ///
    /// The answer accounts for every point, event and check of `batch`.
    fn flush(
        &mut self,
        batch: Arc<FlushBatch>,
        deadline: Instant,
    ) -> impl Future<Output = Delivered> + Send;
}

/// What this node adds to everything it emits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The host of what names none.
    pub host: Option<String>,
    /// Appended to the tags, in the order configured.
    pub tags: Vec<String>,
}

impl Node {
    /// As configured, for a sink with this filter.
    pub fn of(settings: &Settings, filter: &Filter) -> Node {
        let mut tags = settings.tags.clone();
        filter.strip(&mut tags);
        Node { host: settings.hostname.clone(), tags }
    }
}
