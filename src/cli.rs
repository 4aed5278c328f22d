//! The subcommands of `veneur`, one file each.

pub mod emit;
pub mod explain;
