//! Forwarding over TLS: our own authority, and certificates on both sides.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use veneur::forward::import::grpc::{self, GrpcLimits};
use veneur::http::{self, Limits};
use veneur::telemetry::Telemetry;

use crate::authority::{Authority, Identity};
use crate::front::{Local, assert_ones, ledger, ones, sum};
use crate::support::Node;
use crate::tls_listener::TlsListener;

/// A listener for clients whose certificate the authority has signed.
async fn listen(authority: &Authority, is_grpc: bool) -> (TlsListener, SocketAddr) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate =
        |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("rcgen writes good PEM");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&authority.certificate())).expect("it is an authority");
    let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("one root");
    let Identity { certificate: chain, key } = authority.server();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("rcgen writes good PEM");
    let mut config = ServerConfig::builder()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![certificate(&chain)], key)
        .expect("they belong together");
    config.alpn_protocols = vec![if is_grpc { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = tcp.local_addr().expect("it is bound");
    (TlsListener { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) }, address)
}

/// Serves imports of a node for as long as the test runs.
async fn serve(authority: &Authority, node: &Node, is_grpc: bool) -> SocketAddr {
    let (listener, address) = listen(authority, is_grpc).await;
    let (import, telemetry) = (node.import.clone(), Telemetry::default());
    let never = std::future::pending();
    if is_grpc {
        tokio::spawn(grpc::serve(listener, import, GrpcLimits::default(), telemetry, never));
    } else {
        let router = import.router();
        tokio::spawn(http::serve(listener, router, Limits::default(), telemetry, never));
    }
    address
}

/// A configuration that forwards to `localhost` at this port.
fn yaml(address: SocketAddr, is_grpc: bool, authority: &Authority, client: &Identity) -> String {
    let indented = |pem: &str| pem.replace('\n', "\n    ");
    format!(
        "interval: 500ms\nforward_address: https://localhost:{}\nforward_use_grpc: {is_grpc}\n\
         forward:\n  tls_authority_certificate: |\n    {}\n  tls_certificate: |\n    {}\n  \
         tls_key: |\n    {}\n",
        address.port(),
        indented(&authority.certificate()),
        indented(&client.certificate),
        indented(&client.key),
    )
}

#[tokio::test]
async fn both_sides_show_a_certificate_of_our_own_authority() {
    for is_grpc in [false, true] {
        let (node, authority) = (Node::global().await, Authority::new("ours"));
        let address = serve(&authority, &node, is_grpc).await;
        let local = Local::start(&yaml(address, is_grpc, &authority, &authority.client()));
        local.offer(ones(0..30));
        local.wait_for("forward.entries_delivered_total", 30).await;
        assert_eq!(ledger(&local.finish().await), (30, 0));
        assert_ones([&node], 30);
    }
}

#[tokio::test]
async fn nothing_is_sent_to_a_server_of_another_authority_nor_taken_from_such_a_client() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for (trusted, client) in [(&theirs, ours.client()), (&ours, theirs.client())] {
        let node = Node::global().await;
        let address = serve(&ours, &node, false).await;
        let local = Local::start(&yaml(address, false, trusted, &client));
        local.offer(ones(0..3));
        let telemetry = local.finish().await;
        assert_eq!(ledger(&telemetry), (0, 3));
        assert!(sum(&telemetry, "forward.error_total") > 0);
        assert_ones([&node], 0);
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_used_are_a_start_up_error() {
    let authority = Authority::new("ours");
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let good = authority.client();
    let client = Identity { certificate: good.certificate, key: authority.client().key };
    let error = Local::try_start(&yaml(address, false, &authority, &client)).err();
    let error = error.expect("they do not belong together").to_string();
    assert!(error.starts_with("cannot set up HTTP for https://localhost:1: "), "{error}");
    assert!(error.contains("keys may not be consistent"), "{error}");
}
