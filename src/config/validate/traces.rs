//! A Datadog trace agent.

use super::choice;
use super::delivery::base_url;
use crate::config::problem::Report;
use crate::config::secret::BaseUrl;
use crate::config::settings::{SinkKind, TraceFormat, TracesSettings};
use crate::config::sinks::RawSink;

/// Where the Datadog Agent listens for traces.
const ADDRESS: &str = "http://127.0.0.1:8126";

pub(in crate::config) fn sink(raw: &RawSink, report: &mut Report) -> Option<SinkKind> {
    Some(SinkKind::Traces(TracesSettings {
        address: base_url(&raw.address, report).or_else(|| BaseUrl::parse(ADDRESS).ok())?,
        format: choice(&raw.format, &TraceFormat::ALL, TraceFormat::as_str, report),
    }))
}
