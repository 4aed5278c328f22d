//! What becomes of classic series from one interval to the next.

use std::collections::BTreeMap;

use veneur::aggregate::ContextLimits;
use veneur::model::{ClassicRules, Dialect, Idle, Role};

use crate::node::{Node, Options};

fn paths(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|(path, value)| ((*path).to_owned(), *value)).collect()
}

fn with(rules: ClassicRules) -> Options {
    Options { rules, ..Options::default() }
}

const ALL: &str = "c:5|c\ng:7|g\nt:3|ms\ns:x|s";

#[test]
fn etsys_series_are_emitted_without_samples() {
    let mut node = Node::new(Dialect::Etsy);
    node.take(ALL);
    assert_eq!(node.flush().len(), 2 + 1 + 14 + 1);
    let idle = paths(&[
        ("stats.c", 0.0),
        ("stats_counts.c", 0.0),
        ("stats.gauges.g", 7.0),
        ("stats.timers.t.count", 0.0),
        ("stats.timers.t.count_ps", 0.0),
        ("stats.sets.s.count", 0.0),
    ]);
    for flush in 0..100 {
        assert_eq!(node.flush(), idle, "flush {flush}");
    }
    node.take("g:-3|g\nc:1|c");
    let again = node.flush();
    assert_eq!((again["stats.gauges.g"], again["stats_counts.c"]), (4.0, 1.0));
}

#[test]
fn etsys_idle_series_are_forgotten_where_that_is_asked_for() {
    let mut node = Node::with(
        Dialect::Etsy,
        &with(ClassicRules {
            etsy_counters: Idle::NEVER,
            etsy_gauges: Idle(1),
            etsy_timers: Idle::NEVER,
            etsy_sets: Idle::NEVER,
            ..ClassicRules::default()
        }),
    );
    node.take(ALL);
    assert_eq!(node.flush().len(), 18);
    assert_eq!(node.flush(), paths(&[("stats.gauges.g", 7.0)]));
    assert_eq!(node.flush(), paths(&[]));
    node.take("g:+1|g");
    assert_eq!(node.flush(), paths(&[("stats.gauges.g", 1.0)]), "it starts anew");
}

#[test]
fn brubecks_totals_and_gauges_outlive_the_flush() {
    let mut node = Node::new(Dialect::Brubeck);
    node.take("jobs:1000|C\nrunning:3|g\nm:4|c");
    assert_eq!(node.flush(), paths(&[("jobs", 0.0), ("running", 3.0), ("m", 4.0)]));
    assert_eq!(node.flush(), paths(&[("jobs", 0.0), ("running", 3.0), ("m", 0.0)]));
    node.take("jobs:1020|C\nrunning:+2|g");
    assert_eq!(node.flush(), paths(&[("jobs", 20.0), ("running", 5.0), ("m", 0.0)]));
    node.take("jobs:5|C\njobs:6|C");
    assert_eq!(node.flush(), paths(&[("jobs", 6.0), ("running", 5.0), ("m", 0.0)]));
}

#[test]
fn brubecks_series_expire_and_are_remembered() {
    let mut node = Node::with(
        Dialect::Brubeck,
        &with(ClassicRules { brubeck: Idle(1), ..Default::default() }),
    );
    node.take("jobs:1000|C\nrunning:3|g\nt:1|ms");
    assert_eq!(node.flush().len(), 2 + 12);
    let once_more =
        paths(&[("jobs", 0.0), ("running", 3.0), ("t.count", 0.0), ("t.count_ps", 0.0)]);
    assert_eq!(node.flush(), once_more);
    for _ in 0..100 {
        assert_eq!(node.flush(), paths(&[]));
    }
    node.take("jobs:1007|C\nrunning:-1|g");
    assert_eq!(node.flush(), paths(&[("jobs", 7.0), ("running", 2.0)]));
}

#[test]
fn the_first_type_of_a_name_stays_in_brubeck_from_one_interval_to_the_next() {
    let mut node = Node::new(Dialect::Brubeck);
    node.take("k:5|c");
    node.flush();
    // So many spellings of other names that those learnt are forgotten.
    for n in 0..10_000 {
        node.take(&format!("other.{n}:1|c"));
    }
    node.take("k:7|g\nk:2|c");
    assert_eq!(node.flush()["k"], 9.0);
}

#[test]
fn a_step_that_would_lead_to_infinity_is_not_taken() {
    let mut node = Node::new(Dialect::Brubeck);
    node.take("g:1e308|g\ng:+1e308|g\nn:1e308|C\nn:1e308|C|@0.1\nn:1e308|C");
    assert_eq!(node.flush(), paths(&[("g", 1e308), ("n", 0.0)]));
}

#[test]
fn classic_series_are_finished_at_a_node_that_forwards() {
    for role in [Role::Local, Role::LocalToV1] {
        for dialect in [Dialect::Etsy, Dialect::Brubeck] {
            let options = Options { role: Some(role), ..Options::default() };
            let mut node = Node::with(dialect, &options);
            node.take("c:1|c\ng:1|g\nt:1|ms\ns:1|s\nt:1|ms|#veneurglobalonly");
            // That nothing is forwarded is asserted there.
            assert!(node.flush().len() >= 14, "{dialect:?} {role:?}");
        }
    }
}

/// Series that are kept count against the limit, and idle ones make room where it is reached.
#[test]
fn kept_series_stay_within_the_limit() {
    const MOST: usize = 1_000;
    let limits = ContextLimits { contexts: MOST, ..ContextLimits::NONE };
    let mut node =
        Node::with(Dialect::Brubeck, &Options { limits: Some(limits), ..Options::default() });
    let mut had_room = Vec::new();
    for round in 0..20 {
        node.take("steady:1|c");
        for n in 0..MOST {
            node.take(&format!("job.{round}.{n}:1|C"));
        }
        let flushed = node.flush();
        assert_eq!(flushed["steady"], 1.0);
        let new = format!("job.{round}.");
        let is_new = |path: &&String| path.starts_with(&new) && !path.contains("overflow");
        had_room.push(flushed.keys().filter(is_new).count() > MOST / 2);
        // Overflow series are besides: a sixteenth, and a last one for each kind.
        assert!(node.series() <= MOST + MOST / 16 + 64, "{}", node.series());
    }
    assert!(had_room[18..].contains(&true), "idle ones make room: {had_room:?}");
}

/// Totals of several counters cannot be compared with each other: where there is no room they
/// count nothing, and the meters beside them count all.
#[test]
fn totals_that_fold_count_nothing_and_counters_all() {
    let limits = ContextLimits { contexts: 1, ..ContextLimits::NONE };
    let mut node =
        Node::with(Dialect::Brubeck, &Options { limits: Some(limits), ..Options::default() });
    node.take("room:1|c");
    for n in 0..500 {
        node.take(&format!("total.{n}:{}|C\nmeter.{n}:1|c", n * 1_000));
    }
    let flushed = node.flush();
    let folded: f64 =
        flushed.iter().filter(|(path, _)| *path != "room").map(|(_, value)| value).sum();
    assert_eq!(folded, 500.0, "{flushed:?}");
}
