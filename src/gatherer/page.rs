//! An instance that is polled over HTTP, because it cannot register.

use std::sync::Arc;

use reqwest::Url;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

use super::roll::Poll;
use super::session::now;
use super::store::{Entry, Gathered};
use super::{House, SetupError};
use crate::config::secret::BaseUrl;
use crate::net::http::{causes, client_for};
use crate::provider::wire::MAX_LINE_BYTES;
use crate::provider::{INSTANCE_HEADER, is_id};
use crate::telemetry::names;

/// What is asked for: the page of our own instances, and of Tahoe-LAFS's.
const PATH: &str = "/statistics?t=json";

/// One such instance.
pub(super) struct Page {
    client: reqwest::Client,
    url: Url,
    shown: String,
    polls: mpsc::Receiver<Poll>,
}

impl Page {
    /// One at `url`, and the way to have it asked.
    ///
    /// # Errors
    /// It is no URL, or there is no client for it.
    pub(super) fn new(url: &BaseUrl) -> Result<(Page, mpsc::Sender<Poll>), SetupError> {
        let shown = url.redacted();
        let url = Url::parse(&format!("{}{PATH}", url.reveal()));
        let url = url.map_err(|_| SetupError::Url(shown.clone()))?;
        let client = client_for(&url).build()?;
        let (ask, polls) = mpsc::channel(1);
        Ok((Page { client, url, shown, polls }, ask))
    }

    /// Asks at once, and then whenever a round wants to know.
    pub(super) async fn serve(mut self, house: Arc<House>) {
        self.ask(&house).await;
        house.changed.notify_one();
        while let Some(_poll) = self.polls.recv().await {
            self.ask(&house).await;
        }
    }

    async fn ask(&self, house: &House) {
        house.telemetry.count(names::GATHERER_POLLS_TOTAL, "", 1);
        let url = &self.shown;
        match timeout(house.poll_timeout, self.get()).await {
            Ok(Ok((id, entry))) => house.note_entry(&id, entry),
            Ok(Err(error)) => {
                house.failed("failed");
                warn!(url, error, "an instance could not be polled");
            }
            Err(_) => {
                house.failed("timeout");
                warn!(url, "an instance does not answer");
            }
        }
    }

    async fn get(&self) -> Result<(String, Entry), String> {
        let what = |error: reqwest::Error| causes(&error.without_url());
        let mut answer = self.client.get(self.url.clone()).send().await.map_err(what)?;
        if !answer.status().is_success() {
            return Err(format!("it answers {}", answer.status()));
        }
        let id = answer.headers().get(INSTANCE_HEADER).and_then(|id| id.to_str().ok());
        let id = id.filter(|id| is_id(id)).map_or_else(|| id_of(&self.url), str::to_owned);
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(what)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_LINE_BYTES {
                return Err("its answer is too long".to_owned());
            }
        }
        let stats: Gathered = serde_json::from_slice(&body)
            .map_err(|error| format!("its answer has another form: {error}"))?;
        let host = self.url.host_str().unwrap_or_default().to_owned();
        let nickname = host.clone();
        let address = Some(host);
        Ok((id, Entry { timestamp: now(), nickname, stats, epoch: None, address }))
    }
}

/// The id of an instance that does not say who it is.
fn id_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    let legal = |c: char| if c.is_ascii_alphanumeric() || ".-".contains(c) { c } else { '_' };
    let id: String = format!("url-{host}_{port}").chars().map(legal).collect();
    // A host may be longer than an id.
    id.chars().take(64).collect()
}
