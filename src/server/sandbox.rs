//! Giving up what the process does not need, so that a fault in it costs no more than itself.
//!
//! Landlock holds for a thread and for those it starts, so this comes before any other thread.
//! What is not done by it (system calls, capabilities, devices) is the systemd unit's.
//!
//! What stays: reading what the system needs to resolve names, check certificates and load
//! libraries, and the directories of our own files, in which an editor or a package puts a new
//! one in place of the old; the directories that we keep things in, and of Unix sockets; listening on our own
//! TCP ports. Connecting is not restricted: who the upstream nodes are is looked up, and a
//! reload may name other intakes.
//!
//! Source: landlock(7), `Documentation/userspace-api/landlock.rst` of Linux.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use tracing::{info, warn};

use crate::config::listen::{HttpAddress, StatsdAddress, UnixAddress};
use crate::config::settings::SinkKind;
use crate::config::{Loaded, Settings};
use crate::gatherer::make_directory;

/// What a kernel that knows more than this restricts beyond it stays allowed.
const KNOWN: ABI = ABI::V6;

/// Read for name resolution, certificates, libraries, time zones and what is known of the host.
/// Whole directories: their files are replaced while we run, and then are others.
const OF_THE_SYSTEM: [&str; 11] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/dev/null",
    "/dev/urandom",
    "/proc/self",
    "/proc/sys",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
    "/var/run/secrets/kubernetes.io",
];

/// What is kept is nobody else's.
const DIRECTORY_MODE: u32 = 0o700;

/// What came of it, to be logged once there is a log.
#[derive(Debug)]
pub struct Sandbox(Result<(RulesetStatus, LandlockStatus), RulesetError>);

impl Sandbox {
    /// Says what is in force.
    pub fn report(&self) {
        match &self.0 {
            Ok((RulesetStatus::FullyEnforced, _)) => info!("in a sandbox"),
            Ok((
                RulesetStatus::PartiallyEnforced,
                LandlockStatus::Available { effective_abi, .. },
            )) => {
                let landlock = *effective_abi as i32;
                info!(landlock, "in a sandbox, as far as this kernel can");
            }
            Ok((status, landlock)) => {
                warn!(?status, ?landlock, "not in a sandbox: this kernel has none");
            }
            Err(error) => warn!(%error, "not in a sandbox"),
        }
    }
}

/// Gives up what `loaded`, read from the file at `config`, does not need. Only this thread and
/// those it starts from now on are held to it.
pub fn enter(loaded: &Loaded, config: Option<&Path>) -> Sandbox {
    if let Some(gatherer) = &loaded.settings.gatherer {
        // As below, but for others to read in it.
        let _ = make_directory(&gatherer.directory);
    }
    Sandbox(restrict(&Needs::of(loaded, config)))
}

/// What the process has to do with.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    /// Directories and files that are read.
    reads: BTreeSet<PathBuf>,
    /// Directories that are written.
    writes: BTreeSet<PathBuf>,
    /// Directories in which Unix sockets come and go.
    sockets: BTreeSet<PathBuf>,
    /// TCP ports that are listened on.
    ports: BTreeSet<u16>,
}

impl Needs {
    fn of(loaded: &Loaded, config: Option<&Path>) -> Needs {
        let Loaded { settings, files, warnings: _ } = loaded;
        let mut needs = Needs::default();
        needs.reads.extend(OF_THE_SYSTEM.map(PathBuf::from));
        needs.reads.extend(std::env::current_exe());
        let own = || files.iter().map(PathBuf::as_path).chain(config);
        needs.reads.extend(own().map(directory_of));
        // Each may be a link to where somebody else keeps it.
        let links = own().chain([Path::new("/etc/resolv.conf")]);
        let targets = links.filter_map(|link| fs::canonicalize(link).ok());
        needs.reads.extend(targets.map(|target| directory_of(&target)));
        needs.writes.extend(settings.spool.directory.clone());
        needs.writes.extend(settings.identity.state_directory.clone());
        for sink in &settings.sinks {
            if let SinkKind::File(file) = &sink.kind {
                needs.writes.insert(directory_of(&file.path));
            }
        }
        if let Some(gatherer) = &settings.gatherer {
            needs.writes.insert(gatherer.directory.clone());
            needs.ports.insert(gatherer.address.port());
        }
        needs.listeners(settings);
        needs
    }

    fn listeners(&mut self, settings: &Settings) {
        for listener in &settings.intake.listeners {
            match &listener.address {
                StatsdAddress::Tcp(address) => drop(self.ports.insert(address.port())),
                StatsdAddress::Unixgram(unix) | StatsdAddress::UnixStream(unix) => {
                    self.unix(unix);
                }
                StatsdAddress::Udp(_) | StatsdAddress::Inherited(_) => {}
            }
        }
        let servers = settings.http.address.iter().chain(&settings.import.grpc_address);
        for listener in servers {
            match &listener.address {
                HttpAddress::Tcp(address) => drop(self.ports.insert(address.port())),
                HttpAddress::Unix(unix) => self.unix(unix),
                HttpAddress::Fd(_) | HttpAddress::Einhorn(_) => {}
            }
        }
        let takeover = settings.takeover_socket.as_deref();
        self.sockets.extend(takeover.map(directory_of));
    }

    fn unix(&mut self, address: &UnixAddress) {
        if let UnixAddress::Path(path) = address {
            self.sockets.insert(directory_of(path));
        }
    }
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn restrict(needs: &Needs) -> Result<(RulesetStatus, LandlockStatus), RulesetError> {
    for directory in &needs.writes {
        // A rule needs it to be there; whoever uses it says why it cannot be made.
        let _ = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory);
    }
    let all = AccessFs::from_all(KNOWN);
    let reads = AccessFs::ReadFile | AccessFs::ReadDir;
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let writes = all & !(AccessFs::Execute | AccessFs::MakeSock | devices);
    let sockets = AccessFs::ReadDir | AccessFs::MakeSock | AccessFs::RemoveFile;
    let ports = needs.ports.iter().map(|port| Ok(NetPort::new(*port, AccessNet::BindTcp)));
    let status = Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(&needs.reads, reads))?
        .add_rules(path_beneath_rules(&needs.writes, writes))?
        .add_rules(path_beneath_rules(&needs.sockets, sockets))?
        .add_rules(ports.map(|port: Result<NetPort, RulesetError>| port))?
        .restrict_self()?;
    Ok((status.ruleset, status.landlock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, machine::Machine};

    #[test]
    fn what_is_needed_is_what_is_configured() {
        fn read(path: &Path) -> std::io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/tls/crt") => Ok(b"-----BEGIN CERTIFICATE-----".into()),
                Some("/keys/key") => Ok(b"-----BEGIN PRIVATE KEY-----".into()),
                _ => Err(std::io::ErrorKind::NotFound.into()),
            }
        }
        let yaml = "statsd_listen_addresses: ['udp://127.0.0.1:1', 'tcp://127.0.0.1:2', \
             'unix:///run/a/s', 'unixgram://@name']\nhttp_address: 127.0.0.1:3\n\
             grpc_address: /run/b/g\ntakeover_socket: /run/c/t\nspool: {directory: /var/s}\nflush_file: /out/m\n\
             tls_certificate: /tls/crt\ntls_key: /keys/key\nsandbox: true\n";
        let machine = Machine { read, ..Machine::this() };
        let loaded = config::parse("v.yaml", yaml, [], true, &machine);
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        let needs = Needs::of(&loaded, Some(Path::new("/conf/v.yaml")));
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<BTreeSet<_>>();
        assert!(needs.reads.is_superset(&paths(&["/conf", "/tls", "/keys", "/etc"])));
        assert!(!needs.reads.contains(Path::new("/")));
        assert_eq!(needs.writes, paths(&["/out", "/var/s"]));
        assert_eq!(needs.sockets, paths(&["/run/a", "/run/b", "/run/c"]));
        assert_eq!(needs.ports, BTreeSet::from([2, 3]));
    }
}
