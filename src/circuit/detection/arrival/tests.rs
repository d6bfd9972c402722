use std::sync::Arc;

use opentelemetry_proto::tonic::trace::v1::{Span, Status, span::Event};

use super::*;
use crate::circuit::{
    config::CircuitMetricsConfig,
    inspect::{Rules, inspect},
    room::Room,
    testing::{SECOND, START, call, failed, int, request, text},
};

const MILLI: u64 = 1_000_000;

/// What shop does to answer an order in a trace that is looked at: its calls, one after the other, and the top.
fn order(number: u64, calls: &[(&'static str, bool)]) -> Vec<Span> {
    let at = START + number * 100 * MILLI;
    let of_trace = |mut span: Span| {
        span.trace_id = [number.to_be_bytes(), (number * 32).to_le_bytes()].concat();
        span
    };
    let calls = (1..).zip(calls).map(|(place, (callee, is_well))| {
        let span = call(number * 8 + place, at + place * MILLI, at + place * MILLI + 100, vec![text("server.address", callee)]);
        of_trace(if *is_well { span } else { failed(span) })
    });
    let mut spans: Vec<Span> = calls.collect();
    let mut root = of_trace(call(number * 8, at, at + 10 * MILLI, vec![]));
    (root.kind, root.name) = (2, "POST /order".to_owned());
    spans.push(root);
    spans
}

fn refused(mut spans: Vec<Span>) -> Vec<Span> {
    let root = spans.last_mut().unwrap();
    let attributes = vec![text("exception.type", "pybreaker.CircuitBreakerError")];
    root.status = Some(Status { code: 2, ..Status::default() });
    root.events = vec![Event { time_unix_nano: root.end_time_unix_nano, name: "exception".to_owned(), attributes, ..Event::default() }];
    spans
}

fn send(shard: &mut CircuitBreakerMetricsCollector, number: u64, request: &[u8]) {
    let now = START + number * 100 * MILLI;
    let inspection = inspect(request, 0, &Rules::default(), u64::MAX).unwrap();
    shard.apply(request, &inspection, |_| true, now);
    shard.advance(now, &mut Vec::new());
}

/// Circuits that seem to be open by what is not final yet, once a shop has sent these: its calls to pay and to stock have
/// failed since order 200, those to ship and to mail have not.
fn open_after(sent: &[(u64, Vec<Span>)]) -> Vec<String> {
    let config = CircuitMetricsConfig::default();
    let room = Arc::new(Room::new(config.max_circuits));
    let mut shard = CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room);
    let first = sent.first().map_or(0, |(number, _)| *number);
    for number in 1..first {
        let fails = number >= 200;
        let calls = [("pay", !fails || number % 2 == 0), ("stock", !fails || number % 2 == 1), ("ship", true), ("mail", true)];
        send(&mut shard, number, &request("shop", "a", order(number, &calls)));
    }
    sent.iter().for_each(|(number, spans)| send(&mut shard, *number, &request("shop", "a", spans.clone())));
    let is_open = |circuit: &Circuit| circuit.members.iter().any(|(_, member)| member.provisional() == Some(State::Open));
    shard.circuits().filter(|(_, circuit)| is_open(circuit)).map(|(_, circuit)| circuit.key().name()).collect()
}

fn refused_order(number: u64, calls: &[(&'static str, bool)]) -> (u64, Vec<Span>) {
    (number, refused(order(number, calls)))
}

#[test]
fn the_only_usual_callee_that_was_not_called_refuses() {
    let others = [("stock", true), ("ship", true), ("mail", true)];
    assert_eq!(open_after(&[refused_order(230, &others)]), ["pay"], "before anything is decided");
    // The text may stand on a span within.
    let mut within = order(230, &others);
    let mut inner = within[0].clone();
    (inner.span_id, inner.parent_span_id, inner.kind) = (vec![7; 8], within[0].span_id.clone(), 1);
    within.insert(0, inner);
    assert_eq!(open_after(&[(230, refused_by_inner(within))]), ["pay"]);
    // A call that failed was made.
    assert_eq!(open_after(&[refused_order(230, &[("stock", false), ("ship", true), ("mail", true)])]), ["pay"]);
}

/// Moves the text from the top to the first span.
fn refused_by_inner(mut spans: Vec<Span>) -> Vec<Span> {
    let events = refused(spans.clone()).pop().unwrap().events;
    spans[0].events = events;
    spans.last_mut().unwrap().events.clear();
    spans
}

#[test]
fn of_several_callees_that_never_showed_a_breaker_none_seems_open() {
    assert_eq!(open_after(&[refused_order(230, &[])]), [""; 0]);
    assert_eq!(open_after(&[refused_order(230, &[("pay", true)])]), [""; 0]);
}

#[test]
fn what_is_decided_of_a_text_shows_and_is_never_the_callee_s_that_always_fails() {
    // Every other order fails to reach stock. The breaker of pay refuses for a while.
    let sent: Vec<(u64, Vec<Span>)> = (230..290).map(|number| refused_order(number, &[("stock", number % 2 == 0)])).collect();
    assert_eq!(open_after(&sent), ["pay"]);
}

#[test]
fn where_nothing_tells_which_was_next_none_seems_open() {
    let (_, unknown) = refused_order(230, &[]);
    let unknown = unknown.into_iter().map(|span| Span { name: "POST /return".to_owned(), ..span }).collect();
    assert_eq!(open_after(&[(230, unknown)]), [""; 0]);
    // It may be that it was tried again, and refused then.
    assert_eq!(open_after(&[refused_order(230, &[("pay", false)])]), [""; 0]);
    // Whose calls go well refuses none.
    assert_eq!(open_after(&[refused_order(230, &[("pay", true), ("stock", true)])]), [""; 0]);
    // Its calls may have come before the process was watched.
    assert_eq!(open_after(&[refused_order(206, &[])]), [""; 0]);
    // Most traces are not seen.
    let (_, mut sampled) = refused_order(231, &[]);
    sampled.iter_mut().for_each(|span| "ot=th:e".clone_into(&mut span.trace_state));
    let (_, mut other) = (230, order(230, &[("mail", true)]));
    other.iter_mut().for_each(|span| "ot=th:e".clone_into(&mut span.trace_state));
    assert_eq!(open_after(&[(230, other), (231, sampled)]), [""; 0]);
}

#[test]
fn the_top_of_another_process_tells_nothing() {
    let (_, mut spans) = refused_order(230, &[]);
    let mut inner = spans[0].clone();
    (inner.span_id, inner.parent_span_id, inner.kind) = (vec![7; 8], spans[0].span_id.clone(), 1);
    spans[0].events.clear();
    // What one sends behind the other in one request.
    let both = [request("shop", "a", vec![inner]), request("till", "b", spans)].concat();
    let inspection = inspect(&both, 0, &Rules::default(), u64::MAX).unwrap();
    assert_eq!((inspection.told.len(), inspection.roots.len()), (1, 1));
    assert!(inspection.root_near(&inspection.told[0], &both).is_none());
}

/// One second of what the application of `examples/clients/python` does: orders that charge through a breaker, under a root
/// of its own; calls of the shop without one; calls of a port on which nobody listens, which always fail.
fn second_of_example(second: u64, state: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    for tenth in 0..10 {
        let number = second * 10 + tenth;
        let at = START + number * 100 * MILLI;
        let to =
            |id: u64, at: u64, port: i64| call(number * 8 + id, at, at + MILLI, vec![text("server.address", "127.0.0.1"), int("server.port", port)]);
        // The breaker's own span is the top; its call is within.
        let of_trace = |mut span: Span| {
            span.trace_id = [number.to_be_bytes(), (number * 32).to_le_bytes()].concat();
            span
        };
        let mut root = of_trace(call(number * 8, at, at + 10 * MILLI, vec![]));
        (root.kind, root.name) = (1, "checkout".to_owned());
        match state {
            // One call a second is let through, and fails.
            "open" if tenth != 5 => spans.extend(refused(vec![root])),
            state => {
                let inner = of_trace(to(1, at + MILLI, 8080));
                let inner = Span { parent_span_id: root.span_id.clone(), ..inner };
                spans.push(if state == "well" { inner } else { failed(inner) });
                spans.push(if state == "well" { root } else { failed(root) });
            }
        }
        spans.push(to(2, at + 20 * MILLI, 8080));
        if tenth % 3 == 0 {
            spans.push(failed(to(3, at + 40 * MILLI, 9)));
        }
    }
    spans
}

#[test]
fn a_port_that_always_fails_never_seems_open_however_requests_are_split() {
    for size in [1, 3, 7, 1_000] {
        for reversed in [false, true] {
            let config = CircuitMetricsConfig::default();
            let room = Arc::new(Room::new(config.max_circuits));
            let mut shard = CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room);
            let mut was_open = false;
            for second in 1..120 {
                let state = match second % 20 {
                    10..12 => "failing",
                    12..18 => "open",
                    _ => "well",
                };
                let now = START + (second + 1) * SECOND;
                let mut spans = second_of_example(second, state);
                if reversed {
                    spans.reverse();
                }
                for part in spans.chunks(size) {
                    let request = request("shop-client", "a", part.to_vec());
                    let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
                    shard.apply(&request, &inspection, |_| true, now);
                    for (_, circuit) in shard.circuits() {
                        let seems_open = circuit.members.iter().any(|(_, member)| member.provisional() == Some(State::Open));
                        assert!(!seems_open || circuit.key().name() != "127.0.0.1:9", "second {second}, {size} spans a request, {reversed}");
                        was_open |= seems_open;
                    }
                }
                shard.advance(now, &mut Vec::new());
            }
            assert!(was_open, "the breaker that is there is seen");
        }
    }
}

/// What front tells while a breaker of pay, which it calls, is open: the answer's body stands in its client's exception. The
/// first value is the status that its CLIENT span has, if any.
fn quoting(number: u64, status: Option<i64>, kind: &str) -> Vec<Span> {
    let at = START + number * 100 * MILLI;
    let mut spans = order(number, &[("pay", false)]);
    spans[0].attributes.extend(status.map(|status| int("http.response.status_code", status)));
    let message = "500 : \"{\"message\":\"CircuitBreaker 'bank' is OPEN and does not permit further calls\"}\"";
    let attributes = vec![text("exception.type", kind), text("exception.message", message)];
    let exception = Event { time_unix_nano: at + 9 * MILLI, name: "exception".to_owned(), attributes, ..Event::default() };
    let root = spans.last_mut().unwrap();
    root.status = Some(Status { code: 2, ..Status::default() });
    root.events = vec![exception];
    spans
}

/// Trips, and calls by outcome, of all circuits of shop once it has sent these.
fn counted(sent: &[Vec<Span>]) -> (u64, u64, u64) {
    let config = CircuitMetricsConfig::default();
    let room = Arc::new(Room::new(config.max_circuits));
    let mut shard = CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room);
    for number in 1..230 {
        send(&mut shard, number, &request("shop", "a", order(number, &[("pay", number < 220)])));
    }
    (230..).zip(sent).for_each(|(number, spans)| send(&mut shard, number, &request("shop", "a", spans.clone())));
    shard.finish(START + 100 * SECOND, &mut Vec::new());
    let sum = |of: &dyn Fn(&Circuit) -> u64| shard.circuits().map(|(_, circuit)| of(circuit)).sum();
    let trips = sum(&|circuit| circuit.totals().breaker.iter().map(|counts| counts.trips).sum());
    (trips, sum(&|circuit| circuit.totals().failures()), sum(&|circuit| circuit.totals().rejections))
}

#[test]
fn what_a_callee_answered_is_not_the_caller_s_breaker() {
    let spring = "org.springframework.web.client.HttpServerErrorException$InternalServerError";
    let sent = |status, kind: &str| (230..270).map(|number| quoting(number, status, kind)).collect::<Vec<_>>();
    // Ten calls failed before.
    assert_eq!(counted(&sent(Some(500), spring)), (0, 50, 0));
    // The text may stand on the call itself.
    let on_call = |number: u64| {
        let mut spans = quoting(number, Some(500), spring);
        spans[0].events = std::mem::take(&mut spans[1].events);
        spans
    };
    assert_eq!(counted(&(230..270).map(on_call).collect::<Vec<_>>()), (0, 50, 0));
    // A type of the library's own is no quotation: the breaker refused what was tried again.
    let own = counted(&sent(Some(500), "io.github.resilience4j.circuitbreaker.CallNotPermittedException"));
    assert_eq!((own.0, own.2), (1, 40));
    // Nor is a text where nothing was answered.
    assert_eq!(counted(&sent(None, spring)).2, 40);
}

#[test]
fn a_limit_of_a_proxy_refuses_and_opens_nothing() {
    let overflow = |number: u64, flag: &str| {
        let mut spans = order(number, &[("pay", false)]);
        spans[0].attributes.extend([int("http.status_code", 503), text("response_flags", flag)]);
        spans
    };
    let sent = |flag: &str| (230..270).map(|number| overflow(number, flag)).collect::<Vec<_>>();
    assert_eq!(counted(&sent("UO")), (0, 10, 40));
    assert_eq!(counted(&sent("UH")).0, 1, "outlier detection has left no host");
}

/// An order that tolerates that stock fails, and whose breaker of pay then refuses, in words that name no library.
fn tolerant(number: u64, text_of: &str) -> Vec<Span> {
    let at = START + number * 100 * MILLI;
    let mut spans = order(number, &[("stock", false)]);
    spans[0].attributes.push(int("http.response.status_code", 503));
    let attributes = vec![text("exception.type", "*errors.errorString"), text("exception.message", text_of)];
    let root = spans.last_mut().unwrap();
    root.status = Some(Status { code: 2, ..Status::default() });
    root.events = vec![Event { time_unix_nano: at + 9 * MILLI, name: "exception".to_owned(), attributes, ..Event::default() }];
    spans
}

#[test]
fn a_refusal_beside_a_callee_that_failed_is_the_process_s_own() {
    let config = CircuitMetricsConfig::default();
    let room = Arc::new(Room::new(config.max_circuits));
    let mut shard = CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room);
    for number in 1..300 {
        let spans = if number < 240 { order(number, &[("stock", true), ("pay", number < 230)]) } else { tolerant(number, "circuit breaker is open") };
        send(&mut shard, number, &request("shop", "a", spans));
    }
    shard.finish(START + 100 * SECOND, &mut Vec::new());
    let of = |name: &str| shard.circuits().map(|(_, circuit)| circuit).find(|circuit| circuit.key().name() == name).unwrap();
    assert_eq!((of("pay").totals().rejections, of("stock").totals().rejections), (60, 0));
    assert!(of("pay").totals().breaker.iter().any(|counts| counts.trips == 1));
}
