use std::sync::Arc;

use super::{
    circuit::Changes,
    state::{Breaker, Ids, Observation, State},
};

/// The most evidence that one instance keeps between two ticks of the clock.
const EVIDENCE_MAX: usize = 256;

/// What an observation is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) observation: Observation,
    /// 0 for a state that some call found; else its place among the transitions that the span's events tell of.
    pub(super) step: u8,
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
    /// The earliest end of a call.
    used_since: u64,
    /// Not final yet.
    evidence: Vec<Evidence>,
}

impl Member {
    pub(super) const fn new(process: u32, instance: Arc<str>) -> Self {
        Self { process, instance, breaker: Breaker { known: None }, newest: None, used_since: u64::MAX, evidence: Vec::new() }
    }

    pub(super) const fn instance(&self) -> &Arc<str> {
        &self.instance
    }

    /// Notes that a call ended.
    #[inline]
    pub(super) fn used(&mut self, end: u64) {
        self.used_since = self.used_since.min(end);
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
            let mut found = self.evidence.iter().enumerate().filter(|(_, other)| alike(other)).map(|(at, _)| at);
            if let (Some(one), Some(other)) = (found.next(), found.next()) {
                self.widen(one, other, evidence);
                return true;
            }
        }
        let room = self.evidence.len() < EVIDENCE_MAX;
        if room {
            self.evidence.push(evidence);
        }
        room
    }

    /// Lets new evidence take the place of the first or the last, if it is before or after both.
    fn widen(&mut self, one: usize, other: usize, evidence: Evidence) {
        let rank = |index: usize| self.evidence.get(index).map(Evidence::rank);
        let (least, most) = if rank(one) <= rank(other) { (one, other) } else { (other, one) };
        let replaced = if Some(evidence.rank()) < rank(least) {
            least
        } else if Some(evidence.rank()) > rank(most) {
            most
        } else {
            return;
        };
        if let Some(place) = self.evidence.get_mut(replaced) {
            *place = evidence;
        }
    }

    /// Takes out what was observed before this time.
    pub(super) fn take_due(&mut self, before: u64) -> impl Iterator<Item = Evidence> + use<> {
        let (due, later): (Vec<Evidence>, Vec<Evidence>) =
            std::mem::take(&mut self.evidence).into_iter().partition(|evidence| evidence.observation.order < before);
        self.evidence = later;
        due.into_iter()
    }

    pub(super) fn observe(&mut self, evidence: &Evidence) -> Changes {
        self.breaker.observe(&evidence.observation, self.used_since < evidence.observation.order)
    }

    pub(super) fn provisional(&self) -> Option<State> {
        self.newest.map(|(_, state)| state)
    }

    pub(super) fn is_tripped(&self) -> bool {
        matches!(self.breaker.state(), Some(State::Open | State::HalfOpen))
    }

    pub(super) const fn has_evidence(&self) -> bool {
        !self.evidence.is_empty()
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.evidence.capacity() * size_of::<Evidence>()
    }
}
