use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use proptest::prelude::*;

use super::*;
use crate::model::{Dialect, MetricKind, Scope, TagSet};

/// Files in memory. Cloning shares.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.0.lock().expect("nobody panics with it")
    }

    fn names(&self) -> Vec<String> {
        self.files().keys().cloned().collect()
    }

    fn with<T>(&self, name: &str, act: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        self.files().get_mut(name).map(act).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Disk for Memory {
    fn list(&mut self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.files().iter().map(|(name, file)| (name.clone(), file.len() as u64)).collect())
    }

    fn read(&mut self, name: &str, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.with(name, |file| {
            let bytes = file.get(at as usize..at as usize + into.len());
            bytes.map(|bytes| into.copy_from_slice(bytes)).ok_or(io::ErrorKind::UnexpectedEof)
        })??;
        Ok(())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let before = self.files().insert(name.to_owned(), Vec::new());
        before.map_or(Ok(()), |_| Err(io::ErrorKind::AlreadyExists.into()))
    }

    fn write(&mut self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(name, |file| {
            file.resize(file.len().max(at as usize + bytes.len()), 0);
            file[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        })
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.with(name, |file| file.truncate(length as usize))
    }

    fn sync(&mut self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let file = self.files().remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files().insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }
}

fn key(n: u32) -> MetricKey {
    let name = format!("c{n}").as_str().into();
    let (kind, scope, dialect) = (MetricKind::Counter, Scope::Mixed, Dialect::DogStatsD);
    MetricKey { name, tags: TagSet::empty(), kind, scope, dialect }
}

/// A part of counters: each a number and its sum, or that it is gone.
fn part(worker: &str, kind: u8, sums: &[(u32, Option<f64>)]) -> Part {
    let mut body = Vec::new();
    for (n, sum) in sums {
        stored::store(&key(*n), sum.map(Aggregate::Counter).as_ref(), &mut body);
    }
    Part {
        lane: worker.into(),
        is_first: kind & FIRST != 0,
        is_last: kind & LAST != 0,
        series: sums.len() as u64,
        at_ms: 7,
        body: body.into(),
    }
}

fn open(disk: &Memory) -> (Files<Memory>, Found) {
    Files::open(disk.clone(), 1 << 20).expect("it can be read")
}

fn sums(found: &Found) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (key, held) in &found.states {
        let Aggregate::Counter(sum) = held else { panic!("not a counter: {held:?}") };
        *sums.entry(key.name.to_string()).or_default() += sum;
    }
    sums
}

fn named(sums: &[(&str, f64)]) -> BTreeMap<String, f64> {
    sums.iter().map(|(name, sum)| ((*name).to_owned(), *sum)).collect()
}

#[test]
fn the_last_state_counts_and_a_checkpoint_that_is_not_through_does_not() {
    let disk = Memory::default();
    let (mut files, _) = open(&disk);
    for (worker, kind, sums) in [
        ("0", FIRST, vec![(1, Some(1.0)), (2, Some(1.0))]),
        ("0", LAST, vec![(3, Some(1.0))]),
        ("1", FIRST | LAST, vec![(9, Some(5.0))]),
        ("0", FIRST | LAST, vec![(2, Some(4.0)), (1, None)]),
        ("0", FIRST, vec![(3, Some(8.0))]),
    ] {
        files.append(1, part(worker, kind, &sums)).expect("there is room");
    }
    let (_, found) = open(&disk);
    assert_eq!(sums(&found), named(&[("c2", 4.0), ("c3", 1.0), ("c9", 5.0)]));
    assert_eq!((found.newest_ms, found.torn, found.corrupt.len()), (7, 0, 0));
}

#[test]
fn a_file_goes_with_its_interval_and_what_was_found_with_it() {
    let disk = Memory::default();
    let (mut files, _) = open(&disk);
    let whole = |n| part("0", FIRST | LAST, &[(n, Some(1.0))]);
    files.append(1, whole(1)).expect("there is room");
    let (mut files, found) = open(&disk);
    assert_eq!(sums(&found), named(&[("c1", 1.0)]));
    files.append(1, whole(2)).expect("there is room");
    files.append(2, whole(3)).expect("there is room");
    assert_eq!(disk.names().len(), 3, "an interval before and two of this process");
    files.retire(1).expect("they can be removed");
    let (mut files, found) = open(&disk);
    assert_eq!(sums(&found), named(&[("c3", 1.0)]), "the second has not been flushed");
    files.retire(0).expect("it can be removed");
    assert_eq!(disk.names(), [""; 0]);
}

fn values(files: &mut Files<Memory>, sum: f64, at_ms: u64) -> io::Result<u64> {
    let mut body = Vec::new();
    stored::store(&key(1), Some(&Aggregate::Counter(sum)), &mut body);
    files.keep(body.into(), 1, at_ms)
}

fn found_values(disk: &Memory) -> (Vec<f64>, u64) {
    let (_, found) = open(disk);
    let sum = |(_, held): &(MetricKey, Aggregate)| match held {
        Aggregate::Counter(sum) => *sum,
        other => panic!("not a counter: {other:?}"),
    };
    (found.values.iter().map(sum).collect(), found.values_ms)
}

#[test]
fn the_later_values_count_and_a_torn_file_leaves_those_before() {
    let disk = Memory::default();
    let (mut files, _) = open(&disk);
    assert_eq!(found_values(&disk), (vec![], 0));
    for n in 1..=5_u32 {
        values(&mut files, f64::from(n), u64::from(n)).expect("there is room");
        assert_eq!(found_values(&disk), (vec![f64::from(n)], u64::from(n)));
    }
    // The next process writes over the older one.
    let (mut files, _) = open(&disk);
    values(&mut files, 6.0, 6).expect("there is room");
    assert_eq!(found_values(&disk), (vec![6.0], 6));
    for file in disk.files().values_mut() {
        let is_latest = file.len() > 20 && stored_at(file) == 6;
        file.truncate(if is_latest { file.len() - 1 } else { file.len() });
    }
    assert_eq!(found_values(&disk), (vec![5.0], 5));
    let (mut files, _) = open(&disk);
    files.keep(Bytes::new(), 0, 7).expect("they can be removed");
    assert_eq!(disk.names(), [""; 0]);
}

/// When the record of a file was written.
fn stored_at(file: &[u8]) -> u64 {
    let record = &file[HEAD.len()..];
    let Next::Record(head) = segment::next(record, record.len() as u64) else { return 0 };
    let record = head.record(record[RECORD_HEAD_BYTES..].to_vec().into());
    record.map_or(0, |record| record.since_ms)
}

#[test]
fn values_that_cannot_be_written_are_not_there_twice() {
    let disk = Memory::default();
    let (mut files, _) = Files::open(disk.clone(), 150).expect("it can be read");
    values(&mut files, 1.0, 1).expect("there is room");
    let long = vec![0; 200];
    files.keep(long.into(), 1, 2).expect_err("there is no room for so much");
    assert_eq!(found_values(&disk), (vec![], 0), "what is old would count growth twice");
}

#[test]
fn several_intervals_are_read_the_later_one_first() {
    let disk = Memory::default();
    let (mut files, _) = open(&disk);
    for interval in [1, 2] {
        let sums = [(1, Some(f64::from(interval)))];
        files.append(interval, part("0", FIRST | LAST, &sums)).expect("there is room");
    }
    let (_, found) = open(&disk);
    let held: Vec<f64> = found
        .states
        .iter()
        .map(|(_, held)| if let Aggregate::Counter(sum) = held { *sum } else { 0.0 })
        .collect();
    assert_eq!(held, [2.0, 1.0]);
}

#[test]
fn a_full_disk_leaves_what_was_there_before() {
    let disk = Memory::default();
    let (mut files, _) = Files::open(disk.clone(), 300).expect("it can be read");
    let small = part("0", FIRST | LAST, &[(1, Some(1.0))]);
    let many: Vec<_> = (0..100).map(|n| (n, Some(2.0))).collect();
    files.append(1, small.clone()).expect("there is room");
    assert!(files.append(1, part("0", FIRST | LAST, &many)).is_err());
    assert!(files.append(1, small.clone()).is_err(), "nothing more in this interval");
    assert_eq!(sums(&open(&disk).1), named(&[("c1", 1.0)]));
    files.append(2, small).expect("there is room in the next one");
}

#[test]
fn a_damaged_file_is_kept_aside_and_what_stands_before_the_damage_is_read() {
    let disk = Memory::default();
    let (mut files, _) = open(&disk);
    for n in [1, 2] {
        files.append(1, part("0", FIRST | LAST, &[(n, Some(1.0))])).expect("there is room");
    }
    let name = disk.names().remove(0);
    disk.with(&name, |file| *file.last_mut().expect("it is not empty") ^= 1).expect("it is there");
    let (mut files, found) = open(&disk);
    assert_eq!(sums(&found), named(&[("c1", 1.0)]));
    assert_eq!(found.corrupt, disk.names());
    assert!(disk.names()[0].ends_with(".corrupt"));
    files.append(1, part("0", FIRST | LAST, &[(3, Some(1.0))])).expect("it has another name");
    files.retire(1).expect("it can be removed");
    assert_eq!(disk.names(), found.corrupt);
}

proptest! {
    /// A file that is cut anywhere is what it was after one of its checkpoints; and so is one
    /// with a changed byte, which is never taken for what it is not.
    #[test]
    fn damage_costs_what_stands_behind_it(
        checkpoints in prop::collection::vec(prop::collection::vec((0..5u32, 1..100u32), 1..4), 1..6),
        at: prop::sample::Index,
        cuts: bool,
    ) {
        let disk = Memory::default();
        let (mut files, _) = open(&disk);
        let mut states = vec![BTreeMap::new()];
        for checkpoint in &checkpoints {
            let mut state = states.last().expect("there is one").clone();
            for (index, (n, sum)) in checkpoint.iter().enumerate() {
                let kind = if index == 0 { FIRST } else { 0 }
                    | if index + 1 == checkpoint.len() { LAST } else { 0 };
                let sums = [(*n, Some(f64::from(*sum)))];
                files.append(1, part("0", kind, &sums)).expect("there is room");
                state.insert(format!("c{n}"), f64::from(*sum));
            }
            states.push(state);
        }
        let name = disk.names().remove(0);
        disk.with(&name, |file| {
            let at = at.index(file.len());
            match cuts {
                true => file.truncate(at),
                false => file[at] ^= 0x55,
            }
        }).expect("it is there");
        let (_, found) = open(&disk);
        prop_assert!(states.contains(&sums(&found)), "{found:?}");
        if cuts {
            prop_assert_eq!(found.corrupt.len(), 0);
        }
    }
}
