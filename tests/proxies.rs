//! Backends that are reached by way of a proxy only, as the environment says.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use support::{
    Directory, Fuseboard,
    http::post_protobuf,
    sink::Sink,
    spans::{bytes, call_to, now, request},
};

/// A proxy that leads everything to one backend, whatever its name.
struct Proxy {
    address: SocketAddr,
    /// Heads of requests and of connections.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn before(backend: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), heads: Arc::default() };
        let heads = Arc::clone(&proxy.heads);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let heads = Arc::clone(&heads);
                thread::spawn(move || lead(stream, backend, &heads));
            }
        });
        proxy
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn lead(mut client: TcpStream, backend: SocketAddr, heads: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap_or_default() == 0 {
            return;
        }
        head.extend_from_slice(&byte);
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    heads.lock().unwrap().push(text.clone());
    let mut backend = TcpStream::connect(backend).unwrap();
    if text.starts_with("connect ") {
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    } else {
        backend.write_all(&head).unwrap();
    }
    let (mut from_client, mut to_backend) = (client.try_clone().unwrap(), backend.try_clone().unwrap());
    thread::spawn(move || {
        drop(io::copy(&mut from_client, &mut to_backend));
        drop(to_backend.shutdown(Shutdown::Write));
    });
    drop(io::copy(&mut backend, &mut client));
    drop(client.shutdown(Shutdown::Both));
}

fn start(exporter: &str, environment: &[(&str, &str)]) -> Fuseboard {
    let config = format!(
        "
receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: '127.0.0.1:0' }} }} }} }}
exporters: {{ {exporter} }}
service: {{ pipelines: {{ traces: {{ receivers: [otlp], exporters: [{}] }} }}, telemetry: {{ logs: {{ level: debug }} }} }}
",
        exporter.split_once(':').unwrap().0
    );
    Fuseboard::start_with(Directory::new(), &config, environment)
}

fn send(fuseboard: &Fuseboard, id: u64) {
    let body = bytes(&request("shop", "a", vec![call_to("stock", id, now(), "200")]));
    assert_eq!(post_protobuf(fuseboard.address("http"), "/v1/traces", &body).status, 200);
}

/// `user:hunter2`, as proxies are told it.
const CREDENTIALS: &str = "proxy-authorization: basic dxnlcjpodw50zxiy";

#[test]
fn http_is_passed_on_request_by_request() {
    let sink = Sink::start();
    let proxy = Proxy::before(sink.address);
    let url = format!("http://user:hunter2@{}", proxy.address);
    let fuseboard = start("otlp_http: { endpoint: 'http://backend.invalid:4318' }", &[("HTTP_PROXY", &url), ("HTTPS_PROXY", "http://127.0.0.1:1")]);
    send(&fuseboard, 1);
    sink.wait("the span did not arrive", |taken| (taken.spans().count() == 1).then_some(()));
    let heads = proxy.heads();
    assert!(heads.iter().all(|head| head.starts_with("post http://backend.invalid:4318/v1/traces ") && head.contains(CREDENTIALS)), "{heads:?}");
    fuseboard.log.wait_for("by way of a proxy");
    assert!(!fuseboard.log.all().join("\n").contains("hunter2"));
}

#[test]
fn grpc_is_tunnelled() {
    let sink = Sink::start();
    let proxy = Proxy::before(sink.address);
    let url = format!("http://user:hunter2@{}", proxy.address);
    let exporter = "otlp_grpc: { endpoint: 'backend.invalid:4317', tls: { insecure: true } }";
    // In small letters too.
    let fuseboard = start(exporter, &[("https_proxy", &url), ("HTTP_PROXY", "http://127.0.0.1:1")]);
    (1..=3).for_each(|id| send(&fuseboard, id));
    sink.wait("the spans did not arrive", |taken| (taken.spans().count() == 3).then_some(()));
    let heads = proxy.heads();
    assert!(heads.iter().all(|head| head.starts_with("connect backend.invalid:4317 ") && head.contains(CREDENTIALS)), "{heads:?}");
    assert!(!fuseboard.log.all().join("\n").contains("hunter2"));
}

#[test]
fn what_needs_no_proxy_goes_by_none() {
    let sink = Sink::start();
    let proxy = Proxy::before(sink.address);
    let url = format!("http://{}", proxy.address);
    // Loopback addresses are never reached by one.
    let fuseboard = start(&format!("otlp_http: {{ endpoint: '{}' }}", sink.url()), &[("HTTP_PROXY", &url)]);
    send(&fuseboard, 1);
    sink.wait("the span did not arrive", |taken| (taken.spans().count() == 1).then_some(()));
    let exempt = start(
        "otlp_http: { endpoint: 'http://backend.invalid:4318', retry_on_failure: { initial_interval: 50ms } }",
        &[("HTTP_PROXY", &url), ("NO_PROXY", ".invalid:4318")],
    );
    send(&exempt, 2);
    exempt.log.wait_for("export failed");
    assert_eq!(proxy.heads(), Vec::<String>::new());
}

#[test]
fn a_proxy_that_refuses_is_named_and_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:hunter2@{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    let exporter = "otlp_grpc: { endpoint: 'http://backend.invalid:4317', retry_on_failure: { initial_interval: 50ms } }";
    let fuseboard = start(exporter, &[("HTTPS_PROXY", &url)]);
    send(&fuseboard, 1);
    let line = fuseboard.log.wait_for("export failed");
    assert!(line.contains("answers CONNECT backend.invalid:4317 with 407"), "{line}");
    assert!(!fuseboard.log.all().join("\n").contains("hunter2"));
}
