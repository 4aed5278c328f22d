//! What a node makes of datagrams, without sockets.

use std::collections::BTreeMap;
use std::time::Duration;

use veneur::aggregate::shard::Entry;
use veneur::aggregate::{Class, ContextLimits, KeyHasher, Ops, Plan, Shard, render};
use veneur::config::settings::{
    EtsyNames, GraphiteAddress, GraphiteLayout, GraphiteProtocol, GraphiteSettings,
};
use veneur::model::{
    ClassicRules, Dialect, EtsyStatistics, ExtendTags, FlushBatch, Interval, MetricKey, Role,
    UnixSeconds,
};
use veneur::protocol::classic::{Sample, brubeck, etsy};
use veneur::protocol::dogstatsd::lines;
use veneur::sinks::graphite::render::Renderer;

/// How a node is configured.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) rules: ClassicRules,
    pub(crate) statistics: EtsyStatistics,
    pub(crate) names: EtsyNames,
    pub(crate) role: Option<Role>,
    pub(crate) limits: Option<ContextLimits>,
}

fn shard(role: Role, limits: ContextLimits, rules: ClassicRules) -> Shard {
    Shard::with_limits(role, ExtendTags::default(), limits, 0)
        .with_classic(rules)
        .keeping_values(true)
}

/// One worker's shard, behind a listener with a dialect.
pub(crate) struct Node {
    dialect: Dialect,
    hasher: KeyHasher,
    shard: Shard,
    made: (Role, ContextLimits, ClassicRules),
    /// What the last flush left for a next process.
    kept: Vec<Entry>,
    plan: Plan,
    interval: Interval,
    settings: GraphiteSettings,
    /// Lines refused.
    pub(crate) refused: u64,
}

impl Node {
    pub(crate) fn new(dialect: Dialect) -> Node {
        Node::with(dialect, &Options::default())
    }

    pub(crate) fn with(dialect: Dialect, options: &Options) -> Node {
        let role = options.role.unwrap_or(Role::Global);
        let limits = options.limits.unwrap_or(ContextLimits::NONE);
        let interval = Interval::new(Duration::from_secs(10)).expect("not zero");
        let plan = Plan::new(role, &[], &[]).with_etsy(&options.statistics).over(interval);
        Node {
            dialect,
            hasher: KeyHasher::random(),
            shard: shard(role, limits, options.rules),
            made: (role, limits, options.rules),
            kept: Vec::new(),
            plan,
            interval,
            settings: GraphiteSettings {
                address: GraphiteAddress::Tcp(String::new()),
                protocol: GraphiteProtocol::Plaintext,
                layout: match dialect {
                    Dialect::Etsy => GraphiteLayout::Etsy,
                    Dialect::DogStatsD | Dialect::Brubeck => GraphiteLayout::Brubeck,
                },
                prefix: String::new(),
                names: options.names.clone(),
            },
            refused: 0,
        }
    }

    /// Takes one datagram.
    pub(crate) fn take(&mut self, datagram: &str) {
        let buffer = datagram.as_bytes();
        let mut ops = Ops::default();
        let hasher = self.hasher;
        let mut push = |class, sample: &Sample<'_>| {
            ops.push_classic(hasher, buffer, class, sample).expect("it is short");
        };
        for line in lines(buffer) {
            let read = match self.dialect {
                Dialect::Brubeck => brubeck::read(line, |it| push(Class::Brubeck, it)),
                _ => etsy::read(line, |it| push(Class::of_etsy(it.recorder), it)),
            };
            self.refused += u64::from(read.is_err());
        }
        self.shard.apply(&ops, buffer);
    }

    /// Ends the interval: paths and values.
    pub(crate) fn flush(&mut self) -> BTreeMap<String, f64> {
        let mut snapshot = self.shard.take_snapshot();
        self.kept = std::mem::take(&mut snapshot.kept);
        let rendered = render(snapshot, &self.plan, UnixSeconds(0));
        assert!(rendered.forwards.is_empty(), "classic series are finished here");
        let batch = FlushBatch {
            at: UnixSeconds(0),
            interval: self.interval,
            suffixes: self.plan.suffixes().clone(),
            points: rendered.points,
            events: Vec::new(),
            checks: Vec::new(),
            spans: Vec::new().into(),
        };
        let node = veneur::sinks::Node { host: Some("elsewhere".into()), tags: Vec::new() };
        let mut renderer = Renderer::new(&self.settings, &node);
        let mut paths = BTreeMap::new();
        for point in &batch.points {
            let is_named = renderer.render(&batch, point, |path, value| {
                let path = str::from_utf8(path).expect("paths are UTF-8").to_owned();
                let before = paths.insert(path.clone(), value);
                assert_eq!(before, None, "{path} comes once");
            });
            assert!(is_named, "{point:?}");
        }
        paths
    }

    /// Another process goes on after the last flush.
    pub(crate) fn restart(&mut self) {
        let (role, limits, rules) = self.made;
        self.shard = shard(role, limits, rules);
        for (key, held) in self.kept.drain(..) {
            self.shard.restore_value(MetricKey::clone(&key), &held);
        }
    }

    /// Series it knows.
    pub(crate) fn series(&self) -> usize {
        self.shard.series()
    }
}
