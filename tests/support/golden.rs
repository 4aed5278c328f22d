//! Bytes that must not change unnoticed. `UPDATE_GOLDEN=1 cargo test` rewrites them: review
//! the diff.

use std::path::Path;
use std::{env, fs};

/// Compares `bytes` with the file of this name in `tests/golden/`.
pub(crate) fn assert_golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, bytes).expect("tests/golden can be written");
    }
    let golden = fs::read(&path).unwrap_or_default();
    assert_eq!(bytes.escape_ascii().to_string(), golden.escape_ascii().to_string(), "{name}");
}
