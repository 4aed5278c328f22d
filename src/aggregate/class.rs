//! What a sample's bytes name: a dialect and, but for brubeck, a kind.

use crate::mapping::MappedType;
use crate::model::{Dialect, MetricKind, Recorder};

/// What the bytes of a key are looked up as. The same bytes may name a series of each class.
///
/// brubeck finds a series by its name alone, whatever the type of a line: all of its are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// A kind of DogStatsD's.
    Counter,
    /// The same.
    Gauge,
    /// The same.
    Histogram,
    /// The same.
    Timer,
    /// The same.
    Distribution,
    /// The same.
    Set,
    /// A kind of etsy's.
    EtsyCounter,
    /// The same.
    EtsyGauge,
    /// The same.
    EtsyTimer,
    /// The same.
    EtsySet,
    /// A name of brubeck's.
    Brubeck,
}

/// How many there are.
pub(super) const CLASSES: usize = Class::Brubeck as usize + 1;

impl Class {
    /// Those of DogStatsD, which come first, in the order of the kinds.
    pub(super) const DOGSTATSD: usize = MetricKind::ALL.len();

    /// Of a sample in DogStatsD's dialect.
    #[inline(always)]
    pub const fn of(kind: MetricKind) -> Class {
        match kind {
            MetricKind::Counter => Class::Counter,
            MetricKind::Gauge => Class::Gauge,
            MetricKind::Histogram => Class::Histogram,
            MetricKind::Timer => Class::Timer,
            MetricKind::Distribution => Class::Distribution,
            MetricKind::Set => Class::Set,
        }
    }

    /// Of an etsy sample.
    pub const fn of_etsy(recorder: Recorder) -> Class {
        match recorder {
            Recorder::Counter | Recorder::Total => Class::EtsyCounter,
            Recorder::Gauge => Class::EtsyGauge,
            Recorder::Timer | Recorder::Histogram => Class::EtsyTimer,
            Recorder::Set => Class::EtsySet,
        }
    }

    /// Whose it is.
    pub const fn dialect(self) -> Dialect {
        match self {
            Class::Counter
            | Class::Gauge
            | Class::Histogram
            | Class::Timer
            | Class::Distribution
            | Class::Set => Dialect::DogStatsD,
            Class::EtsyCounter | Class::EtsyGauge | Class::EtsyTimer | Class::EtsySet => {
                Dialect::Etsy
            }
            Class::Brubeck => Dialect::Brubeck,
        }
    }

    /// What mapping files call its samples ([`MappedType::of`]).
    pub const fn mapped_type(self) -> Option<MappedType> {
        match self {
            Class::Counter | Class::EtsyCounter => Some(MappedType::Counter),
            Class::Gauge | Class::EtsyGauge => Some(MappedType::Gauge),
            Class::Histogram | Class::Timer | Class::Distribution | Class::EtsyTimer => {
                Some(MappedType::Observer)
            }
            Class::Set | Class::EtsySet | Class::Brubeck => None,
        }
    }

    /// The kind of a series of DogStatsD's; `None` for others, whose table knows.
    #[inline(always)]
    pub const fn kind(self) -> Option<MetricKind> {
        Some(match self {
            Class::Counter => MetricKind::Counter,
            Class::Gauge => MetricKind::Gauge,
            Class::Histogram => MetricKind::Histogram,
            Class::Timer => MetricKind::Timer,
            Class::Distribution => MetricKind::Distribution,
            Class::Set => MetricKind::Set,
            Class::EtsyCounter
            | Class::EtsyGauge
            | Class::EtsyTimer
            | Class::EtsySet
            | Class::Brubeck => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_of_dogstatsd_are_its_kinds() {
        for kind in MetricKind::ALL {
            let class = Class::of(kind);
            assert_eq!((class as usize, class.kind()), (kind as usize, Some(kind)));
            assert!((class as usize) < Class::DOGSTATSD);
            assert_eq!(class.mapped_type(), MappedType::of(kind, Dialect::DogStatsD));
        }
        use Recorder::{Counter, Gauge, Histogram, Set, Timer, Total};
        for recorder in [Counter, Total, Gauge, Timer, Histogram, Set] {
            let class = Class::of_etsy(recorder);
            assert_eq!(class.mapped_type(), MappedType::of(recorder.kind(), Dialect::Etsy));
        }
    }
}
