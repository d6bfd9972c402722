use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    super::{
        answers::Span,
        circuit::Decided,
        collector::CircuitBreakerMetricsCollector,
        detect::{
            habit::Guard,
            lane::{Lane, Route},
            rule::Meaning,
            suspect::{Away, Context, NO_OPERATION, Passed, Through},
            watch::{Mark, Told, Unit, Watch, What},
        },
        state::{Ids, State},
    },
    Seen,
};

/// A call that is missing is never thought rarer than this.
const RARE: f32 = 0.01;

/// Processes of one caller that are looked at before others are let to the shard.
const AT_ONCE: usize = 256;

/// What those may have done that are looked at together: all that is kept of it, which is put in order, and what is due of
/// that, which is looked at. One process more than reaches it has 6 144 at most. `benches/ticker.rs` prints what that takes.
const MARKS_AT_ONCE: usize = 16_384;
const DUE_AT_ONCE: usize = 2_048;

/// How long what one process did waits for what others of its caller did before. Nanoseconds.
const WAIT: u64 = 1_000_000_000;

/// A process that is looked at, up to a time.
struct Turn {
    index: u32,
    instance: Arc<str>,
    watermark: u64,
    watch: Box<Watch>,
    /// What of it is due.
    due: Vec<Mark>,
}

/// A usual call that a unit did not make.
struct Missing {
    lane: Lane,
    operation: u32,
    /// The share of units that make it.
    share: f32,
    /// When it would have been made at the latest.
    at: u64,
}

/// A call that was turned away, and what came through before.
struct TurnedAway {
    lane: Lane,
    operation: u32,
    passed: SmallVec<[Passed; 2]>,
    /// How sure it is.
    weight: f32,
}

/// Whose decisions are handed on, and what tells of them.
struct Cause<'a> {
    lane: Lane,
    member: usize,
    reason: &'a Arc<str>,
    ids: Ids,
}

impl CircuitBreakerMetricsCollector {
    /// Looks at what is due of some of the processes that are watched, all of one caller; `false` if there were none left.
    /// `all`: nothing will come any more, so that everything is due.
    ///
    /// They learn of each other, so that what they did is taken in order of its ends, whosever it is.
    pub(in crate::circuit) fn detect_some(&mut self, all: bool, now: u64) -> bool {
        let Some((caller, _)) = self.turns.last().copied() else { return false };
        let slowest = self.habits.get(caller as usize).map_or(u64::MAX, |habits| habits.slowest);
        self.answers.want(now);
        let mut watches: Vec<Turn> = Vec::new();
        let (mut marks, mut due_marks) = (0, 0);
        loop {
            // Where nothing will come any more nobody waits.
            let is_enough = watches.len() >= AT_ONCE || !all && (marks >= MARKS_AT_ONCE || due_marks >= DUE_AT_ONCE);
            let Some((_, index)) = self.turns.pop_if(|(other, _)| *other == caller && !is_enough) else { break };
            let Some(process) = self.processes.get_mut(index as usize) else { continue };
            let watermark = process.watermark(now, &self.config);
            let Some(mut watch) = process.watch.take() else { continue };
            let watermark = if all { u64::MAX } else { watermark.min(slowest.max(watermark.saturating_sub(WAIT))) };
            let due = watch.take_due(watermark);
            (marks, due_marks) = (marks + watch.len(), due_marks + due.len());
            watches.push(Turn { index, instance: Arc::clone(&process.instance), watermark, watch, due });
        }
        // Never by the order in which processes were heard of.
        watches.sort_by(|one, other| one.instance.cmp(&other.instance));
        let mut due: Vec<(usize, Mark)> = Vec::new();
        for (turn, Turn { due: some, .. }) in watches.iter_mut().enumerate() {
            due.extend(std::mem::take(some).into_iter().map(|mark| (turn, mark)));
        }
        due.sort_by_key(|(turn, mark)| (mark.rank(), *turn));
        for (turn, mark) in due {
            let Some(Turn { index, watch, .. }) = watches.get(turn) else { continue };
            for (from, to, routes) in self.look_at_mark(*index, &mark, watch, now) {
                watches.iter_mut().for_each(|turn| turn.watch.split(from, to, &routes));
            }
        }
        for Turn { index, watermark, watch, .. } in watches {
            self.watch_on(index, watch, watermark);
        }
        true
    }

    /// One thing that a process did. Gives the breakers that turned out to be two.
    fn look_at_mark(&mut self, number: u32, mark: &Mark, watch: &Watch, now: u64) -> Splits {
        match &mark.what {
            What::Call { lane, route, bad, answered, alone, .. } => {
                let within = watch.root_of(mark);
                let operation = within.and_then(|(_, operation)| operation).unwrap_or(NO_OPERATION);
                let call = Through { start: mark.start, end: mark.end, bad: *bad, answered: *answered, operation, route: *route };
                let lane = self.lane_of(lane.circuit, *route);
                let beside = !*bad && self.state_in(lane, number) != State::Closed && self.is_beside(number, lane, within, watch);
                if !beside {
                    // One whose root has not ended yet is part of some operation.
                    let within = within.map(|(_, operation)| operation).or_else(|| (!alone).then_some(None));
                    self.suspect_call(number, lane, within, call, now);
                }
                Splits::new()
            }
            What::Root { operation, aborted } => {
                let unit = watch.unit(mark);
                let whole = watch.knows((mark.start, mark.end), mark.trace);
                let called = unit.called();
                self.look_at(
                    number,
                    &Seen { process: number, root: mark, operation: *operation, aborted: *aborted, unit: &unit, called, whole, watch },
                    now,
                )
            }
            What::Told(told) if !told.is_taken() && watch.root_of(mark).is_none() => {
                let unit = Unit { told: [Arc::clone(told)].into_iter().collect(), ..Unit::default() };
                let called = SmallVec::new();
                self.look_at(
                    number,
                    &Seen { process: number, root: mark, operation: None, aborted: true, unit: &unit, called, whole: false, watch },
                    now,
                )
            }
            What::Told(_) => Splits::new(),
        }
    }

    /// Goes on to watch a process, unless there is nothing left to watch for.
    fn watch_on(&mut self, index: u32, mut watch: Box<Watch>, watermark: u64) {
        let circuits: SmallVec<[u32; 8]> = self.processes.get(index as usize).map(|process| process.circuits().collect()).unwrap_or_default();
        watch.restless = circuits.into_iter().filter(|circuit| self.is_restless_in(*circuit, index)).collect();
        let calm = !watch.goes_on(watermark) && self.calm(index, watermark);
        if let Some(process) = self.processes.get_mut(index as usize).filter(|_| !calm) {
            process.watch = Some(watch);
        }
    }

    /// Forgets what was suspected of a process; `false` if one of its breakers is not closed.
    fn calm(&mut self, index: u32, watermark: u64) -> bool {
        let circuits: Vec<u32> = self.processes.get(index as usize).map(|process| process.circuits().collect()).unwrap_or_default();
        for circuit in &circuits {
            let Some(circuit) = self.circuits.get_mut(*circuit as usize) else { continue };
            circuit.members.iter_mut().filter(|(_, member)| member.process == index).for_each(|(_, member)| member.expire(watermark));
        }
        if circuits.iter().any(|circuit| self.is_restless_in(*circuit, index)) {
            return false;
        }
        for circuit in circuits {
            let Some(circuit) = self.circuits.get_mut(circuit as usize) else { continue };
            circuit.changed = true;
            circuit.members.iter_mut().filter(|(_, member)| member.process == index).for_each(|(_, member)| member.calm());
        }
        true
    }

    /// One unit: what it tells of breakers, or else what is missing in it, and what there is to learn from it. Gives the
    /// breakers that turned out to be two.
    fn look_at(&mut self, index: u32, seen: &Seen<'_>, now: u64) -> Splits {
        let mut splits = Splits::new();
        if let Some(operation) = seen.operation
            && let Some(habits) = self.habits_of_process(index)
        {
            for (at, (lane, call)) in seen.unit.calls.iter().enumerate() {
                // Of several calls of one circuit.
                let is_first = seen.unit.calls.iter().position(|(other, _)| other == lane) == Some(at);
                habits.route(operation, *lane, call.route, is_first && seen.unit.calls.len() > at + 1);
            }
        }
        let (quoted, own): (Texts, Texts) = seen.unit.told.iter().cloned().partition(|told| self.is_quoted(told, seen));
        quoted.iter().for_each(|told| told.take());
        if own.is_empty() {
            if let Some(operation) = seen.operation {
                self.suspect_passed(index, seen, operation, now);
            }
            if let Some(operation) = seen.operation.filter(|_| seen.whole) {
                self.look_for_missing(index, seen, operation, &mut splits, now);
            }
            return splits;
        }
        let mut blamed = None;
        for told in &own {
            told.take();
            let Some(lane) = self.blame(index, seen, told, &mut splits, now) else { continue };
            if told.meaning.leaves_open() {
                let habits = self.habits_of_process(index);
                habits.into_iter().for_each(|habits| habits.reject(seen.operation, lane));
            }
            self.suspect_told(index, lane, seen, told, &mut splits, now);
            blamed = Some(lane);
        }
        if let Some(operation) = seen.operation.filter(|_| seen.whole) {
            self.learn_unit(index, seen, operation, blamed);
        }
        splits
    }

    /// Whether a text is what a callee answered, and no breaker of this process said it: its client put the answer into the
    /// message of its error.
    fn is_quoted(&self, told: &Told, seen: &Seen<'_>) -> bool {
        let answered = |circuit: u32, (start, end): (u64, u64)| {
            let callee = self.circuits.get(circuit as usize).map(|circuit| &circuit.key().text);
            let answer = callee.and_then(|callee| self.answers.of(seen.root.trace, callee));
            answer.is_some_and(|answer| (start..=end).contains(&answer.start))
        };
        match told.circuit {
            _ if told.typed => false,
            Some(circuit) => answered(circuit, (told.start, told.end)),
            // One that does not look like an answer is the process's own where a call that is usual was not made.
            None if !told.answer && self.misses_usual(seen) => false,
            None => {
                let within = |call: &Through| told.start <= call.start && call.end <= told.end;
                let mut failed = seen.unit.calls.iter().filter(|(_, call)| call.bad && within(call));
                failed.any(|(lane, call)| call.answered || answered(lane.circuit, (call.start, call.end)))
            }
        }
    }

    /// Whether a call that the operation usually makes was not made in a unit.
    fn misses_usual(&self, seen: &Seen<'_>) -> bool {
        let habits = self.processes.get(seen.process as usize).and_then(|process| self.habits.get(process.habits as usize));
        let usual = seen.operation.and_then(|operation| Some(habits?.usual(operation))).unwrap_or_default();
        usual.iter().any(|(lane, _)| !seen.called.contains(lane))
    }

    /// A unit without a text: which of the usual calls are missing?
    fn look_for_missing(&mut self, index: u32, seen: &Seen<'_>, operation: u32, splits: &mut Splits, now: u64) {
        let Some(habits) = self.habits_of_process(index) else { return };
        let usual = habits.usual(operation);
        let calls = &seen.unit.calls;
        let not_called: Shares = usual.iter().copied().filter(|(lane, _)| !seen.called.contains(lane)).collect();
        let (answered, missing): (Shares, Shares) = not_called.into_iter().partition(|(lane, _)| self.is_answered(*lane, seen));
        for (lane, _) in &answered {
            // Of several breakers nothing says which let it through.
            if usual.iter().filter(|(other, _)| other.circuit == lane.circuit).count() == 1 {
                self.suspect_answered(index, *lane, operation, seen, now);
            }
        }
        if !answered.is_empty() {
            return;
        }
        // What broke off says nothing of calls that would have come later, and nothing at all if a call is to blame.
        let telling = match (seen.aborted, calls.iter().any(|(_, call)| call.bad)) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => usize::MAX,
        };
        let missing: Shares = missing.into_iter().take(telling).collect();
        self.learn_unit(index, seen, operation, None);
        if self.config.detection.silence {
            for (lane, share) in missing {
                // It was not called after what came before it and before what came after it.
                let place = |wanted: &Lane| usual.iter().position(|(lane, _)| lane == wanted);
                let later = calls.iter().filter(|(other, _)| place(other) > place(&lane)).map(|(_, call)| call.start).min();
                let missing = Missing { lane, operation, share, at: later.unwrap_or(seen.root.end) };
                self.suspect_missing(index, &missing, seen, splits, now);
            }
        }
    }

    /// Whether a call stands beside one that the breaker turned away, in a unit that asks for several things: what went
    /// well there went past the breaker.
    fn is_beside(&mut self, index: u32, lane: Lane, within: Option<(&Mark, Option<u32>)>, watch: &Watch) -> bool {
        let Some((root, Some(operation))) = within else { return false };
        let several = self.habits_of_process(index).is_some_and(|habits| habits.routes(operation, lane).len() > 1);
        several && watch.unit(root).is_turned_away_by(self.breaker_name(lane))
    }

    /// The own name of a breaker.
    fn breaker_name(&self, lane: Lane) -> Option<&Arc<str>> {
        self.circuits.get(lane.circuit as usize)?.lanes()?.name(lane.number)
    }

    /// Whether a callee answered within a unit, though nothing says that it was asked.
    fn is_answered(&self, lane: Lane, seen: &Seen<'_>) -> bool {
        let callee = self.circuits.get(lane.circuit as usize).map(|circuit| &circuit.key().text);
        let answer = callee.and_then(|callee| self.answers.of(seen.root.trace, callee));
        // What a call of this unit explains is no other one.
        let is_explained = |answer: &Span| {
            let covers = |call: &Through| call.start <= answer.start && answer.start <= call.end;
            seen.unit.calls.iter().any(|(other, call)| other.circuit == lane.circuit && covers(call))
        };
        answer.is_some_and(|answer| (seen.root.start..=seen.root.end).contains(&answer.start) && !is_explained(&answer))
    }

    /// A call that only its callee tells of: its client gave it up, or its span was lost.
    fn suspect_answered(&mut self, index: u32, lane: Lane, operation: u32, seen: &Seen<'_>, now: u64) {
        let Some(circuit) = self.circuits.get(lane.circuit as usize) else { return };
        let Some(answer) = self.answers.of(seen.root.trace, &circuit.key().text) else { return };
        let end = answer.end.clamp(answer.start, seen.root.end.max(answer.start));
        let bad = seen.aborted || circuit.is_slow(end - answer.start);
        let call = Through { start: answer.start, end, bad, answered: true, operation, route: Route::default() };
        self.suspect_call(index, lane, Some(Some(operation)), call, now);
    }

    /// Learns what an operation calls, where breakers are closed and calls go well; the one that is to blame for a refusal
    /// is left out.
    fn learn_unit(&mut self, index: u32, seen: &Seen<'_>, operation: u32, blamed: Option<Lane>) {
        let known = self.habits_of_process(index).map(|habits| habits.known(operation).collect::<SmallVec<[Lane; 4]>>());
        let concerned = known.into_iter().flatten().chain(seen.called.iter().copied());
        let is_well = |lane: &Lane| {
            let went_wrong = seen.unit.calls.iter().any(|(other, call)| other == lane && call.bad);
            let suspect = self.suspect_in(*lane, index);
            let is_well = suspect.is_none_or(|suspect| suspect.state() == State::Closed && !suspect.is_distressed(seen.root.end));
            is_well && !went_wrong && Some(*lane) != blamed
        };
        let well: SmallVec<[Lane; 8]> = concerned.filter(is_well).collect();
        if let Some(habits) = self.habits_of_process(index) {
            habits.see(operation, &seen.called, seen.aborted || blamed.is_some(), |lane| well.contains(&lane));
        }
    }

    fn suspect_missing(&mut self, index: u32, missing: &Missing, seen: &Seen<'_>, splits: &mut Splits, now: u64) {
        let Missing { lane, operation, share, at: start } = *missing;
        let guarded = self.guarded(index, lane, Some(operation));
        let was_closed = self.state_in(lane, index) == State::Closed;
        let Some(known) = self.circuits.get_mut(lane.circuit as usize) else { return };
        let mut manner = known.manner(lane.number);
        let Some((number, member)) = known.members.iter_mut().find(|(_, member)| member.process == index) else { return };
        // Without failures before there is nothing to suspect.
        if member.suspected(lane.number).is_none() || member.reports() {
            return;
        }
        let nats = -(1.0 - share).max(RARE).ln();
        let suspect = member.suspect(lane.number);
        let end = seen.root.end;
        let in_flight = seen.watch.in_flight(lane, start, end);
        suspect.miss(start, end, nats, Context { guarded: &guarded, in_flight, sampled: seen.watch.sampled }, &mut manner);
        let passed = suspect.passed_before(start);
        let is_closed = suspect.state() == State::Closed;
        known.set_manner(lane.number, manner);
        self.take_decisions(now, &Cause { lane, member: number, reason: &Arc::default(), ids: [0; 24] });
        if !(was_closed && is_closed)
            && let Some(habits) = self.habits_of_process(index)
        {
            let weight = nats / -RARE.ln();
            habits.miss(operation, lane, weight);
            let away = TurnedAway { lane, operation, passed, weight };
            self.note_passed(index, &away, seen, splits);
        }
    }

    /// A call was turned away, while others came through: perhaps those have a breaker of their own, or none.
    fn note_passed(&mut self, index: u32, away: &TurnedAway, seen: &Seen<'_>, splits: &mut Splits) {
        let TurnedAway { lane, operation, weight, .. } = *away;
        let Some(habits) = self.habits_of_process(index) else { return };
        let inside = seen.unit.calls.iter().filter(|(other, _)| *other == lane);
        let granted: SmallVec<[Route; 4]> = inside.clone().map(|(_, call)| call.route).collect();
        let refused = habits.refused(operation, lane, &granted);
        let mut apart: SmallVec<[Route; 4]> = SmallVec::new();
        for passed in away.passed.iter().filter(|passed| passed.operation != operation && passed.operation != NO_OPERATION) {
            habits.pass(passed.operation, lane, weight);
        }
        if let Some(refused) = refused {
            // What went well just before, or in the same unit, is not guarded by what refused this.
            let before = away.passed.iter().filter(|passed| !passed.bad).map(|passed| passed.route);
            let good = inside.filter(|(_, call)| !call.bad).map(|(_, call)| call.route);
            for route in before.chain(good).filter(|route| *route != refused) {
                if habits.grant(lane, route, weight) && !apart.contains(&route) {
                    apart.push(route);
                }
            }
            if habits.refuse(lane, refused, weight) {
                apart = [refused].into_iter().collect();
            }
        }
        for route in apart {
            self.split(lane, &[route], splits);
        }
    }

    /// An operation that a breaker refused before and does not refuse now: where no CLIENT span shows the calls of that
    /// breaker, the operation stands for them. One that failed by another call tells nothing.
    fn suspect_passed(&mut self, index: u32, seen: &Seen<'_>, operation: u32, now: u64) {
        if seen.aborted && seen.unit.calls.iter().any(|(_, call)| call.bad) {
            return;
        }
        let refused = self.habits_of_process(index).map(|habits| habits.refused_without_calls(operation)).unwrap_or_default();
        for lane in refused {
            if self.state_in(lane, index) == State::Closed {
                continue;
            }
            let (start, end, bad) = (seen.root.start, seen.root.end, seen.aborted);
            let call = Through { start, end, bad, answered: false, operation, route: Route::default() };
            let Some(known) = self.circuits.get_mut(lane.circuit as usize) else { continue };
            let mut manner = known.manner(lane.number);
            let Some((number, member)) = known.members.iter_mut().find(|(_, member)| member.process == index) else { continue };
            if member.reports() {
                continue;
            }
            member.suspect(lane.number).operation_passed(call, &mut manner);
            known.set_manner(lane.number, manner);
            self.take_decisions(now, &Cause { lane, member: number, reason: &Arc::default(), ids: [0; 24] });
        }
    }

    fn suspect_call(&mut self, index: u32, lane: Lane, within: Option<Option<u32>>, call: Through, now: u64) {
        let guard = self.habits_of_process(index).map_or(Guard::Through, |habits| habits.guard(within, lane, call.route));
        if guard == Guard::Past {
            return;
        }
        let Some(known) = self.circuits.get_mut(lane.circuit as usize) else { return };
        let mut manner = known.manner(lane.number);
        let Some((number, member)) = known.members.iter_mut().find(|(_, member)| member.process == index) else { return };
        // A process that only makes good calls is watched for the sake of another circuit.
        if !call.bad && member.suspected(lane.number).is_none() || member.reports() {
            return;
        }
        member.suspect(lane.number).call(call, guard == Guard::Unknown, &mut manner);
        known.set_manner(lane.number, manner);
        self.take_decisions(now, &Cause { lane, member: number, reason: &Arc::default(), ids: [0; 24] });
    }

    /// Operations that go through a breaker for sure, this one included.
    fn guarded(&mut self, index: u32, lane: Lane, operation: Option<u32>) -> SmallVec<[u32; 4]> {
        let mut guarded = self.habits_of_process(index).map(|habits| habits.guarded(lane)).unwrap_or_default();
        guarded.extend(operation.filter(|operation| !guarded.contains(operation)));
        guarded
    }

    fn suspect_told(&mut self, index: u32, lane: Lane, seen: &Seen<'_>, told: &Told, splits: &mut Splits, now: u64) {
        let (root, operation) = (seen.root, seen.operation.unwrap_or(NO_OPERATION));
        let guarded = self.guarded(index, lane, seen.operation);
        let Some(number) = self.member_of(index, lane.circuit) else { return };
        let config = Arc::clone(&self.config);
        let reason: Arc<str> = config.detection.libraries.get(usize::from(told.rule)).cloned().unwrap_or_default();
        let Some(known) = self.circuits.get_mut(lane.circuit as usize) else { return };
        known.last_seen = now;
        if told.circuit.is_none() && told.meaning.turns_away() {
            known.count_rejection(root.end, now, &config);
        }
        let mut manner = known.manner(lane.number);
        let Some(member) = known.members.get_mut(number).filter(|member| !member.reports()) else { return };
        let suspect = member.suspect(lane.number);
        let mut passed = SmallVec::new();
        match told.meaning {
            Meaning::Opened | Meaning::ProbeFailed => {
                let last = seen.unit.calls.iter().filter(|(other, _)| *other == lane).map(|(_, call)| *call).max_by_key(|call| call.end);
                let call = Through { start: told.start, end: told.end, bad: true, answered: false, operation, route: Route::default() };
                suspect.opened(last.unwrap_or(call), told.meaning == Meaning::ProbeFailed, &mut manner);
                passed = suspect.passed_before(root.start);
            }
            Meaning::Rejected | Meaning::Maybe => {
                let maybe = told.meaning == Meaning::Maybe;
                let in_flight = seen.watch.in_flight(lane, told.at, root.end);
                suspect.reject(
                    Away { start: told.at, end: root.end, maybe },
                    Context { guarded: &guarded, in_flight, sampled: seen.watch.sampled },
                    &mut manner,
                );
                passed = suspect.passed_before(told.at);
            }
            Meaning::ForcedOpen => {
                suspect.forced_open(told.at, root.end, &mut manner);
                passed = suspect.passed_before(told.at);
            }
            Meaning::Full => suspect.full(root.start, root.end, &mut manner),
            Meaning::Limit | Meaning::NoBreaker => suspect.let_through(root.start),
        }
        known.set_manner(lane.number, manner);
        self.take_decisions(now, &Cause { lane, member: number, reason: &reason, ids: told.ids });
        if told.meaning.leaves_open() {
            self.note_passed(index, &TurnedAway { lane, operation, passed, weight: 1.0 }, seen, splits);
        }
    }

    /// Hands on what was decided in an instance of a circuit.
    fn take_decisions(&mut self, now: u64, cause: &Cause<'_>) {
        let Cause { lane, member: number, reason, ids } = *cause;
        let Some(known) = self.circuits.get_mut(lane.circuit as usize) else { return };
        let Some(member) = known.members.get_mut(number) else { return };
        let decisions = member.suspect(lane.number).take_decisions();
        if let Some((last, state)) = member.worst_suspected()
            && (state != State::Closed || member.provisional().is_some())
        {
            known.changed |= member.provisional() != Some(state);
            member.seems(last, state, now);
        }
        if decisions.is_empty() {
            return;
        }
        let instance = Arc::clone(member.instance());
        let breaker = known.lanes().and_then(|lanes| lanes.shown(lane.number, &known.key().name()));
        for decision in decisions {
            let (breaker, reason, instance) = (breaker.clone(), Arc::clone(reason), Arc::clone(&instance));
            known.decide(Decided { decision, member: number, lane: lane.number, instance, breaker, reason, ids });
            known.changed = true;
        }
    }
}

/// Texts of libraries.
type Texts = SmallVec<[Arc<Told>; 1]>;

/// Breakers, and the share of an operation's units that call through each.
type Shares = SmallVec<[(Lane, f32); 4]>;

/// Breakers that turned out to be two: from which, to which, and the routes that go with it.
pub(super) type Splits = SmallVec<[(Lane, Lane, SmallVec<[Route; 4]>); 1]>;
