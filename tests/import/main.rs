//! What other nodes forward, sent over real sockets to a node that imports it.

#[path = "../support/authority.rs"]
mod authority;
mod chain;
mod conformance;
mod forward;
mod front;
mod grpc;
mod http;
mod order;
mod support;
mod tls;
mod veneur14;
