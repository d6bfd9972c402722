//! The protobuf wire format, borrowed.
//!
//! Reads exactly what `prost` reads: varints of at most ten bytes, field numbers from 1, groups only where a
//! field is unknown, and messages and groups no deeper than 100.
//! Source: <https://protobuf.dev/programming-guides/encoding/>.

use std::fmt;

/// How deep messages, and groups in unknown fields, may nest in a request; `prost` stops at the same depth.
pub(super) const DEPTH_MAX: u32 = 100;

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
enum Layout {
    Varint,
    Fixed64,
    Bytes,
    Group,
    GroupEnd,
    Fixed32,
}

impl Layout {
    const fn of(key: u32) -> Option<Self> {
        Some(match key & 7 {
            0 => Self::Varint,
            1 => Self::Fixed64,
            2 => Self::Bytes,
            3 => Self::Group,
            4 => Self::GroupEnd,
            5 => Self::Fixed32,
            _ => return None,
        })
    }
}

/// A field's number and layout, in one number as they travel: a known field is found with one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u32);

impl Tag {
    /// Of a number or truth value.
    pub const fn varint(field: u32) -> Self {
        Self(field << 3)
    }

    /// Of eight bytes.
    pub const fn fixed64(field: u32) -> Self {
        Self(field << 3 | 1)
    }

    /// Of bytes, text or a message.
    pub const fn bytes(field: u32) -> Self {
        Self(field << 3 | 2)
    }

    /// Of four bytes.
    pub const fn fixed32(field: u32) -> Self {
        Self(field << 3 | 5)
    }

    /// The field's number, from 1.
    pub const fn field(self) -> u32 {
        self.0 >> 3
    }

    /// Number and layout, as they travel.
    pub(super) const fn key(self) -> u32 {
        self.0
    }
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
    /// The tag is broken off or has field number 0.
    #[inline]
    pub fn tag(&mut self) -> Result<Option<Tag>, Malformed> {
        match self.rest {
            [] => Ok(None),
            [key @ 8..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(Some(Tag(u32::from(*key))))
            }
            [low @ 0x80..=0xff, high @ 1..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(Some(Tag(u32::from(*low & 0x7f) | u32::from(*high) << 7)))
            }
            _ => self.long_tag().map(Some),
        }
    }

    /// Passes over this tag if it comes next. Where one field usually follows another, this is cheaper than to ask which
    /// field comes.
    #[inline]
    pub(super) fn takes(&mut self, tag: Tag) -> bool {
        let (next, rest) = match self.rest {
            [key @ 0..0x80, rest @ ..] => (u32::from(*key), rest),
            [low, high @ 0..0x80, rest @ ..] => (u32::from(*low & 0x7f) | u32::from(*high) << 7, rest),
            _ => return false,
        };
        if next == tag.0 {
            self.rest = rest;
        }
        next == tag.0
    }

    #[cold]
    fn long_tag(&mut self) -> Result<Tag, Malformed> {
        let key = u32::try_from(self.varint()?).map_err(|_too_large| Malformed("field number too large"))?;
        if key < 8 { Err(Malformed("field number 0")) } else { Ok(Tag(key)) }
    }

    /// The value of a 64-bit fixed field.
    ///
    /// # Errors
    /// It is broken off.
    #[inline]
    pub fn fixed64(&mut self) -> Result<u64, Malformed> {
        let (value, rest) = self.rest.split_first_chunk::<8>().ok_or(BROKEN_OFF)?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*value))
    }

    /// The value of a 32-bit fixed field.
    ///
    /// # Errors
    /// It is broken off.
    #[inline]
    pub fn fixed32(&mut self) -> Result<u32, Malformed> {
        let (value, rest) = self.rest.split_first_chunk::<4>().ok_or(BROKEN_OFF)?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*value))
    }

    /// The value of a bytes, string or message field.
    ///
    /// # Errors
    /// It is longer than what is left.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.varint()?).map_err(|_too_long| BROKEN_OFF)?;
        let (value, rest) = self.rest.split_at_checked(length).ok_or(BROKEN_OFF)?;
        self.rest = rest;
        Ok(value)
    }

    /// Passes over a field that nobody reads. `known` has a bit for every field number up to 31 that would be read
    /// if it were laid out as it should be.
    ///
    /// # Errors
    /// The field is known, broken off or of an unknown layout; or a group has no end, the wrong end, or nests too
    /// deep.
    #[inline(never)]
    pub fn skip(&mut self, tag: Tag, known: u32) -> Result<(), Malformed> {
        if 1_u32.checked_shl(tag.field()).is_some_and(|bit| known & bit != 0) {
            return Err(OTHER_LAYOUT);
        }
        self.skip_within(tag, DEPTH_MAX)
    }

    /// Passes over an unknown field of a message, in which messages and groups may nest so deep.
    ///
    /// # Errors
    /// The field is broken off or of an unknown layout; or a group has no end, the wrong end, or nests too deep.
    pub(super) fn skip_within(&mut self, tag: Tag, depth: u32) -> Result<(), Malformed> {
        let within = depth.checked_sub(1).ok_or(TOO_DEEP)?;
        match Layout::of(tag.0).ok_or(Malformed("unknown wire type"))? {
            Layout::Varint => self.varint().map(drop),
            Layout::Fixed64 => self.fixed64().map(drop),
            Layout::Fixed32 => self.fixed32().map(drop),
            Layout::Bytes => self.bytes().map(drop),
            Layout::GroupEnd => Err(Malformed("end of a group that did not begin")),
            Layout::Group => loop {
                let inner = self.tag()?.ok_or(BROKEN_OFF)?;
                match Layout::of(inner.0) {
                    Some(Layout::GroupEnd) if inner.field() == tag.field() => return Ok(()),
                    Some(Layout::GroupEnd) => return Err(Malformed("end of another group")),
                    _ => self.skip_within(inner, within)?,
                }
            },
        }
    }

    /// A number of one to ten bytes.
    ///
    /// # Errors
    /// It is broken off or too long.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        // Tags, lengths and most numbers of a span take one byte; the span's own length, statuses and ports take two.
        match self.rest {
            [first @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*first))
            }
            [low, high @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*low & 0x7f) | u64::from(*high) << 7)
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
pub(super) const OTHER_LAYOUT: Malformed = Malformed("a known field has another type");
pub(super) const TOO_DEEP: Malformed = Malformed("messages or groups nest too deep");

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

/// One field for tests: its number, and how it is laid out.
#[cfg(test)]
pub(super) fn field(number: u32, layout: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, u64::from(number << 3 | layout));
    if layout == 2 {
        put_varint(&mut out, content.len() as u64);
    }
    out.extend_from_slice(content);
    out
}

/// How many bytes [`put_varint`] appends.
pub const fn varint_len(value: u64) -> usize {
    // 7 bits a byte, and one byte for 0.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends a bytes, string or message field.
pub fn put_bytes(out: &mut Vec<u8>, tag: Tag, value: &[u8]) {
    put_varint(out, u64::from(tag.0));
    put_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}
