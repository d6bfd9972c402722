//! The names of callees, learned from their own spans: the collector's part that gives circuits other names.

use std::{hash::BuildHasher, sync::Arc};

use super::{
    circuit::{Address, Addresses, Circuit},
    collector::{CircuitBreakerMetricsCollector, KeyPlace},
    key::{Caller, CircuitKey, Kind, Target},
    meeting::Introduction,
    member::Member,
    paths::Paths,
    process::Hashed,
    seats::join,
};

/// So often in a row another callee must answer at an address before it is believed to have moved.
pub(super) const DOUBTS_MAX: u8 = 3;

/// An address that moves so often is shared by several callees, and keeps its own name.
pub(super) const MOVES_MAX: u8 = 2;

/// Addresses of one callee that are remembered; what is called at further ones stays a circuit of its own.
pub(super) const ADDRESSES_MAX: usize = 64;

impl CircuitBreakerMetricsCollector {
    /// Takes in who answered at an address of a circuit: the circuit goes on under the callee's name.
    pub fn introduce(&mut self, introduction: &Introduction, now: u64) {
        let Introduction { circuit: number, address: hash, route, callee, .. } = introduction;
        let Some(circuit) = self.circuits.get_mut(*number as usize) else { return };
        if callee.service.is_empty() || circuit.key().named || circuit.retired {
            return;
        }
        let hasher = &self.hasher;
        let is = |target: Target<'_>| Hashed::of(hasher.hash_one(target)) == *hash;
        let is_own = is(circuit.key().target());
        let is_known = circuit_is_called(circuit, &callee.service);
        // A circuit that still has the name of its address has that of who answers for its RPC services as well.
        let is_bare = circuit.key().kind.is_learned() && circuit.key().address.is_empty() && !shares_its_address(circuit);
        let is_explained = circuit.addresses.as_ref().is_some_and(|known| known.paths.explain(*hash, *route, &callee.service));
        let Some(address) = circuit.addresses.as_mut().and_then(|known| known.all.iter_mut().find(|address| is(address.target()))) else {
            if is_own && !is_known {
                self.name(*number, 0, callee, now);
            }
            return;
        };
        if is_bare && !is_own && !is_known && address.kind == Kind::Rpc {
            return self.name(*number, 0, callee, now);
        }
        let is_shared = address.moves >= MOVES_MAX;
        // Who has paths of its own there says nothing about the rest of the address.
        if is_known || is_shared {
            address.doubts = 0;
        } else if !is_explained {
            address.doubts += 1;
        }
        if address.doubts >= DOUBTS_MAX {
            let moves = address.moves + 1;
            let address = address.clone();
            return self.move_out(*number, &address, moves, callee, now);
        }
        self.answered(*number, (*hash, *route), callee, now);
    }

    /// Names the circuit of an address after the callee that answers there, or lets it become part of one that is
    /// named so.
    fn name(&mut self, number: u32, moves: u8, callee: &Caller, now: u64) {
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return };
        let key = Arc::clone(circuit.key());
        let address = Address { text: key.text.clone(), port: key.port, kind: key.kind, doubts: 0, moves };
        let target = Target { named: false, text: callee.service.as_bytes(), port: None };
        let hash = self.key_hash(&key.caller, &target);
        if let Some(other) = self.known_circuit(hash, &key.caller, &target).filter(|other| *other != number) {
            let addresses =
                |number: u32| self.circuits.get(number as usize).and_then(|circuit| circuit.addresses.as_ref()).map_or(1, |known| known.all.len());
            // What is under way is told first; the next introduction tries again.
            let waits = [number, other].iter().any(|number| self.circuits.get(*number as usize).is_some_and(|circuit| circuit.has_news()));
            if !waits && addresses(number) + addresses(other) <= ADDRESSES_MAX {
                self.join_into(number, other, now);
            }
            return;
        }
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return };
        let known = circuit.addresses.get_or_insert_default();
        let addresses = &mut known.all;
        if !addresses.iter().any(|known| known.target() == address.target()) {
            addresses.push(address);
        }
        known.paths.forget_own(&callee.service);
        self.by_key.insert_unique(hash.spread(), KeyPlace { hash, circuit: number }, |place| place.hash.spread());
        let shown = shown(&key);
        let kind = if key.kind == Kind::Rpc { Kind::Rpc } else { Kind::Address };
        let named = CircuitKey { caller: Arc::clone(&key.caller), text: callee.service.clone(), address: shown, kind, ..CircuitKey::default() };
        self.rename(number, named, now);
    }

    fn rename(&mut self, number: u32, key: CircuitKey, now: u64) {
        let since = self.unseen_since(now);
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return };
        let (past, findings) = circuit.rename(Arc::new(key), since, now);
        self.findings.extend(findings);
        if let Some(past) = past {
            // It gives its room back when its end was told.
            self.room.take_anyway();
            self.circuits.insert(Box::new(past));
        }
    }

    /// An address whose callee is another one by now.
    fn move_out(&mut self, number: u32, address: &Address, moves: u8, callee: &Caller, now: u64) {
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return };
        let key = Arc::clone(circuit.key());
        let is_only = circuit.addresses.as_ref().is_some_and(|known| known.all.len() == 1);
        let moved = Address { doubts: 0, moves, ..address.clone() };
        let number = if is_only && !self.is_led_to(number) {
            self.leave_name(number, &key);
            let addresses = self.circuits.get_mut(number as usize).and_then(|circuit| circuit.addresses.take());
            self.set_addresses(number, vec![moved], addresses.map(|known| known.paths).unwrap_or_default());
            let Address { text, port, kind, .. } = address.clone();
            let bare = CircuitKey { caller: Arc::clone(&key.caller), text, port, kind, ..CircuitKey::default() };
            self.rename(number, bare, now);
            number
        } else {
            // The circuit goes on without it.
            let paths = self.forget_address(number, &address.target(), now);
            let Some(own) = self.circuit_of_kind(&key.caller, &address.target(), (address.kind, 0), "", now) else { return };
            self.set_addresses(own, vec![moved], paths);
            own
        };
        if moves < MOVES_MAX {
            self.name(number, moves, callee, now);
        }
    }

    fn set_addresses(&mut self, number: u32, all: Vec<Address>, paths: Paths) {
        if let Some(circuit) = self.circuits.get_mut(number as usize) {
            circuit.addresses = Some(Box::new(Addresses { all, paths }));
        }
    }

    /// A circuit is no longer found by its name.
    fn leave_name(&mut self, number: u32, key: &CircuitKey) {
        let name = self.key_hash(&key.caller, &key.target());
        if let Ok(entry) = self.by_key.find_entry(name.spread(), |place| place.hash == name && place.circuit == number) {
            entry.remove();
        }
        self.leave_seats(number, &key.target());
    }

    /// What is called at this address is no longer this circuit; gives what is known of its paths.
    pub(super) fn forget_address(&mut self, number: u32, target: &Target<'_>, now: u64) -> Paths {
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return Paths::default() };
        let caller = Arc::clone(&circuit.key().caller);
        let hash = self.key_hash(&caller, target);
        if let Ok(entry) = self.by_key.find_entry(hash.spread(), |place| place.hash == hash && place.circuit == number) {
            entry.remove();
        }
        let called = Hashed::of(self.hasher.hash_one(target));
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return Paths::default() };
        let paths = circuit.addresses.as_mut().map(|known| {
            known.all.retain(|address| address.target() != *target);
            known.paths.split_off(called)
        });
        // Its calls are missing here from now on.
        self.forget_calls(number, now);
        self.leave_seats(number, target);
        paths.unwrap_or_default()
    }

    /// No process finds a circuit by this target any more; those that find it by no other are no longer its instances.
    pub(super) fn leave_seats(&mut self, number: u32, target: &Target<'_>) {
        let hash = Hashed::of(self.hasher.hash_one(target));
        for (_, process) in &mut self.processes {
            process.last = None;
            if let Ok(entry) = process.seats.find_entry(hash.spread(), |seat| seat.hash == hash && seat.circuit == number) {
                let seat = entry.remove().0;
                if !process.seats.iter().any(|other| other.circuit == number)
                    && let Some(circuit) = self.circuits.get_mut(number as usize)
                {
                    match seat.member {
                        Some(member) => self.instances -= usize::from(circuit.remove(member as usize)),
                        None => circuit.strangers = circuit.strangers.saturating_sub(1),
                    }
                }
            }
        }
    }

    /// Makes one circuit part of another: its instances go on there, what it counted stays its own and ends with it.
    pub(super) fn join_into(&mut self, number: u32, other: u32, now: u64) {
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return };
        circuit.retired = true;
        circuit.changed = true;
        self.findings.extend(circuit.end_findings(now));
        let key = Arc::clone(circuit.key());
        let mut members: Vec<_> = circuit.members.drain().collect();
        // Its breakers have other numbers there.
        members.iter_mut().for_each(Member::forget_suspects);
        let Addresses { all: mut addresses, paths } = circuit.addresses.take().map(|known| *known).unwrap_or_default();
        // What its name was learned for is among them; what it was called by is not, where only RPC services lead to it.
        if key.address.is_empty() && !addresses.iter().any(|address| address.target() == key.target()) {
            addresses.push(Address { text: key.text.clone(), port: key.port, kind: key.kind, doubts: 0, moves: 0 });
        }
        circuit.strangers = 0;
        for place in self.by_key.iter_mut().filter(|place| place.circuit == number) {
            place.circuit = other;
        }
        let Some(into) = self.circuits.get_mut(other as usize) else { return };
        into.last_seen = now;
        let name = into.key().text.clone();
        let known = into.addresses.get_or_insert_default();
        known.all.extend(addresses);
        let lost = known.paths.take_in(paths, &name);
        for (index, process) in &mut self.processes {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            if !process.seats.iter().any(|seat| seat.circuit == number) {
                continue;
            }
            process.last = None;
            let there = process.seats.iter().find(|seat| seat.circuit == other).map(|seat| seat.member);
            let mine = members.iter().position(|member| member.process == index).map(|at| members.swap_remove(at));
            self.instances -= usize::from(mine.is_some());
            let member = there.unwrap_or_else(|| {
                let joined = join(into, index, &process.instance, self.config.max_instances);
                into.strangers += u32::from(joined.is_none());
                self.instances += usize::from(joined.is_some());
                // What its breaker did goes on.
                if let (Some(mine), Some(place)) = (mine, joined.and_then(|member| into.members.get_mut(member as usize))) {
                    *place = mine;
                }
                joined
            });
            for seat in process.seats.iter_mut().filter(|seat| seat.circuit == number) {
                (seat.circuit, seat.member) = (other, member);
            }
            if let Some(watch) = &mut process.watch {
                watch.replace(number, other);
            }
        }
        self.habits.iter_mut().for_each(|(_, habits)| habits.replace(number, other));
        lost.iter().for_each(|callee| self.learn_anew(other, callee, now));
        let config = Arc::clone(&self.config);
        self.circuits.get_mut(other as usize).into_iter().for_each(|circuit| circuit.learn_anew(&config.analysis, now));
    }
}

/// Whether several callees answer at the address that a circuit is called by.
fn shares_its_address(circuit: &Circuit) -> bool {
    let mut addresses = circuit.addresses.iter().flat_map(|known| &known.all);
    addresses.any(|address| address.moves >= MOVES_MAX && address.target() == circuit.key().target())
}

/// Whether a callee of this name is the circuit's own.
pub(super) fn circuit_is_called(circuit: &Circuit, name: &str) -> bool {
    *circuit.key().text == *name && circuit.key().port.is_none()
}

/// An address as it is shown beside a name.
pub(super) fn shown(key: &CircuitKey) -> Box<str> {
    if key.address.is_empty() { key.name().into() } else { key.address.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::{
        config::CircuitMetricsConfig,
        inspect::{Rules, inspect},
        room::Room,
        testing::{SECOND, START, call, int, names, request, text, trace, transition},
    };

    fn collector() -> CircuitBreakerMetricsCollector {
        let config = CircuitMetricsConfig::default();
        let room = Arc::new(Room::new(config.max_circuits));
        CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room)
    }

    #[test]
    fn an_address_goes_on_under_the_name_of_who_answers_there() {
        let mut shard = collector();
        (1..6).for_each(|number| trace(&mut shard, ("10.0.0.7", 8080), "payments", 2, number));
        assert_eq!(names(&shard), [("payments".to_owned(), "10.0.0.7:8080".to_owned(), 5)]);
        // Another address of the same callee becomes part of it.
        (6..9).for_each(|number| trace(&mut shard, ("10.0.0.8", 8080), "payments", 2, number));
        let successes: u64 = shard.circuits().map(|(_, circuit)| circuit.totals().successes).sum();
        assert_eq!((names(&shard).len(), successes), (1, 8));
    }

    #[test]
    fn a_host_that_is_called_as_its_service_is_settled_at_once() {
        let mut shard = collector();
        (1..20).for_each(|number| trace(&mut shard, ("payments", 80), "payments", 2, number));
        assert_eq!(names(&shard), [("payments".to_owned(), String::new(), 19)]);
    }

    #[test]
    fn an_address_moves_and_one_that_is_shared_keeps_its_own_name() {
        let mut shard = collector();
        (1..4).for_each(|number| trace(&mut shard, ("10.0.0.7", 8080), "payments", 2, number));
        (4..8).for_each(|number| trace(&mut shard, ("10.0.0.7", 8080), "orders", 2, number));
        assert_eq!(names(&shard)[0].0, "orders");
        (8..40).for_each(|number| trace(&mut shard, ("10.0.0.7", 8080), if number % 8 < 4 { "payments" } else { "orders" }, 2, number));
        assert_eq!(names(&shard)[0].0, "10.0.0.7:8080");
    }

    #[test]
    fn who_takes_a_message_is_not_the_broker() {
        let mut shard = collector();
        (1..6).for_each(|number| trace(&mut shard, ("10.0.0.9", 9092), "fulfilment", 5, number));
        assert_eq!(names(&shard)[0].0, "10.0.0.9:9092");
    }

    #[test]
    fn nothing_is_joined_while_an_incident_goes_on() {
        let mut shard = collector();
        trace(&mut shard, ("10.0.0.7", 8080), "payments", 2, 1);
        let mut tripped = call(999, START, START + 10, vec![text("server.address", "10.0.0.8"), int("server.port", 8080)]);
        tripped.events = vec![transition(START + 5, "closed", "open")];
        let request = request("shop", "a", vec![tripped]);
        let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
        shard.apply(&request, &inspection, |_| true, START);
        shard.advance(START + 30 * SECOND, &mut Vec::new());
        trace(&mut shard, ("10.0.0.8", 8080), "payments", 2, 40);
        assert_eq!(names(&shard).len(), 2);
        assert!(shard.circuits().any(|(_, circuit)| circuit.incident().is_some()));
    }
}
