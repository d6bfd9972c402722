use std::{borrow::Cow, collections::BTreeMap, io, io::Write};

use serde::Serialize;

use super::truth::Verdict;
use crate::{
    circuit::{
        cascade::Together,
        circuit::Circuit,
        finding::{Anomaly, Finding, HealthChange, Pattern, Status, What},
        key::CircuitKey,
        service::{ServiceChange, Whose},
        sketch::Dense,
        state::{Change, Source, State},
    },
    foreign::escaped,
    processors::circuit_window::Decided,
};

/// What tells a circuit from all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct CircuitName {
    /// `namespace/name`, or `name`, of the service.
    caller: String,
    /// `deployment.environment.name`, where one is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<String>,
    /// Of a database or topic its own name, without its system.
    callee: Option<String>,
    /// `database` or `topic`, where the callee is no service.
    #[serde(skip_serializing_if = "Option::is_none")]
    callee_kind: Option<&'static str>,
    /// The breaker's own name.
    name: Option<String>,
    /// Where the callee's name was learned: the address that spans called first.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    overflow: bool,
    /// The callee or breaker as metrics and logs call it.
    #[serde(skip)]
    shown: String,
}

impl CircuitName {
    fn of(key: &CircuitKey) -> Self {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let caller = match said(&key.caller.namespace) {
            Some(namespace) => format!("{namespace}/{}", key.caller.service),
            None => key.caller.service.to_string(),
        };
        Self {
            caller,
            environment: said(&key.caller.environment),
            callee: key.own_name().map(Cow::into_owned),
            callee_kind: (!key.kind.is_service()).then(|| key.kind.name()),
            name: key.named.then(|| key.name()),
            address: said(&key.address),
            overflow: key.overflow,
            shown: key.name(),
        }
    }

    fn text(&self) -> String {
        let called = self.name.as_deref().unwrap_or(&self.shown);
        format!("{} -> {}", self.caller, if self.overflow { "(all others)" } else { called })
    }
}

/// Something that a breaker did.
#[derive(Debug, Serialize)]
pub(super) struct EventLine {
    pub(super) kind: &'static str,
    pub(super) event: &'static str,
    pub(super) time_unix_nano: u64,
    pub(super) decided_unix_nano: u64,
    circuit: CircuitName,
    pub(super) instance: String,
    pub(super) source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<String>,
}

impl EventLine {
    /// `service.name` of the caller.
    pub(super) fn caller(&self) -> &str {
        self.circuit.caller.rsplit('/').next().unwrap_or_default()
    }

    /// All that the circuit is called: callee, breaker, address, and names without their port.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let said = [&self.circuit.callee, &self.circuit.name, &self.circuit.address].into_iter().flatten();
        said.flat_map(|name| [name.as_str(), without_port(name)])
    }

    pub(super) fn of(decided: &Decided) -> Self {
        let event = &decided.event;
        let event_name = event.change.event_name();
        let circuit = CircuitName::of(&event.circuit);
        let name = circuit.name.clone();
        Self {
            kind: if event.change == Change::CallsStopped { "finding" } else { "event" },
            event: event_name.strip_prefix("circuit_breaker.").unwrap_or(event_name),
            time_unix_nano: event.at,
            decided_unix_nano: event.decided,
            circuit: CircuitName { name: event.breaker.as_ref().map(ToString::to_string).or(name), ..circuit },
            instance: event.instance.to_string(),
            source: event.source.name(),
            incident: event.incident.map(|incident| incident.to_string()),
        }
    }
}

/// A host's name without its port; an address needs it.
fn without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            let is_address = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            if host.is_empty() || is_address { name } else { host }
        }
        _ => name,
    }
}

/// Something that an analyzer found.
#[derive(Debug, Serialize)]
pub(super) struct FindingLine {
    kind: &'static str,
    /// `anomaly`, `pattern`, `trend`, `resource_pressure`, `health` or `instance_health`.
    finding: String,
    /// `begin`, `change`, `end` or `stopped`.
    phase: &'static str,
    time_unix_nano: u64,
    circuit: CircuitName,
    #[serde(skip_serializing_if = "String::is_empty")]
    instance: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<String>,
    #[serde(flatten)]
    what: FoundLine,
}

/// How a callee is, over the circuits that call it, or all together.
#[derive(Debug, Serialize)]
pub(super) struct ServiceLine {
    kind: &'static str,
    finding: &'static str,
    phase: &'static str,
    time_unix_nano: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    service: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    environment: String,
    status: &'static str,
    before: &'static str,
    reason: String,
}

impl ServiceLine {
    pub(super) fn of(change: &ServiceChange) -> Self {
        let (finding, service, environment) = match &change.whose {
            Whose::Overall => ("overall_health", String::new(), String::new()),
            Whose::Callee(callee) => ("service_health", callee.name.to_string(), callee.environment.to_string()),
        };
        Self {
            kind: "finding",
            finding,
            phase: "change",
            time_unix_nano: change.at,
            service,
            environment,
            status: change.after.name(),
            before: change.before.name(),
            reason: if change.after > Status::Healthy { change.tally.to_string() } else { String::new() },
        }
    }
}

/// What incidents of several circuits have to do with each other.
#[derive(Debug, Serialize)]
pub(super) struct TogetherLine {
    kind: &'static str,
    finding: &'static str,
    phase: &'static str,
    time_unix_nano: u64,
    /// `cascade` or `outage`.
    pattern: &'static str,
    /// The one that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    circuit: Option<CircuitName>,
    /// The one that opens first.
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<CircuitName>,
    count: usize,
    of: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    p_value: Option<f64>,
}

impl TogetherLine {
    pub(super) fn of(together: &Together) -> Self {
        let (circuit, first, count, of, p_value) = match together {
            Together::Cascade { cascade, .. } => {
                let (then, first) = (CircuitName::of(&cascade.then), CircuitName::of(&cascade.first));
                (Some(then), Some(first), cascade.followed, cascade.of, Some(cascade.p_value))
            }
            Together::Outage { circuits, of, .. } => (None, None, *circuits, *of, None),
        };
        let (phase, time_unix_nano, pattern) = (together.phase(), together.at(), together.name());
        Self { kind: "finding", finding: "pattern", phase, time_unix_nano, pattern, circuit, first, count, of, p_value }
    }

    fn detail(&self) -> String {
        match &self.first {
            Some(first) => format!("cascade: after {}, {} of {} times", first.text(), self.count, self.of),
            None => format!("outage: {} of {} circuits opened at one time", self.count, self.of),
        }
    }
}

/// All that was found.
pub(super) struct Found<'a> {
    pub(super) findings: &'a [FindingLine],
    pub(super) services: &'a [ServiceLine],
    pub(super) together: &'a [TogetherLine],
}

/// One of them.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
enum AnyLine<'a> {
    Finding(&'a FindingLine),
    Service(&'a ServiceLine),
    Together(&'a TogetherLine),
}

impl Found<'_> {
    /// In order of time.
    fn in_order(&self) -> Vec<AnyLine<'_>> {
        let (findings, services, together) = (self.findings.iter(), self.services.iter(), self.together.iter());
        let all = findings.map(AnyLine::Finding).chain(services.map(AnyLine::Service)).chain(together.map(AnyLine::Together));
        let mut all: Vec<AnyLine<'_>> = all.collect();
        all.sort_by_key(AnyLine::at);
        all
    }
}

impl AnyLine<'_> {
    const fn at(&self) -> u64 {
        match self {
            Self::Finding(line) => line.time_unix_nano,
            Self::Service(line) => line.time_unix_nano,
            Self::Together(line) => line.time_unix_nano,
        }
    }

    /// As a row of a table: when, what, phase, circuit, instance, and details.
    fn row(&self) -> Vec<String> {
        let (finding, phase, circuit, instance, detail) = match self {
            Self::Finding(line) => (line.finding.clone(), line.phase, line.circuit.text(), line.instance.clone(), line.detail()),
            Self::Service(line) => {
                let detail = if line.reason.is_empty() { line.status.to_owned() } else { format!("{}, {}", line.status, line.reason) };
                (line.finding.to_owned(), line.phase, line.service.clone(), String::new(), detail)
            }
            Self::Together(line) => {
                let circuit = line.circuit.as_ref().map(CircuitName::text).unwrap_or_default();
                (line.finding.to_owned(), line.phase, circuit, String::new(), line.detail())
            }
        };
        vec![time(self.at()), finding, phase.to_owned(), circuit, instance, detail]
    }
}

/// What was found, as in its log record.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum FoundLine {
    Anomaly {
        signal: &'static str,
        direction: &'static str,
        score: f64,
        expected: f64,
        seen: f64,
        begin_unix_nano: u64,
        peak_unix_nano: u64,
    },
    Pattern {
        pattern: &'static str,
        certainty: &'static str,
        count: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        period: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        jitter: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        p_value: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        clock_phase: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_trip_unix_nano: Option<u64>,
    },
    Trend {
        signal: &'static str,
        direction: &'static str,
        slope: f64,
        p_value: f64,
        level: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        relative: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        time_to_limit: Option<f64>,
    },
    Pressure {
        signal: &'static str,
        reference: &'static str,
        usage: f64,
        seen: f64,
        threshold: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        baseline: Option<f64>,
    },
    Health {
        status: &'static str,
        before: &'static str,
        reasons: Vec<String>,
    },
}

impl FindingLine {
    pub(super) fn of(finding: &Finding) -> Self {
        let name = finding.event_name();
        Self {
            kind: "finding",
            finding: name.strip_prefix("circuit_breaker.").unwrap_or(name).replace('.', "_"),
            phase: finding.what.phase().name(),
            time_unix_nano: finding.at,
            circuit: CircuitName::of(&finding.circuit),
            instance: finding.instance.to_string(),
            incident: finding.incident.map(|incident| incident.to_string()),
            what: FoundLine::of(&finding.what),
        }
    }

    fn detail(&self) -> String {
        match &self.what {
            FoundLine::Anomaly { signal, direction, score, expected, seen, begin_unix_nano, .. } => {
                format!("{signal} {direction}, {score:.1} deviations: {seen:.3} where {expected:.3} is usual, since {}", time(*begin_unix_nano))
            }
            FoundLine::Pattern { pattern, certainty, count, period, .. } => {
                let every = period.map(|period| format!(", every {period:.1} s")).unwrap_or_default();
                format!("{certainty}: {pattern}{every}, {count} times")
            }
            FoundLine::Trend { signal, direction, relative, time_to_limit, .. } => {
                let by = relative.map(|share| format!(", {:+.1} % a minute", share * 100.0)).unwrap_or_default();
                let left = time_to_limit.map(|seconds| format!(", at its limit in {seconds:.0} s")).unwrap_or_default();
                format!("{signal} {direction}{by}{left}")
            }
            FoundLine::Pressure { signal, reference, usage, .. } => format!("{signal} at {usage:.2} of its {reference}"),
            FoundLine::Health { status, reasons, .. } => [vec![(*status).to_owned()], reasons.clone()].concat().join(", "),
        }
    }
}

impl FoundLine {
    fn of(what: &What) -> Self {
        match *what {
            What::Anomaly(_, Anomaly { signal, begin, score, expected, seen, peak }) => {
                let (signal, direction) = (signal.name(), signal.direction());
                Self::Anomaly { signal, direction, score, expected, seen, begin_unix_nano: begin, peak_unix_nano: peak }
            }
            What::Pattern(_, Pattern { kind, certainty, count, period, jitter, p_value, next, phase }) => Self::Pattern {
                pattern: kind.name(),
                certainty: certainty.name(),
                count,
                period,
                jitter,
                p_value,
                clock_phase: phase,
                next_trip_unix_nano: next,
            },
            What::Trend(_, trend) => Self::Trend {
                signal: trend.signal.name(),
                direction: trend.direction(),
                slope: trend.course.slope,
                p_value: trend.p_value(),
                level: trend.course.level,
                relative: trend.course.relative,
                time_to_limit: trend.course.to_limit,
            },
            What::Pressure(_, resource, usage) => Self::Pressure {
                signal: resource.name(),
                reference: usage.reference.name(),
                usage: usage.usage,
                seen: usage.seen,
                threshold: usage.threshold,
                baseline: usage.baseline,
            },
            What::Health(HealthChange { before, after, reasons }) => {
                Self::Health { status: after.name(), before: before.name(), reasons: reasons.iter().flatten().map(ToString::to_string).collect() }
            }
        }
    }
}

/// Calls by outcome.
#[derive(Debug, Serialize)]
struct Calls {
    success: u64,
    failure: u64,
    rejected: u64,
}

/// What a breaker did, by how it was found out.
#[derive(Debug, Serialize)]
struct Breaker {
    source: &'static str,
    trips: u64,
    recovery_attempts: u64,
    recovery_attempt_failures: u64,
    recoveries: u64,
}

/// The last window.
#[derive(Debug, Serialize)]
struct WindowLine {
    /// Where it ends: the last bucket that was closed.
    end_unix_nano: u64,
    #[serde(flatten)]
    calls: Calls,
    /// Seconds, by percentile; empty without calls.
    duration: BTreeMap<String, f64>,
}

/// Something that was unusual, or is.
#[derive(Debug, Serialize)]
struct AnomalyLine {
    signal: &'static str,
    direction: &'static str,
    score: f64,
    expected: f64,
    seen: f64,
    begin_unix_nano: u64,
    peak_unix_nano: u64,
    /// While it goes on there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_unix_nano: Option<u64>,
}

impl AnomalyLine {
    fn all(circuit: &Circuit) -> Vec<Self> {
        let of = |anomaly: &Anomaly, end: Option<u64>| Self {
            signal: anomaly.signal.name(),
            direction: anomaly.signal.direction(),
            score: anomaly.score,
            expected: anomaly.expected,
            seen: anomaly.seen,
            begin_unix_nano: anomaly.begin,
            peak_unix_nano: anomaly.peak,
            end_unix_nano: end,
        };
        let past = circuit.past_anomalies().map(|(anomaly, end)| of(anomaly, Some(*end)));
        past.chain(circuit.anomalies().map(|anomaly| of(anomaly, None))).collect()
    }
}

/// The final state of a circuit.
#[derive(Debug, Serialize)]
pub(super) struct CircuitLine {
    kind: &'static str,
    pub(super) circuit: CircuitName,
    requests: Calls,
    /// Failures by `error.type`.
    errors: BTreeMap<String, u64>,
    breaker: Vec<Breaker>,
    window: WindowLine,
    /// Where health is judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<&'static str>,
    /// What was unusual within the last hour, or is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    anomalies: Vec<AnomalyLine>,
    /// Instances by the state of their breaker, where one is known.
    instances: BTreeMap<&'static str, u32>,
    /// It goes on under another name.
    #[serde(skip)]
    retired: bool,
    /// What leads to it.
    #[serde(skip)]
    addresses: Vec<Box<str>>,
}

impl CircuitLine {
    fn add(&mut self, past: Self) {
        self.requests.success += past.requests.success;
        self.requests.failure += past.requests.failure;
        self.requests.rejected += past.requests.rejected;
        for (kind, count) in past.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        for before in past.breaker {
            match self.breaker.iter_mut().find(|now| now.source == before.source) {
                Some(now) => {
                    now.trips += before.trips;
                    now.recovery_attempts += before.recovery_attempts;
                    now.recovery_attempt_failures += before.recovery_attempt_failures;
                    now.recoveries += before.recoveries;
                }
                None => self.breaker.push(before),
            }
        }
    }

    pub(super) fn of(circuit: &Circuit, bucket_size: u64, percentiles: &[f64]) -> Self {
        let (totals, window) = (circuit.totals(), circuit.window().total());
        let states = circuit.instances().unwrap_or_default();
        Self {
            kind: "circuit",
            circuit: CircuitName::of(circuit.key()),
            requests: Calls { success: totals.successes, failure: totals.failures(), rejected: totals.rejections },
            errors: totals.errors.iter().map(|error| (error.kind.to_string(), error.count)).collect(),
            breaker: totals
                .breaker
                .iter()
                .map(|counts| Breaker {
                    source: counts.source.name(),
                    trips: counts.trips,
                    recovery_attempts: counts.recovery_attempts,
                    recovery_attempt_failures: counts.recovery_attempt_failures,
                    recoveries: counts.recoveries,
                })
                .collect(),
            window: WindowLine {
                end_unix_nano: circuit.closed_to().saturating_mul(bucket_size),
                calls: Calls { success: window.successes, failure: window.failures, rejected: window.rejections },
                duration: durations(&window.latencies, percentiles),
            },
            retired: circuit.is_retired(),
            health: circuit.health().map(|(status, _)| status.name()),
            anomalies: AnomalyLine::all(circuit),
            addresses: circuit.addresses().collect(),
            instances: State::ALL.iter().map(|state| state.name()).zip(states).filter(|(_, count)| *count > 0).collect(),
        }
    }
}

/// Adds what circuits counted before they went on under another name to those they are now.
pub(super) fn absorb(circuits: &mut Vec<CircuitLine>) {
    let (past, mut now): (Vec<CircuitLine>, Vec<CircuitLine>) = std::mem::take(circuits).into_iter().partition(|line| line.retired);
    for line in past {
        let address = line.circuit.address.as_ref().unwrap_or(&line.circuit.shown);
        let leads = |heir: &CircuitLine| heir.addresses.iter().any(|known| **known == **address);
        let is_heir = |heir: &&mut CircuitLine| heir.circuit.caller == line.circuit.caller && leads(heir);
        match now.iter_mut().find(is_heir) {
            Some(heir) => heir.add(line),
            None => now.push(line),
        }
    }
    *circuits = now;
}

fn durations(latencies: &Dense, percentiles: &[f64]) -> BTreeMap<String, f64> {
    percentiles.iter().map(|percentile| format!("p{percentile}")).zip(latencies.percentiles(percentiles)).collect()
}

/// One JSON object a line.
pub(super) fn write(out: &mut impl Write, events: &[EventLine], found: &Found<'_>, circuits: &[CircuitLine], verdicts: &[Verdict]) -> io::Result<()> {
    fn all(out: &mut impl Write, lines: &[impl Serialize]) -> io::Result<()> {
        for line in lines {
            serde_json::to_writer(&mut *out, line)?;
            writeln!(out)?;
        }
        Ok(())
    }
    all(out, events)?;
    all(out, &found.in_order())?;
    all(out, circuits)?;
    all(out, verdicts)
}

/// For reading.
pub(super) fn write_tables(out: &mut impl Write, events: &[EventLine], found: &Found<'_>, circuits: &[CircuitLine]) -> io::Result<()> {
    if !events.is_empty() {
        let rows = events.iter().map(|event| {
            vec![time(event.time_unix_nano), event.event.to_owned(), event.circuit.text(), event.instance.clone(), event.source.to_owned()]
        });
        write_table(out, &["TIME", "EVENT", "CIRCUIT", "INSTANCE", "SOURCE"], rows.collect())?;
        writeln!(out)?;
    }
    let found = found.in_order();
    if !found.is_empty() {
        write_table(out, &["TIME", "FINDING", "PHASE", "CIRCUIT", "INSTANCE", "WHAT"], found.iter().map(AnyLine::row).collect())?;
        writeln!(out)?;
    }
    let rows = circuits.iter().map(|line| {
        let real = || line.breaker.iter().filter(|breaker| breaker.source != Source::Inferred.name());
        let sum = |what: fn(&Breaker) -> u64| real().map(what).sum::<u64>().to_string();
        let slowest = line.window.duration.iter().map(|(name, seconds)| format!("{name} {:.1}ms", seconds * 1e3)).collect::<Vec<_>>();
        vec![
            line.circuit.text(),
            (line.requests.success + line.requests.failure + line.requests.rejected).to_string(),
            line.requests.failure.to_string(),
            line.requests.rejected.to_string(),
            sum(|breaker| breaker.trips),
            sum(|breaker| breaker.recoveries),
            slowest.join(" "),
        ]
    });
    write_table(out, &["CIRCUIT", "REQUESTS", "FAILED", "REJECTED", "TRIPS", "RECOVERIES", "LAST WINDOW"], rows.collect())
}

fn time(nanos: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanos)).map_or_else(|_| nanos.to_string(), |time| format!("{time:.3}"))
}

/// Columns as wide as their widest cell.
pub(super) fn write_table(out: &mut impl Write, head: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let shown = rows.into_iter().map(|row| row.iter().map(|cell| escaped(cell).into_owned()).collect());
    let rows: Vec<Vec<String>> = std::iter::once(head.iter().map(|title| (*title).to_owned()).collect()).chain(shown).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default())
        .collect();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}
