//! A set sketch as bytes: the binary form of Veneur v14 (its `axiomhq/hyperloglog`).
//!
//! All integers are big-endian.
//!
//! ```text
//! 01 0e  b  sparse?              version, precision, base, 1 or 0
//! sparse: u32 n, n x u32         codes not yet in the list
//!         u32 count, u32 last    of the list
//!         u32 length, bytes      the list: ascending codes as base-128 differences
//! dense:  u32 8192, 8192 bytes   two registers a byte, the even index in the high half
//! ```
//!
//! Four bits hold a register's rank less the base `b`, and 15 at most. A register that has
//! more than that is *cut*: [`Cardinality::cut_registers`] tells a peer of our own kind the
//! rest; to Veneur, whose own sketches are cut in the same way, it makes no difference.

use super::sparse::{Code, CodeSet};
use super::{Cardinality, Form, MAX_RANK, PRECISION, REGISTERS};

const VERSION: u8 = 1;
const DENSE_BYTES: usize = REGISTERS / 2;
/// The most that four bits can add to the base.
const MAX_NIBBLE: u8 = 15;

/// Why bytes are not a set sketch that we can merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CardinalityError {
    /// The bytes end too early.
    #[error("set sketch is cut short")]
    Truncated,
    /// Bytes behind the end.
    #[error("set sketch has bytes behind its end")]
    TrailingBytes,
    /// Not version 1.
    #[error("set sketch has version {0}, not 1")]
    Version(u8),
    /// Made with another number of registers, and probably another hash: cannot be merged.
    #[error("set sketch has precision {0}, not 14")]
    Precision(u8),
    /// Neither sparse nor dense.
    #[error("set sketch is of unknown form {0}")]
    Form(u8),
    /// A register beyond the largest rank, or a code that no hash leads to.
    #[error("set sketch holds a value that no member leads to")]
    ImpossibleValue,
    /// A list that is not ascending, or not what its head says.
    #[error("set sketch has a damaged list")]
    List,
}

impl Cardinality {
    /// The sketch in Veneur v14's binary form.
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.0 {
            Form::Sparse(codes) => sparse_bytes(codes),
            Form::Dense(registers) => {
                let base = base_of(registers);
                let mut bytes = Vec::with_capacity(8 + DENSE_BYTES);
                bytes.extend([VERSION, PRECISION as u8, base, 0]);
                bytes.extend((DENSE_BYTES as u32).to_be_bytes());
                let nibble = |rank: u8| rank.saturating_sub(base).min(MAX_NIBBLE);
                let (pairs, _) = registers.as_chunks::<2>();
                bytes.extend(pairs.iter().map(|[even, odd]| nibble(*even) << 4 | nibble(*odd)));
                bytes
            }
        }
    }

    /// The registers that [`Cardinality::to_bytes`] has to cut, as (index, rank).
    pub fn cut_registers(&self) -> Vec<(u16, u8)> {
        let Form::Dense(registers) = &self.0 else {
            return Vec::new();
        };
        let highest = base_of(registers) + MAX_NIBBLE;
        (0..).zip(registers.iter().copied()).filter(|&(_, rank)| rank > highest).collect()
    }

    /// Raises one register of a dense sketch to `rank`, if it is lower.
    ///
    /// # Errors
    /// [`CardinalityError::ImpossibleValue`] if the sketch is sparse, or there is no such
    /// register or rank.
    pub fn raise_register(&mut self, index: u16, rank: u8) -> Result<(), CardinalityError> {
        let Form::Dense(registers) = &mut self.0 else {
            return Err(CardinalityError::ImpossibleValue);
        };
        let register =
            registers.get_mut(usize::from(index)).ok_or(CardinalityError::ImpossibleValue)?;
        if rank > MAX_RANK {
            return Err(CardinalityError::ImpossibleValue);
        }
        *register = rank.max(*register);
        Ok(())
    }

    /// Reads Veneur v14's binary form. Needs no more memory than a dense sketch and the
    /// input together.
    ///
    /// # Errors
    /// The first rule the bytes break.
    pub fn from_bytes(bytes: &[u8]) -> Result<Cardinality, CardinalityError> {
        let mut rest = Reader(bytes);
        let [version, precision, base, form] = rest.array()?;
        if version != VERSION {
            return Err(CardinalityError::Version(version));
        }
        if u32::from(precision) != PRECISION {
            return Err(CardinalityError::Precision(precision));
        }
        let sketch = match form {
            0 => read_dense(&mut rest, base)?,
            1 => read_sparse(&mut rest)?,
            other => return Err(CardinalityError::Form(other)),
        };
        if !rest.0.is_empty() {
            return Err(CardinalityError::TrailingBytes);
        }
        Ok(sketch)
    }
}

/// The base that keeps most of the registers: 0 while nothing is cut, else the smallest
/// register, as Veneur chooses it.
fn base_of(registers: &[u8; REGISTERS]) -> u8 {
    let (lowest, highest) =
        registers.iter().fold((u8::MAX, 0), |(low, high), &rank| (low.min(rank), high.max(rank)));
    if highest <= MAX_NIBBLE { 0 } else { lowest }
}

fn sparse_bytes(codes: &CodeSet) -> Vec<u8> {
    let mut words: Vec<u32> = codes.iter().map(Code::word).collect();
    words.sort_unstable();
    let mut list = Vec::with_capacity(3 * words.len());
    let mut last = 0;
    for &word in &words {
        push_varint(&mut list, word - last);
        last = word;
    }
    let mut bytes = Vec::with_capacity(20 + list.len());
    bytes.extend([VERSION, PRECISION as u8, 0, 1]);
    for word in [0, words.len() as u32, last, list.len() as u32] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(list);
    bytes
}

fn push_varint(bytes: &mut Vec<u8>, mut word: u32) {
    while word >= 0x80 {
        bytes.push(word as u8 | 0x80);
        word >>= 7;
    }
    bytes.push(word as u8);
}

fn read_dense(rest: &mut Reader, base: u8) -> Result<Cardinality, CardinalityError> {
    if rest.word()? as usize != DENSE_BYTES {
        return Err(CardinalityError::ImpossibleValue);
    }
    let packed = rest.take(DENSE_BYTES)?;
    let mut registers = Box::new([0; REGISTERS]);
    let (pairs, _) = registers.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(packed) {
        *pair = [base.saturating_add(byte >> 4), base.saturating_add(byte & 0xf)];
    }
    if registers.iter().any(|&rank| rank > MAX_RANK) {
        return Err(CardinalityError::ImpossibleValue);
    }
    Ok(Cardinality(Form::Dense(registers)))
}

fn read_sparse(rest: &mut Reader) -> Result<Cardinality, CardinalityError> {
    let mut sketch = Cardinality::new();
    let loose = rest.word()?;
    for _ in 0..loose {
        sketch.insert_word(rest.word()?)?;
    }
    let [count, last, length] = [rest.word()?, rest.word()?, rest.word()?];
    let mut list = Reader(rest.take(length as usize)?);
    let mut word = 0u32;
    for _ in 0..count {
        word = word.checked_add(list.varint()?).ok_or(CardinalityError::List)?;
        sketch.insert_word(word)?;
    }
    if word != last || !list.0.is_empty() {
        return Err(CardinalityError::List);
    }
    Ok(sketch)
}

impl Cardinality {
    pub(super) fn insert_word(&mut self, word: u32) -> Result<(), CardinalityError> {
        self.insert_code(Code::from_word(word).ok_or(CardinalityError::ImpossibleValue)?);
        Ok(())
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], CardinalityError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(CardinalityError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CardinalityError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(CardinalityError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn word(&mut self) -> Result<u32, CardinalityError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Base 128, lowest digits first; at most five bytes.
    fn varint(&mut self) -> Result<u32, CardinalityError> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| CardinalityError::List);
            }
        }
        Err(CardinalityError::List)
    }
}
