//! Segments: what is appended is there after a crash, and damage costs no more than it must.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use proptest::prelude::*;
use veneur::spool::Record;
use veneur::spool::disk::{Directory, Disk};
use veneur::spool::segment::State;
use veneur::spool::store::{Found, Location, Refused, Scan, Store, StoreLimits, Unreadable};

use crate::random::Random;
use crate::virtual_disk::VirtualDisk;

const LIMITS: StoreLimits = StoreLimits { max_bytes: 1 << 20, segment_bytes: 1 << 10, sync: true };

/// A record that is told from others by its number.
fn record(number: u64) -> Record {
    let body = Bytes::from(vec![number as u8; 50 + number as usize % 300]);
    Record { kind: 1, lane: "lane".into(), items: number, since_ms: number, body }
}

fn append<D: Disk>(store: &mut Store<D>, numbers: &[u64]) -> Vec<Location> {
    let records: Vec<_> = numbers.iter().map(|&n| (record(n), State::Waiting)).collect();
    store.append(&records).expect("there is room")
}

fn open<D: Disk>(disk: D) -> (Store<D>, Scan) {
    Store::open(disk, LIMITS).expect("the directory can be read")
}

/// Numbers of records found, in order; each can be read.
fn numbers<D: Disk>(store: &mut Store<D>, found: &[Found]) -> Vec<u64> {
    for found in found {
        let read = store.read(found.location).expect("what was found can be read");
        assert_eq!(read, record(found.items));
    }
    let mut numbers: Vec<u64> = found.iter().map(|found| found.items).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_is_appended_is_found_by_the_next_process_until_it_is_erased() {
    let disk = VirtualDisk::new();
    let (mut store, _) = open(disk.clone());
    let first = append(&mut store, &[1, 2, 3]);
    append(&mut store, &(4..20).collect::<Vec<_>>());
    append(&mut store, &[20]);
    store.erase(first[1]).expect("the disk works");
    store.mark(first[2], State::Unsure, true).expect("the disk works");
    let (mut store, scan) = open(disk.clone());
    let expected: Vec<u64> = (1..=20).filter(|n| *n != 2).collect();
    assert_eq!(numbers(&mut store, &scan.found), expected);
    let unsure: Vec<_> = scan.found.iter().filter(|found| found.is_unsure).collect();
    assert_eq!(unsure.iter().map(|found| found.items).collect::<Vec<_>>(), [3]);
    assert_eq!((scan.torn, scan.corrupt.len(), scan.lost.len()), (0, 0, 0));
    scan.found.iter().for_each(|found| {
        store.erase(found.location).expect("the disk works");
    });
    assert_eq!((disk.used(), store.bytes()), (0, 0), "no file is left");
}

#[test]
fn a_store_that_is_full_says_so_and_has_room_again_after_erasing() {
    let disk = VirtualDisk::new();
    let limits = StoreLimits { max_bytes: 4 << 10, ..LIMITS };
    let (mut store, _) = Store::open(disk.clone(), limits).expect("the directory can be read");
    let mut locations = Vec::new();
    loop {
        match store.append(&[(record(200), State::Waiting)]) {
            Ok(more) => locations.extend(more),
            Err(Refused::Full) => break,
            Err(Refused::Io(error)) => panic!("{error}"),
        }
    }
    assert!(disk.used() as u64 <= limits.max_bytes);
    assert_eq!(disk.used() as u64, store.bytes());
    let oldest = locations[0].segment;
    for location in locations.into_iter().filter(|location| location.segment == oldest) {
        store.erase(location).expect("the disk works");
    }
    append(&mut store, &[200]);
}

#[test]
fn a_disk_that_refuses_leaves_what_was_there_and_nothing_else() {
    for (case, partial) in [(0, 0), (1, 30), (2, 100)] {
        let disk = VirtualDisk::new();
        let (mut store, _) = open(disk.clone());
        append(&mut store, &[1]);
        match case {
            0 => disk.set_read_only(true),
            1 => disk.limit(disk.used() + partial),
            _ => disk.fail_next(1, partial),
        }
        let refused = store.append(&[(record(2), State::Waiting), (record(3), State::Waiting)]);
        assert!(matches!(refused, Err(Refused::Io(_))), "{case}");
        disk.set_read_only(false);
        disk.limit(usize::MAX);
        append(&mut store, &[4]);
        let (mut store, scan) = open(disk);
        assert_eq!(numbers(&mut store, &scan.found), [1, 4], "{case}");
    }
}

#[test]
fn a_damaged_segment_is_kept_aside_and_costs_what_is_behind_the_damage() {
    let disk = VirtualDisk::new();
    let (mut store, _) = open(disk.clone());
    let damaged = append(&mut store, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])[0].segment;
    let whole = append(&mut store, &[20])[0].segment;
    assert_ne!(damaged, whole);
    let name = format!("{damaged:020}.segment");
    // In the body of the third: each of the first two takes 36 bytes, the lane's four and its own.
    disk.damage(&name, 8 + 40 + 51 + 40 + 52 + 60);
    let (mut store, scan) = open(disk.clone());
    assert_eq!(numbers(&mut store, &scan.found), [1, 2, 20]);
    let aside = format!("{damaged:020}.corrupt");
    assert_eq!(scan.corrupt, std::slice::from_ref(&aside));
    assert!(disk.names().contains(&aside) && !disk.names().contains(&name));
    let (mut store, scan) = open(disk);
    assert_eq!(numbers(&mut store, &scan.found), [1, 2, 20], "and again");
    assert!(scan.corrupt.is_empty());
}

#[test]
fn a_segment_of_another_version_is_kept_aside() {
    let disk = VirtualDisk::new();
    let (mut store, _) = open(disk.clone());
    append(&mut store, &[1]);
    disk.damage(&disk.names()[0], 7);
    let (_, scan) = open(disk);
    assert_eq!((scan.found.len(), scan.corrupt.len()), (0, 1));
}

#[test]
fn damage_that_comes_later_costs_its_record_and_the_segment_is_kept_aside() {
    let disk = VirtualDisk::new();
    let (mut store, _) = open(disk.clone());
    let locations = append(&mut store, &[1, 2]);
    disk.damage(&disk.names()[0], 60);
    assert!(matches!(store.read(locations[0]), Err(Unreadable::Corrupt)));
    assert_eq!(store.read(locations[1]).expect("it is whole"), record(2));
    assert!(!store.erase(locations[0]).expect("the disk works"));
    assert!(store.erase(locations[1]).expect("the disk works"), "it is kept aside");
    assert_eq!(disk.names(), ["00000000000000000001.corrupt"]);
}

#[test]
fn segments_kept_aside_are_bounded() {
    let disk = VirtualDisk::new();
    for number in 0..30 {
        let (mut store, _) = open(disk.clone());
        append(&mut store, &[number]);
        let names = disk.names();
        let segment = names.iter().find(|name| name.ends_with(".segment"));
        disk.damage(segment.expect("there is one"), 0);
    }
    open(disk.clone());
    assert_eq!(disk.names().len(), 8, "{:?}", disk.names());
}

#[test]
fn a_directory_is_used_by_one_process_and_its_files_are_its_owners() {
    let path = std::env::temp_dir().join(format!("veneur-store-{}", std::process::id()));
    Directory::check(&path).expect("it can be made");
    let directory = Directory::open(&path).expect("it is there");
    let refused = Directory::open(&path).expect_err("it is in use");
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
    let (mut store, _) = open(directory);
    append(&mut store, &[1, 2]);
    for entry in fs::read_dir(&path).expect("it is there") {
        let entry = entry.expect("it can be read");
        let mode = entry.metadata().expect("it can be asked").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{entry:?}");
    }
    drop(store);
    let (mut store, scan) = open(Directory::open(&path).expect("it is free again"));
    assert_eq!(numbers(&mut store, &scan.found), [1, 2]);
    fs::remove_dir_all(path).expect("it is ours");
}

proptest! {
    /// Whatever is appended, erased and refused, and whenever power is lost: everything that
    /// was appended with success and not erased is found, and nothing that never was there.
    #[test]
    fn a_loss_of_power_costs_nothing_that_was_synced(seed: u64, steps in 1usize..60) {
        let mut random = Random(seed);
        let disk = VirtualDisk::new();
        let (mut store, _) = open(disk.clone());
        let mut live: BTreeMap<u64, Location> = BTreeMap::new();
        let mut erased = Vec::new();
        let mut next = 0;
        for _ in 0..steps {
            match random.below(10) {
                0 => disk.fail_next(1 + random.below(3) as u32, random.below(200) as usize),
                1 => {
                    disk.fail_next(0, 0);
                    drop(store);
                    disk.lose_power(&mut random);
                    let opened = open(disk.clone());
                    store = opened.0;
                    let found = numbers(&mut store, &opened.1.found);
                    for number in live.keys() {
                        prop_assert!(found.contains(number), "{} is lost", number);
                    }
                    for number in &found {
                        let is_known = live.contains_key(number) || erased.contains(number);
                        prop_assert!(is_known, "{} was never there", number);
                    }
                    live = opened.1.found.iter().map(|found| (found.items, found.location)).collect();
                    erased.clear();
                }
                2..=4 => {
                    let Some((&number, &location)) = live.iter().next() else { continue };
                    live.remove(&number);
                    erased.push(number);
                    let _ = store.erase(location);
                }
                _ => {
                    let numbers: Vec<u64> = (next..=next + random.below(4)).collect();
                    next += numbers.len() as u64;
                    let records: Vec<_> =
                        numbers.iter().map(|&n| (record(n), State::Waiting)).collect();
                    match store.append(&records) {
                        Ok(locations) => live.extend(numbers.into_iter().zip(locations)),
                        // Cutting off what was written may have failed, too.
                        Err(_) => erased.extend(numbers),
                    }
                }
            }
        }
    }
}
