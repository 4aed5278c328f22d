//! `sinks`: a list of mappings, each a sink. Which settings there are is in a table for each kind.
//!
//! A kind is a [`Kind`] of [`KINDS`]: its name, its rows, which put what was written into a
//! [`RawSink`], and its validator, which makes [`SinkKind`] of it. Keys of earlier times that mean
//! a sink (`key`, `influx_address`) fill a [`RawSink`], too (`validate::sinks`). `metric_sinks` is Veneur 14's
//! name for the list; its `config`, a mapping within the entry, is read as if it were the entry.

use std::time::Duration;

use super::matchers;
use super::problem::{Problem, Report, Source};
use super::raw::{Many, One, RowOf};
use super::reading::Reading;
use super::settings::SinkKind;
use super::tree::{self, Entry, Node, Value};
use super::unknown;
use super::validate::{datadog, file, graphite, influxdb, traces};
use crate::model::TagMatcher;

const ACCEPTED: &str = "a list such as [{kind: console}]";
/// How much of an unknown name a message shows: it may be anything.
const MOST_OF_A_NAME: usize = 60;

/// One setting of a sink.
pub(super) type Setting = RowOf<RawSink>;

/// A kind of sink.
pub(super) struct Kind {
    /// Its word in the configuration.
    pub(super) name: &'static str,
    /// Veneur 14's word.
    aliases: &'static [&'static str],
    /// Its settings, beside those of every sink.
    pub(super) rows: &'static [Setting],
    /// Checks them; reports what is wrong.
    pub(super) validate: fn(&RawSink, &mut Report) -> Option<SinkKind>,
}

/// All kinds.
pub(super) static KINDS: [&Kind; 6] = [&DATADOG, &GRAPHITE, &INFLUXDB, &FILE, &TRACES, &CONSOLE];

/// Settings that every sink has, beside `kind`.
pub(super) static OF_ALL: &[Setting] = &[
    Setting::new("name", |sink, read| sink.name = read.one()),
    Setting::new("include", |sink, read| sink.include = read.many()),
    Setting::new("exclude", |sink, read| sink.exclude = read.many()),
    Setting::new("strip_tags", |sink, read| sink.strip_tags = matchers::read_with_words(read)),
];

pub(super) static DATADOG: Kind = Kind {
    name: "datadog",
    aliases: &[],
    rows: &[
        Setting::new("key", |sink, read| sink.key = read.one()).also(&["api_key"]).secret(),
        Setting::new("api_hostname", |sink, read| sink.address = read.one()).url(),
        Setting::new("flush_max_per_body", |sink, read| sink.max_per_body = read.one()),
        Setting::new("key_in_query", |sink, read| sink.key_in_query = read.one()),
    ],
    validate: datadog::sink,
};

pub(super) static GRAPHITE: Kind = Kind {
    name: "graphite",
    aliases: &[],
    rows: &[
        Setting::new("address", |sink, read| sink.address = read.one()),
        Setting::new("protocol", |sink, read| sink.protocol = read.one()),
        Setting::new("layout", |sink, read| sink.layout = read.one()),
        Setting::new("prefix", |sink, read| sink.prefix = read.one()),
    ],
    validate: graphite::sink,
};

pub(super) static INFLUXDB: Kind = Kind {
    name: "influxdb",
    aliases: &[],
    rows: &[
        Setting::new("address", |sink, read| sink.address = read.one()).url(),
        Setting::new("database", |sink, read| sink.database = read.one()),
        Setting::new("retention_policy", |sink, read| sink.retention_policy = read.one()),
        Setting::new("consistency", |sink, read| sink.consistency = read.one()),
        Setting::new("user", |sink, read| sink.user = read.one()),
        Setting::new("password", |sink, read| sink.password = read.one()).secret(),
        Setting::new("org", |sink, read| sink.org = read.one()),
        Setting::new("bucket", |sink, read| sink.bucket = read.one()),
        Setting::new("token", |sink, read| sink.token = read.one()).secret(),
        Setting::new("layout", |sink, read| sink.layout = read.one()),
    ],
    validate: influxdb::sink,
};

pub(super) static FILE: Kind = Kind {
    name: "file",
    aliases: &["localfile"],
    rows: &[
        Setting::new("path", |sink, read| sink.path = read.one()).also(&["flush_file"]),
        Setting::new("max_bytes", |sink, read| sink.max_bytes = read.one()),
        Setting::new("max_age", |sink, read| sink.max_age = read.one()),
        Setting::new("keep", |sink, read| sink.keep = read.one()),
    ],
    validate: file::sink,
};

pub(super) static TRACES: Kind = Kind {
    name: "traces",
    aliases: &[],
    rows: &[
        Setting::new("address", |sink, read| sink.address = read.one()).url(),
        Setting::new("format", |sink, read| sink.format = read.one()),
    ],
    validate: traces::sink,
};

pub(super) static CONSOLE: Kind = Kind {
    name: "console",
    aliases: &["debug"],
    rows: &[Setting::new("own", |sink, read| sink.own = read.one())],
    validate: |sink, _| {
        Some(SinkKind::Console { own: sink.own.as_ref().is_some_and(|it| it.value) })
    },
};

/// What was written about one sink, typed: those of its fields that its kind has.
#[derive(Debug)]
pub(super) struct RawSink {
    pub(super) kind: &'static Kind,
    /// Where it was written.
    pub(super) source: Source,
    pub(super) name: One<String>,
    pub(super) include: Many<String>,
    pub(super) exclude: Many<String>,
    pub(super) strip_tags: Many<TagMatcher>,
    pub(super) address: One<String>,
    pub(super) protocol: One<String>,
    pub(super) format: One<String>,
    pub(super) layout: One<String>,
    pub(super) prefix: One<String>,
    pub(super) database: One<String>,
    pub(super) retention_policy: One<String>,
    pub(super) consistency: One<String>,
    pub(super) user: One<String>,
    pub(super) password: One<String>,
    pub(super) org: One<String>,
    pub(super) bucket: One<String>,
    pub(super) token: One<String>,
    pub(super) path: One<String>,
    pub(super) max_bytes: One<u64>,
    pub(super) max_age: One<Duration>,
    pub(super) keep: One<u64>,
    pub(super) key: One<String>,
    pub(super) key_in_query: One<bool>,
    pub(super) max_per_body: One<u64>,
    pub(super) own: One<bool>,
}

impl RawSink {
    /// One of which nothing else was written.
    pub(super) fn new(kind: &'static Kind, source: Source) -> RawSink {
        RawSink {
            kind,
            source,
            name: None,
            include: None,
            exclude: None,
            strip_tags: None,
            address: None,
            protocol: None,
            format: None,
            layout: None,
            prefix: None,
            database: None,
            retention_policy: None,
            consistency: None,
            user: None,
            password: None,
            org: None,
            bucket: None,
            token: None,
            path: None,
            max_bytes: None,
            max_age: None,
            keep: None,
            key: None,
            key_in_query: None,
            max_per_body: None,
            own: None,
        }
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every setting of a sink of this kind.
pub(super) fn rows_of(kind: &Kind) -> impl Iterator<Item = &'static Setting> {
    OF_ALL.iter().chain(kind.rows)
}

/// The sinks that can be read, the rest reported; `None` if it is no list: that is reported, too.
/// In an environment variable the list is written as YAML.
pub(super) fn read(read: &mut Reading<'_>) -> Option<Vec<RawSink>> {
    let (node, place) = (read.node, read.place.clone());
    let parsed = match (&node.value, place.line()) {
        (Value::Text(text), None) => match tree::parse(text) {
            Ok(parsed) => parsed,
            Err(malformed) => {
                read.report.refuse(&read.source(), malformed.what, ACCEPTED);
                return None;
            }
        },
        (_, _) => node.clone(),
    };
    match &parsed.value {
        Value::Null => Some(Vec::new()),
        Value::List(items) => Some(items.iter().filter_map(|item| sink(read, item)).collect()),
        Value::Text(_) | Value::Map(_) => {
            read.report.refuse(&read.source(), "not a list", ACCEPTED);
            None
        }
    }
}

fn sink(list: &mut Reading<'_>, item: &Node) -> Option<RawSink> {
    let source = Source { place: list.place.at_line(item.line), key: list.key, shown: None };
    let Value::Map(entries) = &item.value else {
        list.report.refuse(&source, "an item that is not a mapping", ACCEPTED);
        return None;
    };
    let entries: Vec<&Entry> = entries.iter().flat_map(with_config).collect();
    let kind = kind_of(list, &source, &entries)?;
    let mut sink = RawSink::new(kind, source);
    let mut seen: Vec<&str> = Vec::new();
    let settings = entries.iter().filter(|entry| entry.key != "kind");
    for Entry { key, line, node } in settings.filter(|entry| entry.node.value != Value::Null) {
        let place = list.place.at_line(*line);
        let names = || {
            rows_of(kind).flat_map(|row| [row.name].into_iter().chain(row.aliases.iter().copied()))
        };
        let row = rows_of(kind).find(|row| row.name == key || row.aliases.contains(&key.as_str()));
        let Some(row) = row else {
            let nearest = unknown::nearest(key, names());
            let meant = nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            let what = format!("no setting of kind {}, it has no effect{meant}", kind.name);
            let key = Some(key.escape_debug().take(MOST_OF_A_NAME).collect());
            list.report.doubt(Problem { key, ..Problem::new(place, what) }, list.strict);
            continue;
        };
        if seen.contains(&row.name) {
            let key = Some(row.name.to_owned());
            let again =
                Problem { key, ..Problem::new(place.clone(), "given again; this one counts") };
            list.report.doubt(again, list.strict);
        }
        seen.push(row.name);
        let (quote, strict, key) = (row.quote, list.strict, row.name);
        (row.set)(&mut sink, &mut Reading { quote, strict, key, place, node, report: list.report });
    }
    Some(sink)
}

/// What is in `config` is in the entry.
fn with_config(entry: &Entry) -> &[Entry] {
    match (entry.key.as_str(), &entry.node.value) {
        ("config", Value::Map(entries)) => entries,
        ("config", Value::Null) => &[],
        _ => std::slice::from_ref(entry),
    }
}

/// The kind an entry names; reports if it names none.
fn kind_of(list: &mut Reading<'_>, source: &Source, entries: &[&Entry]) -> Option<&'static Kind> {
    let names = || KINDS.into_iter().map(|kind| kind.name);
    let given = entries.iter().rev().find(|entry| entry.key == "kind");
    let Some((line, Value::Text(text))) = given.map(|entry| (entry.line, &entry.node.value)) else {
        let accepted = format!("kind: {}", names().collect::<Vec<_>>().join(", "));
        list.report.refuse(source, "a sink without a kind", accepted);
        return None;
    };
    let found =
        KINDS.into_iter().find(|kind| kind.name == text || kind.aliases.contains(&text.as_str()));
    if found.is_none() {
        let shown = Some(format!("{:?}", text.chars().take(MOST_OF_A_NAME).collect::<String>()));
        let source = Source { place: list.place.at_line(line), key: "kind", shown };
        if list.key == "metric_sinks" {
            list.report
                .warn(&source, "a kind of sink that this build does not have; it has no effect");
        } else {
            let nearest = unknown::nearest(text, names());
            let meant = nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            let accepted = names().collect::<Vec<_>>().join(", ");
            list.report.refuse(&source, format!("unknown kind of sink{meant}"), accepted);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::machine::Machine;

    /// The part of example.yaml that is behind `#   sinks:`, without the `#`.
    fn example() -> String {
        let lines = include_str!("../../example.yaml").lines();
        let lines = lines.skip_while(|line| *line != "#   sinks:");
        let lines = lines.map_while(|line| line.strip_prefix("#   "));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_lists_every_setting_of_every_kind_in_our_order() {
        let root = tree::parse(&example()).expect("the example is YAML");
        let Value::Map(entries) = &root.value else { panic!("it is a mapping") };
        let Value::List(sinks) = &entries[0].node.value else { panic!("it is a list") };
        let mut kinds = Vec::new();
        for sink in sinks {
            let Value::Map(entries) = &sink.value else { panic!("a sink is a mapping") };
            let Value::Text(kind) = &entries[0].node.value else { panic!("its kind is first") };
            kinds.push(kind.as_str());
            let of_all: Vec<&str> = OF_ALL.iter().map(|row| row.name).collect();
            let given = entries[1..].iter().map(|entry| entry.key.as_str());
            let given: Vec<&str> = given.filter(|name| !of_all.contains(name)).collect();
            let kind = KINDS.iter().find(|known| known.name == kind).expect("a kind");
            let known: Vec<&str> = kind.rows.iter().map(|row| row.name).collect();
            assert_eq!(given, known, "{}", kind.name);
        }
        assert_eq!(kinds, KINDS.map(|kind| kind.name));
        assert!(OF_ALL.iter().all(|row| example().contains(&format!("{}:", row.name))));
        let loaded = crate::config::parse("v.yaml", &example(), [], true, &Machine::this());
        loaded.unwrap_or_else(|problems| panic!("{problems}"));
    }
}
