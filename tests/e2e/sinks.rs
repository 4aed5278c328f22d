//! Several sinks side by side.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::json;

use crate::fake_carbon::{FakeCarbon, Manner};
use crate::fake_intake::{FakeIntake, Fault};
use crate::ledger::total;
use crate::support::{DEADLINE, Daemon, scratch_directory, wait_until};

const COMMON: &str = "udp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\nhostname: h\n\
                      stats_address: 127.0.0.1:9\n";

/// Names and tags of all series an intake took.
fn series(intake: &FakeIntake) -> BTreeSet<String> {
    let all = intake.series().into_iter();
    all.map(|series| format!("{} {}", series["metric"], series["tags"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_reach_the_sinks_that_want_them() {
    let (one, other) = (FakeIntake::start().await, FakeIntake::start().await);
    let config = format!(
        "{COMMON}interval: 5m\ntags: [pod:7, env:test]\nkey: x\napi_hostname: {}\n\
         tags_exclude: [pod|other]\nsinks:\n  - kind: datadog\n    name: other\n    key: y\n    \
         api_hostname: {}\n    include: ['web.*', '#team:b']\n    exclude: ['#env:dev']\n",
        one.url(),
        other.url(),
    );
    let counts = tokio::task::spawn_blocking(move || {
        let mut daemon = Daemon::start(&config);
        daemon.send([
            &b"web.hits:1|c|#pod:1\nweb.dev:1|c|#env:dev\ndb.load:1|g"[..],
            b"db.size:1|g|#team:b\nweb.only:1|c|#veneursinkonly:datadog\n_e{1,1}:a|b|#pod:1",
        ]);
        daemon.signal("TERM");
        daemon.wait_for_log("drained");
        daemon.wait();
    });
    counts.await.expect("it does not panic");
    let all = [
        r#""db.load" ["pod:7","env:test"]"#,
        r#""db.size" ["team:b","pod:7","env:test"]"#,
        r#""web.dev" ["env:dev","pod:7","env:test"]"#,
        r#""web.hits" ["pod:1","pod:7","env:test"]"#,
        r#""web.only" ["veneursinkonly:datadog","pod:7","env:test"]"#,
    ];
    assert_eq!(series(&one), all.map(str::to_owned).into());
    let chosen = [r#""db.size" ["team:b","env:test"]"#, r#""web.hits" ["env:test"]"#];
    assert_eq!(series(&other), chosen.map(str::to_owned).into());
    let event = other.received_at("/intake").remove(0).json();
    assert_eq!(event["events"]["api"][0]["tags"].to_string(), r#"["env:test"]"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_hangs_delays_no_other_and_every_point_is_in_the_books() {
    let (stuck, quick) = (FakeIntake::start().await, FakeIntake::start().await);
    stuck.fail_always(Some(Fault::Hang));
    let carbon = FakeCarbon::start();
    carbon.behave(Manner::Hangs);
    let config = json!({
        "interval": "1s",
        "udp_address": "127.0.0.1:0",
        "http_address": "127.0.0.1:0",
        "stats_address": "127.0.0.1:9",
        "sinks": [
            {"kind": "datadog", "name": "stuck", "key": "x", "api_hostname": stuck.url()},
            {"kind": "datadog", "name": "quick", "key": "x", "api_hostname": quick.url()},
            {"kind": "datadog", "name": "dead", "key": "x", "api_hostname": "http://127.0.0.1:9"},
            {"kind": "graphite", "address": carbon.address()},
            {"kind": "console", "include": ["nothing"]},
        ],
    });
    let running = tokio::task::spawn_blocking(move || {
        let daemon = Daemon::start(&config.to_string());
        let of = |family: &str, sink: &str| {
            let family = format!("veneur_sink_metrics_{family}_total");
            total(&daemon, &family, &format!("sink=\"{sink}\""))
        };
        for n in 1..=4 {
            daemon.send([&b"a:1|c"[..]]);
            wait_until("it is flushed", || of("flushed", "quick") >= n);
        }
        wait_until("the console has skipped it", || of("skipped", "console") >= 4);
        assert_eq!((of("dropped", "quick"), of("skipped", "quick")), (0, 0));
        assert_eq!((of("flushed", "stuck"), of("flushed", "dead")), (0, 0));
        // What was not taken in its interval waits.
        let waits = |sink: &str| total(&daemon, "veneur_spool_items", &format!("spool=\"{sink}\""));
        wait_until("it waits", || waits("dead") + of("dropped", "dead") >= 3);
        wait_until("it waits", || waits("stuck") + of("dropped", "stuck") >= 2);
        wait_until("carbon was tried", || carbon.connections() > 0);
    });
    tokio::time::timeout(DEADLINE * 2, running).await.expect("in time").expect("it does not panic");
    assert!(quick.received_at("/api/v1/series").len() >= 4);
    assert!(!stuck.received().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_changes_live_and_other_sinks_wait_for_a_restart() {
    let (intake, carbon) = (FakeIntake::start().await, FakeCarbon::start());
    let config = |exclude: &str, more: &str| {
        let mut sinks = vec![
            json!({"kind": "datadog", "key": "x", "api_hostname": intake.url()}),
            json!({"kind": "graphite", "address": carbon.address(), "exclude": [exclude]}),
        ];
        sinks.extend((!more.is_empty()).then(|| json!({"kind": "console", "name": more})));
        json!({
            "interval": "5m", "udp_address": "127.0.0.1:0", "http_address": "127.0.0.1:0",
            "stats_address": "127.0.0.1:9", "omit_empty_hostname": true, "sinks": sinks,
        })
        .to_string()
    };
    let (first, second, third) = (config("a", ""), config("b", ""), config("b", "new"));
    let running = tokio::task::spawn_blocking(move || {
        let mut daemon = Daemon::start(&first);
        daemon.configure(&second);
        daemon.signal("HUP");
        daemon.wait_for_log("the new configuration is in use");
        daemon.configure(&third);
        daemon.signal("HUP");
        let said = daemon.wait_for_log("wait for a restart");
        assert!(said.contains("keys=\"sinks\""), "{said}");
        daemon.send([&b"a:1|c\nb:1|c"[..]]);
        daemon.stop();
    });
    running.await.expect("it does not panic");
    assert_eq!(carbon.lines(), ["a 1"]);
    assert_eq!(intake.series().len(), 2);
}

#[test]
fn the_check_of_a_configuration_names_the_sinks_that_would_run() {
    let directory = scratch_directory();
    let file = directory.join("v.yaml");
    let config = json!({
        "key": "x",
        "graphite_address": "h:2003",
        "influx_address": "http://user:hunter2@h:8086",
        "influx_db_name": "d",
        "sinks": [{"kind": "file", "path": "/m.tsv"}, {"kind": "console", "name": "c"}],
    });
    fs::write(&file, config.to_string()).expect("the scratch directory can be written");
    let program = Command::new(env!("CARGO_BIN_EXE_veneur"))
        .args(["--validate-config", "-f"])
        .arg(&file)
        .output();
    let output = program.expect("the program can be run");
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "sink datadog: datadog, https://app.datadoghq.com\n\
         sink graphite: graphite, tcp://h:2003, plaintext, layout veneur\n\
         sink influxdb: influxdb, http://REDACTED@h:8086, database d, layout values\n\
         sink file: file, /m.tsv\n\
         sink c: console, standard output\n"
    );
    fs::remove_dir_all(&directory).expect("it can be removed");
}
