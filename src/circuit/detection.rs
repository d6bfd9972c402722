//! From what a process does to what its breakers did: the collector's part that looks closer.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    bucket::Outcome,
    circuit::Decided,
    collector::CircuitBreakerMetricsCollector,
    detect::{
        habit::{Guard, Habits},
        rule::Meaning,
        suspect::{Away, Context, NO_OPERATION, Suspect, Through},
        watch::{Mark, Told, Unit, Watch, What},
    },
    inspect::{Inspection, RootRecord, SpanRecord, ToldRecord, ids_at, span_at, trace_at},
    key::Target,
    meeting::Met,
    member::Member,
    process::{Process, Seat},
    state::{Ids, State},
};

/// One trace in so many tells who answers at an address.
const MET_OF: u64 = 8;

/// Sampling by which more traces than this stand for one hides too many calls to miss any.
const SAMPLED: u32 = 2;

/// A call that is missing is never thought rarer than this.
const RARE: f32 = 0.01;

/// What takes longer is likely to be split between two requests of an SDK. Nanoseconds.
const LONG: u64 = 100_000_000;

/// Of healthy processes one trace in so many is learned from.
const LEARNED_OF: u64 = 4;

/// A unit, and what is known around it.
struct Seen<'a> {
    root: &'a Mark,
    operation: Option<u32>,
    /// It ended with an error.
    aborted: bool,
    unit: &'a Unit,
    /// All of its calls are known.
    whole: bool,
    watch: &'a Watch,
}

impl CircuitBreakerMetricsCollector {
    /// Begins to watch the processes that tell of breakers in this request.
    pub(super) fn watch(&mut self, request: &[u8], inspection: &Inspection, mine: &impl Fn(u32) -> bool, now: u64) {
        let mut current = None;
        for told in inspection.told.iter().filter(|told| mine(told.resource)) {
            let process = self.process_of(request, inspection, told.resource, &mut current, now);
            if let Some(process) = process.and_then(|process| self.processes.get_mut(process as usize)) {
                let newest_end = process.newest_end;
                process.watch.get_or_insert_with(|| Box::new(Watch::new(newest_end)));
            }
        }
    }

    /// Notes a call of a process that is watched; of others only failures, which may explain a trip later: from the
    /// second within few calls on the process is watched. `false` if there is no room for it.
    #[inline]
    pub(super) fn note_call(&mut self, index: u32, seat: Seat, span: &SpanRecord, request: &[u8], newest_end: u64) -> bool {
        if span.outcome == Outcome::Rejected {
            return true;
        }
        let slow = self.circuits.get(seat.circuit as usize).is_some_and(|circuit| circuit.is_slow(span.end - span.start));
        let bad = slow || span.outcome == Outcome::Failure;
        let watched = self.processes.get(index as usize).is_some_and(|process| process.watch.is_some());
        if bad {
            let call = Through { start: span.start, end: span.end, bad, operation: NO_OPERATION };
            self.note_failure(index, seat, call, watched, newest_end);
        }
        if !watched {
            return true;
        }
        let Some(watch) = self.processes.get_mut(index as usize).and_then(|process| process.watch.as_mut()) else { return true };
        watch.sampled |= span.weight > SAMPLED;
        let what = What::Call { circuit: seat.circuit, bad };
        watch.note(Mark { start: span.start, end: span.end, trace: trace_at(request, span.ids), what })
    }

    #[cold]
    fn note_failure(&mut self, index: u32, seat: Seat, call: Through, watched: bool, newest_end: u64) {
        let circuit = self.circuits.get_mut(seat.circuit as usize);
        let member = circuit.and_then(|circuit| circuit.members.get_mut(seat.member? as usize));
        let Some(member) = member.filter(|member| !member.reports()) else { return };
        let calls = member.calls();
        let distressed = member.suspect().fails(call.end, calls);
        if !watched {
            member.suspect().remember(call);
        }
        if distressed && let Some(process) = self.processes.get_mut(index as usize) {
            process.watch.get_or_insert_with(|| Box::new(Watch::new(newest_end))).worth(call.end);
        }
    }

    /// Notes what stands around the calls of this request: roots, and texts of breakers' libraries. Gives how many found
    /// no room.
    pub(super) fn note_units(&mut self, request: &[u8], inspection: &Inspection, mine: &impl Fn(u32) -> bool, now: u64) -> u64 {
        let mut dropped = 0;
        let mut current = None;
        for told in inspection.told.iter().filter(|told| mine(told.resource)) {
            let Some(process) = self.process_of(request, inspection, told.resource, &mut current, now) else { continue };
            dropped += u64::from(!self.note_told(process, told, request, inspection, now));
        }
        for root in inspection.roots.iter().filter(|root| mine(root.resource)) {
            let Some(process) = self.process_of(request, inspection, root.resource, &mut current, now) else { continue };
            dropped += u64::from(!self.note_root(process, root, request, inspection));
        }
        self.learn(request, inspection);
        dropped
    }

    fn note_told(&mut self, index: u32, record: &ToldRecord, request: &[u8], inspection: &Inspection, now: u64) -> bool {
        let name = inspection.text(request, record.name);
        let name = (!name.is_empty()).then(|| Arc::from(String::from_utf8_lossy(name)));
        let circuit = record.target.and_then(|target| self.circuit_called(index, inspection, request, target, now));
        let (trace, ids) = (trace_at(request, record.ids), ids_at(request, record.ids));
        let (start, end) = (record.start, record.end);
        let told = Told { meaning: record.meaning, rule: record.rule, name, circuit, start, end, ids };
        if !matches!(told.meaning, Meaning::Maybe | Meaning::NoBreaker) {
            self.seems_open(index, &told, record.end);
        }
        let Some(process) = self.processes.get_mut(index as usize) else { return true };
        let newest_end = process.newest_end;
        let watch = process.watch.get_or_insert_with(|| Box::new(Watch::new(newest_end)));
        watch.note(Mark { start, end, trace, what: What::Told(Arc::new(told)) })
    }

    /// Moves the state that is not final yet, where it is plain whose it is.
    fn seems_open(&mut self, index: u32, told: &Told, at: u64) {
        let Some(process) = self.processes.get(index as usize) else { return };
        let known =
            told.circuit.or_else(|| self.habits.get(process.habits as usize).and_then(|habits| habits.guarded_by(told.name.as_deref()?.as_bytes())));
        let circuit = known.or_else(|| match process.only_circuit() {
            Some(only) => Some(only),
            // Of several the one that is open already.
            None => process.circuits().find(|circuit| self.state_in(*circuit, index) != State::Closed),
        });
        let Some(circuit) = circuit.and_then(|circuit| self.circuits.get_mut(circuit as usize)) else { return };
        if let Some((_, member)) = circuit.members.iter_mut().find(|(_, member)| member.process == index) {
            member.seems(at, State::Open);
            circuit.changed = true;
        }
    }

    fn note_root(&mut self, index: u32, root: &RootRecord, request: &[u8], inspection: &Inspection) -> bool {
        let Some(process) = self.processes.get_mut(index as usize) else { return true };
        let trace = trace_at(request, root.ids);
        if root.parent != 0 && trace.is_multiple_of(MET_OF) {
            self.met.push(Met::Answer { key: trace ^ span_at(request, root.parent), callee: Arc::clone(&process.caller) });
        }
        let Some(watch) = &mut process.watch else {
            if trace.is_multiple_of(LEARNED_OF) && !root.aborted {
                self.learning.roots.push((trace, index, root.operation, (root.start, root.end)));
            }
            return true;
        };
        let habits = self.habits.get_mut(process.habits as usize);
        let operation = habits.and_then(|habits| habits.operation(inspection.text(request, root.operation)));
        let what = What::Root { operation, aborted: root.aborted };
        watch.note(Mark { start: root.start, end: root.end, trace, what })
    }

    /// Notes a call of a healthy process to learn from.
    #[inline]
    pub(super) fn note_healthy(&mut self, seat: Seat, span: &SpanRecord, request: &[u8], learns: bool) {
        let trace = trace_at(request, span.ids);
        if trace.is_multiple_of(LEARNED_OF)
            && span.outcome == Outcome::Success
            && let Some(circuit) = self.circuits.get_mut(seat.circuit as usize)
        {
            circuit.see_usual(span.end - span.start);
        }
        if learns && trace.is_multiple_of(LEARNED_OF) {
            self.learning.calls.push((trace, seat.circuit, span.start));
        }
        if span.target.address && trace.is_multiple_of(MET_OF) {
            let call = Met::Call { key: trace ^ span_at(request, span.ids.1), circuit: seat.circuit, address: seat.hash };
            self.met.push(call);
        }
    }

    /// Learns which circuits operations call, from traces that came whole in one request.
    fn learn(&mut self, request: &[u8], inspection: &Inspection) {
        let mut learning = std::mem::take(&mut self.learning);
        learning.calls.sort_unstable_by_key(|(trace, _, start)| (*trace, *start));
        let first = learning.roots.iter().map(|(.., (_, end))| *end).min().unwrap_or_default();
        for (trace, process, operation, (start, end)) in learning.roots.drain(..) {
            // Of a long one that began before this request did, calls may have come in the one before.
            if start < first && end - start > LONG {
                continue;
            }
            let from = learning.calls.partition_point(|(other, ..)| *other < trace);
            let mut called: SmallVec<[u32; 4]> = SmallVec::new();
            for (_, circuit, _) in learning.calls.iter().skip(from).take_while(|(other, ..)| *other == trace) {
                if !called.contains(circuit) {
                    called.push(*circuit);
                }
            }
            let habits = self.habits_of_process(process);
            let Some(habits) = habits else { continue };
            if let Some(operation) = habits.operation(inspection.text(request, operation)) {
                habits.see(operation, &called);
            }
        }
        learning.calls.clear();
        // What is allocated is used again.
        self.learning = learning;
    }

    /// Looks at what is due of a process that is watched.
    pub(super) fn detect(&mut self, index: usize, watermark: u64, now: u64) {
        let Some(process) = self.processes.get_mut(index) else { return };
        let Some(mut watch) = process.watch.take() else { return };
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        for mark in watch.take_due(watermark) {
            match &mark.what {
                What::Call { circuit, bad } => {
                    let within = watch.root_of(&mark);
                    let operation = within.flatten().unwrap_or(NO_OPERATION);
                    self.suspect_call(number, *circuit, within, Through { start: mark.start, end: mark.end, bad: *bad, operation });
                }
                What::Root { operation, aborted } => {
                    let unit = watch.unit(&mark);
                    let whole = watch.knows(&mark) && !watch.sampled;
                    let seen = Seen { root: &mark, operation: *operation, aborted: *aborted, unit: &unit, whole, watch: &watch };
                    self.look_at(number, &seen, now);
                }
                What::Told(told) if watch.root_of(&mark).is_none() => {
                    let unit = Unit { told: [Arc::clone(told)].into_iter().collect(), ..Unit::default() };
                    let seen = Seen { root: &mark, operation: None, aborted: true, unit: &unit, whole: false, watch: &watch };
                    self.look_at(number, &seen, now);
                }
                What::Told(_) => {}
            }
        }
        let calm = !watch.goes_on(watermark) && self.calm(number);
        if let Some(process) = self.processes.get_mut(index).filter(|_| !calm) {
            process.watch = Some(watch);
        }
    }

    /// Forgets what was suspected of a process; `false` if one of its breakers is not closed.
    fn calm(&mut self, index: u32) -> bool {
        let circuits: Vec<u32> = self.processes.get(index as usize).map(|process| process.circuits().collect()).unwrap_or_default();
        if circuits.iter().any(|circuit| self.state_in(*circuit, index) != State::Closed) {
            return false;
        }
        for circuit in circuits {
            let Some(circuit) = self.circuits.get_mut(circuit as usize) else { continue };
            circuit.members.iter_mut().filter(|(_, member)| member.process == index).for_each(|(_, member)| member.calm());
        }
        true
    }

    /// One unit: what it tells of breakers, or else what is missing in it, and what there is to learn from it.
    fn look_at(&mut self, index: u32, seen: &Seen<'_>, now: u64) {
        let called = seen.unit.called();
        if seen.unit.told.is_empty() {
            if let Some(operation) = seen.operation.filter(|_| seen.whole) {
                self.look_for_missing(index, seen, operation, &called);
            }
            return;
        }
        for told in &seen.unit.told {
            let Some(circuit) = self.blame(index, seen.root, seen.operation, told, &called, now) else { continue };
            if matches!(told.meaning, Meaning::Rejected | Meaning::Opened | Meaning::ProbeFailed) {
                let habits = self.habits_of_process(index);
                habits.into_iter().for_each(|habits| habits.reject(seen.operation, circuit));
            }
            self.suspect_told(index, circuit, seen, told, now);
        }
    }

    /// A unit without a text: which of the usual calls are missing?
    fn look_for_missing(&mut self, index: u32, seen: &Seen<'_>, operation: u32, called: &[u32]) {
        let (root, aborted, unit) = (seen.root, seen.aborted, seen.unit);
        let Some(habits) = self.habits_of_process(index) else { return };
        let usual = habits.usual(operation);
        let missing = usual.iter().filter(|(circuit, _)| !called.contains(circuit));
        // What broke off says nothing of calls that would have come later, and nothing at all if a call is to blame.
        let telling = match (aborted, unit.calls.iter().any(|(_, call)| call.bad)) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => usize::MAX,
        };
        let missing: SmallVec<[(u32, f32); 4]> = missing.copied().take(telling).collect();
        let concerned = usual.iter().map(|(circuit, _)| *circuit).chain(called.iter().copied());
        let healthy = !aborted && unit.calls.iter().all(|(_, call)| !call.bad) && self.all_well(concerned, index, root.end);
        if healthy && let Some(habits) = self.habits_of_process(index) {
            habits.see(operation, called);
        }
        if !self.config.detection.silence {
            return;
        }
        for (circuit, share) in missing {
            self.suspect_missing(index, circuit, operation, share, seen);
        }
    }

    /// Whether the breakers of these circuits are closed and their calls go well: only then is there something to learn.
    fn all_well(&self, mut circuits: impl Iterator<Item = u32>, index: u32, now: u64) -> bool {
        circuits.all(|circuit| {
            let suspect = self.member_in(circuit, index).and_then(Member::suspected);
            suspect.is_none_or(|suspect| suspect.state() == State::Closed && !suspect.is_distressed(now))
        })
    }

    fn suspect_missing(&mut self, index: u32, circuit: u32, operation: u32, share: f32, seen: &Seen<'_>) {
        let root = seen.root;
        let guarded = self.guarded(index, circuit, Some(operation));
        let was_closed = self.state_in(circuit, index) == State::Closed;
        let Some(known) = self.circuits.get_mut(circuit as usize) else { return };
        let mut manner = known.manner();
        let Some((number, member)) = known.members.iter_mut().find(|(_, member)| member.process == index) else { return };
        // Without failures before there is nothing to suspect.
        if member.suspected().is_none() || member.reports() {
            return;
        }
        let nats = -(1.0 - share).max(RARE).ln();
        let in_flight = member.suspect().state() == State::HalfOpen && seen.watch.is_in_flight(circuit, root.start, root.end);
        member.suspect().miss(root.start, root.end, nats, Context { guarded: &guarded, in_flight }, &mut manner);
        let passed = member.suspect().passed_before(root.start, operation);
        let is_closed = member.suspect().state() == State::Closed;
        known.set_manner(manner);
        self.take_decisions(circuit, number, None, &Arc::default(), [0; 24]);
        if !(was_closed && is_closed)
            && let Some(habits) = self.habits_of_process(index)
        {
            let weight = nats / -RARE.ln();
            habits.miss(operation, circuit, weight);
            passed.iter().for_each(|other| habits.pass(*other, circuit, weight));
        }
    }

    /// Whose rejection it is. Until that is known, the circuit has the name of the breaker, or of what was asked for.
    fn blame(&mut self, index: u32, root: &Mark, operation: Option<u32>, told: &Told, called: &[u32], now: u64) -> Option<u32> {
        if told.circuit.is_some() {
            return told.circuit;
        }
        let (known, learned) = self.guess(index, root, operation, told, called)?;
        let process = self.processes.get(index as usize)?;
        let (caller, habits) = (Arc::clone(&process.caller), process.habits as usize);
        if let (Some(name), Some(circuit), true) = (&told.name, known, learned) {
            self.habits.get_mut(habits).into_iter().for_each(|habits| habits.name(name.as_bytes(), circuit));
        }
        let asked_for = || operation.and_then(|operation| Some(self.habits.get(habits)?.operation_name(operation).to_owned()));
        let text = told.name.as_deref().map(str::to_owned).or_else(asked_for).filter(|text| !text.is_empty());
        known.or_else(|| self.circuit_of(&caller, &Target { named: true, text: text?.as_bytes(), port: None }, now))
    }

    /// The circuit that was most likely refused, and whether its breaker's name is learned by this.
    fn guess(&self, index: u32, root: &Mark, operation: Option<u32>, told: &Told, called: &[u32]) -> Option<(Option<u32>, bool)> {
        let process = self.processes.get(index as usize)?;
        let habits = self.habits.get(process.habits as usize)?;
        if let Some(name) = &told.name {
            let is = |circuit: &u32| self.circuits.get(*circuit as usize).is_some_and(|circuit| *circuit.key().text == **name);
            if let Some(known) = habits.guarded_by(name.as_bytes()).or_else(|| circuits_of(process, habits, operation).into_iter().find(is)) {
                return Some((Some(known), false));
            }
        }
        if matches!(told.meaning, Meaning::Opened | Meaning::ProbeFailed)
            && let Some(last) = called.last()
        {
            return Some((Some(*last), false));
        }
        let usual = operation.map(|operation| habits.usual(operation)).unwrap_or_default();
        let mut missing = usual.iter().map(|(circuit, _)| *circuit).filter(|circuit| !called.contains(circuit));
        if let Some(first) = missing.next() {
            // A lost span must not blame a callee that answers well while another is open.
            let other =
                if self.is_well_in(first, index, root.start) { missing.find(|other| self.state_in(*other, index) != State::Closed) } else { None };
            return Some((other.or(Some(first)), true));
        }
        let all = circuits_of(process, habits, operation);
        let left: SmallVec<[u32; 4]> = all.iter().copied().filter(|circuit| !called.contains(circuit)).collect();
        let only = |circuits: &[u32]| if let [only] = circuits { Some(*only) } else { None };
        Some((only(&left).or_else(|| only(&all)), false))
    }

    fn suspect_call(&mut self, index: u32, circuit: u32, within: Option<Option<u32>>, call: Through) {
        let guard = self.habits_of_process(index).map_or(Guard::Through, |habits| habits.guard(within, circuit));
        if guard == Guard::Past {
            return;
        }
        let Some(known) = self.circuits.get_mut(circuit as usize) else { return };
        let mut manner = known.manner();
        let Some((number, member)) = known.members.iter_mut().find(|(_, member)| member.process == index) else { return };
        // A process that only makes good calls is watched for the sake of another circuit.
        if !call.bad && member.suspected().is_none() || member.reports() {
            return;
        }
        member.suspect().call(call, guard == Guard::Unknown, &mut manner);
        known.set_manner(manner);
        self.take_decisions(circuit, number, None, &Arc::default(), [0; 24]);
    }

    /// Operations that go through a circuit's breaker for sure, this one included.
    fn guarded(&mut self, index: u32, circuit: u32, operation: Option<u32>) -> SmallVec<[u32; 4]> {
        let mut guarded = self.habits_of_process(index).map(|habits| habits.guarded(circuit)).unwrap_or_default();
        guarded.extend(operation.filter(|operation| !guarded.contains(operation)));
        guarded
    }

    fn suspect_told(&mut self, index: u32, circuit: u32, seen: &Seen<'_>, told: &Told, now: u64) {
        let (root, unit) = (seen.root, seen.unit);
        let guarded = self.guarded(index, circuit, seen.operation);
        let Some(number) = self.seat_in(index, circuit) else { return };
        let config = Arc::clone(&self.config);
        let reason: Arc<str> = config.detection.libraries.get(usize::from(told.rule)).cloned().unwrap_or_default();
        let Some(known) = self.circuits.get_mut(circuit as usize) else { return };
        known.last_seen = now;
        if told.circuit.is_none() && matches!(told.meaning, Meaning::Rejected) {
            known.count_rejection(root.end, now, &config);
        }
        let mut manner = known.manner();
        let Some(member) = known.members.get_mut(number).filter(|member| !member.reports()) else { return };
        let suspect = member.suspect();
        match told.meaning {
            Meaning::Opened | Meaning::ProbeFailed => {
                let last = unit.calls.iter().filter(|(other, _)| *other == circuit).map(|(_, call)| *call).max_by_key(|call| call.end);
                let call = last.unwrap_or(Through { start: told.start, end: told.end, bad: true, operation: NO_OPERATION });
                suspect.opened(call, told.meaning == Meaning::ProbeFailed, &mut manner);
            }
            Meaning::Rejected | Meaning::Maybe => {
                let maybe = told.meaning == Meaning::Maybe;
                let in_flight = suspect.state() == State::HalfOpen && seen.watch.is_in_flight(circuit, root.start, root.end);
                suspect.reject(Away { start: root.start, end: root.end, maybe }, Context { guarded: &guarded, in_flight }, &mut manner);
            }
            Meaning::NoBreaker => suspect.let_through(root.start),
        }
        let passed = if told.meaning == Meaning::NoBreaker { SmallVec::new() } else { suspect.passed_before(root.start, seen.operation.unwrap_or(NO_OPERATION)) };
        known.set_manner(manner);
        self.take_decisions(circuit, number, told.name.as_ref(), &reason, told.ids);
        if let Some(habits) = self.habits_of_process(index) {
            passed.iter().for_each(|other| habits.pass(*other, circuit, 1.0));
        }
    }

    /// Hands on what was decided in an instance of a circuit.
    fn take_decisions(&mut self, circuit: u32, number: usize, breaker: Option<&Arc<str>>, reason: &Arc<str>, ids: Ids) {
        let Some(known) = self.circuits.get_mut(circuit as usize) else { return };
        let Some(member) = known.members.get_mut(number) else { return };
        let decisions = member.suspect().take_decisions();
        let (last, state) = (member.suspect().last, member.suspect().state());
        if state != State::Closed || member.provisional().is_some() {
            known.changed |= member.provisional() != Some(state);
            member.seems(last, state);
        }
        let instance = Arc::clone(member.instance());
        for decision in decisions {
            let (breaker, reason, instance) = (breaker.cloned(), Arc::clone(reason), Arc::clone(&instance));
            known.decide(Decided { decision, member: number, instance, breaker, reason, ids });
            known.changed = true;
        }
    }

    /// What the caller of a process usually calls.
    fn habits_of_process(&mut self, index: u32) -> Option<&mut Habits> {
        let process = self.processes.get(index as usize)?;
        self.habits.get_mut(process.habits as usize).map(Box::as_mut)
    }

    fn member_in(&self, circuit: u32, index: u32) -> Option<&Member> {
        let circuit = self.circuits.get(circuit as usize)?;
        circuit.members.iter().find(|(_, member)| member.process == index).map(|(_, member)| member)
    }

    /// What calls and rejections tell of a circuit in a process.
    fn state_in(&self, circuit: u32, index: u32) -> State {
        self.member_in(circuit, index).and_then(Member::suspected).map_or(State::Closed, Suspect::state)
    }

    fn is_well_in(&self, circuit: u32, index: u32, at: u64) -> bool {
        self.member_in(circuit, index).is_some_and(|member| member.suspected().is_none_or(|suspect| suspect.is_well(at)))
    }
}

/// Circuits of an operation, or of the whole process where it is not known.
fn circuits_of(process: &Process, habits: &Habits, operation: Option<u32>) -> SmallVec<[u32; 4]> {
    match operation {
        Some(operation) => habits.known(operation).collect(),
        None => process.circuits().collect(),
    }
}
