//! Rules that make names with tags of dotted names: the mapping language of Prometheus's
//! statsd_exporter.
//!
//! Globs are asked first, all of them at once; then the regular expressions, one after the
//! other. Of the globs that fit, the one written first wins, or, where the file asks for it
//! (`glob_disable_ordering`), the one that is most specific from the left.
//!
//! Source: <https://github.com/prometheus/statsd_exporter>, its README and `pkg/mapper`.

mod template;
mod trie;

use std::fmt;
use std::sync::Arc;

use regex::bytes::Regex;

use crate::model::tags::key_of;
use crate::model::{Dialect, ExtendTags, MetricKey, MetricKind, TagSet};
use trie::Trie;

pub use template::Template;

/// Names that begin so are the daemon's own, and stay as they are.
const OWN_PREFIX: &str = "veneur.";

/// A mapping file, compiled.
#[derive(Clone)]
pub struct Mapping {
    source: Arc<str>,
    rules: Vec<Rule>,
    globs: Trie,
    /// The rules with a regular expression.
    regexes: Vec<usize>,
}

/// What a mapping file says of some names.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where it is written, from 1.
    pub line: u64,
    /// Which names.
    pub matcher: Matcher,
    /// Samples of this type alone.
    pub only: Option<MappedType>,
    /// What becomes of them.
    pub action: Action,
}

/// Which names a rule is about.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// Those with as many parts between dots; `*` is any one part.
    Glob(Box<str>),
    /// Those in which it is found.
    Regex(Regex),
}

/// What becomes of a name.
#[derive(Clone, Debug)]
pub enum Action {
    /// Its samples are left out.
    Drop,
    /// It is called otherwise.
    Map {
        /// How; what comes out empty leaves the name as it is.
        name: Template,
        /// Tags it gets, in the order of the file; an empty value is no tag.
        labels: Vec<(Box<str>, Template)>,
        /// Tags of the same key that a client has sent stay, instead of being replaced.
        honor_labels: bool,
        /// Values are multiplied by this.
        scale: Option<f64>,
    },
}

/// What rules call the types of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappedType {
    /// A counter.
    Counter,
    /// A gauge.
    Gauge,
    /// A histogram, timer or distribution.
    Observer,
}

impl MappedType {
    /// All of them.
    pub const ALL: [MappedType; 3] = [MappedType::Counter, MappedType::Gauge, MappedType::Observer];

    /// Its word in a mapping file.
    pub const fn as_str(self) -> &'static str {
        match self {
            MappedType::Counter => "counter",
            MappedType::Gauge => "gauge",
            MappedType::Observer => "observer",
        }
    }

    /// The type of series of this kind in this dialect. Sets have none, nor have brubeck's
    /// series, which are found by their name alone: only rules for every type are about them.
    pub const fn of(kind: MetricKind, dialect: Dialect) -> Option<MappedType> {
        match (dialect, kind) {
            (Dialect::Brubeck, _) | (_, MetricKind::Set) => None,
            (_, MetricKind::Counter) => Some(MappedType::Counter),
            (_, MetricKind::Gauge) => Some(MappedType::Gauge),
            (_, MetricKind::Histogram | MetricKind::Timer | MetricKind::Distribution) => {
                Some(MappedType::Observer)
            }
        }
    }
}

/// What a mapping makes of a series.
#[derive(Clone, Debug, PartialEq)]
pub enum Mapped {
    /// It is this one.
    Series {
        /// Its key.
        key: MetricKey,
        /// The rule, if there is one for it.
        rule: Option<usize>,
    },
    /// Its samples are left out, as this rule says.
    Dropped {
        /// Which one.
        rule: usize,
    },
}

/// A value times the factor of a rule. Where that is more than a number can be it is the largest
/// there is: nothing infinite may get into an aggregate.
pub fn scaled(value: f64, factor: f64) -> f64 {
    (value * factor).clamp(f64::MIN, f64::MAX)
}

impl Mapping {
    /// From the rules of a file, in its order, and its text, by which two mappings are compared.
    pub fn new(source: &str, rules: Vec<Rule>, disable_ordering: bool) -> Mapping {
        let mut globs = Trie::new(disable_ordering);
        let mut regexes = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            match &rule.matcher {
                Matcher::Glob(glob) => globs.add(glob, index, rule.only),
                Matcher::Regex(_) => regexes.push(index),
            }
        }
        Mapping { source: source.into(), rules, globs, regexes }
    }

    /// Its rules, in the order of the file.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The rule for a name with samples of this type, by its number.
    pub fn find(&self, name: &str, of: Option<MappedType>) -> Option<usize> {
        if name.starts_with(OWN_PREFIX) {
            return None;
        }
        let fits = |&index: &usize| {
            let Rule { matcher, only, .. } = &self.rules[index];
            let Matcher::Regex(regex) = matcher else { return false };
            (only.is_none() || *only == of) && regex.is_match(name.as_bytes())
        };
        self.globs.find(name, of).or_else(|| self.regexes.iter().copied().find(fits))
    }

    /// What samples of this name become, with the new name; `None` if no rule is about it.
    pub fn rename(&self, name: &str, of: Option<MappedType>) -> Option<String> {
        let rule = &self.rules[self.find(name, of)?];
        match &rule.action {
            Action::Drop => None,
            Action::Map { name: template, .. } => {
                Some(template.expand(&rule.groups(name))).filter(|name| !name.is_empty())
            }
        }
    }

    /// What becomes of a series, whose tags `extend` is laid over.
    pub fn apply(&self, key: MetricKey, extend: &ExtendTags) -> Mapped {
        let of = MappedType::of(key.kind, key.dialect);
        let Some(index) = self.find(&key.name, of) else {
            return Mapped::Series { key, rule: None };
        };
        let rule = &self.rules[index];
        let (name, labels, honor_labels) = match &rule.action {
            Action::Drop => return Mapped::Dropped { rule: index },
            Action::Map { name, labels, honor_labels, .. } => (name, labels, *honor_labels),
        };
        let groups = rule.groups(&key.name);
        let labels: Vec<String> = labels
            .iter()
            .map(|(label, value)| (label, value.expand(&groups)))
            .filter(|(label, value)| !value.is_empty() && !extend.overrides(label))
            // A comma would make two tags of it.
            .map(|(label, value)| format!("{label}:{}", value.replace(',', "_")))
            .collect();
        let tags = laid_over(&key.tags, &labels, honor_labels, key.dialect);
        let name = match name.expand(&groups) {
            empty if empty.is_empty() => key.name.clone(),
            name => name.into(),
        };
        Mapped::Series { key: MetricKey { name, tags, ..key }, rule: Some(index) }
    }

    /// What a rule multiplies values by, if it does.
    pub fn scale(&self, rule: usize) -> Option<f64> {
        match self.rules[rule].action {
            Action::Map { scale, .. } => scale,
            Action::Drop => None,
        }
    }
}

/// Tags with labels, of which one of each key stays.
fn laid_over(tags: &TagSet, labels: &[String], honor: bool, dialect: Dialect) -> TagSet {
    if labels.is_empty() {
        return tags.clone();
    }
    let has = |tag: &str| labels.iter().any(|label| key_of(label) == key_of(tag));
    let is_there = |label: &str| tags.iter().any(|tag| key_of(tag) == key_of(label));
    let kept = tags.iter().filter(|tag| honor || !has(tag));
    let added = labels.iter().map(String::as_str).filter(|label| !honor || !is_there(label));
    let all = kept.chain(added);
    match dialect.is_classic() {
        true => TagSet::as_given(all.map(str::to_owned)),
        false => TagSet::canonical(all),
    }
}

impl Rule {
    /// What its match has caught in a name: first the whole of it.
    fn groups<'n>(&self, name: &'n str) -> Vec<&'n str> {
        match &self.matcher {
            Matcher::Glob(glob) => {
                let parts = glob.split('.').zip(name.split('.'));
                let caught = parts.filter(|(part, _)| *part == "*").map(|(_, caught)| caught);
                std::iter::once(name).chain(caught).collect()
            }
            Matcher::Regex(regex) => {
                let Some(caught) = regex.captures(name.as_bytes()) else { return Vec::new() };
                // Of a group that ends within a character nothing is left.
                let text = |bytes: regex::bytes::Match<'n>| str::from_utf8(bytes.as_bytes()).ok();
                caught.iter().map(|group| group.and_then(text).unwrap_or("")).collect()
            }
        }
    }
}

/// By their text.
impl PartialEq for Mapping {
    fn eq(&self, other: &Mapping) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rules).finish()
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Matcher::Glob(glob) => f.write_str(glob),
            Matcher::Regex(regex) => f.write_str(regex.as_str()),
        }
    }
}

#[cfg(test)]
mod tests;
