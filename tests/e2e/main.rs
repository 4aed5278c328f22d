//! The real program, real sockets, real signals.

mod access;
#[path = "../support/authority.rs"]
mod authority;
mod bad_network;
#[path = "../support/books.rs"]
mod books;
mod checkpoint;
mod classic;
mod clients;
mod discovery;
#[path = "../support/fake_carbon.rs"]
mod fake_carbon;
#[path = "../support/fake_intake.rs"]
mod fake_intake;
mod faults;
mod faults_clients;
mod faults_host;
mod fleet;
mod flush_conformance;
mod gatherer;
mod graphite;
mod host;
mod import;
mod ledger;
#[path = "../support/legacy_set.rs"]
mod legacy_set;
mod lifecycle;
mod limits;
mod mapping;
mod munin;
mod node;
mod outage;
mod proxy;
mod relay;
mod repeater;
mod sandbox;
mod secrets;
mod sinks;
mod spans;
mod support;
mod takeover;
#[path = "../support/tls_listener.rs"]
mod tls_listener;
