//! What time brings: the collector's part that closes buckets, and lets go of what is gone.

use std::{hash::BuildHasher, ops::Range};

use slab::Slab;
use smallvec::SmallVec;

use super::{
    circuit::{Address, Circuit},
    collector::CircuitBreakerMetricsCollector,
    config::CircuitMetricsConfig,
    detect::habit::Habits,
    event::CircuitEvent,
    meeting::Met,
    member::Member,
    process::{Hashed, Process, Seat},
    seats::hash_of,
};

/// Circuits and processes that one [`Round`] looks at before it lets others to the shard. `benches/ticker.rs` prints how long
/// that keeps them out.
const AT_ONCE: usize = 64;

/// How long after the buckets of the time have closed a state that nothing confirmed is shown at most. Nanoseconds.
const LAPSES_AFTER: u64 = 2_000_000_000;

/// A process that nobody heard of for so long holds up no others. Nanoseconds.
const QUIET: u64 = 3_000_000_000;

/// One time round a shard, some of it at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    /// Where it goes on; `None` before it begins.
    next: Option<Cursor>,
    /// Circuits that were seen.
    pub circuits: usize,
    /// Bytes they and the processes hold.
    pub bytes: usize,
    /// Circuits that are not closed in all of their instances, as far as is known.
    pub restless: usize,
    /// How far the slowest circuit's buckets are behind, in nanoseconds; 0 if nothing is open.
    pub lag: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    circuit: usize,
    process: usize,
    /// Whether what nobody has heard of for long is let go of.
    sweeping: bool,
}

impl CircuitBreakerMetricsCollector {
    /// Closes the buckets of every circuit up to its watermark, lets go of what is idle, and hands out what breakers
    /// did, each circuit's events in order.
    pub fn advance(&mut self, now: u64, events: &mut Vec<CircuitEvent>) -> Round {
        let mut round = Round::default();
        while self.advance_some(&mut round, now, events) {}
        round
    }

    /// As [`advance`](Self::advance), for some of the circuits; `false` when the round is complete.
    pub fn advance_some(&mut self, round: &mut Round, now: u64, events: &mut Vec<CircuitEvent>) -> bool {
        let mut cursor = match round.next {
            Some(cursor) => cursor,
            None => {
                round.bytes += self.ended.iter().map(Circuit::bytes).sum::<usize>();
                round.bytes += self.habits.iter().map(|(_, habits)| size_of::<Habits>() + habits.heap_bytes()).sum::<usize>();
                round.bytes += self.tallies.bytes();
                round.bytes += self.met.capacity() * size_of::<Met>() + self.learning.bytes() + self.newcomer_bytes();
                self.begin(now)
            }
        };
        // Processes first: what their breakers did is told by circuits.
        let last = self.processes.capacity().min(cursor.process + AT_ONCE);
        for index in cursor.process..last {
            self.look_at_process(index, cursor.sweeping, round, now);
        }
        if last == self.processes.capacity() && cursor.process < last {
            self.turns.sort_unstable();
        }
        cursor.process = last;
        if last == self.processes.capacity() && !self.detect_some(false, now) {
            let last = self.circuits.capacity().min(cursor.circuit + AT_ONCE);
            for number in cursor.circuit..last {
                self.advance_circuit(number, cursor.sweeping, round, now, events);
            }
            cursor.circuit = last;
        }
        round.next = Some(cursor);
        cursor.circuit < self.circuits.capacity() || cursor.process < self.processes.capacity() || !self.turns.is_empty()
    }

    fn begin(&mut self, now: u64) -> Cursor {
        self.let_newcomers_go(now);
        self.forget_old_newcomers();
        self.tallies.begin();
        self.holding.clear();
        self.turns.clear();
        self.habits.iter_mut().for_each(|(_, habits)| habits.slowest = u64::MAX);
        let sweeping = now >= self.next_sweep;
        if sweeping {
            self.next_sweep = now.saturating_add(self.config.instance_ttl.min(self.config.circuit_ttl) / 30);
        }
        Cursor { circuit: 0, process: 0, sweeping }
    }

    fn advance_circuit(&mut self, number: usize, sweeping: bool, round: &mut Round, now: u64, events: &mut Vec<CircuitEvent>) {
        let oldest = now.saturating_sub(self.config.allowed_lateness);
        let Some(circuit) = self.circuits.get(number) else { return };
        let heard = |circuit: &Circuit| if circuit.is_analyzed() { heard(circuit, &self.processes, &self.config) } else { 0..0 };
        let due = if circuit.is_settled() {
            // What analyzers wait for comes without a call.
            let to = oldest / self.config.bucket_size();
            circuit.is_awake(to, || heard(circuit), &self.config).then_some(to)
        } else {
            let of_process = |member: &Member| {
                let process = self.processes.get(member.process as usize);
                process.map_or(oldest, |process| process.watermark(now, &self.config))
            };
            let watermark = circuit.members.iter().map(|(_, member)| of_process(member)).min().unwrap_or(oldest);
            Some(watermark / self.config.bucket_size())
        };
        if let Some(to) = due {
            let heard = heard(circuit);
            let is_cut_off = circuit.is_quiet(to, &self.config) && self.is_cut_off(u32::try_from(number).unwrap_or(u32::MAX));
            let Some(circuit) = self.circuits.get_mut(number) else { return };
            circuit.cut_off(is_cut_off);
            circuit.settle(to, &heard, &self.config, events);
            self.findings.extend(circuit.take_findings());
        }
        if sweeping {
            self.forget_paths(number, now.saturating_sub(self.config.circuit_ttl));
        }
        let Some(circuit) = self.circuits.get_mut(number) else { return };
        if circuit.is_restless() {
            // A final state comes when the bucket closes that it falls into.
            circuit.lapse(now, self.config.allowed_lateness + self.config.bucket_size() + LAPSES_AFTER);
        }
        if sweeping {
            circuit.members.iter_mut().for_each(|(_, member)| member.calm_since(now));
        }
        let is_established = circuit.is_established();
        if circuit.is_settled() {
            let told = circuit.retired && !circuit.changed;
            if told || sweeping && is_gone(circuit.last_seen, self.config.circuit_ttl, now) && !circuit.is_tripped() {
                self.gone.idle += u64::from(!is_established);
                return self.remove_circuit(number, now);
            }
            circuit.rest();
        } else {
            round.lag = round.lag.max(now.saturating_sub(circuit.closed_to() * self.config.bucket_size()));
        }
        if let Some((status, _)) = circuit.health().filter(|_| is_established && !circuit.retired) {
            self.tallies.add(circuit, status);
        }
        round.circuits += 1;
        round.restless += usize::from(circuit.is_restless());
        round.bytes += circuit.bytes();
        self.settle_in(number);
    }

    fn look_at_process(&mut self, index: usize, sweeping: bool, round: &mut Round, now: u64) {
        let Some(process) = self.processes.get(index) else { return };
        if sweeping && is_gone(process.last_seen, self.config.instance_ttl, now) {
            return self.remove_process(index, now);
        }
        if sweeping {
            self.forget_usages(index, false, now);
        }
        self.note_holding(index);
        let Some(process) = self.processes.get(index) else { return };
        round.bytes += process.bytes();
        let watermark = process.watermark(now, &self.config);
        if process.last_seen.saturating_add(QUIET) > now
            && let Some(habits) = self.habits.get_mut(process.habits as usize)
        {
            habits.slowest = habits.slowest.min(watermark);
        }
        if process.is_watched() {
            self.turns.push((process.habits, u32::try_from(index).unwrap_or(u32::MAX)));
        } else if let Some(process) = self.processes.get_mut(index) {
            process.watch.take_if(|watch| !watch.goes_on(watermark));
        }
    }

    /// Closes everything: there will be no more spans.
    pub fn finish(&mut self, now: u64, events: &mut Vec<CircuitEvent>) {
        self.begin(now);
        let watched = self.processes.iter().filter(|(_, process)| process.is_watched());
        self.turns = watched.map(|(index, process)| (process.habits, u32::try_from(index).unwrap_or(u32::MAX))).collect();
        self.turns.sort_unstable();
        while self.detect_some(true, now) {}
        for index in 0..self.processes.capacity() {
            self.forget_usages(index, true, now);
        }
        for (_, circuit) in &mut self.circuits {
            circuit.settle(now / self.config.bucket_size() + 1, &heard(circuit, &self.processes, &self.config), &self.config, events);
            // What was found in the last bucket must not end before its end.
            self.findings.extend(circuit.end_findings(now.max(circuit.closed_to() * self.config.bucket_size())));
        }
    }

    pub(super) fn remove_process(&mut self, index: usize, now: u64) {
        self.forget_usages(index, true, now);
        let Some(process) = self.processes.try_remove(index) else { return };
        self.leave_habits(process.habits);
        if let Ok(entry) = self.by_resource.find_entry(self.hasher.hash_one(process.texts()), |other| *other as usize == index) {
            entry.remove();
        }
        // It may have several in one circuit.
        let mut seats: Vec<Seat> = process.seats.into_iter().collect();
        seats.sort_unstable_by_key(|seat| seat.circuit);
        seats.dedup_by_key(|seat| seat.circuit);
        for seat in seats {
            let Some(circuit) = self.circuits.get_mut(seat.circuit as usize) else { continue };
            match seat.member {
                Some(member) => self.instances -= usize::from(circuit.remove(member as usize)),
                None => circuit.strangers = circuit.strangers.saturating_sub(1),
            }
        }
    }

    pub(super) fn remove_circuit(&mut self, number: usize, now: u64) {
        let circuit = self.take_out(number, now);
        self.ended.extend(circuit.map(|circuit| *circuit));
    }

    /// Nothing leads to a circuit any more, and nothing is known of it but what it counted.
    pub(super) fn take_out(&mut self, number: usize, now: u64) -> Option<Box<Circuit>> {
        let gone = u32::try_from(number).unwrap_or(u32::MAX);
        // Calls that came to them by its addresses are missing there from now on.
        self.led_to(gone).into_iter().for_each(|other| self.forget_calls(other, now));
        let mut circuit = self.circuits.try_remove(number)?;
        if circuit.newcomer {
            self.room.no_newcomer();
        }
        self.findings.extend(circuit.end_findings(now));
        self.leave_keys(gone, &circuit);
        let leave = |process: &mut Process| {
            process.last = process.last.filter(|seat| seat.circuit != gone);
            process.seats.retain(|seat| seat.circuit != gone);
        };
        let forget = |process: &mut Process| process.watch.iter_mut().for_each(|watch| watch.forget(gone));
        if circuit.newcomer && circuit.strangers == 0 && circuit.addresses.is_none() {
            // Only its own members know of it: it is let go of in no more time than it took to make it.
            let habits: SmallVec<[u32; 2]> = self.members_of(&circuit).map(|process| process.habits).collect();
            habits.iter().for_each(|index| self.habits.get_mut(*index as usize).into_iter().for_each(|habits| habits.forget(gone)));
            let members = circuit.members.iter().map(|(_, member)| member.process as usize);
            members.for_each(|index| self.processes.get_mut(index).into_iter().for_each(forget));
        } else {
            self.habits.iter_mut().for_each(|(_, habits)| habits.forget(gone));
            self.processes.iter_mut().for_each(|(_, process)| forget(process));
        }
        self.instances -= circuit.members.len();
        if circuit.strangers > 0 {
            self.processes.iter_mut().for_each(|(_, process)| leave(process));
        } else {
            circuit.members.iter().filter_map(|(_, member)| self.processes.get_mut(member.process as usize).map(leave)).for_each(drop);
        }
        Some(circuit)
    }

    fn members_of<'a>(&'a self, circuit: &'a Circuit) -> impl Iterator<Item = &'a Process> {
        circuit.members.iter().filter_map(|(_, member)| self.processes.get(member.process as usize))
    }

    /// Whatever led to a circuit leads nowhere.
    fn leave_keys(&mut self, number: u32, circuit: &Circuit) {
        let caller = &circuit.key().caller;
        let addresses = circuit.addresses.as_deref().map(|known| known.all.as_slice()).unwrap_or_default();
        for target in addresses.iter().map(Address::target).chain([circuit.key().target()]) {
            let hash = Hashed::of(hash_of(&self.hasher, caller, &target));
            if let Ok(entry) = self.by_key.find_entry(hash.spread(), |place| place.hash == hash && place.circuit == number) {
                entry.remove();
            }
        }
    }
}

/// The last buckets in which some of a circuit's processes were heard of all the time: one that is empty in there is so
/// because nobody called.
fn heard(circuit: &Circuit, processes: &Slab<Process>, config: &CircuitMetricsConfig) -> Range<u64> {
    let of = |member: &Member| processes.get(member.process as usize).map(|process| (process.heard_since, process.newest_end));
    let mut all: SmallVec<[(u64, u64); 8]> = circuit.members.iter().filter_map(|(_, member)| of(member)).collect();
    all.sort_unstable();
    let mut last: Option<(u64, u64)> = None;
    for (from, to) in all {
        last = match last {
            Some((first, newest)) if from <= newest.saturating_add(config.bucket_size()) => Some((first, newest.max(to))),
            _ => Some((from, to)),
        };
    }
    last.map_or(0..0, |(from, to)| from / config.bucket_size()..to / config.bucket_size())
}

/// Whether nobody has heard of something for longer than its time to live.
const fn is_gone(last_seen: u64, ttl: u64, now: u64) -> bool {
    last_seen.saturating_add(ttl) < now
}
