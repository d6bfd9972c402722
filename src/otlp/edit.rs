//! Changes to a serialised trace request that leave everything else byte for byte.

use super::{
    trace::{Span, Visitor, walk},
    wire::{Malformed, Reader, Tag, put_bytes},
};

/// The request without the spans whose ids are invalid.
///
/// # Errors
/// The bytes are no `ExportTraceServiceRequest`.
pub fn without_invalid_ids(request: &[u8]) -> Result<Vec<u8>, Malformed> {
    /// Sees one span by itself.
    struct Valid(bool);
    impl Visitor<'_> for Valid {
        fn span(&mut self, span: &Span<'_>) {
            self.0 = span.has_valid_ids();
        }
    }
    filter(request, &[1, 2, 2], &mut |span| {
        let mut scope_spans = Vec::with_capacity(span.len() + 8);
        put_bytes(&mut scope_spans, Tag::bytes(2), span);
        let mut resource_spans = Vec::with_capacity(scope_spans.len() + 8);
        put_bytes(&mut resource_spans, Tag::bytes(2), &scope_spans);
        let mut alone = Vec::with_capacity(resource_spans.len() + 8);
        put_bytes(&mut alone, Tag::bytes(1), &resource_spans);
        let mut valid = Valid(false);
        walk(&alone, &mut valid)?;
        Ok(valid.0)
    })
}

/// Copies a message; messages at the end of the path of field numbers stay only if `keep` says so.
fn filter(message: &[u8], path: &[u32], keep: &mut dyn FnMut(&[u8]) -> Result<bool, Malformed>) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(message.len());
    let mut reader = Reader::new(message);
    let Some((field, rest)) = path.split_first() else { return Ok(message.to_vec()) };
    let mut before = reader.rest();
    while let Some(tag) = reader.tag()? {
        if tag == Tag::bytes(*field) {
            inner(&mut out, &mut reader, tag, rest, keep)?;
        } else {
            reader.skip(tag, 1 << *field)?;
            let used = before.len() - reader.rest().len();
            out.extend_from_slice(before.get(..used).unwrap_or_default());
        }
        before = reader.rest();
    }
    Ok(out)
}

fn inner(
    out: &mut Vec<u8>,
    reader: &mut Reader<'_>,
    tag: Tag,
    rest: &[u32],
    keep: &mut dyn FnMut(&[u8]) -> Result<bool, Malformed>,
) -> Result<(), Malformed> {
    let child = reader.bytes()?;
    if !rest.is_empty() {
        put_bytes(out, tag, &filter(child, rest, keep)?);
    } else if keep(child)? {
        put_bytes(out, tag, child);
    }
    Ok(())
}
