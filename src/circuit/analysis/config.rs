//! The checked settings of what is looked for.

use super::{anomaly::Signal, pressure::Marks};

/// What is looked for in closed buckets and in trips; nothing by whom there is no analyzer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnalysisConfig {
    /// Signals that are unusual.
    pub anomaly: Option<AnomalyConfig>,
    /// Patterns of trips.
    pub pattern: Option<PatternConfig>,
    /// Signals that rise or fall.
    pub trend: Option<TrendConfig>,
    /// What callers use up.
    pub resource: Option<ResourceConfig>,
    /// How circuits are.
    pub health: Option<HealthConfig>,
}

/// How pressure on resources is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResourceConfig {
    /// Calls of one circuit that may be under way at a time, as far as is known.
    pub concurrency_limit: Option<f64>,
    /// When there is pressure.
    pub marks: Marks,
}

impl Default for ResourceConfig {
    fn default() -> Self {
        Self { concurrency_limit: None, marks: Marks { threshold: 2.0, high: 0.8, low: 0.7 } }
    }
}

/// By which rules a circuit is healthy, degraded or unhealthy. Times are in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthConfig {
    /// From this share of instances on whose breaker is open it is unhealthy; below, degraded.
    pub unhealthy_open_instances: f64,
    /// From this share of failures on.
    pub unhealthy_error_ratio: f64,
    /// From this share of refused calls on.
    pub unhealthy_rejection_ratio: f64,
    /// Whether it is unhealthy where nobody calls though that is unusual.
    pub unhealthy_silence: bool,
    /// Signals that degrade it while they are unusual: a bit for each, see [`with_signals`](Self::with_signals).
    pub degraded_signals: u8,
    /// Whether a breaker that is half-open does.
    pub degraded_half_open: bool,
    /// Whether a breaker that opens and closes in turn does.
    pub degraded_flapping: bool,
    /// Whether calls under way that are at their limit do.
    pub degraded_concurrency: bool,
    /// Whether a limit that is reached sooner than this does.
    pub degraded_time_to_limit: u64,
    /// How long nothing must make it unhealthy before it is told to be better.
    pub unhealthy_for: u64,
    /// How long nothing must degrade it.
    pub degraded_for: u64,
}

/// How unusual signals are looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AnomalyConfig {
    threshold: f64,
    /// By which method.
    pub method: Method,
    /// The least change of latency that is told, in nanoseconds.
    pub min_duration_change: u64,
}

/// How a signal is held against what is usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Charts of evidence over baselines that learn while nothing is unusual.
    #[default]
    Evidence,
    /// Value against mean and standard deviation of the window before it.
    ZScore,
}

/// How patterns are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PatternConfig {
    /// How readily.
    pub sensitivity: Sensitivity,
}

/// How readily a pattern is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sensitivity {
    /// Only what chance shows in at most one look of five hundred.
    Low,
    /// What chance shows in at most one look of a hundred, as possible.
    #[default]
    Normal,
}

/// How trends are looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrendConfig {
    window: u64,
    /// Mean latency that must not be reached, in seconds.
    pub duration_limit: Option<f64>,
    /// Share of failures that must not be reached.
    pub error_ratio_limit: Option<f64>,
    /// Calls a second that must not be reached.
    pub request_rate_limit: Option<f64>,
}

const SECOND: u64 = 1_000_000_000;

impl Default for AnomalyConfig {
    fn default() -> Self {
        Self { threshold: 2.0, method: Method::default(), min_duration_change: SECOND / 1_000 }
    }
}

impl AnomalyConfig {
    /// With a threshold in standard deviations: 1 to 6. `None` if it is another.
    pub fn new(threshold: f64, method: Method) -> Option<Self> {
        (1.0..=6.0).contains(&threshold).then(|| Self { threshold, method, ..Self::default() })
    }

    /// With the least change of latency that is told, in nanoseconds.
    pub const fn with_min_duration_change(self, min_duration_change: u64) -> Self {
        Self { min_duration_change, ..self }
    }

    /// Standard deviations of one bucket: the smallest lasting shift worth finding; with [`Method::ZScore`] from which on
    /// a value is unusual.
    pub const fn threshold(&self) -> f64 {
        self.threshold
    }
}

impl Default for TrendConfig {
    fn default() -> Self {
        Self { window: 300 * SECOND, duration_limit: None, error_ratio_limit: None, request_rate_limit: None }
    }
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            unhealthy_open_instances: 0.5,
            unhealthy_error_ratio: 0.5,
            unhealthy_rejection_ratio: 0.5,
            unhealthy_silence: true,
            degraded_signals: 0,
            degraded_half_open: true,
            degraded_flapping: true,
            degraded_concurrency: true,
            degraded_time_to_limit: 300 * SECOND,
            unhealthy_for: 60 * SECOND,
            degraded_for: 30 * SECOND,
        }
        .with_signals(&[Signal::LatencyBody, Signal::LatencyTail, Signal::Errors, Signal::Rejections])
    }
}

impl HealthConfig {
    /// With these signals that degrade a circuit.
    pub fn with_signals(self, signals: &[Signal]) -> Self {
        Self { degraded_signals: signals.iter().fold(0, |all, signal| all | 1 << *signal as u8), ..self }
    }

    /// Whether a circuit is degraded where this signal is unusual.
    pub const fn degrades(&self, signal: Signal) -> bool {
        self.degraded_signals >> signal as u8 & 1 == 1
    }
}

impl TrendConfig {
    /// With a window of so many nanoseconds: three minutes to one hour. `None` if it is another. In a shorter one of the
    /// longest buckets no trend would stand out.
    pub fn new(window: u64) -> Option<Self> {
        (180 * SECOND..=3_600 * SECOND).contains(&window).then_some(Self { window, ..Self::default() })
    }

    /// With limits: of mean latency in seconds, of the share of failures, and of calls a second.
    pub const fn with_limits(self, duration_limit: Option<f64>, error_ratio_limit: Option<f64>, request_rate_limit: Option<f64>) -> Self {
        Self { duration_limit, error_ratio_limit, request_rate_limit, ..self }
    }

    /// The time that trends are looked for in, in nanoseconds.
    pub const fn window(&self) -> u64 {
        self.window
    }
}

impl AnalysisConfig {
    /// Looks for what another looks for, too; `false` where both look for the same thing.
    pub fn join(&mut self, other: &Self) -> bool {
        let clash = self.anomaly.is_some() && other.anomaly.is_some()
            || self.pattern.is_some() && other.pattern.is_some()
            || self.trend.is_some() && other.trend.is_some()
            || self.resource.is_some() && other.resource.is_some()
            || self.health.is_some() && other.health.is_some();
        self.anomaly = self.anomaly.or(other.anomaly);
        self.pattern = self.pattern.or(other.pattern);
        self.trend = self.trend.or(other.trend);
        self.resource = self.resource.or(other.resource);
        self.health = self.health.or(other.health);
        !clash
    }

    /// Whether closed buckets are looked at.
    pub const fn looks_at_buckets(&self) -> bool {
        self.anomaly.is_some() || self.trend.is_some() || self.resource.is_some() || self.health.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mission_s_defaults_hold() {
        assert!((AnomalyConfig::default().threshold() - 2.0).abs() < 1e-9);
        assert_eq!(TrendConfig::default().window() / SECOND, 300);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for threshold in [0.9, 6.1, f64::NAN, f64::INFINITY, -2.0] {
            assert_eq!(AnomalyConfig::new(threshold, Method::Evidence), None);
        }
        assert_eq!(TrendConfig::new(179 * SECOND), None);
        assert_eq!(TrendConfig::new(3_601 * SECOND), None);
        assert!(TrendConfig::new(180 * SECOND).is_some() && AnomalyConfig::new(1.0, Method::ZScore).is_some());
    }
}
