//! What the daemon counts and says about itself.

mod call_sites;
pub mod counters;
pub mod distribution;
pub mod logging;
pub mod names;
pub mod openmetrics;
pub mod registry;
pub mod report;
#[cfg_attr(not(feature = "sentry"), path = "telemetry/sentry/absent.rs")]
pub mod sentry;

pub use registry::{Observations, Telemetry};
