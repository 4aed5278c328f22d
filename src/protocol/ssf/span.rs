//! The span of a message.

use super::{Field, Fields, NotProtobuf};
use crate::model::{ServiceStatus, Span, text};

/// A span as it stands in a message. Texts are bytes: not all clients send UTF-8, and a bad tag
/// must not cost the span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanRef<'a> {
    trace_id: i64,
    id: i64,
    parent_id: i64,
    start_ns: i64,
    duration_ns: i64,
    status: ServiceStatus,
    /// The program it ran in; may be empty.
    pub service: &'a [u8],
    /// What was done.
    pub name: &'a [u8],
    resource: &'a [u8],
    /// It stands for what its service is there for, and is to be timed (v14).
    pub is_indicator: bool,
    /// The name of what it is timed as, if that is not its own (v14's tag `ssf_objective`).
    objective: Option<&'a [u8]>,
    tags: Tags<'a>,
}

impl SpanRef<'_> {
    /// How long it took, in nanoseconds; never negative.
    pub fn duration_ns(&self) -> i64 {
        self.duration_ns
    }

    /// Whether it failed.
    pub fn is_error(&self) -> bool {
        self.status != ServiceStatus::Ok
    }

    /// What an objective of its service would call it.
    pub fn objective(&self) -> &[u8] {
        self.objective.unwrap_or(self.name)
    }

    /// With texts of its own.
    pub fn to_owned(&self) -> Span {
        let owned = |bytes| text::lossy(bytes).into();
        let mut tags: Vec<(Box<str>, Box<str>)> = Vec::new();
        for (name, value) in self.tags.iter() {
            let name: Box<str> = owned(name);
            // As in a map, the last one counts.
            tags.retain(|(other, _)| *other != name);
            tags.push((name, owned(value)));
        }
        Span {
            trace_id: self.trace_id,
            id: self.id,
            parent_id: self.parent_id,
            start_ns: self.start_ns,
            duration_ns: self.duration_ns,
            status: self.status,
            service: owned(self.service),
            name: owned(self.name),
            resource: owned(self.resource),
            tags,
        }
    }
}

/// The tags of a message: messages of a name (1) and a value (2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tags<'a> {
    message: &'a [u8],
    /// The number they have in it.
    field: u32,
    /// Names of those that are not told, since they have a meaning of their own.
    hidden: &'static [&'static [u8]],
}

impl<'a> Tags<'a> {
    pub(super) fn of(message: &'a [u8], field: u32) -> Tags<'a> {
        Tags { message, field, hidden: &[] }
    }

    /// In the order given, those that can be read.
    pub(super) fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let all = Fields::of(self.message).filter_map(move |field| match field {
            Ok((number, Field::Bytes(entry))) if number == self.field => pair(entry).ok(),
            Ok(_) | Err(NotProtobuf) => None,
        });
        all.filter(move |(name, _)| !self.hidden.contains(name))
    }
}

fn pair(entry: &[u8]) -> Result<(&[u8], &[u8]), NotProtobuf> {
    let (mut name, mut value) = (&[][..], &[][..]);
    for field in Fields::of(entry) {
        match field? {
            (1, Field::Bytes(bytes)) => name = bytes,
            (2, Field::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((name, value))
}

/// The status of a number; one that nobody knows is unknown.
pub(super) fn status(number: u64) -> ServiceStatus {
    match number {
        0 => ServiceStatus::Ok,
        1 => ServiceStatus::Warning,
        2 => ServiceStatus::Critical,
        _ => ServiceStatus::Unknown,
    }
}

/// Signed integers are sent as they stand in 64 bits.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

/// v1.1.0's `SSFSample` with its `SSFTrace`. What kind of metric it claims to be is not looked
/// at, as there; without a trace there is nothing to be done with it, and there it was the end.
pub(super) fn read_v1(message: &[u8]) -> Result<Option<SpanRef<'_>>, NotProtobuf> {
    let mut span = SpanRef::empty(Tags::of(message, 7));
    let mut is_traced = false;
    for field in Fields::of(message) {
        match field? {
            (2, Field::Bytes(name)) => span.name = name,
            (3, Field::Varint(at)) => span.start_ns = signed(at),
            (5, Field::Varint(number)) => span.status = status(number),
            (9, Field::Bytes(trace)) => {
                is_traced = true;
                span.read_trace(trace)?;
            }
            (10, Field::Bytes(service)) => span.service = service,
            _ => {}
        }
    }
    Ok((is_traced && !span.name.is_empty()).then_some(span))
}

/// v14's `SSFSpan`.
pub(super) fn read_v14(message: &[u8]) -> Result<Option<SpanRef<'_>>, NotProtobuf> {
    let mut span = SpanRef::empty(Tags::of(message, 11));
    let mut end_ns = 0;
    for field in Fields::of(message) {
        match field? {
            (2, Field::Varint(id)) => span.trace_id = signed(id),
            (3, Field::Varint(id)) => span.id = signed(id),
            (4, Field::Varint(id)) => span.parent_id = signed(id),
            (5, Field::Varint(at)) => span.start_ns = signed(at),
            (6, Field::Varint(at)) => end_ns = signed(at),
            (7, Field::Varint(error)) if error != 0 => span.status = ServiceStatus::Critical,
            (8, Field::Bytes(service)) => span.service = service,
            (12, Field::Varint(indicator)) => span.is_indicator = indicator != 0,
            (13, Field::Bytes(name)) => span.name = name,
            _ => {}
        }
    }
    let tag = |wanted: &[u8]| {
        let tags = span.tags.iter().filter(|(name, _)| *name == wanted);
        tags.last().map(|(_, value)| value)
    };
    let (named, resource, objective) = (tag(b"name"), tag(b"resource"), tag(b"ssf_objective"));
    if span.name.is_empty() {
        span.name = named.unwrap_or_default();
        span.tags.hidden = &[b"name", b"resource"];
    } else {
        span.tags.hidden = &[b"resource"];
    }
    span.resource = resource.unwrap_or(b"unknown");
    span.objective = objective;
    span.duration_ns = end_ns.saturating_sub(span.start_ns).max(0);
    let numbers = [span.trace_id, span.id, span.start_ns, end_ns];
    Ok((!numbers.contains(&0) && !span.name.is_empty()).then_some(span))
}

impl<'a> SpanRef<'a> {
    fn empty(tags: Tags<'a>) -> SpanRef<'a> {
        SpanRef {
            trace_id: 0,
            id: 0,
            parent_id: 0,
            start_ns: 0,
            duration_ns: 0,
            status: ServiceStatus::Ok,
            service: &[],
            name: &[],
            resource: &[],
            is_indicator: false,
            objective: None,
            tags,
        }
    }

    /// v1.1.0's `SSFTrace`.
    fn read_trace(&mut self, trace: &'a [u8]) -> Result<(), NotProtobuf> {
        for field in Fields::of(trace) {
            match field? {
                (1, Field::Varint(id)) => self.trace_id = signed(id),
                (2, Field::Varint(id)) => self.id = signed(id),
                (3, Field::Varint(id)) => self.parent_id = signed(id),
                (4, Field::Bytes(resource)) => self.resource = resource,
                (5, Field::Varint(length)) => self.duration_ns = signed(length).max(0),
                _ => {}
            }
        }
        Ok(())
    }
}
