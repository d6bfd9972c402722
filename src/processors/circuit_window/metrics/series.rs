use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, DataPointFlags, ExponentialHistogram, Gauge, Histogram, NumberDataPoint, Sum, metric::Data, number_data_point,
    },
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
    /// How many it held when it was told last.
    told: u64,
    /// What it held then, where deltas are told.
    previous: Option<&'a totals::Histogram>,
    exemplar: Option<Slowest>,
}

/// Flag of the last point of a series.
pub(super) const ENDED: u32 = DataPointFlags::NoRecordedValueMask as u32;

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
            self.instances();
            self.window();
            self.anomalies();
            self.findings();
        }
        self.sent
    }

    fn with(&self, more: impl IntoIterator<Item = KeyValue>) -> Vec<KeyValue> {
        self.base.iter().cloned().chain(more).collect()
    }

    fn send(&mut self, name: &'static str, data: Data) {
        self.page.metric(&self.circuit.key().caller, name, data);
    }

    /// Whether a series whose value did not change is told.
    fn tells_unchanged(&self) -> bool {
        match self.extent {
            Extent::Changed => false,
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
        self.counter("circuit_breaker.requests", &[], all, None);
        self.sent.successes = all.now;
        self.latencies(Latencies {
            name: "circuit_breaker.duration",
            attributes: self.base.clone(),
            histogram: &totals.success_duration,
            told: sent.durations.first().copied().unwrap_or_default(),
            previous: sent.histograms().map(|[durations, ..]| durations),
            exemplar: self.circuit.exemplars().success,
        });
        self.note_histograms();
    }

    fn requests(&mut self) {
        let circuit = self.circuit;
        let (totals, before) = (circuit.totals(), &circuit.sent);
        let outcome = |outcome: Outcome| text("circuit_breaker.outcome", outcome.name());
        let successes = Count { before: (before.at > 0).then_some(before.successes), now: totals.successes, since: circuit.since() };
        self.counter("circuit_breaker.requests", &[outcome(Outcome::Success)], successes, None);
        if totals.rejections > 0 {
            let begun = (before.rejections > 0).then_some(before.rejections);
            let rejections = Count { before: begun, now: totals.rejections, since: totals.rejections_since };
            self.counter("circuit_breaker.requests", &[outcome(Outcome::Rejected)], rejections, None);
        }
        for (at, error) in totals.errors.iter().enumerate() {
            let attributes = [outcome(Outcome::Failure), text("error.type", &*error.kind)];
            let failures = Count { before: before.errors.get(at).copied(), now: error.count, since: error.since };
            self.counter("circuit_breaker.requests", &attributes, failures, None);
            self.sent.errors.push(error.count);
        }
        (self.sent.successes, self.sent.rejections) = (totals.successes, totals.rejections);
    }

    /// A monotonic sum. A series that begins has a first point of 0 at its start.
    fn counter(&mut self, name: &'static str, attributes: &[KeyValue], count: Count, exemplar: Option<Slowest>) {
        let delta = self.page.settings.circuit.delta;
        let ends = self.extent == Extent::End;
        if count.before == Some(count.now) && !self.tells_unchanged() || ends && count.before.is_none() {
            return;
        }
        let attributes = self.with(attributes.iter().cloned());
        let start = if delta && count.before.is_some() { self.circuit.sent.at } else { count.since };
        let now = self.page.now;
        let point = |time: u64, value: Option<u64>| NumberDataPoint {
            attributes: attributes.clone(),
            start_time_unix_nano: start,
            time_unix_nano: time,
            value: value.map(|value| number_data_point::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX))),
            flags: if value.is_none() { ENDED } else { 0 },
            ..NumberDataPoint::default()
        };
        let mut points = Vec::with_capacity(2);
        if count.before.is_none() && !delta && start < now {
            points.push(point(start, Some(0)));
        }
        let value = if delta { count.now.saturating_sub(count.before.unwrap_or_default()) } else { count.now };
        let mut last = point(now, (!ends).then_some(value));
        let exemplar = exemplar.filter(|_| self.page.settings.exemplars && !ends);
        last.exemplars.extend(exemplar.map(|found| exemplar_of(&found, 1.0, start, now)));
        points.push(last);
        let aggregation_temporality = self.page.temporality();
        self.send(name, Data::Sum(Sum { data_points: points, aggregation_temporality, is_monotonic: true }));
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
            told: sent.incidents,
            previous: previous(2),
            exemplar: None,
        });
        [Some(successes), failures, incidents].into_iter().flatten().for_each(|latencies| self.latencies(latencies));
        self.note_histograms();
    }

    fn note_histograms(&mut self) {
        let totals = self.circuit.totals();
        let (failed, incidents) = (totals.failure_duration.as_deref(), totals.incident_duration.as_deref());
        let count = |histogram: Option<&totals::Histogram>| histogram.map_or(0, |histogram| histogram.count);
        self.sent.durations = [totals.success_duration.count, count(failed)];
        self.sent.incidents = count(incidents);
        if self.page.settings.circuit.delta {
            let of = |histogram: Option<&totals::Histogram>| histogram.cloned().unwrap_or_default();
            self.sent.rarely().histograms = Some(Box::new([totals.success_duration.clone(), of(failed), of(incidents)]));
        }
    }

    /// A histogram, if there is anything in it. One that begins has a first point of nothing at its start.
    fn latencies(&mut self, latencies: Latencies<'_>) {
        let Latencies { name, attributes, histogram, told, previous, exemplar } = latencies;
        let (now, ends, delta) = (self.page.now, self.extent == Extent::End, self.page.settings.circuit.delta);
        if histogram.count == 0 || ends && told == 0 || told == histogram.count && !self.tells_unchanged() {
            return;
        }
        let begins = told == 0;
        let start = if delta && !begins { self.circuit.sent.at } else { histogram.since };
        let empty = totals::Histogram::default();
        let exemplar = exemplar.filter(|_| self.page.settings.exemplars);
        let exemplar = exemplar.map(|found| exemplar_of(&found, seconds(u128::from(found.nanos)), start, now));
        let mut points = Vec::with_capacity(2);
        if begins && !delta && start < now {
            points.push(Drawn { attributes: attributes.clone(), start, time: start, histogram: &empty, previous: None, exemplar: None, ends: false });
        }
        let previous = previous.filter(|previous| delta && previous.count > 0);
        points.push(if ends {
            Drawn { attributes, start, time: now, histogram: &empty, previous: None, exemplar: None, ends }
        } else {
            Drawn { attributes, start, time: now, histogram, previous, exemplar, ends }
        });
        let bounds = &self.page.settings.circuit.explicit_bounds;
        let aggregation_temporality = self.page.temporality();
        let data = if bounds.is_empty() {
            let data_points = points.into_iter().map(Drawn::exponential).collect();
            Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
        } else {
            let data_points = points.into_iter().map(|point| point.explicit(bounds)).collect();
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        };
        self.send(name, data);
    }

    fn breaker(&mut self) {
        let exemplar = self.circuit.exemplars().trip;
        for (at, counts) in self.circuit.totals().breaker.iter().enumerate() {
            let before = self.circuit.sent.breaker.get(at);
            if counts.source == Source::Inferred {
                for (index, name, now) in
                    [(0, "circuit_breaker.inferred.trips", counts.trips), (3, "circuit_breaker.inferred.recoveries", counts.recoveries)]
                {
                    let count = Count { before: before.and_then(|before| before.get(index).copied()), now, since: counts.since };
                    self.counter(name, &[], count, None);
                }
                self.sent.breaker.push([counts.trips, 0, 0, counts.recoveries]);
                continue;
            }
            let source = [text("circuit_breaker.source", counts.source.name())];
            let now = [counts.trips, counts.recovery_attempts, counts.recovery_attempt_failures, counts.recoveries];
            let names = [
                "circuit_breaker.trips",
                "circuit_breaker.recovery_attempts",
                "circuit_breaker.recovery_attempt_failures",
                "circuit_breaker.recoveries",
            ];
            for (index, (name, now)) in names.into_iter().zip(now).enumerate() {
                let count = Count { before: before.and_then(|before| before.get(index).copied()), now, since: counts.since };
                self.counter(name, &source, count, exemplar.filter(|_| index == 0));
            }
            self.sent.breaker.push(now);
        }
    }

    fn instances(&mut self) {
        let before = self.circuit.sent.instances();
        // Where a state was known once, all zeroes are news too.
        let Some(counts) = self.circuit.instances().or_else(|| before.map(|_| [0; State::ALL.len()])) else { return };
        self.sent.rarely().instances = Some(counts);
        let ends = self.extent == Extent::End;
        if before == Some(counts) && self.extent == Extent::Changed || ends && before.is_none() {
            return;
        }
        let points = State::ALL.into_iter().zip(counts).map(|(state, count)| NumberDataPoint {
            attributes: self.with([text("circuit_breaker.state", state.name())]),
            start_time_unix_nano: self.circuit.since(),
            time_unix_nano: self.page.now,
            value: (!ends).then(|| number_data_point::Value::AsInt(i64::from(count))),
            flags: if ends { ENDED } else { 0 },
            ..NumberDataPoint::default()
        });
        // What stands is told as it stands, whatever the temporality: an instance is no event.
        let aggregation_temporality = AggregationTemporality::Cumulative as i32;
        let sum = Sum { data_points: points.collect(), aggregation_temporality, is_monotonic: false };
        self.send("circuit_breaker.instances", Data::Sum(sum));
    }

    fn window(&mut self) {
        let (config, window) = (self.page.settings.circuit, self.circuit.window());
        let total = window.total();
        let (requests, calls) = (total.requests(), total.successes + total.failures);
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let outcomes = [(Outcome::Success, total.successes), (Outcome::Failure, total.failures), (Outcome::Rejected, total.rejections)];
        let counts = outcomes.map(|(outcome, count)| {
            let attribute = text("circuit_breaker.outcome", outcome.name());
            Gauged { name: "circuit_breaker.window.requests", attributes: vec![attribute], value: Some(count as f64), was: true }
        });
        let [had_requests, had_calls] = [1, 2].map(|bit| self.circuit.sent.gauges & bit != 0);
        let plain = |name: &'static str, value: Option<f64>, was: bool| Gauged { name, attributes: Vec::new(), value, was };
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
            Gauged { name: "circuit_breaker.window.duration", attributes: vec![attribute], value: latencies.next(), was: had_calls }
        }));
        let values: Vec<Option<u64>> = gauges.iter().map(|gauge| gauge.value.map(f64::to_bits)).collect();
        self.sent.gauges = FixedState::with_seed(0).hash_one(values) << 2 | u64::from(requests > 0) | u64::from(calls > 0) << 1;
        if self.sent.gauges != self.circuit.sent.gauges || self.extent != Extent::Changed {
            gauges.into_iter().for_each(|gauge| self.gauge(gauge));
        }
    }

    fn anomalies(&mut self) {
        let before = self.circuit.sent.rarely.as_ref().map(|rarely| rarely.anomalies).unwrap_or_default();
        for ((at, signal), (now, since)) in Signal::ALL.into_iter().enumerate().zip(self.circuit.anomaly_counts()) {
            let told = before.get(at).copied().filter(|count| *count > 0);
            if now == 0 && told.is_none() {
                continue;
            }
            let attributes = Of::Anomaly(signal).attributes();
            self.counter("circuit_breaker.anomalies", &attributes, Count { before: told.map(u64::from), now: now.into(), since }, None);
            self.sent.rarely().anomalies.get_mut(at).into_iter().for_each(|count| *count = now);
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
                gauges.push(Gauged { name, attributes: of.attributes(), value, was });
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

    /// A gauge; one without a value ends its series, if there was one.
    fn gauge(&mut self, gauge: Gauged) {
        let Gauged { name, attributes, value, was } = gauge;
        let value = value.filter(|_| self.extent != Extent::End);
        if value.is_none() && !was {
            return;
        }
        let point = gauge::point(self.with(attributes), value, self.page.now);
        self.send(name, Data::Gauge(Gauge { data_points: vec![point] }));
    }
}

/// A gauge.
struct Gauged {
    name: &'static str,
    attributes: Vec<KeyValue>,
    value: Option<f64>,
    /// Whether it had a value when it was told last.
    was: bool,
}
