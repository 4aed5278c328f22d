//! Where finished points go.

use std::num::NonZeroUsize;

use crate::config::secret::{BaseUrl, Secret};
use crate::model::{Pattern, TagMatcher};

/// One sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkSettings {
    /// Unique; what logs, own metrics and its directory in the spool are called.
    pub name: String,
    /// What it is, and the settings of that.
    pub kind: SinkKind,
    /// What it gets.
    pub filter: FilterSettings,
}

/// What a sink is.
#[derive(Clone, Debug, PartialEq)]
pub enum SinkKind {
    /// Datadog's intake.
    Datadog(DatadogSettings),
    /// A table on standard output.
    Console {
        /// Show the daemon's own telemetry, too.
        own: bool,
    },
}

impl SinkKind {
    /// Its word in the configuration.
    pub const fn as_str(&self) -> &'static str {
        match self {
            SinkKind::Datadog(_) => "datadog",
            SinkKind::Console { .. } => "console",
        }
    }

    /// Where it delivers to, for people.
    pub fn place(&self) -> String {
        match self {
            SinkKind::Datadog(datadog) => datadog.api_hostname.redacted(),
            SinkKind::Console { .. } => "standard output".to_owned(),
        }
    }
}

/// What a sink gets of a flush.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterSettings {
    /// If there are any, only metrics that one of them means.
    pub include: Vec<Pattern>,
    /// Not the metrics that one of them means.
    pub exclude: Vec<Pattern>,
    /// Without these tags.
    pub strip_tags: Vec<TagMatcher>,
}

/// The Datadog sink.
#[derive(Clone, Debug, PartialEq)]
pub struct DatadogSettings {
    /// Where the Datadog API is.
    pub api_hostname: BaseUrl,
    /// API key.
    pub key: Option<Secret>,
    /// Also send the key as v1.1.0 did, as `?api_key=`.
    pub key_in_query: bool,
    /// Most series in one body.
    pub flush_max_per_body: NonZeroUsize,
}
