//! RPC services by name: the collector's part that knows whose calls are that tell nothing but their service.
//!
//! A gRPC client that gets no connection has no address to tell: spans of its failed calls name the method alone, where those
//! of the good ones name the address, too. What is called at an address for a service tells where the others would have gone.

use std::sync::Arc;

use super::{
    callees::{ADDRESSES_MAX, DOUBTS_MAX, MOVES_MAX},
    circuit::Address,
    collector::{CircuitBreakerMetricsCollector, KeyPlace},
    inspect::Inspection,
    key::{Kind, Target},
    seats::Found,
};

impl CircuitBreakerMetricsCollector {
    /// Learns which circuits the RPC services of a request belong to.
    pub(super) fn learn_rpc_services(&mut self, request: &[u8], inspection: &Inspection, mine: &impl Fn(u32) -> bool, now: u64) {
        let mut current = None;
        for record in inspection.rpc_services.iter().filter(|record| mine(record.resource)) {
            let Some(process) = self.process_of(request, inspection, record.resource, &mut current, now) else { continue };
            let place = self.place(process, inspection, request, (record.target, record.route), now);
            if let Found::Seat(seat) | Found::ByPath(seat) = place {
                self.serves(seat.circuit, inspection.text(request, record.service), now);
            }
        }
    }

    /// A call for an RPC service went to a circuit: those that tell the service alone belong there, too.
    fn serves(&mut self, number: u32, service: &[u8], now: u64) {
        let Some(circuit) = self.circuits.get(number as usize) else { return };
        let caller = Arc::clone(&circuit.key().caller);
        let target = Target { named: false, text: service, port: None };
        match self.known_circuit(self.key_hash(&caller, &target), &caller, &target) {
            None if self.selection.takes(caller.service.as_bytes(), service) => self.add_service(number, &target, 0),
            Some(other) if other != number && self.is_service_of_its_own(other, &target) => self.take_in_service(number, other, now),
            Some(known) if self.is_doubted(known, number, &target) => {
                let moves = self.remove_service(known, &target);
                self.add_service(number, &target, moves + 1);
            }
            _ => {}
        }
    }

    /// Whether a circuit was found by an RPC service, and nothing else is known of it.
    fn is_service_of_its_own(&self, number: u32, target: &Target<'_>) -> bool {
        self.circuits.get(number as usize).is_some_and(|circuit| circuit.key().kind == Kind::Rpc && circuit.key().is(target))
    }

    /// Notes where a call for a service that leads to the `known` circuit went; whether it went elsewhere for the last times. One
    /// that is called now here, now there stays where it is.
    fn is_doubted(&mut self, known: u32, went_to: u32, target: &Target<'_>) -> bool {
        let addresses = self.circuits.get_mut(known as usize).and_then(|circuit| circuit.addresses.as_mut());
        let mut all = addresses.into_iter().flat_map(|known| &mut known.all);
        let Some(service) = all.find(|address| address.kind == Kind::Rpc && address.target() == *target) else { return false };
        service.doubts = if known == went_to { 0 } else { service.doubts.saturating_add(1) };
        service.doubts >= DOUBTS_MAX && service.moves < MOVES_MAX
    }

    /// A service leads to a circuit from now on.
    fn add_service(&mut self, number: u32, target: &Target<'_>, moves: u8) {
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return };
        let caller = Arc::clone(&circuit.key().caller);
        let addresses = &mut circuit.addresses.get_or_insert_default().all;
        if addresses.len() >= ADDRESSES_MAX {
            return;
        }
        let text = String::from_utf8_lossy(target.text).into();
        addresses.push(Address { text, port: target.port, kind: Kind::Rpc, doubts: 0, moves });
        let hash = self.key_hash(&caller, target);
        self.by_key.insert_unique(hash.spread(), KeyPlace { hash, circuit: number }, |place| place.hash.spread());
    }

    /// A service does not lead to a circuit any more; gives how often it moved before.
    fn remove_service(&mut self, number: u32, target: &Target<'_>) -> u8 {
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return 0 };
        let caller = Arc::clone(&circuit.key().caller);
        let removed = circuit.addresses.as_mut().and_then(|known| {
            let at = known.all.iter().position(|address| address.target() == *target)?;
            Some(known.all.swap_remove(at))
        });
        let hash = self.key_hash(&caller, target);
        if let Ok(entry) = self.by_key.find_entry(hash.spread(), |place| place.hash == hash && place.circuit == number) {
            entry.remove();
        }
        self.leave_seats(number, target);
        removed.map_or(0, |address| address.moves)
    }

    /// The circuit of a service, of which no address was known until now, becomes part of the one that it is called at.
    fn take_in_service(&mut self, number: u32, service: u32, now: u64) {
        let of = |number: u32| self.circuits.get(number as usize);
        // What is under way is told first; the next call tries again.
        let waits = [number, service].iter().any(|number| of(*number).is_none_or(|circuit| circuit.has_news()));
        let addresses = |number: u32| of(number).and_then(|circuit| circuit.addresses.as_ref()).map_or(0, |known| known.all.len());
        if !waits && addresses(number) + addresses(service) < ADDRESSES_MAX {
            self.join_into(service, number, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::trace::v1::Span;

    use super::*;
    use crate::circuit::{
        config::CircuitMetricsConfig,
        inspect::{Rules, inspect},
        room::Room,
        testing::{SECOND, START, assert_sound, call, failed, int, names, request, text, trace_at},
    };

    fn collector() -> CircuitBreakerMetricsCollector {
        let config = CircuitMetricsConfig::default();
        let room = Arc::new(Room::new(config.max_circuits));
        CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room)
    }

    fn apply(shard: &mut CircuitBreakerMetricsCollector, number: u64, spans: Vec<Span>) {
        let request = request("shop", "a", spans);
        let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
        shard.apply(&request, &inspection, |_| true, START + number * SECOND);
        assert_sound(shard);
    }

    /// A call as otelgrpc tells it, to this address.
    fn good(number: u64, host: &str, method: &str) -> Span {
        let at = START + number * SECOND;
        call(number, at, at + 10, vec![text("rpc.method", method), text("server.address", host), int("server.port", 50051)])
    }

    /// One that got no connection.
    fn unconnected(number: u64, method: &str) -> Span {
        let at = START + number * SECOND;
        failed(call(number, at, at + 10, vec![text("rpc.method", method), text("rpc.response.status_code", "UNAVAILABLE")]))
    }

    /// Circuits by name, with successes and failures.
    fn counted(shard: &CircuitBreakerMetricsCollector) -> Vec<(String, u64, u64)> {
        let live = shard.circuits().filter(|(_, circuit)| !circuit.is_retired());
        let mut all: Vec<_> = live.map(|(_, circuit)| (circuit.key().name(), circuit.totals().successes, circuit.totals().failures())).collect();
        all.sort();
        all
    }

    const PAY: &str = "shop.Pay/Charge";

    #[test]
    fn calls_without_an_address_are_those_of_the_address_that_serves_the_same() {
        let mut shard = collector();
        apply(&mut shard, 1, vec![good(1, "10.0.0.7", PAY), good(2, "10.0.0.8", "shop.Stock/Get")]);
        apply(&mut shard, 3, vec![unconnected(3, PAY), unconnected(4, "/shop.Pay/Refund"), unconnected(5, "shop.Stock/Get")]);
        assert_eq!(counted(&shard), [("10.0.0.7:50051".to_owned(), 1, 2), ("10.0.0.8:50051".to_owned(), 1, 1)]);
        // In one request the order makes no difference.
        let mut shard = collector();
        apply(&mut shard, 1, vec![unconnected(1, PAY), good(2, "10.0.0.7", PAY)]);
        assert_eq!(counted(&shard), [("10.0.0.7:50051".to_owned(), 1, 1)]);
    }

    #[test]
    fn a_service_that_was_called_before_its_address_is_known_becomes_part_of_it() {
        let mut shard = collector();
        apply(&mut shard, 1, vec![unconnected(1, PAY)]);
        assert_eq!(counted(&shard), [("shop.Pay".to_owned(), 0, 1)]);
        apply(&mut shard, 2, vec![good(2, "10.0.0.7", PAY)]);
        apply(&mut shard, 3, vec![unconnected(3, PAY)]);
        let failures: u64 = shard.circuits().map(|(_, circuit)| circuit.totals().failures()).sum();
        assert_eq!((counted(&shard), failures), (vec![("10.0.0.7:50051".to_owned(), 1, 1)], 2));
    }

    #[test]
    fn the_callee_s_name_holds_for_its_service_too() {
        let mut shard = collector();
        apply(&mut shard, 1, vec![good(1, "10.0.0.7", PAY)]);
        (2..6).for_each(|number| trace_at(&mut shard, ("10.0.0.7", 50051), "", "payments", 2, number, START + number * SECOND));
        apply(&mut shard, 6, vec![unconnected(6, PAY)]);
        assert_eq!(counted(&shard), [("payments".to_owned(), 5, 1)]);
        // It is called at another address of the same callee, whose name is not known yet.
        apply(&mut shard, 7, vec![good(7, "10.0.0.9", PAY), unconnected(8, PAY)]);
        assert_eq!(counted(&shard)[1], ("payments".to_owned(), 5, 2));
        (9..12).for_each(|number| trace_at(&mut shard, ("10.0.0.9", 50051), "", "payments", 2, number, START + number * SECOND));
        assert_eq!(counted(&shard).len(), 1);
    }

    #[test]
    fn a_service_moves_with_its_calls() {
        let mut shard = collector();
        apply(&mut shard, 1, vec![good(1, "10.0.0.7", PAY)]);
        for number in 2..5 {
            apply(&mut shard, number, vec![good(number, "10.0.0.8", PAY)]);
        }
        apply(&mut shard, 5, vec![unconnected(5, PAY)]);
        assert_eq!(counted(&shard), [("10.0.0.7:50051".to_owned(), 1, 0), ("10.0.0.8:50051".to_owned(), 3, 1)]);
        // It is called at several: it does not go to and fro.
        let places = (6..60).map(|number| {
            let host = if number / 4 % 2 == 0 { "10.0.0.7" } else { "10.0.0.8" };
            apply(&mut shard, number, vec![good(number, host, PAY)]);
            let target = Target { named: false, text: b"shop.Pay", port: None };
            let caller = Arc::clone(&shard.callers[0]);
            shard.known_circuit(shard.key_hash(&caller, &target), &caller, &target)
        });
        let mut places: Vec<Option<u32>> = places.collect();
        places.dedup();
        assert!(places.len() <= 2 && places.iter().all(Option::is_some), "{places:?}");
    }

    #[test]
    fn a_service_without_an_address_learns_its_callee_s_name() {
        let mut shard = collector();
        for number in 1..6_u64 {
            let at = START + number * SECOND;
            let (client, server) = (number * 8 + 1, number * 8 + 2);
            let of_trace = |mut span: Span| {
                span.trace_id = [number.to_be_bytes(), (number * 8).to_le_bytes()].concat();
                span
            };
            let calls = of_trace(call(client, at, at + 10, vec![text("rpc.service", "shop.Pay"), text("rpc.method", "Charge")]));
            let mut answer = of_trace(call(server, at + 1, at + 9, vec![]));
            (answer.kind, answer.parent_span_id) = (2, client.to_be_bytes().to_vec());
            let mut meetings = crate::circuit::meeting::Meetings::default();
            for request in [request("shop", "a", vec![calls]), request("payments", "b", vec![answer])] {
                let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
                shard.apply(&request, &inspection, |_| true, at);
                let met: Vec<_> = shard.take_met().filter_map(|met| meetings.meet(0, met)).collect();
                met.iter().for_each(|introduction| shard.introduce(introduction, at));
            }
            assert_sound(&shard);
        }
        assert_eq!(names(&shard), [("payments".to_owned(), "shop.Pay".to_owned(), 5)]);
    }
}
