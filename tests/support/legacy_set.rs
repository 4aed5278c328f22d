//! Reads a set as Veneur 1.1.0 sends it, strictly: what it does not expect is a panic.
//!
//! Source: documentation of Go's `encoding/gob`; `HyperLogLogPlus.GobEncode` of
//! `github.com/clarkduvall/hyperloglog`.

use std::collections::BTreeSet;

/// What a set says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LegacySet {
    Sparse(BTreeSet<u32>),
    Dense(Vec<u8>),
}

/// Reads all of a stream.
pub(crate) fn read(stream: &[u8]) -> LegacySet {
    let mut stream = stream;
    let (_, registers) = value(&mut stream, Some(5), bytes);
    let (_, m) = value(&mut stream, Some(3), uint);
    let (_, p) = value(&mut stream, Some(3), uint);
    assert_eq!((m, p), (262_144, 18));
    let (_, is_sparse) = value(&mut stream, Some(1), uint);
    if is_sparse == 0 {
        assert_eq!((registers.len(), stream.len()), (262_144, 0));
        return LegacySet::Dense(registers);
    }
    assert_eq!((registers.len(), is_sparse), (0, 1));
    // The type of the map is defined just before it, with a number of the sender's choice.
    let (id, mut keys) = value(&mut stream, None, |rest| {
        let count = uint(rest);
        let mut keys = BTreeSet::new();
        for _ in 0..count {
            assert!(keys.insert(key(uint(rest))), "a key twice");
            assert_eq!(uint(rest), 1);
        }
        keys
    });
    assert!(id > 63, "the map is of type {id}");
    let (_, count) = value(&mut stream, Some(3), uint);
    let (_, list) = value(&mut stream, Some(5), bytes);
    let (_, last) = value(&mut stream, Some(3), uint);
    assert!(stream.is_empty(), "bytes behind the set");
    let mut listed = Vec::new();
    let mut list = &list[..];
    while !list.is_empty() {
        let mut difference = 0;
        for digit in 0.. {
            let byte = u64::from(take(&mut list, 1)[0]);
            difference |= (byte & 0x7f) << (7 * digit);
            if byte & 0x80 == 0 {
                break;
            }
        }
        listed.push(key(listed.last().map_or(0, |&before| u64::from(before)) + difference));
    }
    assert_eq!(
        (listed.len() as u64, listed.last().map_or(0, |&key| u64::from(key))),
        (count, last)
    );
    assert!(listed.is_sorted_by(|a, b| a < b), "the list is in ascending order");
    keys.extend(listed);
    LegacySet::Sparse(keys)
}

/// The next value and its type, which is `wanted` if that is known; definitions before it are
/// passed over.
fn value<T>(
    stream: &mut &[u8],
    wanted: Option<i64>,
    read: impl FnOnce(&mut &[u8]) -> T,
) -> (i64, T) {
    loop {
        let length = uint(stream) as usize;
        let mut message = take(stream, length);
        let id = uint(&mut message);
        if id & 1 == 1 {
            continue;
        }
        let id = (id >> 1) as i64;
        assert_eq!(id, wanted.unwrap_or(id));
        assert_eq!(uint(&mut message), 0, "what is no struct has a zero before it");
        let value = read(&mut message);
        assert!(message.is_empty(), "bytes behind a value");
        return (id, value);
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    rest.split_off(..length).expect("a stream that is not cut short")
}

fn bytes(rest: &mut &[u8]) -> Vec<u8> {
    let length = uint(rest) as usize;
    take(rest, length).to_vec()
}

fn uint(rest: &mut &[u8]) -> u64 {
    match take(rest, 1)[0] {
        small @ 0..128 => small.into(),
        negative => {
            let bytes = take(rest, 256 - usize::from(negative));
            assert!(bytes[0] != 0, "as few bytes as possible");
            bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
        }
    }
}

fn key(number: u64) -> u32 {
    number.try_into().expect("keys have 32 bits")
}
