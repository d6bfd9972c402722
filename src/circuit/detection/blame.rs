use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    super::{
        collector::CircuitBreakerMetricsCollector,
        detect::{
            habit::Habits,
            lane::{Lane, Route},
            rule::Meaning,
            watch::Told,
        },
        key::Target,
        process::Process,
        state::State,
    },
    Seen,
    unit::Splits,
};

impl CircuitBreakerMetricsCollector {
    /// Whose rejection it is. Until that is known, the circuit has the name of the breaker, or of what was asked for.
    pub(super) fn blame(&mut self, index: u32, seen: &Seen<'_>, told: &Told, splits: &mut Splits, now: u64) -> Option<Lane> {
        let known = match told.circuit {
            Some(circuit) => Some(Lane::of(circuit)),
            None => self.blame_edge(index, seen, told, now),
        }?;
        Some(self.tell_apart(index, known, seen, told, splits))
    }

    fn blame_edge(&mut self, index: u32, seen: &Seen<'_>, told: &Told, now: u64) -> Option<Lane> {
        let (known, learned) = self.guess(index, seen, told)?;
        let process = self.processes.get(index as usize)?;
        let (caller, habits) = (Arc::clone(&process.caller), process.habits as usize);
        if let (Some(name), Some(lane), true) = (&told.name, known, learned) {
            self.habits.get_mut(habits).into_iter().for_each(|habits| habits.name(name.as_bytes(), lane));
        }
        if known.is_some() {
            return known;
        }
        let asked_for = || seen.operation.and_then(|operation| Some(self.habits.get(habits)?.operation_name(operation).to_owned()));
        let text = told.name.as_deref().map(str::to_owned).or_else(asked_for).filter(|text| !text.is_empty());
        let text = text.filter(|text| self.selection.takes(caller.service.as_bytes(), text.as_bytes()))?;
        self.circuit_of(&caller, &Target { named: true, text: text.as_bytes(), port: None }, "", now).map(Lane::of)
    }

    /// The breaker that most likely refused it, and whether its name is learned by this.
    fn guess(&self, index: u32, seen: &Seen<'_>, told: &Told) -> Option<(Option<Lane>, bool)> {
        let process = self.processes.get(index as usize)?;
        let habits = self.habits.get(process.habits as usize)?;
        if let Some(name) = &told.name {
            let is = |lane: &Lane| {
                let circuit = self.circuits.get(lane.circuit as usize);
                circuit
                    .is_some_and(|circuit| *circuit.key().text == **name || circuit.lanes().and_then(|lanes| lanes.named(name)) == Some(lane.number))
            };
            if let Some(known) = habits.guarded_by(name.as_bytes()).or_else(|| lanes_of(process, habits, seen.operation).into_iter().find(is)) {
                return Some((Some(known), false));
            }
        }
        if matches!(told.meaning, Meaning::Opened | Meaning::ProbeFailed)
            && let Some(last) = seen.called.last()
        {
            return Some((Some(*last), false));
        }
        let usual = seen.operation.map(|operation| habits.usual(operation)).unwrap_or_default();
        let mut missing = usual.iter().map(|(lane, _)| *lane).filter(|lane| !seen.called.contains(lane));
        if let Some(first) = missing.next() {
            // A lost span must not blame a callee that answers well while another is open.
            let other = if self.is_well_in(first, index, seen.root.start) {
                missing.find(|other| self.state_in(*other, index) != State::Closed)
            } else {
                None
            };
            return Some((other.or(Some(first)), true));
        }
        let all = lanes_of(process, habits, seen.operation);
        let left: SmallVec<[Lane; 4]> = all.iter().copied().filter(|lane| !seen.called.contains(lane)).collect();
        let only = |lanes: &[Lane]| if let [only] = lanes { Some(*only) } else { None };
        Some((only(&left).or_else(|| only(&all)), false))
    }

    /// Which of the edge's breakers it is; there may turn out to be one more.
    fn tell_apart(&mut self, index: u32, lane: Lane, seen: &Seen<'_>, told: &Told, splits: &mut Splits) -> Lane {
        let operation = seen.operation;
        let Some(name) = &told.name else { return lane };
        let Some(circuit) = self.circuits.get_mut(lane.circuit as usize) else { return lane };
        let circuit_is_named_so = circuit.key().named && *circuit.key().text == **name;
        let own = match circuit.lanes_mut().named(name) {
            _ if circuit_is_named_so => return lane,
            Some(number) => Lane { number, ..lane },
            None if circuit.lanes_mut().name(lane.number).is_none() => {
                circuit.lanes_mut().set_name(lane.number, name);
                return lane;
            }
            None => match circuit.lanes_mut().add(Some(name)) {
                Some(number) => Lane { number, ..lane },
                None => return lane,
            },
        };
        // What it guards is learned from an operation that asks for one thing only.
        if own.number > 0 && !circuit.lanes_mut().has_routes(own.number) {
            let asked = |habits: &mut Habits| operation.map(|operation| habits.routes(operation, lane));
            let routes = self.habits_of_process(index).and_then(asked).unwrap_or_default();
            if let [route] = routes[..] {
                self.give(lane, own, &[route], splits);
            }
        }
        own
    }

    /// Makes two breakers of one: these routes are guarded by the new one.
    pub(super) fn split(&mut self, lane: Lane, routes: &[Route], splits: &mut Splits) {
        let number = self.circuits.get_mut(lane.circuit as usize).and_then(|circuit| circuit.lanes_mut().add(None));
        if let Some(number) = number {
            self.give(lane, Lane { number, ..lane }, routes, splits);
        }
    }

    /// Calls for these routes go through another breaker of the circuit from now on, in all of its instances.
    fn give(&mut self, from: Lane, to: Lane, routes: &[Route], splits: &mut Splits) {
        let Some(circuit) = self.circuits.get_mut(from.circuit as usize) else { return };
        circuit.lanes_mut().give(to.number, routes);
        for (_, member) in &mut circuit.members {
            if member.suspected(from.number).is_some() {
                let theirs = member.suspect(from.number).split(routes);
                if member.suspected(to.number).is_none() {
                    *member.suspect(to.number) = theirs;
                }
            }
        }
        let caller = Arc::clone(&circuit.key().caller);
        let of_caller = self.processes.iter().find(|(_, process)| process.caller == caller).map(|(_, process)| process.habits);
        if let Some(habits) = of_caller.and_then(|habits| self.habits.get_mut(habits as usize)) {
            habits.split(from, to, routes);
            // What the first one guards besides has a name, too.
            let left: SmallVec<[Route; 4]> = habits.guarded(from).iter().flat_map(|operation| habits.routes(*operation, from)).collect();
            if let Some(circuit) = self.circuits.get_mut(from.circuit as usize).filter(|_| !left.is_empty()) {
                circuit.lanes_mut().give(from.number, &left);
            }
        }
        self.processes.iter_mut().filter_map(|(_, process)| process.watch.as_mut()).for_each(|watch| watch.split(from, to, routes));
        splits.push((from, to, routes.iter().copied().collect()));
    }
}

/// Breakers of an operation, or of the whole process where it is not known.
fn lanes_of(process: &Process, habits: &Habits, operation: Option<u32>) -> SmallVec<[Lane; 4]> {
    match operation {
        Some(operation) => habits.known(operation).collect(),
        None => process.circuits().map(Lane::of).collect(),
    }
}
