//! What stands for the reports to Sentry in a program built without the feature `sentry`: a set
//! `sentry_dsn` stops the start, so that nobody waits for reports that never come.

use super::Telemetry;
use super::logging::ErrorReports;
use crate::config::Secret;

/// Why there are no reports.
#[derive(Debug, thiserror::Error)]
pub enum SentryError {
    /// There cannot be any.
    #[error("sentry_dsn: this program was built without the feature sentry")]
    Absent,
}

/// There is none.
#[derive(Clone, Debug)]
pub enum Reporter {}

/// `None` without a DSN.
///
/// # Errors
/// There is a DSN.
pub fn start(
    dsn: Option<&Secret>,
    _server_name: Option<&str>,
    _telemetry: &Telemetry,
) -> Result<Option<Reporter>, SentryError> {
    match dsn {
        None => Ok(None),
        Some(_) => Err(SentryError::Absent),
    }
}

impl Reporter {
    /// The layer that reports errors.
    pub fn errors(&self) -> ErrorReports {
        match *self {}
    }

    /// Waits for the reports under way.
    pub fn flush(&self) {
        match *self {}
    }
}
