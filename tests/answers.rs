//! What backends answer, right and wrong: what was taken is never sent again, and what was refused is told as such.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::float_cmp)]

mod support;

use support::{
    Fuseboard,
    grpc::framed,
    http::post_protobuf,
    sink::{Mood, Reply, Sink},
    spans::{bytes, call_to, now, request},
};

/// Fuseboard with one exporter, where it sends to, and where it tells of itself.
struct Setting {
    fuseboard: Fuseboard,
    sink: Sink,
    own: Sink,
    sent: usize,
}

impl Setting {
    fn new(exporter: &str) -> Self {
        let (sink, own) = (Sink::start(), Sink::start());
        let fuseboard = Fuseboard::start(&format!(
            "
receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:0' }} }} }} }}
exporters: {{ {exporter}: {{ endpoint: '{}', retry_on_failure: {{ initial_interval: 50ms, max_interval: 50ms }} }} }}
service:
  pipelines: {{ traces: {{ receivers: [otlp], exporters: [{exporter}] }} }}
  telemetry:
    metrics: {{ readers: [{{ periodic: {{ interval: 1s, exporter: {{ otlp: {{ protocol: grpc, endpoint: '{}' }} }} }} }}] }}
",
            sink.url(),
            own.url(),
        ));
        Self { fuseboard, sink, own, sent: 0 }
    }

    /// Sends a span, and waits until the sink has given this answer to it.
    fn send(&mut self, reply: Reply) {
        self.sink.be(Mood::Says(reply));
        let before = self.sink.look(|taken| taken.requests);
        let id = self.sent as u64;
        let body = bytes(&request("shop", "a", vec![call_to("stock", id, now(), "200")]));
        assert_eq!(post_protobuf(self.fuseboard.address("http"), "/v1/traces", &body).status, 200);
        self.sent += 1;
        self.sink.wait("nothing was sent", |taken| (taken.requests > before).then_some(()));
    }

    /// All that was sent was sent once, and became this: taken, dropped, and taken with an answer that can't be read.
    fn came_to(&self, taken: usize, dropped: usize, unread: usize) {
        let counters =
            [("otelcol_exporter_sent_spans", taken), ("otelcol_exporter_send_failed_spans", dropped), ("fuseboard_exporter_unread_answers", unread)];
        self.own.wait(&format!("not {counters:?}"), |told| counters.iter().all(|(name, times)| told.counted(name) == *times as f64).then_some(()));
        assert_eq!(self.sink.look(|taken| taken.requests), self.sent, "something was sent again");
    }
}

fn forever(bytes: Vec<u8>) -> &'static [u8] {
    bytes.leak()
}

/// An answer of OTLP that says something.
fn answer() -> Vec<u8> {
    use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
    let partial = ExportTracePartialSuccess { rejected_spans: 0, error_message: "slowly, please".to_owned() };
    prost::Message::encode_to_vec(&ExportTraceServiceResponse { partial_success: Some(partial) })
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzEncoder::new(body, flate2::Compression::default()), &mut out).unwrap();
    out
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(body, 0).unwrap()
}

const HEAD: &[(&str, &str)] = &[("content-type", "application/grpc")];
const GZIP: &[(&str, &str)] = &[("content-type", "application/grpc"), ("grpc-encoding", "gzip")];
const ZSTD: &[(&str, &str)] = &[("content-type", "application/grpc"), ("grpc-encoding", "zstd")];
const SNAPPY: &[(&str, &str)] = &[("content-type", "application/grpc"), ("grpc-encoding", "snappy")];
const FINE: &[(&str, &str)] = &[("grpc-status", "0")];
const INVALID: &[(&str, &str)] = &[("grpc-status", "3"), ("grpc-message", "never")];

fn grpc(headers: &'static [(&'static str, &'static str)], body: Vec<u8>, trailers: &'static [(&'static str, &'static str)]) -> Reply {
    Reply { status: 200, headers, body: forever(body), trailers }
}

#[test]
fn answers_of_grpc_may_be_compressed() {
    let mut setting = Setting::new("otlp_grpc");
    setting.send(grpc(HEAD, framed(false, &answer()), FINE));
    setting.send(grpc(GZIP, framed(true, &gzip(&answer())), FINE));
    setting.send(grpc(ZSTD, framed(true, &zstd(&answer())), FINE));
    setting.send(grpc(GZIP, framed(false, &answer()), FINE));
    setting.came_to(4, 0, 0);
    setting.fuseboard.log.wait_for_several("slowly, please", 1);
}

#[test]
fn a_request_that_was_taken_over_grpc_is_taken_whatever_else_the_answer_says() {
    let mut setting = Setting::new("otlp_grpc");
    setting.send(grpc(HEAD, b"junk".to_vec(), FINE));
    setting.send(grpc(HEAD, framed(false, b"junk"), FINE));
    setting.send(grpc(HEAD, Vec::new(), FINE));
    setting.send(grpc(GZIP, framed(true, b"junk"), FINE));
    setting.send(grpc(ZSTD, framed(true, b"junk"), FINE));
    setting.send(grpc(SNAPPY, framed(true, b"junk"), FINE));
    setting.send(grpc(HEAD, framed(false, &vec![0; 5 << 20]), FINE));
    setting.send(grpc(GZIP, framed(true, &gzip(&vec![0; 5 << 20])), FINE));
    setting.send(grpc(&[("content-type", "application/grpc"), ("grpc-status", "0")], Vec::new(), &[]));
    setting.came_to(9, 0, 9);
    setting.fuseboard.log.wait_for("its answer can't be read");
}

#[test]
fn a_refusal_over_grpc_counts_as_itself_whatever_else_the_answer_says() {
    let mut setting = Setting::new("otlp_grpc");
    setting.send(grpc(HEAD, b"junk".to_vec(), INVALID));
    setting.send(grpc(GZIP, framed(true, b"junk"), INVALID));
    setting.send(grpc(SNAPPY, framed(true, b"junk"), INVALID));
    setting.send(grpc(HEAD, framed(false, &vec![0; 5 << 20]), INVALID));
    setting.send(grpc(&[("content-type", "application/grpc"), ("grpc-status", "3")], Vec::new(), &[]));
    // Neither text nor details can be read.
    setting.send(grpc(HEAD, Vec::new(), &[("grpc-status", "3"), ("grpc-message", "%ff"), ("grpc-status-details-bin", "!")]));
    setting.send(Reply { status: 503, ..grpc(HEAD, Vec::new(), INVALID) });
    setting.came_to(0, 7, 0);
}

#[test]
fn what_may_be_sent_again_over_grpc_is_even_with_junk_in_its_answer() {
    let mut setting = Setting::new("otlp_grpc");
    for reply in [
        grpc(GZIP, framed(true, b"junk"), &[("grpc-status", "14")]),
        grpc(HEAD, Vec::new(), &[("grpc-status", "14"), ("grpc-status-details-bin", "!")]),
        // No gRPC at all.
        grpc(&[("content-type", "text/html")], b"<p>busy".to_vec(), &[]),
        grpc(HEAD, Vec::new(), &[("grpc-status", "fine")]),
        Reply { status: 502, ..grpc(&[("content-type", "text/html")], b"<p>busy".to_vec(), &[]) },
        Reply { status: 500, ..grpc(&[], Vec::new(), &[]) },
        Reply { status: 429, ..grpc(&[], Vec::new(), &[]) },
    ] {
        setting.send(reply);
        let before = setting.sink.look(|taken| taken.requests);
        setting.sink.be(Mood::Well);
        setting.sink.wait(&format!("not sent again after {reply:?}"), |taken| (taken.requests > before).then_some(()));
    }
    setting.own.wait("not all were taken", |told| (told.counted("otelcol_exporter_sent_spans") == 7.0).then_some(()));
    assert_eq!(setting.own.look(|told| told.counted("otelcol_exporter_send_failed_spans")), 0.0);
}

#[test]
fn a_wrong_address_or_credential_is_final_over_grpc() {
    let mut setting = Setting::new("otlp_grpc");
    for status in [401, 403, 404] {
        setting.send(Reply { status, ..grpc(&[("content-type", "text/html")], b"<p>no".to_vec(), &[]) });
    }
    setting.came_to(0, 3, 0);
}

fn http(headers: &'static [(&'static str, &'static str)], body: Vec<u8>) -> Reply {
    Reply { status: 200, headers, body: forever(body), trailers: &[] }
}

#[test]
fn a_request_that_was_taken_over_http_is_taken_whatever_else_the_answer_says() {
    const PROTOBUF: &[(&str, &str)] = &[("content-type", "application/x-protobuf")];
    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
    const COMPRESSED: &[(&str, &str)] = &[("content-type", "application/x-protobuf"), ("content-encoding", "gzip")];
    let mut setting = Setting::new("otlp_http");
    // What can be read …
    setting.send(http(PROTOBUF, answer()));
    setting.send(http(&[], answer()));
    setting.send(http(COMPRESSED, gzip(&answer())));
    setting.send(http(JSON, b"{}".to_vec()));
    setting.send(http(&[("content-type", "text/plain")], Vec::new()));
    setting.send(Reply { status: 204, ..http(&[], Vec::new()) });
    setting.came_to(6, 0, 0);
    // … and what can't.
    setting.send(http(PROTOBUF, b"junk".to_vec()));
    setting.send(http(JSON, b"junk".to_vec()));
    setting.send(http(COMPRESSED, answer()));
    setting.send(http(&[("content-type", "text/html")], b"<p>welcome".to_vec()));
    setting.send(http(PROTOBUF, vec![0; 5 << 20]));
    setting.came_to(11, 0, 5);
    setting.fuseboard.log.wait_for("its answer can't be read");
}
