//! Delivery under faults: the spool on a disk that fails, and what sinks and the forwarder do
//! with it.

mod random;
mod shelf;
mod simulation;
mod store;
mod virtual_disk;
