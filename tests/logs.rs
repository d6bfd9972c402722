//! What the program says of itself: it waits for no reader, says little when much happens, and stays readable.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::float_cmp)]

mod support;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use support::{
    Directory, Fuseboard, PATIENCE, PROGRAM,
    http::{post, post_protobuf},
    sink::{Mood, Sink},
    spans::{bytes, call_to, now, request},
};

/// Everything to one sink and to the terminal.
fn config(sink: &Sink, listen: SocketAddr, more: &str) -> String {
    format!(
        "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '{listen}' }} }} }} }}
processors: {{ circuit_window: {{ emit_interval: 1s }} }}
exporters:
  otlp_http: {{ endpoint: '{}', sending_queue: {{ num_consumers: 1 }} }}
  debug: {{ verbosity: detailed }}
service:
  pipelines:
    traces: {{ receivers: [otlp], processors: [circuit_window], exporters: [otlp_http, debug] }}
    metrics: {{ receivers: [circuit_window], exporters: [debug] }}
{more}",
        sink.url()
    )
}

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A program whose outputs are pipes that nobody reads.
struct Unread(Child);

impl Unread {
    fn start(directory: &Directory, config: &str, listens: SocketAddr) -> Self {
        let path = directory.file("fuseboard.yaml", config);
        let mut command = Command::new(PROGRAM);
        command.arg("--config").arg(path).current_dir(&directory.0).env("RUST_LOG", "fuseboard=debug");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait("it does not listen", || {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            TcpStream::connect(listens).ok()
        });
        Self(child)
    }

    fn stop(&mut self) -> ExitStatus {
        let sent = Command::new("kill").arg("-TERM").arg(self.0.id().to_string()).status().unwrap();
        assert!(sent.success());
        wait("it does not end", || self.0.try_wait().unwrap())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn wait<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn outputs_that_nobody_reads_hold_up_neither_service_nor_end() {
    let (sink, directory) = (Sink::start(), Directory::new());
    // Nobody tells where it listens: the port is one that was free a moment ago.
    let listens = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
    let mut fuseboard = Unread::start(&directory, &config(&sink, listens, ""), listens);
    // Each is a line of the log; the pipe takes 64 KiB.
    for _ in 0..1000 {
        assert_eq!(post(listens, "/nothing/here", &[], b"").status, 404);
    }
    for number in 0..300 {
        let spans = (0..10).map(|span| call_to("stock", number * 10 + span, now(), "200")).collect();
        assert_eq!(post_protobuf(listens, "/v1/traces", &bytes(&request("shop", "a", spans))).status, 200);
    }
    sink.wait("not all spans arrived", |taken| (taken.spans().count() == 3000).then_some(()));
    assert!(fuseboard.stop().success());
}

/// How many events lines of a log stand for: those that are there, and those that they say were left out.
fn told(lines: &[String], part: &str, of_one: &str) -> (usize, usize) {
    let lines = lines.iter().filter(|line| line.contains(part));
    let left_out = |line: &String| line.split_once("left_out=").map_or(0, |(_, number)| number.trim().parse().unwrap());
    let events = lines.clone().map(|line| usize::from(line.contains(of_one)) + left_out(line)).sum();
    (lines.count(), events)
}

#[test]
fn what_is_said_again_and_again_is_one_line_with_a_count() {
    let sink = Sink::start();
    sink.be(Mood::Refuses("call 7"));
    let mut fuseboard = Fuseboard::start(&config(&sink, any_port(), ""));
    let body = bytes(&request("shop", "a", vec![call_to("stock", 7, now(), "200")]));
    for _ in 0..200 {
        assert_eq!(post_protobuf(fuseboard.address("http"), "/v1/traces", &body).status, 200);
    }
    sink.wait("not all were sent", |taken| (taken.requests >= 200).then_some(()));
    assert!(fuseboard.stop().success());
    let lines = fuseboard.log.wait("not every refusal is told", |lines| {
        let (lines, events) = told(lines, "exporter=\"otlp_http\"", "reason=");
        (events == 200).then_some(lines)
    });
    assert!(lines < 20, "{lines} lines for 200 refusals");
}

#[test]
fn a_name_forges_no_line() {
    let evil = "shop\n2026-12-01T00:00:00.000000Z ERROR forged \u{1b}[31m\u{202e}\u{7f}".to_owned() + &"x".repeat(10_000);
    for encoding in ["console", "json"] {
        let sink = Sink::start();
        let listens = TcpListener::bind(any_port()).unwrap().local_addr().unwrap();
        let fuseboard = Fuseboard::start(&config(&sink, listens, &format!("  telemetry: {{ logs: {{ encoding: {encoding} }} }}")));
        // Without an instance a warning names the service.
        let mut request = request(&evil, "a", vec![call_to("stock", 1, now(), "200")]);
        request.resource_spans[0].resource.as_mut().unwrap().attributes.retain(|attribute| attribute.key != "service.instance.id");
        assert_eq!(post_protobuf(listens, "/v1/traces", &bytes(&request)).status, 200);
        let line = fuseboard.log.wait_for("can't be told apart");
        assert!(line.contains("forged") && line.chars().count() < 1000, "{line}");
        for line in fuseboard.log.all() {
            assert!(!line.contains(['\u{1b}', '\u{202e}', '\u{7f}']), "{line}");
            assert!(!line.starts_with("2026-12-01T00:00:00.000000Z ERROR forged"), "{line}");
            assert!(encoding == "console" || serde_json::from_str::<serde_json::Value>(&line).is_ok_and(|line| line["level"].is_string()), "{line}");
        }
    }
}

#[test]
fn a_password_in_a_url_is_sent_and_never_logged() {
    for exporter in ["otlp_http", "otlp_grpc"] {
        let sink = Sink::start();
        let url = sink.url().replace("://", "://user:hunter2@");
        let config = config(&sink, any_port(), "").replace("otlp_http", exporter).replace(&sink.url(), &url);
        let mut fuseboard = Fuseboard::start_with(Directory::new(), &config, &[("RUST_LOG", "trace")]);
        let body = bytes(&request("shop", "a", vec![call_to("stock", 1, now(), "200")]));
        assert_eq!(post_protobuf(fuseboard.address("http"), "/v1/traces", &body).status, 200);
        sink.wait("the span did not arrive", |taken| (taken.spans().count() == 1).then_some(()));
        assert!(fuseboard.stop().success());
        let said = fuseboard.log.all().join("\n");
        // As it was written, and in base64.
        assert!(!said.contains("hunter2") && !said.contains("dXNlcjpodW50ZXIy"), "{said}");
    }
}
