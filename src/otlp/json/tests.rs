//! Both directions, held against the published messages with arbitrary requests.

use std::fmt::Debug;

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar::Value as ExemplarValue, exponential_histogram_data_point::Buckets,
        metric::Data, number_data_point::Value as PointValue, summary_data_point::ValueAtQuantile,
    },
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};
use proptest::{collection::vec, option, prelude::*, sample::Index, strategy::Union};
use serde::de::DeserializeOwned;

use super::{
    from_protobuf,
    schema::{Kind, Layout, Message, Number, Text, request},
    to_protobuf,
};
use crate::otlp::{
    Signal,
    wire::{self, put_varint},
};

fn text() -> BoxedStrategy<String> {
    prop_oneof![Just(String::new()), ".{0,8}"].boxed()
}

fn id() -> BoxedStrategy<Vec<u8>> {
    vec(any::<u8>(), 0..3).boxed()
}

fn wide() -> BoxedStrategy<u64> {
    prop_oneof![Just(0_u64), 1..300_u64, any::<u64>()].boxed()
}

fn narrow() -> BoxedStrategy<u32> {
    prop_oneof![Just(0_u32), any::<u32>()].boxed()
}

fn signed() -> BoxedStrategy<i32> {
    prop_oneof![Just(0_i32), -3..4_i32, any::<i32>()].boxed()
}

/// All but infinities and NaN, which not every reader of the published messages takes.
fn double() -> BoxedStrategy<f64> {
    prop_oneof![Just(0.0_f64), (-1000..1000_i32).prop_map(f64::from), any::<f64>()].boxed()
}

/// Without references into tables of strings, which the published reader does not know.
fn any_value() -> BoxedStrategy<AnyValue> {
    let flat = prop_oneof![
        text().prop_map(Value::StringValue),
        any::<bool>().prop_map(Value::BoolValue),
        any::<i64>().prop_map(Value::IntValue),
        double().prop_map(Value::DoubleValue),
        vec(any::<u8>(), 0..5).prop_map(Value::BytesValue),
    ];
    let flat = option::of(flat).prop_map(|value| AnyValue { value });
    flat.prop_recursive(3, 16, 4, |inner| {
        let array = vec(inner.clone(), 0..4).prop_map(|values| Value::ArrayValue(ArrayValue { values }));
        let list = vec(key_value(inner), 0..4).prop_map(|values| Value::KvlistValue(KeyValueList { values }));
        prop_oneof![array, list].prop_map(|value| AnyValue { value: Some(value) })
    })
    .boxed()
}

fn key_value(value: BoxedStrategy<AnyValue>) -> BoxedStrategy<KeyValue> {
    (text(), option::of(value), signed()).prop_map(|(key, value, key_strindex)| KeyValue { key, value, key_strindex }).boxed()
}

fn attributes() -> BoxedStrategy<Vec<KeyValue>> {
    vec(key_value(any_value()), 0..3).boxed()
}

fn resource() -> BoxedStrategy<Resource> {
    let entity = (text(), text(), vec(text(), 0..3), vec(text(), 0..3)).prop_map(|(schema_url, kind, id_keys, description_keys)| EntityRef {
        schema_url,
        r#type: kind,
        id_keys,
        description_keys,
    });
    (attributes(), narrow(), vec(entity, 0..2))
        .prop_map(|(attributes, dropped_attributes_count, entity_refs)| Resource { attributes, dropped_attributes_count, entity_refs })
        .boxed()
}

fn scope() -> BoxedStrategy<InstrumentationScope> {
    (text(), text(), attributes(), narrow())
        .prop_map(|(name, version, attributes, dropped_attributes_count)| InstrumentationScope {
            name,
            version,
            attributes,
            dropped_attributes_count,
        })
        .boxed()
}

/// Items below what is said of all of them: a resource or a scope, and a URL.
fn below<A: Debug + 'static, I: Debug + 'static>(above: BoxedStrategy<A>, items: BoxedStrategy<I>) -> BoxedStrategy<(Option<A>, Vec<I>, String)> {
    (option::of(above), vec(items, 0..3), text()).boxed()
}

fn span() -> BoxedStrategy<Span> {
    let event = (wide(), text(), attributes(), narrow()).prop_map(|(time_unix_nano, name, attributes, dropped_attributes_count)| Event {
        time_unix_nano,
        name,
        attributes,
        dropped_attributes_count,
    });
    let link = (id(), id(), text(), attributes(), narrow(), narrow()).prop_map(
        |(trace_id, span_id, trace_state, attributes, dropped_attributes_count, flags)| Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count,
            flags,
        },
    );
    let status = (text(), signed()).prop_map(|(message, code)| Status { message, code });
    let names = (id(), id(), id(), text(), text(), signed(), narrow());
    let rest = (wide(), wide(), attributes(), narrow());
    (names, rest, vec(event, 0..3), narrow(), vec(link, 0..3), narrow(), option::of(status))
        .prop_map(|(names, rest, events, dropped_events_count, links, dropped_links_count, status)| {
            let (trace_id, span_id, parent_span_id, trace_state, name, kind, flags) = names;
            let (start_time_unix_nano, end_time_unix_nano, attributes, dropped_attributes_count) = rest;
            Span {
                trace_id,
                span_id,
                trace_state,
                parent_span_id,
                flags,
                name,
                kind,
                start_time_unix_nano,
                end_time_unix_nano,
                attributes,
                dropped_attributes_count,
                events,
                dropped_events_count,
                links,
                dropped_links_count,
                status,
            }
        })
        .boxed()
}

fn traces() -> BoxedStrategy<ExportTraceServiceRequest> {
    let scopes = below(scope(), span()).prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url }).boxed();
    let resources = below(resource(), scopes).prop_map(|(resource, scope_spans, schema_url)| ResourceSpans { resource, scope_spans, schema_url });
    vec(resources, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans }).boxed()
}

fn logs() -> BoxedStrategy<ExportLogsServiceRequest> {
    let ids = (id(), id(), narrow(), text());
    let record = (wide(), wide(), signed(), text(), option::of(any_value()), attributes(), narrow(), ids)
        .prop_map(|(time_unix_nano, observed_time_unix_nano, severity_number, severity_text, body, attributes, dropped, ids)| {
            let (trace_id, span_id, flags, event_name) = ids;
            LogRecord {
                time_unix_nano,
                observed_time_unix_nano,
                severity_number,
                severity_text,
                body,
                attributes,
                dropped_attributes_count: dropped,
                flags,
                trace_id,
                span_id,
                event_name,
            }
        })
        .boxed();
    let scopes = below(scope(), record).prop_map(|(scope, log_records, schema_url)| ScopeLogs { scope, log_records, schema_url }).boxed();
    let resources = below(resource(), scopes).prop_map(|(resource, scope_logs, schema_url)| ResourceLogs { resource, scope_logs, schema_url });
    vec(resources, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs }).boxed()
}

fn exemplars() -> BoxedStrategy<Vec<Exemplar>> {
    let value = prop_oneof![double().prop_map(ExemplarValue::AsDouble), any::<i64>().prop_map(ExemplarValue::AsInt)];
    let exemplar =
        (attributes(), wide(), id(), id(), option::of(value)).prop_map(|(filtered_attributes, time_unix_nano, span_id, trace_id, value)| Exemplar {
            filtered_attributes,
            time_unix_nano,
            span_id,
            trace_id,
            value,
        });
    vec(exemplar, 0..3).boxed()
}

/// What every point has: attributes, times, flags.
fn point() -> BoxedStrategy<(Vec<KeyValue>, u64, u64, u32)> {
    (attributes(), wide(), wide(), narrow()).boxed()
}

/// What histograms have: count, sum, least and greatest.
/// Count, sum, least and most.
type Distribution = (u64, Option<f64>, Option<f64>, Option<f64>);

fn distribution() -> BoxedStrategy<Distribution> {
    (wide(), option::of(double()), option::of(double()), option::of(double())).boxed()
}

fn number_points() -> BoxedStrategy<Vec<NumberDataPoint>> {
    let value = prop_oneof![double().prop_map(PointValue::AsDouble), any::<i64>().prop_map(PointValue::AsInt)];
    let point = (point(), exemplars(), option::of(value)).prop_map(|(point, exemplars, value)| {
        let (attributes, start_time_unix_nano, time_unix_nano, flags) = point;
        NumberDataPoint { attributes, start_time_unix_nano, time_unix_nano, exemplars, flags, value }
    });
    vec(point, 0..3).boxed()
}

fn histogram() -> BoxedStrategy<Data> {
    let buckets = (vec(wide(), 0..4), vec(double(), 0..4));
    let point = (point(), distribution(), buckets, exemplars()).prop_map(|(point, distribution, buckets, exemplars)| {
        let (attributes, start_time_unix_nano, time_unix_nano, flags) = point;
        let (count, sum, min, max) = distribution;
        let (bucket_counts, explicit_bounds) = buckets;
        HistogramDataPoint {
            attributes,
            start_time_unix_nano,
            time_unix_nano,
            count,
            sum,
            bucket_counts,
            explicit_bounds,
            exemplars,
            flags,
            min,
            max,
        }
    });
    (vec(point, 0..3), signed())
        .prop_map(|(data_points, aggregation_temporality)| Data::Histogram(Histogram { data_points, aggregation_temporality }))
        .boxed()
}

fn exponential_histogram() -> BoxedStrategy<Data> {
    let buckets = || option::of((signed(), vec(wide(), 0..4)).prop_map(|(offset, bucket_counts)| Buckets { offset, bucket_counts }));
    let zero = (signed(), wide(), double());
    let point =
        (point(), distribution(), zero, buckets(), buckets(), exemplars()).prop_map(|(point, distribution, zero, positive, negative, exemplars)| {
            let (attributes, start_time_unix_nano, time_unix_nano, flags) = point;
            let (count, sum, min, max) = distribution;
            let (scale, zero_count, zero_threshold) = zero;
            ExponentialHistogramDataPoint {
                attributes,
                start_time_unix_nano,
                time_unix_nano,
                count,
                sum,
                scale,
                zero_count,
                positive,
                negative,
                flags,
                exemplars,
                min,
                max,
                zero_threshold,
            }
        });
    (vec(point, 0..3), signed())
        .prop_map(|(data_points, aggregation_temporality)| Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality }))
        .boxed()
}

fn summary() -> BoxedStrategy<Data> {
    let quantile = (double(), double()).prop_map(|(quantile, value)| ValueAtQuantile { quantile, value });
    let point = (point(), wide(), double(), vec(quantile, 0..3)).prop_map(|(point, count, sum, quantile_values)| {
        let (attributes, start_time_unix_nano, time_unix_nano, flags) = point;
        SummaryDataPoint { attributes, start_time_unix_nano, time_unix_nano, count, sum, quantile_values, flags }
    });
    vec(point, 0..3).prop_map(|data_points| Data::Summary(Summary { data_points })).boxed()
}

fn metrics() -> BoxedStrategy<ExportMetricsServiceRequest> {
    let data = prop_oneof![
        number_points().prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (number_points(), signed(), any::<bool>()).prop_map(|(data_points, aggregation_temporality, is_monotonic)| {
            Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
        }),
        histogram(),
        exponential_histogram(),
        summary(),
    ];
    let metric = (text(), text(), text(), attributes(), option::of(data))
        .prop_map(|(name, description, unit, metadata, data)| Metric { name, description, unit, metadata, data })
        .boxed();
    let scopes = below(scope(), metric).prop_map(|(scope, metrics, schema_url)| ScopeMetrics { scope, metrics, schema_url }).boxed();
    let resources =
        below(resource(), scopes).prop_map(|(resource, scope_metrics, schema_url)| ResourceMetrics { resource, scope_metrics, schema_url });
    vec(resources, 0..3).prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics }).boxed()
}

/// A number without its key; those of 32 bits may be written with more of them.
fn bare(number: Number) -> BoxedStrategy<Vec<u8>> {
    match (number, number.layout()) {
        (Number::Double, _) => double().prop_map(|number| number.to_le_bytes().to_vec()).boxed(),
        (_, Layout::Fixed64) => wide().prop_map(|number| number.to_le_bytes().to_vec()).boxed(),
        (_, Layout::Fixed32) => narrow().prop_map(|number| number.to_le_bytes().to_vec()).boxed(),
        (_, Layout::Varint) => wide()
            .prop_map(|number| {
                let mut out = Vec::new();
                put_varint(&mut out, number);
                out
            })
            .boxed(),
    }
}

/// A message as it may stand on the wire: fields in any order and any number of times, packed or not, known or not.
fn on_the_wire(message: &'static Message, depth: u32) -> BoxedStrategy<Vec<u8>> {
    let mut fields = vec![(90..95_u32, narrow()).prop_map(|(number, content)| wire::field(number, 5, &content.to_le_bytes())).boxed()];
    for field in message.fields {
        let number = field.number;
        match field.kind {
            Kind::Number(kind) => {
                let layout = match kind.layout() {
                    Layout::Varint => 0,
                    Layout::Fixed64 => 1,
                    Layout::Fixed32 => 5,
                };
                fields.push(bare(kind).prop_map(move |content| wire::field(number, layout, &content)).boxed());
                if field.repeated {
                    fields.push(vec(bare(kind), 0..4).prop_map(move |packed| wire::field(number, 2, &packed.concat())).boxed());
                }
            }
            Kind::Text(Text::String) => fields.push(text().prop_map(move |text| wire::field(number, 2, text.as_bytes())).boxed()),
            Kind::Text(Text::Bytes | Text::Hex) => fields.push(id().prop_map(move |bytes| wire::field(number, 2, &bytes)).boxed()),
            Kind::Message(inner) if depth > 0 => {
                fields.push(on_the_wire(inner, depth - 1).prop_map(move |message| wire::field(number, 2, &message)).boxed());
            }
            Kind::Message(_) => {}
        }
    }
    vec(Union::new(fields), 0..6).prop_map(|fields| fields.concat()).boxed()
}

fn wire_of(signal: Signal) -> BoxedStrategy<Vec<u8>> {
    on_the_wire(request(signal), 9)
}

/// What goes to JSON and back is what it was.
fn comes_back<T: prost::Message + Default + PartialEq + Debug>(signal: Signal, request: &[u8]) -> Result<(), TestCaseError> {
    let json = from_protobuf(signal, request).unwrap();
    let shown = String::from_utf8_lossy(&json);
    let back = to_protobuf(signal, &json, usize::MAX).map_err(|error| TestCaseError::fail(format!("{error}\n{shown}")))?;
    prop_assert_eq!(T::decode(&*back).unwrap(), T::decode(request).unwrap(), "{}", shown);
    Ok(())
}

/// What others read of our JSON is what it was.
fn is_read_by_others<T>(signal: Signal, request: &T) -> Result<(), TestCaseError>
where
    T: prost::Message + DeserializeOwned + PartialEq + Debug,
{
    let json = from_protobuf(signal, &request.encode_to_vec()).unwrap();
    let shown = String::from_utf8_lossy(&json);
    let read: T = serde_json::from_slice(&json).map_err(|error| TestCaseError::fail(format!("{error}\n{shown}")))?;
    prop_assert_eq!(&read, request, "{}", shown);
    Ok(())
}

/// Bytes that were changed or cut off on the way are read as far as `prost` reads them, and do no harm.
fn survives_harm<T: prost::Message + Default>(signal: Signal, request: &[u8], at: Index, byte: Option<u8>) -> Result<(), TestCaseError> {
    let harmed = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            match byte {
                Some(byte) => bytes[at] = byte,
                None => bytes.truncate(at),
            }
        }
        bytes
    };
    let json = from_protobuf(signal, request).unwrap();
    if let Ok(protobuf) = to_protobuf(signal, &harmed(&json), usize::MAX) {
        prop_assert!(T::decode(&*protobuf).is_ok());
    }
    let protobuf = harmed(request);
    match from_protobuf(signal, &protobuf) {
        Ok(json) => prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok(), "{}", String::from_utf8_lossy(&json)),
        Err(_) => prop_assert!(T::decode(&*protobuf).is_err()),
    }
    Ok(())
}

proptest! {
    #[test]
    fn others_read_our_traces(request in traces()) {
        is_read_by_others(Signal::Traces, &request)?;
    }

    #[test]
    fn others_read_our_metrics(request in metrics()) {
        is_read_by_others(Signal::Metrics, &request)?;
    }

    #[test]
    fn others_read_our_logs(request in logs()) {
        is_read_by_others(Signal::Logs, &request)?;
    }

    #[test]
    fn traces_come_back(request in traces()) {
        comes_back::<ExportTraceServiceRequest>(Signal::Traces, &prost::Message::encode_to_vec(&request))?;
    }

    #[test]
    fn metrics_come_back(request in metrics()) {
        comes_back::<ExportMetricsServiceRequest>(Signal::Metrics, &prost::Message::encode_to_vec(&request))?;
    }

    #[test]
    fn logs_come_back(request in logs()) {
        comes_back::<ExportLogsServiceRequest>(Signal::Logs, &prost::Message::encode_to_vec(&request))?;
    }

    #[test]
    fn however_traces_are_written_they_come_back(request in wire_of(Signal::Traces), at in any::<Index>(), byte in any::<Option<u8>>()) {
        comes_back::<ExportTraceServiceRequest>(Signal::Traces, &request)?;
        survives_harm::<ExportTraceServiceRequest>(Signal::Traces, &request, at, byte)?;
    }

    #[test]
    fn however_metrics_are_written_they_come_back(request in wire_of(Signal::Metrics), at in any::<Index>(), byte in any::<Option<u8>>()) {
        comes_back::<ExportMetricsServiceRequest>(Signal::Metrics, &request)?;
        survives_harm::<ExportMetricsServiceRequest>(Signal::Metrics, &request, at, byte)?;
    }

    #[test]
    fn however_logs_are_written_they_come_back(request in wire_of(Signal::Logs), at in any::<Index>(), byte in any::<Option<u8>>()) {
        comes_back::<ExportLogsServiceRequest>(Signal::Logs, &request)?;
        survives_harm::<ExportLogsServiceRequest>(Signal::Logs, &request, at, byte)?;
    }
}
