//! More than there is memory for: what is held stays within the limit, and good senders are told to come again.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread,
};

use support::{
    Fuseboard, PATIENCE,
    http::{self, post, post_protobuf},
    sink::Sink,
    spans::{attribute, bytes, call, call_to, now, request},
};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");

/// Fuseboard with a memory limit, in MiB, before a backend that is away.
fn config(limit_mib: u64) -> String {
    format!(
        "
receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:0' }} }} }} }}
processors: {{ memory_limiter: {{ limit_mib: {limit_mib} }}, circuit_window: {{}} }}
exporters: {{ otlp_http: {{ endpoint: 'http://127.0.0.1:1', compression: none, sending_queue: {{ queue_size: 1000000 }} }} }}
service:
  pipelines: {{ traces: {{ receivers: [otlp], processors: [memory_limiter, circuit_window], exporters: [otlp_http] }} }}
"
    )
}

fn limited(limit_mib: u64) -> Fuseboard {
    Fuseboard::start(&config(limit_mib))
}

/// The same, with its own metrics sent to a sink.
fn telling(limit_mib: u64, own: &Sink) -> Fuseboard {
    let exporter = format!("{{ otlp: {{ protocol: grpc, endpoint: '{}' }} }}", own.url());
    Fuseboard::start(&format!(
        "{}  telemetry: {{ metrics: {{ readers: [{{ periodic: {{ interval: 1s, exporter: {exporter} }} }}] }} }}\n",
        config(limit_mib)
    ))
}

/// What is promised of a limit: a quarter more, and 64 MiB; and here 32 MiB for a build without optimisation and for what the
/// allocator gives back a second after it was freed.
fn stays_within(fuseboard: &mut Fuseboard, limit_mib: u64) {
    assert!(fuseboard.runs());
    let (peak, promised) = (fuseboard.peak_mib(), limit_mib * 5 / 4 + 64 + 32);
    assert!(peak <= promised, "{peak} MiB; {promised} at most with a limit of {limit_mib}");
}

/// A request of one span and so many bytes.
fn large(id: u64, bytes_of_it: usize) -> Vec<u8> {
    bytes(&request("shop", "a", vec![call(id, now(), vec![attribute("server.address", "stock"), attribute("large", &"x".repeat(bytes_of_it))])]))
}

fn good(id: u64) -> Vec<u8> {
    bytes(&request("shop", "good", vec![call_to("stock", id, now(), "200")]))
}

/// Sends from so many threads at once; every answer must be a success or say that it may come again.
fn all_at_once(senders: usize, send: impl Fn(usize) -> http::Answer + Sync) -> Vec<u16> {
    let statuses: Vec<u16> = thread::scope(|scope| {
        let send = &send;
        let threads: Vec<_> = (0..senders).map(|number| scope.spawn(move || send(number).status)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    statuses
}

#[test]
fn fault_f6_many_compressed_requests_at_once_stay_within_the_limit() {
    const LIMIT_MIB: u64 = 64;
    let mut fuseboard = limited(LIMIT_MIB);
    let to = fuseboard.address("http");
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    bomb.write_all(&large(1, 12 << 20)).unwrap();
    let bomb = bomb.finish().unwrap();
    let statuses = all_at_once(20, |_| post(to, "/v1/traces", &[PROTOBUF, ("content-encoding", "gzip")], &bomb));
    assert!(statuses.contains(&503), "nothing was refused: {statuses:?}");
    all_at_once(20, |number| post_protobuf(to, "/v1/traces", &good(number as u64 + 2)));
    stays_within(&mut fuseboard, LIMIT_MIB);
}

/// A body whose length is not announced.
fn chunked(to: SocketAddr, body: &[u8]) -> http::Answer {
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n{}: {}\r\n\r\n",
        PROTOBUF.0, PROTOBUF.1
    );
    let mut chunks = Vec::new();
    for chunk in body.chunks(32 << 10) {
        chunks.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        chunks.extend(chunk);
        chunks.extend(b"\r\n");
    }
    chunks.extend(b"0\r\n\r\n");
    http::raw(to, head.as_bytes(), &chunks)
}

#[test]
fn fault_f6_many_chunked_uploads_at_once_stay_within_the_limit() {
    const LIMIT_MIB: u64 = 64;
    let mut fuseboard = limited(LIMIT_MIB);
    let to = fuseboard.address("http");
    let body = large(1, 6 << 20);
    all_at_once(16, |_| chunked(to, &body));
    all_at_once(20, |number| post_protobuf(to, "/v1/traces", &good(number as u64 + 2)));
    stays_within(&mut fuseboard, LIMIT_MIB);
}

/// A connection on which one request follows the other.
struct Connection {
    stream: TcpStream,
    to: SocketAddr,
}

impl Connection {
    fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, to }
    }

    /// Sends spans; gives the status.
    fn post(&mut self, body: &[u8]) -> u16 {
        let head =
            format!("POST /v1/traces HTTP/1.1\r\nhost: {}\r\n{}: {}\r\ncontent-length: {}\r\n\r\n", self.to, PROTOBUF.0, PROTOBUF.1, body.len());
        self.stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = Vec::new();
        loop {
            let mut more = [0; 4096];
            let read = self.stream.read(&mut more).unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
            answer.extend(&more[..read]);
            let text = String::from_utf8_lossy(&answer).to_lowercase();
            let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).map_or(0, |length| length.trim().parse().unwrap());
            if answer.len() >= head.len() + 4 + length {
                return head.split(' ').nth(1).unwrap().parse().unwrap();
            }
        }
    }
}

#[test]
fn fault_f6_many_tiny_requests_that_wait_stay_within_the_limit() {
    const LIMIT_MIB: u64 = 8;
    let mut fuseboard = limited(LIMIT_MIB);
    let to = fuseboard.address("http");
    let mut refused = 0;
    let mut connection = Connection::open(to);
    // Each used to keep alive the 8 KiB that it was read into.
    for id in 0..15_000 {
        match connection.post(&good(id)) {
            200 => {}
            503 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(refused > 0, "nothing was refused, so nothing was held back");
    stays_within(&mut fuseboard, LIMIT_MIB);
}

#[test]
fn fault_f5_bodies_that_stop_keep_nobody_out() {
    const LIMIT_MIB: u64 = 64;
    const BODY: usize = 8 << 20;
    let own = Sink::start();
    let mut fuseboard = telling(LIMIT_MIB, &own);
    let to = fuseboard.address("http");
    let (answered, answers) = mpsc::channel();
    for _ in 0..10 {
        let answered = answered.clone();
        thread::spawn(move || {
            let head = format!(
                "POST /v1/traces HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n{}: {}\r\ncontent-length: {BODY}\r\n\r\n",
                PROTOBUF.0, PROTOBUF.1
            );
            answered.send(http::raw(to, head.as_bytes(), &vec![7; BODY - (1 << 20)]).status).unwrap();
        });
    }
    // As soon as one of them was refused, the others hold all that they may.
    let mut statuses = vec![answers.recv_timeout(PATIENCE).unwrap()];
    for id in 0..100 {
        assert_eq!(post_protobuf(to, "/v1/traces", &good(id)).status, 200);
    }
    statuses.extend((1..10).map(|_| answers.recv_timeout(PATIENCE).unwrap()));
    statuses.sort_unstable();
    statuses.dedup();
    assert_eq!(statuses, [408, 503], "the first ones stall, the others find no room");
    stays_within(&mut fuseboard, LIMIT_MIB);
    for limit in ["request_progress", "unfinished_requests_of_peer"] {
        own.wait(limit, |taken| taken.value("fuseboard_limit_reached", &[("limit", limit)]).filter(|times| *times > 0.5));
    }
}
