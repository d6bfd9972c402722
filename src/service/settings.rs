use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{config::Span, telemetry::Telemetry};

/// The section `service`: what runs, and how Fuseboard tells of itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    /// Extensions that run.
    pub(super) extensions: Vec<String>,
    /// Pipelines by id: a signal (`traces`, `metrics`, `logs`), perhaps with a name behind it (`traces/edge`).
    pub(super) pipelines: BTreeMap<String, Pipeline>,
    /// What Fuseboard tells of itself.
    pub(super) telemetry: Telemetry,
    /// The longest a stop may take; what could not be sent by then is counted and logged.
    pub(super) shutdown_timeout: Span,
}

impl Default for Settings {
    fn default() -> Self {
        Self { extensions: Vec::new(), pipelines: BTreeMap::new(), telemetry: Telemetry::default(), shutdown_timeout: Span::secs(10) }
    }
}

/// One way from receivers to exporters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Pipeline {
    /// Where telemetry comes from; at least one.
    pub(super) receivers: Vec<String>,
    /// What works on it, in this order.
    pub(super) processors: Vec<String>,
    /// What looks at the windows of `circuit_window`, which must be among the processors.
    pub(super) analyzers: Vec<String>,
    /// Where it goes; at least one. Everything goes to all of them.
    pub(super) exporters: Vec<String>,
}
