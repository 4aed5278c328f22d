//! What is wrong with a configuration, as sentences for the person who wrote it.
//!
//! All problems are collected, so that one run shows them all. A sentence says where (file and
//! line, or variable), which key, which value, what is wrong with it and what would be
//! accepted. Values of secret keys are never quoted, and URLs without their credentials.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a setting was written. Problems are listed in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Somewhere in a file, or all of it.
    File(Arc<str>),
    /// A line of a file, from 1.
    Line(Arc<str>, u64),
    /// An environment variable.
    Variable(Arc<str>),
    /// Nowhere: it is a default.
    BuiltIn,
}

impl Place {
    /// The line, if it is one of a file.
    pub(super) fn line(&self) -> Option<u64> {
        match self {
            Place::Line(_, line) => Some(*line),
            Place::File(_) | Place::Variable(_) | Place::BuiltIn => None,
        }
    }

    /// The same place, narrowed to `line` if it is in a file.
    pub(super) fn at_line(&self, line: u64) -> Place {
        match self {
            Place::File(file) | Place::Line(file, _) => Place::Line(file.clone(), line),
            Place::Variable(_) | Place::BuiltIn => self.clone(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(file) => f.write_str(file),
            Place::Line(file, line) => write!(f, "{file}:{line}"),
            Place::Variable(name) => write!(f, "environment variable {name}"),
            Place::BuiltIn => f.write_str("built-in default"),
        }
    }
}

/// One thing that is wrong or doubtful, shown as
/// `veneur.yaml:3: num_workers: "many": not a whole number; accepted: 0 to 1024`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it was written.
    pub place: Place,
    /// The key as it was written; none if the whole file is meant.
    pub key: Option<String>,
    /// The value, fit to be shown; none for secrets and for what is not a scalar.
    pub value: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What would be accepted, if that says more.
    pub accepted: Option<String>,
}

impl Problem {
    /// A problem of the place itself, of no key in particular.
    pub(super) fn new(place: Place, what: impl Into<String>) -> Problem {
        Problem { place, key: None, value: None, what: what.into(), accepted: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        if let Some(value) = &self.value {
            write!(f, "{value}: ")?;
        }
        f.write_str(&self.what)?;
        match &self.accepted {
            Some(accepted) => write!(f, "; accepted: {accepted}"),
            None => Ok(()),
        }
    }
}

/// Why a configuration cannot be used, a line each; then the warnings, which may explain it (a
/// misspelt key leaves another one without its companion).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    /// What keeps it from being used: at least one.
    pub problems: Vec<Problem>,
    /// What its writer should know besides.
    pub warnings: Vec<Problem>,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems = self.problems.iter().map(Problem::to_string);
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        f.write_str(&problems.chain(warnings).collect::<Vec<_>>().join("\n"))
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Problems {
        Problems { problems: vec![problem], warnings: Vec::new() }
    }
}

/// Collects problems and warnings while a configuration is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Whether unknown and repeated keys are problems, in the files that settings name, too.
    pub(super) strict: bool,
    /// What keeps the configuration from being used.
    pub(super) problems: Vec<Problem>,
    /// What the operator should know although it works.
    pub(super) warnings: Vec<Problem>,
    /// Files that were read because settings name them.
    pub(super) files: Vec<PathBuf>,
}

impl Report {
    /// The value at `source` cannot be used; `accepted` could.
    pub(super) fn refuse(
        &mut self,
        source: &Source,
        what: impl Into<String>,
        accepted: impl Into<String>,
    ) {
        let accepted = Some(accepted.into());
        self.problems.push(Problem { accepted, ..source.problem(what) });
    }

    /// The value at `source` is used, or left alone, but not as its writer may think.
    pub(super) fn warn(&mut self, source: &Source, what: impl Into<String>) {
        self.warnings.push(source.problem(what));
    }

    /// What was written is left alone: a problem if `strict`, else a warning.
    pub(super) fn doubt(&mut self, problem: Problem, strict: bool) {
        if strict {
            self.problems.push(problem);
        } else {
            self.warnings.push(problem);
        }
    }

    /// Whether the value of `key` was refused: then its absence is no further problem.
    pub(super) fn has_problem_with(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.key.as_deref() == Some(key))
    }
}

/// Where a value comes from, and how to speak of it.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Where it was written.
    pub(super) place: Place,
    /// The key as it was written: its name or an alias.
    pub(super) key: &'static str,
    /// The value, fit to be shown.
    pub(super) shown: Option<String>,
}

impl Source {
    /// A default of `key` that turned out not to work here.
    pub(super) fn built_in(key: &'static str) -> Source {
        Source { place: Place::BuiltIn, key, shown: None }
    }

    fn problem(&self, what: impl Into<String>) -> Problem {
        Problem {
            key: Some(self.key.to_owned()),
            value: self.shown.clone(),
            ..Problem::new(self.place.clone(), what)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_sentence_with_place_key_value_and_remedy() {
        let problem = Problem {
            place: Place::Line("veneur.yaml".into(), 3),
            key: Some("num_workers".into()),
            value: Some("\"many\"".into()),
            what: "not a whole number".into(),
            accepted: Some("0 to 1024".into()),
        };
        assert_eq!(
            problem.to_string(),
            "veneur.yaml:3: num_workers: \"many\": not a whole number; accepted: 0 to 1024"
        );
        let whole = Problem::new(Place::File("veneur.yaml".into()), "cannot be read");
        assert_eq!(whole.to_string(), "veneur.yaml: cannot be read");
        let both = Problems { problems: vec![problem], warnings: vec![whole] }.to_string();
        assert_eq!(both.lines().last(), Some("warning: veneur.yaml: cannot be read"));
    }
}
