//! States that are told without a name: whose breaker it is. The collector's part for callbacks that put an event on
//! whatever span is at hand.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    collector::CircuitBreakerMetricsCollector,
    inspect::{Inspection, UnnamedRecord},
    key::Target,
    member::{Evidence, Member},
    state::{Observation, State},
};

impl CircuitBreakerMetricsCollector {
    /// Keeps states of a breaker that neither event nor span names, of a process; `false` if there is no room for them.
    pub(super) fn observe_unnamed(&mut self, index: u32, told: &UnnamedRecord, request: &[u8], inspection: &Inspection, now: u64) -> bool {
        let operation = inspection.text(request, told.operation);
        let number = match self.known_unnamed(index, told, operation) {
            Some(known) => known,
            None => {
                let Some(process) = self.processes.get(index as usize) else { return false };
                let caller = Arc::clone(&process.caller);
                if operation.is_empty() || !self.selection.takes(caller.service.as_bytes(), operation) {
                    return true;
                }
                // As a refusal without a name, of which nothing says whose it is.
                match self.circuit_of(&caller, &Target { named: true, text: operation, port: None }, "", now) {
                    Some(new) => new,
                    None => return false,
                }
            }
        };
        if let Some(process) = self.processes.get(index as usize)
            && let Some(habits) = self.habits.get_mut(process.habits as usize)
        {
            habits.tells(operation, number);
        }
        let Some(member) = self.member_of(index, number) else { return false };
        let bucket_size = self.config.bucket_size();
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return false };
        (circuit.changed, circuit.last_seen) = (true, now);
        let Some(member) = circuit.members.get_mut(member) else { return false };
        let ids = told.ids(request);
        let mut is_room = true;
        for (state, step) in told.states() {
            let observation = Observation { order: told.order, at: told.at, state, ids };
            is_room &= member.keep(Evidence { observation, step, changes: told.changes }, bucket_size);
        }
        is_room
    }

    /// The circuit that it is taken for: the one whose state it goes on from; the one this operation told of before; the
    /// only one that the process calls, or that the operation usually calls.
    fn known_unnamed(&self, index: u32, told: &UnnamedRecord, operation: &[u8]) -> Option<u32> {
        let process = self.processes.get(index as usize)?;
        let habits = self.habits.get(process.habits as usize)?;
        let is_not_closed = |circuit: &u32| {
            let member = self.member_in(*circuit, index);
            member.and_then(Member::provisional).is_some_and(|state| state != State::Closed)
        };
        let only = |mut circuits: SmallVec<[u32; 4]>| {
            circuits.sort_unstable();
            circuits.dedup();
            circuits.pop().filter(|_| circuits.is_empty())
        };
        let begun = if told.begins() { None } else { only(habits.told().filter(is_not_closed).collect()) };
        let usual = || {
            let operation = habits.known_operation(operation)?;
            only(habits.usual(operation).iter().map(|(lane, _)| lane.circuit).collect())
        };
        begun.or_else(|| habits.told_by(operation)).or_else(|| only(process.circuits().collect())).or_else(usual)
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::{Span, span::Event};

    use super::*;
    use crate::circuit::{
        config::CircuitMetricsConfig,
        event::CircuitEvent,
        inspect::{Rules, inspect},
        room::Room,
        state::Change,
        testing::{SECOND, START, call, request, text, transition},
    };

    /// What a shop does in a second: it calls these, and its span has these events.
    fn second(number: u64, callees: &[&str], events: Vec<Event>) -> Vec<Span> {
        let at = START + number * SECOND;
        let mut spans: Vec<Span> =
            (1..).zip(callees).map(|(id, callee)| call(number * 8 + id, at + id, at + id + 10, vec![text("server.address", callee)])).collect();
        let mut root = call(number * 8, at, at + 100, vec![]);
        (root.kind, root.name, root.events) = (2, "GET /".to_owned(), events);
        spans.push(root);
        spans
    }

    fn told(seconds: Vec<Vec<Span>>) -> Vec<(String, Change)> {
        let config = CircuitMetricsConfig::default();
        let room = Arc::new(Room::new(config.max_circuits));
        let mut shard = CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room);
        let mut events: Vec<CircuitEvent> = Vec::new();
        for (number, spans) in (0..).zip(seconds) {
            let now = START + number * SECOND;
            let request = request("shop", "a", spans);
            let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
            shard.apply(&request, &inspection, |_| true, now);
            shard.advance(now, &mut events);
        }
        shard.finish(START + 100 * SECOND, &mut events);
        events.into_iter().map(|event| (event.circuit.name(), event.change)).collect()
    }

    fn life(from: &'static str, to: &'static str, number: u64) -> Vec<Event> {
        vec![transition(START + number * SECOND + 50, from, to)]
    }

    fn expected(name: &str) -> Vec<(String, Change)> {
        [Change::Trip, Change::RecoveryAttempt, Change::Recovery].map(|change| (name.to_owned(), change)).to_vec()
    }

    #[test]
    fn it_is_the_one_callee_s() {
        let calls: Vec<Vec<Span>> = (0..10).map(|number| second(number, &["pay"], vec![])).collect();
        let then = [
            second(10, &[], life("CLOSED", "OPEN", 10)),
            second(11, &[], life("OPEN", "HALF_OPEN", 11)),
            // Another callee that comes in between does not make it another's.
            second(12, &["stock"], vec![]),
            second(13, &["pay"], life("HALF_OPEN", "CLOSED", 13)),
        ];
        assert_eq!(told(calls.into_iter().chain(then).collect()), expected("pay"));
    }

    #[test]
    fn names_of_events_tell_that_it_changed() {
        let of = |name: &str, number: u64| {
            let attributes = vec![text("circuit_breaker.name", "pay")];
            let event = Event { time_unix_nano: START + number * SECOND + 50, name: name.to_owned(), attributes, ..Event::default() };
            second(number, &[], vec![event])
        };
        let told = told(vec![of("circuit_breaker.opened", 0), of("circuit_half_open", 1), of("circuit-closed", 2)]);
        assert_eq!(told, expected("pay"));
    }

    #[test]
    fn it_is_called_like_the_operation_where_it_may_be_several_s() {
        let calls: Vec<Vec<Span>> = (0..10).map(|number| second(number, &["pay", "stock"], vec![])).collect();
        let then = [
            second(10, &[], life("CLOSED", "OPEN", 10)),
            second(11, &[], life("OPEN", "HALF_OPEN", 11)),
            second(12, &["pay", "stock"], life("HALF_OPEN", "CLOSED", 12)),
        ];
        let told = told(calls.into_iter().chain(then).collect());
        assert_eq!(told, expected("GET /"));
    }
}
