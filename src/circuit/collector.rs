//! All circuits of one shard.

use std::{collections::VecDeque, ops::Range, sync::Arc};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::{
    answers::Answers,
    bucket::Outcome,
    circuit::{Address, Call, Circuit, Reshape},
    config::CircuitMetricsConfig,
    detect::{habit::Habits, lane::Lane},
    detection::memo::Memo,
    finding::Finding,
    inspect::{ErrorText, GRPC_STATUSES, Inspection, ObservationRecord, SpanRecord, TargetRecord, Text, UnreadRecord},
    key::{Caller, CircuitKey, authority},
    meeting::Met,
    member::Evidence,
    newcomers::Gone,
    process::{Hashed, Process, Seat},
    room::Room,
    seats::{Found, PROCESSES_MAX},
    selection::Selection,
    service::Tallies,
    state::Observation,
    usages::OfProcess,
};

/// Owns the windows of a shard: counts spans in them, rotates their buckets and hands out what breakers did.
///
/// A shard is all circuits of some callers, so that each circuit has one owner.
#[derive(Debug)]
pub struct CircuitBreakerMetricsCollector {
    pub(super) config: Arc<CircuitMetricsConfig>,
    pub(super) selection: Arc<Selection>,
    pub(super) room: Arc<Room>,
    pub(super) processes: Slab<Process>,
    pub(super) by_resource: HashTable<u32>,
    /// Boxed, since a slab that grows leaves room for as many again.
    pub(super) circuits: Slab<Box<Circuit>>,
    pub(super) by_key: HashTable<KeyPlace>,
    pub(super) hasher: RandomState,
    /// What callers usually call, by caller.
    pub(super) habits: Slab<Box<Habits>>,
    pub(super) by_caller: HashTable<u32>,
    pub(super) callers: Vec<Arc<Caller>>,
    /// Traces of the request at hand that are learned from; empty between requests.
    pub(super) learning: Learning,
    pub(super) memo: Memo,
    /// Processes in which something went wrong in the request at hand, and when that ended; empty between requests.
    pub(super) worth_watching: Vec<(u32, u64)>,
    /// Processes that are watched and not looked at yet in this round, by caller.
    pub(super) turns: Vec<(u32, u32)>,
    /// Services that say nothing to tell their processes apart, since this was asked last.
    pub(super) nameless: Vec<Arc<Caller>>,
    /// Halves of calls that may tell a callee's name; the other half may be another shard's.
    pub(super) met: Vec<Met>,
    /// What callees answered, also those of other shards.
    pub(super) answers: Arc<Answers>,
    /// Circuits that ended and whose series have to be ended too.
    pub(super) ended: Vec<Circuit>,
    /// What analyzers found since this was asked last.
    pub(super) findings: Vec<Finding>,
    /// How the circuits that were seen in this round are, by callee.
    pub(super) tallies: Tallies,
    /// What holds of processes that were seen in this round.
    pub(super) holding: Vec<(OfProcess, f64)>,
    pub(super) instances: usize,
    pub(super) next_sweep: u64,
    /// Circuits as they came, and among them all that may make room for others.
    pub(super) newcomers: VecDeque<u32>,
    /// The same of processes; and how many of them have to go for others.
    pub(super) new_processes: VecDeque<u32>,
    pub(super) processes_owed: usize,
    /// Processes that are told apart.
    pub(super) processes_max: usize,
    /// What became of circuits that never had a series, since this was asked last.
    pub(super) gone: Gone,
    /// When circuits were told of last, in Unix nanoseconds; 0 if never.
    told_at: u64,
}

/// Series of a circuit that nothing was ever told beside begin so long before it was seen, in nanoseconds: a first point of
/// 0 must not share a millisecond with what follows, or backends refuse one of them as a duplicate.
const BEFORE: u64 = 1_000_000;

/// Where a circuit stands that a target leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyPlace {
    /// Of caller and target: the name, or an address.
    pub(super) hash: Hashed,
    pub(super) circuit: u32,
}

/// Traces that are learned from.
#[derive(Debug, Default)]
pub(super) struct Learning {
    /// A part of the trace id, the process, the breaker, the start.
    pub(super) calls: Vec<(u64, u32, Lane, u64)>,
    /// A part of the trace id, the process, the operation, start and end.
    pub(super) roots: Vec<(u64, u32, Text, (u64, u64))>,
}

impl Learning {
    pub(super) fn bytes(&self) -> usize {
        self.calls.capacity() * size_of::<(u64, u32, Lane, u64)>() + self.roots.capacity() * size_of::<(u64, u32, Text, (u64, u64))>()
    }
}

/// What became of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Spans that came after their bucket had closed. Counted, and in the window while their bucket is.
    pub late: u64,
    /// Spans of circuits that were not selected.
    pub excluded: u64,
    /// Indices of spans for which there was no circuit and no room for one.
    pub overflow: Vec<u32>,
    /// Reported states for which there was no room.
    pub evidence_dropped: u64,
    /// Calls by processes that are too many for their circuit to tell apart.
    pub instances_beyond: u64,
    /// Spans of processes that are too many for the shard to tell apart.
    pub processes_beyond: u64,
    /// Services that were heard of for the first time, and say nothing that would tell their processes apart.
    pub nameless: Vec<Arc<Caller>>,
    /// What can't be read, of services of which nothing else was that told a breaker's state.
    pub unread: Vec<Unread>,
}

/// What should tell a breaker's state and can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// Who sends it.
    pub caller: Arc<Caller>,
    /// The attribute, or the name of the event.
    pub key: String,
    /// What it holds; empty of an event.
    pub value: String,
}

impl CircuitBreakerMetricsCollector {
    /// Without any circuits yet.
    pub fn new(config: Arc<CircuitMetricsConfig>, selection: Arc<Selection>, room: Arc<Room>) -> Self {
        Self {
            config,
            selection,
            room,
            processes: Slab::new(),
            by_resource: HashTable::new(),
            circuits: Slab::new(),
            by_key: HashTable::new(),
            hasher: RandomState::default(),
            habits: Slab::new(),
            by_caller: HashTable::new(),
            callers: Vec::new(),
            learning: Learning::default(),
            memo: Memo::default(),
            worth_watching: Vec::new(),
            turns: Vec::new(),
            met: Vec::new(),
            nameless: Vec::new(),
            answers: Arc::default(),
            ended: Vec::new(),
            findings: Vec::new(),
            tallies: Tallies::default(),
            holding: Vec::new(),
            instances: 0,
            next_sweep: 0,
            newcomers: VecDeque::new(),
            new_processes: VecDeque::new(),
            processes_owed: 0,
            processes_max: PROCESSES_MAX,
            gone: Gone::default(),
            told_at: 0,
        }
    }

    /// Circuits are told of now, of everything that is known: what is seen from now on had not been there.
    pub const fn tells_at(&mut self, now: u64) {
        self.told_at = now;
    }

    /// When it is known that a circuit that is seen first now had not been called.
    pub(super) fn unseen_since(&self, now: u64) -> u64 {
        if self.told_at > 0 { self.told_at.min(now) } else { now.saturating_sub(BEFORE) }
    }

    /// Shares with other collectors what callees answered.
    pub fn share(&mut self, answers: &Arc<Answers>) {
        self.answers = Arc::clone(answers);
    }

    /// Goes over to other settings. Where the shape of the windows changed they begin anew; counters go on.
    pub fn reconfigure(&mut self, config: &Arc<CircuitMetricsConfig>, selection: &Arc<Selection>, now: u64) {
        let old = Arc::clone(&self.config);
        let windows = (self.config.window_size(), self.config.bucket_size()) != (config.window_size(), config.bucket_size());
        let reshape = Reshape {
            windows,
            analysis: (windows || self.config.analysis != config.analysis).then_some((&old.analysis, &**config, now)),
            histograms: self.config.explicit_bounds != config.explicit_bounds,
            to_delta: config.delta && !self.config.delta,
        };
        for (_, circuit) in &mut self.circuits {
            circuit.reconfigure(reshape);
            self.findings.extend(circuit.take_findings());
        }
        self.config = Arc::clone(config);
        (0..self.processes.capacity()).for_each(|index| self.look_for_usages(index, &old.analysis, now));
        self.selection = Arc::clone(selection);
        let left_out: Vec<usize> = self.circuits.iter().filter(|(_, circuit)| is_left_out(circuit, selection)).map(|(number, _)| number).collect();
        left_out.into_iter().for_each(|number| self.remove_circuit(number, now));
        // Of a circuit that stays some addresses may not.
        let left_out: Vec<(u32, Address)> = self
            .circuits
            .iter()
            .flat_map(|(number, circuit)| {
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                let service = circuit.key().caller.service.as_bytes();
                let addresses = circuit.addresses.iter().flat_map(|known| &known.all);
                addresses.filter(|address| !selection.takes(service, address.text.as_bytes())).map(move |address| (number, address.clone()))
            })
            .collect();
        left_out.iter().for_each(|(number, address)| drop(self.forget_address(*number, &address.target(), now)));
    }

    /// Counts the spans of a request whose resources are `mine`. Can't fail.
    pub fn apply(&mut self, request: &[u8], inspection: &Inspection, mine: impl Fn(u32) -> bool, now: u64) -> Applied {
        let mut applied = Applied::default();
        self.memo = Memo::default();
        if self.room.is_owed() || self.processes_owed > 0 {
            self.let_newcomers_go(now);
        }
        self.watch(request, inspection, &mine, now);
        self.learn_rpc_services(request, inspection, &mine, now);
        let mut current: Option<(u32, Option<u32>)> = None;
        let mut before: Option<(u32, TargetRecord, Seat)> = None;
        for (index, span) in inspection.spans.iter().enumerate() {
            if !mine(span.resource) {
                continue;
            }
            // Read from the very same place, as URLs that begin alike are: nothing has to be compared, unless several
            // callees share the address.
            if let Some((resource, target, seat)) = before
                && (resource, target) == (span.resource, span.target)
            {
                self.count(seat, span, request, inspection, now, &mut applied);
                self.note(current, seat, span, request, inspection, &mut applied);
                continue;
            }
            let process = self.process_of(request, inspection, span.resource, &mut current, now);
            applied.processes_beyond += u64::from(process.is_none());
            let found = process.map_or(Found::NoRoom, |process| self.place(process, inspection, request, (span.target, span.route), now));
            before = if let Found::Seat(seat) = found { Some((span.resource, span.target, seat)) } else { None };
            match found {
                Found::Seat(seat) | Found::ByPath(seat) => {
                    self.count(seat, span, request, inspection, now, &mut applied);
                    self.note(current, seat, span, request, inspection, &mut applied);
                }
                Found::Excluded => applied.excluded += 1,
                Found::NoRoom => applied.overflow.extend(u32::try_from(index)),
            }
        }
        for observation in inspection.observations.iter().filter(|observation| mine(observation.resource)) {
            let process = self.process_of(request, inspection, observation.resource, &mut current, now);
            let kept = match process
                .map_or(Found::NoRoom, |process| self.place(process, inspection, request, (observation.target, observation.route), now))
            {
                Found::Seat(seat) | Found::ByPath(seat) => self.observe(seat, observation, request, now),
                Found::Excluded => true,
                Found::NoRoom => false,
            };
            applied.evidence_dropped += u64::from(!kept);
        }
        for told in inspection.unnamed.iter().filter(|told| mine(told.resource)) {
            let process = self.process_of(request, inspection, told.resource, &mut current, now);
            let kept = process.is_some_and(|process| self.observe_unnamed(process, told, request, inspection, now));
            applied.evidence_dropped += u64::from(!kept);
        }
        for unread in inspection.unread_of.iter().filter(|unread| mine(unread.resource)) {
            let process = self.process_of(request, inspection, unread.resource, &mut current, now);
            applied.unread.extend(process.and_then(|process| self.first_unread(process, unread, request, inspection)));
        }
        applied.evidence_dropped += self.note_units(request, inspection, &mine, now);
        if !self.worth_watching.is_empty() {
            applied.evidence_dropped += self.watch_closely(request, inspection, &mine, now);
        }
        applied.nameless = std::mem::take(&mut self.nameless);
        for (index, resource) in (0..).zip(&inspection.resources) {
            if mine(index) {
                let process = self.process_of(request, inspection, index, &mut current, now);
                if let Some(process) = process.and_then(|process| self.processes.get_mut(process as usize)) {
                    process.hear(resource.newest_end, self.config.allowed_lateness);
                    process.newcomer &= process.last_seen == now;
                    process.last_seen = now;
                }
            }
        }
        applied
    }

    /// Looks at a call for the sake of breakers.
    #[inline]
    fn note(
        &mut self,
        current: Option<(u32, Option<u32>)>,
        seat: Seat,
        span: &SpanRecord,
        request: &[u8],
        inspection: &Inspection,
        applied: &mut Applied,
    ) {
        let Some((_, Some(process))) = current else { return };
        applied.evidence_dropped += u64::from(!self.note_call(process, seat, span, request, inspection));
    }

    /// Counts spans in the one circuit of all that found no room, which tells no outcomes apart but refusals; gives
    /// how many were late.
    pub fn apply_overflow(&mut self, request: &[u8], inspection: &Inspection, spans: &[u32], now: u64) -> u64 {
        let circuit = self.overflow_circuit(now);
        let seat = Seat { hash: Hashed::of(0), circuit: u32::try_from(circuit).unwrap_or(u32::MAX), member: None };
        let mut applied = Applied::default();
        for span in spans.iter().filter_map(|index| inspection.spans.get(*index as usize)) {
            let outcome = if span.outcome == Outcome::Rejected { Outcome::Rejected } else { Outcome::Success };
            self.count(seat, &SpanRecord { outcome, ..*span }, request, inspection, now, &mut applied);
        }
        applied.late
    }

    /// Counts calls of circuits that made room for others in the one circuit of all that found none.
    pub fn take_over(&mut self, calls: u64, now: u64) {
        let circuit = self.overflow_circuit(now);
        self.circuits.get_mut(circuit).into_iter().for_each(|circuit| circuit.take_over(calls, now));
    }

    /// The one circuit of all that found no room; made if there is none.
    fn overflow_circuit(&mut self, now: u64) -> usize {
        if let Some((circuit, _)) = self.circuits.iter().next() {
            return circuit;
        }
        let caller = Arc::new(Caller { service: "fuseboard".into(), ..Caller::default() });
        let key = CircuitKey { caller, text: "overflow".into(), overflow: true, ..CircuitKey::default() };
        let circuit = Circuit::new(Arc::new(key), self.unseen_since(now), now);
        self.circuits.insert(Box::new(circuit))
    }

    #[inline]
    fn count(&mut self, seat: Seat, span: &SpanRecord, request: &[u8], inspection: &Inspection, now: u64, applied: &mut Applied) {
        let Some(circuit) = self.circuits.get_mut(seat.circuit as usize) else { return };
        let mut digits = [0; 5];
        let error = error_text(span.error, request, inspection, &mut digits);
        let call = Call { start: span.start, end: span.end, outcome: span.outcome, error, weight: span.weight };
        applied.late += u64::from(circuit.count(&call, || span.ids(request), now, &self.config));
        match seat.member.and_then(|member| circuit.members.get_mut(member as usize)) {
            Some(member) => member.used(span.end),
            None => applied.instances_beyond += 1,
        }
    }

    /// What can't be read, if it is the first of its service.
    fn first_unread(&mut self, process: u32, unread: &UnreadRecord, request: &[u8], inspection: &Inspection) -> Option<Unread> {
        let process = self.processes.get(process as usize)?;
        let habits = self.habits.get_mut(process.habits as usize)?;
        if std::mem::replace(&mut habits.unread_told, true) {
            return None;
        }
        let [key, value] = [unread.key, unread.value].map(|text| String::from_utf8_lossy(inspection.text(request, text)).into_owned());
        Some(Unread { caller: Arc::clone(&process.caller), key, value })
    }

    fn observe(&mut self, seat: Seat, record: &ObservationRecord, request: &[u8], now: u64) -> bool {
        let Some(circuit) = self.circuits.get_mut(seat.circuit as usize) else { return false };
        circuit.changed = true;
        circuit.last_seen = now;
        let Some(member) = seat.member.and_then(|member| circuit.members.get_mut(member as usize)) else { return false };
        let observation = Observation { order: record.order, at: record.at, state: record.state, ids: record.ids(request) };
        member.keep(Evidence { observation, step: record.step, changes: record.changes }, self.config.bucket_size())
    }

    /// Halves of calls that were noted since this was asked last.
    pub fn take_met(&mut self) -> std::vec::Drain<'_, Met> {
        self.met.drain(..)
    }

    /// The circuits, by number: a number is a circuit's own for its life.
    pub fn circuits(&self) -> impl Iterator<Item = (usize, &Circuit)> {
        self.circuits.iter().map(|(number, circuit)| (number, &**circuit))
    }

    /// Those of them whose numbers are in this range; `None` if it and all further ones hold none.
    pub fn circuits_in(&self, numbers: Range<usize>) -> Option<impl Iterator<Item = (usize, &Circuit)>> {
        let last = numbers.end.min(self.circuits.capacity());
        (numbers.start < last).then(move || (numbers.start..last).filter_map(move |number| Some((number, &**self.circuits.get(number)?))))
    }

    /// Circuits that ended and whose end is not told yet.
    pub fn ended(&self) -> &[Circuit] {
        &self.ended
    }

    /// A circuit by its number.
    pub fn circuit_mut(&mut self, number: usize) -> Option<&mut Circuit> {
        self.circuits.get_mut(number).map(|circuit| &mut **circuit)
    }

    /// What analyzers found since this was asked last, in no particular order.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    /// How the circuits that were seen in the last round are, by callee; nothing where health is not judged.
    pub const fn tallies(&self) -> &Tallies {
        &self.tallies
    }

    /// Circuits that ended since this was asked last.
    pub fn take_ended(&mut self) -> Vec<Circuit> {
        std::mem::take(&mut self.ended)
    }

    /// Takes circuits back whose end could not be told yet.
    pub fn put_back(&mut self, ended: Vec<Circuit>) {
        self.ended.extend(ended);
    }

    /// Gives back the room of circuits whose end was told: until then they are held.
    pub fn forget(&mut self, told: &[Circuit]) {
        told.iter().filter(|circuit| !circuit.key().overflow).for_each(|_| self.room.give());
    }

    /// Instances of all circuits.
    pub const fn instances(&self) -> usize {
        self.instances
    }
}

impl Drop for CircuitBreakerMetricsCollector {
    fn drop(&mut self) {
        self.circuits.iter().filter(|(_, circuit)| !circuit.key().overflow).for_each(|_| self.room.give());
        self.circuits.iter().filter(|(_, circuit)| circuit.newcomer).for_each(|_| self.room.no_newcomer());
        let ended = self.take_ended();
        self.forget(&ended);
    }
}

/// Whether a circuit is not to be looked at: judged by what its spans call, as a new one is, and not by the name that was
/// learned since.
fn is_left_out(circuit: &Circuit, selection: &Selection) -> bool {
    let key = circuit.key();
    let takes = |text: &str| selection.takes(key.caller.service.as_bytes(), text.as_bytes());
    match &circuit.addresses {
        Some(known) if !known.all.is_empty() => {
            let is_called_so = key.address.is_empty() && takes(&key.text);
            !is_called_so && !known.all.iter().any(|address| takes(&address.text))
        }
        // Found by path, and perhaps by its name, too.
        _ if !key.address.is_empty() => {
            let (_, host, _) = authority(key.address.as_bytes());
            !takes(&key.text) && !selection.takes(key.caller.service.as_bytes(), host)
        }
        _ => !key.overflow && !takes(&key.text),
    }
}

/// `error.type` of a span, without allocating.
#[inline]
fn error_text<'a>(error: ErrorText, request: &'a [u8], inspection: &'a Inspection, digits: &'a mut [u8; 5]) -> &'a str {
    match error {
        ErrorText::Type(text) => std::str::from_utf8(inspection.text(request, text)).unwrap_or(OTHER),
        ErrorText::Grpc(status) => GRPC_STATUSES.get(usize::from(status)).copied().unwrap_or(OTHER),
        ErrorText::Http(status) => {
            let mut rest = status;
            let mut at = digits.len();
            while let Some(digit) = at.checked_sub(1).and_then(|before| digits.get_mut(before)) {
                *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
                rest /= 10;
                at -= 1;
                if rest == 0 {
                    break;
                }
            }
            digits.get(at..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or(OTHER)
        }
        ErrorText::Unknown => OTHER,
    }
}

/// The fallback of the semantic conventions for `error.type`.
const OTHER: &str = "_OTHER";

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::Span;
    use proptest::prelude::*;

    use super::*;
    use crate::circuit::{
        inspect::{Rules, inspect},
        state::Change,
        testing::{SECOND, START, call, int, request, text, transition},
    };

    fn changed(change: impl FnOnce(&mut CircuitMetricsConfig)) -> CircuitMetricsConfig {
        let mut config = CircuitMetricsConfig::default();
        change(&mut config);
        config
    }

    fn collector(config: CircuitMetricsConfig) -> CircuitBreakerMetricsCollector {
        let room = Arc::new(Room::new(config.max_circuits));
        CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room)
    }

    fn apply(collector: &mut CircuitBreakerMetricsCollector, request: &[u8], now: u64) -> Applied {
        let inspection = inspect(request, 0, &Rules::default(), now + 10 * SECOND).unwrap();
        collector.apply(request, &inspection, |_| true, now)
    }

    fn to(callee: &str, id: u64, end: u64) -> Span {
        call(id, end - SECOND / 100, end, vec![text("server.address", callee)])
    }

    /// Whatever matters of a circuit, as text.
    fn state(collector: &CircuitBreakerMetricsCollector) -> Vec<String> {
        let mut circuits: Vec<String> = collector
            .circuits()
            .map(|(_, circuit)| {
                let totals = circuit.totals();
                format!("{} {:?} {} {:?} {:?}", circuit.key(), circuit.window().closed_buckets(), totals.successes, totals.failures(), totals.breaker)
            })
            .collect();
        circuits.sort();
        circuits
    }

    #[test]
    fn spans_of_one_edge_are_one_circuit_with_instances() {
        let mut collector = collector(CircuitMetricsConfig::default());
        for instance in ["a", "b"] {
            let spans = vec![to("stock", 1, START + SECOND), to("pay", 2, START + SECOND), to("stock", 3, START + 2 * SECOND)];
            apply(&mut collector, &request("shop", instance, spans), START + 2 * SECOND);
        }
        let found: Vec<(String, u64, usize)> =
            collector.circuits().map(|(_, circuit)| (circuit.key().to_string(), circuit.totals().successes, circuit.members.len())).collect();
        assert_eq!(found, [("shop -> stock".to_owned(), 4, 2), ("shop -> pay".to_owned(), 2, 2)]);
        assert_eq!(collector.instances(), 4);
    }

    #[test]
    fn a_circuit_s_watermark_is_that_of_its_slowest_instance() {
        let mut collector = collector(CircuitMetricsConfig::default());
        apply(&mut collector, &request("shop", "slow", vec![to("stock", 1, START + 2 * SECOND)]), START + 2 * SECOND);
        apply(&mut collector, &request("shop", "fast", vec![to("stock", 2, START + 9 * SECOND)]), START + 9 * SECOND);
        let closed_to = |collector: &mut CircuitBreakerMetricsCollector, now: u64| {
            collector.advance(now, &mut Vec::new());
            let closed_to = collector.circuits().map(|(_, circuit)| circuit.closed_to()).next().unwrap();
            closed_to - START / SECOND
        };
        assert_eq!(closed_to(&mut collector, START + 9 * SECOND), 1, "the slow one's newest end less `reorder`");
        assert_eq!(closed_to(&mut collector, START + 20 * SECOND), 5, "the clock less `allowed_lateness`");
        assert_eq!(closed_to(&mut collector, START + 40 * SECOND), 25);
    }

    #[test]
    fn late_spans_count_and_are_said_to_be_late() {
        let mut collector = collector(CircuitMetricsConfig::default());
        apply(&mut collector, &request("shop", "a", vec![to("stock", 1, START + 100 * SECOND)]), START + 100 * SECOND);
        collector.advance(START + 100 * SECOND, &mut Vec::new());
        let spans = vec![to("stock", 2, START + 60 * SECOND), to("stock", 3, START + 10 * SECOND), to("stock", 4, START + 100 * SECOND)];
        assert_eq!(apply(&mut collector, &request("shop", "a", spans), START + 101 * SECOND).late, 2);
        collector.finish(START + 101 * SECOND, &mut Vec::new());
        let (_, circuit) = collector.circuits().next().unwrap();
        assert_eq!((circuit.totals().successes, circuit.window().total().requests()), (4, 3));
    }

    #[test]
    fn what_finds_no_room_overflows() {
        let mut shard = collector(changed(|config| (config.max_circuits, config.max_instances) = (2, 1)));
        let spans = vec![to("a", 1, START), to("b", 2, START), to("c", 3, START), to("a", 4, START), to("d", 5, START)];
        let request_of = |instance: &str| request("shop", instance, spans.clone());
        let applied = apply(&mut shard, &request_of("x"), START);
        assert_eq!((&applied.overflow[..], applied.instances_beyond), (&[2, 4][..], 0));
        assert_eq!(apply(&mut shard, &request_of("y"), START).instances_beyond, 3);
        let mut overflow = collector(CircuitMetricsConfig::default());
        let request = request_of("x");
        overflow.apply_overflow(&request, &inspect(&request, 0, &Rules::default(), u64::MAX).unwrap(), &applied.overflow, START);
        let (_, circuit) = overflow.circuits().next().unwrap();
        assert_eq!((circuit.key().overflow, circuit.totals().successes), (true, 2));
    }

    #[test]
    fn instances_and_circuits_come_and_go() {
        let mut shard = collector(CircuitMetricsConfig::default());
        let tripped = |end: u64| {
            let mut span = to("pay", 1, end);
            span.events = vec![transition(end - 1, "closed", "open")];
            span
        };
        apply(&mut shard, &request("shop", "a", vec![tripped(START)]), START);
        apply(&mut shard, &request("shop", "b", vec![to("stock", 2, START)]), START);
        let mut events = Vec::new();
        shard.advance(START + 30 * SECOND, &mut events);
        assert_eq!((events.len(), shard.instances()), (1, 2));
        assert!(shard.circuits().any(|(_, circuit)| circuit.incident().is_some()));
        shard.advance(START + 400 * SECOND, &mut events);
        assert_eq!((shard.instances(), shard.circuits().count()), (0, 2), "instances are gone after five minutes");
        assert!(shard.circuits().all(|(_, circuit)| circuit.incident().is_none()), "and with them their incident");
        shard.advance(START + 4_000 * SECOND, &mut events);
        let ended = shard.take_ended();
        assert_eq!((shard.circuits().count(), ended.len(), shard.room.taken()), (0, 2, 2), "they are held until their end was told");
        shard.forget(&ended);
        assert_eq!(shard.room.taken(), 0);
        apply(&mut shard, &request("shop", "a", vec![tripped(START + 4_001 * SECOND)]), START + 4_001 * SECOND);
        assert_eq!(shard.circuits().count(), 1);
    }

    #[test]
    fn an_incident_lasts_from_the_first_trip_to_the_last_recovery() {
        let mut shard = collector(CircuitMetricsConfig::default());
        let life = [("a", 1, "closed", "open"), ("b", 2, "closed", "open"), ("a", 3, "open", "closed"), ("b", 8, "half_open", "closed")];
        for (instance, at, from, into) in life {
            let mut span = to("pay", at, START + at * SECOND);
            span.events = vec![transition(START + at * SECOND, from, into)];
            apply(&mut shard, &request("shop", instance, vec![span]), START + 8 * SECOND);
        }
        let mut events = Vec::new();
        shard.finish(START + 8 * SECOND, &mut events);
        let told: Vec<_> =
            events.iter().map(|event| (&*event.instance, event.change, event.at / SECOND - START / SECOND, event.incident_duration)).collect();
        use Change::{Recovery, RecoveryAttempt, Trip};
        let lasted = Some(7 * SECOND);
        assert_eq!(
            told,
            [
                ("a", Trip, 1, None),
                ("b", Trip, 2, None),
                ("a", RecoveryAttempt, 3, None),
                ("a", Recovery, 3, None),
                ("b", RecoveryAttempt, 8, None),
                ("b", Recovery, 8, lasted)
            ]
        );
        assert!(events.iter().all(|event| event.incident == events[0].incident && event.incident.is_some()));
        assert_eq!(events[0].window.as_ref().unwrap().requests, 1);
    }

    #[test]
    fn errors_are_told_apart_by_kind() {
        let mut shard = collector(CircuitMetricsConfig::default());
        let with = |id, attributes| call(id, START, START + 5, [vec![text("server.address", "x")], attributes].concat());
        let spans = vec![
            with(1, vec![int("http.status_code", 503)]),
            with(2, vec![text("error.type", "timeout")]),
            with(3, vec![int("rpc.grpc.status_code", 14)]),
            with(4, vec![int("http.status_code", 503)]),
        ];
        apply(&mut shard, &request("shop", "a", spans), START);
        let (_, circuit) = shard.circuits().next().unwrap();
        let errors: Vec<(&str, u64)> = circuit.totals().errors.iter().map(|error| (&*error.kind, error.count)).collect();
        assert_eq!(errors, [("503", 2), ("timeout", 1), ("UNAVAILABLE", 1)]);
    }

    proptest! {
        /// Two instances whose spans come in any order inside the allowance give the same windows and events.
        #[test]
        fn the_order_of_arrival_makes_no_difference(
            seen in prop::collection::vec((0_u64..200, 0_usize..2, 0_usize..5, 0_usize..3), 1..60), seed in any::<u64>(),
        ) {
            let states = ["closed", "open", "half_open"];
            let requests: Vec<Vec<u8>> = seen.iter().enumerate().map(|(id, (at, instance, failing, found))| {
                let end = START + 20 * SECOND + at * SECOND / 20;
                let status = if *failing == 0 { 503 } else { 200 };
                let name = vec![text("circuit_breaker.name", "pay"), text("circuit_breaker.state", states[*found]), int("http.status_code", status)];
                request("shop", ["a", "b"][*instance], vec![call(id as u64, end - SECOND / 50, end, name)])
            }).collect();
            let run = |order: &[usize]| {
                let config = changed(|config| config.reorder = 15 * SECOND);
                let mut shard = collector(config);
                let mut events = Vec::new();
                for (tick, index) in order.iter().enumerate() {
                    apply(&mut shard, &requests[*index], START + 30 * SECOND);
                    if tick % 7 == 0 {
                        shard.advance(START + 30 * SECOND, &mut events);
                    }
                }
                shard.finish(START + 30 * SECOND, &mut events);
                (state(&shard), format!("{events:?}"))
            };
            let mut order: Vec<usize> = (0..requests.len()).collect();
            let straight = run(&order);
            order.sort_by_key(|index| (*index as u64 + 1).wrapping_mul(seed | 1));
            prop_assert_eq!(straight, run(&order));
        }
    }
}
