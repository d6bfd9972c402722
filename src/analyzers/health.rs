//! `health`: whether a circuit does what it is there for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;

use crate::{
    circuit::analysis::{
        anomaly,
        config::{AnalysisConfig, HealthConfig},
    },
    config::{Span, schema_of},
    otlp::Signal,
    pipeline::{Factory, Faults, Parsed, Role, Section},
};

/// What the user may write.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// What makes a circuit unhealthy.
    unhealthy: Unhealthy,
    /// What degrades it.
    degraded: Degraded,
    /// How long no reason must hold before it is told to be better, one step at a time.
    recovery: Recovery,
}

/// What makes a circuit unhealthy.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Unhealthy {
    /// Share of its instances whose breaker is open; fewer degrade it.
    open_instances: f64,
    /// Share of calls that fail: of the last ten seconds, where that is unusual (`anomaly`) or there are 20; or of a minute.
    error_ratio: f64,
    /// Share of calls that are refused, in the same way.
    rejection_ratio: f64,
    /// Nobody calls, though the callers go on and it is unusual (`anomaly`).
    silence: bool,
}

/// What degrades a circuit.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Degraded {
    /// Signals that are unusual (`anomaly`).
    signals: Vec<SignalName>,
    /// Its breaker is half-open in some instance.
    half_open: bool,
    /// Its breaker opens and closes in turn (`pattern`).
    flapping: bool,
    /// Calls under way are at their limit (`resource`).
    concurrency: bool,
    /// A limit will be reached sooner than this (`trend`).
    time_to_limit: Span,
}

/// How long no reason must hold.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Recovery {
    /// From unhealthy to degraded.
    unhealthy: Span,
    /// From degraded to healthy.
    degraded: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum SignalName {
    /// Latency of most calls.
    Duration,
    /// Latency of the slowest.
    DurationTail,
    /// The share of calls that fail.
    ErrorRatio,
    /// The share of calls that are refused.
    RejectionRatio,
    /// More calls than usual, or fewer.
    RequestRate,
}

impl Default for Unhealthy {
    fn default() -> Self {
        let rules = HealthConfig::default();
        Self {
            open_instances: rules.unhealthy_open_instances,
            error_ratio: rules.unhealthy_error_ratio,
            rejection_ratio: rules.unhealthy_rejection_ratio,
            silence: rules.unhealthy_silence,
        }
    }
}

impl Default for Degraded {
    fn default() -> Self {
        let signals = vec![SignalName::Duration, SignalName::DurationTail, SignalName::ErrorRatio, SignalName::RejectionRatio];
        let rules = HealthConfig::default();
        Self {
            signals,
            half_open: rules.degraded_half_open,
            flapping: rules.degraded_flapping,
            concurrency: rules.degraded_concurrency,
            time_to_limit: Span::secs(300),
        }
    }
}

impl Default for Recovery {
    fn default() -> Self {
        Self { unhealthy: Span::secs(60), degraded: Span::secs(30) }
    }
}

/// What is known of `health` before one is built.
pub const FACTORY: Factory = Factory {
    section: Section::Analyzers,
    name: "health",
    aliases: &[],
    about: "Says whether a circuit is healthy, degraded or unhealthy, and why: from breakers and what other analyzers find.",
    roles: &[Role { section: Section::Analyzers, signals: &[Signal::Traces] }],
    in_place: true,
    schema: schema_of::<Config>,
    parse,
};

fn parse(value: Value) -> Result<Parsed, Faults> {
    let config: Config = Parsed::read(value)?;
    let mut faults = Faults::default();
    let Unhealthy { open_instances, error_ratio, rejection_ratio, silence } = config.unhealthy;
    for (key, share) in [("open_instances", open_instances), ("error_ratio", error_ratio), ("rejection_ratio", rejection_ratio)] {
        if !(share > 0.0 && share <= 1.0) {
            faults.note::<()>(&format!("unhealthy.{key}"), Err("must be more than 0 and at most 1".to_owned()));
        }
    }
    if config.degraded.time_to_limit.nanos() > 20 * 60 * 1_000_000_000 {
        faults.note::<()>("degraded.time_to_limit", Err("must be at most 20m: a trend tells of nothing later".to_owned()));
    }
    let signals: Vec<anomaly::Signal> = config.degraded.signals.iter().flat_map(|signal| signals(*signal)).copied().collect();
    let rules = HealthConfig {
        unhealthy_open_instances: open_instances,
        unhealthy_error_ratio: error_ratio,
        unhealthy_rejection_ratio: rejection_ratio,
        unhealthy_silence: silence,
        degraded_half_open: config.degraded.half_open,
        degraded_flapping: config.degraded.flapping,
        degraded_concurrency: config.degraded.concurrency,
        degraded_time_to_limit: config.degraded.time_to_limit.nanos(),
        unhealthy_for: config.recovery.unhealthy.nanos(),
        degraded_for: config.recovery.degraded.nanos(),
        ..HealthConfig::default()
    };
    let analysis = faults.unless_any(AnalysisConfig { health: Some(rules.with_signals(&signals)), ..AnalysisConfig::default() })?;
    Parsed::looking_for(config, analysis)
}

const fn signals(name: SignalName) -> &'static [anomaly::Signal] {
    match name {
        SignalName::Duration => &[anomaly::Signal::LatencyBody],
        SignalName::DurationTail => &[anomaly::Signal::LatencyTail],
        SignalName::ErrorRatio => &[anomaly::Signal::Errors],
        SignalName::RejectionRatio => &[anomaly::Signal::Rejections],
        SignalName::RequestRate => &[anomaly::Signal::RateUp, anomaly::Signal::RateDown],
    }
}
