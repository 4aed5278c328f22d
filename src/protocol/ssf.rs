//! SSF: the protobuf messages in which programs send spans, and samples with them.
//!
//! There are two that share a name and nothing else: v1.1.0's `SSFSample`, a sample that carries
//! a trace, and v14's `SSFSpan`, a span that carries samples. A message tells which it is by the
//! types of its fields. Bytes in, borrowed bytes out; what a message has many of, tags and
//! samples, is checked once and read again when it is wanted, so that nothing is allocated.
//!
//! Source: `ssf/sample.proto` of Veneur 1.1.0 and 14.2.0, and what their servers make of them.

mod sample;
mod span;

pub use sample::{Sample, SampleKind};
pub use span::SpanRef;

use super::fields::{Field, Fields, NotProtobuf};
use super::{PacketType, Reason, Refusal};

/// The number of v14's repeated samples.
const SAMPLES: u32 = 10;

/// What one message says; at least one of the two.
#[derive(Clone, Debug, PartialEq)]
pub struct Message<'a> {
    /// A span whose ids, times and name are known.
    pub span: Option<SpanRef<'a>>,
    /// A whole message of v14, for its samples.
    samples: &'a [u8],
}

impl<'a> Message<'a> {
    /// The samples, in the order given; one that cannot be used costs its neighbours nothing.
    pub fn samples(&self) -> impl Iterator<Item = Result<Sample<'a>, Reason>> + use<'a> {
        raw_samples(self.samples).map(Sample::read)
    }
}

/// Reads one message.
///
/// # Errors
/// It is no protobuf message, or says nothing. The offset in the message is not known.
pub fn parse(message: &[u8]) -> Result<Message<'_>, Refusal> {
    let refuse = |reason| Refusal { packet: PacketType::Span, reason, at: 0 };
    let read = |message| match generation(message)? {
        Generation::V1 => Ok(Message { span: span::read_v1(message)?, samples: &[] }),
        Generation::V14 => Ok(Message { span: span::read_v14(message)?, samples: message }),
    };
    let message = read(message).map_err(|NotProtobuf| refuse(Reason::BadProtobuf))?;
    match (&message.span, raw_samples(message.samples).next()) {
        (None, None) => Err(refuse(Reason::EmptySpan)),
        (Some(_), _) | (_, Some(_)) => Ok(message),
    }
}

fn raw_samples(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    Fields::of(message).filter_map(|field| match field {
        Ok((SAMPLES, Field::Bytes(sample))) => Some(sample),
        Ok(_) | Err(NotProtobuf) => None,
    })
}

/// Whose message it is.
enum Generation {
    V1,
    V14,
}

/// v1.1.0 has text where v14 has ids and times: name (2), message (4) and tags (7); a float for
/// the end (6), and its trace where v14 has nothing (9).
fn generation(message: &[u8]) -> Result<Generation, NotProtobuf> {
    for field in Fields::of(message) {
        match field? {
            (2 | 4 | 7 | 9, Field::Bytes(_)) | (6, Field::Fixed32(_)) => return Ok(Generation::V1),
            (2 | 4 | 6 | 7, Field::Varint(_)) => return Ok(Generation::V14),
            _ => {}
        }
    }
    Ok(Generation::V14)
}

#[cfg(test)]
mod tests;
