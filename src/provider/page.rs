//! `GET /statistics`: what a gatherer gets, for everybody else.
//!
//! Source: Tahoe-LAFS's `/statistics?t=json`, whose readers work against ours.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::task::spawn_blocking;

use super::Provider;
use crate::telemetry::{Telemetry, openmetrics};

/// Says whose statistics they are.
pub(crate) const INSTANCE_HEADER: HeaderName = HeaderName::from_static("x-instance-id");

/// The page. `?t=json`, the default, is what `provider` tells; `?t=openmetrics` is the page
/// `/metrics` of `telemetry`.
pub fn router(provider: Provider, telemetry: Telemetry) -> Router {
    Router::new().route("/statistics", get(statistics)).with_state((provider, telemetry))
}

async fn statistics(
    State((provider, telemetry)): State<(Provider, Telemetry)>,
    RawQuery(query): RawQuery,
) -> Response {
    let wanted = query.as_deref().unwrap_or_default();
    let wanted = wanted.split('&').find_map(|pair| pair.strip_prefix("t=")).unwrap_or("json");
    let id = provider.identity().id.clone();
    let (content_type, body) = match wanted {
        "json" => {
            let told = spawn_blocking(move || serde_json::to_string(&provider.statistics())).await;
            let Ok(Ok(text)) = told else {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            };
            ("application/json", text + "\n")
        }
        "openmetrics" => {
            let page = openmetrics::page(&telemetry, env!("CARGO_PKG_VERSION"));
            (openmetrics::CONTENT_TYPE, page)
        }
        _ => {
            let what = "400 t is json or openmetrics\n";
            return (StatusCode::BAD_REQUEST, what).into_response();
        }
    };
    let headers = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store")];
    (headers, [(INSTANCE_HEADER, id)], body).into_response()
}
