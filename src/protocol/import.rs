//! What nodes send each other: series with their sketches, in three bodies.
//!
//! | body | read | written for | module |
//! |---|---|---|---|
//! | protobuf `forwardrpc.MetricList` | our own nodes, Veneur v14 (gRPC) | both | [`protobuf`] |
//! | JSON with [`gob`] digests | Veneur v1.1.0 and v14 (`POST /import`) | both | [`json`] |
//!
//! A body is taken whole or not at all: nothing of it may be merged before all of it was
//! read. The one exception is a set of another precision (every v1.1.0 set): it can never be
//! merged with ours, so it is left out and counted, and the rest of the body is fine.
//!
//! Decoding needs memory in proportion to the body and to [`Limits::entries`]; no input makes
//! it panic (fuzzed). Unpacking and limiting the bytes of a body is the caller's.

pub mod gob;
pub mod json;
pub mod protobuf;

use std::fmt;

use crate::model::{MetricKind, Scope, TagSet};
use crate::sketch::{Cardinality, CardinalityError, Digest, DigestError};

pub use gob::GobError;

/// One series from below.
#[derive(Clone, Debug)]
pub struct ImportedEntry {
    /// Metric name, with invalid UTF-8 replaced as in a line.
    pub name: String,
    /// Canonical tags. Scope tags among them are ordinary tags: the sender has taken out those
    /// that meant something.
    pub tags: TagSet,
    /// The type the client gave it.
    pub kind: MetricKind,
    /// The scope it has where it was received; never [`Scope::LocalOnly`].
    pub scope: Scope,
    /// What it has accumulated there.
    pub value: ImportedValue,
}

/// What a series has accumulated elsewhere.
#[derive(Clone, Debug)]
pub enum ImportedValue {
    /// The sum of an interval; finite.
    Counter(f64),
    /// The last value; finite.
    Gauge(f64),
    /// Of a histogram, timer or distribution.
    Digest(Digest),
    /// Distinct members.
    Set(Cardinality),
}

impl ImportedValue {
    /// Whether a series of this kind accumulates such a value.
    fn fits(&self, kind: MetricKind) -> bool {
        match self {
            ImportedValue::Counter(_) => kind == MetricKind::Counter,
            ImportedValue::Gauge(_) => kind == MetricKind::Gauge,
            ImportedValue::Digest(_) => kind.has_digest(),
            ImportedValue::Set(_) => kind == MetricKind::Set,
        }
    }
}

/// A body that was taken.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// What to merge.
    pub entries: Vec<ImportedEntry>,
    /// Sets left out because of their precision.
    pub set_precision: u64,
}

/// What a body may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most entries it may have.
    pub entries: usize,
}

/// Why a body was refused: small, since a peer may send it again every interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImportError {
    /// The entry at fault, counted from 0; `None` if it is the body.
    pub entry: Option<usize>,
    /// What is wrong with it.
    pub cause: Cause,
}

/// The first rule a body breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// No entries at all.
    #[error("no metrics in the body")]
    Empty,
    /// More than [`Limits::entries`].
    #[error("too many metrics in the body")]
    TooManyEntries,
    /// Not JSON, cut short, or not of the right shape.
    #[error("not the JSON of an import, at line {line} column {column}")]
    Json {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// Not protobuf, cut short, or not of the right shape.
    #[error("not the protobuf of an import")]
    Protobuf,
    /// A protobuf metric of more than 1 MiB.
    #[error("metric of more than 1 MiB")]
    TooLong,
    /// A metric without a name.
    #[error("metric without a name")]
    EmptyName,
    /// A type that nobody forwards.
    #[error("unknown metric type")]
    UnknownType,
    /// A scope other than mixed or global.
    #[error("neither mixed nor global in scope")]
    BadScope,
    /// No value, or one that does not go with the type.
    #[error("value missing or of another type")]
    WrongValue,
    /// Standard base64 was expected.
    #[error("value is not base64")]
    Base64,
    /// Eight bytes were expected.
    #[error("number is not 8 bytes long")]
    NumberLength,
    /// A NaN or infinite counter or gauge.
    #[error("value is not finite")]
    NonFinite,
    /// A digest that would spoil what it is merged into.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Bytes that are no set sketch.
    #[error(transparent)]
    Set(#[from] CardinalityError),
    /// Bytes that are no gob stream, or not of a digest or set.
    #[error(transparent)]
    Gob(#[from] GobError),
}

impl Cause {
    /// Value of the `cause` tag of `veneur.import.request_error_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Empty => "empty",
            Cause::TooManyEntries => "too_many_entries",
            Cause::Json { .. } => "json",
            Cause::Protobuf => "protobuf",
            Cause::TooLong => "too_long",
            Cause::EmptyName => "empty_name",
            Cause::UnknownType => "unknown_type",
            Cause::BadScope => "bad_scope",
            Cause::WrongValue => "wrong_value",
            Cause::Base64 => "base64",
            Cause::NumberLength => "number_length",
            Cause::NonFinite => "non_finite",
            Cause::Digest(_) => "digest",
            Cause::Set(_) => "set",
            Cause::Gob(_) => "gob",
        }
    }

    /// Whether the entry is left out rather than the body refused.
    fn is_set_precision(self) -> bool {
        matches!(self, Cause::Set(CardinalityError::Precision(_)))
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry {
            Some(entry) => write!(f, "entry {entry}: {}", self.cause),
            None => self.cause.fmt(f),
        }
    }
}

impl std::error::Error for ImportError {}

/// Collects entries until one is at fault.
struct Collecting {
    imported: Imported,
    /// Entries seen, those left out included.
    seen: usize,
    limits: Limits,
}

impl Collecting {
    fn new(limits: Limits) -> Collecting {
        Collecting { imported: Imported::default(), seen: 0, limits }
    }

    fn push(&mut self, entry: Result<ImportedEntry, Cause>) -> Result<(), ImportError> {
        if self.seen == self.limits.entries {
            return Err(ImportError { entry: None, cause: Cause::TooManyEntries });
        }
        match entry {
            Ok(entry) => self.imported.entries.push(entry),
            Err(cause) if cause.is_set_precision() => self.imported.set_precision += 1,
            Err(cause) => return Err(self.fault(cause)),
        }
        self.seen += 1;
        Ok(())
    }

    /// The next entry is at fault.
    fn fault(&self, cause: Cause) -> ImportError {
        ImportError { entry: Some(self.seen), cause }
    }

    fn finish(self) -> Result<Imported, ImportError> {
        if self.seen == 0 {
            return Err(ImportError { entry: None, cause: Cause::Empty });
        }
        Ok(self.imported)
    }
}

/// The number if it is finite, without the sign of a zero: protobuf does not carry it.
fn finite(number: f64) -> Result<f64, Cause> {
    if number.is_finite() { Ok(number + 0.0) } else { Err(Cause::NonFinite) }
}

/// Tags as they come, canonical. A comma within one would make it two in the joined form, so
/// it does here.
fn canonical<'a>(tags: impl IntoIterator<Item = &'a str>) -> TagSet {
    TagSet::canonical(tags.into_iter().flat_map(crate::model::tags::split))
}
