//! What sketches cost: per sample, per merge, per answer, per export.
//!
//! `cargo bench --bench digest`; items are samples, digests or members, as named.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use veneur::model::Weight;
use veneur::sketch::{Cardinality, Digest, member_hash};

fn main() {
    divan::main();
}

/// Lognormal-like latencies, the same in every run.
fn samples(count: usize) -> Vec<f64> {
    let mut x = 1u64;
    let mut uniform = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut normal = || (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
    (0..count).map(|_| normal().exp()).collect()
}

fn digest_of(samples: &[f64]) -> Digest {
    let mut digest = Digest::new();
    for &sample in samples {
        digest.add(sample, Weight::ONE);
    }
    digest
}

fn compressed(samples: &[f64]) -> Digest {
    let mut digest = digest_of(samples);
    digest.compress();
    digest
}

mod add {
    use super::*;

    #[divan::bench]
    fn one_key(bencher: Bencher) {
        let samples = samples(100_000);
        let mut digest = digest_of(&samples);
        bencher.counter(ItemsCount::new(samples.len())).bench_local(|| {
            for &sample in &samples {
                digest.add(black_box(sample), Weight::ONE);
            }
        });
    }

    /// The `tdigest` crate on the same samples, as a yardstick.
    #[divan::bench]
    fn one_key_in_the_tdigest_crate(bencher: Bencher) {
        let samples = samples(100_000);
        let mut digest = tdigest::TDigest::new_with_size(100);
        bencher.counter(ItemsCount::new(samples.len())).bench_local(|| {
            for &sample in &samples {
                digest.push(black_box(sample));
            }
        });
    }

    #[divan::bench]
    fn one_key_at_rate_a_tenth(bencher: Bencher) {
        let samples = samples(100_000);
        let weight = Weight::from_rate(0.1).expect("a valid rate");
        let mut digest = digest_of(&samples);
        bencher.counter(ItemsCount::new(samples.len())).bench_local(|| {
            for &sample in &samples {
                digest.add(black_box(sample), weight);
            }
        });
    }

    /// 10,000 keys in turn, 20 samples each, then what a flush does: fold and one quantile.
    #[divan::bench]
    fn ten_thousand_keys_of_twenty_samples(bencher: Bencher) {
        let samples = samples(200_000);
        bencher.counter(ItemsCount::new(samples.len())).bench_local(|| {
            let mut digests = vec![Digest::new(); 10_000];
            for round in samples.chunks(10_000) {
                for (digest, &sample) in digests.iter_mut().zip(round) {
                    digest.add(sample, Weight::ONE);
                }
            }
            digests.iter_mut().filter_map(|digest| digest.quantile(0.99)).sum::<f64>()
        });
    }
}

mod merge {
    use super::*;

    /// Into a digest that has seen much already; `args` are samples in the one merged.
    #[divan::bench(args = [1, 10, 100, 100_000])]
    fn compressed_digest(bencher: Bencher, count: usize) {
        let mut global = compressed(&samples(100_000));
        let local = compressed(&samples(count));
        bencher.counter(ItemsCount::new(1usize)).bench_local(|| global.merge(black_box(&local)));
    }

    #[divan::bench(args = [10, 100])]
    fn digest_with_samples_in_its_buffer(bencher: Bencher, count: usize) {
        let mut global = compressed(&samples(100_000));
        let local = digest_of(&samples(count));
        bencher.counter(ItemsCount::new(1usize)).bench_local(|| global.merge(black_box(&local)));
    }

    #[divan::bench]
    fn from_the_parts_of_ten_samples(bencher: Bencher) {
        let mut global = compressed(&samples(100_000));
        let parts = digest_of(&samples(10)).to_parts();
        bencher.counter(ItemsCount::new(1usize)).bench_local(|| {
            let local = Digest::from_parts(black_box(parts.clone()));
            global.merge(&local.expect("parts of a digest are valid"));
        });
    }
}

mod answer {
    use super::*;

    #[divan::bench(args = [10, 100, 100_000])]
    fn quantile(bencher: Bencher, count: usize) {
        let mut digest = compressed(&samples(count));
        bencher.bench_local(|| digest.quantile(black_box(0.99)));
    }

    #[divan::bench(args = [10, 100])]
    fn fold_and_three_quantiles(bencher: Bencher, count: usize) {
        let digest = digest_of(&samples(count));
        bencher
            .with_inputs(|| digest.clone())
            .bench_local_values(|mut digest| [0.5, 0.75, 0.99].map(|q| digest.quantile(q)));
    }
}

mod set {
    use super::*;

    fn hashes(count: u64) -> Vec<u64> {
        (0..count).map(|id| member_hash(format!("user-{id}").as_bytes())).collect()
    }

    fn set_of(hashes: &[u64]) -> Cardinality {
        let mut set = Cardinality::new();
        for &hash in hashes {
            set.insert_hash(hash);
        }
        set
    }

    #[divan::bench(args = [17, 121])]
    fn hash_of_a_member(bencher: Bencher, bytes: usize) {
        let member = vec![b'x'; bytes];
        bencher.bench_local(|| member_hash(black_box(&member)));
    }

    #[divan::bench(args = [10, 1_000, 3_000, 100_000])]
    fn insert_new_members(bencher: Bencher, members: u64) {
        let hashes = hashes(members);
        bencher.counter(ItemsCount::new(hashes.len())).bench_local(|| set_of(black_box(&hashes)));
    }

    #[divan::bench(args = [10, 1_000, 3_000, 100_000])]
    fn insert_known_members(bencher: Bencher, members: u64) {
        let hashes = hashes(members);
        let mut set = set_of(&hashes);
        bencher.counter(ItemsCount::new(hashes.len())).bench_local(|| {
            for &hash in &hashes {
                set.insert_hash(black_box(hash));
            }
        });
    }

    #[divan::bench(args = [10, 1_000, 100_000])]
    fn merge_into_a_large_set(bencher: Bencher, members: u64) {
        let hashes = hashes(200_000);
        let mut global = set_of(&hashes);
        let local = set_of(&hashes[..members as usize]);
        bencher.counter(ItemsCount::new(1usize)).bench_local(|| global.merge(black_box(&local)));
    }

    #[divan::bench(args = [10, 1_000, 100_000])]
    fn estimate(bencher: Bencher, members: u64) {
        let set = set_of(&hashes(members));
        bencher.bench_local(|| black_box(&set).estimate());
    }

    #[divan::bench(args = [10, 1_000, 100_000])]
    fn to_bytes(bencher: Bencher, members: u64) {
        let set = set_of(&hashes(members));
        bencher.bench_local(|| black_box(&set).to_bytes());
    }

    #[divan::bench(args = [10, 1_000, 100_000])]
    fn from_bytes(bencher: Bencher, members: u64) {
        let bytes = set_of(&hashes(members)).to_bytes();
        bencher.bench_local(|| Cardinality::from_bytes(black_box(&bytes)));
    }
}
