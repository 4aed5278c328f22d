//! A set sketch as bytes for this program itself: all of its registers ([`crate::sketch::stored`]).
//!
//! ```text
//! 0  codes, a number of 32 bits before them
//! 1  16384 registers of a byte
//! ```

use super::{Cardinality, Form, MAX_RANK, REGISTERS};
use crate::sketch::stored::{Reader, put_words, words};

impl Cardinality {
    /// Appends all of it.
    pub fn store(&self, into: &mut Vec<u8>) {
        match &self.0 {
            Form::Sparse(codes) => {
                into.push(0);
                let codes: Vec<u32> = codes.iter().map(|code| code.word()).collect();
                put_words(into, codes.into_iter());
            }
            Form::Dense(registers) => {
                into.push(1);
                into.extend_from_slice(&registers[..]);
            }
        }
    }

    /// Reads what [`Cardinality::store`] wrote; `None` for anything else.
    pub fn restore(from: &mut Reader<'_>) -> Option<Cardinality> {
        match from.byte()? {
            0 => {
                let mut set = Cardinality::new();
                for word in words(from)? {
                    set.insert_word(word).ok()?;
                }
                Some(set)
            }
            1 => {
                let registers: &[u8; REGISTERS] = from.take(REGISTERS)?.first_chunk()?;
                let is_sound = registers.iter().all(|rank| *rank <= MAX_RANK);
                is_sound.then(|| Cardinality(Form::Dense(Box::new(*registers))))
            }
            _ => None,
        }
    }
}
