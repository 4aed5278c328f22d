//! Sinks against real sockets: exact requests, and what happens when the other side fails.

#[path = "../support/fake_intake.rs"]
mod fake_intake;
#[path = "../support/golden.rs"]
mod golden;

mod datadog;
