//! What makes a batch the same batch when it is sent again.
//!
//! A sender counts its batches. `instance` is a random number it chose, `epoch` when its process
//! began to count, `sequence` the count. A batch keeps its identity for as long as it is retried,
//! and no other batch ever has it, whichever upstream it goes to. After [`BATCHES`] a process goes
//! on as another sender.
//!
//! On the wire they are headers, on gRPC calls metadata of the same names:
//!
//! ```text
//! X-Veneur-Batch: 9f3c02d14b5a6e77/1700000000123/42
//! X-Veneur-Interval-End: 1700000010
//! ```
//!
//! An importer that remembers batches ([`super::seen`]) repeats `X-Veneur-Batch` in its answer,
//! whatever the answer is. That is how a sender learns that it may send a batch again although
//! it does not know what became of it: a real Veneur answers without, and would count it twice.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

/// Name of the header with a [`BatchId`].
pub const BATCH_HEADER: &str = "x-veneur-batch";

/// Name of the header with the end of the interval a batch is of, in seconds since 1970.
pub const INTERVAL_END_HEADER: &str = "x-veneur-interval-end";

/// Batches of one sender. An importer remembers twice as many of each, so none is ever so old
/// that nobody knows it, however long it is retried while others go up.
const BATCHES: u64 = 4096;

/// The identity of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId {
    /// Who sends it.
    pub instance: u64,
    /// When the sender began to count, in milliseconds since 1970.
    pub epoch: u64,
    /// How many the sender had counted before.
    pub sequence: u64,
}

/// Why a text is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a batch identity: INSTANCE/EPOCH/SEQUENCE, 16 hexadecimal digits and two numbers")]
pub struct BadIdentity;

/// Gives out identities, each once.
#[derive(Debug)]
pub struct Identities(BatchId);

impl Identities {
    /// Those of a sender that starts `now`.
    pub fn new(now: SystemTime) -> Identities {
        let instance = random();
        let since_1970 = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        Identities(BatchId { instance, epoch, sequence: 0 })
    }

    /// One that nothing else has.
    pub fn issue(&mut self) -> BatchId {
        let id = self.0;
        self.0.sequence += 1;
        if self.0.sequence == BATCHES {
            self.0 = BatchId { instance: random(), sequence: 0, ..self.0 };
        }
        id
    }
}

fn random() -> u64 {
    // Each `RandomState` has its own random keys, so the hash of nothing is a random number.
    RandomState::new().build_hasher().finish()
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}/{}", self.instance, self.epoch, self.sequence)
    }
}

impl FromStr for BatchId {
    type Err = BadIdentity;

    /// Reads what [`fmt::Display`] writes, and nothing else: one identity has one text.
    fn from_str(text: &str) -> Result<BatchId, BadIdentity> {
        let mut parts = text.split('/');
        let mut number = |radix| {
            let part = parts.next()?;
            // `from_str_radix` takes a sign.
            let is_digits = part.bytes().all(|byte| byte.is_ascii_alphanumeric());
            is_digits.then(|| u64::from_str_radix(part, radix).ok()).flatten()
        };
        let read = |instance: Option<u64>, epoch: Option<u64>, sequence: Option<u64>| {
            Some(BatchId { instance: instance?, epoch: epoch?, sequence: sequence? })
        };
        let id = read(number(16), number(10), number(10)).ok_or(BadIdentity)?;
        if id.to_string() == text { Ok(id) } else { Err(BadIdentity) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::forward::seen::{Admission, Seen};

    #[test]
    fn an_identity_is_written_as() {
        let id = BatchId { instance: 0x9f3c, epoch: 1_700_000_000_123, sequence: 42 };
        assert_eq!(id.to_string(), "0000000000009f3c/1700000000123/42");
    }

    #[test]
    fn an_identity_is_refused_when() {
        for text in [
            "",
            "/",
            "//",
            "0000000000009f3c/1",
            "0000000000009f3c/1/2/3",
            "0000000000009f3c/1/2/",
            "9f3c/1/2",
            "0000000000009F3C/1/2",
            "+000000000009f3c/1/2",
            "0000000000009f3c/+1/2",
            "0000000000009f3c/01/2",
            "0000000000009f3c/1/-2",
            "0000000000009f3c/1/18446744073709551616",
            " 0000000000009f3c/1/2",
            "0000000000009f3c/1/2 ",
            "0000000000009f3c/1/٢",
        ] {
            assert_eq!(text.parse::<BatchId>(), Err(BadIdentity), "{text:?}");
        }
    }

    #[test]
    fn a_sender_counts_from_zero_and_two_senders_differ() {
        let now = UNIX_EPOCH + Duration::from_millis(5);
        let (mut one, mut other) = (Identities::new(now), Identities::new(now));
        let ids = [one.issue(), one.issue()];
        assert_eq!(ids.map(|id| (id.epoch, id.sequence)), [(5, 0), (5, 1)]);
        assert_ne!(ids[0], other.issue());
    }

    #[test]
    fn no_batch_becomes_too_old_for_an_importer_to_know() {
        let (mut identities, mut seen) = (Identities::new(UNIX_EPOCH), Seen::default());
        let ids: Vec<BatchId> = (0..3 * BATCHES).map(|_| identities.issue()).collect();
        // The oldest come last.
        for id in ids.iter().rev() {
            assert_eq!(seen.admit(*id), Admission::New, "{id}");
            seen.settle(*id);
        }
        assert!(ids.iter().all(|id| seen.admit(*id) == Admission::Repeat));
        assert_eq!(seen.senders(), 3);
    }

    proptest! {
        /// parse(print(id)) == id.
        #[test]
        fn what_is_written_is_read_back(instance: u64, epoch: u64, sequence: u64) {
            let id = BatchId { instance, epoch, sequence };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        /// No text makes the reader panic, and what it takes it writes the same.
        #[test]
        fn one_identity_has_one_text(text in "[0-9a-f+ ]{0,17}/[0-9+]{0,21}/[0-9]{0,21}|\\PC{0,40}") {
            if let Ok(id) = text.parse::<BatchId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
