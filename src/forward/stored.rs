//! A batch as it waits on disk: everything it takes to send it as what it is.
//!
//! ```text
//! instance(8) epoch(8) sequence(8) interval end(8) halvings(4) flags(1)  packed
//! ```
//!
//! Numbers are little-endian. The record's kind is the format its body is in; tokens and
//! addresses are not stored.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf, Bytes};

use super::identity::BatchId;
use super::outbox::{Batch, Origin};
use super::pack::Packed;
use crate::config::settings::ForwardFormat;
use crate::model::UnixSeconds;
use crate::spool::{Claimed, Record};

const HEAD_BYTES: usize = 37;
/// The member has shown that it remembers batches.
const REMEMBERS: u8 = 1;

/// A batch that was read again.
#[derive(Debug)]
pub struct Stored {
    /// The batch.
    pub batch: Batch,
    /// Whether its member has shown that it remembers batches.
    pub remembers: bool,
}

/// What is put on disk of a batch for this member, which waits since `since_ms`.
pub fn record_of(
    member: &Arc<str>,
    batch: &Batch,
    remembers: bool,
    format: ForwardFormat,
    since_ms: u64,
) -> Record {
    let BatchId { instance, epoch, sequence } = batch.id;
    let Origin { interval_end, since: _, halvings } = batch.origin;
    let mut body = Vec::with_capacity(HEAD_BYTES + batch.packed.stored_bytes());
    for number in [instance, epoch, sequence] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.extend_from_slice(&interval_end.0.to_le_bytes());
    body.extend_from_slice(&halvings.to_le_bytes());
    body.push(if remembers { REMEMBERS } else { 0 });
    batch.packed.store(&mut body);
    Record {
        kind: kind_of(format),
        lane: Arc::clone(member),
        items: batch.packed.entries(),
        since_ms,
        body: body.into(),
    }
}

/// The batch of a record, which waits since then. `None` if it is in another format, or none of ours.
pub fn batch_of(claimed: Claimed, format: ForwardFormat, since: Instant) -> Option<Stored> {
    let Claimed { id, record, is_unsure } = claimed;
    let mut body: Bytes = record.body;
    if record.kind != kind_of(format) || body.len() < HEAD_BYTES {
        return None;
    }
    let identity = BatchId {
        instance: body.get_u64_le(),
        epoch: body.get_u64_le(),
        sequence: body.get_u64_le(),
    };
    let interval_end = UnixSeconds(body.get_i64_le());
    let halvings = body.get_u32_le();
    let remembers = body.get_u8() & REMEMBERS != 0;
    let packed = Packed::restore(body)?;
    let origin = Origin { interval_end, since, halvings };
    let batch = Batch::restored(identity, packed, origin, is_unsure, id);
    Some(Stored { batch, remembers })
}

fn kind_of(format: ForwardFormat) -> u8 {
    match format {
        ForwardFormat::Protobuf => 16,
        ForwardFormat::Grpc => 17,
        ForwardFormat::GrpcStream => 18,
        ForwardFormat::JsonGob => 19,
    }
}
