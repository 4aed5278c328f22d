//! Bytes into real sockets, and out at what a listener's thread owns.

mod allow;
#[path = "../support/authority.rs"]
mod authority;
mod emit;
mod http;
mod inherited;
mod streams;
mod support;
mod tls;
mod udp;
mod unix;
