//! The files of a spool's directory, as [`super::store`] sees them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Files in one directory; the other implementation is the simulation's. Blocking.
///
/// What was written survives the end of the process, and what was synced a loss of power.
pub trait Disk: Send + 'static {
    /// Names and lengths of all files.
    ///
    /// # Errors
    /// What the system says, as everywhere here.
    fn list(&mut self) -> io::Result<Vec<(String, u64)>>;

    /// Fills `into` from `at` on.
    ///
    /// # Errors
    /// Also when the file is shorter.
    fn read(&mut self, name: &str, at: u64, into: &mut [u8]) -> io::Result<()>;

    /// Makes a new, empty file.
    ///
    /// # Errors
    /// Also when there is one of that name.
    fn create(&mut self, name: &str) -> io::Result<()>;

    /// Writes all of `bytes` at `at`.
    ///
    /// # Errors
    /// A part may have been written.
    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts a file.
    ///
    /// # Errors
    /// It may be as it was.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;

    /// Makes what was written to a file, and that there is such a file, survive a loss of power.
    ///
    /// # Errors
    /// Nothing is known of what was written since the last time.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Gives a file another name.
    ///
    /// # Errors
    /// It has its old one.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// It is still there.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// Only the owner may look: metrics tell a lot.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
const LOCK: &str = "lock";

/// A directory that no other process uses.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Directory {
    /// Whether files can be made there; the directory is made if it is missing.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn check(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
        let trial = path.join("trial");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(&trial)?;
        file.write_all(b"veneur")?;
        fs::remove_file(trial)
    }

    /// Makes it if it is missing, and locks it.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] while another process uses it.
    pub fn open(path: &Path) -> io::Result<Directory> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path.join(LOCK))?;
        lock.try_lock()?;
        Ok(Directory { path: path.to_owned(), _lock: lock })
    }

    fn writable(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Disk for Directory {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if let Ok(name) = entry.file_name().into_string()
                && meta.is_file()
            {
                files.push((name, meta.len()));
            }
        }
        Ok(files)
    }

    fn read(&mut self, name: &str, at: u64, into: &mut [u8]) -> io::Result<()> {
        File::open(self.path.join(name))?.read_exact_at(into, at)
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
        Ok(())
    }

    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.writable(name)?.write_all_at(bytes, at)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.writable(name)?.set_len(length)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.writable(name)?.sync_all()?;
        self.sync_directory()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        self.sync_directory()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }
}

/// The `cause:` tag of a failure.
pub fn cause(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "full",
        io::ErrorKind::ReadOnlyFilesystem => "read_only",
        io::ErrorKind::PermissionDenied => "permission",
        io::ErrorKind::WouldBlock => "locked",
        io::ErrorKind::NotFound => "missing",
        _ => "io",
    }
}
