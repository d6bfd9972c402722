//! `file`: writes OTLP to a file that `otlp_file`, and the Collector, can read again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use super::sending::{Failure, RetryOnFailure, Sender, Sending, SendingQueue, Sent};
use crate::{
    config::schema_of,
    net::Encoding,
    otlp::{Signal, json},
    pipeline::{Factory, Future, Instance, Parsed, Payload, Role, Section},
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
    /// Add to a file that is there; else it is begun anew at the start.
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

fn parse(value: Value) -> Result<Parsed, String> {
    let config: Config = serde_yaml::from_value(value).map_err(|error| error.to_string())?;
    if config.path.as_os_str().is_empty() {
        return Err("`path` is missing: write the file to write to".to_owned());
    }
    Ok(Parsed {
        effective: serde_json::to_value(&config).map_err(|error| error.to_string())?,
        warnings: Vec::new(),
        listens_on: Vec::new(),
        sends_to: Vec::new(),
        build: Box::new(move |setup| {
            let queue = SendingQueue { num_consumers: 1, ..SendingQueue::default() };
            let retry = RetryOnFailure { enabled: false, ..RetryOnFailure::default() };
            let sender = ToFile { config: Arc::new(config), open: Arc::default() };
            Ok(Instance::Exporter(Arc::new(Sending::new(&setup.id, &setup.meter, queue, retry, sender))))
        }),
    })
}

struct ToFile {
    config: Arc<Config>,
    open: Arc<Mutex<Option<Open>>>,
}

struct Open {
    file: File,
    bytes: u64,
}

impl Sender for ToFile {
    fn send<'a>(&'a self, batch: &'a Payload) -> Future<'a, Result<Sent, Failure>> {
        Box::pin(async move {
            let record = self.config.record(batch).map_err(Failure::Permanent)?;
            let (config, open) = (Arc::clone(&self.config), Arc::clone(&self.open));
            let written = tokio::task::spawn_blocking(move || config.write(&mut open.lock(), &record)).await;
            match written {
                Ok(Ok(())) => Ok(Sent::default()),
                Ok(Err(error)) => Err(Failure::Permanent(format!("can't write to {}: {error}", self.config.path.display()))),
                Err(error) => Err(Failure::Permanent(error.to_string())),
            }
        })
    }
}

impl Config {
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

    fn write(&self, open: &mut Option<Open>, record: &[u8]) -> io::Result<()> {
        if let (Some(rotation), Some(current)) = (&self.rotation, &*open)
            && current.bytes + record.len() as u64 > rotation.max_megabytes * 1_000_000
        {
            *open = None;
            rotate(&self.path, rotation.max_backups)?;
        }
        let current = match open {
            Some(current) => current,
            None => open.insert(self.open()?),
        };
        current.file.write_all(record)?;
        current.bytes += record.len() as u64;
        Ok(())
    }

    fn open(&self) -> io::Result<Open> {
        if let (true, Some(directory)) = (self.create_directory, self.path.parent()) {
            fs::create_dir_all(directory)?;
        }
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        let file = options.open(&self.path)?;
        if !self.append {
            file.set_len(0)?;
        }
        let bytes = file.metadata()?.len();
        Ok(Open { file, bytes })
    }
}

/// `path` becomes `path.1`, `path.1` becomes `path.2`, and the last one goes.
fn rotate(path: &Path, backups: usize) -> io::Result<()> {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    for number in (1..backups).rev() {
        match fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(1))
}
