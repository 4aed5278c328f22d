//! Importing what other nodes forward.

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::forward::token;
use super::{filled, length, number};
use crate::config::listen::{HTTP_FORMS, HttpAddress, Listener};
use crate::config::machine::Machine;
use crate::config::problem::Report;
use crate::config::raw::{One, Raw};
use crate::config::secret::Secret;
use crate::config::settings::ImportSettings;

/// Veneur 1.1 sends everything in one body: these take that of a host with some ten thousand
/// timers.
const MAX_ENTRIES_PER_BODY: u64 = 200_000;
const MAX_BODY_BYTES: u64 = 32 << 20;
const MAX_PLAIN_BYTES: u64 = 64 << 20;
const IN_FLIGHT: u64 = 8;

const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(30);

/// What may be sent here. An empty `grpc_address` is no gRPC server.
/// Without a token of its own, that of the HTTP server counts.
pub(super) fn import(
    raw: &Raw,
    http_token: Option<&Secret>,
    machine: &Machine,
    report: &mut Report,
) -> ImportSettings {
    let grpc_address = filled(&raw.grpc_address).and_then(|given| {
        Listener::<HttpAddress>::parse(&given.value, machine)
            .map_err(|what| report.refuse(&given.source, what, HTTP_FORMS))
            .ok()
    });
    let mut size = |given: &One<u64>, range, default| {
        NonZeroUsize::new(number(given, range, default, report)).unwrap_or(NonZeroUsize::MIN)
    };
    let entries = &raw.import_max_entries_per_body;
    let (body, plain) = (&raw.import_max_body_bytes, &raw.import_max_plain_bytes);
    ImportSettings {
        grpc_address,
        max_entries_per_body: size(entries, 1..=10_000_000, MAX_ENTRIES_PER_BODY),
        max_body_bytes: size(body, 1_000..=1 << 30, MAX_BODY_BYTES),
        max_plain_bytes: size(plain, 1_000..=1 << 32, MAX_PLAIN_BYTES),
        in_flight: size(&raw.import_in_flight, 1..=1_000, IN_FLIGHT),
        token: token(&raw.import_token, report).or_else(|| http_token.cloned()),
        timeout: length(&raw.import_timeout, &TIMEOUTS, TIMEOUT, report),
    }
}
