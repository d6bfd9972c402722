use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    circuit::Changes,
    detect::suspect::Suspect,
    state::{Breaker, Ids, Observation, Source, State},
};

/// The most evidence that one instance keeps between two ticks of the clock.
const EVIDENCE_MAX: usize = 256;

/// Failures older than this explain nothing. Nanoseconds.
const OLD: u64 = 60_000_000_000;

/// What an observation is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) observation: Observation,
    /// 0 for a state that some call found; else its place among the transitions that the span's events tell of.
    pub(super) step: u8,
    /// Whether it is told as a change.
    pub(super) changes: bool,
}

impl Evidence {
    /// What decides the order in which evidence is taken: never the order of arrival.
    pub(super) const fn rank(&self) -> (u64, u64, Ids, u8) {
        let Observation { order, at, ids, .. } = self.observation;
        (order, at, ids, self.step)
    }
}

/// One instance of a circuit.
#[derive(Debug)]
pub(super) struct Member {
    /// Index of its process.
    pub(super) process: u32,
    instance: Arc<str>,
    breaker: Breaker,
    /// The state as of the newest observation, whether final or not.
    newest: Option<(u64, State)>,
    /// Whether calls and rejections may move the state that is not final.
    doubt: Doubt,
    /// The earliest end of a call.
    used_since: u64,
    /// Calls, to tell how close failures are to each other; begins anew at 2³².
    calls: u32,
    /// What most instances never have.
    more: Option<Box<More>>,
}

/// How far a state that is not final, and that calls and rejections tell of, is to be trusted.
///
/// One small number, since there are many instances: the second of the clock since when the breaker seems not to be closed,
/// while no final state confirms it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Doubt(u32);

impl Doubt {
    /// No such state is shown, or a final one confirmed it.
    const CLEAR: Self = Self(0);
    /// A state was shown that no final one confirmed in time: until a final state tells of a breaker, no other is shown.
    const LAPSED: Self = Self(u32::MAX);

    fn since(now: u64) -> Self {
        Self(u32::try_from(now / SECOND).unwrap_or(u32::MAX).clamp(1, u32::MAX - 1))
    }

    /// Since when, in nanoseconds; `None` if it is neither.
    fn begun(self) -> Option<u64> {
        (self != Self::CLEAR && self != Self::LAPSED).then(|| u64::from(self.0) * SECOND)
    }
}

const SECOND: u64 = 1_000_000_000;

/// What is kept of an instance whose breaker did something.
#[derive(Debug, Default)]
struct More {
    /// Reported, and not final yet.
    evidence: Vec<Evidence>,
    /// What calls and rejections tell of each of the circuit's breakers.
    lanes: SmallVec<[Suspected; 1]>,
}

/// One of the breakers.
#[derive(Debug, Default)]
struct Suspected {
    number: u8,
    suspect: Suspect,
    /// The final state, as far as calls and rejections tell.
    detected: Option<State>,
}

impl More {
    fn lane(&mut self, number: u8) -> &mut Suspected {
        let at = self.lanes.iter().position(|lane| lane.number == number).unwrap_or_else(|| {
            self.lanes.push(Suspected { number, ..Suspected::default() });
            self.lanes.len() - 1
        });
        // It is there: found or put there.
        #[expect(clippy::indexing_slicing, reason = "the position of one that is there")]
        &mut self.lanes[at]
    }
}

impl Member {
    pub(super) const fn new(process: u32, instance: Arc<str>) -> Self {
        Self { process, instance, breaker: Breaker { known: None }, newest: None, doubt: Doubt::CLEAR, used_since: u64::MAX, calls: 0, more: None }
    }

    pub(super) const fn instance(&self) -> &Arc<str> {
        &self.instance
    }

    /// Notes that a call ended.
    #[inline]
    pub(super) fn used(&mut self, end: u64) {
        self.used_since = self.used_since.min(end);
        self.calls = self.calls.wrapping_add(1);
    }

    /// Keeps an observation until its time is final; `false` if there is no room for it.
    ///
    /// Of states that calls found, the first and the last of each in a bucket are kept, whatever the order of
    /// arrival; transitions are all kept.
    pub(super) fn keep(&mut self, evidence: Evidence, bucket_size: u64) -> bool {
        let seen = (evidence.observation.at, evidence.observation.state);
        if self.newest.is_none_or(|newest| newest.0 <= seen.0) {
            self.newest = Some(seen);
        }
        if evidence.step == 0 {
            let bucket = evidence.observation.order / bucket_size;
            let alike = |other: &Evidence| {
                other.step == 0 && other.observation.state == evidence.observation.state && other.observation.order / bucket_size == bucket
            };
            let kept = self.more.as_ref().map(|more| more.evidence.as_slice()).unwrap_or_default();
            let mut found = kept.iter().enumerate().filter(|(_, other)| alike(other)).map(|(at, _)| at);
            if let (Some(one), Some(other)) = (found.next(), found.next()) {
                self.widen(one, other, evidence);
                return true;
            }
        }
        let kept = &mut self.more.get_or_insert_default().evidence;
        let room = kept.len() < EVIDENCE_MAX;
        if room {
            kept.push(evidence);
        }
        room
    }

    /// Lets new evidence take the place of the first or the last, if it is before or after both.
    fn widen(&mut self, one: usize, other: usize, evidence: Evidence) {
        let Some(kept) = self.more.as_mut().map(|more| &mut more.evidence) else { return };
        let rank = |index: usize| kept.get(index).map(Evidence::rank);
        let (least, most) = if rank(one) <= rank(other) { (one, other) } else { (other, one) };
        let replaced = if Some(evidence.rank()) < rank(least) {
            least
        } else if Some(evidence.rank()) > rank(most) {
            most
        } else {
            return;
        };
        if let Some(place) = kept.get_mut(replaced) {
            *place = evidence;
        }
    }

    /// Takes out what was observed before this time.
    pub(super) fn take_due(&mut self, before: u64) -> impl Iterator<Item = Evidence> + use<> {
        let kept = self.more.as_mut().map(|more| std::mem::take(&mut more.evidence)).unwrap_or_default();
        let (due, later): (Vec<Evidence>, Vec<Evidence>) = kept.into_iter().partition(|evidence| evidence.observation.order < before);
        if let Some(more) = &mut self.more {
            more.evidence = later;
        }
        due.into_iter()
    }

    pub(super) fn observe(&mut self, evidence: &Evidence) -> Changes {
        // Who tells that it opened tells that it was closed before.
        let opens = evidence.changes && evidence.observation.state == State::Open;
        self.breaker.observe(&evidence.observation, opens || self.used_since < evidence.observation.order)
    }

    pub(super) fn provisional(&self) -> Option<State> {
        self.newest.map(|(_, state)| state)
    }

    /// The worst state of its breakers that is final; `None` where none is known.
    pub(super) fn state(&self) -> Option<State> {
        let worse = |state: &State| match state {
            State::Open | State::ForcedOpen => 2,
            State::HalfOpen => 1,
            State::Closed | State::Disabled => 0,
        };
        let detected = || self.more.as_ref()?.lanes.iter().filter_map(|lane| lane.detected).max_by_key(worse);
        self.breaker.state().or_else(detected)
    }

    pub(super) fn is_tripped(&self) -> bool {
        let open = |state: Option<State>| matches!(state, Some(State::Open | State::HalfOpen));
        match self.breaker.state() {
            Some(state) => open(Some(state)),
            None => self.more.as_ref().is_some_and(|more| more.lanes.iter().any(|lane| open(lane.detected))),
        }
    }

    pub(super) fn has_evidence(&self) -> bool {
        self.more.as_ref().is_some_and(|more| !more.evidence.is_empty())
    }

    /// Whether the breaker's own instrumentation tells its state: then nothing else is asked.
    pub(super) const fn reports(&self) -> bool {
        self.breaker.known.is_some()
    }

    /// Whether it tells of its breaker, or something else does without doubt.
    pub(super) fn has_breaker(&self) -> bool {
        self.reports() || self.more.as_ref().is_some_and(|more| more.lanes.iter().any(|lane| lane.suspect.is_surely_open()))
    }

    /// Calls so far.
    pub(super) const fn calls(&self) -> u32 {
        self.calls
    }

    /// What calls and rejections tell; begins with the first of them.
    pub(super) fn suspect(&mut self, number: u8) -> &mut Suspect {
        &mut self.more.get_or_insert_default().lane(number).suspect
    }

    /// What they tell, if there were any.
    pub(super) fn suspected(&self, number: u8) -> Option<&Suspect> {
        self.more.as_ref()?.lanes.iter().find(|lane| lane.number == number).map(|lane| &lane.suspect)
    }

    /// The worst that calls and rejections tell of any of the breakers, and the end of what told it.
    pub(super) fn worst_suspected(&self) -> Option<(u64, State)> {
        let lanes = self.more.as_ref().map(|more| more.lanes.as_slice()).unwrap_or_default();
        let last = lanes.iter().map(|lane| lane.suspect.last).max()?;
        let any = |state: State| lanes.iter().any(|lane| lane.suspect.state() == state);
        Some((last, [State::Open, State::ForcedOpen, State::HalfOpen].into_iter().find(|state| any(*state)).unwrap_or(State::Closed)))
    }

    /// Whether calls have come in that failed one soon after the other, and lately.
    pub(super) fn is_failing(&self, now: u64) -> bool {
        self.more.as_ref().is_some_and(|more| more.lanes.iter().any(|lane| lane.suspect.is_failing(now)))
    }

    /// How the worst of its breakers was found out.
    pub(super) fn suspected_source(&self) -> Option<Source> {
        let lanes = self.more.as_ref().map(|more| more.lanes.as_slice()).unwrap_or_default();
        lanes.iter().find(|lane| lane.suspect.state() != State::Closed).map(|lane| lane.suspect.source())
    }

    /// Notes a state that is final.
    pub(super) fn detect(&mut self, number: u8, state: State) {
        self.more.get_or_insert_default().lane(number).detected = Some(state);
        if state != State::Closed {
            if self.doubt == Doubt::LAPSED {
                self.newest = Some((self.newest.map_or(0, |(at, _)| at), state));
            }
            self.doubt = Doubt::CLEAR;
        }
    }

    /// Notes a state that is not final yet, observed at `at`, at this time of the clock. `false` if it is not shown: one
    /// that was shown before was never confirmed.
    pub(super) fn seems(&mut self, at: u64, state: State, now: u64) -> bool {
        if self.reports() || self.newest.is_some_and(|newest| newest.0 > at) {
            return true;
        }
        if state != State::Closed && !self.is_tripped() {
            match self.doubt {
                Doubt::CLEAR => self.doubt = Doubt::since(now),
                Doubt::LAPSED => return false,
                _ => {}
            }
        }
        self.newest = Some((at, state));
        true
    }

    /// Goes back to the final state where none confirmed within `allowed` nanoseconds of the clock that the breaker is not
    /// closed. `true` if the state that is shown changed.
    pub(super) fn lapse(&mut self, now: u64, allowed: u64) -> bool {
        let Some(since) = self.doubt.begun() else { return false };
        let is_shown = self.newest.is_some_and(|(_, state)| state != State::Closed);
        if self.is_tripped() || !is_shown {
            self.doubt = Doubt::CLEAR;
            return false;
        }
        if now < since.saturating_add(allowed) {
            return false;
        }
        self.doubt = Doubt::LAPSED;
        self.newest = self.newest.and_then(|(at, _)| Some((at, self.state()?)));
        true
    }

    /// Forgets failures that are too old to explain anything.
    pub(super) fn calm_since(&mut self, now: u64) {
        let lanes = self.more.as_ref().map(|more| more.lanes.as_slice()).unwrap_or_default();
        if lanes.iter().map(|lane| lane.suspect.heard()).max().is_some_and(|last| last.saturating_add(OLD) < now) {
            self.calm();
        }
    }

    /// Lets go of silence that went on for too long to be a breaker's.
    pub(super) fn expire(&mut self, now: u64) {
        let lanes = self.more.iter_mut().flat_map(|more| &mut more.lanes);
        lanes.for_each(|lane| lane.suspect.expire(now));
    }

    /// Forgets what calls told: its breakers are others from now on.
    pub(super) fn forget_suspects(&mut self) {
        if let Some(more) = &mut self.more {
            more.lanes.clear();
        }
        self.newest = self.newest.filter(|_| self.reports());
    }

    /// Forgets what calls told, where the breaker is closed and there is nothing to tell.
    pub(super) fn calm(&mut self) {
        let closed = |more: &More| more.evidence.is_empty() && more.lanes.iter().all(|lane| lane.suspect.is_calm());
        if !self.is_tripped() && self.more.as_deref().is_none_or(closed) {
            self.more = None;
            // What seemed so on arrival and was nothing is forgotten as well.
            self.newest = self.newest.filter(|_| self.reports());
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let lanes = |more: &More| {
            let spilled = if more.lanes.spilled() { more.lanes.capacity() * size_of::<Suspected>() } else { 0 };
            spilled + more.lanes.iter().map(|lane| lane.suspect.heap_bytes()).sum::<usize>()
        };
        self.more.as_ref().map_or(0, |more| size_of::<More>() + more.evidence.capacity() * size_of::<Evidence>() + lanes(more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: u64 = 15 * SECOND;

    fn member() -> Member {
        Member::new(0, "a".into())
    }

    #[test]
    fn a_state_that_no_final_one_confirms_lapses_and_is_not_shown_again() {
        let mut member = member();
        assert!(member.seems(1, State::Open, 100 * SECOND) && member.seems(5, State::Open, 105 * SECOND));
        assert!(!member.lapse(114 * SECOND, ALLOWED));
        assert_eq!(member.provisional(), Some(State::Open));
        assert!(member.lapse(115 * SECOND, ALLOWED), "the first one counts, however often it is said again");
        assert_eq!(member.provisional(), None);
        assert!(!member.seems(20, State::Open, 120 * SECOND));
        assert_eq!(member.provisional(), None);
        // A final state tells that there is a breaker.
        member.detect(0, State::Open);
        member.detect(0, State::Closed);
        assert!(member.seems(30, State::Open, 130 * SECOND));
        assert_eq!(member.provisional(), Some(State::Open));
    }

    #[test]
    fn a_state_that_a_final_one_confirms_holds() {
        let mut member = member();
        member.seems(1, State::Open, 100 * SECOND);
        member.detect(0, State::Open);
        assert!(!member.lapse(1_000 * SECOND, ALLOWED));
        assert_eq!(member.provisional(), Some(State::Open));
    }

    #[test]
    fn a_final_state_after_a_lapse_shows() {
        let mut member = member();
        member.seems(1, State::Open, 100 * SECOND);
        assert!(member.lapse(200 * SECOND, ALLOWED));
        member.detect(0, State::Open);
        assert_eq!(member.provisional(), Some(State::Open));
    }
}
