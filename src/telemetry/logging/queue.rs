//! Log lines on their way out, so that nobody who logs waits for whoever reads the log.
//!
//! A reader of our standard error may stand still for hours: a terminal with a selection, a
//! collector that hangs. Who logs only puts a line here, under a lock that is never held while
//! something is written; one thread, `log`, writes. When [`CAPACITY`] lines wait, further ones
//! are lost and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The most lines that wait to be written.
pub(super) const CAPACITY: usize = 1024;

/// What those who log and the thread that writes share. Cloning shares.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is a line to write.
    filled: Condvar,
    /// Everything has been written.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    /// One more line has been taken out and is being written.
    is_writing: bool,
    lost: u64,
}

impl Queue {
    /// Starts the thread that writes to `out`, for as long as the process lives.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Queue> {
        let queue = Queue(Arc::default());
        let writer = queue.clone();
        thread::Builder::new().name("log".into()).spawn(move || writer.write_to(out))?;
        Ok(queue)
    }

    /// Puts a line in, or counts it as lost.
    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.lines.len() >= CAPACITY {
            state.lost += 1;
            return;
        }
        state.lines.push_back(line.into());
        drop(state);
        self.0.filled.notify_one();
    }

    /// Waits until everything put in so far has been written, for `within` at most; whether it
    /// has.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let waited = self.0.emptied.wait_timeout_while(self.state(), within, |state| {
            state.is_writing || !state.lines.is_empty()
        });
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Lines lost since the last call.
    pub(super) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.state().lost)
    }

    fn write_to(self, mut out: impl Write) {
        loop {
            let line = self.next();
            let written = out.write_all(&line).and_then(|()| out.flush());
            let mut state = self.state();
            state.is_writing = false;
            // Nobody is left who could be told in another way.
            state.lost += u64::from(written.is_err());
        }
    }

    /// Waits for a line.
    fn next(&self) -> Box<[u8]> {
        let mut state = self.state();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.is_writing = true;
                return line;
            }
            self.0.emptied.notify_all();
            state = self.0.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call is one line: the formatting layer writes each with one `write_all`.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    /// Does not wait: that is [`Queue::flush`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn lines_that_nobody_reads_are_lost_and_counted_and_block_nobody() {
        let (mut reader, writer) = io::pipe().expect("a pipe is to be had");
        let queue = Queue::start(writer).expect("a thread is to be had");
        let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
        // A pipe holds 64 KiB or less, and one line is on its way into it.
        let pushed = 2 * CAPACITY;
        (0..pushed).for_each(|_| queue.push(&line));
        assert!(!queue.flush(Duration::ZERO), "it cannot have been written");

        let lost = queue.take_lost() as usize;
        let kept = pushed - lost;
        assert!((CAPACITY..=CAPACITY + 64 + 1).contains(&kept), "{kept}");
        assert_eq!(queue.take_lost(), 0);

        let mut read = vec![0; kept * line.len()];
        reader.read_exact(&mut read).expect("every line that was not lost comes");
        assert!(read == line.repeat(kept), "whole lines, in order");
        assert!(queue.flush(PATIENCE));
    }

    #[test]
    fn lines_that_cannot_be_written_are_lost_and_counted() {
        let (reader, writer) = io::pipe().expect("a pipe is to be had");
        drop(reader);
        let queue = Queue::start(writer).expect("a thread is to be had");
        queue.push(b"one\n");
        queue.push(b"two\n");
        assert!(queue.flush(PATIENCE));
        assert_eq!(queue.take_lost(), 2);
    }
}
