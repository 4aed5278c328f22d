//! Who takes how much room in a shard.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::{ContextLimits, Limit};
use crate::aggregate::intern::SlotId;
use crate::model::MetricKey;

/// Own telemetry must be seen when clients have filled the table: it has room of its own.
const OWN_PREFIX: &str = "veneur.";
const OWN_CONTEXTS: usize = 1024;
/// Bytes of names and tags, on average: so that long keys do not take more memory than many.
pub(super) const BYTES_PER_CONTEXT: usize = 512;
const MIN_BYTES: usize = 64 << 10;
/// What a series takes beside its name and tags, about: the key, its places in the tables and
/// the list of open ones. The texts are there twice, as a key and as a spelling.
const BYTES_BESIDE_TEXT: usize = 280;
/// Keys may take so much of the memory, so that sketches have some.
const PART_FOR_KEYS: usize = 2;

/// Which room a series takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::aggregate) enum Room {
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
pub(in crate::aggregate) struct Census {
    limits: ContextLimits,
    hasher: RandomState,
    /// By slot.
    tenants: Vec<Tenant>,
    /// Hashes of names, and how many series each has.
    names: HashTable<(u64, u32)>,
    held: [Held; ROOMS],
}

impl Census {
    pub(in crate::aggregate) fn new(limits: ContextLimits) -> Census {
        Census {
            limits,
            hasher: RandomState::new(),
            tenants: Vec::new(),
            names: HashTable::new(),
            held: [Held::default(); ROOMS],
        }
    }

    /// How many series there is room for.
    pub(in crate::aggregate) fn contexts(&self) -> usize {
        self.limits.contexts
    }

    /// The room for a series that stands for itself alone.
    pub(in crate::aggregate) fn room_of(key: &MetricKey) -> Room {
        match key.name.starts_with(OWN_PREFIX) {
            true => Room::Own,
            false => Room::Clients,
        }
    }

    /// Lets a new series in, whose slot is the next one.
    ///
    /// # Errors
    /// The limit that leaves no room for it.
    pub(in crate::aggregate) fn admit(&mut self, key: &MetricKey, room: Room) -> Result<(), Limit> {
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
        self.count(tenant);
        self.tenants.push(tenant);
        Ok(())
    }

    /// What is taken by keys and what is known of their series.
    pub(in crate::aggregate) fn key_memory(&self) -> usize {
        let of_room = |held: &Held| held.series * BYTES_BESIDE_TEXT + 2 * held.bytes;
        self.held.iter().map(of_room).sum()
    }

    pub(in crate::aggregate) fn memory_limit(&self) -> usize {
        self.limits.memory
    }

    pub(in crate::aggregate) fn room(&self, slot: SlotId) -> Room {
        self.tenants[slot as usize].room
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
        if held + bytes > most_bytes {
            return Some(Limit::KeyBytes);
        }
        let takes_all = self.key_memory() >= self.limits.memory / PART_FOR_KEYS;
        (room != Room::Own && takes_all).then_some(Limit::Memory)
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
    pub(in crate::aggregate) fn is_in_the_way(&self, slot: usize) -> bool {
        let tenant = self.tenants[slot];
        self.exhausted(tenant.room, BYTES_PER_CONTEXT).is_some() || self.is_crowded(tenant)
    }

    /// Lets go of all series but those kept, in the order of their slots.
    pub(in crate::aggregate) fn keep(&mut self, kept: usize, is_kept: impl Fn(usize) -> bool) {
        if kept < self.tenants.len() / 2 {
            return self.keep_few(kept, is_kept);
        }
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

    /// The same where it is less work to count anew.
    fn keep_few(&mut self, kept: usize, is_kept: impl Fn(usize) -> bool) {
        let mut tenants = Vec::with_capacity(kept);
        let before = self.tenants.iter().enumerate();
        tenants.extend(before.filter(|(slot, _)| is_kept(*slot)).map(|(_, tenant)| *tenant));
        (self.names, self.held) = (HashTable::new(), [Held::default(); ROOMS]);
        tenants.iter().for_each(|tenant| self.count(*tenant));
        self.tenants = tenants;
    }

    fn count(&mut self, tenant: Tenant) {
        if tenant.counts_for_name() {
            let name = tenant.name;
            self.names
                .entry(name, |&(hash, _)| hash == name, |&(hash, _)| hash)
                .or_insert((name, 0))
                .get_mut()
                .1 += 1;
        }
        let held = &mut self.held[tenant.room as usize];
        held.series += 1;
        held.bytes += tenant.bytes as usize;
    }
}
