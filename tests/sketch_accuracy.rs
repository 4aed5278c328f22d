//! How far sketches may be from the truth, with fixed seeds.
//!
//! *Rank error* of a quantile q of n samples: how far q is from the ranks its answer really
//! has, as a share of n. One sample of slack (1/n) is granted, since between two neighbouring
//! samples every value is as right as any other. The bars leave room over what a t-digest of
//! this size can do; the means over seeds are tighter than the worst cases.
//!
//! Run with `--nocapture` to see the figures.

use std::hash::{BuildHasherDefault, Hasher};

use hyperloglogplus::{HyperLogLog, HyperLogLogPlus};
use veneur::model::Weight;
use veneur::sketch::{Cardinality, Digest, member_hash};

/// SplitMix64: small, fixed for ever, good enough to draw samples from.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Uniform,
    Exponential,
    Lognormal,
    Sorted,
    Reversed,
    Bimodal,
}

const SHAPES: [Shape; 6] = [
    Shape::Uniform,
    Shape::Exponential,
    Shape::Lognormal,
    Shape::Sorted,
    Shape::Reversed,
    Shape::Bimodal,
];

fn draw(shape: Shape, count: usize, seed: u64) -> Vec<f64> {
    let mut random = Random(seed);
    let mut sample = || match shape {
        Shape::Uniform | Shape::Sorted | Shape::Reversed => random.uniform(),
        Shape::Exponential => -random.uniform().ln(),
        Shape::Lognormal => (1.5 * random.normal()).exp(),
        Shape::Bimodal if random.next() & 1 == 0 => 10.0 + random.normal(),
        Shape::Bimodal => 1000.0 + 50.0 * random.normal(),
    };
    let mut samples: Vec<f64> = (0..count).map(|_| sample()).collect();
    match shape {
        Shape::Sorted => samples.sort_unstable_by(f64::total_cmp),
        Shape::Reversed => samples.sort_unstable_by(|a, b| b.total_cmp(a)),
        _ => {}
    }
    samples
}

fn sorted(mut samples: Vec<f64>) -> Vec<f64> {
    samples.sort_unstable_by(f64::total_cmp);
    samples
}

/// In percent of the samples; see the top of the file.
fn rank_error(sorted: &[f64], q: f64, answer: f64) -> f64 {
    let n = sorted.len() as f64;
    let below = sorted.partition_point(|&sample| sample < answer) as f64;
    let up_to = sorted.partition_point(|&sample| sample <= answer) as f64;
    let off = (below - q * n).max(q * n - up_to).max(0.0);
    (off - 1.0).max(0.0) / n * 100.0
}

fn digest_of(samples: &[f64]) -> Digest {
    let mut digest = Digest::new();
    for &sample in samples {
        digest.add(sample, Weight::ONE);
    }
    digest
}

const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

/// Worst and mean error over trials, for each of [`QUANTILES`].
#[derive(Clone, Copy, Default)]
struct Errors {
    worst: [f64; 4],
    sum: [f64; 4],
    trials: f64,
}

impl Errors {
    fn add(&mut self, sorted: &[f64], mut answer: impl FnMut(f64) -> f64) {
        for (index, q) in QUANTILES.into_iter().enumerate() {
            let error = rank_error(sorted, q, answer(q));
            self.worst[index] = self.worst[index].max(error);
            self.sum[index] += error;
        }
        self.trials += 1.0;
    }

    fn mean(&self, index: usize) -> f64 {
        self.sum[index] / self.trials
    }
}

impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, q) in QUANTILES.into_iter().enumerate() {
            let (worst, mean) = (self.worst[index], self.mean(index));
            write!(f, "  p{:<5}{worst:.4} {mean:.4}", 100.0 * q)?;
        }
        Ok(())
    }
}

#[test]
fn quantiles_of_one_digest_are_within_their_error() {
    for (count, seeds) in [(1_000, 100), (10_000, 20), (100_000, 4), (1_000_000, 1)] {
        let mut of_all_shapes = Errors::default();
        for shape in SHAPES {
            let mut errors = Errors::default();
            for seed in 0..seeds {
                let samples = draw(shape, count, seed);
                let mut digest = digest_of(&samples);
                let samples = sorted(samples);
                assert_eq!(digest.weight(), count as f64);
                assert_eq!(digest.min(), samples.first().copied());
                assert_eq!(digest.max(), samples.last().copied());
                let mut answer = |q| digest.quantile(q).expect("it has samples");
                errors.add(&samples, &mut answer);
                of_all_shapes.add(&samples, &mut answer);
            }
            println!("{count} {shape:?}: worst, mean{errors}");
            let middle = if shape == Shape::Bimodal { 1.5 } else { 0.5 };
            for (index, bar) in [middle, middle, 0.15, 0.06].into_iter().enumerate() {
                assert!(errors.worst[index] <= bar, "{count} {shape:?}:{errors}");
            }
        }
        assert!(of_all_shapes.mean(2) <= 0.01, "{count}:{of_all_shapes}");
        assert!(of_all_shapes.mean(3) <= 0.006, "{count}:{of_all_shapes}");
    }
}

/// Each of `hosts` digests gets `count` samples; `spread` gives every host its own scale.
fn fleet(shape: Shape, hosts: u64, count: usize, spread: bool, seed: u64) -> Vec<Vec<f64>> {
    let mut random = Random(!seed);
    let mut host = |host| {
        let scale = if spread { (1.5 * random.normal()).exp() } else { 1.0 };
        let mut samples = draw(shape, count, seed * 1_000_003 + host);
        samples.iter_mut().for_each(|sample| *sample *= scale);
        samples
    };
    (0..hosts).map(&mut host).collect()
}

#[test]
fn merging_a_fleet_of_digests_stays_within_the_error() {
    for (hosts, count, seeds) in [(1_000, 100, 3), (100, 10_000, 1)] {
        for (shape, spread) in
            [(Shape::Uniform, false), (Shape::Lognormal, false), (Shape::Lognormal, true)]
        {
            let mut errors = Errors::default();
            for seed in 0..seeds {
                let parts = fleet(shape, hosts, count, spread, seed);
                let mut merged = Digest::new();
                for part in &parts {
                    // As a global node gets it: compressed, and as parts.
                    let part = Digest::from_parts(digest_of(part).to_parts());
                    merged.merge(&part.expect("our own parts are valid"));
                }
                let all = sorted(parts.concat());
                assert_eq!(merged.weight(), all.len() as f64);
                assert_eq!(merged.min(), all.first().copied());
                assert_eq!(merged.max(), all.last().copied());
                errors.add(&all, |q| merged.quantile(q).expect("it has samples"));
            }
            println!("{hosts} x {count} {shape:?}, own scales: {spread}: worst, mean{errors}");
            for (index, bar) in [0.3, 0.3, 0.1, 0.03].into_iter().enumerate() {
                assert!(
                    errors.worst[index] <= bar,
                    "{hosts} x {count} {shape:?} {spread}:{errors}"
                );
            }
        }
    }
}

/// The `tdigest` crate with as many centroids, on the same samples. Means over seeds are
/// compared: single worst cases are chance on both sides.
#[test]
fn a_digest_is_no_worse_than_the_tdigest_crate() {
    let (mut ours, mut theirs) = (Errors::default(), Errors::default());
    for shape in [Shape::Uniform, Shape::Exponential, Shape::Lognormal, Shape::Bimodal] {
        for seed in 100..110 {
            let samples = draw(shape, 20_000, seed);
            let mut digest = digest_of(&samples);
            let mut other = tdigest::TDigest::new_with_size(100);
            other.extend_values(samples.iter().copied());
            other.flush();
            let samples = sorted(samples);
            ours.add(&samples, |q| digest.quantile(q).expect("it has samples"));
            theirs.add(&samples, |q| other.estimate_quantile(q).expect("it has samples"));
        }
    }
    println!("ours:   worst, mean{ours}\ntdigest: worst, mean{theirs}");
    for (index, q) in QUANTILES.into_iter().enumerate() {
        assert!(ours.mean(index) <= theirs.mean(index), "q {q}: ours{ours}, theirs{theirs}");
    }
}

#[derive(Clone, Copy, Debug)]
enum Members {
    Random,
    Sequential,
}

fn member(kind: Members, seed: u64, index: u64) -> u64 {
    match kind {
        Members::Random => Random(seed << 32 | index).next(),
        Members::Sequential => {
            // "user-<number>" without the cost of formatting a million of them.
            let mut text = *b"user-00000000000";
            let mut number = seed * 10_000_000 + index;
            for digit in text[5..].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
            member_hash(&text)
        }
    }
}

fn relative_error(estimate: u64, truth: u64) -> f64 {
    (estimate as f64 - truth as f64) / truth as f64 * 100.0
}

/// Root mean square and largest of relative errors, in percent.
fn rms_and_worst(errors: &[f64]) -> (f64, f64) {
    let squares: f64 = errors.iter().map(|error| error * error).sum();
    let worst = errors.iter().fold(0.0f64, |worst, error| worst.max(error.abs()));
    ((squares / errors.len() as f64).sqrt(), worst)
}

/// Thirty sets, every other one of sequential ids.
#[test]
fn sets_are_within_their_error() {
    let (mut at_100k, mut at_1m) = (Vec::new(), Vec::new());
    for seed in 0..30 {
        let kind = if seed % 2 == 0 { Members::Sequential } else { Members::Random };
        let mut set = Cardinality::new();
        for index in 0..1_000_000 {
            match index {
                1 | 10 | 100 | 500 | 1_000 => {
                    let error = relative_error(set.estimate(), index);
                    assert!(error.abs() <= 0.2, "{kind:?} {seed}: {error} % at {index}");
                }
                100_000 => at_100k.push(relative_error(set.estimate(), index)),
                _ => {}
            }
            set.insert_hash(member(kind, seed, index));
        }
        at_1m.push(relative_error(set.estimate(), 1_000_000));
    }
    for (count, errors) in [(100_000, at_100k), (1_000_000, at_1m)] {
        let (rms, worst) = rms_and_worst(&errors);
        println!("{count} members: RMS {rms:.2} %, worst {worst:.2} %");
        assert!(rms <= 1.1 && worst <= 3.3, "{count} members: {rms} {worst}");
    }
}

#[test]
fn the_sets_of_a_thousand_hosts_merge_within_the_error() {
    let mut errors = Vec::new();
    for seed in 0..30 {
        let mut global = Cardinality::new();
        for host in 0..1_000 {
            let mut local = Cardinality::new();
            for index in 0..150 {
                // A third of the members is seen by the next host too.
                local.insert_hash(member(Members::Sequential, seed, host * 100 + index));
            }
            global.merge(&local);
        }
        errors.push(relative_error(global.estimate(), 1_000 * 100 + 50));
    }
    let (rms, worst) = rms_and_worst(&errors);
    println!("1000 hosts: RMS {rms:.2} %, worst {worst:.2} %");
    assert!(rms <= 1.1 && worst <= 3.3, "{rms} {worst}");
}

/// Passes a hash through, so that both sketches see the same one.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 is hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[test]
fn a_set_is_no_worse_than_the_hyperloglogplus_crate() {
    for (count, seeds) in [(300, 30), (3_000, 30), (30_000, 30), (300_000, 5)] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for seed in 0..seeds {
            let mut set = Cardinality::new();
            let mut other = HyperLogLogPlus::<u64, BuildHasherDefault<AsIs>>::new(
                14,
                BuildHasherDefault::default(),
            )
            .expect("14 is a precision it takes");
            for index in 0..count {
                let hash = member(Members::Random, seed + 1_000, index);
                set.insert_hash(hash);
                other.insert(&hash);
            }
            ours.push(relative_error(set.estimate(), count));
            theirs.push(relative_error(other.count() as u64, count));
        }
        let ((ours, _), (theirs, _)) = (rms_and_worst(&ours), rms_and_worst(&theirs));
        println!("{count}: RMS ours {ours:.3} %, hyperloglogplus {theirs:.3} %");
        // Nearly the same registers, hence nearly the same errors: over 200 seeds the two
        // differ by less than 4 %, either way.
        assert!(ours <= theirs * 1.1 + 0.01, "{count}: {ours} {theirs}");
    }
}
