//! One walk over a serialised `ExportTraceServiceRequest`.

use super::wire::{Malformed, Reader, Tag};

/// The fields of a span that stand by themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span<'a> {
    /// The span's message within the request.
    pub message: &'a [u8],
    /// 16 bytes, not all zero, if valid.
    pub trace_id: &'a [u8],
    /// 8 bytes, not all zero, if valid.
    pub span_id: &'a [u8],
    /// W3C `tracestate`.
    pub trace_state: &'a [u8],
    /// `Span.SpanKind`: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: u64,
    /// Unix time in nanoseconds.
    pub start: u64,
    /// Unix time in nanoseconds.
    pub end: u64,
    /// `Status.StatusCode`: 0 unset, 1 ok, 2 error.
    pub status: u64,
}

impl Span<'_> {
    /// Whether trace and span id are of the right length and not all zero, as the specification asks.
    pub fn has_valid_ids(&self) -> bool {
        self.trace_id.len() == 16
            && self.span_id.len() == 8
            && self.trace_id.iter().any(|byte| *byte != 0)
            && self.span_id.iter().any(|byte| *byte != 0)
    }
}

/// Is shown a request, front to back. Attributes and events of a span come before the span itself.
pub trait Visitor<'a> {
    /// A resource begins; `attributes` may be called for it before its first span.
    fn resource(&mut self) {}
    /// One attribute of the present resource; `value` is a serialised `AnyValue`.
    fn resource_attribute(&mut self, key: &'a [u8], value: &'a [u8]) {
        let _ = (key, value);
    }
    /// One attribute of the span that comes next.
    #[inline]
    fn attribute(&mut self, key: &'a [u8], value: &'a [u8]) {
        let _ = (key, value);
    }
    /// One event of the span that comes next: its whole message, whose structure has been checked.
    #[inline]
    fn event(&mut self, event: &'a [u8]) {
        let _ = event;
    }
    /// A span is complete.
    fn span(&mut self, span: &Span<'a>);
}

/// Walks a request and checks its structure down to span, event, link, status and attribute.
///
/// # Errors
/// The bytes are no such message. What the visitor was shown until then must be forgotten.
pub fn walk<'a>(request: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<(), Malformed> {
    let mut reader = Reader::new(request);
    while let Some(tag) = reader.tag()? {
        if tag.field == 1 {
            resource_spans(reader.bytes(tag)?, visitor)?;
        } else {
            reader.skip(tag)?;
        }
    }
    Ok(())
}

fn resource_spans<'a>(message: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<(), Malformed> {
    visitor.resource();
    // The resource may stand behind its spans; one cheap look ahead finds it first.
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag.field {
            1 => resource(reader.bytes(tag)?, visitor)?,
            _ => reader.skip(tag)?,
        }
    }
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag.field {
            2 => scope_spans(reader.bytes(tag)?, visitor)?,
            3 => reader.bytes(tag).map(drop)?,
            _ => reader.skip(tag)?,
        }
    }
    Ok(())
}

fn resource<'a>(message: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag.field {
            1 => {
                let (key, value) = key_value(reader.bytes(tag)?)?;
                visitor.resource_attribute(key, value);
            }
            2 => reader.varint(tag).map(drop)?,
            _ => reader.skip(tag)?,
        }
    }
    Ok(())
}

fn scope_spans<'a>(message: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag.field {
            1 => scope(reader.bytes(tag)?)?,
            2 => span(reader.bytes(tag)?, visitor)?,
            3 => reader.bytes(tag).map(drop)?,
            _ => reader.skip(tag)?,
        }
    }
    Ok(())
}

fn scope(message: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag.field {
            1 | 2 => reader.bytes(tag).map(drop)?,
            3 => key_value(reader.bytes(tag)?).map(drop)?,
            4 => reader.varint(tag).map(drop)?,
            _ => reader.skip(tag)?,
        }
    }
    Ok(())
}

fn span<'a>(message: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<(), Malformed> {
    let mut span = Span { message, ..Span::default() };
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag.field {
            9 => {
                let (key, value) = key_value(reader.bytes(tag)?)?;
                visitor.attribute(key, value);
            }
            1 => span.trace_id = reader.bytes(tag)?,
            2 => span.span_id = reader.bytes(tag)?,
            3 => span.trace_state = reader.bytes(tag)?,
            4 | 5 => reader.bytes(tag).map(drop)?,
            6 => span.kind = reader.varint(tag)?,
            7 => span.start = reader.fixed64(tag)?,
            8 => span.end = reader.fixed64(tag)?,
            10 | 12 | 14 => reader.varint(tag).map(drop)?,
            11 => {
                let event = reader.bytes(tag)?;
                check_event(event)?;
                visitor.event(event);
            }
            13 => link(reader.bytes(tag)?)?,
            15 => status(reader.bytes(tag)?, &mut span.status)?,
            16 => reader.fixed32(tag).map(drop)?,
            _ => reader.skip(tag)?,
        }
    }
    visitor.span(&span);
    Ok(())
}

fn check_event(message: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag.field {
            1 => reader.fixed64(tag).map(drop)?,
            2 => reader.bytes(tag).map(drop)?,
            3 => key_value(reader.bytes(tag)?).map(drop)?,
            4 => reader.varint(tag).map(drop)?,
            _ => reader.skip(tag)?,
        }
    }
    Ok(())
}

fn link(message: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag.field {
            1..=3 => reader.bytes(tag).map(drop)?,
            4 => key_value(reader.bytes(tag)?).map(drop)?,
            5 => reader.varint(tag).map(drop)?,
            6 => reader.fixed32(tag).map(drop)?,
            _ => reader.skip(tag)?,
        }
    }
    Ok(())
}

fn status(message: &[u8], code: &mut u64) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag.field {
            2 => reader.bytes(tag).map(drop)?,
            3 => *code = reader.varint(tag)?,
            _ => reader.skip(tag)?,
        }
    }
    Ok(())
}

#[inline]
fn key_value(message: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut key, mut value) = (&[][..], &[][..]);
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag.field {
            1 => key = reader.bytes(tag)?,
            2 => value = reader.bytes(tag)?,
            _ => skip_strange(&mut reader, tag)?,
        }
    }
    Ok((key, value))
}

#[cold]
fn skip_strange(reader: &mut Reader<'_>, tag: Tag) -> Result<(), Malformed> {
    reader.skip(tag)
}

/// An event of a span, read again where somebody wants to know.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    message: &'a [u8],
}

impl<'a> Event<'a> {
    /// Of a message that [`Visitor::event`] was shown.
    pub const fn new(message: &'a [u8]) -> Self {
        Self { message }
    }

    /// Unix time in nanoseconds, and the name.
    pub fn time_and_name(self) -> (u64, &'a [u8]) {
        let (mut time, mut name) = (0, &[][..]);
        let mut reader = Reader::new(self.message);
        while let Ok(Some(tag)) = reader.tag() {
            match tag.field {
                1 => time = reader.fixed64(tag).unwrap_or(time),
                2 => name = reader.bytes(tag).unwrap_or(name),
                _ => {
                    if reader.skip(tag).is_err() {
                        break;
                    }
                }
            }
        }
        (time, name)
    }

    /// Shows every attribute: key and serialised `AnyValue`.
    pub fn attributes(self, mut visit: impl FnMut(&'a [u8], &'a [u8])) {
        let mut reader = Reader::new(self.message);
        while let Ok(Some(tag)) = reader.tag() {
            let read = if tag.field == 3 { reader.bytes(tag).and_then(key_value).map(|(key, value)| visit(key, value)) } else { reader.skip(tag) };
            if read.is_err() {
                break;
            }
        }
    }
}

/// What the door wants to know of a request before it lets it in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Spans in the request.
    pub spans: usize,
    /// Those among them without a valid trace or span id.
    pub invalid_ids: usize,
}

impl Visitor<'_> for Census {
    fn span(&mut self, span: &Span<'_>) {
        self.spans += 1;
        self.invalid_ids += usize::from(!span.has_valid_ids());
    }
}

/// Checks a request's structure and counts its spans.
///
/// # Errors
/// The bytes are no `ExportTraceServiceRequest`.
pub fn census(request: &[u8]) -> Result<Census, Malformed> {
    let mut census = Census::default();
    walk(request, &mut census)?;
    Ok(census)
}
