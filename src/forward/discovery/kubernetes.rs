//! The API of Kubernetes, asked from a pod: running pods with a label.
//!
//! A pod's address comes with the port that is called `http`, where gRPC is spoken `grpc`, or
//! else the last one that is TCP, as veneur-proxy has it. One that is about to end counts as
//! gone already.
//!
//! Source: Kubernetes, "Accessing the Kubernetes API from a Pod", and the API's `PodList`.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use reqwest::{Certificate, Client, Url};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::fetch;
use crate::config::upstream::SERVICE_ACCOUNT;
use crate::forward::SetupError;
use crate::net::http::causes;

const HOST: &str = "KUBERNETES_SERVICE_HOST";
const PORT: &str = "KUBERNETES_SERVICE_PORT";
/// Where the service account is, if not where Kubernetes puts it.
const DIRECTORY: &str = "KUBERNETES_SERVICE_ACCOUNT";

/// The API server of the cluster we run in.
pub(super) struct Kubernetes {
    url: Url,
    /// Holds `token` and `ca.crt`. Both are replaced from time to time, so they are read anew.
    account: PathBuf,
}

impl Kubernetes {
    /// The one that the environment names.
    ///
    /// # Errors
    /// When it names none.
    pub(super) fn from_environment() -> Result<Kubernetes, SetupError> {
        let set = |variable| {
            let why = || "not set: pods are asked for from a pod".to_owned();
            let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
            value.ok_or_else(|| SetupError::Environment { variable, why: why() })
        };
        let (host, port) = (set(HOST)?, set(PORT)?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let url = Url::parse(&format!("https://{host}:{port}"));
        let url = url
            .map_err(|error| SetupError::Environment { variable: HOST, why: error.to_string() })?;
        let account = set(DIRECTORY).unwrap_or_else(|_| SERVICE_ACCOUNT.to_owned()).into();
        Ok(Kubernetes { url, account })
    }

    /// Where the running pods with this label are.
    ///
    /// # Errors
    /// Why that is not known.
    pub(super) async fn addresses_of(
        &self,
        label: &str,
        namespace: Option<&str>,
        port_name: &str,
    ) -> Result<Vec<SocketAddr>, String> {
        let account = self.account.clone();
        let read = spawn_blocking(move || {
            let read = |file: &str| {
                let path = account.join(file);
                fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
            };
            Ok::<_, String>((read("token")?, read("ca.crt")?))
        });
        let (token, authority) = read.await.unwrap_or_else(|error| Err(error.to_string()))?;
        let token = String::from_utf8_lossy(&token);
        let authority = Certificate::from_pem_bundle(&authority).map_err(|error| causes(&error))?;
        let client = Client::builder().no_proxy().tls_certs_only(authority);
        let client = client.build().map_err(|error| causes(&error))?;
        let mut url = self.url.clone();
        url.set_path(&match namespace {
            None => "/api/v1/pods".to_owned(),
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/pods"),
        });
        // Any version will do, so the server need not ask its database.
        url.query_pairs_mut()
            .append_pair("labelSelector", label)
            .append_pair("resourceVersion", "0");
        let answer = fetch(client.get(url).bearer_auth(token.trim())).await?;
        addresses(&answer, port_name)
    }
}

#[derive(Deserialize)]
struct PodList {
    items: Option<Vec<Pod>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    /// Set once it is to end.
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Spec {
    containers: Option<Vec<Container>>,
}

#[derive(Deserialize)]
struct Container {
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: Option<String>,
    container_port: u16,
    protocol: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
}

fn addresses(answer: &[u8], port_name: &str) -> Result<Vec<SocketAddr>, String> {
    let list: PodList =
        serde_json::from_slice(answer).map_err(|error| format!("not the answer: {error}"))?;
    let pods = list.items.unwrap_or_default();
    Ok(pods.iter().filter_map(|pod| pod.address(port_name)).collect())
}

impl Pod {
    fn address(&self, port_name: &str) -> Option<SocketAddr> {
        let is_running = self.status.phase.as_deref() == Some("Running");
        if !is_running || self.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let address: IpAddr = self.status.pod_ip.as_deref()?.parse().ok()?;
        let containers = self.spec.containers.iter().flatten();
        let ports: Vec<&Port> =
            containers.flat_map(|container| container.ports.iter().flatten()).collect();
        let named = ports.iter().find(|port| port.name.as_deref() == Some(port_name));
        let is_tcp = |port: &&&Port| port.protocol.as_deref().is_none_or(|name| name == "TCP");
        let port = named.or_else(|| ports.iter().rfind(is_tcp))?;
        Some((address, port.container_port).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_at_its_named_port_or_at_its_last_tcp_port() {
        let answer = br#"{"kind": "PodList", "items": [
            {"metadata": {"name": "named"}, "status": {"phase": "Running", "podIP": "10.0.0.1"},
             "spec": {"containers": [
                {"ports": null},
                {"ports": [{"name": "http", "containerPort": 8127, "protocol": "TCP"},
                           {"name": "grpc", "containerPort": 8128, "protocol": "TCP"},
                           {"containerPort": 9, "protocol": "TCP"}]}]}},
            {"metadata": {}, "status": {"phase": "Running", "podIP": "fd00::2"},
             "spec": {"containers": [{"ports": [
                {"containerPort": 1}, {"containerPort": 2, "protocol": "TCP"},
                {"containerPort": 3, "protocol": "UDP"}]}]}},
            {"metadata": {}, "status": {"phase": "Pending"}, "spec": {"containers": []}},
            {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
             "status": {"phase": "Running", "podIP": "10.0.0.3"},
             "spec": {"containers": [{"ports": [{"containerPort": 1}]}]}},
            {"metadata": {}, "status": {"phase": "Running", "podIP": "10.0.0.4"},
             "spec": {"containers": [{}]}}
        ]}"#;
        let found = |port_name| -> Vec<String> {
            let addresses = addresses(answer, port_name).expect("it is a list");
            addresses.iter().map(SocketAddr::to_string).collect()
        };
        assert_eq!(found("http"), ["10.0.0.1:8127", "[fd00::2]:2"]);
        assert_eq!(found("grpc"), ["10.0.0.1:8128", "[fd00::2]:2"]);
        assert_eq!(addresses(br#"{"items": null}"#, "http"), Ok(vec![]));
        assert!(addresses(b"[]", "http").is_err());
    }
}
