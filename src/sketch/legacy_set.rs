//! Veneur 1.1.0's set sketch, kept beside [`super::Cardinality`] for an upstream node that
//! reads nothing else.
//!
//! It is HyperLogLog with 2^18 registers over FNV-1a: a list of keys of 32 bits, or one byte a
//! register once that list would be longer. Nothing here estimates: what other nodes send in this
//! form is refused, and distinct members are counted by the other sketch.
//!
//! Source: `github.com/clarkduvall/hyperloglog`, `HyperLogLogPlus`, as Veneur v1.1.0 uses it;
//! `tests/import/legacy_sets.rs` holds it to what the real one sent.

use super::stored::{Reader, put_words, words};

/// Bits of a hash that choose a register.
pub const PRECISION: u32 = 18;
/// Registers of the dense form, of one byte each.
pub const REGISTERS: usize = 1 << PRECISION;
/// Bits of a hash that a key keeps.
const KEY_PRECISION: u32 = 25;
/// Those of them behind the register's index.
const MIDDLE: u64 = (1 << (KEY_PRECISION - PRECISION)) - 1;

/// The hash of a member that goes into [`LegacySet::insert_hash`]: FNV-1a of 64 bits.
pub fn member_hash(member: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    member.iter().fold(OFFSET, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// Members as Veneur 1.1.0 keeps them. A new one allocates nothing.
#[derive(Clone, Debug)]
pub struct LegacySet(Form);

#[derive(Clone, Debug)]
enum Form {
    /// Keys, repeated and in any order until [`LegacySet::tidy`] is through with them.
    Sparse(Vec<u32>),
    /// The largest rank seen for each index.
    Dense(Box<[u8]>),
}

/// A sketch as it is written down.
#[derive(Debug, PartialEq, Eq)]
pub enum Encoded<'a> {
    /// Keys in ascending order.
    Sparse {
        /// How many there are.
        count: usize,
        /// Each as its difference from the one before, in base 128 with the low digit first.
        list: Vec<u8>,
        /// The last of them; 0 if there is none.
        last: u32,
    },
    /// [`REGISTERS`] of them.
    Dense(&'a [u8]),
}

impl Default for LegacySet {
    fn default() -> Self {
        LegacySet(Form::Sparse(Vec::new()))
    }
}

impl LegacySet {
    /// Adds the member with this hash; adding it again changes nothing.
    pub fn insert_hash(&mut self, hash: u64) {
        self.insert_key(key_of(hash));
    }

    fn insert_key(&mut self, key: u32) {
        if let Form::Sparse(keys) = &self.0
            && keys.len() == keys.capacity()
        {
            self.make_room();
        }
        match &mut self.0 {
            Form::Sparse(keys) => keys.push(key),
            Form::Dense(registers) => raise(registers, key),
        }
    }

    /// Adds all members of `other`.
    pub fn merge(&mut self, other: &LegacySet) {
        match &other.0 {
            Form::Sparse(keys) => keys.iter().for_each(|&key| self.insert_key(key)),
            Form::Dense(theirs) => {
                let ours = std::mem::replace(&mut self.0, Form::Dense(theirs.clone()));
                let Form::Dense(registers) = &mut self.0 else { return };
                match ours {
                    Form::Sparse(keys) => keys.iter().for_each(|&key| raise(registers, key)),
                    Form::Dense(ours) => {
                        for (register, ours) in registers.iter_mut().zip(ours) {
                            *register = (*register).max(ours);
                        }
                    }
                }
            }
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Sparse(keys) => keys.capacity() * size_of::<u32>(),
            Form::Dense(registers) => registers.len(),
        }
    }

    /// Appends all of it, for this program itself: 0 and keys, or 1 and the registers
    /// ([`super::stored`]).
    pub fn store(&self, into: &mut Vec<u8>) {
        match &self.0 {
            Form::Sparse(keys) => {
                into.push(0);
                put_words(into, keys.iter().copied());
            }
            Form::Dense(registers) => {
                into.push(1);
                into.extend_from_slice(registers);
            }
        }
    }

    /// Reads what [`LegacySet::store`] wrote; `None` for anything else.
    pub fn restore(from: &mut Reader<'_>) -> Option<LegacySet> {
        match from.byte()? {
            0 => Some(LegacySet(Form::Sparse(words(from)?))),
            1 => Some(LegacySet(Form::Dense(from.take(REGISTERS)?.into()))),
            _ => None,
        }
    }

    /// What is sent upstream.
    pub fn encode(&mut self) -> Encoded<'_> {
        self.tidy();
        match &self.0 {
            Form::Sparse(keys) => {
                let mut list = Vec::with_capacity(3 * keys.len());
                differences(keys).for_each(|difference| push_digits(&mut list, difference));
                Encoded::Sparse { count: keys.len(), list, last: keys.last().copied().unwrap_or(0) }
            }
            Form::Dense(registers) => Encoded::Dense(registers),
        }
    }

    /// A full list is tidied first, and grows only if half of it is still taken then: members
    /// that are seen again and again need no more memory.
    fn make_room(&mut self) {
        self.tidy();
        if let Form::Sparse(keys) = &mut self.0
            && keys.len() >= keys.capacity() / 2
        {
            keys.reserve((2 * keys.capacity()).max(8) - keys.len());
        }
    }

    /// Sorts keys and drops repeated ones; turns dense if their list would be longer than the
    /// registers are.
    fn tidy(&mut self) {
        let Form::Sparse(keys) = &mut self.0 else { return };
        keys.sort_unstable();
        keys.dedup();
        if differences(keys).map(digits).sum::<usize>() > REGISTERS {
            let mut registers = vec![0; REGISTERS].into_boxed_slice();
            keys.iter().for_each(|&key| raise(&mut registers, key));
            self.0 = Form::Dense(registers);
        }
    }
}

/// The first 25 bits of a hash shifted left by one; or, if the 7 bits behind the index are all
/// zero, those 25 bits, the number of zeros that follow plus one (6 bits) and a set lowest bit.
fn key_of(hash: u64) -> u32 {
    let prefix = hash >> (64 - KEY_PRECISION);
    if prefix & MIDDLE != 0 {
        return (prefix << 1) as u32;
    }
    let zeros = (hash << KEY_PRECISION).leading_zeros().min(64 - KEY_PRECISION);
    (prefix << 7) as u32 | (zeros + 1) << 1 | 1
}

/// Enters a key into its register. The rank is one more than the number of zeros behind the
/// index, and a key has them all.
fn raise(registers: &mut [u8], key: u32) {
    let (index, rank) = if key & 1 == 0 {
        // The 7 bits are the upper ones of the lowest byte.
        (key >> 8, (key << 24).leading_zeros() + 1)
    } else {
        (key >> 14, (key >> 1 & 0x3f) + KEY_PRECISION - PRECISION)
    };
    let register = &mut registers[index as usize % REGISTERS];
    *register = (*register).max(rank as u8);
}

/// Differences of ascending numbers, the first from 0.
fn differences(keys: &[u32]) -> impl Iterator<Item = u32> {
    let mut before = 0;
    keys.iter().map(move |&key| key - std::mem::replace(&mut before, key))
}

/// Length of a number in base 128.
fn digits(number: u32) -> usize {
    (32 - (number | 1).leading_zeros()).div_ceil(7) as usize
}

fn push_digits(list: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        list.push(number as u8 | 0x80);
        number >>= 7;
    }
    list.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_members(members: impl IntoIterator<Item = u32>) -> LegacySet {
        let mut set = LegacySet::default();
        for id in members {
            set.insert_hash(member_hash(format!("user-{id}@example.com").as_bytes()));
        }
        set
    }

    #[test]
    fn hashes_and_keys_are_those_of_1_1_0() {
        for (member, hash, key) in [
            (&b"alice"[..], 0x508b_2abb_65a0_3907, 0x0142_2caa),
            (b"bob", 0x004d_4419_134a_0a54, 0x0001_3510),
            // Reference vector of FNV-1a: its offset basis.
            (b"", 0xcbf2_9ce4_8422_2325, 0x032f_ca72),
        ] {
            assert_eq!(member_hash(member), hash);
            assert_eq!(key_of(hash), key, "{hash:#x}");
        }
    }

    #[test]
    fn a_hash_with_zeros_behind_its_index_keeps_their_number() {
        for (hash, key, rank) in [
            // Index 1, and a one at bit 45: just behind the index.
            (1 << 46 | 1 << 45, 0b1100_0000 << 1, 1),
            // The last bit that the prefix has.
            (1 << 46 | 1 << 39, 0b1000_0001 << 1, 7),
            // The first it has not: no zero follows.
            (1 << 46 | 1 << 38, 0x80 << 7 | 1 << 1 | 1, 8),
            (1 << 46 | 1, 0x80 << 7 | 39 << 1 | 1, 46),
            (1 << 46, 0x80 << 7 | 40 << 1 | 1, 47),
        ] {
            assert_eq!(key_of(hash), key, "{hash:#x}");
            let mut registers = vec![0; REGISTERS];
            raise(&mut registers, key);
            assert_eq!(registers[1], rank, "{hash:#x}");
        }
    }

    #[test]
    fn keys_are_listed_as_differences_in_base_128() {
        let mut list = Vec::new();
        for number in [0, 0x7f, 0x80, 300, u32::MAX] {
            let before = list.len();
            push_digits(&mut list, number);
            assert_eq!(list.len() - before, digits(number), "{number}");
        }
        assert_eq!(list, b"\x00\x7f\x80\x01\xac\x02\xff\xff\xff\xff\x0f");
        let none = Encoded::Sparse { count: 0, list: vec![], last: 0 };
        assert_eq!(LegacySet::default().encode(), none);
    }

    #[test]
    fn a_set_depends_on_its_members_alone() {
        for members in [1, 7, 1000, 200_000] {
            let mut once = of_members(0..members);
            let mut often = of_members((0..members).rev().chain(0..members).chain(0..members));
            assert_eq!(once.encode(), often.encode(), "{members} members");
        }
    }

    #[test]
    fn merged_sets_are_those_of_all_members() {
        for (all, cut) in
            [(10, 4), (5_000, 4_000), (200_000, 10), (200_000, 199_990), (400_000, 200_000)]
        {
            let mut whole = of_members(0..all);
            let mut merged = of_members(0..cut);
            merged.merge(&of_members(cut / 2..all));
            assert_eq!(merged.encode(), whole.encode(), "{all} members cut at {cut}");
        }
    }

    #[test]
    fn members_seen_again_need_no_more_memory() {
        let set = of_members((0..100_000).map(|n| n % 50));
        let Form::Sparse(keys) = set.0 else { panic!("50 members are a list") };
        assert!(keys.capacity() <= 256, "{}", keys.capacity());
    }
}
