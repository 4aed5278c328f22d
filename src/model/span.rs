//! Spans: pieces of a distributed trace, passed on as they are.

use super::ServiceStatus;

/// One timed piece of work in a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace it belongs to.
    pub trace_id: i64,
    /// Its own number in it.
    pub id: i64,
    /// The span it is part of; 0 or less if there is none.
    pub parent_id: i64,
    /// When it began, in nanoseconds since 1970.
    pub start_ns: i64,
    /// How long it took, in nanoseconds.
    pub duration_ns: i64,
    /// How it went: an error is [`ServiceStatus::Critical`] where clients can only say that there
    /// was one.
    pub status: ServiceStatus,
    /// The program it ran in.
    pub service: Box<str>,
    /// What was done.
    pub name: Box<str>,
    /// What it was done to.
    pub resource: Box<str>,
    /// Names and values, in the order given.
    pub tags: Vec<(Box<str>, Box<str>)>,
}

impl Span {
    /// What it takes in memory, in bytes, as far as it is the client who says so.
    pub fn bytes(&self) -> usize {
        let texts = self.service.len() + self.name.len() + self.resource.len();
        let tags = self.tags.iter();
        let tags = tags.map(|(name, value)| size_of_val(&(name, value)) + name.len() + value.len());
        size_of::<Span>() + texts + 2 * tags.sum::<usize>()
    }
}
