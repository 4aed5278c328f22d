//! The HTTP and gRPC servers: what they show, and until when.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::config::listen::{HttpAddress, Listener};
use crate::config::{Loaded, Settings};
use crate::forward::import::Import;
use crate::forward::import::grpc::{self, GrpcLimits};
use crate::http::{self, ConfigFormat, ConfigText, HttpState, Limits};
use crate::ingest::{Certificates, Door, Hold, HttpListener, HttpSocket};
use crate::model::Phase;
use crate::telemetry::{Telemetry, names};

/// The text of the configuration pages: of the configuration in use when somebody looks.
fn config_text(shown: &Arc<Mutex<Settings>>) -> ConfigText {
    let shown = Arc::clone(shown);
    Arc::new(move |format| {
        let settings = shown.lock().unwrap_or_else(PoisonError::into_inner);
        match format {
            ConfigFormat::Json => settings.effective_json(),
            ConfigFormat::Yaml => settings.effective_yaml(),
        }
    })
}

/// The servers, and where they can be reached.
pub(super) struct Doors {
    servers: Vec<JoinHandle<()>>,
    pub(super) http: String,
    pub(super) grpc: String,
}

impl Doors {
    /// Waits until they have ended: they do so when the phase is [`Phase::Stopped`].
    pub(super) async fn close(self) {
        for server in self.servers {
            if let Err(error) = server.await {
                error!(%error, "a server failed");
            }
        }
    }
}

/// Sockets of the servers.
pub(super) struct Sockets {
    pub(super) http: Option<HttpListener>,
    pub(super) grpc: Option<HttpListener>,
}

/// What the servers serve beside the pages that every program has.
pub(super) struct Offer<'a> {
    /// None: nothing can be imported.
    pub(super) import: Option<&'a Import>,
    /// More pages, for those who may see the others.
    pub(super) pages: Router,
}

/// Starts the HTTP and the gRPC server, as far as there are listeners. They end when all is
/// delivered: until then their pages can be looked at, unless a successor has their sockets.
///
/// # Errors
/// The runtime does not take a socket.
pub(super) fn open(
    sockets: Sockets,
    offer: Offer<'_>,
    shown: &Arc<Mutex<Settings>>,
    phase: &watch::Sender<Phase>,
    quit: mpsc::Sender<()>,
    telemetry: &Telemetry,
) -> io::Result<Doors> {
    let Sockets { http, grpc } = sockets;
    let Offer { import, pages } = offer;
    let settings = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let http_address = address(http.as_ref(), settings.http.address.as_ref());
    let grpc_address = address(grpc.as_ref(), settings.import.grpc_address.as_ref());
    let patience = settings.intake.handshake_timeout;
    let stop = |listener: &HttpListener| stopped(phase.subscribe(), listener.hold().clone());
    let mut servers = Vec::new();
    if let Some(listener) = http {
        let stop = stop(&listener);
        let metric = names::HTTP_CONNECTIONS_CLOSED_TOTAL;
        let door = Door::open(listener, patience, telemetry, metric)?;
        let state = HttpState {
            telemetry: telemetry.clone(),
            phase: phase.subscribe(),
            config: settings.http.config.then(|| config_text(shown)),
            quit: settings.http.quit.then_some(quit),
            token: settings.http.token,
        };
        let import = import.map(Import::router).unwrap_or_default();
        let router = http::router_with(state, pages).merge(import);
        let (limits, telemetry) = (Limits::default(), telemetry.clone());
        servers.push(tokio::spawn(http::serve(door, router, limits, telemetry, stop)));
    }
    if let Some((listener, import)) = grpc.zip(import) {
        let stop = stop(&listener);
        let metric = names::GRPC_CONNECTIONS_CLOSED_TOTAL;
        let door = Door::open(listener, patience, telemetry, metric)?;
        let (limits, telemetry) = (GrpcLimits::default(), telemetry.clone());
        servers.push(tokio::spawn(grpc::serve(door, import.clone(), limits, telemetry, stop)));
    }
    Ok(Doors { servers, http: http_address, grpc: grpc_address })
}

/// The certificates of a new configuration; `None` if they cannot be used, which is said.
pub(super) fn certificates(settings: &Settings) -> Option<Certificates> {
    Certificates::new(settings.intake.tls.as_ref(), settings.http.tls.as_ref())
        .inspect_err(|error| {
            error!(%error, "the new configuration is not used, the old one stays");
        })
        .ok()
}

/// Uses what of a new configuration a program that only has these servers can use without a
/// restart: nothing, if a certificate in it cannot be used.
pub(super) fn reload(
    settings: &mut Settings,
    loaded: Loaded,
    shown: &Mutex<Settings>,
    certificates: &Certificates,
) {
    let waiting = settings.needs_restart(&loaded.settings);
    let live = settings.with_live(loaded.settings);
    let Some(fresh) = self::certificates(&live) else { return };
    certificates.replace(fresh);
    *settings = live;
    say_what_waits(&waiting);
    *shown.lock().unwrap_or_else(PoisonError::into_inner) = settings.clone();
}

/// Says what of a new configuration is in use.
pub(super) fn say_what_waits(waiting: &[&str]) {
    if waiting.is_empty() {
        info!("the new configuration is in use");
    } else {
        let keys = waiting.join(", ");
        warn!(keys, "the new configuration is in use, but these keys wait for a restart");
    }
}

/// When a server accepts no more: at the end, or when a successor does.
async fn stopped(mut phases: watch::Receiver<Phase>, hold: Hold) {
    let is_over =
        |phase: &Phase| *phase == Phase::Stopped || *phase == Phase::Draining && !hold.is_ours();
    // The sender lives as long as the daemon.
    let _ = phases.wait_for(is_over).await;
}

/// Where a server can be reached: where it is bound, or else what was configured.
fn address(listener: Option<&HttpListener>, configured: Option<&Listener<HttpAddress>>) -> String {
    let bound = match listener.map(|listener| &listener.socket) {
        None => return "off".to_owned(),
        Some(HttpSocket::Tcp(listener)) => listener.local_addr().ok(),
        Some(HttpSocket::Unix(_)) => None,
    };
    match (bound, configured) {
        (Some(address), _) => address.to_string(),
        (None, Some(listener)) => listener.address.to_string(),
        (None, None) => String::new(),
    }
}
