//! The classic dialects through the whole program: what etsy's statsd and brubeck would have sent
//! to carbon.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Mutex;
use std::thread;

use serde_json::{Map, Value, json};

use crate::fake_carbon::FakeCarbon;
use crate::ledger::total;
use crate::support::{Daemon, scratch_directory, wait_until};

/// A daemon as its users would configure it, with more of their own.
fn config(dialect: &str, layout: &str, carbon: &FakeCarbon, more: Value) -> String {
    let mut config = json!({
        "statsd_listen_addresses": ["udp://127.0.0.1:0"],
        "http_address": "127.0.0.1:0",
        "dialect": dialect,
        "graphite_address": carbon.address(),
        "graphite_layout": layout,
        "interval": "10s",
    });
    let fields = config.as_object_mut().expect("an object");
    fields.extend(more.as_object().cloned().unwrap_or_default());
    config.to_string()
}

/// etsy's configuration in our words: `legacyNamespace` is `legacy_namespace`, and what is in its
/// section for Graphite stands beside the rest.
fn in_our_words(config: &Value) -> Value {
    let mut section = Map::new();
    let graphite = config["graphite"].as_object().into_iter().flatten();
    let others = config.as_object().into_iter().flatten().filter(|(key, _)| *key != "graphite");
    for (key, value) in others.chain(graphite) {
        let snake = key.chars().flat_map(|c| {
            let before = c.is_ascii_uppercase().then_some('_');
            before.into_iter().chain([c.to_ascii_lowercase()])
        });
        section.insert(snake.collect(), value.clone());
    }
    json!({ "etsy": section })
}

/// Paths and their latest values, but for the daemon's own.
fn paths(carbon: &FakeCarbon) -> BTreeMap<String, f64> {
    let bodies = String::from_utf8(carbon.bodies().concat()).expect("lines are UTF-8");
    let mut lines: Vec<(i64, &str, f64)> = Vec::new();
    for line in bodies.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [path, value, at] = fields[..] else { panic!("not a line of carbon's: {line}") };
        let is_own = path.split('.').any(|node| node == "veneur");
        if !is_own {
            let (at, value) = (at.parse().expect("seconds"), value.parse().expect("a number"));
            lines.push((at, path, value));
        }
    }
    lines.sort_by_key(|&(at, ..)| at);
    lines.into_iter().map(|(_, path, value)| (path.to_owned(), value)).collect()
}

/// What is wrong with the answer to a case, if anything.
fn check(case: &Value) -> Option<String> {
    let dialect = case["dialect"].as_str().expect("a dialect");
    let layout = if dialect == "flux" { "brubeck" } else { dialect };
    let carbon = FakeCarbon::start();
    let more = in_our_words(&case["config"]);
    let mut daemon = Daemon::start(&config(dialect, layout, &carbon, more));
    let datagrams = case["lines"].as_array().expect("a list").iter();
    daemon.send(datagrams.map(|datagram| datagram.as_str().expect("a text").as_bytes()));
    daemon.stop();
    let got = paths(&carbon);
    let expected = case["expect_graphite"].as_array().expect("a list");
    let is_missing = |pair: &&Value| {
        let wanted = pair[1].as_f64().expect("a number");
        let got = got.get(pair[0].as_str().expect("a path"));
        !got.is_some_and(|got| (got - wanted).abs() <= 1e-9 * wanted.abs())
    };
    let missing: Vec<&Value> = expected.iter().filter(is_missing).collect();
    let is_wrong = !missing.is_empty() || got.len() != expected.len();
    is_wrong.then(|| format!("{}: {missing:?} are not in {got:?}", case["name"]))
}

#[test]
fn every_case_of_the_real_daemons_comes_out_as_they_emit_it() {
    let cases = include_str!("../conformance/statsd_classic.json");
    let cases: Vec<Value> = serde_json::from_str(cases).expect("the cases are JSON");
    assert_eq!(cases.len(), 67);
    let (left, wrong) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    let next = || left.lock().expect("nobody panics with it").next();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(case) = next() {
                    wrong.lock().expect("nobody panics with it").extend(check(case));
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("nobody panicked");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Several flushes, a second each, of what Flux's client sends: totals, gauges that are set and
/// changed, timings; many lines in a datagram, the last without its end.
#[test]
fn flux_is_served_as_brubeck_serves_it() {
    let carbon = FakeCarbon::start();
    let more = json!({"interval": "1s"});
    let mut daemon = Daemon::start(&config("flux", "brubeck", &carbon, more));
    let has = |line: &str| wait_until(line, || carbon.lines().iter().any(|one| one == line));
    daemon.send([
        &b"flux.0.content-cache.count:17|g\nflux.0.content-cache.size:88412|g\n\
           flux.job.state.inactive.count:1000|C\nflux.job.state.cleanup.timing:12.345678|ms\n\
           flux.job.state.(unknown):0|g"[..],
        b"flux.job.state.immediate.RUN:+1|g",
        b"flux.job.state.immediate.RUN:+1|g",
        b"flux.job.state.immediate.RUN:-1|g",
    ]);
    has("flux.0.content-cache.count 17");
    has("flux.job.state.immediate.RUN 1");
    has("flux.job.state.inactive.count 0");
    has("flux.job.state.cleanup.timing.percentile.999 12.345678");
    has("flux.job.state.(unknown) 0");
    // A later flush, which the timing is not in.
    has("flux.job.state.cleanup.timing.count 0");
    daemon.send([
        &b"flux.job.state.inactive.count:1020|C\nflux.0.content-cache.count:18|g"[..],
        b"flux.job.state.immediate.RUN:+1|g",
    ]);
    has("flux.job.state.inactive.count 20");
    has("flux.job.state.immediate.RUN 2");
    has("flux.0.content-cache.count 18");
    daemon.stop();
    // What nobody spoke of again.
    let last = paths(&carbon);
    assert_eq!(last["flux.0.content-cache.size"], 88_412.0);
    assert_eq!(last["flux.job.state.inactive.count"], 0.0);
    let timing: Vec<&str> =
        last.keys().filter_map(|key| key.strip_prefix("flux.job.state.cleanup.timing.")).collect();
    let brubecks = [
        "count",
        "count_ps",
        "max",
        "mean",
        "median",
        "min",
        "percentile.75",
        "percentile.95",
        "percentile.98",
        "percentile.99",
        "percentile.999",
        "sum",
    ];
    assert_eq!(timing, brubecks);
}

/// One name from three listeners is three series, each read by its own rules; and any layout
/// names them all.
#[test]
fn each_listener_has_its_dialect() {
    let carbon = FakeCarbon::start();
    let more = json!({
        "statsd_listen_addresses": [
            "udp://127.0.0.1:0?dialect=dogstatsd",
            "udp://127.0.0.1:0?dialect=brubeck",
            "udp://127.0.0.1:0",
        ],
        "aggregates": ["max"],
        "percentiles": [0.99],
    });
    let mut daemon = Daemon::start(&config("etsy", "etsy", &carbon, more));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let names = ["dogstatsd", "brubeck", "etsy"];
    for (address, name) in daemon.statsd.iter().zip(names) {
        let address = address.strip_prefix("udp://").expect("they are UDP");
        let lines = format!("{name}.g:2|g\n{name}.g:+5|g\n{name}.t:7|ms\n{name}.c:1|c|#a:b");
        socket.send_to(lines.as_bytes(), address).expect("loopback takes it");
    }
    daemon.stop();
    let got = paths(&carbon);
    let gauges = names.map(|name| got[&format!("stats.gauges.{name}.g")]);
    assert_eq!(gauges, [5.0, 7.0, 7.0]);
    for path in [
        "stats.timers.dogstatsd.t.max",
        "stats.timers.dogstatsd.t.99percentile",
        "stats.timers.brubeck.t.percentile.99",
        "stats.timers.etsy.t.upper_90",
    ] {
        assert_eq!(got[path], 7.0, "{path}");
    }
    for (path, is_there) in [
        ("stats_counts.dogstatsd.c;a=b", true),
        ("stats_counts.etsy.c;a=b", true),
        // brubeck drops lines with tags.
        ("stats_counts.brubeck.c", false),
    ] {
        assert_eq!(got.contains_key(path), is_there, "{path}");
    }
}

#[test]
fn every_classic_line_is_taken_or_refused_for_a_reason() {
    let carbon = FakeCarbon::start();
    for (dialect, lines, samples, reasons) in [
        (
            "etsy",
            "a:1|c:2|ms:x|c\nb:1\nc:y|g\nd:1|c|@2\n$:1|c\nnonsense\n\ne:5|h",
            3,
            &["missing_type", "bad_value", "bad_sample_rate", "empty_name", "missing_value"][..],
        ),
        (
            "brubeck",
            "a:1|c\na b:1|c\nd.:1|c\nc:1|s\nd:1|c|#x\ne:x|g\nf:1|c|@0\n:1|c\ng\nh:1\ni:1|C",
            2,
            &[
                "bad_name",
                "unknown_type",
                "unknown_section",
                "bad_value",
                "bad_sample_rate",
                "empty_name",
                "missing_value",
                "missing_type",
            ],
        ),
    ] {
        let daemon = Daemon::start(&config(dialect, dialect, &carbon, json!({"interval": "5m"})));
        daemon.send([lines.as_bytes()]);
        let udp = "protocol=\"udp\"";
        wait_until("they are read", || {
            total(&daemon, "veneur_listen_received_per_protocol_total", udp) == 1
        });
        let of_reason = |reason: &str| {
            total(&daemon, "veneur_packet_error_total", &format!("reason=\"{reason}\""))
        };
        assert!(reasons.iter().all(|reason| of_reason(reason) > 0), "{dialect}: {reasons:?}");
        let refused: u64 = reasons.iter().map(|reason| of_reason(reason)).sum();
        let lines = total(&daemon, "veneur_listen_lines_total", udp);
        let metrics = total(&daemon, "veneur_listen_metrics_total", udp);
        assert_eq!(lines, metrics + refused, "{dialect}");
        assert_eq!(total(&daemon, "veneur_listen_samples_total", udp), samples, "{dialect}");
        let left_out = total(&daemon, "veneur_packet_values_skipped_total", "");
        assert_eq!(left_out, u64::from(dialect == "etsy"), "{dialect}");
    }
}

/// What a new process goes on with: after an orderly end and after a crash.
#[test]
fn gauges_and_totals_outlive_the_process() {
    let (carbon, directory) = (FakeCarbon::start(), scratch_directory());
    let yaml = |dialect: &str| {
        let more = json!({
            "interval": "1s",
            "spool": {"directory": directory.join(dialect), "checkpoint": "100ms"},
        });
        config(dialect, "brubeck", &carbon, more)
    };
    let has = |line: &str| wait_until(line, || carbon.lines().iter().any(|one| one == line));
    let wait_until_it_goes_on = |daemon: &mut Daemon| {
        let said = "gauges and totals of the last process go on";
        wait_until(said, || daemon.rest_of_log().contains(said));
    };

    let mut daemon = Daemon::start(&yaml("brubeck"));
    daemon.send([&b"jobs:1000|C\nrunning:7|g\nidle:3|g"[..]]);
    has("idle 3");
    daemon.stop();

    let mut daemon = Daemon::start(&yaml("brubeck"));
    wait_until_it_goes_on(&mut daemon);
    daemon.send([&b"jobs:1020|C\nrunning:+2|g"[..]]);
    has("jobs 20");
    has("running 9");
    daemon.signal("KILL");
    daemon.wait();

    let mut daemon = Daemon::start(&yaml("brubeck"));
    wait_until_it_goes_on(&mut daemon);
    daemon.send([&b"jobs:1025|C\nrunning:-1|g"[..]]);
    has("jobs 5");
    has("running 8");
    daemon.stop();
    assert_eq!(paths(&carbon)["idle"], 3.0, "nobody spoke of it again");

    let mut daemon = Daemon::start(&yaml("etsy"));
    daemon.send([&b"users online:7|g"[..]]);
    has("users_online 7");
    daemon.stop();
    let mut daemon = Daemon::start(&yaml("etsy"));
    wait_until_it_goes_on(&mut daemon);
    daemon.send([&b"users online:+1|g"[..]]);
    has("users_online 8");
    daemon.stop();
}
