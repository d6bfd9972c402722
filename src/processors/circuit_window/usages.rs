//! What processes tell of themselves in OTLP metrics, as far as it is looked at.
//!
//! Names and attributes: OpenTelemetry semantic conventions for process, system, JVM and Go runtime metrics.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{Metric, NumberDataPoint, ResourceMetrics, metric::Data, number_data_point},
    resource::v1::Resource as OfProcess,
    trace::v1::{ResourceSpans, ScopeSpans, Span, span::SpanKind},
};
use prost::Message;

use crate::{
    circuit::{finding::Resource, usages::Sample},
    otlp::wire::{Reader, Tag},
};

/// Of `ExportMetricsServiceRequest`.
const RESOURCE_METRICS: Tag = Tag::bytes(1);

/// What one process tells of itself is shorter than this; of longer ones nothing is looked at, so that little is held
/// beside the request.
const BYTES_MAX: usize = 1 << 20;

/// Finds the names of metrics that are looked at.
static NAMES: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| AhoCorasick::new(Resource::OF_PROCESSES.map(Resource::name)).ok());

/// The metrics of each process in a request that tells something of itself. Most requests tell nothing: they are searched,
/// and not decoded.
pub(super) fn told_in(request: &[u8]) -> impl Iterator<Item = ResourceMetrics> {
    let tells = |part: &&[u8]| part.len() <= BYTES_MAX && NAMES.as_ref().is_some_and(|names| names.is_match(*part));
    parts(request).filter(tells).filter_map(|part| ResourceMetrics::decode(part).ok())
}

/// The `resource_metrics` of a request; nothing behind what is no field.
fn parts(request: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Reader::new(request);
    std::iter::from_fn(move || {
        loop {
            let tag = rest.tag().ok()??;
            if tag == RESOURCE_METRICS {
                return rest.bytes().ok();
            }
            rest.skip(tag, 1).ok()?;
        }
    })
}

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
        let Some((at, points)) = newest(points) else { continue };
        let Some(value) = value(resource, &points) else { continue };
        // Some SDKs read the clock anew for each metric.
        let limit = resource.limit_name().map(of).and_then(newest).and_then(|(_, points)| self::value(resource, &points));
        samples.push(Sample { resource, value, limit: limit.filter(|limit| *limit > 0.0 && *limit < LIMIT_MAX), at });
    }
    samples
}

/// The newest time, and the points of it: a sum over several times is none.
fn newest(mut points: Vec<&NumberDataPoint>) -> Option<(u64, Vec<&NumberDataPoint>)> {
    let at = points.iter().map(|point| point.time_unix_nano).max()?;
    points.retain(|point| point.time_unix_nano == at);
    Some((at, points))
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
    // Each processor tells its own shares, of which one is what is idle.
    let idle: Vec<f64> = points.iter().filter(|point| !counts(point)).filter_map(|point| number(point)).collect();
    Some(if idle.is_empty() { sum.min(1.0) } else { 1.0 - idle.iter().sum::<f64>() / idle.len() as f64 })
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
    use opentelemetry_proto::tonic::{
        collector::metrics::v1::ExportMetricsServiceRequest,
        metrics::v1::{Gauge, ScopeMetrics, Sum},
    };

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
                NumberDataPoint { time_unix_nano: 6, ..point(250.0, &[("jvm.memory.type", "heap")]) },
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
                    point(0.5, &[("cpu.logical_number", "1"), ("cpu.mode", "idle")]),
                ],
            ),
            metric("go.memory.used", vec![point(5.0, &[])]),
            metric("go.memory.limit", vec![point(9.223_372_036_854_776e18, &[])]),
            metric("http.server.request.duration", vec![point(1.0, &[])]),
            metric("go.goroutine.count", vec![NumberDataPoint::default()]),
        ];
        let metrics = ResourceMetrics { scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }], ..ResourceMetrics::default() };
        // Of a request what tells nothing is not looked at.
        let other = ResourceMetrics {
            scope_metrics: vec![ScopeMetrics { metrics: vec![metric("http.server.request.duration", vec![])], ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![other, metrics.clone()] }.encode_to_vec();
        assert_eq!(told_in(&request).collect::<Vec<_>>(), std::slice::from_ref(&metrics));
        for length in 0..request.len() {
            assert!(told_in(&request[..length]).count() <= 1);
        }
        let found: Vec<(Resource, f64, Option<f64>)> =
            samples(&metrics).into_iter().map(|sample| (sample.resource, sample.value, sample.limit)).collect();
        let [cpu, system, jvm, go] = found[..] else { panic!("{found:?}") };
        assert!((cpu.1 - 0.3).abs() < 1e-9 && (system.1 - 0.3).abs() < 1e-9, "{found:?}");
        assert_eq!((jvm, go), ((Resource::JvmMemory, 400.0, Some(500.0)), (Resource::GoMemory, 5.0, None)));
    }
}
