//! The mapping file.

use std::path::PathBuf;
use std::sync::Arc;

use super::filled;
use crate::config::machine::Machine;
use crate::config::mapping;
use crate::config::problem::{Problems, Report};
use crate::config::raw::Raw;
use crate::config::settings::{MappingSettings, Program};

/// What is wrong with the file is told with its own lines.
pub(super) fn mapping(
    program: Program,
    raw: &Raw,
    machine: &Machine,
    report: &mut Report,
) -> Option<MappingSettings> {
    let given = filled(&raw.mapping_config).filter(|_| program == Program::Daemon)?;
    let path = PathBuf::from(&given.value);
    report.files.push(path.clone());
    match mapping::load(&path, report.strict, machine) {
        Ok((mapping, warnings)) => {
            report.warnings.extend(warnings);
            Some(MappingSettings { path, mapping: Arc::new(mapping) })
        }
        Err(Problems { problems, warnings }) => {
            report.problems.extend(problems);
            report.warnings.extend(warnings);
            None
        }
    }
}
