//! The threads between sockets and sinks.
//!
//! ```text
//! listener threads          worker threads             flush thread
//!  Intake ─ Router ── Batch ──► worker-0 [Shard] ─ Snapshot ─► render ─► Outlet
//!     │                └──────► worker-1 [Shard] ─────┘  ▲
//!     └─ events, checks, spans, timestamped ► Collector ──┘
//! ```
//!
//! Threads own what they work on and meet through bounded channels that carry batches.

pub mod collector;
pub mod flush;
pub mod importer;
pub mod intake;
pub mod lane;
mod route;
pub mod router;
pub mod span_ring;
pub mod spans;
pub mod worker;

pub use collector::Collector;
pub use flush::{Flushed, Flusher};
pub use importer::{Importer, NotImported};
pub use intake::{Intake, IntakeCounts};
pub use router::Router;
pub use spans::{SpanCounts, SpanIntake, SpanTimers};
pub use worker::{Worker, Workers};
