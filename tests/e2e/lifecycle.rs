//! Start, ready, reload, drain, second signal: the real program and its signals.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use crate::fake_intake::{FakeIntake, Fault};
use crate::support::{Daemon, http, scratch_directory};

/// A node that never flushes by itself, on ports of its own.
const QUIET: &str = "
interval: 5m
udp_address: 127.0.0.1:0
http_address: 127.0.0.1:0
";

#[test]
fn signals_that_end_it_flush_the_open_interval() {
    for signal in ["TERM", "INT", "USR2"] {
        let mut daemon = Daemon::start(QUIET);
        daemon.send([&b"page.views:1|c|#env:prod\npage.views:2|c|#env:prod"[..]]);
        daemon.signal(signal);
        let status = daemon.wait();
        assert!(status.success(), "{signal}: {status}");
        let output = daemon.rest_of_output();
        let row = output.lines().find(|line| line.contains("page.views"));
        let words: Vec<&str> = row.expect("the counter is shown").split_whitespace().collect();
        assert_eq!(words[..3], ["page.views", "rate", "3"], "{signal}");
    }
}

#[test]
fn without_a_file_it_runs_on_built_in_defaults_and_the_environment() {
    let mut daemon = Daemon::start_plain(&[
        ("VENEUR_UDP_ADDRESS", "127.0.0.1:0"),
        ("VENEUR_HTTP_ADDRESS", "127.0.0.1:0"),
    ]);
    assert_eq!(http(&daemon.http, "GET", "/healthcheck"), (200, "ok\n".to_owned()));
    assert_eq!(http(&daemon.http, "GET", "/ready").0, 200);
    daemon.stop();
}

#[test]
fn a_second_signal_exits_at_once() {
    // Takes connections and never answers.
    let stuck = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = stuck.local_addr().expect("it is bound");
    let mut daemon = Daemon::start(&format!("{QUIET}api_hostname: http://{address}\nkey: x\n"));
    daemon.send([&b"a:1|c"[..]]);
    daemon.signal("TERM");
    daemon.wait_for_log("draining");
    // Its pages are still there, and say that it takes no more.
    assert_eq!(http(&daemon.http, "GET", "/ready"), (503, "draining\n".to_owned()));
    let status = daemon.signal_until_end("TERM");
    assert_eq!(status.code(), Some(1));
    assert!(daemon.whole_log().contains("a second signal"));
}

#[test]
fn two_signals_at_once_are_one() {
    let mut daemon = Daemon::start(QUIET);
    daemon.send([&b"page.views:1|c"[..]]);
    daemon.signals(&["TERM", "INT"]);
    assert!(daemon.wait().success());
    assert!(daemon.rest_of_output().contains("page.views"));
}

#[test]
fn a_reload_does_not_make_a_node_forward() {
    let mut daemon = Daemon::start(QUIET);
    daemon.configure(&format!("{QUIET}forward_address: http://127.0.0.1:1\n"));
    daemon.signal("HUP");
    let line = daemon.wait_for_log("wait for a restart");
    assert!(line.contains("forward_address"), "{line}");
    daemon.send([&b"users:alice|s\nload:5|ms"[..]]);
    daemon.stop();
    let output = daemon.rest_of_output();
    assert!(output.contains("users") && output.contains("load.99percentile"), "{output}");
}

#[test]
fn the_watchdog_leaves_a_healthy_daemon_alone() {
    // It looks half an interval after each flush: long enough on a busy machine.
    let yaml = QUIET.replace("5m", "2s") + "flush_watchdog_missed_flushes: 1\n";
    let mut daemon = Daemon::start(&yaml);
    daemon.wait_for_output(" nothing");
    daemon.wait_for_output(" nothing");
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replaced_sink_still_has_is_delivered() {
    let intake = FakeIntake::start().await;
    intake.fail("/api/v1/series", [Fault::RetryAfter(503, "1".to_owned())]);
    let yaml = format!(
        "{}api_hostname: {}\nkey: x\nstats_address: 127.0.0.1:9\n",
        QUIET.replace("5m", "3s"),
        intake.url()
    );
    let mut daemon = Daemon::start(&yaml);
    daemon.send([&b"first:1|c"[..]]);
    intake.wait_for(|requests| requests.first().map(|_| ())).await;
    let ended = tokio::task::spawn_blocking(move || {
        daemon.configure(&format!("{yaml}tags: [new:tag]\n"));
        daemon.signal("HUP");
        daemon.wait_for_log("the new configuration is in use");
        daemon.send([&b"second:1|c"[..]]);
        daemon.stop();
    });
    ended.await.expect("it stops");
    let names: Vec<String> =
        intake.series().iter().map(|series| series["metric"].to_string()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn quitquitquit_answers_and_drains() {
    let mut daemon = Daemon::start(&format!("{QUIET}http_quit: true\n"));
    daemon.send([&b"page.views:1|c"[..]]);
    let (status, _) = http(&daemon.http, "POST", "/quitquitquit");
    assert_eq!(status, 200);
    assert!(daemon.wait().success());
    assert!(daemon.rest_of_output().contains("page.views"));
}

#[test]
fn sighup_uses_what_can_change_live_and_names_what_cannot() {
    let mut daemon = Daemon::start(&format!("{QUIET}percentiles: [0.5]\n"));
    daemon.configure(&format!("{QUIET}percentiles: [0.25]\nnum_workers: 7\n"));
    daemon.signal("HUP");
    let line = daemon.wait_for_log("the new configuration is in use");
    assert!(line.contains("num_workers"), "{line}");
    daemon.send([&b"load:1|ms"[..]]);
    daemon.stop();
    let output = daemon.rest_of_output();
    assert!(output.contains("load.25percentile") && !output.contains("load.50percentile"));
}

#[test]
fn a_bad_file_changes_nothing() {
    let mut daemon = Daemon::start(&format!("{QUIET}percentiles: [0.5]\n"));
    daemon.configure(&format!("{QUIET}percentiles: [25]\n"));
    daemon.signal("HUP");
    daemon.wait_for_log("the old one stays");
    daemon.send([&b"load:1|ms"[..]]);
    daemon.stop();
    assert!(daemon.rest_of_output().contains("load.50percentile"));
}

/// Runs it to its end; exit code and standard error.
pub(crate) fn failed_start(yaml: &str) -> (Option<i32>, String) {
    let file = scratch_directory().join("veneur.yaml");
    fs::write(&file, yaml).expect("the scratch directory can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_veneur"));
    let output = command.arg("-f").arg(&file).output().expect("the program can be run");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_port_that_is_taken_is_one_sentence_and_exit_code_1() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    let (code, stderr) =
        failed_start(&format!("udp_address: {address}\nhttp_address: 127.0.0.1:0\n"));
    assert_eq!(code, Some(1), "{stderr}");
    let sentence = format!("veneur: cannot bind udp://{address}: Address already in use");
    assert!(stderr.lines().any(|line| line.starts_with(&sentence)), "{stderr}");
}

#[test]
fn a_wrong_configuration_is_all_its_problems_and_exit_code_64() {
    let (code, stderr) = failed_start("interval: soon\nnum_workers: many\npercentiles: [2]\n");
    assert_eq!(code, Some(64), "{stderr}");
    for key in ["interval", "num_workers", "percentiles"] {
        assert!(stderr.contains(key), "{key} is missing:\n{stderr}");
    }
}
