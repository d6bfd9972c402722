//! What processes tell of themselves in OTLP metrics, as far as it is looked at.
//!
//! Names and attributes: OpenTelemetry semantic conventions for process, system, JVM and Go runtime metrics.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{Metric, NumberDataPoint, ResourceMetrics, metric::Data, number_data_point},
    resource::v1::Resource as OfProcess,
    trace::v1::{ResourceSpans, ScopeSpans, Span, span::SpanKind},
};

use crate::circuit::{finding::Resource, usages::Sample};

/// More is no limit: Go tells of 2^63 - 1 bytes where none is set.
const LIMIT_MAX: f64 = (1_u64 << 60) as f64;

/// A request of one span that nobody calls anything by, so that its resource is read as those of spans are.
pub(super) fn as_spans(resource: Option<OfProcess>) -> ExportTraceServiceRequest {
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![1; 8],
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: 1,
        end_time_unix_nano: 1,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] }
}

/// What is looked at of the metrics of one process.
pub(super) fn samples(metrics: &ResourceMetrics) -> Vec<Sample> {
    let all: Vec<&Metric> = metrics.scope_metrics.iter().flat_map(|scope| &scope.metrics).collect();
    let of = |name: &str| all.iter().filter(|metric| metric.name == name).flat_map(|metric| points(metric)).collect::<Vec<_>>();
    let mut samples = Vec::new();
    for resource in Resource::OF_PROCESSES {
        let points = of(resource.name());
        let Some(at) = points.iter().map(|point| point.time_unix_nano).max() else { continue };
        let Some(value) = value(resource, &points) else { continue };
        let limit = resource.limit_name().map(of).and_then(|points| self::value(resource, &points));
        samples.push(Sample { resource, value, limit: limit.filter(|limit| *limit > 0.0 && *limit < LIMIT_MAX), at });
    }
    samples
}

fn points(metric: &Metric) -> &[NumberDataPoint] {
    match &metric.data {
        Some(Data::Gauge(gauge)) => &gauge.data_points,
        Some(Data::Sum(sum)) => &sum.data_points,
        _ => &[],
    }
}

/// One number of all points of a metric; `None` where none of them says anything.
fn value(resource: Resource, points: &[&NumberDataPoint]) -> Option<f64> {
    let counts = |point: &&&NumberDataPoint| match resource {
        Resource::SystemCpu => !matches!(said(&point.attributes, &["cpu.mode", "state"]), Some("idle")),
        Resource::SystemMemory => said(&point.attributes, &["system.memory.state", "state"]).is_none_or(|state| state == "used"),
        Resource::JvmMemory => said(&point.attributes, &["jvm.memory.type"]).is_none_or(|kind| kind == "heap"),
        _ => true,
    };
    let values: Vec<f64> = points.iter().filter(counts).filter_map(|point| number(point)).collect();
    if values.is_empty() {
        return None;
    }
    let sum = values.iter().sum::<f64>();
    if resource != Resource::SystemCpu {
        return Some(sum);
    }
    // Each processor tells its own shares.
    let processors: std::collections::BTreeSet<String> = points
        .iter()
        .filter_map(|point| point.attributes.iter().find(|one| ["cpu.logical_number", "cpu"].contains(&one.key.as_str())))
        .map(|one| format!("{:?}", one.value))
        .collect();
    Some(sum / processors.len().max(1) as f64)
}

fn number(point: &NumberDataPoint) -> Option<f64> {
    match point.value? {
        number_data_point::Value::AsDouble(value) => Some(value),
        number_data_point::Value::AsInt(value) => Some(value as f64),
    }
}

/// The text of the first of these attributes that there is.
fn said<'a>(attributes: &'a [KeyValue], keys: &[&str]) -> Option<&'a str> {
    let found = keys.iter().find_map(|key| attributes.iter().find(|one| one.key == *key))?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::{Gauge, ScopeMetrics, Sum};

    use super::{super::attributes::text, *};

    fn point(value: f64, attributes: &[(&str, &str)]) -> NumberDataPoint {
        let attributes = attributes.iter().map(|(key, value)| text(key, *value)).collect();
        NumberDataPoint { attributes, time_unix_nano: 7, value: Some(number_data_point::Value::AsDouble(value)), ..NumberDataPoint::default() }
    }

    fn metric(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
        Metric { name: name.to_owned(), data: Some(Data::Gauge(Gauge { data_points })), ..Metric::default() }
    }

    #[test]
    fn metrics_become_one_number_each() {
        let mut sum = metric("jvm.memory.used", vec![]);
        sum.data = Some(Data::Sum(Sum {
            data_points: vec![
                point(300.0, &[("jvm.memory.type", "heap"), ("jvm.memory.pool.name", "old")]),
                point(100.0, &[("jvm.memory.type", "heap"), ("jvm.memory.pool.name", "eden")]),
                point(900.0, &[("jvm.memory.type", "non_heap")]),
            ],
            ..Sum::default()
        }));
        let metrics = vec![
            sum,
            metric("jvm.memory.limit", vec![point(500.0, &[("jvm.memory.type", "heap")])]),
            metric("process.cpu.utilization", vec![point(0.2, &[("cpu.mode", "user")]), point(0.1, &[("cpu.mode", "system")])]),
            metric(
                "system.cpu.utilization",
                vec![
                    point(0.9, &[("cpu.logical_number", "0"), ("cpu.mode", "idle")]),
                    point(0.1, &[("cpu.logical_number", "0"), ("cpu.mode", "user")]),
                    point(0.5, &[("cpu.logical_number", "1"), ("cpu.mode", "user")]),
                ],
            ),
            metric("go.memory.used", vec![point(5.0, &[])]),
            metric("go.memory.limit", vec![point(9.223_372_036_854_776e18, &[])]),
            metric("http.server.request.duration", vec![point(1.0, &[])]),
            metric("go.goroutine.count", vec![NumberDataPoint::default()]),
        ];
        let metrics = ResourceMetrics { scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }], ..ResourceMetrics::default() };
        let found: Vec<(Resource, f64, Option<f64>)> =
            samples(&metrics).into_iter().map(|sample| (sample.resource, sample.value, sample.limit)).collect();
        let [cpu, system, jvm, go] = found[..] else { panic!("{found:?}") };
        assert!((cpu.1 - 0.3).abs() < 1e-9 && (system.1 - 0.3).abs() < 1e-9, "{found:?}");
        assert_eq!((jvm, go), ((Resource::JvmMemory, 400.0, Some(500.0)), (Resource::GoMemory, 5.0, None)));
    }
}
