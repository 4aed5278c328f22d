//! The HTTP server: health, version, configuration and own metrics of a running daemon.
//!
//! [`router`] has the pages, [`serve`] the connections and their limits ([`Limits`]). Pages of
//! other parts are merged into the router before it is served. Whoever listens binds the
//! socket, so that a port that is taken stops the start.
//!
//! | Path | Answer |
//! |---|---|
//! | `GET /healthcheck`, `/healthcheck/tracing` | `ok` as long as the process answers at all |
//! | `GET /ready` | 200 while it takes traffic, else 503, and the phase |
//! | `GET /version`, `/builddate` | one line |
//! | `GET /config/json`, `/config/yaml` | the configuration, secrets hidden; if enabled |
//! | `GET /metrics` | own metrics as OpenMetrics |
//! | `POST /quitquitquit` | answers, then drains and ends; if enabled |
//!
//! `HEAD` works wherever `GET` does. Another path is 404, another method 405. With a token, all
//! but the first two lines of the table ask for it, and answer 401 without it.
//!
//! Source: Veneur 1.1.0 and 14.2.0; `/ready`, `/metrics` and 405 are ours.

mod serve;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::middleware::{self, Next};
use axum::response::{Extension, IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::{mpsc, watch};

use crate::config::Secret;
use crate::model::Phase;
use crate::net::bearer;
use crate::telemetry::{Telemetry, openmetrics};

pub use serve::{Limits, serve};

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// When it was built: `SOURCE_DATE_EPOCH` of the build (seconds since 1970), so that equal
/// sources make equal binaries.
const BUILD_DATE: &str = match option_env!("SOURCE_DATE_EPOCH") {
    Some(seconds) => seconds,
    None => "unknown",
};

/// Longest request body these pages take: none of them reads one.
const MAX_BODY_BYTES: u64 = 4096;

/// What the configuration is shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigFormat {
    /// `/config/json`
    Json,
    /// `/config/yaml`
    Yaml,
}

/// Makes the text of the configuration pages. It must hide secrets.
pub type ConfigText = Arc<dyn Fn(ConfigFormat) -> String + Send + Sync>;

/// What the pages show. Cloning shares.
#[derive(Clone)]
pub struct HttpState {
    /// Shown on `/metrics`.
    pub telemetry: Telemetry,
    /// Shown on `/ready`.
    pub phase: watch::Receiver<Phase>,
    /// The configuration pages; `None`: there are none.
    pub config: Option<ConfigText>,
    /// Told once `POST /quitquitquit` has been answered; `None`: there is no such page.
    pub quit: Option<mpsc::Sender<()>>,
    /// What a client must show for any page but those that say whether we live and are ready.
    pub token: Option<Secret>,
}

/// A message for after the answer: an answer that carries it closes its connection, and the
/// message is sent when the client has had its chance to read it.
#[derive(Clone)]
struct AfterAnswer(mpsc::Sender<()>);

/// The pages.
pub fn router(state: HttpState) -> Router {
    router_with(state, Router::new())
}

/// The pages, and `more` for those who may see them.
pub fn router_with(state: HttpState, more: Router) -> Router {
    let for_everyone = Router::new()
        .route("/healthcheck", get(ok))
        .route("/healthcheck/tracing", get(ok))
        .route("/ready", get(ready));
    let mut router = Router::new()
        .route("/version", get(concat!(env!("CARGO_PKG_VERSION"), "\n")))
        .route("/builddate", get(format!("{BUILD_DATE}\n")))
        .route("/metrics", get(metrics));
    if let Some(config) = &state.config {
        let page = |format, content_type| {
            let config = Arc::clone(config);
            get(async move || ([(CONTENT_TYPE, content_type)], config(format)))
        };
        router = router
            .route("/config/json", page(ConfigFormat::Json, "application/json"))
            .route("/config/yaml", page(ConfigFormat::Yaml, "application/yaml"));
    }
    if let Some(quit) = &state.quit {
        let after = AfterAnswer(quit.clone());
        let answer = async || (Extension(after), "Beginning graceful shutdown....\n");
        router = router.route("/quitquitquit", post(answer));
    }
    router = router.merge(more.with_state(()));
    if let Some(token) = state.token.clone() {
        let authorize = middleware::from_fn_with_state(Arc::new(token), authorize);
        router = router.route_layer(authorize);
    }
    let router = router.merge(for_everyone);
    router.route_layer(middleware::from_fn(refuse_body)).with_state(state)
}

async fn ok() -> &'static str {
    "ok\n"
}

async fn ready(State(state): State<HttpState>) -> (StatusCode, String) {
    let phase = *state.phase.borrow();
    let status = match phase {
        Phase::Ready => StatusCode::OK,
        Phase::Starting | Phase::Draining | Phase::Stopped => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{}\n", phase.as_str()))
}

async fn metrics(State(state): State<HttpState>) -> impl IntoResponse {
    ([(CONTENT_TYPE, openmetrics::CONTENT_TYPE)], openmetrics::page(&state.telemetry, VERSION))
}

/// Answers those who show the token.
async fn authorize(State(token): State<Arc<Secret>>, request: Request, next: Next) -> Response {
    if !bearer::shows(request.headers(), &token) {
        let asked = [(WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, asked, "missing or wrong token\n").into_response();
    }
    next.run(request).await
}

/// Refuses a body that is announced as too long. One of unknown length is never read.
async fn refuse_body(request: Request, next: Next) -> Response {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(length) if length > MAX_BODY_BYTES => {
            (StatusCode::PAYLOAD_TOO_LARGE, "request body too long\n").into_response()
        }
        Some(_) | None => next.run(request).await,
    }
}
