//! Where things go, and the HTTP server.

use super::forward::token;
use super::intake::{ServerTlsKeys, server_tls};
use super::{filled, flag};
use crate::config::listen::{HTTP_FORMS, HttpAddress, Listener, split_host_port};
use crate::config::machine::Machine;
use crate::config::problem::Report;
use crate::config::raw::{One, Raw};
use crate::config::secret::{BaseUrl, Secret};
use crate::config::settings::{HttpSettings, Program};

/// Loopback until told otherwise.
const HTTP_ADDRESS: &str = "127.0.0.1:8127";
/// A gatherer may run beside a daemon.
const HTTP_ADDRESS_OF_A_GATHERER: &str = "127.0.0.1:8132";

/// The HTTP server. An empty `http_address` is none.
pub(super) fn http(
    program: Program,
    raw: &Raw,
    machine: &Machine,
    report: &mut Report,
) -> HttpSettings {
    let default = match program {
        Program::Daemon | Program::Proxy => HTTP_ADDRESS,
        Program::Gatherer => HTTP_ADDRESS_OF_A_GATHERER,
    };
    let address = match &raw.http_address {
        None => Listener::<HttpAddress>::parse(default, machine).ok(),
        Some(given) if given.value.is_empty() => None,
        Some(given) => Listener::<HttpAddress>::parse(&given.value, machine)
            .map_err(|what| report.refuse(&given.source, what, HTTP_FORMS))
            .ok(),
    };
    // A passed socket may turn out to be a TCP listener, and so may one of gRPC, which is read
    // elsewhere.
    let may_be_tcp = |listener: &Listener<HttpAddress>| match listener.address {
        HttpAddress::Tcp(_) | HttpAddress::Fd(_) | HttpAddress::Einhorn(_) => true,
        HttpAddress::Unix(_) => false,
    };
    let has_tcp = address.as_ref().is_some_and(may_be_tcp) || filled(&raw.grpc_address).is_some();
    let keys = ServerTlsKeys {
        certificate: ("http.tls_certificate", &raw.http_tls_certificate),
        key: ("http.tls_key", &raw.http_tls_key),
        authority: &raw.http_tls_authority_certificate,
    };
    HttpSettings {
        address,
        config: flag(&raw.http_config, false),
        quit: flag(&raw.http_quit, false),
        token: token(&raw.http_token, report),
        tls: server_tls(&keys, has_tcp, machine, report),
    }
}

/// A base URL, if one is given that is not empty.
pub(super) fn base_url(given: &One<String>, report: &mut Report) -> Option<BaseUrl> {
    let given = filled(given)?;
    BaseUrl::parse(&given.value)
        .map_err(|accepted| report.refuse(&given.source, "not a base URL", accepted))
        .ok()
}

/// Where own telemetry goes. The name is resolved when it is used, since it may move.
pub(super) fn stats_address(given: &One<String>, report: &mut Report) -> Option<String> {
    let given = filled(given)?;
    let what = match split_host_port(&given.value) {
        Ok((host, port)) if !host.is_empty() && port > 0 => return Some(given.value.clone()),
        Ok(_) => "no host or port to send to".to_owned(),
        Err(what) => what,
    };
    report.refuse(&given.source, what, "HOST:PORT or [IPV6]:PORT");
    None
}

/// `https://PUBLIC_KEY@HOST/PROJECT`, the form Sentry gives out.
pub(super) fn sentry_dsn(given: &One<String>, report: &mut Report) -> Option<Secret> {
    let given = filled(given)?;
    if !is_dsn(&given.value) {
        report.refuse(&given.source, "not a Sentry DSN", "https://PUBLIC_KEY@HOST/PROJECT");
        return None;
    }
    Some(Secret::new(given.value.clone()))
}

fn is_dsn(text: &str) -> bool {
    let Some((user, rest)) = text.split_once("://").and_then(|(_, rest)| rest.split_once('@'))
    else {
        return false;
    };
    let public_key = user.split(':').next().unwrap_or_default();
    let project = rest.trim_end_matches('/').rsplit_once('/').map_or("", |(_, project)| project);
    !public_key.is_empty() && !project.is_empty() && BaseUrl::parse(text).is_ok()
}
