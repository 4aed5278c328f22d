//! Once its series are known, a metric costs no allocation: counted, not claimed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::SystemTime;

use veneur::aggregate::{KeyHasher, Shard};
use veneur::model::{ExtendTags, Role};
use veneur::pipeline::worker::Work;
use veneur::pipeline::{Collector, Intake, IntakeCounts, Router};

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

#[test]
fn a_known_series_costs_no_allocation_per_sample() {
    let (inbox, receiver) = sync_channel(1024);
    let router = Router::new(KeyHasher::random(), [inbox]);
    let collector = Arc::new(Collector::new(ExtendTags::default(), SystemTime::now));
    let mut intake = Intake::new(router, collector, Arc::new(IntakeCounts::default()));
    let mut shard = Shard::new(Role::Global, ExtendTags::default());

    let datagrams: Vec<String> = (0..1000)
        .map(|n| {
            let kind = ["1|c", "2.5|g", "17|ms|@0.5", "3:4:5|h", "9|d", "alice|s"][n % 6];
            format!("app.requests.{n}:{kind}|#env:prod,az:b,host:h{n}")
        })
        .collect();
    let mut round = |intake: &mut Intake| {
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

    // Learn the series, and let the digests' buffers grow to their full size.
    for _ in 0..300 {
        round(&mut intake);
    }
    let mut batches = 0;
    let counted = allocations(|| {
        for _ in 0..100 {
            batches += round(&mut intake);
        }
    });
    // 166,000 samples. A batch is two buffers; nothing else may be allocated.
    let bound = 2 * batches;
    assert!(counted <= bound, "{counted} allocations for {batches} batches");
}
