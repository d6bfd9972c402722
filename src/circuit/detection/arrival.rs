use std::sync::{Arc, atomic::AtomicBool};

use smallvec::SmallVec;

use super::super::{
    answers::Span,
    bucket::Outcome,
    circuit::Circuit,
    collector::CircuitBreakerMetricsCollector,
    detect::{
        lane::{Lane, Lanes, Route},
        rule::Meaning,
        watch::{Called, HOLD, Mark, Told, What},
    },
    inspect::{Inspection, RootRecord, SpanRecord, ToldRecord, ids_at, route_at, span_at, trace_at},
    meeting::Met,
    process::Seat,
    seats::Found,
    state::State,
    usual::SLOW_MIN,
};

/// One trace in so many tells who answers at an address.
const MET_OF: u64 = 8;

/// Halves of calls that wait at most to be brought together.
const MET_MAX: usize = 4_096;

/// Sampling by which more traces than this stand for one hides too many calls to miss any.
const SAMPLED: u32 = 2;

/// What takes longer is likely to be split between two requests of an SDK. Nanoseconds.
const LONG: u64 = 100_000_000;

/// Of healthy processes one trace in so many is learned from.
const LEARNED_OF: u64 = 4;

/// Once so many of a process were learned from, one in so many is.
const LEARNED_ENOUGH: u16 = 400;
const LEARNED_LATER_OF: u64 = 32;

/// Trace and start of what is noted of a process.
type Noted = SmallVec<[(u64, u64); 16]>;

impl CircuitBreakerMetricsCollector {
    /// Begins to watch the processes that tell of breakers in this request.
    pub(in crate::circuit) fn watch(&mut self, request: &[u8], inspection: &Inspection, mine: &impl Fn(u32) -> bool, now: u64) {
        let mut current = None;
        for told in inspection.told.iter().filter(|told| mine(told.resource)) {
            let process = self.process_of(request, inspection, told.resource, &mut current, now);
            if let Some(process) = process.and_then(|process| self.processes.get_mut(process as usize)) {
                process.watch_closely(told.end, self.config.reorder);
            }
        }
    }

    /// Looks at a call for the sake of breakers: notes it where its process is watched; of others only failures, which may
    /// explain a trip later: from the second within few calls on the process is watched. `false` if there is no room for
    /// it.
    #[inline]
    pub(in crate::circuit) fn note_call(&mut self, index: u32, seat: Seat, span: &SpanRecord, request: &[u8], inspection: &Inspection) -> bool {
        if !self.config.detection.enabled {
            return true;
        }
        let Some(process) = self.processes.get(index as usize) else { return true };
        let (watched, enough) = (process.is_watched(), process.learned >= LEARNED_ENOUGH);
        let trace = trace_at(request, span.ids);
        if trace.is_multiple_of(if enough { LEARNED_LATER_OF } else { LEARNED_OF }) {
            self.note_healthy(index, seat, span, request, trace, !inspection.roots.is_empty());
        }
        let may_be_slow = span.end - span.start > SLOW_MIN;
        if !watched && !may_be_slow && span.outcome == Outcome::Success || span.outcome == Outcome::Rejected {
            return true;
        }
        let slow = may_be_slow && self.circuits.get(seat.circuit as usize).is_some_and(|circuit| circuit.is_slow(span.end - span.start));
        let bad = slow || span.outcome == Outcome::Failure;
        let route = if bad { self.memo.route(request, span.route) } else { Route::default() };
        if bad {
            self.note_failure(index, seat, span, route, trace);
        }
        if !watched {
            return true;
        }
        self.note_watched(index, seat, span, request, trace, (bad, route))
    }

    fn note_watched(&mut self, index: u32, seat: Seat, span: &SpanRecord, request: &[u8], trace: u64, (bad, mut route): (bool, Route)) -> bool {
        let Some(watch) = self.processes.get_mut(index as usize).and_then(|process| process.watch.as_mut()) else { return true };
        watch.sampled |= span.weight > SAMPLED;
        let restless = watch.is_restless(seat.circuit);
        if !restless && !watch.looks_at(trace) {
            return true;
        }
        let Some(circuit) = self.circuits.get_mut(seat.circuit as usize) else { return true };
        // While its one breaker is closed, what is asked for is only learned from now and then.
        let mut number = 0;
        if restless || bad || trace.is_multiple_of(LEARNED_OF) || circuit.lanes().is_some_and(Lanes::are_several) {
            if !bad {
                route = self.memo.route(request, span.route);
            }
            number = circuit.lane_of(route);
        }
        let member = seat.member.filter(|_| restless).and_then(|member| circuit.members.get(member as usize));
        let telling = member.and_then(|member| member.suspected(number)).is_some_and(|suspect| suspect.state() != State::Closed);
        if route.is_known() && circuit.lanes().is_some() {
            circuit.lanes_mut().note(route, route_at(request, span.route));
        }
        let what = What::Call { lane: Lane { circuit: seat.circuit, number }, route, bad, answered: span.answered, telling, alone: span.alone };
        watch.note(Mark { start: span.start, end: span.end, trace, what })
    }

    /// Notes a call that went wrong: from the second within few calls on everything its process does is worth noting.
    #[cold]
    fn note_failure(&mut self, index: u32, seat: Seat, span: &SpanRecord, route: Route, trace: u64) {
        let lane = self.lane_of(seat.circuit, route);
        let circuit = self.circuits.get_mut(seat.circuit as usize);
        let member = circuit.and_then(|circuit| circuit.members.get_mut(seat.member? as usize));
        let Some(member) = member.filter(|member| !member.reports()) else { return };
        let calls = member.calls();
        let distressed = member.suspect(lane.number).fails(span.end, calls);
        let Some(process) = self.processes.get_mut(index as usize) else { return };
        if !process.is_watched() {
            let what = What::Call { lane, route, bad: true, answered: span.answered, telling: false, alone: span.alone };
            process.watched().note(Mark { start: span.start, end: span.end, trace, what });
        }
        if let Some(at) = distressed {
            self.is_worth_watching(index, at);
        }
    }

    /// Something happened in a process that is worth a closer look at all it does, what stands in this request included.
    fn is_worth_watching(&mut self, index: u32, end: u64) {
        let Some(process) = self.processes.get_mut(index as usize) else { return };
        if process.is_watched() {
            process.watch_closely(end, self.config.reorder).worth(end);
        } else {
            process.watched().worth(end);
            self.worth_watching.push((index, end));
        }
    }

    /// Begins to note everything that processes do in which something went wrong in this request, and what else stands
    /// in it. Gives how much found no room.
    #[cold]
    pub(in crate::circuit) fn watch_closely(&mut self, request: &[u8], inspection: &Inspection, mine: &impl Fn(u32) -> bool, now: u64) -> u64 {
        // Of each what is noted already.
        let mut begun: SmallVec<[(u32, Noted); 2]> = SmallVec::new();
        for (index, at) in std::mem::take(&mut self.worth_watching) {
            let Some(process) = self.processes.get_mut(index as usize) else { continue };
            if !begun.iter().any(|(other, _)| *other == index) {
                begun.push((index, process.watched().noted().collect()));
            }
            process.watch_closely(at, self.config.reorder);
        }
        let noted = |process: Option<u32>| begun.iter().find(|(index, _)| Some(*index) == process);
        let (mut dropped, mut current) = (0, None);
        for span in inspection.spans.iter().filter(|span| mine(span.resource) && span.outcome == Outcome::Success) {
            let process = self.process_of(request, inspection, span.resource, &mut current, now);
            let Some((process, known)) = noted(process) else { continue };
            let trace = trace_at(request, span.ids);
            if known.contains(&(trace, span.start)) {
                continue;
            }
            let place = self.place(*process, inspection, request, (span.target, span.route), now);
            let (Found::Seat(seat) | Found::ByPath(seat)) = place else { continue };
            dropped += u64::from(!self.note_watched(*process, seat, span, request, trace, (false, Route::default())));
        }
        for root in inspection.roots.iter().filter(|root| mine(root.resource)) {
            let process = self.process_of(request, inspection, root.resource, &mut current, now);
            let Some((process, known)) = noted(process) else { continue };
            if !known.contains(&(trace_at(request, root.ids), root.start)) {
                dropped += u64::from(!self.note_unit(*process, root, request, inspection));
            }
        }
        dropped
    }

    /// Notes what stands around the calls of this request: roots, and texts of breakers' libraries. Gives how many found
    /// no room.
    pub(in crate::circuit) fn note_units(&mut self, request: &[u8], inspection: &Inspection, mine: &impl Fn(u32) -> bool, now: u64) -> u64 {
        let mut dropped = 0;
        let mut current = None;
        for told in inspection.told.iter().filter(|told| mine(told.resource)) {
            let Some(process) = self.process_of(request, inspection, told.resource, &mut current, now) else { continue };
            dropped += u64::from(!self.note_told(process, told, request, inspection, now));
        }
        for root in inspection.roots.iter().filter(|root| mine(root.resource)) {
            let Some(process) = self.process_of(request, inspection, root.resource, &mut current, now) else { continue };
            dropped += u64::from(!self.note_root(process, root, request, inspection, now));
        }
        self.learn(request, inspection);
        dropped
    }

    fn note_told(&mut self, index: u32, record: &ToldRecord, request: &[u8], inspection: &Inspection, now: u64) -> bool {
        let name = inspection.text(request, record.name);
        let known = self.processes.get(index as usize).and_then(|process| process.watch.as_ref()).and_then(|watch| watch.name_again(name));
        let name = known.or_else(|| (!name.is_empty()).then(|| Arc::from(String::from_utf8_lossy(name))));
        let circuit = record.target.and_then(|target| self.circuit_called(index, inspection, request, (target, record.route), now));
        let (trace, ids) = (trace_at(request, record.ids), ids_at(request, record.ids));
        let (at, start, end) = (record.at, record.start, record.end);
        if record.target.is_some() && circuit.is_none() {
            // Of a circuit that is not looked at, or that there is no room for.
            return true;
        }
        let told = Told {
            meaning: record.meaning,
            rule: record.rule,
            typed: record.typed,
            answer: record.answer,
            name,
            circuit,
            at,
            start,
            end,
            ids,
            taken: AtomicBool::new(false),
        };
        if !matches!(told.meaning, Meaning::Full | Meaning::Maybe | Meaning::Limit | Meaning::NoBreaker) {
            self.seems_open(index, &told, record, (request, inspection), now);
        }
        let Some(process) = self.processes.get_mut(index as usize) else { return true };
        process.watch_closely(end, self.config.reorder).note(Mark { start, end, trace, what: What::Told(Arc::new(told)) })
    }

    /// Moves the state that is not final yet, where it is plain whose it is.
    ///
    /// Of a circuit that never showed a breaker it is plain only where the text names it, or where it is the only usual
    /// callee that was not called in that trace: calls that always fail are not a breaker's.
    fn seems_open(&mut self, index: u32, told: &Told, record: &ToldRecord, read: (&[u8], &Inspection), now: u64) {
        let (trace, at) = (trace_at(read.0, record.ids), record.end);
        let state = if told.meaning == Meaning::ForcedOpen { State::ForcedOpen } else { State::Open };
        let Some(watch) = self.processes.get(index as usize).and_then(|process| process.watch.as_ref()) else { return };
        // While it seems open, what tells so again is taken for the same.
        if let Some((circuit, number)) = watch.seemed_open(told)
            && let Some(circuit) = self.circuits.get_mut(circuit as usize)
            && let Some(member) = circuit.members.get_mut(number as usize)
            && member.process == index
            && member.provisional() == Some(state)
        {
            circuit.changed |= member.seems(at, state, now);
            return;
        }
        let name = told.name.as_deref().unwrap_or_default().as_bytes();
        let calls = watch.calls_in(trace);
        // What a callee answered is none of this process's breakers.
        if !told.typed && told.answer && calls.iter().any(|call| call.bad && call.answered) {
            return;
        }
        let called: SmallVec<[u32; 4]> = calls.iter().filter(|call| !call.bad).map(|call| call.circuit).collect();
        let known = told.circuit.or_else(|| self.named_circuit(index, name)).or_else(|| self.refused_by(index, &called));
        let other = || self.next_to_call(index, record, &calls, read).or_else(|| self.only_one_not_called(index, record, &calls, read));
        let Some(number) = known.or_else(other) else { return };
        // Only what this trace has nothing to do with tells what the next text like it is to be taken for.
        let holds = told.circuit.is_some() || self.named_circuit(index, name).or_else(|| self.refused_by(index, &[])) == Some(number);
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return };
        if let Some((place, member)) = circuit.members.iter_mut().find(|(_, member)| member.process == index) {
            circuit.changed |= member.seems(at, state, now);
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            let watch = self.processes.get_mut(index as usize).and_then(|process| process.watch.as_mut()).filter(|_| holds);
            watch.into_iter().for_each(|watch| watch.seems_open(told, (number, place)));
        }
    }

    /// The circuit of a process that a text names, by the name of its breaker or of its callee.
    pub(in crate::circuit) fn named_circuit(&self, index: u32, name: &[u8]) -> Option<u32> {
        let process = self.processes.get(index as usize).filter(|_| !name.is_empty())?;
        let learned = self.habits.get(process.habits as usize).and_then(|habits| habits.guarded_by(name)).map(|lane| lane.circuit);
        let is_named = |number: &u32| {
            let circuit = self.circuits.get(*number as usize);
            let breaker = |circuit: &Circuit| circuit.lanes().is_some_and(|lanes| lanes.is_named(name));
            circuit.is_some_and(|circuit| circuit.key().text.as_bytes() == name || breaker(circuit))
        };
        learned.or_else(|| process.circuits().find(is_named))
    }

    /// The circuit that refused a call of a process, where that is plain at once though no text names it, and it has shown a
    /// breaker before: because there is but one, or because of several one is not closed already, or one is the only one
    /// whose calls fail. Those that were `called` let it through.
    pub(in crate::circuit) fn refused_by(&self, index: u32, called: &[u32]) -> Option<u32> {
        let process = self.processes.get(index as usize)?;
        let not_closed = |circuit: &u32| self.is_restless_in(*circuit, index);
        let others = || process.circuits().filter(|circuit| !called.contains(circuit));
        let only = |mut circuits: SmallVec<[u32; 4]>| circuits.pop().filter(|_| circuits.is_empty());
        let failing = || {
            let is_failing = |circuit: &u32| self.member_in(*circuit, index).is_some_and(|member| member.is_failing(process.newest_end));
            only(others().filter(is_failing).collect())
        };
        let any = only(others().collect()).or_else(|| others().find(not_closed)).or_else(failing);
        any.filter(|circuit| self.shows_breaker(*circuit))
    }

    /// Whether a circuit is known to have a breaker.
    fn shows_breaker(&self, circuit: u32) -> bool {
        self.circuits.get(circuit as usize).is_some_and(|circuit| circuit.has_breaker())
    }

    /// The only usual callee of an operation that was not called in a trace, if calls to it fail: then a refusal is its
    /// breaker's, though nothing showed that breaker before. `None` where the operation is not known well enough.
    fn only_one_not_called(&self, index: u32, record: &ToldRecord, calls: &[Called], (request, inspection): (&[u8], &Inspection)) -> Option<u32> {
        let process = self.processes.get(index as usize).filter(|_| record.meaning == Meaning::Rejected)?;
        let habits = self.habits.get(process.habits as usize)?;
        let root = inspection.root_near(record, request)?;
        let operation = habits.known_operation(inspection.text(request, root.operation))?;
        let is_called = |circuit: u32| calls.iter().any(|call| call.circuit == circuit);
        let mut usual: SmallVec<[u32; 4]> = habits.usual(operation).iter().map(|(lane, _)| lane.circuit).collect();
        usual.sort_unstable();
        usual.dedup();
        usual.retain(|circuit| !is_called(*circuit));
        let [only] = usual[..] else { return None };
        self.member_in(only, index)?.is_failing(process.newest_end).then_some(only)
    }

    /// The circuit that was next to be called when a breaker refused a call, if calls to it fail: although others' calls
    /// fail as well, it is this one's breaker. `None` where an operation may as well call another one next, where a call of
    /// it went wrong, which may have been tried again, or not all of its calls are known. One that goes on for longer than
    /// its unit is taken for one that was not made.
    fn next_to_call(&self, index: u32, record: &ToldRecord, calls: &[Called], (request, inspection): (&[u8], &Inspection)) -> Option<u32> {
        let process = self.processes.get(index as usize)?;
        let habits = self.habits.get(process.habits as usize)?;
        let watch = process.watch.as_ref().filter(|_| record.meaning.is_refusal())?;
        let root = inspection.root_near(record, request)?;
        let within = calls.iter().filter(|call| call.start >= root.start && call.end <= root.end.saturating_add(HOLD));
        if !watch.knows((root.start, root.end), trace_at(request, root.ids)) || within.clone().any(|call| call.bad) {
            return None;
        }
        let called: SmallVec<[u32; 4]> = within.map(|call| call.circuit).collect();
        let next = habits.next(habits.known_operation(inspection.text(request, root.operation))?, &called)?;
        let is_failing = self.member_in(next, index)?.is_failing(process.newest_end);
        (is_failing && self.shows_breaker(next)).then_some(next)
    }

    fn note_root(&mut self, index: u32, root: &RootRecord, request: &[u8], inspection: &Inspection, now: u64) -> bool {
        let Some(process) = self.processes.get_mut(index as usize) else { return true };
        let trace = trace_at(request, root.ids);
        process.roots = process.roots.wrapping_add(1);
        if root.parent != 0 && self.answers.are_wanted(now) {
            self.answers.note(trace, &process.caller.service, Span { start: root.start, end: root.end });
        }
        let broke_off = if root.aborted { process.breaks_off(root.end) } else { None };
        if root.parent != 0 && trace.is_multiple_of(MET_OF) && self.met.len() < MET_MAX {
            self.met.push(Met::Answer { key: trace ^ span_at(request, root.parent), callee: Arc::clone(&process.caller) });
        }
        // Of a process that is not watched closely, only what went wrong in it matters, and the operations that it belongs to.
        let matters = process.watch.as_ref().is_some_and(|watch| watch.is_wide() || watch.has_trace(trace));
        if !matters && !root.aborted {
            let of = if process.learned >= LEARNED_ENOUGH { LEARNED_LATER_OF } else { LEARNED_OF };
            if trace.is_multiple_of(of) {
                process.learned = process.learned.saturating_add(1);
                self.learning.roots.push((trace, index, root.operation, (root.start, root.end)));
            }
            return true;
        }
        let noted = self.note_unit(index, root, request, inspection);
        if let Some(at) = broke_off {
            self.is_worth_watching(index, at);
        }
        noted
    }

    fn note_unit(&mut self, index: u32, root: &RootRecord, request: &[u8], inspection: &Inspection) -> bool {
        let Some(process) = self.processes.get_mut(index as usize) else { return true };
        let habits = self.habits.get_mut(process.habits as usize);
        let operation = habits.and_then(|habits| self.memo.operation((process.habits, root.operation), request, inspection, habits));
        let what = What::Root { operation, aborted: root.aborted };
        process.watched().note(Mark { start: root.start, end: root.end, trace: trace_at(request, root.ids), what })
    }

    /// Notes a call to learn from.
    fn note_healthy(&mut self, index: u32, seat: Seat, span: &SpanRecord, request: &[u8], trace: u64, learns: bool) {
        let Some(circuit) = self.circuits.get_mut(seat.circuit as usize) else { return };
        if span.outcome == Outcome::Success {
            circuit.see_usual(span.end - span.start);
        }
        if learns {
            let number = circuit.lanes().map_or(0, |lanes| lanes.of_route(self.memo.route(request, span.route)));
            self.learning.calls.push((trace, index, Lane { circuit: seat.circuit, number }, span.start));
        }
        if span.target.kind.is_learned() && trace.is_multiple_of(MET_OF) && self.met.len() < MET_MAX {
            self.note_met(index, seat, span, request, trace);
        }
    }

    /// Notes the caller's half of a call.
    fn note_met(&mut self, index: u32, seat: Seat, span: &SpanRecord, request: &[u8], trace: u64) {
        let Some(process) = self.processes.get(index as usize) else { return };
        // What is asked for may have led elsewhere than the address does.
        let circuit = process.seats.find(seat.hash.spread(), |known| known.hash == seat.hash).map_or(seat.circuit, |known| known.circuit);
        let has_name = self.circuits.get(circuit as usize).is_some_and(|circuit| circuit.addresses.is_some());
        let route = if has_name { Route::of(route_at(request, span.route)) } else { Route::default() };
        self.met.push(Met::Call { key: trace ^ span_at(request, span.ids.1), circuit, address: seat.hash, route });
    }

    /// Learns which circuits operations call, from traces that came whole in one request.
    fn learn(&mut self, request: &[u8], inspection: &Inspection) {
        let mut learning = std::mem::take(&mut self.learning);
        learning.calls.sort_unstable_by_key(|(trace, process, _, start)| (*trace, *process, *start));
        let first = learning.roots.iter().map(|(.., (_, end))| *end).min().unwrap_or_default();
        for (trace, process, operation, (start, end)) in learning.roots.drain(..) {
            // Of a long one that began before this request did, calls may have come in the one before.
            if start < first && end - start > LONG {
                continue;
            }
            let from = learning.calls.partition_point(|(other, by, ..)| (*other, *by) < (trace, process));
            let mut called: SmallVec<[Lane; 4]> = SmallVec::new();
            for (_, _, lane, _) in learning.calls.iter().skip(from).take_while(|(other, by, ..)| (*other, *by) == (trace, process)) {
                if !called.contains(lane) {
                    called.push(*lane);
                }
            }
            let habits = self.habits_of_process(process);
            let Some(habits) = habits else { continue };
            if let Some(operation) = habits.operation(inspection.text(request, operation)) {
                habits.see(operation, &called, false, |_| true);
            }
        }
        learning.calls.clear();
        // What is allocated is used again.
        self.learning = learning;
    }
}

#[cfg(test)]
mod tests;
