//! The default sink: every flush as a table on standard output.
//!
//! What a table looks like is [`table`]'s. Printing happens on the blocking pool, one table at
//! a time and in one write, so a terminal that stands still (Ctrl-S, a full pipe) costs the
//! tables it does not take and nothing else. When standard output is closed the daemon goes on
//! without printing.

use std::io::{self, ErrorKind, Stdout, Write};
use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout_at};

use super::{Delivered, MetricSink, Node, Reason, Tally};
use crate::model::FlushBatch;

pub mod table;

/// The sink.
pub struct Console<W> {
    name: String,
    output: Output<W>,
    options: Arc<table::Options>,
}

/// Where a table goes.
enum Output<W> {
    /// Free to be written to.
    Idle(W),
    /// A table is being printed.
    Printing(JoinHandle<Printed<W>>),
    /// Closed by the other side, or lost.
    Closed,
}

/// The output back, and how many points the table showed.
type Printed<W> = (W, io::Result<u64>);

impl Console<Stdout> {
    /// Prints on standard output. `show_own` also shows the daemon's own telemetry.
    pub fn new(name: &str, node: Node, show_own: bool) -> Console<Stdout> {
        Console::with_output(name, io::stdout(), node, show_own)
    }
}

impl<W: Write + Send + 'static> Console<W> {
    fn with_output(name: &str, out: W, node: Node, show_own: bool) -> Console<W> {
        let options = Arc::new(table::Options { node, show_own });
        Console { name: name.to_owned(), output: Output::Idle(out), options }
    }

    /// Waits for the table being printed. What it came to, if that was in time.
    async fn wait(&mut self, deadline: Instant) -> Option<io::Result<u64>> {
        let Output::Printing(printing) = &mut self.output else { return None };
        let (out, result) = match timeout_at(deadline, printing).await {
            Ok(Ok(printed)) => printed,
            Ok(Err(panic)) => {
                self.output = Output::Closed;
                return Some(Err(panic.into()));
            }
            Err(_) => return None,
        };
        self.output = match &result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Output::Closed,
            Ok(_) | Err(_) => Output::Idle(out),
        };
        Some(result)
    }
}

impl<W: Write + Send + 'static> MetricSink for Console<W> {
    fn name(&self) -> &str {
        &self.name
    }

    async fn flush(&mut self, batch: Arc<FlushBatch>, deadline: Instant) -> Delivered {
        // The table before may still be stuck.
        self.wait(deadline).await;
        let out = match std::mem::replace(&mut self.output, Output::Closed) {
            Output::Idle(out) => out,
            stuck @ Output::Printing(_) => {
                self.output = stuck;
                return Delivered::nothing(&batch, Reason::Timeout);
            }
            Output::Closed => return skipped(&batch),
        };
        let (of, options) = (Arc::clone(&batch), Arc::clone(&self.options));
        self.output = Output::Printing(spawn_blocking(move || print(out, &of, &options)));
        match self.wait(deadline).await {
            Some(Ok(shown)) => delivered(&batch, shown),
            Some(Err(error)) => {
                let reason = match self.output {
                    Output::Closed => Reason::Closed,
                    Output::Idle(_) | Output::Printing(_) => Reason::Io,
                };
                let failure = Some(format!("cannot write to standard output: {error}"));
                Delivered { failure, ..Delivered::nothing(&batch, reason) }
            }
            None => Delivered::nothing(&batch, Reason::Timeout),
        }
    }
}

fn print<W: Write>(mut out: W, batch: &FlushBatch, options: &table::Options) -> Printed<W> {
    let table = table::render(batch, options);
    let result = out.write_all(table.text.as_bytes()).and_then(|()| out.flush());
    (out, result.map(|()| table.points))
}

/// Everything printed, but for the points folded into a number.
fn delivered(batch: &FlushBatch, shown: u64) -> Delivered {
    Delivered {
        points: Tally::new(shown, batch.points.len() as u64 - shown),
        events: Tally::new(batch.events.len() as u64, 0),
        checks: Tally::new(batch.checks.len() as u64, 0),
        spans: Tally::new(0, batch.spans.len() as u64),
        failure: None,
    }
}

/// Nobody is reading any more.
fn skipped(batch: &FlushBatch) -> Delivered {
    Delivered {
        points: Tally::new(0, batch.points.len() as u64),
        events: Tally::new(0, batch.events.len() as u64),
        checks: Tally::new(0, batch.checks.len() as u64),
        spans: Tally::new(0, batch.spans.len() as u64),
        failure: None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};
    use std::time::Duration;

    use super::*;
    use crate::model::{Event, Interval, UnixSeconds};

    /// An output that answers each write as the test says, in order.
    struct TestOutput {
        answers: mpsc::Receiver<io::Result<()>>,
        written: Arc<Mutex<Vec<String>>>,
    }

    impl Write for TestOutput {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.answers.recv().expect("the test answers every write")?;
            let text = String::from_utf8_lossy(bytes).into_owned();
            self.written.lock().expect("no test panics here").push(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Rig {
        console: Console<TestOutput>,
        answer: mpsc::Sender<io::Result<()>>,
        written: Arc<Mutex<Vec<String>>>,
    }

    impl Rig {
        fn new() -> Rig {
            let (answer, answers) = mpsc::channel();
            let written = Arc::default();
            let output = TestOutput { answers, written: Arc::clone(&written) };
            Rig {
                console: Console::with_output("console", output, Node::default(), false),
                answer,
                written,
            }
        }

        /// Flushes one event, with all the time it takes.
        async fn flush(&mut self) -> Delivered {
            self.flush_within(Duration::from_secs(60)).await
        }

        async fn flush_within(&mut self, time: Duration) -> Delivered {
            let batch = FlushBatch {
                at: UnixSeconds(0),
                interval: Interval::new(Duration::from_secs(1)).expect("not zero"),
                suffixes: Default::default(),
                points: Vec::new(),
                events: vec![Event::default()],
                checks: Vec::new(),
                spans: Default::default(),
            };
            self.console.flush(Arc::new(batch), Instant::now() + time).await
        }

        fn answer(&self, answer: io::Result<()>) {
            self.answer.send(answer).expect("the output is alive");
        }
    }

    fn lost(reason: Reason) -> Tally {
        Tally::lost(reason, 1)
    }

    #[tokio::test]
    async fn a_flush_is_one_write() {
        let mut rig = Rig::new();
        rig.answer(Ok(()));
        assert_eq!(rig.flush().await.events, Tally::new(1, 0));
        let written = rig.written.lock().expect("no test panics here");
        assert_eq!(written.len(), 1);
        assert!(written[0].starts_with("1970-01-01 00:00:00Z  0 series, 1 event"));
    }

    #[tokio::test]
    async fn a_closed_output_ends_the_printing_and_not_the_daemon() {
        let mut rig = Rig::new();
        rig.answer(Err(ErrorKind::BrokenPipe.into()));
        let delivered = rig.flush().await;
        assert_eq!(delivered.events, lost(Reason::Closed));
        assert!(delivered.failure.is_some_and(|text| text.contains("standard output")));
        assert_eq!(rig.flush().await.events, Tally::new(0, 1));
    }

    #[tokio::test]
    async fn a_failed_write_costs_one_table() {
        let mut rig = Rig::new();
        rig.answer(Err(ErrorKind::StorageFull.into()));
        rig.answer(Ok(()));
        assert_eq!(rig.flush().await.events, lost(Reason::Io));
        assert_eq!(rig.flush().await.events, Tally::new(1, 0));
    }

    #[tokio::test]
    async fn a_terminal_that_stands_still_costs_the_tables_it_does_not_take() {
        let mut rig = Rig::new();
        for stuck in ["not printed in time", "not even begun"] {
            let delivered = rig.flush_within(Duration::ZERO).await;
            assert_eq!(delivered.events, lost(Reason::Timeout), "{stuck}");
        }
        rig.answer(Ok(()));
        rig.answer(Ok(()));
        assert_eq!(rig.flush().await.events, Tally::new(1, 0));
        assert_eq!(rig.written.lock().expect("no test panics here").len(), 2);
    }
}
