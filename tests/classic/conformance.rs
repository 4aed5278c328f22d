//! Every case of `statsd_classic.json`: what the real daemons emit.

use serde_json::Value;
use veneur::config::settings::EtsyNames;
use veneur::model::{Bins, Dialect, EtsyStatistics};

use crate::node::{Node, Options};

/// The configuration of a case, in etsy's words.
fn options(config: &Value) -> Options {
    let mut statistics = EtsyStatistics::default();
    if let Some(list) = config["percentThreshold"].as_array() {
        statistics.thresholds = list.iter().filter_map(Value::as_f64).collect();
    }
    let limit = |bin: &Value| bin.as_f64().unwrap_or(f64::INFINITY);
    let bins = |entry: &Value| Bins {
        metric: entry["metric"].as_str().expect("a text").to_owned(),
        limits: entry["bins"].as_array().expect("a list").iter().map(limit).collect(),
    };
    if let Some(list) = config["histogram"].as_array() {
        statistics.histogram = list.iter().map(bins).collect();
    }
    let graphite = &config["graphite"];
    let mut names = EtsyNames::default();
    for (key, text) in [
        ("globalPrefix", &mut names.global_prefix),
        ("prefixCounter", &mut names.prefix_counter),
        ("prefixGauge", &mut names.prefix_gauge),
        ("globalSuffix", &mut names.global_suffix),
    ] {
        if let Some(given) = graphite[key].as_str() {
            given.clone_into(text);
        }
    }
    names.legacy_namespace = graphite["legacyNamespace"].as_bool().unwrap_or(true);
    names.flush_counts = config["flush_counts"].as_bool().unwrap_or(true);
    Options { statistics, names, ..Options::default() }
}

#[test]
fn every_case_gives_the_keys_and_values_of_the_real_daemons() {
    let cases = include_str!("../conformance/statsd_classic.json");
    let cases: Vec<Value> = serde_json::from_str(cases).expect("the cases are JSON");
    let mut failures = Vec::new();
    for case in &cases {
        let dialect = case["dialect"].as_str().and_then(Dialect::from_name).expect("a dialect");
        let mut node = Node::with(dialect, &options(&case["config"]));
        for datagram in case["lines"].as_array().expect("a list") {
            node.take(datagram.as_str().expect("a text"));
        }
        let got = node.flush();
        let expected = case["expect_graphite"].as_array().expect("a list");
        let is_there = |pair: &&Value| {
            let value = pair[1].as_f64().expect("a number");
            let path = pair[0].as_str().expect("a text");
            got.get(path).is_some_and(|got| (got - value).abs() <= 1e-9 * value.abs())
        };
        let missing: Vec<_> = expected.iter().filter(|pair| !is_there(pair)).collect();
        if !missing.is_empty() || got.len() != expected.len() {
            failures.push(format!("{}: {missing:?} are not in {got:?}", case["name"]));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(cases.len(), 67);
}
