//! Requests for the tests of this room.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event},
};
use prost::Message;

pub(crate) const SECOND: u64 = 1_000_000_000;
/// Some day in 2023.
pub(crate) const START: u64 = 1_700_000_000 * SECOND;

pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub(crate) fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

/// A span of kind CLIENT; `id` makes its ids.
pub(crate) fn call(id: u64, start: u64, end: u64, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: [id.to_be_bytes(), id.to_be_bytes()].concat(),
        span_id: id.to_be_bytes().to_vec(),
        kind: 3,
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes,
        ..Span::default()
    }
}

pub(crate) fn failed(mut span: Span) -> Span {
    span.status = Some(Status { code: 2, ..Status::default() });
    span
}

pub(crate) fn transition(at: u64, from: &str, to: &str) -> Event {
    Event {
        time_unix_nano: at,
        name: "circuit_breaker_transition".to_owned(),
        attributes: vec![text("from_state", from), text("to_state", to)],
        ..Event::default()
    }
}

pub(crate) fn request(service: &str, instance: &str, spans: Vec<Span>) -> Vec<u8> {
    let resource = Resource { attributes: vec![text("service.name", service), text("service.instance.id", instance)], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }] }
        .encode_to_vec()
}
