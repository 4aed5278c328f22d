//! Outages longer than an interval: nothing is lost, nothing counts twice, and every point keeps
//! its time, even when the process is killed meanwhile.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::books::Page;
use crate::fake_intake::{FakeIntake, Fault};
use crate::ledger::total;
use crate::node::{Node, Scratch, now, spool, sum_of, taken};
use crate::proxy::{PROTOBUF, counter, import};
use crate::relay::{Behaviour, Relay};
use crate::support::{Daemon, free_port, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_several_intervals_loses_and_doubles_no_point() {
    let scratch = Scratch::new();
    for more in [json!({}), json!({"spool": spool(&scratch)})] {
        let intake = FakeIntake::start().await;
        let node = Node::start(&intake, more).await;
        let began = now();
        intake.fail_always(Some(Fault::Status(503)));
        let (node, sent_meanwhile) = node
            .send_until("hits:1|c", move |node| {
                node.total("veneur_spool_records", "datadog") >= 3 && now() >= began + 5
            })
            .await;
        assert_eq!(taken(&intake, "hits").0, 0);
        intake.fail_always(None);
        let back = now();
        let delivered = |node: &Node| node.total("veneur_spool_records", "datadog") == 0;
        let (node, sent_after) = node.send_until("hits:1|c", delivered).await;
        node.settle().await.stop().await;
        let (total, times) = taken(&intake, "hits");
        assert_eq!(total, sent_meanwhile + sent_after);
        let of_outage = times.range(began..back).count();
        assert!(of_outage >= 3, "points keep the time of their interval: {times:?}");
        assert!(times.iter().all(|at| (began..=now() + 1).contains(at)), "{times:?}");
    }
    assert_eq!(scratch.segments("datadog"), Vec::<PathBuf>::new(), "nothing is left on disk");
}

/// Lets a node with a spool run into an outage, and kills it when so many requests are on disk.
/// Returns how many points are in what is on disk.
async fn killed_in_an_outage(intake: &FakeIntake, scratch: &Scratch, records: u64) -> u64 {
    intake.fail_always(Some(Fault::Status(503)));
    let node = Node::start(intake, json!({"spool": spool(scratch)})).await;
    let enough = move |node: &Node| {
        node.total("veneur_spool_records", "datadog") >= records
            && node.total("veneur_spool_memory_bytes", "datadog") == 0
    };
    let (node, _) = node.send_until("hits:1|c", enough).await;
    // The flush that is open now gets there, too.
    let before = node.total("veneur_spool_items", "datadog");
    let all_on_disk = move |node: &Node| {
        node.total("veneur_spool_items", "datadog") > before
            && node.total("veneur_spool_memory_bytes", "datadog") == 0
    };
    let node = node.wait("everything sent is on disk", all_on_disk).await;
    let items = node.total("veneur_spool_items", "datadog");
    node.kill().await;
    items
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_disk_survives_a_kill_and_arrives_once() {
    let scratch = Scratch::new();
    let intake = FakeIntake::start().await;
    let points = killed_in_an_outage(&intake, &scratch, 3).await;
    let segments = scratch.segments("datadog");
    assert!(!segments.is_empty());
    for file in &segments {
        let mode = fs::metadata(file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_no_key(file);
    }
    intake.fail_always(None);
    let node = Node::start(&intake, json!({"spool": spool(&scratch)})).await;
    let node = node
        .wait("it is delivered", |node| {
            node.total("veneur_sink_metrics_flushed_total", "datadog") > 0
                && node.total("veneur_spool_records", "datadog") == 0
        })
        .await;
    node.settle().await.stop().await;
    let (_, times) = taken(&intake, "hits");
    // An interval without anything received has no point of the counter.
    assert!(times.len() as u64 >= points && points >= 3, "{points} points, {times:?}");
    assert_eq!(scratch.segments("datadog"), Vec::<PathBuf>::new());
}

fn assert_no_key(file: &Path) {
    let bytes = fs::read(file).expect("it can be read");
    let key = b"0123456789abcdef";
    assert!(!bytes.windows(key.len()).any(|window| window == key), "the key is on disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_segment_is_kept_aside_and_the_others_are_delivered() {
    let scratch = Scratch::new();
    let intake = FakeIntake::start().await;
    killed_in_an_outage(&intake, &scratch, 3).await;
    let first = scratch.segments("datadog").into_iter().min().expect("there is one");
    // Each process begins a segment of its own.
    killed_in_an_outage(&intake, &scratch, 6).await;
    assert!(scratch.segments("datadog").len() >= 2);
    let mut bytes = fs::read(&first).expect("it can be read");
    bytes[20] ^= 0xff;
    fs::write(&first, bytes).expect("it can be written");
    intake.fail_always(None);
    let node = Node::start(&intake, json!({"spool": spool(&scratch)})).await;
    assert_eq!(node.total("veneur_spool_corrupt_total", "datadog"), 1);
    let node = node
        .wait("the others are delivered", |node| node.total("veneur_spool_records", "datadog") == 0)
        .await;
    let log = node.settle().await.stop().await;
    assert!(log.contains("a damaged segment of the spool is kept aside"), "{log}");
    assert_eq!(scratch.files("datadog", "corrupt").len(), 1);
    assert!(taken(&intake, "hits").1.len() >= 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_stop_in_an_outage_leaves_everything_on_disk() {
    let scratch = Scratch::new();
    let intake = FakeIntake::start().await;
    intake.fail_always(Some(Fault::Reset));
    let node = Node::start(&intake, json!({"spool": spool(&scratch)})).await;
    let kept = |node: &Node| node.total("veneur_spool_records", "datadog") >= 2;
    let (node, sent) = node.send_until("hits:1|c", kept).await;
    node.stop().await;
    assert_eq!(taken(&intake, "hits").0, 0);
    intake.fail_always(None);
    let node = Node::start(&intake, json!({"spool": spool(&scratch)})).await;
    let delivered = |node: &Node| {
        node.total("veneur_sink_metrics_flushed_total", "datadog") > 0
            && node.total("veneur_spool_records", "datadog") == 0
    };
    node.wait("it is delivered", delivered).await.settle().await.stop().await;
    assert_eq!(taken(&intake, "hits").0, sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_node_that_is_killed_while_the_global_one_is_down_loses_no_batch() {
    let scratch = Scratch::new();
    let (local_intake, global_intake) = (FakeIntake::start().await, FakeIntake::start().await);
    let port = free_port();
    let local = json!({
        "forward_address": format!("http://127.0.0.1:{port}"),
        "spool": spool(&scratch),
    });
    let node = Node::start(&local_intake, local.clone()).await;
    let began = now();
    let line = "work:1|c|#veneurglobalonly";
    let (node, sent) = node.send_until(line, move |_| now() >= began + 3).await;
    let sent_until = now();
    let node = node
        .wait("everything is on disk", move |node| {
            let flushed = node.total("veneur_worker_metrics_flushed_total", "counter");
            let waits = node.total("veneur_forward_queue_entries", "");
            let on_disk = node.total("veneur_spool_items", "forward");
            let in_memory = node.total("veneur_spool_memory_bytes", "forward");
            node.has_flushed(sent_until) && waits == 0 && in_memory == 0 && on_disk == flushed
        })
        .await;
    node.kill().await;
    let global = json!({"http_address": format!("127.0.0.1:{port}"), "interval": "60s"});
    let global = Node::start(&global_intake, global).await;
    let node = Node::start(&local_intake, local).await;
    let node = node
        .wait("the backlog is delivered", |node| {
            node.total("veneur_forward_entries_delivered_total", "") >= 3
                && node.total("veneur_spool_records", "forward") == 0
        })
        .await;
    node.settle().await.stop().await;
    global.stop().await;
    assert_eq!(sum_of(&global_intake, "work"), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_whose_answer_was_lost_before_a_kill_is_not_merged_again_after_it() {
    let scratch = Scratch::new();
    let (local_intake, global_intake) = (FakeIntake::start().await, FakeIntake::start().await);
    let global = Node::start(&global_intake, json!({"interval": "60s"})).await;
    let relay = Relay::start(&global.daemon.http, []).await;
    relay.misbehave([Behaviour::LoseAnswer; 1000]);
    let local = json!({"forward_address": relay.url(), "spool": spool(&scratch)});
    let node = Node::start(&local_intake, local.clone()).await;
    let began = now();
    let line = "work:1|c|#veneurglobalonly";
    let (node, sent) = node.send_until(line, move |_| now() >= began + 2).await;
    let sent_until = now();
    let node = node
        .wait("everything is merged, on disk, and not known to be", move |node| {
            let flushed = node.total("veneur_worker_metrics_flushed_total", "counter");
            let in_memory = node.total("veneur_spool_memory_bytes", "forward");
            let waits = node.total("veneur_forward_queue_entries", "");
            node.has_flushed(sent_until)
                && waits == 0
                && in_memory == 0
                && node.total("veneur_spool_items", "forward") == flushed
        })
        .await;
    node.kill().await;
    assert!(relay.misbehaved() >= 2);
    relay.behave();
    let node = Node::start(&local_intake, local).await;
    let node = node
        .wait("the backlog is answered", |node| {
            node.total("veneur_forward_entries_delivered_total", "") >= 2
                && node.total("veneur_spool_records", "forward") == 0
        })
        .await;
    node.settle().await.stop().await;
    let repeated = global.total("veneur_import_repeated_total", "");
    assert!(repeated >= 2, "{repeated} batches were known");
    global.stop().await;
    assert_eq!(sum_of(&global_intake, "work"), sent);
}

#[test]
fn a_directory_that_cannot_be_written_is_said_at_the_start() {
    let yaml = "udp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\nkey: x\n\
                spool: {directory: /proc/veneur}\n";
    let (code, log) = crate::lifecycle::failed_start(yaml);
    assert_eq!(code, Some(1));
    assert!(log.contains("cannot use spool.directory /proc/veneur"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_is_killed_keeps_what_it_has_said_yes_to_and_could_not_pass_on() {
    let scratch = Scratch::new();
    let intake = FakeIntake::start().await;
    let port = free_port();
    let proxy = json!({
        "forward_address": format!("http://127.0.0.1:{port}"),
        "http_address": "127.0.0.1:0",
        "interval": "1s",
        "spool": spool(&scratch),
    });
    let again = proxy.clone();
    let sending = tokio::task::spawn_blocking(move || {
        let mut proxy = Daemon::start_proxy(&proxy.to_string());
        for name in ["one", "two", "three"] {
            assert_eq!(import(&proxy.http, PROTOBUF, &counter(name)).0, 202);
        }
        let spooled = |family| total(&proxy, family, "forward");
        wait_until("it is on disk", || {
            spooled("veneur_spool_items") == 3 && spooled("veneur_spool_memory_bytes") == 0
        });
        proxy.signal("KILL");
        proxy.wait();
    });
    sending.await.expect("it does not panic");
    let global = json!({"http_address": format!("127.0.0.1:{port}"), "interval": "60s"});
    let global = Node::start(&intake, global).await;
    let delivering = tokio::task::spawn_blocking(move || {
        let mut proxy = Daemon::start_proxy(&again.to_string());
        wait_until("it is delivered", || {
            total(&proxy, "veneur_forward_entries_delivered_total", "") == 3
        });
        wait_until("everything adds up", || {
            Page::read(&proxy.http).expect("the server is there").imbalances_of_proxy().is_empty()
        });
        proxy.stop();
    });
    delivering.await.expect("it does not panic");
    global.stop().await;
    for name in ["one", "two", "three"] {
        assert_eq!(sum_of(&intake, name), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_on_disk_for_a_dead_node_moves_to_the_others() {
    let scratch = Scratch::new();
    let (local_intake, global_intake) = (FakeIntake::start().await, FakeIntake::start().await);
    let global = Node::start(&global_intake, json!({"interval": "60s"})).await;
    let alive = format!("http://{}", global.daemon.http);
    let dead = format!("http://127.0.0.1:{}", free_port());
    let local = json!({
        "forward_address": [alive, dead],
        "forward": {"failover_after": "3s"},
        "spool": spool(&scratch),
    });
    let node = Node::start(&local_intake, local).await;
    // Enough names for both to have some.
    let lines = "w.a:1|c|#veneurglobalonly\nw.b:1|c|#veneurglobalonly\nw.c:1|c|#veneurglobalonly\n\
                 w.d:1|c|#veneurglobalonly\nw.e:1|c|#veneurglobalonly\nw.f:1|c|#veneurglobalonly\n\
                 w.g:1|c|#veneurglobalonly\nw.h:1|c|#veneurglobalonly\nw.i:1|c|#veneurglobalonly";
    let on_disk = |node: &Node| node.total("veneur_spool_disk_bytes", "forward") > 0;
    let (node, sent) = node.send_until(lines, on_disk).await;
    let node = node
        .wait("the dead node's share has moved", |node| {
            node.total("veneur_spool_records", "forward") == 0
                && node.total("veneur_forward_queue_entries", "") == 0
                && node.total("veneur_forward_ring_members", "") == 1
        })
        .await;
    node.settle().await.stop().await;
    global.stop().await;
    for name in ["w.a", "w.b", "w.c", "w.d", "w.e", "w.f", "w.g", "w.h", "w.i"] {
        assert_eq!(sum_of(&global_intake, name), sent, "{name}");
    }
}
