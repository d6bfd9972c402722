use std::{hash::BuildHasher, sync::Arc};

use arc_swap::ArcSwap;
use bytes::Bytes;
use foldhash::quality::FixedState;
use opentelemetry_proto::tonic::collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest};
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::{
    config::Checked,
    counts::Counts,
    logs,
    metrics::{Page, Settings},
    seen::Seen,
};
use crate::{
    circuit::{
        circuit::Circuit,
        collector::{CircuitBreakerMetricsCollector, Room},
        config::CircuitMetricsConfig,
        event::CircuitEvent,
        inspect::{Inspection, ResourceRecord, inspect},
        key::CircuitKey,
        sent::Sent,
    },
    clock::Clock,
    otlp::Malformed,
    pipeline::{Charge, Part, Setup},
};

/// Requests are remembered for a window and this much longer, in nanoseconds.
const REMEMBERED: u64 = 60_000_000_000;

/// Circuits whose metrics go into one request: well below 1 MiB, even with names of full length.
const CIRCUITS_A_REQUEST: usize = 32;

/// Windows of all circuits, split by caller, and what goes in and out of them.
pub(super) struct Engine {
    clock: Arc<dyn Clock>,
    checked: ArcSwap<Checked>,
    shards: Vec<Mutex<CircuitBreakerMetricsCollector>>,
    /// All that found no room.
    overflow: Mutex<CircuitBreakerMetricsCollector>,
    room: Arc<Room>,
    seen: Mutex<Seen>,
    charge: Mutex<Charge>,
    counts: Counts,
}

/// Metrics for one request, and what they tell, to be noted once they are on their way.
pub(super) struct Report {
    pub(super) request: ExportMetricsServiceRequest,
    pub(super) points: usize,
    pub(super) told: Vec<Told>,
}

/// What a report tells of one circuit.
pub(super) struct Told {
    place: Place,
    number: usize,
    key: Arc<CircuitKey>,
    sent: Sent,
}

/// Which collector.
#[derive(Clone, Copy)]
enum Place {
    Shard(usize),
    Overflow,
}

impl Engine {
    /// With so many shards: one for each thread that may be busy at a time.
    pub(super) fn new(checked: Checked, setup: &Setup, shards: usize) -> Self {
        let (config, selection) = (Arc::new(checked.circuit.clone()), Arc::new(checked.selection.clone()));
        let room = Arc::new(Room::new(config.max_circuits));
        let collector =
            |room: &Arc<Room>| Mutex::new(CircuitBreakerMetricsCollector::new(Arc::clone(&config), Arc::clone(&selection), Arc::clone(room)));
        Self {
            clock: Arc::clone(&setup.clock),
            shards: (0..shards).map(|_| collector(&room)).collect(),
            overflow: collector(&Arc::new(Room::new(0))),
            room,
            seen: Mutex::new(Seen::new(config.window_size() + REMEMBERED)),
            charge: Mutex::new(setup.ledger.open()),
            counts: Counts::new(&setup.meter, &setup.id),
            checked: ArcSwap::from_pointee(checked),
        }
    }

    /// Goes over to other settings: windows begin anew where their shape changed, counters go on.
    pub(super) fn reconfigure(&self, checked: Checked) {
        let (config, selection) = (Arc::new(checked.circuit.clone()), Arc::new(checked.selection.clone()));
        for shard in self.shards.iter().chain([&self.overflow]) {
            shard.lock().reconfigure(&config, &selection);
        }
        self.room.set_most(config.max_circuits);
        self.seen.lock().set_lifetime(config.window_size() + REMEMBERED);
        self.checked.store(Arc::new(checked));
    }

    /// Reads a request; changes nothing.
    pub(super) fn inspect(&self, part: &Part) -> Result<Inspection, Malformed> {
        let horizon = self.clock.now().saturating_add(self.checked.load().circuit.max_clock_skew);
        self.inspect_until(part, horizon)
    }

    /// Reads a request, in which spans that end beyond the horizon are from the future; changes nothing.
    pub(super) fn inspect_until(&self, part: &Part, horizon: u64) -> Result<Inspection, Malformed> {
        inspect(&part.bytes, part.items, &self.checked.load().rules, horizon)
    }

    /// Counts a request, and says how many of its spans were late. Can't fail.
    pub(super) fn apply(&self, request: &Bytes, inspection: &Inspection) -> u64 {
        let now = self.clock.now();
        let mut seen = self.seen.lock();
        let hash = seen.hash(request);
        let first = seen.insert(hash, now);
        drop(seen);
        if !first {
            self.counts.repeated();
            return 0;
        }
        let mut late = 0;
        self.counts.inspected(inspection);
        let shard_of: SmallVec<[usize; 4]> = inspection.resources.iter().map(|resource| self.shard_of(request, inspection, resource)).collect();
        for (index, shard) in self.shards.iter().enumerate().filter(|(index, _)| shard_of.contains(index)) {
            let mine = |resource: u32| shard_of.get(resource as usize) == Some(&index);
            let applied = shard.lock().apply(request, inspection, mine, now);
            if !applied.overflow.is_empty() {
                self.overflow.lock().apply_overflow(request, inspection, &applied.overflow, now);
            }
            self.counts.applied(&applied);
            late += applied.late;
        }
        late
    }

    fn shard_of(&self, request: &[u8], inspection: &Inspection, resource: &ResourceRecord) -> usize {
        let caller = [resource.environment, resource.namespace, resource.service].map(|text| inspection.text(request, text));
        let hash = FixedState::with_seed(0).hash_one(caller);
        usize::try_from(hash % self.shards.len() as u64).unwrap_or_default()
    }

    /// Closes buckets up to the watermarks; gives what breakers did, in order of time.
    pub(super) fn advance(&self) -> Vec<CircuitEvent> {
        let now = self.clock.now();
        let mut events = Vec::new();
        let (mut circuits, mut instances, mut bytes, mut lag) = (0, 0, 0, 0);
        for shard in self.shards.iter().chain([&self.overflow]) {
            let mut shard = shard.lock();
            shard.advance(now, &mut events);
            circuits += shard.circuits().count();
            instances += shard.instances();
            bytes += shard.bytes();
            lag = lag.max(shard.watermark_lag(now));
        }
        self.charge.lock().set(bytes);
        self.counts.held(circuits as u64, instances as u64, bytes as u64, lag as f64 / 1e9);
        self.sorted(events)
    }

    /// Closes everything.
    pub(super) fn finish(&self) -> Vec<CircuitEvent> {
        let now = self.clock.now();
        let mut events = Vec::new();
        for shard in self.shards.iter().chain([&self.overflow]) {
            shard.lock().finish(now, &mut events);
        }
        self.sorted(events)
    }

    fn sorted(&self, mut events: Vec<CircuitEvent>) -> Vec<CircuitEvent> {
        events.sort_by(|left, right| {
            left.at.cmp(&right.at).then_with(|| left.circuit.cmp(&right.circuit)).then_with(|| left.instance.cmp(&right.instance))
        });
        events.iter().for_each(|event| self.counts.event(event));
        events
    }

    /// What is there to tell of circuits whose number leaves this remainder, in requests of bounded size.
    pub(super) fn report(&self, interval: usize, remainder: usize) -> Vec<Report> {
        let checked = self.checked.load();
        let settings = Settings { circuit: &checked.circuit, exemplars: checked.exemplars, disabled: &checked.disabled_metrics };
        let now = self.clock.now();
        let mut reports = Vec::new();
        let places = (0..self.shards.len()).map(Place::Shard).chain([Place::Overflow]);
        for place in places {
            let Some(shard) = self.at(place) else { continue };
            let mut shard = shard.lock();
            for ended in shard.take_ended().chunks(CIRCUITS_A_REQUEST) {
                let mut page = Page::new(&settings, now);
                ended.iter().for_each(|circuit| page.end(circuit));
                push(&mut reports, page, Vec::new());
            }
            let due = |circuit: &Circuit| circuit.changed || now.saturating_sub(circuit.sent.at) >= 60_000_000_000;
            let numbers: Vec<usize> =
                shard.circuits().filter(|(number, circuit)| number % interval == remainder && due(circuit)).map(|(number, _)| number).collect();
            for chunk in numbers.chunks(CIRCUITS_A_REQUEST) {
                let mut page = Page::new(&settings, now);
                let mut told = Vec::with_capacity(chunk.len());
                for number in chunk {
                    if let Some(circuit) = shard.circuit_mut(*number) {
                        told.push(Told { place, number: *number, key: Arc::clone(circuit.key()), sent: page.circuit(circuit) });
                        circuit.changed = false;
                    }
                }
                push(&mut reports, page, told);
            }
        }
        reports
    }

    /// Shows every circuit, in no particular order.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(&Circuit)) {
        for shard in self.shards.iter().chain([&self.overflow]) {
            shard.lock().circuits().for_each(|(_, circuit)| visit(circuit));
        }
    }

    fn at(&self, place: Place) -> Option<&Mutex<CircuitBreakerMetricsCollector>> {
        match place {
            Place::Shard(index) => self.shards.get(index),
            Place::Overflow => Some(&self.overflow),
        }
    }

    /// Notes that a report is on its way, or that it was refused and is to be told again.
    pub(super) fn settle(&self, told: Vec<Told>, taken: bool) {
        for Told { place, number, key, sent } in told {
            let Some(shard) = self.at(place) else { continue };
            let mut shard = shard.lock();
            // Its number may be another circuit's by now.
            let Some(circuit) = shard.circuit_mut(number).filter(|circuit| Arc::ptr_eq(circuit.key(), &key)) else { continue };
            if taken {
                circuit.sent = sent;
                circuit.forget_exemplars();
            } else {
                circuit.changed = true;
            }
        }
    }

    /// Events as one request.
    pub(super) fn logs(&self, events: &[CircuitEvent]) -> ExportLogsServiceRequest {
        logs::request(events, self.checked.load().circuit.percentiles(), self.clock.now())
    }

    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) fn settings(&self) -> CircuitMetricsConfig {
        self.checked.load().circuit.clone()
    }

    pub(super) fn emit_interval(&self) -> u64 {
        self.checked.load().emit_interval
    }
}

fn push(reports: &mut Vec<Report>, page: Page<'_>, told: Vec<Told>) {
    let (request, points) = page.finish();
    reports.push(Report { request, points, told });
}
