use std::borrow::Cow;

use super::wire::{Malformed, Reader, Tag};

/// What an attribute holds, as far as Fuseboard reads attributes: arrays, maps and bytes are [`Value::Other`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text: UTF-8, if the request was checked.
    Text(&'a [u8]),
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// Nothing, or something that is not read here.
    Other,
}

/// The fields of `AnyValue`, each of which is its whole value, have numbers up to this.
pub(super) const ANY_VALUE_FIELDS: u32 = 8;

const TEXT_BYTE: u8 = 1 << 3 | 2;
const INT_BYTE: u8 = 3 << 3;

impl<'a> Value<'a> {
    /// Reads a serialised `AnyValue`. Bytes that are no such message, which no checked request holds, are
    /// [`Value::Other`].
    #[inline]
    pub fn read(any_value: &'a [u8]) -> Self {
        // As every SDK writes them: short texts and small numbers.
        match any_value {
            [TEXT_BYTE, length @ 0..0x80, text @ ..] if text.len() == usize::from(*length) => Self::Text(text),
            [INT_BYTE, number @ 0..0x80] => Self::Int(i64::from(*number)),
            [INT_BYTE, low @ 0x80..=0xff, high @ 0..0x80] => Self::Int(i64::from(*low & 0x7f) | i64::from(*high) << 7),
            _ => Self::read_any(any_value).unwrap_or(Self::Other),
        }
    }

    #[inline(never)]
    fn read_any(any_value: &'a [u8]) -> Result<Self, Malformed> {
        const TEXT: Tag = Tag::bytes(1);
        const BOOL: Tag = Tag::varint(2);
        const INT: Tag = Tag::varint(3);
        const DOUBLE: Tag = Tag::fixed64(4);
        let mut reader = Reader::new(any_value);
        let mut value = Self::Other;
        while let Some(tag) = reader.tag()? {
            value = match tag {
                TEXT => Self::Text(reader.bytes()?),
                BOOL => Self::Bool(reader.varint()? != 0),
                #[expect(clippy::cast_possible_wrap, reason = "int64 travels as its two's complement")]
                INT => Self::Int(reader.varint()? as i64),
                DOUBLE => Self::Double(f64::from_bits(reader.fixed64()?)),
                // Arrays, maps, bytes, and references into a table of strings.
                _ if tag.field() <= ANY_VALUE_FIELDS => {
                    reader.skip(tag, 0)?;
                    Self::Other
                }
                _ => {
                    reader.skip(tag, 0)?;
                    value
                }
            };
        }
        Ok(value)
    }

    /// As text, if it is text; what is no UTF-8 in it is replaced.
    pub fn text(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(String::from_utf8_lossy(text)),
            _ => None,
        }
    }

    /// As a whole number, if it is one or is text that spells one (Envoy sends `"503"`).
    pub fn number(self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(number),
            Self::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
            Self::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(number as i64),
            _ => None,
        }
    }
}
