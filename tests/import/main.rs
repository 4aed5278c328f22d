//! What other nodes forward, sent over real sockets to a node that imports it.

mod conformance;
mod grpc;
mod http;
mod support;
