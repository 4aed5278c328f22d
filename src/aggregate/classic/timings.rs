//! The samples of a timer, each of them as long as there are not too many.
//!
//! The classic daemons keep every sample until the flush and sort them; graphs of `upper_90`
//! show what comes out. So up to [`EXACT`] samples of a series and interval are kept as they
//! are, and every figure is then what the real ones compute; of more, a digest is, which
//! changes percentiles and what is derived from them by little, and nothing else.

use crate::model::Weight;
use crate::sketch::stored::{Reader, Writer, put_values, values};
use crate::sketch::{Centroid, Digest};

/// Samples of a series that are kept as they are, 32 KiB of them.
pub const EXACT: usize = 4096;

/// The same for a shard that has kept many: see [`super::Standing`].
pub(super) const EXACT_WHEN_MANY: usize = 128;

/// What a timer has accumulated.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    /// Observations the samples stand for.
    count: f64,
    samples: Vec<f64>,
    spilled: Option<Box<Spilled>>,
}

/// Samples that were too many to be kept.
#[derive(Clone, Debug)]
struct Spilled {
    digest: Digest,
    sum_squares: f64,
}

impl Timings {
    /// Adds one sample that stands for `count` observations; at most `exact` are kept as they
    /// are. Returns by how much [`Timings::heap_bytes`] has grown, which may be less than 0,
    /// wrapped around.
    pub(in crate::aggregate) fn add(&mut self, value: f64, count: f64, exact: usize) -> usize {
        self.count += count;
        if self.spilled.is_none() && self.samples.len() < exact {
            let before = self.samples.capacity();
            self.samples.push(value);
            return (self.samples.capacity() - before) * size_of::<f64>();
        }
        let before = self.heap_bytes();
        self.spill().add(value);
        self.heap_bytes().wrapping_sub(before)
    }

    /// Adds the samples of another.
    pub(in crate::aggregate) fn merge(&mut self, other: Timings) {
        self.count += other.count;
        let are_few = self.samples.len() + other.samples.len() <= EXACT;
        if are_few && self.spilled.is_none() && other.spilled.is_none() {
            self.samples.extend(other.samples);
            return;
        }
        let ours = self.spill();
        other.samples.into_iter().for_each(|sample| ours.add(sample));
        if let Some(theirs) = other.spilled {
            ours.digest.merge(&theirs.digest);
            ours.sum_squares += theirs.sum_squares;
        }
    }

    fn spill(&mut self) -> &mut Spilled {
        let samples = &mut self.samples;
        self.spilled.get_or_insert_with(|| Box::new(Spilled::of(samples)))
    }

    /// Appends all of it, for this program itself: the count, the samples behind their number, 0
    /// or 1 and the digest and sum of squares.
    pub(in crate::aggregate) fn store(&self, into: &mut Vec<u8>) {
        into.put_f64(self.count);
        put_values(into, self.samples.iter().copied());
        into.push(u8::from(self.spilled.is_some()));
        if let Some(spilled) = &self.spilled {
            spilled.digest.store(into);
            into.put_f64(spilled.sum_squares);
        }
    }

    /// Reads what was stored; `None` for anything else.
    pub(in crate::aggregate) fn restore(from: &mut Reader<'_>) -> Option<Timings> {
        let count = from.f64()?;
        let samples = values(from)?;
        let spilled = match from.byte()? {
            0 => None,
            _ => {
                let digest = Digest::restore(from)?;
                Some(Box::new(Spilled { digest, sum_squares: from.f64()? }))
            }
        };
        Some(Timings { count, samples, spilled })
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let spilled = self.spilled.as_ref();
        self.samples.capacity() * size_of::<f64>()
            + spilled.map_or(0, |it| size_of::<Spilled>() + it.digest.heap_bytes())
    }

    /// Observations: samples by their weight.
    pub fn count(&self) -> f64 {
        self.count
    }

    /// The samples in order; `None` if there are none.
    pub fn into_sorted(self) -> Option<Sorted> {
        if let Some(spilled) = self.spilled {
            let Spilled { mut digest, sum_squares } = *spilled;
            digest.compress();
            return Some(Sorted::Digest { digest, sum_squares });
        }
        let mut samples = self.samples;
        samples.sort_unstable_by(f64::total_cmp);
        (!samples.is_empty()).then_some(Sorted::Samples(samples))
    }
}

impl Spilled {
    /// Takes the samples out.
    fn of(samples: &mut Vec<f64>) -> Spilled {
        let mut spilled = Spilled { digest: Digest::new(), sum_squares: 0.0 };
        std::mem::take(samples).into_iter().for_each(|sample| spilled.add(sample));
        spilled
    }

    fn add(&mut self, value: f64) {
        // As the real ones, percentiles do not see weights.
        self.digest.add(value, Weight::ONE);
        self.sum_squares += value * value;
    }
}

/// The samples of a timer in ascending order, at least one.
#[derive(Clone, Debug)]
pub enum Sorted {
    /// All of them.
    Samples(Vec<f64>),
    /// About; sum, extremes and number are exact.
    Digest {
        /// Compressed.
        digest: Digest,
        /// Of all samples.
        sum_squares: f64,
    },
}

/// Σ x and Σ x² of some samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Σ x
    pub sum: f64,
    /// Σ x²
    pub squares: f64,
}

impl Sums {
    fn of(samples: &[f64]) -> Sums {
        let add = |sums: Sums, x: &f64| Sums { sum: sums.sum + x, squares: sums.squares + x * x };
        samples.iter().fold(Sums::default(), add)
    }
}

impl Sorted {
    /// How many samples.
    pub fn number(&self) -> u64 {
        match self {
            Sorted::Samples(samples) => samples.len() as u64,
            Sorted::Digest { digest, .. } => digest.weight() as u64,
        }
    }

    /// The sample of that rank, from 1 for the smallest.
    pub fn at(&mut self, rank: u64) -> f64 {
        match self {
            Sorted::Samples(samples) => {
                let last = samples.len() - 1;
                samples[usize::try_from(rank.saturating_sub(1)).unwrap_or(last).min(last)]
            }
            Sorted::Digest { digest, .. } => {
                let number = digest.weight();
                let rank = (rank as f64).clamp(1.0, number);
                // Half way through its own place; the extremes are exact.
                let share = match rank {
                    1.0 => 0.0,
                    _ if rank == number => 1.0,
                    _ => (rank - 0.5) / number,
                };
                digest.quantile(share).unwrap_or(0.0)
            }
        }
    }

    /// Sums of all.
    pub fn sums(&self) -> Sums {
        match self {
            Sorted::Samples(samples) => Sums::of(samples),
            Sorted::Digest { digest, sum_squares } => {
                Sums { sum: digest.sum(), squares: *sum_squares }
            }
        }
    }

    /// Sums of the `number` smallest.
    pub fn sums_of_first(&mut self, number: u64) -> Sums {
        match self {
            _ if number >= self.number() => self.sums(),
            Sorted::Samples(samples) => Sums::of(&samples[..number as usize]),
            Sorted::Digest { digest, .. } => first_of(digest.centroids(), number as f64),
        }
    }

    /// Standard deviation of all, as of a whole population.
    pub fn deviation(&self) -> f64 {
        let number = self.number() as f64;
        let Sums { sum, squares } = self.sums();
        let mean = sum / number;
        match self {
            Sorted::Samples(samples) => {
                let differences: f64 = samples.iter().map(|x| (x - mean) * (x - mean)).sum();
                (differences / number).sqrt()
            }
            Sorted::Digest { .. } => (squares / number - mean * mean).max(0.0).sqrt(),
        }
    }

    /// How many samples are below `limit`.
    pub fn below(&mut self, limit: f64) -> u64 {
        if let Sorted::Samples(samples) = self {
            return samples.partition_point(|&sample| sample < limit) as u64;
        }
        // The first rank whose sample is not below it.
        let (mut low, mut high) = (0, self.number());
        while low < high {
            let middle = low.midpoint(high);
            match self.at(middle + 1) < limit {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    /// The middle one, or the mean of the two in the middle.
    pub fn median(&mut self) -> f64 {
        let number = self.number();
        match number % 2 {
            1 => self.at(number / 2 + 1),
            _ => f64::midpoint(self.at(number / 2), self.at(number / 2 + 1)),
        }
    }
}

/// Sums of so many of the smallest samples, of which a part of a centroid may be the last.
fn first_of(centroids: &[Centroid], number: f64) -> Sums {
    let mut left = number;
    let mut sums = Sums::default();
    for centroid in centroids {
        let taken = centroid.weight.min(left);
        sums.sum += centroid.mean * taken;
        sums.squares += centroid.mean * centroid.mean * taken;
        left -= taken;
        if left <= 0.0 {
            break;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(samples: impl IntoIterator<Item = f64>, exact: usize) -> Sorted {
        let mut timings = Timings::default();
        for sample in samples {
            timings.add(sample, 1.0, exact);
        }
        timings.into_sorted().expect("there are samples")
    }

    /// The laws hold of both forms: a uniform spread of 1 to 10,000.
    #[test]
    fn what_is_too_much_to_keep_is_still_about_right() {
        let spread = || (0..10_000_u32).map(|n| f64::from(n * 7919 % 10_000 + 1));
        let mut exact = sorted(spread(), usize::MAX);
        let mut about = sorted(spread(), EXACT);
        assert!(matches!((&exact, &about), (Sorted::Samples(_), Sorted::Digest { .. })));
        assert_eq!((exact.number(), about.number()), (10_000, 10_000));
        assert_eq!(exact.sums(), about.sums());
        assert_eq!((about.at(1), about.at(10_000)), (1.0, 10_000.0));
        let near = |exact: f64, about: f64| (exact - about).abs() <= exact.abs() * 0.01;
        for rank in [1_000, 5_000, 9_000, 9_900] {
            assert!(near(exact.at(rank), about.at(rank)), "{rank}: {}", about.at(rank));
            let (exact, about) = (exact.sums_of_first(rank), about.sums_of_first(rank));
            assert!(near(exact.sum, about.sum), "{rank}: {exact:?} {about:?}");
            assert!(near(exact.squares, about.squares), "{rank}: {exact:?} {about:?}");
        }
        assert!(near(exact.deviation(), about.deviation()));
        assert!(near(exact.median(), about.median()));
        assert!(near(exact.below(2_500.0) as f64, about.below(2_500.0) as f64));
    }

    #[test]
    fn few_samples_are_kept_as_they_are() {
        let mut few = sorted([5.0, 1.0, 3.0], EXACT);
        assert_eq!([1, 2, 3].map(|rank| few.at(rank)), [1.0, 3.0, 5.0]);
        assert_eq!(few.sums_of_first(2), Sums { sum: 4.0, squares: 10.0 });
        assert_eq!((few.below(3.0), few.below(f64::INFINITY)), (1, 3));
        assert!(Timings::default().into_sorted().is_none());
    }
}
