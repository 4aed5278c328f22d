//! What a checkpoint of the open interval costs: for how long its slices keep a worker and the
//! readers from the shard, and the time of copying, encoding and writing, once a second for
//! series of mixed kinds that all had samples within it. A second row has a tenth of them.
//!
//! `cargo bench --bench checkpoint`

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use veneur::aggregate::{KeyHasher, OpKey, Ops, Shard, stored};
use veneur::model::{ExtendTags, MetricKind, Role, Weight};

/// Half counters, then timers, histograms, gauges and sets.
fn kind_of(n: usize) -> MetricKind {
    match n % 20 {
        0..10 => MetricKind::Counter,
        10..14 => MetricKind::Timer,
        14..18 => MetricKind::Histogram,
        18 => MetricKind::Gauge,
        _ => MetricKind::Set,
    }
}

fn send(shard: &mut Shard, hasher: KeyHasher, series: std::ops::Range<usize>, round: u64) {
    for n in series {
        let (name, tags) =
            (format!("service.component{}.requests", n / 20), format!("env:prod,host:{n}"));
        let value = match kind_of(n) {
            MetricKind::Set => (round + n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            _ => ((round + n as u64) as f64).to_bits(),
        };
        let text = format!("{name}{tags}");
        let (name, tags) = text.as_bytes().split_at(name.len());
        let key = OpKey::of(hasher, text.as_bytes(), kind_of(n), name, tags);
        let mut ops = Ops::default();
        ops.push(key.expect("it is short"), value, Weight::ONE);
        shard.apply(&ops, text.as_bytes());
    }
}

fn main() {
    let path = std::env::temp_dir().join(format!("veneur-checkpoint-{}", std::process::id()));
    println!("series  touched | longest slice, all | encode, write | bytes");
    for series in [1_000, 100_000] {
        for touched in [series, series / 10] {
            let hasher = KeyHasher::random();
            let mut shard = Shard::new(Role::Global, ExtendTags::default());
            // Twenty samples each: digests and sets have grown.
            (0..20).for_each(|round| send(&mut shard, hasher, 0..series, round));
            let mut file = File::create(&path).expect("the temporary directory can be written");
            let mut best: Option<(Duration, [Duration; 4], usize)> = None;
            for second in 0..12 {
                send(&mut shard, hasher, 0..touched, 100 + second);
                let (mut longest, mut copying) = (Duration::ZERO, Duration::ZERO);
                let (mut encoding, mut writing) = (Duration::ZERO, Duration::ZERO);
                let (mut begins, mut bytes) = (true, 0);
                loop {
                    let start = Instant::now();
                    if begins {
                        shard.begin_checkpoint();
                        begins = false;
                    }
                    let slice = shard.take_slice();
                    let copied = Instant::now();
                    let mut body = Vec::new();
                    for (key, held) in &slice.entries {
                        stored::store(key, held.as_ref(), &mut body);
                    }
                    let is_last = slice.is_last;
                    drop(slice);
                    let encoded = Instant::now();
                    file.write_all(&body).expect("there is room");
                    longest = longest.max(copied - start);
                    copying += copied - start;
                    encoding += encoded - copied;
                    writing += encoded.elapsed();
                    bytes += body.len();
                    if is_last {
                        break;
                    }
                }
                // The first is about everything.
                let all = copying + encoding + writing;
                if second > 0 && best.is_none_or(|(least, ..)| all < least) {
                    best = Some((all, [longest, copying, encoding, writing], bytes));
                }
            }
            let (_, [longest, copying, encoding, writing], bytes) =
                best.expect("several were made");
            println!(
                "{series:>6} {touched:>8} | {longest:>8.1?} {copying:>9.1?} | {encoding:>8.1?} \
                 {writing:>8.1?} | {:.2} MB",
                bytes as f64 / 1e6
            );
        }
    }
    // Nobody needs it.
    let _ = std::fs::remove_file(path);
}
