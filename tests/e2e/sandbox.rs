//! A daemon in its sandbox does all it did, and no more than that.

use std::fs;

use serde_json::json;

use crate::authority::{Authority, Identity};
use crate::fake_intake::{FakeIntake, Fault};
use crate::ledger::settle;
use crate::support::{Daemon, scratch_directory};
use crate::takeover::{Load, Place, arrived, blocking};

/// It resolves names, listens on all transports, spools, reloads, hands over and delivers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_in_its_sandbox_works() {
    let intake = FakeIntake::start().await;
    intake.fail_always(Some(Fault::Status(503)));
    let place = Place::new(&intake, "1s");
    let yaml = place.with(json!({
        "sandbox": true,
        "api_hostname": intake.url().replace("127.0.0.1", "localhost"),
        "spool": {"directory": place.file("spool")},
    }));
    let (daemon, load, place) = blocking(move || {
        let mut old = Daemon::start(&yaml);
        let log = old.rest_of_log();
        assert!(log.contains("a sandbox"), "what is in force is said:\n{log}");
        let load = Load::start(&old);
        // As an editor does it: another file of the same name.
        old.replace_configuration(&yaml.replacen('{', "{\"tags\": [\"new:tag\"],", 1));
        old.signal("HUP");
        let said = old.wait_for_log("the new configuration is in use");
        assert!(!said.contains("wait for a restart"), "{said}");
        let daemon = Daemon::start_successor(&yaml);
        assert!(old.wait().success(), "{}", old.rest_of_log());
        (daemon, load, place)
    })
    .await;
    intake.fail_always(None);
    intake.wait_for(|requests| requests.iter().find(|it| it.is_taken()).map(|_| ())).await;
    let sent = load.stop();
    intake.wait_for(|_| (arrived(&intake) == sent).then_some(())).await;
    blocking(move || {
        settle(&daemon.http);
        let mut daemon = daemon;
        daemon.stop();
        assert!(!place.file("dsd.sock").exists(), "it may take its sockets away");
    })
    .await;
    assert_eq!(arrived(&intake), sent);
}

#[test]
fn a_daemon_in_its_sandbox_reads_no_other_file() {
    let Identity { certificate, key } = Authority::new("ours").server();
    let (ours, elsewhere) = (scratch_directory(), scratch_directory());
    for directory in [&ours, &elsewhere] {
        fs::write(directory.join("crt"), &certificate).expect("it is ours");
        fs::write(directory.join("key"), &key).expect("it is ours");
    }
    let yaml = |certificate_in: &std::path::Path| {
        json!({
            "sandbox": true,
            "interval": "5m",
            "udp_address": "127.0.0.1:0",
            "tcp_address": "127.0.0.1:0",
            "http_address": "127.0.0.1:0",
            "tls_certificate": certificate_in.join("crt"),
            "tls_key": ours.join("key"),
        })
        .to_string()
    };
    let mut daemon = Daemon::start(&yaml(&ours));
    let is_enforced = !daemon.rest_of_log().contains("not in a sandbox");
    // As a new certificate comes: another file of the same name.
    fs::rename(elsewhere.join("key"), ours.join("key")).expect("both are ours");
    daemon.configure(&yaml(&ours));
    daemon.signal("HUP");
    daemon.wait_for_log("the new configuration is in use");
    daemon.configure(&yaml(&elsewhere));
    daemon.signal("HUP");
    // A kernel without Landlock has said that there is no sandbox.
    if is_enforced {
        let said = daemon.wait_for_log("cannot be read");
        assert!(said.contains("Permission denied"), "{said}");
    } else {
        daemon.wait_for_log("the new configuration is in use");
    }
    daemon.stop();
    for directory in [ours, elsewhere] {
        fs::remove_dir_all(directory).expect("it is ours");
    }
}
