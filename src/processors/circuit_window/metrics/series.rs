use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{ExponentialHistogram, Histogram, NumberDataPoint, Sum, metric::Data},
};

use super::{
    super::{
        attributes::{text, truth},
        gauge,
    },
    Page,
    found::{self, Found, Of},
    point::{Drawn, exemplar_of, seconds},
};
use crate::circuit::{
    analysis::anomaly::Signal,
    bucket::Outcome,
    circuit::{Circuit, Exemplar as Slowest},
    key::CircuitKey,
    sent::Sent,
    state::{Source, State},
    totals,
};

/// Attributes of every point of a circuit.
fn base(key: &CircuitKey) -> Vec<KeyValue> {
    if key.overflow {
        return vec![truth("otel.metric.overflow", true)];
    }
    let callee = key.callee().map(|callee| text("service.peer.name", callee.into_owned()));
    [text("circuit_breaker.name", key.name())].into_iter().chain(callee).collect()
}

/// How much is told of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// First points of 0 of counters and histograms whose series have not begun; nothing else.
    Begin,
    /// What changed.
    Changed,
    /// Everything, changed or not.
    Whole,
    /// That each series that was begun has ended.
    End,
}

/// The series of one circuit.
pub(super) struct Series<'a, 'b> {
    base: Vec<KeyValue>,
    circuit: &'a Circuit,
    extent: Extent,
    page: &'a mut Page<'b>,
    sent: Sent,
}

/// A counter as it was and as it is.
#[derive(Clone, Copy)]
struct Count {
    /// `None` if the series has not begun.
    before: Option<u64>,
    now: u64,
    /// When the series began.
    since: u64,
}

/// A histogram as it was told last and as it is.
struct Latencies<'a> {
    name: &'static str,
    attributes: Vec<KeyValue>,
    histogram: &'a totals::Histogram,
    /// How many it held when it was told last; `None` if its series has not begun.
    told: Option<u64>,
    /// What it held then, where deltas are told.
    previous: Option<&'a totals::Histogram>,
    exemplar: Option<Slowest>,
}

impl<'a, 'b> Series<'a, 'b> {
    /// What is told of a circuit by this is noted in `sent`.
    pub(super) fn new(circuit: &'a Circuit, extent: Extent, page: &'a mut Page<'b>, sent: Sent) -> Self {
        Self { base: base(circuit.key()), circuit, extent, page, sent }
    }

    /// Tells what there is to tell; gives what was noted.
    pub(super) fn tell(mut self) -> Sent {
        if self.circuit.key().overflow {
            self.overflow();
        } else {
            self.requests();
            self.durations();
            self.breaker();
            self.anomalies();
            if self.extent != Extent::Begin {
                self.instances();
                self.window();
                self.findings();
            }
        }
        self.sent
    }

    fn with(&self, more: impl IntoIterator<Item = KeyValue>) -> Vec<KeyValue> {
        self.base.iter().cloned().chain(more).collect()
    }

    fn send(&mut self, name: &'static str, data: Data) {
        self.page.metric(name, data);
    }

    /// Whether a series is told of that has begun, or has not; of deltas none has to begin with a point of 0.
    fn tells(&self, has_begun: bool) -> bool {
        match self.extent {
            Extent::Begin => !has_begun,
            Extent::Changed | Extent::Whole => has_begun || self.page.settings.circuit.delta,
            Extent::End => has_begun,
        }
    }

    /// Whether a series whose value did not change is told.
    fn tells_unchanged(&self) -> bool {
        match self.extent {
            Extent::Begin | Extent::Changed => false,
            // A delta of nothing says nothing.
            Extent::Whole => !self.page.settings.circuit.delta,
            Extent::End => true,
        }
    }

    /// All that found no room: the only attribute is the one that says so.
    fn overflow(&mut self) {
        let (totals, sent) = (self.circuit.totals(), &self.circuit.sent);
        let before = (sent.at > 0).then_some(sent.successes);
        let all = Count { before, now: totals.successes + totals.rejections, since: self.circuit.since() };
        self.sent.successes = self.counter("circuit_breaker.requests", &[], all, None).unwrap_or_default();
        let [told, _] = sent.durations;
        let told = self.latencies(Latencies {
            name: "circuit_breaker.duration",
            attributes: self.base.clone(),
            histogram: &totals.success_duration,
            told,
            previous: sent.histograms().map(|[durations, ..]| durations),
            exemplar: self.circuit.exemplars().success,
        });
        self.sent.durations = [told, None];
        self.note_histograms();
    }

    fn requests(&mut self) {
        let circuit = self.circuit;
        let (totals, before) = (circuit.totals(), &circuit.sent);
        let outcome = |outcome: Outcome| text("circuit_breaker.outcome", outcome.name());
        let successes = Count { before: (before.at > 0).then_some(before.successes), now: totals.successes, since: circuit.since() };
        self.sent.successes = self.counter("circuit_breaker.requests", &[outcome(Outcome::Success)], successes, None).unwrap_or_default();
        if totals.rejections > 0 {
            let rejections = Count { before: before.rejections(), now: totals.rejections, since: totals.rejections_since };
            let told = self.counter("circuit_breaker.requests", &[outcome(Outcome::Rejected)], rejections, None);
            self.sent.rarely().rejections = told;
        }
        self.sent.errors.clear();
        for (at, error) in totals.errors.iter().enumerate() {
            let attributes = [outcome(Outcome::Failure), text("error.type", &*error.kind)];
            let failures = Count { before: before.errors.get(at).copied(), now: error.count, since: error.since };
            // Those that have not begun come last.
            let told = self.counter("circuit_breaker.requests", &attributes, failures, None);
            self.sent.errors.extend(told);
        }
    }

    /// A monotonic sum; gives the count that is told by now, `None` while the series has not begun.
    fn counter(&mut self, name: &'static str, attributes: &[KeyValue], count: Count, exemplar: Option<Slowest>) -> Option<u64> {
        let Count { before, now: counted, since } = count;
        let is_same = before == Some(counted) && !self.tells_unchanged();
        if is_same || !self.tells(before.is_some()) {
            return before;
        }
        let (delta, moment) = (self.page.settings.circuit.delta, self.page.moment);
        let start = if delta && before.is_some() { self.circuit.sent.at } else { since };
        let (time, value, told) = match self.extent {
            Extent::Begin => (moment.begins, Some(0), 0),
            Extent::Changed | Extent::Whole if delta => (moment.now, Some(counted.saturating_sub(before.unwrap_or_default())), counted),
            Extent::Changed | Extent::Whole => (moment.now, Some(counted), counted),
            Extent::End => (moment.now, None, counted),
        };
        let exemplar = exemplar.filter(|_| self.page.settings.exemplars && matches!(self.extent, Extent::Changed | Extent::Whole));
        let point = NumberDataPoint {
            exemplars: exemplar.map(|found| exemplar_of(&found, 1.0, start, time)).into_iter().collect(),
            ..gauge::count(self.with(attributes.iter().cloned()), value, start, time)
        };
        let aggregation_temporality = self.page.temporality();
        self.send(name, Data::Sum(Sum { data_points: vec![point], aggregation_temporality, is_monotonic: true }));
        Some(told)
    }

    fn durations(&mut self) {
        let (totals, exemplars, sent) = (self.circuit.totals(), self.circuit.exemplars(), &self.circuit.sent);
        let previous = |at: usize| sent.histograms().and_then(|sent| sent.get(at));
        let outcome = |outcome: Outcome| self.with([text("circuit_breaker.outcome", outcome.name())]);
        let [told_successes, told_failures] = sent.durations;
        let successes = Latencies {
            name: "circuit_breaker.duration",
            attributes: outcome(Outcome::Success),
            histogram: &totals.success_duration,
            told: told_successes,
            previous: previous(0),
            exemplar: exemplars.success,
        };
        let failures = totals.failure_duration.as_deref().map(|histogram| Latencies {
            name: "circuit_breaker.duration",
            attributes: outcome(Outcome::Failure),
            histogram,
            told: told_failures,
            previous: previous(1),
            exemplar: exemplars.failure,
        });
        let source =
            totals.breaker.iter().find(|counts| counts.source != Source::Inferred).map(|counts| text("circuit_breaker.source", counts.source.name()));
        let incidents = totals.incident_duration.as_deref().map(|histogram| Latencies {
            name: "circuit_breaker.incident.duration",
            attributes: self.with(source),
            histogram,
            told: sent.incidents(),
            previous: previous(2),
            exemplar: None,
        });
        self.sent.durations = [self.latencies(successes), failures.and_then(|failures| self.latencies(failures))];
        if let Some(incidents) = incidents {
            let told = self.latencies(incidents);
            self.sent.rarely().incidents = told;
        }
        self.note_histograms();
    }

    /// Where deltas are told, what histograms held.
    fn note_histograms(&mut self) {
        let totals = self.circuit.totals();
        let (failed, incidents) = (totals.failure_duration.as_deref(), totals.incident_duration.as_deref());
        if self.page.settings.circuit.delta {
            let of = |histogram: Option<&totals::Histogram>| histogram.cloned().unwrap_or_default();
            self.sent.rarely().histograms = Some(Box::new([totals.success_duration.clone(), of(failed), of(incidents)]));
        }
    }

    /// A histogram, if there is anything in it; gives the count that is told by now, `None` while the series has not begun.
    fn latencies(&mut self, latencies: Latencies<'_>) -> Option<u64> {
        let Latencies { name, attributes, histogram, told, previous, exemplar } = latencies;
        let is_same = told == Some(histogram.count) && !self.tells_unchanged();
        if histogram.count == 0 || is_same || !self.tells(told.is_some()) {
            return told;
        }
        let (delta, moment) = (self.page.settings.circuit.delta, self.page.moment);
        let start = if delta && told.is_some() { self.circuit.sent.at } else { histogram.since };
        let empty = totals::Histogram::default();
        let nothing = |attributes: Vec<KeyValue>, time: u64, ends: bool| Drawn {
            attributes,
            start,
            time,
            histogram: &empty,
            previous: None,
            exemplar: None,
            ends,
        };
        let (point, counted) = match self.extent {
            Extent::Begin => (nothing(attributes, moment.begins, false), 0),
            Extent::End => (nothing(attributes, moment.now, true), histogram.count),
            Extent::Changed | Extent::Whole => {
                let exemplar = exemplar.filter(|_| self.page.settings.exemplars);
                let exemplar = exemplar.map(|found| exemplar_of(&found, seconds(u128::from(found.nanos)), start, moment.now));
                let previous = previous.filter(|previous| delta && previous.count > 0);
                (Drawn { attributes, start, time: moment.now, histogram, previous, exemplar, ends: false }, histogram.count)
            }
        };
        let bounds = &self.page.settings.circuit.explicit_bounds;
        let aggregation_temporality = self.page.temporality();
        let data = if bounds.is_empty() {
            Data::ExponentialHistogram(ExponentialHistogram { data_points: vec![point.exponential()], aggregation_temporality })
        } else {
            Data::Histogram(Histogram { data_points: vec![point.explicit(bounds)], aggregation_temporality })
        };
        self.send(name, data);
        Some(counted)
    }

    fn breaker(&mut self) {
        let circuit = self.circuit;
        let exemplar = circuit.exemplars().trip;
        self.sent.breaker.clear();
        for (at, counts) in circuit.totals().breaker.iter().enumerate() {
            let inferred = counts.source == Source::Inferred;
            let source = (!inferred).then(|| text("circuit_breaker.source", counts.source.name()));
            let before = circuit.sent.breaker.get(at).copied();
            let now = [counts.trips, counts.recovery_attempts, counts.recovery_attempt_failures, counts.recoveries];
            // Which begin together; those that have not begun come last.
            let mut told = before;
            for (index, (name, now)) in breaker_counters(inferred).into_iter().zip(now).enumerate() {
                let Some(name) = name else { continue };
                let count = Count { before: before.and_then(|before| before.get(index).copied()), now, since: counts.since };
                if let Some(count) = self.counter(name, source.as_slice(), count, exemplar.filter(|_| index == 0 && !inferred)) {
                    told.get_or_insert_default().get_mut(index).into_iter().for_each(|told| *told = count);
                }
            }
            self.sent.breaker.extend(told);
        }
    }

    /// Instances by the state of their breaker.
    fn instances(&mut self) {
        let before = self.circuit.sent.instances();
        // Where a state was known once, all zeroes are news too.
        let Some(counts) = self.circuit.instances().or_else(|| before.map(|_| [0; State::ALL.len()])) else { return };
        self.sent.rarely().instances = Some(counts);
        let ends = self.extent == Extent::End;
        if before == Some(counts) && self.extent == Extent::Changed || ends && before.is_none() {
            return;
        }
        let (since, now) = (self.circuit.since(), self.page.moment.now);
        let points = State::ALL.into_iter().zip(counts).map(|(state, count)| {
            let attributes = self.with([text("circuit_breaker.state", state.name())]);
            gauge::count(attributes, (!ends).then(|| count.into()), since, now)
        });
        let points = points.collect();
        self.send("circuit_breaker.instances", gauge::standing(points));
    }

    fn window(&mut self) {
        let (config, window) = (self.page.settings.circuit, self.circuit.window());
        let total = window.total();
        let (requests, calls) = (total.requests(), total.successes + total.failures);
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let outcomes = [(Outcome::Success, total.successes), (Outcome::Failure, total.failures), (Outcome::Rejected, total.rejections)];
        let counts = outcomes.map(|(outcome, count)| {
            let attribute = text("circuit_breaker.outcome", outcome.name());
            Gauged { name: "circuit_breaker.window.requests", attributes: vec![attribute], value: Some(count as f64), was: true, is_count: false }
        });
        let [had_requests, had_calls] = [1, 2].map(|bit| self.circuit.sent.gauges & bit != 0);
        let plain = |name: &'static str, value: Option<f64>, was: bool| Gauged { name, attributes: Vec::new(), value, was, is_count: false };
        let concurrency = window.concurrency(config.bucket_size(), config.buckets());
        let mut gauges = Vec::from(counts);
        gauges.extend([
            plain("circuit_breaker.window.error_ratio", ratio(total.failures, calls), had_calls),
            plain("circuit_breaker.window.rejection_ratio", ratio(total.rejections, requests), had_requests),
            plain("circuit_breaker.concurrency", Some(concurrency), true),
        ]);
        let mut latencies = total.latencies.percentiles(config.percentiles()).into_iter();
        gauges.extend(config.percentiles().iter().map(|percent| {
            let attribute = text("circuit_breaker.percentile", percent.to_string());
            let value = latencies.next();
            Gauged { name: "circuit_breaker.window.duration", attributes: vec![attribute], value, was: had_calls, is_count: false }
        }));
        let values: Vec<Option<u64>> = gauges.iter().map(|gauge| gauge.value.map(f64::to_bits)).collect();
        self.sent.gauges = FixedState::with_seed(0).hash_one(values) << 2 | u64::from(requests > 0) | u64::from(calls > 0) << 1;
        if self.sent.gauges != self.circuit.sent.gauges || self.extent != Extent::Changed {
            gauges.into_iter().for_each(|gauge| self.gauge(gauge));
        }
    }

    fn anomalies(&mut self) {
        let told = self.circuit.sent.anomalies();
        for (((at, signal), before), (now, since)) in Signal::ALL.into_iter().enumerate().zip(told).zip(self.circuit.anomaly_counts()) {
            if now == 0 && before.is_none() {
                continue;
            }
            let attributes = Of::Anomaly(signal).attributes();
            let told = self.counter("circuit_breaker.anomalies", &attributes, Count { before, now: now.into(), since }, None);
            self.sent.rarely().anomalies.get_mut(at).into_iter().for_each(|count| *count = told);
        }
    }

    /// What analyzers found, as long as it holds.
    fn findings(&mut self) {
        let before = self.circuit.sent.rarely.as_ref().map_or((0, 0), |rarely| (rarely.findings, rarely.gauges));
        let mut gauges = Vec::new();
        let mut holds = 0_u64;
        for (at, Found { name, of, value }) in found::all(self.circuit).enumerate() {
            let bit = 1 << at;
            let was = before.0 & bit != 0;
            if was || value.is_some() {
                gauges.push(Gauged { name, attributes: of.attributes(), value, was, is_count: of.is_count() });
                holds |= if value.is_some() { bit } else { 0 };
            }
        }
        if gauges.is_empty() {
            return;
        }
        let values: Vec<Option<u64>> = gauges.iter().map(|gauge| gauge.value.map(f64::to_bits)).collect();
        let now = (holds, FixedState::with_seed(0).hash_one(values));
        (self.sent.rarely().findings, self.sent.rarely().gauges) = now;
        if now != before || self.extent != Extent::Changed {
            gauges.into_iter().for_each(|gauge| self.gauge(gauge));
        }
    }

    /// A gauge, or an up-down counter; one without a value ends its series, if there was one.
    fn gauge(&mut self, gauge: Gauged) {
        let Gauged { name, attributes, value, was, is_count } = gauge;
        let value = value.filter(|_| self.extent != Extent::End);
        if value.is_none() && !was {
            return;
        }
        let (attributes, now) = (self.with(attributes), self.page.moment.now);
        let data = if is_count {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "so many circuits, or instances")]
            let count = value.map(|value| value as u64);
            gauge::standing(vec![gauge::count(attributes, count, self.circuit.since(), now)])
        } else {
            gauge::gauge(vec![gauge::point(attributes, value, now)])
        };
        self.send(name, data);
    }
}

/// The counters of what breakers did: trips, recovery attempts, failed ones, recoveries.
const fn breaker_counters(inferred: bool) -> [Option<&'static str>; 4] {
    if inferred {
        return [Some("circuit_breaker.inferred.trips"), None, None, Some("circuit_breaker.inferred.recoveries")];
    }
    [
        Some("circuit_breaker.trips"),
        Some("circuit_breaker.recovery_attempts"),
        Some("circuit_breaker.recovery_attempt_failures"),
        Some("circuit_breaker.recoveries"),
    ]
}

/// A gauge, or an up-down counter.
struct Gauged {
    name: &'static str,
    attributes: Vec<KeyValue>,
    value: Option<f64>,
    /// Whether it had a value when it was told last.
    was: bool,
    /// Whether it says how many there are.
    is_count: bool,
}
