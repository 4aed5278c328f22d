//! The open interval outlives `kill -9`: everything older than a checkpoint is in the flush of the
//! next process, once.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::fleet::{Node, stop};
use crate::ledger::total;
use crate::support::{Daemon, scratch_directory, wait_until};

const EVERY: &str = "100ms";

fn spooled(directory: &Path) -> Value {
    json!({
        "tcp_address": "127.0.0.1:0",
        "spool": {"directory": directory, "checkpoint": EVERY},
    })
}

/// Files of open intervals.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory.join("checkpoint")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "open")).collect()
}

/// Waits until two checkpoints more are through: the second began after all that was sent.
fn wait_for_checkpoint(daemon: &Daemon) {
    let family = "veneur_checkpoint_duration_seconds_count";
    let seen = total(daemon, family, "part=\"all\"");
    wait_until("there is a checkpoint", || total(daemon, family, "part=\"all\"") >= seen + 2);
}

fn wait_until_read_back(daemon: &Daemon) {
    wait_until("it is read back", || total(daemon, "veneur_checkpoint_restored_total", "") > 0);
}

fn send(daemon: &Daemon, lines: &[String]) {
    let before = total(daemon, "veneur_listen_lines_total", "udp");
    daemon.send(lines.iter().map(String::as_bytes));
    wait_until("all lines are taken", || {
        total(daemon, "veneur_listen_lines_total", "udp") == before + lines.len() as u64
    });
}

/// Samples of every kind.
fn lines(from: u32) -> Vec<String> {
    (from..from + 100)
        .flat_map(|n| {
            [
                format!("hits:2|c|#shard:{}", n % 7),
                format!("level:{n}|g"),
                format!("lat:{n}|ms"),
                format!("lat.sampled:{n}|h|@0.5|#a:b"),
                format!("users:u{n}|s"),
            ]
        })
        .collect()
}

async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(act).await.expect("it does not panic")
}

/// What is emitted of the metrics sent: by name and tags.
fn emitted(node: &Node) -> Vec<(String, f64)> {
    let mut values: Vec<(String, f64)> = node
        .intake
        .series()
        .iter()
        .map(|one| {
            let factor = one["interval"].as_f64().filter(|_| one["type"] == "rate").unwrap_or(1.0);
            let value = one["points"][0][1].as_f64().expect("a number") * factor;
            (format!("{}{}", one["metric"], one["tags"]), (value * 1e6).round() / 1e6)
        })
        .collect();
    values.sort_by(|a, b| a.0.cmp(&b.0));
    values
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_a_kill_is_flushed_once() {
    let directory = scratch_directory();
    // Told by a node that is not killed.
    let whole = Node::start(json!({})).await;
    let mut node = Node::start(spooled(&directory)).await;
    // Twice: what was read back survives the next one, too.
    for round in 0..3 {
        let (whole_ref, sent) = (whole.daemon.udp().to_owned(), lines(round * 100));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        for line in &sent {
            socket.send_to(line.as_bytes(), &whole_ref).expect("loopback takes it");
        }
        node = blocking(move || {
            send(&node.daemon, &sent);
            wait_for_checkpoint(&node.daemon);
            node
        })
        .await;
        if round < 2 {
            assert_eq!(files(&directory).len(), 1);
            node = blocking(move || {
                node.daemon.signal("KILL");
                node.daemon.wait();
                assert_eq!(node.intake.series().len(), 0);
                node
            })
            .await;
            drop(node);
            node = Node::start(spooled(&directory)).await;
            node = blocking(move || {
                wait_until_read_back(&node.daemon);
                node
            })
            .await;
        }
    }
    let nodes = stop(vec![node, whole]).await;
    let (after, wanted) = (emitted(&nodes[0]), emitted(&nodes[1]));
    assert_eq!(after.len(), wanted.len(), "{after:?}");
    for ((name, value), (wanted_name, wanted)) in after.iter().zip(&wanted) {
        assert_eq!(name, wanted_name);
        // Merged digests differ from one within their error.
        let tolerance = if name.contains("percentile") { 0.01 * wanted } else { 0.0 };
        assert!((value - wanted).abs() <= tolerance, "{name}: {value}, not {wanted}");
    }
    assert!(files(&directory).is_empty(), "what was flushed is not kept");
    let _ = fs::remove_dir_all(directory);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_leaves_nothing_behind_that_could_be_flushed_again() {
    let directory = scratch_directory();
    let mut config = spooled(&directory);
    config["interval"] = json!("1s");
    let mut node = Node::start(config.clone()).await;
    node = blocking(move || {
        send(&node.daemon, &["hits:5|c".to_owned()]);
        node
    })
    .await;
    let delivered = node.intake.wait_for(|requests| {
        requests.iter().find(|request| request.path.contains("/series")).map(|_| ())
    });
    delivered.await;
    node = blocking(move || {
        node.daemon.signal("KILL");
        node.daemon.wait();
        node
    })
    .await;
    let first = node.total("hits");
    drop(node);
    let next = Node::start(config).await;
    let nodes = stop(vec![next]).await;
    assert_eq!((first, nodes[0].total("hits")), (5.0, 0.0));
    let _ = fs::remove_dir_all(directory);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_file_and_a_corrupt_one_cost_what_stands_behind() {
    let directory = scratch_directory();
    for (round, is_torn) in [(0, true), (1, false)] {
        let mut node = Node::start(spooled(&directory)).await;
        node = blocking(move || {
            send(&node.daemon, &["first:1|c".to_owned()]);
            wait_for_checkpoint(&node.daemon);
            send(&node.daemon, &["second:1|c".to_owned()]);
            wait_for_checkpoint(&node.daemon);
            node.daemon.signal("KILL");
            node.daemon.wait();
            node
        })
        .await;
        drop(node);
        let file = files(&directory).pop().expect("there is one");
        let mut bytes = fs::read(&file).expect("it can be read");
        match is_torn {
            true => bytes.truncate(bytes.len() - 3),
            false => *bytes.last_mut().expect("it is not empty") ^= 1,
        }
        fs::write(&file, bytes).expect("it can be written");
        let mut node = Node::start(spooled(&directory)).await;
        node = blocking(move || {
            wait_until_read_back(&node.daemon);
            let corrupt = total(&node.daemon, "veneur_checkpoint_corrupt_total", "");
            assert_eq!(corrupt, u64::from(!is_torn));
            node
        })
        .await;
        let nodes = stop(vec![node]).await;
        assert_eq!((nodes[0].total("first"), nodes[0].total("second")), (1.0, 0.0), "{round}");
    }
    let aside = fs::read_dir(directory.join("checkpoint")).expect("it is there");
    let aside = aside.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    assert_eq!(aside.filter(|name| name.ends_with(".corrupt")).count(), 1);
    let _ = fs::remove_dir_all(directory);
}

/// A successor leaves the directory alone while the old one still flushes from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_doubles_nothing() {
    let directory = scratch_directory();
    let mut config = spooled(&directory);
    config["takeover_socket"] = json!(directory.join("takeover.sock"));
    let mut old = Node::start(config.clone()).await;
    old = blocking(move || {
        send(&old.daemon, &lines(0));
        wait_for_checkpoint(&old.daemon);
        old
    })
    .await;
    let new = Node::succeed(config).await;
    old = blocking(move || {
        assert!(old.daemon.wait().success());
        old
    })
    .await;
    let new = blocking(move || {
        wait_for_checkpoint(&new.daemon);
        send(&new.daemon, &lines(100));
        wait_for_checkpoint(&new.daemon);
        new
    })
    .await;
    assert_eq!(files(&directory).len(), 1);
    let nodes = stop(vec![new]).await;
    for (node, hits) in [(&old, 200.0), (&nodes[0], 200.0)] {
        assert_eq!(node.total("hits"), hits);
        assert_eq!(node.total("lat.count"), 100.0);
    }
    let _ = fs::remove_dir_all(directory);
}
