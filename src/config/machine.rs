//! What the configuration asks of the machine it is read on.
//!
//! Everything [`super::load`] does besides reading its file is behind these functions, so that
//! a test or a fuzzer can put answers in their place.

use std::fs::File;
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

/// The most that is read of any file: what a person writes stays far below.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// The answers of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Cores this process may use, at least 1.
    pub cores: usize,
    /// The name of this host.
    pub hostname: fn() -> Option<String>,
    /// The addresses of `HOST` with `PORT`.
    pub resolve: fn(&str, u16) -> io::Result<Vec<SocketAddr>>,
    /// The bytes of a file of at most [`MAX_FILE_BYTES`].
    pub read: fn(&Path) -> io::Result<Vec<u8>>,
}

impl Machine {
    /// The one this process runs on.
    pub fn this() -> Machine {
        Machine {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            hostname,
            resolve: |host, port| Ok((host, port).to_socket_addrs()?.collect()),
            read,
        }
    }
}

/// The kernel's host name: what `gethostname` returns, without its `unsafe`.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty() && name != "(none)").then(|| name.to_owned())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A pipe would keep the reader waiting, and a device may never end.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_answers() {
        let machine = Machine::this();
        assert!(machine.cores > 0);
        assert!((machine.hostname)().is_some());
        let resolved = (machine.resolve)("127.0.0.1", 7).expect("an address needs no resolver");
        assert_eq!(resolved, [SocketAddr::from(([127, 0, 0, 1], 7))]);
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let error = read(Path::new("/dev/zero")).expect_err("it has no end");
        assert_eq!(error.to_string(), "not a regular file");
    }
}
