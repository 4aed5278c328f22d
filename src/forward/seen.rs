//! What an importer remembers of the batches it was sent, so that one that is sent again is
//! not merged again.
//!
//! For each sender (an instance and an epoch) it is a window of the 8192 latest sequence
//! numbers, a bit each, as receivers of IPsec keep it (RFC 6479). A sender retries for minutes
//! and sends tens of batches an interval, so what falls out of the window is long settled; if
//! it does come, it is refused, since merging it may count it twice. Memory is bounded: 1 KiB a
//! sender, and the senders heard of longest ago are forgotten beyond 20,000.
//!
//! Pure. The importer asks before it merges a body, and says afterwards how that went:
//!
//! ```
//! use veneur::forward::identity::BatchId;
//! use veneur::forward::seen::{Admission, Seen};
//!
//! let mut seen = Seen::default();
//! let id = BatchId { instance: 1, epoch: 1, sequence: 0 };
//! assert_eq!(seen.admit(id), Admission::New);
//! assert_eq!(seen.admit(id), Admission::Underway);
//! seen.settle(id);
//! assert_eq!(seen.admit(id), Admission::Repeat);
//! ```

use std::collections::{HashMap, VecDeque};

use super::identity::BatchId;

/// Senders that are remembered.
const MAX_SENDERS: usize = 20_000;
/// Sequence numbers that are remembered of each, in words of 64.
const WINDOW_WORDS: u64 = 128;

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Merge it, then [`Seen::settle`] or [`Seen::withdraw`]: exactly one of them.
    New,
    /// It has been merged: say so and do nothing.
    Repeat,
    /// It is being merged: ask the sender to come back.
    Underway,
    /// Too old to know: refuse it for good.
    Forgotten,
}

/// The batches merged lately.
#[derive(Debug, Default)]
pub struct Seen {
    senders: HashMap<SenderId, Sender>,
    /// Counts admissions: the time by which senders are forgotten.
    clock: u64,
}

/// A restarted instance counts anew, beside the one that is still draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct SenderId {
    instance: u64,
    epoch: u64,
}

impl From<BatchId> for SenderId {
    fn from(id: BatchId) -> SenderId {
        SenderId { instance: id.instance, epoch: id.epoch }
    }
}

impl Seen {
    /// Whether a batch is to be merged. [`Admission::New`] marks it as underway.
    pub fn admit(&mut self, id: BatchId) -> Admission {
        self.clock += 1;
        if self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(&id.into()) {
            self.forget_one();
        }
        let sender = self.senders.entry(id.into()).or_default();
        sender.heard_at = self.clock;
        if sender.underway.contains(&id.sequence) {
            return Admission::Underway;
        }
        match sender.settled.contains(id.sequence) {
            None => Admission::Forgotten,
            Some(true) => Admission::Repeat,
            Some(false) => {
                sender.underway.push(id.sequence);
                Admission::New
            }
        }
    }

    /// A batch that was admitted as new has been merged.
    pub fn settle(&mut self, id: BatchId) {
        if let Some(sender) = self.take_off(id) {
            sender.settled.insert(id.sequence);
        }
    }

    /// A batch that was admitted as new has not been merged; it may be sent again.
    pub fn withdraw(&mut self, id: BatchId) {
        self.take_off(id);
    }

    /// Senders remembered.
    pub fn senders(&self) -> usize {
        self.senders.len()
    }

    fn take_off(&mut self, id: BatchId) -> Option<&mut Sender> {
        let sender = self.senders.get_mut(&id.into())?;
        let place = sender.underway.iter().position(|&sequence| sequence == id.sequence)?;
        sender.underway.swap_remove(place);
        Some(sender)
    }

    /// Forgets the sender heard of longest ago, but none that is being listened to.
    fn forget_one(&mut self) {
        let idle = self.senders.iter().filter(|(_, sender)| sender.underway.is_empty());
        if let Some((&oldest, _)) = idle.min_by_key(|(_, sender)| sender.heard_at) {
            self.senders.remove(&oldest);
        }
    }
}

#[derive(Debug, Default)]
struct Sender {
    heard_at: u64,
    /// A few: as many as the sender has requests in flight.
    underway: Vec<u64>,
    settled: Window,
}

/// A set of sequence numbers that forgets the lowest ones.
#[derive(Debug, Default)]
struct Window {
    /// Bit `n % 64` of word `n / 64 - first` is sequence number `n`.
    words: VecDeque<u64>,
    first: u64,
}

impl Window {
    /// `None` if the number is below the window.
    fn contains(&self, n: u64) -> Option<bool> {
        let word = n / 64;
        let last = self.first + self.words.len() as u64;
        if !self.words.is_empty() && word + WINDOW_WORDS < last {
            return None;
        }
        let index = word.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let bits = index.and_then(|index| self.words.get(index)).copied().unwrap_or(0);
        Some(bits >> (n % 64) & 1 == 1)
    }

    fn insert(&mut self, n: u64) {
        let word = n / 64;
        let last = self.first + self.words.len() as u64;
        if self.words.is_empty() || word >= last + WINDOW_WORDS {
            // Everything that was remembered is below the new window.
            self.words.clear();
            self.first = word;
        }
        while word < self.first && (self.words.len() as u64) < WINDOW_WORDS {
            self.words.push_front(0);
            self.first -= 1;
        }
        while word >= self.first + self.words.len() as u64 {
            self.words.push_back(0);
        }
        while self.words.len() as u64 > WINDOW_WORDS {
            self.words.pop_front();
            self.first += 1;
        }
        let index = word.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(bits) = index.and_then(|index| self.words.get_mut(index)) {
            *bits |= 1 << (n % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(sequence: u64) -> BatchId {
        BatchId { instance: 1, epoch: 1, sequence }
    }

    /// Admits and merges at once.
    fn import(seen: &mut Seen, id: BatchId) -> Admission {
        let admission = seen.admit(id);
        if admission == Admission::New {
            seen.settle(id);
        }
        admission
    }

    #[test]
    fn a_batch_is_merged_once_in_whatever_order_batches_come() {
        let mut seen = Seen::default();
        for sequence in [5, 3, 4, 200, 0, 199] {
            assert_eq!(import(&mut seen, id(sequence)), Admission::New, "{sequence}");
            assert_eq!(import(&mut seen, id(sequence)), Admission::Repeat, "{sequence}");
        }
    }

    #[test]
    fn the_same_sequence_of_another_sender_or_another_life_is_another_batch() {
        let mut seen = Seen::default();
        for (instance, epoch) in [(1, 1), (1, 2), (2, 1), (1, 0)] {
            let id = BatchId { instance, epoch, sequence: 0 };
            assert_eq!(import(&mut seen, id), Admission::New);
            assert_eq!(import(&mut seen, id), Admission::Repeat);
        }
        assert_eq!(seen.senders(), 4);
    }

    #[test]
    fn a_batch_that_is_being_merged_is_neither_new_nor_done() {
        let mut seen = Seen::default();
        assert_eq!(seen.admit(id(0)), Admission::New);
        assert_eq!(seen.admit(id(0)), Admission::Underway);
        seen.withdraw(id(0));
        assert_eq!(seen.admit(id(0)), Admission::New, "what was not merged may come again");
        seen.settle(id(0));
        assert_eq!(seen.admit(id(0)), Admission::Repeat);
        seen.withdraw(id(0));
        assert_eq!(seen.admit(id(0)), Admission::Repeat, "what is done is done");
    }

    #[test]
    fn what_is_older_than_the_window_is_refused_and_never_merged_again() {
        let mut seen = Seen::default();
        let window = WINDOW_WORDS * 64;
        assert_eq!(import(&mut seen, id(0)), Admission::New);
        assert_eq!(import(&mut seen, id(window - 1)), Admission::New);
        assert_eq!(import(&mut seen, id(0)), Admission::Repeat);
        assert_eq!(import(&mut seen, id(window)), Admission::New);
        assert_eq!(import(&mut seen, id(0)), Admission::Forgotten);
        assert_eq!(import(&mut seen, id(64)), Admission::New);
        assert_eq!(import(&mut seen, id(u64::MAX)), Admission::New);
        assert_eq!(import(&mut seen, id(window)), Admission::Forgotten);
        assert_eq!(import(&mut seen, id(u64::MAX)), Admission::Repeat);
        assert_eq!(import(&mut seen, id(u64::MAX - 1)), Admission::New);
    }

    #[test]
    fn the_sender_heard_of_longest_ago_is_forgotten_first() {
        let mut seen = Seen::default();
        let first_of = |instance| BatchId { instance, epoch: 0, sequence: 0 };
        assert_eq!(seen.admit(first_of(0)), Admission::New, "and underway from now on");
        for instance in 1..=MAX_SENDERS as u64 {
            assert_eq!(import(&mut seen, first_of(instance)), Admission::New);
        }
        assert_eq!(seen.senders(), MAX_SENDERS);
        assert_eq!(seen.admit(first_of(0)), Admission::Underway);
        assert_eq!(import(&mut seen, first_of(2)), Admission::Repeat);
        assert_eq!(import(&mut seen, first_of(1)), Admission::New, "it had been forgotten");
    }

    proptest! {
        /// Nothing is merged twice, whatever comes; and what is within the window is merged.
        #[test]
        fn every_batch_is_merged_at_most_once(
            steps in proptest::collection::vec((0u64..20_000, any::<bool>()), 1..300),
        ) {
            let mut seen = Seen::default();
            let mut merged = BTreeSet::new();
            let mut highest = 0;
            for (sequence, works) in steps {
                match seen.admit(id(sequence)) {
                    Admission::New if works => {
                        prop_assert!(merged.insert(sequence), "{} twice", sequence);
                        highest = highest.max(sequence);
                        seen.settle(id(sequence));
                    }
                    Admission::New => {
                        prop_assert!(!merged.contains(&sequence));
                        seen.withdraw(id(sequence));
                    }
                    Admission::Repeat => prop_assert!(merged.contains(&sequence)),
                    Admission::Underway => prop_assert!(false, "nothing is left underway"),
                    Admission::Forgotten => {
                        prop_assert!(sequence + (WINDOW_WORDS - 1) * 64 < highest);
                    }
                }
            }
        }
    }
}
