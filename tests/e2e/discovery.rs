//! Upstream nodes that Consul or Kubernetes knows, and their coming and going.

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::authority::{Authority, Identity};
use crate::fleet::{Node, stop};
use crate::ledger::total;
use crate::proxy::{PROTOBUF, counter, import};
use crate::support::{Daemon, free_port, http, scratch_directory, wait_until};
use crate::tls_listener::TlsListener;

/// A directory of nodes: what it answers, and to whom.
#[derive(Clone)]
struct Directory {
    /// Path and query of the one question it answers.
    question: &'static str,
    /// The header with the secret it wants to see.
    secret: (&'static str, &'static str),
    answer: Arc<Mutex<(StatusCode, Value)>>,
}

impl Directory {
    fn new(question: &'static str, secret: (&'static str, &'static str)) -> Directory {
        let answer = Arc::new(Mutex::new((StatusCode::OK, json!([]))));
        Directory { question, secret, answer }
    }

    fn say(&self, status: StatusCode, answer: Value) {
        *self.answer.lock().expect("nobody panics with it") = (status, answer);
    }

    fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }
}

async fn answer(State(directory): State<Directory>, request: Request) -> Response {
    let (name, secret) = directory.secret;
    if request.headers().get(name).is_none_or(|shown| shown != secret) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if *request.uri() != directory.question {
        return StatusCode::NOT_FOUND.into_response();
    }
    let (status, answer) = directory.answer.lock().expect("nobody panics with it").clone();
    (status, answer.to_string()).into_response()
}

/// The answer of Consul's health API about some instances.
fn instances(nodes: &[&Node]) -> Value {
    let instance = |node: &&Node| {
        let address: SocketAddr = node.daemon.http.parse().expect("an address");
        json!({
            "Node": {"Node": "n", "Address": address.ip().to_string()},
            "Service": {"Service": "veneur-global", "Address": "", "Port": address.port()},
            "Checks": [{"Status": "passing"}],
        })
    };
    nodes.iter().map(instance).collect()
}

/// A list of pods with one port each.
fn pods(nodes: &[&Node]) -> Value {
    let pod = |node: &&Node| {
        let address: SocketAddr = node.daemon.http.parse().expect("an address");
        json!({
            "metadata": {"name": "p", "labels": {"app": "veneur-global"}},
            "spec": {"containers": [{"name": "c", "ports": [
                {"name": "http", "containerPort": address.port(), "protocol": "TCP"},
                {"name": "statsd", "containerPort": 8126, "protocol": "UDP"},
            ]}]},
            "status": {"phase": "Running", "podIP": address.ip().to_string()},
        })
    };
    json!({"kind": "PodList", "apiVersion": "v1", "items": nodes.iter().map(pod).collect::<Value>()})
}

/// Lines of so many series.
fn work(n: usize) -> Vec<String> {
    (0..n).map(|n| format!("w{n}:1|c|#veneurglobalonly")).collect()
}

fn members(daemon: &Daemon) -> u64 {
    total(daemon, "veneur_forward_ring_members", "")
}

/// A proxy whose upstream nodes are in a directory sees them come and go; what local nodes send
/// it meanwhile arrives.
async fn follow(
    upstream: &str,
    environment: Vec<(&'static str, String)>,
    cause: &'static str,
    directory: &Directory,
    list: fn(&[&Node]) -> Value,
) {
    let globals = [Node::start(json!({})).await, Node::start(json!({})).await];
    let port = free_port();
    let config = json!({
        "interval": "10s",
        "http_address": format!("127.0.0.1:{port}"),
        "forward_address": upstream,
        "consul_refresh_interval": "100ms",
    });
    let launched = tokio::task::spawn_blocking(move || {
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut proxy = Daemon::launch_proxy(&config.to_string(), &environment);
        proxy.wait_for_log("no upstream node is known");
        let address = format!("127.0.0.1:{port}");
        assert_eq!(http(&address, "GET", "/healthcheck").0, 200);
        assert_eq!(http(&address, "GET", "/ready"), (503, "starting\n".to_owned()));
        let (status, answer) = import(&address, PROTOBUF, &counter("early"));
        assert_eq!(status, 503, "{answer}");
        assert!(answer.contains("no upstream node is known"), "{answer}");
        proxy.http = address;
        wait_until("it has asked", || {
            total(&proxy, "veneur_forward_error_total", &format!("cause=\"{cause}\"")) > 0
        });
        proxy
    });
    let mut proxy = launched.await.expect("no panic");
    directory.say(StatusCode::OK, list(&[&globals[0]]));
    let ready = tokio::task::spawn_blocking(move || {
        proxy.wait_until_ready();
        assert_eq!(http(&proxy.http, "GET", "/ready").0, 200);
        wait_until("its member is counted", || members(&proxy) == 1);
        proxy
    });
    let proxy = ready.await.expect("no panic");
    directory.say(StatusCode::OK, list(&[&globals[0], &globals[1]]));
    let error = format!("cause=\"{cause}\"");
    let errors = {
        let error = error.clone();
        move |proxy: &Daemon| total(proxy, "veneur_forward_error_total", &error)
    };
    let both = tokio::task::spawn_blocking(move || {
        wait_until("both are known", || members(&proxy) == 2);
        proxy
    });
    let mut proxy = both.await.expect("no panic");
    // Whatever goes wrong, the last list stays.
    for (status, answer) in [
        (StatusCode::OK, list(&[])),
        (StatusCode::INTERNAL_SERVER_ERROR, json!("no")),
        (StatusCode::OK, json!("no list")),
    ] {
        let before = errors(&proxy);
        directory.say(status, answer);
        let errors = errors.clone();
        let asked = tokio::task::spawn_blocking(move || {
            wait_until("it has asked again", || errors(&proxy) > before + 1);
            assert_eq!(members(&proxy), 2);
            proxy
        });
        proxy = asked.await.expect("no panic");
    }
    let local = Node::start(json!({"forward_address": format!("http://{}", proxy.http)})).await;
    let lines = work(100);
    local.daemon.send(lines.iter().map(String::as_bytes));
    stop(vec![local]).await;
    let stopped = tokio::task::spawn_blocking(move || proxy.stop());
    stopped.await.expect("no panic");
    let globals = stop(globals.into()).await;
    for n in 0..100 {
        let counts: Vec<f64> = globals.iter().map(|node| node.total(&format!("w{n}"))).collect();
        assert_eq!(counts.iter().sum::<f64>(), 1.0, "w{n}: {counts:?}");
    }
    let shares = globals.iter().map(|node| (0..100).map(|n| node.total(&format!("w{n}"))).sum());
    assert!(shares.into_iter().all(|share: f64| share > 0.0), "both have one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_follows_what_consul_says() {
    let question = "/v1/health/service/veneur-global?passing";
    let consul = Directory::new(question, ("x-consul-token", "hunter2"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let router = consul.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let environment = vec![
        ("CONSUL_HTTP_ADDR", address.to_string()),
        ("CONSUL_HTTP_TOKEN", "hunter2".to_owned()),
    ];
    follow("consul+http://veneur-global", environment, "consul", &consul, instances).await;
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Identity { certificate, key } = authority.server();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("rcgen writes good PEM");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.expect("rcgen writes good PEM")], key)
        .expect("they belong together");
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_follows_what_kubernetes_says() {
    let question =
        "/api/v1/namespaces/metrics/pods?labelSelector=app%3Dveneur-global&resourceVersion=0";
    let kubernetes = Directory::new(question, ("authorization", "Bearer hunter2"));
    kubernetes.say(StatusCode::OK, pods(&[]));
    let authority = Authority::new("cluster");
    let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let port = tcp.local_addr().expect("it is bound").port();
    let (listener, router) =
        (TlsListener { tcp, acceptor: acceptor(&authority) }, kubernetes.router());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let account = scratch_directory();
    fs::write(account.join("token"), "hunter2\n").expect("the scratch directory can be written");
    fs::write(account.join("ca.crt"), authority.certificate()).expect("it can be written");
    let environment = vec![
        ("KUBERNETES_SERVICE_HOST", "localhost".to_owned()),
        ("KUBERNETES_SERVICE_PORT", port.to_string()),
        ("KUBERNETES_SERVICE_ACCOUNT", account.display().to_string()),
    ];
    let upstream = "kubernetes+http://?namespace=metrics";
    follow(upstream, environment, "kubernetes", &kubernetes, pods).await;
    fs::remove_dir_all(&account).expect("it is ours");
}

#[test]
fn without_a_cluster_a_proxy_says_what_it_misses() {
    let config = json!({"http_address": "127.0.0.1:0", "forward_address": "kubernetes+http://"});
    let mut proxy = Daemon::launch_proxy(&config.to_string(), &[("KUBERNETES_SERVICE_HOST", "")]);
    assert_eq!(proxy.wait().code(), Some(1));
    let said = proxy.whole_log();
    assert!(said.contains("KUBERNETES_SERVICE_HOST: not set"), "{said}");
}
