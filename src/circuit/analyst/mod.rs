//! Looks at what one circuit does, for the analyzers: at its closed buckets and at its trips.

mod anomalies;
mod patterns;
mod trends;

use self::{anomalies::Anomalies, patterns::Patterns, trends::Trends};
use super::{
    analysis::{
        anomaly::{Sample, Signal},
        config::AnalysisConfig,
    },
    bucket::MetricsBucket,
    config::CircuitMetricsConfig,
    finding::{Anomaly, Pattern, Phase, Trend, What},
};

/// Empty buckets in a row that say anything: so many nanoseconds. Longer gaps are taken for what nobody was there to see.
const SILENCE_MAX: u64 = 600_000_000_000;

/// What the analyzers know of one circuit. Boxed: most of it is there for each circuit that is called, where analyzers run.
#[derive(Debug)]
pub(super) struct Analyst {
    /// Every bucket with a smaller number was looked at.
    seen_to: u64,
    /// Buckets from this number on were empty because nobody was heard of who could have called.
    pub(super) heard_to: u64,
    anomalies: Option<Anomalies>,
    trends: Option<Trends>,
    patterns: Option<Patterns>,
    /// Anomalies that began, and when it was last known that there was none.
    counts: [(u32, u64); Signal::ALL.len()],
    /// Not taken yet.
    found: Vec<(u64, What)>,
}

impl Analyst {
    /// Looks from this bucket on.
    pub(super) fn new(config: &CircuitMetricsConfig, number: u64) -> Self {
        let mut analyst = Self {
            seen_to: number,
            heard_to: u64::MAX,
            anomalies: None,
            trends: None,
            patterns: None,
            counts: Default::default(),
            found: Vec::new(),
        };
        analyst.begin(&config.analysis, number.saturating_mul(config.bucket_size()));
        analyst
    }

    /// Goes over to other settings. What was found by others ends.
    pub(super) fn reconfigure(&mut self, config: &CircuitMetricsConfig, now: u64) {
        self.end(now);
        (self.anomalies, self.trends, self.patterns) = (None, None, None);
        self.seen_to = self.seen_to.max(now / config.bucket_size());
        self.begin(&config.analysis, now);
    }

    fn begin(&mut self, config: &AnalysisConfig, now: u64) {
        self.anomalies = config.anomaly.as_ref().map(Anomalies::new);
        self.trends = config.trend.map(Trends::new);
        self.patterns = config.pattern.map(|config| Patterns::new(config, now));
    }

    /// Takes in a bucket that closes. `teaches`: whether it shows what is usual.
    pub(super) fn close(&mut self, number: u64, bucket: &mut MetricsBucket, teaches: bool, config: &CircuitMetricsConfig) {
        if !config.analysis.looks_at_buckets() || number < self.seen_to {
            return;
        }
        self.pass_empty(number, teaches, config);
        let (calls, failures, rejections) = (bucket.successes.saturating_add(bucket.failures), bucket.failures, bucket.rejections);
        let duration_sum = bucket.duration_sum as f64 / 1e9;
        let teaches = teaches && bucket.trips == 0;
        let seconds = config.bucket_size() as f64 / 1e9;
        self.take(number, &Sample { calls, failures, rejections, latencies: bucket.latencies(), duration_sum, seconds, teaches }, config);
    }

    /// Every bucket before this one is closed.
    pub(super) fn closed_to(&mut self, number: u64, teaches: bool, config: &CircuitMetricsConfig) {
        if config.analysis.looks_at_buckets() && number > self.seen_to {
            self.pass_empty(number, teaches, config);
        }
        let now = number.saturating_mul(config.bucket_size());
        self.anomalies.iter_mut().for_each(|anomalies| anomalies.pass(now, &mut self.found));
        self.patterns.iter_mut().for_each(|patterns| patterns.pass(now, &mut self.found));
    }

    /// Takes in the empty buckets before this one, as far as somebody was there who could have called.
    fn pass_empty(&mut self, number: u64, teaches: bool, config: &CircuitMetricsConfig) {
        let seconds = config.bucket_size() as f64 / 1e9;
        let said = number.min(self.heard_to).min(self.seen_to.saturating_add(SILENCE_MAX / config.bucket_size()));
        for empty in self.seen_to..said {
            self.take(empty, &Sample { seconds, teaches, ..Sample::default() }, config);
        }
        self.seen_to = self.seen_to.max(number);
    }

    fn take(&mut self, number: u64, sample: &Sample<'_>, config: &CircuitMetricsConfig) {
        let end = (number + 1).saturating_mul(config.bucket_size());
        let buckets = usize::try_from(config.buckets()).unwrap_or(usize::MAX);
        self.anomalies.iter_mut().for_each(|anomalies| anomalies.take(end, sample, buckets, &mut self.found));
        self.trends.iter_mut().for_each(|trends| trends.take(number, end, sample, &mut self.found));
        self.seen_to = number + 1;
    }

    /// An incident began with a trip.
    pub(super) fn incident_begins(&mut self, at: u64) {
        self.patterns.iter_mut().for_each(|patterns| patterns.begin(at, &mut self.found));
    }

    /// The incident that went on ended.
    pub(super) fn incident_ends(&mut self, at: u64) {
        self.patterns.iter_mut().for_each(|patterns| patterns.end(at, &mut self.found));
    }

    /// The bucket before which there is nothing to tell unless something happens; silence says something only where
    /// somebody was heard of who could have called.
    pub(super) fn sleeps_to(&self, heard_to: u64, config: &CircuitMetricsConfig) -> u64 {
        let of_time = |at: u64| at.div_ceil(config.bucket_size());
        let anomalies = self.anomalies.as_ref().and_then(Anomalies::deadline).map(of_time);
        let patterns = self.patterns.as_ref().and_then(Patterns::deadline).map(of_time);
        let silence = self.anomalies.as_ref().and_then(Anomalies::silence_in).filter(|buckets| *buckets <= SILENCE_MAX / config.bucket_size());
        let silence = silence.map(|buckets| self.seen_to.saturating_add(buckets)).filter(|number| *number <= heard_to);
        [anomalies, patterns, silence].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Ends everything: nobody looks any more.
    pub(super) fn end(&mut self, now: u64) {
        self.anomalies.iter_mut().for_each(|anomalies| anomalies.end(now, &mut self.found));
        self.trends.iter_mut().for_each(|trends| trends.begin_anew(now, &mut self.found));
        self.patterns.iter_mut().for_each(|patterns| patterns.stop(now, &mut self.found));
    }

    /// What was found since this was asked last, and when, in Unix nanoseconds; counted from then on, if it was not yet.
    pub(super) fn take_found(&mut self, born: u64) -> Vec<(u64, What)> {
        for (_, what) in &self.found {
            if let What::Anomaly(Phase::Begin, anomaly) = what
                && let Some((count, since)) = self.counts.get_mut(anomaly.signal as usize)
            {
                *since = if *count == 0 { born } else { *since };
                *count = count.saturating_add(1);
            }
        }
        std::mem::take(&mut self.found)
    }

    /// Anomalies that began, and when it was last known that there was none.
    pub(super) const fn counts(&self) -> [(u32, u64); Signal::ALL.len()] {
        self.counts
    }

    /// Counts from 0 on.
    pub(super) fn count_anew(&mut self) {
        self.counts = Default::default();
    }

    /// What is unusual now.
    pub(super) fn anomalies(&self) -> impl Iterator<Item = &Anomaly> {
        self.anomalies.iter().flat_map(Anomalies::open)
    }

    /// Patterns that hold now.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter().flat_map(Patterns::open)
    }

    /// What rises or falls now.
    pub(super) fn trends(&self) -> impl Iterator<Item = &Trend> {
        self.trends.iter().flat_map(Trends::open)
    }

    /// Bytes it holds, itself included.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.anomalies.as_ref().map_or(0, Anomalies::heap_bytes)
            + self.trends.as_ref().map_or(0, Trends::heap_bytes)
            + self.patterns.as_ref().map_or(0, Patterns::heap_bytes)
            + self.found.capacity() * size_of::<(u64, What)>()
    }
}
