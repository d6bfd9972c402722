//! Nothing a stranger sends hurts: each gets the answer of the specification, is counted, and harms nothing beside it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::float_cmp)]

mod support;

use std::io::{Read, Write};

use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceResponse, trace::v1::Span};
use prost::Message;
use support::{
    Fuseboard, PATIENCE,
    grpc::{self, TRACES, framed},
    http::{self, post, post_json, post_protobuf},
    sink::{Sink, text},
    spans::{SECOND, attribute, bytes, call, call_to, now, request},
};

/// Fuseboard, where its spans and metrics go, and where it tells of itself.
struct Setting {
    fuseboard: Fuseboard,
    sink: Sink,
    own: Sink,
}

const LIMIT_MIB: usize = 1;

impl Setting {
    fn new() -> Self {
        let (sink, own) = (Sink::start(), Sink::start());
        let fuseboard = Fuseboard::start(&format!(
            "
receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: '127.0.0.1:0', max_recv_msg_size_mib: {LIMIT_MIB} }}
      http: {{ endpoint: '127.0.0.1:0', max_request_body_size: {LIMIT_MIB}MiB }}
processors: {{ memory_limiter: {{ limit_mib: 64 }}, circuit_window: {{ emit_interval: 1s }} }}
exporters: {{ otlp_http: {{ endpoint: '{}' }} }}
service:
  pipelines:
    traces: {{ receivers: [otlp], processors: [memory_limiter, circuit_window], exporters: [otlp_http] }}
    metrics: {{ receivers: [circuit_window], exporters: [otlp_http] }}
  telemetry:
    metrics: {{ readers: [{{ periodic: {{ interval: 1s, exporter: {{ otlp: {{ protocol: grpc, endpoint: '{}' }} }} }} }}] }}
",
            sink.url(),
            own.url(),
        ));
        Self { fuseboard, sink, own }
    }

    fn http(&self) -> std::net::SocketAddr {
        self.fuseboard.address("http")
    }

    fn grpc(&self) -> std::net::SocketAddr {
        self.fuseboard.address("grpc")
    }

    /// Waits until it has said so often that this happened.
    fn counted(&self, metric: &str, times: usize) {
        let counted = self.own.wait(&format!("{metric} is not {times}"), |taken| {
            let counted = taken.counted(metric);
            (counted >= times as f64).then_some(counted)
        });
        assert!(counted < times as f64 + 0.5, "{metric} is {counted}, not {times}");
    }

    /// Good spans still find their way, and memory has a limit.
    fn is_unharmed(&mut self) {
        let good = bytes(&request("shop", "good", vec![call_to("stock", 77, now(), "200")]));
        assert_eq!(post_protobuf(self.http(), "/v1/traces", &good).status, 200);
        self.sink.wait("the good span did not arrive", |taken| taken.spans().any(|span| span.name == "call 77").then_some(()));
        assert!(self.fuseboard.runs());
        assert!(self.fuseboard.peak_mib() < 400, "{} MiB", self.fuseboard.peak_mib());
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(body).unwrap();
    out.finish().unwrap()
}

/// Zeros that are few bytes on the wire and many when decompressed.
fn bombs() -> [(&'static str, Vec<u8>); 2] {
    let zeros = vec![0; 200 << 20];
    [("gzip", gzip(&zeros)), ("zstd", zstd::bulk::compress(&zeros, 19).unwrap())]
}

fn status_of(answer: &http::Answer) -> tonic_types::Status {
    tonic_types::Status::decode(&*answer.body).unwrap()
}

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

#[test]
fn http_requests_that_are_wrong_get_the_answer_of_the_specification() {
    let mut setting = Setting::new();
    let to = setting.http();
    let good = bytes(&request("shop", "a", vec![call_to("stock", 1, now(), "200")]));

    let answer = post(to, "/v1/traces", &[("content-type", "text/plain")], &good);
    assert_eq!((answer.status, answer.header("content-type")), (415, Some("application/json")), "{}", answer.text());
    let answer = post(to, "/v1/spans", &[PROTOBUF], &good);
    assert_eq!((answer.status, status_of(&answer).code), (404, 5));
    let answer = http::request(to, "GET", "/v1/traces", &[], &[]);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let answer = post(to, "/v1/traces", &[PROTOBUF, ("content-encoding", "br")], &good);
    assert_eq!(answer.status, 415, "{}", answer.text());
    let answer = post(to, "/v1/traces", &[PROTOBUF, ("content-encoding", "gzip")], &good);
    assert_eq!((answer.status, status_of(&answer).code), (400, 3));
    assert!(status_of(&answer).message.contains("gzip"), "{}", status_of(&answer).message);
    for broken in [&good[..good.len() - 3], &[0xff; 50][..], b"hello"] {
        let answer = post_protobuf(to, "/v1/traces", broken);
        assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/x-protobuf")));
        assert_eq!(status_of(&answer).code, 3);
    }
    for broken in [
        "{\"resourceSpans\":7}",
        "[",
        "{\"hello\":\"world\"}",
        "{\"resourceSpans\":[{\"spans\":[]}]}",
        "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[{\"kind\":\"x\"}]}]}]}",
    ] {
        let answer = post_json(to, "/v1/traces", broken);
        assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/json")));
        let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(said["code"], 3, "{said}");
    }
    assert_eq!(post_json(to, "/v1/traces", &"[".repeat(1_000_000)).status, 400);
    let answer = post_json(to, "/v1/traces", "{\"resourceLogs\":[]}");
    assert!(answer.text().contains("expected the key `resourceSpans`") && answer.text().contains("resourceLogs"), "{}", answer.text());
    for fine in ["{}", "\u{feff}{\"resourceSpans\":[]}", "{\"resource_spans\":[{\"instrumentationLibrarySpans\":[]}]}"] {
        assert_eq!(post_json(to, "/v1/traces", fine).status, 200, "{fine}");
    }
    setting.counted("fuseboard_receiver_malformed_requests", 13);

    let answer = post_protobuf(to, "/v1/traces", &vec![0; (LIMIT_MIB << 20) + 1]);
    assert_eq!((answer.status, status_of(&answer).code), (413, 8));
    for (encoding, bomb) in bombs() {
        let answer = post(to, "/v1/traces", &[PROTOBUF, ("content-encoding", encoding)], &bomb);
        assert_eq!((answer.status, status_of(&answer).code), (413, 8), "{encoding}");
    }
    setting.counted("fuseboard_limit_reached", 3);
    assert_eq!(post_protobuf(to, "/v1/traces", &[]).status, 200, "an empty request is a success");
    setting.is_unharmed();
}

#[test]
fn grpc_requests_that_are_wrong_get_the_answer_of_the_specification() {
    let mut setting = Setting::new();
    let to = setting.grpc();
    let good = bytes(&request("shop", "a", vec![call_to("stock", 1, now(), "200")]));

    let answer = grpc::post(to, TRACES, &[("content-type", "application/json")], good.clone());
    assert_eq!((answer.http, answer.code), (415, None));
    let answer = post_protobuf(to, "/v1/traces", &good);
    assert_eq!(answer.status, 415, "OTLP/HTTP on gRPC's port must not look like a success");
    assert_eq!(grpc::post(to, "/grpc.Unknown/Method", &[], framed(false, &good)).code, Some(12));
    let answer = grpc::post(to, TRACES, &[("grpc-encoding", "snappy")], framed(true, &good));
    assert_eq!(answer.code, Some(12), "{}", answer.message);
    assert_eq!(grpc::post(to, TRACES, &[("grpc-encoding", "gzip")], framed(true, &good)).code, Some(3));
    for broken in [&good[..good.len() - 3], &[0xff; 50][..]] {
        assert_eq!(grpc::export(to, broken).code, Some(3));
    }
    assert_eq!(grpc::post(to, TRACES, &[], vec![0, 0]).code, Some(3));
    assert_eq!(grpc::post(to, TRACES, &[], framed(false, &good)[..20].to_vec()).code, Some(3));

    // Final, without a time to come back: what is too large stays too large.
    let answer = grpc::export(to, &vec![0; (LIMIT_MIB << 20) + 1]);
    assert_eq!((answer.code, answer.says_when), (Some(8), false), "{}", answer.message);
    let answer = grpc::post(to, TRACES, &[], [&[0][..], &u32::MAX.to_be_bytes(), b"few"].concat());
    assert_eq!((answer.code, answer.says_when), (Some(8), false), "{}", answer.message);
    for (encoding, bomb) in bombs() {
        let answer = grpc::post(to, TRACES, &[("grpc-encoding", encoding)], framed(true, &bomb));
        assert_eq!((answer.code, answer.says_when), (Some(8), false), "{encoding}: {}", answer.message);
    }
    assert_eq!(grpc::export(to, &[]).code, Some(0), "an empty request is a success");
    setting.is_unharmed();
}

#[test]
fn spans_without_ids_are_left_out_and_the_others_go_on() {
    let mut setting = Setting::new();
    let mut spans: Vec<Span> = (0..10).map(|id| call_to("stock", id, now() - id % 2 * SECOND, "200")).collect();
    spans[2].trace_id.clear();
    spans[3].trace_id = vec![0; 16];
    spans[5].span_id = vec![1; 7];
    let body = bytes(&request("shop", "a", spans));
    let answer = post_protobuf(setting.http(), "/v1/traces", &body);
    assert_eq!(answer.status, 200);
    let partial = ExportTraceServiceResponse::decode(&*answer.body).unwrap().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 3);
    assert!(partial.error_message.contains("3 of 10 spans"), "{}", partial.error_message);
    let answer = grpc::export(setting.grpc(), &[&body[..], &[]].concat());
    assert_eq!(answer.code, Some(0));
    assert_eq!(ExportTraceServiceResponse::decode(&*answer.body).unwrap().partial_success.unwrap().rejected_spans, 3);
    let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"x","traceId":"","spanId":""}]}]}]}"#;
    let answer = post_json(setting.http(), "/v1/traces", json);
    assert_eq!(answer.status, 200);
    let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(said["partialSuccess"]["rejectedSpans"], "1", "{said}");
    setting.sink.wait("not 7 spans twice", |taken| (taken.spans().count() == 14).then_some(()));
    // The second time it was the same request.
    setting.sink.wait_for_value("circuit_breaker.requests", &[("circuit_breaker.name", "stock"), ("circuit_breaker.outcome", "success")], 7.0);
    setting.counted("otelcol_receiver_refused_spans", 7);
    setting.is_unharmed();
}

#[test]
fn hostile_times_stay_out_of_windows_and_travel_on() {
    let mut setting = Setting::new();
    let (past, year_2200) = (now(), 7_258_118_400 * SECOND);
    let mut backwards = call_to("stock", 1, past, "200");
    backwards.end_time_unix_nano = backwards.start_time_unix_nano - 5;
    let mut zero = call_to("stock", 2, past, "200");
    (zero.start_time_unix_nano, zero.end_time_unix_nano) = (0, 0);
    let future = call_to("stock", 3, year_2200, "200");
    let mut longest = call_to("stock", 4, past - SECOND, "200");
    longest.start_time_unix_nano = 1;
    let mut end_of_time = call_to("stock", 5, past, "200");
    end_of_time.end_time_unix_nano = u64::MAX;
    let good = call_to("stock", 6, past, "200");
    let spans = vec![backwards, zero, future, longest, end_of_time, good];
    let body = bytes(&request("shop", "a", spans.clone()));
    assert_eq!(post_protobuf(setting.http(), "/v1/traces", &body).status, 200);
    let arrived = setting.sink.wait("they do not travel on", |taken| taken.raw.first().cloned());
    assert_eq!(arrived, body, "byte for byte");
    setting.sink.wait_for_value("circuit_breaker.requests", &[("circuit_breaker.name", "stock"), ("circuit_breaker.outcome", "success")], 2.0);
    setting.counted("fuseboard_spans_future", 2);
    setting.counted("fuseboard_spans_invalid_time", 2);
    setting.is_unharmed();
}

/// A value within a list within a list, so deep.
fn nested(depth: usize) -> Vec<u8> {
    let mut value = Vec::new();
    for _ in 0..depth {
        // AnyValue.array_value (5) -> ArrayValue.values (1) -> AnyValue.
        for field in [1 << 3 | 2, 5 << 3 | 2] {
            let mut outer = vec![field];
            prost::encoding::encode_varint(value.len() as u64, &mut outer);
            outer.extend(&value);
            value = outer;
        }
    }
    value
}

#[test]
fn hostile_attributes_travel_on_as_they_came() {
    let mut setting = Setting::new();
    let callee = attribute("server.address", "stock");
    let large = vec![callee.clone(), attribute("large", &"x".repeat(900_000))];
    let many = (0..10_000).map(|number| attribute(&format!("key {number}"), "value")).chain([callee]).collect();
    let name = vec![attribute("server.address", &"n".repeat(500_000))];
    let mut sent = Vec::new();
    // Each in two buckets: of a circuit that was called in one only nothing is told.
    for (id, attributes) in [(1, large), (2, many), (3, name.clone()), (6, name)] {
        sent.push(bytes(&request("shop", "a", vec![call(id, now() - id % 2 * SECOND, attributes)])));
    }
    // No library writes such, so it is written by hand.
    for id in [7, 8] {
        let span = call(id, now() - id % 2 * SECOND, vec![attribute("server.address", "depths")]);
        sent.push(with_attribute(&span, "deep", &nested(40)));
    }
    for body in &sent {
        let answer = post_protobuf(setting.http(), "/v1/traces", body);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let arrived = setting.sink.wait("they do not travel on", |taken| (taken.raw.len() == sent.len()).then(|| taken.raw.clone()));
    for body in &sent {
        assert!(arrived.contains(body), "{} bytes did not arrive as they came", body.len());
    }
    setting.sink.wait_for_value("circuit_breaker.requests", &[("circuit_breaker.name", "stock"), ("circuit_breaker.outcome", "success")], 2.0);
    setting.sink.wait_for_value("circuit_breaker.requests", &[("circuit_breaker.name", "depths"), ("circuit_breaker.outcome", "success")], 2.0);
    let longest = setting.sink.look(|taken| {
        let points = taken.metrics().filter_map(|metric| match &metric.data {
            Some(opentelemetry_proto::tonic::metrics::v1::metric::Data::Sum(sum)) => Some(&sum.data_points),
            _ => None,
        });
        points.flatten().filter_map(|point| text(&point.attributes, "circuit_breaker.name")).map(|name| name.len()).max()
    });
    assert_eq!(longest, Some(256), "names are cut");
    setting.is_unharmed();
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut field);
    field.extend(content);
    field
}

/// A request of one span, data point or log record.
fn request_of(item: &[u8]) -> Vec<u8> {
    field(1, &field(2, &field(2, item)))
}

/// A request of one span with one more attribute, whose value is written already.
fn with_attribute(span: &Span, key: &str, value: &[u8]) -> Vec<u8> {
    let attribute = field(9, &[field(1, key.as_bytes()), field(2, value)].concat());
    request_of(&[span.encode_to_vec(), attribute].concat())
}

#[test]
fn what_an_exporter_could_not_write_is_refused_at_the_door() {
    let mut fuseboard = Fuseboard::start(
        "
receivers: { otlp: { protocols: { grpc: { endpoint: '127.0.0.1:0' }, http: { endpoint: '127.0.0.1:0' } } } }
exporters: { file: { path: out.jsonl } }
service:
  pipelines:
    traces: { receivers: [otlp], exporters: [file] }
    metrics: { receivers: [otlp], exporters: [file] }
    logs: { receivers: [otlp], exporters: [file] }
",
    );
    let to = fuseboard.address("http");
    let span = call_to("stock", 1, now(), "200").encode_to_vec();
    let metric = field(5, &field(1, &[]));
    let record = field(5, &field(1, b"hello"));
    let not_utf8 = field(1, b"caf\xe9");
    let in_span = [
        field(5, b"\xff"),
        field(9, &not_utf8),
        field(9, &field(2, &not_utf8)),
        field(9, &field(2, &nested(10_000))),
        field(11, &field(3, &field(2, &field(7, &[])[..1]))),
        field(13, &field(5, &[])),
    ];
    let in_metric = [
        field(3, b"\xff"),
        field(12, &not_utf8),
        field(5, &field(1, &field(5, &field(7, &not_utf8)))),
        field(9, &field(1, &field(6, &[0; 9]))),
        field(10, &field(1, &field(8, &field(2, &[0xff])))),
        field(11, &field(1, &field(6, &field(1, &[])))),
    ];
    let in_record = [field(5, &not_utf8), field(5, &nested(60)), field(6, &not_utf8), field(3, b"\xff"), field(8, &[])];
    for (path, good, broken) in [("/v1/traces", span, &in_span[..]), ("/v1/metrics", metric, &in_metric[..]), ("/v1/logs", record, &in_record[..])] {
        for more in broken {
            let answer = post_protobuf(to, path, &request_of(&[&good[..], more].concat()));
            assert_eq!((answer.status, status_of(&answer).code), (400, 3), "{path} {more:x?}");
        }
        assert_eq!(post_protobuf(to, path, &request_of(&good)).status, 200, "{path}");
    }
    let broken = request_of(&[&call_to("stock", 2, now(), "200").encode_to_vec()[..], &in_span[0]].concat());
    assert_eq!(grpc::export(fuseboard.address("grpc"), &broken).code, Some(3));
    assert!(fuseboard.stop().success());
    let written = std::fs::read_to_string(fuseboard.directory().join("out.jsonl")).unwrap();
    assert_eq!(written.lines().count(), 3, "{written}");
}

#[test]
fn millions_of_nothings_cost_no_memory() {
    let mut setting = Setting::new();
    // Each link is two bytes on the wire and a hundred when it is decoded.
    let mut span = call_to("stock", 1, now(), "200").encode_to_vec();
    span.extend([0x6a, 0].repeat(450_000));
    assert_eq!(post_protobuf(setting.http(), "/v1/traces", &request_of(&span)).status, 200);
    let json = format!("{{\"resourceSpans\":[{{\"scopeSpans\":[{{\"spans\":[{}{{}}]}}]}}]}}", "{},".repeat(300_000));
    assert_eq!(post_json(setting.http(), "/v1/traces", &json).status, 200, "all without ids: a partial success");
    // Two bytes each in JSON and eight in protobuf: the limit is that of the protobuf.
    let counts = "1,".repeat(400_000);
    let json = format!(
        "{{\"resourceMetrics\":[{{\"scopeMetrics\":[{{\"metrics\":[{{\"histogram\":{{\"dataPoints\":[{{\"bucketCounts\":[{counts}1]}}]}}}}]}}]}}]}}"
    );
    assert_eq!(post_json(setting.http(), "/v1/metrics", &json).status, 413);
    setting.is_unharmed();
    assert!(setting.fuseboard.peak_mib() < 150, "{} MiB", setting.fuseboard.peak_mib());
}

#[test]
fn connections_that_say_nothing_are_closed() {
    let mut setting = Setting::new();
    let mut streams = Vec::new();
    for to in [setting.http(), setting.grpc()] {
        for said in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n"] {
            let mut stream = std::net::TcpStream::connect(to).unwrap();
            stream.write_all(said).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            streams.push((stream, said));
        }
    }
    for (mut stream, said) in streams {
        // Closed, whether politely or not; what must not happen is that the time to read runs out.
        if let Err(error) = stream.read_to_end(&mut Vec::new()) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "after {said:?}");
        }
    }
    setting.is_unharmed();
}
