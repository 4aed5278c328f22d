use proptest::prelude::*;

use super::*;
use crate::model::Scope;

fn rule(line: usize, pattern: &str, only: Option<MappedType>, name: &str) -> Rule {
    let stars = pattern.split('.').filter(|part| *part == "*").count();
    let matcher = match pattern.strip_prefix('~') {
        Some(regex) => Matcher::Regex(Regex::new(regex).expect("the tests write good ones")),
        None => Matcher::Glob(pattern.into()),
    };
    let name = match &matcher {
        Matcher::Glob(_) => Template::of_glob(name, stars).0,
        Matcher::Regex(regex) => {
            Template::of_regex(name, &regex.capture_names().collect::<Vec<_>>()).0
        }
    };
    let action = Action::Map { name, labels: Vec::new(), honor_labels: false, scale: None };
    Rule { line: line as u64, matcher, only, action }
}

/// Rules with globs, and regular expressions behind a `~`.
fn mapping(patterns: &[(&str, &str)], disable_ordering: bool) -> Mapping {
    let rules = patterns.iter().enumerate();
    let rules = rules.map(|(line, (pattern, name))| rule(line, pattern, None, name)).collect();
    Mapping::new("", rules, disable_ordering)
}

#[test]
fn the_first_glob_that_fits_wins_and_every_glob_comes_before_a_regular_expression() {
    let mapping = mapping(
        &[
            ("~.", "regex"),
            ("a.*", "one_$1"),
            ("a.b", "never"),
            ("*.b.*", "two_${2}_$1"),
            ("c.b.d", "late"),
            ("c", "single"),
            ("~^x\\.(?P<rest>[^.]+)", "late_$rest"),
        ],
        false,
    );
    for (name, mapped) in [
        ("a.b", Some("one_b")),
        ("a.", Some("one_")),
        ("a", Some("regex")),
        ("c.b.d", Some("two_d_c")),
        ("c", Some("single")),
        ("x.y", Some("regex")),
        ("", None),
        // The daemon's own.
        ("veneur.a", None),
    ] {
        assert_eq!(mapping.rename(name, None).as_deref(), mapped, "{name}");
    }
}

#[test]
fn without_ordering_the_most_specific_glob_from_the_left_wins() {
    let patterns = [("*.*.c", "stars"), ("a.*.*", "one"), ("a.*.c", "two"), ("a.b.*", "three")];
    for (disable_ordering, of) in [(false, ["stars", "one"]), (true, ["three", "one"])] {
        let mapping = mapping(&patterns, disable_ordering);
        let rename = |name| mapping.rename(name, None).expect("one fits");
        assert_eq!([rename("a.b.c"), rename("a.x.y")], of.map(str::to_owned));
    }
    let mapping = mapping(&patterns, true);
    assert_eq!(mapping.rename("a.x.c", None).as_deref(), Some("two"), "not the first one");
    assert_eq!(mapping.rename("x.x.c", None).as_deref(), Some("stars"));
}

#[test]
fn a_rule_for_a_type_is_about_samples_of_that_type() {
    use MappedType::{Counter, Gauge, Observer};
    let rules = vec![
        rule(0, "a.*", Some(Counter), "counter"),
        rule(1, "a.*", Some(Gauge), "gauge"),
        rule(2, "~b", Some(Observer), "observer"),
        rule(3, "~a", None, "any"),
    ];
    let mapping = Mapping::new("", rules, false);
    for (name, of, mapped) in [
        ("a.b", Some(Counter), "counter"),
        ("a.b", Some(Gauge), "gauge"),
        ("a.b", Some(Observer), "observer"),
        ("a.b", None, "any"),
        ("a.c", Some(Observer), "any"),
    ] {
        assert_eq!(mapping.rename(name, of).as_deref(), Some(mapped), "{name} {of:?}");
    }
    let of = MappedType::of;
    assert_eq!(of(MetricKind::Timer, Dialect::Etsy), Some(Observer));
    assert_eq!(of(MetricKind::Set, Dialect::DogStatsD), None);
    assert_eq!(of(MetricKind::Counter, Dialect::Brubeck), None);
}

#[test]
fn labels_replace_tags_unless_these_are_honoured_and_extend_tags_win_over_both() {
    let extend = ExtendTags::new(vec!["env:prod".to_owned()]);
    let key = |name: &str, tags: &[&str]| MetricKey {
        name: name.into(),
        tags: TagSet::canonical(tags.iter().copied()),
        kind: MetricKind::Counter,
        scope: Scope::Mixed,
        dialect: Dialect::DogStatsD,
    };
    for (honor, tags) in
        [(false, ["az:1", "code:b_c", "env:prod"]), (true, ["az:1", "code:200", "env:prod"])]
    {
        let mut rule = rule(0, "a.*.*", None, "n");
        if let Action::Map { labels, honor_labels, .. } = &mut rule.action {
            *honor_labels = honor;
            *labels = [("code", "$1"), ("env", "dev"), ("none", "$2")]
                .map(|(label, value)| (label.into(), Template::of_glob(value, 2).0))
                .into();
        }
        let mapping = Mapping::new("", vec![rule], false);
        let mapped = mapping.apply(key("a.b,c.", &["az:1", "code:200", "env:prod"]), &extend);
        assert_eq!(mapped, Mapped::Series { key: key("n", &tags), rule: Some(0) });
    }
}

fn pattern() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab*]", 1..4).prop_map(|parts| parts.join("."))
}

proptest! {
    /// The tree gives the rule that asking all of them in the order of the file gives.
    #[test]
    fn the_tree_finds_what_asking_one_by_one_finds(
        patterns in proptest::collection::vec((pattern(), 0..4usize), 0..12),
        name in "[abc]?(\\.[abc]?){0,3}",
        of in 0..4usize,
    ) {
        let kind = |n: usize| MappedType::ALL.get(n).copied();
        let rules: Vec<Rule> = patterns
            .iter()
            .enumerate()
            .map(|(line, (pattern, only))| rule(line, pattern, kind(*only), "n"))
            .collect();
        let fits = |rule: &Rule| {
            let Matcher::Glob(glob) = &rule.matcher else { return false };
            let (parts, of_name) = (glob.split('.'), name.split('.'));
            parts.clone().count() == of_name.clone().count()
                && parts.zip(of_name).all(|(part, of_name)| part == "*" || part == of_name)
                && (rule.only.is_none() || rule.only == kind(of))
        };
        let first = rules.iter().position(fits);
        prop_assert_eq!(Mapping::new("", rules.clone(), false).find(&name, kind(of)), first);
        // Of several, `*` counts as the last letter.
        let glob = |rule: &Rule| match &rule.matcher {
            Matcher::Glob(glob) => glob.replace('*', "~"),
            Matcher::Regex(_) => String::new(),
        };
        let fitting = rules.iter().enumerate().filter(|(_, rule)| fits(rule));
        let specific = fitting.min_by_key(|(index, rule)| (glob(rule), *index)).map(|(i, _)| i);
        prop_assert_eq!(Mapping::new("", rules.clone(), true).find(&name, kind(of)), specific);
    }
}

#[test]
fn what_a_rule_multiplies_stays_a_number() {
    assert_eq!(scaled(250.0, 0.001), 0.25);
    assert_eq!(scaled(1e306, 1e3), f64::MAX);
    assert_eq!(scaled(-1e306, 1e3), f64::MIN);
}
