use opentelemetry_proto::tonic::common::v1::KeyValue;

use super::super::attributes::text;
use crate::circuit::{
    analysis::{anomaly::Signal, pressure::Reference},
    circuit::Circuit,
    finding::{Measured, PatternKind, Resource, Status},
};

/// A gauge, or an up-down counter, of what analyzers found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) name: &'static str,
    pub(super) of: Of,
    /// `None` while it does not hold.
    pub(super) value: Option<f64>,
}

/// What tells gauges of one name apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// A signal that is unusual.
    Anomaly(Signal),
    Pattern(PatternKind),
    /// A signal that rises or falls.
    Trend(Measured),
    Usage(Reference),
    Health(Status),
}

impl Of {
    /// Whether it says how many there are.
    pub(super) const fn is_count(self) -> bool {
        matches!(self, Self::Health(_))
    }

    pub(super) fn attributes(self) -> Vec<KeyValue> {
        match self {
            Self::Anomaly(signal) => vec![text("circuit_breaker.signal", signal.name()), text("circuit_breaker.direction", signal.direction())],
            Self::Pattern(kind) => vec![text("circuit_breaker.pattern", kind.name())],
            Self::Trend(signal) => vec![text("circuit_breaker.signal", signal.name())],
            Self::Usage(reference) => {
                vec![text("circuit_breaker.signal", Resource::Concurrency.name()), text("circuit_breaker.resource.reference", reference.name())]
            }
            Self::Health(status) => vec![text("circuit_breaker.health.status", status.name())],
        }
    }
}

/// Every one of findings that there may be, always in the same order; fewer than 64.
pub(super) fn all(circuit: &Circuit) -> impl Iterator<Item = Found> {
    let anomalies = Signal::ALL.into_iter().map(|signal| {
        let found = circuit.anomalies().find(|anomaly| anomaly.signal == signal);
        Found { name: "circuit_breaker.anomaly.score", of: Of::Anomaly(signal), value: found.map(|anomaly| anomaly.score) }
    });
    let patterns = PatternKind::ALL.into_iter().flat_map(|kind| {
        let found = circuit.patterns().find(|pattern| pattern.kind == kind);
        let next = found.and_then(|pattern| pattern.next).map(|next| next as f64 / 1e9);
        let values = [
            ("circuit_breaker.pattern.period", found.and_then(|pattern| pattern.period)),
            ("circuit_breaker.pattern.jitter", found.and_then(|pattern| pattern.jitter)),
            ("circuit_breaker.pattern.next_trip.timestamp", next),
        ];
        values.map(|(name, value)| Found { name, of: Of::Pattern(kind), value })
    });
    let measured = Signal::ALL.into_iter().map(Measured::Calls).chain([Measured::Resource(Resource::Concurrency)]);
    let trends = measured.map(|measured| {
        let found = circuit.trends().find(|trend| trend.signal == measured);
        Found { name: "circuit_breaker.trend", of: Of::Trend(measured), value: found.and_then(|trend| trend.course.relative) }
    });
    let usage = [Reference::Limit, Reference::Baseline].into_iter().map(|reference| {
        let found = circuit.usage().filter(|usage| usage.reference == reference);
        Found { name: "circuit_breaker.resource.usage", of: Of::Usage(reference), value: found.map(|usage| usage.usage) }
    });
    let holds = circuit.health().map(|(status, _)| status);
    let health = Status::ALL.into_iter().map(move |status| {
        let value = holds.map(|holds| f64::from(u8::from(holds == status)));
        Found { name: "circuit_breaker.health", of: Of::Health(status), value }
    });
    let instances = circuit.instances_by_health();
    let of_instances = Status::ALL.into_iter().enumerate().map(move |(at, status)| {
        let value = instances.and_then(|all| all.get(at).map(|count| *count as f64));
        Found { name: "circuit_breaker.instance.health", of: Of::Health(status), value }
    });
    anomalies.chain(patterns).chain(trends).chain(usage).chain(health).chain(of_instances)
}
