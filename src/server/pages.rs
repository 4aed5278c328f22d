//! The HTTP and gRPC servers: what they show, and until when.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::config::Settings;
use crate::config::listen::HttpAddress;
use crate::forward::import::Import;
use crate::forward::import::grpc::{self, GrpcLimits};
use crate::http::{self, ConfigFormat, ConfigText, HttpState, Limits};
use crate::ingest::{Hold, HttpListener};
use crate::model::Phase;
use crate::telemetry::Telemetry;

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

/// Starts the HTTP and the gRPC server, as far as there are listeners. They end when all is
/// delivered: until then their pages can be looked at, unless a successor has their sockets.
///
/// # Errors
/// The runtime does not take a socket.
pub(super) fn open(
    http: Option<HttpListener>,
    grpc: Option<HttpListener>,
    import: &Import,
    shown: &Arc<Mutex<Settings>>,
    phase: &watch::Sender<Phase>,
    quit: mpsc::Sender<()>,
    telemetry: &Telemetry,
) -> io::Result<Doors> {
    let settings = shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let http_address = address(http.as_ref(), settings.http.address.as_ref().map(|it| &it.address));
    let grpc_address =
        address(grpc.as_ref(), settings.import.grpc_address.as_ref().map(|it| &it.address));
    let http = http.map(|listener| {
        let state = HttpState {
            telemetry: telemetry.clone(),
            phase: phase.subscribe(),
            config: settings.http.config.then(|| config_text(shown)),
            quit: settings.http.quit.then_some(quit),
        };
        serve(listener, http::router(state).merge(import.router()), phase.subscribe(), telemetry)
    });
    let grpc =
        grpc.map(|listener| serve_grpc(listener, import.clone(), phase.subscribe(), telemetry));
    let servers = http.into_iter().chain(grpc).collect::<io::Result<_>>()?;
    Ok(Doors { servers, http: http_address, grpc: grpc_address })
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

fn serve(
    listener: HttpListener,
    router: Router,
    phases: watch::Receiver<Phase>,
    telemetry: &Telemetry,
) -> io::Result<JoinHandle<()>> {
    let stop = stopped(phases, listener.hold().clone());
    let (limits, telemetry) = (Limits::default(), telemetry.clone());
    Ok(match listener {
        HttpListener::Tcp(listener, _) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(http::serve(listener, router, limits, telemetry, stop))
        }
        HttpListener::Unix(listener, _, file) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            tokio::spawn(async move {
                http::serve(listener, router, limits, telemetry, stop).await;
                drop(file);
            })
        }
    })
}

fn serve_grpc(
    listener: HttpListener,
    import: Import,
    phases: watch::Receiver<Phase>,
    telemetry: &Telemetry,
) -> io::Result<JoinHandle<()>> {
    let stop = stopped(phases, listener.hold().clone());
    let (limits, telemetry) = (GrpcLimits::default(), telemetry.clone());
    Ok(match listener {
        HttpListener::Tcp(listener, _) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(grpc::serve(listener, import, limits, telemetry, stop))
        }
        HttpListener::Unix(listener, _, file) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            tokio::spawn(async move {
                grpc::serve(listener, import, limits, telemetry, stop).await;
                drop(file);
            })
        }
    })
}

/// When a server accepts no more: at the end, or when a successor does.
async fn stopped(mut phases: watch::Receiver<Phase>, hold: Hold) {
    let is_over =
        |phase: &Phase| *phase == Phase::Stopped || *phase == Phase::Draining && !hold.is_ours();
    // The sender lives as long as the daemon.
    let _ = phases.wait_for(is_over).await;
}

/// Where a server can be reached: where it is bound, or else what was configured.
fn address(listener: Option<&HttpListener>, configured: Option<&HttpAddress>) -> String {
    let bound = match listener {
        None => return "off".to_owned(),
        Some(HttpListener::Tcp(listener, _)) => listener.local_addr().ok(),
        Some(HttpListener::Unix(..)) => None,
    };
    match (bound, configured) {
        (Some(address), _) => address.to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => String::new(),
    }
}
