//! A client that makes series without end: others do not notice, and nothing goes uncounted.

use std::io::Write;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::fleet::{Node, stop, value_of};
use crate::ledger::{settle, total};
use crate::support::{Daemon, wait_until};

const CONTEXTS: u64 = 1_000;
const KNOWN: usize = 100;
const FLOOD: usize = 30_000;
const NAMES: usize = 10_000;

/// Sends lines over TCP, which loses none, and waits until all are taken.
fn send(daemon: &Daemon, lines: &[String]) {
    let before = total(daemon, "veneur_listen_samples_total", "protocol=\"tcp\"");
    let address = daemon.statsd.iter().find_map(|address| address.strip_prefix("tcp://"));
    let mut stream = TcpStream::connect(address.expect("it listens")).expect("it accepts");
    let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
    stream.write_all(text.as_bytes()).expect("it takes them");
    drop(stream);
    wait_until("all samples are taken", || {
        let now = total(daemon, "veneur_listen_samples_total", "protocol=\"tcp\"");
        now == before + lines.len() as u64
    });
}

fn tags_of(series: &Value) -> Vec<&str> {
    let tags = series["tags"].as_array().expect("a list").iter();
    tags.map(|tag| tag.as_str().expect("a text")).collect()
}

fn is_overflow(series: &Value) -> bool {
    tags_of(series).contains(&"veneur_overflow:true")
}

/// What a count was before it was sent as a rate.
fn count_of(series: &Value) -> u64 {
    (value_of(series) * series["interval"].as_f64().unwrap_or(1.0)).round() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_series_leaves_others_exact_and_is_counted_to_the_sample() {
    let node = Node::start(json!({
        "tcp_address": "127.0.0.1:0",
        "limits": {"contexts": CONTEXTS},
    }))
    .await;
    let known: Vec<String> =
        (0..KNOWN).map(|n| format!("steady.{n}:1|c|#env:prod,host:h{n}")).collect();
    // Ids in tags, some twice, and ids in names; the known ones among them.
    let floods: Vec<String> = (0..FLOOD)
        .map(|n| format!("flood:2|c|#id:{}", n % (FLOOD / 3 * 2)))
        .chain((0..NAMES).map(|n| format!("user.{n}.logins:1|c|#env:prod")))
        .collect();
    let feed: Vec<String> = known
        .iter()
        .cloned()
        .chain(floods.chunks(4_000).flat_map(|part| [part, &known].concat()))
        .collect();
    let rounds = 1 + floods.chunks(4_000).count() as u64;
    let sending = tokio::task::spawn_blocking(move || {
        send(&node.daemon, &feed);
        node
    });
    let node = sending.await.expect("it is taken");
    let mut nodes = stop(vec![node]).await;
    let series = nodes[0].intake.series();
    let of = |prefix: &str| -> Vec<&Value> {
        let name = |one: &&Value| one["metric"].as_str().is_some_and(|n| n.starts_with(prefix));
        series.iter().filter(name).collect()
    };

    let steady = of("steady.");
    assert_eq!(steady.len(), KNOWN);
    assert!(steady.iter().all(|one| count_of(one) == rounds && !is_overflow(one)), "{steady:?}");

    let flood = of("flood");
    assert_eq!(flood.iter().map(|one| count_of(one)).sum::<u64>(), 2 * FLOOD as u64);
    let overflow: Vec<&&Value> = flood.iter().filter(|one| is_overflow(one)).collect();
    assert_eq!(overflow.len(), 1);
    assert_eq!(tags_of(overflow[0]), ["veneur_overflow:true"]);
    assert_eq!(flood.len(), 250 + 1, "a quarter of the contexts are of one name");

    let names: u64 =
        of("user.").iter().chain(&of("veneur.overflow")).map(|one| count_of(one)).sum();
    assert_eq!(names, NAMES as u64);
    // Two workers with half the contexts each: 64 overflow series and the last one of each.
    assert!(series.len() <= CONTEXTS as usize + 2 * (64 + 1), "{}", series.len());

    let said = nodes[0].daemon.wait_for_log("more series than there is room");
    for part in ["limits=\"contexts, contexts_per_name\"", "flood (", "new_name=\"user."] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_folds_is_on_the_metrics_page_and_room_comes_back() {
    let node = Node::start(json!({
        "interval": "100ms",
        "tcp_address": "127.0.0.1:0",
        "limits": {"contexts": CONTEXTS, "contexts_per_name": 10},
    }))
    .await;
    let checking = tokio::task::spawn_blocking(move || {
        let flood: Vec<String> = (0..5_000).map(|n| format!("flood:1|c|#id:{n}")).collect();
        send(&node.daemon, &flood);
        let family = "veneur_limits_folded_samples_total";
        // Each of the intervals that this took holds ten of them.
        wait_until("it is told who folds", || {
            total(&node.daemon, family, "metric=\"flood\"") > 4_000
        });
        let contexts = "veneur_limits_folded_contexts_total";
        assert!(total(&node.daemon, contexts, "metric=\"flood\"") > 4_000);
        let limit = "limit=\"contexts_per_name\"";
        assert!(total(&node.daemon, "veneur_limits_reached_total", limit) > 4_000);
        // What stood in the way goes at the end of an interval in which it was idle and
        // something else folded.
        wait_until("a new series has room", || {
            let before = total(&node.daemon, family, "");
            let flushed = total(&node.daemon, "veneur_flush_unique_timeseries", "");
            send(&node.daemon, &["flood:1|c|#id:new".to_owned()]);
            wait_until("it is flushed", || {
                total(&node.daemon, "veneur_flush_unique_timeseries", "") > flushed
            });
            total(&node.daemon, family, "") == before
        });
        settle(&node.daemon.http);
        node
    });
    stop(vec![checking.await.expect("it does not panic")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digests_without_room_fold_and_lose_no_sample() {
    const TIMERS: u64 = 6_000;
    const VALUES: u64 = 70;
    let node = Node::start(json!({
        "tcp_address": "127.0.0.1:0",
        "limits": {"memory": 16 << 20},
    }))
    .await;
    let values = (0..VALUES).map(|n| n.to_string()).collect::<Vec<_>>().join(":");
    let steady = "steady:5:7|ms|#host:a".to_owned();
    let flood = (0..TIMERS).map(|n| format!("flood:{values}|ms|#id:{n}"));
    let lines: Vec<String> = std::iter::once(steady.clone()).chain(flood).chain([steady]).collect();
    let sending = tokio::task::spawn_blocking(move || {
        let address = node.daemon.statsd.iter().find_map(|at| at.strip_prefix("tcp://"));
        let mut stream = TcpStream::connect(address.expect("it listens")).expect("it accepts");
        stream.write_all((lines.join("\n") + "\n").as_bytes()).expect("it takes them");
        drop(stream);
        wait_until("all samples are taken", || {
            let taken = total(&node.daemon, "veneur_listen_samples_total", "protocol=\"tcp\"");
            taken == TIMERS * VALUES + 4
        });
        node
    });
    let mut nodes = stop(vec![sending.await.expect("it is taken")]).await;
    let series = nodes[0].intake.series();
    let counts: Vec<&Value> = series.iter().filter(|one| one["metric"] == "flood.count").collect();
    assert_eq!(counts.iter().map(|one| count_of(one)).sum::<u64>(), TIMERS * VALUES);
    assert_eq!(counts.iter().filter(|one| is_overflow(one)).count(), 1);
    // The name's worker has 8 MiB, of which digests of 2.2 KB may take a bit less than half.
    assert!((1_000..2_000).contains(&counts.len()), "{}", counts.len());
    let steady: Vec<u64> =
        series.iter().filter(|one| one["metric"] == "steady.count").map(count_of).collect();
    assert_eq!(steady, [4]);
    let said = nodes[0].daemon.wait_for_log("more series than there is room");
    assert!(said.contains("limits=\"memory\"") && said.contains("flood ("), "{said}");
}

/// Counters, sets and digests of more series than the global node has room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forwarded_folds_at_the_global_node() {
    const SERIES: usize = 2_000;
    let global = Node::start(json!({"limits": {"contexts": 200}})).await;
    let local = Node::start(json!({
        "tcp_address": "127.0.0.1:0",
        "forward_address": format!("http://{}", global.daemon.http),
    }))
    .await;
    let lines: Vec<String> = (0..SERIES)
        .flat_map(|n| {
            [
                format!("hits:3|c|#id:{n},veneurglobalonly"),
                format!("users:u{n}|s|#id:{n}"),
                format!("load:{}|ms|#id:{n},veneurglobalonly", n % 100),
            ]
        })
        .collect();
    let sending = tokio::task::spawn_blocking(move || {
        send(&local.daemon, &lines);
        local
    });
    let local = sending.await.expect("it is taken");
    let nodes = stop(vec![local, global]).await;
    let series = nodes[1].intake.series();
    let sum = |name: &str| -> u64 {
        series.iter().filter(|one| one["metric"] == name).map(count_of).sum()
    };
    assert_eq!(sum("hits"), 3 * SERIES as u64);
    assert_eq!(sum("load.count"), SERIES as u64);
    // A series that has room has one member, the overflow series all the others.
    let members = sum("users");
    assert!(members.abs_diff(SERIES as u64) < 10, "{members}");
    let overflows =
        |name: &str| series.iter().filter(|one| one["metric"] == name && is_overflow(one)).count();
    for name in ["hits", "load.99percentile", "users"] {
        assert_eq!(overflows(name), 1, "{name}");
    }
    assert!(series.iter().filter(|one| one["metric"] == "hits").count() <= 50 + 1);
}
