//! The network: HTTP for all formats, gRPC included, and the names of upstream nodes.
//!
//! Names are resolved anew in each interval, and a node is reached at the addresses its name
//! had then: connections are kept as long as these stay the same. `dns+http://NAME:PORT`,
//! `consul+` and `kubernetes+` make a member of each address; on the ring it is called
//! `http://ADDRESS:PORT`, and `ADDRESS:PORT` where gRPC is spoken or Consul knows it, as
//! veneur-proxy calls what it discovers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, TE,
};
use reqwest::{Certificate, Client, Identity, Url};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::discovery::{Directory, cause_of};
use super::grpc::outcome_of_call;
use super::identity::{BATCH_HEADER, INTERVAL_END_HEADER};
use super::outbox::Batch;
use super::transport::{Answer, Resolved, Transport, Unresolved};
use crate::config::Secret;
use crate::config::settings::{ClientTlsSettings, ForwardFormat, ForwardSettings};
use crate::config::upstream::{Discovery, UpstreamAddress};
use crate::net::Outcome;
use crate::net::http::{causes, client_for, outcome_of, outcome_of_error};

const BATCH: HeaderName = HeaderName::from_static(BATCH_HEADER);
const INTERVAL_END: HeaderName = HeaderName::from_static(INTERVAL_END_HEADER);

/// Why forwarding cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address is not a URL.
    #[error("cannot use {upstream} as an upstream address")]
    Address {
        /// Without user and password.
        upstream: String,
    },
    /// The token cannot be sent.
    #[error("forward.token has characters that an HTTP header cannot hold")]
    Token,
    /// PEM text that holds nothing usable.
    #[error("cannot use {key}: {why}")]
    Pem {
        /// The key of the configuration.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// What the environment says about Consul or Kubernetes.
    #[error("cannot use the environment variable {variable}: {why}")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// TLS could not be set up: a certificate and a key that do not belong together, for one.
    #[error("cannot set up HTTP for {upstream}: {why}")]
    Client {
        /// Without user and password.
        upstream: String,
        /// What went wrong.
        why: String,
    },
}

/// The network.
pub(super) struct Http {
    format: ForwardFormat,
    /// Of every request with a batch.
    headers: HeaderMap,
    timeout: Duration,
    trust: Trust,
    token: Option<Secret>,
    directory: Arc<Directory>,
    /// What each upstream address stands for at present. Resolving replaces it, and is the only
    /// one to do so after the start: nobody waits for this lock.
    known: Mutex<Vec<Known>>,
}

/// Whom we trust, and who we are.
#[derive(Clone)]
struct Trust {
    authority: Option<Vec<Certificate>>,
    identity: Option<Identity>,
}

/// An upstream address and what it stands for.
#[derive(Clone)]
struct Known {
    upstream: Arc<Upstream>,
    /// Ascending; empty before the name was first resolved.
    addresses: Vec<SocketAddr>,
    peers: Vec<(Arc<str>, Peer)>,
}

struct Upstream {
    name: Arc<str>,
    url: Url,
    /// `None`: it is one node.
    discovery: Option<Discovery>,
}

/// One node.
#[derive(Clone)]
pub(super) struct Peer(Arc<Connected>);

struct Connected {
    client: Client,
    import: Url,
    probe: Url,
}

impl Http {
    /// As configured. Nothing is resolved or connected yet. The process must have a default TLS
    /// provider.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub(super) fn new(settings: &ForwardSettings) -> Result<Http, SetupError> {
        let mut http = Http {
            format: settings.format,
            headers: headers(settings.format, settings.token.as_ref())?,
            timeout: settings.timeout,
            trust: Trust::new(&settings.tls)?,
            token: settings.token.clone(),
            directory: Arc::new(Directory::new(settings)?),
            known: Mutex::default(),
        };
        let known = settings.upstreams.iter().map(|address| http.known(address));
        http.known = Mutex::new(known.collect::<Result<_, _>>()?);
        Ok(http)
    }

    /// An upstream address whose name has not been resolved: one node is known nevertheless.
    fn known(&self, address: &UpstreamAddress) -> Result<Known, SetupError> {
        let bad = || SetupError::Address { upstream: address.redacted() };
        let url = Url::parse(address.url().reveal()).map_err(|_| bad())?;
        let upstream =
            Upstream { name: address.name().into(), url, discovery: address.discovery().cloned() };
        // Built in either case: what is wrong with it shows at the start.
        let peer = self.peer(&upstream, &upstream.url, &[]).map_err(|error| {
            SetupError::Client { upstream: address.redacted(), why: causes(&error) }
        })?;
        let peers = match upstream.discovery {
            Some(_) => Vec::new(),
            None => vec![(Arc::clone(&upstream.name), peer)],
        };
        Ok(Known { upstream: Arc::new(upstream), addresses: Vec::new(), peers })
    }

    /// A node that is reached at one of `addresses`; if there is none, wherever its name leads.
    fn peer(
        &self,
        upstream: &Upstream,
        url: &Url,
        addresses: &[SocketAddr],
    ) -> reqwest::Result<Peer> {
        // A connection on which nothing is acknowledged is dead.
        let mut client = client_for(url).tcp_user_timeout(self.timeout);
        if self.format.is_grpc() {
            client = client.http2_prior_knowledge().no_proxy();
        }
        // A proxy does not know the name: it is Consul's, or a label.
        if matches!(
            upstream.discovery,
            Some(Discovery::Consul { .. } | Discovery::Kubernetes { .. })
        ) {
            client = client.no_proxy();
        }
        if let Some(authority) = &self.trust.authority {
            client = client.tls_certs_only(authority.iter().cloned());
        }
        if let Some(identity) = &self.trust.identity {
            client = client.identity(identity.clone());
        }
        if let Some(host) = url.host_str()
            && !addresses.is_empty()
        {
            client = client.resolve_to_addrs(host, addresses);
        }
        let behind = |path: &str| {
            let mut behind = url.clone();
            behind.set_path(&format!("{}{path}", url.path().trim_end_matches('/')));
            behind
        };
        let (import, probe) = match self.format {
            ForwardFormat::Protobuf | ForwardFormat::JsonGob => ("/import", "/healthcheck"),
            ForwardFormat::Grpc => ("/forwardrpc.Forward/SendMetrics", HEALTH_CHECK),
            ForwardFormat::GrpcStream => ("/forwardrpc.Forward/SendMetricsV2", HEALTH_CHECK),
        };
        let client = client.build()?;
        Ok(Peer(Arc::new(Connected { client, import: behind(import), probe: behind(probe) })))
    }

    /// What an upstream address stands for now that its name has these addresses.
    fn update(&self, known: &mut Known, mut addresses: Vec<SocketAddr>) -> reqwest::Result<()> {
        let order = addresses.clone();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses == known.addresses {
            return Ok(());
        }
        let upstream = &*known.upstream;
        known.peers = match &upstream.discovery {
            None => {
                let peer = self.peer(upstream, &upstream.url, &order)?;
                vec![(Arc::clone(&upstream.name), peer)]
            }
            Some(discovery) => {
                let mut peers = Vec::new();
                for address in &addresses {
                    let name = self.name_of(&upstream.url, discovery, *address);
                    let old = known.peers.iter().find(|(known, _)| *known == name);
                    let peer = match old {
                        Some((_, peer)) => peer.clone(),
                        None => {
                            let mut url = upstream.url.clone();
                            // Only a URL without a host has no place for a port.
                            let _ = url.set_port(Some(address.port()));
                            self.peer(upstream, &url, std::slice::from_ref(address))?
                        }
                    };
                    peers.push((name, peer));
                }
                peers
            }
        };
        known.addresses = addresses;
        Ok(())
    }

    /// What stands on the ring for one address of a name.
    fn name_of(&self, url: &Url, discovery: &Discovery, address: SocketAddr) -> Arc<str> {
        let is_bare = match discovery {
            Discovery::Consul { .. } => true,
            Discovery::Dns | Discovery::Kubernetes { .. } => self.format.is_grpc(),
        };
        if is_bare && url.scheme() == "http" {
            return address.to_string().into();
        }
        let path = url.path().trim_end_matches('/');
        format!("{}://{address}{path}", url.scheme()).into()
    }

    fn lock_known(&self) -> Vec<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Path of the standard health check of gRPC.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";
/// An empty message: the health of all services.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

fn headers(format: ForwardFormat, token: Option<&Secret>) -> Result<HeaderMap, SetupError> {
    let (content_type, encoding) = match format {
        ForwardFormat::Protobuf => ("application/x-protobuf", Some("zstd")),
        ForwardFormat::Grpc | ForwardFormat::GrpcStream => ("application/grpc", None),
        ForwardFormat::JsonGob => ("application/json", Some("deflate")),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    if format.is_grpc() {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
            .map_err(|_| SetupError::Token)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

impl Trust {
    fn new(settings: &ClientTlsSettings) -> Result<Trust, SetupError> {
        let ClientTlsSettings { authority, certificate } = settings;
        let bad = |key| move |error| SetupError::Pem { key, why: causes(&error) };
        let authority = authority.as_ref().map(|pem| Certificate::from_pem_bundle(pem.as_bytes()));
        let identity = certificate.as_ref().map(|(certificate, key)| {
            Identity::from_pem(format!("{certificate}\n{}", key.reveal()).as_bytes())
        });
        Ok(Trust {
            authority: authority.transpose().map_err(bad("forward.tls_authority_certificate"))?,
            identity: identity
                .transpose()
                .map_err(bad("forward.tls_certificate, forward.tls_key"))?,
        })
    }
}

impl Transport for Http {
    type Peer = Peer;

    fn configured(&self) -> Vec<(Arc<str>, Peer)> {
        self.lock_known().into_iter().flat_map(|known| known.peers).collect()
    }

    async fn resolve(&self) -> Resolved<Peer> {
        let started = Instant::now();
        let mut all = self.lock_known();
        let mut lookups = JoinSet::new();
        for (number, known) in all.iter().enumerate() {
            let (upstream, directory) = (Arc::clone(&known.upstream), Arc::clone(&self.directory));
            lookups.spawn(async move {
                let Upstream { url, discovery, .. } = &*upstream;
                (number, directory.addresses_of(url, discovery.as_ref()).await)
            });
        }
        let mut failures = Vec::new();
        while let Some(lookup) = lookups.join_next().await {
            let Ok((number, addresses)) = lookup else { continue };
            let known = &mut all[number];
            let updated = addresses.and_then(|addresses| {
                self.update(known, addresses).map_err(|error| causes(&error))
            });
            if let Err(why) = updated {
                failures.push(Unresolved {
                    upstream: Arc::clone(&known.upstream.name),
                    cause: cause_of(known.upstream.discovery.as_ref()),
                    why,
                });
            }
        }
        let members = all.iter().flat_map(|known| known.peers.clone()).collect();
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = all;
        Resolved { members, failures, took: started.elapsed() }
    }

    async fn post(&self, peer: &Peer, batch: &Batch) -> Answer {
        let Connected { client, import, .. } = &*peer.0;
        let request = client
            .post(import.clone())
            .headers(self.headers.clone())
            .header(BATCH, batch.id.to_string())
            .header(INTERVAL_END, batch.origin.interval_end.0)
            .body(batch.packed.body.clone());
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Answer { outcome: outcome_of_error(error), remembers: false },
        };
        let remembers = response.headers().contains_key(BATCH);
        let token = self.token.as_ref();
        let outcome = match self.format.is_grpc() {
            true => outcome_of_call(response, token).await,
            false => outcome_of(response, token).await,
        };
        Answer { outcome, remembers }
    }

    async fn probe(&self, peer: &Peer) -> bool {
        let Connected { client, probe, .. } = &*peer.0;
        if !self.format.is_grpc() {
            let answer = client.get(probe.clone()).send().await;
            return answer.is_ok_and(|answer| answer.status().is_success());
        }
        let request = client.post(probe.clone()).headers(self.headers.clone()).body(EMPTY_MESSAGE);
        let Ok(response) = request.send().await else { return false };
        match outcome_of_call(response, None).await {
            // A server that does not know the question is there to say so.
            Outcome::Taken | Outcome::Refused { status: 404 | 501, .. } => true,
            Outcome::Refused { .. }
            | Outcome::TimedOut
            | Outcome::Unreachable(_)
            | Outcome::Failed(_) => false,
        }
    }
}
