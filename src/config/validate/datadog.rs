//! The Datadog sink.

use std::num::NonZeroUsize;

use super::delivery::base_url;
use super::{filled, flag, number};
use crate::config::problem::Report;
use crate::config::secret::{BaseUrl, Secret};
use crate::config::settings::{DatadogSettings, SinkKind};
use crate::config::sinks::RawSink;

const API_HOSTNAME: &str = "https://app.datadoghq.com";
/// As Veneur 14 has it; v1.1.0 had no default.
const FLUSH_MAX_PER_BODY: u64 = 25_000;

pub(in crate::config) fn sink(raw: &RawSink, report: &mut Report) -> Option<SinkKind> {
    let max = number(&raw.max_per_body, 1..=1_000_000, FLUSH_MAX_PER_BODY, report);
    let key = filled(&raw.key);
    if key.is_none() {
        let source = filled(&raw.address).map_or(&raw.source, |given| &given.source);
        report.warn(source, "set without key: Datadog itself would refuse what we send");
    }
    if let Some(given) = key
        && given.value.contains(|c: char| !c.is_ascii_graphic())
    {
        report.refuse(&given.source, "not an API key", "ASCII without spaces");
    }
    Some(SinkKind::Datadog(DatadogSettings {
        api_hostname: base_url(&raw.address, report)
            .or_else(|| BaseUrl::parse(API_HOSTNAME).ok())?,
        key: key.map(|given| Secret::new(given.value.clone())),
        key_in_query: flag(&raw.key_in_query, false),
        flush_max_per_body: NonZeroUsize::new(max)?,
    }))
}
