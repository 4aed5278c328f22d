//! Gob's numbers: how they are read and written.

use super::GobError;

/// What is left to read.
#[derive(Clone, Copy)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], GobError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(GobError::Truncated)?;
        self.0 = rest;
        Ok(head)
    }

    /// Below 128 a byte; else 256 less a length, and so many bytes, the highest first.
    pub(super) fn uint(&mut self) -> Result<u64, GobError> {
        let (&first, rest) = self.0.split_first().ok_or(GobError::Truncated)?;
        self.0 = rest;
        if first < 128 {
            return Ok(first.into());
        }
        let length = 256 - usize::from(first);
        if length > 8 {
            return Err(GobError::BadNumber);
        }
        if let Some(eight) = rest.first_chunk() {
            self.0 = &rest[length..];
            return Ok(u64::from_be_bytes(*eight) >> (64 - 8 * length));
        }
        Ok(self.take(length)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    /// The lowest bit says whether the others are complemented.
    pub(super) fn int(&mut self) -> Result<i64, GobError> {
        let uint = self.uint()?;
        let half = (uint >> 1) as i64;
        Ok(if uint & 1 == 0 { half } else { !half })
    }

    /// The bytes of the double, reversed.
    pub(super) fn float(&mut self) -> Result<f64, GobError> {
        Ok(f64::from_bits(self.uint()?.swap_bytes()))
    }

    /// The number of bytes or elements that follow; there cannot be more of them than bytes.
    pub(super) fn length(&mut self) -> Result<usize, GobError> {
        let length = usize::try_from(self.uint()?).map_err(|_| GobError::BadNumber)?;
        if length > self.0.len() {
            return Err(GobError::Truncated);
        }
        Ok(length)
    }

    /// Calls `read` with the index of each field of a struct that is there, until its end.
    pub(super) fn fields(
        &mut self,
        mut read: impl FnMut(usize, &mut Input<'a>) -> Result<(), GobError>,
    ) -> Result<(), GobError> {
        let mut next = 0usize;
        loop {
            let distance = usize::try_from(self.uint()?).map_err(|_| GobError::BadNumber)?;
            if distance == 0 {
                return Ok(());
            }
            next = next.checked_add(distance).ok_or(GobError::BadNumber)?;
            read(next - 1, self)?;
        }
    }

    /// Nothing may be left.
    pub(super) fn finish(self) -> Result<(), GobError> {
        if self.0.is_empty() { Ok(()) } else { Err(GobError::Unexpected) }
    }
}

pub(super) fn push_uint(bytes: &mut Vec<u8>, value: u64) {
    if value < 128 {
        bytes.push(value as u8);
        return;
    }
    let zeros = value.leading_zeros() as usize / 8;
    bytes.push((256 - (8 - zeros)) as u8);
    bytes.extend_from_slice(&value.to_be_bytes()[zeros..]);
}

pub(super) fn push_float(bytes: &mut Vec<u8>, value: f64) {
    push_uint(bytes, value.to_bits().swap_bytes());
}

pub(super) fn push_message(stream: &mut Vec<u8>, message: &[u8]) {
    push_uint(stream, message.len() as u64);
    stream.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_go_writes_them() {
        for (value, bytes) in [
            (0, &b"\x00"[..]),
            (0x7f, b"\x7f"),
            (128, b"\xff\x80"),
            (262_144, b"\xfd\x04\x00\x00"),
            (u64::MAX, b"\xf8\xff\xff\xff\xff\xff\xff\xff\xff"),
        ] {
            let mut written = Vec::new();
            push_uint(&mut written, value);
            assert_eq!(written, bytes);
            assert_eq!(Input(bytes).uint(), Ok(value));
        }
        for (value, bytes) in [
            (0.0, &b"\x00"[..]),
            (1.0, b"\xfe\xf0\x3f"),
            (2.0, b"\x40"),
            (100.0, b"\xfe\x59\x40"),
            (-1.5, b"\xfe\xf8\xbf"),
        ] {
            let mut written = Vec::new();
            push_float(&mut written, value);
            assert_eq!(written, bytes, "{value}");
            assert_eq!(Input(bytes).float(), Ok(value));
        }
        for (bytes, value) in [(&b"\x08"[..], 4), (b"\xff\x81", -65), (b"\xff\x85", -67)] {
            assert_eq!(Input(bytes).int(), Ok(value));
        }
    }

    #[test]
    fn numbers_are_refused_when() {
        for (bytes, error) in [
            (&b""[..], GobError::Truncated),
            (b"\xff", GobError::Truncated),
            (b"\xf8\x01\x02", GobError::Truncated),
            (b"\xf7\x01\x02\x03\x04\x05\x06\x07\x08\x09", GobError::BadNumber),
            (b"\x80", GobError::BadNumber),
        ] {
            assert_eq!(Input(bytes).uint(), Err(error));
        }
        assert_eq!(Input(b"\x03\x00\x00").length(), Err(GobError::Truncated));
        // Field numbers that only ever grow, beyond all bounds.
        let far = b"\xf8\xff\xff\xff\xff\xff\xff\xff\xff\xf8\xff\xff\xff\xff\xff\xff\xff\xff";
        assert_eq!(Input(far).fields(|_, _| Ok(())), Err(GobError::BadNumber));
    }
}
