//! From what a process does to what its breakers did: the collector's part that looks closer.
//!
//! `arrival` notes what may matter as it comes in; `unit` looks at it in order of time, one trace of one process at a
//! time; `blame` says whose rejection it is, and tells the breakers of one edge apart. `memo` is what a request said before.
//! `front` says whether a callee is not called because something else goes wrong before.

mod arrival;
mod blame;
mod front;
pub(super) mod memo;
mod unit;

use smallvec::SmallVec;

use super::{
    collector::CircuitBreakerMetricsCollector,
    detect::{
        habit::Habits,
        lane::{Lane, Route},
        suspect::Suspect,
        watch::{Mark, Unit, Watch},
    },
    member::Member,
    state::State,
};

/// A unit, and what is known around it.
struct Seen<'a> {
    /// The process, by its number.
    process: u32,
    root: &'a Mark,
    operation: Option<u32>,
    /// It ended with an error.
    aborted: bool,
    unit: &'a Unit,
    /// What it called, each once.
    called: SmallVec<[Lane; 4]>,
    /// All of its calls are known.
    whole: bool,
    watch: &'a Watch,
}

impl CircuitBreakerMetricsCollector {
    /// What the caller of a process usually calls.
    fn habits_of_process(&mut self, index: u32) -> Option<&mut Habits> {
        let process = self.processes.get(index as usize)?;
        self.habits.get_mut(process.habits as usize).map(Box::as_mut)
    }

    /// A process in a circuit.
    pub(in crate::circuit) fn member_in(&self, circuit: u32, index: u32) -> Option<&Member> {
        let circuit = self.circuits.get(circuit as usize)?;
        circuit.members.iter().find(|(_, member)| member.process == index).map(|(_, member)| member)
    }

    fn suspect_in(&self, lane: Lane, index: u32) -> Option<&Suspect> {
        self.member_in(lane.circuit, index)?.suspected(lane.number)
    }

    /// What calls and rejections tell of a breaker in a process.
    fn state_in(&self, lane: Lane, index: u32) -> State {
        self.suspect_in(lane, index).map_or(State::Closed, Suspect::state)
    }

    /// Whether calls and rejections tell that one of a circuit's breakers is not closed in a process.
    fn is_restless_in(&self, circuit: u32, index: u32) -> bool {
        let worst = self.member_in(circuit, index).and_then(Member::worst_suspected);
        worst.is_some_and(|(_, state)| state != State::Closed)
    }

    /// Whether calls through a breaker go well in a process.
    fn is_well_in(&self, lane: Lane, index: u32, at: u64) -> bool {
        self.member_in(lane.circuit, index).is_some() && self.suspect_in(lane, index).is_none_or(|suspect| suspect.is_well(at))
    }

    /// The breaker that a call goes through, by what it asks for.
    fn lane_of(&self, circuit: u32, route: Route) -> Lane {
        Lane { circuit, number: self.circuits.get(circuit as usize).map_or(0, |circuit| circuit.lane_of(route)) }
    }
}
