//! One walk over a serialised `ExportTraceServiceRequest` that was checked at the door.

use super::{
    value::ANY_VALUE_FIELDS,
    wire::{Malformed, Reader, Tag},
};

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
    /// 8 bytes; empty for the first span of a trace, also where a sender wrote zeros.
    pub parent_span_id: &'a [u8],
    /// What it is called.
    pub name: &'a [u8],
    /// `Span.SpanKind`: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// Unix time in nanoseconds.
    pub start: u64,
    /// Unix time in nanoseconds.
    pub end: u64,
    /// `Status.StatusCode`: 0 unset, 1 ok, 2 error.
    pub status: i32,
    /// What the status says.
    pub status_message: &'a [u8],
}

impl Span<'_> {
    /// Whether trace and span id are of the right length and not all zero, as the specification asks.
    pub fn has_valid_ids(&self) -> bool {
        is_valid_id::<16>(self.trace_id) && is_valid_id::<8>(self.span_id)
    }
}

/// Whether an id is of this length and not all zero, as the specification asks.
#[inline]
pub(super) fn is_valid_id<const LENGTH: usize>(id: &[u8]) -> bool {
    id.len() == LENGTH && id.iter().any(|byte| *byte != 0)
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
    /// One event of the span that comes next.
    #[inline]
    fn event(&mut self, event: Event<'a>) {
        let _ = event;
    }
    /// A span is complete.
    fn span(&mut self, span: &Span<'a>);
}

const FIRST: Tag = Tag::bytes(1);
const SECOND: Tag = Tag::bytes(2);

/// Walks a request. What nobody is shown is passed over and not looked into: [`check`](fn@super::check) has done so.
///
/// # Errors
/// The bytes are no such message, as far as they were read. What the visitor was shown until then must be forgotten.
pub fn walk<'a>(request: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<(), Malformed> {
    let mut reader = Reader::new(request);
    while let Some(tag) = reader.tag()? {
        match tag {
            FIRST => resource_spans(reader.bytes()?, visitor)?,
            _ => reader.skip(tag, 0)?,
        }
    }
    Ok(())
}

fn resource_spans<'a>(message: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<(), Malformed> {
    visitor.resource();
    // The resource may stand behind its spans; one cheap look ahead finds it first.
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag {
            FIRST => resource(reader.bytes()?, visitor)?,
            SECOND => drop(reader.bytes()?),
            _ => reader.skip(tag, 0)?,
        }
    }
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag {
            SECOND => scope_spans(reader.bytes()?, visitor)?,
            _ => reader.skip(tag, 0)?,
        }
    }
    Ok(())
}

fn resource<'a>(message: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag {
            FIRST => {
                let (key, value) = key_value(reader.bytes()?)?;
                visitor.resource_attribute(key, value);
            }
            _ => reader.skip(tag, 0)?,
        }
    }
    Ok(())
}

fn scope_spans<'a>(message: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag {
            SECOND => span(reader.bytes()?, visitor)?,
            _ => reader.skip(tag, 0)?,
        }
    }
    Ok(())
}

/// The fields of `Span`.
mod field {
    use super::Tag;

    pub(super) const TRACE_ID: Tag = Tag::bytes(1);
    pub(super) const SPAN_ID: Tag = Tag::bytes(2);
    pub(super) const TRACE_STATE: Tag = Tag::bytes(3);
    pub(super) const PARENT_SPAN_ID: Tag = Tag::bytes(4);
    pub(super) const NAME: Tag = Tag::bytes(5);
    pub(super) const KIND: Tag = Tag::varint(6);
    pub(super) const START: Tag = Tag::fixed64(7);
    pub(super) const END: Tag = Tag::fixed64(8);
    pub(super) const ATTRIBUTE: Tag = Tag::bytes(9);
    pub(super) const DROPPED_ATTRIBUTES: Tag = Tag::varint(10);
    pub(super) const EVENT: Tag = Tag::bytes(11);
    pub(super) const DROPPED_EVENTS: Tag = Tag::varint(12);
    pub(super) const LINK: Tag = Tag::bytes(13);
    pub(super) const DROPPED_LINKS: Tag = Tag::varint(14);
    pub(super) const STATUS: Tag = Tag::bytes(15);
    pub(super) const FLAGS: Tag = Tag::fixed32(16);
}

/// Reads what a span begins with where its fields ascend, as SDKs write them; nothing where they don't.
#[inline]
pub(super) fn head<'a>(span: &mut Span<'a>, reader: &mut Reader<'a>) -> Result<(), Malformed> {
    if reader.takes(field::TRACE_ID) {
        span.trace_id = reader.bytes()?;
        if reader.takes(field::SPAN_ID) {
            span.span_id = reader.bytes()?;
        }
        if reader.takes(field::PARENT_SPAN_ID) {
            span.parent_span_id = id_or_none(reader.bytes()?);
        }
        if reader.takes(field::NAME) {
            span.name = reader.bytes()?;
        }
        if reader.takes(field::KIND) {
            span.kind = enumeration(reader.varint()?);
        }
        if reader.takes(field::START) {
            span.start = reader.fixed64()?;
        }
        if reader.takes(field::END) {
            span.end = reader.fixed64()?;
        }
    }
    Ok(())
}

/// Reads what stands behind the end of a span where its fields descend, as the Collector writes them; nothing where they
/// don't.
#[inline]
fn tail<'a>(span: &mut Span<'a>, reader: &mut Reader<'a>) -> Result<(), Malformed> {
    if reader.takes(field::START) {
        span.start = reader.fixed64()?;
        if reader.takes(field::KIND) {
            span.kind = enumeration(reader.varint()?);
        }
        if reader.takes(field::NAME) {
            span.name = reader.bytes()?;
        }
        if reader.takes(field::FLAGS) {
            reader.fixed32()?;
        }
        if reader.takes(field::PARENT_SPAN_ID) {
            span.parent_span_id = id_or_none(reader.bytes()?);
        }
        if reader.takes(field::SPAN_ID) {
            span.span_id = reader.bytes()?;
        }
        if reader.takes(field::TRACE_ID) {
            span.trace_id = reader.bytes()?;
        }
    }
    Ok(())
}

fn span<'a>(message: &'a [u8], visitor: &mut impl Visitor<'a>) -> Result<(), Malformed> {
    let mut span = Span { message, ..Span::default() };
    let mut reader = Reader::new(message);
    head(&mut span, &mut reader)?;
    while let Some(tag) = reader.tag()? {
        match tag {
            field::ATTRIBUTE => loop {
                let (key, value) = key_value(reader.bytes()?)?;
                visitor.attribute(key, value);
                if !reader.takes(field::ATTRIBUTE) {
                    break;
                }
            },
            field::TRACE_ID => span.trace_id = reader.bytes()?,
            field::SPAN_ID => span.span_id = reader.bytes()?,
            field::TRACE_STATE => span.trace_state = reader.bytes()?,
            field::PARENT_SPAN_ID => span.parent_span_id = id_or_none(reader.bytes()?),
            field::NAME => span.name = reader.bytes()?,
            field::KIND => span.kind = enumeration(reader.varint()?),
            field::START => span.start = reader.fixed64()?,
            field::END => {
                span.end = reader.fixed64()?;
                tail(&mut span, &mut reader)?;
            }
            field::DROPPED_ATTRIBUTES | field::DROPPED_EVENTS | field::DROPPED_LINKS => drop(reader.varint()?),
            field::EVENT => visitor.event(event(reader.bytes()?)?),
            field::LINK => drop(reader.bytes()?),
            field::STATUS => match reader.bytes()? {
                // As some SDKs, and the Collector, write the status of each span that has none.
                [] => {}
                message => status(message, &mut span)?,
            },
            field::FLAGS => drop(reader.fixed32()?),
            _ => reader.skip(tag, 0)?,
        }
    }
    visitor.span(&span);
    Ok(())
}

/// An id; nothing where a sender writes zeros because there is none.
#[inline]
const fn id_or_none(id: &[u8]) -> &[u8] {
    match id {
        [0, 0, 0, 0, 0, 0, 0, 0] => &[],
        _ => id,
    }
}

fn event(message: &[u8]) -> Result<Event<'_>, Malformed> {
    let mut event = Event { message, without_time: message, time: 0, name: &[] };
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag {
            EVENT_TIME => {
                let before = message.len() - reader.rest().len();
                event.time = reader.fixed64()?;
                event.without_time = match (before, reader.rest()) {
                    // Its tag is one byte.
                    (1, rest) => rest,
                    (_, []) => message.get(..before - 1).unwrap_or_default(),
                    _ => message,
                };
            }
            EVENT_NAME => event.name = reader.bytes()?,
            EVENT_ATTRIBUTE => drop(reader.bytes()?),
            _ => reader.skip(tag, 0)?,
        }
    }
    Ok(event)
}

fn status<'a>(message: &'a [u8], span: &mut Span<'a>) -> Result<(), Malformed> {
    const CODE: Tag = Tag::varint(3);
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag {
            CODE => span.status = enumeration(reader.varint()?),
            SECOND => span.status_message = reader.bytes()?,
            _ => reader.skip(tag, 0)?,
        }
    }
    Ok(())
}

/// An enumeration is an `int32`, of which only the low half travels.
#[expect(clippy::cast_possible_truncation, reason = "so reads every protobuf library")]
const fn enumeration(number: u64) -> i32 {
    number as i32
}

/// Key, and value as a serialised `AnyValue`. Of a value that is written twice, the last that holds anything counts.
#[inline]
fn key_value(message: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    plain_key_value(message).map_or_else(|| any_key_value(message), Ok)
}

/// Key and value where there is nothing else, and both have a length of one byte, as nearly everybody writes it: SDKs the
/// key first, the Collector the value.
#[inline]
pub(super) fn plain_key_value(message: &[u8]) -> Option<(&[u8], &[u8])> {
    const KEY: u8 = 1 << 3 | 2;
    const VALUE: u8 = 2 << 3 | 2;
    let [first_tag, length @ 0..0x80, rest @ ..] = message else { return None };
    let (first, [second_tag, second_length @ 0..0x80, second @ ..]) = rest.split_at_checked(usize::from(*length))? else { return None };
    if second.len() != usize::from(*second_length) {
        return None;
    }
    match (*first_tag, *second_tag) {
        (KEY, VALUE) => Some((first, second)),
        (VALUE, KEY) => Some((second, first)),
        _ => None,
    }
}

#[inline(never)]
fn any_key_value(message: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut key, mut value) = (&[][..], &[][..]);
    let mut reader = Reader::new(message);
    while let Some(tag) = reader.tag()? {
        match tag {
            FIRST => key = reader.bytes()?,
            SECOND => {
                let next = reader.bytes()?;
                if value.is_empty() || holds_anything(next) {
                    value = next;
                }
            }
            _ => reader.skip(tag, 0)?,
        }
    }
    Ok((key, value))
}

/// Whether a serialised `AnyValue` sets a value.
fn holds_anything(any_value: &[u8]) -> bool {
    let mut reader = Reader::new(any_value);
    while let Ok(Some(tag)) = reader.tag() {
        if tag.field() <= ANY_VALUE_FIELDS || reader.skip(tag, 0).is_err() {
            return true;
        }
    }
    false
}

const EVENT_TIME: Tag = Tag::fixed64(1);
const EVENT_NAME: Tag = Tag::bytes(2);
const EVENT_ATTRIBUTE: Tag = Tag::bytes(3);

/// An event of a span; its attributes are read where somebody wants to know.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    message: &'a [u8],
    without_time: &'a [u8],
    /// Unix time in nanoseconds.
    pub time: u64,
    /// Its name.
    pub name: &'a [u8],
}

impl<'a> Event<'a> {
    /// All of it, serialised, but for its time, where that stands first or last, as everybody writes it: two events that
    /// are equal here say the same.
    #[inline]
    pub fn without_time(&self) -> &'a [u8] {
        self.without_time
    }

    /// Shows every attribute: key and serialised `AnyValue`.
    pub fn attributes(self, mut visit: impl FnMut(&'a [u8], &'a [u8])) {
        let mut reader = Reader::new(self.message);
        while let Ok(Some(tag)) = reader.tag() {
            let read = match tag {
                EVENT_ATTRIBUTE => reader.bytes().and_then(key_value).map(|(key, value)| visit(key, value)),
                _ => reader.skip(tag, 0),
            };
            if read.is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::{KeyValue, any_value},
    };
    use proptest::{collection::vec, prelude::*};
    use prost::Message;

    use super::*;
    use crate::otlp::{
        Signal, Value,
        shape::{self, testing::descending},
        wire::{field, put_varint},
    };

    /// What was read of a request, by whichever reader: resource attributes, then a line a span.
    #[derive(Debug, Default, PartialEq)]
    struct Seen(Vec<String>);

    #[derive(Default)]
    struct Ours {
        seen: Seen,
        resource: Vec<String>,
        attributes: Vec<String>,
        events: Vec<String>,
    }

    fn shown(key: &[u8], value: Value<'_>) -> String {
        format!("{}={value:?}", String::from_utf8_lossy(key))
    }

    impl<'a> Visitor<'a> for Ours {
        fn resource(&mut self) {
            self.resource.clear();
        }
        fn resource_attribute(&mut self, key: &'a [u8], value: &'a [u8]) {
            self.resource.push(shown(key, Value::read(value)));
        }
        fn attribute(&mut self, key: &'a [u8], value: &'a [u8]) {
            self.attributes.push(shown(key, Value::read(value)));
        }
        fn event(&mut self, event: Event<'a>) {
            let Event { time, name, .. } = event;
            let mut attributes = Vec::new();
            event.attributes(|key, value| attributes.push(shown(key, Value::read(value))));
            self.events.push(format!("{time} {} {attributes:?}", String::from_utf8_lossy(name)));
        }
        fn span(&mut self, span: &Span<'a>) {
            let (attributes, events) = (std::mem::take(&mut self.attributes), std::mem::take(&mut self.events));
            let Span { trace_id, span_id, trace_state, kind, start, end, status, .. } = span;
            let trace_state = String::from_utf8_lossy(trace_state);
            self.seen
                .0
                .push(format!("{:?} {trace_id:?} {span_id:?} {trace_state} {kind} {start} {end} {status} {attributes:?} {events:?}", self.resource));
        }
    }

    fn ours(request: &[u8]) -> Result<Seen, Malformed> {
        let mut ours = Ours::default();
        walk(request, &mut ours)?;
        Ok(ours.seen)
    }

    fn theirs(request: &ExportTraceServiceRequest) -> Seen {
        let value = |attribute: &KeyValue| {
            let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
            let value = match value {
                Some(any_value::Value::StringValue(text)) => Value::Text(text.as_bytes()),
                Some(any_value::Value::BoolValue(bit)) => Value::Bool(*bit),
                Some(any_value::Value::IntValue(number)) => Value::Int(*number),
                Some(any_value::Value::DoubleValue(number)) => Value::Double(*number),
                _ => Value::Other,
            };
            shown(attribute.key.as_bytes(), value)
        };
        let all = |attributes: &[KeyValue]| attributes.iter().map(value).collect::<Vec<_>>();
        let mut seen = Seen::default();
        for group in &request.resource_spans {
            let resource = group.resource.as_ref().map_or_else(Vec::new, |resource| all(&resource.attributes));
            for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
                let events: Vec<String> =
                    span.events.iter().map(|event| format!("{} {} {:?}", event.time_unix_nano, event.name, all(&event.attributes))).collect();
                let status = span.status.as_ref().map_or(0, |status| status.code);
                seen.0.push(format!(
                    "{resource:?} {:?} {:?} {} {} {} {} {status} {:?} {events:?}",
                    span.trace_id,
                    span.span_id,
                    span.trace_state,
                    span.kind,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    all(&span.attributes)
                ));
            }
        }
        seen
    }

    fn number() -> BoxedStrategy<Vec<u8>> {
        prop_oneof![0..5_u64, any::<u64>()]
            .prop_map(|number| {
                let mut out = Vec::new();
                put_varint(&mut out, number);
                out
            })
            .boxed()
    }

    fn text() -> BoxedStrategy<Vec<u8>> {
        prop_oneof![Just(Vec::new()), "[a-z.é]{0,20}".prop_map(String::into_bytes), vec(97..122_u8, 120..140)].boxed()
    }

    /// A message of such fields: repeated, in any order, with unknown ones and now and then a known one of another type.
    fn message(known: Vec<(u32, u32, BoxedStrategy<Vec<u8>>)>) -> BoxedStrategy<Vec<u8>> {
        let good = known.into_iter().map(|(number, layout, content)| content.prop_map(move |content| field(number, layout, &content)).boxed());
        let good = proptest::strategy::Union::new(good);
        let unknown = prop_oneof![
            (90..3000_u32, number()).prop_map(|(at, content)| field(at, 0, &content)),
            (90..3000_u32, text()).prop_map(|(at, content)| field(at, 2, &content)),
            (90..3000_u32, any::<[u8; 8]>()).prop_map(|(at, content)| field(at, 1, &content)),
            (90..3000_u32, number()).prop_map(|(at, content)| [field(at, 3, &field(1, 0, &content)), field(at, 4, &[])].concat()),
            (1..17_u32, number()).prop_map(|(at, content)| field(at, 0, &content)),
        ];
        vec(prop_oneof![40 => good, 1 => unknown], 0..8).prop_map(|fields| fields.concat()).boxed()
    }

    fn fixed64() -> BoxedStrategy<Vec<u8>> {
        any::<[u8; 8]>().prop_map(Vec::from).boxed()
    }

    fn attribute() -> BoxedStrategy<Vec<u8>> {
        let list = message(vec![(1, 2, Just(Vec::new()).boxed())]);
        let any_value = message(vec![(1, 2, text()), (2, 0, number()), (3, 0, number()), (4, 1, fixed64()), (5, 2, list), (7, 2, text())]);
        message(vec![(1, 2, text()), (2, 2, any_value)])
    }

    fn request() -> BoxedStrategy<Vec<u8>> {
        let event = message(vec![(1, 1, fixed64()), (2, 2, text()), (3, 2, attribute()), (4, 0, number())]);
        let link =
            message(vec![(1, 2, text()), (2, 2, text()), (3, 2, text()), (4, 2, attribute()), (5, 0, number()), (6, 5, vec(any::<u8>(), 4).boxed())]);
        let status = message(vec![(2, 2, text()), (3, 0, number())]);
        let ids = vec(any::<u8>(), 0..18).boxed();
        let span = message(vec![
            (1, 2, ids.clone()),
            (2, 2, ids.clone()),
            (3, 2, text()),
            (4, 2, ids),
            (5, 2, text()),
            (6, 0, number()),
            (7, 1, fixed64()),
            (8, 1, fixed64()),
            (9, 2, attribute()),
            (10, 0, number()),
            (11, 2, event),
            (13, 2, link),
            (15, 2, status),
            (16, 5, vec(any::<u8>(), 4).boxed()),
        ]);
        let scope = message(vec![(1, 2, text()), (2, 2, text()), (3, 2, attribute()), (4, 0, number())]);
        let scope_spans = message(vec![(1, 2, scope), (2, 2, span), (3, 2, text())]);
        let resource = message(vec![(1, 2, attribute()), (2, 0, number())]);
        message(vec![(1, 2, message(vec![(1, 2, resource), (2, 2, scope_spans), (3, 2, text())]))])
    }

    proptest! {
        /// What prost accepts, we read equally.
        #[test]
        fn reads_what_prost_reads(request in request()) {
            if let Ok(decoded) = ExportTraceServiceRequest::decode(&*request) {
                prop_assert_eq!(ours(&request), Ok(theirs(&decoded)));
            }
        }

        /// The same where bytes were changed or cut off on the way.
        #[test]
        fn reads_what_prost_reads_of_broken_requests(request in request(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
            let mut request = request;
            if !request.is_empty() {
                let at = at.index(request.len());
                request[at] = byte;
                if cut {
                    request.truncate(at);
                }
            }
            // What it refuses does not come this far.
            if let Ok(decoded) = ExportTraceServiceRequest::decode(&*request) {
                prop_assert_eq!(ours(&request), Ok(theirs(&decoded)));
            }
        }

        /// SDKs write the fields of a message in ascending order, the Collector in descending order.
        #[test]
        fn reads_the_same_in_descending_order(request in request()) {
            if ExportTraceServiceRequest::decode(&*request).is_ok() {
                prop_assert_eq!(ours(&descending(shape::request(Signal::Traces), &request)), ours(&request));
            }
        }
    }

    #[test]
    fn requests_of_sdks_read_the_same_in_descending_order() {
        for recording in
            [include_bytes!("../../tests/testdata/corpus/python.bin").as_slice(), include_bytes!("../../tests/testdata/corpus/node.bin").as_slice()]
        {
            let (length, rest) = recording.split_first_chunk::<4>().unwrap();
            let request = &rest[..u32::from_be_bytes(*length) as usize];
            let turned = descending(shape::request(Signal::Traces), request);
            assert_ne!(turned, request);
            assert_eq!(ours(&turned), ours(request));
            assert_eq!(descending(shape::request(Signal::Traces), &turned), turned);
        }
    }

    #[test]
    fn attributes_are_found_at_once_in_either_order() {
        let (key, value) = (field(1, 2, b"key"), field(2, 2, &field(1, 2, b"value")));
        let found = Some((&b"key"[..], &value[2..]));
        assert_eq!(plain_key_value(&[&key[..], &value].concat()), found);
        assert_eq!(plain_key_value(&[&value[..], &key].concat()), found);
        for other in [b"".as_slice(), &key, &value, &[&key[..], &key].concat(), &[&key[..], &value, &field(3, 0, &[1])].concat()] {
            assert_eq!(plain_key_value(other), None, "{other:x?}");
        }
    }

    #[test]
    fn events_that_differ_in_their_time_alone_say_the_same() {
        let told = [field(2, 2, b"exception"), field(3, 2, &[field(1, 2, b"exception.type"), field(2, 2, &field(1, 2, b"E"))].concat())].concat();
        let time = |time: u64| field(1, 1, &time.to_le_bytes());
        for (order, at) in [("first", 5), ("last", 5), ("first", 6), ("last", 6)] {
            let message = if order == "first" { [time(at), told.clone()].concat() } else { [told.clone(), time(at)].concat() };
            let event = event(&message).unwrap();
            assert_eq!((event.time, event.without_time()), (at, &told[..]), "{order}");
        }
        let alone = time(5);
        assert_eq!(event(&alone).unwrap().without_time(), b"");
        let within = [&told[..], &time(5), &told].concat();
        assert_eq!(event(&within).unwrap().without_time(), within);
    }
}
