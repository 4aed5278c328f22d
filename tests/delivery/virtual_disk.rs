//! A disk in memory that fails as real ones do: full, read-only, refusing, losing power.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};

use veneur::spool::disk::Disk;

use crate::random::Random;

/// A loss of power keeps or loses unsynced bytes by pieces of this size.
const SECTOR: usize = 64;

/// Cloning shares: what a process wrote is there for its successor.
#[derive(Clone, Debug)]
pub(crate) struct VirtualDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    files: BTreeMap<String, File>,
    capacity: usize,
    is_read_only: bool,
    /// The next so many writes and syncs fail.
    failing: u32,
    /// Of a write that fails, so many bytes are written first.
    partial: usize,
}

#[derive(Clone, Debug, Default)]
struct File {
    bytes: Vec<u8>,
    /// What a loss of power leaves; `None`: no file.
    synced: Option<Vec<u8>>,
}

impl VirtualDisk {
    pub(crate) fn new() -> VirtualDisk {
        let files = BTreeMap::new();
        let state =
            State { files, capacity: usize::MAX, is_read_only: false, failing: 0, partial: 0 };
        VirtualDisk(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }

    pub(crate) fn limit(&self, capacity: usize) {
        self.lock().capacity = capacity;
    }

    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        self.lock().is_read_only = is_read_only;
    }

    pub(crate) fn fail_next(&self, operations: u32, partial: usize) {
        let mut state = self.lock();
        state.failing = operations;
        state.partial = partial;
    }

    pub(crate) fn used(&self) -> usize {
        self.lock().used()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().files.keys().cloned().collect()
    }

    /// Changes a byte of a file.
    pub(crate) fn damage(&self, name: &str, at: usize) {
        let mut state = self.lock();
        let file = state.files.get_mut(name).expect("there is such a file");
        file.bytes[at] ^= 0x55;
    }

    /// What was not synced is there or not, piece by piece.
    pub(crate) fn lose_power(&self, random: &mut Random) {
        for file in self.lock().files.values_mut() {
            let synced = file.synced.clone().unwrap_or_default();
            if *file.bytes == *synced {
                continue;
            }
            if file.synced.is_none() && random.percent(50) {
                file.bytes.clear();
                continue;
            }
            for start in (0..file.bytes.len()).step_by(SECTOR) {
                let end = file.bytes.len().min(start + SECTOR);
                if random.percent(50) {
                    for at in start..end {
                        file.bytes[at] = synced.get(at).copied().unwrap_or(0);
                    }
                }
            }
            if file.bytes.len() > synced.len() && random.percent(50) {
                let unsynced = (file.bytes.len() - synced.len()) as u64;
                file.bytes.truncate(synced.len() + random.below(unsynced + 1) as usize);
            }
        }
        for file in self.lock().files.values_mut() {
            file.synced = Some(file.bytes.clone());
        }
    }
}

impl State {
    fn used(&self) -> usize {
        self.files.values().map(|file| file.bytes.len()).sum()
    }

    fn fails(&mut self) -> io::Result<()> {
        if self.is_read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        if self.failing > 0 {
            self.failing -= 1;
            return Err(io::Error::other("the test wants it"));
        }
        Ok(())
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.files.get_mut(name).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Disk for VirtualDisk {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        let state = self.lock();
        let files = state.files.iter();
        Ok(files.map(|(name, file)| (name.clone(), file.bytes.len() as u64)).collect())
    }

    fn read(&mut self, name: &str, at: u64, into: &mut [u8]) -> io::Result<()> {
        let mut state = self.lock();
        let bytes = &state.file(name)?.bytes;
        let at = at as usize;
        let found = bytes.get(at..at + into.len()).ok_or(ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(found);
        Ok(())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.fails()?;
        if state.files.contains_key(name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.files.insert(name.to_owned(), File::default());
        Ok(())
    }

    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        let at = at as usize;
        let mut outcome = state.fails();
        let mut written = if outcome.is_ok() { bytes.len() } else { state.partial };
        let room = state.capacity.saturating_sub(state.used());
        let length = state.file(name)?.bytes.len();
        let grows = (at + bytes.len()).saturating_sub(length);
        if outcome.is_ok() && grows > room {
            written = bytes.len() - (grows - room);
            outcome = Err(ErrorKind::StorageFull.into());
        }
        if !state.is_read_only {
            let bytes = &bytes[..written.min(bytes.len())];
            let file = state.file(name)?;
            if file.bytes.len() < at + bytes.len() {
                file.bytes.resize(at + bytes.len(), 0);
            }
            file.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        }
        outcome
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        // A disk that does not take writes may well take this, which needs no room. One that
        // takes neither may have what was not taken back after a crash.
        self.lock().file(name)?.bytes.truncate(length as usize);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.fails()?;
        let file = state.file(name)?;
        file.synced = Some(file.bytes.clone());
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.fails()?;
        let mut file = state.files.remove(from).ok_or(ErrorKind::NotFound)?;
        file.synced = Some(file.bytes.clone());
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.fails()?;
        state.files.remove(name).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }
}
