//! A local file: every flush as rows ([`super::tsv`]) at its end, renamed and begun anew when it is
//! large or old.
//!
//! A flush is in it whole or not at all: what a failed write has left is cut off. The file is
//! opened for each flush, so it may be moved away by others. Writing happens on the blocking
//! pool; a disk that stands still costs the flushes it does not take and nothing else. Events, checks and spans
//! are skipped.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::tsv::Rows;
use super::{Delivered, MetricSink, Node, Reason, Tally};
use crate::config::settings::FileSettings;
use crate::model::FlushBatch;

/// Rows are written in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// The sink.
pub struct LocalFile {
    name: String,
    settings: Arc<FileSettings>,
    node: Arc<Node>,
    /// Held while a flush is written, by the thread of the pool that does: it may be stuck for
    /// longer than its flush is waited for.
    writing: Arc<Mutex<()>>,
}

impl LocalFile {
    /// The sink of this name. Nothing is opened yet.
    pub fn new(name: &str, settings: &FileSettings, node: Node) -> LocalFile {
        let (settings, node) = (Arc::new(settings.clone()), Arc::new(node));
        LocalFile { name: name.to_owned(), settings, node, writing: Arc::default() }
    }
}

impl MetricSink for LocalFile {
    fn name(&self) -> &str {
        &self.name
    }

    async fn flush(&mut self, batch: Arc<FlushBatch>, deadline: Instant) -> Delivered {
        let (of, settings, node) =
            (Arc::clone(&batch), Arc::clone(&self.settings), Arc::clone(&self.node));
        let writing = Arc::clone(&self.writing);
        let written = spawn_blocking(move || {
            let _turn = match writing.try_lock() {
                Ok(turn) => turn,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                // The flush before is stuck.
                Err(TryLockError::WouldBlock) => return Err(ErrorKind::TimedOut.into()),
            };
            append(&settings, &of, &node)
        });
        let written = match timeout_at(deadline, written).await {
            Ok(Ok(written)) => written,
            Ok(Err(panic)) => Err(panic.into()),
            Err(_) => Err(ErrorKind::TimedOut.into()),
        };
        let points = batch.points.len() as u64;
        let (points, failure) = match written {
            Ok(rows) => {
                let mut tally = Tally::new(rows, 0);
                tally.lose(Reason::Encode, points - rows);
                (tally, None)
            }
            Err(error) => {
                let reason = match error.kind() {
                    ErrorKind::TimedOut => Reason::Timeout,
                    _ => Reason::Io,
                };
                let path = self.settings.path.display();
                (Tally::lost(reason, points), Some(format!("cannot write {path}: {error}")))
            }
        };
        Delivered {
            points,
            events: Tally::new(0, batch.events.len() as u64),
            checks: Tally::new(0, batch.checks.len() as u64),
            spans: Tally::new(0, batch.spans.len() as u64),
            failure,
        }
    }
}

/// Appends a flush; how many points were written.
fn append(settings: &FileSettings, batch: &FlushBatch, node: &Node) -> io::Result<u64> {
    let FileSettings { path, max_bytes, max_age, keep } = settings;
    if let Ok(metadata) = fs::metadata(path)
        && metadata.len() > 0
        && (metadata.len() >= *max_bytes || age(&metadata).is_some_and(|age| age >= *max_age))
    {
        rotate(path, *keep)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let before = file.metadata()?.len();
    write(&file, batch, node).inspect_err(|_| {
        // If this fails, too, there is nothing left to be done: the failure is told as it is.
        let _ = file.set_len(before);
    })
}

fn write(file: &File, batch: &FlushBatch, node: &Node) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(PIECE_BYTES, file);
    let mut rows = Rows::new(batch, node);
    let mut written = 0;
    for point in &batch.points {
        written += u64::from(rows.write(point, &mut out)?);
    }
    out.flush()?;
    Ok(written)
}

/// How long ago a file was made, as far as the system knows.
fn age(metadata: &fs::Metadata) -> Option<Duration> {
    let since = metadata.created().or_else(|_| metadata.modified()).ok()?;
    SystemTime::now().duration_since(since).ok()
}

/// `path` becomes `path.1`, that `path.2` and so on; of the old ones `keep` are left.
fn rotate(path: &Path, keep: u32) -> io::Result<()> {
    let old = |n: u32| -> PathBuf {
        let mut name = OsString::from(path);
        name.push(format!(".{n}"));
        name.into()
    };
    if keep == 0 {
        return fs::remove_file(path);
    }
    for n in (1..keep).rev() {
        match fs::rename(old(n), old(n + 1)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    fs::rename(path, old(1))
}
