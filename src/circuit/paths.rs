//! Several callees at one address, told apart by what is asked for: the collector's part that learns whose a path is.
//!
//! A gateway, an ingress or a proxy answers for many services. Which of them a call went to is told by the SERVER span it
//! is the parent of, and that is remembered by the route of the call.

use std::sync::Arc;

use super::{
    callees::shown,
    collector::CircuitBreakerMetricsCollector,
    detect::lane::{Lane, Route},
    key::{Caller, Target},
    process::{Hashed, Seat},
};

/// Routes of a circuit's addresses that are remembered; further ones stay the address's own.
const PATHS_MAX: usize = 32;

/// So many times more than others the same callee must answer for a route.
const SURE: u8 = 3;

/// More of its answers than these are not counted: so many of others, and the route is no longer believed to be the
/// callee's.
const SURE_MAX: u8 = 6;

/// Whose the routes of a circuit's addresses are.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    all: Vec<Path>,
    /// Whether any is another circuit's.
    told_apart: bool,
}

#[derive(Clone, Debug)]
struct Path {
    address: Hashed,
    route: Route,
    callee: Arc<Caller>,
    /// How many times more than others it answered.
    sure: u8,
    /// Whether meanwhile another callee answered at the same address for another route: else it is the address that
    /// moved.
    beside: bool,
    /// Whether its calls go to the callee's circuit.
    apart: bool,
}

impl Paths {
    /// Whether calls have to be told apart by what they ask for.
    #[inline]
    pub(super) const fn are_told_apart(&self) -> bool {
        self.told_apart
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.all.capacity() * size_of::<Path>()
    }

    /// Who answers for a route, if that is told apart.
    fn of(&self, address: Hashed, route: Route) -> Option<&Arc<Caller>> {
        self.all.iter().find(|path| path.apart && path.address == address && path.route == route).map(|path| &path.callee)
    }

    /// A callee answered for a route.
    fn see(&mut self, address: Hashed, route: Route, callee: &Arc<Caller>) {
        let others = self.all.iter_mut().filter(|path| path.address == address && path.route != route);
        let mut seen_beside = false;
        for other in others {
            let differs = other.callee != *callee;
            other.beside |= differs;
            seen_beside |= differs;
        }
        match self.all.iter_mut().find(|path| path.address == address && path.route == route) {
            Some(path) if path.callee == *callee => {
                path.sure = (path.sure + 1).min(SURE_MAX);
                path.beside |= seen_beside;
            }
            Some(path) if path.sure > 1 => path.sure -= 1,
            Some(path) => *path = Path { callee: Arc::clone(callee), sure: 1, beside: false, apart: false, ..path.clone() },
            None => {
                if self.all.len() >= PATHS_MAX {
                    // What was seen once may never come again.
                    self.all.retain(|path| path.sure > 1);
                }
                if self.all.len() < PATHS_MAX {
                    let callee = Arc::clone(callee);
                    self.all.push(Path { address, route, callee, sure: 1, beside: seen_beside, apart: false });
                }
            }
        }
        self.told_apart = self.all.iter().any(|path| path.apart);
    }

    /// Whether it is certain who answers for a route that is not told apart yet.
    fn are_certain(&self, address: Hashed, route: Route) -> bool {
        let path = self.all.iter().find(|path| path.address == address && path.route == route);
        path.is_some_and(|path| path.beside && path.sure >= SURE && !path.apart)
    }

    /// Calls for a route go to the circuit of who answers for it from now on.
    fn tell_apart(&mut self, address: Hashed, route: Route) {
        if let Some(path) = self.all.iter_mut().find(|path| path.address == address && path.route == route) {
            (path.apart, self.told_apart) = (true, true);
        }
    }
}

fn target_of(callee: &Caller) -> Target<'_> {
    Target { named: false, text: callee.service.as_bytes(), port: None }
}

impl CircuitBreakerMetricsCollector {
    /// A callee answered at an address for a route. Once that is certain, and the circuit's own callee is another one,
    /// calls for it go to the callee's circuit.
    pub(super) fn answered(&mut self, number: u32, (address, route): (Hashed, Route), callee: &Arc<Caller>, now: u64) {
        if !route.is_known() {
            return;
        }
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return };
        // What is under way is told first; the next answer tries again.
        let waits = circuit.has_news();
        let (key, target) = (Arc::clone(circuit.key()), target_of(callee));
        let Some(addresses) = &mut circuit.addresses else { return };
        addresses.paths.see(address, route, callee);
        if waits || key.is(&target) || !addresses.paths.are_certain(address, route) {
            return;
        }
        let Some(other) = self.circuit_of(&key.caller, &target, &shown(&key), now).filter(|other| *other != number) else { return };
        let addresses = self.circuits.get_mut(number as usize).and_then(|circuit| circuit.addresses.as_mut());
        addresses.into_iter().for_each(|addresses| addresses.paths.tell_apart(address, route));
        // What operations call there is learned anew: what they no longer call here must not seem to be missing.
        for (_, habits) in &mut self.habits {
            habits.split(Lane::of(number), Lane::of(other), &[route]);
            habits.forget_edges(number);
        }
        let watches = self.processes.iter_mut().filter_map(|(_, process)| process.watch.as_mut());
        watches.for_each(|watch| watch.split(Lane::of(number), Lane::of(other), &[route]));
    }

    /// The place of a process in the circuit of who answers for a route, if that is another than the address leads to.
    pub(super) fn seat_by_path(&mut self, index: u32, seat: Seat, route: Route, now: u64) -> Seat {
        let Some(circuit) = self.circuits.get(seat.circuit as usize) else { return seat };
        let Some(callee) = circuit.addresses.as_ref().and_then(|addresses| addresses.paths.of(seat.hash, route)) else { return seat };
        let target = target_of(callee);
        if let Some(known) = self.known_seat(index, &target) {
            return Seat { hash: seat.hash, ..known };
        }
        let (key, callee) = (Arc::clone(circuit.key()), Arc::clone(callee));
        let Some(number) = self.circuit_of(&key.caller, &target_of(&callee), &shown(&key), now) else { return seat };
        let member = self.seat_in(index, number).and_then(|member| u32::try_from(member).ok());
        Seat { hash: seat.hash, circuit: number, member }
    }

    /// The place of a process in the circuit that a call belongs to, if it has one.
    pub(super) fn known_place(&self, index: u32, target: &Target<'_>, route: impl FnOnce() -> Route) -> Option<Seat> {
        let seat = self.known_seat(index, target)?;
        let paths = self.circuits.get(seat.circuit as usize)?.addresses.as_ref().map(|addresses| &addresses.paths);
        match paths.filter(|paths| paths.are_told_apart()).and_then(|paths| paths.of(seat.hash, route())) {
            Some(callee) => self.known_seat(index, &target_of(callee)),
            None => Some(seat),
        }
    }
}
