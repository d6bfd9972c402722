//! Whose a span is: the collector's part that finds its process and its circuit, and makes them known.

use std::{
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::{
    circuit::Circuit,
    collector::{CircuitBreakerMetricsCollector, KeyPlace},
    detect::{lane::Route, strikes::Strikes},
    inspect::{Inspection, ResourceRecord, TargetRecord, Text, route_at},
    key::{Caller, CircuitKey, Kind, Target},
    member::Member,
    process::{Hashed, Process, Seat},
    usages::Usages,
};

/// Processes that a shard tells apart at most. Those beyond it share one instance of no name per caller, for as many
/// callers again; what comes then counts as overflow. One that is heard of again and again takes the place of one that was
/// heard of once.
pub(super) const PROCESSES_MAX: usize = 50_000;

pub(super) enum Found {
    Seat(Seat),
    /// Where the path counts, too: another call at the same address may go elsewhere.
    ByPath(Seat),
    Excluded,
    NoRoom,
}

impl CircuitBreakerMetricsCollector {
    /// The process of a resource; made known if it is not and there is room.
    #[inline]
    pub(super) fn process_of(
        &mut self,
        request: &[u8],
        inspection: &Inspection,
        resource: u32,
        current: &mut Option<(u32, Option<u32>)>,
        now: u64,
    ) -> Option<u32> {
        if let Some((known, process)) = *current
            && known == resource
        {
            return process;
        }
        let record = inspection.resources.get(resource as usize).copied().unwrap_or_default();
        let process = match self.find_process(request, inspection, &record) {
            Some(process) => Some(process),
            None => self.new_process(request, inspection, &record, now),
        };
        *current = Some((resource, process));
        process
    }

    pub(super) fn find_process(&self, request: &[u8], inspection: &Inspection, record: &ResourceRecord) -> Option<u32> {
        let texts = resource_texts(request, inspection, record);
        let hash = self.hasher.hash_one(texts);
        self.by_resource.find(hash, |index| self.processes.get(*index as usize).is_some_and(|process| process.texts() == texts)).copied()
    }

    #[cold]
    fn new_process(&mut self, request: &[u8], inspection: &Inspection, record: &ResourceRecord, now: u64) -> Option<u32> {
        let mut record = *record;
        let is_full = self.processes.len() >= self.processes_max;
        let takes_room = is_full && self.takes_room_of_process(resource_texts(request, inspection, &record), now);
        if is_full && !takes_room {
            record.instance = Text::default();
            let shared = self.find_process(request, inspection, &record);
            if shared.is_some() || self.processes.len() >= 2 * self.processes_max {
                return shared;
            }
        }
        let texts = resource_texts(request, inspection, &record);
        let [environment, namespace, service, instance] = texts.map(|text| String::from_utf8_lossy(text).into_owned().into_boxed_str());
        let (caller, habits) = self.habits_of(Caller { environment, namespace, service });
        if instance.is_empty() {
            self.nameless.push(Arc::clone(&caller));
        }
        let process = Process {
            caller,
            habits,
            watch: None,
            instance: instance.into(),
            learned: 0,
            roots: 0,
            broke_off: Strikes::default(),
            newest_end: 0,
            heard_since: 0,
            usages: Usages::new(),
            last_seen: now,
            // One that took the room of another is heard of again and again already.
            newcomer: !takes_room,
            seats: HashTable::new(),
            last: None,
        };
        let index = u32::try_from(self.processes.insert(process)).unwrap_or(u32::MAX);
        if !takes_room {
            self.new_processes.push_back(index);
        }
        let (processes, hasher) = (&self.processes, &self.hasher);
        self.by_resource.insert_unique(hasher.hash_one(texts), index, |index| {
            processes.get(*index as usize).map_or(0, |process| hasher.hash_one(process.texts()))
        });
        Some(index)
    }

    /// What a caller usually calls; the caller itself is kept once.
    fn habits_of(&mut self, caller: Caller) -> (Arc<Caller>, u32) {
        let hash = self.hasher.hash_one(&caller);
        let callers = &self.callers;
        let known = self.by_caller.find(hash, |index| callers.get(*index as usize).is_some_and(|known| **known == caller)).copied();
        let index = known.unwrap_or_else(|| {
            let number = self.habits.insert(Box::default());
            let caller = Arc::new(caller.clone());
            match self.callers.get_mut(number) {
                Some(place) => *place = caller,
                None => self.callers.push(caller),
            }
            let index = u32::try_from(number).unwrap_or(u32::MAX);
            let (callers, hasher) = (&self.callers, &self.hasher);
            self.by_caller.insert_unique(hash, index, |index| callers.get(*index as usize).map_or(0, |caller| hasher.hash_one(&**caller)));
            index
        });
        self.habits.get_mut(index as usize).into_iter().for_each(|habits| habits.users += 1);
        (self.callers.get(index as usize).map_or_else(|| Arc::new(caller), Arc::clone), index)
    }

    /// Forgets what a caller usually calls when the last of its processes is gone.
    pub(super) fn leave_habits(&mut self, index: u32) {
        let Some(habits) = self.habits.get_mut(index as usize) else { return };
        habits.users = habits.users.saturating_sub(1);
        if habits.users > 0 {
            return;
        }
        self.habits.remove(index as usize);
        let Some(caller) = self.callers.get(index as usize) else { return };
        if let Ok(entry) = self.by_caller.find_entry(self.hasher.hash_one(&**caller), |other| *other == index) {
            entry.remove();
        }
    }

    /// The circuit of a target, where the process has a place in it.
    pub(super) fn circuit_called(
        &mut self,
        process: u32,
        inspection: &Inspection,
        request: &[u8],
        called: (TargetRecord, Text),
        now: u64,
    ) -> Option<u32> {
        match self.place(process, inspection, request, called, now) {
            Found::Seat(seat) | Found::ByPath(seat) => Some(seat.circuit),
            Found::Excluded | Found::NoRoom => None,
        }
    }

    /// The member that a process is of a circuit; becomes one if there is room.
    pub(super) fn member_of(&mut self, index: u32, number: u32) -> Option<usize> {
        let caller = &self.circuits.get(number as usize)?.key().caller;
        let process = self.processes.get(index as usize).filter(|process| process.caller == *caller)?;
        let known = process.seats.iter().find(|seat| seat.circuit == number).copied();
        let seat = match known {
            Some(seat) => self.promoted(index, seat),
            None => {
                let target = self.circuits.get(number as usize)?.key().target();
                let hash = Hashed::of(self.hasher.hash_one(target));
                self.take_seat_in(index, number, hash)?
            }
        };
        seat.member.map(|member| member as usize)
    }

    /// The place of a process in the circuit of a target; where several callees share an address, of the one that answers
    /// for this route.
    #[inline]
    pub(super) fn place(&mut self, index: u32, inspection: &Inspection, request: &[u8], (target, route): (TargetRecord, Text), now: u64) -> Found {
        match self.seat(index, inspection, request, target, now) {
            Found::Seat(seat) if self.is_shared(seat) => Found::ByPath(self.seat_by_path(index, seat, Route::of(route_at(request, route)), now)),
            found => found,
        }
    }

    /// Whether some of what is called there is another circuit's, by its path.
    #[inline]
    fn is_shared(&self, seat: Seat) -> bool {
        let circuit = self.circuits.get(seat.circuit as usize);
        circuit.is_some_and(|circuit| circuit.addresses.as_ref().is_some_and(|addresses| addresses.paths.are_told_apart()))
    }

    /// The place of a process in the circuit of a target.
    #[inline]
    fn seat(&mut self, index: u32, inspection: &Inspection, request: &[u8], target: TargetRecord, now: u64) -> Found {
        let what = (target.kind, target.own_at);
        let target = Target { named: target.named, text: inspection.text(request, target.text), port: target.port };
        let Some(process) = self.processes.get_mut(index as usize) else { return Found::NoRoom };
        let circuits = &self.circuits;
        let is = |seat: &Seat| circuits.get(seat.circuit as usize).is_some_and(|circuit| circuit.answers_to(&target));
        // Of several addresses the one that was called has to be found again.
        let same_address = |seat: &Seat| {
            let several = circuits.get(seat.circuit as usize).is_some_and(|circuit| circuit.addresses.is_some());
            !several || seat.hash == Hashed::of(self.hasher.hash_one(target))
        };
        if let Some(last) = process.last
            && last.member.is_some()
            && is(&last)
            && same_address(&last)
        {
            return Found::Seat(last);
        }
        let hash = Hashed::of(self.hasher.hash_one(target));
        if let Some(seat) = process.seats.find(hash.spread(), is).copied() {
            let seat = self.promoted(index, seat);
            self.processes.get_mut(index as usize).into_iter().for_each(|process| process.last = Some(seat));
            return Found::Seat(seat);
        }
        self.take_seat(index, (&target, what), hash, now)
    }

    /// The place of a process in the circuit of a target, if it has one.
    pub(super) fn known_seat(&self, index: u32, target: &Target<'_>) -> Option<Seat> {
        self.known_seat_of(index, Hashed::of(self.hasher.hash_one(target)), target)
    }

    /// The same, given the target's hash.
    pub(super) fn known_seat_of(&self, index: u32, hash: Hashed, target: &Target<'_>) -> Option<Seat> {
        let process = self.processes.get(index as usize)?;
        let is = |seat: &Seat| self.circuits.get(seat.circuit as usize).is_some_and(|circuit| circuit.answers_to(target));
        process.seats.find(hash.spread(), is).copied()
    }

    #[cold]
    fn take_seat(&mut self, index: u32, (target, what): (&Target<'_>, (Kind, u8)), hash: Hashed, now: u64) -> Found {
        let Some(process) = self.processes.get(index as usize) else { return Found::NoRoom };
        let caller = Arc::clone(&process.caller);
        if !self.selection.takes(caller.service.as_bytes(), target.text) {
            return Found::Excluded;
        }
        let Some(number) = self.circuit_of_kind(&caller, target, what, "", now) else { return Found::NoRoom };
        let Some(seat) = self.take_seat_in(index, number, hash) else { return Found::NoRoom };
        self.processes.get_mut(index as usize).into_iter().for_each(|process| process.last = Some(seat));
        Found::Seat(seat)
    }

    /// The place of a process in a circuit, found by this hash from now on; a new one if it has none there.
    pub(super) fn take_seat_in(&mut self, index: u32, number: u32, hash: Hashed) -> Option<Seat> {
        let circuit = self.circuits.get_mut(number as usize)?;
        let process = self.processes.get_mut(index as usize)?;
        // It may have one already, by another address of the same callee.
        let known = process.seats.iter().find(|seat| seat.circuit == number).map(|seat| seat.member);
        let member = known.unwrap_or_else(|| {
            let member = join(circuit, index, &process.instance, self.config.max_instances);
            circuit.strangers += u32::from(member.is_none());
            self.instances += usize::from(member.is_some());
            member
        });
        let seat = Seat { hash, circuit: number, member };
        process.seats.insert_unique(hash.spread(), seat, |seat| seat.hash.spread());
        Some(seat)
    }

    /// A stranger becomes a member when others have left.
    #[inline]
    pub(super) fn promoted(&mut self, index: u32, seat: Seat) -> Seat {
        if seat.member.is_some() { seat } else { self.promote(index, seat) }
    }

    #[cold]
    fn promote(&mut self, index: u32, seat: Seat) -> Seat {
        let Some(process) = self.processes.get_mut(index as usize) else { return seat };
        let Some(circuit) = self.circuits.get_mut(seat.circuit as usize) else { return seat };
        let Some(member) = join(circuit, index, &process.instance, self.config.max_instances) else { return seat };
        circuit.strangers = circuit.strangers.saturating_sub(1);
        self.instances += 1;
        let all = process.seats.iter_mut().filter(|other| other.circuit == seat.circuit);
        all.for_each(|other| other.member = Some(member));
        Seat { member: Some(member), ..seat }
    }

    /// The circuit of a service or breaker; made if there is room, and shown with this address.
    pub(super) fn circuit_of(&mut self, caller: &Arc<Caller>, target: &Target<'_>, address: &str, now: u64) -> Option<u32> {
        self.circuit_of_kind(caller, target, (Kind::Service, 0), address, now)
    }

    /// The circuit of a target of some kind, whose own name begins there; made if there is room, and shown with this address.
    pub(super) fn circuit_of_kind(
        &mut self,
        caller: &Arc<Caller>,
        target: &Target<'_>,
        (kind, own_at): (Kind, u8),
        address: &str,
        now: u64,
    ) -> Option<u32> {
        let hash = self.key_hash(caller, target);
        if let Some(known) = self.known_circuit(hash, caller, target) {
            return Some(known);
        }
        let taken = self.take_room(caller, target, now)?;
        let text = String::from_utf8_lossy(target.text).into();
        let (caller, address) = (Arc::clone(caller), address.into());
        let key = CircuitKey { caller, named: target.named, text, port: target.port, address, kind, own_at, overflow: false };
        let circuit = Circuit::new(Arc::new(key), self.unseen_since(now), now);
        let circuit = u32::try_from(self.circuits.insert(Box::new(circuit))).unwrap_or(u32::MAX);
        self.enlist(circuit, taken);
        self.by_key.insert_unique(hash.spread(), KeyPlace { hash, circuit }, |place| place.hash.spread());
        Some(circuit)
    }

    /// The circuit of a target, if there is one.
    pub(super) fn known_circuit(&self, hash: Hashed, caller: &Caller, target: &Target<'_>) -> Option<u32> {
        let is = |place: &KeyPlace| {
            let circuit = self.circuits.get(place.circuit as usize);
            circuit.is_some_and(|circuit| *circuit.key().caller == *caller && circuit.answers_to(target))
        };
        self.by_key.find(hash.spread(), is).map(|place| place.circuit)
    }

    /// What a circuit is found by.
    pub(super) fn key_hash(&self, caller: &Caller, target: &Target<'_>) -> Hashed {
        Hashed::of(hash_of(&self.hasher, caller, target))
    }
}

/// Makes a process a member of a circuit, if there is room; its place among them.
pub(super) fn join(circuit: &mut Circuit, process: u32, instance: &Arc<str>, most: usize) -> Option<u32> {
    let room = circuit.members.len() < most;
    room.then(|| u32::try_from(circuit.members.insert(Member::new(process, Arc::clone(instance)))).unwrap_or(u32::MAX))
}

fn resource_texts<'a>(request: &'a [u8], inspection: &'a Inspection, record: &ResourceRecord) -> [&'a [u8]; 4] {
    [record.environment, record.namespace, record.service, record.instance].map(|text| inspection.text(request, text))
}

pub(super) fn hash_of(hasher: &RandomState, caller: &Caller, target: &Target<'_>) -> u64 {
    let mut state = hasher.build_hasher();
    caller.hash(&mut state);
    target.hash(&mut state);
    std::hash::Hasher::finish(&state)
}
