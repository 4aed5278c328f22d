//! Spans in, over UDP and a Unix stream, and out to trace agents.

use std::process::Command;

use serde_json::{Value, json};

use crate::fake_intake::FakeIntake;
use crate::ledger::total;
use crate::support::{Daemon, scratch_directory, wait_until};

/// Sends a span of trace 7 with a counter and an indicator.
fn emit(to: &str, name: &str) {
    let program = env!("CARGO_BIN_EXE_veneur");
    let options = ["--ssf", "--trace_id", "7", "--span_service", "shop", "--indicator"];
    let samples = ["--count", "2", "--tag", "env:prod", "--name", name];
    let emit = Command::new(program)
        .args(["emit", "--hostport", to])
        .args(options)
        .args(samples)
        .args(["--span_starttime", "1500000000", "--span_endtime", "1500000000.25"])
        .status();
    assert!(emit.expect("the program can be run").success());
}

fn value_of(series: &[Value], name: &str) -> Option<f64> {
    series.iter().find(|series| series["metric"] == name)?["points"][0][1].as_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_reach_trace_agents_and_their_samples_are_aggregated() {
    let (metrics, old, new) =
        (FakeIntake::start().await, FakeIntake::start().await, FakeIntake::start().await);
    let socket = scratch_directory().join("ssf.sock");
    let config = json!({
        "interval": "1m",
        "udp_address": "127.0.0.1:0",
        "http_address": "127.0.0.1:0",
        "stats_address": "127.0.0.1:9",
        "hostname": "h",
        "tags": ["team:a"],
        "trace_address": "127.0.0.1:0",
        "ssf_listen_addresses": [format!("unix://{}", socket.display())],
        "indicator_span_timer_name": "indicator",
        "trace_api_address": old.url(),
        "key": "x",
        "api_hostname": metrics.url(),
        "sinks": [{"kind": "traces", "name": "new", "address": new.url()}],
    });
    let ended = tokio::task::spawn_blocking(move || {
        let mut daemon = Daemon::start(&config.to_string());
        let addresses = daemon.span_addresses();
        assert_eq!(addresses.len(), 2, "{addresses:?}");
        for (address, name) in addresses.iter().zip(["one", "other"]) {
            emit(address, name);
        }
        wait_until("both are there", || total(&daemon, "veneur_ssf_spans_received", "") == 2);
        assert_eq!(total(&daemon, "veneur_packet_error", ""), 0);
        daemon.stop();
    });
    ended.await.expect("it does not panic");

    let series = metrics.series();
    let rate = 2.0 / 60.0;
    for name in ["one", "other"] {
        let value = value_of(&series, name).expect("a counter");
        assert!((value - rate).abs() < 1e-12, "{name} is {value}");
    }
    assert_eq!(value_of(&series, "indicator.count"), Some(rate), "both of one service");
    assert_eq!(value_of(&series, "indicator.max"), Some(250e6), "nanoseconds");

    let names = |spans: &Value| {
        let spans = spans.as_array().expect("a list of spans").iter();
        let mut names: Vec<_> = spans.map(|span| span["name"].to_string()).collect();
        names.sort();
        names
    };
    let flat = old.received_at("/spans").remove(0).json();
    assert_eq!(names(&flat), [r#""one""#, r#""other""#]);
    let traces = new.received_at("/v0.3/traces").remove(0).json();
    assert_eq!(names(&traces[0]), [r#""one""#, r#""other""#], "of one trace");
    let meta = &traces[0][0]["meta"];
    assert_eq!((&meta["env"], &meta["team"]), (&json!("prod"), &json!("a")));
}
