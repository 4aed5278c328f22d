//! The clients people use, against the real program: Datadog's for Python over UDP and a Unix
//! socket, and a classic statsd client.
//!
//! Skipped, with a word that says so, where Python or its packages cannot be had.

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::fake_intake::FakeIntake;
use crate::support::{Daemon, scratch_directory};

/// A Python with the clients in it, made once per target directory.
fn python() -> Result<PathBuf, String> {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-clients");
    let python = home.join("bin/python");
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(error.to_string()),
    };
    if run(Command::new(&python).args(["-c", "import datadog, statsd"])).is_err() {
        run(Command::new("python3").arg("-m").arg("venv").arg(&home))?;
        run(Command::new(&python).args(["-m", "pip", "install", "-q", "datadog", "statsd"]))?;
    }
    Ok(python)
}

/// Value of the one series of this name; counts as they were counted.
fn value_of(series: &[Value], name: &str) -> f64 {
    let found: Vec<&Value> = series.iter().filter(|one| one["metric"] == name).collect();
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    let value = found[0]["points"][0][1].as_f64().expect("a number");
    match found[0]["type"].as_str() {
        Some("rate") => value * found[0]["interval"].as_f64().expect("a rate has an interval"),
        _ => value,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_of_the_usual_clients_arrives() {
    let python = match tokio::task::spawn_blocking(python).await.expect("it does not panic") {
        Ok(python) => python,
        Err(reason) => {
            eprintln!("SKIPPED: Python's statsd clients cannot be installed here: {reason}");
            return;
        }
    };
    let intake = FakeIntake::start().await;
    let elsewhere = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let socket = scratch_directory().join("dsd.sock");
    let mut daemon = Daemon::start(
        &json!({
            "interval": "5m",
            "hostname": "testhost",
            "api_hostname": intake.url(),
            "key": "0123456789abcdef",
            "statsd_listen_addresses":
                ["udp://127.0.0.1:0", format!("unixgram://{}", socket.display())],
            "http_address": "127.0.0.1:0",
            "stats_address": elsewhere.local_addr().expect("it is bound").to_string(),
        })
        .to_string(),
    );
    let (host, port) = daemon.udp().rsplit_once(':').expect("HOST:PORT");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/clients.py");
    let ran = Command::new(&python).arg(script).args([host, port]).arg(&socket).output();
    let ran = ran.expect("Python can be run");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    tokio::task::spawn_blocking(move || daemon.stop()).await.expect("it stops");

    let series = intake.series();
    for via in ["udp", "uds"] {
        for (name, value) in [
            ("hits", 2.0),
            ("fuel", 0.25),
            ("size.count", 3.0),
            ("size.max", 3.0),
            ("size.50percentile", 2.0),
            ("took.max", 30.0),
            ("took.min", 10.0),
            ("lat.count", 3.0),
            ("lat.50percentile", 200.0),
            ("users", 2.0),
            ("timed.count", 1.0),
            ("late", 5.0),
            ("late_gauge", 7.0),
        ] {
            assert_eq!(value_of(&series, &format!("{via}.{name}")), value, "{via}.{name}");
        }
        let late = series.iter().find(|one| one["metric"] == format!("{via}.late").as_str());
        assert_eq!(late.expect("it is there")["points"][0][0], 1_700_000_000);
        let tags = json!(["env:test", format!("via:{via}")]);
        assert!(
            series
                .iter()
                .filter(|one| one["metric"].as_str().is_some_and(|name| name.starts_with(via)))
                .all(|one| one["tags"] == tags),
            "every series has the client's tags"
        );
        let events = intake.received_at("/intake").into_iter().flat_map(|request| {
            request.json()["events"]["api"].as_array().cloned().unwrap_or_default()
        });
        let wanted = json!({
            "msg_title": format!("deploy {via}"), "msg_text": "two\nlines | with a pipe",
            "timestamp": 1_700_000_002, "host": "elsewhere", "aggregation_key": "deploys",
            "priority": "low", "source_type_name": "ci", "alert_type": "warning", "tags": tags,
        });
        assert!(events.into_iter().any(|event| event == wanted), "the event arrives as it is");
        let checks = intake.received_at("/api/v1/check_run").into_iter();
        let wanted = json!({
            "check": format!("{via}.up"), "status": 2, "host_name": "elsewhere",
            "timestamp": 1_700_000_003, "tags": tags, "message": "down ",
        });
        let mut checks =
            checks.flat_map(|request| request.json().as_array().cloned().unwrap_or_default());
        assert!(checks.any(|check| check == wanted), "the service check arrives as it is");
    }
    for (name, value) in [
        ("classic.hits", 2.0),
        ("classic.fuel", 0.25),
        ("classic.took.max", 20.0),
        ("classic.users", 1.0),
        ("classic.packed", 5.0),
    ] {
        assert_eq!(value_of(&series, name), value, "{name}");
    }
}
