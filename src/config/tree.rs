//! YAML text as a tree of text, with the line of everything.
//!
//! Nothing is typed here: `0123`, `yes` and `1_000` stay as they are written, because only the
//! key knows whether it wants a name or a number. That is what lets one pass over the tree
//! report every wrong type at once.
//!
//! Input may be hostile: nesting, aliases and sizes have limits, and no message quotes the
//! text, which may hold secrets. Only this file names the YAML crate.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    DuplicateKeyPolicy, Error as YamlError, MessageFormatter, NonFiniteFloatPolicy, Options,
    Spanned, UserMessageFormatter,
};

/// The longest value, aliases expanded: a certificate chain is far below.
const MAX_VALUE_BYTES: usize = 64 << 10;

/// A value and the line it starts on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// From 1.
    pub(super) line: u64,
    /// What is there.
    pub(super) value: Value,
}

impl Node {
    /// Whether it asks for nothing: no value, an empty one, 0 or false, or only such items.
    /// Files that tools print are full of these.
    pub(super) fn is_off(&self) -> bool {
        match &self.value {
            Value::Null => true,
            Value::Text(text) => matches!(text.as_str(), "" | "0" | "0s" | "false" | "no" | "off"),
            Value::List(items) => items.iter().all(Node::is_off),
            Value::Map(entries) => entries.iter().all(|entry| entry.node.is_off()),
        }
    }
}

/// What a YAML node holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A scalar: as written if it is plain, decoded if it is quoted.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order written; a key may be there twice.
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// The key.
    pub(super) key: String,
    /// Line of the key, from 1.
    pub(super) line: u64,
    /// Its value.
    pub(super) node: Node,
}

/// Why a text is not YAML that we read.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed {
    /// Where, if that is known.
    pub(super) line: Option<u64>,
    /// What is wrong; quotes nothing.
    pub(super) what: String,
}

/// Reads one YAML document. An empty one is [`Value::Null`].
///
/// # Errors
/// The first place that is not YAML, or goes beyond the limits.
pub(super) fn parse(text: &str) -> Result<Node, Malformed> {
    parse_up_to(5_000, text)
}

/// The same of a file that may be long: one of thousands of rules.
pub(super) fn parse_long(text: &str) -> Result<Node, Malformed> {
    parse_up_to(500_000, text)
}

fn parse_up_to(max_nodes: usize, text: &str) -> Result<Node, Malformed> {
    match serde_saphyr::from_str_with_options::<Spanned<Parsed>>(text, options(max_nodes)) {
        Ok(root) => Ok(node(root, text)),
        Err(error) => Err(malformed(&error)),
    }
}

fn options(max_nodes: usize) -> Options {
    serde_saphyr::options! {
        // Quoted lines around an error would show secrets.
        with_snippet: false,
        // For a generic tree this policy hands over every entry: we see the repetition.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        // Whether infinity will do is for the key to say.
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        budget: serde_saphyr::budget! {
            max_depth: 16,
            max_nodes: max_nodes,
            max_events: 2 * max_nodes,
            max_anchors: 100,
            max_aliases: 100,
            max_documents: 2,
            max_merge_keys: 100,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 1_000,
            max_replay_stack_depth: 8,
        },
    }
}

fn malformed(error: &YamlError) -> Malformed {
    // An error inside an alias: its own place is that of the alias.
    let cause = match error {
        YamlError::AliasError { error, .. } => error.as_ref(),
        _ => error,
    };
    let what = match cause {
        YamlError::Budget { .. }
        | YamlError::AliasReplayCounterOverflow { .. }
        | YamlError::AliasReplayLimitExceeded { .. }
        | YamlError::AliasExpansionLimitExceeded { .. }
        | YamlError::AliasReplayStackDepthExceeded { .. } => {
            "too deep, too long or too many aliases for a configuration".to_owned()
        }
        YamlError::MultipleDocuments { .. } => "a second YAML document begins here".to_owned(),
        _ => format!("not valid YAML: {}", UserMessageFormatter.format_message(cause)),
    };
    let line = error.location().map(|location| location.line()).filter(|line| *line > 0);
    Malformed { line, what }
}

/// A value as the YAML crate hands it over, before its text is looked up.
enum Parsed {
    Null,
    /// A plain scalar that looks like a boolean or a number: its text is in the source.
    Plain,
    Text(String),
    List(Vec<Spanned<Parsed>>),
    Map(Vec<(Spanned<String>, Spanned<Parsed>)>),
}

fn node(spanned: Spanned<Parsed>, text: &str) -> Node {
    let value = match spanned.value {
        Parsed::Null => Value::Null,
        Parsed::Plain => {
            let span = spanned.defined.span();
            let at = span.byte_offset().and_then(|at| usize::try_from(at).ok());
            let length = span.byte_len().and_then(|length| usize::try_from(length).ok());
            let slice = at.zip(length).and_then(|(at, length)| text.get(at..at + length));
            Value::Text(slice.unwrap_or_default().to_owned())
        }
        Parsed::Text(text) => Value::Text(text),
        Parsed::List(items) => {
            Value::List(items.into_iter().map(|item| node(item, text)).collect())
        }
        Parsed::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| Entry {
                    line: key.referenced.line(),
                    key: key.value,
                    node: node(value, text),
                })
                .collect(),
        ),
    };
    Node { line: spanned.referenced.line(), value }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_any(ParsedVisitor)
    }
}

struct ParsedVisitor;

impl<'de> Visitor<'de> for ParsedVisitor {
    type Value = Parsed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Parsed, E> {
        Ok(Parsed::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Parsed, E> {
        Ok(Parsed::Plain)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Parsed, E> {
        Ok(Parsed::Plain)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Parsed, E> {
        Ok(Parsed::Plain)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Parsed, E> {
        Ok(Parsed::Plain)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Parsed, E> {
        if text.len() > MAX_VALUE_BYTES {
            return Err(E::custom("a value longer than 64 KiB"));
        }
        Ok(Parsed::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Parsed, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Parsed::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Parsed, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Parsed::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as one line: text in quotes, the line of keys and items behind an `@`.
    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Text(text) => format!("{text:?}"),
            Value::List(items) => {
                let items: Vec<_> =
                    items.iter().map(|item| format!("{}@{}", shown(item), item.line)).collect();
                format!("[{}]", items.join(" "))
            }
            Value::Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|entry| format!("{}@{}: {}", entry.key, entry.line, shown(&entry.node)))
                    .collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    #[test]
    fn scalars_keep_their_text_and_everything_its_line() {
        for (text, tree) in [
            ("", "null"),
            ("# nothing\n", "null"),
            ("a: 0123\nb: yes\nc: 1_000\n", "{a@1: \"0123\" b@2: \"yes\" c@3: \"1_000\"}"),
            ("a: 1e999\nb: .nan\nc: 0x1F\n", "{a@1: \"1e999\" b@2: \".nan\" c@3: \"0x1F\"}"),
            ("a: 99999999999999999999", "{a@1: \"99999999999999999999\"}"),
            ("a: ~\nb:\nc: ''\n", "{a@1: null b@2: null c@3: \"\"}"),
            ("a: \"x\\ny\"\nb: 'it''s'\n", "{a@1: \"x\\ny\" b@2: \"it's\"}"),
            ("a: |\n  x\n  y\nb: 1", "{a@1: \"x\\ny\\n\" b@4: \"1\"}"),
            ("a:\n  - 1.50\n  - x\n", "{a@1: [\"1.50\"@2 \"x\"@3]}"),
            ("a:\n  b: {c: 1}\n", "{a@1: {b@2: {c@2: \"1\"}}}"),
            ("a: 1\na: 2\n", "{a@1: \"1\" a@2: \"2\"}"),
            ("1: 2", "{1@1: \"2\"}"),
            ("ä: ö\nb: 7", "{ä@1: \"ö\" b@2: \"7\"}"),
            ("x: &a 007\ny: *a\n", "{x@1: \"007\" y@2: \"007\"}"),
            ("- 1", "[\"1\"@1]"),
        ] {
            let node = parse(text).expect(text);
            assert_eq!(shown(&node), tree, "{text}");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_off() {
        for (text, off) in [
            ("", true),
            ("{a: '', b: 0, c: false, d: 0s, e: ~}", true),
            ("[[], {}, {a: {b: []}}, '']", true),
            ("{a: '', b: 1}", false),
            ("[0, [x]]", false),
            ("true", false),
        ] {
            assert_eq!(parse(text).expect(text).is_off(), off, "{text}");
        }
    }

    #[test]
    fn what_is_not_yaml_is_named_with_its_line_and_without_its_text() {
        for (text, line, what) in [
            ("a: 1\nb: [", Some(2), "not valid YAML: unclosed bracket '['"),
            (
                "a: 1\n b: 2",
                Some(2),
                "not valid YAML: mapping values are not allowed in this context",
            ),
            ("key: *hunter2", Some(1), "not valid YAML: reference to unknown value"),
            ("key: 'hunter2", Some(1), "not valid YAML: unclosed quote"),
            ("a: 1\n---\nb: 2", Some(3), "a second YAML document begins here"),
            ("? [hunter2]\n: 1\n", Some(1), "not valid YAML: expected string scalar"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.line, error.what.as_str()), (line, what), "{text}");
        }
    }

    #[test]
    fn hostile_sizes_are_refused() {
        let levels: String =
            (1..12).map(|n| format!("l{n}: &l{n} [*l{0},*l{0},*l{0},*l{0}]\n", n - 1)).collect();
        let bomb = format!("l0: &l0 [x,x,x,x]\n{levels}");
        let wide = "a: 1\n".repeat(100_000);
        let copies = format!("a: &a '{}'\nb: [{}]", "x".repeat(60_000), "*a,".repeat(200));
        for text in [
            bomb,
            wide,
            copies,
            "[".repeat(100_000),
            "{a: ".repeat(100_000),
            "a:\n".to_owned() + &(1..200).map(|n| " ".repeat(n) + "a:\n").collect::<String>(),
            format!("a: {}", "x".repeat(70_000)),
            "- ".repeat(100_000),
        ] {
            assert!(parse(&text).is_err(), "{:.40}", text);
        }
    }
}
