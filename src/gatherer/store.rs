//! The file of a gatherer: the latest answer of each provider.
//!
//! ```json
//! {"<id>": {"timestamp": 1767323045.678, "nickname": "web-1",
//!           "stats": {"counters": {}, "stats": {}}, "epoch": 1767300000000, "address": "10.0.0.5"}}
//! ```
//!
//! Source: Tahoe-LAFS's `stats.json`, with two keys more.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::SetupError;
use crate::provider::replace_file;

/// Its name in the directory of the gatherer.
pub const STATS_FILE: &str = "stats.json";

/// What was last heard of a provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, in seconds since 1970.
    pub timestamp: f64,
    /// For people.
    #[serde(default)]
    pub nickname: String,
    /// What.
    pub stats: Gathered,
    /// When it started, in milliseconds since 1970, if it said so.
    #[serde(default)]
    pub epoch: Option<u64>,
    /// Where it was heard from.
    #[serde(default)]
    pub address: Option<String>,
}

/// Statistics of any provider: ours, or one whose counters have fractions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gathered {
    /// Work done.
    #[serde(default)]
    pub counters: BTreeMap<String, Number>,
    /// Present state; `None` where there were too few observations.
    #[serde(default)]
    pub stats: BTreeMap<String, Option<Number>>,
}

/// What was last heard of everybody, by id, from the file at `path`.
///
/// # Errors
/// It cannot be read, or holds something else.
pub fn read(path: &Path) -> Result<BTreeMap<String, Entry>, SetupError> {
    let text =
        std::fs::read(path).map_err(|source| SetupError::File { path: path.to_owned(), source })?;
    serde_json::from_slice(&text)
        .map_err(|error| SetupError::Unreadable { path: path.to_owned(), what: error.to_string() })
}

/// Where the file is.
#[derive(Clone, Debug)]
pub(super) struct Store {
    path: PathBuf,
    mode: u32,
}

impl Store {
    /// The one in `directory`, to be written with these permissions.
    pub(super) fn new(directory: &Path, mode: u32) -> Store {
        Store { path: directory.join(STATS_FILE), mode }
    }

    /// What is there; nothing if there is no file.
    ///
    /// # Errors
    /// It cannot be read, or holds something else.
    pub(super) fn read(&self) -> Result<BTreeMap<String, Arc<Entry>>, SetupError> {
        let entries = match read(&self.path) {
            Err(SetupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                BTreeMap::new()
            }
            read => read?,
        };
        Ok(entries.into_iter().map(|(id, entry)| (id, Arc::new(entry))).collect())
    }

    /// Replaces what is there.
    ///
    /// # Errors
    /// What the system says; then the old file is still there, whole.
    pub(super) fn write(&self, entries: &BTreeMap<String, Arc<Entry>>) -> io::Result<()> {
        let entries: BTreeMap<&str, &Entry> =
            entries.iter().map(|(id, entry)| (id.as_str(), &**entry)).collect();
        let mut text = serde_json::to_vec(&entries)?;
        text.push(b'\n');
        replace_file(&self.path, &text, self.mode)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let name = format!("veneur-store-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("the temporary directory can be written");
        directory
    }

    /// As Tahoe-LAFS writes it.
    const TAHOE: &str = r#"{"t4u": {"timestamp": 1.5, "nickname": "node",
        "stats": {"counters": {"uploader.bytes": 12.5}, "stats": {"load": null, "up": 3}}}}"#;

    #[test]
    fn what_is_written_is_read_back_and_so_is_a_file_of_tahoe() {
        let directory = scratch("back");
        let store = Store::new(&directory, 0o640);
        assert_eq!(store.read().expect("no file is nothing"), BTreeMap::new());
        fs::write(directory.join(STATS_FILE), TAHOE).expect("it can be written");
        let read = store.read().expect("it can be read");
        assert_eq!(read["t4u"].stats.counters["uploader.bytes"].as_f64(), Some(12.5));
        assert_eq!(read["t4u"].stats.stats["load"], None);
        fs::write(directory.join("stats.json.new"), "left behind").expect("it can be written");
        store.write(&read).expect("it can be written");
        assert_eq!(store.read().expect("it can be read"), read);
        let names: Vec<_> = fs::read_dir(&directory).expect("it is there").collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let metadata = fs::metadata(directory.join(STATS_FILE)).expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
        fs::remove_dir_all(directory).expect("it is ours");
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let directory = scratch("else");
        for text in ["", "{", "[]", "{\"a\": 1}"] {
            fs::write(directory.join(STATS_FILE), text).expect("it can be written");
            let error = Store::new(&directory, 0o644).read().expect_err(text).to_string();
            assert!(error.contains("stats.json") && error.ends_with("restore it or delete it"));
            let left = fs::read_to_string(directory.join(STATS_FILE)).expect("it is there");
            assert_eq!(left, text);
        }
        fs::remove_dir_all(directory).expect("it is ours");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let directory = scratch("fails");
        let store = Store::new(&directory, 0o644);
        store.write(&BTreeMap::new()).expect("it can be written");
        // What is in the way of the new file cannot be removed as a file.
        fs::create_dir(directory.join("stats.json.new")).expect("it can be made");
        assert!(store.write(&BTreeMap::new()).is_err());
        assert_eq!(store.read().expect("it is there"), BTreeMap::new());
        fs::remove_dir_all(directory).expect("it is ours");
    }
}
