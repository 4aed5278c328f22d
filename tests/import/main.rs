//! What other nodes forward, sent over real sockets to a node that imports it.

#[path = "../support/authority.rs"]
mod authority;
mod chain;
mod conformance;
mod forward;
mod front;
mod grpc;
mod http;
#[path = "../support/legacy_set.rs"]
mod legacy_set;
mod legacy_sets;
mod order;
mod proxy;
mod support;
mod tls;
#[path = "../support/tls_listener.rs"]
mod tls_listener;
mod veneur14;
