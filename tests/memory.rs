//! What a circuit and an instance weigh, by what the allocator gave out; and that the ledger's figure is the same.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::sync::Arc;

use fuseboard::circuit::{
    collector::CircuitBreakerMetricsCollector,
    config::CircuitMetricsConfig,
    inspect::{Rules, inspect},
    room::Room,
};
use support::spans::{SECOND, bytes, call_to};

const START: u64 = 1_790_000_000 * SECOND;
const CIRCUITS: u64 = 50;

/// Latencies of a usual shape: log-normal around 30 ms, from the sum of twelve uniform numbers.
struct Latencies(u64);

impl Latencies {
    fn next(&mut self) -> u64 {
        let mut uniform = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        };
        let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 ms and 10 s")]
        let nanos = ((17.2 + 0.6 * normal).exp()).clamp(1e6, 1e10) as u64;
        nanos
    }
}

/// So many calls to each of the circuits within one second, one in fifty of which fails.
fn request(instance: u64, calls: u64, second: u64, latencies: &mut Latencies) -> Vec<u8> {
    let mut spans = Vec::new();
    for call in 0..calls {
        for circuit in 0..CIRCUITS {
            let end = START + second * SECOND + call * SECOND / calls + circuit;
            let id = (second << 40 | call << 20 | circuit << 4 | 1) + (instance << 50);
            let status = if call % 50 == 7 { "503" } else { "200" };
            let mut span = call_to(&format!("callee-{circuit}.example.com"), id, end, status);
            span.start_time_unix_nano = end - latencies.next();
            spans.push(span);
        }
    }
    bytes(&support::spans::request("checkout", &format!("7f6d4c9b8-{instance:05}"), spans))
}

struct Weighed {
    /// What the allocator gave out and did not get back.
    allocated: u64,
    /// What the collector says it holds.
    told: u64,
}

/// What a collector weighs after these instances made so many calls a second to each circuit, for so long.
fn weigh(instances: u64, calls: u64, seconds: u64, then_idle: u64) -> Weighed {
    let rules = Rules::default();
    // Made once for all collectors.
    drop(fuseboard::circuit::detect::library::names());
    let mut latencies = Latencies(1);
    let mut seconds_of_requests = Vec::new();
    for second in 0..seconds {
        seconds_of_requests.push((0..instances).map(|instance| request(instance, calls, second, &mut latencies)).collect::<Vec<_>>());
    }
    let (mut kept, mut told) = (None, 0);
    let measured = allocation_counter::measure(|| {
        let config = CircuitMetricsConfig::default();
        let room = Arc::new(Room::new(config.max_circuits));
        let mut collector = CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room);
        let mut events = Vec::new();
        for (second, requests) in (0..).zip(&seconds_of_requests) {
            let now = START + (second + 1) * SECOND;
            for request in requests {
                let inspection = inspect(request, 0, &rules, now).unwrap();
                collector.apply(request, &inspection, |_| true, now);
                collector.take_met().for_each(drop);
            }
            told = collector.advance(now, &mut events).bytes;
        }
        for second in seconds..seconds + then_idle {
            told = collector.advance(START + second * SECOND, &mut events).bytes;
        }
        kept = Some(collector);
    });
    let collector = kept.unwrap();
    assert_eq!(collector.circuits().count() as u64, CIRCUITS);
    Weighed { allocated: u64::try_from(measured.bytes_current).unwrap(), told: told as u64 }
}

fn per_circuit(what: &str, weighed: &Weighed, limit: u64) {
    let (allocated, told) = (weighed.allocated / CIRCUITS, weighed.told / CIRCUITS);
    println!("{what}: {allocated} bytes a circuit, {told} told");
    assert!(allocated <= limit, "{what}: {allocated} bytes a circuit, more than {limit}");
    assert!(told.abs_diff(allocated) * 10 <= allocated, "{what}: {told} bytes told, {allocated} allocated");
}

#[test]
fn a_circuit_weighs_what_is_promised() {
    per_circuit("100 requests/s, full window", &weigh(1, 100, 75, 0), 16 << 10);
    per_circuit("1 request/s, full window", &weigh(1, 1, 75, 0), 5 << 10);
    // A window and its lateness after the last call.
    per_circuit("idle", &weigh(1, 1, 75, 90), 1 << 10);
}

#[test]
fn one_more_instance_weighs_what_is_promised() {
    let (few, many) = (weigh(10, 1, 75, 0), weigh(50, 1, 75, 0));
    let each = (many.allocated - few.allocated) / (40 * CIRCUITS);
    // The calls of more instances fill the same buckets more, which is part of this figure.
    println!("{each} bytes for each more instance of a circuit");
    assert!(each <= 512, "{each} bytes for each more instance of a circuit");
}
