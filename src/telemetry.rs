//! What the daemon counts and says about itself.

pub mod counters;
pub mod distribution;
pub mod names;
pub mod registry;

pub use registry::{Observations, Telemetry};
