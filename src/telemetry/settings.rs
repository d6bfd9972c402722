use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Span;

/// What Fuseboard tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Logs, on the standard error output.
    pub(super) logs: Logs,
    /// Metrics.
    pub(super) metrics: Metrics,
    /// Resource attributes of own metrics, beside `service.name` and `service.version`.
    pub(super) resource: BTreeMap<String, String>,
}

impl Telemetry {
    /// Endpoints that own telemetry goes to.
    pub fn sends_to(&self) -> impl Iterator<Item = &str> {
        self.metrics.readers.iter().map(|reader| reader.periodic.exporter.otlp.endpoint.as_str())
    }
}

/// Own logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Logs {
    /// The least severity that is written.
    pub(super) level: Level,
    /// `console` for people, `json` for machines.
    pub(super) encoding: Encoding,
}

/// Severities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Everything, refused requests and broken connections included.
    Debug,
    /// What an operator wants to know.
    #[default]
    Info,
    /// What may need a look.
    Warn,
    /// What is lost or broken.
    Error,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Encoding {
    /// One line each, for people.
    #[default]
    Console,
    /// One JSON object a line.
    Json,
}

/// Own metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Metrics {
    /// Where they go; nowhere unless written.
    pub(super) readers: Vec<Reader>,
}

/// One place that own metrics go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reader {
    /// Sends at an interval.
    pub(super) periodic: Periodic,
}

/// Sends at an interval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Periodic {
    /// How often.
    #[serde(default = "a_minute")]
    pub(super) interval: Span,
    /// Where to.
    pub(super) exporter: Exporter,
}

const fn a_minute() -> Span {
    Span::secs(60)
}

/// How it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Exporter {
    /// OTLP.
    pub(super) otlp: Otlp,
}

/// OTLP over gRPC, in plain text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Otlp {
    /// The only protocol there is here.
    #[serde(default)]
    pub(super) protocol: Protocol,
    /// URL of the backend, such as `http://localhost:4317`.
    pub(super) endpoint: String,
}

/// Protocols of own telemetry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    /// OTLP/gRPC.
    #[default]
    Grpc,
}
