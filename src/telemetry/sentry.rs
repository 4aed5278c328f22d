//! Errors and panics reported to Sentry, if `sentry_dsn` is set.
//!
//! An error is a log line of level `error` of our own: its message, fields and stack are sent,
//! at most 5 a minute of each call site. A panic is sent before whatever the process does about
//! it, and waits for that at most [`FLUSH_WITHIN`]. Everything is sent by a thread of the client
//! library; when its queue is full, reports are lost and nothing else.
//!
//! Source: Veneur 1.1.0 reports the same (without a limit), with the host name as `server_name`.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{self, PanicHookInfo};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::sentry::integrations::backtrace::{
    AttachStacktraceIntegration, ProcessStacktraceIntegration, current_stacktrace,
};
use ::sentry::protocol::{Event, Exception, Level, Mechanism, Value};
use ::sentry::transports::ReqwestHttpTransportOptions;
use ::sentry::types::ParseDsnError;
use ::sentry::{Client, ClientOptions, Transport, TransportFactory, TransportOptions};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::Registry;

use super::call_sites::{Allowance, CallSites, Limit};
use super::logging::ErrorReports;
use super::{Telemetry, names};
use crate::config::Secret;

/// How long the end of the process, or a panic, waits for reports under way.
pub const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// How long one report may take to send. Without a limit one stuck connection would be the end
/// of all reports.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// Errors of each call site, and panics of the whole process.
const LIMIT: Limit = Limit { per_window: 5, window: Duration::from_secs(60) };

/// Why there are no reports.
#[derive(Debug, thiserror::Error)]
pub enum SentryError {
    /// The DSN itself is a secret and not shown.
    #[error("sentry_dsn: not a Sentry DSN (https://KEY@HOST/PROJECT)")]
    BadDsn(#[source] ParseDsnError),
    /// TLS could not be set up.
    #[error("cannot report to Sentry")]
    Client(#[source] reqwest::Error),
}

/// The running reports. Cloning shares.
#[derive(Clone)]
pub struct Reporter {
    client: Arc<Client>,
    telemetry: Telemetry,
}

/// Starts to report panics, and gives what reports errors: [`Reporter::errors`] goes to
/// [`super::logging::init`]. `None` without a DSN; then nothing is ever sent.
///
/// The panic hook that is set when this is called is called after each report.
///
/// # Errors
/// The DSN is none, or TLS does not work.
pub fn start(
    dsn: Option<&Secret>,
    server_name: Option<&str>,
    telemetry: &Telemetry,
) -> Result<Option<Reporter>, SentryError> {
    let Some(dsn) = dsn else {
        return Ok(None);
    };
    let dsn = dsn.reveal().parse().map_err(SentryError::BadDsn)?;
    // An error says that there is one already.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().timeout(SEND_WITHIN).build();
    let sender = Sender(http.map_err(SentryError::Client)?);
    let mut options = ClientOptions::new()
        .release(concat!("veneur@", env!("CARGO_PKG_VERSION")))
        .attach_stacktrace(true)
        .default_integrations(false)
        .add_integration(AttachStacktraceIntegration)
        .add_integration(ProcessStacktraceIntegration)
        .transport(sender);
    options.dsn = Some(dsn);
    options.server_name = server_name.map(|name| name.to_owned().into());
    let client = Arc::new(Client::with_options(options));
    let reporter = Reporter { client, telemetry: telemetry.clone() };
    reporter.clone().report_panics();
    Ok(Some(reporter))
}

impl Reporter {
    /// The layer that reports errors.
    pub fn errors(&self) -> ErrorReports {
        let sites = Mutex::new(CallSites::new(LIMIT));
        Box::new(Errors { reporter: self.clone(), sites })
    }

    /// Waits for the reports under way, at most [`FLUSH_WITHIN`]; for the end of the process.
    pub fn flush(&self) {
        let (flushed, wait) = mpsc::channel();
        let client = Arc::clone(&self.client);
        // In a thread of its own: with a full queue the client waits for room without a limit.
        let spawned = std::thread::Builder::new().name("sentry-flush".into()).spawn(move || {
            client.flush(Some(FLUSH_WITHIN));
            // Nobody may be waiting any more.
            let _late = flushed.send(());
        });
        if spawned.is_ok() {
            let _in_time = wait.recv_timeout(FLUSH_WITHIN);
        }
    }

    fn report_panics(self) {
        let next = panic::take_hook();
        let allowance = Mutex::new(Allowance::default());
        panic::set_hook(Box::new(move |panic| {
            // A second panic at the same time may find it locked: that one goes unreported.
            let admitted = allowance
                .try_lock()
                .is_ok_and(|mut allowance| allowance.admit(LIMIT, Instant::now()));
            if admitted {
                self.client.capture_event(panic_event(panic), None);
                self.flush();
            }
            next(panic);
        }));
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}

fn panic_event(panic: &PanicHookInfo<'_>) -> Event<'static> {
    let message = panic.payload().downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
    let exception = Exception {
        ty: "panic".into(),
        value: Some(message.unwrap_or("no message").to_owned()),
        mechanism: Some(Mechanism {
            ty: "panic".into(),
            handled: Some(false),
            ..Mechanism::default()
        }),
        stacktrace: current_stacktrace(),
        ..Exception::default()
    };
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    Event {
        level: Level::Fatal,
        exception: vec![exception].into(),
        culprit: panic.location().map(ToString::to_string),
        tags: BTreeMap::from([("thread".to_owned(), thread)]),
        ..Event::default()
    }
}

/// Reports error lines as events.
struct Errors {
    reporter: Reporter,
    /// Locked once per error.
    sites: Mutex<CallSites>,
}

impl Layer<Registry> for Errors {
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::ERROR)
    }

    fn on_event(&self, line: &tracing::Event<'_>, _: Context<'_, Registry>) {
        let metadata = line.metadata();
        // The client library's own errors would report themselves for ever.
        if *metadata.level() != tracing::Level::ERROR || !metadata.target().starts_with("veneur") {
            return;
        }
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        if !sites.admit(metadata, Instant::now()) {
            self.reporter.telemetry.count(names::SENTRY_LEFT_OUT_TOTAL, "", 1);
            return;
        }
        drop(sites);
        let mut fields = Fields::default();
        line.record(&mut fields);
        // The messages are constant, so they say what belongs together.
        let group = [metadata.target().to_owned(), fields.message.clone()];
        let place = metadata.file().zip(metadata.line());
        let event = Event {
            level: Level::Error,
            message: Some(fields.message),
            logger: Some(metadata.target().to_owned()),
            culprit: place.map(|(file, line)| format!("{file}:{line}")),
            fingerprint: group.map(Into::into).to_vec().into(),
            extra: fields.extra,
            ..Event::default()
        };
        self.reporter.client.capture_event(event, None);
    }
}

/// The fields of a log line.
#[derive(Default)]
struct Fields {
    message: String,
    extra: BTreeMap<String, Value>,
}

impl Fields {
    fn insert(&mut self, field: &Field, value: impl Into<Value>) {
        self.extra.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.insert(field, format!("{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            _ => self.insert(field, value),
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value);
    }
}

/// Sends with the client we made, which has a time limit.
struct Sender(reqwest::Client);

impl TransportFactory for Sender {
    fn create_transport_with_options(&self, options: TransportOptions) -> Arc<dyn Transport> {
        Arc::new(ReqwestHttpTransportOptions::from(options).with_client(self.0.clone()).build())
    }
}
