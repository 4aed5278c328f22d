//! `ignore_tags` and `strip_tags`: a list of rules about tags, each a mapping, or in the latter a
//! word.

use super::problem::Source;
use super::reading::{Given, Reading};
use super::tree::{Node, Value};
use crate::model::{Glob, TagMatcher};

const ACCEPTED: &str =
    "a list such as [{kind: prefix, value: \"host:\"}]; kinds are any, exact, prefix and substring";

const ACCEPTED_WITH_WORDS: &str = "a list such as [pod, \"env:dev*\"]";

/// The rules that can be read, the others reported; `None` if it is no list: that is reported,
/// too.
pub(super) fn read(read: &mut Reading<'_>) -> Option<Vec<Given<TagMatcher>>> {
    read_items(read, matcher, ACCEPTED)
}

/// As [`read`], where an item may also be a word: a glob for a tag or its key.
pub(super) fn read_with_words(read: &mut Reading<'_>) -> Option<Vec<Given<TagMatcher>>> {
    let word_or_matcher = |item: &Node| match &item.value {
        Value::Text(text) => Ok(TagMatcher::Glob(Glob::new(text))),
        Value::Null | Value::List(_) | Value::Map(_) => matcher(item),
    };
    read_items(read, word_or_matcher, ACCEPTED_WITH_WORDS)
}

fn read_items(
    read: &mut Reading<'_>,
    matcher: impl Fn(&Node) -> Result<TagMatcher, &'static str>,
    accepted: &str,
) -> Option<Vec<Given<TagMatcher>>> {
    let Value::List(items) = &read.node.value else {
        read.report.refuse(&read.source(), "not a list", accepted);
        return None;
    };
    let mut matchers = Vec::new();
    for item in items {
        let place = read.place.at_line(item.line);
        let source = Source { place, key: read.key, shown: None };
        match matcher(item) {
            Ok(value) => matchers.push(Given { value, source }),
            Err(what) => read.report.refuse(&source, what, accepted),
        }
    }
    Some(matchers)
}

fn matcher(item: &Node) -> Result<TagMatcher, &'static str> {
    let Value::Map(entries) = &item.value else { return Err("an item that is not a mapping") };
    let (mut kind, mut text) = ("", "");
    for entry in entries {
        match (entry.key.as_str(), &entry.node.value) {
            ("kind", Value::Text(value)) => kind = value,
            ("value", Value::Text(value)) => text = value,
            // Of Veneur's sinks: it says nothing about which tags are meant.
            ("unset", _) | (_, Value::Null) => {}
            _ => return Err("an item with something else than kind and value"),
        }
    }
    match (kind, text) {
        ("any", _) => Ok(TagMatcher::Any),
        ("exact" | "prefix" | "substring", "") => Err("an item without a value"),
        ("exact", text) => Ok(TagMatcher::Exact(text.to_owned())),
        ("prefix", text) => Ok(TagMatcher::Prefix(text.to_owned())),
        ("substring", text) => Ok(TagMatcher::Substring(text.to_owned())),
        ("regex", _) => Err("an item of kind regex, which this build does not have"),
        _ => Err("an item of an unknown kind"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tree;

    fn read(text: &str) -> Result<TagMatcher, &'static str> {
        matcher(&tree::parse(text).expect("the tests write YAML"))
    }

    #[test]
    fn a_rule_is_a_mapping_of_kind_and_value() {
        let host = || "host:".to_owned();
        for (text, rule) in [
            ("{kind: any}", Ok(TagMatcher::Any)),
            ("{kind: exact, value: 'host:'}", Ok(TagMatcher::Exact(host()))),
            ("{kind: prefix, value: 'host:', unset: false}", Ok(TagMatcher::Prefix(host()))),
            ("{value: 'host:', kind: substring}", Ok(TagMatcher::Substring(host()))),
            ("{kind: prefix}", Err("an item without a value")),
            (
                "{kind: regex, value: h}",
                Err("an item of kind regex, which this build does not have"),
            ),
            ("{value: h}", Err("an item of an unknown kind")),
            ("{kind: any, colour: red}", Err("an item with something else than kind and value")),
            ("host", Err("an item that is not a mapping")),
        ] {
            assert_eq!(read(text), rule, "{text}");
        }
    }
}
