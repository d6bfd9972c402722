//! What analyzers cost: the same spans through windows without and with all of them, in one run.
//!
//! `cargo bench --bench analyzers` prints the table of docs/measurements.md.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use fuseboard::circuit::{
    analysis::config::{AnalysisConfig, AnomalyConfig, HealthConfig, PatternConfig, ResourceConfig, TrendConfig},
    collector::CircuitBreakerMetricsCollector,
    config::CircuitMetricsConfig,
    inspect::{Rules, inspect},
    room::Room,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;
const CIRCUITS: u64 = 1_000;
const SECONDS: u64 = 420;
/// Seconds that are measured: by then everything is learned and judged.
const FROM: u64 = 360;

fn text(key: &str, value: String) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::StringValue(value)) }), ..KeyValue::default() }
}

/// A second of a service that calls every circuit so often.
fn second(number: u64, calls: u64, id: &mut u64) -> Vec<u8> {
    let begin = START + number * SECOND;
    let mut random = fastrand::Rng::with_seed(number);
    let spans = (0..CIRCUITS * calls).map(|at| {
        *id += 1;
        let end = begin + random.u64(0..SECOND);
        let nanos = (0.04 * (0.5 * (random.f64() + random.f64() + random.f64() - 1.5)).exp() * 1e9).round();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some milliseconds")]
        let start = end - nanos as u64;
        Span {
            trace_id: id.to_be_bytes().repeat(2),
            span_id: id.to_be_bytes().to_vec(),
            kind: 3,
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            attributes: vec![text("server.address", format!("callee-{}", at % CIRCUITS))],
            ..Span::default()
        }
    });
    let resource = Resource { attributes: vec![text("service.name", "shop".to_owned())], ..Resource::default() };
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..ResourceSpans::default() }] }
        .encode_to_vec()
}

struct Measured {
    shard: CircuitBreakerMetricsCollector,
    closing: Duration,
    bytes: usize,
    analysis: usize,
}

impl Measured {
    fn new(analysis: AnalysisConfig) -> Self {
        let mut config = CircuitMetricsConfig::default();
        config.analysis = analysis;
        let room = Arc::new(Room::new(config.max_circuits));
        let shard = CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), room);
        Self { shard, closing: Duration::ZERO, bytes: 0, analysis: 0 }
    }

    fn second(&mut self, request: &[u8], rules: &Rules, number: u64) {
        let now = START + (number + 1) * SECOND;
        let inspection = inspect(request, 0, rules, u64::MAX).unwrap();
        self.shard.apply(request, &inspection, |_| true, now);
        let began = Instant::now();
        // As the ticker does: twice a second.
        let round = [now, now + SECOND / 2].map(|now| self.shard.advance(now, &mut Vec::new()));
        if number >= FROM {
            self.closing += began.elapsed();
        }
        self.shard.take_findings();
        self.bytes = round[1].bytes;
    }

    fn micros(&self) -> f64 {
        self.closing.as_secs_f64() * 1e6 / (CIRCUITS * (SECONDS - FROM)) as f64
    }
}

fn main() {
    let all = AnalysisConfig {
        anomaly: Some(AnomalyConfig::default()),
        pattern: Some(PatternConfig::default()),
        trend: Some(TrendConfig::default()),
        resource: Some(ResourceConfig::default()),
        health: Some(HealthConfig::default()),
    };
    let rules = Rules::default();
    println!("closing a bucket of each of {CIRCUITS} circuits: µs a circuit and bucket; bytes a circuit");
    println!("calls a second   without      with   analyzers   10 000 circuits use   bytes more");
    for calls in [0_u64, 1, 5, 50] {
        let (mut without, mut with) = (Measured::new(AnalysisConfig::default()), Measured::new(all.clone()));
        let mut id = 0;
        for number in 0..SECONDS {
            // Of those that are called once in a while: all at first, then none.
            let called = if calls == 0 { u64::from(number < 5) } else { calls };
            let request = second(number, called, &mut id);
            without.second(&request, &rules, number);
            with.second(&request, &rules, number);
        }
        with.analysis = with.shard.circuits().map(|(_, circuit)| circuit.analysis_bytes()).sum();
        let more = with.micros() - without.micros();
        println!(
            "{calls:>14} {:>9.2} {:>9.2} {more:>11.2} {:>16.1} % {:>14}",
            without.micros(),
            with.micros(),
            with.micros() * 1e4 / 1e6 * 100.0,
            with.analysis as u64 / CIRCUITS
        );
    }
    println!("target: at most 5 µs, 4 096 bytes, and under 10 % of one core");
}
