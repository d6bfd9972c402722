//! `pattern`: when a circuit trips.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::{
    circuit::analysis::config::{AnalysisConfig, PatternConfig, Sensitivity},
    config::schema_of,
    otlp::Signal,
    pipeline::{Factory, Faults, Parsed, Role, Section},
};

/// What the user may write.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// `normal` tells of what chance shows in at most one look of a hundred, as possible, and of what it shows in at most one of five hundred, as certain; `low` only of the latter.
    sensitivity: SensitivityName,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum SensitivityName {
    /// One look of five hundred.
    Low,
    /// One look of a hundred.
    #[default]
    Normal,
}

/// What is known of `pattern` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Analyzers,
    name: "pattern",
    aliases: &[],
    about: "Says when a circuit trips: at even intervals, by the clock, in bursts, or open and closed in turn.",
    roles: &[Role { section: Section::Analyzers, signals: &[Signal::Traces] }],
    in_place: true,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let sensitivity = match config.sensitivity {
        SensitivityName::Low => Sensitivity::Low,
        SensitivityName::Normal => Sensitivity::Normal,
    };
    Parsed::looking_for(config, AnalysisConfig { pattern: Some(PatternConfig { sensitivity }), ..AnalysisConfig::default() })
}
