//! Traces as Jaeger's interface and its page give them for download.
//!
//! Source: <https://github.com/jaegertracing/jaeger/blob/main/internal/uimodel/model.go>; what becomes of tags is as in
//! the Collector's translator:
//! <https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/pkg/translator/jaeger>.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link, SpanKind},
        status::StatusCode,
    },
};
use prost::Message as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{
    JsonError,
    read::{put_base64, put_hex},
    without_bom,
};

/// The requests of OTLP, in protobuf, that hold the traces of a download: one a trace, in order of their ends.
///
/// # Errors
/// It is no download of Jaeger.
pub fn from_jaeger(json: &[u8]) -> Result<Vec<Vec<u8>>, JsonError> {
    let Download { data, spans, processes } = serde_json::from_slice(without_bom(json)).map_err(|error| JsonError::Jaeger(error.to_string()))?;
    let mut requests: Vec<(u64, Vec<u8>)> =
        data.into_iter().chain([JaegerTrace { spans, processes }]).filter(|trace| !trace.spans.is_empty()).map(request).collect();
    requests.sort_by_key(|(newest_end, _)| *newest_end);
    Ok(requests.into_iter().map(|(_, request)| request).collect())
}

#[derive(Deserialize)]
struct Download {
    #[serde(default, deserialize_with = "or_none")]
    data: Vec<JaegerTrace>,
    /// Of one trace that stands alone.
    #[serde(default, deserialize_with = "or_none")]
    spans: Vec<JaegerSpan>,
    #[serde(default, deserialize_with = "or_none")]
    processes: BTreeMap<String, JaegerProcess>,
}

#[derive(Deserialize)]
struct JaegerTrace {
    #[serde(default, deserialize_with = "or_none")]
    spans: Vec<JaegerSpan>,
    #[serde(default, deserialize_with = "or_none")]
    processes: BTreeMap<String, JaegerProcess>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JaegerProcess {
    #[serde(default)]
    service_name: String,
    #[serde(default, deserialize_with = "or_none")]
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JaegerSpan {
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
    #[serde(rename = "parentSpanID", default)]
    parent_span_id: String,
    #[serde(default)]
    operation_name: String,
    #[serde(default, deserialize_with = "or_none")]
    references: Vec<Reference>,
    /// Unix time in microseconds.
    start_time: u64,
    /// In microseconds.
    duration: u64,
    #[serde(default, deserialize_with = "or_none")]
    tags: Vec<Tag>,
    #[serde(default, deserialize_with = "or_none")]
    logs: Vec<Log>,
    #[serde(rename = "processID", default)]
    process_id: String,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "refType", default)]
    kind: String,
    #[serde(rename = "traceID")]
    trace_id: String,
    #[serde(rename = "spanID")]
    span_id: String,
}

#[derive(Deserialize)]
struct Log {
    /// Unix time in microseconds.
    timestamp: u64,
    #[serde(default, deserialize_with = "or_none")]
    fields: Vec<Tag>,
}

#[derive(Deserialize)]
struct Tag {
    key: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    value: Value,
}

/// `null` is an empty list: so Go writes it.
fn or_none<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A trace as a request, and its newest end.
fn request(trace: JaegerTrace) -> (u64, Vec<u8>) {
    let JaegerTrace { spans, mut processes } = trace;
    let mut newest_end = 0;
    let mut by_process: BTreeMap<String, Vec<Span>> = BTreeMap::new();
    for span in spans {
        let process = span.process_id.clone();
        let span = span_of(span);
        newest_end = newest_end.max(span.end_time_unix_nano);
        by_process.entry(process).or_default().push(span);
    }
    let resource_spans = by_process.into_iter().map(|(id, spans)| ResourceSpans {
        resource: processes.remove(&id).map(resource),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    });
    (newest_end, ExportTraceServiceRequest { resource_spans: resource_spans.collect() }.encode_to_vec())
}

fn resource(process: JaegerProcess) -> Resource {
    let service = Tag { key: "service.name".to_owned(), kind: "string".to_owned(), value: process.service_name.into() };
    let tags = process.tags.into_iter().map(|mut tag| {
        // What Jaeger's own clients say of the machine.
        if tag.key == "hostname" {
            tag.key = "host.name".to_owned();
        }
        tag
    });
    Resource { attributes: [service].into_iter().chain(tags).map(attribute).collect(), ..Resource::default() }
}

fn span_of(span: JaegerSpan) -> Span {
    let parent = parent(&span);
    let parent_span_id = parent.map_or(span.parent_span_id.as_str(), |at| span.references.get(at).map_or("", |parent| parent.span_id.as_str()));
    let links = span.references.iter().enumerate().filter(|(at, _)| Some(*at) != parent).map(|(_, other)| Link {
        trace_id: id(&other.trace_id, 16),
        span_id: id(&other.span_id, 8),
        ..Link::default()
    });
    let mut found = Span {
        trace_id: id(&span.trace_id, 16),
        span_id: id(&span.span_id, 8),
        parent_span_id: id(parent_span_id, 8),
        links: links.collect(),
        name: span.operation_name,
        start_time_unix_nano: nanos(span.start_time),
        end_time_unix_nano: nanos(span.start_time.saturating_add(span.duration)),
        events: span.logs.into_iter().map(event).collect(),
        ..Span::default()
    };
    let mut status = Status::default();
    for tag in span.tags {
        match (tag.key.as_str(), tag.text()) {
            ("span.kind", Some(kind)) => found.kind = kind_of(kind).into(),
            ("w3c.tracestate", Some(state)) => state.clone_into(&mut found.trace_state),
            ("otel.status_code", Some("ERROR")) => status.set_code(StatusCode::Error),
            ("otel.status_code", Some("OK")) => status.set_code(StatusCode::Ok),
            ("otel.status_description", Some(text)) => text.clone_into(&mut status.message),
            // A status of OpenTelemetry, which may stand before or behind it, says more.
            ("error", _) if tag.is_true() => {
                if status.code() == StatusCode::Unset {
                    status.set_code(StatusCode::Error);
                }
            }
            _ => found.attributes.push(attribute(tag)),
        }
    }
    found.status = (status != Status::default()).then_some(status);
    found
}

/// Which of a span's references is its parent: of its own trace the one it is a child of, else the one it follows.
fn parent(span: &JaegerSpan) -> Option<usize> {
    let of_kind = |kind: &str| span.references.iter().position(|other| other.kind == kind && other.trace_id == span.trace_id);
    of_kind("CHILD_OF").or_else(|| of_kind("FOLLOWS_FROM"))
}

fn event(log: Log) -> Event {
    let mut event = Event { time_unix_nano: nanos(log.timestamp), ..Event::default() };
    for field in log.fields {
        match field.text() {
            Some(name) if field.key == "event" => name.clone_into(&mut event.name),
            _ => event.attributes.push(attribute(field)),
        }
    }
    event
}

fn kind_of(kind: &str) -> SpanKind {
    match kind {
        "client" => SpanKind::Client,
        "server" => SpanKind::Server,
        "producer" => SpanKind::Producer,
        "consumer" => SpanKind::Consumer,
        "internal" => SpanKind::Internal,
        _ => SpanKind::Unspecified,
    }
}

impl Tag {
    fn text(&self) -> Option<&str> {
        self.value.as_str()
    }

    fn is_true(&self) -> bool {
        self.value == Value::Bool(true) || self.text() == Some("true")
    }

    /// As its type says; what does not fit it stays what it is in JSON.
    fn typed(self) -> any_value::Value {
        let parsed = match (self.kind.as_str(), self.text()) {
            ("int64", Some(text)) => text.parse().ok().map(any_value::Value::IntValue),
            ("float64", Some(text)) => text.parse().ok().map(any_value::Value::DoubleValue),
            ("float64", None) => self.value.as_f64().map(any_value::Value::DoubleValue),
            ("bool", Some(text)) => text.parse().ok().map(any_value::Value::BoolValue),
            ("binary", Some(text)) => {
                let mut bytes = Vec::new();
                put_base64(&mut bytes, text).then_some(any_value::Value::BytesValue(bytes))
            }
            _ => None,
        };
        parsed.unwrap_or_else(|| match self.value {
            Value::String(text) => any_value::Value::StringValue(text),
            Value::Bool(truth) => any_value::Value::BoolValue(truth),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => any_value::Value::IntValue(whole),
                None => any_value::Value::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
            },
            other => any_value::Value::StringValue(other.to_string()),
        })
    }
}

fn attribute(mut tag: Tag) -> KeyValue {
    let key = std::mem::take(&mut tag.key);
    KeyValue { key, value: Some(AnyValue { value: Some(tag.typed()) }), ..KeyValue::default() }
}

const fn nanos(micros: u64) -> u64 {
    micros.saturating_mul(1000)
}

/// An id of so many bytes, before which Jaeger may leave out zeros; empty if it is none, and so no valid one.
fn id(digits: &str, bytes: usize) -> Vec<u8> {
    let mut id = Vec::with_capacity(bytes);
    let padded = format!("{digits:0>width$}", width = 2 * bytes);
    if digits.is_empty() || padded.len() != 2 * bytes || !put_hex(&mut id, &padded) {
        id.clear();
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Abridged from what Jaeger 1.76 gives, with a trace of its own client behind.
    const DOWNLOAD: &str = r#"{"data":[
        {"traceID":"00000000000000000000000000000abc","spans":[{"traceID":"abc","spanID":"1","operationName":"late","references":[],
            "startTime":1795000009000000,"duration":1000,"tags":[{"key":"error","type":"string","value":"true"}],"logs":null,"processID":"p1","warnings":null}],
         "processes":{"p1":{"serviceName":"old","tags":[{"key":"hostname","type":"string","value":"h1"}]}},"warnings":null},
        {"traceID":"0102030405060708090a0b0c0d0e0f10","spans":[{"traceID":"0102030405060708090a0b0c0d0e0f10","spanID":"0102030405060708","flags":1,
            "operationName":"GET","references":[
                {"refType":"FOLLOWS_FROM","traceID":"0102030405060708090a0b0c0d0e0f10","spanID":"00000000000000aa"},
                {"refType":"CHILD_OF","traceID":"0102030405060708090a0b0c0d0e0f10","spanID":"00000000000000bb"}],
            "startTime":1795000000000001,"duration":5000,
            "tags":[{"key":"span.kind","type":"string","value":"client"},{"key":"error","type":"bool","value":true},
                {"key":"otel.status_code","type":"string","value":"ERROR"},{"key":"otel.status_description","type":"string","value":"no"},
                {"key":"w3c.tracestate","type":"string","value":"ot=th:8"},
                {"key":"server.port","type":"int64","value":80},{"key":"big","type":"int64","value":"9223372036854775807"},
                {"key":"ratio","type":"float64","value":1},{"key":"sampled","type":"bool","value":false},{"key":"raw","type":"binary","value":"AQI="}],
            "logs":[{"timestamp":1795000000000002,"fields":[{"key":"event","type":"string","value":"exception"},
                {"key":"exception.type","type":"string","value":"E"}]}],
            "processID":"p1","warnings":null}],
         "processes":{"p1":{"serviceName":"shop","tags":[{"key":"service.instance.id","type":"string","value":"i-1"}]}},"warnings":null}
    ],"total":0,"limit":0,"offset":0,"errors":null}"#;

    fn read(json: &str) -> Vec<ResourceSpans> {
        let requests = from_jaeger(json.as_bytes()).unwrap();
        requests.iter().flat_map(|request| ExportTraceServiceRequest::decode(&**request).unwrap().resource_spans).collect()
    }

    fn text(key: &str, value: &str) -> KeyValue {
        attribute(Tag { key: key.to_owned(), kind: "string".to_owned(), value: value.into() })
    }

    #[test]
    fn a_download_becomes_the_requests_it_was() {
        let found = read(DOWNLOAD);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].resource.as_ref().unwrap().attributes, [text("service.name", "shop"), text("service.instance.id", "i-1")]);
        let whole = |key: &str, value| KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() };
        let expected = Span {
            trace_id: (1..=16).collect(),
            span_id: (1..=8).collect(),
            parent_span_id: vec![0, 0, 0, 0, 0, 0, 0, 0xbb],
            trace_state: "ot=th:8".to_owned(),
            name: "GET".to_owned(),
            kind: 3,
            start_time_unix_nano: 1_795_000_000_000_001_000,
            end_time_unix_nano: 1_795_000_000_005_001_000,
            attributes: vec![
                whole("server.port", any_value::Value::IntValue(80)),
                whole("big", any_value::Value::IntValue(i64::MAX)),
                whole("ratio", any_value::Value::DoubleValue(1.0)),
                whole("sampled", any_value::Value::BoolValue(false)),
                whole("raw", any_value::Value::BytesValue(vec![1, 2])),
            ],
            events: vec![Event {
                time_unix_nano: 1_795_000_000_000_002_000,
                name: "exception".to_owned(),
                attributes: vec![text("exception.type", "E")],
                ..Event::default()
            }],
            links: vec![Link { trace_id: (1..=16).collect(), span_id: vec![0, 0, 0, 0, 0, 0, 0, 0xaa], ..Link::default() }],
            status: Some(Status { message: "no".to_owned(), code: 2 }),
            ..Span::default()
        };
        assert_eq!(found[0].scope_spans[0].spans, [expected]);
        let late = &found[1].scope_spans[0].spans[0];
        assert_eq!((late.trace_id.len(), late.span_id.len(), late.status.as_ref().unwrap().code), (16, 8, 2));
        assert_eq!(found[1].resource.as_ref().unwrap().attributes[1], text("host.name", "h1"));
    }

    #[test]
    fn one_trace_may_stand_alone_and_a_status_of_opentelemetry_says_more_than_a_tag() {
        let span = |tags: &str| {
            format!(
                r#"{{"traceID":"1","processes":{{}},"spans":[{{"traceID":"1","spanID":"2","parentSpanID":"3","startTime":1,"duration":2,"tags":[{tags}]}}]}}"#
            )
        };
        let [error, ok] = [r#"{"key":"error","value":true}"#, r#"{"key":"otel.status_code","value":"OK"}"#];
        for (tags, code) in
            [(error.to_owned(), Some(2)), (format!("{error},{ok}"), Some(1)), (format!("{ok},{error}"), Some(1)), (String::new(), None)]
        {
            let found = read(&span(&tags));
            let found = &found[0].scope_spans[0].spans[0];
            assert_eq!((found.status.as_ref().map(|status| status.code), found.parent_span_id.last()), (code, Some(&3)), "{tags}");
        }
    }

    #[test]
    fn what_is_no_download_is_told() {
        for (json, why) in [(r#"{"data":7}"#, "invalid type"), (r#"{"data":[{"spans":[{"spanID":"1"}]}]}"#, "missing field `traceID`")] {
            let told = from_jaeger(json.as_bytes()).unwrap_err().to_string();
            assert!(told.starts_with("invalid JSON of Jaeger: ") && told.contains(why), "{told}");
        }
        assert!(from_jaeger(br#"{"data":[]}"#).unwrap().is_empty());
    }
}
