//! What Veneur 1.1.0 POSTs for a configuration and packets, through the real program.
//!
//! `conformance/flush_v110.json` was captured from the real Veneur. A case passes when what
//! arrives at the intake is `expect`, an entry of `also_ok`, or what [`difference`] says we do
//! on purpose. A node that forwards to a real 1.1.0 has no such differences.
//!
//! SIGTERM ends the interval, so no case waits for a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::fake_intake::FakeIntake;
use crate::legacy_set::{self, LegacySet};
use crate::support::Daemon;

const CASES: &str = include_str!("../conformance/flush_v110.json");

/// Values are compared to so many parts of themselves, unless a case says otherwise.
const TOLERANCE: f64 = 1e-6;

/// Where we differ on purpose: the case, the reason, and what stands in for parts of `expect`.
fn difference(case: &str) -> Option<(&'static str, Value)> {
    match case {
        "events and service checks get server tags and default host" => Some((
            "today's clients send fields behind a check's message; 1.1.0 refuses such a check",
            json!({"standalone": {"service_checks": [
                {"check": "db", "status": 1, "host_name": "testhost", "timestamp": 1_500_000_002,
                 "message": "slow", "tags": ["c:d", "env:prod"]},
                {"check": "db2", "status": 0, "host_name": "dbh", "timestamp": 1_500_000_003,
                 "tags": ["env:prod"]},
            ]}}),
        )),
        "forward: gauges never travel" => Some((
            "global-only gauges are finished at the global node, as since 2.0.0",
            json!({
                "local": {"series": [gauge("g", 1.0, "testhost"), gauge("g3", 3.0, "testhost")]},
                "global": {"series": [gauge("g2", 2.0, "globalhost")]},
            }),
        )),
        "forward: global only histogram and timer still give local aggregates" => Some((
            "global-only histograms are finished at the global node, as since 9.0.0",
            json!({
                "local": {"series": []},
                "global": {"series": [
                    gauge("h.50percentile", 5.0, "globalhost"),
                    gauge("h.75percentile", 7.0, "globalhost"),
                    gauge("h.99percentile", 8.92, "globalhost"),
                    rate("h.count", 1.0, "globalhost"),
                    gauge("h.max", 9.0, "globalhost"),
                    gauge("h.min", 1.0, "globalhost"),
                    gauge("t.50percentile", 4.0, "globalhost"),
                    gauge("t.75percentile", 4.0, "globalhost"),
                    gauge("t.99percentile", 4.0, "globalhost"),
                    rate("t.count", 0.5, "globalhost"),
                    gauge("t.max", 4.0, "globalhost"),
                    gauge("t.min", 4.0, "globalhost"),
                ]},
            }),
        )),
        "forward: median comes from both nodes" => Some((
            "the median is that of the samples received here, and the global node received none",
            json!({"global": {"series": [gauge("h.50percentile", 3.5, "globalhost")]}}),
        )),
        _ => None,
    }
}

fn gauge(metric: &str, value: f64, host: &str) -> Value {
    json!({"metric": metric, "type": "gauge", "value": value, "host": host, "tags": []})
}

fn rate(metric: &str, value: f64, host: &str) -> Value {
    let mut series = gauge(metric, value, host);
    series["type"] = json!("rate");
    series["interval"] = json!(2);
    series
}

/// The cases of this mode.
fn cases(mode: &str) -> Vec<Value> {
    let cases: Vec<Value> = serde_json::from_str(CASES).expect("the cases are JSON");
    cases.into_iter().filter(|case| case["mode"] == mode).collect()
}

/// A case with our differences in place of what 1.1.0 did.
fn with_differences(case: &Value) -> Value {
    let mut case = case.clone();
    let Some((_reason, ours)) = difference(text(&case["name"])) else { return case };
    for (node, parts) in ours.as_object().expect("an object") {
        for (part, wanted) in parts.as_object().expect("an object") {
            case["expect"][node][part] = wanted.clone();
        }
    }
    case
}

/// The generator of the cases: `x = (x * 1103515245 + 12345) mod 2^31`, value `(x mod 100000) / 10`.
fn generated(generator: &Value) -> Vec<String> {
    let (name, kind) = (text(&generator["metric"]), text(&generator["type"]));
    let count = generator["count"].as_u64().expect("a count");
    let mut x: u64 = 42;
    (0..count)
        .map(|_| {
            x = (x * 1_103_515_245 + 12_345) % (1 << 31);
            format!("{name}:{:.1}|{kind}", (x % 100_000) as f64 / 10.0)
        })
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// A node of a case: its configuration as YAML (JSON is YAML), with addresses of its own.
fn node(config: &Value, intake: &FakeIntake, statsd: &UdpSocket, more: Value) -> Daemon {
    let mut config = config.as_object().expect("an object").clone();
    let own = json!({
        "api_hostname": intake.url(),
        "key": "0123456789abcdef",
        "udp_address": "127.0.0.1:0",
        "http_address": "127.0.0.1:0",
        "num_readers": 1,
        "num_workers": 2,
        "stats_address": statsd.local_addr().expect("it is bound").to_string(),
    });
    for part in [own, more] {
        config.extend(part.as_object().expect("an object").clone());
    }
    Daemon::start(&Value::Object(config).to_string())
}

/// What one node sent to its intake, in the form of the cases.
fn observed(intake: &FakeIntake) -> Value {
    let taken: Vec<_> =
        intake.received().into_iter().filter(|request| request.is_taken()).collect();
    let at = |path: &'static str| taken.iter().filter(move |request| request.path == path);
    let mut sizes = Vec::new();
    let mut series = Vec::new();
    for request in at("/api/v1/series") {
        let body = request.json();
        let body = body["series"].as_array().expect("a list of series").clone();
        sizes.push(body.len());
        series.extend(body);
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    for one in &mut series {
        let value = one["points"][0][1].clone();
        let fields = one.as_object_mut().expect("an object");
        assert_eq!(fields["points"].as_array().map(Vec::len), Some(1));
        fields.remove("points");
        fields.insert("value".to_owned(), value);
        fields.entry("tags").or_insert_with(|| json!([]));
    }
    series.sort_by_key(order);
    let lists = |path: &'static str, inside: fn(&Value) -> &Value| -> Vec<Value> {
        at(path).flat_map(|request| inside(&request.json()).as_array().cloned()).flatten().collect()
    };
    json!({
        "series": series,
        "body_sizes": sizes,
        "events": lists("/intake", |body| &body["events"]["api"]),
        "service_checks": lists("/api/v1/check_run", |body| body),
    })
}

/// The order of the cases' series: metric, type, tags; values of one series as numbers.
fn order(series: &Value) -> (String, String, String, String) {
    let value = series["value"].as_f64().unwrap_or(f64::NAN);
    let by_size = format!("{:030.9}", value + 1e15);
    (series["metric"].to_string(), series["type"].to_string(), series["tags"].to_string(), by_size)
}

/// Whether a node sent what is expected of it; what a case does not speak of is free.
fn agrees(expected: &Value, observed: &Value, tolerance: f64) -> bool {
    let expected = expected.as_object().expect("an object");
    expected.iter().all(|(part, wanted)| {
        let mut wanted = wanted.as_array().expect("a list").clone();
        if part == "series" {
            wanted.sort_by_key(order);
        }
        same(&Value::Array(wanted), &observed[part], tolerance)
    })
}

fn same(wanted: &Value, found: &Value, tolerance: f64) -> bool {
    match (wanted, found) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, tolerance))
        }
        (Value::Object(a), Value::Object(b)) => {
            let sorted = |object: &serde_json::Map<String, Value>| -> BTreeMap<String, Value> {
                object.clone().into_iter().collect()
            };
            let (a, b) = (sorted(a), sorted(b));
            a.keys().eq(b.keys()) && a.iter().all(|(key, a)| same(a, &b[key], tolerance))
        }
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= tolerance * a.abs().max(1e-9),
            _ => false,
        },
        _ => wanted == found,
    }
}

/// Every outcome a case allows for `node`.
fn allowed<'a>(case: &'a Value, node: &'a str) -> impl Iterator<Item = &'a Value> {
    let also = case["also_ok"].as_array().into_iter().flatten();
    std::iter::once(&case["expect"]).chain(also).map(move |outcome| &outcome[node])
}

fn packets(case: &Value, key: &str) -> Vec<String> {
    match (&case["generator"], key) {
        (Value::Object(_), "packets") => generated(&case["generator"]),
        _ => {
            let packets = case[key].as_array().into_iter().flatten();
            packets.map(|packet| text(packet).to_owned()).collect()
        }
    }
}

/// Runs one case that needs one node; what is wrong, if anything.
async fn standalone(case: &Value) -> Option<String> {
    let intake = FakeIntake::start().await;
    let statsd = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let mut daemon = node(&case["config"], &intake, &statsd, json!({}));
    let packets = packets(case, "packets");
    daemon.send(packets.iter().map(String::as_bytes));
    tokio::task::spawn_blocking(move || daemon.stop()).await.expect("it stops");
    let tolerance = case["rel_tolerance"].as_f64().unwrap_or(TOLERANCE);
    let found = observed(&intake);
    let passes = allowed(case, "standalone").any(|wanted| agrees(wanted, &found, tolerance));
    (!passes).then(|| format!("{}\n  wanted {}\n  found  {found}", case["name"], case["expect"]))
}

/// Runs one case of a node that forwards to another; what is wrong, if anything.
async fn local_and_global(case: &Value) -> Option<String> {
    let (local_intake, global_intake) = (FakeIntake::start().await, FakeIntake::start().await);
    let statsd = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let mut global = node(&case["global_config"], &global_intake, &statsd, json!({}));
    let forward = json!({"forward_address": format!("http://{}", global.http)});
    let mut local = node(&case["config"], &local_intake, &statsd, forward);
    let (to_local, to_global) = (packets(case, "packets"), packets(case, "global_packets"));
    local.send(to_local.iter().map(String::as_bytes));
    global.send(to_global.iter().map(String::as_bytes));
    let stopped = tokio::task::spawn_blocking(move || {
        // The local node forwards as it drains; only then may the global one flush.
        local.stop();
        global.stop();
    });
    stopped.await.expect("both stop");
    let tolerance = case["rel_tolerance"].as_f64().unwrap_or(TOLERANCE);
    let found = json!({"local": observed(&local_intake), "global": observed(&global_intake)});
    let passes = ["local", "global"]
        .iter()
        .all(|node| allowed(case, node).any(|wanted| agrees(wanted, &found[*node], tolerance)));
    (!passes).then(|| format!("{}\n  wanted {}\n  found  {found}", case["name"], case["expect"]))
}

/// Runs one case of a node that forwards to a Veneur 1.1.0: what it sends to its intake and
/// upstream is what a local 1.1.0 sends. What is wrong, if anything.
async fn local_below_v1(case: &Value) -> Option<String> {
    let (intake, upstream) = (FakeIntake::start().await, FakeIntake::start().await);
    let statsd = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let forward = json!({"forward_address": upstream.url(), "forward_format": "json-gob"});
    let mut local = node(&case["config"], &intake, &statsd, forward);
    let packets = packets(case, "packets");
    local.send(packets.iter().map(String::as_bytes));
    tokio::task::spawn_blocking(move || local.stop()).await.expect("it stops");
    let bodies = upstream.received_at("/import");
    let mut entries: Vec<Value> = bodies
        .iter()
        .filter(|request| request.is_taken())
        .flat_map(|request| request.json().as_array().cloned().expect("an array"))
        .map(|entry| {
            let kind = text(&entry["type"]);
            let mut seen = json!({
                "name": entry["name"], "type": kind,
                "tagstring": entry["tagstring"], "tags": entry["tags"],
            });
            if kind == "counter" {
                let bytes = BASE64_STANDARD.decode(text(&entry["value"])).expect("base64");
                let bytes = bytes.try_into().expect("8 bytes");
                seen["counter_value"] = json!(i64::from_le_bytes(bytes));
            }
            if kind == "set" {
                let bytes = BASE64_STANDARD.decode(text(&entry["value"])).expect("base64");
                let LegacySet::Sparse(keys) = legacy_set::read(&bytes) else {
                    panic!("few members are sparse")
                };
                assert_eq!(keys.len(), members(&packets, text(&entry["name"])), "{entry}");
            }
            seen
        })
        .collect();
    entries.sort_by_key(|entry| (entry["name"].to_string(), entry["tagstring"].to_string()));
    let mut wanted = case["expect"]["forwarded"].as_array().expect("a list").clone();
    // No tags are written both ways by 1.1.0, and mean the same.
    for entry in wanted.iter_mut().chain(&mut entries) {
        if entry["tags"].is_null() {
            entry["tags"] = json!([]);
        }
    }
    let tolerance = case["rel_tolerance"].as_f64().unwrap_or(TOLERANCE);
    let found = observed(&intake);
    let is_local = allowed(case, "local").any(|wanted| agrees(wanted, &found, tolerance));
    (wanted != entries || !is_local).then(|| {
        let local = &case["expect"]["local"];
        format!(
            "{}\n  wanted {local}\n  found  {found}\n  wanted upstream {wanted:?}\n  found           {entries:?}",
            case["name"]
        )
    })
}

/// How many different members a set has in these packets.
fn members(packets: &[String], name: &str) -> usize {
    let member = |packet: &'_ String| {
        let (member, _) = packet.strip_prefix(name)?.strip_prefix(':')?.split_once("|s")?;
        Some(member.to_owned())
    };
    packets.iter().filter_map(member).collect::<BTreeSet<_>>().len()
}

/// Fails with all that is wrong in `run` cases.
fn all_pass(run: usize, wrong: &[String]) {
    assert!(wrong.is_empty(), "{} of {run} cases fail:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_sends_what_veneur_sends() {
    let cases = cases("standalone");
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(standalone(&with_differences(case)).await);
    }
    assert_eq!(cases.len(), 24, "the cases are there");
    all_pass(cases.len(), &wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_and_a_global_node_send_what_veneurs_send() {
    let cases = cases("local+global");
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(local_and_global(&with_differences(case)).await);
    }
    assert_eq!(cases.len(), 14, "the cases are there");
    all_pass(cases.len(), &wrong);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_a_veneur_1_1_0_a_local_node_does_all_that_one_of_its_own_does() {
    let cases = cases("local+global");
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(local_below_v1(case).await);
    }
    assert_eq!(cases.len(), 14, "the cases are there");
    all_pass(cases.len(), &wrong);
}
