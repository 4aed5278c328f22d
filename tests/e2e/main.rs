//! The real program, real sockets, real signals.

mod clients;
#[path = "../support/fake_intake.rs"]
mod fake_intake;
mod fleet;
mod flush_conformance;
mod ledger;
mod lifecycle;
mod relay;
mod support;
