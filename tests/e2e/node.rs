//! A node that flushes every second, and what came of what it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::books::Page;
use crate::fake_intake::FakeIntake;
use crate::ledger::settle;
use crate::support::{Daemon, scratch_directory, wait_until};

/// A directory for spools, removed in the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        Scratch(scratch_directory())
    }

    pub(crate) fn segments(&self, of: &str) -> Vec<PathBuf> {
        self.files(of, "segment")
    }

    pub(crate) fn files(&self, of: &str, ending: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.0.join(of)).expect("the spool's directory is there");
        let paths = files.map(|file| file.expect("it can be read").path());
        paths.filter(|path| path.extension().is_some_and(|it| it == ending)).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A node that flushes every second; its own telemetry goes to a socket of this test's.
pub(crate) struct Node {
    pub(crate) daemon: Daemon,
    _statsd: UdpSocket,
}

impl Node {
    pub(crate) async fn start(intake: &FakeIntake, more: Value) -> Node {
        Node::start_by(intake, more, Daemon::start).await
    }

    /// The same, started in a way of its own.
    pub(crate) async fn start_by(
        intake: &FakeIntake,
        more: Value,
        start: impl FnOnce(&str) -> Daemon + Send + 'static,
    ) -> Node {
        let statsd = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let mut config = json!({
            "interval": "1s",
            // A flush that is late on a busy machine has no second in common with the next.
            "synchronize_with_interval": true,
            "api_hostname": intake.url(),
            "key": "0123456789abcdef",
            "udp_address": "127.0.0.1:0",
            "http_address": "127.0.0.1:0",
            "stats_address": statsd.local_addr().expect("it is bound").to_string(),
        });
        let fields = config.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        let daemon = tokio::task::spawn_blocking(move || start(&config.to_string()));
        Node { daemon: daemon.await.expect("it starts"), _statsd: statsd }
    }

    /// What it counts now.
    pub(crate) fn page(&self) -> Page {
        Page::read(&self.daemon.http).expect("the server is there")
    }

    /// The sum of a family's series on `/metrics` whose labels contain `label`.
    pub(crate) fn total(&self, family: &str, label: &str) -> u64 {
        self.page().sum(family, label)
    }

    /// Waits until nothing is kept and everything adds up.
    pub(crate) async fn settle(self) -> Node {
        let settling = tokio::task::spawn_blocking(move || {
            settle(&self.daemon.http);
            self
        });
        settling.await.expect("everything adds up")
    }

    /// Whether all that was received until then has been flushed.
    pub(crate) fn has_flushed(&self, until: i64) -> bool {
        // The flush of the next second may miss what came a moment before it.
        self.total("veneur_flush_flush_timestamp_seconds", "") as i64 >= until + 2
    }

    /// Sends a counter again and again until that holds; returns how often.
    pub(crate) async fn send_until(
        self,
        line: &'static str,
        mut holds: impl FnMut(&Node) -> bool + Send + 'static,
    ) -> (Node, u64) {
        let sending = tokio::task::spawn_blocking(move || {
            let mut sent = 0;
            wait_until("what is sent for", || {
                self.daemon.send([line.as_bytes()]);
                sent += 1;
                holds(&self)
            });
            // So that all of it is in a flush when it is killed or stopped.
            wait_until("all is received", || {
                self.total("veneur_listen_received_per_protocol_total", "udp") >= sent
            });
            (self, sent)
        });
        sending.await.expect("it does not panic")
    }

    pub(crate) async fn wait(
        self,
        what: &'static str,
        mut holds: impl FnMut(&Node) -> bool + Send + 'static,
    ) -> Node {
        let waiting = tokio::task::spawn_blocking(move || {
            wait_until(what, || holds(&self));
            self
        });
        waiting.await.expect("it does not panic")
    }

    pub(crate) async fn kill(mut self) {
        let killing = tokio::task::spawn_blocking(move || {
            self.daemon.signal("KILL");
            self.daemon.wait()
        });
        killing.await.expect("it ends");
    }

    /// Stops it in good order; what it logged.
    pub(crate) async fn stop(mut self) -> String {
        let stopping = tokio::task::spawn_blocking(move || {
            self.daemon.stop();
            self.daemon.rest_of_log()
        });
        stopping.await.expect("it stops")
    }
}

/// What the points of a counter that were taken add up to, after making sure that no point came
/// twice; and the times they are of.
pub(crate) fn taken(intake: &FakeIntake, name: &str) -> (u64, BTreeSet<i64>) {
    let mut times = BTreeSet::new();
    let mut total = 0.0;
    for series in intake.series().iter().filter(|series| series["metric"] == name) {
        let at = series["points"][0][0].as_i64().expect("a time");
        let rate = series["points"][0][1].as_f64().expect("a number");
        assert!(times.insert(at), "{name} at {at} came twice");
        total += rate * series["interval"].as_f64().expect("a whole interval");
    }
    (total.round() as u64, times)
}

/// What the points of a counter that were taken add up to, where one may have come twice, with
/// the same time and value: backends keep one value of a series for a second.
pub(crate) fn taken_at_least_once(intake: &FakeIntake, name: &str) -> u64 {
    let mut points = BTreeMap::new();
    for series in intake.series().iter().filter(|series| series["metric"] == name) {
        let (at, rate) = (&series["points"][0][0], &series["points"][0][1]);
        let interval = series["interval"].as_f64().expect("a whole interval");
        let count = (rate.as_f64().expect("a number") * interval).round() as u64;
        let before = points.insert(at.as_i64().expect("a time"), count);
        assert!(before.is_none_or(|before| before == count), "{before:?} and {count} at {at}");
    }
    points.values().sum()
}

/// What the points of a counter that were taken add up to.
pub(crate) fn sum_of(intake: &FakeIntake, name: &str) -> u64 {
    let series = intake.series().into_iter().filter(|series| series["metric"] == name);
    let values = series.map(|series| {
        let rate = series["points"][0][1].as_f64().expect("a number");
        rate * series["interval"].as_f64().expect("a whole interval")
    });
    values.sum::<f64>().round() as u64
}

pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs() as i64
}

pub(crate) fn spool(scratch: &Scratch) -> Value {
    json!({"directory": scratch.0})
}
