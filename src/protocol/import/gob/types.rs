//! Gob's types: what a stream defines, and how to pass over values of them.

use super::GobError;
use super::wire::Input;

/// How deep types may nest: Veneur's do three levels.
const MAX_DEPTH: usize = 8;
/// How many types a stream may define: Veneur's define three.
const MAX_TYPES: usize = 32;
/// How many fields a struct may have.
const MAX_FIELDS: usize = 64;

/// The number of a type: up to 63 built in, from 64 on defined by the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TypeId(pub(super) i64);

impl TypeId {
    pub(super) const BOOL: TypeId = TypeId(1);
    const INT: TypeId = TypeId(2);
    pub(super) const UINT: TypeId = TypeId(3);
    pub(super) const FLOAT: TypeId = TypeId(4);
    pub(super) const BYTES: TypeId = TypeId(5);
    const STRING: TypeId = TypeId(6);
    const COMPLEX: TypeId = TypeId(7);
}

enum Type {
    /// A slice or an array of these.
    List(TypeId),
    Map(TypeId, TypeId),
    Struct(Vec<Field>),
    /// Bytes with a meaning of the sender's own.
    Opaque,
}

pub(super) struct Field {
    name: Vec<u8>,
    pub(super) id: TypeId,
}

impl Field {
    pub(super) fn is(&self, name: &str, id: TypeId) -> bool {
        self.name == name.as_bytes() && self.id == id
    }
}

/// The types a stream has defined so far.
#[derive(Default)]
pub(super) struct Types(Vec<(TypeId, Type)>);

impl Types {
    /// Takes in the definition of type −`negated`.
    pub(super) fn define(&mut self, negated: i64, input: &mut Input) -> Result<(), GobError> {
        let id = TypeId(negated.checked_neg().ok_or(GobError::BadNumber)?);
        if self.0.len() == MAX_TYPES || self.get(id).is_some() {
            return Err(GobError::BadType);
        }
        let mut defined = None;
        // One field is there, and its place says what kind of type it describes.
        input.fields(|kind, input| {
            defined = Some(match kind {
                0 => read_list(input, true)?,
                1 => read_list(input, false)?,
                2 => read_struct(input)?,
                3 => read_map(input)?,
                4..=6 => read_opaque(input)?,
                _ => return Err(GobError::BadType),
            });
            Ok(())
        })?;
        input.finish()?;
        self.0.push((id, defined.ok_or(GobError::BadType)?));
        Ok(())
    }

    pub(super) fn is_struct(&self, id: TypeId) -> bool {
        matches!(self.get(id), Some(Type::Struct(_)))
    }

    /// Of what a list is a list.
    pub(super) fn element_of(&self, id: TypeId) -> Option<TypeId> {
        match self.get(id)? {
            Type::List(element) => Some(*element),
            Type::Map(..) | Type::Struct(_) | Type::Opaque => None,
        }
    }

    pub(super) fn fields_of(&self, id: TypeId) -> Option<&[Field]> {
        match self.get(id)? {
            Type::Struct(fields) => Some(fields),
            Type::List(_) | Type::Map(..) | Type::Opaque => None,
        }
    }

    /// Passes over a value.
    pub(super) fn skip(&self, id: TypeId, input: &mut Input) -> Result<(), GobError> {
        self.skip_nested(id, input, MAX_DEPTH)
    }

    fn skip_nested(&self, id: TypeId, input: &mut Input, depth: usize) -> Result<(), GobError> {
        let depth = depth.checked_sub(1).ok_or(GobError::BadType)?;
        match id {
            TypeId::BOOL | TypeId::INT | TypeId::UINT | TypeId::FLOAT => {
                input.uint()?;
                return Ok(());
            }
            TypeId::COMPLEX => {
                input.uint()?;
                input.uint()?;
                return Ok(());
            }
            TypeId::BYTES | TypeId::STRING => {
                let length = input.length()?;
                input.take(length)?;
                return Ok(());
            }
            _ => {}
        }
        match self.get(id).ok_or(GobError::BadType)? {
            Type::List(element) => {
                for _ in 0..input.length()? {
                    self.skip_nested(*element, input, depth)?;
                }
                Ok(())
            }
            Type::Map(key, element) => {
                for _ in 0..input.length()? {
                    self.skip_nested(*key, input, depth)?;
                    self.skip_nested(*element, input, depth)?;
                }
                Ok(())
            }
            Type::Struct(fields) => input.fields(|index, input| {
                let field = fields.get(index).ok_or(GobError::BadNumber)?;
                self.skip_nested(field.id, input, depth)
            }),
            Type::Opaque => {
                let length = input.length()?;
                input.take(length)?;
                Ok(())
            }
        }
    }

    fn get(&self, id: TypeId) -> Option<&Type> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, known)| known)
    }
}

/// `{common, element id}`, for an array also its length, which values repeat.
fn read_list(input: &mut Input, is_array: bool) -> Result<Type, GobError> {
    let mut element = None;
    input.fields(|index, input| match index {
        0 => read_common(input),
        1 => {
            element = Some(TypeId(input.int()?));
            Ok(())
        }
        2 if is_array => {
            input.int()?;
            Ok(())
        }
        _ => Err(GobError::BadType),
    })?;
    element.map(Type::List).ok_or(GobError::BadType)
}

/// `{common, key id, element id}`
fn read_map(input: &mut Input) -> Result<Type, GobError> {
    let (mut key, mut element) = (None, None);
    input.fields(|index, input| {
        match index {
            0 => read_common(input)?,
            1 => key = Some(TypeId(input.int()?)),
            2 => element = Some(TypeId(input.int()?)),
            _ => return Err(GobError::BadType),
        }
        Ok(())
    })?;
    Ok(Type::Map(key.ok_or(GobError::BadType)?, element.ok_or(GobError::BadType)?))
}

/// `{common, list of {name, id}}`
fn read_struct(input: &mut Input) -> Result<Type, GobError> {
    let mut fields = Vec::new();
    input.fields(|index, input| match index {
        0 => read_common(input),
        1 => {
            let count = input.length()?;
            if count > MAX_FIELDS {
                return Err(GobError::BadType);
            }
            for _ in 0..count {
                fields.push(read_field(input)?);
            }
            Ok(())
        }
        _ => Err(GobError::BadType),
    })?;
    Ok(Type::Struct(fields))
}

fn read_field(input: &mut Input) -> Result<Field, GobError> {
    let (mut name, mut id) = (Vec::new(), None);
    input.fields(|index, input| {
        match index {
            0 => {
                let length = input.length()?;
                name = input.take(length)?.to_vec();
            }
            1 => id = Some(TypeId(input.int()?)),
            _ => return Err(GobError::BadType),
        }
        Ok(())
    })?;
    Ok(Field { name, id: id.ok_or(GobError::BadType)? })
}

/// `{common}`
fn read_opaque(input: &mut Input) -> Result<Type, GobError> {
    input.fields(|index, input| match index {
        0 => read_common(input),
        _ => Err(GobError::BadType),
    })?;
    Ok(Type::Opaque)
}

/// `{name, id}`: says again what is known.
fn read_common(input: &mut Input) -> Result<(), GobError> {
    input.fields(|index, input| {
        match index {
            0 => {
                let length = input.length()?;
                input.take(length)?;
            }
            1 => {
                input.int()?;
            }
            _ => return Err(GobError::BadType),
        }
        Ok(())
    })
}
