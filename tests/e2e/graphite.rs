//! A daemon and its carbon.

use std::fs;

use crate::fake_carbon::{FakeCarbon, Manner};
use crate::ledger::total;
use crate::support::{Daemon, scratch_directory, wait_until};

const COMMON: &str = "udp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\n\
                      omit_empty_hostname: true\nstats_address: 127.0.0.1:9\n";

#[test]
fn two_keys_are_enough_to_see_a_flush_in_graphite() {
    let carbon = FakeCarbon::start();
    let mut daemon = Daemon::start(&format!(
        "{COMMON}interval: 5m\ngraphite_address: {}\ngraphite_layout: veneur\n\
         aggregates: [max, count]\npercentiles: [0.5]\n",
        carbon.address()
    ));
    daemon.send([&b"hits:3|c|#env:prod\nload:2:4|ms\nfuel:0.5|g\nusers:a|s"[..]]);
    daemon.stop();
    assert_eq!(
        carbon.lines(),
        [
            "fuel 0.5",
            "hits;env=prod 3",
            "load.50percentile 3",
            "load.count 2",
            "load.max 4",
            "users 1"
        ]
    );
}

/// Carbon is away for some flushes and for the end of the process: what it then gets is all there
/// was, and nothing else.
#[test]
fn an_outage_of_carbon_loses_nothing() {
    let (carbon, directory) = (FakeCarbon::start(), scratch_directory());
    let config = format!(
        "{COMMON}interval: 1s\nsynchronize_with_interval: true\nspool: {{directory: {}}}\n\
         sinks: [{{kind: graphite, name: g, address: 'tcp://{}', prefix: a.b}}]\n",
        directory.display(),
        carbon.address()
    );
    carbon.behave(Manner::Resets);
    let mut daemon = Daemon::start(&config);
    let kept = |daemon: &Daemon| total(daemon, "veneur_spool_items", "spool=\"g\"");
    for n in 1..=3 {
        daemon.send([&b"c:1|c"[..]]);
        wait_until("it is kept", || kept(&daemon) >= n);
    }
    daemon.stop();
    assert!(carbon.lines().is_empty());
    carbon.behave(Manner::Good);
    let mut daemon = Daemon::start(&config);
    wait_until("what was kept arrives", || carbon.lines().len() == 3);
    wait_until("it is in the books", || {
        total(&daemon, "veneur_sink_metrics_flushed_total", "sink=\"g\"") == 3
    });
    daemon.stop();
    assert_eq!(carbon.lines(), ["a.b.c 1"; 3]);
    fs::remove_dir_all(&directory).expect("it can be removed");
}
