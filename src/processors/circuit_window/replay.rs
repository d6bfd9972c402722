use std::{cmp::Reverse, collections::BTreeMap, ops::RangeInclusive, sync::Arc};

use bytes::Bytes;
use opentelemetry::metrics::Meter;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use serde_yaml::Value;

use super::{
    agreement::{Agreement, Due, time_of},
    config::Config,
    engine::{self, Engine, News, Turns},
};
use crate::{
    circuit::{
        analysis::config::AnalysisConfig,
        cascade::Together,
        circuit::Circuit,
        config::CircuitMetricsConfig,
        event::CircuitEvent,
        finding::Finding,
        inspect::{Inspection, ResourceRecord},
        service::ServiceChange,
        state::Change,
    },
    clock::{Clock, Manual, Wall},
    net::Listeners,
    otlp::{Checked, Malformed, Signal, check},
    pipeline::{Ledger, Part, Setup},
};

/// A `circuit_window` driven by event time instead of the clock on the wall: it is always as late as the newest end
/// of any span that was fed, but for senders whose clocks are ahead of the others'. The same requests in the same order
/// give the same, to the byte.
pub struct Replay {
    engine: Engine,
    clock: Arc<Manual>,
    agreement: Agreement<Read>,
    /// No recording holds what has not happened yet; Unix time in nanoseconds.
    horizon: u64,
    interval: u64,
    counted: Replayed,
    events: Vec<Decided>,
    findings: Vec<Finding>,
    services: Vec<ServiceChange>,
    together: Vec<Together>,
    metrics: Vec<ExportMetricsServiceRequest>,
    wants_metrics: bool,
    /// Circuits that nobody called for long.
    ended: Vec<Circuit>,
}

/// A request that was read.
struct Read {
    bytes: Bytes,
    items: usize,
    inspection: Inspection,
}

impl Read {
    fn newest_end(&self) -> u64 {
        self.inspection.resources.iter().map(|resource| resource.newest_end).max().unwrap_or_default()
    }

    /// When it is from.
    fn time(&self) -> u64 {
        if let [resource] = &self.inspection.resources[..] {
            return resource.newest_end;
        }
        // Each sender has one say, however many entries of a request are its own.
        let of = |text| self.inspection.text(&self.bytes, text);
        let sender = |one: &ResourceRecord| ([one.environment, one.namespace, one.service, one.instance].map(of), one.newest_end);
        let mut all: Vec<([&[u8]; 4], u64)> = self.inspection.resources.iter().map(sender).collect();
        all.sort_unstable_by_key(|(sender, end)| (*sender, Reverse(*end)));
        all.dedup_by_key(|(sender, _)| *sender);
        time_of(all.into_iter().map(|(_, end)| end))
    }

    /// Who sent it, as people call them.
    fn senders(&self) -> impl Iterator<Item = (String, u64)> {
        self.inspection.resources.iter().map(|resource| {
            let text = |text| String::from_utf8_lossy(self.inspection.text(&self.bytes, text)).into_owned();
            let of = [resource.environment, resource.namespace, resource.service].map(text);
            let service = of.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
            let instance = text(resource.instance);
            let sender = if instance.is_empty() { service } else { format!("{service} ({instance})") };
            (sender, resource.newest_end)
        })
    }
}

/// An event, and when it was final.
#[derive(Clone, Debug)]
pub struct Decided {
    /// By event time, in Unix nanoseconds.
    pub at: u64,
    /// What happened.
    pub event: CircuitEvent,
}

/// What a recording came to, each in order of time.
#[derive(Clone, Debug, Default)]
pub struct Replayings {
    /// What breakers did.
    pub events: Vec<Decided>,
    /// What analyzers found of circuits.
    pub findings: Vec<Finding>,
    /// How callees were.
    pub services: Vec<ServiceChange>,
    /// What incidents of several circuits have to do with each other.
    pub together: Vec<Together>,
    /// Whose clocks were ahead of the others'.
    pub ahead: Vec<Ahead>,
}

/// A sender whose clock is ahead of the others': what it sent is from the future.
#[derive(Clone, Debug)]
pub struct Ahead {
    /// Its service, and its instance if it says one.
    pub sender: String,
    /// How far, in nanoseconds.
    pub by: u64,
}

/// What requests came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Replayed {
    /// Spans in them.
    pub spans: u64,
    /// Spans that were left out because their ids are invalid.
    pub invalid_ids: u64,
    /// Spans of circuits that came after their bucket was closed.
    pub late: u64,
    /// Spans from the future.
    pub future: u64,
}

impl Replay {
    /// From what a user wrote for the processor, and what analyzers look for. Metrics are made only where somebody wants
    /// them.
    ///
    /// # Errors
    /// For people: what is wrong with it.
    pub fn new(value: Value, analysis: AnalysisConfig, meter: Meter, wants_metrics: bool) -> Result<Self, String> {
        let config: Config = serde_yaml::from_value(value).map_err(|error| error.to_string())?;
        let mut checked = config.check().map_err(|faults| faults.to_string())?;
        checked.circuit.analysis = analysis;
        let clock = Arc::new(Manual::default());
        let setup = Setup {
            id: "circuit_window".to_owned(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ledger: Arc::new(Ledger::default()),
            queue_room: Arc::default(),
            listeners: Arc::new(Listeners::default()),
            meter,
        };
        Ok(Self {
            agreement: Agreement::new(checked.circuit.max_clock_skew, checked.circuit.allowed_lateness),
            horizon: Wall.now().saturating_add(checked.circuit.max_clock_skew),
            interval: (checked.emit_interval / SECOND).max(1),
            engine: Engine::new(checked, &setup, 1),
            clock,
            counted: Replayed::default(),
            events: Vec::new(),
            findings: Vec::new(),
            services: Vec::new(),
            together: Vec::new(),
            metrics: Vec::new(),
            wants_metrics,
            ended: Vec::new(),
        })
    }

    /// Takes a request of spans, to count it now or when it is agreed what time it is.
    ///
    /// # Errors
    /// It is none; nothing of it is counted.
    pub fn feed(&mut self, request: Bytes) -> Result<(), Malformed> {
        let Checked { bytes, items, rejected, .. } = check(Signal::Traces, request)?;
        let inspection = self.engine.inspect_until(&Part::new(bytes.clone(), items), self.horizon)?;
        self.counted.spans += (items + rejected) as u64;
        self.counted.invalid_ids += rejected as u64;
        let read = Read { bytes, items, inspection };
        let time = read.time();
        if self.agreement.is_plain(time) {
            let horizon = self.agreement.horizon(time);
            self.count(Due { request: read, horizon, moves: true });
        } else {
            let mut newest: BTreeMap<String, u64> = BTreeMap::new();
            for (sender, end) in read.senders() {
                let known = newest.entry(sender).or_default();
                *known = (*known).max(end);
            }
            let (length, statements) = (read.bytes.len(), newest.into_iter().collect());
            let due = self.agreement.hear(read, length, statements);
            due.into_iter().for_each(|due| self.count(due));
        }
        Ok(())
    }

    /// What was counted until now.
    pub const fn counted(&self) -> Replayed {
        self.counted
    }

    fn count(&mut self, due: Due<Read>) {
        let Due { request, horizon, moves } = due;
        let beyond = request.newest_end() > horizon;
        let Read { bytes, items, mut inspection } = request;
        if beyond && let Ok(nearer) = self.engine.inspect_until(&Part::new(bytes.clone(), items), horizon.min(self.horizon)) {
            inspection = nearer;
        }
        let before = self.clock.now() / SECOND;
        if moves {
            self.clock.advance_to(inspection.resources.iter().map(|resource| resource.newest_end).max().unwrap_or_default());
            self.agreement.reached(self.clock.now());
        }
        self.counted.late += self.engine.apply(&bytes, &inspection);
        self.counted.future += inspection.future;
        let second = self.clock.now() / SECOND;
        if second > before {
            let news = self.engine.advance();
            self.note(news);
            self.report(Turns::of(&seconds_since(before, second, self.interval), self.interval));
        }
    }

    /// Closes everything, and says what was decided and what was found, each in order of time.
    pub fn finish(&mut self) -> Replayings {
        let due = self.agreement.finish();
        due.into_iter().for_each(|due| self.count(due));
        let news = self.engine.finish();
        self.note(news);
        self.report(Turns::all());
        let mut events = std::mem::take(&mut self.events);
        events.sort_by(|left, right| {
            let key = |decided: &Decided| (decided.event.at, Arc::clone(&decided.event.circuit), Arc::clone(&decided.event.instance));
            key(left).cmp(&key(right))
        });
        let mut findings = std::mem::take(&mut self.findings);
        findings.sort_by(|left, right| left.at.cmp(&right.at).then_with(|| left.circuit.cmp(&right.circuit)));
        let (services, together) = (std::mem::take(&mut self.services), std::mem::take(&mut self.together));
        let ahead = self.agreement.ahead().map(|(sender, by)| Ahead { sender: sender.to_owned(), by }).collect();
        Replayings { events, findings, services, together, ahead }
    }

    /// Metrics that were made since this was asked last.
    pub fn take_metrics(&mut self) -> Vec<ExportMetricsServiceRequest> {
        std::mem::take(&mut self.metrics)
    }

    /// Shows every circuit, those that ended included, in no particular order.
    pub fn visit(&self, visit: &mut dyn FnMut(&Circuit)) {
        self.ended.iter().for_each(&mut *visit);
        self.engine.visit(visit);
    }

    /// The settings of windowing.
    pub fn settings(&self) -> CircuitMetricsConfig {
        self.engine.settings()
    }

    fn note(&mut self, news: News) {
        let at = self.clock.now();
        self.findings.extend(news.findings);
        self.services.extend(news.services);
        self.together.extend(news.together);
        let told = news.events.into_iter().filter(|event| event.change != Change::InstanceGone);
        self.events.extend(told.map(|event| Decided { at, event }));
    }

    fn report(&mut self, turns: Turns) {
        if !self.wants_metrics {
            self.ended.extend(self.engine.take_ended());
            return;
        }
        let mut telling = self.engine.begin_telling(turns);
        while self.engine.look_at_some(&mut telling) {}
        let moment = telling.moment;
        telling.beginnings.into_iter().chain(telling.rest).for_each(|due| self.tell(due));
        if turns.is(0) {
            for due in self.engine.beside_due(moment) {
                self.metrics.push(Engine::beside(&due, moment).0);
                self.engine.beside_told(&due, moment);
            }
        }
    }

    fn tell(&mut self, due: engine::Due) {
        let mut report = self.engine.report(due);
        if report.points > 0 {
            self.metrics.push(std::mem::take(&mut report.request));
        }
        self.ended.extend(self.engine.settle(report, true));
    }
}

/// The seconds that went by, at most as many as an interval has.
pub(super) fn seconds_since(before: u64, now: u64, interval: u64) -> RangeInclusive<u64> {
    (before + 1).max((now + 1).saturating_sub(interval))..=now
}

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;
