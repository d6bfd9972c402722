//! What incidents of several circuits have to do with each other, as log records.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
};

use super::{
    attributes::{float, number, resource, scope, text},
    logs::{callee, derived},
};
use crate::circuit::{
    cascade::{Cascade, Together},
    key::Caller,
};

/// One record: a cascade under the caller of the circuit that follows, an outage under Fuseboard itself.
pub(super) fn logs(together: &Together, now: u64) -> ResourceLogs {
    let mut attributes = vec![text("circuit_breaker.pattern", together.name()), text("circuit_breaker.pattern.phase", together.phase())];
    let (caller, sentence, uid) = match together {
        Together::Cascade { begins, cascade } => {
            let Cascade { at, first, then, followed, of, p_value } = cascade;
            attributes.extend([
                text("circuit_breaker.name", then.name()),
                text("circuit_breaker.cascade.first.name", first.name()),
                text("circuit_breaker.cascade.first.service", &*first.caller.service),
                number("circuit_breaker.pattern.count", *followed as u64),
                number("circuit_breaker.cascade.of", *of as u64),
                float("circuit_breaker.pattern.p_value", *p_value),
            ]);
            attributes.extend(callee(then));
            let sentence = if *begins {
                format!("{then} opens within ten seconds after {first}: {followed} of {of} times in a day")
            } else {
                format!("{then} no longer opens soon after {first}")
            };
            ((*then.caller).clone(), sentence, derived((&**first, &**then, at, begins)))
        }
        Together::Outage { at, circuits, of } => {
            attributes.extend([number("circuit_breaker.pattern.count", *circuits as u64), number("circuit_breaker.outage.of", *of as u64)]);
            let caller = Caller { service: "fuseboard".into(), ..Caller::default() };
            (caller, format!("{circuits} of {of} circuits opened at one time: one outage"), derived((at, circuits, "outage")))
        }
    };
    attributes.push(text("log.record.uid", uid));
    let is_warning = matches!(together, Together::Outage { .. });
    let record = LogRecord {
        time_unix_nano: together.at(),
        observed_time_unix_nano: now,
        severity_number: if is_warning { SeverityNumber::Warn } else { SeverityNumber::Info }.into(),
        severity_text: if is_warning { "WARN" } else { "INFO" }.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(sentence)) }),
        attributes,
        event_name: "circuit_breaker.pattern".to_owned(),
        ..LogRecord::default()
    };
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records: vec![record], ..ScopeLogs::default() }];
    ResourceLogs { resource: Some(resource(&caller)), scope_logs, ..ResourceLogs::default() }
}
