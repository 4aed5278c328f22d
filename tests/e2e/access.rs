//! Who may talk to a node: certificates, tokens and networks, between real processes.

use reqwest::{Certificate, Client};
use serde_json::{Value, json};

use crate::authority::{Authority, Identity};
use crate::ledger::total;
use crate::support::{DEADLINE, Daemon, http, wait_until};

/// What a global node of these tests asks for.
const TOKEN: &str = "open-sesame";

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}

/// A global node that lets in who has a certificate of `clients` and knows `token`.
fn global(server: &Identity, clients: &Authority, token: &str) -> Value {
    json!({
        "interval": "5m",
        "udp_address": "127.0.0.1:0",
        "http_address": "127.0.0.1:0",
        "grpc_address": "127.0.0.1:0",
        "http": {
            "tls_certificate": server.certificate,
            "tls_key": server.key,
            "tls_authority_certificate": clients.certificate(),
            "token": token,
        },
    })
}

/// A local node that forwards to `address`, whose authority is `servers`.
fn local(address: &str, is_grpc: bool, servers: &Authority, own: Option<Identity>) -> Value {
    let port = address.rsplit_once(':').expect("an address has a port").1;
    let mut forward = json!({
        "token": TOKEN,
        "tls_authority_certificate": servers.certificate(),
        "queue_age": "5m",
    });
    if let Some(Identity { certificate, key }) = own {
        forward["tls_certificate"] = json!(certificate);
        forward["tls_key"] = json!(key);
    }
    json!({
        "interval": "200ms",
        "udp_address": "127.0.0.1:0",
        "http_address": "127.0.0.1:0",
        "stats_address": "127.0.0.1:9",
        "forward_address": format!("https://localhost:{port}"),
        "forward_use_grpc": is_grpc,
        "forward": forward,
    })
}

/// Starts a local node, has it send a counter upstream and waits until `family` counts there.
async fn sender(config: Value, family: &'static str) -> Daemon {
    blocking(move || {
        let local = Daemon::start(&config.to_string());
        local.send([&b"visits:3|c|#veneurglobalonly"[..]]);
        wait_until(family, || total(&local, family, "") > 0);
        local
    })
    .await
}

/// Stops a node that has never flushed; the counter is in its last flush, or not.
async fn visits(mut global: Daemon) -> String {
    blocking(move || {
        global.stop();
        let output = global.rest_of_output();
        let row = output.lines().find(|line| line.trim_start().starts_with("visits"));
        row.and_then(|row| row.split_whitespace().nth(2)).unwrap_or("none").to_owned()
    })
    .await
}

/// What a global node answers to somebody with a certificate: status and body.
pub(crate) async fn page(
    global: &Daemon,
    path: &str,
    authority: &Authority,
    token: &str,
) -> (u16, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Identity { certificate, key } = authority.client();
    let own = reqwest::Identity::from_pem(format!("{certificate}\n{key}").as_bytes());
    let trusted = Certificate::from_pem(authority.certificate().as_bytes());
    let client = Client::builder()
        .tls_certs_only([trusted.expect("it is PEM")])
        .identity(own.expect("it is PEM"))
        .no_proxy()
        .timeout(DEADLINE)
        .build()
        .expect("a good configuration");
    let port = global.http.rsplit_once(':').expect("an address has a port").1;
    let request = client.get(format!("https://localhost:{port}{path}")).bearer_auth(token);
    let answer = request.send().await.expect("it answers");
    (answer.status().as_u16(), answer.text().await.expect("it is text"))
}

/// Whether a series of the page `/metrics` has all of `labels` and is above zero.
fn counts(page: &str, labels: &[&str]) -> bool {
    let mut lines = page.lines().filter(|line| labels.iter().all(|label| line.contains(label)));
    lines.any(|line| !line.starts_with('#') && !line.ends_with(" 0"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_certificate_and_the_token_may_forward() {
    for is_grpc in [false, true] {
        let ours = Authority::new("ours");
        let config = global(&ours.server(), &ours, TOKEN);
        let upstream = blocking(move || Daemon::start(&config.to_string())).await;
        let address = if is_grpc { &upstream.grpc } else { &upstream.http };
        let config = local(address, is_grpc, &ours, Some(ours.client()));
        let mut local = sender(config, "veneur_forward_entries_delivered_total").await;
        blocking(move || local.stop()).await;
        assert_eq!(page(&upstream, "/version", &ours, TOKEN).await.0, 200);
        assert_eq!(page(&upstream, "/version", &ours, "wrong").await.0, 401);
        assert_eq!(page(&upstream, "/healthcheck", &ours, "wrong").await.0, 200);
        assert_eq!(visits(upstream).await, "3", "gRPC: {is_grpc}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_good_certificate_or_token_is_refused_and_counted_and_keeps_what_it_has() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    for is_grpc in [false, true] {
        let server = if is_grpc { "veneur_grpc_" } else { "veneur_http_" };
        let closed = format!("{server}connections_closed_total");
        for (own, token, refused) in [
            (None, TOKEN, vec![closed.as_str(), "reason=\"tls\"", "cause=\"no_certificate\""]),
            (
                Some(theirs.client()),
                TOKEN,
                vec![&closed, "reason=\"tls\"", "cause=\"unknown_issuer\""],
            ),
            (
                Some(ours.client()),
                "other",
                vec!["veneur_import_request_error_total", "cause=\"token\""],
            ),
        ] {
            let config = global(&ours.server(), &ours, token);
            let upstream = blocking(move || Daemon::start(&config.to_string())).await;
            let address = if is_grpc { &upstream.grpc } else { &upstream.http };
            let config = local(address, is_grpc, &ours, own);
            let local = sender(config, "veneur_forward_error_total").await;
            let (kept, log) = blocking(move || {
                let (mut local, dropped) = (local, "veneur_forward_entries_dropped_total");
                let queued = total(&local, "veneur_forward_queue_entries", "");
                ((queued, total(&local, dropped, "")), local.rest_of_log())
            })
            .await;
            assert_eq!(kept, (1, 0), "{refused:?}\n{log}");
            let metrics = page(&upstream, "/metrics", &ours, token).await.1;
            assert!(counts(&metrics, &refused), "{refused:?}\n{metrics}");
            assert_eq!(visits(upstream).await, "none", "{refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_shows_and_asks_for_other_certificates_and_what_was_kept_is_taken() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    for is_grpc in [false, true] {
        let server = old.server();
        let config = global(&server, &old, TOKEN);
        let mut upstream = blocking(move || Daemon::start(&config.to_string())).await;
        let address = if is_grpc { &upstream.grpc } else { &upstream.http };
        // It trusts the server, which does not trust it.
        let config = local(address, is_grpc, &old, Some(new.client()));
        let local = sender(config, "veneur_forward_error_total").await;
        // A key that is not the certificate's changes nothing.
        let bad = Identity { certificate: server.certificate.clone(), key: old.server().key };
        let (bad, good) = (global(&bad, &new, TOKEN), global(&server, &new, TOKEN));
        let upstream = blocking(move || {
            upstream.configure(&bad.to_string());
            upstream.signal("HUP");
            upstream.wait_for_log("the new configuration is not used");
            assert_eq!(total(&local, "veneur_forward_entries_delivered_total", ""), 0);
            upstream.configure(&good.to_string());
            upstream.signal("HUP");
            upstream.wait_for_log("the new configuration is in use");
            wait_until("what was kept is taken", || {
                total(&local, "veneur_forward_entries_delivered_total", "") == 1
            });
            assert_eq!(total(&local, "veneur_forward_entries_dropped_total", ""), 0);
            upstream
        })
        .await;
        assert_eq!(visits(upstream).await, "3", "gRPC: {is_grpc}");
    }
}

#[test]
fn hosts_that_are_not_listed_are_turned_away_from_every_server() {
    let mut daemon = Daemon::start(
        &json!({
            "interval": "5m",
            "udp_address": "127.0.0.1:0?allow=127.0.0.2",
            "http_address": "127.0.0.1:0",
            "grpc_address": "127.0.0.1:0?allow=10.0.0.0/8,fd00::/8",
        })
        .to_string(),
    );
    daemon.send([&b"a:1|c"[..], b"b:1|c"]);
    let udp = "protocol=\"udp\"";
    wait_until("both have been looked at", || {
        total(&daemon, "veneur_listen_received_per_protocol_total", udp) == 2
    });
    assert_eq!(total(&daemon, "veneur_packet_error_total", "reason=\"not_allowed\""), 2);
    assert_eq!(total(&daemon, "veneur_listen_lines_total", udp), 0);
    let mut stranger = std::net::TcpStream::connect(&daemon.grpc).expect("it listens");
    // Closed without a word, one way or the other.
    let _ = std::io::Read::read(&mut stranger, &mut [0]);
    wait_until("it is counted", || {
        total(&daemon, "veneur_grpc_connections_closed_total", "reason=\"not_allowed\"") == 1
    });
    assert_eq!(http(&daemon.http, "GET", "/ready").0, 200);
    daemon.stop();
    let log = daemon.whole_log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("turned away")).collect();
    assert_eq!(said.len(), 2, "once a minute for each listener: {said:?}");
    assert!(said.iter().all(|line| line.contains("source=127.0.0.1")), "{said:?}");
}
