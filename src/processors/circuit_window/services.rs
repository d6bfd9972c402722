//! The health of callees, and of all together, on its way out: an up-down counter each, and a log record at each change.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    metrics::v1::ResourceMetrics,
    resource::v1::Resource,
};

use super::{
    attributes::{resource, scope, text, texts},
    gauge,
    logs::derived,
};
use crate::circuit::{
    finding::Status,
    key::Caller,
    service::{ServiceChange, Whose},
};

/// The metric's name, unit and meaning.
pub(super) const METRIC: (&str, &str, &str) =
    ("circuit_breaker.service.health", "{circuit}", "Of a callee, over the circuits that call it: 1 for the status that holds, 0 for the others.");

/// The same of all together.
pub(super) const OVERALL: (&str, &str, &str) =
    ("circuit_breaker.overall.health", "{circuit}", "Of all circuits together: 1 for the status that holds, 0 for the others.");

/// Whose it is, as a resource.
fn of(whose: &Whose) -> Resource {
    match whose {
        Whose::Overall => resource(&Caller { service: "fuseboard".into(), ..Caller::default() }),
        Whose::Callee(callee) => resource(&Caller { environment: callee.environment.clone(), service: callee.name.clone(), ..Caller::default() }),
    }
}

/// The metric that tells it; the event has the same name.
pub(super) const fn metric(whose: &Whose) -> (&'static str, &'static str, &'static str) {
    match whose {
        Whose::Overall => OVERALL,
        Whose::Callee(_) => METRIC,
    }
}

/// How a sentence on it begins.
fn shown(whose: &Whose) -> String {
    match whose {
        Whose::Overall => "all circuits together are".to_owned(),
        Whose::Callee(callee) => format!("{} is", callee.name),
    }
}

/// Up-down counters, with the status that holds; `None` where a series ends.
pub(super) fn metrics<'a>(all: impl Iterator<Item = (&'a Whose, Option<Status>)>, now: u64) -> (ExportMetricsServiceRequest, usize) {
    let resource_metrics: Vec<ResourceMetrics> = all
        .map(|(whose, holds)| {
            let point = |status: Status| {
                let value = holds.map(|holds| u64::from(holds == status));
                gauge::count(vec![text("circuit_breaker.health.status", status.name())], value, 0, now)
            };
            gauge::of(of(whose), metric(whose), gauge::standing(Status::ALL.map(point).to_vec()))
        })
        .collect();
    let points = resource_metrics.len() * Status::ALL.len();
    (ExportMetricsServiceRequest { resource_metrics }, points)
}

/// A change as a log record; a callee's under its own resource.
pub(super) fn logs(change: &ServiceChange, now: u64) -> ResourceLogs {
    let (severity, severity_text) = match change.after {
        Status::Unhealthy => (SeverityNumber::Error, "ERROR"),
        Status::Degraded => (SeverityNumber::Warn, "WARN"),
        Status::Healthy | Status::Unknown => (SeverityNumber::Info, "INFO"),
    };
    let reasons = if change.after > Status::Healthy { vec![change.tally.to_string()] } else { Vec::new() };
    let because = reasons.first().map(|reason| format!(": {reason}")).unwrap_or_default();
    let record = LogRecord {
        time_unix_nano: change.at,
        observed_time_unix_nano: now,
        severity_number: severity.into(),
        severity_text: severity_text.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(format!("{} {}{because}", shown(&change.whose), change.after.name()))) }),
        attributes: vec![
            text("circuit_breaker.health.status", change.after.name()),
            text("circuit_breaker.health.status.before", change.before.name()),
            texts("circuit_breaker.health.reasons", reasons.into_iter()),
            text("log.record.uid", derived((&change.whose, change.at, change.after.name()))),
        ],
        event_name: metric(&change.whose).0.to_owned(),
        ..LogRecord::default()
    };
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records: vec![record], ..ScopeLogs::default() }];
    ResourceLogs { resource: Some(of(&change.whose)), scope_logs, ..ResourceLogs::default() }
}
