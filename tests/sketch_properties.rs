//! Laws that hold for every sketch, on input nobody thought of.

use proptest::collection::vec;
use proptest::prelude::*;
use veneur::model::Weight;
use veneur::sketch::{Cardinality, CardinalityError, Centroid, Digest, Parts};

fn digest_of(samples: &[(f64, f32)]) -> Digest {
    let mut digest = Digest::new();
    for &(value, rate) in samples {
        digest.add(value, Weight::from_rate(rate).expect("the strategy yields valid rates"));
    }
    digest
}

fn set_of(hashes: &[u64]) -> Cardinality {
    let mut set = Cardinality::new();
    for &hash in hashes {
        set.insert_hash(hash);
    }
    set
}

/// Mostly friendly values; any finite ones too. Rates that are powers of two keep sums exact.
fn sample() -> impl Strategy<Value = (f64, f32)> {
    let value = prop_oneof![
        4 => -1e3..1e3f64,
        2 => (0..50i32).prop_map(f64::from),
        1 => prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO,
    ];
    let rate = prop_oneof![4 => Just(1.0f32), 1 => Just(0.5), 1 => Just(1.0 / 1024.0)];
    (value, rate)
}

/// Anything that could come over the wire as a list of centroids.
fn parts() -> impl Strategy<Value = Vec<Centroid>> {
    let mean = prop_oneof![4 => -1e3..1e3f64, 1 => any::<f64>()];
    let weight = prop_oneof![4 => 1.0..1e6f64, 1 => any::<f64>()];
    vec((mean, weight).prop_map(|(mean, weight)| Centroid { mean, weight }), 0..400)
}

/// Hashes whose first bits are zero more often than chance has it reach all kinds of codes.
fn hash() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0..64u32, 0..16u32)
        .prop_map(|(bits, zeros, top)| u64::from(top) << 60 | (bits >> 4 & u64::MAX >> zeros))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// merge(a, b) has the weight of both and the extremes of both, whichever comes first.
    #[test]
    fn merging_keeps_weight_and_extremes(a in vec(sample(), 0..700), b in vec(sample(), 1..700)) {
        let all = digest_of(&[a.clone(), b.clone()].concat());
        for (first, second) in [(&a, &b), (&b, &a)] {
            let mut merged = digest_of(first);
            merged.merge(&digest_of(second));
            prop_assert_eq!(merged.weight(), all.weight());
            prop_assert_eq!(merged.min(), all.min());
            prop_assert_eq!(merged.max(), all.max());
        }
    }

    /// A folded list has ascending finite means between the extremes, all of the weight, and
    /// no more than its bound, whatever the weights, merged or not; and quantiles never
    /// descend.
    #[test]
    fn a_folded_list_is_in_order(
        samples in vec(sample(), 1..3_000),
        sizes in vec(1..700usize, 1..12),
    ) {
        let mut digest = Digest::new();
        let mut rest = &samples[..];
        for size in sizes {
            let (part, behind) = rest.split_at(size.min(rest.len()));
            digest.merge(&digest_of(part));
            rest = behind;
        }
        digest.merge(&digest_of(rest));
        let (min, max) = (digest.min().expect("not empty"), digest.max().expect("not empty"));
        let weight = digest.weight();
        let centroids = digest.centroids();
        prop_assert!(centroids.len() <= 214);
        prop_assert!(centroids.is_sorted_by(|a, b| a.mean <= b.mean));
        prop_assert!(centroids.iter().all(|c| min <= c.mean && c.mean <= max && c.weight > 0.0));
        prop_assert_eq!(centroids.iter().map(|c| c.weight).sum::<f64>(), weight);

        let answers: Vec<f64> =
            (0..=1_000).filter_map(|i| digest.quantile(f64::from(i) / 1_000.0)).collect();
        prop_assert_eq!(answers.len(), 1_001);
        prop_assert!(answers.iter().all(|answer| (min..=max).contains(answer)));
        // Interpolation rounds: neighbours may be out of order by that much.
        let slack = (max / 2.0 - min / 2.0) * 1e-12;
        prop_assert!(answers.is_sorted_by(|a, b| a / 2.0 <= b / 2.0 + slack));
    }

    /// The order of merging changes an answer by no more than the error allowed to it: here
    /// the rank, among all samples, of the median and the 99th percentile.
    #[test]
    fn the_order_of_merging_hardly_matters(
        parts in vec(vec(0.0..1.0f64, 1..200), 1..12).prop_shuffle()
    ) {
        let digests: Vec<Digest> = parts
            .iter()
            .map(|part| digest_of(&part.iter().map(|&value| (value, 1.0)).collect::<Vec<_>>()))
            .collect();
        let mut all = parts.concat();
        all.sort_unstable_by(f64::total_cmp);
        let n = all.len() as f64;
        let rank = |answer: Option<f64>| {
            all.partition_point(|&value| value < answer.expect("it has samples")) as f64
        };
        let (mut forward, mut backward) = (Digest::new(), Digest::new());
        digests.iter().for_each(|digest| forward.merge(digest));
        digests.iter().rev().for_each(|digest| backward.merge(digest));
        for (q, error) in [(0.5, 0.015), (0.99, 0.0015)] {
            let (one, other) = (rank(forward.quantile(q)), rank(backward.quantile(q)));
            prop_assert!((one - other).abs() <= 2.0 * error * n + 1.0, "q {}: {} {}", q, one, other);
        }
    }

    /// What goes out as parts comes in bit for bit.
    #[test]
    fn parts_make_the_same_digest(samples in vec(sample(), 1..2_000)) {
        let mut digest = digest_of(&samples);
        let mut again = Digest::from_parts(digest.to_parts()).expect("our own parts are valid");
        prop_assert_eq!(again.centroids(), digest.centroids());
        prop_assert_eq!((again.min(), again.max()), (digest.min(), digest.max()));
        if digest.sum().is_finite() {
            prop_assert_eq!(again.sum(), digest.sum());
        }
        prop_assert_eq!(again.weight(), digest.weight());
        for q in [0.0, 0.01, 0.5, 0.99, 1.0] {
            prop_assert_eq!(again.quantile(q), digest.quantile(q));
        }
    }

    /// Whatever parts come, they are refused or harmless, also to what they are merged into.
    #[test]
    fn any_parts_are_refused_or_harmless(
        centroids in parts(),
        min in prop_oneof![4 => Just(-1e3), 1 => any::<f64>()],
        max in prop_oneof![4 => Just(1e3), 1 => any::<f64>()],
    ) {
        let parts = Parts { centroids, min, max, sum: None, reciprocal_sum: None };
        if let Ok(mut digest) = Digest::from_parts(parts) {
            prop_assert!(digest.heap_bytes() <= 16 * 400);
            let mut merged = digest_of(&[(1.0, 1.0), (2.0, 0.5)]);
            merged.merge(&digest);
            for digest in [&mut digest, &mut merged] {
                for q in [0.0, 0.5, 0.99, 1.0] {
                    prop_assert!(digest.quantile(q).is_none_or(f64::is_finite));
                }
            }
        }
    }

    /// A set depends on its members alone: any order, any split, merged either way.
    #[test]
    fn sets_merge_to_the_same_bits(
        (hashes, cut) in vec(hash(), 0..5_000).prop_flat_map(|hashes| {
            let len = hashes.len();
            (Just(hashes), 0..=len)
        })
    ) {
        let whole = set_of(&hashes);
        let (low, high) = hashes.split_at(cut);
        let (mut one, mut other) = (set_of(low), set_of(high));
        one.merge(&set_of(high));
        other.merge(&set_of(low));
        prop_assert_eq!(&one, &whole);
        prop_assert_eq!(&other, &whole);
        prop_assert_eq!(one.estimate(), whole.estimate());
    }

    /// Bytes and cut registers together carry a set bit for bit; the bytes alone, all but
    /// what four bits cannot hold.
    #[test]
    fn a_set_survives_its_bytes(hashes in vec(hash(), 0..5_000)) {
        let set = set_of(&hashes);
        let mut again = Cardinality::from_bytes(&set.to_bytes()).expect("our own bytes");
        for (index, rank) in set.cut_registers() {
            again.raise_register(index, rank).expect("our own registers");
        }
        prop_assert_eq!(again, set);
    }

    /// Any bytes, and damaged good ones, are refused or make a set of bounded size.
    #[test]
    fn any_bytes_are_refused_or_harmless(
        hashes in vec(hash(), 0..50),
        noise in vec(any::<u8>(), 0..64),
        at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let read = |bytes: &[u8]| match Cardinality::from_bytes(bytes) {
            Ok(set) => set.heap_bytes() <= 16_384 && set.estimate() < u64::MAX,
            Err(_) => true,
        };
        prop_assert!(read(&noise));
        let mut bytes = set_of(&hashes).to_bytes();
        let at = at.index(bytes.len());
        for (byte, noise) in bytes[at..].iter_mut().zip(&noise) {
            *byte ^= noise;
        }
        prop_assert!(read(&bytes));
        let cut = cut.index(bytes.len());
        prop_assert!(read(&bytes[..cut]));
    }
}

#[test]
fn bytes_are_refused_as_a_set_when() {
    let good = set_of(&[1, u64::MAX, 1 << 50, 0x1234_5678_9abc_def0]).to_bytes();
    let dense = set_of(&(0..4_000).map(|i| i << 51 | i).collect::<Vec<u64>>()).to_bytes();
    assert_eq!(dense.len(), 8_200, "this many members make it dense");
    let with = |bytes: &[u8], at: usize, byte: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = byte;
        bytes
    };
    for (bytes, error) in [
        (vec![], CardinalityError::Truncated),
        (vec![1, 14, 0], CardinalityError::Truncated),
        (good[..good.len() - 1].to_vec(), CardinalityError::Truncated),
        (dense[..8_199].to_vec(), CardinalityError::Truncated),
        ([&good[..], &[0]].concat(), CardinalityError::TrailingBytes),
        ([&dense[..], &[0]].concat(), CardinalityError::TrailingBytes),
        (with(&good, 0, 2), CardinalityError::Version(2)),
        (with(&good, 1, 18), CardinalityError::Precision(18)),
        (with(&good, 3, 7), CardinalityError::Form(7)),
        // Four billion codes are announced, and not one comes.
        (with(&good[..8], 4, 0xff), CardinalityError::Truncated),
        // The list's count, and the code it says is its last.
        (with(&good, 11, good[11] + 1), CardinalityError::Truncated),
        (with(&good, 15, good[15] ^ 1), CardinalityError::List),
        // A base that no register can have, and a wrong number of registers.
        (with(&dense, 2, 60), CardinalityError::ImpossibleValue),
        (with(&dense, 7, 1), CardinalityError::ImpossibleValue),
    ] {
        assert_eq!(Cardinality::from_bytes(&bytes), Err(error), "{} bytes", bytes.len());
    }
}
