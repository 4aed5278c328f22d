//! A stream of lines.

use std::mem;

use crate::ingest::Receive;

/// Lines that end with a newline. One that is too long is counted once, and reading goes on
/// behind its newline.
#[derive(Debug)]
pub(in crate::ingest) struct Lines {
    longest: usize,
    /// The beginning of a line.
    kept: Vec<u8>,
    /// What comes up to the next newline belongs to a line already refused.
    is_skipping: bool,
}

impl Lines {
    pub(in crate::ingest) fn new(longest: usize) -> Lines {
        Lines { longest, kept: Vec::new(), is_skipping: false }
    }

    pub(super) fn take(&mut self, bytes: &[u8], receive: &mut impl Receive) {
        let Some(first_end) = memchr::memchr(b'\n', bytes) else {
            return self.keep(bytes, receive);
        };
        self.take_end(&bytes[..first_end], receive);
        let rest = &bytes[first_end + 1..];
        let last_end = memchr::memrchr(b'\n', rest).map_or(0, |at| at + 1);
        let (lines, begun) = rest.split_at(last_end);
        let mut too_long = 0;
        let lines_of = memchr::memchr_iter(b'\n', lines).scan(0, |start, end| {
            let line = &lines[*start..end];
            *start = end + 1;
            Some(line)
        });
        let whole = lines_of.filter(|line| {
            too_long += usize::from(line.len() > self.longest);
            (1..=self.longest).contains(&line.len())
        });
        receive.read(lines, whole);
        (0..too_long).for_each(|_| receive.too_long());
        self.keep(begun, receive);
    }

    /// Takes the end of a line, which is the whole of it if nothing has been kept.
    fn take_end(&mut self, end: &[u8], receive: &mut impl Receive) {
        if mem::take(&mut self.is_skipping) {
            return;
        }
        match (self.kept.len(), end.len()) {
            (0, 0) => {}
            (kept, end) if kept + end > self.longest => receive.too_long(),
            (0, _) => receive.packet(end),
            _ => {
                self.kept.extend_from_slice(end);
                receive.packet(&self.kept);
            }
        }
        self.kept.clear();
    }

    /// Takes a part of a line that goes on.
    fn keep(&mut self, part: &[u8], receive: &mut impl Receive) {
        if self.is_skipping {
            return;
        }
        if self.kept.len() + part.len() > self.longest {
            self.kept.clear();
            self.is_skipping = true;
            receive.too_long();
            return;
        }
        self.kept.extend_from_slice(part);
    }

    /// As [`super::Framing::kept`].
    pub(super) fn kept(&self) -> Option<Vec<u8>> {
        (!self.is_skipping).then(|| self.kept.clone())
    }

    /// As [`super::Framing::is_amid`].
    pub(super) fn is_amid(&self) -> bool {
        !self.kept.is_empty()
    }
}
