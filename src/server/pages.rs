//! The HTTP server: what it shows, and until when.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Loaded, Settings};
use crate::http::{self, ConfigFormat, ConfigText, HttpState, Limits};
use crate::ingest::HttpListener;
use crate::model::Phase;
use crate::telemetry::Telemetry;

/// The text of the configuration pages: of the configuration in use when somebody looks.
pub(super) fn config_text(shown: &Arc<Mutex<Loaded>>) -> ConfigText {
    let shown = Arc::clone(shown);
    Arc::new(move |format| {
        let loaded = shown.lock().unwrap_or_else(PoisonError::into_inner);
        match format {
            ConfigFormat::Json => loaded.settings.effective_json(),
            ConfigFormat::Yaml => loaded.settings.effective_yaml(),
        }
    })
}

/// Starts it. It ends when the daemon drains.
///
/// # Errors
/// The runtime does not take the socket.
pub(super) fn serve(
    listener: HttpListener,
    state: HttpState,
    mut phases: watch::Receiver<Phase>,
    telemetry: &Telemetry,
) -> io::Result<JoinHandle<()>> {
    let router = http::router(state);
    let stop = async move {
        // The sender lives as long as the daemon.
        let _ = phases.wait_for(|phase| *phase == Phase::Draining).await;
    };
    let telemetry = telemetry.clone();
    Ok(match listener {
        HttpListener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tokio::spawn(http::serve(listener, router, Limits::default(), telemetry, stop))
        }
        HttpListener::Unix(listener, file) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            tokio::spawn(async move {
                http::serve(listener, router, Limits::default(), telemetry, stop).await;
                drop(file);
            })
        }
    })
}

/// Where the HTTP server can be reached.
pub(super) fn address(listener: &HttpListener, settings: &Settings) -> String {
    let configured =
        || settings.http.address.as_ref().map_or_else(String::new, ToString::to_string);
    match listener {
        HttpListener::Tcp(listener) => {
            listener.local_addr().map_or_else(|_| configured(), |address| address.to_string())
        }
        HttpListener::Unix(..) => configured(),
    }
}
