//! The sparse form of a set sketch: hashes cut to 25 bits, in a small hash table.

use super::PRECISION;

/// Bits of a hash that a sparse code keeps.
pub(super) const SPARSE_PRECISION: u32 = 25;
/// Bits of that prefix behind the register's index.
const MIDDLE_BITS: u32 = SPARSE_PRECISION - PRECISION;
const MIDDLE: u32 = (1 << MIDDLE_BITS) - 1;

/// What the sparse form keeps of a hash, in Veneur's layout: the first 25 bits shifted left
/// by one, or, if the 11 bits behind the index are all zero, those 25 bits, the number of
/// zeros that follow plus one (6 bits) and a set lowest bit. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Code(u32);

impl Code {
    pub(super) fn of(hash: u64) -> Code {
        let prefix = (hash >> (64 - SPARSE_PRECISION)) as u32;
        if prefix & MIDDLE != 0 {
            return Code(prefix << 1);
        }
        let zeros = (hash << SPARSE_PRECISION).leading_zeros().min(64 - SPARSE_PRECISION);
        Code(prefix << 7 | (zeros + 1) << 1 | 1)
    }

    /// `None` for a word that no hash leads to.
    pub(super) fn from_word(word: u32) -> Option<Code> {
        let possible = if word & 1 == 0 {
            word >> (SPARSE_PRECISION + 1) == 0 && word >> 1 & MIDDLE != 0
        } else {
            let zeros_and_one = word >> 1 & 0x3f;
            word >> 7 & MIDDLE == 0 && (1..=64 - SPARSE_PRECISION + 1).contains(&zeros_and_one)
        };
        possible.then_some(Code(word))
    }

    pub(super) fn word(self) -> u32 {
        self.0
    }

    /// The register the hash would go to, and its rank there.
    pub(super) fn register(self) -> (usize, u8) {
        let Code(word) = self;
        if word & 1 == 0 {
            let rank = (word << (31 - MIDDLE_BITS)).leading_zeros() + 1;
            return ((word >> (1 + MIDDLE_BITS)) as usize, rank as u8);
        }
        let rank = (word >> 1 & 0x3f) + MIDDLE_BITS;
        ((word >> (7 + MIDDLE_BITS)) as usize, rank as u8)
    }
}

/// A set of codes: open addressing, linear probing, at most three quarters full.
///
/// It stops growing at 4096 slots, where it is as large as the registers it stands for.
#[derive(Clone, Debug, Default)]
pub(super) struct CodeSet {
    /// A power of two of them, or none; 0 is a free slot.
    slots: Box<[u32]>,
    len: usize,
}

/// The code is new, and there is no room for it.
#[derive(Debug)]
pub(super) struct Full;

impl CodeSet {
    const MAX_SLOTS: usize = 4096;

    pub(super) fn insert(&mut self, code: Code) -> Result<(), Full> {
        match self.slot_of(code) {
            Some(slot) if self.slots[slot] == code.0 => return Ok(()),
            Some(slot) if 4 * (self.len + 1) <= 3 * self.slots.len() => self.slots[slot] = code.0,
            _ if self.slots.len() == CodeSet::MAX_SLOTS => return Err(Full),
            _ => {
                self.grow();
                return self.insert(code);
            }
        }
        self.len += 1;
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// In no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Code> {
        self.slots.iter().filter(|&&word| word != 0).map(|&word| Code(word))
    }

    /// The slot that holds the code, or else the free one it would go to; `None` without
    /// slots.
    fn slot_of(&self, code: Code) -> Option<usize> {
        let bits = self.slots.len().checked_ilog2()?;
        let mask = self.slots.len() - 1;
        // Fibonacci hashing: the product's upper bits depend on all bits of the code.
        let mut slot = (u64::from(code.0.wrapping_mul(0x9E37_79B9)) << bits >> 32) as usize;
        while self.slots[slot & mask] != 0 && self.slots[slot & mask] != code.0 {
            slot += 1;
        }
        Some(slot & mask)
    }

    fn grow(&mut self) {
        let slots = vec![0; (2 * self.slots.len()).max(8)].into_boxed_slice();
        let old = std::mem::replace(&mut self.slots, slots);
        for word in old.into_iter().filter(|&word| word != 0) {
            let slot = self.slot_of(Code(word)).expect("a grown table has slots");
            self.slots[slot] = word;
        }
    }
}

impl PartialEq for CodeSet {
    fn eq(&self, other: &CodeSet) -> bool {
        let has = |code: Code| other.slot_of(code).is_some_and(|slot| other.slots[slot] == code.0);
        self.len == other.len && self.iter().all(has)
    }
}

impl Eq for CodeSet {}
