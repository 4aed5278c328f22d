//! A mapping file of statsd_exporter, as it is.
//!
//! What only Prometheus has a use for (`ttl`, `help`, how observers are kept) is accepted, and
//! said to be without effect.

use std::path::Path;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use super::machine::Machine;
use super::problem::{Place, Problem, Problems, Report};
use super::reading::Typed;
use super::tree::{self, Entry, Node, Value};
use super::unknown;
use crate::mapping::{Action, MappedType, Mapping, Matcher, Rule, Template};

const DEFAULTS: [&str; 2] = ["match_type", "glob_disable_ordering"];
const RULE: [&str; 8] = [
    "match",
    "name",
    "labels",
    "action",
    "match_type",
    "match_metric_type",
    "honor_labels",
    "scale",
];
/// Of a rule, and of the defaults.
const WITHOUT_EFFECT: [&str; 8] = [
    "ttl",
    "help",
    "observer_type",
    "timer_type",
    "summary_options",
    "histogram_options",
    "quantiles",
    "buckets",
];
/// A compiled expression is smaller.
const MOST_OF_A_REGEX: usize = 1 << 20;

/// Reads the file at `path` on this machine, for whoever tries it out.
///
/// # Errors
/// As [`load`].
pub fn load_here(path: &Path) -> Result<(Mapping, Vec<Problem>), Problems> {
    load(path, false, &Machine::this())
}

/// Reads the file at `path`. With `strict`, unknown keys are problems rather than warnings.
///
/// # Errors
/// Everything that is wrong with it, each with its line.
pub fn load(
    path: &Path,
    strict: bool,
    machine: &Machine,
) -> Result<(Mapping, Vec<Problem>), Problems> {
    let file: Arc<str> = path.display().to_string().into();
    let whole = |what: String| Problems::from(Problem::new(Place::File(Arc::clone(&file)), what));
    let bytes = (machine.read)(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| whole("not UTF-8".to_owned()))?;
    parse(&file, &text, strict)
}

/// The same of the text of a file.
///
/// # Errors
/// The same.
pub fn parse(
    file: &Arc<str>,
    text: &str,
    strict: bool,
) -> Result<(Mapping, Vec<Problem>), Problems> {
    let root = tree::parse_long(text).map_err(|malformed| {
        let place = match malformed.line {
            Some(line) => Place::Line(Arc::clone(file), line),
            None => Place::File(Arc::clone(file)),
        };
        Problem::new(place, malformed.what)
    })?;
    let mut reader = Reader { file, strict, report: Report::default() };
    let (rules, disable_ordering) = reader.file(&root);
    let Report { mut problems, mut warnings, .. } = reader.report;
    problems.sort();
    warnings.sort();
    match problems.is_empty() {
        true => Ok((Mapping::new(text, rules, disable_ordering), warnings)),
        false => Err(Problems { problems, warnings }),
    }
}

struct Reader<'a> {
    file: &'a Arc<str>,
    strict: bool,
    report: Report,
}

/// The entries of one mapping, each key once.
struct Fields<'n>(Vec<&'n Entry>);

impl<'n> Fields<'n> {
    fn get(&self, key: &str) -> Option<&'n Entry> {
        self.0.iter().copied().find(|entry| entry.key == key)
    }
}

impl Reader<'_> {
    fn problem(&self, line: u64, key: &str, what: &str) -> Problem {
        let place = Place::Line(Arc::clone(self.file), line);
        Problem { key: Some(key.to_owned()), ..Problem::new(place, what) }
    }

    fn refuse(&mut self, line: u64, key: &str, what: &str, accepted: &str) {
        let problem = self.problem(line, key, what);
        self.report.problems.push(Problem { accepted: Some(accepted.to_owned()), ..problem });
    }

    fn warn(&mut self, line: u64, key: &str, what: &str) {
        let problem = self.problem(line, key, what);
        self.report.warnings.push(problem);
    }

    /// Rules, and whether their order counts for nothing.
    fn file(&mut self, root: &Node) -> (Vec<Rule>, bool) {
        let none = (Vec::new(), false);
        let entries = match &root.value {
            Value::Null => return none,
            Value::Map(entries) => entries,
            Value::Text(_) | Value::List(_) => {
                let place = Place::File(Arc::clone(self.file));
                let problem = Problem::new(place, "not a mapping of keys to values");
                self.report.problems.push(problem);
                return none;
            }
        };
        let fields = self.fields(entries, &["defaults", "mappings"], &[]);
        let (mut by_regex, mut disable_ordering) = (false, false);
        if let Some(Entry { node, line, .. }) = fields.get("defaults") {
            match &node.value {
                Value::Null => {}
                Value::Map(entries) => {
                    let fields = self.fields(entries, &DEFAULTS, &WITHOUT_EFFECT);
                    by_regex = self.is_regex(&fields).unwrap_or(false);
                    disable_ordering = self.flag(&fields, "glob_disable_ordering");
                }
                _ => self.refuse(*line, "defaults", "not a mapping", "match_type: glob"),
            }
        }
        let mut rules = Vec::new();
        if let Some(Entry { node, line, .. }) = fields.get("mappings") {
            match &node.value {
                Value::Null => {}
                Value::List(items) => {
                    rules.extend(items.iter().filter_map(|item| self.rule(item, by_regex)));
                }
                _ => self.refuse(*line, "mappings", "not a list", "a list of rules"),
            }
        }
        self.find_repeated(&rules);
        (rules, disable_ordering)
    }

    /// Remarks on what is repeated, unknown, or known and without effect.
    fn fields<'n>(
        &mut self,
        entries: &'n [Entry],
        known: &[&str],
        without_effect: &[&str],
    ) -> Fields<'n> {
        let mut fields: Vec<&Entry> = Vec::new();
        for entry in entries {
            let Entry { key, line, .. } = entry;
            if fields.iter().any(|other| other.key == *key) {
                self.refuse(*line, key, "written twice", "each key once");
            } else if known.contains(&key.as_str()) {
                fields.push(entry);
            } else if without_effect.contains(&key.as_str()) {
                self.warn(*line, key, "has no effect here");
            } else {
                let names = known.iter().chain(without_effect).copied();
                let what = unknown::remark(key, names);
                let problem = self.problem(*line, key, &what);
                self.report.doubt(problem, self.strict);
            }
        }
        Fields(fields)
    }

    /// The text of a field, if it is there and not empty.
    fn text<'n>(&mut self, fields: &Fields<'n>, key: &str) -> Option<(&'n str, u64)> {
        let Entry { node, line, .. } = fields.get(key)?;
        match &node.value {
            Value::Null => None,
            Value::Text(text) => Some((text.as_str(), *line)).filter(|(text, _)| !text.is_empty()),
            Value::List(_) | Value::Map(_) => {
                self.refuse(*line, key, "not one value", "text");
                None
            }
        }
    }

    fn typed<T: Typed>(&mut self, fields: &Fields<'_>, key: &str) -> Option<T> {
        let (text, line) = self.text(fields, key)?;
        match T::read(text) {
            Ok(value) => Some(value),
            Err(what) => {
                self.refuse(line, key, what, T::ACCEPTED);
                None
            }
        }
    }

    fn flag(&mut self, fields: &Fields<'_>, key: &str) -> bool {
        self.typed(fields, key).unwrap_or(false)
    }

    /// The one of `words` that is written.
    fn word(&mut self, fields: &Fields<'_>, key: &str, words: &[&str]) -> Option<usize> {
        let (text, line) = self.text(fields, key)?;
        let place = words.iter().position(|word| *word == text);
        if place.is_none() {
            self.refuse(line, key, "not one of the known ones", &words.join(", "));
        }
        place
    }

    fn is_regex(&mut self, fields: &Fields<'_>) -> Option<bool> {
        self.word(fields, "match_type", &["glob", "regex"]).map(|place| place == 1)
    }

    fn rule(&mut self, item: &Node, by_regex: bool) -> Option<Rule> {
        let line = item.line;
        let Value::Map(entries) = &item.value else {
            self.refuse(line, "mappings", "an item that is not a mapping", "match: and name:");
            return None;
        };
        let fields = self.fields(entries, &RULE, &WITHOUT_EFFECT);
        let matcher = match self.is_regex(&fields).unwrap_or(by_regex) {
            true => self.regex(&fields, line).map(Matcher::Regex),
            false => self.glob(&fields, line).map(Matcher::Glob),
        };
        let types = MappedType::ALL.map(MappedType::as_str);
        let only = self.only(&fields, &types);
        let drops = self.word(&fields, "action", &["map", "drop"]) == Some(1);
        let honor_labels = self.flag(&fields, "honor_labels");
        let scale = self.typed(&fields, "scale");
        let name = match self.text(&fields, "name") {
            Some((text, line)) => self.name(text, line, matcher.as_ref()),
            // An empty one would be no better.
            None if drops => None,
            None => {
                self.refuse(line, "name", "a rule without one", "a name, or action: drop");
                None
            }
        };
        let labels = self.labels(&fields, matcher.as_ref());
        let action = match (drops, name) {
            (true, _) => Action::Drop,
            (false, name) => Action::Map {
                name: name?,
                labels,
                honor_labels,
                scale: scale.filter(|s| *s != 1.0),
            },
        };
        Some(Rule { line, matcher: matcher?, only, action })
    }

    /// `timer` is what observers were called before there were others.
    fn only(&mut self, fields: &Fields<'_>, types: &[&str]) -> Option<MappedType> {
        if let Some(("timer", _)) = self.text(fields, "match_metric_type") {
            return Some(MappedType::Observer);
        }
        let place = self.word(fields, "match_metric_type", types)?;
        Some(MappedType::ALL[place])
    }

    fn matched<'n>(&mut self, fields: &Fields<'n>, line: u64) -> Option<(&'n str, u64)> {
        let text = self.text(fields, "match");
        if text.is_none() {
            self.refuse(line, "match", "a rule without one", "a glob such as web.*.requests");
        }
        text
    }

    fn glob(&mut self, fields: &Fields<'_>, line: u64) -> Option<Box<str>> {
        let (text, line) = self.matched(fields, line)?;
        let accepted = "parts between dots, of which * is any one; or match_type: regex";
        for part in text.split('.') {
            let what = match part {
                "" => "an empty part",
                "*" => continue,
                part if part.contains('*') => "a * that is not a whole part",
                _ => continue,
            };
            self.refuse(line, "match", what, accepted);
            return None;
        }
        Some(text.into())
    }

    fn regex(&mut self, fields: &Fields<'_>, line: u64) -> Option<Regex> {
        let (text, line) = self.matched(fields, line)?;
        // As in Go, classes such as \d are of ASCII.
        let built = RegexBuilder::new(text).unicode(false).size_limit(MOST_OF_A_REGEX).build();
        match built {
            Ok(regex) => Some(regex),
            Err(error) => {
                // It quotes the expression above its last line.
                let text = error.to_string();
                let why = text.lines().last().unwrap_or("").trim_start_matches("error: ");
                let what = format!("not a regular expression: {why}");
                self.refuse(line, "match", &what, "one in the syntax of RE2");
                None
            }
        }
    }

    /// Says so if something in it stands for nothing.
    fn template(&mut self, text: &str, line: u64, key: &str, matcher: &Matcher) -> Template {
        let (template, lost) = match matcher {
            Matcher::Glob(glob) => {
                Template::of_glob(text, glob.split('.').filter(|part| *part == "*").count())
            }
            Matcher::Regex(regex) => {
                Template::of_regex(text, &regex.capture_names().collect::<Vec<_>>())
            }
        };
        for reference in lost {
            let what = format!("{reference} stands for nothing: the match has no such part");
            self.warn(line, key, &what);
        }
        template
    }

    fn name(&mut self, text: &str, line: u64, matcher: Option<&Matcher>) -> Option<Template> {
        let accepted = "letters, digits, _, :, - and dots, not a digit first; $1 and so on";
        let template = self.template(text, line, "name", matcher?);
        let is_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '-' | '.');
        let is_bad = !template.texts().all(|text| text.chars().all(is_char))
            || !template.begins_with_group()
                && text.starts_with(|c: char| !c.is_ascii_alphabetic() && c != '_');
        let what = match (template.is_empty(), is_bad) {
            (true, _) => "nothing is left of it",
            (false, true) => "not a name",
            (false, false) => return Some(template),
        };
        self.refuse(line, "name", what, accepted);
        None
    }

    fn labels(
        &mut self,
        fields: &Fields<'_>,
        matcher: Option<&Matcher>,
    ) -> Vec<(Box<str>, Template)> {
        let mut labels: Vec<(Box<str>, Template)> = Vec::new();
        let Some(Entry { node, line, .. }) = fields.get("labels") else { return labels };
        let entries = match &node.value {
            Value::Null => return labels,
            Value::Map(entries) => entries,
            Value::Text(_) | Value::List(_) => {
                self.refuse(*line, "labels", "not a mapping", "such as {code: $1}");
                return labels;
            }
        };
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for Entry { key, line, node } in entries {
            let text = match &node.value {
                Value::Text(text) => text.as_str(),
                Value::Null => "",
                Value::List(_) | Value::Map(_) => {
                    self.refuse(*line, "labels", "a label that is not one value", "text");
                    continue;
                }
            };
            if key.is_empty()
                || !key.chars().all(is_word)
                || key.starts_with(|c: char| c.is_ascii_digit())
            {
                let accepted = "labels of letters, digits and _, not a digit first";
                self.refuse(*line, "labels", "not a label", accepted);
            } else if labels.iter().any(|(known, _)| **known == **key) {
                self.refuse(*line, "labels", "a label written twice", "each one once");
            } else if let Some(matcher) = matcher {
                labels.push((key.as_str().into(), self.template(text, *line, "labels", matcher)));
            }
        }
        labels
    }

    /// Rules that come behind one that takes all their names.
    fn find_repeated(&mut self, rules: &[Rule]) {
        let mut seen: std::collections::HashMap<String, Vec<(Option<MappedType>, u64)>> =
            std::collections::HashMap::new();
        for Rule { line, matcher, only, .. } in rules {
            let kind = if matches!(matcher, Matcher::Glob(_)) { "glob" } else { "regex" };
            let earlier = seen.entry(format!("{kind} {matcher}")).or_default();
            let first = earlier.iter().find(|(of, _)| of.is_none() || of == only);
            match first.copied() {
                Some((_, first)) => {
                    let what = format!("never used: the rule of line {first} takes the same names");
                    self.warn(*line, "match", &what);
                }
                None => earlier.push((*only, *line)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
