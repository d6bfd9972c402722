//! Requests for the tests of this room.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event},
};
use prost::Message;

use super::{
    circuit::{Address, Circuit},
    collector::CircuitBreakerMetricsCollector,
    inspect::{Rules, inspect},
    meeting::{Introduction, Meetings},
    process::Seat,
};

pub(crate) const SECOND: u64 = 1_000_000_000;
/// Some day in 2023.
pub(crate) const START: u64 = 1_700_000_000 * SECOND;

pub(crate) fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

pub(crate) fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

/// A span of kind CLIENT; `id` makes its ids.
pub(crate) fn call(id: u64, start: u64, end: u64, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: [id.to_be_bytes(), id.to_be_bytes()].concat(),
        span_id: id.to_be_bytes().to_vec(),
        kind: 3,
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes,
        ..Span::default()
    }
}

pub(crate) fn failed(mut span: Span) -> Span {
    span.status = Some(Status { code: 2, ..Status::default() });
    span
}

pub(crate) fn transition(at: u64, from: &str, to: &str) -> Event {
    Event {
        time_unix_nano: at,
        name: "circuit_breaker_transition".to_owned(),
        attributes: vec![text("from_state", from), text("to_state", to)],
        ..Event::default()
    }
}

pub(crate) fn request(service: &str, instance: &str, spans: Vec<Span>) -> Vec<u8> {
    let resource = Resource { attributes: vec![text("service.name", service), text("service.instance.id", instance)], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }] }
        .encode_to_vec()
}

/// A trace that is looked at: `shop` calls an address, and `answers` answers there, as a span of this kind.
pub(crate) fn trace(shard: &mut CircuitBreakerMetricsCollector, address: (&str, i64), answers: &str, kind: i32, number: u64) {
    trace_for(shard, address, "", answers, kind, number);
}

/// The same, with a URL's path, if it has any.
pub(crate) fn trace_for(shard: &mut CircuitBreakerMetricsCollector, address: (&str, i64), path: &str, answers: &str, kind: i32, number: u64) {
    trace_at(shard, address, path, answers, kind, number, START + number * SECOND);
}

/// The same, at some time.
pub(crate) fn trace_at(shard: &mut CircuitBreakerMetricsCollector, address: (&str, i64), path: &str, answers: &str, kind: i32, number: u64, at: u64) {
    let (client, server) = (number * 8 + 1, number * 8 + 2);
    // The second half of a trace's id decides whether it is looked at.
    let of_trace = |mut span: Span| {
        span.trace_id = [number.to_be_bytes(), (number * 8).to_le_bytes()].concat();
        span
    };
    let mut attributes = vec![text("server.address", address.0), int("server.port", address.1)];
    if !path.is_empty() {
        attributes.push(text("url.full", &format!("http://{}:{}{path}", address.0, address.1)));
    }
    let calls = of_trace(call(client, at, at + 10, attributes));
    let mut answer = of_trace(call(server, at + 1, at + 9, vec![]));
    (answer.kind, answer.parent_span_id) = (kind, client.to_be_bytes().to_vec());
    let mut meetings = Meetings::default();
    for request in [request("shop", "a", vec![calls]), request(answers, "b", vec![answer])] {
        let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
        shard.apply(&request, &inspection, |_| true, at);
        let introductions: Vec<Introduction> = shard.take_met().filter_map(|met| meetings.meet(0, met)).collect();
        introductions.iter().for_each(|introduction| shard.introduce(introduction, at));
    }
    assert_sound(shard);
}

/// Every target that leads somewhere leads to a circuit that answers to it, and nobody is counted twice.
pub(crate) fn assert_sound(shard: &CircuitBreakerMetricsCollector) {
    let members: usize = shard.circuits.iter().map(|(_, circuit)| circuit.members.len()).sum();
    assert_eq!(shard.instances(), members);
    for place in &shard.by_key {
        let circuit = shard.circuits.get(place.circuit as usize).unwrap();
        let addresses = circuit.addresses.iter().flat_map(|known| &known.all).map(Address::target);
        let mut targets = addresses.chain([circuit.key().target()]);
        assert!(targets.any(|target| shard.key_hash(&circuit.key().caller, &target) == place.hash));
    }
    for (number, circuit) in shard.circuits() {
        let is = |seat: &&Seat| seat.circuit as usize == number && seat.member.is_none();
        let strangers = shard.processes.iter().filter(|(_, process)| process.seats.iter().any(|seat| is(&seat))).count();
        assert_eq!(circuit.strangers as usize, strangers);
    }
    for (_, process) in &shard.processes {
        for seat in &process.seats {
            let circuit = shard.circuits.get(seat.circuit as usize).unwrap();
            assert!(seat.member.is_none_or(|member| circuit.members.contains(member as usize)));
            assert_eq!(process.caller, circuit.key().caller);
        }
    }
}

pub(crate) fn names(shard: &CircuitBreakerMetricsCollector) -> Vec<(String, String, u64)> {
    let of = |circuit: &Circuit| (circuit.key().name(), circuit.key().address.to_string(), circuit.totals().successes);
    let mut names: Vec<_> = shard.circuits().filter(|(_, circuit)| !circuit.is_retired()).map(|(_, circuit)| of(circuit)).collect();
    names.sort();
    names
}
