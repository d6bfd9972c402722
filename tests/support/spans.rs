//! Spans as SDKs write them, made to order.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// A CLIENT span that ended then and took 10 ms.
pub(crate) fn call(id: u64, end: u64, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: (id | 1 << 60).to_be_bytes().repeat(2),
        span_id: (id | 1 << 60).to_be_bytes().to_vec(),
        name: format!("call {id}"),
        kind: 3,
        start_time_unix_nano: end - SECOND / 100,
        end_time_unix_nano: end,
        attributes,
        ..Span::default()
    }
}

/// A call to this callee that was answered with this status.
pub(crate) fn call_to(callee: &str, id: u64, end: u64, status: &str) -> Span {
    call(id, end, vec![attribute("server.address", callee), attribute("http.response.status_code", status)])
}

/// Spans of one process.
pub(crate) fn request(service: &str, instance: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let attributes = vec![attribute("service.name", service), attribute("service.instance.id", instance)];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] }
}

pub(crate) fn bytes(request: &ExportTraceServiceRequest) -> Vec<u8> {
    request.encode_to_vec()
}

/// Now, as Unix time in nanoseconds.
pub(crate) fn now() -> u64 {
    use fuseboard::clock::{Clock, Wall};
    Wall.now()
}
