//! `anomaly`: signals of a circuit that are unusual.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::{
    circuit::analysis::config::{AnalysisConfig, AnomalyConfig, Method},
    config::schema_of,
    otlp::Signal,
    pipeline::{Factory, Faults, Parsed, Role, Section},
};

/// What the user may write.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// The smallest lasting shift worth finding, in standard deviations of one bucket: 1 to 6. With `zscore`, from which on a bucket is unusual.
    threshold: f64,
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
        Self { threshold: AnomalyConfig::default().threshold(), method: MethodName::default() }
    }
}

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
    let analysis = faults.unless_any(AnalysisConfig { anomaly, ..AnalysisConfig::default() })?;
    Parsed::looking_for(config, analysis)
}
