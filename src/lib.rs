//! A DogStatsD/statsd aggregating daemon.
//!
//! # The life of a packet
//!
//! 1. [`ingest`] receives datagrams (a reader thread per socket) or bytes of a stream, and
//!    splits them into lines.
//! 2. [`protocol`] parses a line into borrowed fields, or says in one word why not.
//! 3. [`pipeline`] hashes the name, appends the sample to a batch for one of its worker
//!    threads, and hands the batch over when it is full or 10 ms old.
//! 4. [`aggregate`] is what a worker owns: a table from raw key bytes to what the series has
//!    accumulated ([`sketch`] for quantiles and distinct counts).
//! 5. Once per interval the flush drains every worker, renders finished points and offers
//!    them to the [`sinks`]; what only makes sense for the whole fleet goes upstream
//!    ([`forward`]).
//!
//! Around it: [`config`] turns YAML and environment into settings, [`mapping`] names series anew, [`http`] answers health
//! checks, [`telemetry`] counts what we do ourselves, [`net`] is what sinks and forwarding need
//! of HTTP, [`spool`] keeps what they could not deliver, [`checkpoint`] the
//! open interval, [`provider`] tells
//! whoever asks what we count, and [`gatherer`] asks others; [`server`] builds and runs it all, as a
//! daemon or as a proxy that passes imports on, and [`cli`] holds the subcommands. [`model`] has
//! the words they share.
//!
//! A module uses only modules of lower rows; `tests/layering.rs` has the rows and checks it.
#![deny(unsafe_code)]

pub mod aggregate;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod forward;
pub mod gatherer;
pub mod http;
pub mod ingest;
pub mod mapping;
pub mod model;
pub mod net;
pub mod pipeline;
pub mod protocol;
pub mod provider;
pub mod server;
pub mod sinks;
pub mod sketch;
pub mod spool;
pub mod telemetry;
