//! The checked settings of windowing and analysis.

use std::sync::Arc;

use super::{
    analysis::config::AnalysisConfig,
    detect::{inferred::InferredRule, library},
};

/// The checked settings of windowing and analysis. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct CircuitMetricsConfig {
    window_size: u64,
    bucket_size: u64,
    /// Known, since a division for every span would be dear.
    buckets: u64,
    percentiles: Vec<f64>,
    /// How long after its end a span may come and still be on time.
    pub allowed_lateness: u64,
    /// How far out of order the spans of one instance may end.
    pub reorder: u64,
    /// How far in the future a span may end.
    pub max_clock_skew: u64,
    /// An instance without a span for so long is removed.
    pub instance_ttl: u64,
    /// A circuit without a span for so long ends.
    pub circuit_ttl: u64,
    /// Circuits over all shards.
    pub max_circuits: usize,
    /// Instances of one circuit.
    pub max_instances: usize,
    /// Upper bounds, in nanoseconds, of the exported histogram's buckets; exponential ones if there are none.
    pub explicit_bounds: Vec<u64>,
    /// Whether what was exported is forgotten (delta temporality).
    pub delta: bool,
    /// How breakers are found that say nothing of themselves.
    pub detection: Detection,
    /// What analyzers look for.
    pub analysis: AnalysisConfig,
}

/// How breakers are found that say nothing of themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Of each rule, by index: whose text it is.
    pub libraries: Arc<[Arc<str>]>,
    /// Whether anything is looked for: texts or missing calls. Callees are named only then.
    pub enabled: bool,
    /// Whether missing calls tell anything.
    pub silence: bool,
    /// The breaker of our own that is run where there is none; `None` if it is not run.
    pub inferred: Option<InferredRule>,
}

impl Default for Detection {
    fn default() -> Self {
        Self { libraries: library::names(), enabled: true, silence: true, inferred: Some(InferredRule::default()) }
    }
}

/// Why settings make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Buckets are of 1, 2, 5 or 10 seconds.
    #[error("must be 1s, 2s, 5s or 10s")]
    BucketSize,
    /// A window holds a whole number of buckets.
    #[error("must be a multiple of `bucket_size`, at least 10 buckets and at most 1h")]
    WindowSize,
    /// A percentile is a number between 0 and 100.
    #[error("must be between 0 and 100, without both ends, and at most 16")]
    Percentiles,
}

const SECOND: u64 = 1_000_000_000;

impl Default for CircuitMetricsConfig {
    fn default() -> Self {
        Self {
            window_size: 60 * SECOND,
            bucket_size: SECOND,
            buckets: 60,
            percentiles: vec![50.0, 90.0, 95.0, 99.0],
            allowed_lateness: 15 * SECOND,
            reorder: SECOND,
            max_clock_skew: 10 * SECOND,
            instance_ttl: 300 * SECOND,
            circuit_ttl: 3600 * SECOND,
            max_circuits: 10_000,
            max_instances: 1_000,
            explicit_bounds: Vec::new(),
            delta: false,
            detection: Detection::default(),
            analysis: AnalysisConfig::default(),
        }
    }
}

impl CircuitMetricsConfig {
    /// These settings with windows of this shape.
    ///
    /// # Errors
    /// The shape makes no sense.
    pub fn with_window(mut self, window_size: u64, bucket_size: u64, percentiles: &[f64]) -> Result<Self, ConfigError> {
        if ![1, 2, 5, 10].map(|seconds| seconds * SECOND).contains(&bucket_size) {
            return Err(ConfigError::BucketSize);
        }
        let buckets = window_size / bucket_size;
        if !window_size.is_multiple_of(bucket_size) || buckets < 10 || window_size > 3600 * SECOND {
            return Err(ConfigError::WindowSize);
        }
        let proper = |percent: &f64| *percent > 0.0 && *percent < 100.0;
        if percentiles.len() > 16 || !percentiles.iter().all(proper) {
            return Err(ConfigError::Percentiles);
        }
        let mut sorted = percentiles.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted.dedup();
        self.window_size = window_size;
        self.bucket_size = bucket_size;
        self.buckets = buckets;
        self.percentiles = sorted;
        Ok(self)
    }

    /// The length of the rolling window.
    pub const fn window_size(&self) -> u64 {
        self.window_size
    }

    /// The length of a bucket.
    pub const fn bucket_size(&self) -> u64 {
        self.bucket_size
    }

    /// Buckets in a window.
    pub const fn buckets(&self) -> u64 {
        self.buckets
    }

    /// Percentiles to compute, ascending, each between 0 and 100.
    pub fn percentiles(&self) -> &[f64] {
        &self.percentiles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mission_s_defaults_hold() {
        let config = CircuitMetricsConfig::default();
        assert_eq!((config.window_size() / SECOND, config.bucket_size() / SECOND, config.buckets()), (60, 1, 60));
        assert_eq!(config.percentiles(), [50.0, 90.0, 95.0, 99.0]);
    }

    #[test]
    fn windows_that_make_no_sense_are_refused() {
        let with = |window: u64, bucket: u64, percentiles: &[f64]| {
            CircuitMetricsConfig::default().with_window(window * SECOND, bucket * SECOND, percentiles)
        };
        assert_eq!(with(60, 3, &[]), Err(ConfigError::BucketSize));
        assert_eq!(with(65, 10, &[]), Err(ConfigError::WindowSize));
        assert_eq!(with(5, 1, &[]), Err(ConfigError::WindowSize));
        assert_eq!(with(60, 1, &[100.0]), Err(ConfigError::Percentiles));
        assert_eq!(with(60, 1, &[f64::NAN]), Err(ConfigError::Percentiles));
        assert_eq!(with(300, 5, &[99.9, 50.0, 50.0]).unwrap().percentiles(), [50.0, 99.9]);
    }
}
