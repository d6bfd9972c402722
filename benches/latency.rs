//! How long a sender waits for its acknowledgement while 10 000 circuits are windowed, told and analysed, beside the same
//! program without `circuit_window`, in one run.
//!
//! `cargo bench --bench latency` prints the 50th and 99th percentile in milliseconds, and the ratio of the latter: in
//! healthy traffic, and in traffic in which one call in five fails and one order in ten is refused by a breaker.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

#[allow(dead_code, reason = "other benches use the rest")]
mod relay;

use std::{
    fs,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fuseboard::clock::{Clock, Wall};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event},
};
use prost::Message;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CALLERS: u64 = 100;
const CALLEES: u64 = 100;
const SPANS: u64 = 50;
const REQUESTS_A_SECOND: u64 = 400;
/// The first ones make the circuits.
const WARM_SECONDS: u64 = 3;
const SECONDS: u64 = 15;

#[tokio::main]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = listener.local_addr().unwrap().to_string();
    tokio::spawn(relay::sink(listener, Arc::new(AtomicU64::new(0))));
    println!("{} circuits, {REQUESTS_A_SECOND} requests/s of {SPANS} spans, {SECONDS} s; acknowledgement in ms", CALLERS * CALLEES);
    println!("{:>12}{:>24}{:>10}{:>10}", "traffic", "", "p50", "p99");
    for unhealthy in [false, true] {
        let mut p99 = Vec::new();
        for windows in [false, true] {
            let program = Program::start(&sink, windows).await;
            let waits = program.load(unhealthy).await;
            let percentile = |hundredths: usize| waits[(waits.len() - 1) * hundredths / 100].as_secs_f64() * 1e3;
            let (traffic, what) = (if unhealthy { "unhealthy" } else { "healthy" }, if windows { "with circuit_window" } else { "without" });
            println!("{traffic:>12}{what:>24}{:>10.2}{:>10.2}", percentile(50), percentile(99));
            p99.push(percentile(99));
        }
        println!("{:>56.2}   (target: at most 2)", p99[1] / p99[0]);
    }
}

struct Program {
    child: Child,
    endpoint: String,
}

impl Program {
    async fn start(sink: &str, windows: bool) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let (processors, analyzers, metrics) = if windows {
            (
                ", circuit_window",
                "analyzers: [anomaly, pattern, trend, resource, health], ",
                "metrics: { receivers: [circuit_window], exporters: [otlp_grpc] }",
            )
        } else {
            ("", "", "")
        };
        let defined = if windows {
            "processors: { memory_limiter: { limit_mib: 1024 }, circuit_window: {} }\nanalyzers: { anomaly: {}, pattern: {}, trend: {}, resource: {}, health: {} }"
        } else {
            "processors: { memory_limiter: { limit_mib: 1024 } }"
        };
        let config = format!(
            "receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: '127.0.0.1:{port}' }} }} }} }}
{defined}
exporters: {{ otlp_grpc: {{ endpoint: '{sink}', compression: none, tls: {{ insecure: true }} }} }}
service:
  pipelines:
    traces: {{ receivers: [otlp], processors: [memory_limiter{processors}], {analyzers}exporters: [otlp_grpc] }}
    {metrics}"
        );
        let path = std::env::temp_dir().join(format!("fuseboard-latency-{}-{port}.yaml", std::process::id()));
        fs::write(&path, config).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_fuseboard")).arg("--config").arg(&path).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "it does not listen");
            tokio::task::yield_now().await;
        }
        fs::remove_file(path).unwrap();
        Self { child, endpoint: format!("http://127.0.0.1:{port}") }
    }

    /// How long each request waited for its answer, in order of length.
    async fn load(&self, unhealthy: bool) -> Vec<Duration> {
        let channel = relay::connect(&self.endpoint).await;
        let mut under_way = tokio::task::JoinSet::new();
        let began = Instant::now();
        for number in 0..REQUESTS_A_SECOND * (WARM_SECONDS + SECONDS) {
            let due = began + Duration::from_nanos(number * 1_000_000_000 / REQUESTS_A_SECOND);
            tokio::time::sleep_until(due.into()).await;
            let body = Bytes::from(request(number, unhealthy));
            let channel = channel.clone();
            under_way.spawn(async move {
                let sent = Instant::now();
                relay::send(channel, body).await;
                (number, sent.elapsed())
            });
        }
        let mut waits = Vec::new();
        while let Some(answered) = under_way.join_next().await {
            let (number, waited) = answered.unwrap();
            if number >= REQUESTS_A_SECOND * WARM_SECONDS {
                waits.push(waited);
            }
        }
        waits.sort_unstable();
        waits
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn text(key: &str, value: String) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::StringValue(value)) }), ..KeyValue::default() }
}

/// Orders of one caller: each a SERVER span and a call within.
fn request(number: u64, unhealthy: bool) -> Vec<u8> {
    let now = Wall.now();
    let mut spans = Vec::new();
    for order in 0..SPANS / 2 {
        let id = number * SPANS + order * 2 + 1;
        let trace_id = [id.to_be_bytes(), id.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()].concat();
        let (fails, refused) = (unhealthy && id.is_multiple_of(5), unhealthy && id % 20 == 1);
        let status = (fails || refused).then(|| Status { code: 2, ..Status::default() });
        let events = if refused {
            let attributes = vec![text("exception.type", "pybreaker.CircuitBreakerError".to_owned())];
            vec![Event { time_unix_nano: now - 1_000_000, name: "exception".to_owned(), attributes, ..Event::default() }]
        } else {
            Vec::new()
        };
        let root = Span {
            trace_id: trace_id.clone(),
            span_id: id.to_be_bytes().to_vec(),
            name: format!("POST /order/{}", order % 4),
            kind: 2,
            start_time_unix_nano: now - 9_000_000,
            end_time_unix_nano: now,
            status: status.clone(),
            events,
            ..Span::default()
        };
        if !refused {
            spans.push(Span {
                trace_id,
                span_id: (id + 1).to_be_bytes().to_vec(),
                parent_span_id: root.span_id.clone(),
                name: "GET".to_owned(),
                kind: 3,
                start_time_unix_nano: now - 8_000_000,
                end_time_unix_nano: now - 1_000_000,
                attributes: vec![text("server.address", format!("callee-{}", (number / CALLERS * (SPANS / 2) + order) % CALLEES))],
                status,
                ..Span::default()
            });
        }
        spans.push(root);
    }
    let attributes = vec![text("service.name", format!("caller-{}", number % CALLERS)), text("service.instance.id", "one".to_owned())];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }] }.encode_to_vec()
}
