//! `file`: writes OTLP to a file that `otlp_file`, and the Collector, can read again.

mod disk;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use opentelemetry::{KeyValue, metrics::Counter};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use self::disk::{Target, Written};
use super::sending::{Failure, RetryOnFailure, Sender, Sending, SendingQueue, Sent};
use crate::{
    config::{Span, schema_of},
    net::Encoding,
    otlp::{Signal, json},
    pipeline::{Factory, Faults, Future, Instance, Parsed, Payload, Role, Section, Setup},
};

/// How requests are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// One line of OTLP/JSON a request.
    #[default]
    Json,
    /// A length (4 bytes, big endian), then the request in protobuf.
    Proto,
}

/// What the user may write.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The file.
    path: PathBuf,
    /// `json` or `proto`.
    format: Format,
    /// `none`, `gzip` or `zstd`; each request is then compressed and has its length (4 bytes, big endian) before it.
    compression: Encoding,
    /// Add to a file that is there; else it is emptied when the first request after the start is written.
    append: bool,
    /// Make the directories that the path goes through.
    create_directory: bool,
    /// Begin a new file when this one grows too large. Off unless written.
    rotation: Option<Rotation>,
}

/// When to begin a new file, and how many old ones to keep.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Rotation {
    /// The size, in MB, at which a new file begins.
    #[schemars(range(min = 1))]
    max_megabytes: u64,
    /// Old files that are kept, as `path.1` (the newest) and so on.
    #[schemars(range(min = 1, max = 10000))]
    max_backups: usize,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_megabytes: 100, max_backups: 100 }
    }
}

/// What is known of `file` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Exporters,
    name: "file",
    aliases: &[],
    about: "Writes OTLP to a file, as JSON lines or length-prefixed protobuf.",
    roles: &[Role { section: Section::Exporters, signals: &Signal::ALL }],
    in_place: false,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let mut faults = Faults::default();
    if config.path.as_os_str().is_empty() {
        faults.note::<()>("path", Err("is missing: write the file to write to".to_owned()));
    }
    faults.unless_any(())?;
    let parsed = Parsed::new(config, |config, setup| {
        let queue = SendingQueue { num_consumers: 1, ..SendingQueue::default() };
        // A disk that is full today has room tomorrow: nothing is given up, the queue fills and then refuses.
        let retry = RetryOnFailure { initial_interval: Span::secs(1), max_elapsed_time: Span::secs(0), ..RetryOnFailure::default() };
        let reopened = Reopened::new(setup);
        Ok(Instance::Exporter(Arc::new(Sending::new(setup, queue, retry, ToFile::new(config, reopened)))))
    })?;
    Ok(Parsed { shares_queue_room: true, ..parsed })
}

struct ToFile {
    config: Arc<Config>,
    target: Arc<Target>,
    reopened: Arc<Reopened>,
}

/// Counts, and tells, how often the file had to be opened anew since it was moved away or deleted.
struct Reopened {
    exporter: [KeyValue; 1],
    times: Counter<u64>,
}

impl Reopened {
    fn new(setup: &Setup) -> Self {
        let exporter = [KeyValue::new("exporter", setup.id.clone())];
        Self { exporter, times: setup.meter.u64_counter("fuseboard_exporter_files_reopened").build() }
    }

    fn note(&self, path: &Path) {
        self.times.add(1, &self.exporter);
        let [exporter] = &self.exporter;
        tracing::info!(exporter = %exporter.value, path = %path.display(), "the file was moved away or deleted; a new one was begun");
    }
}

impl ToFile {
    fn new(config: Config, reopened: Reopened) -> Self {
        let config = Arc::new(config);
        Self { target: Arc::new(Target::new(Arc::clone(&config))), config, reopened: Arc::new(reopened) }
    }
}

impl Sender for ToFile {
    fn start(&self) -> Future<'_, Result<(), String>> {
        Box::pin(async move {
            let target = Arc::clone(&self.target);
            let opened = tokio::task::spawn_blocking(move || target.open()).await.map_err(|error| error.to_string())?;
            opened.map_err(|error| format!("can't write to {}: {error}", self.config.path.display()))
        })
    }

    fn send<'a>(&'a self, batch: &'a Payload) -> Future<'a, Result<Sent, Failure>> {
        Box::pin(async move {
            let (config, target, batch) = (Arc::clone(&self.config), Arc::clone(&self.target), batch.clone());
            let reopened = Arc::clone(&self.reopened);
            // Encoding takes the processor for as long as writing takes the disk: neither may hold up the runtime.
            let written = tokio::task::spawn_blocking(move || {
                let record = config.record(&batch).map_err(Failure::Permanent)?;
                let written = target.write(&record);
                let written = written
                    .map_err(|error| Failure::Retryable { reason: format!("can't write to {}: {error}", config.path.display()), after: None })?;
                if written == Written::ToNewFile {
                    reopened.note(&config.path);
                }
                Ok::<_, Failure>(())
            });
            match written.await {
                Ok(written) => written.map(|()| Sent::default()),
                Err(error) => Err(Failure::Permanent(error.to_string())),
            }
        })
    }
}

impl Config {
    /// A request as it stands in the file.
    fn record(&self, batch: &Payload) -> Result<Vec<u8>, String> {
        let joined = batch.joined();
        let mut body = match self.format {
            Format::Proto => joined,
            Format::Json => json::from_protobuf(batch.signal, &joined).map_err(|error| error.to_string())?.into(),
        };
        body = self.compression.deflate(body).map_err(|error| error.to_string())?;
        if self.format == Format::Json && self.compression == Encoding::None {
            return Ok([&body[..], b"\n"].concat());
        }
        let length = u32::try_from(body.len()).map_err(|_too_long| "a request of more than 4 GiB has no place in the file".to_owned())?;
        Ok([&length.to_be_bytes()[..], &body].concat())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use opentelemetry::metrics::{MeterProvider, noop::NoopMeterProvider};

    use super::*;
    use crate::pipeline::Part;

    fn to_file(config: Config) -> ToFile {
        let times = NoopMeterProvider::new().meter("test").u64_counter("test").build();
        ToFile::new(config, Reopened { exporter: [KeyValue::new("exporter", "file")], times })
    }

    fn payload(request: &'static [u8]) -> Payload {
        Payload::new(Signal::Traces, Part::new(Bytes::from_static(request), 1))
    }

    #[tokio::test]
    async fn a_path_that_leads_nowhere_is_told_at_the_start() {
        let path = std::env::temp_dir().join("fuseboard-no-such-directory").join("spans.jsonl");
        let reason = to_file(Config { path: path.clone(), ..Config::default() }).start().await.unwrap_err();
        assert!(reason.contains(path.to_str().unwrap()), "{reason}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_full_disk_is_waited_for_and_a_broken_request_is_not() {
        let sender = to_file(Config { path: "/dev/full".into(), ..Config::default() });
        sender.start().await.unwrap();
        let full = sender.send(&payload(b"")).await.unwrap_err();
        assert!(matches!(&full, Failure::Retryable { reason, .. } if reason.contains("/dev/full")), "{full:?}");
        let broken = sender.send(&payload(b"\xff")).await.unwrap_err();
        assert!(matches!(broken, Failure::Permanent(_)), "{broken:?}");
    }
}
