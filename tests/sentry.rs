//! Reports to a fake Sentry on loopback: what arrives, and what must not.
//!
//! One test in a process of its own: panic hook and logs belong to the whole process.
#![cfg(feature = "sentry")]

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tracing_subscriber::layer::SubscriberExt;
use veneur::config::Secret;
use veneur::telemetry::registry::Total;
use veneur::telemetry::{Telemetry, logging, names, sentry};

/// Only our own lines are reported; those of a test are not, unless they say so.
const OWN: &str = "veneur::test";

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// One request as the fake got it.
struct Request {
    path: String,
    auth: String,
    /// The lines of the envelope.
    envelope: Vec<Value>,
}

impl Request {
    /// The event: envelope header, item header, payload.
    fn event(&self) -> &Value {
        assert_eq!(self.envelope[1]["type"], "event", "{:?}", self.envelope);
        &self.envelope[2]
    }
}

/// Starts a server that hands every request on.
fn fake_sentry() -> (SocketAddr, Receiver<Request>) {
    let (sender, requests) = mpsc::channel();
    let (address_sender, address) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            address_sender.send(address).expect("the test waits");
            let take = async |State(sender): State<mpsc::Sender<Request>>,
                              uri: Uri,
                              headers: HeaderMap,
                              body: String| {
                let lines = body.lines().map(serde_json::from_str);
                let auth = headers.get("x-sentry-auth").and_then(|auth| auth.to_str().ok());
                let request = Request {
                    path: uri.path().to_owned(),
                    auth: auth.unwrap_or_default().to_owned(),
                    envelope: lines.collect::<Result<_, _>>().expect("an envelope is JSON"),
                };
                drop(sender.send(request));
                "{}"
            };
            let router = Router::new().fallback(post(take)).with_state(sender);
            axum::serve(listener, router).await.expect("it serves for ever");
        });
    });
    (address.recv().expect("the server starts"), requests)
}

#[test]
fn errors_and_panics_are_reported_if_there_is_a_dsn() {
    let telemetry = Telemetry::default();
    let (address, requests) = fake_sentry();
    let next = || requests.recv_timeout(DEADLINE).expect("a report arrives");

    let absent = sentry::start(None, Some("web-1"), &telemetry).expect("no DSN is no error");
    assert!(absent.is_none());
    for dsn in ["", "http://127.0.0.1/1", "secret"] {
        let dsn = Secret::new(dsn.to_owned());
        let error = sentry::start(Some(&dsn), None, &telemetry).expect_err("not a DSN");
        let text = error.to_string();
        assert!(text.starts_with("sentry_dsn: not a Sentry DSN"), "{text}");
    }

    let dsn = Secret::new(format!("http://key@{address}/42"));
    let reporter = sentry::start(Some(&dsn), Some("web-1"), &telemetry)
        .expect("a good DSN")
        .expect("there is a DSN");
    logging::init(false, Some(reporter.errors())).expect("nothing else logs here");

    // Less than an error is no report: the first to arrive is the error.
    tracing::warn!(target: OWN, "not reported");
    tracing::error!(target: "hyper", "not ours, not reported");
    let error = std::io::Error::other("connection reset");
    tracing::error!(target: OWN, sink = "datadog", points = 17, %error, "points lost");
    let request = next();
    assert_eq!(request.path, "/api/42/envelope/");
    assert!(request.auth.contains("sentry_key=key"), "{}", request.auth);
    let event = request.event();
    assert_eq!(event["message"], "points lost");
    assert_eq!(event["level"], Value::Null, "absent, which means error");
    assert_eq!(event["server_name"], "web-1");
    assert_eq!(event["release"], concat!("veneur@", env!("CARGO_PKG_VERSION")));
    assert_eq!(event["logger"], OWN);
    assert_eq!(event["extra"]["sink"], "datadog");
    assert_eq!(event["extra"]["points"], 17);
    assert_eq!(event["extra"]["error"], "connection reset");
    assert!(event["threads"]["values"][0]["stacktrace"]["frames"].is_array(), "{event}");

    // The thread's end is the proof: its panic was reported before.
    let thread = std::thread::Builder::new().name("worker-0".into());
    let thread = thread.spawn(|| panic!("a panic of the test")).expect("a thread");
    thread.join().expect_err("it panicked");
    let request = requests.try_recv().expect("the panic is reported before it goes on");
    let event = request.event();
    let exception = &event["exception"]["values"][0];
    assert_eq!(exception["type"], "panic");
    assert_eq!(exception["value"], "a panic of the test");
    assert_eq!(event["level"], "fatal");
    assert_eq!(event["server_name"], "web-1");
    assert_eq!(event["tags"]["thread"], "worker-0");

    for n in 0..100 {
        tracing::error!(target: OWN, n, "again and again");
    }
    tracing::error!(target: OWN, "the last");
    reporter.flush();
    let rest: Vec<Request> = requests.try_iter().collect();
    let messages: Vec<&str> =
        rest.iter().filter_map(|request| request.event()["message"].as_str()).collect();
    assert_eq!(messages.len(), 6, "{messages:?}");
    assert!(messages[..5].iter().all(|&message| message == "again and again"));
    assert_eq!(messages[5], "the last");
    let totals = telemetry.totals();
    let left_out = totals.iter().find(|series| series.name == names::SENTRY_LEFT_OUT_TOTAL);
    assert_eq!(left_out.map(|series| &series.value), Some(&Total::Count(95)));

    the_end_waits_for_reports_only_so_long();
}

/// With a Sentry that takes connections and says nothing.
fn the_end_waits_for_reports_only_so_long() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("it is bound");
    let dsn = Secret::new(format!("http://key@{address}/42"));
    let reporter = sentry::start(Some(&dsn), None, &Telemetry::default())
        .expect("a good DSN")
        .expect("there is a DSN");
    let subscriber = tracing_subscriber::registry().with(reporter.errors());
    let say = || tracing::error!(target: OWN, "nobody listens");
    tracing::subscriber::with_default(subscriber, say);
    let before = Instant::now();
    reporter.flush();
    let took = before.elapsed();
    assert!(took >= sentry::FLUSH_WITHIN && took < sentry::FLUSH_WITHIN + DEADLINE, "{took:?}");
}
