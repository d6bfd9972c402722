//! Circuits and processes that were heard of once: the collector's part that lets them go for those that are called again
//! and again.

use std::{collections::VecDeque, hash::BuildHasher};

use foldhash::quality::FixedState;

use super::{
    collector::CircuitBreakerMetricsCollector,
    key::{Caller, Target},
};

/// Processes that there may be beyond the most until newcomers are gone for them: that takes until the next request.
const PROCESSES_OWED_MAX: usize = 256;

/// Newcomers that one look lets go of, or finds to be none any more.
const AT_ONCE: usize = 256;

/// Whose room a new circuit took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// There was some.
    Free,
    /// That of a newcomer, which goes soon.
    OfNewcomer,
}

/// What became of circuits that never had a series, since this was asked last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Those that made room for others.
    pub evicted: u64,
    /// What these had counted.
    pub evicted_calls: u64,
    /// Those that nobody called for too long.
    pub idle: u64,
}

impl CircuitBreakerMetricsCollector {
    /// Takes room for a circuit: where there is none, that of a newcomer, for a name that is called again and again.
    pub(super) fn take_room(&self, caller: &Caller, target: &Target<'_>, now: u64) -> Option<Taken> {
        if self.room.take() {
            return Some(Taken::Free);
        }
        // The same in each run, so that a recording gives the same.
        let name = FixedState::with_seed(0).hash_one((caller, target));
        self.room.take_of_newcomer(name, now).then_some(Taken::OfNewcomer)
    }

    /// A circuit was made: for now it may make room for others, unless it took the room of one that did. That one is called
    /// again and again already, and may be of a shard that is looked at before the other's.
    pub(super) fn enlist(&mut self, number: u32, taken: Taken) {
        if taken == Taken::OfNewcomer {
            return;
        }
        if let Some(circuit) = self.circuits.get_mut(number as usize) {
            circuit.newcomer = true;
            self.room.newcomer();
            self.newcomers.push_back(number);
        }
    }

    /// A circuit that has become more than a newcomer makes no room any more.
    pub(super) fn settle_in(&mut self, number: usize) {
        if let Some(circuit) = self.circuits.get_mut(number).filter(|circuit| circuit.newcomer && circuit.is_established()) {
            circuit.newcomer = false;
            self.room.no_newcomer();
        }
    }

    /// Lets the oldest newcomers go for those that took their room. To be called where no number of a circuit or process is
    /// at hand.
    pub(super) fn let_newcomers_go(&mut self, now: u64) {
        for _ in 0..AT_ONCE {
            if !self.room.is_owed() {
                break;
            }
            if self.room.is_within() {
                // Others have gone meanwhile.
                self.room.settle_one();
                continue;
            }
            let Some(number) = self.newcomers.pop_front() else { break };
            self.settle_in(number as usize);
            if self.circuits.get(number as usize).is_none_or(|circuit| !circuit.newcomer) {
                continue;
            }
            if !self.room.settle_one() {
                // Another shard was faster.
                self.newcomers.push_front(number);
                break;
            }
            self.evict(number as usize, now);
        }
        for _ in 0..AT_ONCE {
            self.processes_owed = self.processes_owed.min(self.processes.len().saturating_sub(self.processes_max));
            if self.processes_owed == 0 {
                break;
            }
            let Some(index) = self.new_processes.pop_front() else { break };
            if self.processes.get(index as usize).is_some_and(|process| process.newcomer && process.watch.is_none()) {
                self.processes_owed -= 1;
                self.remove_process(index as usize, now);
            }
        }
    }

    /// Forgets the oldest that are no newcomers any more.
    pub(super) fn forget_old_newcomers(&mut self) {
        for _ in 0..AT_ONCE {
            let (circuits, processes) = (&self.circuits, &self.processes);
            let circuit = self.newcomers.pop_front_if(|number| circuits.get(*number as usize).is_none_or(|circuit| !circuit.newcomer));
            let process = self.new_processes.pop_front_if(|index| processes.get(*index as usize).is_none_or(|process| !process.newcomer));
            if circuit.is_none() && process.is_none() {
                break;
            }
        }
        // Where all have stayed, nothing is kept of them.
        if self.newcomers.is_empty() {
            self.newcomers = VecDeque::new();
        }
        if self.new_processes.is_empty() {
            self.new_processes = VecDeque::new();
        }
    }

    /// There is nothing to be told of its end: it has no series.
    fn evict(&mut self, number: usize, now: u64) {
        let Some(circuit) = self.take_out(number, now) else { return };
        self.room.give();
        self.gone.evicted += 1;
        self.gone.evicted_calls += circuit.totals().successes + circuit.totals().failures() + circuit.totals().rejections;
    }

    /// Whether a process finds room beyond the most: it is heard of again and again, and one that was heard of once goes for it.
    pub(super) fn takes_room_of_process(&mut self, texts: [&[u8]; 4], now: u64) -> bool {
        let can_go = self.processes_owed < PROCESSES_OWED_MAX && self.processes_owed < self.new_processes.len();
        let takes = can_go && self.room.is_heard_again(FixedState::with_seed(1).hash_one(texts), now);
        self.processes_owed += usize::from(takes);
        takes
    }

    /// What became of circuits that never had a series, since this was asked last.
    pub fn take_gone(&mut self) -> Gone {
        std::mem::take(&mut self.gone)
    }

    /// Bytes of what is kept of newcomers.
    pub(super) fn newcomer_bytes(&self) -> usize {
        (self.newcomers.capacity() + self.new_processes.capacity()) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry_proto::tonic::trace::v1::Span;

    use super::*;
    use crate::circuit::{
        circuit::Circuit,
        config::CircuitMetricsConfig,
        inspect::{Rules, inspect},
        room::Room,
        testing::{SECOND, START, call, request, text, transition},
    };

    const MOST: usize = 50;

    fn shard(room: &Arc<Room>) -> CircuitBreakerMetricsCollector {
        CircuitBreakerMetricsCollector::new(Arc::new(CircuitMetricsConfig::default()), Arc::default(), Arc::clone(room))
    }

    fn apply(shard: &mut CircuitBreakerMetricsCollector, service: &str, spans: Vec<Span>, now: u64) -> usize {
        let request = request(service, "a", spans);
        let inspection = inspect(&request, 0, &Rules::default(), now).unwrap();
        shard.apply(&request, &inspection, |_| true, now).overflow.len()
    }

    fn to(callee: &str, id: u64, end: u64) -> Span {
        call(id, end - SECOND / 100, end, vec![text("server.address", callee)])
    }

    fn circuit<'a>(shard: &'a CircuitBreakerMetricsCollector, name: &str) -> Option<&'a Circuit> {
        shard.circuits().map(|(_, circuit)| circuit).find(|circuit| circuit.key().to_string() == name)
    }

    #[test]
    fn made_up_names_keep_no_service_out_that_is_called_each_second() {
        // The sender of made-up names and the new service are of different shards.
        let room = Arc::new(Room::new(MOST));
        let (mut flooded, mut other) = (shard(&room), shard(&room));
        let (mut id, mut overflow) = (0, 0);
        for second in 0..70 {
            let now = START + second * SECOND;
            let mut made_up = || {
                id += 1;
                to(&format!("made-up-{id}"), id, now)
            };
            let spans = (0..200).map(|_| made_up()).collect();
            overflow += apply(&mut flooded, "flood", spans, now);
            if second >= 10 {
                apply(&mut other, "shop", vec![to("pay", 1_000_000 + second, now)], now);
            }
            // Whichever shard is looked at first.
            let shards = if second % 2 == 0 { [&mut flooded, &mut other] } else { [&mut other, &mut flooded] };
            shards.into_iter().for_each(|shard| _ = shard.advance(now, &mut Vec::new()));
            assert!(room.taken() <= MOST + 1, "{}", room.taken());
        }
        let pay = circuit(&other, "shop -> pay").unwrap();
        assert!(pay.is_established() && pay.totals().successes >= 57, "{}", pay.totals().successes);
        assert!(flooded.circuits().all(|(_, circuit)| !circuit.is_established()), "a flood makes no series");
        assert_eq!((flooded.take_gone(), room.taken(), overflow), (Gone { evicted: 1, evicted_calls: 1, idle: 0 }, MOST, 200 * 70 - MOST));
    }

    #[test]
    fn who_was_called_in_two_buckets_or_had_an_event_makes_no_room() {
        let room = Arc::new(Room::new(3));
        let mut shard = shard(&room);
        let now = START + 100 * SECOND;
        let mut tripped = to("tripped", 1, now - 40 * SECOND);
        tripped.events = vec![transition(now - 40 * SECOND, "closed", "open")];
        apply(&mut shard, "shop", vec![tripped, to("twice", 2, now - 30 * SECOND), to("twice", 3, now - 20 * SECOND), to("once", 4, now)], now);
        shard.advance(now, &mut Vec::new());
        for second in 1..5 {
            let now = now + second * SECOND;
            apply(&mut shard, "shop", vec![to("new", 10 + second, now)], now);
            shard.advance(now, &mut Vec::new());
        }
        let found = ["tripped", "twice", "once", "new"].map(|callee| circuit(&shard, &format!("shop -> {callee}")).is_some());
        assert_eq!((found, room.taken()), ([true, true, false, true], 3));
        // None is left that could go.
        for second in 5..10 {
            let now = now + second * SECOND;
            assert_eq!(apply(&mut shard, "shop", vec![to("another", 10 + second, now)], now), 1);
            shard.advance(now, &mut Vec::new());
        }
    }

    #[test]
    fn made_up_services_keep_no_process_out_that_is_heard_of_each_second() {
        let mut shard = shard(&Arc::new(Room::new(10_000)));
        shard.processes_max = 20;
        let mut id = 0;
        for second in 0..30 {
            let now = START + second * SECOND;
            for _ in 0..50 {
                id += 1;
                apply(&mut shard, &format!("made-up-{id}"), vec![to("pay", id, now)], now);
            }
            if second >= 5 {
                apply(&mut shard, "shop", vec![to("pay", 1_000_000 + second, now)], now);
            }
            shard.advance(now, &mut Vec::new());
            assert!(shard.processes.len() <= 41, "{}", shard.processes.len());
        }
        let shop = circuit(&shard, "shop -> pay").unwrap();
        assert!(shop.totals().successes >= 23 && shard.processes_owed == 0, "{}", shop.totals().successes);
    }
}
