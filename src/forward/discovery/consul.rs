//! Consul's health API: the instances of a service that pass their checks.
//!
//! Source: Consul, "Health HTTP Endpoint", List Service Instances; `CONSUL_HTTP_ADDR` and
//! `CONSUL_HTTP_TOKEN` as its own tools read them.

use std::net::{IpAddr, SocketAddr};

use reqwest::header::HeaderValue;
use reqwest::{Client, Url};
use serde::Deserialize;

use super::{fetch, resolve};
use crate::forward::SetupError;
use crate::net::http::{causes, client_for};

const ADDRESS: &str = "CONSUL_HTTP_ADDR";
const TOKEN: &str = "CONSUL_HTTP_TOKEN";
/// Where an agent listens unless told otherwise.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8500";

/// The agent of this host.
pub(super) struct Consul {
    client: Client,
    url: Url,
    token: Option<HeaderValue>,
}

impl Consul {
    /// The agent that the environment names.
    ///
    /// # Errors
    /// When what it says cannot be used.
    pub(super) fn from_environment() -> Result<Consul, SetupError> {
        let unusable = |variable, why: String| SetupError::Environment { variable, why };
        let set = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let address = set(ADDRESS).unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        let url = if address.contains("://") { address } else { format!("http://{address}") };
        let url = Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or_else(|| unusable(ADDRESS, "not HOST:PORT or a URL".to_owned()))?;
        let token = set(TOKEN).map(|token| HeaderValue::from_str(&token)).transpose();
        let token = token.map_err(|_| unusable(TOKEN, "not for an HTTP header".to_owned()))?;
        let client = client_for(&url).build().map_err(|error| unusable(ADDRESS, causes(&error)))?;
        Ok(Consul { client, url, token })
    }

    /// Where the instances of a service are that pass their checks.
    ///
    /// # Errors
    /// Why that is not known.
    pub(super) async fn addresses_of(&self, service: &str) -> Result<Vec<SocketAddr>, String> {
        let mut url = self.url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/v1/health/service/{service}"));
        url.set_query(Some("passing"));
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token.clone());
        }
        let mut addresses = Vec::new();
        for (host, port) in instances(&fetch(request).await?)? {
            match host.parse::<IpAddr>() {
                Ok(address) => addresses.push((address, port).into()),
                Err(_) => addresses.extend(resolve(&host, port).await?),
            }
        }
        Ok(addresses)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    /// Empty: that of its node.
    #[serde(default)]
    address: String,
    port: u16,
}

/// Host and port of each instance that has one.
fn instances(answer: &[u8]) -> Result<Vec<(String, u16)>, String> {
    let instances: Vec<Instance> =
        serde_json::from_slice(answer).map_err(|error| format!("not the answer: {error}"))?;
    let place = |Instance { node, service }: Instance| {
        let host = if service.address.is_empty() { node.address } else { service.address };
        (host, service.port)
    };
    Ok(instances.into_iter().map(place).filter(|(_, port)| *port > 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_at_its_own_address_or_at_that_of_its_node() {
        let answer = br#"[
            {"Node": {"Node": "a", "Address": "10.0.0.1"},
             "Service": {"Service": "g", "Address": "", "Port": 8127}, "Checks": []},
            {"Node": {"Address": "10.0.0.2"}, "Service": {"Address": "10.1.0.2", "Port": 9}},
            {"Node": {"Address": "10.0.0.3"}, "Service": {"Port": 0}}
        ]"#;
        let found = instances(answer).expect("it is one");
        assert_eq!(found, [("10.0.0.1".to_owned(), 8127), ("10.1.0.2".to_owned(), 9)]);
        assert_eq!(instances(b"[]"), Ok(vec![]));
        assert!(instances(b"{}").is_err());
    }
}
