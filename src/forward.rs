//! What goes up: aggregates that only make sense for the whole fleet, on their way to the
//! upstream nodes.

mod health;
pub mod identity;
pub mod import;
pub mod outbox;
pub mod pack;
pub mod reason;
pub mod ring;
pub mod seen;
