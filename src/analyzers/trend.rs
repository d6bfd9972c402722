//! `trend`: signals of a circuit that rise or fall.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::{
    circuit::analysis::config::{AnalysisConfig, TrendConfig},
    config::{Span, schema_of},
    otlp::Signal,
    pipeline::{Factory, Faults, Parsed, Role, Section},
};

/// What the user may write.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The time that a trend is looked for in, 3m to 1h: shorter finds steeper ones sooner.
    window: Span,
    /// What must not be reached: how long that takes is told with a trend.
    limits: Limits,
}

/// What must not be reached.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Limits {
    /// Mean latency.
    duration: Option<Span>,
    /// Share of the calls that fail, above 0 and at most 1.
    error_ratio: Option<f64>,
    /// Calls a second.
    request_rate: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Self { window: Span::secs(300), limits: Limits::default() }
    }
}

/// What is known of `trend` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Analyzers,
    name: "trend",
    aliases: &[],
    about: "Says which signals of a circuit rise or fall, how fast, and how long it takes to a limit.",
    roles: &[Role { section: Section::Analyzers, signals: &[Signal::Traces] }],
    in_place: true,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let mut faults = Faults::default();
    let trend = TrendConfig::new(config.window.nanos()).ok_or_else(|| "must be 3m to 1h".to_owned());
    let trend = faults.note("window", trend);
    let Limits { duration, error_ratio, request_rate } = &config.limits;
    let mut limit = |key: &str, limit: Option<f64>, most: f64, what: &str| {
        let fits = limit.is_none_or(|limit| limit > 0.0 && limit <= most);
        faults.note(key, if fits { Ok(limit) } else { Err(what.to_owned()) }).flatten()
    };
    let duration_limit = limit("limits.duration", duration.map(|limit| limit.nanos() as f64 / 1e9), 3_600.0, "must be more than 0 and at most 1h");
    let error_ratio_limit = limit("limits.error_ratio", *error_ratio, 1.0, "must be more than 0 and at most 1");
    let request_rate_limit = limit("limits.request_rate", *request_rate, 1e9, "must be more than 0 and at most 1000000000");
    let trend = trend.map(|trend| trend.with_limits(duration_limit, error_ratio_limit, request_rate_limit));
    let analysis = faults.unless_any(AnalysisConfig { trend, ..AnalysisConfig::default() })?;
    Parsed::looking_for(config, analysis)
}
