//! `anomaly`: signals of a circuit that are unusual.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::{
    circuit::analysis::config::{AnalysisConfig, AnomalyConfig, Method},
    config::{Span, schema_of},
    otlp::Signal,
    pipeline::{Factory, Faults, Parsed, Role, Section},
};

/// What the user may write.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The smallest lasting shift worth finding, in standard deviations of one bucket: 1 to 6. With `zscore`, from which on a bucket is unusual.
    threshold: f64,
    /// The least change of latency that is told, beside a fifth of the usual: at most 1m. `0` tells all that are a fifth.
    min_duration_change: Span,
    /// `evidence`: sums up how much likelier each bucket is after a shift, over baselines that learn while nothing is unusual. `zscore`: each bucket against mean and standard deviation of the window before it; thousands of false alarms a day.
    method: MethodName,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum MethodName {
    /// Charts of evidence.
    #[default]
    Evidence,
    /// Value against mean and standard deviation.
    ZScore,
}

impl Default for Config {
    fn default() -> Self {
        Self { threshold: AnomalyConfig::default().threshold(), min_duration_change: Span::millis(1), method: MethodName::default() }
    }
}

/// A change of latency that is as long, in nanoseconds, is always told.
const MIN_DURATION_CHANGE_MAX: u64 = 60_000_000_000;

/// What is known of `anomaly` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Analyzers,
    name: "anomaly",
    aliases: &[],
    about: "Says which signals of a circuit are unusual: latency, failures, refused calls, how many calls there are.",
    roles: &[Role { section: Section::Analyzers, signals: &[Signal::Traces] }],
    in_place: true,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let method = match config.method {
        MethodName::Evidence => Method::Evidence,
        MethodName::ZScore => Method::ZScore,
    };
    let mut faults = Faults::default();
    let anomaly =
        AnomalyConfig::new(config.threshold, method).ok_or_else(|| format!("{} is not between 1 and 6 standard deviations", config.threshold));
    let anomaly = faults.note("threshold", anomaly);
    let min_duration_change = config.min_duration_change.nanos();
    if min_duration_change > MIN_DURATION_CHANGE_MAX {
        faults.note::<()>("min_duration_change", Err("must be at most 1m: no change of latency would be told".to_owned()));
    }
    let anomaly = anomaly.map(|anomaly| anomaly.with_min_duration_change(min_duration_change));
    let analysis = faults.unless_any(AnalysisConfig { anomaly, ..AnalysisConfig::default() })?;
    Parsed::looking_for(config, analysis)
}
