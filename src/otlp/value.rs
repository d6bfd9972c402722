use std::borrow::Cow;

use super::wire::Reader;

/// What an attribute holds, as far as Fuseboard reads attributes: arrays, maps and bytes are [`Value::Other`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text; should be UTF-8, but senders err.
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

impl<'a> Value<'a> {
    /// Reads a serialised `AnyValue`. Bytes that are no such message are [`Value::Other`]: values that nobody reads
    /// are not checked, and one that somebody reads is then simply not there.
    pub fn read(any_value: &'a [u8]) -> Self {
        let mut reader = Reader::new(any_value);
        let mut value = Self::Other;
        while let Ok(Some(tag)) = reader.tag() {
            let read = match tag.field {
                1 => reader.bytes(tag).map(Self::Text),
                2 => reader.varint(tag).map(|bit| Self::Bool(bit != 0)),
                #[expect(clippy::cast_possible_wrap, reason = "int64 travels as its two's complement")]
                3 => reader.varint(tag).map(|number| Self::Int(number as i64)),
                4 => reader.fixed64(tag).map(|bits| Self::Double(f64::from_bits(bits))),
                _ => reader.skip(tag).map(|()| Self::Other),
            };
            match read {
                Ok(read) => value = read,
                Err(_) => return Self::Other,
            }
        }
        value
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
