//! YAML, environment and defaults, turned into [`Settings`].
//!
//! ```text
//! file ──► tree ──┐                      ┌► Settings ──► show (effective configuration)
//! environment ────┴► raw (rows) ─► validate             └► reload (what may change live)
//! ```
//!
//! [`load`] is the only entry. It reports every problem at once, quotes no secret, and holds
//! whatever the file contains to limits. Of the environment, `VENEUR_<KEY>` counts.
//!
//! Keys keep the names of Veneur v1.1.0 and take those of Veneur 14; `example.yaml` at the top
//! of the repository documents each.

mod bins;
mod duration;
pub mod listen;
pub mod machine;
pub mod mapping;
mod matchers;
mod overlay;
mod problem;
mod raw;
mod reader;
mod reading;
pub mod reference;
mod reload;
pub mod secret;
pub mod settings;
mod show;
mod sinks;
mod tree;
mod unknown;
pub mod upstream;
mod validate;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use machine::Machine;
use problem::Report;
use raw::Raw;
use reader::Reader;
use tree::Malformed;

pub use problem::{Place, Problem, Problems};
pub use secret::{BaseUrl, Secret};
pub use settings::{Program, Settings};

/// Some editors put it before UTF-8.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A configuration that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// What its writer should know: unknown keys, settings without effect.
    pub warnings: Vec<Problem>,
    /// The files that its settings name, which a reload reads again.
    pub files: Vec<PathBuf>,
}

/// Reads the file at `path`, if there is one, and lays `environment` over it and over the
/// built-in defaults. With `strict`, unknown and repeated keys of the file are problems rather
/// than warnings.
///
/// # Errors
/// Everything that is wrong, in the order of the file.
pub fn load(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    strict: bool,
) -> Result<Loaded, Problems> {
    read(Program::Daemon, path, environment, strict)
}

/// As [`load`], for a proxy: it needs somewhere to forward to, keys that mean nothing to it are
/// remarked on, and of the environment `VENEUR_PROXY_<KEY>` counts, too.
///
/// # Errors
/// As [`load`].
pub fn load_proxy(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    strict: bool,
) -> Result<Loaded, Problems> {
    read(Program::Proxy, path, environment, strict)
}

fn read(
    program: Program,
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    strict: bool,
) -> Result<Loaded, Problems> {
    let machine = Machine::this();
    let Some(path) = path else {
        return parse_as(program, "built-in", "", environment, strict, &machine);
    };
    let name = path.display().to_string();
    let unreadable = |what: &str| Problem::new(Place::File(name.as_str().into()), what);
    let bytes =
        (machine.read)(path).map_err(|error| unreadable(&format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| unreadable("not UTF-8"))?;
    parse_as(program, &name, &text, environment, strict, &machine)
}

/// As [`load`], for a gatherer: it needs a directory, and keys that mean nothing to it are
/// remarked on.
///
/// # Errors
/// As [`load`].
pub fn load_gatherer(
    path: Option<&Path>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    strict: bool,
) -> Result<Loaded, Problems> {
    read(Program::Gatherer, path, environment, strict)
}

/// As [`load`], with the `text` of the file called `name` in messages, on a given `machine`.
///
/// # Errors
/// As [`load`].
pub fn parse(
    name: &str,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    strict: bool,
    machine: &Machine,
) -> Result<Loaded, Problems> {
    parse_as(Program::Daemon, name, text, environment, strict, machine)
}

/// As [`load_proxy`], with the `text` of the file called `name` in messages, on a given
/// `machine`.
///
/// # Errors
/// As [`load`].
pub fn parse_proxy(
    name: &str,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    strict: bool,
    machine: &Machine,
) -> Result<Loaded, Problems> {
    parse_as(Program::Proxy, name, text, environment, strict, machine)
}

/// As [`load_gatherer`], with the `text` of the file called `name` in messages, on a given
/// `machine`.
///
/// # Errors
/// As [`load`].
pub fn parse_gatherer(
    name: &str,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    strict: bool,
    machine: &Machine,
) -> Result<Loaded, Problems> {
    parse_as(Program::Gatherer, name, text, environment, strict, machine)
}

fn parse_as(
    program: Program,
    name: &str,
    text: &str,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    strict: bool,
    machine: &Machine,
) -> Result<Loaded, Problems> {
    let name: Arc<str> = name.into();
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut report = Report { strict, ..Report::default() };
    let mut raw = Raw::default();
    match tree::parse(text) {
        Ok(root) => Reader::new(program, &mut raw, &mut report, strict).file(&root, &name),
        Err(Malformed { line, what }) => {
            let place =
                line.map_or(Place::File(name.clone()), |line| Place::Line(name.clone(), line));
            report.problems.push(Problem::new(place, what));
        }
    }
    overlay::lay(&mut Reader::new(program, &mut raw, &mut report, strict), environment);
    let settings = validate::settings(program, &raw, machine, &mut report);
    if report.problems.is_empty() {
        report.problems.extend(validate::lacks(&settings, &name));
    }
    let Report { mut problems, mut warnings, files, strict: _ } = report;
    problems.sort();
    warnings.sort();
    if problems.is_empty() {
        return Ok(Loaded { settings, warnings, files });
    }
    Err(Problems { problems, warnings })
}
