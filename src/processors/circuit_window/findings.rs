use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, SeverityNumber},
};

use super::{
    attributes::{float, number, text, texts},
    logs::{callee, derived},
};
use crate::circuit::{
    analysis::{anomaly::Signal, pressure::Reference},
    finding::{Anomaly, Certainty, Finding, HealthChange, Measured, Pattern, PatternKind, Phase, Status, What},
};

/// What an analyzer found, as a log record.
pub(super) fn record(finding: &Finding, now: u64) -> LogRecord {
    let (severity, severity_text) = match &finding.what {
        What::Health(change) if change.after == Status::Unhealthy => (SeverityNumber::Error, "ERROR"),
        What::Health(change) if change.after == Status::Degraded => (SeverityNumber::Warn, "WARN"),
        What::Anomaly(Phase::Begin, _) | What::Pressure(Phase::Begin, ..) => (SeverityNumber::Warn, "WARN"),
        _ => (SeverityNumber::Info, "INFO"),
    };
    let circuit = &finding.circuit;
    let mut all = vec![text("log.record.uid", uid(finding))];
    if !circuit.text.is_empty() {
        all.push(text("circuit_breaker.name", circuit.name()));
        all.extend(callee(circuit));
    }
    all.extend(finding.incident.map(|incident| text("circuit_breaker.incident.id", incident.to_string())));
    if !finding.instance.is_empty() {
        all.push(text("circuit_breaker.instance", &*finding.instance));
    }
    all.extend(attributes(&finding.what));
    LogRecord {
        time_unix_nano: finding.at,
        observed_time_unix_nano: now,
        severity_number: severity.into(),
        severity_text: severity_text.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(sentence(finding))) }),
        attributes: all,
        event_name: finding.event_name().to_owned(),
        ..LogRecord::default()
    }
}

/// The same for the same finding.
fn uid(finding: &Finding) -> String {
    let what = match finding.what {
        What::Anomaly(_, anomaly) => (anomaly.signal.name(), anomaly.signal.direction()),
        What::Pattern(_, pattern) => (pattern.kind.name(), pattern.certainty.name()),
        What::Trend(_, trend) => (trend.signal.name(), trend.direction()),
        What::Pressure(_, resource, usage) => (resource.name(), usage.reference.name()),
        What::Health(change) => (change.before.name(), change.after.name()),
    };
    derived((&*finding.circuit, &*finding.instance, finding.at, finding.event_name(), finding.what.phase().name(), what))
}

/// What a finding says.
pub(super) fn attributes(what: &What) -> Vec<KeyValue> {
    match what {
        What::Anomaly(phase, Anomaly { signal, begin, score, expected, seen, peak }) => vec![
            text("circuit_breaker.anomaly.phase", phase.name()),
            text("circuit_breaker.signal", signal.name()),
            text("circuit_breaker.direction", signal.direction()),
            float("circuit_breaker.anomaly.score", *score),
            float("circuit_breaker.anomaly.expected", *expected),
            float("circuit_breaker.anomaly.seen", *seen),
            // In Unix seconds.
            float("circuit_breaker.anomaly.begin", *begin as f64 / 1e9),
            float("circuit_breaker.anomaly.peak", *peak as f64 / 1e9),
        ],
        What::Pattern(phase, pattern) => of_pattern(*phase, pattern),
        What::Trend(phase, trend) => {
            let mut all = vec![
                text("circuit_breaker.trend.phase", phase.name()),
                text("circuit_breaker.signal", trend.signal.name()),
                text("circuit_breaker.direction", trend.direction()),
                float("circuit_breaker.trend.slope", trend.course.slope),
                float("circuit_breaker.trend.p_value", trend.p_value()),
                float("circuit_breaker.trend.level", trend.course.level),
            ];
            all.extend(trend.course.relative.map(|share| float("circuit_breaker.trend.relative", share)));
            all.extend(trend.course.to_limit.map(|seconds| float("circuit_breaker.trend.time_to_limit", seconds)));
            all
        }
        What::Pressure(phase, resource, usage) => {
            let mut all = vec![
                text("circuit_breaker.resource_pressure.phase", phase.name()),
                text("circuit_breaker.signal", resource.name()),
                text("circuit_breaker.resource.reference", usage.reference.name()),
                float("circuit_breaker.resource.usage", usage.usage),
                float("circuit_breaker.resource.seen", usage.seen),
                float("circuit_breaker.resource.threshold", usage.threshold),
            ];
            all.extend(usage.baseline.map(|baseline| float("circuit_breaker.resource.baseline", baseline)));
            all
        }
        What::Health(HealthChange { before, after, reasons }) => vec![
            text("circuit_breaker.health.status", after.name()),
            text("circuit_breaker.health.status.before", before.name()),
            texts("circuit_breaker.health.reasons", reasons.iter().flatten().map(ToString::to_string)),
        ],
    }
}

fn of_pattern(phase: Phase, pattern: &Pattern) -> Vec<KeyValue> {
    let Pattern { kind, certainty, count, period, jitter, p_value, next, phase: by_clock } = pattern;
    let mut all = vec![
        text("circuit_breaker.pattern", kind.name()),
        text("circuit_breaker.pattern.phase", phase.name()),
        text("circuit_breaker.pattern.certainty", certainty.name()),
        number("circuit_breaker.pattern.count", (*count).into()),
    ];
    all.extend(period.map(|period| float("circuit_breaker.pattern.period", period)));
    all.extend(jitter.map(|jitter| float("circuit_breaker.pattern.jitter", jitter)));
    all.extend(p_value.map(|p_value| float("circuit_breaker.pattern.p_value", p_value)));
    all.extend(by_clock.map(|seconds| float("circuit_breaker.pattern.clock_phase", seconds)));
    // In Unix seconds, as the metric is.
    all.extend(next.map(|next| float("circuit_breaker.pattern.next_trip.timestamp", next as f64 / 1e9)));
    all
}

/// One sentence for people.
fn sentence(finding: &Finding) -> String {
    let circuit = if finding.circuit.text.is_empty() { finding.circuit.caller.service.to_string() } else { finding.circuit.to_string() };
    if finding.what.phase() == Phase::Stopped {
        let what = match finding.what {
            What::Anomaly(_, anomaly) => name(anomaly.signal),
            What::Pattern(_, pattern) => pattern.kind.name(),
            What::Trend(_, trend) => measured(trend.signal),
            What::Pressure(_, resource, _) => resource.name(),
            What::Health(_) => "health",
        };
        return format!("{circuit}: {what} is not looked at any more");
    }
    match finding.what {
        What::Anomaly(phase, anomaly) => format!("{circuit}: {}", of_anomaly(finding.at, phase, &anomaly)),
        What::Pattern(Phase::End, pattern) => match pattern.kind {
            PatternKind::Flapping => format!("{circuit} no longer opens and closes in turn"),
            PatternKind::Burst => format!("{circuit} no longer trips more often than usual"),
            PatternKind::Regular | PatternKind::Aligned => format!("{circuit} no longer trips every {:.1} s", pattern.period.unwrap_or_default()),
        },
        What::Pattern(_, pattern) => format!("{circuit} {}", of_trips(&pattern)),
        What::Trend(Phase::End, trend) => {
            format!("{circuit}: {} no longer {}", measured(trend.signal), if trend.course.score < 0.0 { "falls" } else { "rises" })
        }
        What::Trend(_, trend) => {
            let by = trend.course.relative.map(|share| format!(" by {:.1} % a minute", share.abs() * 100.0)).unwrap_or_default();
            let left = trend.course.to_limit.map(|seconds| format!(", at its limit in about {seconds:.0} s")).unwrap_or_default();
            format!("{circuit}: {} {}{by}{left}", measured(trend.signal), if trend.course.score < 0.0 { "falls" } else { "rises" })
        }
        What::Pressure(phase, resource, usage) => {
            let instance = if finding.instance.is_empty() { String::new() } else { format!(" in {}", finding.instance) };
            let of = match usage.reference {
                Reference::Limit => format!("{:.0} % of its limit", usage.usage * 100.0),
                Reference::Baseline => format!("{:.1} times what is usual", usage.usage),
            };
            let again = if phase == Phase::End { "is no longer under pressure" } else { "is under pressure" };
            format!("{circuit}: {}{instance} {again}: {of}", resource.name())
        }
        What::Health(HealthChange { after, reasons, .. }) => {
            let reasons: Vec<String> = reasons.iter().flatten().map(ToString::to_string).collect();
            let because = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
            let instance = if finding.instance.is_empty() { String::new() } else { format!(" in {}", finding.instance) };
            format!("{circuit}{instance} is {}{because}", after.name())
        }
    }
}

/// How people call what rises and falls.
const fn measured(measured: Measured) -> &'static str {
    match measured {
        Measured::Calls(signal) => name(signal),
        Measured::Resource(resource) => resource.name(),
    }
}

/// How people call a signal.
const fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::LatencyBody => "latency",
        Signal::LatencyTail => "latency of the slowest calls",
        Signal::Errors => "the share of failures",
        Signal::Rejections => "the share of refused calls",
        Signal::RateUp | Signal::RateDown => "the number of calls",
    }
}

fn of_anomaly(at: u64, phase: Phase, anomaly: &Anomaly) -> String {
    let name = name(anomaly.signal);
    let Anomaly { score, expected, seen, .. } = anomaly;
    let shares = format!("{:.1} % where {:.1} % is usual", seen * 100.0, expected * 100.0);
    let saw = match anomaly.signal {
        Signal::LatencyBody | Signal::LatencyTail => format!(": {:.1} ms where {:.1} ms is usual", seen * 1e3, expected * 1e3),
        Signal::Errors | Signal::Rejections => format!(": {shares}"),
        Signal::RateUp | Signal::RateDown => format!(": {seen:.1} a second where {expected:.1} is usual"),
    };
    match phase {
        Phase::End => {
            let seconds = at.saturating_sub(anomaly.begin) as f64 / 1e9;
            format!("{name} is as usual again after {seconds:.0} s; it was {score:.1} deviations off at the most")
        }
        Phase::Begin | Phase::Change | Phase::Stopped => {
            let side = if anomaly.signal.direction() == "down" { "below" } else { "above" };
            format!("{name} is {score:.1} deviations {side} what is usual{saw}")
        }
    }
}

fn of_trips(pattern: &Pattern) -> String {
    let Pattern { kind, count, .. } = pattern;
    let period = pattern.period.unwrap_or_default();
    match kind {
        PatternKind::Regular => {
            let jitter = pattern.jitter.map(|jitter| format!(" ± {jitter:.2} s")).unwrap_or_default();
            let sure = if pattern.certainty < Certainty::Certain { "perhaps " } else { "" };
            format!("{sure}trips every {period:.1} s{jitter}, {count} times")
        }
        PatternKind::Aligned => {
            let phase = pattern.phase.unwrap_or_default();
            format!("trips by the clock, {count} times: {phase:.0} s into every {period:.0} s")
        }
        PatternKind::Burst => format!("tripped {count} times within ten minutes, more often than usual"),
        PatternKind::Flapping => format!("opens and closes in turn: {count} half minutes of the last ten minutes saw a change"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::{
        analysis::series::{Course, Turn},
        finding::{HealthChange, Resource},
        key::CircuitKey,
    };

    fn finding(instance: &str, what: What) -> Finding {
        Finding { at: 7, circuit: CircuitKey::default().into(), instance: instance.into(), incident: None, what }
    }

    #[test]
    fn attributes_are_called_as_they_are_documented() {
        let course = Course { slope: 1.0, relative: Some(0.1), score: 5.0, level: 10.0, to_limit: Some(60.0) };
        let what = What::of_turn(Measured::Resource(Resource::JvmMemory), Turn::Begins(course));
        let record = record(&finding("a", what), 9);
        let keys: Vec<&str> = record.attributes.iter().map(|attribute| &*attribute.key).collect();
        let trend = ["phase", "slope", "p_value", "level", "relative", "time_to_limit"].map(|key| format!("circuit_breaker.trend.{key}"));
        assert!(trend.iter().all(|key| keys.contains(&&**key)), "{keys:?}");
        assert!(["circuit_breaker.signal", "circuit_breaker.direction", "circuit_breaker.instance"].iter().all(|key| keys.contains(key)), "{keys:?}");
        assert_eq!(keys.len(), 10, "{keys:?}");
    }

    #[test]
    fn the_health_of_an_instance_is_an_event_of_its_own() {
        let change = HealthChange { before: Status::Healthy, after: Status::Unhealthy, reasons: [None; 4] };
        let [of_circuit, of_instance] = ["", "a"].map(|instance| record(&finding(instance, What::Health(change)), 9));
        assert_eq!((&*of_circuit.event_name, &*of_instance.event_name), ("circuit_breaker.health", "circuit_breaker.instance.health"));
        let uid = |record: &LogRecord| record.attributes.iter().find(|attribute| attribute.key == "log.record.uid").cloned();
        assert_ne!(uid(&of_circuit), uid(&of_instance));
    }
}
