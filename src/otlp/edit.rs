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

/// The request with more fields at the end of some spans: each is told by a place within it (that of its id, say), in
/// ascending order.
///
/// # Errors
/// The bytes are no `ExportTraceServiceRequest`.
pub fn with_appended(request: &[u8], spans: &[(u32, Vec<u8>)]) -> Result<Vec<u8>, Malformed> {
    let added: usize = spans.iter().map(|(_, fields)| fields.len() + 16).sum();
    let mut out = Vec::with_capacity(request.len() + added);
    append(&mut out, request, 0, &[1, 2, 2], spans)?;
    Ok(out)
}

/// Copies a message that begins at this place of the request; what is appended to a message at the end of the path of
/// field numbers changes the lengths of all around it.
fn append(out: &mut Vec<u8>, message: &[u8], at: usize, path: &[u32], spans: &[(u32, Vec<u8>)]) -> Result<(), Malformed> {
    let Some((field, rest)) = path.split_first() else {
        out.extend_from_slice(message);
        spans.iter().for_each(|(_, fields)| out.extend_from_slice(fields));
        return Ok(());
    };
    let mut reader = Reader::new(message);
    let place = |reader: &Reader<'_>| message.len() - reader.rest().len();
    let mut before = place(&reader);
    while let Some(tag) = reader.tag()? {
        let mut inner = &[][..];
        if tag == Tag::bytes(*field) {
            let child = reader.bytes()?;
            let end = at + place(&reader);
            let within = |from: usize| spans.partition_point(|(place, _)| (*place as usize) < from);
            inner = spans.get(within(end - child.len())..within(end)).unwrap_or_default();
            if !inner.is_empty() {
                let mut changed = Vec::with_capacity(child.len() + 256 * inner.len());
                append(&mut changed, child, end - child.len(), rest, inner)?;
                put_bytes(out, tag, &changed);
            }
        } else {
            reader.skip(tag, 1 << *field)?;
        }
        if inner.is_empty() {
            out.extend_from_slice(message.get(before..place(&reader)).unwrap_or_default());
        }
        before = place(&reader);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        trace::v1::{ResourceSpans, ScopeSpans, Span as Message},
    };
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    proptest! {
        /// What is appended is there when it is decoded, and nothing else has changed.
        #[test]
        fn fields_are_appended_to_the_spans_that_were_meant(shape in prop::collection::vec(prop::collection::vec(1_usize..4, 0..3), 0..4), chosen in any::<u64>()) {
            let mut id = 0_u64;
            let mut span = || { id += 1; Message { span_id: id.to_be_bytes().to_vec(), name: "x".repeat(usize::try_from(id * 37 % 300).unwrap()), ..Message::default() } };
            let resource_spans = shape.iter().map(|scopes| ResourceSpans {
                scope_spans: scopes.iter().map(|count| ScopeSpans { spans: (0..*count).map(|_| span()).collect(), ..ScopeSpans::default() }).collect(),
                schema_url: "s".to_owned(),
                ..ResourceSpans::default()
            }).collect();
            let mut wanted = ExportTraceServiceRequest { resource_spans };
            let request = wanted.encode_to_vec();
            let is_chosen = |id: u64| chosen >> (id % 64) & 1 == 1;
            let at = |id: u64| request.windows(8).position(|window| window == id.to_be_bytes()).unwrap();
            let mut fields = Vec::new();
            put_bytes(&mut fields, Tag::bytes(3), b"a=b");
            let spans: Vec<(u32, Vec<u8>)> = (1..=id).filter(|id| is_chosen(*id)).map(|id| (u32::try_from(at(id)).unwrap(), fields.clone())).collect();
            for (index, span) in wanted.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans).flat_map(|scope| &mut scope.spans).enumerate() {
                if is_chosen(index as u64 + 1) {
                    span.trace_state = "a=b".to_owned();
                }
            }
            let edited = with_appended(&request, &spans).unwrap();
            prop_assert_eq!(ExportTraceServiceRequest::decode(&edited[..]).unwrap(), wanted);
        }
    }
}
