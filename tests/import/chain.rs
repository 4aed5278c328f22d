//! A node that forwards may import, too: local, middle, global says what local, global says.

use std::sync::Arc;

use veneur::aggregate::Aggregate;
use veneur::model::{MetricKey, MetricKind, Role, Scope, Weight};
use veneur::protocol::import::{ImportedValue, protobuf};
use veneur::sketch::{Cardinality, Digest, member_hash};

use crate::support::{Node, key, post, settings};

const HEADERS: &str = "Content-Type: application/x-protobuf\r\n";

/// Everything there is to forward, of one local node that has `samples` of each.
fn local(node: u32, samples: u32) -> Vec<u8> {
    let values = (0..samples).map(|n| f64::from((n * 7919 + node * 104_729) % 10_007));
    let digest = |rate: f32| {
        let mut digest = Digest::new();
        let weight = Weight::from_rate(rate).expect("a rate");
        values.clone().for_each(|value| digest.add(value, weight));
        ImportedValue::Digest(digest)
    };
    let mut members = Cardinality::new();
    values.clone().for_each(|value| members.insert_hash(member_hash(&value.to_le_bytes())));
    let node = f64::from(node);
    let mut list = Vec::new();
    for (kind, scope, name, mut value) in [
        (MetricKind::Counter, Scope::GlobalOnly, "counter", ImportedValue::Counter(node + 0.5)),
        (MetricKind::Gauge, Scope::GlobalOnly, "gauge", ImportedValue::Gauge(node)),
        (MetricKind::Histogram, Scope::Mixed, "mixed", digest(1.0)),
        (MetricKind::Histogram, Scope::GlobalOnly, "global", digest(0.5)),
        (MetricKind::Timer, Scope::Mixed, "mixed_timer", digest(0.1)),
        (MetricKind::Timer, Scope::GlobalOnly, "global_timer", digest(1.0)),
        (MetricKind::Distribution, Scope::Mixed, "distribution", digest(1.0)),
        (MetricKind::Set, Scope::Mixed, "set", ImportedValue::Set(members)),
    ] {
        protobuf::append(&mut list, &key(kind, scope, name, &["a:b"]), &mut value);
    }
    list
}

/// What a node forwards, as it would send it.
fn forwarded(forwards: Vec<(Arc<MetricKey>, Aggregate)>) -> Vec<u8> {
    let mut list = Vec::new();
    for (key, aggregate) in forwards {
        let mut value = match aggregate {
            Aggregate::Counter(sum) => ImportedValue::Counter(sum),
            Aggregate::Gauge(last) => ImportedValue::Gauge(last),
            Aggregate::Histogram(histogram) => ImportedValue::Digest(histogram.into_merged()),
            Aggregate::Set(members) => ImportedValue::Set(members.into_all()),
            other => panic!("it was not imported: {other:?}"),
        };
        protobuf::append(&mut list, &key, &mut value);
    }
    list
}

fn send(to: &Node, list: &[u8]) {
    let answer = post(to.http, HEADERS, list);
    assert_eq!(answer.status, 202, "{answer:?}");
}

async fn middle() -> Node {
    Node::start(Role::Local, &settings("")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_the_middle_changes_nothing() {
    let (direct, middle, above) = (Node::global().await, middle().await, Node::global().await);
    for node in 0..3 {
        send(&direct, &local(node, 10));
        send(&middle, &local(node, 10));
    }
    let (emitted, forwards) = middle.flush();
    assert_eq!(emitted, [].into(), "a node in the middle emits nothing of what it passes on");
    send(&above, &forwarded(forwards));
    let (direct, above) = (direct.points(), above.points());
    for name in ["counter", "gauge", "mixed.50percentile", "global.count", "set"] {
        assert!(direct.contains_key(&format!("{name}#a:b")), "{name} {direct:?}");
    }
    assert_eq!(above.keys().collect::<Vec<_>>(), direct.keys().collect::<Vec<_>>());
    for (name, value) in &direct {
        // Sums are added in another order.
        assert!((above[name] - value).abs() <= value.abs() * 1e-12, "{name}: {}", above[name]);
    }
}

/// With many samples digests are folded once more on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_in_the_middle_stays_within_the_error() {
    let (direct, middle, above) = (Node::global().await, middle().await, Node::global().await);
    for node in 0..10 {
        send(&direct, &local(node, 3_000));
        send(&middle, &local(node, 3_000));
    }
    send(&above, &forwarded(middle.flush().1));
    let (direct, above) = (direct.points(), above.points());
    assert_eq!(above.keys().collect::<Vec<_>>(), direct.keys().collect::<Vec<_>>());
    for (name, value) in &direct {
        // Values are even over 0 to 10,006, so an error of rank is one of value.
        let allowed = match name {
            name if name.contains("percentile") => 10_007.0 * 0.005,
            name if name.contains(".sum") => value * 1e-12,
            _ => 0.0,
        };
        assert!((above[name] - value).abs() <= allowed, "{name}: {} {value}", above[name]);
    }
}
