//! Providers and gatherers: real ones, and fakes on both ends of the wire.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use veneur::config::reference::Reference;
use veneur::provider::registration::{Registration, State};
use veneur::provider::{Identity, Provider};

use crate::authority::{Authority, Identity as KeyPair};
use crate::host;
use crate::support::{DEADLINE, Daemon, http, scratch_directory, wait_until};

/// A gatherer on ports of its own, with this poll interval.
fn gatherer_yaml(directory: &Path, interval: &str, more: &str) -> String {
    format!(
        "http_address: 127.0.0.1:0\ngatherer:\n  directory: {}\n  address: 127.0.0.1:0\n  \
         poll_interval: {interval}\n{more}",
        directory.display()
    )
}

/// A gatherer and its directory.
struct Gatherer {
    daemon: Daemon,
    directory: PathBuf,
}

impl Gatherer {
    fn start(interval: &str, more: &str) -> Gatherer {
        Gatherer::start_in(scratch_directory(), interval, more)
    }

    fn start_in(directory: PathBuf, interval: &str, more: &str) -> Gatherer {
        let yaml = gatherer_yaml(&directory, interval, more);
        let mut daemon = Daemon::launch_with(&["gatherer"], &yaml, &[]);
        daemon.wait_until_ready();
        Gatherer { daemon, directory }
    }

    /// `gather://TOKEN@HOST:PORT`
    fn reference(&self) -> String {
        let text = fs::read_to_string(self.directory.join("stats_gatherer.ref"));
        text.expect("it is made at the start").trim().to_owned()
    }

    /// What `stats.json` says. It must parse whenever it is looked at.
    fn stored(&self) -> Value {
        stored(&self.directory)
    }

    fn wait_for(&self, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
        let mut stored = Value::Null;
        wait_until(what, || {
            stored = self.stored();
            holds(&stored)
        });
        stored
    }
}

fn stored(directory: &Path) -> Value {
    match fs::read_to_string(directory.join("stats.json")) {
        Ok(text) => serde_json::from_str(&text).expect("it parses at every instant"),
        Err(_) => json!({}),
    }
}

/// One end of the wire, spoken by hand.
struct Peer {
    lines: BufReader<TcpStream>,
}

impl Peer {
    fn new(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(DEADLINE)).expect("it takes a timeout");
        Peer { lines: BufReader::new(stream) }
    }

    /// Connects to a gatherer as `id`, whose answer is not read yet.
    fn provide(reference: &str, id: &str) -> Peer {
        let (token, address) = token_and_address(reference);
        let first = json!({"op": "provide", "v": 1, "id": id, "epoch": 5, "nickname": "fake",
            "token": token});
        let mut peer = Peer::new(TcpStream::connect(address).expect("it listens"));
        peer.say(&first);
        peer
    }

    fn say(&mut self, message: &Value) {
        self.say_raw(&format!("{message}\n"));
    }

    fn say_raw(&mut self, text: &str) {
        self.lines.get_mut().write_all(text.as_bytes()).expect("the other end takes it");
    }

    /// The next message; none at the end.
    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(serde_json::from_str(&line).expect("it speaks JSON")),
            // What was sent to it and not read turns its end into a reset.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("nothing was heard: {error}"),
        }
    }

    /// Waits for a question; its number.
    fn question(&mut self) -> u64 {
        loop {
            let message = self.hear().expect("the connection stays");
            if message["op"] == "get_stats" {
                return message["seq"].as_u64().expect("a question has a number");
            }
        }
    }

    fn answer(&mut self, total: u64) {
        let seq = self.question();
        self.say(&json!({"op": "stats", "seq": seq,
            "stats": {"counters": {"c_total": total}, "stats": {"s": null}}}));
    }
}

fn token_and_address(reference: &str) -> (&str, &str) {
    let rest = reference.strip_prefix("gather://").expect("a reference begins so");
    rest.split_once('@').expect("a reference has a token")
}

/// A node that never flushes by itself, registered with `reference`.
fn daemon_yaml(id: &str, reference: &str) -> String {
    format!(
        "interval: 5m\nudp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\ninstance_id: {id}\n\
         hostname: host-of-{id}\nstats_address: 127.0.0.1:9\ngatherer:\n  reference: {reference}\n"
    )
}

#[test]
fn two_daemons_are_gathered_and_what_they_said_outlives_them_and_the_gatherer() {
    let directory = scratch_directory().join("made");
    let gatherer = Gatherer::start_in(directory, "200ms", "sandbox: true\n");
    let reference = gatherer.reference();
    let mut one = Daemon::start(&daemon_yaml("one", &reference));
    let mut two = Daemon::start(&daemon_yaml("two", &reference));
    one.send([&b"a:1|c\nb:1|c"[..]]);
    two.send([&b"a:1|c"[..]]);
    let lines = |stored: &Value, id: &str| {
        stored[id]["stats"]["counters"]["listen.lines_total"].as_u64().unwrap_or(0)
    };
    let stored = gatherer.wait_for("both have told of their lines", |stored| {
        lines(stored, "one") == 2 && lines(stored, "two") == 1
    });
    assert_eq!(stored["one"]["nickname"], "host-of-one");
    assert_eq!(stored["one"]["address"], "127.0.0.1");
    assert!(stored["one"]["epoch"].as_u64() > Some(1_600_000_000_000), "{stored}");
    let stats = &stored["one"]["stats"]["stats"];
    assert_eq!(stats["node.ready"], 1.0);
    assert!(stats["process.resident_bytes"].as_f64() > Some(1e6), "{stats}");
    assert_eq!(http(&gatherer.daemon.http, "GET", "/healthcheck").0, 200);
    assert_eq!(http(&gatherer.daemon.http, "GET", "/ready").0, 200);
    let metrics = http(&gatherer.daemon.http, "GET", "/metrics").1;
    assert!(metrics.contains("\nveneur_gatherer_providers 2\n"), "{metrics}");
    let metrics = http(&one.http, "GET", "/metrics").1;
    assert!(metrics.contains("\nveneur_provider_registered 1\n"), "{metrics}");

    // One ends in order, the other does not; both are remembered, also by the next gatherer.
    let mut gatherer = gatherer;
    one.stop();
    let line = gatherer.daemon.wait_for_log("a provider is gone");
    assert!(line.contains("left") && line.contains("one"), "{line}");
    two.signal("KILL");
    two.wait();
    let line = gatherer.daemon.wait_for_log("a provider is gone");
    assert!(line.contains("lost") && line.contains("two"), "{line}");
    gatherer.daemon.stop();
    let log = gatherer.daemon.whole_log();
    assert!(!log.contains(token_and_address(&reference).0), "the token is secret:\n{log}");
    let next = Gatherer::start_in(gatherer.directory.clone(), "200ms", "");
    assert_eq!(lines(&next.stored(), "one"), 2);
    assert_eq!(token_and_address(&next.reference()).0, token_and_address(&reference).0);
    for (file, mode) in [("", 0o755), ("stats.json", 0o644), ("gatherer_token", 0o600)] {
        use std::os::unix::fs::PermissionsExt;
        let metadata = fs::metadata(next.directory.join(file)).expect(file);
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{file}");
    }
}

#[test]
fn a_provider_comes_back_when_its_gatherer_does() {
    let address = format!("127.0.0.1:{}", crate::support::free_port());
    let directory = scratch_directory();
    let yaml = gatherer_yaml(&directory, "100ms", "  token: s3cret\n")
        .replace("address: 127.0.0.1:0\n  poll", &format!("address: {address}\n  poll"));
    let mut daemon = Daemon::start(&daemon_yaml("here", &format!("gather://s3cret@{address}")));
    let line = daemon.first_log("trying again");
    assert!(line.contains(&format!("gather://REDACTED@{address}")), "{line}");
    for _life in 0..2 {
        let mut gatherer = Daemon::launch_with(&["gatherer"], &yaml, &[]);
        gatherer.wait_until_ready();
        daemon.wait_for_log("registered with the gatherer");
        wait_until("it is stored", || stored(&directory)["here"].is_object());
        gatherer.signal("KILL");
        gatherer.wait();
        fs::remove_file(directory.join("stats.json")).expect("it was there");
    }
    daemon.stop();
    assert!(!daemon.whole_log().contains("s3cret"));
}

#[test]
fn a_newcomer_is_asked_at_once_and_written_within_a_second_or_so() {
    let gatherer = Gatherer::start("1h", "");
    let mut peer = Peer::provide(&gatherer.reference(), "new");
    let accepted = peer.hear().expect("it is accepted");
    assert_eq!(accepted, json!({"op": "provided", "poll_interval_ms": 3_600_000}));
    peer.answer(7);
    let stored = gatherer.wait_for("it is written", |stored| stored["new"].is_object());
    let stats = json!({"counters": {"c_total": 7}, "stats": {"s": null}});
    assert_eq!(stored["new"]["stats"], stats);
    assert_eq!(stored["new"]["epoch"], 5);
}

#[test]
fn who_may_not_provide_is_told_why() {
    let gatherer = Gatherer::start("1h", "  max_providers: 1\n");
    let reference = gatherer.reference();
    let (token, address) = token_and_address(&reference);
    let _first = {
        let mut first = Peer::provide(&reference, "first");
        first.answer(1);
        first
    };
    for (message, reason) in [
        (json!({"op": "provide", "v": 1, "id": "a", "token": "no"}), "bad token"),
        (json!({"op": "provide", "v": 1, "id": "a"}), "bad token"),
        (json!({"op": "provide", "v": 2, "id": "a", "token": token}), "unsupported version"),
        (json!({"op": "leave"}), "unsupported version"),
        (json!({"op": "provide", "v": 1, "id": "../a", "token": token}), "bad id"),
        (json!({"op": "provide", "v": 1, "id": "", "token": token}), "bad id"),
        (json!({"op": "provide", "v": 1, "id": "a", "token": token}), "too many providers"),
    ] {
        let mut peer = Peer::new(TcpStream::connect(address).expect("it listens"));
        peer.say(&message);
        let answer = peer.hear().expect("it says why");
        assert_eq!(answer, json!({"op": "error", "reason": reason}), "{message}");
        assert_eq!(peer.hear(), None, "{message}");
    }
    for nonsense in ["GET / HTTP/1.1\r\n\r\n", "[]\n", &"x".repeat(5000)] {
        let mut peer = Peer::new(TcpStream::connect(address).expect("it listens"));
        peer.say_raw(nonsense);
        assert_eq!(peer.hear(), None, "{nonsense}");
    }
    let metrics = http(&gatherer.daemon.http, "GET", "/metrics").1;
    assert!(metrics.contains("veneur_gatherer_refused_total{reason=\"bad_id\"} 2"), "{metrics}");
    let stored = gatherer.wait_for("it is written", |stored| stored["first"].is_object());
    assert_eq!(stored.as_object().map(|all| all.len()), Some(1), "{stored}");
}

#[test]
fn an_id_that_comes_again_replaces_its_older_connection() {
    let gatherer = Gatherer::start("100ms", "");
    let mut old = Peer::provide(&gatherer.reference(), "twin");
    old.answer(1);
    let mut new = Peer::provide(&gatherer.reference(), "twin");
    new.answer(2);
    while old.hear().is_some() {}
    let total = |stored: &Value| stored["twin"]["stats"]["counters"]["c_total"].clone();
    gatherer.wait_for("the newer counts", |stored| total(stored) == 2);
    new.answer(3);
    gatherer.wait_for("it is asked again", |stored| total(stored) == 3);
}

#[test]
fn a_failure_keeps_the_connection_and_three_silences_end_it() {
    let gatherer = Gatherer::start("100ms", "  poll_timeout: 1s\n");
    let mut silent = Peer::provide(&gatherer.reference(), "silent");
    let mut other = Peer::provide(&gatherer.reference(), "other");
    let others = thread::spawn(move || {
        let mut asked = 0u64;
        while let Some(message) = other.hear() {
            if message["op"] == "get_stats" {
                asked += 1;
                let stats = json!({"counters": {"c_total": asked}, "stats": {}});
                other.say(&json!({"op": "stats", "seq": message["seq"], "stats": stats}));
            }
        }
    });
    silent.answer(1);
    // What is no answer changes nothing; nor does an answer to something else.
    let seq = silent.question();
    silent.say(&json!({"op": "dance", "seq": seq}));
    silent.say(&json!({"op": "stats", "seq": seq + 99, "stats": {"counters": {"c_total": 9}}}));
    silent.say(&json!({"op": "failed", "seq": seq, "reason": "no\nmood"}));
    silent.answer(2);
    let total = |stored: &Value, id: &str| stored[id]["stats"]["counters"]["c_total"].clone();
    gatherer.wait_for("it is asked again", |stored| total(stored, "silent") == 2);
    let mut asked = 0;
    while let Some(message) = silent.hear() {
        assert_eq!(message["op"], "get_stats");
        asked += 1;
    }
    assert_eq!(asked, 3);
    let is_heard = |stored: &Value| total(stored, "other").as_u64() > Some(3);
    gatherer.wait_for("the others are asked all the same", is_heard);
    assert_eq!(total(&gatherer.stored(), "silent"), 2, "the last answer stays");
    let metrics = http(&gatherer.daemon.http, "GET", "/metrics").1;
    let failed = "veneur_gatherer_poll_errors_total{cause=\"failed\"} 1";
    assert!(metrics.contains(failed), "{metrics}");
    drop(gatherer);
    others.join().expect("it answers to the end");
}

#[test]
fn instances_that_cannot_register_are_polled_over_http() {
    let daemon = Daemon::start(
        "interval: 5m\nudp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\n\
         stats_address: 127.0.0.1:9\ninstance_id: shy\n",
    );
    let (status, page) = http(&daemon.http, "GET", "/statistics");
    assert_eq!(status, 200);
    let page: Value = serde_json::from_str(&page).expect("it is JSON");
    assert_eq!(page["stats"]["node.ready"], 1.0);
    let (status, page) = http(&daemon.http, "GET", "/statistics?t=openmetrics");
    assert!(status == 200 && page.ends_with("# EOF\n"), "{page}");
    assert_eq!(http(&daemon.http, "GET", "/statistics?t=html").0, 400);
    let urls = format!("  urls: [http://{}, http://127.0.0.1:1]\n", daemon.http);
    let gatherer = Gatherer::start("100ms", &urls);
    let stored = gatherer.wait_for("it is polled", |stored| stored["shy"].is_object());
    assert_eq!(stored.as_object().map(|all| all.len()), Some(1), "{stored}");
    let first = stored["shy"]["timestamp"].as_f64();
    gatherer.wait_for("it is polled again", |it| it["shy"]["timestamp"].as_f64() > first);
}

#[test]
fn a_daemon_may_gather_by_itself() {
    let directory = scratch_directory();
    let mut daemon = Daemon::start(&format!(
        "interval: 5m\nudp_address: 127.0.0.1:0\n{}",
        gatherer_yaml(&directory, "100ms", "  token: t0ken\n")
    ));
    let text = fs::read_to_string(directory.join("stats_gatherer.ref")).expect("it is made");
    let mut peer = Peer::provide(text.trim(), "guest");
    peer.answer(4);
    wait_until("it is stored", || stored(&directory)["guest"].is_object());
    daemon.stop();
}

#[test]
fn a_provider_registers_when_ready_answers_and_takes_its_leave() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let reference = format!("gather://s3cret@{address}");
    let mut daemon = Daemon::launch_with(&[], &daemon_yaml("me", &reference), &[]);
    let accept = || Peer::new(listener.accept().expect("it connects").0);

    let mut peer = accept();
    let first = peer.hear().expect("it says who it is");
    for (key, value) in [
        ("op", json!("provide")),
        ("v", json!(1)),
        ("id", json!("me")),
        ("nickname", json!("host-of-me")),
        ("token", json!("s3cret")),
    ] {
        assert_eq!(first[key], value, "{first}");
    }
    peer.say(&json!({"op": "error", "reason": "bad token"}));
    drop(peer);
    daemon.wait_until_ready();
    let line = daemon.first_log("the gatherer rejects us");
    assert!(line.contains("bad token") && !line.contains("s3cret"), "{line}");

    let mut peer = accept();
    assert_eq!(peer.hear().expect("it tries again")["epoch"], first["epoch"]);
    peer.say(&json!({"op": "provided", "poll_interval_ms": 60_000, "later": 1}));
    peer.say(&json!({"op": "sing"}));
    for seq in [7, 3] {
        peer.say(&json!({"op": "get_stats", "seq": seq}));
        let answer = peer.hear().expect("it answers");
        assert_eq!((&answer["op"], &answer["seq"]), (&json!("stats"), &json!(seq)));
        assert!(answer["stats"]["counters"].is_object() && answer["stats"]["stats"].is_object());
    }
    daemon.signal("TERM");
    assert_eq!(peer.hear(), Some(json!({"op": "leave"})));
    assert_eq!(peer.hear(), None);
    assert!(daemon.wait().success());
}

#[test]
fn a_gatherer_that_does_not_listen_does_not_hold_up_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let reference = format!("gather://t@{}", listener.local_addr().expect("it is bound"));
    let mut daemon = Daemon::start(&daemon_yaml("me", &reference));
    // It is connected, and nobody reads.
    let _silent = listener.accept().expect("it connects");
    daemon.stop();
}

#[test]
fn what_is_counted_once_is_the_same_on_every_page() {
    let daemon = Daemon::start(
        "interval: 5m\nudp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\n\
         stats_address: 127.0.0.1:9\n",
    );
    daemon.send([&b"a:1|c\nb:2|g\nno metric"[..], b"c:1|ms"]);
    let mut page = Value::Null;
    wait_until("all lines are counted", || {
        let text = http(&daemon.http, "GET", "/statistics").1;
        page = serde_json::from_str(&text).expect("it is JSON");
        page["counters"]["listen.lines_total"] == 4
    });
    let metrics = http(&daemon.http, "GET", "/metrics").1;
    let sum = |family: &str| -> u64 {
        let samples = metrics.lines().filter(|line| line.starts_with(family));
        samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    };
    assert_eq!(page["counters"]["packet.error_total"], sum("veneur_packet_error_total"));
    assert_eq!(sum("veneur_packet_error_total"), 1);
    assert_eq!(page["counters"]["listen.lines_total"], sum("veneur_listen_lines_total"));
}

#[test]
fn killed_while_it_writes_it_leaves_a_file_that_parses() {
    let directory = scratch_directory();
    let names: serde_json::Map<String, Value> =
        (0..20_000).map(|n| (format!("some.counter.{n}_total"), json!(n))).collect();
    for life in 1..=6u32 {
        let gatherer = Gatherer::start_in(directory.clone(), "100ms", "");
        let reference = gatherer.reference();
        for number in 0..8 {
            let mut peer = Peer::provide(&reference, &format!("p{number}"));
            let stats = json!({"counters": names, "stats": {"life": life}}).to_string();
            // Answers until the gatherer is gone.
            thread::spawn(move || {
                while let Some(message) = peer.hear() {
                    let seq = &message["seq"];
                    let answer = format!("{{\"op\":\"stats\",\"seq\":{seq},\"stats\":{stats}}}\n");
                    if message["op"] == "get_stats"
                        && peer.lines.get_mut().write_all(answer.as_bytes()).is_err()
                    {
                        return;
                    }
                }
            });
        }
        let new = directory.join("stats.json.new");
        let begun = Instant::now();
        while !new.exists() {
            assert!(begun.elapsed() < DEADLINE, "it writes");
            std::hint::spin_loop();
        }
        // Each life ends at another moment of writing.
        let wait = Duration::from_millis(3) * life;
        let seen = Instant::now();
        while seen.elapsed() < wait {
            std::hint::spin_loop();
        }
        let mut daemon = gatherer.daemon;
        daemon.signal("KILL");
        daemon.wait();
        stored(&directory);
    }
    let gatherer = Gatherer::start_in(directory, "100ms", "");
    gatherer.wait_for("the last of them can be read back", Value::is_object);
}

#[test]
fn a_file_that_does_not_parse_stops_the_start_and_is_left_alone() {
    let directory = scratch_directory();
    let file = directory.join("stats.json");
    fs::write(&file, "{\"a\":").expect("it can be written");
    let yaml = gatherer_yaml(&directory, "1s", "");
    let mut daemon = Daemon::launch_with(&["gatherer"], &yaml, &[]);
    assert_eq!(daemon.wait().code(), Some(1));
    let log = daemon.whole_log();
    assert!(log.contains(&format!("cannot gather: {}", file.display())), "{log}");
    assert!(log.contains("restore it or delete it"), "{log}");
    assert_eq!(fs::read_to_string(file).expect("it is there"), "{\"a\":");
}

#[test]
fn a_gatherer_without_a_directory_is_a_wrong_configuration() {
    let mut daemon = Daemon::launch_with(&["gatherer"], "gatherer:\n  poll_interval: 5s\n", &[]);
    assert_eq!(daemon.wait().code(), Some(64));
    let log = daemon.whole_log();
    assert!(log.contains("a gatherer without a directory; accepted: gatherer.directory"), "{log}");
}

#[test]
fn init_makes_a_directory_to_start_from() {
    let directory = scratch_directory().join("gatherer");
    let port = crate::support::free_port();
    let veneur = || Command::new(env!("CARGO_BIN_EXE_veneur"));
    let init = || {
        let mut command = veneur();
        command.args(["gatherer", "--init"]).arg(&directory);
        command.arg("--address").arg(format!("127.0.0.1:{port}"));
        command.output().expect("the program can be run")
    };
    let output = init();
    assert!(output.status.success(), "{output:?}");
    let reference = String::from_utf8(output.stdout).expect("it is text");
    let kept = fs::read_to_string(directory.join("stats_gatherer.ref")).expect("it is made");
    assert_eq!(reference, kept);
    let again = init();
    let stderr = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is not empty"), "{stderr}");

    let yaml = fs::read_to_string(directory.join("gatherer.yaml")).expect("it is made");
    let mut daemon =
        Daemon::launch_with(&["gatherer"], &format!("{yaml}http_address: 127.0.0.1:0\n"), &[]);
    daemon.wait_until_ready();
    let mut peer = Peer::provide(reference.trim(), "first");
    peer.answer(1);
    wait_until("it is stored", || stored(&directory)["first"].is_object());
    daemon.stop();
    let kept = fs::read_to_string(directory.join("stats_gatherer.ref")).expect("it stays");
    assert_eq!(reference, kept);
}

#[test]
fn a_full_disk_leaves_the_old_file_until_there_is_room_again() {
    if !host::can_mount() {
        return host::leave_out("no mount name space to be had for a small disk");
    }
    let directory = scratch_directory();
    let disk = directory.join("disk");
    fs::create_dir(&disk).expect("the directory can be written");
    let file = directory.join("gatherer.yaml");
    let yaml = gatherer_yaml(&disk, "100ms", "  token: t0ken\n");
    fs::write(&file, &yaml).expect("the directory can be written");
    let script = format!(
        "mount -t tmpfs -o size=256k none {} && exec {} gatherer -f {}",
        disk.display(),
        env!("CARGO_BIN_EXE_veneur"),
        file.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    let mut daemon = Daemon::launch(command, directory);
    let gathering = daemon.wait_for_log(" gathering ");
    let address = gathering.split("address=").nth(1).and_then(|rest| rest.split(' ').next());
    let address = address.expect("it says where").trim_matches('"');
    // Its disk is not ours, but we may look at it.
    let disk = PathBuf::from(format!("/proc/{}/root{}", daemon.pid(), disk.display()));
    let mut peer = Peer::provide(&format!("gather://t0ken@{address}"), "big");
    let mut answer = |padding: usize| {
        let seq = peer.question();
        let stats = json!({"counters": {"x".repeat(padding): padding}, "stats": {}});
        peer.say(&json!({"op": "stats", "seq": seq, "stats": stats}));
    };
    let has =
        |padding: usize| stored(&disk)["big"]["stats"]["counters"]["x".repeat(padding)] == padding;
    answer(1_000);
    wait_until("it is written", || has(1_000));
    answer(300_000);
    daemon.wait_for_log("stats.json cannot be written: the old one stays");
    assert!(has(1_000), "the old one is whole");
    answer(2_000);
    daemon.wait_for_log("stats.json can be written again");
    assert!(has(2_000));
    daemon.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_links_the_crate_appears_under_an_identity_of_its_own() {
    let gatherer = Gatherer::start("100ms", "");
    let reference = Reference::parse(&gatherer.reference()).expect("it is one");
    let provider = Provider::new(Identity::new("my-program", "mine"));
    provider.count("orders.accepted_total", 3);
    let queue = provider.register("queue", |facts| facts.stat("queue.depth", Some(7.5)));
    let registration = Registration::start(provider.clone(), reference, std::future::ready(()));
    let mut state = registration.state();
    state.wait_for(|state| *state == State::Registered).await.expect("it registers");
    let told = |stored: &Value| stored["my-program"]["stats"].clone();
    let gatherer = tokio::task::spawn_blocking(move || {
        let stored = gatherer.wait_for("it is stored", |stored| told(stored).is_object());
        assert_eq!(stored["my-program"]["nickname"], "mine");
        assert_eq!(told(&stored)["counters"]["orders.accepted_total"], 3);
        assert_eq!(told(&stored)["stats"]["queue.depth"], 7.5);
        drop(queue);
        gatherer.wait_for("the producer is gone", |stored| {
            told(stored)["stats"]["queue.depth"].is_null()
        });
        gatherer
    });
    let mut gatherer = gatherer.await.expect("it is stored");
    registration.leave().await;
    let line = gatherer.daemon.wait_for_log("a provider is gone");
    assert!(line.contains("left"), "{line}");
    assert_eq!(*state.borrow(), State::Off);
}

#[test]
fn statistics_are_for_those_who_show_the_token() {
    let daemon = Daemon::start(
        "interval: 5m\nudp_address: 127.0.0.1:0\nhttp_address: 127.0.0.1:0\n\
         stats_address: 127.0.0.1:9\nhttp: {token: s3cret}\n",
    );
    assert_eq!(http(&daemon.http, "GET", "/statistics").0, 401);
    assert_eq!(http(&daemon.http, "GET", "/healthcheck").0, 200);
}

#[test]
fn a_successor_goes_on_gathering_at_the_same_address() {
    let directory = scratch_directory();
    let yaml = format!(
        "interval: 5m\nudp_address: 127.0.0.1:0\ntakeover_socket: {}\n{}",
        directory.join("takeover.sock").display(),
        gatherer_yaml(&directory, "100ms", "")
    );
    let mut old = Daemon::start(&yaml);
    let reference = fs::read_to_string(directory.join("stats_gatherer.ref")).expect("it is made");
    let mut peer = Peer::provide(reference.trim(), "first");
    peer.answer(1);
    wait_until("it is stored", || stored(&directory)["first"].is_object());
    let mut new = Daemon::start_successor(&yaml);
    while peer.hear().is_some() {}
    assert!(old.wait().success(), "{}", old.rest_of_log());
    let mut peer = Peer::provide(reference.trim(), "second");
    peer.answer(2);
    wait_until("it is stored", || stored(&directory)["second"].is_object());
    assert!(stored(&directory)["first"].is_object(), "what was known stays");
    new.stop();
}

#[test]
fn over_tls_a_provider_trusts_the_one_certificate_that_the_reference_names() {
    let keys = scratch_directory();
    let serve = |name: &str| {
        let KeyPair { certificate, key } = Authority::new("nobody trusts it").server();
        let (crt, pem) = (keys.join(format!("{name}.crt")), keys.join(format!("{name}.key")));
        fs::write(&crt, certificate).expect("it is ours");
        fs::write(&pem, key).expect("it is ours");
        format!("  tls_certificate: {}\n  tls_key: {}\n", crt.display(), pem.display())
    };
    let gatherer = Gatherer::start("100ms", &serve("right"));
    let reference = gatherer.reference();
    assert!(reference.starts_with("gathers://"), "{reference}");
    let _daemon = Daemon::start(&daemon_yaml("ours", &reference));
    gatherer.wait_for("it is gathered", |stored| stored["ours"].is_object());

    // Somebody else at that address, with a certificate of the same names.
    let other = Gatherer::start("100ms", &serve("wrong"));
    let fingerprint = reference.split_once("?fp=").expect("it has one").1;
    let mixed = other.reference();
    let mixed = format!("{}?fp={fingerprint}", mixed.split_once("?fp=").expect("it has one").0);
    let mut daemon = Daemon::start(&daemon_yaml("misled", &mixed));
    let line = daemon.first_log("not registered with the gatherer");
    assert!(line.contains("certificate"), "{line}");
    // Nor is there a way without TLS.
    let plain = mixed.split_once("?fp=").expect("it has one").0.replace("gathers:", "gather:");
    let mut peer = Peer::provide(&plain, "plain");
    let mut answer = [0; 1];
    let heard = std::io::Read::read(peer.lines.get_mut(), &mut answer);
    assert!(heard.is_err() || answer != [b'{'], "it says nothing we understand");
    assert_eq!(other.stored(), json!({}));
}
