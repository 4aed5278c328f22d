//! The Datadog sink against a fake intake.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use veneur::config::settings::{DatadogSettings, FilterSettings};
use veneur::config::{BaseUrl, Secret};
use veneur::model::FlushBatch;
use veneur::sinks::datadog::Datadog;
use veneur::sinks::{Delivered, Filter, MetricSink, Node, Reason, SinkTask, Tally};
use veneur::telemetry::Telemetry;
use veneur::telemetry::registry::Total;

use crate::batches::{gauges, interval, mixed};
use crate::fake_intake::{FakeIntake, Fault, Received};
use crate::golden::assert_golden;

const KEY: &str = "0123456789abcdef";
const SERIES: &str = "/api/v1/series";
const CHECKS: &str = "/api/v1/check_run";
const EVENTS: &str = "/intake";

fn settings(url: &str) -> DatadogSettings {
    DatadogSettings {
        api_hostname: BaseUrl::parse(url).expect("the fake intake has a good URL"),
        key: Some(Secret::new(KEY.into())),
        key_in_query: false,
        flush_max_per_body: NonZeroUsize::new(4).expect("four is not zero"),
    }
}

fn sink(settings: &DatadogSettings) -> Datadog {
    // Fails when another test was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let node = Node { host: Some("testhost".into()), tags: vec!["env:test".into()] };
    Datadog::new("datadog", settings, node, interval(), Telemetry::default(), None)
        .expect("the settings are good")
}

/// Nothing is filtered.
fn all() -> Filter {
    Filter::new("datadog", FilterSettings::default())
}

/// Flushes with `time` to do it in.
async fn flush_within(sink: &mut Datadog, batch: FlushBatch, time: Duration) -> Delivered {
    sink.flush(Arc::new(batch), tokio::time::Instant::now() + time).await
}

async fn flush(sink: &mut Datadog, batch: FlushBatch) -> Delivered {
    flush_within(sink, batch, Duration::from_secs(10)).await
}

/// Statuses answered at a path, in order.
fn statuses(intake: &FakeIntake, path: &str) -> Vec<Option<u16>> {
    intake.received_at(path).iter().map(|request| request.status).collect()
}

#[tokio::test]
async fn bodies_are_veneurs_byte_for_byte() {
    let intake = FakeIntake::start().await;
    let mut settings = settings(&intake.url());
    settings.flush_max_per_body = NonZeroUsize::MAX;
    let delivered = flush(&mut sink(&settings), mixed()).await;
    assert_eq!(delivered.points, Tally::new(5, 0));
    assert_eq!(delivered.events, Tally::new(2, 0));
    assert_eq!(delivered.checks, Tally::new(2, 0));
    assert_eq!(delivered.failure, None);

    for (path, golden, encoding) in [
        (SERIES, "datadog_series.json", Some("deflate")),
        (EVENTS, "datadog_events.json", Some("deflate")),
        (CHECKS, "datadog_checks.json", None),
    ] {
        let requests = intake.received_at(path);
        let [Received { query, headers, plain, .. }] = &requests[..] else {
            panic!("one request for {path}, not {}", requests.len());
        };
        assert_golden(golden, plain);
        let header = |name: &str| headers.get(name).map(|value| value.to_str().expect("is text"));
        assert_eq!(query.as_deref(), None, "{path}");
        assert_eq!(header("dd-api-key"), Some(KEY), "{path}");
        assert_eq!(header("content-type"), Some("application/json"), "{path}");
        assert_eq!(header("content-encoding"), encoding, "{path}");
        let product = concat!("veneur/", env!("CARGO_PKG_VERSION"));
        assert_eq!(header("user-agent"), Some(product), "{path}");
    }
}

#[tokio::test]
async fn the_key_is_in_the_query_only_if_asked_for() {
    let intake = FakeIntake::start().await;
    let mut settings = settings(&intake.url());
    settings.key_in_query = true;
    flush(&mut sink(&settings), mixed()).await;
    let received = intake.received();
    assert_eq!(received.len(), 4, "five series make two bodies");
    for request in received {
        assert_eq!(request.query.as_deref(), Some("api_key=0123456789abcdef"), "{}", request.path);
    }
}

#[tokio::test]
async fn without_a_key_none_is_sent() {
    let intake = FakeIntake::start().await;
    let settings = DatadogSettings { key: None, key_in_query: true, ..settings(&intake.url()) };
    flush(&mut sink(&settings), gauges(1)).await;
    let request = &intake.received()[0];
    assert_eq!((&request.query, request.headers.get("dd-api-key")), (&None, None));
}

#[tokio::test]
async fn series_are_split_evenly() {
    let intake = FakeIntake::start().await;
    assert_eq!(flush(&mut sink(&settings(&intake.url())), gauges(10)).await.points.sent, 10);
    let size = |body: &Received| body.json()["series"].as_array().map(Vec::len);
    let mut sizes: Vec<_> = intake.received_at(SERIES).iter().map(size).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [Some(2), Some(4), Some(4)]);
}

#[tokio::test]
async fn nothing_is_sent_where_there_is_nothing_to_say() {
    let intake = FakeIntake::start().await;
    let mut sink = sink(&settings(&intake.url()));
    assert_eq!(flush(&mut sink, gauges(0)).await, Delivered::default());
    assert_eq!(intake.received().len(), 0);

    flush(&mut sink, FlushBatch { checks: Vec::new(), points: Vec::new(), ..mixed() }).await;
    let paths: Vec<String> = intake.received().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, [EVENTS]);
}

#[tokio::test]
async fn what_may_pass_is_sent_again_unchanged() {
    for fault in [Fault::Status(500), Fault::RetryAfter(503, "0".into()), Fault::Reset] {
        let intake = FakeIntake::start().await;
        intake.fail(SERIES, [fault.clone()]);
        let delivered = flush(&mut sink(&settings(&intake.url())), gauges(3)).await;
        assert_eq!(delivered.points, Tally::new(3, 0), "{fault:?}");
        let requests = intake.received_at(SERIES);
        assert_eq!(requests.len(), 2, "{fault:?}");
        assert_eq!(requests[1].status, Some(202), "{fault:?}");
        if requests[0].status.is_some() {
            assert_eq!(requests[0].plain, requests[1].plain, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn a_retry_after_is_honoured() {
    let intake = FakeIntake::start().await;
    intake.fail(SERIES, [Fault::RetryAfter(429, "1".into())]);
    let delivered = flush(&mut sink(&settings(&intake.url())), gauges(1)).await;
    assert_eq!(delivered.points, Tally::new(1, 0));
    let requests = intake.received_at(SERIES);
    assert!(requests[1].at - requests[0].at >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_refusal_is_final_and_tells_no_key() {
    let intake = FakeIntake::start().await;
    let mut settings = settings(&intake.url());
    settings.key_in_query = true;
    intake.fail(SERIES, [Fault::Status(403)]);
    let delivered = flush(&mut sink(&settings), mixed()).await;
    assert_eq!(delivered.points.losses().collect::<Vec<_>>(), [(Reason::Status(403), 3)]);
    assert_eq!(delivered.points.sent, 2, "the other body was taken");
    assert_eq!(delivered.events, Tally::new(2, 0), "events are none the worse for it");
    let failure = delivered.failure.expect("it says what went wrong");
    assert!(failure.starts_with("/api/v1/series answered 403: "), "{failure}");
    assert!(failure.contains("REDACTED") && !failure.contains(KEY), "{failure}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let intake = FakeIntake::start().await;
    intake.fail(SERIES, [Fault::Status(307)]);
    let delivered = flush(&mut sink(&settings(&intake.url())), gauges(1)).await;
    assert_eq!(delivered.points, Tally::lost(Reason::Status(307), 1));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_split() {
    let intake = FakeIntake::start().await;
    let mut settings = settings(&intake.url());
    settings.flush_max_per_body = NonZeroUsize::MAX;
    intake.limit_bodies(500);
    let delivered = flush(&mut sink(&settings), gauges(100)).await;
    assert_eq!(delivered.points, Tally::new(100, 0));
    let mut names: Vec<String> =
        intake.series().iter().map(|series| series["metric"].to_string()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 100);
    assert!(statuses(&intake, SERIES).contains(&Some(413)));

    // With a limit no body can keep, each point is dropped, and counted.
    intake.limit_bodies(10);
    let delivered = flush(&mut sink(&settings), gauges(5)).await;
    assert_eq!(delivered.points, Tally::lost(Reason::TooLarge, 5));
}

#[tokio::test]
async fn an_intake_that_hangs_costs_no_more_than_the_deadline() {
    let intake = FakeIntake::start().await;
    intake.fail(SERIES, vec![Fault::Hang; 100]);
    let (started, time) = (Instant::now(), Duration::from_millis(300));
    let delivered = flush_within(&mut sink(&settings(&intake.url())), gauges(40), time).await;
    assert_eq!(delivered.points, Tally::lost(Reason::Timeout, 40));
    assert!(started.elapsed() >= time);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_slow_intake_is_waited_for() {
    let intake = FakeIntake::start().await;
    intake.fail(SERIES, [Fault::Slow(Duration::from_millis(200))]);
    let delivered = flush(&mut sink(&settings(&intake.url())), gauges(1)).await;
    assert_eq!(delivered.points, Tally::new(1, 0));
    assert_eq!(statuses(&intake, SERIES), [Some(202)]);
}

#[tokio::test]
async fn the_status_counts_even_if_the_answer_never_ends() {
    for (status, expected) in [(202, Tally::new(1, 0)), (403, Tally::lost(Reason::Status(403), 1))]
    {
        let intake = FakeIntake::start().await;
        intake.fail(SERIES, [Fault::Endless(status)]);
        let delivered = flush(&mut sink(&settings(&intake.url())), gauges(1)).await;
        assert_eq!(delivered.points, expected, "{status}");
        assert_eq!(statuses(&intake, SERIES), [Some(status)]);
    }
}

#[tokio::test]
async fn an_intake_that_is_not_there_is_a_failure_of_io() {
    // Bound but not listening: the port answers nobody and is nobody else's.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
        .expect("a TCP socket can be had");
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).expect("loopback has free ports");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket());
    let url = format!("http://{}", address.expect("a bound socket has an address"));
    let time = Duration::from_millis(300);
    let delivered = flush_within(&mut sink(&settings(&url)), gauges(1), time).await;
    assert_eq!(delivered.points, Tally::lost(Reason::Io, 1));
    let failure = delivered.failure.expect("it says what went wrong");
    assert!(failure.starts_with("/api/v1/series could not be reached: "), "{failure}");
    assert!(failure.contains("refused"), "the last cause is told: {failure}");
}

#[tokio::test]
async fn connections_are_kept() {
    let intake = FakeIntake::start().await;
    let mut sink = sink(&settings(&intake.url()));
    for _ in 0..5 {
        assert_eq!(flush(&mut sink, gauges(1)).await.points.sent, 1);
    }
    assert_eq!(intake.received().len(), 5);
    assert_eq!(intake.connections(), 1);
}

#[tokio::test]
async fn what_becomes_of_a_flush_is_in_our_own_telemetry() {
    let intake = FakeIntake::start().await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let telemetry = Telemetry::default();
    let settings = settings(&intake.url());
    let sink =
        Datadog::new("datadog", &settings, Node::default(), interval(), telemetry.clone(), None)
            .expect("the settings are good");
    intake.fail(SERIES, [Fault::Status(403)]);
    let task = SinkTask::spawn(sink, all(), interval(), telemetry.clone());
    task.offer(Arc::new(mixed()), false);
    task.finish().await;

    let totals = telemetry.totals();
    let count = |name: &str, tags: &str| {
        let series = totals.iter().find(|series| series.name == name && *series.tags == *tags);
        match series.map(|series| &series.value) {
            Some(Total::Count(n)) => Some(*n),
            Some(Total::Durations(summary) | Total::Amounts(summary)) => Some(summary.count),
            Some(Total::Gauge(value)) => Some(*value as u64),
            None => None,
        }
    };
    for (name, tags, n) in [
        ("sink.metrics_flushed_total", "sink:datadog", 2),
        ("sink.metrics_dropped_total", "sink:datadog,reason:403", 3),
        ("sink.events_flushed_total", "sink:datadog", 2),
        ("sink.checks_flushed_total", "sink:datadog", 2),
        ("sink.metric_flush_total_duration_ns", "sink:datadog", 1),
        ("flush.total_duration_ns", "part:post", 1),
        ("flush.error_total", "cause:403", 1),
        ("flush.error_total", "", 0),
        ("flush.duration_ns", "part:json", 2),
        ("flush.duration_ns", "part:post", 2),
        ("flush.content_length_bytes", "", 2),
        ("flush_events.duration_ns", "part:post", 1),
        ("flush_checks.content_length_bytes", "", 1),
    ] {
        assert_eq!(count(name, tags), Some(n), "{name} {tags}");
    }
}
