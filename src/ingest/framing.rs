//! Where one piece of a stream ends and the next begins; pure.
//!
//! TCP carries [`Lines`], Unix streams carry [`Frames`], each behind a [`Head`]. Bytes come in whatever portions the
//! kernel has; a piece that lies whole in one portion is passed on without a copy, and one that
//! does not is kept until the rest comes, never more than the longest piece allowed.
//!
//! Source: the transports of the DogStatsD documentation; Veneur 1.1.0 for TCP, Veneur 14 for
//! SSF.

mod frames;
mod lines;

pub(super) use frames::{Frames, Head};
pub(super) use lines::Lines;

use super::Receive;

/// The peer does not send frames; nothing behind this can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a frame")]
pub(super) struct NotAFrame;

/// How a stream is divided.
#[derive(Debug)]
pub(super) enum Framing {
    Lines(Lines),
    Frames(Frames),
}

impl Framing {
    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// The stream cannot be read any further.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        receive: &mut impl Receive,
    ) -> Result<(), NotAFrame> {
        match self {
            Framing::Lines(lines) => {
                lines.take(bytes, receive);
                Ok(())
            }
            Framing::Frames(frames) => frames.take(bytes, receive),
        }
    }

    /// The peer has closed the stream: a last line needs no newline.
    pub(super) fn end(&mut self, receive: &mut impl Receive) {
        if let Framing::Lines(lines) = self {
            lines.take(b"\n", receive);
        }
    }

    /// What has been read of an unfinished piece, so that taking it anew comes to the same.
    /// `None` in the middle of a piece that was refused.
    pub(super) fn kept(&self) -> Option<Vec<u8>> {
        match self {
            Framing::Lines(lines) => lines.kept(),
            Framing::Frames(frames) => frames.kept(),
        }
    }

    /// Whether the stream stands in the middle of a piece, which is then lost.
    pub(super) fn is_amid(&self) -> bool {
        match self {
            Framing::Lines(lines) => lines.is_amid(),
            Framing::Frames(frames) => frames.is_amid(),
        }
    }
}

#[cfg(test)]
mod tests;
