//! Sinks against real sockets: exact requests, and what happens when the other side fails.

mod batches;
#[path = "../support/fake_carbon.rs"]
mod fake_carbon;
#[path = "../support/fake_intake.rs"]
mod fake_intake;
#[path = "../support/golden.rs"]
mod golden;

mod datadog;
mod file;
mod graphite;
mod influxdb;
