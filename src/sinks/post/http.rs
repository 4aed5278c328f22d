//! HTTP as a transport of sinks ([`crate::net::http`]).

use std::fmt;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};

use super::Transport;
use crate::config::secret::{BaseUrl, Secret};
use crate::net::Outcome;
use crate::net::http::{client_for, outcome_of, outcome_of_error};

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
    method: Method,
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
        Ok(Target { method: Method::POST, url, headers })
    }

    /// The same, asked to `PUT`.
    #[must_use]
    pub fn put(self) -> Target {
        Target { method: Method::PUT, ..self }
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

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

/// An HTTP client for one base URL.
pub struct Http {
    client: reqwest::Client,
    /// Masked in answers before they are shown.
    secret: Option<Secret>,
}

impl Http {
    /// A client for `base`.
    ///
    /// # Errors
    /// [`SetupError::Url`], [`SetupError::Client`]
    pub fn new(base: &BaseUrl, secret: Option<Secret>) -> Result<Http, SetupError> {
        let url =
            Url::parse(base.reveal()).map_err(|_| SetupError::Url { url: base.redacted() })?;
        let client = client_for(&url).build();
        let client =
            client.map_err(|source| SetupError::Client { url: base.redacted(), source })?;
        Ok(Http { client, secret })
    }
}

impl Transport for Http {
    type Target = Target;

    async fn post(&self, target: &Target, body: Bytes) -> Outcome {
        let Target { method, url, headers } = target.clone();
        let request = self.client.request(method, url).headers(headers).body(body);
        match request.send().await {
            Ok(response) => outcome_of(response, self.secret.as_ref()).await,
            Err(error) => outcome_of_error(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_escaped_and_never_part_of_the_path() {
        let base = BaseUrl::parse("http://host:1/base").expect("a good URL");
        let mut target = Target::new(&base, "/api", HeaderMap::new()).expect("a good URL");
        target.add_parameter("api_key", "a&b c");
        assert_eq!(target.url.as_str(), "http://host:1/base/api?api_key=a%26b+c");
        assert_eq!(target.path(), "/base/api");
    }
}
