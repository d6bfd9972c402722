//! How long the ticker keeps requests out of a shard: the longest work under one lock while buckets close.
//!
//! `cargo bench --bench ticker` prints, for 10 000 circuits of one caller and for processes in which much goes wrong, the time
//! of each part of a round: at most 64 circuits or processes, or 2 048 marks that are due.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

use std::time::Instant;

use fuseboard::circuit::{
    collector::CircuitBreakerMetricsCollector,
    config::CircuitMetricsConfig,
    inspect::{Rules, inspect},
    room::Room,
    round::Round,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

const SECOND: u64 = 1_000_000_000;
/// 2026-11-01.
const START: u64 = 1_793_491_200 * SECOND;

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) }), ..KeyValue::default() }
}

/// A root and the call it makes.
fn unit(id: u64, end: u64, callee: &str, status: &str) -> [Span; 2] {
    let span = |number: u64, parent: Vec<u8>, kind: i32, start: u64, end: u64, attributes: Vec<KeyValue>| Span {
        trace_id: id.to_be_bytes().repeat(2),
        span_id: (id << 1 | number).to_be_bytes().to_vec(),
        parent_span_id: parent,
        name: "GET /".to_owned(),
        kind,
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes,
        ..Span::default()
    };
    let root = span(0, Vec::new(), 2, end - SECOND / 50, end, vec![attribute("http.route", "/")]);
    let call = vec![attribute("server.address", callee), attribute("http.response.status_code", status)];
    let call = span(1, root.span_id.clone(), 3, end - SECOND / 60, end - SECOND / 100, call);
    [root, call]
}

fn request(instance: &str, spans: Vec<Span>) -> Vec<u8> {
    let resource =
        Resource { attributes: vec![attribute("service.name", "shop"), attribute("service.instance.id", instance)], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }] }
        .encode_to_vec()
}

/// Parts of the rounds of 20 seconds, in microseconds, after 10 seconds in which everything becomes known.
fn parts(mut of_second: impl FnMut(u64) -> Vec<Vec<u8>>) -> Vec<f64> {
    let config = CircuitMetricsConfig::default();
    let room = Room::new(config.max_circuits).into();
    let mut shard = CircuitBreakerMetricsCollector::new(config.into(), Default::default(), room);
    let mut parts = Vec::new();
    for second in 0..30 {
        let now = START + second * SECOND;
        for request in of_second(now) {
            let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
            shard.apply(&request, &inspection, |_| true, now);
        }
        let (mut round, mut events) = (Round::default(), Vec::new());
        loop {
            let began = Instant::now();
            let goes_on = shard.advance_some(&mut round, now, &mut events);
            if second >= 10 {
                parts.push(began.elapsed().as_nanos() as f64 / 1e3);
            }
            if !goes_on {
                break;
            }
        }
    }
    parts.sort_by(f64::total_cmp);
    parts
}

fn main() {
    let mut id = 0;
    let circuits = parts(|now| {
        let of_chunk = |chunk: u64| {
            let spans = (0..500).flat_map(|number| {
                id += 1;
                unit(id, now - number, &format!("callee-{}", chunk * 500 + number), "200")
            });
            request("a", spans.collect())
        };
        (0..20).map(of_chunk).collect()
    });
    let mut id = 0;
    let unhealthy = parts(|now| {
        let of_instance = |instance: u64| {
            let spans = (0..1_000).flat_map(|number| {
                id += 1;
                unit(id, now - number * SECOND / 1_000, "pay", if number % 3 == 0 { "503" } else { "200" })
            });
            request(&instance.to_string(), spans.collect())
        };
        (0..16).map(of_instance).collect()
    });
    println!("{:<44}{:>8}{:>12}{:>12}{:>12}", "one part of a round, in µs", "parts", "median", "99th", "longest");
    for (name, parts) in [("10 000 circuits, all called each second", circuits), ("16 processes, 1 000 units a second each", unhealthy)] {
        let at = |share: usize| parts[(parts.len() * share / 100).min(parts.len() - 1)];
        println!("{name:<44}{:>8}{:>12.0}{:>12.0}{:>12.0}", parts.len(), at(50), at(99), at(100));
    }
}
