//! A module may use only modules of lower rows; modules of one row do not know each other.
//!
//! The rows are those of `docs/architecture.md`, "Layers". What the test cannot see, reviews
//! must: rows 0 to 2 hold no I/O (but for loading the configuration), no clock and no logging.

use std::fs;
use std::path::{Path, PathBuf};

/// The longest matching prefix of a module's path gives its row.
const ROWS: &[(&str, u8)] = &[
    ("model", 0),
    ("telemetry", 0),
    ("protocol", 1),
    ("sketch", 1),
    ("mapping", 1),
    ("config", 1),
    ("aggregate", 2),
    ("pipeline", 3),
    ("net", 3),
    ("spool", 3),
    ("checkpoint", 4),
    ("ingest", 4),
    ("forward", 4),
    ("http", 4),
    ("sinks", 4),
    ("provider", 4),
    ("gatherer", 4),
    ("telemetry::report", 4),
    ("telemetry::logging", 4),
    ("telemetry::sentry", 4),
    ("server", 5),
    ("cli", 6),
    ("main", 7),
    // The crate root declares modules and uses none.
    ("lib", 8),
];

/// Edges within a row, each with its reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("protocol::import", "sketch", "import bodies carry sketches"),
    ("config", "mapping", "a mapping file is compiled where it is read"),
    ("gatherer", "provider", "the two ends of one wire"),
];

fn row_of(module: &str) -> Option<(&'static str, u8)> {
    ROWS.iter()
        .filter(|(prefix, _)| is_within(module, prefix))
        .max_by_key(|(prefix, _)| prefix.len())
        .copied()
}

fn is_within(module: &str, prefix: &str) -> bool {
    module.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).expect("a source directory is readable");
    for entry in entries {
        let path = entry.expect("a directory entry is readable").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// Every `crate::a::b` in a file: the paths behind it as far as they are lower case. Groups
/// (`crate::{a, b}`) are not used in this code base, and the test refuses them.
fn uses(source: &str) -> Vec<String> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut paths = Vec::new();
    for line in code {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            let end = rest
                .find(|c: char| !(c.is_ascii_lowercase() || c == '_' || c == ':'))
                .unwrap_or(rest.len());
            paths.push(rest[..end].trim_end_matches(':').to_owned());
        }
    }
    paths
}

#[test]
fn modules_use_only_lower_rows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    assert!(files.len() > 20, "found the sources");
    let mut forbidden = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&source).expect("found below the source directory");
        let module = relative.with_extension("").to_string_lossy().replace('/', "::");
        let Some((own, row)) = row_of(&module) else {
            forbidden.push(format!("{module} has no row"));
            continue;
        };
        let text = fs::read_to_string(&file).expect("a source file is text");
        for used in uses(&text) {
            let Some((other, other_row)) = row_of(&used) else {
                forbidden.push(format!("{module} -> crate::{used}: no such row"));
                continue;
            };
            let excepted = EXCEPTIONS
                .iter()
                .any(|(from, to, _)| is_within(&module, from) && is_within(&used, to));
            let same_module = module.split("::").next() == used.split("::").next();
            let allowed =
                other_row < row || other == own || excepted || (same_module && other_row <= row);
            if !allowed {
                forbidden.push(format!("{module} (row {row}) -> crate::{used} (row {other_row})"));
            }
        }
    }
    assert!(forbidden.is_empty(), "forbidden edges:\n{}", forbidden.join("\n"));
}
