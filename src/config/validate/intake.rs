//! Listeners, their limits, and TLS.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{classic, filled, length, number, spans, threads};
use crate::config::listen::{
    HOST_PORT, Listener, STATSD_FORMS, StatsdAddress, UnixAddress, Wrong, split_host_port,
};
use crate::config::machine::Machine;
use crate::config::problem::Report;
use crate::config::raw::{Many, One, Raw};
use crate::config::reading::Given;
use crate::config::secret::Secret;
use crate::config::settings::{IntakeSettings, RepeatAddress, TlsSettings};

/// Listened on unless any listener is configured: loopback until told otherwise.
const UDP_ADDRESS: &str = "127.0.0.1:8126";

/// The longest UDP datagram has 65507 bytes and v1.1.0 took TCP lines of 65535, so nothing
/// that arrived whole at a Veneur is refused here. Costs address space alone: only pages that
/// datagrams reach are backed by memory.
const METRIC_MAX_LENGTH: u64 = 65_536;
const READ_BUFFER_BYTES: u64 = 2 << 20;
const CONNECTIONS: u64 = 1024;

/// Long, since closing costs an idle client its next line: TCP tells it only then.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
const IDLE_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(300);

const PEM: &str = "PEM text, or the path of a file with it";

/// Everything about receiving.
pub(super) fn intake(raw: &Raw, machine: &Machine, report: &mut Report) -> IntakeSettings {
    let listeners = listeners(raw, machine, report);
    let spans = spans::spans(raw, &listeners, machine, report);
    let (max_length, buffer) = (&raw.metric_max_length, &raw.read_buffer_size_bytes);
    let (idle, handshake) = (&raw.connections_idle_timeout, &raw.connections_handshake_timeout);
    IntakeSettings {
        dialect: classic::dialect(raw, report),
        repeat_to: repeat_to(&raw.repeat_to, report),
        num_readers: threads(&raw.num_readers, machine, report),
        metric_max_length: number(max_length, 1..=1 << 20, METRIC_MAX_LENGTH, report),
        read_buffer_bytes: number(buffer, 4096..=1 << 30, READ_BUFFER_BYTES, report),
        tls: tls(raw, &listeners, machine, report),
        max_connections: number(&raw.connections_max, 1..=65_536, CONNECTIONS, report),
        idle_timeout: length(idle, &IDLE_TIMEOUTS, IDLE_TIMEOUT, report),
        handshake_timeout: length(handshake, &HANDSHAKE_TIMEOUTS, HANDSHAKE_TIMEOUT, report),
        spans,
        listeners,
    }
}

type StatsdListener = Listener<StatsdAddress>;

fn listeners(raw: &Raw, machine: &Machine, report: &mut Report) -> Vec<StatsdListener> {
    let mut listeners: Vec<StatsdListener> = Vec::new();
    let mut add =
        |given: &Given<String>, parsed: Result<StatsdListener, Wrong>, accepted| match parsed {
            Ok(new) => match listeners.iter().find(|known| known.address == new.address) {
                Some(known) if !new.address.is_any_port() => {
                    if *known == new {
                        report.warn(&given.source, "listed twice; it is listened on once");
                    } else {
                        let why = "listed twice, with different options";
                        report.refuse(&given.source, why, "each address once");
                    }
                }
                Some(_) | None => listeners.push(new),
            },
            Err(what) => report.refuse(&given.source, what, accepted),
        };
    let inet = |given: &Given<String>, kind| Listener::parse_inet(&given.value, kind, machine);
    if let Some(given) = filled(&raw.udp_address) {
        add(given, inet(given, StatsdAddress::Udp), HOST_PORT);
    }
    if let Some(given) = filled(&raw.tcp_address) {
        add(given, inet(given, StatsdAddress::Tcp), HOST_PORT);
    }
    let listed = raw.statsd_listen_addresses.as_deref().unwrap_or_default();
    for given in listed {
        add(given, StatsdListener::parse(&given.value, machine), STATSD_FORMS);
    }
    if !listeners.is_empty() {
        return listeners;
    }
    match &raw.udp_address {
        None if filled(&raw.tcp_address).is_none() && listed.is_empty() => {
            listeners.extend(Listener::parse_inet(UDP_ADDRESS, StatsdAddress::Udp, machine));
        }
        Some(given) if given.value.is_empty() => {
            report.warn(&given.source, "nothing is listened on: no statsd traffic comes in");
        }
        // Something was asked for, and has been reported.
        None | Some(_) => {}
    }
    listeners
}

/// Where a successor comes for our sockets.
pub(super) fn takeover_socket(raw: &Raw, report: &mut Report) -> Option<PathBuf> {
    let given = filled(&raw.takeover_socket)?;
    let mut refuse = |what| {
        report.refuse(&given.source, what, "a path such as /run/veneur/takeover.sock");
        None
    };
    match UnixAddress::parse(&given.value) {
        // An abstract name has no owner and no mode.
        Ok(UnixAddress::Path(path)) if path.is_absolute() => Some(path),
        Ok(_) => refuse("not an absolute path".to_owned()),
        Err(what) => refuse(what),
    }
}

fn tls(
    raw: &Raw,
    listeners: &[StatsdListener],
    machine: &Machine,
    report: &mut Report,
) -> Option<TlsSettings> {
    let keys = ServerTlsKeys {
        certificate: ("tls_certificate", &raw.tls_certificate),
        key: ("tls_key", &raw.tls_key),
        authority: &raw.tls_authority_certificate,
    };
    // An inherited socket may turn out to be a TCP listener.
    let may_be_tcp = |listener: &StatsdListener| match listener.address {
        StatsdAddress::Tcp(_) | StatsdAddress::Inherited(_) => true,
        StatsdAddress::Udp(_) | StatsdAddress::Unixgram(_) | StatsdAddress::UnixStream(_) => false,
    };
    server_tls(&keys, listeners.iter().any(may_be_tcp), machine, report)
}

/// The keys of a certificate that a server shows, by their names if messages say them.
pub(super) struct ServerTlsKeys<'a> {
    pub(super) certificate: (&'a str, &'a One<String>),
    pub(super) key: (&'a str, &'a One<String>),
    pub(super) authority: &'a One<String>,
}

/// TLS of a server, if there is a certificate and a key. It has an effect if some of its
/// listeners are of TCP.
pub(super) fn server_tls(
    keys: &ServerTlsKeys<'_>,
    has_tcp: bool,
    machine: &Machine,
    report: &mut Report,
) -> Option<TlsSettings> {
    let ((certificate_name, certificate), (key_name, key)) = (keys.certificate, keys.key);
    let (certificate, key) = (filled(certificate), filled(key));
    let authority = filled(keys.authority);
    for (given, other, name) in [
        (certificate, key, key_name),
        (key, certificate, certificate_name),
        (authority, certificate, certificate_name),
    ] {
        if let Some(given) = given
            && other.is_none()
            && !report.has_problem_with(name)
        {
            let together = format!("{certificate_name} and {key_name} together");
            report.refuse(&given.source, format!("set without {name}"), together);
        }
    }
    let given = certificate;
    let certificate = pem(certificate, "CERTIFICATE", machine, report);
    let client_authority = pem(authority, "CERTIFICATE", machine, report);
    let (certificate, key) = (certificate?, pem(key, "PRIVATE KEY", machine, report)?);
    if let Some(given) = given
        && !has_tcp
    {
        report.warn(&given.source, "without effect: there is no TCP listener");
    }
    Some(TlsSettings { certificate, key: Secret::new(key), client_authority })
}

/// PEM text with a block of `kind`: the value itself, or what the file it names holds.
pub(super) fn pem(
    given: Option<&Given<String>>,
    kind: &str,
    machine: &Machine,
    report: &mut Report,
) -> Option<String> {
    let given = given?;
    let text = if given.value.contains("-----BEGIN") {
        given.value.clone()
    } else {
        report.files.push(given.value.clone().into());
        match (machine.read)(Path::new(&given.value)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => {
                report.refuse(&given.source, format!("cannot be read: {error}"), PEM);
                return None;
            }
        }
    };
    if !text.contains(&format!("{kind}-----")) {
        report.refuse(&given.source, format!("holds no {kind}"), PEM);
        return None;
    }
    Some(text)
}

fn repeat_to(given: &Many<String>, report: &mut Report) -> Vec<RepeatAddress> {
    let mut addresses = Vec::new();
    for Given { value, source } in given.iter().flatten() {
        match repeat_address(value) {
            Ok(address) if addresses.contains(&address) => {
                report.refuse(source, "written twice", "each address once");
            }
            Ok(address) => addresses.push(address),
            Err(what) => report.refuse(source, what, "udp://HOST:PORT or tcp://HOST:PORT"),
        }
    }
    addresses
}

fn repeat_address(text: &str) -> Result<RepeatAddress, String> {
    let (scheme, name) = text.split_once("://").ok_or("no scheme")?;
    let make = match scheme {
        "udp" => RepeatAddress::Udp,
        "tcp" => RepeatAddress::Tcp,
        _ => return Err("unknown scheme".to_owned()),
    };
    match split_host_port(name)? {
        (host, port) if !host.is_empty() && port > 0 => Ok(make(name.to_owned())),
        _ => Err("no host or port to send to".to_owned()),
    }
}
