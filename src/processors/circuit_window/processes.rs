//! What holds of processes on its way out: a gauge for each resource under pressure, and for each that rises or falls.

use opentelemetry_proto::tonic::{collector::metrics::v1::ExportMetricsServiceRequest, metrics::v1::ResourceMetrics};

use super::{
    attributes::{resource, text},
    gauge,
    metrics::about,
};
use crate::circuit::usages::{Held, OfProcess};

/// The metric that tells it.
pub(super) const fn metric(of: &OfProcess) -> &'static str {
    match of.held {
        Held::Usage(_) => "circuit_breaker.resource.usage",
        Held::Trend => "circuit_breaker.trend",
    }
}

/// A gauge each, under the caller's resource; one without a value ends its series.
pub(super) fn metrics<'a>(all: impl Iterator<Item = (&'a OfProcess, Option<f64>)>, now: u64) -> (ExportMetricsServiceRequest, usize) {
    let of = |(of, value): (&OfProcess, Option<f64>)| {
        let mut attributes = vec![text("circuit_breaker.instance", &*of.instance), text("circuit_breaker.signal", of.resource.name())];
        if let Held::Usage(reference) = of.held {
            attributes.push(text("circuit_breaker.resource.reference", reference.name()));
        }
        let name = metric(of);
        let (unit, description) = about(name);
        gauge::of(resource(&of.caller), (name, unit, description), gauge::gauge(vec![gauge::point(attributes, value, now)]))
    };
    let resource_metrics: Vec<ResourceMetrics> = all.map(of).collect();
    let points = resource_metrics.len();
    (ExportMetricsServiceRequest { resource_metrics }, points)
}
