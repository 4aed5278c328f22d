//! The bytes of a segment: a head, then records, each with its length and checksum. Pure.
//!
//! ```text
//! segment   "VNSPOOL" version(1)   record*
//! record    check(4) length(4) state(1) kind(1) lane length(2) items(8) since(8) checksum(8)
//!           lane  body
//! ```
//!
//! Numbers are little-endian. `length` is that of lane and body together, and `checksum` the
//! XXH3 of them; `check` is the lower half of the XXH3 of everything in the head but itself and
//! the state. The state is one byte that is written over in place when a record is sent or
//! done with, so no checksum covers it: a segment needs no other file to be understood.

use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// What a segment begins with: the name of the format, and its version.
pub const SEGMENT_HEAD: &[u8; 8] = b"VNSPOOL\x01";
/// Bytes of a record before its lane.
pub const RECORD_HEAD_BYTES: usize = 36;
/// Where the state stands in a record.
pub const STATE_AT: u64 = 8;

/// Something that waits to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is, for whoever put it in.
    pub kind: u8,
    /// For whom it is: records of one lane are delivered one after the other, oldest first.
    pub lane: Arc<str>,
    /// How many items (points, entries) are counted as lost with it.
    pub items: u64,
    /// Since when it waits, in milliseconds since 1970 ([`super::clock`]).
    pub since_ms: u64,
    /// What is delivered.
    pub body: Bytes,
}

/// What is known of a record on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It surely was not taken.
    Waiting,
    /// It may have been taken.
    Unsure,
    /// It is of no use any more.
    Done,
}

impl State {
    /// Its byte.
    pub const fn as_byte(self) -> u8 {
        match self {
            State::Waiting => b'W',
            State::Unsure => b'U',
            State::Done => b'D',
        }
    }

    /// A byte nobody wrote is read as the careful one.
    const fn from_byte(byte: u8) -> State {
        match byte {
            b'W' => State::Waiting,
            b'D' => State::Done,
            _ => State::Unsure,
        }
    }
}

/// A record without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// As in [`Record`].
    pub kind: u8,
    /// As in [`Record`].
    pub items: u64,
    /// As in [`Record`].
    pub since_ms: u64,
    /// What is known of it.
    pub state: State,
    /// Bytes of the lane.
    pub lane_bytes: u16,
    /// Bytes of lane and body.
    pub length: u32,
    checksum: u64,
}

/// What stands where a record might begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A record whose head is right and whose body may be.
    Record(Head),
    /// Something that was never written to its end.
    Torn,
    /// Something else.
    Corrupt,
}

impl Record {
    /// Bytes it takes in a segment.
    pub fn stored_bytes(&self) -> u64 {
        (RECORD_HEAD_BYTES + self.lane.len() + self.body.len()) as u64
    }

    /// Head and lane as they stand before the body. `None` if it is too large for the format.
    pub fn encode_head(&self, state: State) -> Option<Vec<u8>> {
        let lane_bytes = u16::try_from(self.lane.len()).ok()?;
        let length = u32::try_from(self.lane.len() + self.body.len()).ok()?;
        let mut head = vec![0; 4];
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&[state.as_byte(), self.kind]);
        head.extend_from_slice(&lane_bytes.to_le_bytes());
        head.extend_from_slice(&self.items.to_le_bytes());
        head.extend_from_slice(&self.since_ms.to_le_bytes());
        head.extend_from_slice(&checksum(self.lane.as_bytes(), &self.body).to_le_bytes());
        let check = check_of(&head);
        head[..4].copy_from_slice(&check.to_le_bytes());
        head.extend_from_slice(self.lane.as_bytes());
        Some(head)
    }
}

impl Head {
    /// Bytes of the whole record.
    pub fn stored_bytes(&self) -> u64 {
        RECORD_HEAD_BYTES as u64 + u64::from(self.length)
    }

    /// The record, if `rest` is its lane and body as they were written.
    pub fn record(&self, rest: Bytes) -> Option<Record> {
        let lane_bytes = usize::from(self.lane_bytes);
        if rest.len() != self.length as usize || rest.len() < lane_bytes {
            return None;
        }
        let (lane, body) = rest.split_at(lane_bytes);
        if checksum(lane, body) != self.checksum {
            return None;
        }
        let lane = std::str::from_utf8(lane).ok()?.into();
        let (kind, items, since_ms) = (self.kind, self.items, self.since_ms);
        Some(Record { kind, lane, items, since_ms, body: rest.slice(lane_bytes..) })
    }
}

/// Reads what stands at `bytes`, of which `left` remain to the end of the segment: a record's
/// head, or less if the segment is over before.
pub fn next(bytes: &[u8], left: u64) -> Next {
    let Some(head) = bytes.first_chunk::<RECORD_HEAD_BYTES>() else { return Next::Torn };
    // A file system may have made room for what was never written.
    if head.iter().all(|byte| *byte == 0) {
        return Next::Torn;
    }
    let (check, _) = split(head);
    if u32::from_le_bytes(check) != check_of(head) {
        return Next::Corrupt;
    }
    let head = read_head(head);
    if u32::from(head.lane_bytes) > head.length {
        return Next::Corrupt;
    }
    if head.stored_bytes() > left {
        return Next::Torn;
    }
    Next::Record(head)
}

fn read_head(head: &[u8; RECORD_HEAD_BYTES]) -> Head {
    let (_, rest) = split::<4>(head);
    let (length, rest) = split(rest);
    let ([state, kind], rest) = split(rest);
    let (lane_bytes, rest) = split(rest);
    let (items, rest) = split(rest);
    let (since_ms, rest) = split(rest);
    let (checksum, _) = split(rest);
    Head {
        kind,
        items: u64::from_le_bytes(items),
        since_ms: u64::from_le_bytes(since_ms),
        state: State::from_byte(state),
        lane_bytes: u16::from_le_bytes(lane_bytes),
        length: u32::from_le_bytes(length),
        checksum: u64::from_le_bytes(checksum),
    }
}

/// The first bytes of a head. Only heads and their rests are split, which are long enough.
fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (first, rest) = bytes.split_first_chunk().expect("the fields of a head add up to it");
    (*first, rest)
}

fn check_of(head: &[u8]) -> u32 {
    let mut hash = Xxh3::new();
    hash.update(&head[4..STATE_AT as usize]);
    hash.update(&head[STATE_AT as usize + 1..RECORD_HEAD_BYTES]);
    hash.digest() as u32
}

fn checksum(lane: &[u8], body: &[u8]) -> u64 {
    if lane.is_empty() {
        return xxh3_64(body);
    }
    let mut hash = Xxh3::new();
    hash.update(lane);
    hash.update(body);
    hash.digest()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let body = prop::collection::vec(any::<u8>(), 0..200);
        (any::<u8>(), "[a-z:/]{0,20}", any::<u64>(), any::<u64>(), body).prop_map(
            |(kind, lane, items, since_ms, body)| Record {
                kind,
                lane: lane.into(),
                items,
                since_ms,
                body: body.into(),
            },
        )
    }

    fn stored(record: &Record, state: State) -> Vec<u8> {
        let mut bytes = record.encode_head(state).expect("it is small");
        bytes.extend_from_slice(&record.body);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<(Record, State)> {
        let Next::Record(head) = next(bytes, bytes.len() as u64) else { return None };
        let rest = bytes[RECORD_HEAD_BYTES..][..head.length as usize].to_vec();
        Some((head.record(rest.into())?, head.state))
    }

    #[test]
    fn a_record_is_written_as() {
        let record = Record { kind: 3, lane: "a".into(), items: 7, since_ms: 9, body: "bc".into() };
        let bytes = stored(&record, State::Waiting);
        assert_eq!(bytes[4..28], *b"\x03\0\0\0W\x03\x01\0\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0");
        assert_eq!(bytes[36..], *b"abc");
        assert_eq!(bytes.len() as u64, record.stored_bytes());
    }

    #[test]
    fn what_was_not_written_is_torn() {
        assert_eq!(next(b"", 0), Next::Torn);
        assert_eq!(next(&[0; 40], 1000), Next::Torn);
        assert_eq!(next(&[7; 40], 1000), Next::Corrupt);
    }

    proptest! {
        /// read(write(record)) == record, whatever its state.
        #[test]
        fn what_is_written_is_read_back(record in record(), unsure: bool) {
            let state = if unsure { State::Unsure } else { State::Waiting };
            let bytes = stored(&record, state);
            prop_assert_eq!(bytes.len() as u64, record.stored_bytes());
            prop_assert_eq!(read(&bytes), Some((record, state)));
        }

        /// No byte but the state can change without being noticed, and the state at most makes
        /// a record that is there already one that may have been taken.
        #[test]
        fn a_changed_byte_is_noticed(record in record(), at: prop::sample::Index, by in 1u8..) {
            let mut bytes = stored(&record, State::Waiting);
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            match read(&bytes) {
                None => prop_assert_ne!(at as u64, STATE_AT),
                Some((read, _)) => {
                    prop_assert_eq!(at as u64, STATE_AT);
                    prop_assert_eq!(read, record);
                }
            }
        }

        /// A record that is cut anywhere is torn.
        #[test]
        fn a_cut_record_is_torn(record in record(), at: prop::sample::Index) {
            let bytes = stored(&record, State::Waiting);
            let cut = &bytes[..at.index(bytes.len())];
            prop_assert_eq!(next(cut, cut.len() as u64), Next::Torn);
        }

        /// No bytes make the reader panic.
        #[test]
        fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            read(&bytes);
        }
    }
}
