//! The plugin under Debian's munin: `munin-run`, `munin-node-configure` and `munin-node` itself.
//!
//! They are not on every machine; without them a test says so and tries nothing.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::UNIX_EPOCH;

use crate::host;
use crate::support::{DEADLINE, free_port, scratch_directory, wait_until};

const VENEUR: &str = env!("CARGO_BIN_EXE_veneur");

/// What a node's configuration directory holds: links in `plugins`, `plugin-conf.d`; and a file
/// of a gatherer with two providers, one of which has not been heard from for an hour.
fn configuration(links: &[&str]) -> PathBuf {
    let directory = scratch_directory();
    for name in ["plugins", "plugin-conf.d", "library"] {
        fs::create_dir(directory.join(name)).expect("the directory can be written");
    }
    for link in links {
        symlink(VENEUR, directory.join("plugins").join(link)).expect("links can be made");
    }
    symlink(VENEUR, directory.join("library/veneur_")).expect("links can be made");
    let stats = directory.join("stats.json");
    let user = said("id", &["-un"]).unwrap_or_default();
    let conf = format!("[veneur_*]\nuser {user}\nenv.statsfile {}\n", stats.display());
    fs::write(directory.join("plugin-conf.d/veneur"), conf).expect("it can be written");
    let now = UNIX_EPOCH.elapsed().expect("it is later").as_secs();
    let provider = |nickname: &str, age: u64| {
        format!(
            r#"{{"timestamp": {}.5, "nickname": "{nickname}", "stats": {{
                "counters": {{"worker.metrics_processed_total": 1042}},
                "stats": {{"worker.contexts": 7}}}}}}"#,
            now - age
        )
    };
    let text =
        format!(r#"{{"k2vq7m": {}, "zzzz": {}}}"#, provider("web-1", 0), provider("9old", 3600));
    fs::write(stats, text).expect("it can be written");
    directory
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program of munin is there; says so if it is not.
fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        host::leave_out(&format!("there is no {program} (Debian's package munin-node)"));
    }
    there
}

fn run(program: &str, directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.arg("--servicedir").arg(directory.join("plugins"));
    command.arg("--sconfdir").arg(directory.join("plugin-conf.d"));
    command.args(arguments).output().expect("it is there")
}

const CONFIG: &str = "graph_title Metrics processed
graph_vlabel per ${graph_period}
graph_category veneur
graph_info worker.metrics_processed_total of each instance
_9old_zzzz.label 9old
_9old_zzzz.draw LINE1
_9old_zzzz.type DERIVE
_9old_zzzz.min 0
web_1_k2vq.label web-1
web_1_k2vq.draw LINE1
web_1_k2vq.type DERIVE
web_1_k2vq.min 0
";

const FETCHED: &str = "_9old_zzzz.value U
web_1_k2vq.value 1042
";

#[test]
fn munin_run_runs_it() {
    if !is_there("munin-run") {
        return;
    }
    let directory = configuration(&["veneur_metrics_processed", "veneur_frob"]);
    let run = |arguments: &[&str]| {
        let arguments = [&["--ignore-systemd-properties"], arguments].concat();
        let output = run("munin-run", &directory, &arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(run(&["veneur_metrics_processed", "config"]), (Some(0), CONFIG.to_owned()));
    assert_eq!(run(&["veneur_metrics_processed"]), (Some(0), FETCHED.to_owned()));
    assert_eq!(run(&["veneur_metrics_processed", "autoconf"]), (Some(0), "yes\n".to_owned()));
    assert_eq!(run(&["veneur_frob"]).1, "");
}

#[test]
fn munin_node_configure_suggests_links() {
    if !is_there("munin-node-configure") {
        return;
    }
    let directory = configuration(&["veneur_metrics_processed"]);
    let library = directory.join("library").display().to_string();
    let output = run("munin-node-configure", &directory, &["--suggest", "--libdir", &library]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let row = table.lines().find(|line| line.starts_with("veneur_ "));
    let row = row.unwrap_or_else(|| panic!("it is not listed: {output:?}"));
    for word in ["yes", "metrics_processed", "contexts", "+stat_worker_contexts"] {
        assert!(row.contains(word), "{word}: {row}");
    }
}

#[test]
fn munin_node_serves_it() {
    if !is_there("munin-node") {
        return;
    }
    // A node has one place for its configuration, which is ours in a name space of its own.
    let etc = Path::new("/etc/munin");
    if !etc.is_dir() || !host::works(&["unshare", "--mount", "true"]) {
        let why = format!("no mount name space to be had for us, or no {}", etc.display());
        return host::leave_out(&why);
    }
    let directory = configuration(&["veneur_metrics_processed"]);
    let (port, shown) = (free_port(), directory.display());
    let conf = format!(
        "log_file {shown}/log\npid_file {shown}/pid\nbackground 0\nsetsid 0\nuser root\n\
         group root\nhost_name here.example\nallow ^127\\.0\\.0\\.1$\nhost 127.0.0.1\nport {port}\n"
    );
    fs::write(directory.join("munin-node.conf"), conf).expect("it can be written");
    let script = format!("mount --bind {shown} {} && exec munin-node", etc.display());
    let mut node = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("there is a shell");
    let mut stream = None;
    wait_until("the node listens", || {
        stream = TcpStream::connect(("127.0.0.1", port)).ok();
        stream.is_some()
    });
    let mut stream = stream.expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("it takes a timeout");
    let asked = "list\nconfig veneur_metrics_processed\nfetch veneur_metrics_processed\nquit\n";
    stream.write_all(asked.as_bytes()).expect("it takes questions");
    let lines: Vec<String> = BufReader::new(stream).lines().map_while(Result::ok).collect();
    // It is our child, and has done what it was started for.
    let _ = node.kill();
    let _ = node.wait();
    let expected =
        format!("# munin node at here.example\nveneur_metrics_processed\n{CONFIG}.\n{FETCHED}.");
    assert_eq!(lines.join("\n"), expected);
}

#[test]
fn the_program_carries_the_marks_munin_looks_for() {
    let program = fs::read(VENEUR).expect("it is there");
    let marks = b"\n#%# family=auto\n#%# capabilities=autoconf suggest\n";
    assert!(program.windows(marks.len()).any(|window| window == marks));
}
