//! The sink that writes a file.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use veneur::config::settings::FileSettings;
use veneur::model::FlushBatch;
use veneur::sinks::file::LocalFile;
use veneur::sinks::{Delivered, MetricSink, Node, Reason, Tally};

use crate::batches::{gauges, mixed};
use crate::golden::assert_golden;

/// A directory of a test's own, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("veneur-file-{}-{n}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary directory can be made");
        Scratch(path)
    }

    fn settings(&self) -> FileSettings {
        let (max_bytes, max_age) = (1 << 20, Duration::from_secs(86_400));
        FileSettings { path: self.0.join("m.tsv"), max_bytes, max_age, keep: 2 }
    }

    /// The lines of each file, by name.
    fn lines(&self) -> Vec<(String, usize)> {
        let files = fs::read_dir(&self.0).expect("it is there");
        let mut lines: Vec<(String, usize)> = files
            .map(|file| {
                let file = file.expect("it can be read");
                let text = fs::read_to_string(file.path()).expect("it is text");
                (file.file_name().to_string_lossy().into_owned(), text.lines().count())
            })
            .collect();
        lines.sort();
        lines
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is in the temporary directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn flush(settings: &FileSettings, batch: FlushBatch) -> Delivered {
    let node = Node { host: Some("testhost".into()), tags: vec!["env:test".into()] };
    let mut sink = LocalFile::new("file", settings, node);
    let deadline = (Instant::now() + Duration::from_secs(10)).into();
    sink.flush(Arc::new(batch), deadline).await
}

fn named(files: &[(&str, usize)]) -> Vec<(String, usize)> {
    files.iter().map(|(name, lines)| ((*name).to_owned(), *lines)).collect()
}

#[tokio::test]
async fn flushes_are_rows_one_after_the_other_and_exact() {
    let scratch = Scratch::new();
    let settings = scratch.settings();
    let delivered = flush(&settings, mixed()).await;
    assert_eq!(delivered.points, Tally::new(mixed().points.len() as u64, 0));
    assert!(delivered.events.skipped > 0 && delivered.checks.skipped > 0);
    assert_golden("file_rows.tsv", &fs::read(&settings.path).expect("it is there"));
    flush(&settings, gauges(10)).await;
    assert_eq!(scratch.lines(), named(&[("m.tsv", mixed().points.len() + 10)]));
}

#[tokio::test]
async fn a_large_or_old_file_makes_way_and_the_oldest_goes() {
    let scratch = Scratch::new();
    let settings = FileSettings { max_bytes: 1, ..scratch.settings() };
    for n in 1..=4 {
        flush(&settings, gauges(n)).await;
    }
    assert_eq!(scratch.lines(), named(&[("m.tsv", 4), ("m.tsv.1", 3), ("m.tsv.2", 2)]));
    let old = FileSettings { max_age: Duration::ZERO, keep: 0, ..scratch.settings() };
    flush(&old, gauges(5)).await;
    assert_eq!(scratch.lines(), named(&[("m.tsv", 5), ("m.tsv.1", 3), ("m.tsv.2", 2)]));
}

#[tokio::test]
async fn a_file_that_cannot_be_written_costs_its_flush() {
    let scratch = Scratch::new();
    let path = scratch.0.join("missing/m.tsv");
    let delivered = flush(&FileSettings { path, ..scratch.settings() }, gauges(3)).await;
    assert_eq!(delivered.points, Tally::lost(Reason::Io, 3));
    let failure = delivered.failure.expect("it says why");
    assert!(failure.contains("missing/m.tsv: No such file"), "{failure}");
    // Every write to it fails.
    let path = PathBuf::from("/dev/full");
    let delivered = flush(&FileSettings { path, ..scratch.settings() }, gauges(3)).await;
    assert_eq!(delivered.points, Tally::lost(Reason::Io, 3));
}
