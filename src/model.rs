//! The words of the field: what every other module speaks of.
//!
//! Plain values without I/O, clocks or locks, built on the standard library alone.

pub mod classic;
pub mod date;
pub mod dialect;
pub mod event;
pub mod glob;
pub mod key;
pub mod phase;
pub mod point;
pub mod sample;
pub mod scope;
pub mod span;
pub mod statistic;
pub mod tag_matcher;
pub mod tags;
pub mod text;
pub mod time;

pub use classic::{Bins, ClassicRules, EtsyStatistics, Idle};
pub use date::Utc;
pub use dialect::{Dialect, Recorder};
pub use event::{AlertType, Event, Origin, Priority, ServiceCheck, ServiceStatus};
pub use glob::{Glob, Pattern};
pub use key::{MetricKey, MetricKind};
pub use phase::Phase;
pub use point::{FlushBatch, Point, PointKind, Suffix, Suffixes};
pub use sample::Weight;
pub use scope::{Disposition, Emit, Role, Scope};
pub use span::Span;
pub use statistic::{Percentile, Statistic};
pub use tag_matcher::TagMatcher;
pub use tags::{ExtendTags, TagSet};
pub use time::{Interval, UnixSeconds};
