//! Who is connected, and what was last heard of everybody.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::store::Entry;

/// A wish that a provider be asked: one end of a channel, on the other end of which a round waits
/// until all of them have been dropped. Nothing is ever sent.
pub(super) type Poll = mpsc::Sender<Infallible>;

/// Which registration of an id it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// The roll.
#[derive(Debug)]
pub(super) struct Roll {
    /// By id. A session ends when its sender is dropped.
    connected: HashMap<String, (Ticket, mpsc::Sender<Poll>)>,
    latest: BTreeMap<String, Arc<Entry>>,
    tickets: u64,
    most: usize,
    is_dirty: bool,
    is_closed: bool,
}

impl Roll {
    /// One that remembers `latest`, and has room for `most` providers.
    pub(super) fn new(latest: BTreeMap<String, Arc<Entry>>, most: usize) -> Roll {
        let connected = HashMap::new();
        Roll { connected, latest, tickets: 0, most, is_dirty: false, is_closed: false }
    }

    /// Providers that are connected.
    pub(super) fn providers(&self) -> usize {
        self.connected.len()
    }

    /// Enters a provider; it is asked through `polls`. An older connection of the same id is
    /// let go of. `None`: there is no room.
    pub(super) fn enter(&mut self, id: &str, polls: mpsc::Sender<Poll>) -> Option<Ticket> {
        if self.connected.len() >= self.most && !self.connected.contains_key(id) {
            return None;
        }
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.connected.insert(id.to_owned(), (ticket, polls));
        Some(ticket)
    }

    /// Removes a provider, unless it has been replaced.
    pub(super) fn remove(&mut self, id: &str, ticket: Ticket) {
        if self.connected.get(id).is_some_and(|(known, _)| *known == ticket) {
            self.connected.remove(id);
        }
    }

    /// Notes what was heard. If there is no room, the one that has been gone for longest is
    /// forgotten, and returned.
    pub(super) fn note(&mut self, id: &str, entry: Entry) -> Option<String> {
        let mut forgotten = None;
        if self.latest.len() >= self.most && !self.latest.contains_key(id) {
            let gone = self.latest.iter().filter(|(id, _)| !self.connected.contains_key(*id));
            let oldest = gone.min_by(|(_, a), (_, b)| a.timestamp.total_cmp(&b.timestamp));
            forgotten = oldest.map(|(id, _)| id.clone());
            if let Some(id) = &forgotten {
                self.latest.remove(id);
            }
        }
        self.latest.insert(id.to_owned(), Arc::new(entry));
        self.is_dirty = true;
        forgotten
    }

    /// Has all that are connected asked. One that is still being asked is left out.
    pub(super) fn ask_all(&self, round: &Poll) {
        for (_, polls) in self.connected.values() {
            // Full: it is busy with the last one. Closed: it is about to be removed.
            let _ = polls.try_send(round.clone());
        }
    }

    /// What is to be written, if anything has changed since it was last asked.
    pub(super) fn take_changed(&mut self) -> Option<BTreeMap<String, Arc<Entry>>> {
        std::mem::take(&mut self.is_dirty).then(|| self.latest.clone())
    }

    /// What was to be written was not.
    pub(super) fn was_not_written(&mut self) {
        self.is_dirty = true;
    }

    /// Nothing will change any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gatherer::store::Gathered;

    fn entry(timestamp: f64) -> Entry {
        let nickname = "n".to_owned();
        Entry { timestamp, nickname, stats: Gathered::default(), epoch: None, address: None }
    }

    fn polls() -> (mpsc::Sender<Poll>, mpsc::Receiver<Poll>) {
        mpsc::channel(1)
    }

    #[test]
    fn the_same_id_again_replaces_the_older_connection() {
        let mut roll = Roll::new(BTreeMap::new(), 1);
        let ((first, mut first_polls), (second, mut second_polls)) = (polls(), polls());
        let first = roll.enter("a", first).expect("there is room");
        let _second = roll.enter("a", second).expect("its room");
        assert!(matches!(first_polls.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
        // The end of the older one, which comes later, changes nothing.
        roll.remove("a", first);
        assert_eq!(roll.providers(), 1);
        assert_eq!(roll.enter("b", polls().0), None, "no room");
        let (round, mut done) = mpsc::channel(1);
        roll.ask_all(&round);
        roll.ask_all(&round);
        drop(round);
        assert!(second_polls.try_recv().is_ok() && second_polls.try_recv().is_err(), "asked once");
        assert!(matches!(done.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }

    #[test]
    fn without_room_the_one_longest_gone_is_forgotten() {
        let mut roll = Roll::new(BTreeMap::new(), 3);
        let _ticket = roll.enter("old", polls().0);
        for (id, timestamp, forgotten) in [
            ("old", 1.0, None),
            ("gone", 3.0, None),
            ("longer", 2.0, None),
            ("gone", 4.0, None),
            ("new", 5.0, Some("longer")),
            ("newer", 6.0, Some("gone")),
        ] {
            assert_eq!(roll.note(id, entry(timestamp)).as_deref(), forgotten, "{id}");
        }
        let kept = roll.take_changed().expect("there was something new");
        assert_eq!(kept.keys().collect::<Vec<_>>(), ["new", "newer", "old"]);
        assert_eq!(roll.take_changed(), None);
        roll.was_not_written();
        assert!(roll.take_changed().is_some());
    }
}
