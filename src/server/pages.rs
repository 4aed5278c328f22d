//! The HTTP and gRPC servers: what they show, and until when.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Settings;
use crate::config::listen::HttpAddress;
use crate::forward::import::Import;
use crate::forward::import::grpc::{self, GrpcLimits};
use crate::http::{self, ConfigFormat, ConfigText, Limits};
use crate::ingest::HttpListener;
use crate::model::Phase;
use crate::telemetry::Telemetry;

/// The text of the configuration pages: of the configuration in use when somebody looks.
pub(super) fn config_text(shown: &Arc<Mutex<Settings>>) -> ConfigText {
    let shown = Arc::clone(shown);
    Arc::new(move |format| {
        let settings = shown.lock().unwrap_or_else(PoisonError::into_inner);
        match format {
            ConfigFormat::Json => settings.effective_json(),
            ConfigFormat::Yaml => settings.effective_yaml(),
        }
    })
}

/// Starts the HTTP server. It ends when all is delivered: until then its pages can be
/// looked at.
///
/// # Errors
/// The runtime does not take the socket.
pub(super) fn serve(
    listener: HttpListener,
    router: Router,
    phases: watch::Receiver<Phase>,
    telemetry: &Telemetry,
) -> io::Result<JoinHandle<()>> {
    let (limits, telemetry, stop) = (Limits::default(), telemetry.clone(), stopped(phases));
    Ok(match listener {
        HttpListener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(http::serve(listener, router, limits, telemetry, stop))
        }
        HttpListener::Unix(listener, file) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            tokio::spawn(async move {
                http::serve(listener, router, limits, telemetry, stop).await;
                drop(file);
            })
        }
    })
}

/// Starts the gRPC server. It ends when all is delivered: until then its pages can be
/// looked at.
///
/// # Errors
/// The runtime does not take the socket.
pub(super) fn serve_grpc(
    listener: HttpListener,
    import: Import,
    phases: watch::Receiver<Phase>,
    telemetry: &Telemetry,
) -> io::Result<JoinHandle<()>> {
    let (limits, telemetry, stop) = (GrpcLimits::default(), telemetry.clone(), stopped(phases));
    Ok(match listener {
        HttpListener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(grpc::serve(listener, import, limits, telemetry, stop))
        }
        HttpListener::Unix(listener, file) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            tokio::spawn(async move {
                grpc::serve(listener, import, limits, telemetry, stop).await;
                drop(file);
            })
        }
    })
}

async fn stopped(mut phases: watch::Receiver<Phase>) {
    // The sender lives as long as the daemon.
    let _ = phases.wait_for(|phase| *phase == Phase::Stopped).await;
}

/// Where a server can be reached: where it is bound, or else what was configured.
pub(super) fn address(listener: Option<&HttpListener>, configured: Option<&HttpAddress>) -> String {
    let bound = match listener {
        None => return "off".to_owned(),
        Some(HttpListener::Tcp(listener)) => listener.local_addr().ok(),
        Some(HttpListener::Unix(..)) => None,
    };
    match (bound, configured) {
        (Some(address), _) => address.to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => String::new(),
    }
}
