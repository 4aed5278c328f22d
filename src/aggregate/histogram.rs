//! Samples of a histogram, timer or distribution.

use crate::model::{Statistic, Weight};
use crate::sketch::Digest;

/// A digest of the samples received here, and one of those merged in from other nodes.
///
/// They stay apart until the flush because aggregates (count, max, ...) are of the samples
/// received here alone, wherever other nodes emit their own; percentiles are of both.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    pub(super) own: Digest,
    pub(super) imported: Option<Box<Digest>>,
}

impl Histogram {
    /// Adds one sample received here; returns by how much [`Histogram::heap_bytes`] has grown.
    #[inline]
    pub fn add(&mut self, value: f64, weight: Weight) -> usize {
        self.own.add_growing(value, weight)
    }

    /// Merges a digest whose node emits its aggregates itself: only percentiles see it.
    pub fn import(&mut self, digest: Digest) {
        match &mut self.imported {
            Some(imported) => imported.merge(&digest),
            None => self.imported = Some(Box::new(digest)),
        }
    }

    /// Merges a digest that is finished nowhere else (global-only series and distributions):
    /// its samples count as received here.
    pub fn import_as_own(&mut self, digest: Digest) {
        if self.own.is_empty() {
            self.own = digest;
        } else {
            self.own.merge(&digest);
        }
    }

    /// Adds everything in `other`, each to its like.
    pub fn merge(&mut self, other: Histogram) {
        self.import_as_own(other.own);
        if let Some(imported) = other.imported {
            self.import(*imported);
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let imported = self.imported.as_ref();
        self.own.heap_bytes() + imported.map_or(0, |it| size_of::<Digest>() + it.heap_bytes())
    }

    /// One aggregate of the samples received here; `None` if there were none.
    ///
    /// May be infinite where a sum overflows; the caller decides what to do with that.
    pub fn statistic(&mut self, statistic: Statistic) -> Option<f64> {
        let weight = self.own.weight();
        if weight == 0.0 {
            return None;
        }
        match statistic {
            Statistic::Max => self.own.max(),
            Statistic::Min => self.own.min(),
            Statistic::Sum => Some(self.own.sum()),
            Statistic::Avg => Some(self.own.sum() / weight),
            Statistic::Count => Some(weight),
            Statistic::Median => self.own.quantile(0.5),
            Statistic::Hmean => Some(weight / self.own.reciprocal_sum()),
        }
    }

    /// Everything, for percentiles and for the upstream node.
    pub fn into_merged(self) -> Digest {
        match self.imported {
            None => self.own,
            Some(imported) => {
                let mut merged = *imported;
                merged.merge(&self.own);
                merged
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aggregates_see_own_samples_and_percentiles_see_all() {
        let mut histogram = Histogram::default();
        let mut elsewhere = Digest::new();
        elsewhere.add(1000.0, Weight::ONE);
        histogram.import(elsewhere);
        assert_eq!(histogram.statistic(Statistic::Count), None);
        histogram.add(1.0, Weight::ONE);
        histogram.add(3.0, Weight::ONE);
        assert_eq!(histogram.statistic(Statistic::Max), Some(3.0));
        assert_eq!(histogram.statistic(Statistic::Avg), Some(2.0));
        assert_eq!(histogram.statistic(Statistic::Hmean), Some(1.5));
        assert_eq!(histogram.into_merged().max(), Some(1000.0));
    }

    #[test]
    fn what_is_finished_nowhere_else_counts_as_received_here() {
        let mut histogram = Histogram::default();
        let mut elsewhere = Digest::new();
        elsewhere.add(8.0, Weight::from_rate(0.5).expect("0.5 is a rate"));
        histogram.import_as_own(elsewhere);
        assert_eq!(histogram.statistic(Statistic::Count), Some(2.0));
        assert_eq!(histogram.statistic(Statistic::Sum), Some(16.0));
    }
}
