use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Span;

/// What Fuseboard tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Logs, on the standard error output.
    pub(super) logs: Logs,
    /// Metrics.
    pub(super) metrics: Metrics,
    /// Traces of a few of the requests that pass.
    pub(super) traces: Traces,
    /// Resource attributes of own telemetry, beside `service.name`, `service.version` and `service.instance.id`.
    pub(super) resource: BTreeMap<String, String>,
}

impl Telemetry {
    /// Endpoints that own telemetry goes to.
    pub fn sends_to(&self) -> impl Iterator<Item = &str> {
        let metrics = self.metrics.readers.iter().map(|reader| reader.periodic.exporter.otlp.endpoint.as_str());
        metrics.chain(self.traces.processors.iter().map(|processor| processor.batch.exporter.otlp.endpoint.as_str()))
    }

    /// Whether own metrics go anywhere.
    pub fn has_metrics(&self) -> bool {
        !self.metrics.readers.is_empty()
    }
}

/// Whether own telemetry can be sent to an endpoint.
///
/// # Errors
/// For people: why not.
pub fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("endpoint `{endpoint}` {why}; write such as http://localhost:4317"));
    let Ok(uri) = endpoint.parse::<http::Uri>() else { return wrong("is no URL") };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return wrong("holds a user name, and own telemetry is sent without credentials");
    }
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(()),
        _ => wrong("must be a URL with http or https and a host"),
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
#[schemars(extend("x-instead" = {
    "address": "there is no page to scrape; `readers` says where own metrics are sent, by OTLP: [{ periodic: { exporter: { otlp: { endpoint: 'http://localhost:4317' } } } }]",
    "level": "there is one level of own metrics, and `readers` says where they are sent",
}))]
pub(super) struct Metrics {
    /// Where they go; nowhere unless written.
    pub(super) readers: Vec<Reader>,
}

/// Own traces: one span where a request comes in, one where a batch goes out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Traces {
    /// Where they go; nowhere unless written.
    pub(super) processors: Vec<SpanProcessor>,
    /// Which are kept.
    pub(super) sampler: Sampler,
}

/// One place that own traces go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SpanProcessor {
    /// Sends several at a time.
    pub(super) batch: BatchSpans,
}

/// Sends several at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchSpans {
    /// Where to.
    pub(super) exporter: Exporter,
}

/// Which traces are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sampler {
    /// A share of all.
    pub(super) trace_id_ratio_based: Ratio,
}

/// A share of all traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ratio {
    /// From 0 (none) to 1 (all).
    #[schemars(range(min = 0, max = 1))]
    pub(super) ratio: f64,
}

impl Default for Ratio {
    fn default() -> Self {
        Self { ratio: 0.01 }
    }
}

/// One place that own metrics go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-instead" = { "pull": "there is no page to scrape; `periodic` sends own metrics, by OTLP" }))]
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

/// OTLP over gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Otlp {
    /// The only protocol there is here.
    #[serde(default)]
    pub(super) protocol: Protocol,
    /// URL of the backend, such as `http://localhost:4317`; `https://` trusts the system's certificates.
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
