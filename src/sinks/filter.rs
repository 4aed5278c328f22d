//! What of a flush a sink gets: chosen by name and tags, and without some tags.
//!
//! Metrics are chosen; events and service checks go to every sink that takes them. Tags are
//! taken off all three. A sink that filters nothing shares the batch with the others. Patterns
//! about tags are tried once for a series: its points stand together in a batch.

use std::sync::Arc;

use memchr::memmem;

use crate::config::settings::FilterSettings;
use crate::model::{FlushBatch, MetricKey, Pattern, Point, TagMatcher, TagSet};

/// A client's word about where a metric goes: `veneursinkonly:NAME`, once or several times. The
/// tag stays on the metric, as in Veneur 14.
const ONLY: &str = "veneursinkonly:";

/// Whether any metric of a batch names the sinks it is for.
pub fn is_routed(batch: &FlushBatch) -> bool {
    let finder = memmem::Finder::new(ONLY);
    let mut last: Option<&Arc<MetricKey>> = None;
    batch.points.iter().any(|point| {
        let is_known = last.is_some_and(|key| Arc::ptr_eq(key, &point.key));
        last = Some(&point.key);
        !is_known && finder.find(point.key.tags.as_str().as_bytes()).is_some()
    })
}

/// What one sink gets.
#[derive(Clone, Debug)]
pub struct Filter {
    sink: String,
    settings: FilterSettings,
}

/// What a series' tags say.
struct Verdict {
    /// As the sink gets it; `None`: not at all.
    key: Option<Arc<MetricKey>>,
    /// Whether a tag includes it.
    is_included: bool,
}

impl Filter {
    /// For the sink called `sink`.
    pub fn new(sink: &str, settings: FilterSettings) -> Filter {
        Filter { sink: sink.to_owned(), settings }
    }

    /// Whether a batch of which [`is_routed`] says this needs to be filtered.
    pub fn concerns(&self, is_routed: bool) -> bool {
        is_routed || self.settings != FilterSettings::default()
    }

    /// What the sink gets of a batch, and how many points it does not.
    pub fn apply(&self, batch: &FlushBatch) -> (FlushBatch, u64) {
        let mut points = Vec::new();
        let mut name = String::new();
        let mut last: Option<(&Arc<MetricKey>, Verdict)> = None;
        for point in &batch.points {
            let verdict = match last.take() {
                Some((key, verdict)) if Arc::ptr_eq(key, &point.key) => verdict,
                Some(_) | None => self.verdict(&point.key),
            };
            if let Some(key) = &verdict.key {
                let (first, suffix) = batch.name_of(point);
                let whole = match suffix {
                    "" => first,
                    suffix => {
                        name.clear();
                        name.extend([first, suffix]);
                        &name
                    }
                };
                if self.takes(whole, verdict.is_included) {
                    points.push(Point { key: Arc::clone(key), ..point.clone() });
                }
            }
            last = Some((&point.key, verdict));
        }
        let skipped = batch.points.len() - points.len();
        let mut batch = FlushBatch {
            at: batch.at,
            interval: batch.interval,
            suffixes: Arc::clone(&batch.suffixes),
            points,
            events: batch.events.clone(),
            checks: batch.checks.clone(),
            spans: Arc::clone(&batch.spans),
        };
        for event in &mut batch.events {
            self.strip(&mut event.tags);
        }
        for check in &mut batch.checks {
            self.strip(&mut check.tags);
        }
        (batch, skipped as u64)
    }

    /// Takes off the tags that the sink does not get.
    pub fn strip(&self, tags: &mut Vec<String>) {
        tags.retain(|tag| !self.strips(tag));
    }

    fn strips(&self, tag: &str) -> bool {
        self.settings.strip_tags.iter().any(|matcher: &TagMatcher| matcher.matches(tag))
    }

    fn verdict(&self, key: &Arc<MetricKey>) -> Verdict {
        let FilterSettings { include, exclude, strip_tags } = &self.settings;
        let fits = |pattern: &Pattern| match pattern {
            Pattern::Name(_) => false,
            Pattern::Tag(glob) => key.tags.iter().any(|tag| glob.matches_tag(tag)),
        };
        let is_included = include.is_empty() || include.iter().any(fits);
        if exclude.iter().any(fits) || !self.is_meant(&key.tags) {
            return Verdict { key: None, is_included };
        }
        let key = match !strip_tags.is_empty() && key.tags.iter().any(|tag| self.strips(tag)) {
            false => Arc::clone(key),
            true => {
                let kept = key.tags.iter().filter(|tag| !self.strips(tag));
                Arc::new(MetricKey { tags: TagSet::canonical(kept), ..MetricKey::clone(key) })
            }
        };
        Verdict { key: Some(key), is_included }
    }

    /// Whether a metric with these tags is for this sink.
    fn is_meant(&self, tags: &TagSet) -> bool {
        let mut named = tags.iter().filter_map(|tag| tag.strip_prefix(ONLY)).peekable();
        named.peek().is_none() || named.any(|name| name == self.sink)
    }

    /// Whether a metric of this name goes through, of whose tags it is known that they do not
    /// exclude it.
    fn takes(&self, name: &str, is_included: bool) -> bool {
        let fits = |pattern: &Pattern| match pattern {
            Pattern::Name(glob) => glob.matches(name),
            Pattern::Tag(_) => false,
        };
        (is_included || self.settings.include.iter().any(fits))
            && !self.settings.exclude.iter().any(fits)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{
        Dialect, Event, Glob, Interval, MetricKind, PointKind, Scope, Suffix, Suffixes, UnixSeconds,
    };

    /// Two timers of two points, and a counter with tags.
    fn batch() -> FlushBatch {
        let mut suffixes = Suffixes::default();
        let max = suffixes.add(".max").expect("there is room");
        let count = suffixes.add(".count").expect("there is room");
        let key = |name: &str, tags: &str| {
            let (kind, scope) = (MetricKind::Timer, Scope::Mixed);
            let tags = TagSet::canonical(tags.split(','));
            Arc::new(MetricKey {
                name: name.into(),
                tags,
                kind,
                scope,
                dialect: Dialect::DogStatsD,
            })
        };
        let (load, page) = (key("db.load", "env:dev,pod:1"), key("web.page", "env:prod"));
        let hits = key("web.hits", "env:prod,pod:2,veneursinkonly:b,veneursinkonly:c");
        let of = |key: &Arc<MetricKey>, suffix| Point {
            key: Arc::clone(key),
            value: 1.0,
            at: UnixSeconds(1),
            kind: PointKind::Gauge,
            suffix,
        };
        let none = Suffix::NONE;
        FlushBatch {
            at: UnixSeconds(1),
            interval: Interval::new(Duration::from_secs(1)).expect("not zero"),
            suffixes: Arc::new(suffixes),
            points: vec![
                of(&load, max),
                of(&load, count),
                of(&page, max),
                of(&page, count),
                of(&hits, none),
            ],
            events: vec![Event { tags: vec!["pod:1".into(), "x".into()], ..Event::default() }],
            checks: Vec::new(),
            spans: Default::default(),
        }
    }

    fn filter(sink: &str, include: &[&str], exclude: &[&str], strip: &[&str]) -> Filter {
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text)).collect();
        let strip_tags = strip.iter().map(|text| TagMatcher::Glob(Glob::new(text))).collect();
        let (include, exclude) = (patterns(include), patterns(exclude));
        Filter::new(sink, FilterSettings { include, exclude, strip_tags })
    }

    fn shown(batch: &FlushBatch) -> String {
        let name = |point: &Point| {
            let (name, suffix) = batch.name_of(point);
            format!("{name}{suffix}#{}", point.key.tags.as_str())
        };
        batch.points.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn metrics_are_chosen_by_name_and_tags() {
        let of_load = "db.load.max#env:dev,pod:1 db.load.count#env:dev,pod:1";
        for (include, exclude, chosen) in [
            (&["db.*"][..], &[][..], of_load.to_owned()),
            (&["#env:dev"], &[], of_load.to_owned()),
            (&["#pod"], &[], of_load.to_owned()),
            (&["*.max"], &["web.*"], "db.load.max#env:dev,pod:1".to_owned()),
            (&[], &["#env:d*"], "web.page.max#env:prod web.page.count#env:prod".to_owned()),
            (&["#env:dev", "*.count"], &[], format!("{of_load} web.page.count#env:prod")),
            (&["nothing"], &[], String::new()),
        ] {
            let (left, skipped) = filter("a", include, exclude, &[]).apply(&batch());
            assert_eq!(shown(&left), chosen, "{include:?} {exclude:?}");
            assert_eq!(left.points.len() as u64 + skipped, 5);
            assert_eq!(left.events.len(), 1);
        }
    }

    #[test]
    fn a_metric_may_name_its_sinks() {
        assert!(is_routed(&batch()));
        for (sink, takes) in [("a", false), ("b", true), ("c", true), ("bc", false)] {
            let filter = filter(sink, &[], &[], &[]);
            assert!(filter.concerns(true) && !filter.concerns(false));
            let (left, skipped) = filter.apply(&batch());
            assert_eq!(shown(&left).contains("web.hits"), takes, "{sink}");
            assert_eq!(skipped, u64::from(!takes));
        }
    }

    #[test]
    fn tags_are_taken_off() {
        let (left, skipped) =
            filter("b", &["*.max", "web.hits"], &[], &["pod", "env:p*"]).apply(&batch());
        assert_eq!(
            shown(&left),
            "db.load.max#env:dev web.page.max# web.hits#veneursinkonly:b,veneursinkonly:c"
        );
        assert_eq!((skipped, left.events[0].tags.as_slice()), (2, &["x".to_owned()][..]));
    }
}
