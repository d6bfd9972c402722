//! Real backends: a server on grpc-go, as the Collector, Jaeger and Tempo are. `.ci/run` builds it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
};

use support::{
    Fuseboard,
    http::{self, post_json, post_protobuf},
    spans::{bytes, call_to, now, request},
};

const REQUESTS: u64 = 200;
const SPANS_A_REQUEST: u64 = 10;

/// Where the server is once it was built; another place may be named in the environment.
fn program() -> PathBuf {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/grpc-go");
    std::env::var_os("FUSEBOARD_TEST_GRPC_GO").map_or_else(|| PathBuf::from(built), PathBuf::from)
}

/// The server, as long as this lives.
struct Peer {
    child: Child,
    /// It ends when this is closed.
    _input: ChildStdin,
    grpc: SocketAddr,
    http: SocketAddr,
}

impl Peer {
    /// `None` if nobody built it.
    fn start() -> Option<Self> {
        let program = program();
        if !program.exists() {
            assert!(std::env::var_os("FUSEBOARD_TEST_GRPC_GO").is_none(), "{} is not there", program.display());
            // Past what the test harness swallows.
            let told = format!("!! NOT TESTED: grpc-go as a backend: {} is not there; .ci/run builds it\n", program.display());
            std::io::stderr().write_all(told.as_bytes()).unwrap();
            return None;
        }
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addresses: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = |name: &str| addresses[name].as_str().unwrap().parse().unwrap();
        Some(Self { child, _input: input, grpc: address("grpc"), http: address("http") })
    }

    /// What it took.
    fn counts(&self) -> serde_json::Value {
        serde_json::from_slice(&http::request(self.http, "GET", "/counts", &[], &[]).body).unwrap()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn everything_arrives_once(peer: &Peer, compression: &str, queue: &str) {
    let mut fuseboard = Fuseboard::start(&format!(
        "
receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:0' }} }} }} }}
exporters: {{ otlp_grpc: {{ endpoint: 'http://{}', compression: {compression}, sending_queue: {queue} }} }}
service:
  pipelines:
    traces: {{ receivers: [otlp], exporters: [otlp_grpc] }}
    metrics: {{ receivers: [otlp], exporters: [otlp_grpc] }}
    logs: {{ receivers: [otlp], exporters: [otlp_grpc] }}
",
        peer.grpc
    ));
    let to = fuseboard.address("http");
    for number in 0..REQUESTS {
        let spans = (0..SPANS_A_REQUEST).map(|span| call_to("stock", number * SPANS_A_REQUEST + span, now(), "200")).collect();
        assert_eq!(post_protobuf(to, "/v1/traces", &bytes(&request("shop", "a", spans))).status, 200);
    }
    let metrics = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{"asDouble":1.5}]}}]}]}]}"#;
    let logs = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hello"}}]}]}]}"#;
    assert_eq!(post_json(to, "/v1/metrics", metrics).status, 200);
    assert_eq!(post_json(to, "/v1/logs", logs).status, 200);
    // It sends what it holds before it ends.
    assert!(fuseboard.stop().success());
    let spans = REQUESTS * SPANS_A_REQUEST;
    let expected = serde_json::json!({ "spans": spans, "unique_spans": spans, "metrics": 1, "records": 1 });
    assert_eq!(peer.counts(), expected, "compression {compression}, sending_queue {queue}");
    let log = fuseboard.log.all().join("\n");
    for complaint in ["dropped", "export failed", "can't be read"] {
        assert!(!log.contains(complaint), "compression {compression}, sending_queue {queue}: {log}");
    }
}

#[test]
fn what_is_sent_to_grpc_go_arrives_once() {
    for compression in ["gzip", "zstd", "none"] {
        for queue in ["{}", "{ batch: {} }", "{ batch: { min_size: 100, flush_timeout: 50ms } }"] {
            let Some(peer) = Peer::start() else { return };
            everything_arrives_once(&peer, compression, queue);
        }
    }
}
