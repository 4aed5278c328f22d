//! Forwarding upstream.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::intake::pem;
use super::upstreams;
use super::{filled, flag, length, number};
use crate::config::machine::Machine;
use crate::config::problem::Report;
use crate::config::raw::{One, Raw};
use crate::config::secret::Secret;
use crate::config::settings::{ClientTlsSettings, ForwardFormat, ForwardSettings};
use crate::config::upstream::UpstreamAddress;
use crate::model::Interval;

/// A body of so many is decoded and merged in milliseconds.
const MAX_ENTRIES_PER_BODY: u64 = 5_000;
/// Below the 4 MiB that gRPC servers take.
const MAX_BODY_BYTES: u64 = 4_000_000;
const MAX_PLAIN_BYTES: u64 = 16_000_000;
const IN_FLIGHT: u64 = 4;
const QUEUE_BYTES: u64 = 64 << 20;

const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(300);
/// Long enough for a restart of the upstream node, short enough to be news.
const QUEUE_AGE: Duration = Duration::from_secs(300);
const QUEUE_AGES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const FAILOVER_AFTER: Duration = Duration::from_secs(30);
const FAILOVERS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(86_400);
const REFRESHES: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);

/// Forwarding, if there is an upstream node.
pub(super) fn forward(
    raw: &Raw,
    interval: Interval,
    machine: &Machine,
    report: &mut Report,
) -> Option<ForwardSettings> {
    let given = upstreams::given(raw, machine, report);
    let format = format(raw, given.is_grpc(), report);
    let upstreams = upstreams::parse(&given, format, report);
    let size = |given, range, default, report: &mut Report| {
        NonZeroUsize::new(number(given, range, default, report)).unwrap_or(NonZeroUsize::MIN)
    };
    let settings = ForwardSettings {
        format,
        token: token(&raw.forward_token, report),
        tls: tls(raw, &upstreams, machine, report),
        max_entries_per_body: size(
            &raw.forward_max_entries_per_body,
            1..=1_000_000,
            MAX_ENTRIES_PER_BODY,
            report,
        ),
        max_body_bytes: size(&raw.forward_max_body_bytes, 1_000..=1 << 30, MAX_BODY_BYTES, report),
        max_plain_bytes: size(
            &raw.forward_max_plain_bytes,
            1_000..=1 << 30,
            MAX_PLAIN_BYTES,
            report,
        ),
        in_flight: size(&raw.forward_in_flight, 1..=1_000, IN_FLIGHT, report),
        timeout: length(&raw.forward_timeout, &TIMEOUTS, TIMEOUT, report),
        queue_bytes: number(&raw.forward_queue_bytes, 1_000..=1 << 40, QUEUE_BYTES, report),
        queue_age: length(&raw.forward_queue_age, &QUEUE_AGES, QUEUE_AGE, report),
        failover_after: length(&raw.forward_failover_after, &FAILOVERS, FAILOVER_AFTER, report),
        refresh: refresh(&raw.consul_refresh_interval, interval, report),
        ignored_tags: raw.ignore_tags.iter().flatten().map(|given| given.value.clone()).collect(),
        upstreams,
    };
    (!settings.upstreams.is_empty()).then_some(settings)
}

/// `forward_format`; if that is not given, what Veneur 14's `forward_use_grpc` says, or what
/// the addresses are `for_grpc`.
fn format(raw: &Raw, for_grpc: bool, report: &mut Report) -> ForwardFormat {
    let use_grpc = flag(&raw.forward_use_grpc, for_grpc);
    let Some(given) = filled(&raw.forward_format) else {
        return if use_grpc { ForwardFormat::Grpc } else { ForwardFormat::Protobuf };
    };
    let named = |format: &ForwardFormat| format.as_str() == given.value;
    let Some(format) = ForwardFormat::ALL.into_iter().find(named) else {
        let accepted = ForwardFormat::ALL.map(ForwardFormat::as_str).join(", ");
        report.refuse(&given.source, "unknown format", accepted);
        return ForwardFormat::Protobuf;
    };
    if let Some(use_grpc) = &raw.forward_use_grpc
        && use_grpc.value
        && !format.is_grpc()
    {
        report.warn(&use_grpc.source, "without effect: forward_format says otherwise");
    }
    format
}

/// Once an interval, unless it says otherwise. As in Veneur 14, 0 is nothing.
fn refresh(given: &One<Duration>, interval: Interval, report: &mut Report) -> Duration {
    let given = given.clone().filter(|given| !given.value.is_zero());
    length(&given, &REFRESHES, interval.length(), report)
}

pub(super) fn token(given: &One<String>, report: &mut Report) -> Option<Secret> {
    let given = filled(given)?;
    if given.value.contains(|c: char| !c.is_ascii_graphic()) {
        report.refuse(&given.source, "not a token", "ASCII without spaces");
    }
    Some(Secret::new(given.value.clone()))
}

fn tls(
    raw: &Raw,
    upstreams: &[UpstreamAddress],
    machine: &Machine,
    report: &mut Report,
) -> ClientTlsSettings {
    let authority = filled(&raw.forward_tls_authority_certificate);
    let certificate = filled(&raw.forward_tls_certificate);
    let key = filled(&raw.forward_tls_key);
    for (given, other, name) in
        [(certificate, key, "forward.tls_key"), (key, certificate, "forward.tls_certificate")]
    {
        if let Some(given) = given
            && other.is_none()
            && !report.has_problem_with(name)
        {
            let accepted = "forward.tls_certificate and forward.tls_key together";
            report.refuse(&given.source, format!("set without {name}"), accepted);
        }
    }
    let is_https = |upstream: &UpstreamAddress| {
        upstream.url().reveal().get(..6).is_some_and(|s| s.eq_ignore_ascii_case("https:"))
    };
    if let Some(given) = authority.or(certificate)
        && !upstreams.is_empty()
        && !upstreams.iter().any(is_https)
    {
        report.warn(&given.source, "without effect: no upstream address is https");
    }
    let authority = pem(authority, "CERTIFICATE", machine, report);
    let certificate = pem(certificate, "CERTIFICATE", machine, report);
    let key = pem(key, "PRIVATE KEY", machine, report);
    ClientTlsSettings { authority, certificate: certificate.zip(key.map(Secret::new)) }
}
