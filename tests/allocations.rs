//! Reading and windowing spans costs no allocation a span.

mod support;

use std::sync::Arc;

use fuseboard::circuit::{
    collector::CircuitBreakerMetricsCollector,
    config::CircuitMetricsConfig,
    inspect::{Rules, inspect},
    room::Room,
};
use support::spans::{SECOND, attribute, bytes, call};

const START: u64 = 1_790_000_000 * SECOND;

/// Calls to ten callees, some of which fail, all within one second.
fn request(spans: u64, second: u64) -> Vec<u8> {
    let span = |number: u64| {
        let end = START + second * SECOND + number * SECOND / spans;
        let mut span = call(
            second << 32 | number,
            end,
            vec![
                attribute("http.url", &format!("http://callee-{}/path?{number}", number % 10)),
                attribute("http.status_code", if number.is_multiple_of(9) { "503" } else { "200" }),
            ],
        );
        span.start_time_unix_nano = end - SECOND / 1000 * (1 + number % 50);
        span
    };
    bytes(&support::spans::request("shop", "a", (0..spans).map(span).collect()))
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
