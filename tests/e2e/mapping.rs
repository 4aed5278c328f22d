//! Mapping files of statsd_exporter through the whole program.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::fake_carbon::FakeCarbon;
use crate::ledger::{settle, total};
use crate::support::{Daemon, scratch_directory, wait_until};

const FILE: &str = "\
defaults: {observer_type: histogram}
mappings:
- {match: 'web.*.*.requests', name: requests, labels: {code: $2, host: $1}}
- {match: 'old-web.*.requests', name: requests, labels: {code: '200', host: $1}, scale: 100}
- {match: '^noise\\.', match_type: regex, action: drop, name: dropped}
";

fn config(file: &std::path::Path, carbon: &FakeCarbon, more: serde_json::Value) -> String {
    let mut config = json!({
        "udp_address": "127.0.0.1:0",
        "http_address": "127.0.0.1:0",
        "stats_address": "127.0.0.1:9",
        "omit_empty_hostname": true,
        "graphite_address": carbon.address(),
        "mapping_config": file,
    });
    let fields = config.as_object_mut().expect("an object");
    fields.extend(more.as_object().cloned().unwrap_or_default());
    config.to_string()
}

#[test]
fn dotted_names_become_one_series_with_tags_whichever_worker_they_came_to() {
    let directory = scratch_directory();
    let file = directory.join("mapping.yml");
    fs::write(&file, FILE).expect("it can be written");
    for (workers, dialect) in [(1, "dogstatsd"), (3, "dogstatsd"), (3, "etsy"), (3, "brubeck")] {
        let carbon = FakeCarbon::start();
        let more = json!({
            "interval": "5m",
            "num_workers": workers,
            "dialect": dialect,
            "graphite_layout": "veneur",
        });
        let mut daemon = Daemon::start(&config(&file, &carbon, more));
        // Names enough for every worker, of which two are one series each time.
        let datagrams: Vec<String> = (0..20)
            .map(|n| {
                let names = [format!("web.h{n}.200"), format!("old-web.h{n}")];
                let lines = names.map(|name| format!("{name}.requests:1|c\n"));
                format!("{}noise.{n}:1|c\nplain:1|c\n", lines.concat())
            })
            .collect();
        daemon.send(datagrams.iter().map(String::as_bytes));
        daemon.stop();
        let series = (0..20).map(|n| format!("requests;code=200;host=h{n} 101"));
        let mut expected: Vec<String> = series.chain(["plain 20".to_owned()]).collect();
        expected.sort();
        assert_eq!(carbon.lines(), expected, "{dialect} with {workers} workers");
    }
    fs::remove_dir_all(&directory).expect("it can be removed");
}

#[test]
fn what_a_mapping_leaves_out_is_in_the_ledger() {
    let directory = scratch_directory();
    let file = directory.join("mapping.yml");
    fs::write(&file, FILE).expect("it can be written");
    let carbon = FakeCarbon::start();
    let mut daemon = Daemon::start(&config(&file, &carbon, json!({ "interval": "200ms" })));
    daemon.send([&b"noise.a:1:2|c\nnoise.b:1|ms\nx:1|c"[..], b"noise.c:1|g|T1700000000"]);
    wait_until("it is counted", || {
        total(&daemon, "veneur_mapping_dropped_total", "line=\"5\"") == 3
            && total(&daemon, "veneur_collector_dropped_total", "reason=\"mapping\"") == 1
    });
    settle(&daemon.http);
    daemon.stop();
    assert_eq!(carbon.lines(), ["x 1"]);
    fs::remove_dir_all(&directory).expect("it can be removed");
}

#[test]
fn explain_shows_the_rule_that_hit() {
    let directory = scratch_directory();
    let file = directory.join("mapping.yml");
    fs::write(&file, FILE).expect("it can be written");
    let explain = |line: &str, dialect: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veneur"));
        command.args(["explain", "--dialect", dialect, "--mapping"]).arg(&file).arg(line);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("it is text")
    };
    for (line, dialect, parts) in [
        (
            "web.a.404.requests:1|c|#az:1",
            "dogstatsd",
            &["the rule of line 3, match: web.*.*.requests", "az:1, code:404, host:a"][..],
        ),
        ("old-web.a.requests:1|c", "brubeck", &["multiplied by 100", "requests"]),
        ("noise.x:1|c", "etsy", &["the rule of line 5", "nothing: action: drop"]),
        ("other:1|c", "dogstatsd", &["no rule is about this name"]),
    ] {
        let said = explain(line, dialect);
        assert!(parts.iter().all(|part| said.contains(part)), "{line}: {said}");
    }
    fs::remove_dir_all(&directory).expect("it can be removed");
}
