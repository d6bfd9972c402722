//! SIGHUP: what runs goes on, and nothing acknowledged is lost.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::float_cmp)]

mod support;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use support::{
    Fuseboard,
    http::post_protobuf,
    sink::{Mood, Sink, Taken, text},
    spans::{SECOND, bytes, call_to, now, request},
};

fn config(endpoint: &str, window: &str) -> String {
    format!(
        "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:0' }} }} }} }}
processors: {{ circuit_window: {{ emit_interval: 1s{window} }} }}
exporters: {{ otlp_http: {{ endpoint: '{endpoint}', retry_on_failure: {{ initial_interval: 100ms }} }} }}
service:
  pipelines:
    traces: {{ receivers: [otlp], processors: [circuit_window], exporters: [otlp_http] }}
    metrics: {{ receivers: [circuit_window], exporters: [otlp_http] }}
"
    )
}

fn send(to: SocketAddr, id: u64) {
    // In two buckets: of a circuit that was called in one only nothing is told.
    let body = bytes(&request("shop", "a", vec![call_to("stock", id, now() - id % 2 * SECOND, "200")]));
    assert_eq!(post_protobuf(to, "/v1/traces", &body).status, 200);
}

/// Value and start of the newest point of the counter of successes.
fn successes(taken: &Taken) -> Option<(f64, u64)> {
    let circuit = [("circuit_breaker.name", "stock"), ("circuit_breaker.outcome", "success")];
    let value = taken.value("circuit_breaker.requests", &circuit)?;
    let sums = taken.metrics().filter(|one| one.name == "circuit_breaker.requests").filter_map(|one| match &one.data {
        Some(Data::Sum(sum)) => Some(&sum.data_points),
        _ => None,
    });
    let fits = |attributes: &[_]| circuit.iter().all(|(key, wanted)| text(attributes, key).as_deref() == Some(wanted));
    let newest = sums.flatten().filter(|point| fits(&point.attributes)).max_by_key(|point| point.time_unix_nano)?;
    Some((value, newest.start_time_unix_nano))
}

#[test]
fn counters_go_on_when_windows_begin_anew() {
    let sink = Sink::start();
    let fuseboard = Fuseboard::start(&config(&sink.url(), ""));
    let to = fuseboard.address("http");
    (0..5).for_each(|id| send(to, id));
    let (_, began) = sink.wait("5 successes", |taken| successes(taken).filter(|(value, _)| *value == 5.0));
    fuseboard.reload(&config(&sink.url(), ", window_size: 120s, bucket_size: 2s"));
    fuseboard.log.wait_for("the configuration was reloaded");
    (5..8).for_each(|id| send(to, id));
    let (_, begins) = sink.wait("8 successes", |taken| successes(taken).filter(|(value, _)| *value == 8.0));
    assert_eq!(begins, began, "the series goes on");
    // The windows know nothing of what came before.
    sink.wait_for_value("circuit_breaker.window.requests", &[("circuit_breaker.name", "stock"), ("circuit_breaker.outcome", "success")], 3.0);
}

#[test]
fn an_invalid_file_changes_nothing_and_says_why() {
    let sink = Sink::start();
    let mut fuseboard = Fuseboard::start(&config(&sink.url(), ""));
    let to = fuseboard.address("http");
    // A connection that is open stays open.
    let mut connection = TcpStream::connect(to).unwrap();
    fuseboard.reload(&config(&sink.url(), ", windw_size: 120s"));
    fuseboard.log.wait_for("did you mean `window_size`?");
    fuseboard.log.wait_for("the configuration was not reloaded; the old one runs on");
    let body = bytes(&request("shop", "a", vec![call_to("stock", 1, now(), "200")]));
    let head = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write_all(&[head.as_bytes(), &body].concat()).unwrap();
    let mut answer = [0; 15];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    sink.wait("the span", |taken| (taken.spans().count() == 1).then_some(()));
    assert!(fuseboard.runs());
}

#[test]
fn what_a_reload_removes_is_named() {
    let sink = Sink::start();
    let fuseboard = Fuseboard::start(&config(&sink.url(), ""));
    let whole = config(&sink.url(), "");
    // Cut off behind a whole line.
    let (cut, _) = whole.split_once("    metrics:").unwrap();
    fuseboard.reload(cut);
    fuseboard.log.wait_for("the configuration was reloaded");
    let line = fuseboard.log.wait_for("the reload removed the pipeline `metrics`");
    assert!(line.contains("WARN"), "{line}");
    assert!(!fuseboard.log.all().iter().any(|line| line.contains("removed `otlp_http`")));
    fuseboard.reload(&cut.replace("processors: [circuit_window], ", ""));
    fuseboard.log.wait_for("the reload removed `circuit_window` under `processors`");
}

#[test]
fn a_port_that_is_taken_changes_nothing() {
    let sink = Sink::start();
    let fuseboard = Fuseboard::start(&config(&sink.url(), ""));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let both = format!("grpc: {{ endpoint: '127.0.0.1:0' }}, http: {{ endpoint: '{}' }}", taken.local_addr().unwrap());
    fuseboard.reload(&config(&sink.url(), "").replace("http: { endpoint: '127.0.0.1:0' }", &both));
    fuseboard.log.wait_for("another program does already");
    send(fuseboard.address("http"), 1);
    sink.wait("the span", |taken| (taken.spans().count() == 1).then_some(()));
}

#[test]
fn an_exporter_that_is_replaced_hands_over_what_it_holds() {
    let (dead, alive) = (Sink::start(), Sink::start());
    dead.be(Mood::Busy);
    let fuseboard = Fuseboard::start(&config(&dead.url(), ""));
    let to = fuseboard.address("http");
    (0..20).for_each(|id| send(to, id));
    dead.wait("nothing was tried", |taken| (taken.requests > 0).then_some(()));
    fuseboard.reload(&config(&alive.url(), ""));
    fuseboard.log.wait_for("the configuration was reloaded");
    (20..25).for_each(|id| send(to, id));
    let arrived = alive.wait("not everything arrived", |taken| {
        let names: BTreeSet<String> = taken.spans().map(|span| span.name.clone()).collect();
        (names.len() == 25).then_some(names)
    });
    assert!(arrived.contains("call 0") && arrived.contains("call 24"));
}

#[test]
fn a_connection_that_breaks_is_no_refusal() {
    for exporter in [
        "otlp_http: { endpoint: 'URL', retry_on_failure: { initial_interval: 100ms } }",
        "otlp_grpc: { endpoint: 'URL', retry_on_failure: { initial_interval: 100ms } }",
    ] {
        let sink = Sink::start();
        sink.be(Mood::Silent);
        let name = exporter.split_once(':').unwrap().0;
        let yaml = config("URL", "").replace("otlp_http: { endpoint: 'URL', retry_on_failure: { initial_interval: 100ms } }", exporter);
        let fuseboard = Fuseboard::start(&yaml.replace("URL", &sink.url()).replace("[otlp_http]", &format!("[{name}]")));
        send(fuseboard.address("http"), 1);
        sink.wait("it was not tried again", |taken| (taken.requests > 2).then_some(()));
        sink.be(Mood::Well);
        sink.wait("the span did not arrive", |taken| taken.spans().any(|span| span.name == "call 1").then_some(()));
        assert!(!fuseboard.log.all().iter().any(|line| line.contains("dropped")));
    }
}

#[test]
fn memory_that_was_limited_is_free_again() {
    let sink = Sink::start();
    let limited = config(&sink.url(), "")
        .replace("processors: { circuit", "processors: { memory_limiter: { limit_mib: 1, spike_limit_mib: 0 }, circuit")
        .replace("processors: [circuit_window]", "processors: [memory_limiter, circuit_window]");
    let fuseboard = Fuseboard::start(&limited);
    let to = fuseboard.address("http");
    let large = bytes(&request("shop", "a", vec![call_to(&"x".repeat(2 << 20), 1, now(), "200")]));
    let answer = post_protobuf(to, "/v1/traces", &large);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    fuseboard.reload(&config(&sink.url(), ""));
    fuseboard.log.wait_for("the configuration was reloaded");
    assert_eq!(post_protobuf(to, "/v1/traces", &large).status, 200);
}
