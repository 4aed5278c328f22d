//! Logs: lines of text on standard error, structured as `key=value`.
//!
//! Our own lines are shown from `info` on, with `debug: true` from `debug` on; those of
//! libraries from `warn` on. The level can change while running. A call site is heard at most
//! 20 times in 10 seconds; what was left out is said once per flush ([`Logs::report_left_out`])
//! and counted, so that a flood of bad packets cannot fill a disk.
//!
//! Nobody who logs waits for whoever reads the log: lines pass through a queue of 1024 to a
//! thread that writes them, and are lost and counted when it is full. Before the process ends,
//! [`Logs::flush`] gives what still waits its chance.

mod queue;

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::dispatcher::{Dispatch, SetGlobalDefaultError};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::Registry;

use self::queue::Queue;
use super::call_sites::{CallSites, Limit};
use super::{Telemetry, names};

/// Lines of each call site.
const LIMIT: Limit = Limit { per_window: 20, window: Duration::from_secs(10) };

/// How long the end of the process may wait for lines to be written ([`Logs::flush`]).
pub const AT_THE_END: Duration = Duration::from_secs(1);

/// Target of the lines about lines left out; they are never left out themselves.
const LEFT_OUT_TARGET: &str = "veneur::log";

/// A layer beside the log lines, which sends errors elsewhere.
pub type ErrorReports = Box<dyn Layer<Registry> + Send + Sync>;

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No thread to write them.
    #[error("cannot start the thread that writes log lines: {0}")]
    Thread(#[from] io::Error),
    /// They are another's.
    #[error("something else has started logging in this process")]
    Taken(#[from] SetGlobalDefaultError),
}

/// The running logs. Cloning shares.
#[derive(Clone, Debug)]
pub struct Logs {
    gate: Arc<Gate>,
    queue: Queue,
}

/// Starts logging to standard error for the whole process.
///
/// # Errors
/// No thread is to be had, or something else has started logging in this process.
pub fn init(debug: bool, reports: Option<ErrorReports>) -> Result<Logs, LogError> {
    let logs = Logs::start(debug, io::stderr())?;
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing::dispatcher::set_global_default(logs.dispatch(colours, reports))?;
    Ok(logs)
}

impl Logs {
    fn start(debug: bool, out: impl Write + Send + 'static) -> io::Result<Logs> {
        let sites = Mutex::new(CallSites::new(LIMIT));
        let gate = Arc::new(Gate { debug: AtomicBool::new(debug), sites });
        Ok(Logs { gate, queue: Queue::start(out)? })
    }

    fn dispatch(&self, colours: bool, reports: Option<ErrorReports>) -> Dispatch {
        let queue = self.queue.clone();
        let inner = tracing_subscriber::fmt::layer()
            .with_writer(move || queue.clone())
            .with_ansi(colours)
            // It would be said on standard error, past the queue.
            .log_internal_errors(false);
        let lines = Lines { gate: Arc::clone(&self.gate), inner };
        tracing_subscriber::registry().with(reports).with(lines).into()
    }

    /// Shows our own lines from `debug` on, or from `info` on.
    pub fn set_debug(&self, debug: bool) {
        self.gate.debug.store(debug, Ordering::Relaxed);
        // Call sites remember whether anybody listens.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Says and counts what was left out since the last call; for the flush.
    pub fn report_left_out(&self, telemetry: &Telemetry) {
        // A statement of its own: the lock is free again when the lines are written.
        let left_out = self.gate.sites().take_left_out();
        for (site, lines) in left_out {
            telemetry.count(names::LOG_LEFT_OUT_TOTAL, "reason:repeated", lines);
            tracing::warn!(
                target: LEFT_OUT_TARGET,
                lines,
                file = site.file(),
                line = site.line(),
                "left out similar lines"
            );
        }
        let lines = self.queue.take_lost();
        if lines > 0 {
            telemetry.count(names::LOG_LEFT_OUT_TOTAL, "reason:unread", lines);
            tracing::warn!(
                target: LEFT_OUT_TARGET,
                lines,
                "left out lines: standard error is not read fast enough"
            );
        }
    }

    /// Waits until every line so far is written, for `within` at most; for the end of the
    /// process. Whether all is written.
    pub fn flush(&self, within: Duration) -> bool {
        self.queue.flush(within)
    }
}

/// Decides which lines are written.
#[derive(Debug)]
struct Gate {
    debug: AtomicBool,
    /// Locked once per line. Whoever logs is off the hot path, or debugging.
    sites: Mutex<CallSites>,
}

impl Gate {
    fn shows(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let is_own = target == "veneur" || target.starts_with("veneur::");
        let most = match (is_own, self.debug.load(Ordering::Relaxed)) {
            (true, true) => Level::DEBUG,
            (true, false) => Level::INFO,
            (false, _) => Level::WARN,
        };
        *metadata.level() <= most
    }

    fn admits(&self, metadata: &'static Metadata<'static>) -> bool {
        metadata.target() == LEFT_OUT_TARGET || self.sites().admit(metadata, Instant::now())
    }

    fn sites(&self) -> std::sync::MutexGuard<'_, CallSites> {
        // It only counts: what a panic left behind is still good.
        self.sites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The layer that writes lines, behind the gate.
///
/// It wraps the writing layer instead of being a filter beside it: filters of single layers
/// forget to clean up after refusing an event that its call site had enabled for good. So what
/// the gate does not show is disabled for all layers.
struct Lines<L> {
    gate: Arc<Gate>,
    inner: L,
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for Lines<L> {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.gate.shows(metadata) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.gate.shows(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        match self.gate.debug.load(Ordering::Relaxed) {
            true => Some(LevelFilter::DEBUG),
            false => Some(LevelFilter::INFO),
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if self.gate.admits(event.metadata()) {
            self.inner.on_event(event, context);
        }
    }

    // Spans of libraries: a line within one names it.
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.inner.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.inner.on_record(id, values, context);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        /// The lines without the time, which they begin with.
        fn take(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().expect("no writer panics"));
            let text = String::from_utf8(bytes).expect("logs are text");
            let untimed = |line: &str| line.split_once("Z ").map(|(_, rest)| rest.to_owned());
            text.lines().map(|line| untimed(line).expect("a line begins with the time")).collect()
        }
    }

    fn with_logs(debug: bool, test: impl FnOnce(&Logs, &dyn Fn() -> Vec<String>)) {
        let written = Written::default();
        let logs = Logs::start(debug, written.clone()).expect("a thread is to be had");
        let take = || {
            assert!(logs.flush(Duration::from_secs(10)), "nothing blocks the writer");
            written.take()
        };
        let dispatch = logs.dispatch(false, None);
        tracing::dispatcher::with_default(&dispatch, || test(&logs, &take));
    }

    #[test]
    fn a_line_is_text_with_keys_and_values() {
        with_logs(false, |_, take| {
            tracing::info!(address = "127.0.0.1:8126", port = 8126, "listening");
            let target = module_path!();
            let line = format!(" INFO {target}: listening address=\"127.0.0.1:8126\" port=8126");
            assert_eq!(take(), [line]);
        });
    }

    #[test]
    fn debug_can_be_switched_while_running() {
        with_logs(false, |logs, take| {
            let say = || {
                tracing::debug!("detail");
                tracing::debug!(target: "hyper::proto", "detail of a library");
                tracing::info!(target: "hyper::proto", "news of a library");
                tracing::warn!(target: "hyper::proto", "trouble in a library");
                take().len()
            };
            assert_eq!(say(), 1);
            logs.set_debug(true);
            assert_eq!(say(), 2);
            logs.set_debug(false);
            assert_eq!(say(), 1);
        });
    }

    #[test]
    fn a_flood_is_cut_and_what_was_left_out_is_said_and_counted() {
        with_logs(true, |logs, take| {
            for n in 0..100 {
                tracing::debug!(n, "refused");
            }
            tracing::info!("another call site");
            let lines = take();
            assert_eq!(lines.len() as u32, LIMIT.per_window + 1);
            assert!(lines[LIMIT.per_window as usize].ends_with("another call site"));
            let telemetry = Telemetry::default();
            logs.report_left_out(&telemetry);
            let line = take().join("\n");
            assert!(line.contains("left out similar lines lines=80 file="), "{line}");
            let counted = &telemetry.totals()[0];
            assert_eq!(counted.value, crate::telemetry::registry::Total::Count(80));
            logs.report_left_out(&telemetry);
            assert_eq!(take().len(), 0);
        });
    }

    #[test]
    fn lines_that_nobody_reads_hold_nobody_up_and_are_counted() {
        let (_unread, writer) = io::pipe().expect("a pipe is to be had");
        let logs = Logs::start(false, writer).expect("a thread is to be had");
        tracing::dispatcher::with_default(&logs.dispatch(false, None), || {
            for n in 0..10_000 {
                // Of this target lines are not left out for being repeated.
                tracing::info!(target: LEFT_OUT_TARGET, n, "said into the void");
            }
            let telemetry = Telemetry::default();
            logs.report_left_out(&telemetry);
            let counted = &telemetry.totals()[0];
            assert_eq!(
                (counted.name, &*counted.tags),
                (names::LOG_LEFT_OUT_TOTAL, "reason:unread")
            );
        });
        assert!(!logs.flush(Duration::from_millis(1)), "and the end waits as long as it is told");
    }
}
