//! What becomes of data when the host fails the daemon: the ledger adds up, and fresh data flows
//! again afterwards.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fake_intake::{FakeIntake, Fault};
use crate::host::{Busy, Meddle, MemoryGroup, can_mount, leave_out, run_beside, start_with_mounts};
use crate::node::{Node, Scratch, spool, taken, taken_at_least_once};
use crate::support::{Daemon, free_port};

const HOUR: i64 = 3_600;

fn flushes(node: &Node) -> u64 {
    node.total("veneur_flush_worker_duration_seconds_count", "")
}

/// Sends until there were so many more flushes.
async fn send_over_flushes(node: Node, more: u64) -> (Node, u64) {
    let before = flushes(&node);
    node.send_until("hits:1|c", move |node| flushes(node) >= before + more).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_by_an_hour_stalls_nothing_and_doubles_no_second() {
    let scratch = Scratch::new();
    let Some(meddle) = Meddle::new(&scratch.0) else {
        return leave_out("there is no C compiler to make a clock with");
    };
    let meddle = Arc::new(meddle);
    for synchronize in [true, false] {
        meddle.shift_clock(0);
        let intake = FakeIntake::start().await;
        let with = Arc::clone(&meddle);
        let start = move |yaml: &str| with.start(yaml);
        let more = json!({"synchronize_with_interval": synchronize});
        let mut node = Node::start_by(&intake, more, start).await;
        let (began, mut sent) = (Instant::now(), 0);
        for hours in [0, -1, 0, 1] {
            meddle.shift_clock(hours * HOUR);
            let (after, n) = send_over_flushes(node, 3).await;
            (node, sent) = (after, sent + n);
        }
        let (flushed, seconds) = (flushes(&node), began.elapsed().as_secs());
        // One more if it was set just before a flush, and one for the part of a second.
        assert!(flushed <= seconds + 2 + 3, "{flushed} flushes in {seconds} s");
        node.settle().await.stop().await;
        // It panics where two points of a second are.
        let (total, times) = taken(&intake, "hits");
        assert_eq!(total, sent);
        let (first, last) = (times.first().expect("some"), times.last().expect("some"));
        assert!(last - first > 2 * HOUR - 60, "{times:?}");
    }
}

/// Names of 40 random-looking characters, so that what is kept does not compress to nothing.
fn lines(round: u64, count: u64) -> Vec<String> {
    let name = |n: u64| {
        let mut state = round * count + n + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("{:016x}", state.rotate_left(23))
        };
        format!("x{}{}{}:1|c", next(), next(), next())
    };
    (0..count).map(name).collect()
}

/// Sends lines that are never the same, some before each flush, until that holds; how many.
async fn flood_until(
    node: Node,
    count: u64,
    mut holds: impl FnMut(&Node) -> bool + Send + 'static,
) -> (Node, u64) {
    let flooding = tokio::task::spawn_blocking(move || {
        let (mut round, mut sent) = (0, 0);
        crate::support::wait_until("what is sent for", || {
            let lines = lines(round, count);
            let datagrams: Vec<String> = lines.chunks(20).map(|lines| lines.join("\n")).collect();
            node.daemon.send(datagrams.iter().map(String::as_bytes));
            round += 1;
            sent += lines.len() as u64;
            crate::support::wait_until("all is received", || {
                node.total("veneur_listen_samples_total", "udp") >= sent
            });
            let before = flushes(&node);
            crate::support::wait_until("it is flushed", || flushes(&node) > before);
            holds(&node)
        });
        (node, sent)
    });
    flooding.await.expect("it does not panic")
}

/// How many points of those names have arrived.
fn arrived(intake: &FakeIntake) -> u64 {
    let series = intake.series();
    let count = |series: &serde_json::Value| {
        let rate = series["points"][0][1].as_f64().expect("a number");
        rate * series["interval"].as_f64().expect("a whole interval")
    };
    let ours = series.iter().filter(|one| one["metric"].as_str().is_some_and(|n| n.len() == 49));
    ours.map(count).sum::<f64>().round() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_or_read_only_costs_nothing_while_memory_holds_it() {
    if !can_mount() {
        return leave_out("this machine lets nobody mount a small disk");
    }
    let scratch = Scratch::new();
    let disk = scratch.0.display().to_string();
    let intake = FakeIntake::start().await;
    intake.fail_always(Some(Fault::Status(503)));
    let mount = format!("mount -t tmpfs -o size=48k none {disk}");
    let more = json!({"spool": spool(&scratch)});
    let start = move |yaml: &str| start_with_mounts(&mount, yaml);
    let node = Node::start_by(&intake, more, start).await;
    let failed =
        |cause: &'static str| move |node: &Node| node.total("veneur_spool_error_total", cause) > 0;
    let (node, mut sent) = flood_until(node, 300, failed("cause=\"full\"")).await;
    assert!(node.total("veneur_spool_disk_bytes", "datadog") > 0);
    run_beside(&node.daemon, &["mount", "-o", "remount,size=4m", &disk]);
    run_beside(&node.daemon, &["mount", "--bind", "-o", "ro", &disk, &disk]);
    let (node, more) = flood_until(node, 300, failed("cause=\"read_only\"")).await;
    sent += more;
    run_beside(&node.daemon, &["umount", &disk]);
    let written = |node: &Node| node.total("veneur_spool_memory_bytes", "datadog") == 0;
    let node = node.wait("the disk takes what memory held", written).await;
    intake.fail_always(None);
    let node = node.settle().await;
    assert_eq!(node.total("veneur_sink_metrics_dropped_total", ""), 0);
    node.stop().await;
    assert_eq!(arrived(&intake), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_holds_up_neither_flushes_nor_fresh_data() {
    let scratch = Scratch::new();
    let Some(meddle) = Meddle::new(&scratch.0) else {
        return leave_out("there is no C compiler to slow a disk with");
    };
    let intake = FakeIntake::start().await;
    let meddle = Arc::new(meddle);
    let with = Arc::clone(&meddle);
    let more = json!({"spool": spool(&scratch)});
    let node = Node::start_by(&intake, more, move |yaml| with.start(yaml)).await;
    meddle.slow_disk(2_500);
    intake.fail_always(Some(Fault::Status(503)));
    let kept = |node: &Node| node.total("veneur_spool_records", "datadog") >= 3;
    let (node, before) = node.send_until("hits:1|c", kept).await;
    intake.fail_always(None);
    let began = Instant::now();
    let (node, after) = send_over_flushes(node, 3).await;
    assert!(began.elapsed() < Duration::from_secs(20), "flushes come as before");
    meddle.slow_disk(0);
    let node = node.settle().await;
    assert_eq!(node.total("veneur_sink_metrics_dropped_total", ""), 0);
    node.stop().await;
    assert_eq!(taken(&intake, "hits").0, before + after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_do_not_resolve_for_a_while_cost_nothing() {
    if !can_mount() {
        return leave_out("this machine lets nobody mount another /etc/hosts");
    }
    let scratch = Scratch::new();
    let (local, global) = (FakeIntake::start().await, FakeIntake::start().await);
    let port = free_port();
    let upstream = json!({"http_address": format!("127.0.0.1:{port}"), "interval": "1s"});
    let upstream = Node::start(&global, upstream).await;
    let file = |name| scratch.0.join(name).display().to_string();
    let (hosts, resolver) = (file("hosts"), file("resolv.conf"));
    fs::write(&hosts, "").expect("the scratch directory can be written");
    // Nobody answers there.
    fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").expect("as well");
    let mounts =
        format!("mount --bind {hosts} /etc/hosts; mount --bind {resolver} /etc/resolv.conf");
    let intake_url = local.url().replace("127.0.0.1", "intake.test");
    let more = json!({
        "api_hostname": intake_url,
        "forward_address": format!("http://upstream.test:{port}"),
    });
    let start = move |yaml: &str| start_with_mounts(&mounts, yaml);
    let node = Node::start_by(&local, more, start).await;
    let lines = "hits:1|c\nwork:1|c|#veneurglobalonly";
    let failed = |node: &Node| {
        node.total("veneur_spool_records", "datadog") >= 2
            && node.total("veneur_forward_error_total", "cause=") >= 1
            && node.total("veneur_forward_queue_entries", "") >= 2
    };
    let (node, before) = node.send_until(lines, failed).await;
    fs::write(&hosts, "127.0.0.1 intake.test upstream.test\n").expect("it was written before");
    let delivered = |node: &Node| {
        node.total("veneur_spool_records", "datadog") == 0
            && node.total("veneur_forward_queue_entries", "") == 0
            && node.total("veneur_forward_entries_delivered_total", "") > 0
    };
    let (node, after) = node.send_until(lines, delivered).await;
    let node = node.settle().await;
    assert_eq!(node.total("veneur_sink_metrics_dropped_total", ""), 0);
    assert_eq!(node.total("veneur_forward_entries_dropped_total", ""), 0);
    node.stop().await;
    upstream.settle().await.stop().await;
    assert_eq!(taken(&local, "hits").0, before + after);
    assert_eq!(taken(&global, "work").0, before + after);
}

/// A minute of a default node, scaled: six intervals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_stopped_for_six_intervals_goes_on_and_counts_what_the_kernel_dropped() {
    let intake = FakeIntake::start().await;
    let more = json!({"read_buffer_size_bytes": 65_536, "num_readers": 1});
    let node = Node::start(&intake, more).await;
    let (node, before) = send_over_flushes(node, 2).await;
    let meanwhile = tokio::task::spawn_blocking(move || {
        node.daemon.signal("STOP");
        // More than a socket of 64 KiB holds.
        node.daemon.send([&b"hits:1|c"[..]; 10_000]);
        thread::sleep(Duration::from_millis(6_500));
        node.daemon.signal("CONT");
        (node, 10_000)
    });
    let (node, meanwhile) = meanwhile.await.expect("it does not panic");
    let (node, after) = send_over_flushes(node, 2).await;
    let node = node.settle().await;
    let dropped = node.total("veneur_listen_kernel_drops_total", "");
    assert!(dropped > 0 && dropped < meanwhile, "{dropped} of {meanwhile}");
    let missed = node.total("veneur_flush_missed_total", "");
    // What they missed is one flush, not a burst of them.
    assert!((5..=6).contains(&missed), "{missed} flushes were missed");
    node.stop().await;
    assert_eq!(taken(&intake, "hits").0 + dropped, before + meanwhile + after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_starved_daemon_is_late_and_loses_nothing_but_what_is_counted() {
    let intake = FakeIntake::start().await;
    let start = move |yaml: &str| Daemon::start_by(&["nice", "-n", "19"], yaml, &[]);
    let node = Node::start_by(&intake, json!({}), start).await;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let busy: Vec<Busy> = (0..cores).map(|_| Busy::start()).collect();
    let (node, sent) = send_over_flushes(node, 3).await;
    drop(busy);
    let (node, after) = send_over_flushes(node, 1).await;
    let node = node.settle().await;
    let dropped = node.total("veneur_listen_kernel_drops_total", "");
    let points = node.total("veneur_sink_metrics_dropped_total", "");
    node.stop().await;
    // It may be too slow to see an answer in time, and then sends the same again; or to send
    // within the interval, which is counted.
    let arrived = taken_at_least_once(&intake, "hits") + dropped;
    assert!(arrived == sent + after || (arrived < sent + after && points > 0), "{arrived}");
}

/// Twice as many series as a node of that size is told to hold, in an outage, and with memory
/// for little more than that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_near_its_memory_limit_survives_a_flood_in_an_outage() {
    let Some(group) = MemoryGroup::new(96 << 20) else {
        return leave_out("this process may not make a group of its own");
    };
    let intake = FakeIntake::start().await;
    let more = json!({"limits": {"contexts": 5_000}});
    let group = Arc::new(group);
    let start = {
        let group = Arc::clone(&group);
        move |yaml: &str| group.start(yaml)
    };
    let node = Node::start_by(&intake, more, start).await;
    intake.fail_always(Some(Fault::Status(503)));
    let full = |node: &Node| {
        node.total("veneur_limits_folded_samples_total", "") > 5_000
            && node.total("veneur_spool_records", "datadog") >= 4
    };
    let (node, sent) = flood_until(node, 3_000, full).await;
    intake.fail_always(None);
    let node = node.settle().await;
    assert_eq!(node.total("veneur_sink_metrics_dropped_total", ""), 0);
    node.stop().await;
    drop(group);
    // Samples of series without room are in the overflow series.
    let all = intake.series().into_iter().map(|series| {
        let rate = series["points"][0][1].as_f64().unwrap_or(0.0);
        rate * series["interval"].as_f64().unwrap_or(0.0)
    });
    assert_eq!(all.sum::<f64>().round() as u64, sent);
}
