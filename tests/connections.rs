//! What connections may cost: idle ones, ones that only send control frames, and those of web pages.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
};

use support::{
    Fuseboard, PATIENCE,
    http::{post_json, request},
    sink::Sink,
};

const MOST: usize = 4;

fn start(own: &Sink, http: &str) -> Fuseboard {
    Fuseboard::start(&format!(
        "
receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: '127.0.0.1:0', max_connections: {MOST} }}
      http: {{ endpoint: '127.0.0.1:0', {http} }}
exporters: {{ debug: {{}} }}
service:
  pipelines: {{ traces: {{ receivers: [otlp], exporters: [debug] }} }}
  telemetry:
    metrics: {{ readers: [{{ periodic: {{ interval: 1s, exporter: {{ otlp: {{ protocol: grpc, endpoint: '{}' }} }} }} }}] }}
",
        own.url(),
    ))
}

/// An HTTP/2 frame on stream 0.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, 0, 0, 0, 0, 0][..], payload].concat()
}

const SETTINGS: u8 = 4;
const PING: u8 = 6;

/// A connection that speaks HTTP/2 and asks for nothing; the server's settings have come.
fn idle(to: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, &[])).unwrap();
    stream.read_exact(&mut [0; 9]).unwrap();
    stream
}

#[test]
fn when_all_connections_are_taken_the_one_that_was_idle_longest_goes() {
    let own = Sink::start();
    let fuseboard = start(&own, "");
    let to = fuseboard.address("grpc");
    let mut open: Vec<TcpStream> = (0..MOST).map(|_| idle(to)).collect();
    let answer = support::grpc::export(to, &[]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    // The first of them was closed, the others were not.
    let ended = open[0].read_to_end(&mut Vec::new());
    let timed_out = |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    assert!(!ended.as_ref().is_err_and(timed_out), "{ended:?}");
    own.wait_for_value("fuseboard_limit_reached", &[("limit", "max_connections")], 1.0);
    open[MOST - 1].write_all(&frame(PING, &[7; 8])).unwrap();
    let mut bytes = [0; 64];
    assert!(open[MOST - 1].read(&mut bytes).unwrap() > 0, "it still answers");
}

#[test]
fn a_connection_that_only_sends_control_frames_ends() {
    let own = Sink::start();
    let fuseboard = start(&own, "");
    for kind in [PING, SETTINGS] {
        let mut stream = idle(fuseboard.address("grpc"));
        let mut reader = stream.try_clone().unwrap();
        let answers = std::thread::spawn(move || drop(reader.read_to_end(&mut Vec::new())));
        let one = frame(kind, if kind == PING { &[7; 8] } else { &[] });
        let many: Vec<u8> = one.iter().copied().cycle().take(one.len() * 4_096).collect();
        // 16 MiB at the most: it is closed long before.
        let mut sent = 0;
        while sent < 16 << 20 && stream.write_all(&many).is_ok() {
            sent += many.len();
        }
        answers.join().unwrap();
        assert!(sent < 16 << 20, "{kind}: {sent} bytes were taken");
    }
    own.wait_for_value("fuseboard_limit_reached", &[("limit", "control_frames")], 2.0);
    assert_eq!(support::grpc::export(fuseboard.address("grpc"), &[]).code, Some(0));
}

#[test]
fn web_pages_of_allowed_origins_may_send() {
    let own = Sink::start();
    let fuseboard = start(&own, "cors: { allowed_origins: ['https://*.example.com'], allowed_headers: [x-api-key], max_age: 2h }");
    let to = fuseboard.address("http");
    let ask = |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST"), ("access-control-request-headers", "content-type,x-api-key")];
        request(to, "OPTIONS", "/v1/traces", &headers, &[])
    };
    let asked = ask("https://shop.example.com");
    assert!(matches!(asked.status, 200 | 204), "{asked:?}");
    assert_eq!(asked.header("access-control-allow-origin"), Some("https://shop.example.com"));
    assert!(asked.header("access-control-allow-headers").unwrap().contains("x-api-key"));
    assert_eq!(asked.header("access-control-max-age"), Some("7200"));
    assert_eq!(ask("https://evil.test").header("access-control-allow-origin"), None);
    let sent = request(to, "POST", "/v1/traces", &[("content-type", "application/json"), ("origin", "https://shop.example.com")], b"{}");
    assert_eq!((sent.status, sent.header("access-control-allow-origin")), (200, Some("https://shop.example.com")));
    assert_eq!(post_json(to, "/v1/traces", "{}").header("access-control-allow-origin"), None, "nobody asked");
}

#[test]
fn by_default_pages_of_this_machine_may_send_and_none_where_the_list_is_empty() {
    let own = Sink::start();
    for (http, allowed) in [("", Some("http://localhost:3000")), ("cors: { allowed_origins: [] }", None)] {
        let fuseboard = start(&own, http);
        let headers = [("origin", "http://localhost:3000"), ("access-control-request-method", "POST")];
        let asked = request(fuseboard.address("http"), "OPTIONS", "/v1/traces", &headers, &[]);
        assert_eq!(asked.header("access-control-allow-origin"), allowed, "{http}");
    }
}
