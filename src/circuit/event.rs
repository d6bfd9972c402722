//! What breakers did.

use std::sync::Arc;

use super::{
    key::CircuitKey,
    state::{Change, Ids, Source, State},
};

/// Something that a breaker did: final, in order of event time.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitEvent {
    /// When it happened, in Unix nanoseconds.
    pub at: u64,
    /// The circuit.
    pub circuit: Arc<CircuitKey>,
    /// The instance; empty where processes can't be told apart.
    pub instance: Arc<str>,
    /// What.
    pub change: Change,
    /// How it was found out.
    pub source: Source,
    /// By the end of which span it is known, in Unix nanoseconds.
    pub decided: u64,
    /// The breaker's own name, where it is told and the circuit is named otherwise.
    pub breaker: Option<Arc<str>>,
    /// What tells of it: the library whose text it was; empty where the breaker itself does.
    pub reason: Arc<str>,
    /// The span that tells of it.
    pub ids: Ids,
    /// Of a trip: the window at that moment.
    pub window: Option<Box<WindowSnapshot>>,
    /// The incident it belongs to.
    pub incident: Option<IncidentId>,
    /// Of the recovery that ended an incident: how long that lasted, in nanoseconds.
    pub incident_duration: Option<u64>,
    /// Whether the incident ended with it.
    pub ends_incident: bool,
}

/// The same for all that belongs to one incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IncidentId(pub u64);

impl std::fmt::Display for IncidentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A window as it was at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowSnapshot {
    /// Calls of every outcome.
    pub requests: u64,
    /// Calls that failed.
    pub failures: u64,
    /// Calls that were refused.
    pub rejections: u64,
    /// Percentiles and latencies in seconds; empty without calls.
    pub percentiles: Vec<(f64, f64)>,
}

impl CircuitEvent {
    /// `circuit_breaker.name`.
    pub fn breaker_name(&self) -> String {
        self.breaker.as_ref().map_or_else(|| self.circuit.name(), ToString::to_string)
    }
}

impl Change {
    /// The state that holds after it; `None` for what changes none.
    pub const fn state_after(self) -> Option<State> {
        match self {
            Self::Trip | Self::RecoveryAttemptFailed => Some(State::Open),
            Self::RecoveryAttempt => Some(State::HalfOpen),
            Self::Recovery => Some(State::Closed),
            Self::StateChange { to, .. } => Some(to),
            Self::CallsStopped | Self::InstanceGone | Self::InferredTrip | Self::InferredRecovery => None,
        }
    }

    /// The name of its event.
    pub const fn event_name(self) -> &'static str {
        match self {
            Self::Trip => "circuit_breaker.trip",
            Self::RecoveryAttempt => "circuit_breaker.recovery_attempt",
            Self::RecoveryAttemptFailed => "circuit_breaker.recovery_attempt_failed",
            Self::Recovery => "circuit_breaker.recovery",
            Self::StateChange { .. } => "circuit_breaker.state_change",
            Self::CallsStopped => "circuit_breaker.calls_stopped",
            Self::InstanceGone => "circuit_breaker.instance_gone",
            Self::InferredTrip => "circuit_breaker.inferred.trip",
            Self::InferredRecovery => "circuit_breaker.inferred.recovery",
        }
    }
}
