//! `otlp_file`: reads what the Collector's `file` exporter, or ours, wrote, and follows it as it grows.

mod follow;
mod handover;
mod place;
mod requests;
mod values;

use std::{path::Path, sync::Arc, time::Duration};

use glob::Pattern;
use parking_lot::{Mutex, MutexGuard};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::follow::{After, Files, Found, Progress};
pub use self::requests::{Content, Next, Request, Requests, is_of_content};
use crate::{
    config::{Size, Span, schema_of},
    net::Limits,
    otlp::Signal,
    pipeline::{Factory, Faults, Future, Instance, Intake, Lifecycle, Outlets, Parsed, Receiver, Refusal, Rejection, Role, Section, Setup},
};

/// What is known of `otlp_file` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Receivers,
    name: "otlp_file",
    aliases: &["otlpjsonfile", "otlp_json_file"],
    about: "Reads files of OTLP (JSON or length-prefixed records; plain, gzip or zstd) and follows them as they grow.",
    roles: &[Role { section: Section::Receivers, signals: &Signal::ALL }],
    in_place: false,
    schema: schema_of::<Config>,
    parse,
};

/// What the user may write.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Patterns of the files to read (`*`, `?`, `[…]`, `**`). A file that is renamed is read to its end; where several
    /// may be within one `poll_interval`, let the patterns match their new names too: none is read twice.
    include: Vec<String>,
    /// Patterns of files to leave out.
    exclude: Vec<String>,
    /// Where to begin in files that are there at the start: `end` or `beginning`. Files that come later are read whole.
    start_at: StartAt,
    /// How often to look for new files and new lines.
    poll_interval: Span,
    /// What records in protobuf hold, which don't say it themselves: `traces`, `metrics` or `logs`.
    protobuf_signal: ProtobufSignal,
    /// The longest request; a longer one is left out.
    max_request_size: Size,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum StartAt {
    #[default]
    End,
    Beginning,
}

/// The words of pipelines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum ProtobufSignal {
    #[default]
    Traces,
    Metrics,
    Logs,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            include: Vec::new(),
            exclude: Vec::new(),
            start_at: StartAt::End,
            poll_interval: Span::millis(200),
            protobuf_signal: ProtobufSignal::Traces,
            max_request_size: Size::mib(64),
        }
    }
}

impl Config {
    fn check(&self) -> Result<Files, String> {
        if self.include.is_empty() {
            return Err("`include` is missing: write the files to read, such as [/var/log/otel/*.jsonl]".to_owned());
        }
        let pattern = |text: &String| Pattern::new(text).map_err(|error| format!("`{text}` is no pattern of files: {error}"));
        self.include.iter().try_for_each(|text| pattern(text).map(drop))?;
        if self.max_request_size.bytes() > 128 << 20 {
            return Err("`max_request_size` may be at most 128MiB".to_owned());
        }
        if self.poll_interval.get() < Duration::from_millis(10) {
            return Err("`poll_interval` must be at least 10ms".to_owned());
        }
        Ok(Files {
            include: self.include.clone(),
            exclude: self.exclude.iter().map(pattern).collect::<Result<_, _>>()?,
            limits: Limits { request_bytes: self.max_request_size.bytes() },
            protobuf: match self.protobuf_signal {
                ProtobufSignal::Traces => Signal::Traces,
                ProtobufSignal::Metrics => Signal::Metrics,
                ProtobufSignal::Logs => Signal::Logs,
            },
        })
    }
}

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let files = config.check()?;
    Parsed::new(config, move |config, setup| {
        let (setup, stop) = (setup.clone(), CancellationToken::new());
        Ok(Instance::Receiver(Arc::new(OtlpFile { config, files, setup, stop, reading: Mutex::default() })))
    })
}

struct OtlpFile {
    config: Config,
    files: Files,
    setup: Setup,
    stop: CancellationToken,
    reading: Mutex<JoinSet<()>>,
}

impl Receiver for OtlpFile {
    fn start(&self, outlets: Outlets) -> Future<'_, Result<(), String>> {
        Box::pin(async move {
            let offering = Offering {
                id: self.setup.id.clone(),
                intake: Intake::new(&self.setup, outlets, "file"),
                runtime: Handle::current(),
                stop: self.stop.clone(),
            };
            let (files, every, from_end) = (self.files.clone(), self.config.poll_interval.get(), self.config.start_at == StartAt::End);
            // Asked for while the receiver that this one replaces still runs: what it read is forgotten when it ends.
            let progress = handover::progress_of(&self.setup.id);
            // Files are read by a thread of their own, which waits while nobody takes what it read.
            self.reading.lock().spawn_blocking(move || {
                // If a reload fails, this one is stopped before its turn comes, and the old one never noticed.
                let Some(mut progress) = offering.turn(&progress) else { return };
                files.take_over(&mut progress, from_end);
                while !offering.stop.is_cancelled() {
                    files.poll(&mut progress, &mut |path, found| offering.offer(path, found));
                    offering.wait(every);
                }
            });
            Ok(())
        })
    }
}

impl Lifecycle for OtlpFile {
    fn shutdown(&self, within: Duration) -> Future<'_, ()> {
        Box::pin(async move {
            self.stop.cancel();
            let mut reading = std::mem::take(&mut *self.reading.lock());
            let finished = async { while reading.join_next().await.is_some() {} };
            if tokio::time::timeout(within, finished).await.is_err() {
                tracing::warn!(receiver = self.setup.id, "a file was still being read at the end of the time to shut down");
            }
        })
    }
}

/// Hands on what was read, again and again until it is taken.
struct Offering {
    id: String,
    intake: Intake,
    runtime: Handle,
    stop: CancellationToken,
}

/// How long to wait where nobody says.
const AGAIN: Duration = Duration::from_secs(1);
/// How often one that waits for its turn looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

impl Offering {
    /// Waits until the receiver before this one reads no more; `None` if this one is stopped first.
    fn turn<'a>(&self, progress: &'a Mutex<Progress>) -> Option<MutexGuard<'a, Progress>> {
        while !self.stop.is_cancelled() {
            if let Some(turn) = progress.try_lock_for(LOOK) {
                return Some(turn);
            }
        }
        None
    }

    fn offer(&self, path: &Path, found: Found) -> After {
        let request = match found {
            Found::Request(request) => request,
            Found::Broken(reason) => {
                self.intake.malformed();
                tracing::warn!(receiver = self.id, file = %path.display(), reason, "left out");
                return After::Continue;
            }
        };
        while !self.stop.is_cancelled() {
            let mut charge = self.intake.charge();
            if charge.grow(request.bytes.len()).is_err() {
                self.intake.limit_reached("memory");
                self.wait(AGAIN);
                continue;
            }
            match self.runtime.block_on(self.intake.take(request.signal, request.bytes.clone(), charge)) {
                Ok(partial) if partial.rejected > 0 => {
                    tracing::warn!(receiver = self.id, file = %path.display(), reason = partial.message, "left out");
                    return After::Continue;
                }
                // What no pipeline asks for is passed over: files may hold several signals.
                Ok(_) | Err(Rejection::NoPipeline) => return After::Continue,
                Err(Rejection::Refused(Refusal::Retryable { after, .. })) => self.wait(after.unwrap_or(AGAIN)),
                Err(Rejection::Malformed(reason) | Rejection::Refused(Refusal::Permanent { reason })) => {
                    tracing::warn!(receiver = self.id, file = %path.display(), reason, "left out");
                    return After::Continue;
                }
            }
        }
        After::Stop
    }

    /// Waits so long, or until it is told to stop.
    fn wait(&self, how_long: Duration) {
        // Running out of time is what is expected.
        drop(self.runtime.block_on(tokio::time::timeout(how_long, self.stop.cancelled())));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        io::Write,
    };

    use opentelemetry::metrics::{MeterProvider, noop::NoopMeterProvider};
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        clock::Wall,
        net::Listeners,
        pipeline::{Admission, Admit, Consumer, Ledger, Payload},
    };

    /// Says what it was given.
    struct Sink(mpsc::Sender<String>);

    impl Consumer for Sink {
        fn admit<'a>(&'a self, _: &'a Payload) -> Admit<'a> {
            Box::pin(async { Ok(Box::new(Self(self.0.clone())) as Box<dyn Admission>) })
        }
    }

    impl Admission for Sink {
        fn commit(self: Box<Self>, payload: Payload) {
            self.0.try_send(String::from_utf8_lossy(&payload.joined()).into_owned()).unwrap();
        }
    }

    /// Stops with the test, whatever comes of it: the runtime waits for the threads that read.
    struct Running(OtlpFile);

    impl Running {
        async fn start(config: &str, sink: &mpsc::Sender<String>) -> Self {
            let setup = Setup {
                id: "otlp_file/handed_over".to_owned(),
                clock: Arc::new(Wall),
                ledger: Arc::new(Ledger::default()),
                queue_room: Arc::default(),
                listeners: Arc::new(Listeners::default()),
                meter: NoopMeterProvider::new().meter("test"),
            };
            let config: Config = serde_yaml::from_str(config).unwrap();
            let files = config.check().unwrap();
            let receiver = Self(OtlpFile { config, files, setup, stop: CancellationToken::new(), reading: Mutex::default() });
            let outlets = Outlets::default();
            outlets.traces.lead_to(Some(Arc::new(Sink(sink.clone()))));
            receiver.0.start(outlets).await.unwrap();
            receiver
        }

        async fn stop(&self) {
            self.0.shutdown(Duration::from_secs(60)).await;
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.stop.cancel();
        }
    }

    async fn arrives(arrived: &mut mpsc::Receiver<String>, name: &str) {
        let next = tokio::time::timeout(Duration::from_secs(60), arrived.recv()).await.unwrap().unwrap();
        assert!(next.contains(name), "{name} and not {next}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_receiver_goes_on_where_the_one_before_it_stopped() {
        let path = std::env::temp_dir().join(format!("fuseboard-handed-over-{}.jsonl", std::process::id()));
        fs::write(&path, "").unwrap();
        let write = |name: &str| {
            let span = format!(r#"{{"traceId":"0102030405060708090a0b0c0d0e0f10","spanId":"0102030405060708","name":"{name}"}}"#);
            let line = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#);
            OpenOptions::new().append(true).open(&path).unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
        };
        let config = |interval: &str| format!("{{ include: ['{}'], start_at: beginning, poll_interval: {interval} }}", path.display());
        let (sink, mut arrived) = mpsc::channel(100);
        write("first");
        let old = Running::start(&config("10ms"), &sink).await;
        arrives(&mut arrived, "first").await;
        // The new one has started and waits for its turn.
        let new = Running::start(&config("20ms"), &sink).await;
        write("second");
        arrives(&mut arrived, "second").await;
        old.stop().await;
        write("third");
        arrives(&mut arrived, "third").await;
        new.stop().await;
        assert!(arrived.try_recv().is_err());
        fs::remove_file(&path).unwrap();
    }
}
