//! The state of a breaker, what may change it, and how.

use smallvec::SmallVec;

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Lets them through.
    Closed,
    /// Refuses them.
    Open,
    /// Lets probes through.
    HalfOpen,
    /// Refuses them because an operator said so.
    ForcedOpen,
    /// Lets them through because an operator said so.
    Disabled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Closed, Self::Open, Self::HalfOpen, Self::ForcedOpen, Self::Disabled];

    /// The value of `circuit_breaker.state`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
        }
    }

    /// Reads a state as any library or language writes it (`HALF_OPEN`, `half-open`, `CircuitState.OPEN`, `StateOpen`,
    /// `<CircuitState.OPEN: 'open'>`, `pybreaker.CircuitOpenState`), and as names of events tell it (`circuit_breaker.opened`).
    /// A bare number is none: they mean different states to different people.
    pub fn named(text: &[u8]) -> Option<Self> {
        Self::worded(text).or_else(|| Self::worded(value_of(text)))
    }

    /// Reads a state by its letters, whatever stands [around](AROUND) it.
    fn worded(text: &[u8]) -> Option<Self> {
        let mut letters = [0; LETTERS_MAX];
        let mut length = 0;
        for byte in text.iter().filter(|byte| byte.is_ascii_alphabetic()) {
            *letters.get_mut(length)? = byte.to_ascii_lowercase();
            length += 1;
        }
        let mut word = letters.get(..length)?;
        loop {
            match word {
                b"closed" | b"close" | b"closes" | b"closing" | b"isclosed" | b"reset" | b"recovered" | b"recovery" => return Some(Self::Closed),
                b"open" | b"opened" | b"opens" | b"opening" | b"isopen" | b"tripped" | b"trip" | b"trips" => return Some(Self::Open),
                b"halfopen" | b"halfopened" | b"halfopens" | b"halfopening" | b"ishalfopen" => return Some(Self::HalfOpen),
                b"forcedopen" | b"forceopen" | b"forceopened" | b"isolated" => return Some(Self::ForcedOpen),
                b"disabled" | b"metricsonly" | b"forcedclosed" | b"forceclosed" => return Some(Self::Disabled),
                _ => {}
            }
            word = AROUND.iter().find_map(|around| word.strip_prefix(*around).or_else(|| word.strip_suffix(*around)))?;
        }
    }

    const fn is_operators(self) -> bool {
        matches!(self, Self::ForcedOpen | Self::Disabled)
    }
}

/// Letters that are read of a state and what stands around it.
const LETTERS_MAX: usize = 48;

/// What stands before or behind a state in names of types, constants and events.
const AROUND: [&[u8]; 13] = [
    b"circuitbreaker",
    b"circuit",
    b"breaker",
    b"state",
    b"status",
    b"event",
    b"transitioned",
    b"transition",
    b"changed",
    b"entering",
    b"entered",
    b"on",
    b"to",
];

/// The name of a value without the types and modules that it is of, and without what it holds.
fn value_of(text: &[u8]) -> &[u8] {
    const OBJECT: &[u8] = b" object at ";
    let holds = text.iter().position(|byte| matches!(byte, b'(' | b'{' | b'='));
    let shows = text.windows(2).position(|window| window == b": ");
    let stands = text.windows(OBJECT.len()).position(|window| window == OBJECT);
    let end = [holds, shows, stands].into_iter().flatten().min().unwrap_or(text.len());
    let name = text.get(..end).unwrap_or_default();
    let start = name.iter().rposition(|byte| matches!(byte, b'.' | b':' | b'$' | b'/' | b'\\' | b'#')).map_or(0, |at| at + 1);
    name.get(start..).unwrap_or_default()
}

/// How a state was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The span said so.
    Reported,
    /// A text that only an open breaker's library writes, and the calls around it.
    Rejected,
    /// The caller's usual calls stopped after failures, and came back as a breaker lets them.
    Silent,
    /// Nothing tells of a breaker: one of our own would have done so.
    Inferred,
}

impl Source {
    /// The value of `circuit_breaker.source`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Rejected => "rejected",
            Self::Silent => "silent",
            Self::Inferred => "inferred",
        }
    }
}

/// Trace and span id.
pub type Ids = [u8; 24];

/// A state that somebody saw at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observation {
    /// The end of the span that tells of it: observations are taken in this order. Unix nanoseconds.
    pub order: u64,
    /// When the state was seen. Unix nanoseconds.
    pub at: u64,
    /// Which.
    pub state: State,
    /// The span that tells of it.
    pub ids: Ids,
}

/// What a breaker did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Closed to open.
    Trip,
    /// A probe was let through.
    RecoveryAttempt,
    /// The probe failed.
    RecoveryAttemptFailed,
    /// Back to closed.
    Recovery,
    /// The last instance that was not closed sends nothing any more: its part of an incident ended.
    InstanceGone,
    /// A caller's usual calls stopped after failures, while its traffic goes on. It may be a breaker's doing: then a trip is
    /// told as soon as that is known, dated back.
    CallsStopped,
    /// Where no breaker is known: one would have opened.
    InferredTrip,
    /// Where no breaker is known: one would have closed again.
    InferredRecovery,
    /// An operator's state began or ended.
    StateChange {
        /// Before.
        from: State,
        /// After.
        to: State,
    },
}

/// One instance's copy of a circuit's breaker, as far as observations tell.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    /// The last state, and when it was seen; `None` until one was.
    pub(super) known: Option<(State, u64)>,
}

impl Breaker {
    /// The state that is known.
    pub fn state(&self) -> Option<State> {
        self.known.map(|(state, _)| state)
    }

    /// Takes the next observation, in the order of [`Observation::order`]; one that is older than the last says
    /// nothing any more.
    ///
    /// A first observation other than closed is a change only if the breaker `was_used` before it: else it may have
    /// been so for long.
    pub fn observe(&mut self, observation: &Observation, was_used: bool) -> SmallVec<[Change; 2]> {
        let mut changes = SmallVec::new();
        let before = match self.known {
            Some((_, at)) if observation.at < at => return changes,
            Some((state, _)) => state,
            None if was_used => State::Closed,
            None => observation.state,
        };
        self.known = Some((observation.state, observation.at));
        let after = observation.state;
        if before == after {
            return changes;
        }
        if before.is_operators() || after.is_operators() {
            changes.push(Change::StateChange { from: before, to: after });
            return changes;
        }
        // States that nobody saw are passed through: a breaker has no other way.
        match (before, after) {
            (State::Closed, State::HalfOpen) => changes.extend([Change::Trip, Change::RecoveryAttempt]),
            (State::Closed, _) => changes.push(Change::Trip),
            (State::Open, State::HalfOpen) => changes.push(Change::RecoveryAttempt),
            (State::Open, _) => changes.extend([Change::RecoveryAttempt, Change::Recovery]),
            (_, State::Open) => changes.push(Change::RecoveryAttemptFailed),
            (_, _) => changes.push(Change::Recovery),
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(states: &[(u64, State)]) -> Vec<Change> {
        let mut breaker = Breaker::default();
        states.iter().flat_map(|(at, state)| breaker.observe(&Observation { order: *at, at: *at, state: *state, ids: [0; 24] }, true)).collect()
    }

    #[test]
    fn a_breaker_s_life_is_told_once() {
        use State::{Closed, HalfOpen, Open};
        let life = [(1, Closed), (2, Open), (3, Open), (4, HalfOpen), (5, Open), (6, HalfOpen), (7, Closed), (8, Closed)];
        let told = [Change::Trip, Change::RecoveryAttempt, Change::RecoveryAttemptFailed, Change::RecoveryAttempt, Change::Recovery];
        assert_eq!(seen(&life), told);
        assert_eq!(seen(&[(1, Open), (2, Closed)]), [Change::Trip, Change::RecoveryAttempt, Change::Recovery], "unseen states are passed through");
        assert_eq!(seen(&[(5, Closed), (4, Open)]), [], "what is older says nothing any more");
        assert_eq!(seen(&[(1, State::ForcedOpen)]), [Change::StateChange { from: Closed, to: State::ForcedOpen }]);
    }

    #[test]
    fn states_are_read_as_libraries_write_them() {
        for (text, state) in
            [("HALF_OPEN", State::HalfOpen), ("half-open", State::HalfOpen), ("Closed", State::Closed), ("METRICS_ONLY", State::Disabled)]
        {
            assert_eq!(State::named(text.as_bytes()), Some(state), "{text}");
        }
        for (text, state) in [
            ("CircuitState.OPEN", State::Open),
            ("State.HALF_OPEN", State::HalfOpen),
            ("StateOpen", State::Open),
            ("OpenState", State::Open),
            ("STATE_HALF_OPEN", State::HalfOpen),
            ("CircuitBreakerState::Closed", State::Closed),
            ("<CircuitState.OPEN: 'open'>", State::Open),
            ("<CircuitBreakerState.HALF_OPEN: 2>", State::HalfOpen),
            ("<pybreaker.CircuitHalfOpenState object at 0x7f12ab>", State::HalfOpen),
            ("io.github.resilience4j.circuitbreaker.CircuitBreaker$State.FORCED_OPEN", State::ForcedOpen),
            ("Open { since: Instant }", State::Open),
            ("OPEN(1)", State::Open),
            ("CircuitState.ISOLATED", State::ForcedOpen),
            ("circuit_breaker.opened", State::Open),
            ("circuit_breaker.half_opened", State::HalfOpen),
            ("circuit_half_open", State::HalfOpen),
            ("circuit-closed", State::Closed),
            ("CIRCUIT_BREAKER_TRIPPED", State::Open),
            ("OnCircuitOpened", State::Open),
            ("circuit breaker entering half-open state", State::HalfOpen),
            ("resilience.circuit_breaker.isolated", State::ForcedOpen),
        ] {
            assert_eq!(State::named(text.as_bytes()), Some(state), "{text}");
        }
        for text in ["ajar", "", "1", "0", "State.1", "UNKNOWN", "circuit_breaker.state_change", "circuit_open_rejected", "reopen_later", "circuit"] {
            assert_eq!(State::named(text.as_bytes()), None, "{text}");
        }
        assert_eq!(State::named(&[b'a'; 1000]), None);
    }

    proptest! {
        /// Trips and recoveries take turns, and no probe ends that did not begin.
        #[test]
        fn changes_follow_from_each_other(states in prop::collection::vec(0_usize..3, 0..60)) {
            let states: Vec<(u64, State)> = states.into_iter().enumerate().map(|(at, state)| (at as u64, State::ALL[state])).collect();
            let (mut open, mut probing) = (false, false);
            for change in seen(&states) {
                match change {
                    Change::Trip => { prop_assert!(!open); open = true; }
                    Change::RecoveryAttempt => { prop_assert!(open && !probing); probing = true; }
                    Change::RecoveryAttemptFailed => { prop_assert!(probing); probing = false; }
                    Change::Recovery => { prop_assert!(open && probing); open = false; probing = false; }
                    _ => prop_assert!(false),
                }
            }
        }
    }
}
