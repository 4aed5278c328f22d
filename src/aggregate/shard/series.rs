//! From the bytes of a key to its series: found, made, renamed, or folded where there is no room.

use std::sync::Arc;

use super::{Place, Shard};
use crate::aggregate::batch::OpKey;
use crate::aggregate::intern::SlotId;
use crate::aggregate::limits::{Census, Limit, Origin, Room};
use crate::aggregate::mapped::{Change, Known};
use crate::aggregate::memory::Thresholds;
use crate::mapping::Mapped;
use crate::model::{Dialect, MetricKey, MetricKind, Scope, TagSet, text};
use crate::protocol::classic::etsy;

/// Where the samples of a key go.
#[derive(Clone, Copy, Debug)]
pub(in crate::aggregate) enum Found {
    /// To its own series.
    Own(SlotId),
    /// To one that stands for others.
    Overflow(SlotId),
}

/// Where the samples of a spelling go.
#[derive(Clone, Copy, Debug)]
pub(in crate::aggregate) struct Way {
    /// Of no meaning if they are left out.
    pub(in crate::aggregate) slot: SlotId,
    /// Whether an alias was learnt for them.
    pub(in crate::aggregate) is_new: bool,
    /// What becomes of them before.
    pub(in crate::aggregate) change: Option<Change>,
}

impl Way {
    const fn to(slot: SlotId) -> Way {
        Way { slot, is_new: false, change: None }
    }
}

impl Shard {
    /// Where the samples of a raw key in `buffer` go, which is learnt if it is new.
    #[cold]
    pub(in crate::aggregate) fn find_or_learn(&mut self, key: OpKey, buffer: &[u8]) -> Way {
        if let Some(slot) = self.interner.find(key, buffer) {
            return Way::to(slot);
        }
        if let Some(slot) = self.refused.find(key, buffer) {
            self.folds.sample(slot);
            return Way::to(slot);
        }
        let known = self.mapper.as_mut().and_then(|mapper| mapper.find(key, buffer));
        if let Some(Known { slot, change, is_folded }) = known {
            if is_folded {
                self.folds.sample(slot);
            }
            return Way { slot, is_new: false, change: Some(change) };
        }
        self.learn(key, buffer)
    }

    fn learn(&mut self, key: OpKey, buffer: &[u8]) -> Way {
        let mut series = self.series_of(key, buffer);
        let mut scale = None;
        if let Some(mapper) = &mut self.mapper {
            match mapper.apply(series, &self.extend_tags) {
                Mapped::Dropped { rule } => {
                    mapper.leave_out(key, buffer, rule);
                    return Way { change: Some(Change::Drop), ..Way::to(SlotId::MAX) };
                }
                Mapped::Series { key, rule } => {
                    scale = mapper.scale(rule);
                    series = key;
                }
            }
        }
        if series.dialect == Dialect::Brubeck {
            series = self.known_of_another_kind(&series).unwrap_or(series);
        }
        let dialect = series.dialect;
        let found = self.slot_of(series, Origin::Sample);
        let (slot, is_folded) = match found {
            Found::Own(slot) => {
                if dialect.is_classic() {
                    self.standing.keep(slot, dialect, key.recorder);
                }
                (slot, false)
            }
            Found::Overflow(slot) => {
                self.folds.sample(slot);
                (slot, true)
            }
        };
        match (scale, &mut self.mapper) {
            (Some((rule, factor)), Some(mapper)) => {
                mapper.scaled(key, buffer, rule, slot, is_folded);
                Way { change: Some(Change::Scale(factor)), ..Way::to(slot) }
            }
            _ if is_folded => {
                self.refused.insert(key, buffer, slot);
                Way::to(slot)
            }
            _ => {
                self.interner.add_alias(key, buffer, slot, self.keys.len());
                Way { is_new: true, ..Way::to(slot) }
            }
        }
    }

    /// The series that a raw key in `buffer` means.
    fn series_of(&self, key: OpKey, buffer: &[u8]) -> MetricKey {
        let (name, tags) = key.bytes(buffer);
        let dialect = key.class.dialect();
        // Classic dialects have no scopes: their series are finished where they are received.
        let scope = Scope::LocalOnly;
        let kind = key.recorder.kind();
        if let Some(kind) = key.class.kind() {
            let (tags, scope) = TagSet::from_section(tags, &self.extend_tags);
            return MetricKey { name: text::lossy(name).into(), tags, kind, scope, dialect };
        }
        if dialect == Dialect::Etsy {
            let (name, tags) = etsy::key(name, tags, self.standing.rules.sanitise);
            return MetricKey {
                name,
                tags: self.extend_tags.laid_over(tags),
                kind,
                scope,
                dialect,
            };
        }
        let tags = TagSet::canonical(self.extend_tags.iter());
        MetricKey { name: text::lossy(name).into(), tags, kind, scope, dialect }
    }

    /// brubeck's series of that name, if there is one: its first line has said of which kind.
    fn known_of_another_kind(&self, key: &MetricKey) -> Option<MetricKey> {
        use MetricKind::{Counter, Gauge, Histogram, Timer};
        [Counter, Gauge, Histogram, Timer].into_iter().find_map(|kind| {
            let scope = key.scope.canonical(kind, self.role);
            let other = MetricKey { kind, scope, ..key.clone() };
            let slot = self.interner.find_canonical(&other, |slot| &self.keys[slot as usize])?;
            Some(MetricKey::clone(&self.keys[slot as usize]))
        })
    }

    /// The same for what another node has merged.
    pub(in crate::aggregate) fn slot_of_imported(&mut self, key: MetricKey) -> SlotId {
        match self.slot_of(key, Origin::Import) {
            Found::Own(slot) => slot,
            Found::Overflow(slot) => {
                self.folds.sample(slot);
                slot
            }
        }
    }

    /// Finds or makes the slot of a series, or of what stands for it if there is no room. Its
    /// scope is made canonical for this role.
    pub(in crate::aggregate) fn slot_of(&mut self, mut key: MetricKey, origin: Origin) -> Found {
        key.scope = key.scope.canonical(key.kind, self.role);
        let room = Census::room_of(&key);
        match self.find_or_add(key, room) {
            Ok(slot) => Found::Own(slot),
            Err((key, limit)) => Found::Overflow(self.fold(key, limit, origin)),
        }
    }

    /// The slot of what stands for a new series that there is no room for.
    fn fold(&mut self, key: MetricKey, limit: Limit, origin: Origin) -> SlotId {
        let slot = self.overflow_slot(key, origin);
        self.folds.context(slot, limit);
        slot
    }

    /// The slot of what stands for series of a name.
    pub(in crate::aggregate) fn overflow_slot(&mut self, key: MetricKey, origin: Origin) -> SlotId {
        match self.find_or_add(self.overflow.of_name(key, origin), Room::Overflow) {
            Ok(slot) => slot,
            Err((key, _)) => self.last_slot(&key),
        }
    }

    /// The slot of what stands for a series that there is no room for under its name.
    pub(in crate::aggregate) fn last_slot(&mut self, key: &MetricKey) -> SlotId {
        self.folds.name(&key.name);
        let last = self.overflow.last(key);
        self.find_or_add(last, Room::Last).expect("there is always room for the last")
    }

    /// Finds or makes the slot of a canonical key; gives the key back if there is no room.
    fn find_or_add(&mut self, key: MetricKey, room: Room) -> Result<SlotId, (MetricKey, Limit)> {
        let keys = &self.keys;
        if let Some(slot) = self.interner.find_canonical(&key, |slot| &keys[slot as usize]) {
            return Ok(slot);
        }
        if let Err(limit) = self.census.admit(&key, room) {
            return Err((key, limit));
        }
        self.note_keys();
        let slot = self.keys.len() as SlotId;
        self.interner.add_canonical(&key, slot);
        if key.dialect.is_classic() && matches!(room, Room::Overflow | Room::Last) {
            self.standing.keep_for_others(slot, &key);
        }
        self.keys.push(Arc::new(key));
        self.places.push(Place { epoch: 0, at: 0 });
        Ok(slot)
    }

    /// What sketches may take depends on what keys do.
    pub(super) fn note_keys(&mut self) {
        self.thresholds = Thresholds::new(self.census.memory_limit(), self.census.key_memory());
    }
}
