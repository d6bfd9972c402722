//! `resource`: what callers use up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::{
    circuit::analysis::{
        config::{AnalysisConfig, AnomalyConfig, Method, ResourceConfig},
        pressure::Marks,
    },
    config::schema_of,
    otlp::Signal,
    pipeline::{Factory, Faults, Parsed, Role, Section},
};

/// What the user may write.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Calls of one circuit that may be under way at a time: the size of a connection pool or a bulkhead. Without it there is only the baseline.
    concurrency_limit: Option<f64>,
    /// Standard deviations above the rolling baseline worth finding: 1 to 6.
    threshold: f64,
    /// Share of the limit from which on there is pressure: for 10 s of 15, and in two looks at least.
    high: f64,
    /// Share of the limit below which there is none any more: for 30 s in a row, and in two looks at least.
    low: f64,
}

impl Default for Config {
    fn default() -> Self {
        let ResourceConfig { concurrency_limit, marks: Marks { threshold, high, low } } = ResourceConfig::default();
        Self { concurrency_limit, threshold, high, low }
    }
}

/// What is known of `resource` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Analyzers,
    name: "resource",
    aliases: &[],
    about: "Says what callers use up more of than usual, or almost all: calls under way, and CPU and memory where a metrics pipeline brings them.",
    roles: &[Role { section: Section::Analyzers, signals: &[Signal::Traces] }],
    in_place: true,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let Config { concurrency_limit, threshold, high, low } = config;
    let mut faults = Faults::default();
    let mut must = |key: &str, holds: bool, what: &str| {
        if !holds {
            faults.note::<()>(key, Err(what.to_owned()));
        }
    };
    must("concurrency_limit", concurrency_limit.is_none_or(|limit| limit > 0.0 && limit <= 1e9), "must be more than 0 and at most 1000000000");
    must("threshold", AnomalyConfig::new(threshold, Method::default()).is_some(), "must be 1 to 6 standard deviations");
    must("high", high > 0.0 && high <= 1.0, "must be more than 0 and at most 1");
    must("low", low > 0.0 && low <= high, &format!("{low} must be more than 0 and at most `high`, which is {high}"));
    let resource = ResourceConfig { concurrency_limit, marks: Marks { threshold, high, low } };
    let analysis = faults.unless_any(AnalysisConfig { resource: Some(resource), ..AnalysisConfig::default() })?;
    Parsed::looking_for(config, analysis)
}
