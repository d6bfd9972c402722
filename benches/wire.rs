//! What the whole process costs a span, gRPC in, windowed, gRPC out, beside a bare tonic proxy that hands the bytes
//! through, in one run: CPU time of the process alone, by its own accounting.
//!
//! `cargo bench --bench wire` prints microseconds of CPU a span at 10, 100 and 1000 spans a request.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

#[allow(dead_code, reason = "the other bench uses the rest")]
mod corpus;
#[allow(dead_code, reason = "the other bench uses the rest")]
mod relay;

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use corpus::{LANGUAGES, Template, templates};
use fuseboard::clock::{Clock, Wall};
use tokio::net::TcpListener;

/// As in the program, so that the proxy has no worse one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One way of measuring: spans a request, requests a second.
const LOADS: [(usize, u64); 3] = [(10, 3000), (100, 1000), (1000, 100)];
const ROUNDS: usize = 3;
const SECONDS: u64 = 4;
/// Requests under way at one time, as from so many applications.
const CLIENTS: u64 = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(at) = arguments.iter().position(|argument| argument == "proxy") {
        return runtime.block_on(relay::proxy(&arguments[at + 1]));
    }
    runtime.block_on(compare());
}

async fn compare() {
    let sunk = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(relay::sink(listener, Arc::clone(&sunk)));
    let mut proxy = Target::proxy(&sink);
    let mut fuseboard = Target::fuseboard(&sink);
    println!("CPU us a span: the least of {ROUNDS} rounds of {SECONDS} s, proxy and Fuseboard in turn");
    println!("{:>14}{:>12}{:>12}{:>12}{:>8}", "spans/request", "requests/s", "proxy", "fuseboard", "ratio");
    for (spans, rate) in LOADS {
        let mut least = [f64::MAX; 2];
        for _ in 0..ROUNDS {
            for (target, least) in [&mut proxy, &mut fuseboard].into_iter().zip(&mut least) {
                *least = least.min(target.cost(spans, rate, &sunk).await);
            }
        }
        let [bare, ours] = least;
        println!("{spans:>14}{rate:>12}{bare:>12.2}{ours:>12.2}{:>8.2}", ours / bare);
    }
    println!("target: ratio at most 1.6 at 100 spans a request");
}

/// A process under load.
struct Target {
    child: Child,
    endpoint: String,
    seed: u64,
}

impl Target {
    fn proxy(sink: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap()).args(["proxy", sink]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, endpoint: line.trim().to_owned(), seed: 1 }
    }

    fn fuseboard(sink: &str) -> Self {
        let config = format!(
            "receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: '127.0.0.1:0' }} }} }} }}
processors: {{ memory_limiter: {{ limit_mib: 512 }}, circuit_window: {{}} }}
exporters: {{ otlp_grpc: {{ endpoint: '{sink}', compression: none, tls: {{ insecure: true }} }} }}
service:
  pipelines:
    traces: {{ receivers: [otlp], processors: [memory_limiter, circuit_window], exporters: [otlp_grpc] }}
    metrics: {{ receivers: [circuit_window], exporters: [otlp_grpc] }}"
        );
        let path = std::env::temp_dir().join(format!("fuseboard-wire-{}.yaml", std::process::id()));
        fs::write(&path, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_fuseboard")).arg("--config").arg(&path).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = log.by_ref().find_map(|line| line.unwrap().split_once("endpoint=").map(|(_, endpoint)| endpoint.trim().to_owned()));
        let endpoint = format!("http://{}", said.unwrap());
        std::thread::spawn(move || log.for_each(drop));
        fs::remove_file(path).unwrap();
        Self { child, endpoint, seed: 1 << 30 }
    }

    /// CPU microseconds a span under this load.
    async fn cost(&mut self, spans: usize, rate: u64, sunk: &AtomicU64) -> f64 {
        let channel = relay::connect(&self.endpoint).await;
        let requests = rate * SECONDS;
        let mut pool: Vec<Template> = LANGUAGES.iter().flat_map(|(_, recording)| templates(recording, spans).into_iter().take(4)).collect();
        if pool.is_empty() {
            // No recording is that long: what is there is sent over and over.
            pool = LANGUAGES.iter().flat_map(|(_, recording)| templates(recording, spans / 2)).map(Template::doubled).collect();
        }
        let per_request = pool[0].spans();
        let (cpu, received) = (self.cpu(), sunk.load(Ordering::Relaxed));
        let mut sent = 0;
        let mut under_way = tokio::task::JoinSet::new();
        let began = Instant::now();
        for number in 0..requests {
            tokio::time::sleep_until((began + Duration::from_nanos(number * 1_000_000_000 / rate)).into()).await;
            let size = pool.len();
            let template = &mut pool[usize::try_from(number).unwrap() % size];
            self.seed += 1;
            template.renew(self.seed, Wall.now() - 1_000_000, 1000);
            let body = Bytes::copy_from_slice(&template.bytes);
            sent += body.len() as u64;
            under_way.spawn(relay::send(channel.clone(), body));
            while under_way.len() as u64 >= CLIENTS {
                under_way.join_next().await;
            }
        }
        while let Some(answered) = under_way.join_next().await {
            answered.unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while sunk.load(Ordering::Relaxed) - received < sent {
            assert!(Instant::now() < deadline, "{} of {sent} bytes arrived", sunk.load(Ordering::Relaxed) - received);
            tokio::task::yield_now().await;
        }
        (self.cpu() - cpu) as f64 / 1e3 / (requests * per_request as u64) as f64
    }

    /// Nanoseconds of CPU that its threads used so far.
    fn cpu(&self) -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let used = threads.filter_map(|thread| {
            let schedule = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            schedule.split_whitespace().next()?.parse::<u64>().ok()
        });
        used.sum()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
