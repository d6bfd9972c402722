use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::lane::{Lane, Route};

/// Units of an operation from which on its edges count as learned.
const UNITS_MIN: f32 = 20.0;
/// An edge that is called in a smaller share of units says nothing when it is missing.
const SHARE_MIN: f32 = 0.3;
/// A call that is made in such a share of units is made next when those before it were made, if its place is so far before
/// that of the one after it.
const NEXT_SHARE: f32 = 0.9;
const NEXT_BEFORE: f32 = 0.5;
/// What was learned is halved at so many units, so that what changes is learned anew.
const UNITS_MAX: f32 = 600.0;
/// Operations of a caller that are learned.
const OPERATIONS_MAX: usize = 256;
/// Edges of an operation.
const EDGES_MAX: usize = 16;
/// Names of breakers of a caller whose edge is learned.
const NAMES_MAX: usize = 256;

/// An operation that came through an open breaker so often, and was never turned away, does not go through it.
const PASSES: f32 = 2.0;

/// What is turned away at other times, and came through so often in a row, goes through another breaker.
const PASSES_APART: f32 = 6.0;

/// What is asked of circuits whose breakers were not closed, of one caller.
const ASKED_MAX: usize = 256;

/// What an operation asks one circuit for, at most; beyond that it does not tell breakers apart.
const ROUTES_MAX: usize = 4;

/// What one caller usually calls, learned from all of its processes.
#[derive(Debug, Default)]
pub(in crate::circuit) struct Habits {
    hasher: RandomState,
    operations: Vec<Operation>,
    by_name: HashTable<u32>,
    breakers: Vec<BreakerName>,
    /// Circuits whose breaker turned away what belongs to no operation.
    without_operation: Vec<Lane>,
    /// What is asked of circuits whose breakers were not closed.
    asked: Vec<Asked>,
    /// Operations that tell of a breaker without its name, and the circuit it is taken for.
    unnamed: Vec<(Box<[u8]>, u32)>,
    /// A state that can't be read was told of.
    pub(in crate::circuit) unread_told: bool,
    /// Processes of this caller.
    pub(in crate::circuit) users: u32,
    /// The least watermark of those that were heard of lately.
    pub(in crate::circuit) slowest: u64,
}

/// An operation: what a process does under one name of a SERVER span.
#[derive(Debug)]
struct Operation {
    name: Box<str>,
    edges: SmallVec<[Edge; 2]>,
}

/// A circuit that an operation calls.
#[derive(Clone, Copy, Debug)]
struct Edge {
    lane: Lane,
    /// What it asks for there, as far as there is room.
    routes: [Route; ROUTES_MAX],
    many_routes: bool,
    /// What it asks for first.
    first: Route,
    /// Units that were seen, and those that called it.
    units: f32,
    calls: f32,
    /// Its usual place among the calls of a unit.
    place: f32,
    /// How often a breaker turned this operation away from it.
    rejected: u16,
    /// How often its calls were missing while a breaker was not closed, as far as that tells anything.
    missed: f32,
    /// How often it came through just before another operation was turned away.
    passed: f32,
}

/// Something that is asked of a circuit, and how its calls fared while others were turned away.
#[derive(Clone, Copy, Debug)]
struct Asked {
    lane: Lane,
    route: Route,
    /// How often it was turned away.
    refused: f32,
    /// How often it came through just before something else was turned away.
    granted: f32,
    /// The same, since it was turned away itself.
    granted_since: f32,
}

/// Whether a call goes through the breaker of its circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::circuit) enum Guard {
    /// It does.
    Through,
    /// Its operation was never turned away yet.
    Unknown,
    /// It does not.
    Past,
}

/// A breaker's own name and the edge it turned out to guard.
#[derive(Debug)]
struct BreakerName {
    name: Box<[u8]>,
    lane: Lane,
    votes: u32,
}

impl Operation {
    /// Of several edges to one breaker the one that was seen most stays.
    fn merge_alike(&mut self) {
        self.edges.sort_by(|one, other| one.lane.cmp(&other.lane).then(other.units.total_cmp(&one.units)));
        self.edges.dedup_by_key(|edge| edge.lane);
    }
}

impl Edge {
    fn new(lane: Lane) -> Self {
        Self {
            lane,
            routes: [Route::default(); ROUTES_MAX],
            many_routes: false,
            first: Route::default(),
            units: 0.0,
            calls: 0.0,
            place: 0.0,
            rejected: 0,
            missed: 0.0,
            passed: 0.0,
        }
    }

    fn guard(&self) -> Guard {
        if self.rejected > 0 || self.missed > 0.0 && self.missed >= self.passed {
            Guard::Through
        } else if self.passed < PASSES {
            Guard::Unknown
        } else {
            Guard::Past
        }
    }

    fn share(&self) -> f32 {
        (self.calls + 0.5) / (self.units + 1.0)
    }
}

impl Habits {
    /// The number of an operation that is known.
    pub(in crate::circuit) fn known_operation(&self, name: &[u8]) -> Option<u32> {
        let is = |index: &u32| self.operations.get(*index as usize).is_some_and(|operation| operation.name.as_bytes() == name);
        self.by_name.find(self.hasher.hash_one(name), is).copied()
    }

    /// The number of an operation; made known if there is room.
    pub(in crate::circuit) fn operation(&mut self, name: &[u8]) -> Option<u32> {
        if let Some(known) = self.known_operation(name) {
            return Some(known);
        }
        if self.operations.len() >= OPERATIONS_MAX {
            return None;
        }
        let hash = self.hasher.hash_one(name);
        let index = u32::try_from(self.operations.len()).ok()?;
        self.operations.push(Operation { name: String::from_utf8_lossy(name).into(), edges: SmallVec::new() });
        let (operations, hasher) = (&self.operations, &self.hasher);
        let rehash = |index: &u32| operations.get(*index as usize).map_or(0, |operation| hasher.hash_one(operation.name.as_bytes()));
        self.by_name.insert_unique(hash, index, rehash);
        Some(index)
    }

    /// The name of an operation.
    pub(in crate::circuit) fn operation_name(&self, operation: u32) -> &str {
        self.operations.get(operation as usize).map_or("", |operation| &operation.name)
    }

    /// Learns from one unit which circuits the operation calls, in which order; of those whose breakers may have something
    /// to do with it nothing. Hits and misses are learned together: hits alone would make an edge with a cache look steady.
    /// Of a unit that broke off only hits are, since calls may be missing that would have come later.
    pub(in crate::circuit) fn see(&mut self, operation: u32, called: &[Lane], broke_off: bool, may_learn: impl Fn(Lane) -> bool) {
        let Some(operation) = self.operations.get_mut(operation as usize) else { return };
        for lane in called {
            if operation.edges.len() < EDGES_MAX && !operation.edges.iter().any(|edge| edge.lane == *lane) {
                operation.edges.push(Edge::new(*lane));
            }
        }
        for edge in operation.edges.iter_mut().filter(|edge| may_learn(edge.lane)) {
            let place = called.iter().position(|lane| *lane == edge.lane);
            if broke_off && place.is_none() {
                continue;
            }
            edge.units += 1.0;
            if let Some(place) = place {
                edge.calls += 1.0;
                edge.place += (place as f32 - edge.place) / edge.calls.min(20.0);
            }
            if edge.units > UNITS_MAX {
                edge.units /= 2.0;
                edge.calls /= 2.0;
            }
        }
        operation.edges.retain(|edge| edge.units < UNITS_MAX / 2.0 || edge.share() > 0.001);
    }

    /// Circuits that the operation usually calls, in the order in which it does, with the share of units that call them.
    pub(in crate::circuit) fn usual(&self, operation: u32) -> SmallVec<[(Lane, f32); 4]> {
        self.usual_edges(operation).iter().map(|edge| (edge.lane, edge.share())).collect()
    }

    /// The circuit that the operation calls after these, if it nearly always does, and no other one may as well come first.
    pub(in crate::circuit) fn next(&self, operation: u32, called: &[u32]) -> Option<u32> {
        let mut left = self.usual_edges(operation).into_iter().filter(|edge| !called.contains(&edge.lane.circuit));
        let next = left.next().filter(|edge| edge.share() >= NEXT_SHARE)?;
        left.next().is_none_or(|other| other.place - next.place >= NEXT_BEFORE).then_some(next.lane.circuit)
    }

    fn usual_edges(&self, operation: u32) -> SmallVec<[Edge; 4]> {
        let edges = self.operations.get(operation as usize).map(|operation| operation.edges.as_slice()).unwrap_or_default();
        let mut usual: SmallVec<[Edge; 4]> = edges.iter().copied().filter(|edge| edge.units >= UNITS_MIN && edge.share() >= SHARE_MIN).collect();
        usual.sort_by(|one, other| one.place.total_cmp(&other.place));
        usual
    }

    /// Circuits that the operation was ever seen to call.
    pub(in crate::circuit) fn known(&self, operation: u32) -> impl Iterator<Item = Lane> {
        self.operations.get(operation as usize).into_iter().flat_map(|operation| operation.edges.iter().map(|edge| edge.lane))
    }

    fn edge(&mut self, operation: u32, lane: Lane) -> Option<&mut Edge> {
        let edges = &mut self.operations.get_mut(operation as usize)?.edges;
        let is_known = edges.iter().any(|edge| edge.lane == lane);
        if !is_known && edges.len() < EDGES_MAX {
            edges.push(Edge::new(lane));
        }
        edges.iter_mut().find(|edge| edge.lane == lane)
    }

    /// Notes that a breaker turned an operation away from a circuit.
    pub(in crate::circuit) fn reject(&mut self, operation: Option<u32>, lane: Lane) {
        match operation {
            Some(operation) => self.edge(operation, lane).into_iter().for_each(|edge| edge.rejected = edge.rejected.saturating_add(1)),
            None if self.without_operation.len() < NAMES_MAX && !self.without_operation.contains(&lane) => self.without_operation.push(lane),
            None => {}
        }
    }

    /// Breakers that refused this operation, and whose calls no CLIENT span of it shows.
    pub(in crate::circuit) fn refused_without_calls(&self, operation: u32) -> SmallVec<[Lane; 2]> {
        let edges = self.operations.get(operation as usize).map(|operation| operation.edges.as_slice()).unwrap_or_default();
        edges.iter().filter(|edge| edge.rejected > 0 && edge.calls <= 0.0).map(|edge| edge.lane).collect()
    }

    /// Notes that an operation came through just before another was turned away, which is sure up to this weight.
    pub(in crate::circuit) fn pass(&mut self, operation: u32, lane: Lane, weight: f32) {
        self.edge(operation, lane).into_iter().for_each(|edge| edge.passed += weight);
    }

    /// Operations that a circuit's breaker is known to turn away.
    pub(in crate::circuit) fn guarded(&self, lane: Lane) -> SmallVec<[u32; 4]> {
        let is = |edge: &Edge| edge.lane == lane && edge.guard() == Guard::Through;
        (0..).zip(&self.operations).filter(|(_, operation)| operation.edges.iter().any(is)).map(|(number, _)| number).collect()
    }

    /// Notes that calls of an operation were missing while a breaker was not closed: 1 if it always calls.
    pub(in crate::circuit) fn miss(&mut self, operation: u32, lane: Lane, weight: f32) {
        self.edge(operation, lane).into_iter().for_each(|edge| edge.missed += weight);
    }

    /// Whether calls of a circuit go through its breaker, as far as is known: those of an operation that always comes
    /// through while others are turned away do not, nor do those that ask for something that always comes through.
    /// `within` is the operation, and `None` where a call stands alone.
    pub(in crate::circuit) fn guard(&self, within: Option<Option<u32>>, lane: Lane, route: Route) -> Guard {
        let asked = self.asked.iter().find(|asked| asked.lane == lane && asked.route == route);
        if asked.is_some_and(|asked| asked.refused == 0.0 && asked.granted >= PASSES) {
            return Guard::Past;
        }
        let Some(operation) = within else {
            let is = |edge: &Edge| edge.lane == lane && edge.rejected > 0;
            let others = self.operations.iter().any(|operation| operation.edges.iter().any(is));
            return if self.without_operation.contains(&lane) || !others { Guard::Through } else { Guard::Past };
        };
        let Some(operation) = operation.and_then(|operation| self.operations.get(operation as usize)) else { return Guard::Through };
        operation.edges.iter().find(|edge| edge.lane == lane).map_or(Guard::Unknown, Edge::guard)
    }

    /// Notes that a breaker of this name turned away calls of a circuit.
    pub(in crate::circuit) fn name(&mut self, name: &[u8], lane: Lane) {
        if let Some(known) = self.breakers.iter_mut().find(|known| *known.name == *name && known.lane == lane) {
            known.votes = known.votes.saturating_add(1);
        } else if self.breakers.len() < NAMES_MAX {
            self.breakers.push(BreakerName { name: name.into(), lane, votes: 1 });
        }
    }

    /// The circuit that a breaker of this name guards, as far as is known.
    pub(in crate::circuit) fn guarded_by(&self, name: &[u8]) -> Option<Lane> {
        self.breakers.iter().filter(|known| *known.name == *name).max_by_key(|known| known.votes).map(|known| known.lane)
    }

    /// The circuit that a breaker is taken for of which an operation tells without its name.
    pub(in crate::circuit) fn told_by(&self, operation: &[u8]) -> Option<u32> {
        self.unnamed.iter().find(|(known, _)| **known == *operation).map(|(_, circuit)| *circuit)
    }

    /// All such circuits.
    pub(in crate::circuit) fn told(&self) -> impl Iterator<Item = u32> {
        self.unnamed.iter().map(|(_, circuit)| *circuit)
    }

    /// An operation tells of the breaker of this circuit without its name.
    pub(in crate::circuit) fn tells(&mut self, operation: &[u8], circuit: u32) {
        if self.unnamed.len() < NAMES_MAX && self.told_by(operation).is_none() {
            self.unnamed.push((operation.into(), circuit));
        }
    }

    /// Notes what an operation asked a circuit for.
    pub(in crate::circuit) fn route(&mut self, operation: u32, lane: Lane, route: Route, is_first: bool) {
        let Some(edge) = self.edge(operation, lane).filter(|_| route.is_known()) else { return };
        if is_first {
            edge.first = route;
        }
        if edge.routes.contains(&route) {
            return;
        }
        match edge.routes.iter_mut().find(|known| !known.is_known()) {
            Some(place) => *place = route,
            // Too many: they tell nothing.
            None => edge.many_routes = true,
        }
    }

    /// What an operation asks a circuit for; nothing where that is not known, or too much.
    pub(in crate::circuit) fn routes(&self, operation: u32, lane: Lane) -> SmallVec<[Route; ROUTES_MAX]> {
        let edges = self.operations.get(operation as usize).map(|operation| operation.edges.as_slice()).unwrap_or_default();
        let edge = edges.iter().find(|edge| edge.lane == lane && !edge.many_routes);
        edge.map(|edge| edge.routes.iter().copied().filter(|route| route.is_known()).collect()).unwrap_or_default()
    }

    /// What was refused of what an operation asks a circuit for, given what it was not refused in the same unit: `None`
    /// where it may be several.
    pub(in crate::circuit) fn refused(&self, operation: u32, lane: Lane, granted: &[Route]) -> Option<Route> {
        let routes = self.routes(operation, lane);
        let mut left = routes.iter().filter(|route| !granted.contains(route));
        let first = left.next().copied()?;
        left.next().is_none().then_some(first)
    }

    /// Notes that a call for this was turned away, which is sure up to this weight. `true` if it must have a breaker of
    /// its own: it came through while others were turned away, which it is now.
    pub(in crate::circuit) fn refuse(&mut self, lane: Lane, route: Route, weight: f32) -> bool {
        let Some(known) = self.asked(lane, route) else { return false };
        let apart = known.refused == 0.0 && known.granted >= PASSES && weight >= 1.0;
        known.refused += weight;
        known.granted_since = 0.0;
        apart
    }

    /// Notes that a call for this came through while others were turned away. `true` if it must have a breaker of its
    /// own: it does so again and again, though it is turned away at other times.
    pub(in crate::circuit) fn grant(&mut self, lane: Lane, route: Route, weight: f32) -> bool {
        let Some(known) = self.asked(lane, route) else { return false };
        known.granted += weight;
        known.granted_since += weight;
        known.refused > 0.0 && known.granted_since >= PASSES_APART
    }

    fn asked(&mut self, lane: Lane, route: Route) -> Option<&mut Asked> {
        let is = |known: &Asked| known.lane == lane && known.route == route;
        let is_known = self.asked.iter().any(is);
        if !is_known && route.is_known() && self.asked.len() < ASKED_MAX {
            self.asked.push(Asked { lane, route, refused: 0.0, granted: 0.0, granted_since: 0.0 });
        }
        self.asked.iter_mut().find(|known| is(known))
    }

    /// Calls for these routes go through another breaker of the circuit from now on.
    pub(in crate::circuit) fn split(&mut self, from: Lane, to: Lane, routes: &[Route]) {
        self.asked.retain(|asked| asked.lane != from || !routes.contains(&asked.route));
        for operation in &mut self.operations {
            let Some(edge) = operation.edges.iter_mut().find(|edge| edge.lane == from) else { continue };
            let moves = |route: &Route| routes.contains(route);
            if !edge.routes.iter().any(moves) {
                continue;
            }
            let moved = Edge { lane: to, passed: 0.0, missed: 0.0, rejected: 0, ..*edge };
            if edge.routes.iter().filter(|route| route.is_known()).all(moves) {
                *edge = moved;
            } else {
                edge.routes.iter_mut().filter(|route| moves(route)).for_each(|route| *route = Route::default());
                if operation.edges.len() < EDGES_MAX {
                    let own = moved.routes.map(|route| if routes.contains(&route) { route } else { Route::default() });
                    let place = if routes.contains(&moved.first) { moved.place - 0.5 } else { moved.place + 0.5 };
                    operation.edges.push(Edge { routes: own, place, ..moved });
                }
            }
            operation.merge_alike();
        }
    }

    /// One circuit became part of another.
    pub(in crate::circuit) fn replace(&mut self, old: u32, new: u32) {
        for operation in &mut self.operations {
            operation.edges.iter_mut().filter(|edge| edge.lane.circuit == old).for_each(|edge| edge.lane = Lane::of(new));
            operation.merge_alike();
        }
        self.asked.retain(|asked| asked.lane.circuit != old);
        self.unnamed.iter_mut().filter(|(_, circuit)| *circuit == old).for_each(|(_, circuit)| *circuit = new);
        self.breakers.iter_mut().filter(|known| known.lane.circuit == old).for_each(|known| known.lane = Lane::of(new));
        self.without_operation.iter_mut().filter(|known| known.circuit == old).for_each(|known| *known = Lane::of(new));
    }

    /// Forgets which operations call a circuit, and what for; what is known of the names of its breakers stays.
    pub(in crate::circuit) fn forget_calls(&mut self, circuit: u32) {
        self.operations.iter_mut().for_each(|operation| operation.edges.retain(|edge| edge.lane.circuit != circuit));
        self.asked.retain(|known| known.lane.circuit != circuit);
    }

    /// Forgets a circuit that ended.
    pub(in crate::circuit) fn forget(&mut self, circuit: u32) {
        self.forget_calls(circuit);
        self.breakers.retain(|known| known.lane.circuit != circuit);
        self.unnamed.retain(|(_, known)| *known != circuit);
        self.without_operation.retain(|known| known.circuit != circuit);
    }

    /// Bytes on the heap.
    pub(in crate::circuit) fn heap_bytes(&self) -> usize {
        let operation = |one: &Operation| one.name.len() + if one.edges.spilled() { one.edges.capacity() * size_of::<Edge>() } else { 0 };
        self.operations.capacity() * size_of::<Operation>()
            + self.operations.iter().map(operation).sum::<usize>()
            + self.by_name.allocation_size()
            + self.without_operation.capacity() * size_of::<Lane>()
            + self.asked.capacity() * size_of::<Asked>()
            + self.unnamed.capacity() * size_of::<(Box<[u8]>, u32)>()
            + self.unnamed.iter().map(|(operation, _)| operation.len()).sum::<usize>()
            + self.breakers.capacity() * size_of::<BreakerName>()
            + self.breakers.iter().map(|known| known.name.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operation_usually_calls_is_learned_in_order() {
        let mut habits = Habits::default();
        let checkout = habits.operation(b"POST /checkout").unwrap();
        assert_eq!(habits.operation(b"POST /checkout"), Some(checkout));
        for unit in 0..100 {
            let all = [7, 3, 9].map(Lane::of);
            let called = if unit % 10 == 0 { &all[..2] } else { &all[..] };
            habits.see(checkout, if unit % 5 == 0 { called } else { &called[..2] }, false, |_| true);
        }
        let usual = |habits: &Habits| habits.usual(checkout).iter().map(|(lane, _)| lane.circuit).collect::<Vec<_>>();
        assert_eq!(usual(&habits), [7, 3], "9 is called too rarely");
        assert_eq!(habits.known(checkout).map(|lane| lane.circuit).collect::<Vec<_>>(), [7, 3, 9]);
        habits.forget(7);
        assert_eq!(usual(&habits), [3]);
    }

    #[test]
    fn operations_that_are_never_turned_away_do_not_go_through_the_breaker() {
        let mut habits = Habits::default();
        let (checkout, report) = (habits.operation(b"checkout"), habits.operation(b"report"));
        assert_eq!(habits.guard(None, Lane::of(7), Route::default()), Guard::Through, "nothing is known yet");
        habits.reject(checkout, Lane::of(7));
        assert_eq!(habits.guard(None, Lane::of(7), Route::default()), Guard::Past, "calls that stand alone are never turned away");
        for pass in 0..10 {
            assert_eq!(habits.guard(Some(checkout), Lane::of(7), Route::default()), Guard::Through);
            assert_eq!(habits.guard(Some(report), Lane::of(7), Route::default()), if pass < 2 { Guard::Unknown } else { Guard::Past });
            habits.pass(report.unwrap(), Lane::of(7), 1.0);
        }
        assert_eq!(&habits.guarded(Lane::of(7))[..], [checkout.unwrap()]);
        habits.reject(report, Lane::of(7));
        habits.reject(None, Lane::of(7));
        assert_eq!([Some(report), None].map(|within| habits.guard(within, Lane::of(7), Route::default())), [Guard::Through; 2]);
    }

    #[test]
    fn names_of_breakers_are_learned_by_votes() {
        let mut habits = Habits::default();
        habits.name(b"pay", Lane::of(1));
        habits.name(b"pay", Lane::of(2));
        habits.name(b"pay", Lane::of(2));
        assert_eq!((habits.guarded_by(b"pay"), habits.guarded_by(b"stock")), (Some(Lane::of(2)), None));
        habits.forget(2);
        assert_eq!(habits.guarded_by(b"pay"), Some(Lane::of(1)));
    }

    #[test]
    fn what_comes_through_while_others_are_turned_away_has_a_breaker_of_its_own() {
        let mut habits = Habits::default();
        let [pay, refund, exchange] = ["pay", "return", "exchange"].map(|name| habits.operation(name.as_bytes()).unwrap());
        let [charge_route, refund_route] = ["/charge", "/refund"].map(|path| Route::of(path.as_bytes()));
        let (all, own) = (Lane::of(7), Lane { circuit: 7, number: 1 });
        for (operation, routes) in [(pay, &[charge_route][..]), (refund, &[refund_route]), (exchange, &[charge_route, refund_route])] {
            habits.see(operation, &[all], false, |_| true);
            routes.iter().for_each(|route| habits.route(operation, all, *route, *route == routes[0]));
        }
        assert_eq!(habits.refused(exchange, all, &[refund_route]), Some(charge_route));
        assert_eq!(habits.refused(exchange, all, &[]), None, "it may be either");
        habits.reject(Some(exchange), all);
        assert!(!habits.refuse(all, charge_route, 1.0));
        assert_eq!(habits.guard(Some(Some(exchange)), all, refund_route), Guard::Through);
        assert!(!(0..3).any(|_| habits.grant(all, refund_route, 1.0)), "it may go through no breaker");
        assert_eq!(habits.guard(Some(Some(exchange)), all, refund_route), Guard::Past);
        assert!(habits.refuse(all, refund_route, 1.0), "but it does");
        habits.split(all, own, &[refund_route]);
        assert_eq!(habits.known(refund).collect::<Vec<_>>(), [own]);
        assert_eq!(habits.known(exchange).collect::<Vec<_>>(), [all, own]);
        assert_eq!(habits.known(pay).collect::<Vec<_>>(), [all]);
    }
}
