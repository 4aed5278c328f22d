//! Who the upstream nodes are at present: asked of DNS, of Consul or of Kubernetes.
//!
//! Nobody is asked more often than once in a while ([`ForwardSettings::refresh`]), and an answer
//! that names nobody is a failure: whoever asks keeps the nodes it knew.

mod consul;
mod kubernetes;

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{RequestBuilder, Url};
use tokio::net::lookup_host;
use tokio::time::timeout;

use self::consul::Consul;
use self::kubernetes::Kubernetes;
use super::SetupError;
use crate::config::settings::ForwardSettings;
use crate::config::upstream::{Discovery, UpstreamAddress};
use crate::net::http::causes;

/// An answer may take this long.
const TIMEOUT: Duration = Duration::from_secs(5);
/// And be this long: a list of ten thousand pods is.
const MAX_ANSWER_BYTES: usize = 128 << 20;

/// Whom we ask.
pub(super) struct Directory {
    consul: Option<Consul>,
    kubernetes: Option<Kubernetes>,
    /// The name of the port of a pod that we speak to.
    port_name: &'static str,
}

impl Directory {
    /// Those that the addresses need; where they are is in the environment.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) fn new(settings: &ForwardSettings) -> Result<Directory, SetupError> {
        let needs = |is_one: fn(&Discovery) -> bool| {
            settings.upstreams.iter().filter_map(UpstreamAddress::discovery).any(is_one)
        };
        let consul = needs(|discovery| matches!(discovery, Discovery::Consul { .. }));
        let kubernetes = needs(|discovery| matches!(discovery, Discovery::Kubernetes { .. }));
        Ok(Directory {
            consul: consul.then(Consul::from_environment).transpose()?,
            kubernetes: kubernetes.then(Kubernetes::from_environment).transpose()?,
            port_name: if settings.format.is_grpc() { "grpc" } else { "http" },
        })
    }

    /// The addresses behind `url`, at least one, and in the order of the resolver if it is DNS
    /// that knows them.
    ///
    /// # Errors
    /// Why there are none, for the log.
    pub(super) async fn addresses_of(
        &self,
        url: &Url,
        discovery: Option<&Discovery>,
    ) -> Result<Vec<SocketAddr>, String> {
        let found = match (discovery, &self.consul, &self.kubernetes) {
            (Some(Discovery::Consul { service }), Some(consul), _) => {
                consul.addresses_of(service).await?
            }
            (Some(Discovery::Kubernetes { label, namespace }), _, Some(kubernetes)) => {
                kubernetes.addresses_of(label, namespace.as_deref(), self.port_name).await?
            }
            (None | Some(_), _, _) => {
                let host = url.host_str().unwrap_or_default();
                resolve(host, url.port_or_known_default().unwrap_or(80)).await?
            }
        };
        if found.is_empty() { Err("no address".to_owned()) } else { Ok(found) }
    }
}

/// Whom a failure is to be blamed on: a `cause` of own metrics.
pub(super) fn cause_of(discovery: Option<&Discovery>) -> &'static str {
    match discovery {
        None | Some(Discovery::Dns) => "dns",
        Some(Discovery::Consul { .. }) => "consul",
        Some(Discovery::Kubernetes { .. }) => "kubernetes",
    }
}

/// The addresses of a host.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match timeout(TIMEOUT, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err(format!("no answer within {TIMEOUT:?}")),
    }
}

/// The body of an answer with status 200.
async fn fetch(request: RequestBuilder) -> Result<Vec<u8>, String> {
    let why = |error: reqwest::Error| causes(&error.without_url());
    let read = async {
        let mut response = request.send().await.map_err(why)?;
        if !response.status().is_success() {
            return Err(format!("answered {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(why)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(format!("answered more than {MAX_ANSWER_BYTES} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    };
    timeout(TIMEOUT, read).await.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")))
}
