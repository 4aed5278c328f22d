//! The handle and its thread, on a real directory.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::time::sleep;

use super::*;
use crate::telemetry::registry::Total;

const DEADLINE: Duration = Duration::from_secs(30);

struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("veneur-spool-{}-{number}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }

    fn spool(&self, telemetry: &Telemetry) -> Spool {
        let settings = SpoolSettings {
            directory: Some(self.0.clone()),
            max_bytes: 1 << 20,
            max_age: Duration::from_secs(3600),
            sync: true,
            checkpoint: None,
        };
        Spool::start("test", &settings, &Turn::now(), telemetry.clone())
            .expect("the directory can be made")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn record(spool: &Spool, body: &'static str) -> Record {
    let since_ms = spool.ms_at(Instant::now());
    Record { kind: 1, lane: "lane".into(), items: 2, since_ms, body: Bytes::from(body) }
}

async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < DEADLINE, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn is_on_disk(spool: &Spool) -> bool {
    spool.0.lock().queue.level().memory_bytes == 0
}

fn counted(telemetry: &Telemetry, name: &str, tags: &str) -> u64 {
    let of_it = |total: &crate::telemetry::registry::Series<Total>| {
        total.name == name && &*total.tags == tags
    };
    match telemetry.totals().into_iter().find(of_it).map(|total| total.value) {
        Some(Total::Count(n)) => n,
        _ => 0,
    }
}

#[tokio::test]
async fn what_is_put_in_is_claimed_by_the_next_process() {
    let scratch = Scratch::new();
    let telemetry = Telemetry::default();
    let spool = scratch.spool(&telemetry);
    for body in ["one", "two", "three"] {
        spool.put(record(&spool, body), false);
    }
    wait_until("it is on disk", || is_on_disk(&spool)).await;
    let first = spool.claim("lane", Which::Bound).await.expect("it is there");
    assert_eq!((&first.record.body[..], first.is_unsure), (&b"one"[..], false));
    let second = spool.claim("lane", Which::Sure).await.expect("it is there");
    assert!(spool.withdraw(second.id).await);
    // Neither is said to be delivered: the process ends.
    assert_eq!(spool.close(DEADLINE).await, []);

    let spool = scratch.spool(&telemetry);
    wait_until("it is found", || !spool.is_empty()).await;
    let first = spool.claim("lane", Which::Bound).await.expect("it is there");
    assert_eq!((&first.record.body[..], first.is_unsure), (&b"one"[..], true), "it was bound");
    let third = spool.claim("lane", Which::Bound).await.expect("it is there");
    assert_eq!(third.record.body, "three", "the second was withdrawn");
    spool.finish(first.id);
    spool.finish(third.id);
    assert_eq!(spool.close(DEADLINE).await, []);
    let files = std::fs::read_dir(scratch.0.join("test")).expect("it is there").count();
    assert_eq!(files, 1, "only the lock is left");
}

#[tokio::test]
async fn a_directory_in_use_is_waited_for_in_memory() {
    let scratch = Scratch::new();
    let (first, second) = (Telemetry::default(), Telemetry::default());
    let old = scratch.spool(&first);
    old.put(record(&old, "old"), false);
    wait_until("it is on disk", || is_on_disk(&old)).await;
    let new = scratch.spool(&second);
    new.put(record(&new, "new"), false);
    let locked = || counted(&second, names::SPOOL_ERROR_TOTAL, "spool:test,cause:locked") > 0;
    wait_until("it is refused", locked).await;
    let claimed = new.claim("lane", Which::Any).await.expect("it is in memory");
    new.release(claimed.id, false, false);
    assert_eq!(old.close(DEADLINE).await, []);
    drop(old);
    wait_until("both are on disk", || is_on_disk(&new) && new.0.lock().queue.level().records == 2)
        .await;
    let claimed = new.claim("lane", Which::Any).await.expect("it is there");
    assert_eq!(claimed.record.body, "old", "the oldest first");
}

#[tokio::test]
async fn the_end_without_a_disk_is_counted() {
    let scratch = Scratch::new();
    let (first, second) = (Telemetry::default(), Telemetry::default());
    let _old = scratch.spool(&first);
    wait_until("it is locked", || scratch.0.join("test/lock").exists()).await;
    let new = scratch.spool(&second);
    let locked = || counted(&second, names::SPOOL_ERROR_TOTAL, "spool:test,cause:locked") > 0;
    wait_until("it is refused", locked).await;
    new.put(record(&new, "new"), false);
    let lost = new.close(DEADLINE).await;
    assert_eq!(
        lost.iter().map(|lost| (lost.cause, lost.items)).collect::<Vec<_>>(),
        [(Cause::Stopped, 2)]
    );
    let dropped = counted(&second, names::SPOOL_DROPPED_BYTES_TOTAL, "spool:test,reason:stopped");
    assert_eq!(dropped, 3);
}
