//! Spans of real SDKs go in over real sockets; the same spans, metrics and events come out.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::float_cmp)]

mod support;

use std::{
    collections::BTreeSet,
    io::Read,
    time::{Duration, UNIX_EPOCH},
};

use opentelemetry::{
    KeyValue,
    trace::{Span as _, SpanKind, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use prost::Message;
use support::{
    Fuseboard,
    http::post_protobuf,
    sink::{Mood, Sink, text},
    spans::{SECOND, attribute, bytes, call, call_to, now, request},
};

/// Everything in, everything out to one sink, metrics every second.
fn config(exporter: &str) -> String {
    format!(
        "
receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: '127.0.0.1:0' }}, http: {{ endpoint: '127.0.0.1:0' }} }} }} }}
processors: {{ memory_limiter: {{ limit_mib: 256 }}, circuit_window: {{ emit_interval: 1s }} }}
exporters:
  {exporter}
service:
  pipelines:
    traces: {{ receivers: [otlp], processors: [memory_limiter, circuit_window], exporters: [EXPORTER] }}
    metrics: {{ receivers: [circuit_window], exporters: [EXPORTER] }}
    logs: {{ receivers: [circuit_window], exporters: [EXPORTER] }}
"
    )
    .replace("EXPORTER", exporter.split_once(':').unwrap().0)
}

fn grpc(sink: &Sink) -> String {
    config(&format!("otlp_grpc: {{ endpoint: '{}', tls: {{ insecure: true }} }}", sink.url()))
}

fn http(sink: &Sink) -> String {
    config(&format!("otlp_http: {{ endpoint: '{}' }}", sink.url()))
}

/// Makes calls with the OpenTelemetry SDK; gives the names of the spans.
fn make_calls(exporter: SpanExporter, service: &'static str, calls: usize) -> BTreeSet<String> {
    let resource = Resource::builder().with_service_name(service).with_attribute(KeyValue::new("service.instance.id", "a")).build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let tracer = provider.tracer("shop");
    let names: BTreeSet<String> = (0..calls).map(|number| format!("{service} {number}")).collect();
    for (number, name) in names.iter().enumerate() {
        let status = if number % 10 == 0 { 503 } else { 200 };
        let attributes = [KeyValue::new("server.address", "stock"), KeyValue::new("http.response.status_code", status)];
        // In two buckets: of a circuit that was called in one only nothing is told.
        let end = UNIX_EPOCH + Duration::from_nanos(now() - number as u64 % 2 * SECOND);
        let call = tracer.span_builder(name.clone()).with_kind(SpanKind::Client).with_attributes(attributes);
        call.with_start_time(end - Duration::from_millis(5)).start(&tracer).end_with_timestamp(end);
    }
    provider.shutdown().unwrap();
    names
}

fn grpc_exporter(fuseboard: &Fuseboard) -> SpanExporter {
    // The exporter's connection lives in the runtime it is made in.
    SpanExporter::builder().with_tonic().with_endpoint(format!("http://{}", fuseboard.address("grpc"))).build().unwrap()
}

fn http_exporter(fuseboard: &Fuseboard, protocol: Protocol) -> SpanExporter {
    let endpoint = format!("http://{}/v1/traces", fuseboard.address("http"));
    SpanExporter::builder().with_http().with_protocol(protocol).with_endpoint(endpoint).build().unwrap()
}

fn all_arrive_and_are_counted(service: &'static str, sink: &Sink, sent: &BTreeSet<String>) {
    sink.wait("not every span arrived", |taken| {
        let arrived: Vec<String> = taken.spans().map(|span| span.name.clone()).collect();
        (arrived.len() >= sent.len()).then(|| assert_eq!(&arrived.into_iter().collect::<BTreeSet<_>>(), sent))
    });
    let calls = sent.len() as f64;
    let circuit = ("circuit_breaker.name", "stock");
    sink.wait_for_value("circuit_breaker.requests", &[circuit, ("circuit_breaker.outcome", "success")], calls * 0.9);
    sink.wait_for_value("circuit_breaker.requests", &[circuit, ("circuit_breaker.outcome", "failure"), ("error.type", "503")], calls * 0.1);
    sink.look(|taken| {
        let resources = taken.metrics.iter().flat_map(|request| &request.resource_metrics).filter_map(|group| group.resource.as_ref());
        assert!(resources.clone().count() > 0);
        resources.for_each(|resource| assert_eq!(text(&resource.attributes, "service.name").as_deref(), Some(service)));
    });
}

#[test]
fn grpc_in_and_out() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let entered = runtime.enter();
    let sink = Sink::start();
    let fuseboard = Fuseboard::start(&grpc(&sink));
    let sent = make_calls(grpc_exporter(&fuseboard), "shop-grpc", 1000);
    drop(entered);
    all_arrive_and_are_counted("shop-grpc", &sink, &sent);
}

#[test]
fn http_in_and_out() {
    for (service, protocol) in [("shop-protobuf", Protocol::HttpBinary), ("shop-json", Protocol::HttpJson)] {
        let sink = Sink::start();
        let fuseboard = Fuseboard::start(&http(&sink));
        let sent = make_calls(http_exporter(&fuseboard, protocol), service, 1000);
        all_arrive_and_are_counted(service, &sink, &sent);
    }
}

#[test]
fn reported_states_become_events_in_order_of_time() {
    let sink = Sink::start();
    let fuseboard = Fuseboard::start(&http(&sink));
    // Some hundred milliseconds out of order; the last call moves the watermark beyond them.
    let start = now() - 3 * SECOND;
    let states = [(3, "half_open"), (0, "closed"), (4, "closed"), (1, "closed"), (2, "open"), (20, "closed")];
    for (place, state) in states {
        let attributes = vec![attribute("circuit_breaker.name", "payments"), attribute("circuit_breaker.state", state)];
        let span = call(place, start + place * SECOND / 8, attributes);
        let answer = post_protobuf(fuseboard.address("http"), "/v1/traces", &bytes(&request("shop", "a", vec![span])));
        assert_eq!(answer.status, 200);
    }
    let told = sink.wait("no three events", |taken| {
        let events: Vec<(String, u64)> = taken.records().map(|record| (record.event_name.clone(), record.time_unix_nano)).collect();
        (events.len() >= 3).then_some(events)
    });
    let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["circuit_breaker.trip", "circuit_breaker.recovery_attempt", "circuit_breaker.recovery"]);
    assert!(told.is_sorted_by_key(|(_, time)| *time));
    let circuit = [("circuit_breaker.name", "payments"), ("circuit_breaker.source", "reported")];
    sink.wait_for_value("circuit_breaker.trips", &circuit, 1.0);
    sink.wait_for_value("circuit_breaker.recoveries", &circuit, 1.0);
}

#[test]
fn what_was_acknowledged_is_sent_before_the_program_ends() {
    let sink = Sink::start();
    sink.be(Mood::Busy);
    let mut fuseboard = Fuseboard::start(&http(&sink));
    for number in 0..20 {
        let body = bytes(&request("shop", "a", vec![call_to("stock", number, now() - number % 2 * SECOND, "200")]));
        assert_eq!(post_protobuf(fuseboard.address("http"), "/v1/traces", &body).status, 200);
    }
    sink.wait("nothing was sent", |taken| (taken.requests > 0).then_some(()));
    fuseboard.signal("TERM");
    fuseboard.log.wait_for("stopping");
    sink.be(Mood::Well);
    assert!(fuseboard.wait().success());
    assert_eq!(sink.look(|taken| taken.spans().count()), 20);
    // The last word of the windows, too.
    assert_eq!(sink.look(|taken| taken.value("circuit_breaker.requests", &[("circuit_breaker.name", "stock")])), Some(20.0));
}

#[test]
fn a_refused_span_costs_nobody_elses() {
    let sink = Sink::start();
    sink.be(Mood::Busy);
    let queue = "sending_queue: { batch: { min_size: 100000, flush_timeout: 1s } }";
    let fuseboard = Fuseboard::start(&config(&format!("otlp_http: {{ endpoint: '{}', {queue} }}", sink.url())));
    for number in 0..10 {
        let body = bytes(&request("shop", "a", vec![call_to("stock", number, now(), "200")]));
        assert_eq!(post_protobuf(fuseboard.address("http"), "/v1/traces", &body).status, 200);
    }
    sink.be(Mood::Refuses("call 7"));
    let arrived = sink.wait("the others did not arrive", |taken| {
        let names: BTreeSet<String> = taken.spans().map(|span| span.name.clone()).collect();
        (names.len() == 9).then_some(names)
    });
    assert!(!arrived.contains("call 7"));
    fuseboard.log.wait_for("dropped");
}

#[test]
fn a_full_queue_refuses_what_is_new() {
    let sink = Sink::start();
    sink.be(Mood::Busy);
    let queue = "sending_queue: { queue_size: 5, sizer: requests, num_consumers: 1 }";
    let fuseboard = Fuseboard::start(&config(&format!("otlp_http: {{ endpoint: '{}', {queue} }}", sink.url())));
    let mut accepted = 0;
    let refused = (0..100).find_map(|number| {
        let body = bytes(&request("shop", "a", vec![call_to("stock", number, now() - number % 2 * SECOND, "200")]));
        let answer = post_protobuf(fuseboard.address("http"), "/v1/traces", &body);
        accepted += usize::from(answer.status == 200);
        (answer.status != 200).then_some(answer)
    });
    let refused = refused.unwrap();
    assert_eq!(refused.status, 503);
    let status = tonic_types::Status::decode(&*refused.body).unwrap();
    assert_eq!(status.code, 14, "{}", status.message);
    sink.be(Mood::Well);
    sink.wait("what was accepted did not arrive", |taken| (taken.spans().count() == accepted).then_some(()));
    // What was refused was not counted either.
    sink.wait_for_value("circuit_breaker.requests", &[("circuit_breaker.name", "stock"), ("circuit_breaker.outcome", "success")], accepted as f64);
}

#[test]
fn a_request_sent_again_counts_once_and_travels_twice() {
    let sink = Sink::start();
    let fuseboard = Fuseboard::start(&http(&sink));
    let body = bytes(&request("shop", "a", vec![call_to("stock", 1, now(), "200")]));
    for _ in 0..2 {
        assert_eq!(post_protobuf(fuseboard.address("http"), "/v1/traces", &body).status, 200);
    }
    let other = bytes(&request("shop", "a", vec![call_to("stock", 2, now() - SECOND, "200")]));
    assert_eq!(post_protobuf(fuseboard.address("http"), "/v1/traces", &other).status, 200);
    sink.wait("three spans", |taken| (taken.spans().count() == 3).then_some(()));
    sink.wait_for_value("circuit_breaker.requests", &[("circuit_breaker.name", "stock")], 2.0);
}

#[test]
fn metrics_and_logs_pass_through() {
    let sink = Sink::start();
    let fuseboard = Fuseboard::start(&format!(
        "
receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:0' }} }} }} }}
exporters: {{ otlp_http: {{ endpoint: '{}', encoding: json, compression: none }} }}
service:
  pipelines:
    metrics: {{ receivers: [otlp], exporters: [otlp_http] }}
    logs: {{ receivers: [otlp], exporters: [otlp_http] }}
",
        sink.url()
    ));
    let metrics = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"asDouble":1.5}]}}]}]}]}"#;
    let logs = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hello"}}]}]}]}"#;
    let to = fuseboard.address("http");
    assert_eq!(support::http::post_json(to, "/v1/metrics", metrics).status, 200);
    assert_eq!(support::http::post_json(to, "/v1/logs", logs).status, 200);
    assert_eq!(support::http::post_json(to, "/v1/traces", r#"{"resourceSpans":[]}"#).status, 404);
    sink.wait("a metric and a record", |taken| (taken.value("m", &[]) == Some(1.5) && taken.records().count() == 1).then_some(()));
}

/// A body in each way that a sender may have compressed it, and what it calls that.
fn compressed(body: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let level = flate2::Compression::default();
    let read = |mut from: Box<dyn Read + '_>| {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all
    };
    let gzip = read(Box::new(flate2::read::GzEncoder::new(body, level)));
    let zlib = read(Box::new(flate2::read::ZlibEncoder::new(body, level)));
    let raw = read(Box::new(flate2::read::DeflateEncoder::new(body, level)));
    let zstd = zstd::encode_all(body, 0).unwrap();
    let twice = zstd::encode_all(&gzip[..], 0).unwrap();
    vec![
        ("gzip", gzip.clone()),
        ("GZIP", gzip.clone()),
        ("x-gzip", gzip.clone()),
        ("identity, gzip", gzip),
        ("deflate", zlib.clone()),
        ("zlib", zlib),
        ("Deflate", raw),
        ("zstd", zstd),
        ("gzip, zstd", twice),
        ("Identity", body.to_vec()),
    ]
}

#[test]
fn what_is_compressed_is_read_however_its_sender_writes_that() {
    let sink = Sink::start();
    let fuseboard = Fuseboard::start(&http(&sink));
    for (number, grpc) in [(0, false), (100, true)] {
        let body = bytes(&request("shop", "a", (number..number + 50).map(|id| call_to("stock", id, now(), "200")).collect()));
        for (round, (encoding, body)) in compressed(&body).into_iter().enumerate() {
            if grpc {
                // Without a coding there is no compression flag.
                let framed = support::grpc::framed(encoding != "Identity", &body);
                let answer = support::grpc::post(fuseboard.address("grpc"), support::grpc::TRACES, &[("grpc-encoding", encoding)], framed);
                assert_eq!(answer.code, Some(0), "{encoding}: {}", answer.message);
            } else {
                let headers = [("content-type", "application/x-protobuf"), ("content-encoding", encoding)];
                let answer = support::http::post(fuseboard.address("http"), "/v1/traces", &headers, &body);
                assert_eq!(answer.status, 200, "{encoding}: {}", answer.text());
            }
            let spans = 50 * (round + 1) + if grpc { 500 } else { 0 };
            sink.wait(encoding, |taken| (taken.spans().count() == spans).then_some(()));
        }
    }
}

#[test]
fn files_are_written_and_followed() {
    let sink = Sink::start();
    let writer = Fuseboard::start(&config("file: { path: spans.jsonl, append: true }"));
    let spans = writer.directory().join("spans.jsonl");
    let reader = Fuseboard::start(&format!(
        "
receivers: {{ otlp_file: {{ include: ['{}'], start_at: beginning, poll_interval: 50ms }} }}
exporters: {{ otlp_http: {{ endpoint: '{}' }} }}
service: {{ pipelines: {{ traces: {{ receivers: [otlp_file], exporters: [otlp_http] }} }} }}
",
        spans.display(),
        sink.url()
    ));
    for number in 0..5 {
        let body = bytes(&request("shop", "a", vec![call_to("stock", number, now(), "200")]));
        assert_eq!(post_protobuf(writer.address("http"), "/v1/traces", &body).status, 200);
        // Read as it grows, and each request once.
        sink.wait("the file is not followed", |taken| (taken.spans().count() as u64 > number).then_some(()));
    }
    assert_eq!(sink.look(|taken| taken.spans().count()), 5);
    drop(reader);
}

/// Something to wait for where nothing else tells that time went by.
#[test]
fn derived_metrics_come_within_15_s_by_default() {
    let sink = Sink::start();
    let config = http(&sink).replace("circuit_window: { emit_interval: 1s }", "circuit_window: {}");
    let fuseboard = Fuseboard::start(&config);
    let began = std::time::Instant::now();
    let calls = [1, 2].map(|id| call_to("stock", id, now() - id * SECOND, "200"));
    let body = bytes(&request("shop", "a", calls.to_vec()));
    assert_eq!(post_protobuf(fuseboard.address("http"), "/v1/traces", &body).status, 200);
    sink.wait_for_value("circuit_breaker.requests", &[("circuit_breaker.name", "stock"), ("circuit_breaker.outcome", "success")], 2.0);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
