//! How many series a shard may hold, and what becomes of samples that would make more.
//!
//! A new series for which there is no room is *folded*: its samples go to the overflow series
//! of its name, kind and scope, tagged [`OVERFLOW_TAG`], so that totals stay right. Where there
//! are too many names even for that, they go to [`OVERFLOW_NAME`]. What a shard holds is then
//! bounded whatever clients send: [`Census`] has the rooms, [`refused`] remembers which
//! spellings fold so that not every sample of them is sorted and looked up anew.
//!
//! Known series never come here: a shard asks when it learns one.

pub(super) mod refused;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::Arc;

use hashbrown::HashTable;

use super::intern::SlotId;
use crate::model::{ExtendTags, MetricKey, MetricKind, TagSet};

/// The tag of every series that stands for others.
pub const OVERFLOW_TAG: &str = "veneur_overflow:true";
/// The name of the series that stands for those of names there is no room for.
pub const OVERFLOW_NAME: &str = "veneur.overflow";
/// Own telemetry must be seen when clients have filled the table: it has room of its own.
const OWN_PREFIX: &str = "veneur.";
const OWN_CONTEXTS: usize = 1024;
/// Overflow series: one for each so many series, and a few at least.
const CONTEXTS_PER_OVERFLOW: usize = 16;
const MIN_OVERFLOWS: usize = 64;
/// Bytes of names and tags, on average: so that long keys do not take more memory than many.
const BYTES_PER_CONTEXT: usize = 512;
const MIN_BYTES: usize = 64 << 10;
/// Names told in one report.
const WORST: usize = 10;
/// Bytes of a name quoted as an example.
const QUOTED: usize = 200;

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
}

impl Limit {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Limit; 6] = [
        Limit::Contexts,
        Limit::ContextsPerName,
        Limit::KeyBytes,
        Limit::TagsPerMetric,
        Limit::TagLength,
        Limit::NameLength,
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
    };

    /// What one of `shards` may hold if all together may hold this: an even share, rounded up.
    /// All series of a name are in one shard.
    #[must_use]
    pub fn share(self, shards: NonZeroUsize) -> ContextLimits {
        ContextLimits { contexts: self.contexts.div_ceil(shards.get()), ..self }
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

/// Which room a series takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// What clients and other nodes send.
    Clients,
    /// Own telemetry.
    Own,
    /// Overflow series of names.
    Overflow,
    /// [`OVERFLOW_NAME`]: one for each kind and scope, for which there is always room.
    Last,
}

const ROOMS: usize = 4;

/// What is in one room.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    series: usize,
    bytes: usize,
}

/// One series in its room.
#[derive(Clone, Copy, Debug)]
struct Tenant {
    /// Hash of its name. If those of two names were the same, they would share a limit.
    name: u64,
    bytes: u32,
    room: Room,
}

impl Tenant {
    /// Whether it counts for the limit of its name.
    fn counts_for_name(&self) -> bool {
        matches!(self.room, Room::Clients | Room::Own)
    }
}

/// Who takes how much room.
#[derive(Debug)]
pub(super) struct Census {
    limits: ContextLimits,
    hasher: RandomState,
    /// By slot.
    tenants: Vec<Tenant>,
    /// Hashes of names, and how many series each has.
    names: HashTable<(u64, u32)>,
    held: [Held; ROOMS],
}

impl Census {
    pub(super) fn new(limits: ContextLimits) -> Census {
        Census {
            limits,
            hasher: RandomState::new(),
            tenants: Vec::new(),
            names: HashTable::new(),
            held: [Held::default(); ROOMS],
        }
    }

    /// The room for a series that stands for itself alone.
    pub(super) fn room_of(key: &MetricKey) -> Room {
        match key.name.starts_with(OWN_PREFIX) {
            true => Room::Own,
            false => Room::Clients,
        }
    }

    /// Lets a new series in, whose slot is the next one.
    ///
    /// # Errors
    /// The limit that leaves no room for it.
    pub(super) fn admit(&mut self, key: &MetricKey, room: Room) -> Result<(), Limit> {
        if let Some(limit) = self.limits.exceeded_by(key, room) {
            return Err(limit);
        }
        let name = self.hasher.hash_one(&key.name);
        let bytes = key.name.len() + key.tags.as_str().len();
        let tenant = Tenant { name, bytes: u32::try_from(bytes).unwrap_or(u32::MAX), room };
        if self.is_crowded(tenant) {
            return Err(Limit::ContextsPerName);
        }
        if let Some(limit) = self.exhausted(room, bytes) {
            return Err(limit);
        }
        if tenant.counts_for_name() {
            self.names
                .entry(name, |&(hash, _)| hash == name, |&(hash, _)| hash)
                .or_insert((name, 0))
                .get_mut()
                .1 += 1;
        }
        let held = &mut self.held[room as usize];
        held.series += 1;
        held.bytes += tenant.bytes as usize;
        self.tenants.push(tenant);
        Ok(())
    }

    /// What of a room one more series of so many bytes would exceed, if anything.
    fn exhausted(&self, room: Room, bytes: usize) -> Option<Limit> {
        let most = match room {
            Room::Clients => self.limits.contexts,
            Room::Own => OWN_CONTEXTS,
            Room::Overflow => self.limits.overflows(),
            Room::Last => return None,
        };
        let Held { series, bytes: held } = self.held[room as usize];
        if series >= most {
            return Some(Limit::Contexts);
        }
        let most_bytes = most.saturating_mul(BYTES_PER_CONTEXT).max(MIN_BYTES);
        (held + bytes > most_bytes).then_some(Limit::KeyBytes)
    }

    /// Whether its name may have no more series.
    fn is_crowded(&self, tenant: Tenant) -> bool {
        tenant.counts_for_name()
            && self
                .names
                .find(tenant.name, |&(hash, _)| hash == tenant.name)
                .is_some_and(|&(_, series)| series as usize >= self.limits.contexts_per_name)
    }

    /// Whether this series stands in the way of new ones.
    pub(super) fn is_in_the_way(&self, slot: usize) -> bool {
        let tenant = self.tenants[slot];
        self.exhausted(tenant.room, BYTES_PER_CONTEXT).is_some() || self.is_crowded(tenant)
    }

    /// Lets go of all series but those kept, in the order of their slots.
    pub(super) fn keep(&mut self, is_kept: impl Fn(usize) -> bool) {
        let (names, held) = (&mut self.names, &mut self.held);
        let mut slot = 0;
        self.tenants.retain(|tenant| {
            let keep = is_kept(slot);
            slot += 1;
            if !keep {
                let held = &mut held[tenant.room as usize];
                held.series -= 1;
                held.bytes -= tenant.bytes as usize;
                if tenant.counts_for_name()
                    && let Ok(mut entry) =
                        names.find_entry(tenant.name, |&(hash, _)| hash == tenant.name)
                {
                    entry.get_mut().1 -= 1;
                    if entry.get().1 == 0 {
                        entry.remove();
                    }
                }
            }
            keep
        });
        self.tenants.shrink_to_fit();
        self.names.shrink_to_fit(|&(hash, _)| hash);
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
        }
    }
}

/// What was folded within an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folded {
    /// Samples, and entries of other nodes.
    pub samples: u64,
    /// New series they would have made. One counts again when the shard does not remember it.
    pub contexts: u64,
    /// Those by what there was too much of (index: [`Limit`] as a number).
    pub by_limit: [u64; Limit::ALL.len()],
    /// The names with most samples, at most ten, the worst one first.
    pub worst: Vec<FoldedName>,
    /// One of the names that went to [`OVERFLOW_NAME`]; a long one is cut.
    pub example: Option<Box<str>>,
}

/// What was folded of one name.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldedName {
    /// The name, or [`OVERFLOW_NAME`].
    pub name: Box<str>,
    /// Its part of [`Folded::samples`].
    pub samples: u64,
    /// Its part of [`Folded::contexts`].
    pub contexts: u64,
}

/// Counts what is folded.
#[derive(Debug, Default)]
pub(super) struct FoldCounts {
    /// By slot of the overflow series: samples and series.
    by_slot: HashMap<SlotId, (u64, u64)>,
    by_limit: [u64; Limit::ALL.len()],
    example: Option<Box<str>>,
}

impl FoldCounts {
    pub(super) fn sample(&mut self, slot: SlotId) {
        self.by_slot.entry(slot).or_default().0 += 1;
    }

    pub(super) fn context(&mut self, slot: SlotId, limit: Limit) {
        self.by_slot.entry(slot).or_default().1 += 1;
        self.by_limit[limit as usize] += 1;
    }

    /// `name` went to [`OVERFLOW_NAME`].
    pub(super) fn name(&mut self, name: &str) {
        if self.example.is_none() {
            let end = (0..=QUOTED.min(name.len())).rev().find(|&end| name.is_char_boundary(end));
            self.example = Some(name[..end.unwrap_or(0)].into());
        }
    }

    /// What was counted since the last call; `keys` are by slot.
    pub(super) fn take(&mut self, keys: &[Arc<MetricKey>]) -> Folded {
        let mut folded = Folded {
            by_limit: std::mem::take(&mut self.by_limit),
            example: self.example.take(),
            ..Folded::default()
        };
        let mut by_name: HashMap<&str, (u64, u64)> = HashMap::new();
        for (slot, (samples, contexts)) in std::mem::take(&mut self.by_slot) {
            folded.samples += samples;
            folded.contexts += contexts;
            let of_name = by_name.entry(&keys[slot as usize].name).or_default();
            of_name.0 += samples;
            of_name.1 += contexts;
        }
        let mut worst: Vec<_> = by_name.into_iter().collect();
        worst.sort_unstable_by_key(|&(name, (samples, _))| (u64::MAX - samples, name));
        worst.truncate(WORST);
        let told = worst.into_iter().map(|(name, (samples, contexts))| FoldedName {
            name: name.into(),
            samples,
            contexts,
        });
        folded.worst = told.collect();
        folded
    }
}

impl Folded {
    /// Adds what another shard has folded, whose names are others.
    pub fn add(&mut self, other: Folded) {
        self.samples += other.samples;
        self.contexts += other.contexts;
        for (all, n) in self.by_limit.iter_mut().zip(other.by_limit) {
            *all += n;
        }
        self.example = self.example.take().or(other.example);
        for more in other.worst {
            match self.worst.iter_mut().find(|known| known.name == more.name) {
                Some(known) => {
                    known.samples += more.samples;
                    known.contexts += more.contexts;
                }
                None => self.worst.push(more),
            }
        }
        self.worst.sort_by_key(|of_name| u64::MAX - of_name.samples);
        self.worst.truncate(WORST);
    }
}
