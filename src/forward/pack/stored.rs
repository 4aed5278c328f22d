//! A body as it waits on disk, with what it takes to part it again.
//!
//! ```text
//! plain bytes(8) pieces(4)  (place(4) end(4))*  body
//! ```

use bytes::{Buf, Bytes};

use super::{Packed, Piece};
use crate::forward::ring::Place;

const HEAD_BYTES: usize = 12;
const PIECE_BYTES: usize = 8;

impl Packed {
    /// Bytes that [`Packed::store`] appends.
    pub(in crate::forward) fn stored_bytes(&self) -> usize {
        HEAD_BYTES + self.pieces.len() * PIECE_BYTES + self.body.len()
    }

    /// Appends it.
    pub(in crate::forward) fn store(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.plain_bytes as u64).to_le_bytes());
        out.extend_from_slice(&(self.pieces.len() as u32).to_le_bytes());
        for Piece { place, end } in &self.pieces {
            out.extend_from_slice(&place.0.to_le_bytes());
            out.extend_from_slice(&end.to_le_bytes());
        }
        out.extend_from_slice(&self.body);
    }

    /// Reads what was stored. `None` if that is none of ours.
    pub(in crate::forward) fn restore(mut from: Bytes) -> Option<Packed> {
        if from.len() < HEAD_BYTES {
            return None;
        }
        let plain_bytes = usize::try_from(from.get_u64_le()).ok()?;
        let count = from.get_u32_le() as usize;
        if count == 0 || from.len() / PIECE_BYTES < count {
            return None;
        }
        let pieces = (0..count).map(|_| {
            let place = Place(from.get_u32_le());
            Piece { place, end: from.get_u32_le() }
        });
        let pieces = pieces.collect();
        Some(Packed { body: from, plain_bytes, pieces })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// restore(store(packed)) == packed.
        #[test]
        fn what_is_stored_is_restored(
            body in prop::collection::vec(any::<u8>(), 0..100),
            plain_bytes in 0usize..1 << 30,
            pieces in prop::collection::vec((any::<u32>(), any::<u32>()), 1..20),
        ) {
            let piece = |(place, end)| Piece { place: Place(place), end };
            let pieces = pieces.into_iter().map(piece).collect();
            let packed = Packed { body: body.into(), plain_bytes, pieces };
            let mut stored = Vec::new();
            packed.store(&mut stored);
            prop_assert_eq!(stored.len(), packed.stored_bytes());
            prop_assert_eq!(Packed::restore(stored.into()), Some(packed));
        }

        /// No bytes make the reader panic.
        #[test]
        fn anything_can_be_restored(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            Packed::restore(bytes.into());
        }
    }
}
