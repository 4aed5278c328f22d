//! HTTP as a transport: one client, connections kept, no redirect followed, no secret told.

use std::error::Error;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, Url};
use tokio::time::timeout;

use super::Transport;
use super::retry::{Outcome, retry_after};
use crate::config::secret::{BaseUrl, REDACTED, Secret};

/// Connecting, TLS included, may take this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// So much of an answer is read, for the log and to be able to use the connection again.
const ANSWER_BYTES: usize = 16 << 10;
/// Reading it may take this long; the status is what counts.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// So much of it is shown.
const SHOWN_CHARS: usize = 200;

/// Why a sink that speaks HTTP cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address is not a URL.
    #[error("cannot use {url} as the address of a sink")]
    Url {
        /// Without user and password.
        url: String,
    },
    /// The key cannot be sent.
    #[error("the API key has characters that an HTTP header cannot hold")]
    Key,
    /// TLS or proxies could not be set up.
    #[error("cannot set up HTTP for {url}")]
    Client {
        /// Without user and password.
        url: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
}

/// Where a request goes, and the headers it has. The URL may hold a key: never shown.
#[derive(Clone)]
pub struct Target {
    url: Url,
    headers: HeaderMap,
}

impl Target {
    /// A path behind a base URL.
    ///
    /// # Errors
    /// [`SetupError::Url`]
    pub fn new(base: &BaseUrl, path: &str, headers: HeaderMap) -> Result<Target, SetupError> {
        let url = Url::parse(&format!("{}{path}", base.reveal()))
            .map_err(|_| SetupError::Url { url: base.redacted() })?;
        Ok(Target { url, headers })
    }

    /// Appends a parameter to the query.
    pub fn add_parameter(&mut self, name: &str, value: &str) {
        self.url.query_pairs_mut().append_pair(name, value);
    }

    /// The path without query: what logs call the target.
    pub fn path(&self) -> &str {
        self.url.path()
    }
}

/// An HTTP client for one base URL.
pub struct Http {
    client: reqwest::Client,
    /// Masked in answers before they are shown.
    secret: Option<Secret>,
}

impl Http {
    /// A client for `base`. Proxies are taken from the environment (`HTTPS_PROXY` and so on),
    /// but for loopback addresses, which no proxy can reach for us.
    ///
    /// # Errors
    /// [`SetupError::Url`], [`SetupError::Client`]
    pub fn new(base: &BaseUrl, secret: Option<Secret>) -> Result<Http, SetupError> {
        let url =
            Url::parse(base.reveal()).map_err(|_| SetupError::Url { url: base.redacted() })?;
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("veneur/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT);
        if is_loopback(&url) {
            client = client.no_proxy();
        }
        let client =
            client.build().map_err(|source| SetupError::Client { url: base.redacted(), source })?;
        // Masking an empty text would mask everything.
        let secret = secret.filter(|secret| !secret.reveal().is_empty());
        Ok(Http { client, secret })
    }

    /// The beginning of an answer, as text without secrets.
    fn shown(&self, answer: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(answer).into_owned();
        if let Some(secret) = &self.secret {
            text = text.replace(secret.reveal(), REDACTED);
        }
        text.trim().chars().take(SHOWN_CHARS).collect()
    }
}

impl Transport for Http {
    async fn post(&self, target: &Target, body: Bytes) -> Outcome {
        let request =
            self.client.post(target.url.clone()).headers(target.headers.clone()).body(body);
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_timeout() => return Outcome::TimedOut,
            Err(error) => return Outcome::Failed(causes(&error.without_url())),
        };
        let status = response.status();
        let answer = beginning_of(&mut response).await;
        if status.is_success() {
            return Outcome::Taken;
        }
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        Outcome::Refused {
            status: status.as_u16(),
            retry_after: header.and_then(|header| retry_after(header, SystemTime::now())),
            answer: self.shown(&answer),
        }
    }
}

async fn beginning_of(response: &mut Response) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = async {
        while answer.len() < ANSWER_BYTES
            && let Ok(Some(chunk)) = response.chunk().await
        {
            answer.extend_from_slice(&chunk);
        }
    };
    // What came in time is what there is to show.
    let _ = timeout(ANSWER_TIMEOUT, read).await;
    answer
}

fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost",
    }
}

/// An error and what caused it, outermost first.
fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_need_no_proxy() {
        for (url, loopback) in [
            ("http://127.0.0.1:8080", true),
            ("http://127.1.2.3", true),
            ("http://[::1]:8080", true),
            ("http://localhost", true),
            ("https://app.datadoghq.com", false),
            ("http://10.0.0.1", false),
        ] {
            let url = Url::parse(url).expect("the table holds good URLs");
            assert_eq!(is_loopback(&url), loopback, "{url}");
        }
    }

    #[test]
    fn a_parameter_is_escaped_and_never_part_of_the_path() {
        let base = BaseUrl::parse("http://host:1/base").expect("a good URL");
        let mut target = Target::new(&base, "/api", HeaderMap::new()).expect("a good URL");
        target.add_parameter("api_key", "a&b c");
        assert_eq!(target.url.as_str(), "http://host:1/base/api?api_key=a%26b+c");
        assert_eq!(target.path(), "/base/api");
    }
}
