//! `debug`: writes what it is given to the standard output, for people.

mod render;

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use super::sending::{Failure, RetryOnFailure, Sender, Sending, SendingQueue, Sent};
use crate::{
    config::schema_of,
    otlp::Signal,
    pipeline::{Admission, Admit, Consumer, Discard, Exporter, Factory, Faults, Future, Instance, Lifecycle, Parsed, Payload, Role, Section},
};

/// How long a request may take to be written. While one takes longer, nobody reads, and nothing else is printed.
const PATIENCE: Duration = Duration::from_secs(1);

/// How much is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verbosity {
    /// One line a request.
    #[default]
    Basic,
    /// One line a span, data point or log record.
    Normal,
    /// Everything.
    Detailed,
}

/// What the user may write.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// `basic`, `normal` or `detailed`.
    verbosity: Verbosity,
}

/// What is known of `debug` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Exporters,
    name: "debug",
    aliases: &[],
    about: "Writes telemetry to the standard output, for people.",
    roles: &[Role { section: Section::Exporters, signals: &Signal::ALL }],
    in_place: false,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let parsed = Parsed::new(Parsed::read::<Config>(value)?, |config, setup| {
        let queue = SendingQueue { num_consumers: 1, ..SendingQueue::default() };
        let retry = RetryOnFailure { enabled: false, ..RetryOnFailure::default() };
        let sender = ToStdout { verbosity: config.verbosity, writing: Arc::default() };
        let sending = Sending::new(setup, queue, retry, sender);
        Ok(Instance::Exporter(Arc::new(BestEffort { id: setup.id.clone(), sending, ended: AtomicBool::new(false) })))
    })?;
    Ok(Parsed { shares_queue_room: true, ..parsed })
}

/// Prints what there is time for, and refuses nothing: a terminal that is not read must cost no other exporter its data.
struct BestEffort {
    id: String,
    sending: Sending<ToStdout>,
    ended: AtomicBool,
}

impl Consumer for BestEffort {
    fn admit<'a>(&'a self, payload: &'a Payload) -> Admit<'a> {
        Box::pin(async move {
            match self.sending.admit(payload).await {
                // Counted as not queued already.
                Err(_) if !self.ended.load(Ordering::Relaxed) => {
                    tracing::warn!(exporter = self.id, "not printed: the standard output is read too slowly");
                    Ok(Box::new(Discard) as Box<dyn Admission>)
                }
                admitted => admitted,
            }
        })
    }
}

impl Exporter for BestEffort {
    fn start(&self) -> Future<'_, Result<(), String>> {
        self.sending.start()
    }

    fn hand_over(&self, heir: Arc<dyn Exporter>, within: Duration) -> Future<'_, ()> {
        self.sending.hand_over(heir, within)
    }

    fn inherit(&self, unsent: Vec<Payload>) {
        self.sending.inherit(unsent);
    }
}

impl Lifecycle for BestEffort {
    fn shutdown(&self, within: Duration) -> Future<'_, ()> {
        self.ended.store(true, Ordering::Relaxed);
        self.sending.shutdown(within)
    }
}

struct ToStdout {
    verbosity: Verbosity,
    /// Held while something is written, however long that takes.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl Sender for ToStdout {
    fn send<'a>(&'a self, batch: &'a Payload) -> Future<'a, Result<Sent, Failure>> {
        Box::pin(async move {
            let unread = || Failure::Permanent(format!("nobody has read the standard output for {PATIENCE:?} or more"));
            let writing = Arc::clone(&self.writing).try_lock_owned().map_err(|_held| unread())?;
            let (signal, request, verbosity) = (batch.signal, batch.joined(), self.verbosity);
            let written = tokio::task::spawn_blocking(move || {
                let _writing = writing;
                let text = render::render(signal, &request, verbosity)?;
                let mut out = io::stdout().lock();
                let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                written.map_err(|error| format!("can't write to the standard output: {error}"))
            });
            match tokio::time::timeout(PATIENCE, written).await {
                Ok(Ok(Ok(()))) => Ok(Sent::default()),
                Ok(Ok(Err(reason))) => Err(Failure::Permanent(reason)),
                Ok(Err(error)) => Err(Failure::Permanent(error.to_string())),
                Err(_elapsed) => Err(unread()),
            }
        })
    }
}
