//! All circuits of one shard.

use std::{
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use slab::Slab;

use super::{
    answers::Answers,
    bucket::Outcome,
    circuit::{Address, Call, Circuit, Reshape},
    config::CircuitMetricsConfig,
    detect::{
        habit::Habits,
        lane::{Lane, Route},
    },
    event::CircuitEvent,
    inspect::{ErrorText, GRPC_STATUSES, Inspection, ObservationRecord, ResourceRecord, SpanRecord, TargetRecord, Text, route_at},
    key::{Caller, CircuitKey, Target},
    meeting::Met,
    member::{Evidence, Member},
    process::{Hashed, Process, Seat},
    room::Room,
    selection::Selection,
    state::Observation,
};

/// Processes that a shard tells apart at most. Those beyond it share one instance of no name per caller, for as many
/// callers again; what comes then counts as overflow.
const PROCESSES_MAX: usize = 50_000;

/// Circuits and processes that one [`Round`] looks at before it lets others to the shard.
const AT_ONCE: usize = 256;

/// Owns the windows of a shard: counts spans in them, rotates their buckets and hands out what breakers did.
///
/// A shard is all circuits of some callers, so that each circuit has one owner.
#[derive(Debug)]
pub struct CircuitBreakerMetricsCollector {
    pub(super) config: Arc<CircuitMetricsConfig>,
    pub(super) selection: Arc<Selection>,
    pub(super) room: Arc<Room>,
    pub(super) processes: Slab<Process>,
    by_resource: HashTable<u32>,
    /// Boxed, since a slab that grows leaves room for as many again.
    pub(super) circuits: Slab<Box<Circuit>>,
    pub(super) by_key: HashTable<KeyPlace>,
    pub(super) hasher: RandomState,
    /// What callers usually call, by caller.
    pub(super) habits: Slab<Box<Habits>>,
    by_caller: HashTable<u32>,
    callers: Vec<Arc<Caller>>,
    /// Traces of the request at hand that are learned from; empty between requests.
    pub(super) learning: Learning,
    /// Services that say nothing to tell their processes apart, since this was asked last.
    nameless: Vec<Arc<Caller>>,
    /// Halves of calls that may tell a callee's name; the other half may be another shard's.
    pub(super) met: Vec<Met>,
    /// What callees answered, also those of other shards.
    pub(super) answers: Arc<Answers>,
    /// Circuits that ended and whose series have to be ended too.
    ended: Vec<Circuit>,
    pub(super) instances: usize,
    next_sweep: u64,
}

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
    fn bytes(&self) -> usize {
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
}

/// One time round a shard, some of it at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Where it goes on; `None` before it begins.
    next: Option<Cursor>,
    /// Circuits that were seen.
    pub circuits: usize,
    /// Bytes they and the processes hold.
    pub bytes: usize,
    /// Circuits that are not closed in all of their instances, as far as is known.
    pub restless: usize,
    /// How far the slowest circuit's buckets are behind, in nanoseconds; 0 if nothing is open.
    pub lag: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    circuit: usize,
    process: usize,
    /// Whether what nobody has heard of for long is let go of.
    sweeping: bool,
}

enum Found {
    Seat(Seat),
    /// Where the path counts, too: another call at the same address may go elsewhere.
    ByPath(Seat),
    Excluded,
    NoRoom,
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
            met: Vec::new(),
            nameless: Vec::new(),
            answers: Arc::default(),
            ended: Vec::new(),
            instances: 0,
            next_sweep: 0,
        }
    }

    /// Shares with other collectors what callees answered.
    pub fn share(&mut self, answers: &Arc<Answers>) {
        self.answers = Arc::clone(answers);
    }

    /// Goes over to other settings. Where the shape of the windows changed they begin anew; counters go on.
    pub fn reconfigure(&mut self, config: &Arc<CircuitMetricsConfig>, selection: &Arc<Selection>) {
        let reshape = Reshape {
            windows: (self.config.window_size(), self.config.bucket_size()) != (config.window_size(), config.bucket_size()),
            histograms: self.config.explicit_bounds != config.explicit_bounds,
            to_delta: config.delta && !self.config.delta,
        };
        for (_, circuit) in &mut self.circuits {
            circuit.reconfigure(reshape);
        }
        self.config = Arc::clone(config);
        self.selection = Arc::clone(selection);
        let left_out = |key: &CircuitKey| !key.overflow && !selection.takes(key.caller.service.as_bytes(), key.text.as_bytes());
        let left_out: Vec<usize> = self.circuits.iter().filter(|(_, circuit)| left_out(circuit.key())).map(|(number, _)| number).collect();
        left_out.into_iter().for_each(|number| self.remove_circuit(number));
    }

    /// Counts the spans of a request whose resources are `mine`. Can't fail.
    pub fn apply(&mut self, request: &[u8], inspection: &Inspection, mine: impl Fn(u32) -> bool, now: u64) -> Applied {
        let mut applied = Applied::default();
        self.watch(request, inspection, &mine, now);
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
        applied.evidence_dropped += self.note_units(request, inspection, &mine, now);
        applied.nameless = std::mem::take(&mut self.nameless);
        for (index, resource) in (0..).zip(&inspection.resources) {
            if mine(index) {
                let process = self.process_of(request, inspection, index, &mut current, now);
                if let Some(process) = process.and_then(|process| self.processes.get_mut(process as usize)) {
                    process.newest_end = process.newest_end.max(resource.newest_end);
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
        let circuit = match self.circuits.iter().next() {
            Some((circuit, _)) => circuit,
            None => {
                let caller = Arc::new(Caller { service: "fuseboard".into(), ..Caller::default() });
                let key = CircuitKey { caller, text: "overflow".into(), overflow: true, ..CircuitKey::default() };
                self.circuits.insert(Box::new(Circuit::new(Arc::new(key), now)))
            }
        };
        let seat = Seat { hash: Hashed::of(0), circuit: u32::try_from(circuit).unwrap_or(u32::MAX), member: None };
        let mut applied = Applied::default();
        for span in spans.iter().filter_map(|index| inspection.spans.get(*index as usize)) {
            let outcome = if span.outcome == Outcome::Rejected { Outcome::Rejected } else { Outcome::Success };
            self.count(seat, &SpanRecord { outcome, ..*span }, request, inspection, now, &mut applied);
        }
        applied.late
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

    fn observe(&mut self, seat: Seat, record: &ObservationRecord, request: &[u8], now: u64) -> bool {
        let Some(circuit) = self.circuits.get_mut(seat.circuit as usize) else { return false };
        circuit.changed = true;
        circuit.last_seen = now;
        let Some(member) = seat.member.and_then(|member| circuit.members.get_mut(member as usize)) else { return false };
        let observation = Observation { order: record.order, at: record.at, state: record.state, ids: record.ids(request) };
        member.keep(Evidence { observation, step: record.step }, self.config.bucket_size())
    }

    /// The process of a resource; made known if it is not and there is room.
    #[inline]
    pub(super) fn process_of(
        &mut self,
        request: &[u8],
        inspection: &Inspection,
        resource: u32,
        current: &mut Option<(u32, Option<u32>)>,
        now: u64,
    ) -> Option<u32> {
        if let Some((known, process)) = *current
            && known == resource
        {
            return process;
        }
        let record = inspection.resources.get(resource as usize).copied().unwrap_or_default();
        let process = match self.find_process(request, inspection, &record) {
            Some(process) => Some(process),
            None => self.new_process(request, inspection, &record, now),
        };
        *current = Some((resource, process));
        process
    }

    pub(super) fn find_process(&self, request: &[u8], inspection: &Inspection, record: &ResourceRecord) -> Option<u32> {
        let texts = resource_texts(request, inspection, record);
        let hash = self.hasher.hash_one(texts);
        self.by_resource.find(hash, |index| self.processes.get(*index as usize).is_some_and(|process| process.texts() == texts)).copied()
    }

    #[cold]
    fn new_process(&mut self, request: &[u8], inspection: &Inspection, record: &ResourceRecord, now: u64) -> Option<u32> {
        let mut record = *record;
        if self.processes.len() >= PROCESSES_MAX {
            record.instance = Text::default();
            let shared = self.find_process(request, inspection, &record);
            if shared.is_some() || self.processes.len() >= 2 * PROCESSES_MAX {
                return shared;
            }
        }
        let texts = resource_texts(request, inspection, &record);
        let [environment, namespace, service, instance] = texts.map(|text| String::from_utf8_lossy(text).into_owned().into_boxed_str());
        let (caller, habits) = self.habits_of(Caller { environment, namespace, service });
        if instance.is_empty() {
            self.nameless.push(Arc::clone(&caller));
        }
        let process = Process {
            caller,
            habits,
            watch: None,
            instance: instance.into(),
            learned: 0,
            roots: 0,
            broke_off: [(0, 0); 2],
            newest_end: 0,
            last_seen: now,
            seats: HashTable::new(),
            last: None,
        };
        let index = u32::try_from(self.processes.insert(process)).unwrap_or(u32::MAX);
        let (processes, hasher) = (&self.processes, &self.hasher);
        self.by_resource.insert_unique(hasher.hash_one(texts), index, |index| {
            processes.get(*index as usize).map_or(0, |process| hasher.hash_one(process.texts()))
        });
        Some(index)
    }

    /// What a caller usually calls; the caller itself is kept once.
    fn habits_of(&mut self, caller: Caller) -> (Arc<Caller>, u32) {
        let hash = self.hasher.hash_one(&caller);
        let callers = &self.callers;
        let known = self.by_caller.find(hash, |index| callers.get(*index as usize).is_some_and(|known| **known == caller)).copied();
        let index = known.unwrap_or_else(|| {
            let number = self.habits.insert(Box::default());
            let caller = Arc::new(caller.clone());
            match self.callers.get_mut(number) {
                Some(place) => *place = caller,
                None => self.callers.push(caller),
            }
            let index = u32::try_from(number).unwrap_or(u32::MAX);
            let (callers, hasher) = (&self.callers, &self.hasher);
            self.by_caller.insert_unique(hash, index, |index| callers.get(*index as usize).map_or(0, |caller| hasher.hash_one(&**caller)));
            index
        });
        self.habits.get_mut(index as usize).into_iter().for_each(|habits| habits.users += 1);
        (self.callers.get(index as usize).map_or_else(|| Arc::new(caller), Arc::clone), index)
    }

    /// Forgets what a caller usually calls when the last of its processes is gone.
    fn leave_habits(&mut self, index: u32) {
        let Some(habits) = self.habits.get_mut(index as usize) else { return };
        habits.users = habits.users.saturating_sub(1);
        if habits.users > 0 {
            return;
        }
        self.habits.remove(index as usize);
        let Some(caller) = self.callers.get(index as usize) else { return };
        if let Ok(entry) = self.by_caller.find_entry(self.hasher.hash_one(&**caller), |other| *other == index) {
            entry.remove();
        }
    }

    /// The circuit of a target, where the process has a place in it.
    pub(super) fn circuit_called(
        &mut self,
        process: u32,
        inspection: &Inspection,
        request: &[u8],
        called: (TargetRecord, Text),
        now: u64,
    ) -> Option<u32> {
        match self.place(process, inspection, request, called, now) {
            Found::Seat(seat) | Found::ByPath(seat) => Some(seat.circuit),
            Found::Excluded | Found::NoRoom => None,
        }
    }

    /// The member that a process is of a circuit; becomes one if there is room.
    pub(super) fn seat_in(&mut self, index: u32, number: u32) -> Option<usize> {
        let circuit = self.circuits.get_mut(number as usize)?;
        if let Some((member, _)) = circuit.members.iter().find(|(_, member)| member.process == index) {
            return Some(member);
        }
        let process = self.processes.get_mut(index as usize)?;
        if process.caller != circuit.key().caller {
            return None;
        }
        if process.seats.iter().any(|seat| seat.circuit == number) {
            // A stranger, for want of room.
            return None;
        }
        let hash = Hashed::of(self.hasher.hash_one(circuit.key().target()));
        let member = join(circuit, index, &process.instance, self.config.max_instances)?;
        self.instances += 1;
        process.seats.insert_unique(hash.spread(), Seat { hash, circuit: number, member: Some(member) }, |seat| seat.hash.spread());
        Some(member as usize)
    }

    /// The place of a process in the circuit of a target; where several callees share an address, of the one that answers
    /// for this route.
    #[inline]
    fn place(&mut self, index: u32, inspection: &Inspection, request: &[u8], (target, route): (TargetRecord, Text), now: u64) -> Found {
        match self.seat(index, inspection, request, target, now) {
            Found::Seat(seat) if self.is_shared(seat) => Found::ByPath(self.seat_by_path(index, seat, Route::of(route_at(request, route)), now)),
            found => found,
        }
    }

    /// Whether some of what is called there is another circuit's, by its path.
    #[inline]
    fn is_shared(&self, seat: Seat) -> bool {
        let circuit = self.circuits.get(seat.circuit as usize);
        circuit.is_some_and(|circuit| circuit.addresses.as_ref().is_some_and(|addresses| addresses.paths.are_told_apart()))
    }

    /// The place of a process in the circuit of a target.
    #[inline]
    fn seat(&mut self, index: u32, inspection: &Inspection, request: &[u8], target: TargetRecord, now: u64) -> Found {
        let target = Target { named: target.named, text: inspection.text(request, target.text), port: target.port };
        let Some(process) = self.processes.get_mut(index as usize) else { return Found::NoRoom };
        let circuits = &self.circuits;
        let is = |seat: &Seat| circuits.get(seat.circuit as usize).is_some_and(|circuit| circuit.answers_to(&target));
        // Of several addresses the one that was called has to be found again.
        let same_address = |seat: &Seat| {
            let several = circuits.get(seat.circuit as usize).is_some_and(|circuit| circuit.addresses.is_some());
            !several || seat.hash == Hashed::of(self.hasher.hash_one(target))
        };
        if let Some(last) = process.last
            && last.member.is_some()
            && is(&last)
            && same_address(&last)
        {
            return Found::Seat(last);
        }
        let hash = Hashed::of(self.hasher.hash_one(target));
        if let Some(mut seat) = process.seats.find(hash.spread(), is).copied() {
            if seat.member.is_none() {
                // A stranger becomes a member when others have left.
                seat.member = self.circuits.get_mut(seat.circuit as usize).and_then(|circuit| {
                    let member = join(circuit, index, &process.instance, self.config.max_instances)?;
                    circuit.strangers = circuit.strangers.saturating_sub(1);
                    Some(member)
                });
                self.instances += usize::from(seat.member.is_some());
                let others = process.seats.iter_mut().filter(|other| other.circuit == seat.circuit);
                others.for_each(|other| other.member = seat.member);
            }
            process.last = Some(seat);
            return Found::Seat(seat);
        }
        self.take_seat(index, &target, hash, now)
    }

    /// The place of a process in the circuit of a target, if it has one.
    pub(super) fn known_seat(&self, index: u32, target: &Target<'_>) -> Option<Seat> {
        let process = self.processes.get(index as usize)?;
        let is = |seat: &Seat| self.circuits.get(seat.circuit as usize).is_some_and(|circuit| circuit.answers_to(target));
        process.seats.find(Hashed::of(self.hasher.hash_one(target)).spread(), is).copied()
    }

    #[cold]
    fn take_seat(&mut self, index: u32, target: &Target<'_>, hash: Hashed, now: u64) -> Found {
        let Some(process) = self.processes.get(index as usize) else { return Found::NoRoom };
        let (caller, instance) = (Arc::clone(&process.caller), Arc::clone(&process.instance));
        if !self.selection.takes(caller.service.as_bytes(), target.text) {
            return Found::Excluded;
        }
        let Some(number) = self.circuit_of(&caller, target, "", now) else { return Found::NoRoom };
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return Found::NoRoom };
        let Some(process) = self.processes.get_mut(index as usize) else { return Found::NoRoom };
        // It may have one already, by another address of the same callee.
        let known = process.seats.iter().find(|seat| seat.circuit == number).map(|seat| seat.member);
        let member = known.unwrap_or_else(|| {
            let member = join(circuit, index, &instance, self.config.max_instances);
            circuit.strangers += u32::from(member.is_none());
            self.instances += usize::from(member.is_some());
            member
        });
        let seat = Seat { hash, circuit: number, member };
        process.seats.insert_unique(hash.spread(), seat, |seat| seat.hash.spread());
        process.last = Some(seat);
        Found::Seat(seat)
    }

    /// The circuit of a target; made if there is room, and shown with this address.
    pub(super) fn circuit_of(&mut self, caller: &Arc<Caller>, target: &Target<'_>, address: &str, now: u64) -> Option<u32> {
        let hash = self.key_hash(caller, target);
        if let Some(known) = self.known_circuit(hash, caller, target) {
            return Some(known);
        }
        if !self.room.take() {
            return None;
        }
        let text = String::from_utf8_lossy(target.text).into();
        let (caller, address) = (Arc::clone(caller), address.into());
        let key = CircuitKey { caller, named: target.named, text, port: target.port, address, overflow: false };
        let circuit = u32::try_from(self.circuits.insert(Box::new(Circuit::new(Arc::new(key), now)))).unwrap_or(u32::MAX);
        self.by_key.insert_unique(hash.spread(), KeyPlace { hash, circuit }, |place| place.hash.spread());
        Some(circuit)
    }

    /// The circuit of a target, if there is one.
    pub(super) fn known_circuit(&self, hash: Hashed, caller: &Caller, target: &Target<'_>) -> Option<u32> {
        let is = |place: &KeyPlace| {
            let circuit = self.circuits.get(place.circuit as usize);
            circuit.is_some_and(|circuit| *circuit.key().caller == *caller && circuit.answers_to(target))
        };
        self.by_key.find(hash.spread(), is).map(|place| place.circuit)
    }

    /// What a circuit is found by.
    pub(super) fn key_hash(&self, caller: &Caller, target: &Target<'_>) -> Hashed {
        Hashed::of(hash_of(&self.hasher, caller, target))
    }

    /// Halves of calls that were noted since this was asked last.
    pub fn take_met(&mut self) -> std::vec::Drain<'_, Met> {
        self.met.drain(..)
    }

    /// Closes the buckets of every circuit up to its watermark, lets go of what is idle, and hands out what breakers
    /// did, each circuit's events in order.
    pub fn advance(&mut self, now: u64, events: &mut Vec<CircuitEvent>) -> Round {
        let mut round = Round::default();
        while self.advance_some(&mut round, now, events) {}
        round
    }

    /// As [`advance`](Self::advance), for some of the circuits; `false` when the round is complete.
    pub fn advance_some(&mut self, round: &mut Round, now: u64, events: &mut Vec<CircuitEvent>) -> bool {
        let mut cursor = match round.next {
            Some(cursor) => cursor,
            None => {
                round.bytes += self.ended.iter().map(Circuit::bytes).sum::<usize>();
                round.bytes += self.habits.iter().map(|(_, habits)| size_of::<Habits>() + habits.heap_bytes()).sum::<usize>();
                round.bytes += self.met.capacity() * size_of::<Met>() + self.learning.bytes();
                self.begin(now)
            }
        };
        // Processes first: what their breakers did is told by circuits.
        let last = self.processes.capacity().min(cursor.process + AT_ONCE);
        for index in cursor.process..last {
            self.look_at_process(index, cursor.sweeping, round, now);
        }
        cursor.process = last;
        if last == self.processes.capacity() {
            let last = self.circuits.capacity().min(cursor.circuit + AT_ONCE);
            for number in cursor.circuit..last {
                self.advance_circuit(number, cursor.sweeping, round, now, events);
            }
            cursor.circuit = last;
        }
        round.next = Some(cursor);
        cursor.circuit < self.circuits.capacity() || cursor.process < self.processes.capacity()
    }

    fn begin(&mut self, now: u64) -> Cursor {
        let sweeping = now >= self.next_sweep;
        if sweeping {
            self.next_sweep = now.saturating_add(self.config.instance_ttl.min(self.config.circuit_ttl) / 30);
        }
        Cursor { circuit: 0, process: 0, sweeping }
    }

    fn advance_circuit(&mut self, number: usize, sweeping: bool, round: &mut Round, now: u64, events: &mut Vec<CircuitEvent>) {
        let oldest = now.saturating_sub(self.config.allowed_lateness);
        let Some(circuit) = self.circuits.get_mut(number) else { return };
        if !circuit.is_settled() {
            let of_process = |member: &Member| {
                let process = self.processes.get(member.process as usize);
                process.map_or(oldest, |process| process.newest_end.saturating_sub(self.config.reorder).max(oldest))
            };
            let watermark = circuit.members.iter().map(|(_, member)| of_process(member)).min().unwrap_or(oldest);
            circuit.settle(watermark / self.config.bucket_size(), &self.config, events);
        }
        if sweeping {
            circuit.members.iter_mut().for_each(|(_, member)| member.calm_since(now));
        }
        if circuit.is_settled() {
            let told = circuit.retired && !circuit.changed;
            if told || sweeping && is_gone(circuit.last_seen, self.config.circuit_ttl, now) && !circuit.is_tripped() {
                return self.remove_circuit(number);
            }
            circuit.rest();
        } else {
            round.lag = round.lag.max(now.saturating_sub(circuit.closed_to() * self.config.bucket_size()));
        }
        round.circuits += 1;
        round.restless += usize::from(circuit.is_restless());
        round.bytes += circuit.bytes();
    }

    fn look_at_process(&mut self, index: usize, sweeping: bool, round: &mut Round, now: u64) {
        let Some(process) = self.processes.get(index) else { return };
        if sweeping && is_gone(process.last_seen, self.config.instance_ttl, now) {
            return self.remove_process(index);
        }
        round.bytes += process.bytes();
        if process.watch.is_some() {
            let oldest = now.saturating_sub(self.config.allowed_lateness);
            let watermark = process.newest_end.saturating_sub(self.config.reorder).max(oldest);
            self.detect(index, watermark, now);
        }
    }

    /// Closes everything: there will be no more spans.
    pub fn finish(&mut self, now: u64, events: &mut Vec<CircuitEvent>) {
        for index in 0..self.processes.capacity() {
            self.detect(index, u64::MAX, now);
        }
        for (_, circuit) in &mut self.circuits {
            circuit.settle(now / self.config.bucket_size() + 1, &self.config, events);
        }
    }

    fn remove_process(&mut self, index: usize) {
        let Some(process) = self.processes.try_remove(index) else { return };
        self.leave_habits(process.habits);
        if let Ok(entry) = self.by_resource.find_entry(self.hasher.hash_one(process.texts()), |other| *other as usize == index) {
            entry.remove();
        }
        for seat in process.seats {
            let Some(circuit) = self.circuits.get_mut(seat.circuit as usize) else { continue };
            match seat.member {
                Some(member) => self.instances -= usize::from(circuit.remove(member as usize)),
                None => circuit.strangers = circuit.strangers.saturating_sub(1),
            }
        }
    }

    fn remove_circuit(&mut self, number: usize) {
        let Some(circuit) = self.circuits.try_remove(number) else { return };
        let gone = u32::try_from(number).unwrap_or(u32::MAX);
        self.leave_keys(gone, &circuit);
        let leave = |process: &mut Process| {
            process.last = process.last.filter(|seat| seat.circuit != gone);
            process.seats.retain(|seat| seat.circuit != gone);
        };
        self.habits.iter_mut().for_each(|(_, habits)| habits.forget(gone));
        self.processes.iter_mut().filter_map(|(_, process)| process.watch.as_mut()).for_each(|watch| watch.forget(gone));
        self.instances -= circuit.members.len();
        if circuit.strangers > 0 {
            self.processes.iter_mut().for_each(|(_, process)| leave(process));
        } else {
            circuit.members.iter().filter_map(|(_, member)| self.processes.get_mut(member.process as usize).map(leave)).for_each(drop);
        }
        self.ended.push(*circuit);
    }

    /// Whatever led to a circuit leads nowhere.
    fn leave_keys(&mut self, number: u32, circuit: &Circuit) {
        let caller = &circuit.key().caller;
        let addresses = circuit.addresses.as_deref().map(|all| all.all.as_slice()).unwrap_or_default();
        for target in addresses.iter().map(Address::target).chain([circuit.key().target()]) {
            let hash = Hashed::of(hash_of(&self.hasher, caller, &target));
            if let Ok(entry) = self.by_key.find_entry(hash.spread(), |place| place.hash == hash && place.circuit == number) {
                entry.remove();
            }
        }
    }

    /// The circuits, by number: a number is a circuit's own for its life.
    pub fn circuits(&self) -> impl Iterator<Item = (usize, &Circuit)> {
        self.circuits.iter().map(|(number, circuit)| (number, &**circuit))
    }

    /// A circuit by its number.
    pub fn circuit_mut(&mut self, number: usize) -> Option<&mut Circuit> {
        self.circuits.get_mut(number).map(|circuit| &mut **circuit)
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
        let ended = self.take_ended();
        self.forget(&ended);
    }
}

/// Makes a process a member of a circuit, if there is room; its place among them.
pub(super) fn join(circuit: &mut Circuit, process: u32, instance: &Arc<str>, most: usize) -> Option<u32> {
    let room = circuit.members.len() < most;
    room.then(|| u32::try_from(circuit.members.insert(Member::new(process, Arc::clone(instance)))).unwrap_or(u32::MAX))
}

/// Whether nobody has heard of something for longer than its time to live.
const fn is_gone(last_seen: u64, ttl: u64, now: u64) -> bool {
    last_seen.saturating_add(ttl) < now
}

fn resource_texts<'a>(request: &'a [u8], inspection: &'a Inspection, record: &ResourceRecord) -> [&'a [u8]; 4] {
    [record.environment, record.namespace, record.service, record.instance].map(|text| inspection.text(request, text))
}

fn hash_of(hasher: &RandomState, caller: &Caller, target: &Target<'_>) -> u64 {
    let mut state = hasher.build_hasher();
    caller.hash(&mut state);
    target.hash(&mut state);
    std::hash::Hasher::finish(&state)
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
