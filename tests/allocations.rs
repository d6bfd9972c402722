//! Reading and windowing spans costs no allocation a span.

use std::sync::Arc;

use fuseboard::circuit::{
    collector::{CircuitBreakerMetricsCollector, Room},
    config::CircuitMetricsConfig,
    inspect::{Rules, inspect},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_790_000_000 * SECOND;

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// Calls to ten callees, some of which fail, all within one second.
fn request(spans: u64, second: u64) -> Vec<u8> {
    let span = |number: u64| {
        let end = START + second * SECOND + number * SECOND / spans;
        Span {
            trace_id: (second << 32 | number | 1 << 60).to_be_bytes().repeat(2),
            span_id: (second << 32 | number | 1 << 60).to_be_bytes().to_vec(),
            kind: 3,
            start_time_unix_nano: end - 1_000_000 * (1 + number % 50),
            end_time_unix_nano: end,
            attributes: vec![
                attribute("http.url", &format!("http://callee-{}/path?{number}", number % 10)),
                attribute("http.status_code", if number.is_multiple_of(9) { "503" } else { "200" }),
            ],
            ..Span::default()
        }
    };
    let scope_spans = vec![ScopeSpans { spans: (0..spans).map(span).collect(), ..ScopeSpans::default() }];
    let resource = Resource { attributes: vec![attribute("service.name", "shop"), attribute("service.instance.id", "a")], ..Resource::default() };
    let resource_spans = vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

#[test]
fn a_span_costs_no_allocation() {
    let rules = Rules::default();
    let config = CircuitMetricsConfig::default();
    let room = Arc::new(Room::new(config.max_circuits));
    let mut collector = CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room);
    let mut count = |spans: u64, second: u64| {
        let request = request(spans, second);
        let now = START + (second + 1) * SECOND;
        allocation_counter::measure(|| {
            let inspection = inspect(&request, usize::try_from(spans).unwrap(), &rules, now).unwrap();
            collector.apply(&request, &inspection, |_| true, now);
        })
        .count_total
    };
    // Circuits, instances and buckets of these seconds are there already when it counts.
    for second in 0..30 {
        count(1000, second);
    }
    let (few, many) = (count(100, 29), count(1000, 29));
    assert!(few <= 8, "{few} allocations for a request of 100 spans");
    // What grows with the spans are the latencies of ten open buckets: each is folded once in 512 calls.
    assert!(many <= few + 10, "{many} allocations for a request of 1000 spans, {few} for one of 100");
}
