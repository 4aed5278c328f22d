//! The real program, real sockets, real signals.

mod clients;
#[path = "../support/fake_intake.rs"]
mod fake_intake;
mod fleet;
mod flush_conformance;
mod import;
mod ledger;
#[path = "../support/legacy_set.rs"]
mod legacy_set;
mod lifecycle;
mod relay;
mod support;
