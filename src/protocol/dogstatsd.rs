//! One DogStatsD line: which message it is, and its parts.

use super::Refusal;
use crate::model::{Event, MetricKind, ServiceCheck, UnixSeconds, Weight};

/// What one line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// The common case; borrows from the line.
    Metric(Line<'a>),
    /// Rare, so it owns its text.
    Event(Box<Event>),
    /// Rare, so it owns its text.
    ServiceCheck(Box<ServiceCheck>),
}

/// A metric line, split into borrowed fields.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line<'a> {
    /// Bytes before the first `:`, not empty.
    pub name: &'a [u8],
    /// What it says, one or more values.
    pub values: Values<'a>,
    /// The type section.
    pub kind: MetricKind,
    /// `@`; one if absent.
    pub weight: Weight,
    /// The rate as given, for those who show it; 1 if absent.
    pub sample_rate: f32,
    /// The last `#` section without its `#`, unsplit.
    pub tags: &'a [u8],
    /// `T`
    pub timestamp: Option<UnixSeconds>,
    /// `c:`
    pub container_id: Option<&'a [u8]>,
    /// `e:`
    pub external_data: Option<&'a [u8]>,
    /// `card:`, one of the four known words in lower case.
    pub cardinality: Option<&'static str>,
    /// Sections nobody knows, skipped.
    pub unknown_sections: u16,
    /// Non-finite elements of a packed value, left out.
    pub skipped_values: u16,
}

/// The values of a line. Every number in it has been checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values<'a> {
    /// One finite number.
    One(f64),
    /// Several numbers separated by `:`; empty and non-finite elements are to be skipped.
    Packed(&'a [u8]),
    /// The member of a set; may be empty.
    Member(&'a [u8]),
}

/// Reads one line, without its newline; a `\r` at its end is dropped.
///
/// # Errors
/// The first rule the line breaks.
pub fn parse(_line: &[u8]) -> Result<Message<'_>, Refusal> {
    unreachable!("skeleton")
}
