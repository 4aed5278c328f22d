//! The subcommands of `veneur`, one file each.

pub mod explain;
