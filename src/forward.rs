//! What goes up: aggregates that only make sense for the whole fleet, on their way to the
//! upstream nodes.

pub mod identity;
pub mod import;
pub mod pack;
pub mod ring;
pub mod seen;
