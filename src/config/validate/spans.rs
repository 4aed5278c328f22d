//! Listeners of SSF.

use super::{filled, number};
use crate::config::listen::{HOST_PORT, Listener, StatsdAddress, Wrong};
use crate::config::machine::Machine;
use crate::config::problem::Report;
use crate::config::raw::Raw;
use crate::config::reading::Given;
use crate::config::settings::SpanSettings;

/// Everything that UDP can carry.
const MAX_LENGTH: u64 = 65_536;
/// Veneur 14's limit of frames.
const LONGEST_FRAME: u64 = 16 << 20;
const FORMS: &str = "udp://HOST:PORT, unix:///PATH or unix://@NAME";

type SpanListener = Listener<StatsdAddress>;

pub(super) fn spans(
    raw: &Raw,
    statsd: &[SpanListener],
    machine: &Machine,
    report: &mut Report,
) -> SpanSettings {
    let mut listeners: Vec<SpanListener> = Vec::new();
    let mut add =
        |given: &Given<String>, parsed: Result<SpanListener, Wrong>, accepted| match parsed {
            Ok(mut listener) => {
                listener.options.spans = true;
                let is_taken = |other: &SpanListener| {
                    other.address == listener.address && !other.address.is_any_port()
                };
                if statsd.iter().chain(&listeners).any(is_taken) {
                    report.refuse(&given.source, "listened on already", "each address once");
                } else {
                    listeners.push(listener);
                }
            }
            Err(what) => report.refuse(&given.source, what, accepted),
        };
    if let Some(given) = filled(&raw.trace_address) {
        add(given, Listener::parse_inet(&given.value, StatsdAddress::Udp, machine), HOST_PORT);
    }
    for given in raw.ssf_listen_addresses.iter().flatten() {
        let parsed = SpanListener::parse(&given.value, machine).and_then(speaks_ssf);
        add(given, parsed, FORMS);
    }
    let name = |given| filled(given).map(|given: &Given<String>| given.value.clone());
    SpanSettings {
        listeners,
        max_length: number(&raw.trace_max_length_bytes, 1..=LONGEST_FRAME, MAX_LENGTH, report),
        indicator_timer: name(&raw.indicator_span_timer_name),
        objective_timer: name(&raw.objective_span_timer_name),
    }
}

fn speaks_ssf(listener: SpanListener) -> Result<SpanListener, Wrong> {
    match (&listener.address, listener.options.dialect) {
        (_, Some(_)) => Err("dialects are of lines, and spans come in here".to_owned()),
        (StatsdAddress::Udp(_) | StatsdAddress::UnixStream(_), None) => Ok(listener),
        (
            StatsdAddress::Tcp(_) | StatsdAddress::Unixgram(_) | StatsdAddress::Inherited(_),
            None,
        ) => Err("spans come in datagrams of UDP, or framed over Unix streams".to_owned()),
    }
}
