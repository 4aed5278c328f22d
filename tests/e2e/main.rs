//! The real program, real sockets, real signals.

#[path = "../support/authority.rs"]
mod authority;
mod clients;
mod discovery;
#[path = "../support/fake_intake.rs"]
mod fake_intake;
mod fleet;
mod flush_conformance;
mod import;
mod ledger;
#[path = "../support/legacy_set.rs"]
mod legacy_set;
mod lifecycle;
mod limits;
mod outage;
mod proxy;
mod relay;
mod support;
mod takeover;
