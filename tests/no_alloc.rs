//! Once its series are known, a metric costs no allocation: counted, not claimed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::SystemTime;

use veneur::aggregate::{KeyHasher, Shard};
use veneur::model::{ExtendTags, Role};
use veneur::pipeline::worker::Work;
use veneur::pipeline::{Collector, Intake, IntakeCounts, Router, Workers};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes unchanged to the system's allocator, which keeps the contract.
#[allow(unsafe_code)] // An allocator cannot be written without it; it is a test's only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(of: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    of();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// 1000 series of all kinds; 1,334 samples.
fn datagrams() -> Vec<String> {
    let datagram = |n: usize| {
        let kind = ["1|c", "2.5|g", "17|ms|@0.5", "3:4:5|h", "9|d", "alice|s"][n % 6];
        format!("app.requests.{n}:{kind}|#env:prod,az:b,host:h{n}")
    };
    (0..1000).map(datagram).collect()
}

fn intake(router: Router) -> Intake {
    let collector = Arc::new(Collector::new(ExtendTags::default(), SystemTime::now));
    Intake::new(router, collector, Arc::new(IntakeCounts::default()))
}

/// How often the series are learnt, and the digests' buffers grow to their full size.
const ROUNDS_TO_WARM_UP: usize = 300;

/// One test, because allocations are counted for the whole process.
#[test]
fn a_known_series_costs_no_allocation_per_sample() {
    applied_by_the_reader();
    handed_over_to_a_worker();
}

fn applied_by_the_reader() {
    let workers = Workers::start([Shard::new(Role::Global, ExtendTags::default())])
        .expect("the system gives a thread");
    let mut intake = intake(Router::new(KeyHasher::random(), workers.doors()));
    let datagrams = datagrams();
    let mut round = || datagrams.iter().for_each(|datagram| intake.packet(datagram.as_bytes()));
    (0..ROUNDS_TO_WARM_UP).for_each(|_| round());
    let counted = allocations(|| (0..100).for_each(|_| round()));
    assert_eq!(counted, 0, "allocations for 133,400 samples");
}

fn handed_over_to_a_worker() {
    let (inbox, receiver) = sync_channel(1024);
    let mut intake = intake(Router::new(KeyHasher::random(), [inbox]));
    let mut shard = Shard::new(Role::Global, ExtendTags::default());
    let datagrams = datagrams();
    let mut round = || {
        datagrams.iter().for_each(|datagram| intake.packet(datagram.as_bytes()));
        intake.hand_over_all();
        let mut batches = 0;
        for work in receiver.try_iter() {
            if let Work::Samples(queued) = work {
                let (ops, keys) = queued.batch.parts();
                shard.apply(ops, keys);
                batches += 1;
            }
        }
        batches
    };
    (0..ROUNDS_TO_WARM_UP).for_each(|_| _ = round());
    let mut batches = 0;
    let counted = allocations(|| (0..100).for_each(|_| batches += round()));
    // 133,400 samples. A batch is two buffers; nothing else may be allocated.
    let bound = 2 * batches;
    assert!(counted <= bound, "{counted} allocations for {batches} batches");
}
