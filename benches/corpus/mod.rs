//! Requests as real SDKs sent them, cut to size. Ids and times are changed in place before a request is used again:
//! else our own rules would call it late and sent twice.

use fuseboard::otlp::{
    trace::{Span, Visitor, walk},
    wire::{Reader, put_bytes},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans},
};
use prost::Message;

/// The recordings in `tests/testdata/corpus`.
pub(crate) const LANGUAGES: [(&str, &[u8]); 4] = [
    ("python", include_bytes!("../../tests/testdata/corpus/python.bin")),
    ("node", include_bytes!("../../tests/testdata/corpus/node.bin")),
    ("go", include_bytes!("../../tests/testdata/corpus/go.bin")),
    ("java", include_bytes!("../../tests/testdata/corpus/java.bin")),
];

/// A request whose ids and times can be changed in place.
#[derive(Clone)]
pub(crate) struct Template {
    pub(crate) bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where, in a request, a span's ids and times are.
#[derive(Clone, Copy)]
struct Place {
    trace_id: usize,
    span_id: usize,
    start: usize,
    end: usize,
    duration: u64,
}

/// The messages within a message, by field number.
struct Nested(&'static [(u32, &'static Self)]);

const FLAT: Nested = Nested(&[]);
const EVENT: Nested = Nested(&[(3, &FLAT)]);
const LINK: Nested = Nested(&[(4, &FLAT)]);
const SPAN: Nested = Nested(&[(9, &FLAT), (11, &EVENT), (13, &LINK), (15, &FLAT)]);
const SCOPE: Nested = Nested(&[(3, &FLAT)]);
const SCOPE_SPANS: Nested = Nested(&[(1, &SCOPE), (2, &SPAN)]);
const RESOURCE: Nested = Nested(&[(1, &FLAT)]);
const RESOURCE_SPANS: Nested = Nested(&[(1, &RESOURCE), (2, &SCOPE_SPANS)]);
const REQUEST: Nested = Nested(&[(1, &RESOURCE_SPANS)]);

/// The same message, and all in it, with fields in descending order of their numbers; those of one number stay in order.
fn turned(nested: &Nested, message: &[u8]) -> Vec<u8> {
    let mut fields = Vec::new();
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag().unwrap() {
        let mut field = Vec::new();
        let inner = nested.0.iter().find(|(number, _)| *number == tag.field());
        if let Some((_, inner)) = inner {
            put_bytes(&mut field, tag, &turned(inner, reader.bytes().unwrap()));
        } else {
            // The tag's own bytes stand before what is left.
            let before = message.len() - reader.rest().len() - if tag.field() < 16 { 1 } else { 2 };
            reader.skip(tag, 0).unwrap();
            field.extend_from_slice(&message[before..message.len() - reader.rest().len()]);
        }
        fields.push((tag.field(), field));
    }
    fields.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    fields.into_iter().flat_map(|(_, field)| field).collect()
}

impl Template {
    /// The same as the Collector would write it: the fields of each message in descending order.
    pub(crate) fn descending(&self) -> Self {
        Self::of(turned(&REQUEST, &self.bytes))
    }

    /// Spans in it.
    pub(crate) fn spans(&self) -> usize {
        self.places.len()
    }

    /// The same twice in one request: one behind the other is one request too.
    pub(crate) fn doubled(self) -> Self {
        Self::of(self.bytes.repeat(2))
    }

    /// Makes the spans new ones that ended one after the other, `apart` nanoseconds each, the first at `end`.
    pub(crate) fn renew(&mut self, seed: u64, end: u64, apart: u64) {
        for (number, place) in self.places.iter().enumerate() {
            let number = number as u64;
            let id = (seed << 20 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let end = end + number * apart;
            self.bytes[place.trace_id..place.trace_id + 8].copy_from_slice(&id.to_le_bytes());
            self.bytes[place.span_id..place.span_id + 8].copy_from_slice(&id.to_le_bytes());
            self.bytes[place.start..place.start + 8].copy_from_slice(&(end - place.duration).to_le_bytes());
            self.bytes[place.end..place.end + 8].copy_from_slice(&end.to_le_bytes());
        }
    }
}

/// Requests of exactly so many spans each, from one recording.
pub(crate) fn templates(recording: &[u8], spans: usize) -> Vec<Template> {
    let mut cut = Vec::new();
    let mut current = ExportTraceServiceRequest::default();
    let mut held = 0;
    for body in bodies(recording) {
        for resource_spans in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            for scope_spans in &resource_spans.scope_spans {
                for span in scope_spans.spans.clone() {
                    let group = ScopeSpans { scope: scope_spans.scope.clone(), spans: vec![span], schema_url: scope_spans.schema_url.clone() };
                    let resource = resource_spans.resource.clone();
                    push(&mut current, ResourceSpans { resource, scope_spans: Vec::new(), schema_url: resource_spans.schema_url.clone() }, group);
                    held += 1;
                    if held == spans {
                        cut.push(Template::of(std::mem::take(&mut current).encode_to_vec()));
                        held = 0;
                    }
                }
            }
        }
    }
    cut
}

/// Adds a span behind the others of its resource and scope, as SDKs group them.
fn push(request: &mut ExportTraceServiceRequest, resource: ResourceSpans, group: ScopeSpans) {
    let into = match request.resource_spans.last_mut() {
        Some(last) if last.resource == resource.resource => last,
        _ => {
            request.resource_spans.push(resource);
            request.resource_spans.last_mut().unwrap()
        }
    };
    match into.scope_spans.iter_mut().find(|other| other.scope == group.scope) {
        Some(same) => same.spans.extend(group.spans),
        None => into.scope_spans.push(group),
    }
}

fn bodies(mut recording: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = recording.split_first_chunk::<4>()?;
        let (body, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        recording = rest;
        Some(body)
    })
}

impl Template {
    fn of(bytes: Vec<u8>) -> Self {
        struct Places {
            base: usize,
            found: Vec<Place>,
        }
        impl Visitor<'_> for Places {
            fn span(&mut self, span: &Span<'_>) {
                let at = |slice: &[u8]| slice.as_ptr() as usize - self.base;
                // A tag, then eight bytes, little endian.
                let time = |tag: u8, value: u64| {
                    let field = [&[tag][..], &value.to_le_bytes()].concat();
                    at(span.message) + span.message.windows(9).position(|nine| nine == field).unwrap() + 1
                };
                let (start, end) = (time(0x39, span.start), time(0x41, span.end));
                self.found.push(Place { trace_id: at(span.trace_id), span_id: at(span.span_id), start, end, duration: span.end - span.start });
            }
        }
        let mut places = Places { base: bytes.as_ptr() as usize, found: Vec::new() };
        walk(&bytes, &mut places).unwrap();
        let places = places.found;
        Self { bytes, places }
    }
}
