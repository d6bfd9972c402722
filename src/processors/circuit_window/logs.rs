use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hash},
};

use foldhash::quality::FixedState;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
};

use super::{
    attributes::{float, number, resource, scope, text},
    findings, services, together,
};
use crate::circuit::{
    cascade::Together,
    event::CircuitEvent,
    finding::Finding,
    key::{Caller, CircuitKey, Kind, authority},
    service::ServiceChange,
    state::Change,
};

/// Something that a log record tells of.
#[derive(Clone, Debug)]
pub(super) enum Told {
    Event(CircuitEvent),
    Finding(Finding),
    Service(ServiceChange),
    Together(Together),
}

impl Told {
    /// When it happened, in Unix nanoseconds.
    pub(super) const fn at(&self) -> u64 {
        match self {
            Self::Event(event) => event.at,
            Self::Finding(finding) => finding.at,
            Self::Service(change) => change.at,
            Self::Together(together) => together.at(),
        }
    }
}

/// Log records, one each, as one request.
pub(super) fn request(all: &[Told], now: u64) -> ExportLogsServiceRequest {
    let mut callers: BTreeMap<&Caller, Vec<LogRecord>> = BTreeMap::new();
    let mut callees = Vec::new();
    for told in all {
        match told {
            Told::Event(event) => callers.entry(&event.circuit.caller).or_default().push(record(event, now)),
            Told::Finding(finding) => callers.entry(&finding.circuit.caller).or_default().push(findings::record(finding, now)),
            Told::Service(change) => callees.push(services::logs(change, now)),
            Told::Together(together) => callees.push(together::logs(together, now)),
        }
    }
    let resource_logs = callers.into_iter().map(|(caller, log_records)| ResourceLogs {
        resource: Some(resource(caller)),
        scope_logs: vec![ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    });
    ExportLogsServiceRequest { resource_logs: resource_logs.chain(callees).collect() }
}

/// What a breaker did, as a log record.
fn record(event: &CircuitEvent, now: u64) -> LogRecord {
    let severity = match event.change {
        Change::Trip | Change::RecoveryAttemptFailed => SeverityNumber::Warn,
        _ => SeverityNumber::Info,
    };
    // What several calls tell together is no single span's.
    let ids = if event.ids == [0; 24] { &[] } else { &event.ids[..] };
    let (trace_id, span_id) = ids.split_at_checked(16).unwrap_or_default();
    LogRecord {
        time_unix_nano: event.at,
        observed_time_unix_nano: now,
        severity_number: severity.into(),
        severity_text: if severity == SeverityNumber::Warn { "WARN" } else { "INFO" }.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(sentence(event))) }),
        attributes: attributes(event),
        trace_id: trace_id.to_vec(),
        span_id: span_id.to_vec(),
        event_name: event.change.event_name().to_owned(),
        ..LogRecord::default()
    }
}

fn attributes(event: &CircuitEvent) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("circuit_breaker.name", event.breaker_name()),
        text("circuit_breaker.source", event.source.name()),
        text("log.record.uid", uid(event)),
    ];
    attributes.extend(event.change.state_after().map(|state| text("circuit_breaker.state", state.name())));
    attributes.extend(callee(&event.circuit));
    if !event.instance.is_empty() {
        attributes.push(text("circuit_breaker.instance", &*event.instance));
    }
    if event.change == Change::Trip && !event.reason.is_empty() {
        attributes.push(text("circuit_breaker.trip.reason", &*event.reason));
    }
    if let Change::StateChange { from, .. } = event.change {
        attributes.push(text("circuit_breaker.state.before", from.name()));
    }
    attributes.extend(event.incident.map(|incident| text("circuit_breaker.incident.id", incident.to_string())));
    attributes.extend(event.incident_duration.map(|nanos| float("circuit_breaker.incident.duration", nanos as f64 / 1e9)));
    if let Some(window) = &event.window {
        attributes.extend([
            number("circuit_breaker.window.requests", window.requests),
            number("circuit_breaker.window.failures", window.failures),
            number("circuit_breaker.window.rejections", window.rejections),
        ]);
        attributes
            .extend(window.percentiles.iter().map(|(percent, seconds)| float(&format!("circuit_breaker.window.duration.p{percent}"), *seconds)));
    }
    attributes
}

/// Who is called, as far as is known.
pub(super) fn callee(circuit: &CircuitKey) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    if !circuit.address.is_empty() && circuit.kind == Kind::Rpc {
        attributes.push(text("rpc.service", &*circuit.address));
    } else if !circuit.address.is_empty() {
        let (_, host, port) = authority(circuit.address.as_bytes());
        attributes.push(text("server.address", String::from_utf8_lossy(host)));
        attributes.extend(port.map(|port| number("server.port", port.into())));
    }
    attributes.extend(circuit.callee().map(|callee| text("service.peer.name", callee.into_owned())));
    attributes
}

/// The same for the same event, so that one sent again can be recognised.
pub(super) fn uid(event: &CircuitEvent) -> String {
    derived((&*event.circuit, event.breaker.as_deref(), &*event.instance, event.at, event.change.event_name(), event.ids))
}

/// Of what tells a record from all others.
pub(super) fn derived(what: impl Hash) -> String {
    format!("{:016x}{:016x}", FixedState::with_seed(0).hash_one(&what), FixedState::with_seed(1).hash_one(&what))
}

/// One sentence for people.
fn sentence(event: &CircuitEvent) -> String {
    let circuit = &event.circuit;
    let instance = if event.instance.is_empty() { String::new() } else { format!(" in {}", event.instance) };
    match event.change {
        Change::Trip => format!("{circuit} opened{instance}"),
        Change::RecoveryAttempt => format!("{circuit} lets a probe through{instance}"),
        Change::RecoveryAttemptFailed => format!("{circuit} stays open{instance}: the probe failed"),
        Change::Recovery => match event.incident_duration {
            Some(nanos) => format!("{circuit} recovered{instance} after {:.1} s", nanos as f64 / 1e9),
            None => format!("{circuit} recovered{instance}"),
        },
        Change::CallsStopped => format!("calls of {circuit} stopped after failures{instance}: perhaps a breaker opened"),
        Change::InstanceGone => format!("the last instance of {circuit} that was open is gone{instance}"),
        Change::InferredTrip => format!("{circuit} would have opened if it had a breaker"),
        Change::InferredRecovery => format!("{circuit} would have recovered if it had a breaker"),
        Change::StateChange { from, to } => format!("{circuit} was set from {} to {}{instance}", from.name(), to.name()),
    }
}
