//! `debug`: writes what it is given to the standard output, for people.

mod render;

use std::{
    io::{self, Write},
    sync::Arc,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use super::sending::{Failure, RetryOnFailure, Sender, Sending, SendingQueue, Sent};
use crate::{
    config::schema_of,
    otlp::Signal,
    pipeline::{Factory, Faults, Future, Instance, Parsed, Payload, Role, Section},
};

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
        let sender = ToStdout { verbosity: config.verbosity };
        Ok(Instance::Exporter(Arc::new(Sending::new(setup, queue, retry, sender))))
    })?;
    Ok(Parsed { shares_queue_room: true, ..parsed })
}

struct ToStdout {
    verbosity: Verbosity,
}

impl Sender for ToStdout {
    fn send<'a>(&'a self, batch: &'a Payload) -> Future<'a, Result<Sent, Failure>> {
        Box::pin(async move {
            let (signal, request, verbosity) = (batch.signal, batch.joined(), self.verbosity);
            let written = tokio::task::spawn_blocking(move || {
                let text = render::render(signal, &request, verbosity)?;
                let mut out = io::stdout().lock();
                let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                written.map_err(|error| format!("can't write to the standard output: {error}"))
            });
            match written.await {
                Ok(Ok(())) => Ok(Sent::default()),
                Ok(Err(reason)) => Err(Failure::Permanent(reason)),
                Err(error) => Err(Failure::Permanent(error.to_string())),
            }
        })
    }
}
