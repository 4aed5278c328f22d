//! The HTTP server through real sockets: each page, each limit, and the end.

mod openmetrics;

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use veneur::config::{self, Secret, machine::Machine};
use veneur::http::{self, ConfigFormat, HttpState, Limits};
use veneur::model::Phase;
use veneur::telemetry::{Telemetry, names};

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// A running server and what it was given.
struct Server {
    address: SocketAddr,
    telemetry: Telemetry,
    phase: watch::Sender<Phase>,
    quit: mpsc::Receiver<()>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Server {
    async fn start() -> Server {
        Server::with(Limits::default(), http::router).await
    }

    async fn with(limits: Limits, router: impl FnOnce(HttpState) -> axum::Router) -> Server {
        let telemetry = Telemetry::default();
        let (phase, phase_seen) = watch::channel(Phase::Starting);
        let (quit_sender, quit) = mpsc::channel(1);
        let router = router(HttpState {
            telemetry: telemetry.clone(),
            phase: phase_seen,
            config: Some(Arc::new(|format| match format {
                ConfigFormat::Json => "{\"key\":\"REDACTED\"}\n".to_owned(),
                ConfigFormat::Yaml => "key: REDACTED\n".to_owned(),
            })),
            quit: Some(quit_sender),
            token: None,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel();
        let stopped = async { drop(stopped.await) };
        let ended = tokio::spawn(http::serve(listener, router, limits, telemetry.clone(), stopped));
        Server { address, telemetry, phase, quit, stop, ended }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// Sends `bytes` on a connection of their own and reads until the server closes it.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.expect("the server reads");
        read_all(&mut stream).await
    }

    /// One request without a body.
    async fn request(&self, method: &str, path: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        Answer::parse(&self.exchange(request).await)
    }

    fn counted(&self, name: &str, tags: &str) -> u64 {
        let all = self.telemetry.totals();
        let found = all.iter().find(|series| series.name == name && &*series.tags == tags);
        match found.map(|series| &series.value) {
            Some(veneur::telemetry::registry::Total::Count(total)) => *total,
            _ => 0,
        }
    }
}

/// Reads until the other side closes; what it closes with does not matter.
async fn read_all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let read = timeout(DEADLINE, stream.read_to_end(&mut bytes));
    let _reset = read.await.expect("the server closes in time");
    String::from_utf8(bytes).expect("answers are text")
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn parse(text: &str) -> Answer {
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer has an empty line");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let headers = head.to_ascii_lowercase();
        Answer { status: status.expect("a status"), headers, body: body.to_owned() }
    }

    fn summary(&self) -> (u16, &str) {
        (self.status, &self.body)
    }
}

#[tokio::test]
async fn with_a_token_only_those_who_show_it_see_more_than_whether_we_live() {
    let token = || Some(Secret::new("sesame".to_owned()));
    let router = |state| http::router(HttpState { token: token(), ..state });
    let mut server = Server::with(Limits::default(), router).await;
    for (method, path, is_for_everyone) in [
        ("GET", "/healthcheck", true),
        ("GET", "/healthcheck/tracing", true),
        ("GET", "/ready", true),
        ("GET", "/version", false),
        ("GET", "/builddate", false),
        ("GET", "/metrics", false),
        ("GET", "/config/json", false),
        ("GET", "/config/yaml", false),
        ("POST", "/quitquitquit", false),
    ] {
        let request = async |shown: &str| {
            let head =
                format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{shown}Connection: close\r\n");
            Answer::parse(&server.exchange(format!("{head}\r\n")).await)
        };
        for shown in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic sesame\r\n"] {
            let answer = request(shown).await;
            assert_eq!(answer.status == 401, !is_for_everyone, "{path}: {answer:?}");
            if !is_for_everyone {
                assert_eq!(answer.body, "missing or wrong token\n", "{path}");
                assert!(answer.headers.contains("www-authenticate: bearer"), "{answer:?}");
            }
        }
        assert!(server.quit.is_empty(), "nobody may have asked for it");
        let answer = request("Authorization: Bearer sesame\r\n").await;
        assert_ne!(answer.status, 401, "{path}");
        // As it was asked for here.
        let _asked = server.quit.try_recv();
    }
    assert!(server.counted(names::HTTP_REQUESTS_TOTAL, "status:401") > 0);
}

#[tokio::test]
async fn every_page_answers() {
    let server = Server::start().await;
    let version = concat!(env!("CARGO_PKG_VERSION"), "\n");
    for (method, path, status, body) in [
        ("GET", "/healthcheck", 200, "ok\n"),
        ("HEAD", "/healthcheck", 200, ""),
        ("GET", "/healthcheck/tracing", 200, "ok\n"),
        ("GET", "/version", 200, version),
        ("GET", "/config/json", 200, "{\"key\":\"REDACTED\"}\n"),
        ("GET", "/config/yaml", 200, "key: REDACTED\n"),
        ("GET", "/", 404, "404 page not found\n"),
        ("GET", "/healthcheck/", 404, "404 page not found\n"),
        ("POST", "/nowhere", 404, "404 page not found\n"),
        ("POST", "/healthcheck", 405, "405 method not allowed\n"),
        ("DELETE", "/metrics", 405, "405 method not allowed\n"),
        ("GET", "/quitquitquit", 405, "405 method not allowed\n"),
    ] {
        let answer = server.request(method, path).await;
        assert_eq!(answer.summary(), (status, body), "{method} {path}");
    }
    assert_eq!(server.request("GET", "/builddate").await.status, 200);
    let refused = server.request("POST", "/healthcheck").await;
    assert!(refused.headers.contains("allow: get,head"), "{refused:?}");
    let head = server.request("HEAD", "/healthcheck").await;
    assert!(head.headers.contains("content-length: 3"), "{head:?}");
    assert_eq!(server.counted(names::HTTP_REQUESTS_TOTAL, "status:404"), 3);
}

#[tokio::test]
async fn ready_follows_the_phase() {
    let server = Server::start().await;
    for (phase, status, body) in [
        (Phase::Starting, 503, "starting\n"),
        (Phase::Ready, 200, "ready\n"),
        (Phase::Draining, 503, "draining\n"),
    ] {
        server.phase.send_replace(phase);
        assert_eq!(server.request("GET", "/ready").await.summary(), (status, body));
        assert_eq!(server.request("GET", "/healthcheck").await.status, 200, "alive all along");
    }
}

#[tokio::test]
async fn the_configuration_pages_show_no_secret() {
    let text = "key: hunter2\nsentry_dsn: https://hunter2@example.com/1\n\
                forward_address: http://user:hunter2@example.com\nhostname: web-1\n";
    let settings = config::parse("test", text, [], false, &Machine::this())
        .unwrap_or_else(|problems| panic!("{problems}"))
        .settings;
    let server = Server::with(Limits::default(), |state| {
        let show = move |format| match format {
            ConfigFormat::Json => settings.effective_json(),
            ConfigFormat::Yaml => settings.effective_yaml(),
        };
        http::router(HttpState { config: Some(Arc::new(show)), ..state })
    })
    .await;
    for (path, content_type) in
        [("/config/json", "application/json"), ("/config/yaml", "application/yaml")]
    {
        let page = server.request("GET", path).await;
        assert!(page.headers.contains(content_type), "{page:?}");
        assert!(page.body.contains("web-1") && page.body.contains("REDACTED"), "{page:?}");
        assert!(!page.body.contains("hunter2"), "{page:?}");
    }
    let json = server.request("GET", "/config/json").await.body;
    serde_json::from_str::<serde_json::Value>(&json).expect("it is JSON");
}

#[tokio::test]
async fn optional_pages_are_absent_unless_enabled() {
    let server = Server::with(Limits::default(), |state| {
        http::router(HttpState { config: None, quit: None, ..state })
    })
    .await;
    for (method, path) in
        [("GET", "/config/json"), ("GET", "/config/yaml"), ("POST", "/quitquitquit")]
    {
        let answer = server.request(method, path).await;
        assert_eq!(answer.summary(), (404, "404 page not found\n"), "{path}");
    }
}

#[tokio::test]
async fn metrics_is_a_valid_openmetrics_page_of_every_metric() {
    let server = Server::start().await;
    for metric in names::ALL {
        for tags in ["", "a:1,bare", "a:say \"hi\" \\"] {
            match metric.kind {
                names::Kind::Counter => server.telemetry.count(metric.name, tags, 7),
                names::Kind::Gauge => server.telemetry.gauge(metric.name, tags, -2.5),
                names::Kind::Duration => {
                    server.telemetry.duration(metric.name, tags, Duration::from_millis(3));
                }
                names::Kind::Amount => server.telemetry.histogram(metric.name, tags, 1234.0),
            }
        }
    }
    server.telemetry.count(
        names::PACKET_ERROR_TOTAL,
        "packet_type:metric,reason:bad_value",
        u64::from(u32::MAX),
    );
    let answer = server.request("GET", "/metrics").await;
    let content_type = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(answer.headers.contains(content_type), "{}", answer.headers);
    let samples = openmetrics::check(&answer.body).expect("the page is valid");
    let refused = r#"veneur_packet_error_total{packet_type="metric",reason="bad_value"}"#;
    assert_eq!(samples.get(refused), Some(&f64::from(u32::MAX)));
    assert_eq!(samples.get("veneur_flush_total_duration_seconds_sum"), Some(&0.003));
    assert!(samples.len() > 3 * names::ALL.len());
}

#[tokio::test]
async fn an_empty_metrics_page_is_valid() {
    let server = Server::start().await;
    let answer = server.request("GET", "/metrics").await;
    let samples = openmetrics::check(&answer.body).expect("the page is valid");
    assert_eq!(samples.len(), 1, "the build's version: {samples:?}");
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let server = Server::start().await;
    let request = "GET /healthcheck HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /healthcheck HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let text = server.exchange(format!("{request}{request}{last}")).await;
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
}

#[tokio::test]
async fn quitting_is_answered_before_it_is_told() {
    let mut server = Server::start().await;
    // The client keeps the connection open; it is the server that closes it, and it is only
    // then that the message arrives.
    let mut stream = server.connect().await;
    let request = "POST /quitquitquit HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    timeout(DEADLINE, server.quit.recv()).await.expect("in time").expect("it is told");
    let mut answer = vec![0; 1024];
    // It does not block: what is not there now fails.
    let mut stream = stream.into_std().expect("it is a plain socket");
    let read = stream.read(&mut answer).expect("the answer is here before the message");
    let answer = Answer::parse(std::str::from_utf8(&answer[..read]).expect("answers are text"));
    assert_eq!(answer.summary(), (200, "Beginning graceful shutdown....\n"));
    assert!(answer.headers.contains("connection: close"), "{answer:?}");
}

#[tokio::test]
async fn too_much_is_refused() {
    let server = Server::start().await;
    let get = "GET /healthcheck HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let long = "x".repeat(20_000);
    let many: String = (0..101).map(|n| format!("H{n}: 1\r\n")).collect();
    for (request, status) in [
        (format!("{get}Long: {long}\r\n\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 431),
        (format!("{get}{many}\r\n"), 431),
        (format!("{get}Content-Length: 5000\r\n\r\n"), 413),
        (format!("{get}Content-Length: 99999999999999999999999\r\n\r\n"), 400),
        ("\u{16}\u{3}\u{1} not HTTP at all\r\n\r\n".to_owned(), 400),
    ] {
        let answer = Answer::parse(&server.exchange(&request).await);
        assert_eq!(answer.status, status, "{} bytes", request.len());
    }
    assert_eq!(server.request("GET", "/healthcheck").await.status, 200, "and it lives on");
}

#[tokio::test]
async fn an_endless_body_is_not_read() {
    let server = Server::start().await;
    let mut stream = server.connect().await;
    let head = "GET /healthcheck HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("the server reads");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let endless = async { while stream.write_all(chunk.as_bytes()).await.is_ok() {} };
    timeout(DEADLINE, endless).await.expect("the server closes the connection");
}

#[tokio::test]
async fn slow_headers_and_silence_are_cut() {
    let limits = Limits { header_read: Duration::from_millis(50), ..Limits::default() };
    let server = Server::with(limits, http::router).await;
    for sent in ["", "GET /healthcheck HT", "GET /healthcheck HTTP/1.1\r\nHost: x\r\n"] {
        let answer = server.exchange(sent).await;
        assert!(!answer.contains("200"), "{answer}");
    }
    // Silence behind an answer as well.
    let answer = server.exchange("GET /healthcheck HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(server.counted(names::HTTP_CONNECTIONS_CLOSED_TOTAL, "reason:slow"), 3);
    assert_eq!(server.counted(names::HTTP_CONNECTIONS_CLOSED_TOTAL, "reason:idle"), 1);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let limits = Limits { request: Duration::from_millis(50), ..Limits::default() };
    let server = Server::with(limits, |state| {
        let forever = axum::routing::get(std::future::pending::<&str>);
        http::router(state).route("/forever", forever)
    })
    .await;
    let answer = server.request("GET", "/forever").await;
    assert_eq!(answer.summary(), (408, "request took too long\n"));
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut() {
    let limits = Limits {
        header_read: Duration::from_millis(50),
        request: Duration::from_millis(50),
        ..Limits::default()
    };
    let server = Server::with(limits, |state| {
        // More than the kernel buffers on both sides together.
        let large = axum::routing::get(async || vec![b'x'; 64 << 20]);
        http::router(state).route("/large", large)
    })
    .await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the server reads");
    let cut = async {
        while server.counted(names::HTTP_CONNECTIONS_CLOSED_TOTAL, "reason:slow") == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, cut).await.expect("it is cut");
    let got = read_all(&mut stream).await;
    assert!(got.len() < 64 << 20, "the rest was never sent");
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let server =
        Server::with(Limits { max_connections: 1, ..Limits::default() }, http::router).await;
    let mut first = server.connect().await;
    let request = b"GET /healthcheck HTTP/1.1\r\nHost: x\r\n\r\n";
    first.write_all(request).await.expect("the server reads");
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.expect("the first is served");
    assert_eq!(server.exchange("").await, "");
    assert_eq!(server.counted(names::HTTP_CONNECTIONS_CLOSED_TOTAL, "reason:limit"), 1);
    drop(first);
}

#[tokio::test]
async fn at_the_end_running_requests_are_finished_and_the_rest_is_closed() {
    let (begun, mut has_begun) = mpsc::channel(1);
    let (finish, finished) = watch::channel(false);
    let server = Server::with(Limits::default(), |state| {
        let page = async move || {
            begun.send(()).await.expect("the test listens");
            let mut finished = finished.clone();
            finished.wait_for(|finished| *finished).await.expect("the test sends");
            "finished\n"
        };
        http::router(state).route("/slow", axum::routing::get(page))
    })
    .await;
    let mut silent = server.connect().await;
    let mut running = server.connect().await;
    running.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the server reads");
    timeout(DEADLINE, has_begun.recv()).await.expect("in time").expect("it began");
    server.stop.send(()).expect("the server waits for it");
    assert_eq!(read_all(&mut silent).await, "");
    TcpStream::connect(server.address).await.expect_err("it does not listen any more");
    finish.send_replace(true);
    let answer = read_all(&mut running).await;
    assert_eq!(Answer::parse(&answer).summary(), (200, "finished\n"));
    timeout(DEADLINE, server.ended).await.expect("in time").expect("it ended");
}

#[tokio::test]
async fn at_the_end_requests_that_never_finish_are_cut() {
    let (begun, mut has_begun) = mpsc::channel(1);
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    let server = Server::with(limits, |state| {
        let page = async move || {
            begun.send(()).await.expect("the test listens");
            std::future::pending::<&str>().await
        };
        http::router(state).route("/forever", axum::routing::get(page))
    })
    .await;
    let mut running = server.connect().await;
    running.write_all(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("it reads");
    timeout(DEADLINE, has_begun.recv()).await.expect("in time").expect("it began");
    server.stop.send(()).expect("the server waits for it");
    timeout(DEADLINE, server.ended).await.expect("in time").expect("it ended");
    assert_eq!(read_all(&mut running).await, "");
}

#[tokio::test]
async fn a_unix_socket_serves_the_same_pages() {
    let directory = std::env::temp_dir().join(format!("veneur-http-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory for the socket");
    let path = directory.join("http.sock");
    let listener = UnixListener::bind(&path).expect("a fresh path");
    let (_phase, phase) = watch::channel(Phase::Ready);
    let telemetry = Telemetry::default();
    let state =
        HttpState { telemetry: telemetry.clone(), phase, config: None, quit: None, token: None };
    let serving = http::serve(
        listener,
        http::router(state),
        Limits::default(),
        telemetry,
        std::future::pending(),
    );
    let serving = tokio::spawn(serving);
    let mut stream = UnixStream::connect(&path).await.expect("the server listens");
    let request = b"GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.expect("the server reads");
    let answer = read_all(&mut stream).await;
    assert_eq!(Answer::parse(&answer).summary(), (200, "ready\n"));
    serving.abort();
    std::fs::remove_dir_all(&directory).expect("it was made above");
}
