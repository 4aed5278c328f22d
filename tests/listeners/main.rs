//! Bytes into real sockets, and out at what a listener's thread owns.

mod support;
mod udp;
