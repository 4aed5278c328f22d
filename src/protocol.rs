//! Bytes of the wire to values and back; pure functions.

pub mod classic;
pub mod dogstatsd;
pub mod fields;
pub mod import;
mod number;
pub mod refusal;
pub mod ssf;

pub use dogstatsd::{Line, Message, Values};
pub use refusal::{PacketType, Reason, Refusal};
