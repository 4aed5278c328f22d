//! What a host can do to a daemon: its clock, its disk, its names, its memory and its cores.
//!
//! Where this machine cannot, a test says so and is over.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::Daemon;

/// Whether a command succeeds here.
pub(crate) fn works(command: &[&str]) -> bool {
    let run = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    run.is_ok_and(|status| status.success())
}

/// Says that a test is left out.
pub(crate) fn leave_out(why: &str) {
    eprintln!("left out: {why}");
}

const UNSHARE: [&str; 4] = ["unshare", "--user", "--map-root-user", "--mount"];

/// Whether this machine lets us mount in a namespace of our own.
pub(crate) fn can_mount() -> bool {
    works(&[&UNSHARE[..], &["mount", "-t", "tmpfs", "none", "/mnt"]].concat())
}

/// Starts a daemon in a namespace of its own in which this was mounted before.
pub(crate) fn start_with_mounts(mounts: &str, yaml: &str) -> Daemon {
    let script = format!("set -e; {mounts}; exec \"$@\"");
    Daemon::start_by(&[&UNSHARE[..], &["sh", "-c", &script, "sh"]].concat(), yaml, &[])
}

/// Runs a command in the namespace of a daemon.
pub(crate) fn run_beside(daemon: &Daemon, command: &[&str]) {
    let pid = daemon.pid().to_string();
    let enter = ["nsenter", "--target", &pid, "--user", "--preserve-credentials", "--mount"];
    assert!(works(&[&enter[..], command].concat()), "{command:?}");
}

/// A wall clock that can be set and a disk that can be slow, for one daemon.
pub(crate) struct Meddle {
    directory: PathBuf,
    file: File,
}

impl Meddle {
    /// `None` if there is no C compiler here, or programs are not linked with the C library at
    /// run time.
    pub(crate) fn new(directory: &Path) -> Option<Meddle> {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/meddle.c");
        let library = directory.join("meddle.so");
        let output = library.to_str().expect("a path of ours");
        if cfg!(target_feature = "crt-static")
            || !works(&["cc", "-shared", "-fPIC", "-O1", "-o", output, source])
        {
            return None;
        }
        let path = directory.join("meddle");
        fs::write(&path, [0; 16]).expect("the scratch directory can be written");
        let file = File::options().write(true).open(path).expect("it was written");
        Some(Meddle { directory: directory.to_owned(), file })
    }

    /// Starts the daemon it is for.
    pub(crate) fn start(&self, yaml: &str) -> Daemon {
        let path = |name| self.directory.join(name).display().to_string();
        let (library, with) = (path("meddle.so"), path("meddle"));
        Daemon::start_by(&["env"], yaml, &[("LD_PRELOAD", &library), ("MEDDLE_WITH", &with)])
    }

    /// The daemon's clock is so far from the true one from now on.
    pub(crate) fn shift_clock(&self, seconds: i64) {
        self.file.write_all_at(&seconds.to_ne_bytes(), 0).expect("it can be written");
    }

    /// Whatever the daemon syncs takes so long from now on.
    pub(crate) fn slow_disk(&self, millis: i64) {
        self.file.write_all_at(&millis.to_ne_bytes(), 8).expect("it can be written");
    }
}

/// A process that keeps a core busy, until dropped.
pub(crate) struct Busy(Child);

impl Busy {
    pub(crate) fn start() -> Busy {
        let child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
        Busy(child.expect("there is a shell"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A group of processes with so much memory, removed when dropped.
pub(crate) struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `None` if this process may make none.
    pub(crate) fn new(bytes: u64) -> Option<MemoryGroup> {
        for (root, limit) in
            [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")]
        {
            let path = Path::new(root).join(format!("veneur-test-{}", std::process::id()));
            if fs::create_dir(&path).is_err() {
                continue;
            }
            let group = MemoryGroup(path);
            if fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                return Some(group);
            }
        }
        None
    }

    /// Starts a daemon in it.
    pub(crate) fn start(&self, yaml: &str) -> Daemon {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        Daemon::start_by(&["sh", "-c", &script, "sh"], yaml, &[])
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // It is empty when the daemon has ended.
        let _ = fs::remove_dir(&self.0);
    }
}
