//! The threads between sockets and sinks.

pub mod intake;

pub use intake::Intake;
