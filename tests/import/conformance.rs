//! What real Veneurs sent, imported over real sockets, against the truth about the samples.
//!
//! `import_bodies.rs` checks what the bodies decode to; here is what becomes of them at a flush.

use serde_json::Value;

use crate::grpc::send;
use crate::support::{Node, Points, QUANTILES, fixture, points, post};

fn fixtures(directory: &str) -> Vec<Value> {
    let index = fixture(&format!("{directory}/index.json"));
    let index: Value = serde_json::from_slice(&index).expect("the index is JSON");
    index["fixtures"].as_array().expect("a list of fixtures").clone()
}

fn text<'a>(fixture: &'a Value, key: &str) -> &'a str {
    fixture[key].as_str().unwrap_or_else(|| panic!("no {key}: {fixture}"))
}

/// The samples of a fixture, ascending, made as its `input` says.
fn samples(fixture: &Value) -> Vec<f64> {
    let count = fixture["truth"]["count"].as_u64().expect("a count");
    let name = text(fixture, "name");
    let is_skewed = name == "hist_skewed_1000";
    let mut x: u64 = if is_skewed { 2 } else { 1 };
    let mut sample = |_| {
        x = (x * 1_103_515_245 + 12_345) % (1 << 31);
        let k = (x >> 8) % 1_000;
        if is_skewed { (k * k) as f64 / 1_000.0 } else { (x % 1_000_003) as f64 / 1_000.0 }
    };
    let mut samples: Vec<f64> = match name {
        "hist_zero_and_negative" => vec![0.0, -1.5, 0.0, 2.5],
        _ => (0..count).map(&mut sample).collect(),
    };
    samples.sort_unstable_by(f64::total_cmp);
    samples
}

/// How far a quantile's answer is off, as a share of the samples; one sample is granted.
fn rank_error(samples: &[f64], quantile: f64, answer: f64) -> f64 {
    let n = samples.len() as f64;
    let below = samples.partition_point(|sample| *sample < answer) as f64 / n;
    let up_to = samples.partition_point(|sample| *sample <= answer) as f64 / n;
    ((below - quantile).max(quantile - up_to) - 1.0 / n).max(0.0)
}

/// Compares what a flush said of one series with the truth.
fn check(fixture: &Value, points: &Points, at: &str) {
    let (name, truth) = (text(fixture, "name"), &fixture["truth"]);
    let tags = if name == "timer_10_rated" { "a:1,b:2" } else { "" };
    if let Some(members) = truth["cardinality"].as_f64() {
        let estimate = points.get(&format!("{name}#")).unwrap_or_else(|| panic!("{at} {points:?}"));
        // Three times the standard error; small sets are exact.
        let slack = if members <= 1_000.0 { 0.0 } else { 0.0243 * members };
        assert!((estimate - members).abs() <= slack, "{at}: {estimate}, not {members}");
        assert_eq!(points.len(), 1, "{at}");
        return;
    }
    let samples = samples(fixture);
    for quantile in QUANTILES {
        let percent = quantile * 100.0;
        let point = format!("{name}.{percent}percentile#{tags}");
        let answer = *points.get(&point).unwrap_or_else(|| panic!("{at} {point} {points:?}"));
        let error = rank_error(&samples, quantile, answer);
        assert!(error <= 0.005, "{at} {point}: {answer} is {error} off");
        if quantile == 0.0 || quantile == 1.0 {
            let end = if quantile == 0.0 { samples.first() } else { samples.last() };
            assert_eq!(Some(&answer), end, "{at} {point}");
        }
    }
    assert_eq!(points.len(), QUANTILES.len(), "{at}: whoever sampled emits the rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_veneur_1_1_give_the_truth() {
    let node = Node::global().await;
    for fixture in fixtures("import_v110").iter().filter(|fixture| !fixture["truth"].is_null()) {
        let file = text(fixture, "raw_file");
        let body = crate::support::fixture(&format!("import_v110/{file}"));
        let refused = node.refused("set_precision");
        let answer = post(node.http, "Content-Encoding: deflate\r\n", &body);
        assert_eq!(answer.status, 202, "{file} {answer:?}");
        if file.starts_with("set") {
            assert_eq!(node.refused("set_precision"), refused + 1, "{file}");
            assert_eq!(node.points(), points([]), "{file}");
        } else {
            check(fixture, &node.points(), file);
        }
    }
    for (file, counts) in [
        (
            "counters.deflate",
            &[("c1#", 12.0), ("c2#a:1,b:2", 10.0), ("c3#", -9.0), ("c4#", 4e9)][..],
        ),
        (
            "mixed.deflate",
            &[
                ("m.c#k:v", 3.0),
                ("m.h.50percentile#", 9.0),
                ("m.h.50percentile#k:v", 2.0),
                ("m.h.100percentile#k:v", 3.0),
                ("m.t.50percentile#k:v", 2.5),
            ],
        ),
    ] {
        let body = fixture(&format!("import_v110/{file}"));
        assert_eq!(post(node.http, "Content-Encoding: deflate\r\n", &body).status, 202);
        let points = node.points();
        for &(name, value) in counts {
            assert_eq!(points.get(name), Some(&value), "{file} {name} {points:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_veneur_14_give_the_truth() {
    let node = Node::global().await;
    for fixture in fixtures("forward_v14").iter().filter(|fixture| !fixture["truth"].is_null()) {
        let file = format!("forward_v14/{}.bin", text(fixture, "name"));
        let list = crate::support::fixture(&file);
        send(node.grpc, &[], list).await.unwrap_or_else(|status| panic!("{file}: {status}"));
        check(fixture, &node.points(), &file);
    }
}

/// The lines are in the index: `m.gh` and `m.gt` are global-only, `m.d` is a distribution,
/// which Veneur 14 takes for a histogram.
#[tokio::test(flavor = "multi_thread")]
async fn every_kind_and_scope_of_veneur_14_is_finished_as_it_should_be() {
    let node = Node::global().await;
    send(node.grpc, &[], fixture("forward_v14/mixed_single.bin")).await.expect("a good list");
    let points = node.points();
    for (name, value) in [
        ("m.c#k:v", Some(12.0)),
        ("m.g#", Some(1.25)),
        ("m.h.50percentile#k:v", Some(2.0)),
        ("m.h.50percentile#", Some(9.0)),
        ("m.h.max#", None),
        ("m.t.50percentile#k:v", Some(2.5)),
        ("m.t.count#k:v", None),
        ("m.s#k:v", Some(2.0)),
        ("m.gs#", Some(1.0)),
        ("m.gh.50percentile#", Some(4.0)),
        ("m.gh.max#", Some(4.0)),
        ("m.gh.count#", Some(1.0)),
        ("m.gt.sum#", Some(6.0)),
        ("m.d.99percentile#", Some(8.0)),
        ("m.local.50percentile#", None),
        ("m.plain#", None),
    ] {
        assert_eq!(points.get(name), value.as_ref(), "{name} {points:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_of_veneur_14_is_taken() {
    let node = Node::global().await;
    let body = fixture("forward_v14/rest_mixed.deflate");
    let answer = post(node.http, "Content-Encoding: deflate\r\n", &body);
    assert_eq!(answer.status, 202, "{answer:?}");
    let points = node.points();
    for (name, value) in [("m.c#k:v", 3.0), ("m.g#", 1.25), ("m.s#k:v", 2.0)] {
        assert_eq!(points.get(name), Some(&value), "{name} {points:?}");
    }
}
