//! The InfluxDB sink against a fake server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use veneur::config::settings::{InfluxdbApi, InfluxdbLayout, InfluxdbSettings};
use veneur::config::{BaseUrl, Secret};
use veneur::model::FlushBatch;
use veneur::sinks::influxdb::Influxdb;
use veneur::sinks::{Delivered, MetricSink, Node, Reason, Tally};
use veneur::telemetry::Telemetry;

use crate::batches::{gauges, interval, mixed};
use crate::fake_intake::{FakeIntake, Fault};
use crate::golden::assert_golden;

const SECRET: &str = "hunter2";

fn v1() -> InfluxdbApi {
    InfluxdbApi::V1 {
        database: "a b".into(),
        retention_policy: Some("week".into()),
        consistency: Some("one".into()),
        user: Some("u".into()),
        password: Some(Secret::new(SECRET.into())),
    }
}

fn v2() -> InfluxdbApi {
    InfluxdbApi::V2 { org: "o".into(), bucket: "b/c".into(), token: Secret::new(SECRET.into()) }
}

async fn flush(intake: &FakeIntake, api: InfluxdbApi, batch: FlushBatch) -> Delivered {
    // Fails when another test was first, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let address = BaseUrl::parse(&intake.url()).expect("the fake server has a good URL");
    let settings = InfluxdbSettings { address, api, layout: InfluxdbLayout::Fields };
    let node = Node { host: Some("testhost".into()), tags: vec!["env:test".into()] };
    let mut sink = Influxdb::new("i", &settings, node, interval(), Telemetry::default(), None)
        .expect("the settings are good");
    let deadline = (Instant::now() + Duration::from_secs(10)).into();
    sink.flush(Arc::new(batch), deadline).await
}

#[tokio::test]
async fn a_flush_is_lines_and_exact() {
    for (api, path, query, authorization) in [
        // base64 of u:hunter2
        (v1(), "/write", "db=a+b&rp=week&consistency=one&precision=s", "Basic dTpodW50ZXIy"),
        (v2(), "/api/v2/write", "org=o&bucket=b%2Fc&precision=s", "Token hunter2"),
    ] {
        let intake = FakeIntake::start().await;
        let delivered = flush(&intake, api, mixed()).await;
        assert_eq!(delivered.points, Tally::new(mixed().points.len() as u64, 0));
        assert!(delivered.events.skipped > 0 && delivered.checks.skipped > 0);
        let [request] = &intake.received()[..] else { panic!("one request") };
        assert_eq!((request.path.as_str(), request.query.as_deref()), (path, Some(query)));
        assert_eq!(request.headers["authorization"], authorization);
        assert_eq!(request.headers["content-encoding"], "gzip");
        assert_golden("influxdb_lines.txt", &request.plain);
    }
}

#[tokio::test]
async fn what_the_server_dropped_of_a_body_is_counted_and_not_sent_again() {
    let intake = FakeIntake::start().await;
    let says = r#"{"error":"partial write: field type conflict: input field \"value\" on measurement \"m1\" is type float, already exists as type integer, and some more words so that it is a long answer, as they are dropped=2"}"#;
    intake.fail("/write", [Fault::Says(400, says)]);
    let delivered = flush(&intake, v1(), gauges(7)).await;
    let mut wanted = Tally::new(5, 0);
    wanted.lose(Reason::Status(400), 2);
    assert_eq!(delivered.points, wanted);
    let failure = delivered.failure.expect("it says why");
    assert!(failure.contains("field type conflict") && !failure.contains(SECRET), "{failure}");
    assert_eq!(intake.received().len(), 1);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_halved_and_a_busy_server_is_left_alone() {
    let intake = FakeIntake::start().await;
    intake.fail("/write", [Fault::Status(413), Fault::RetryAfter(429, "1".to_owned())]);
    let delivered = flush(&intake, v1(), gauges(100)).await;
    assert_eq!(delivered.points, Tally::new(100, 0));
    let received = intake.received();
    let statuses: Vec<_> = received.iter().map(|request| request.status).collect();
    assert_eq!(statuses, [Some(413), Some(429), Some(202), Some(202)]);
    assert!(received[2].at - received[1].at >= Duration::from_secs(1));
}

#[tokio::test]
async fn who_may_not_write_is_told_so_once() {
    let intake = FakeIntake::start().await;
    intake.fail("/api/v2/write", [Fault::Status(401)]);
    let delivered = flush(&intake, v2(), gauges(3)).await;
    assert_eq!(delivered.points, Tally::lost(Reason::Status(401), 3));
    assert!(!delivered.failure.expect("it says why").contains(SECRET));
    assert_eq!(intake.received().len(), 1);
}
