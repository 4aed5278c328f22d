//! Which worker a name goes to where a mapping file says what it is called.
//!
//! All series of a name are in one shard, and that is the name they have in the end: two names
//! of clients may be one series. So with several workers the mapping is asked before the shard
//! is known, once for each spelling that is not remembered.

use std::sync::Arc;

use crate::aggregate::{Class, KeyHasher, routed, shard_of};
use crate::mapping::Mapping;
use crate::model::{Dialect, text};
use crate::protocol::classic::etsy;

/// Spellings remembered by each listener thread: 256 KiB.
const PLACES: usize = 1 << 14;

/// The shards of spellings. Hashes route, as everywhere: were two the same, a series would be in
/// two shards.
#[derive(Debug)]
pub(super) struct Routes {
    mapping: Arc<Mapping>,
    /// Whether etsy's names are sanitised.
    sanitise: bool,
    hasher: KeyHasher,
    /// Hash and shard of a spelling; its place is in the hash.
    places: Vec<(u64, u32)>,
}

impl Routes {
    /// `sanitise` is etsy's rule.
    pub(super) fn new(mapping: Arc<Mapping>, sanitise: bool, hasher: KeyHasher) -> Routes {
        Routes { mapping, sanitise, hasher, places: vec![(0, u32::MAX); PLACES] }
    }

    /// Which of `shards` the series of a raw name is in.
    pub(super) fn shard_of(&mut self, class: Class, name: &[u8], shards: usize) -> usize {
        let hash = self.hasher.hash(class, name, b"");
        let place = hash as usize % PLACES;
        let (known, shard) = self.places[place];
        if known == hash && shard != u32::MAX {
            return shard as usize;
        }
        let shard = self.look_up(class, name, shards);
        self.places[place] = (hash, shard as u32); // there are not that many workers
        shard
    }

    #[cold]
    fn look_up(&self, class: Class, name: &[u8], shards: usize) -> usize {
        let received = match class.dialect() {
            Dialect::Etsy => etsy::key(name, b"", self.sanitise).0,
            Dialect::DogStatsD | Dialect::Brubeck => text::lossy(name).into(),
        };
        let name = self.mapping.rename(&received, class.mapped_type());
        let name = name.as_deref().unwrap_or(&received);
        shard_of(&routed(class.dialect(), name.as_bytes()), shards)
    }
}
