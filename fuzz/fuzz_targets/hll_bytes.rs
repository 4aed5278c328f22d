//! No bytes make a set sketch of more than 16 KiB; one that was read is written again and
//! reads the same, and merges with another either way to the same bits.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use veneur::sketch::{Cardinality, member_hash};

/// A set with members enough to be dense.
static OTHER: LazyLock<Cardinality> = LazyLock::new(|| {
    let mut other = Cardinality::new();
    for member in 0..3_000u32 {
        other.insert_hash(member_hash(&member.to_le_bytes()));
    }
    other
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(set) = Cardinality::from_bytes(bytes) else { return };
    assert!(set.heap_bytes() <= 16_384);
    let mut again = Cardinality::from_bytes(&set.to_bytes()).expect("our own bytes");
    for (index, rank) in set.cut_registers() {
        again.raise_register(index, rank).expect("our own registers");
    }
    assert_eq!(again, set);

    let mut reversed = OTHER.clone();
    reversed.merge(&set);
    again.merge(&OTHER);
    assert_eq!(again, reversed);
    assert!(again.estimate() > 2_500);
});
