//! Circuits as OTLP metrics.

mod found;
mod point;
mod series;

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{AggregationTemporality, Metric, ResourceMetrics, ScopeMetrics, metric::Data},
};

use self::series::{Extent, Series};
use super::{
    attributes::{resource, scope},
    config::Checked,
    moments::Moment,
    services,
};
use crate::circuit::{
    circuit::Circuit,
    config::CircuitMetricsConfig,
    key::{Caller, CircuitKey},
    sent::Sent,
};

/// Every metric that goes out: name, unit, what it is.
const METRICS: [(&str, &str, &str); 24] = [
    ("circuit_breaker.requests", "{request}", "Calls through the circuit, by outcome."),
    ("circuit_breaker.duration", "s", "Latency of calls that were sent."),
    ("circuit_breaker.trips", "{trip}", "Changes from closed to open."),
    ("circuit_breaker.recovery_attempts", "{attempt}", "Probes that were let through."),
    ("circuit_breaker.recovery_attempt_failures", "{attempt}", "Probes that failed."),
    ("circuit_breaker.recoveries", "{recovery}", "Changes back to closed."),
    ("circuit_breaker.inferred.trips", "{trip}", "How often a breaker would have opened where none is known."),
    ("circuit_breaker.inferred.recoveries", "{recovery}", "How often it would have closed again."),
    ("circuit_breaker.incident.duration", "s", "From the first instance's trip to the last one's recovery."),
    ("circuit_breaker.instances", "{instance}", "Instances by the state of their breaker."),
    (
        "circuit_breaker.concurrency",
        "{request}",
        "Mean number of calls under way at a time, over the window; of its newest seconds as far as calls have ended.",
    ),
    ("circuit_breaker.window.requests", "{request}", "Calls in the rolling window."),
    ("circuit_breaker.window.error_ratio", "1", "Share of the sent calls in the window that failed."),
    ("circuit_breaker.window.rejection_ratio", "1", "Share of the calls in the window that were refused."),
    ("circuit_breaker.window.duration", "s", "Latency percentiles of the window."),
    ("circuit_breaker.anomaly.score", "{deviation}", "Of a signal that is unusual: how far off it was at the most, in standard deviations."),
    ("circuit_breaker.anomalies", "{anomaly}", "How often a signal became unusual."),
    ("circuit_breaker.pattern.period", "s", "From one trip to the next, where trips follow a pattern."),
    ("circuit_breaker.pattern.jitter", "s", "Standard deviation of that period."),
    ("circuit_breaker.pattern.next_trip.timestamp", "s", "When the next trip is expected, in Unix time."),
    ("circuit_breaker.trend", "{level}/min", "Of a signal that rises or falls: by what share of its level."),
    ("circuit_breaker.resource.usage", "1", "Of what callers use up: share of its limit, or multiple of its baseline."),
    ("circuit_breaker.health", "{circuit}", "1 for the status that holds, 0 for the others."),
    ("circuit_breaker.instance.health", "{instance}", "Instances by how they are."),
];

/// Unit and meaning of a metric.
pub(super) fn about(name: &str) -> (&'static str, &'static str) {
    METRICS.iter().find(|(known, ..)| *known == name).map_or(("", ""), |(_, unit, description)| (*unit, *description))
}

/// The names of all metrics.
#[expect(clippy::indexing_slicing, reason = "checked when it is compiled")]
pub(super) const NAMES: [&str; METRICS.len() + 2] = {
    let mut names = [""; METRICS.len() + 2];
    names[METRICS.len()] = services::METRIC.0;
    names[METRICS.len() + 1] = services::OVERALL.0;
    let mut at = 0;
    while at < METRICS.len() {
        names[at] = METRICS[at].0;
        at += 1;
    }
    names
};

/// A circuit whose metrics were not told whole for so long is told whole again, changed or not. A little less than the
/// minute that is promised, since ticks come a little early or late. Nanoseconds.
pub(super) const WHOLE_AFTER: u64 = 59_500_000_000;

/// Whether everything of a circuit is to be told again.
pub(super) const fn is_whole_due(circuit: &Circuit, now: u64) -> bool {
    now.saturating_sub(circuit.sent.whole_at) >= WHOLE_AFTER
}

/// What to send, and how.
pub(super) struct Settings<'a> {
    pub(super) circuit: &'a CircuitMetricsConfig,
    pub(super) exemplars: bool,
    pub(super) disabled: &'a [String],
}

impl<'a> Settings<'a> {
    pub(super) fn of(checked: &'a Checked) -> Self {
        Self { circuit: &checked.circuit, exemplars: checked.exemplars, disabled: &checked.disabled_metrics }
    }
}

/// Metrics of several circuits on their way into one request.
pub(super) struct Page<'a> {
    settings: &'a Settings<'a>,
    moment: Moment,
    /// As many as there are circuits, at most.
    callers: Vec<(Arc<Caller>, Vec<Metric>)>,
    /// Where the caller of the circuit at hand stands.
    caller: usize,
    points: usize,
}

impl<'a> Page<'a> {
    pub(super) const fn new(settings: &'a Settings<'a>, moment: Moment) -> Self {
        Self { settings, moment, callers: Vec::new(), caller: 0, points: 0 }
    }

    /// The request, and how many points it has.
    pub(super) fn finish(self) -> (ExportMetricsServiceRequest, usize) {
        let mut callers = self.callers;
        callers.retain(|(_, metrics)| !metrics.is_empty());
        callers.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        let resource_metrics = callers.into_iter().map(|(caller, mut metrics)| {
            metrics.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            ResourceMetrics {
                resource: Some(resource(&caller)),
                scope_metrics: vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }],
                ..ResourceMetrics::default()
            }
        });
        (ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() }, self.points)
    }

    /// Adds a first point of 0 for each counter and histogram of a circuit whose series has not begun. Gives what is begun
    /// by this.
    pub(super) fn begin(&mut self, circuit: &Circuit) -> Sent {
        let at = if circuit.sent.at > 0 { circuit.sent.at } else { self.moment.begins };
        self.series(circuit, Extent::Begin, Sent { at, ..circuit.sent.clone() })
    }

    /// Adds what changed of a circuit since it was sent; everything once a minute. Gives what is sent by this.
    pub(super) fn circuit(&mut self, circuit: &Circuit) -> Sent {
        let now = self.moment.now;
        let whole = is_whole_due(circuit, now);
        let whole_at = if whole { now } else { circuit.sent.whole_at };
        self.series(circuit, if whole { Extent::Whole } else { Extent::Changed }, Sent { at: now, whole_at, ..Sent::default() })
    }

    /// Ends all series that were ever begun of a circuit.
    pub(super) fn end(&mut self, circuit: &Circuit) {
        if circuit.sent.at > 0 {
            self.series(circuit, Extent::End, Sent::default());
        }
    }

    /// Whether there is anything to be told of a circuit now: of one whose series begin, first points of 0 go before.
    pub(super) fn tells_of(&self, circuit: &Circuit) -> bool {
        self.settings.circuit.delta || circuit.sent.at > 0
    }

    fn series(&mut self, circuit: &Circuit, extent: Extent, sent: Sent) -> Sent {
        self.turn_to(circuit.key());
        Series::new(circuit, extent, self, sent).tell()
    }

    /// What comes next is of this circuit's caller: looked up once, and not for each of its points.
    fn turn_to(&mut self, key: &CircuitKey) {
        self.caller = self.callers.iter().position(|(caller, _)| *caller == key.caller).unwrap_or_else(|| {
            self.callers.push((Arc::clone(&key.caller), Vec::new()));
            self.callers.len() - 1
        });
    }

    fn metric(&mut self, name: &'static str, data: Data) {
        if self.settings.disabled.iter().any(|disabled| disabled == name) {
            return;
        }
        let Some((_, metrics)) = self.callers.get_mut(self.caller) else { return };
        let at = metrics.iter().position(|metric| metric.name == name).unwrap_or_else(|| {
            let (unit, description) = about(name);
            metrics.push(Metric { name: name.to_owned(), unit: unit.to_owned(), description: description.to_owned(), ..Metric::default() });
            metrics.len() - 1
        });
        self.points += metrics.get_mut(at).map_or(0, |metric| append(&mut metric.data, data));
    }

    const fn temporality(&self) -> i32 {
        if self.settings.circuit.delta { AggregationTemporality::Delta as i32 } else { AggregationTemporality::Cumulative as i32 }
    }
}

/// Adds the points of one to the other, which is of the same kind; gives how many.
fn append(into: &mut Option<Data>, data: Data) -> usize {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use opentelemetry_proto::tonic::{
        common::v1::{KeyValue, any_value::Value},
        metrics::v1::{DataPointFlags, NumberDataPoint, number_data_point},
        trace::v1::Span,
    };

    use super::{super::moments::Moments, *};
    use crate::circuit::{
        analysis::config::AnomalyConfig,
        collector::CircuitBreakerMetricsCollector,
        inspect::{Rules, inspect},
        room::Room,
        testing::{SECOND, START, call, int, request, text, transition},
    };

    /// Circuits, and what is told of them.
    struct Told {
        config: CircuitMetricsConfig,
        shard: CircuitBreakerMetricsCollector,
        moments: Moments,
    }

    impl Told {
        fn new(config: CircuitMetricsConfig) -> Self {
            let room = Arc::new(Room::new(config.max_circuits));
            let shard = CircuitBreakerMetricsCollector::new(Arc::new(config.clone()), Arc::default(), room);
            let mut told = Self { shard, config, moments: Moments::default() };
            // Of a circuit that is called in one bucket only nothing is told.
            told.apply(to_stock(9_999, START - SECOND, 200), START - SECOND);
            told
        }

        fn apply(&mut self, span: Span, now: u64) {
            let request = request("shop", "a", vec![span]);
            let inspection = inspect(&request, 1, &Rules::default(), now).unwrap();
            let overflow = self.shard.apply(&request, &inspection, |_| true, now).overflow;
            if !overflow.is_empty() {
                self.shard.apply_overflow(&request, &inspection, &overflow, now);
            }
        }

        /// Everything that is told at this time, by metric.
        fn tell(&mut self, now: u64) -> Vec<Metric> {
            self.shard.advance(now, &mut Vec::new());
            let settings = Settings { circuit: &self.config, exemplars: true, disabled: &[] };
            let moment = self.moments.next(now);
            self.shard.tells_at(moment.now);
            let numbers: Vec<usize> = self.shard.circuits().filter(|(_, circuit)| circuit.is_established()).map(|(number, _)| number).collect();
            let (mut first, mut page) = (Page::new(&settings, moment), Page::new(&settings, moment));
            self.shard.take_ended().iter().for_each(|circuit| page.end(circuit));
            for number in numbers {
                let circuit = self.shard.circuit_mut(number).unwrap();
                if !self.config.delta {
                    let (begun, epoch) = (first.begin(circuit), circuit.epoch());
                    circuit.begun(begun, epoch);
                }
                let (sent, epoch) = (page.circuit(circuit), circuit.epoch());
                circuit.told(sent, epoch);
            }
            let told = [first, page].into_iter().flat_map(|page| page.finish().0.resource_metrics);
            let mut all: BTreeMap<String, Metric> = BTreeMap::new();
            for metric in told.flat_map(|resource| resource.scope_metrics).flat_map(|scope| scope.metrics) {
                match all.get_mut(&metric.name) {
                    Some(known) => _ = append(&mut known.data, metric.data.unwrap()),
                    None => _ = all.insert(metric.name.clone(), metric),
                }
            }
            all.into_values().collect()
        }
    }

    fn temporality(delta: bool) -> CircuitMetricsConfig {
        let mut config = CircuitMetricsConfig::default();
        config.delta = delta;
        config
    }

    fn to_stock(id: u64, end: u64, status: i64) -> Span {
        call(id, end - SECOND / 100, end, vec![text("server.address", "stock"), int("http.status_code", status)])
    }

    fn numbers<'a>(metrics: &'a [Metric], name: &str) -> Vec<&'a NumberDataPoint> {
        let points = metrics.iter().filter(|metric| metric.name == name).flat_map(|metric| match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => &sum.data_points,
            Data::Gauge(gauge) => &gauge.data_points,
            other => panic!("{other:?}"),
        });
        points.collect()
    }

    /// Seconds since the start, and value, of the points that have this attribute.
    fn values(metrics: &[Metric], name: &str, attribute: &str) -> Vec<(u64, Option<i64>)> {
        let has = |point: &&NumberDataPoint| attribute.is_empty() || point.attributes.iter().any(|one| shown(one) == attribute);
        let value = |point: &NumberDataPoint| match point.value {
            Some(number_data_point::Value::AsInt(number)) => Some(number),
            Some(number_data_point::Value::AsDouble(_)) => panic!("{name} is no count"),
            None => None,
        };
        numbers(metrics, name).into_iter().filter(has).map(|point| ((point.time_unix_nano + SECOND / 2 - START) / SECOND, value(point))).collect()
    }

    fn shown(attribute: &KeyValue) -> String {
        match attribute.value.as_ref().unwrap().value.as_ref().unwrap() {
            Value::StringValue(text) => text.clone(),
            other => format!("{}={other:?}", attribute.key),
        }
    }

    #[test]
    fn everything_is_told_once_a_minute_however_busy_the_circuit() {
        let mut told = Told::new(CircuitMetricsConfig::default());
        told.apply(to_stock(1, START, 503), START);
        let mut failures = Vec::new();
        for step in 0..13 {
            let now = START + step * 10 * SECOND;
            told.apply(to_stock(2 + step, now, 200), now);
            failures.extend(values(&told.tell(now + SECOND), "circuit_breaker.requests", "failure"));
        }
        assert_eq!(failures, [(1, Some(0)), (1, Some(1)), (61, Some(1)), (121, Some(1))]);
    }

    #[test]
    fn a_series_that_is_born_late_begins_where_it_was_last_known_to_be_0() {
        let mut told = Told::new(CircuitMetricsConfig::default());
        told.apply(to_stock(1, START, 200), START);
        told.tell(START + SECOND);
        told.tell(START + 11 * SECOND);
        told.apply(to_stock(2, START + 15 * SECOND, 503), START + 15 * SECOND);
        let mut tripped = to_stock(3, START + 15 * SECOND, 200);
        tripped.events = vec![transition(START + 15 * SECOND, "closed", "open")];
        told.apply(tripped, START + 15 * SECOND);
        let metrics = told.tell(START + 31 * SECOND);
        assert_eq!(values(&metrics, "circuit_breaker.requests", "failure"), [(11, Some(0)), (31, Some(1))]);
        assert_eq!(values(&metrics, "circuit_breaker.trips", ""), [(11, Some(0)), (31, Some(1))]);
        for metric in &metrics {
            let Some(Data::ExponentialHistogram(histogram)) = &metric.data else { continue };
            let counts: Vec<(u64, u64)> = histogram.data_points.iter().map(|point| ((point.time_unix_nano - START) / SECOND, point.count)).collect();
            assert_eq!(counts, [(11, 0), (31, 3), (31, 1)], "successes go on, failures begin");
            for point in &histogram.data_points {
                assert!(point.start_time_unix_nano <= point.time_unix_nano);
                let within = |at: u64| at > point.start_time_unix_nano && at <= point.time_unix_nano;
                assert!(point.exemplars.iter().all(|exemplar| within(exemplar.time_unix_nano)));
            }
        }
    }

    #[test]
    fn all_that_began_ends_without_a_value() {
        for delta in [false, true] {
            let mut told = Told::new(temporality(delta));
            told.apply(to_stock(1, START, 503), START);
            let first = told.tell(START + SECOND);
            let mut last = Vec::new();
            for step in 1..90 {
                last = told.tell(START + step * 60 * SECOND);
                if step < 60 {
                    assert!(numbers(&last, "circuit_breaker.requests").iter().all(|point| point.flags == 0));
                }
                if step == 61 {
                    break;
                }
            }
            let names = |metrics: &[Metric]| metrics.iter().map(|metric| metric.name.clone()).collect::<Vec<_>>();
            assert_eq!(names(&last), names(&first), "delta: {delta}");
            let ended = |metrics: &[Metric]| -> Vec<bool> {
                let flags = metrics.iter().flat_map(|metric| match metric.data.as_ref().unwrap() {
                    Data::Sum(sum) => sum.data_points.iter().map(|point| point.flags).collect::<Vec<_>>(),
                    Data::Gauge(gauge) => gauge.data_points.iter().map(|point| point.flags).collect(),
                    Data::ExponentialHistogram(histogram) => histogram.data_points.iter().map(|point| point.flags).collect(),
                    other => panic!("{other:?}"),
                });
                flags.map(|flags| flags == DataPointFlags::NoRecordedValueMask as u32).collect()
            };
            assert!(ended(&last).into_iter().all(|ended| ended));
            assert!(ended(&first).into_iter().all(|ended| !ended));
        }
    }

    #[test]
    fn the_overflow_says_nothing_but_that_it_is_one() {
        let mut told = Told::new(CircuitMetricsConfig::default());
        told.shard = CircuitBreakerMetricsCollector::new(Arc::new(told.config.clone()), Arc::default(), Arc::new(Room::new(0)));
        told.apply(to_stock(1, START, 503), START);
        told.apply(to_stock(2, START, 200), START);
        let metrics = told.tell(START + SECOND);
        assert_eq!(values(&metrics, "circuit_breaker.requests", ""), [(1, Some(0)), (1, Some(2))]);
        let names: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["circuit_breaker.duration", "circuit_breaker.requests"]);
        for point in numbers(&metrics, "circuit_breaker.requests") {
            assert_eq!(point.attributes.iter().map(shown).collect::<Vec<_>>(), ["otel.metric.overflow=BoolValue(true)"]);
        }
    }

    #[test]
    fn deltas_count_from_what_was_told_last() {
        let mut told = Told::new(temporality(true));
        let mut counted = Vec::new();
        for step in 0..4 {
            for call in 0..step {
                told.apply(to_stock(step * 10 + call, START + step * SECOND, 200), START + step * SECOND);
            }
            counted.extend(values(&told.tell(START + step * SECOND + 1), "circuit_breaker.requests", "success"));
        }
        assert_eq!(counted, [(1, Some(2)), (2, Some(2)), (3, Some(3))]);
    }

    #[test]
    fn series_begin_with_the_second_bucket_that_has_calls_or_the_first_event_and_hold_what_came_before() {
        let mut told = Told::new(CircuitMetricsConfig::default());
        assert!(told.tell(START).is_empty(), "called once");
        told.tell(START + 100 * SECOND);
        told.apply(to_stock(1, START + 200 * SECOND, 200), START + 200 * SECOND);
        let counts = values(&told.tell(START + 201 * SECOND), "circuit_breaker.requests", "success");
        assert_eq!(counts, [(141, Some(0)), (201, Some(2))], "a minute before, since nothing was told for so long");
        let mut tripped = call(2, START, START + 300 * SECOND, vec![text("server.address", "pay")]);
        tripped.events = vec![transition(START + 300 * SECOND, "closed", "open")];
        told.apply(tripped, START + 300 * SECOND);
        told.tell(START + 300 * SECOND);
        let trips = values(&told.tell(START + 320 * SECOND), "circuit_breaker.trips", "");
        assert_eq!(trips, [(300, Some(0)), (320, Some(1))]);
    }

    #[test]
    fn every_unit_reads_right_in_prometheus() {
        for (name, unit, _) in METRICS.into_iter().chain([services::METRIC, services::OVERALL]) {
            // Of a gauge whose unit is 1 the name there ends in `_ratio`.
            let is_ratio = name.ends_with("_ratio") || name == "circuit_breaker.resource.usage";
            assert_eq!(unit == "1", is_ratio, "{name}");
            let is_known = unit == "1" || unit == "s" || unit.starts_with('{');
            assert!(is_known && !name.ends_with("seconds") && !name.ends_with("total"), "{name}: {unit}");
        }
    }

    #[test]
    fn series_of_findings_begin_and_end_with_them() {
        let mut config = CircuitMetricsConfig::default();
        config.analysis.anomaly = Some(AnomalyConfig::default());
        let mut told = Told::new(config);
        let mut id = 0;
        // 20 calls a second; from second 400 to 430 half of them fail.
        let mut seconds = |told: &mut Told, range: std::ops::Range<u64>| {
            for second in range {
                for call_of_second in 0..20 {
                    id += 1;
                    let end = START + second * SECOND + call_of_second;
                    let fails = (400..430).contains(&second) && call_of_second % 2 == 0;
                    let status = int("http.status_code", if fails { 503 } else { 200 });
                    told.apply(call(id, end - SECOND / 100, end, vec![text("server.address", "pay"), status]), START + second * SECOND);
                }
                told.shard.advance(START + second * SECOND, &mut Vec::new());
            }
        };
        seconds(&mut told, 1..400);
        let names = |metrics: &[Metric]| metrics.iter().map(|metric| metric.name.clone()).filter(|name| name.contains("anomal")).collect::<Vec<_>>();
        assert_eq!(names(&told.tell(START + 400 * SECOND)), Vec::<String>::new());
        seconds(&mut told, 400..420);
        let metrics = told.tell(START + 420 * SECOND);
        assert_eq!(names(&metrics), ["circuit_breaker.anomalies", "circuit_breaker.anomaly.score"]);
        let point = |metrics: &[Metric], name: &str| {
            let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
            match metric.data.clone().unwrap() {
                Data::Sum(sum) => sum.data_points,
                Data::Gauge(gauge) => gauge.data_points,
                other => panic!("{other:?}"),
            }
        };
        let counts: Vec<_> = point(&metrics, "circuit_breaker.anomalies").into_iter().map(|point| point.value.unwrap()).collect();
        assert_eq!(counts, [number_data_point::Value::AsInt(0), number_data_point::Value::AsInt(1)], "its first point is 0");
        let [score] = &point(&metrics, "circuit_breaker.anomaly.score")[..] else { panic!() };
        assert!(matches!(score.value, Some(number_data_point::Value::AsDouble(score)) if score > 2.0), "{score:?}");
        assert!(score.attributes.iter().any(|attribute| *attribute == super::super::attributes::text("circuit_breaker.signal", "error_ratio")));
        seconds(&mut told, 420..560);
        let metrics = told.tell(START + 560 * SECOND);
        let [ended] = &point(&metrics, "circuit_breaker.anomaly.score")[..] else { panic!() };
        assert_eq!((ended.value, ended.flags), (None, DataPointFlags::NoRecordedValueMask as u32));
        seconds(&mut told, 560..570);
        assert!(!names(&told.tell(START + 570 * SECOND)).contains(&"circuit_breaker.anomaly.score".to_owned()));
    }
}
