use std::collections::BTreeMap;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, DataPointFlags, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint,
        Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar, exponential_histogram_data_point::Buckets, metric::Data,
        number_data_point,
    },
};

use super::attributes::{resource, scope, text, truth};
use crate::circuit::{
    bucket::Outcome,
    circuit::{Circuit, Exemplar as Slowest},
    config::CircuitMetricsConfig,
    key::{Caller, CircuitKey},
    sent::Sent,
    state::State,
    totals,
};

/// Every metric that goes out: name, unit, what it is.
const METRICS: [(&str, &str, &str); 13] = [
    ("circuit_breaker.requests", "{request}", "Calls through the circuit, by outcome."),
    ("circuit_breaker.duration", "s", "Latency of calls that were sent."),
    ("circuit_breaker.trips", "{trip}", "Changes from closed to open."),
    ("circuit_breaker.recovery_attempts", "{attempt}", "Probes that were let through."),
    ("circuit_breaker.recovery_attempt_failures", "{attempt}", "Probes that failed."),
    ("circuit_breaker.recoveries", "{recovery}", "Changes back to closed."),
    ("circuit_breaker.incident.duration", "s", "From the first instance's trip to the last one's recovery."),
    ("circuit_breaker.instances", "{instance}", "Instances by the state of their breaker."),
    ("circuit_breaker.concurrency", "{request}", "Mean number of calls under way at a time, over the window."),
    ("circuit_breaker.window.requests", "{request}", "Calls in the rolling window."),
    ("circuit_breaker.window.error_ratio", "1", "Share of the sent calls in the window that failed."),
    ("circuit_breaker.window.rejection_ratio", "1", "Share of the calls in the window that were refused."),
    ("circuit_breaker.window.duration", "s", "Latency percentiles of the window."),
];

/// The names of all metrics.
#[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
pub(super) const NAMES: [&str; METRICS.len()] = {
    let mut names = [""; METRICS.len()];
    let mut at = 0;
    while at < METRICS.len() {
        names[at] = METRICS[at].0;
        at += 1;
    }
    names
};

/// A circuit whose metrics are this old is sent whole again. Nanoseconds.
const WHOLE_AFTER: u64 = 60_000_000_000;

/// What to send, and how.
pub(super) struct Settings<'a> {
    pub(super) circuit: &'a CircuitMetricsConfig,
    pub(super) exemplars: bool,
    pub(super) disabled: &'a [String],
}

/// Metrics of several circuits on their way into one request.
pub(super) struct Page<'a> {
    settings: &'a Settings<'a>,
    now: u64,
    callers: BTreeMap<Caller, BTreeMap<&'static str, Metric>>,
    points: usize,
}

impl<'a> Page<'a> {
    pub(super) const fn new(settings: &'a Settings<'a>, now: u64) -> Self {
        Self { settings, now, callers: BTreeMap::new(), points: 0 }
    }

    /// The request, and how many points it has.
    pub(super) fn finish(self) -> (ExportMetricsServiceRequest, usize) {
        let resource_metrics = self.callers.into_iter().map(|(caller, metrics)| ResourceMetrics {
            resource: Some(resource(&caller)),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope()), metrics: metrics.into_values().collect(), ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        });
        (ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() }, self.points)
    }

    /// Adds what changed of a circuit since it was sent; everything once a minute. Gives what is sent by this.
    pub(super) fn circuit(&mut self, circuit: &Circuit) -> Sent {
        let whole = self.now.saturating_sub(circuit.sent.at) >= WHOLE_AFTER;
        let mut series = Series { base: base(circuit.key()), circuit, whole, page: self, sent: Sent { at: 0, ..Sent::default() } };
        series.requests();
        series.durations();
        if !circuit.key().overflow {
            series.breaker();
            series.instances();
            series.window();
        }
        let mut sent = series.sent;
        sent.at = self.now;
        sent
    }

    /// Ends all series of a circuit.
    pub(super) fn end(&mut self, circuit: &Circuit) {
        let mut ended = Ended;
        let settings = Settings { circuit: self.settings.circuit, exemplars: false, disabled: self.settings.disabled };
        let mut last = Page { settings: &settings, now: self.now, callers: BTreeMap::new(), points: 0 };
        // All that was ever begun, once more, as points without a value.
        let mut series = Series { base: base(circuit.key()), circuit, whole: true, page: &mut last, sent: Sent::default() };
        series.requests();
        series.durations();
        series.breaker();
        series.instances();
        series.window();
        for (caller, metrics) in last.callers {
            for (name, mut metric) in metrics {
                ended.mark(&mut metric, self.now);
                let data = metric.data.take();
                let into = self.callers.entry(caller.clone()).or_default().entry(name).or_insert(metric);
                self.points += append(&mut into.data, data);
            }
        }
    }

    fn metric(&mut self, caller: &Caller, name: &'static str, data: Data) {
        if self.settings.disabled.iter().any(|disabled| disabled == name) {
            return;
        }
        if !self.callers.contains_key(caller) {
            self.callers.insert(caller.clone(), BTreeMap::new());
        }
        let Some(metrics) = self.callers.get_mut(caller) else { return };
        let metric = metrics.entry(name).or_insert_with(|| {
            let (unit, description) =
                METRICS.iter().find(|(known, ..)| *known == name).map_or(("", ""), |(_, unit, description)| (*unit, *description));
            Metric { name: name.to_owned(), unit: unit.to_owned(), description: description.to_owned(), ..Metric::default() }
        });
        self.points += append(&mut metric.data, Some(data));
    }

    const fn temporality(&self) -> i32 {
        if self.settings.circuit.delta { AggregationTemporality::Delta as i32 } else { AggregationTemporality::Cumulative as i32 }
    }
}

/// Adds the points of one to the other, which is of the same kind; gives how many.
fn append(into: &mut Option<Data>, data: Option<Data>) -> usize {
    let Some(data) = data else { return 0 };
    let points = match &data {
        Data::Sum(sum) => sum.data_points.len(),
        Data::Gauge(gauge) => gauge.data_points.len(),
        Data::Histogram(histogram) => histogram.data_points.len(),
        Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
        Data::Summary(summary) => summary.data_points.len(),
    };
    match (into.as_mut(), data) {
        (Some(Data::Sum(into)), Data::Sum(sum)) => into.data_points.extend(sum.data_points),
        (Some(Data::Gauge(into)), Data::Gauge(gauge)) => into.data_points.extend(gauge.data_points),
        (Some(Data::Histogram(into)), Data::Histogram(histogram)) => into.data_points.extend(histogram.data_points),
        (Some(Data::ExponentialHistogram(into)), Data::ExponentialHistogram(histogram)) => into.data_points.extend(histogram.data_points),
        (_, data) => *into = Some(data),
    }
    points
}

/// Turns points into the last of their series.
#[derive(Default)]
struct Ended;

impl Ended {
    fn mark(&mut self, metric: &mut Metric, now: u64) {
        const NOTHING: u32 = DataPointFlags::NoRecordedValueMask as u32;
        let number = |points: &mut Vec<NumberDataPoint>| {
            points.retain(|point| point.time_unix_nano == now);
            for point in points {
                (point.flags, point.value) = (NOTHING, None);
                point.exemplars.clear();
            }
        };
        match &mut metric.data {
            Some(Data::Sum(sum)) => number(&mut sum.data_points),
            Some(Data::Gauge(gauge)) => number(&mut gauge.data_points),
            Some(Data::Histogram(histogram)) => {
                for point in &mut histogram.data_points {
                    let (attributes, start) = (std::mem::take(&mut point.attributes), point.start_time_unix_nano);
                    *point = HistogramDataPoint {
                        attributes,
                        start_time_unix_nano: start,
                        time_unix_nano: now,
                        flags: NOTHING,
                        ..HistogramDataPoint::default()
                    };
                }
            }
            Some(Data::ExponentialHistogram(histogram)) => {
                for point in &mut histogram.data_points {
                    let (attributes, start) = (std::mem::take(&mut point.attributes), point.start_time_unix_nano);
                    *point = ExponentialHistogramDataPoint {
                        attributes,
                        start_time_unix_nano: start,
                        time_unix_nano: now,
                        flags: NOTHING,
                        ..ExponentialHistogramDataPoint::default()
                    };
                }
            }
            Some(Data::Summary(_)) | None => {}
        }
    }
}

/// Attributes of every point of a circuit.
fn base(key: &CircuitKey) -> Vec<KeyValue> {
    if key.overflow {
        return vec![truth("otel.metric.overflow", true)];
    }
    let callee = key.callee().map(|callee| text("service.peer.name", callee));
    [text("circuit_breaker.name", key.name())].into_iter().chain(callee).collect()
}

/// The series of one circuit.
struct Series<'a, 'b> {
    base: Vec<KeyValue>,
    circuit: &'a Circuit,
    /// Whether everything is sent, changed or not.
    whole: bool,
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

impl Series<'_, '_> {
    fn with(&self, more: impl IntoIterator<Item = KeyValue>) -> Vec<KeyValue> {
        self.base.iter().cloned().chain(more).collect()
    }

    fn send(&mut self, name: &'static str, data: Data) {
        self.page.metric(&self.circuit.key().caller, name, data);
    }

    fn requests(&mut self) {
        let circuit = self.circuit;
        let (totals, before) = (circuit.totals(), &circuit.sent);
        let outcome = |outcome: Outcome| text("circuit_breaker.outcome", outcome.name());
        let successes = Count { before: (before.at > 0).then_some(before.successes), now: totals.successes, since: circuit.since() };
        self.counter("circuit_breaker.requests", &[outcome(Outcome::Success)], successes, None);
        if totals.rejections > 0 {
            let rejections = Count { before: before.rejections, now: totals.rejections, since: circuit.since() };
            self.counter("circuit_breaker.requests", &[outcome(Outcome::Rejected)], rejections, None);
            self.sent.rejections = Some(totals.rejections);
        }
        for (at, error) in totals.errors.iter().enumerate() {
            let attributes = [outcome(Outcome::Failure), text("error.type", &*error.kind)];
            let failures = Count { before: before.errors.get(at).copied(), now: error.count, since: error.since };
            self.counter("circuit_breaker.requests", &attributes, failures, None);
            self.sent.errors.push(error.count);
        }
        self.sent.successes = totals.successes;
    }

    /// A monotonic sum. A series that begins has a first point of 0 at its start.
    fn counter(&mut self, name: &'static str, attributes: &[KeyValue], count: Count, exemplar: Option<Slowest>) {
        let delta = self.page.settings.circuit.delta;
        let same = count.before == Some(count.now);
        if same && (delta || !self.whole) {
            return;
        }
        let attributes = self.with(attributes.iter().cloned());
        let start = if delta && count.before.is_some() { self.circuit.sent.at } else { count.since };
        let point = |time: u64, value: u64| NumberDataPoint {
            attributes: attributes.clone(),
            start_time_unix_nano: start,
            time_unix_nano: time,
            value: Some(number_data_point::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX))),
            ..NumberDataPoint::default()
        };
        let mut points = Vec::with_capacity(2);
        if count.before.is_none() && !delta && start < self.page.now {
            points.push(point(start, 0));
        }
        let value = if delta { count.now - count.before.unwrap_or_default() } else { count.now };
        let mut last = point(self.page.now, value);
        last.exemplars.extend(exemplar.filter(|_| self.page.settings.exemplars).map(|found| exemplar_of(&found, 1.0)));
        points.push(last);
        let aggregation_temporality = self.page.temporality();
        self.send(name, Data::Sum(Sum { data_points: points, aggregation_temporality, is_monotonic: true }));
    }

    fn durations(&mut self) {
        let (totals, exemplars) = (self.circuit.totals(), self.circuit.exemplars());
        let before = self.circuit.sent.durations;
        let failed = totals.failure_duration.as_deref();
        let failed_since = totals.errors.iter().map(|error| error.since).min().unwrap_or(self.circuit.since());
        let both = [
            (Outcome::Success, Some(&totals.success_duration), exemplars.success, self.circuit.since()),
            (Outcome::Failure, failed, exemplars.failure, failed_since),
        ];
        for (at, (outcome, histogram, exemplar, since)) in both.into_iter().enumerate() {
            let Some(histogram) = histogram else { continue };
            let same = before.get(at) == Some(&histogram.count);
            if histogram.count > 0 && (!same || self.whole && !self.page.settings.circuit.delta) {
                let previous = self.circuit.sent.histograms.as_ref().and_then(|sent| sent.get(at));
                let attributes = self.with([text("circuit_breaker.outcome", outcome.name())]);
                self.histogram("circuit_breaker.duration", attributes, histogram, previous, since, exemplar);
            }
        }
        self.sent.durations = [totals.success_duration.count, failed.map_or(0, |histogram| histogram.count)];
        let incidents = totals.incident_duration.as_deref();
        self.sent.incidents = incidents.map_or(0, |histogram| histogram.count);
        if let Some(histogram) = incidents
            && (self.sent.incidents != self.circuit.sent.incidents || self.whole && !self.page.settings.circuit.delta)
        {
            let previous = self.circuit.sent.histograms.as_deref().map(|[_, _, incidents]| incidents);
            let source = totals.breaker.first().map(|counts| text("circuit_breaker.source", counts.source.name()));
            let attributes = self.with(source);
            self.histogram("circuit_breaker.incident.duration", attributes, histogram, previous, self.circuit.since(), None);
        }
        if self.page.settings.circuit.delta {
            let incidents = incidents.cloned().unwrap_or_default();
            self.sent.histograms = Some(Box::new([totals.success_duration.clone(), failed.cloned().unwrap_or_default(), incidents]));
        }
    }

    fn histogram(
        &mut self,
        name: &'static str,
        attributes: Vec<KeyValue>,
        histogram: &totals::Histogram,
        previous: Option<&totals::Histogram>,
        since: u64,
        exemplar: Option<Slowest>,
    ) {
        let settings = self.page.settings;
        let delta = settings.circuit.delta;
        let exemplars: Vec<Exemplar> =
            exemplar.filter(|_| settings.exemplars).map(|found| exemplar_of(&found, seconds(u128::from(found.nanos)))).into_iter().collect();
        let previous = previous.filter(|previous| delta && previous.count > 0);
        let count = histogram.count - previous.map_or(0, |previous| previous.count);
        let sum = Some(seconds(histogram.sum - previous.map_or(0, |previous| previous.sum)));
        // The least and the most since the last time are not known: only since the beginning.
        let range = previous.is_none().then_some(histogram.range);
        let min = range.map(|(min, _)| seconds(u128::from(min)));
        let max = range.map(|(_, max)| seconds(u128::from(max)));
        let start = if previous.is_some() { self.circuit.sent.at } else { since };
        let aggregation_temporality = self.page.temporality();
        let time = self.page.now;
        let (scale, offset, bucket_counts) = histogram.buckets_since(previous);
        if settings.circuit.explicit_bounds.is_empty() {
            let zero_count = histogram.zero_count - previous.map_or(0, |previous| previous.zero_count);
            let point = ExponentialHistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                count,
                sum,
                scale,
                zero_count,
                positive: Some(Buckets { offset, bucket_counts }),
                exemplars,
                min,
                max,
                // What is shorter than this counts as zero.
                zero_threshold: 1e-6,
                ..ExponentialHistogramDataPoint::default()
            };
            self.send(name, Data::ExponentialHistogram(ExponentialHistogram { data_points: vec![point], aggregation_temporality }));
        } else {
            let explicit_bounds = settings.circuit.explicit_bounds.iter().map(|bound| seconds(u128::from(*bound))).collect();
            let point = HistogramDataPoint {
                attributes,
                start_time_unix_nano: start,
                time_unix_nano: time,
                count,
                sum,
                bucket_counts,
                explicit_bounds,
                exemplars,
                min,
                max,
                ..HistogramDataPoint::default()
            };
            self.send(name, Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality }));
        }
    }

    fn breaker(&mut self) {
        let exemplar = self.circuit.exemplars().trip;
        for (at, counts) in self.circuit.totals().breaker.iter().enumerate() {
            let before = self.circuit.sent.breaker.get(at);
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
        let before = self.circuit.sent.instances;
        // Where a state was known once, all zeroes are news too.
        let Some(counts) = self.circuit.instances().or_else(|| before.map(|_| [0; State::ALL.len()])) else { return };
        self.sent.instances = Some(counts);
        if before == Some(counts) && !self.whole {
            return;
        }
        let points = State::ALL.into_iter().zip(counts).map(|(state, count)| NumberDataPoint {
            attributes: self.with([text("circuit_breaker.state", state.name())]),
            start_time_unix_nano: self.circuit.since(),
            time_unix_nano: self.page.now,
            value: Some(number_data_point::Value::AsInt(i64::from(count))),
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
        let requests = total.requests();
        self.sent.calls_in_window = requests > 0;
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let outcomes = [(Outcome::Success, total.successes), (Outcome::Failure, total.failures), (Outcome::Rejected, total.rejections)];
        for (outcome, count) in outcomes {
            self.gauge("circuit_breaker.window.requests", &[text("circuit_breaker.outcome", outcome.name())], Some(count as f64));
        }
        self.gauge("circuit_breaker.window.error_ratio", &[], ratio(total.failures, total.successes + total.failures));
        self.gauge("circuit_breaker.window.rejection_ratio", &[], ratio(total.rejections, requests));
        self.gauge("circuit_breaker.concurrency", &[], Some(window.concurrency(config.bucket_size(), config.buckets())));
        let mut latencies = total.latencies.percentiles(config.percentiles()).into_iter();
        for percent in config.percentiles() {
            let attributes = [text("circuit_breaker.percentile", percent.to_string())];
            self.gauge("circuit_breaker.window.duration", &attributes, latencies.next());
        }
    }

    /// A gauge; one without a value ends its series, if there was one.
    fn gauge(&mut self, name: &'static str, attributes: &[KeyValue], value: Option<f64>) {
        if value.is_none() && !self.circuit.sent.calls_in_window {
            return;
        }
        let point = NumberDataPoint {
            attributes: self.with(attributes.iter().cloned()),
            time_unix_nano: self.page.now,
            flags: if value.is_none() { DataPointFlags::NoRecordedValueMask as u32 } else { 0 },
            value: value.map(number_data_point::Value::AsDouble),
            ..NumberDataPoint::default()
        };
        self.send(name, Data::Gauge(Gauge { data_points: vec![point] }));
    }
}

fn exemplar_of(found: &Slowest, value: f64) -> Exemplar {
    let (trace_id, span_id) = found.ids.split_at(16);
    Exemplar {
        time_unix_nano: found.at,
        trace_id: trace_id.to_vec(),
        span_id: span_id.to_vec(),
        value: Some(exemplar::Value::AsDouble(value)),
        ..Exemplar::default()
    }
}

fn seconds(nanos: u128) -> f64 {
    nanos as f64 / 1e9
}
