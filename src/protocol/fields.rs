//! The fields of a protobuf message, one after the other, borrowed from its bytes.
//!
//! For messages whose texts need not be UTF-8 or whose parts are not wanted as copies: a list is
//! gone through without a vector of its entries, so that a message of many empty ones costs no
//! more than its bytes.
//!
//! Source: the protobuf encoding. Groups, which it has long deprecated, are refused.

use prost::encoding::decode_varint;

/// What a field holds, by its wire type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Field<'a> {
    /// Integers of any sign, booleans, enumerations.
    Varint(u64),
    /// `fixed64`, `sfixed64`, `double`
    Fixed64([u8; 8]),
    /// Text, bytes, messages, packed lists.
    Bytes(&'a [u8]),
    /// `fixed32`, `sfixed32`, `float`
    Fixed32([u8; 4]),
}

/// The bytes are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotProtobuf;

/// The fields of a message, in the order they stand in, with their numbers. Ends at the first
/// fault, which it names.
#[derive(Clone, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// Those of `message`.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    fn read(&mut self) -> Result<(u32, Field<'a>), NotProtobuf> {
        let rest = &mut self.0;
        let head = decode_varint(rest).map_err(|_| NotProtobuf)?;
        let number = u32::try_from(head >> 3).map_err(|_| NotProtobuf)?;
        let field = match head & 7 {
            0 => Field::Varint(decode_varint(rest).map_err(|_| NotProtobuf)?),
            1 => Field::Fixed64(take(rest)?),
            2 => {
                let length = decode_varint(rest).map_err(|_| NotProtobuf)?;
                let length = usize::try_from(length).map_err(|_| NotProtobuf)?;
                Field::Bytes(rest.split_off(..length).ok_or(NotProtobuf)?)
            }
            5 => Field::Fixed32(take(rest)?),
            _ => return Err(NotProtobuf),
        };
        Ok((number, field))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], NotProtobuf> {
    let (chunk, behind) = rest.split_first_chunk().ok_or(NotProtobuf)?;
    *rest = behind;
    Ok(*chunk)
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Field<'a>), NotProtobuf>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_up_to_the_first_fault() {
        let message = b"\x08\x96\x01\x12\x02hi\x1d\0\0\x80\x3f\x21\0\0\0\0\0\0\xf0\x3f";
        let fields: Result<Vec<_>, _> = Fields::of(message).collect();
        assert_eq!(
            fields,
            Ok(vec![
                (1, Field::Varint(150)),
                (2, Field::Bytes(b"hi")),
                (3, Field::Fixed32(1f32.to_le_bytes())),
                (4, Field::Fixed64(1f64.to_le_bytes())),
            ])
        );
        for cut in [1, 2, 4, 6, 8, 11, 13, 20] {
            let last = Fields::of(&message[..cut]).last();
            assert_eq!(last, Some(Err(NotProtobuf)), "after {cut} bytes");
        }
    }

    #[test]
    fn groups_and_lengths_beyond_the_message_are_faults() {
        for message in [&b"\x0b\x0c"[..], b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0e"]
        {
            assert_eq!(Fields::of(message).next(), Some(Err(NotProtobuf)), "{message:?}");
        }
    }
}
