//! `otlp_file`: reads what the Collector's `file` exporter, or ours, wrote, and follows it as it grows.

mod follow;
mod requests;

use std::{path::Path, sync::Arc, time::Duration};

use glob::Pattern;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;
use tokio::{runtime::Handle, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::follow::{After, Files, Found, Progress};
pub use self::requests::{Content, Next, Request, Requests};
use crate::{
    config::{Size, Span, schema_of},
    net::Limits,
    otlp::Signal,
    pipeline::{Factory, Future, Instance, Intake, Lifecycle, Outlets, Parsed, Receiver, Refusal, Rejection, Role, Section, Setup},
};

/// What is known of `otlp_file` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Receivers,
    name: "otlp_file",
    aliases: &["otlpjsonfile", "otlp_json_file"],
    about: "Reads files of OTLP (JSON lines or length-prefixed records; plain, gzip or zstd) and follows them as they grow.",
    roles: &[Role { section: Section::Receivers, signals: &Signal::ALL }],
    in_place: false,
    schema: schema_of::<Config>,
    parse,
};

/// What the user may write.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Patterns of the files to read (`*`, `?`, `[…]`, `**`).
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

fn parse(value: Value) -> Result<Parsed, String> {
    let config: Config = serde_yaml::from_value(value).map_err(|error| error.to_string())?;
    let files = config.check()?;
    Ok(Parsed {
        effective: serde_json::to_value(&config).map_err(|error| error.to_string())?,
        warnings: Vec::new(),
        listens_on: Vec::new(),
        sends_to: Vec::new(),
        build: Box::new(move |setup| {
            let setup = setup.clone();
            Ok(Instance::Receiver(Arc::new(OtlpFile { config, files, setup, stop: CancellationToken::new(), reading: Mutex::default() })))
        }),
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
            // Files are read by a thread of their own, which waits while nobody takes what it read.
            self.reading.lock().spawn_blocking(move || {
                let mut progress = Progress::default();
                if from_end {
                    files.skip_to_end(&mut progress);
                }
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

impl Offering {
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
