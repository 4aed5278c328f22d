//! Spans on their way to the next flush: the newest, as far as there is room.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::model::Span;

/// Shared by the listener threads of spans and the flush. Where there is no room the oldest go,
/// as in Veneur's ring.
#[derive(Debug)]
pub struct SpanRing {
    max_bytes: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    spans: VecDeque<Span>,
    bytes: usize,
}

impl SpanRing {
    /// One that holds spans of `max_bytes` in all ([`Span::bytes`]).
    pub fn new(max_bytes: usize) -> SpanRing {
        SpanRing { max_bytes, inside: Mutex::default() }
    }

    /// Keeps a span; how many have gone for it, itself perhaps.
    pub fn push(&self, span: Span) -> u64 {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.bytes += span.bytes();
        inside.spans.push_back(span);
        let mut gone = 0;
        while inside.bytes > self.max_bytes {
            let oldest = inside.spans.pop_front().expect("bytes are those of spans in it");
            inside.bytes -= oldest.bytes();
            gone += 1;
        }
        gone
    }

    /// All of them, oldest first.
    pub fn take(&self) -> Vec<Span> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.bytes = 0;
        std::mem::take(&mut inside.spans).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceStatus;

    fn span(id: i64, name: &str) -> Span {
        Span {
            trace_id: 1,
            id,
            parent_id: 0,
            start_ns: 1,
            duration_ns: 1,
            status: ServiceStatus::Ok,
            service: "".into(),
            name: name.into(),
            resource: "".into(),
            tags: Vec::new(),
        }
    }

    fn ids(ring: &SpanRing) -> Vec<i64> {
        ring.take().iter().map(|span| span.id).collect()
    }

    #[test]
    fn the_newest_spans_stay_as_far_as_there_is_room() {
        let ring = SpanRing::new(2 * span(0, "").bytes() + 2);
        let gone: Vec<_> = (0..4).map(|id| ring.push(span(id, "x"))).collect();
        assert_eq!(gone, [0, 0, 1, 1]);
        assert_eq!(ids(&ring), [2, 3]);
        assert!(ids(&ring).is_empty(), "they are taken once");
        assert_eq!(ring.push(span(4, "a little longer")), 0, "and leave their room");
        assert_eq!(ring.push(span(5, &"x".repeat(1 << 10))), 2, "one may be too long itself");
        assert!(ids(&ring).is_empty());
    }
}
