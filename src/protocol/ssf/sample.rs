//! A sample that came with a span (v14's `SSFSample`).

use super::span::{Tags, status};
use super::{Field, Fields, NotProtobuf};
use crate::model::{Scope, ServiceStatus, Weight};
use crate::protocol::Reason;

/// What a sample is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// Adds up.
    Counter,
    /// The last one counts.
    Gauge,
    /// Its distribution counts.
    Histogram,
    /// The message is a member.
    Set,
    /// A service check.
    Status,
}

/// One sample, borrowed from its message.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// What it is of.
    pub kind: SampleKind,
    /// Not empty.
    pub name: &'a [u8],
    /// Finite; sent in 32 bits.
    pub value: f64,
    /// The member of a set, or the words of a check.
    pub message: &'a [u8],
    /// Of a check.
    pub status: ServiceStatus,
    /// How much it counts.
    pub weight: Weight,
    /// Where it is finished.
    pub scope: Scope,
    tags: Tags<'a>,
}

/// v14's `SSFSample.scope` beyond its default.
const LOCAL: u64 = 1;
const GLOBAL: u64 = 2;

impl<'a> Sample<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub(super) fn read(message: &'a [u8]) -> Result<Sample<'a>, Reason> {
        let mut sample = Sample {
            kind: SampleKind::Counter,
            name: &[],
            value: 0.0,
            message: &[],
            status: ServiceStatus::Ok,
            weight: Weight::ONE,
            scope: Scope::Mixed,
            tags: Tags::of(message, 8),
        };
        for field in Fields::of(message) {
            match field.map_err(|NotProtobuf| Reason::BadProtobuf)? {
                (1, Field::Varint(kind)) => sample.kind = kind_of(kind)?,
                (2, Field::Bytes(name)) => sample.name = name,
                (3, Field::Fixed32(value)) => sample.value = f32::from_le_bytes(value).into(),
                (5, Field::Bytes(message)) => sample.message = message,
                (6, Field::Varint(number)) => sample.status = status(number),
                (7, Field::Fixed32(rate)) => sample.weight = weight_of(f32::from_le_bytes(rate))?,
                (10, Field::Varint(scope)) => sample.scope = scope_of(scope),
                _ => {}
            }
        }
        if sample.name.is_empty() {
            return Err(Reason::EmptyName);
        }
        if !sample.value.is_finite() {
            return Err(Reason::NonFinite);
        }
        Ok(sample)
    }

    /// Names and values, in the order given.
    pub fn tags(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.tags.iter()
    }
}

fn kind_of(number: u64) -> Result<SampleKind, Reason> {
    match number {
        0 => Ok(SampleKind::Counter),
        1 => Ok(SampleKind::Gauge),
        2 => Ok(SampleKind::Histogram),
        3 => Ok(SampleKind::Set),
        4 => Ok(SampleKind::Status),
        _ => Err(Reason::UnknownType),
    }
}

/// A rate of 0 is one that was not set.
fn weight_of(rate: f32) -> Result<Weight, Reason> {
    if rate == 0.0 {
        return Ok(Weight::ONE);
    }
    Weight::from_rate(rate).ok_or(Reason::BadSampleRate)
}

fn scope_of(number: u64) -> Scope {
    match number {
        LOCAL => Scope::LocalOnly,
        GLOBAL => Scope::GlobalOnly,
        _ => Scope::Mixed,
    }
}
