//! Sketches: small summaries of many samples that can be merged.
//!
//! A local node fills them, a global node merges them, and the answer is the one a single
//! node would have given for all samples together, within a stated error:
//!
//! | | [`Digest`] | [`Cardinality`] |
//! |---|---|---|
//! | answers | quantiles | how many distinct members |
//! | exact | weight, min, max; everything while nothing was folded | up to 3072 members, but for rare twins |
//! | error else | 0.15 % of rank at p99, 0.06 % at p99.9, 0.5 % at the median | 0.8 % standard error |
//! | size | at most 214 centroids of 16 bytes | 5 to 11 bytes a member, at most 16 KiB |
//! | merging | any order, within the same error | any order, the same bits |
//!
//! [`LegacySet`] only writes: it is for an upstream Veneur 1.1.0, which reads no other sets.
//!
//! Nothing here does I/O or reads a clock; both are our own code because no crate takes
//! weights, keeps min and max, exports its parts and speaks Veneur's bytes.

pub mod cardinality;
pub mod digest;
pub mod legacy_set;
pub mod metro;
pub mod stored;

pub use cardinality::{Cardinality, CardinalityError, member_hash};
pub use digest::{Centroid, Digest, DigestError, Mode, Parts};
pub use legacy_set::LegacySet;
