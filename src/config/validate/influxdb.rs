//! An InfluxDB sink.

use super::delivery::base_url;
use super::{choice, filled};
use crate::config::problem::Report;
use crate::config::raw::One;
use crate::config::secret::{BASE_URL_FORMS, Secret};
use crate::config::settings::{InfluxdbApi, InfluxdbLayout, InfluxdbSettings, SinkKind};
use crate::config::sinks::RawSink;

const CONSISTENCIES: [&str; 4] = ["any", "one", "quorum", "all"];

pub(in crate::config) fn sink(raw: &RawSink, report: &mut Report) -> Option<SinkKind> {
    let address = base_url(&raw.address, report);
    if filled(&raw.address).is_none() {
        report.refuse(&raw.source, "an influxdb sink without an address", BASE_URL_FORMS);
    }
    let layout = choice(&raw.layout, &InfluxdbLayout::ALL, InfluxdbLayout::as_str, report);
    let api = match (filled(&raw.bucket), filled(&raw.database)) {
        (Some(bucket), Some(_)) => {
            report.refuse(&bucket.source, "set beside database", "bucket for v2, database for v1");
            None
        }
        (Some(bucket), None) => v2(raw, bucket.value.clone(), report),
        (None, Some(database)) => Some(v1(raw, database.value.clone(), report)),
        (None, None) => {
            let accepted = "database for v1, or bucket, org and token for v2";
            report.refuse(&raw.source, "an influxdb sink without a database or a bucket", accepted);
            None
        }
    };
    Some(SinkKind::Influxdb(InfluxdbSettings { address: address?, api: api?, layout }))
}

fn v1(raw: &RawSink, database: String, report: &mut Report) -> InfluxdbApi {
    let others = [&raw.org, &raw.token];
    of_the_other(&others, "of v2: without effect beside database", report);
    if let Some(given) = filled(&raw.consistency)
        && !CONSISTENCIES.contains(&given.value.as_str())
    {
        report.refuse(&given.source, "not a consistency", CONSISTENCIES.join(", "));
    }
    if let (Some(given), None) = (filled(&raw.password), filled(&raw.user)) {
        report.refuse(&given.source, "set without user", "user and password together");
    }
    InfluxdbApi::V1 {
        database,
        retention_policy: text(&raw.retention_policy),
        consistency: text(&raw.consistency),
        user: text(&raw.user),
        password: text(&raw.password).map(Secret::new),
    }
}

fn v2(raw: &RawSink, bucket: String, report: &mut Report) -> Option<InfluxdbApi> {
    let others = [&raw.retention_policy, &raw.consistency, &raw.user, &raw.password];
    of_the_other(&others, "of v1: without effect beside bucket", report);
    let (org, token) = (text(&raw.org), text(&raw.token));
    if org.is_none() || token.is_none() {
        report.refuse(&raw.source, "a bucket without org or token", "bucket, org and token");
    }
    if let Some(given) = filled(&raw.token)
        && given.value.contains(|c: char| !c.is_ascii_graphic())
    {
        report.refuse(&given.source, "not a token", "ASCII without spaces");
    }
    Some(InfluxdbApi::V2 { org: org?, bucket, token: Secret::new(token?) })
}

fn of_the_other(settings: &[&One<String>], what: &str, report: &mut Report) {
    for given in settings.iter().filter_map(|given| filled(given)) {
        report.warn(&given.source, what);
    }
}

fn text(given: &One<String>) -> Option<String> {
    filled(given).map(|given| given.value.clone())
}
