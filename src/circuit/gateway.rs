//! Several callees at one address: the collector's part that sends calls to the circuit of who answers for their path.

use std::{hash::BuildHasher, sync::Arc};

use super::{
    callees::{circuit_is_called, shown},
    circuit::{Address, Circuit},
    collector::CircuitBreakerMetricsCollector,
    detect::lane::{Lane, Route},
    key::{Caller, Target},
    paths::News,
    process::{Hashed, Process, Seat},
};

fn target_of(callee: &str) -> Target<'_> {
    Target { named: false, text: callee.as_bytes(), port: None }
}

impl CircuitBreakerMetricsCollector {
    /// A callee answered at an address for a route. Once that is certain, and the circuit's own callee is another one,
    /// calls for it go to the callee's circuit.
    pub(super) fn answered(&mut self, number: u32, (address, route): (Hashed, Route), callee: &Caller, now: u64) {
        let Some(circuit) = self.circuits.get_mut(number as usize) else { return };
        // What is under way is told first; the next answer tries again.
        let waits = circuit.has_news();
        let answers = (!circuit_is_called(circuit, &callee.service)).then_some(&*callee.service);
        let Some(addresses) = &mut circuit.addresses else { return };
        match addresses.paths.see((address, route), answers, now) {
            News::Certain if !waits => self.give_path(number, (address, route), &callee.service, now),
            News::Lost(callee) => self.learn_anew(number, &callee, now),
            News::Certain | News::None => {}
        }
    }

    /// Calls for a route go to the circuit of who answers for it from now on.
    fn give_path(&mut self, number: u32, (address, route): (Hashed, Route), callee: &str, now: u64) {
        let Some(circuit) = self.circuits.get(number as usize) else { return };
        let (caller, called) = (Arc::clone(&circuit.key().caller), self.called(circuit, address));
        let Some(other) = self.circuit_of(&caller, &target_of(callee), &called, now).filter(|other| *other != number) else { return };
        let addresses = self.circuits.get_mut(number as usize).and_then(|circuit| circuit.addresses.as_mut());
        addresses.into_iter().for_each(|addresses| addresses.paths.tell_apart(address, route));
        let watches = self.processes.iter_mut().filter_map(|(_, process)| process.watch.as_mut());
        watches.for_each(|watch| watch.split(Lane::of(number), Lane::of(other), &[route]));
        self.learn_anew(number, callee, now);
    }

    /// Forgets what is usually called of a circuit and of a callee, since a route went from one to the other: what is
    /// called there no longer must not seem to be missing.
    pub(super) fn learn_anew(&mut self, number: u32, callee: &str, now: u64) {
        let Some(circuit) = self.circuits.get(number as usize) else { return };
        let (caller, target) = (&circuit.key().caller, target_of(callee));
        let other = self.known_circuit(self.key_hash(caller, &target), caller, &target);
        [Some(number), other].into_iter().flatten().for_each(|circuit| self.forget_calls(circuit, now));
    }

    /// Forgets what is usually called of a circuit, since other calls are its own from now on. What is under way is of
    /// the old kind, and teaches nothing.
    pub(super) fn forget_calls(&mut self, number: u32, now: u64) {
        let config = Arc::clone(&self.config);
        self.circuits.get_mut(number as usize).into_iter().for_each(|circuit| circuit.learn_anew(&config.analysis, now));
        self.habits.iter_mut().for_each(|(_, habits)| habits.forget_calls(number));
        let of_caller = |process: &&mut Process| process.seats.iter().any(|seat| seat.circuit == number);
        for process in self.processes.iter_mut().map(|(_, process)| process).filter(of_caller) {
            let newest_end = process.newest_end;
            process.watch.iter_mut().for_each(|watch| watch.whole_from(newest_end));
        }
    }

    /// Forgets the routes of a circuit that nobody answered for since then; nobody can have asked for them.
    pub(super) fn forget_paths(&mut self, number: usize, then: u64) {
        let addresses = self.circuits.get_mut(number).and_then(|circuit| circuit.addresses.as_mut());
        addresses.into_iter().for_each(|addresses| addresses.paths.forget_before(then));
    }

    /// The circuits that calls go to by the path of a circuit's addresses.
    pub(super) fn led_to(&self, number: u32) -> Vec<u32> {
        let Some(circuit) = self.circuits.get(number as usize) else { return Vec::new() };
        let caller = &circuit.key().caller;
        let callees = circuit.addresses.iter().flat_map(|addresses| addresses.paths.leads_to());
        callees.filter_map(|callee| self.known_circuit(self.key_hash(caller, &target_of(callee)), caller, &target_of(callee))).collect()
    }

    /// Whether calls to another circuit's addresses go to this one by their path.
    pub(super) fn is_led_to(&self, number: u32) -> bool {
        let others = self.circuits.iter().filter_map(|(other, _)| u32::try_from(other).ok()).filter(|other| *other != number);
        others.into_iter().any(|other| self.led_to(other).contains(&number))
    }

    /// An address of a circuit, as it is shown.
    fn called(&self, circuit: &Circuit, hash: Hashed) -> Box<str> {
        let mut addresses = circuit.addresses.iter().flat_map(|addresses| &addresses.all);
        let address = addresses.find(|address| Hashed::of(self.hasher.hash_one(address.target())) == hash);
        address.map_or_else(|| shown(circuit.key()), Address::shown)
    }

    /// The place of a process in the circuit of who answers for a route, if that is another than the address leads to.
    pub(super) fn seat_by_path(&mut self, index: u32, seat: Seat, route: Route, now: u64) -> Seat {
        // All that is called there may be others' by now: the way to them must not be forgotten.
        self.circuits.get_mut(seat.circuit as usize).into_iter().for_each(|circuit| circuit.last_seen = now);
        let Some(circuit) = self.circuits.get(seat.circuit as usize) else { return seat };
        let Some(callee) = circuit.addresses.as_ref().and_then(|addresses| addresses.paths.of(seat.hash, route)) else { return seat };
        let hash = Hashed::of(self.hasher.hash_one(target_of(callee)));
        if let Some(known) = self.known_seat_of(index, hash, &target_of(callee)) {
            return Seat { hash: seat.hash, ..self.promoted(index, known) };
        }
        let (caller, called, callee) = (Arc::clone(&circuit.key().caller), self.called(circuit, seat.hash), Box::<str>::from(callee));
        let Some(number) = self.circuit_of(&caller, &target_of(&callee), &called, now) else { return seat };
        self.take_seat_in(index, number, hash).map_or(seat, |found| Seat { hash: seat.hash, ..found })
    }

    /// The place of a process in the circuit that a call belongs to, if it has one.
    pub(super) fn known_place(&self, index: u32, target: &Target<'_>, route: impl FnOnce() -> Route) -> Option<Seat> {
        let seat = self.known_seat(index, target)?;
        let circuit = self.circuits.get(seat.circuit as usize)?;
        let paths = circuit.addresses.as_ref().map(|addresses| &addresses.paths);
        let Some(callee) = paths.filter(|paths| paths.are_told_apart()).and_then(|paths| paths.of(seat.hash, route())) else { return Some(seat) };
        let (caller, target) = (&circuit.key().caller, target_of(callee));
        // Where there is no room for the callee's circuit its calls are the address's.
        let known = self.known_circuit(self.key_hash(caller, &target), caller, &target);
        self.known_seat(index, &target).or_else(|| known.is_none().then_some(seat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::{
        config::CircuitMetricsConfig,
        inspect::{Rules, inspect},
        pattern::Pattern,
        room::Room,
        selection::{Choice, Selection},
        testing::{SECOND, START, assert_sound, call, int, names, request, text, trace_for, transition},
    };

    const GATEWAY: (&str, i64) = ("gateway", 80);

    fn collector(config: CircuitMetricsConfig) -> CircuitBreakerMetricsCollector {
        let room = Arc::new(Room::new(config.max_circuits));
        CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room)
    }

    /// Traces through the gateway, one a second from this number on; gives the next number.
    fn run(shard: &mut CircuitBreakerMetricsCollector, from: u64, calls: &[(&str, &str)], times: usize) -> u64 {
        let mut number = from;
        for (callee, path) in calls.iter().cycle().take(times) {
            trace_for(shard, GATEWAY, path, callee, 2, number);
            number += 1;
        }
        number
    }

    fn counted(shard: &CircuitBreakerMetricsCollector, wanted: &str) -> Option<u64> {
        names(shard).into_iter().find(|(name, ..)| name == wanted).map(|(.., successes)| successes)
    }

    /// A request of one call through the gateway that nobody answers in this trace.
    fn one(instance: &str, path: &str, number: u64, change: impl FnOnce(&mut opentelemetry_proto::tonic::trace::v1::Span)) -> Vec<u8> {
        let at = START + number * SECOND;
        let url = text("url.full", &format!("http://gateway:80{path}"));
        let mut span = call(number, at, at + 10, vec![text("server.address", GATEWAY.0), int("server.port", GATEWAY.1), url]);
        change(&mut span);
        request("shop", instance, vec![span])
    }

    fn apply(shard: &mut CircuitBreakerMetricsCollector, request: &[u8], now: u64) {
        let inspection = inspect(request, 0, &Rules::default(), u64::MAX).unwrap();
        shard.apply(request, &inspection, |_| true, now);
        assert_sound(shard);
    }

    const BOTH: [(&str, &str); 3] = [("payments", "/pay/charge"), ("orders", "/orders/7"), ("payments", "/pay/refund")];

    #[test]
    fn callees_that_share_an_address_are_told_apart_by_path() {
        let mut shard = collector(CircuitMetricsConfig::default());
        let next = run(&mut shard, 1, &BOTH, 60);
        let [orders, payments] = ["orders", "payments"].map(|name| counted(&shard, name).unwrap());
        // Until it is known whose a path is, its calls are the address's.
        assert_eq!((orders + payments, (15..=17).contains(&orders)), (60, true), "{orders}");
        // What is asked for and nobody has answered yet is the address's.
        let next = run(&mut shard, next, &[("stock", "/stock"), ("orders", "/orders/9")], 2);
        assert_eq!((counted(&shard, "orders"), counted(&shard, "stock")), (Some(orders + 1), None));
        // Two callees change places.
        let next = run(&mut shard, next, &[("payments", "/orders/7"), ("orders", "/pay/charge")], 60);
        let before = counted(&shard, "orders").unwrap();
        run(&mut shard, next, &[("orders", "/pay/charge")], 10);
        assert_eq!(counted(&shard, "orders").unwrap(), before + 10);
    }

    #[test]
    fn a_rare_callee_at_an_address_has_a_circuit_of_its_own_and_moves_nothing() {
        let mut shard = collector(CircuitMetricsConfig::default());
        let tenth: Vec<(&str, &str)> = (0..10).map(|at| if at == 9 { ("orders", "/orders") } else { ("payments", "/pay") }).collect();
        let next = run(&mut shard, 1, &tenth, 100);
        let before = names(&shard);
        let [(orders, at, 7), (payments, _, 93)] = &before[..] else { panic!("{before:?}") };
        assert_eq!((orders.as_str(), payments.as_str(), at.as_str()), ("orders", "payments", "gateway"));
        // A job that calls it again and again.
        let next = run(&mut shard, next, &[("orders", "/orders")], 50);
        run(&mut shard, next, &[("payments", "/pay")], 1);
        assert_eq!((counted(&shard, "orders"), counted(&shard, "payments"), names(&shard).len()), (Some(57), Some(94), 2));
    }

    #[test]
    fn the_way_to_a_callee_lasts_while_it_is_gone() {
        let config = CircuitMetricsConfig::default();
        let ttl = config.circuit_ttl / SECOND;
        let mut shard = collector(config);
        let next = run(&mut shard, 1, &BOTH, 60);
        // From now on only one of them is called, more than twice as long as what is idle is kept.
        let mut number = next;
        while number < next + 5 * ttl / 2 {
            apply(&mut shard, &one("a", "/orders/1", number, |_| {}), START + number * SECOND);
            trace_for(&mut shard, GATEWAY, "/orders/1", "orders", 2, number + 1);
            shard.advance(START + (number + 1) * SECOND, &mut Vec::new());
            assert_sound(&shard);
            number += ttl / 10;
        }
        let before = ["orders", "payments"].map(|name| counted(&shard, name).unwrap());
        for path in ["/orders/1", "/pay/charge"] {
            apply(&mut shard, &one("a", path, number, |_| {}), START + number * SECOND);
        }
        assert_eq!(["orders", "payments"].map(|name| counted(&shard, name).unwrap()), before.map(|count| count + 1));
        // What nobody answers for any more goes with time.
        while shard.circuits().count() > 0 {
            number += ttl / 10;
            shard.advance(START + number * SECOND, &mut Vec::new());
        }
        assert_sound(&shard);
    }

    #[test]
    fn a_full_circuit_takes_calls_by_path_as_by_address() {
        let mut config = CircuitMetricsConfig::default();
        config.max_instances = 1;
        let mut shard = collector(config);
        let next = run(&mut shard, 1, &BOTH, 60);
        let before = counted(&shard, "orders").unwrap();
        for number in next..next + 5 {
            apply(&mut shard, &one("z", "/orders/1", number, |_| {}), START + number * SECOND);
        }
        assert_eq!((counted(&shard, "orders"), shard.instances()), (Some(before + 5), 2));
        // The other instance goes: there is room.
        let ttl = CircuitMetricsConfig::default().instance_ttl / SECOND;
        for number in [next + ttl - 10, next + ttl + 10] {
            apply(&mut shard, &one("z", "/orders/1", number, |_| {}), START + number * SECOND);
            shard.advance(START + number * SECOND, &mut Vec::new());
        }
        apply(&mut shard, &one("z", "/orders/1", next + ttl + 11, |_| {}), START + (next + ttl + 11) * SECOND);
        let members: Vec<(String, usize)> = shard.circuits().map(|(_, circuit)| (circuit.key().name(), circuit.members.len())).collect();
        assert_eq!(members, [("payments".to_owned(), 1), ("orders".to_owned(), 1)]);
    }

    #[test]
    fn what_breakers_say_on_a_path_is_said_of_its_callee_and_enriches_its_spans() {
        let mut shard = collector(CircuitMetricsConfig::default());
        let next = run(&mut shard, 1, &BOTH, 60);
        let open = one("a", "/orders/1", next, |span| span.events = vec![transition(span.end_time_unix_nano, "closed", "open")]);
        apply(&mut shard, &open, START + next * SECOND);
        let mut events = Vec::new();
        shard.advance(START + (next + 30) * SECOND, &mut events);
        let told: Vec<String> = events.iter().map(|event| event.circuit.name()).collect();
        assert_eq!(told, ["orders"]);
        let enriched = |path: &str| {
            let request =
                one("a", path, next + 31, |span| span.status = Some(opentelemetry_proto::tonic::trace::v1::Status { code: 2, ..Default::default() }));
            let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
            shard.enrich(&request, &inspection, |_| true).into_iter().filter_map(|one| one.name).collect::<Vec<_>>()
        };
        assert_eq!((enriched("/orders/1"), enriched("/pay/charge")), (vec!["orders".to_owned()], vec![]));
    }

    #[test]
    fn circuits_join_and_addresses_go_without_losing_the_way_by_path() {
        let mut shard = collector(CircuitMetricsConfig::default());
        // What answers at another address is known before the gateway is.
        (1..5).for_each(|number| trace_for(&mut shard, ("10.0.0.8", 8080), "/pay", "payments", 2, number));
        let next = run(&mut shard, 5, &BOTH, 60);
        let direct = counted(&shard, "payments").unwrap();
        assert_eq!(names(&shard).iter().filter(|(name, ..)| name == "payments" || name == "orders").count(), 2, "{:?}", names(&shard));
        let before = counted(&shard, "orders").unwrap();
        let next = run(&mut shard, next, &[("orders", "/orders/3")], 1);
        assert_eq!(counted(&shard, "orders"), Some(before + 1));
        // The gateway is another's now: it leaves, and with it what is known of its paths.
        let is_shared = |shard: &CircuitBreakerMetricsCollector| {
            let addresses =
                shard.circuits().filter(|(_, circuit)| circuit.key().name() == "payments").filter_map(|(_, circuit)| circuit.addresses.as_ref());
            addresses.map(|known| known.paths.are_told_apart()).collect::<Vec<_>>()
        };
        assert_eq!(is_shared(&shard), [true]);
        let next = run(&mut shard, next, &[("stock", "/pay/charge")], 4);
        assert_eq!(is_shared(&shard), [false]);
        let before = counted(&shard, "orders").unwrap();
        let next = run(&mut shard, next, &[("orders", "/orders/3")], 1);
        assert!(counted(&shard, "payments").unwrap() >= direct);
        assert_eq!(counted(&shard, "orders"), Some(before + 1));
        assert!(names(&shard).iter().any(|(name, address, _)| name == "orders" && address == "gateway"), "{:?}", names(&shard));
        // Runs of one and the other: in the end it is nobody's.
        let turns: Vec<(&str, &str)> = ["stock", "payments"].into_iter().flat_map(|callee| vec![(callee, "/graphql"); 4]).collect();
        let next = run(&mut shard, next, &turns, 80);
        let before = names(&shard);
        run(&mut shard, next, &turns, 80);
        assert_eq!(names(&shard).len(), before.len(), "{before:?}");
        assert!(before.iter().any(|(name, ..)| name == "gateway"), "{before:?}");
    }

    #[test]
    fn a_circuit_that_is_reached_by_path_keeps_its_name_when_its_own_address_moves() {
        let mut shard = collector(CircuitMetricsConfig::default());
        let next = run(&mut shard, 1, &BOTH, 60);
        let direct = |shard: &mut CircuitBreakerMetricsCollector, callee: &str, from: u64| {
            (from..from + 5).for_each(|number| trace_for(shard, ("10.0.0.8", 8080), "/", callee, 2, number));
            from + 5
        };
        let next = direct(&mut shard, "orders", next);
        let before = counted(&shard, "orders").unwrap();
        let next = direct(&mut shard, "stock", next);
        // Until it is sure that it moved, calls of the address were theirs.
        assert!((3..=5).contains(&(counted(&shard, "orders").unwrap() - before)), "{:?}", names(&shard));
        let before = counted(&shard, "orders").unwrap();
        apply(&mut shard, &one("a", "/orders/1", next, |_| {}), START + next * SECOND);
        assert_eq!(counted(&shard, "orders"), Some(before + 1));
        assert!(counted(&shard, "stock").is_some());
    }

    #[test]
    fn a_callee_with_a_path_of_its_own_may_answer_elsewhere_too() {
        let mut shard = collector(CircuitMetricsConfig::default());
        let next = run(&mut shard, 1, &BOTH, 60);
        run(&mut shard, next, &[("orders", "/stock/a"), ("orders", "/invoice/b"), ("orders", "/refund/c")], 9);
        let names: Vec<String> = names(&shard).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["orders", "payments"]);
    }

    #[test]
    fn a_span_is_never_enriched_with_another_callee_s_breaker() {
        let mut shard = collector(CircuitMetricsConfig::default());
        let next = run(&mut shard, 1, &BOTH, 60);
        // An instance that calls only payments, whose breaker is half-open there.
        let probe = one("z", "/pay/charge", next, |span| span.events = vec![transition(span.end_time_unix_nano, "open", "half_open")]);
        apply(&mut shard, &probe, START + next * SECOND);
        shard.advance(START + (next + 30) * SECOND, &mut Vec::new());
        let enriched = |path: &str| {
            let request = one("z", path, next + 31, |_| {});
            let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
            shard.enrich(&request, &inspection, |_| true).into_iter().filter_map(|one| one.name).collect::<Vec<_>>()
        };
        assert_eq!((enriched("/pay/charge"), enriched("/orders/1")), (vec!["payments".to_owned()], vec![]));
    }

    #[test]
    fn a_process_that_calls_directly_and_by_path_is_one_instance() {
        let mut config = CircuitMetricsConfig::default();
        config.max_instances = 1;
        let mut shard = collector(config);
        let next = run(&mut shard, 1, &BOTH, 60);
        (next..next + 5).for_each(|number| trace_for(&mut shard, ("10.0.0.8", 8080), "/", "orders", 2, number));
        let direct = |instance: &str, number: u64| {
            let at = START + number * SECOND;
            request("shop", instance, vec![call(number, at, at + 10, vec![text("server.address", "10.0.0.8"), int("server.port", 8080)])])
        };
        // Strangers, one of them by both ways; they go one after the other.
        let ttl = CircuitMetricsConfig::default().instance_ttl / SECOND;
        for number in next + 5..next + 8 {
            apply(&mut shard, &direct("z", number), START + number * SECOND);
            apply(&mut shard, &one("z", "/orders/1", number, |_| {}), START + number * SECOND);
            apply(&mut shard, &one("y", "/orders/1", number, |_| {}), START + number * SECOND);
        }
        let later = next + 8 + ttl / 2;
        apply(&mut shard, &one("y", "/orders/1", later, |_| {}), START + later * SECOND);
        shard.advance(START + (later + ttl / 2 + 10) * SECOND, &mut Vec::new());
        assert_sound(&shard);
        assert!(shard.circuits().all(|(_, circuit)| circuit.strangers <= 1));
    }

    #[test]
    fn a_gateway_that_becomes_another_s_keeps_the_way_to_the_rest() {
        let mut shard = collector(CircuitMetricsConfig::default());
        (1..5).for_each(|number| trace_for(&mut shard, ("10.0.0.9", 8080), "/stock", "stock", 2, number));
        let next = run(&mut shard, 5, &BOTH, 60);
        let next = run(&mut shard, next, &[("stock", "/pay/charge")], 4);
        let before = ["orders", "stock"].map(|name| counted(&shard, name).unwrap());
        apply(&mut shard, &one("a", "/orders/3", next, |_| {}), START + next * SECOND);
        apply(&mut shard, &one("a", "/pay/charge", next + 1, |_| {}), START + (next + 1) * SECOND);
        assert_eq!(["orders", "stock"].map(|name| counted(&shard, name).unwrap()), before.map(|count| count + 1));
    }

    #[test]
    fn what_is_usually_called_is_learned_anew_when_a_path_goes_its_own_way() {
        let mut shard = collector(CircuitMetricsConfig::default());
        let next = run(&mut shard, 1, &[("payments", "/pay")], 3);
        let gateway = u32::try_from(shard.circuits().next().unwrap().0).unwrap();
        let known = |shard: &CircuitBreakerMetricsCollector| shard.habits.iter().flat_map(|(_, habits)| habits.known(0)).count();
        for (_, habits) in &mut shard.habits {
            let operation = habits.operation(b"GET /").unwrap();
            habits.see(operation, &[Lane::of(gateway)], false, |_| true);
        }
        assert!(known(&shard) > 0);
        run(&mut shard, next, &BOTH, 12);
        assert_eq!((names(&shard).len(), known(&shard)), (2, 0));
    }

    #[test]
    fn what_is_selected_stays_when_settings_are_read_again() {
        let config = CircuitMetricsConfig::default();
        let selection =
            |target: &str| Arc::new(Selection { include: vec![Choice { service: None, target: Some(Pattern::new(target)) }], exclude: vec![] });
        let mut shard = CircuitBreakerMetricsCollector::new(Arc::new(config.clone()), selection("gate*"), Arc::new(Room::new(9)));
        run(&mut shard, 1, &BOTH, 60);
        let before = names(&shard);
        assert_eq!(before.len(), 2);
        shard.reconfigure(&Arc::new(config.clone()), &selection("gate*"), START);
        assert_eq!(names(&shard), before);
        shard.reconfigure(&Arc::new(config), &selection("10.*"), START);
        assert_eq!(counted(&shard, "payments"), None);
        assert_sound(&shard);
    }
}
