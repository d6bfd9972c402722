//! The protobuf wire format, borrowed.
//!
//! Reads exactly what `prost` reads: varints of at most ten bytes, field numbers from 1, groups only where a
//! field is unknown, and no deeper than 100.
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use std::fmt;

/// How deep groups may nest in unknown fields; `prost` stops at the same depth.
const GROUP_DEPTH_MAX: u32 = 100;

/// Bytes that are no valid protobuf message of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed protobuf: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// How a field's value is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A number of one to ten bytes.
    Varint,
    /// Eight bytes, little endian.
    Fixed64,
    /// A length, then so many bytes.
    Bytes,
    /// Fields up to the end mark of the same number.
    Group,
    /// The end mark of a group.
    GroupEnd,
    /// Four bytes, little endian.
    Fixed32,
}

/// A field's number and layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The field's number, from 1.
    pub field: u32,
    /// How its value is laid out.
    pub layout: Layout,
}

/// Reads the fields of one message, front to back.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads this message.
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// What has not been read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next field, or `None` at the end of the message.
    ///
    /// # Errors
    /// The tag is broken off, has field number 0 or an unknown layout.
    #[inline]
    pub fn tag(&mut self) -> Result<Option<Tag>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = u32::try_from(self.varint_value()?).map_err(|_too_large| Malformed("field number too large"))?;
        let layout = match key & 7 {
            0 => Layout::Varint,
            1 => Layout::Fixed64,
            2 => Layout::Bytes,
            3 => Layout::Group,
            4 => Layout::GroupEnd,
            5 => Layout::Fixed32,
            _ => return Err(Malformed("unknown wire type")),
        };
        if key < 8 {
            return Err(Malformed("field number 0"));
        }
        Ok(Some(Tag { field: key >> 3, layout }))
    }

    /// The value of a varint field.
    ///
    /// # Errors
    /// The field is laid out otherwise, or the number is broken off or too long.
    #[inline]
    pub fn varint(&mut self, tag: Tag) -> Result<u64, Malformed> {
        expect(tag, Layout::Varint)?;
        self.varint_value()
    }

    /// The value of a 64-bit fixed field.
    ///
    /// # Errors
    /// The field is laid out otherwise or broken off.
    #[inline]
    pub fn fixed64(&mut self, tag: Tag) -> Result<u64, Malformed> {
        expect(tag, Layout::Fixed64)?;
        let (value, rest) = self.rest.split_first_chunk::<8>().ok_or(BROKEN_OFF)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*value))
    }

    /// The value of a 32-bit fixed field.
    ///
    /// # Errors
    /// The field is laid out otherwise or broken off.
    #[inline]
    pub fn fixed32(&mut self, tag: Tag) -> Result<u32, Malformed> {
        expect(tag, Layout::Fixed32)?;
        let (value, rest) = self.rest.split_first_chunk::<4>().ok_or(BROKEN_OFF)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*value))
    }

    /// The value of a bytes, string or message field.
    ///
    /// # Errors
    /// The field is laid out otherwise, or is longer than what is left.
    #[inline]
    pub fn bytes(&mut self, tag: Tag) -> Result<&'a [u8], Malformed> {
        expect(tag, Layout::Bytes)?;
        let length = usize::try_from(self.varint_value()?).map_err(|_too_long| BROKEN_OFF)?;
        let (value, rest) = self.rest.split_at_checked(length).ok_or(BROKEN_OFF)?;
        self.rest = rest;
        Ok(value)
    }

    /// Passes over a field that nobody reads.
    ///
    /// # Errors
    /// The field is broken off, or a group has no end, the wrong end, or nests too deep.
    #[inline]
    pub fn skip(&mut self, tag: Tag) -> Result<(), Malformed> {
        self.skip_at(tag, GROUP_DEPTH_MAX)
    }

    fn skip_at(&mut self, tag: Tag, depth: u32) -> Result<(), Malformed> {
        match tag.layout {
            Layout::Varint => self.varint_value().map(drop),
            Layout::Fixed64 => self.fixed64(tag).map(drop),
            Layout::Fixed32 => self.fixed32(tag).map(drop),
            Layout::Bytes => self.bytes(tag).map(drop),
            Layout::GroupEnd => Err(Malformed("end of a group that did not begin")),
            Layout::Group => {
                let depth = depth.checked_sub(1).ok_or(Malformed("groups nest too deep"))?;
                loop {
                    let inner = self.tag()?.ok_or(BROKEN_OFF)?;
                    match inner.layout {
                        Layout::GroupEnd if inner.field == tag.field => return Ok(()),
                        Layout::GroupEnd => return Err(Malformed("end of another group")),
                        _ => self.skip_at(inner, depth)?,
                    }
                }
            }
        }
    }

    #[inline]
    fn varint_value(&mut self) -> Result<u64, Malformed> {
        // Tags, lengths and most numbers of a span take one byte.
        match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for (position, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * position);
            if *byte < 0x80 {
                if position == 9 && *byte > 1 {
                    break;
                }
                self.rest = self.rest.get(position + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(Malformed("number broken off or longer than 64 bits"))
    }
}

const BROKEN_OFF: Malformed = Malformed("a field is longer than what is left");

#[inline]
fn expect(tag: Tag, layout: Layout) -> Result<(), Malformed> {
    if tag.layout == layout { Ok(()) } else { Err(Malformed("a known field has another type")) }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the low seven bits are what is meant")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "less than 0x80 here")]
    out.push(value as u8);
}

/// How many bytes [`put_varint`] appends.
pub const fn varint_len(value: u64) -> usize {
    // 7 bits a byte, and one byte for 0.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends a bytes, string or message field.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}
