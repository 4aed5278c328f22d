//! From a tree, or the environment, to [`Raw`]: each key found in the table of keys, typed, and
//! remarked on if it is unknown, repeated, or for a feature this build lacks.

use std::sync::Arc;

use super::problem::{Place, Problem, Report, Source};
use super::raw::{ROWS, Raw, Row, is_of, names};
use super::reading::Reading;
use super::settings::Program;
use super::tree::{Entry, Node, Value};
use super::unknown;

/// How much of an unknown key a message shows: it may be anything.
const MOST_OF_A_NAME: usize = 60;

/// Fills a [`Raw`] from one origin: a file, or the environment.
pub(super) struct Reader<'a> {
    /// What is filled.
    pub(super) raw: &'a mut Raw,
    /// Where problems and warnings go.
    pub(super) report: &'a mut Report,
    /// Whose configuration it is.
    pub(super) program: Program,
    /// Whether unknown and repeated keys are problems.
    strict: bool,
    /// What this origin has given.
    seen: Vec<Seen>,
}

/// A key that was given.
struct Seen {
    /// What it is.
    row: &'static Row,
    /// The name it was written by.
    key: &'static str,
    /// Where.
    place: Place,
    /// Whether its value asked for nothing.
    is_off: bool,
}

impl<'a> Reader<'a> {
    /// A reader of one origin.
    pub(super) fn new(
        program: Program,
        raw: &'a mut Raw,
        report: &'a mut Report,
        strict: bool,
    ) -> Reader<'a> {
        Reader { raw, report, program, strict, seen: Vec::new() }
    }

    /// Reads the tree of `file`.
    pub(super) fn file(&mut self, root: &Node, file: &Arc<str>) {
        match &root.value {
            Value::Null => {}
            Value::Map(entries) => self.entries("", entries, file),
            Value::Text(_) | Value::List(_) => self.report.problems.push(Problem {
                accepted: Some("lines such as interval: 10s".to_owned()),
                ..Problem::new(Place::File(file.clone()), "not a mapping of keys to values")
            }),
        }
    }

    fn entries(&mut self, prefix: &str, entries: &[Entry], file: &Arc<str>) {
        for Entry { key, line, node } in entries {
            let place = Place::Line(file.clone(), *line);
            let name = format!("{prefix}{key}");
            if let Some((row, key)) = names().find(|(_, known)| *known == name) {
                self.set(row, key, place, node);
                continue;
            }
            match (section(&name), &node.value) {
                (Some(_), Value::Null) => {}
                (Some(section), Value::Map(entries)) => {
                    self.entries(&format!("{section}."), entries, file);
                }
                (Some(section), Value::Text(_) | Value::List(_)) => {
                    let source = Source { place, key: section, shown: None };
                    self.report.refuse(&source, "not a mapping", keys_of(section));
                }
                (None, _) if node.is_off() && unknown::is_foreign(&name) => {}
                (None, _) => {
                    let what = unknown::remark(&name, names().map(|(_, name)| name));
                    let name = name.escape_debug().take(MOST_OF_A_NAME).collect();
                    self.doubt(Problem { key: Some(name), ..Problem::new(place, what) });
                }
            }
        }
    }

    /// Reads one value, written by the name `key`.
    pub(super) fn set(&mut self, row: &'static Row, key: &'static str, place: Place, node: &Node) {
        if node.value == Value::Null {
            return;
        }
        let is_off = node.is_off();
        if let Some(first) = self.seen.iter().rev().find(|seen| seen.row.name == row.name) {
            let is_alias = first.key != key;
            // Veneur's own examples set one name of a key and leave the other empty.
            if is_alias && is_off {
                return;
            }
            if !(is_alias && first.is_off) {
                let what =
                    format!("given again after {} ({}); this one counts", first.key, first.place);
                self.doubt(Problem {
                    key: Some(key.to_owned()),
                    ..Problem::new(place.clone(), what)
                });
            }
        }
        let (quote, strict) = (row.quote, self.strict);
        let mut read =
            Reading { quote, strict, key, place: place.clone(), node, report: self.report };
        (row.set)(self.raw, &mut read);
        let remark = match row.later {
            Some(feature) => Some(format!("this build has no {feature} yet; it has no effect")),
            None if is_of(self.program, row.name) => None,
            None => Some(format!("without effect in a {}", self.program.as_str())),
        };
        if let Some(remark) = remark.filter(|_| !is_off) {
            let source = read.source();
            self.report.warn(&source, remark);
        }
        self.seen.push(Seen { row, key, place, is_off });
    }

    /// A problem if strict, else a warning.
    fn doubt(&mut self, problem: Problem) {
        self.report.doubt(problem, self.strict);
    }
}

/// The section `name` is, if it is one.
fn section(name: &str) -> Option<&'static str> {
    ROWS.iter()
        .filter_map(|row| row.name.split_once('.'))
        .map(|(section, _)| section)
        .find(|section| *section == name)
}

/// The keys of a section, for messages.
fn keys_of(section: &str) -> String {
    let keys = ROWS.iter().filter_map(|row| row.name.strip_prefix(section)?.strip_prefix('.'));
    format!("a mapping with the keys {}", keys.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;
    use std::time::Duration;

    fn read(text: &str, strict: bool) -> (Raw, Report) {
        let (mut raw, mut report) = (Raw::default(), Report::default());
        let root = tree::parse(text).expect("the tests write YAML");
        Reader::new(Program::Daemon, &mut raw, &mut report, strict).file(&root, &"v.yaml".into());
        (raw, report)
    }

    fn lines(problems: &[Problem]) -> Vec<String> {
        problems.iter().map(Problem::to_string).collect()
    }

    #[test]
    fn several_wrong_types_are_reported_at_once() {
        let (_, report) = read(
            "interval: 10\nnum_workers: many\ntags: a\npercentiles: [0.5, x,\n y]\ndebug: [1]\n\
             http: true\nhostname: {a: b}\nextend_tags: [[a]]\n",
            false,
        );
        assert_eq!(
            lines(&report.problems),
            [
                "v.yaml:1: interval: \"10\": no unit behind the number; accepted: a duration such \
                 as 10s, 500ms or 1m30s",
                "v.yaml:2: num_workers: \"many\": not a whole number; accepted: a whole number \
                 such as 4",
                "v.yaml:3: tags: \"a\": not a list; accepted: a list such as [one, two]",
                "v.yaml:4: percentiles: \"x\": not a number; accepted: a number such as 0.99",
                "v.yaml:5: percentiles: \"y\": not a number; accepted: a number such as 0.99",
                "v.yaml:6: debug: a list where one value belongs; accepted: true or false",
                "v.yaml:7: http: not a mapping; accepted: a mapping with the keys config, token, \
                 tls_certificate, tls_key, tls_authority_certificate",
                "v.yaml:8: hostname: a mapping where one value belongs; accepted: text",
                "v.yaml:9: extend_tags: an item that is not one value; accepted: a list such as \
                 [one, two]",
            ]
        );
        assert_eq!(lines(&report.warnings), [""; 0]);
    }

    #[test]
    fn unknown_keys_are_named_without_their_values_and_are_errors_if_strict() {
        let text = "intervall: hunter2\nhttp:\n  confg: hunter2\nkafka_broker: hunter2\n";
        let expected = [
            "v.yaml:1: intervall: unknown key, it has no effect; did you mean interval?",
            "v.yaml:3: http.confg: unknown key, it has no effect; did you mean http.config?",
            "v.yaml:4: kafka_broker: a key of Veneur that this build does not have; it has no \
             effect",
        ];
        let (_, report) = read(text, false);
        assert_eq!(lines(&report.warnings), expected);
        assert_eq!(lines(&report.problems), [""; 0]);
        let (_, report) = read(text, true);
        assert_eq!(lines(&report.problems), expected);
    }

    #[test]
    fn of_a_repeated_key_the_last_counts_and_that_is_said() {
        let (raw, report) = read("key: a\ninterval: 1s\ndatadog_api_key: b\ninterval: 2s\n", false);
        assert_eq!(raw.key.map(|given| given.value).as_deref(), Some("b"));
        assert_eq!(raw.interval.map(|given| given.value), Some(Duration::from_secs(2)));
        let expected = [
            "v.yaml:3: datadog_api_key: given again after key (v.yaml:1); this one counts",
            "v.yaml:4: interval: given again after interval (v.yaml:2); this one counts",
        ];
        assert_eq!(lines(&report.warnings), expected);
        assert_eq!(lines(&read("debug: 1\ndebug: 1", true).1.problems).len(), 1);
    }

    #[test]
    fn an_empty_alias_does_not_count_against_the_name_that_is_set() {
        for text in ["datadog_api_key: a\nkey: ''\n", "key: ''\ndatadog_api_key: a\n"] {
            let (raw, report) = read(text, true);
            assert_eq!(raw.key.map(|given| given.value).as_deref(), Some("a"), "{text}");
            assert_eq!(lines(&report.problems), [""; 0]);
        }
        let (raw, _) = read("key: a\nkey: ''\n", false);
        assert_eq!(raw.key.map(|given| given.value).as_deref(), Some(""));
    }

    #[test]
    fn foreign_keys_that_ask_for_nothing_are_not_remarked_on() {
        let (_, report) = read("features: {a: false}\nkafka_broker: ''\nsources: []\n", true);
        assert_eq!(lines(&report.problems), [""; 0]);
        assert_eq!(lines(&read("colour: ''", true).1.problems).len(), 1);
    }

    #[test]
    fn a_key_for_a_later_feature_is_checked_and_says_so_if_it_is_set() {
        let (_, report) = read(
            "aws_secret_access_key: hunter2\naws_s3_bucket: b\n\
             enable_profiling: false\naws_region:\n",
            true,
        );
        assert_eq!(lines(&report.problems), [""; 0]);
        assert_eq!(
            lines(&report.warnings),
            [
                "v.yaml:1: aws_secret_access_key: this build has no S3 yet; it has no effect",
                "v.yaml:2: aws_s3_bucket: \"b\": this build has no S3 yet; it has no effect",
            ]
        );
        let (_, report) = read("enable_profiling: perhaps\n", false);
        assert_eq!(report.problems.len(), 1);
    }

    #[test]
    fn a_key_without_a_value_is_as_if_it_were_not_there() {
        let (raw, report) = read("interval:\nhttp:\ntags: ~\nconnections:\n  max:\n", true);
        assert!(raw.interval.is_none() && raw.tags.is_none() && raw.connections_max.is_none());
        assert_eq!(lines(&report.problems), [""; 0]);
    }

    #[test]
    fn the_top_level_must_be_a_mapping() {
        let (_, report) = read("hunter2", false);
        assert_eq!(
            lines(&report.problems),
            ["v.yaml: not a mapping of keys to values; accepted: lines such as interval: 10s"]
        );
    }
}
