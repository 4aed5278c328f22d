//! What the daemon counts and says about itself.

pub mod counters;
pub mod registry;

pub use registry::Telemetry;
