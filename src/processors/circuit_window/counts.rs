use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Meter},
};

use crate::circuit::{collector::Applied, event::CircuitEvent, finding::Finding, inspect::Inspection, newcomers::Gone};

/// Own metrics of one `circuit_window`.
pub(super) struct Counts {
    id: KeyValue,
    without_circuit: Counter<u64>,
    late: Counter<u64>,
    future: Counter<u64>,
    invalid_time: Counter<u64>,
    states_unread: Counter<u64>,
    overflow: Counter<u64>,
    excluded: Counter<u64>,
    repeated: Counter<u64>,
    evicted: Counter<u64>,
    limit_reached: Counter<u64>,
    events: Counter<u64>,
    events_dropped: Counter<u64>,
    circuits: Gauge<u64>,
    instances: Gauge<u64>,
    window_bytes: Gauge<u64>,
    watermark_lag: Gauge<f64>,
}

impl Counts {
    pub(super) fn new(meter: &Meter, id: &str) -> Self {
        let counter = |name: &'static str| meter.u64_counter(name).build();
        Self {
            id: KeyValue::new("processor", id.to_owned()),
            without_circuit: counter("fuseboard_spans_without_circuit"),
            late: counter("fuseboard_spans_late"),
            future: counter("fuseboard_spans_future"),
            invalid_time: counter("fuseboard_spans_invalid_time"),
            states_unread: counter("fuseboard_states_unread"),
            overflow: counter("fuseboard_spans_overflow"),
            excluded: counter("fuseboard_spans_excluded"),
            repeated: counter("fuseboard_requests_repeated"),
            evicted: counter("fuseboard_circuits_evicted"),
            limit_reached: counter("fuseboard_limit_reached"),
            events: counter("fuseboard_events"),
            events_dropped: counter("fuseboard_events_dropped"),
            circuits: meter.u64_gauge("fuseboard_circuits").build(),
            instances: meter.u64_gauge("fuseboard_circuit_instances").build(),
            window_bytes: meter.u64_gauge("fuseboard_window_bytes").build(),
            watermark_lag: meter.f64_gauge("fuseboard_watermark_lag_seconds").build(),
        }
    }

    fn add(&self, counter: &Counter<u64>, count: u64) {
        if count > 0 {
            counter.add(count, std::slice::from_ref(&self.id));
        }
    }

    fn limit(&self, limit: &'static str, count: u64) {
        if count > 0 {
            self.limit_reached.add(count, &[self.id.clone(), KeyValue::new("limit", limit)]);
        }
    }

    pub(super) fn inspected(&self, inspection: &Inspection) {
        self.add(&self.without_circuit, inspection.without_circuit);
        self.add(&self.future, inspection.future);
        self.add(&self.invalid_time, inspection.invalid_time);
        self.add(&self.states_unread, inspection.unread);
    }

    pub(super) fn repeated(&self) {
        self.add(&self.repeated, 1);
    }

    pub(super) fn applied(&self, applied: &Applied) {
        self.add(&self.late, applied.late);
        self.add(&self.excluded, applied.excluded);
        self.add(&self.overflow, applied.overflow.len() as u64);
        self.limit("max_circuits", applied.overflow.len() as u64);
        self.limit("max_instances", applied.instances_beyond);
        self.limit("evidence", applied.evidence_dropped);
        self.limit("processes", applied.processes_beyond);
    }

    /// Circuits that were let go of without ever having had a series: for others, or since nobody called them again.
    pub(super) fn gone(&self, gone: &Gone) {
        for (reason, count) in [("max_circuits", gone.evicted), ("circuit_ttl", gone.idle)] {
            if count > 0 {
                self.evicted.add(count, &[self.id.clone(), KeyValue::new("reason", reason)]);
            }
        }
    }

    pub(super) fn forgotten_early(&self, times: u64) {
        self.limit("requests_remembered", times);
    }

    pub(super) fn event(&self, event: &CircuitEvent) {
        let attributes = [self.id.clone(), KeyValue::new("event", event.change.event_name()), KeyValue::new("source", event.source.name())];
        self.events.add(1, &attributes);
    }

    pub(super) fn finding(&self, finding: &Finding) {
        let phase = KeyValue::new("phase", finding.what.phase().name());
        self.events.add(1, &[self.id.clone(), KeyValue::new("event", finding.event_name()), phase]);
    }

    pub(super) fn events_dropped(&self, count: u64) {
        self.add(&self.events_dropped, count);
        self.limit("events", count);
    }

    pub(super) fn held(&self, circuits: u64, instances: u64, bytes: u64, lag: f64) {
        let id = std::slice::from_ref(&self.id);
        self.circuits.record(circuits, id);
        self.instances.record(instances, id);
        self.window_bytes.record(bytes, id);
        self.watermark_lag.record(lag, id);
    }
}
