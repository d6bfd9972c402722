//! What a span costs a gateway with gzip on both sides (`otlp`, `batch`, `otlp_grpc`), beside a real Collector with the same
//! components, in one run: CPU time of each process alone, pinned to one core, by its own accounting.
//!
//! `cargo bench --bench gateway` prints microseconds of CPU a span at 100 spans a request and 30 000 spans a second, and
//! the ratio. The Collector is built by `tests/peers/build target/peers`; `FUSEBOARD_PEERS` names another directory.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

#[allow(dead_code, reason = "other benches use the rest")]
mod corpus;
#[allow(dead_code, reason = "other benches use the rest")]
mod relay;

use std::{
    fs,
    path::PathBuf,
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
use tonic::codec::CompressionEncoding::Gzip;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SPANS: usize = 100;
const REQUESTS_A_SECOND: u64 = 300;
const SECONDS: u64 = 5;
const ROUNDS: usize = 3;
/// The core that the measured process runs on.
const CORE: &str = "0";

#[tokio::main]
async fn main() {
    let sunk = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sink = listener.local_addr().unwrap().to_string();
    tokio::spawn(relay::sink_of_spans(listener, Arc::clone(&sunk), Gzip));
    let peers = std::env::var_os("FUSEBOARD_PEERS").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/peers"), PathBuf::from);
    let collector = peers.join("otelcol");
    let mut targets = vec![("fuseboard", Target::start(env!("CARGO_BIN_EXE_fuseboard").into(), &sink).await, f64::MAX)];
    if collector.exists() {
        targets.push(("collector", Target::start(collector, &sink).await, f64::MAX));
    } else {
        println!("no Collector at {}: build it with tests/peers/build", collector.display());
    }
    for _ in 0..ROUNDS {
        for (_, target, least) in &mut targets {
            *least = least.min(target.cost(&sunk).await);
        }
    }
    println!("CPU us a span: the least of {ROUNDS} rounds of {SECONDS} s, gzip in and out, {SPANS} spans a request");
    for (name, target, least) in &targets {
        println!("{name:>10}{least:>8.2}   peak RSS {} MiB", target.peak_mib());
    }
    if let [(_, _, ours), (_, _, theirs)] = &targets[..] {
        println!("     ratio{:>8.2}   (target: at most 0.6)", ours / theirs);
    }
}

/// A process under load.
struct Target {
    child: Child,
    endpoint: String,
    pool: Vec<Template>,
    seed: u64,
}

impl Target {
    async fn start(program: PathBuf, sink: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let config = format!(
            "receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: '127.0.0.1:{port}' }} }} }} }}
processors: {{ batch: {{}} }}
exporters: {{ otlp_grpc: {{ endpoint: '{sink}', compression: gzip, tls: {{ insecure: true }} }} }}
service: {{ pipelines: {{ traces: {{ receivers: [otlp], processors: [batch], exporters: [otlp_grpc] }} }} }}"
        );
        let path = std::env::temp_dir().join(format!("fuseboard-gateway-{}-{port}.yaml", std::process::id()));
        fs::write(&path, config).unwrap();
        let mut command = Command::new("taskset");
        command.args(["-c", CORE]).arg(program).arg("--config").arg(&path).env("GOMAXPROCS", "1");
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "it does not listen");
            tokio::task::yield_now().await;
        }
        fs::remove_file(path).unwrap();
        let pool = LANGUAGES.iter().flat_map(|(_, recording)| templates(recording, SPANS).into_iter().take(4)).collect();
        Self { child, endpoint: format!("http://127.0.0.1:{port}"), pool, seed: u64::from(port) << 32 }
    }

    /// CPU microseconds a span under the load.
    async fn cost(&mut self, sunk: &AtomicU64) -> f64 {
        let channel = relay::connect(&self.endpoint).await;
        let per_request = self.pool[0].spans() as u64;
        let requests = REQUESTS_A_SECOND * SECONDS;
        let (cpu, received) = (self.cpu(), sunk.load(Ordering::Relaxed));
        let mut under_way = tokio::task::JoinSet::new();
        let began = Instant::now();
        for number in 0..requests {
            tokio::time::sleep_until((began + Duration::from_nanos(number * 1_000_000_000 / REQUESTS_A_SECOND)).into()).await;
            let size = self.pool.len();
            let template = &mut self.pool[usize::try_from(number).unwrap() % size];
            self.seed += 1;
            template.renew(self.seed, Wall.now() - 1_000_000, 1000);
            under_way.spawn(relay::send_compressed(channel.clone(), Bytes::copy_from_slice(&template.bytes), Gzip));
        }
        while let Some(answered) = under_way.join_next().await {
            answered.unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while sunk.load(Ordering::Relaxed) - received < requests * per_request {
            assert!(Instant::now() < deadline, "{} of {} spans arrived", sunk.load(Ordering::Relaxed) - received, requests * per_request);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (self.cpu() - cpu) as f64 / 1e3 / (requests * per_request) as f64
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

    fn peak_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
