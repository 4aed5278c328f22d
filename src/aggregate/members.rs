//! Members of a set.

use crate::sketch::{Cardinality, LegacySet};

/// Distinct members; for an upstream Veneur 1.1.0 also in the form that it reads.
#[derive(Clone, Debug, Default)]
pub struct Members {
    pub(super) all: Cardinality,
    /// Those received here, as Veneur 1.1.0 sends them.
    pub(super) legacy: Option<Box<LegacySet>>,
    /// Whether `all` has members from other nodes, which `legacy` cannot have.
    pub(super) has_imported: bool,
}

impl Members {
    /// Adds the member with this hash, received here; returns by how much
    /// [`Members::heap_bytes`] has grown.
    #[inline]
    pub fn insert_hash(&mut self, hash: u64) -> usize {
        let before = self.all.heap_bytes();
        self.all.insert_hash(hash);
        self.all.heap_bytes() - before
    }

    /// Adds it to what an upstream Veneur 1.1.0 reads.
    pub fn insert_legacy_hash(&mut self, hash: u64) {
        self.legacy.get_or_insert_default().insert_hash(hash);
    }

    /// Merges members from another node.
    pub fn import(&mut self, members: &Cardinality) {
        self.has_imported = true;
        self.all.merge(members);
    }

    /// Adds all members of `other`, wherever they were received.
    pub fn merge(&mut self, other: &Members) {
        self.all.merge(&other.all);
        self.has_imported |= other.has_imported;
        if let Some(legacy) = &other.legacy {
            self.legacy.get_or_insert_default().merge(legacy);
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let legacy = self.legacy.as_ref();
        self.all.heap_bytes() + legacy.map_or(0, |set| size_of::<LegacySet>() + set.heap_bytes())
    }

    /// How many distinct members there are, about.
    pub fn estimate(&self) -> u64 {
        self.all.estimate()
    }

    /// All members.
    pub fn into_all(self) -> Cardinality {
        self.all
    }

    /// Those received here, if they were kept in the form of Veneur 1.1.0, and whether there
    /// are others, from other nodes.
    pub fn into_legacy(self) -> (Option<Box<LegacySet>>, bool) {
        (self.legacy, self.has_imported)
    }
}
