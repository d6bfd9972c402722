use std::collections::VecDeque;

use smallvec::SmallVec;

use super::{
    super::state::{Change, Source, State},
    lane::Route,
    manner::Manner,
    strikes::Strikes,
};

/// Calls that are remembered before something happens.
const CALLS_MAX: usize = 10;
/// Calls let through while half-open that are remembered.
const PROBES_MAX: usize = 12;
/// A half-open breaker that turns all away for so long has opened again. Nanoseconds.
const FULL: u64 = 2 * SECOND;
/// Failures older than this explain nothing. Nanoseconds.
const QUIET: u64 = 30 * SECOND;
/// Good calls in a row that close a half-open breaker for sure.
const GOOD_IN_A_ROW: usize = 5;
/// Two good calls close it, too, when nothing was turned away for so long. Nanoseconds.
const GOOD_FOR: u64 = 3 * SECOND;

/// Evidence, in nats, by which calls are believed to have stopped: one false alarm in e^12 = 160 000 streaks of missing
/// calls that follow failures, if units call independently of each other.
const STOPPED: f32 = 12.0;
/// After a probe that failed, by which the next are believed to be turned away.
const STOPPED_AGAIN: f32 = 4.0;
/// What proves a breaker that was never seen before: a probe that failed, and so much evidence that nothing follows.
const PROVEN: f32 = 8.0;
/// Silence that is shorter may be a bulkhead, a retry, chance. Nanoseconds.
const STREAK: u64 = SECOND;
/// Silence without a probe for so long is no breaker's. Nanoseconds.
const SILENT_MAX: u64 = 300 * SECOND;
/// What is not believed yet; the oldest is forgotten first.
const HELD_MAX: usize = 24;

const SECOND: u64 = 1_000_000_000;

/// A call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::circuit) struct Through {
    pub(in crate::circuit) start: u64,
    pub(in crate::circuit) end: u64,
    /// It failed, or was much slower than usual.
    pub(in crate::circuit) bad: bool,
    /// Its callee answered.
    pub(in crate::circuit) answered: bool,
    /// The operation it is part of; [`NO_OPERATION`] if that is not known.
    pub(in crate::circuit) operation: u32,
    pub(in crate::circuit) route: Route,
}

/// The operation of a call that is part of none.
pub(in crate::circuit) const NO_OPERATION: u32 = u32::MAX;

/// What is known beside what a suspect sees itself.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::circuit) struct Context<'a> {
    /// Operations that go through the breaker for sure; empty if none is known.
    pub(in crate::circuit) guarded: &'a [u32],
    /// When the last of the calls began that are under way; `None` if none is.
    pub(in crate::circuit) in_flight: Option<u64>,
    /// Most traces are not seen: what happened did so somewhere between two that are.
    pub(in crate::circuit) sampled: bool,
}

/// A call that was turned away.
#[derive(Clone, Copy, Debug)]
pub(in crate::circuit) struct Away {
    pub(in crate::circuit) start: u64,
    pub(in crate::circuit) end: u64,
    /// It may have been something else, and counts only while the breaker is not closed.
    pub(in crate::circuit) maybe: bool,
}

/// A call that was let through while the breaker was not closed.
#[derive(Clone, Copy, Debug)]
pub(in crate::circuit) struct Passed {
    start: u64,
    pub(in crate::circuit) operation: u32,
    pub(in crate::circuit) route: Route,
    pub(in crate::circuit) bad: bool,
}

/// Calls let through while it was not closed that are remembered until others are turned away.
const PASSED_MAX: usize = 16;

/// No breaker lets a probe through so soon after it opened, where it is not even known to guard its operation. Nanoseconds.
const SOON: u64 = 2 * SECOND;

/// A change that was decided: when it happened, and by the end of which span that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::circuit) struct Decision {
    pub(in crate::circuit) change: Change,
    pub(in crate::circuit) source: Source,
    pub(in crate::circuit) at: u64,
    pub(in crate::circuit) decided: u64,
}

/// One instance's breaker, as far as calls, rejections and missing calls tell. Takes them in order of their ends.
#[derive(Debug)]
pub(in crate::circuit) struct Suspect {
    state: Known,
    /// How it was found out that it is not closed.
    source: Source,
    calls: VecDeque<Through>,
    /// When it opened, and the start of the first call that was turned away.
    opened: u64,
    first_rejected: u64,
    /// Start of the first probe.
    attempt: u64,
    probes: SmallVec<[Through; 4]>,
    /// Since when a half-open breaker turned all away.
    full_since: Option<u64>,
    silence: Silence,
    /// Opened by silence alone, which something else than a breaker can cause: what follows is held until it is proven.
    doubted: bool,
    /// The first probe is of an operation that was never seen to be turned away: it may not go through this breaker.
    stray: bool,
    /// No span shows the calls it lets through: operations that it refused before stand for them.
    unseen: bool,
    /// How often silence turned out to be something else.
    refuted: u8,
    held: Vec<Decision>,
    /// When the last change happened.
    decided_at: u64,
    /// Calls let through while it is not closed, since others were turned away last.
    passed: SmallVec<[Passed; 2]>,
    /// Start of the last call that something else turned away behind the breaker, which let it through.
    behind: u64,
    /// As they came.
    failures: Strikes,
    /// The end of what it took last.
    pub(in crate::circuit) last: u64,
    decisions: SmallVec<[Decision; 2]>,
}

/// A streak of missing calls.
#[derive(Clone, Copy, Debug, Default)]
struct Silence {
    /// Start of the first unit without a call, since one was let through that began later.
    since: Option<u64>,
    /// The same, since one was let through that ended later: what was in flight may have filled a bulkhead.
    streak: Option<u64>,
    /// In nats.
    evidence: f32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Closed,
    Open,
    HalfOpen,
    /// Held open by an operator.
    ForcedOpen,
}

impl Known {
    const fn state(self) -> State {
        match self {
            Self::Closed => State::Closed,
            Self::Open => State::Open,
            Self::HalfOpen => State::HalfOpen,
            Self::ForcedOpen => State::ForcedOpen,
        }
    }
}

impl Default for Suspect {
    fn default() -> Self {
        Self {
            state: Known::Closed,
            source: Source::Rejected,
            calls: VecDeque::new(),
            opened: 0,
            first_rejected: 0,
            attempt: 0,
            probes: SmallVec::new(),
            full_since: None,
            silence: Silence::default(),
            doubted: false,
            stray: false,
            unseen: false,
            refuted: 0,
            held: Vec::new(),
            decided_at: 0,
            passed: SmallVec::new(),
            behind: 0,
            failures: Strikes::default(),
            last: 0,
            decisions: SmallVec::new(),
        }
    }
}

impl Suspect {
    pub(in crate::circuit) const fn state(&self) -> State {
        self.state.state()
    }

    /// Whether it is not closed, and there is no doubt that it is a breaker.
    pub(in crate::circuit) fn is_surely_open(&self) -> bool {
        self.state != Known::Closed && !self.doubted
    }

    /// How it was found out that it is not closed.
    pub(in crate::circuit) const fn source(&self) -> Source {
        self.source
    }

    /// Whether there is nothing to remember.
    pub(in crate::circuit) fn is_calm(&self) -> bool {
        self.state == Known::Closed && self.held.is_empty()
    }

    /// Takes the calls for these routes out of what this one remembers: they go through another breaker.
    pub(in crate::circuit) fn split(&mut self, routes: &[Route]) -> Self {
        let (theirs, mine): (Vec<Through>, Vec<Through>) = self.calls.iter().partition(|call| routes.contains(&call.route));
        self.calls = mine.into();
        Self { calls: theirs.into(), last: self.last, ..Self::default() }
    }

    /// What was decided since this was asked last.
    pub(in crate::circuit) fn take_decisions(&mut self) -> SmallVec<[Decision; 2]> {
        std::mem::take(&mut self.decisions)
    }

    fn decide(&mut self, change: Change, at: u64, decided: u64) {
        // Changes follow from each other, also where they are dated back.
        let at = at.max(self.decided_at).min(decided.max(self.decided_at));
        self.decided_at = at;
        let decision = Decision { change, source: self.source, at, decided: decided.max(at) };
        if self.doubted || self.stray {
            if self.held.len() >= HELD_MAX {
                self.held.remove(0);
            }
            self.held.push(decision);
        } else {
            self.decisions.push(decision);
        }
    }

    /// It is a breaker: tells what was held.
    fn believe(&mut self, now: u64) {
        (self.doubted, self.stray) = (false, false);
        self.decisions.extend(self.held.drain(..).map(|held| Decision { decided: held.decided.max(now), ..held }));
    }

    /// It was none.
    fn refute(&mut self) {
        self.held.clear();
        (self.state, self.doubted, self.stray) = (Known::Closed, false, false);
        self.silence = Silence::default();
        self.refuted = self.refuted.saturating_add(1).min(8);
    }

    /// Silence that nothing has ended for long, not even another unit without a call, is no breaker's.
    pub(in crate::circuit) fn expire(&mut self, now: u64) {
        if self.doubted && self.last.saturating_add(SILENT_MAX) < now {
            self.refute();
        }
    }

    /// Whether calls have come in that failed one soon after the other, and lately.
    pub(in crate::circuit) fn is_failing(&self, now: u64) -> bool {
        self.failures.are_close(now)
    }

    /// Whether its last calls went well: a lost span must not blame it.
    pub(in crate::circuit) fn is_well(&self, now: u64) -> bool {
        let last = self.calls.iter().rev().take(3);
        self.state == Known::Closed
            && self.calls.back().is_some_and(|call| now.saturating_sub(call.end) < QUIET)
            && last.into_iter().all(|call| !call.bad)
    }

    /// Whether two of the last five calls went wrong, or three of the last ten.
    pub(in crate::circuit) fn is_distressed(&self, now: u64) -> bool {
        let bad = |call: &&Through| call.bad && now.saturating_sub(call.end) < QUIET;
        let last = |count: usize| self.calls.iter().rev().take(count).filter(bad).count();
        last(5) >= 2 || last(10) >= 3
    }

    /// The end of the last call that failed, or of what it took last.
    pub(in crate::circuit) fn heard(&self) -> u64 {
        self.last.max(self.failures.last())
    }

    /// Notes on arrival that a call failed, given the number of all calls so far; gives the latest end of those it fails
    /// together with, if it is one of [several](Self::is_distressed).
    pub(in crate::circuit) fn fails(&mut self, end: u64, number: u32) -> Option<u64> {
        self.failures.strike(end, number)
    }

    /// A call that was let through. It is a `stray` one if nobody saw its operation turned away yet while others were.
    pub(in crate::circuit) fn call(&mut self, call: Through, stray: bool, manner: &mut Manner) {
        self.last = self.last.max(call.end);
        if self.state == Known::Closed && !self.held.is_empty() && manner.is_proven() {
            self.believe(call.end);
        }
        if self.state != Known::Closed && self.passed.len() < PASSED_MAX {
            self.passed.push(Passed { start: call.start, operation: call.operation, route: call.route, bad: call.bad });
        }
        if stray && self.state == Known::Open && call.start < self.opened.saturating_add(SOON) {
            return;
        }
        if self.state == Known::ForcedOpen {
            // No operator lets single calls through: it was let go of.
            if (!stray || self.unseen && !call.bad) && call.start > self.first_rejected {
                self.set(Known::Closed, call.start, call.end);
                self.remember(call);
            }
            return;
        }
        self.silence.broken_by(&call, self.state != Known::Closed);
        if self.state != Known::Open {
            self.remember(call);
        }
        if self.state == Known::Open && call.start > self.opened && call.start > self.first_rejected {
            if self.doubted && manner.is_proven() {
                self.believe(call.end);
            }
            (self.state, self.attempt, self.full_since) = (Known::HalfOpen, call.start, None);
            self.probes.clear();
            self.remember(call);
            self.stray = stray;
            self.decide(Change::RecoveryAttempt, call.start, call.end);
        }
        if self.state == Known::HalfOpen && call.start >= self.attempt {
            if self.full_since.is_some_and(|since| call.start > since) {
                self.full_since = None;
            }
            if self.stray && !stray && !self.doubted {
                self.believe(call.end);
            }
            if !self.unseen || self.probes.len() < PROBES_MAX {
                self.probes.push(call);
            }
            self.settle(call.end, manner);
        }
    }

    /// An operation that it refused before went through, where no span shows its calls. As the operation may have gone well
    /// without such a call, several that go well for a while are needed to close it.
    pub(in crate::circuit) fn operation_passed(&mut self, operation: Through, manner: &mut Manner) {
        self.unseen = true;
        self.call(operation, true, manner);
    }

    /// Keeps a call that may explain a trip.
    fn remember(&mut self, call: Through) {
        if self.calls.len() >= CALLS_MAX {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    /// Half-open with no rejection so far: closed again?
    fn settle(&mut self, now: u64, manner: &mut Manner) {
        if self.probes.iter().all(|probe| probe.bad) {
            if self.probes.len() >= PROBES_MAX {
                if self.doubted {
                    // Calls went on, and none went well: whatever stopped them was no breaker.
                    return self.refute();
                }
                // All through and all bad: closed by something that was not seen.
                let first = self.probes.first().map_or(now, |probe| probe.end);
                self.recover(first, now, manner);
            }
            return;
        }
        let tail = self.probes.iter().rev().take_while(|probe| !probe.bad).count();
        let many = !self.unseen && (tail >= GOOD_IN_A_ROW || self.probes.len() >= PROBES_MAX);
        if many || tail >= 2 && now.saturating_sub(self.attempt) > GOOD_FOR {
            let at = self.closing_end(manner).unwrap_or(now);
            self.recover(at, now, manner);
        }
    }

    /// The end of the probe that closed it.
    fn closing_end(&self, manner: &Manner) -> Option<u64> {
        if let Some(permits) = manner.permits().filter(|permits| *permits > 1) {
            let mut ends: SmallVec<[u64; PROBES_MAX]> = self.probes.iter().map(|probe| probe.end).collect();
            ends.sort_unstable();
            return ends.get(permits.min(ends.len()).checked_sub(1)?).copied();
        }
        let mut good: SmallVec<[u64; PROBES_MAX]> = self.probes.iter().filter(|probe| !probe.bad).map(|probe| probe.end).collect();
        good.sort_unstable();
        good.get(manner.successes().min(good.len()).checked_sub(1)?).copied()
    }

    fn recover(&mut self, at: u64, now: u64, manner: &mut Manner) {
        if self.doubted {
            // Twice silent for the same time: something waits.
            if manner.waited(self.attempt.saturating_sub(self.opened)) {
                self.believe(now);
            }
        } else if self.stray {
            self.believe(now);
        }
        self.state = Known::Closed;
        self.calls = self.probes.iter().copied().collect();
        self.decide(Change::Recovery, at, now);
        (self.doubted, self.stray, self.silence) = (false, false, Silence::default());
    }

    /// Calls that came through before one was turned away that began then.
    pub(in crate::circuit) fn passed_before(&mut self, start: u64) -> SmallVec<[Passed; 2]> {
        self.passed.drain(..).filter(|passed| passed.start < start).collect()
    }

    /// A half-open breaker that was full turned a call away: a probe is under way that was not seen to end, and it was
    /// not the end of the probing.
    pub(in crate::circuit) fn full(&mut self, start: u64, end: u64, manner: &mut Manner) {
        self.last = self.last.max(end);
        manner.prove();
        self.told_of(end);
        if self.state == Known::Closed {
            self.behind = self.behind.max(start);
        }
    }

    /// A breaker that an operator holds open turned a call away that began then.
    pub(in crate::circuit) fn forced_open(&mut self, start: u64, end: u64, manner: &mut Manner) {
        self.last = self.last.max(end);
        manner.prove();
        self.told_of(end);
        if self.state == Known::ForcedOpen {
            self.first_rejected = self.first_rejected.max(start);
        } else if self.state != Known::Closed || start > self.attempt {
            // What was said before it was let go of, and only now came to its end, is no news.
            (self.opened, self.first_rejected) = (start, start);
            self.set(Known::ForcedOpen, start, end);
        }
    }

    /// An operator's state began, or ended with a call that began then.
    fn set(&mut self, state: Known, at: u64, now: u64) {
        let (from, to) = (self.state.state(), state.state());
        if self.stray {
            self.believe(now);
        }
        (self.state, self.attempt, self.full_since) = (state, at, None);
        (self.silence, self.source) = (Silence::default(), Source::Rejected);
        self.probes.clear();
        self.calls.clear();
        self.decide(Change::StateChange { from, to }, at, now);
    }

    /// A bulkhead or limiter behind the breaker turned a call away that the breaker had let through.
    pub(in crate::circuit) fn let_through(&mut self, start: u64) {
        if self.state == Known::Closed {
            self.behind = self.behind.max(start);
        }
    }

    /// A call that was turned away, and says so.
    pub(in crate::circuit) fn reject(&mut self, away: Away, context: Context<'_>, manner: &mut Manner) {
        let Away { start, end, maybe } = away;
        self.last = self.last.max(end);
        if !maybe {
            manner.prove();
            self.told_of(end);
        }
        match self.state {
            Known::Closed if !maybe => self.open(Change::Trip, start, end, context),
            Known::HalfOpen => {
                if start < self.attempt {
                    // Said before the first probe, and only now come to its end.
                    return;
                }
                let bad = self.probes.iter().any(|probe| probe.bad);
                let running = context.in_flight.is_some() || self.probes.iter().map(|probe| probe.end).max().is_none_or(|newest| start <= newest);
                if self.stray && !maybe && !running && !bad {
                    // It went well and the others are still turned away: it went past the breaker.
                    (self.state, self.stray) = (Known::Open, false);
                    self.held.clear();
                    return;
                }
                let mut start = start;
                if maybe || running || !bad {
                    // Half-open is full, with probes under way that were not seen to end; no breaker opens again on good
                    // calls alone, so wait for a bad one, unless nothing more comes through.
                    if !maybe && !self.probes.is_empty() {
                        self.full_since.get_or_insert(start);
                    }
                    let full = FULL.max(self.slowest() * 3 / 2);
                    let Some(since) = self.full_since.filter(|since| start.saturating_sub(*since) >= full) else { return };
                    start = since;
                }
                self.fail_again(start, end, context, manner);
            }
            // An operator's word stands until a call comes through.
            Known::ForcedOpen if !maybe => self.first_rejected = self.first_rejected.max(start),
            Known::Closed | Known::Open | Known::ForcedOpen => {}
        }
    }

    /// What silence told before is told now by a text: believed, and by the better source.
    fn told_of(&mut self, now: u64) {
        if self.doubted {
            self.held.iter_mut().for_each(|held| held.source = Source::Rejected);
            self.believe(now);
        } else if !self.held.is_empty() && !self.stray {
            // What was held of earlier times was a breaker, too.
            self.decisions.extend(self.held.drain(..).map(|held| Decision { decided: now, ..held }));
        }
        self.source = Source::Rejected;
    }

    /// Calls came through, then none or rejections: did it close in between?
    fn fail_again(&mut self, start: u64, end: u64, context: Context<'_>, manner: &mut Manner) {
        let first_good = self.probes.iter().position(|probe| !probe.bad);
        let first_bad = self.probes.iter().position(|probe| probe.bad);
        let closed_between = match (first_good, first_bad) {
            (Some(good), Some(bad)) => {
                let bad_end = self.probes.get(bad).map_or(0, |probe| probe.end);
                if manner.one_strike() {
                    good < bad && self.probes.iter().any(|probe| probe.start > bad_end)
                } else {
                    self.probes.len() > manner.permits().unwrap_or(3).max(5)
                }
            }
            // It takes several failures to open again, which would have been seen.
            (Some(_), None) => self.probes.len() >= GOOD_IN_A_ROW,
            (None, _) => false,
        };
        if closed_between {
            let at = self.closing_end(manner).unwrap_or(start);
            self.recover(at, end, manner);
            self.open(Change::Trip, start, end, context);
            return;
        }
        if self.stray && !self.doubted {
            self.believe(end);
        }
        let serial = self.probes.iter().zip(self.probes.iter().skip(1)).all(|(one, next)| one.end < next.start);
        match first_good {
            None if self.probes.len() <= PROBES_MAX && serial => manner.failed_after(self.probes.len()),
            // So many successes were not enough to close it.
            Some(0) if serial => manner.not_closed_by(self.probes.iter().take_while(|probe| !probe.bad).count()),
            _ => {}
        }
        self.open(Change::RecoveryAttemptFailed, start, end, context);
    }

    /// When a breaker opened that turned a call away which began then: when a call ended, after the last call it let
    /// through had begun. `None` if no call that ended then went wrong.
    fn opened_by(&self, start: u64, end: u64, context: Context<'_>) -> (Option<u64>, Option<u64>) {
        let before = || self.calls.iter().filter(|call| call.start < start && call.end <= end);
        // What goes past the breaker tells nothing, as far as that is known.
        let through = |call: &&Through| call.operation == NO_OPERATION || context.guarded.contains(&call.operation);
        let any = before().any(|call| through(&call));
        let before = || before().filter(move |call| !any || through(call));
        let behind = Some(self.behind).filter(|behind| *behind < start);
        let last = before().map(|call| call.start).max().map(|last| last.max(behind.max(context.in_flight).unwrap_or(0)));
        let ends = |only_bad: bool| {
            let of = |last: u64| before().filter(move |call| call.end >= last && (call.bad || !only_bad)).map(|call| call.end).min();
            last.and_then(of).filter(|at| start.saturating_sub(*at) <= QUIET)
        };
        (ends(true), ends(false))
    }

    /// The longest of the calls that are remembered.
    fn slowest(&self) -> u64 {
        self.calls.iter().map(|call| call.end - call.start).max().unwrap_or(0)
    }

    fn open(&mut self, change: Change, start: u64, end: u64, context: Context<'_>) {
        let (bad, any) = self.opened_by(start, end, context);
        // A call may go on after the breaker gave it up.
        let seen = bad.or(any).unwrap_or(start).min(start);
        let at = if context.sampled { seen.midpoint(start) } else { seen };
        (self.state, self.opened, self.first_rejected) = (Known::Open, at, start);
        self.silence = Silence::default();
        self.decide(change, at, end);
    }

    /// The text itself says that this call, which ended then, opened it.
    pub(in crate::circuit) fn opened(&mut self, call: Through, was_probe: bool, manner: &mut Manner) {
        self.last = self.last.max(call.end);
        manner.prove();
        self.told_of(call.end);
        if self.state == Known::ForcedOpen {
            self.set(Known::Closed, call.start, call.end);
        }
        if was_probe {
            if self.state == Known::Open && self.attempt == call.start {
                // Others that waited for it were turned away before it could say so.
                return;
            }
            if self.state == Known::Open {
                self.decide(Change::RecoveryAttempt, call.start, call.end);
            } else if self.stray {
                self.believe(call.end);
            }
            if self.state != Known::Closed {
                self.decide(Change::RecoveryAttemptFailed, call.end, call.end);
            } else {
                self.decide(Change::Trip, call.end, call.end);
            }
        } else if self.state != Known::Open {
            if self.state == Known::HalfOpen {
                let at = self.closing_end(manner).unwrap_or(call.start);
                self.recover(at, call.end, manner);
            }
            self.decide(Change::Trip, call.end, call.end);
        }
        (self.state, self.opened, self.first_rejected) = (Known::Open, call.end, call.end);
        self.silence = Silence::default();
    }

    /// A unit that usually calls, and did not; how much that tells is in nats, −ln(1 − its usual share of calls).
    pub(in crate::circuit) fn miss(&mut self, start: u64, end: u64, nats: f32, context: Context<'_>, manner: &mut Manner) {
        self.last = self.last.max(end);
        if self.state == Known::ForcedOpen {
            return;
        }
        if self.state == Known::Open {
            if self.doubted && end.saturating_sub(self.opened) > SILENT_MAX {
                self.refute();
            }
            return;
        }
        if context.in_flight.is_some() && self.state == Known::HalfOpen || self.calls.iter().any(|call| call.start <= start && start < call.end) {
            return;
        }
        let since = *self.silence.since.get_or_insert(start);
        let streak = *self.silence.streak.get_or_insert(start);
        self.silence.evidence += nats;
        let evidence = self.silence.evidence;
        let stopped = evidence >= STOPPED * f32::from(self.refuted + 1) && end.saturating_sub(streak) >= STREAK;
        let source = Source::Silent;
        if self.state == Known::HalfOpen {
            let all_bad = !self.probes.is_empty() && self.probes.iter().all(|probe| probe.bad);
            let needed = if self.doubted && !manner.is_proven() { PROVEN } else { STOPPED_AGAIN };
            if all_bad && evidence >= needed {
                if self.doubted {
                    manner.prove();
                    self.believe(end);
                }
                self.fail_again(since, end, context, manner);
            } else if stopped && self.doubted && !manner.is_proven() {
                // It went well, and then there was silence again: no breaker does that.
                self.refute();
            } else if stopped {
                self.fail_again(since, end, context, manner);
            }
            return;
        }
        let explained = self.is_distressed(since) && (self.opened_by(since, end, context).0.is_some() || manner.is_proven());
        if !stopped || !explained || end.saturating_sub(streak) < self.slowest() * 3 / 2 {
            return;
        }
        (self.source, self.doubted) = (source, true);
        self.open(Change::Trip, since, end, context);
        self.decisions.push(Decision { change: Change::CallsStopped, source, at: since, decided: end });
    }

    /// Bytes on the heap.
    pub(in crate::circuit) fn heap_bytes(&self) -> usize {
        let probes = if self.probes.spilled() { self.probes.capacity() * size_of::<Through>() } else { 0 };
        self.calls.capacity() * size_of::<Through>() + probes + self.held.capacity() * size_of::<Decision>()
    }
}

impl Silence {
    /// A call was let through.
    fn broken_by(&mut self, call: &Through, probing: bool) {
        if self.since.is_some_and(|since| call.start > since) {
            *self = Self::default();
        } else if !probing && self.streak.is_some_and(|streak| call.end > streak) {
            (self.streak, self.evidence) = (None, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn through(start: u64, bad: bool) -> Through {
        Through {
            start: start * SECOND / 10,
            end: start * SECOND / 10 + SECOND / 20,
            bad,
            answered: false,
            operation: NO_OPERATION,
            route: Route::default(),
        }
    }

    fn away(start: u64, maybe: bool) -> Away {
        Away { start, end: start + 1, maybe }
    }

    fn told(suspect: &mut Suspect) -> Vec<(Change, u64)> {
        suspect.take_decisions().iter().map(|decision| (decision.change, decision.at * 20 / SECOND)).collect()
    }

    #[test]
    fn a_trip_is_dated_back_to_the_failure_that_caused_it() {
        let (mut suspect, mut manner) = (Suspect::default(), Manner::default());
        for (start, bad) in [(1, false), (2, true), (3, true)] {
            suspect.call(through(start, bad), false, &mut manner);
        }
        suspect.reject(away(7 * SECOND / 10, false), Context::default(), &mut manner);
        suspect.reject(away(8 * SECOND / 10, false), Context::default(), &mut manner);
        assert_eq!(told(&mut suspect), [(Change::Trip, 7)]);
        assert_eq!(suspect.state(), State::Open);
    }

    #[test]
    fn a_probe_that_fails_and_one_that_succeeds() {
        let (mut suspect, mut manner) = (Suspect::default(), Manner::default());
        suspect.reject(away(SECOND, false), Context::default(), &mut manner);
        suspect.call(through(30, true), false, &mut manner);
        suspect.reject(away(4 * SECOND, false), Context::default(), &mut manner);
        (60..66).for_each(|start| suspect.call(through(start, false), false, &mut manner));
        let changes: Vec<Change> = told(&mut suspect).into_iter().map(|(change, _)| change).collect();
        assert_eq!(changes, [Change::Trip, Change::RecoveryAttempt, Change::RecoveryAttemptFailed, Change::RecoveryAttempt, Change::Recovery]);
    }

    #[test]
    fn a_weak_text_opens_nothing() {
        let (mut suspect, mut manner) = (Suspect::default(), Manner::default());
        suspect.reject(away(SECOND, true), Context::default(), &mut manner);
        assert_eq!((told(&mut suspect), suspect.state()), (vec![], State::Closed));
    }

    #[test]
    fn operations_stand_for_calls_that_no_span_shows() {
        let (mut suspect, mut manner) = (Suspect::default(), Manner::default());
        suspect.reject(away(SECOND, false), Context::default(), &mut manner);
        // One that goes well while others are refused went past the breaker.
        suspect.operation_passed(through(40, false), &mut manner);
        suspect.reject(away(5 * SECOND, false), Context::default(), &mut manner);
        assert_eq!((told(&mut suspect).len(), suspect.state()), (1, State::Open));
        // However many go well at once, a refusal that comes soon after belongs to the same opening.
        (60..80).for_each(|start| suspect.operation_passed(through(start, false), &mut manner));
        assert_eq!((told(&mut suspect), suspect.state()), (vec![], State::HalfOpen));
        (80..95).for_each(|start| suspect.operation_passed(through(start, false), &mut manner));
        assert_eq!(told(&mut suspect), [(Change::RecoveryAttempt, 120), (Change::Recovery, 121)]);
    }

    #[test]
    fn what_an_operator_holds_open_is_no_trip() {
        let (mut suspect, mut manner) = (Suspect::default(), Manner::default());
        (1..5).for_each(|start| suspect.call(through(start, false), false, &mut manner));
        (1..5).for_each(|second| suspect.forced_open(second * SECOND, second * SECOND + 1, &mut manner));
        assert_eq!(suspect.state(), State::ForcedOpen);
        // One without its state is the same breaker's; an operation that was never turned away goes past it.
        suspect.reject(away(5 * SECOND, false), Context::default(), &mut manner);
        suspect.call(through(55, false), true, &mut manner);
        assert_eq!(suspect.state(), State::ForcedOpen);
        (60..70).for_each(|start| suspect.call(through(start, false), false, &mut manner));
        // Said before it was let go of, and come to its end later.
        suspect.forced_open(59 * SECOND / 10, 8 * SECOND, &mut manner);
        let (from, to) = (State::Closed, State::ForcedOpen);
        let expected = [(Change::StateChange { from, to }, 20), (Change::StateChange { from: to, to: from }, 120)];
        assert_eq!((told(&mut suspect), suspect.state()), (expected.to_vec(), State::Closed));
        // From open, too; and a trip follows as ever.
        suspect.reject(away(9 * SECOND, false), Context::default(), &mut manner);
        suspect.forced_open(10 * SECOND, 10 * SECOND + 1, &mut manner);
        let changes: Vec<Change> = told(&mut suspect).into_iter().map(|(change, _)| change).collect();
        assert_eq!(changes, [Change::Trip, Change::StateChange { from: State::Open, to: State::ForcedOpen }]);
    }

    proptest! {
        /// Whatever comes, trips and recoveries take turns, each later than the one before, and all of it is told or none.
        #[test]
        fn changes_follow_from_each_other(seen in prop::collection::vec((0_u8..10, 0_u64..30), 0..300)) {
            let (mut suspect, mut manner) = (Suspect::default(), Manner::default());
            let (mut now, mut last) = (0, 0);
            for (what, step) in seen {
                now += step;
                match what {
                    0..3 => suspect.call(through(now, what == 1), what == 2, &mut manner),
                    3 | 4 => suspect.reject(away(now * SECOND / 10, what == 4), Context::default(), &mut manner),
                    5 => suspect.opened(through(now, true), now % 2 == 0, &mut manner),
                    6 => suspect.expire(now * SECOND / 10),
                    7 => suspect.forced_open(now * SECOND / 10, now * SECOND / 10 + 1, &mut manner),
                    _ => suspect.miss(now * SECOND / 10, now * SECOND / 10 + 1, 4.6, Context::default(), &mut manner),
                }
            }
            prop_assert!(suspect.held.len() <= HELD_MAX);
            let (mut open, mut probing, mut forced) = (false, false, false);
            for decision in suspect.take_decisions() {
                prop_assert!(decision.at <= decision.decided);
                if decision.change == Change::CallsStopped {
                    continue;
                }
                prop_assert!(decision.at >= last);
                last = decision.at;
                match decision.change {
                    Change::StateChange { from, to } => {
                        prop_assert_eq!((from == State::ForcedOpen, to == State::ForcedOpen), (forced, !forced));
                        (open, probing, forced) = (false, false, !forced);
                    }
                    Change::Trip => { prop_assert!(!open && !forced); open = true; probing = false; }
                    Change::RecoveryAttempt => { prop_assert!(open && !probing); probing = true; }
                    Change::RecoveryAttemptFailed => { prop_assert!(open && probing); probing = false; }
                    Change::Recovery => { prop_assert!(open && probing); open = false; }
                    _ => prop_assert!(false),
                }
            }
        }
    }
}
