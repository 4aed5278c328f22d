//! The classic dialects from a line to Graphite's keys, and from one interval to the next.

mod conformance;
mod idle;
#[path = "../support/classic_laws.rs"]
mod laws;
mod node;
mod properties;
