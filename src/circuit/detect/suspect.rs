use std::collections::VecDeque;

use smallvec::SmallVec;

use super::super::state::{Change, State};

/// Calls that are remembered before something happens.
const CALLS_MAX: usize = 8;
/// Calls let through while half-open that are remembered.
const PROBES_MAX: usize = 12;
/// A half-open breaker that turns all away for so long has opened again. Nanoseconds.
const FULL: u64 = 2_000_000_000;
/// Failures older than this explain nothing. Nanoseconds.
const QUIET: u64 = 30_000_000_000;
/// Good calls in a row that close a half-open breaker for sure.
const GOOD_IN_A_ROW: usize = 5;
/// Two good calls close it, too, when nothing was turned away for so long. Nanoseconds.
const GOOD_FOR: u64 = 3_000_000_000;

/// A call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::circuit) struct Through {
    pub(in crate::circuit) start: u64,
    pub(in crate::circuit) end: u64,
    pub(in crate::circuit) bad: bool,
}

/// What all instances of a circuit have in common: how many probes its breaker lets through before it decides.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::circuit) struct Permits {
    /// How often so many probes were seen to fail before it opened again, from one on.
    seen: [u16; PROBES_MAX],
}

impl Permits {
    fn learn(&mut self, probes: usize) {
        if let Some(seen) = probes.checked_sub(1).and_then(|at| self.seen.get_mut(at)) {
            *seen = seen.saturating_add(1);
        }
    }

    /// The usual number, once it was seen twice.
    fn usual(&self) -> Option<usize> {
        let all: u32 = self.seen.iter().map(|count| u32::from(*count)).sum();
        let most = self.seen.iter().zip(1..).max_by_key(|(count, probes)| (**count, usize::MAX - probes)).map(|(_, probes)| probes);
        most.filter(|_| all >= 2)
    }

    /// Whether one bad probe opens it again.
    fn one_strike(&self) -> bool {
        self.usual() == Some(1)
    }
}

/// A change that was decided: when it happened, and by the end of which span that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::circuit) struct Decision {
    pub(in crate::circuit) change: Change,
    pub(in crate::circuit) at: u64,
    pub(in crate::circuit) decided: u64,
}

/// One instance's breaker, as far as calls and rejections tell. Takes them in order of their ends.
#[derive(Debug, Default)]
pub(in crate::circuit) struct Suspect {
    state: Known,
    calls: VecDeque<Through>,
    /// When it opened, and the start of the first call that was turned away.
    opened: u64,
    first_rejected: u64,
    /// Start of the first probe.
    attempt: u64,
    probes: SmallVec<[Through; 4]>,
    /// Since when a half-open breaker turned all away.
    full_since: Option<u64>,
    /// The end of what it took last.
    pub(in crate::circuit) last: u64,
    decisions: SmallVec<[Decision; 2]>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    #[default]
    Closed,
    Open,
    HalfOpen,
}

impl Suspect {
    pub(in crate::circuit) const fn state(&self) -> State {
        match self.state {
            Known::Closed => State::Closed,
            Known::Open => State::Open,
            Known::HalfOpen => State::HalfOpen,
        }
    }

    /// What was decided since this was asked last.
    pub(in crate::circuit) fn take_decisions(&mut self) -> SmallVec<[Decision; 2]> {
        std::mem::take(&mut self.decisions)
    }

    fn decide(&mut self, change: Change, at: u64, decided: u64) {
        self.decisions.push(Decision { change, at, decided });
    }

    /// Whether its last calls went well: a lost span must not blame it.
    pub(in crate::circuit) fn is_well(&self, now: u64) -> bool {
        let last = self.calls.iter().rev().take(3);
        self.state == Known::Closed
            && self.calls.back().is_some_and(|call| now.saturating_sub(call.end) < 5_000_000_000)
            && last.into_iter().all(|call| !call.bad)
    }

    /// A call that was let through.
    pub(in crate::circuit) fn call(&mut self, call: Through, permits: &Permits) {
        self.last = self.last.max(call.end);
        if self.state != Known::Open {
            self.remember(call);
        }
        if self.state == Known::Open && call.start > self.opened && call.start > self.first_rejected {
            (self.state, self.attempt, self.full_since) = (Known::HalfOpen, call.start, None);
            self.probes.clear();
            self.remember(call);
            self.decide(Change::RecoveryAttempt, call.start, call.end);
        }
        if self.state == Known::HalfOpen && call.start >= self.attempt {
            if self.full_since.is_some_and(|since| call.start > since) {
                self.full_since = None;
            }
            self.probes.push(call);
            self.settle(call.end, permits);
        }
    }

    /// Keeps a call that may explain a trip.
    pub(in crate::circuit) fn remember(&mut self, call: Through) {
        self.last = self.last.max(call.end);
        if self.calls.len() >= CALLS_MAX {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    /// Half-open with no rejection so far: closed again?
    fn settle(&mut self, now: u64, permits: &Permits) {
        if self.probes.iter().all(|probe| probe.bad) {
            if self.probes.len() >= PROBES_MAX {
                // All through and all bad: closed by something that was not seen.
                let first = self.probes.first().map_or(now, |probe| probe.end);
                self.recover(first, now);
            }
            return;
        }
        let tail = self.probes.iter().rev().take_while(|probe| !probe.bad).count();
        if tail >= GOOD_IN_A_ROW || tail >= 2 && now.saturating_sub(self.attempt) > GOOD_FOR || self.probes.len() >= PROBES_MAX {
            let end = self.closing_end(permits).unwrap_or(now);
            self.recover(end, now);
        }
    }

    /// The end of the probe that closed it.
    fn closing_end(&self, permits: &Permits) -> Option<u64> {
        let needed = permits.usual().unwrap_or(3);
        if !permits.one_strike() && needed > 1 {
            let mut ends: SmallVec<[u64; PROBES_MAX]> = self.probes.iter().map(|probe| probe.end).collect();
            ends.sort_unstable();
            return ends.get(needed.min(ends.len()).checked_sub(1)?).copied();
        }
        self.probes.iter().find(|probe| !probe.bad).map(|probe| probe.end)
    }

    fn recover(&mut self, at: u64, now: u64) {
        self.state = Known::Closed;
        self.calls = self.probes.iter().copied().collect();
        self.decide(Change::Recovery, at, now);
    }

    /// A call that was turned away. One that only may have been counts while the breaker is not closed.
    pub(in crate::circuit) fn reject(&mut self, start: u64, end: u64, maybe: bool, permits: &mut Permits) {
        self.last = self.last.max(end);
        match self.state {
            Known::Closed if !maybe => self.open(Change::Trip, start, end),
            Known::HalfOpen => {
                let bad = self.probes.iter().any(|probe| probe.bad);
                let running = self.probes.iter().map(|probe| probe.end).max().is_none_or(|newest| start <= newest);
                let mut start = start;
                if maybe || running || !bad {
                    // Half-open is full, with probes under way that were not seen to end; no breaker opens again on good
                    // calls alone, so wait for a bad one, unless nothing more comes through.
                    if !maybe && !self.probes.is_empty() {
                        self.full_since.get_or_insert(start);
                    }
                    let Some(since) = self.full_since.filter(|since| start.saturating_sub(*since) >= FULL) else { return };
                    start = since;
                }
                self.fail_again(start, end, permits);
            }
            Known::Closed | Known::Open => {}
        }
    }

    /// Calls came through, then rejections: did it close in between?
    fn fail_again(&mut self, start: u64, end: u64, permits: &mut Permits) {
        let first_good = self.probes.iter().position(|probe| !probe.bad);
        let first_bad = self.probes.iter().position(|probe| probe.bad);
        let closed_between = match (first_good, first_bad) {
            (Some(good), Some(bad)) => {
                let bad_end = self.probes.get(bad).map_or(0, |probe| probe.end);
                if permits.one_strike() {
                    good < bad && self.probes.iter().any(|probe| probe.start > bad_end)
                } else {
                    self.probes.len() > permits.usual().unwrap_or(3).max(5)
                }
            }
            (Some(_), None) => true,
            (None, _) => false,
        };
        if closed_between {
            let at = self.closing_end(permits).unwrap_or(start);
            self.recover(at, end);
            self.open(Change::Trip, start, end);
            return;
        }
        let serial = self.probes.iter().zip(self.probes.iter().skip(1)).all(|(one, next)| one.end < next.start);
        if first_good.is_none() && self.probes.len() <= PROBES_MAX && serial {
            permits.learn(self.probes.len());
        }
        self.open(Change::RecoveryAttemptFailed, start, end);
    }

    /// Opens, dated back: a breaker opens when a call ends, after the last call it let through had begun.
    fn open(&mut self, change: Change, start: u64, end: u64) {
        let before = || self.calls.iter().filter(|call| call.start < start && call.end <= end);
        let last = before().map(|call| call.start).max();
        let ends = |only_bad: bool| {
            let of = |last: u64| before().filter(move |call| call.end >= last && (call.bad || !only_bad)).map(|call| call.end).min();
            last.and_then(of)
        };
        let at = ends(true).or_else(|| ends(false)).filter(|at| start.saturating_sub(*at) <= QUIET).unwrap_or(start);
        (self.state, self.opened, self.first_rejected) = (Known::Open, at, start);
        self.decide(change, at, end);
    }

    /// The text itself says that this call, which ended then, opened it.
    pub(in crate::circuit) fn opened(&mut self, call: Through, was_probe: bool, permits: &Permits) {
        self.last = self.last.max(call.end);
        if was_probe {
            if self.state == Known::Open {
                self.decide(Change::RecoveryAttempt, call.start, call.end);
            }
            if self.state != Known::Closed {
                self.decide(Change::RecoveryAttemptFailed, call.end, call.end);
            } else {
                self.decide(Change::Trip, call.end, call.end);
            }
        } else if self.state != Known::Open {
            if self.state == Known::HalfOpen {
                let at = self.closing_end(permits).unwrap_or(call.start);
                self.recover(at, call.end);
            }
            self.decide(Change::Trip, call.end, call.end);
        }
        (self.state, self.opened, self.first_rejected) = (Known::Open, call.end, call.end);
    }

    /// Bytes on the heap.
    pub(in crate::circuit) fn heap_bytes(&self) -> usize {
        let probes = if self.probes.spilled() { self.probes.capacity() * size_of::<Through>() } else { 0 };
        self.calls.capacity() * size_of::<Through>() + probes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn through(start: u64, bad: bool) -> Through {
        Through { start: start * SECOND / 10, end: start * SECOND / 10 + SECOND / 20, bad }
    }

    fn told(suspect: &mut Suspect) -> Vec<(Change, u64)> {
        suspect.take_decisions().iter().map(|decision| (decision.change, decision.at * 20 / SECOND)).collect()
    }

    #[test]
    fn a_trip_is_dated_back_to_the_failure_that_caused_it() {
        let (mut suspect, mut permits) = (Suspect::default(), Permits::default());
        for (start, bad) in [(1, false), (2, true), (3, true)] {
            suspect.call(through(start, bad), &permits);
        }
        suspect.reject(7 * SECOND / 10, 7 * SECOND / 10 + 1, false, &mut permits);
        suspect.reject(8 * SECOND / 10, 8 * SECOND / 10 + 1, false, &mut permits);
        assert_eq!(told(&mut suspect), [(Change::Trip, 7)]);
        assert_eq!(suspect.state(), State::Open);
    }

    #[test]
    fn a_probe_that_fails_and_one_that_succeeds() {
        let (mut suspect, mut permits) = (Suspect::default(), Permits::default());
        suspect.reject(SECOND, SECOND + 1, false, &mut permits);
        suspect.call(through(30, true), &permits);
        suspect.reject(4 * SECOND, 4 * SECOND + 1, false, &mut permits);
        (60..66).for_each(|start| suspect.call(through(start, false), &permits));
        let changes: Vec<Change> = told(&mut suspect).into_iter().map(|(change, _)| change).collect();
        assert_eq!(changes, [Change::Trip, Change::RecoveryAttempt, Change::RecoveryAttemptFailed, Change::RecoveryAttempt, Change::Recovery]);
    }

    #[test]
    fn a_weak_text_opens_nothing() {
        let (mut suspect, mut permits) = (Suspect::default(), Permits::default());
        suspect.reject(SECOND, SECOND + 1, true, &mut permits);
        assert_eq!((told(&mut suspect), suspect.state()), (vec![], State::Closed));
    }

    proptest! {
        /// Whatever comes, trips and recoveries take turns.
        #[test]
        fn changes_follow_from_each_other(seen in prop::collection::vec((0_u8..5, 0_u64..30), 0..200)) {
            let (mut suspect, mut permits) = (Suspect::default(), Permits::default());
            let mut now = 0;
            for (what, step) in seen {
                now += step;
                match what {
                    0 | 1 => suspect.call(through(now, what == 1), &permits),
                    2 | 3 => suspect.reject(now * SECOND / 10, now * SECOND / 10 + 1, what == 3, &mut permits),
                    _ => suspect.opened(through(now, true), now % 2 == 0, &permits),
                }
            }
            let (mut open, mut probing) = (false, false);
            for decision in suspect.take_decisions() {
                prop_assert!(decision.at <= decision.decided);
                match decision.change {
                    Change::Trip => { prop_assert!(!open); open = true; probing = false; }
                    Change::RecoveryAttempt => { prop_assert!(open && !probing); probing = true; }
                    Change::RecoveryAttemptFailed => { prop_assert!(open && probing); probing = false; }
                    Change::Recovery => { prop_assert!(open && probing); open = false; }
                    Change::StateChange { .. } => prop_assert!(false),
                }
            }
        }
    }
}
