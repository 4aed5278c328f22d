//! How many series a shard may hold, and what becomes of samples that would make more.
//!
//! A new series for which there is no room is *folded*: its samples go to the overflow series
//! of its name, kind and scope, tagged [`OVERFLOW_TAG`], so that totals stay right. Where there
//! are too many names even for that, they go to [`OVERFLOW_NAME`]. What a shard holds is then
//! bounded whatever clients send: [`Census`] has the rooms, [`refused`] remembers which
//! spellings fold so that not every sample of them is sorted and looked up anew.
//!
//! Known series never come here: a shard asks when it learns one. What their digests and sets
//! take is bounded in [`super::memory`].

mod census;
mod folded;
pub(super) mod refused;
#[cfg(test)]
mod tests;

use std::num::NonZeroUsize;

use crate::model::{ExtendTags, MetricKey, MetricKind, TagSet};

pub(super) use census::{Census, Room};
pub(super) use folded::FoldCounts;
pub use folded::{Folded, FoldedName};

/// The tag of every series that stands for others.
pub const OVERFLOW_TAG: &str = "veneur_overflow:true";
/// The name of the series that stands for those of names there is no room for.
pub const OVERFLOW_NAME: &str = "veneur.overflow";
/// Overflow series: one for each so many series, and a few at least.
const CONTEXTS_PER_OVERFLOW: usize = 16;
const MIN_OVERFLOWS: usize = 64;

/// The most series one shard holds, and what their keys may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextLimits {
    /// In all, overflow series and own telemetry apart.
    pub contexts: usize,
    /// Of one name.
    pub contexts_per_name: usize,
    /// Tags of one series.
    pub tags_per_metric: usize,
    /// Bytes of one tag.
    pub tag_length: usize,
    /// Bytes of a name.
    pub name_length: usize,
    /// Bytes that keys, digests and sets may take, those being flushed among them.
    pub memory: usize,
}

/// Why there is no room for a new series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`ContextLimits::contexts`], or the room of own telemetry or overflow series.
    Contexts,
    /// [`ContextLimits::contexts_per_name`].
    ContextsPerName,
    /// The keys held take too many bytes.
    KeyBytes,
    /// [`ContextLimits::tags_per_metric`].
    TagsPerMetric,
    /// [`ContextLimits::tag_length`].
    TagLength,
    /// [`ContextLimits::name_length`].
    NameLength,
    /// [`ContextLimits::memory`].
    Memory,
}

impl Limit {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Limit; 7] = [
        Limit::Contexts,
        Limit::ContextsPerName,
        Limit::KeyBytes,
        Limit::TagsPerMetric,
        Limit::TagLength,
        Limit::NameLength,
        Limit::Memory,
    ];

    /// The word for it in telemetry tags and logs: its key in the configuration, if it has one.
    pub const fn as_str(self) -> &'static str {
        match self {
            Limit::Contexts => "contexts",
            Limit::ContextsPerName => "contexts_per_name",
            Limit::KeyBytes => "key_bytes",
            Limit::TagsPerMetric => "tags_per_metric",
            Limit::TagLength => "tag_length",
            Limit::NameLength => "name_length",
            Limit::Memory => "memory",
        }
    }
}

impl ContextLimits {
    /// No limits.
    pub const NONE: ContextLimits = ContextLimits {
        contexts: usize::MAX,
        contexts_per_name: usize::MAX,
        tags_per_metric: usize::MAX,
        tag_length: usize::MAX,
        name_length: usize::MAX,
        memory: usize::MAX,
    };

    /// What one of `shards` may hold if all together may hold this: an even share, rounded up.
    /// All series of a name are in one shard.
    #[must_use]
    pub fn share(self, shards: NonZeroUsize) -> ContextLimits {
        let share = |whole: usize| whole.div_ceil(shards.get());
        ContextLimits { contexts: share(self.contexts), memory: share(self.memory), ..self }
    }

    /// What of a key is too much, if anything. The tags of overflow series are ours.
    fn exceeded_by(&self, key: &MetricKey, room: Room) -> Option<Limit> {
        let (has_its_name, has_its_tags) = match room {
            Room::Clients | Room::Own => (true, true),
            Room::Overflow => (true, false),
            Room::Last => (false, false),
        };
        if has_its_name && key.name.len() > self.name_length {
            return Some(Limit::NameLength);
        }
        if !has_its_tags {
            return None;
        }
        // Nearly all tags are shorter together than one may be.
        let tags = key.tags.as_str();
        if tags.len() > self.tag_length && key.tags.iter().any(|tag| tag.len() > self.tag_length) {
            return Some(Limit::TagLength);
        }
        let is_many = tags.len() / 2 >= self.tags_per_metric
            && key.tags.iter().count() > self.tags_per_metric;
        is_many.then_some(Limit::TagsPerMetric)
    }

    fn overflows(self) -> usize {
        (self.contexts / CONTEXTS_PER_OVERFLOW).max(MIN_OVERFLOWS)
    }
}

/// Where the samples of a series come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    /// They were received here.
    Sample,
    /// Another node has merged them; its tags are taken as they are.
    Import,
}

/// The keys of series that stand for others.
#[derive(Debug)]
pub(super) struct OverflowKeys {
    of_samples: TagSet,
    of_imports: TagSet,
    /// By kind.
    last: [TagSet; MetricKind::ALL.len()],
}

impl OverflowKeys {
    /// `shard` is of this shard alone, so that no two have the same key: samples of all
    /// names meet here, where otherwise all series of a name are in one shard.
    pub(super) fn new(extend: &ExtendTags, shard: &str) -> OverflowKeys {
        let tags =
            |more: [&str; 2]| TagSet::canonical(extend.iter().chain([OVERFLOW_TAG]).chain(more));
        let worker = format!("worker:{shard}");
        OverflowKeys {
            of_samples: tags(["", ""]),
            of_imports: TagSet::canonical([OVERFLOW_TAG]),
            last: MetricKind::ALL.map(|kind| tags([&format!("metric_type:{kind}"), &worker])),
        }
    }

    /// The series that takes what there is no room for: of its name.
    pub(super) fn of_name(&self, key: MetricKey, origin: Origin) -> MetricKey {
        let tags = match origin {
            Origin::Sample => &self.of_samples,
            Origin::Import => &self.of_imports,
        };
        MetricKey { tags: tags.clone(), ..key }
    }

    /// The same where there is no room for its name either.
    pub(super) fn last(&self, key: &MetricKey) -> MetricKey {
        MetricKey {
            name: OVERFLOW_NAME.into(),
            tags: self.last[key.kind as usize].clone(),
            kind: key.kind,
            scope: key.scope,
            dialect: key.dialect,
        }
    }
}
