//! The classic dialects: a line is a name and what is to be recorded under it.
//!
//! Each has a reader of its own, which hands the samples of a line one by one to whoever takes
//! them: bytes in, borrowed bytes out, nothing allocated. Names and tags stay as they were
//! sent; what a series of them is called is said by [`etsy::key`], for a key not seen before.
//!
//! Source: `statsd/statsd` 0.10 and `github/brubeck`; the cases are in
//! `tests/conformance/statsd_classic.json`.

pub mod brubeck;
pub mod etsy;

use super::{PacketType, Reason, Refusal};
use crate::model::text::offset;
use crate::model::{Recorder, Weight};

/// One observation of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'a> {
    /// Bytes before the first `:`, not empty.
    pub name: &'a [u8],
    /// The tags of an etsy line, unsplit; empty if there are none.
    pub tags: &'a [u8],
    /// Where it belongs.
    pub recorder: Recorder,
    /// The value of all but sets; finite.
    pub number: f64,
    /// Whether the value has a sign, which for a gauge means more or less than before.
    pub is_relative: bool,
    /// The member of a set.
    pub text: &'a [u8],
    /// `@`; one if absent.
    pub weight: Weight,
}

/// A refusal that points at `part`, which is a slice of `line`.
#[cold]
fn refuse(reason: Reason, line: &[u8], part: &[u8]) -> Refusal {
    let at = u32::try_from(offset(line, part)).unwrap_or(u32::MAX);
    Refusal { packet: PacketType::Metric, reason, at }
}

/// A line without the `\r` that some clients end theirs with.
fn trim_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
