//! Looks at what one circuit does, for the analyzers: at its closed buckets and at its trips.

mod anomalies;
mod health;
mod patterns;
mod trends;

use std::ops::Range;

pub(super) use self::health::States;
use self::{
    anomalies::Anomalies,
    health::{Facts, Health},
    patterns::Patterns,
    trends::Trends,
};
use super::{
    analysis::{
        anomaly::{Sample, Signal},
        config::AnalysisConfig,
    },
    bucket::MetricsBucket,
    config::CircuitMetricsConfig,
    finding::{Anomaly, Pattern, PatternKind, Phase, Reason, Status, Trend, What},
};

/// Empty buckets in a row that say anything: so many nanoseconds. Longer gaps are taken for what nobody was there to see.
const SILENCE_MAX: u64 = 600_000_000_000;

/// What the analyzers know of one circuit. Boxed: most of it is there for each circuit that is called, where analyzers run.
#[derive(Debug)]
pub(super) struct Analyst {
    /// Every bucket with a smaller number was looked at.
    seen_to: u64,
    /// Buckets that, if they are empty, are so because nobody called.
    pub(super) heard: Range<u64>,
    anomalies: Option<Anomalies>,
    trends: Option<Trends>,
    patterns: Option<Patterns>,
    health: Option<Health>,
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
            heard: 0..0,
            anomalies: None,
            trends: None,
            patterns: None,
            health: None,
            counts: Default::default(),
            found: Vec::new(),
        };
        analyst.begin(&config.analysis, number.saturating_mul(config.bucket_size()));
        analyst
    }

    /// Goes over to other settings. What was found by others ends.
    pub(super) fn reconfigure(&mut self, config: &CircuitMetricsConfig, now: u64) {
        self.end(now);
        (self.anomalies, self.trends, self.patterns, self.health) = (None, None, None, None);
        self.seen_to = self.seen_to.max(now / config.bucket_size());
        self.begin(&config.analysis, now);
    }

    fn begin(&mut self, config: &AnalysisConfig, now: u64) {
        self.anomalies = config.anomaly.as_ref().map(Anomalies::new);
        self.trends = config.trend.map(Trends::new);
        self.patterns = config.pattern.map(|config| Patterns::new(config, now));
        self.health = config.health.map(|config| Health::new(config, now));
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
    pub(super) fn closed_to(&mut self, number: u64, teaches: bool, states: States, config: &CircuitMetricsConfig) {
        if config.analysis.looks_at_buckets() && number > self.seen_to {
            self.pass_empty(number, teaches, config);
        }
        let now = number.saturating_mul(config.bucket_size());
        self.anomalies.iter_mut().for_each(|anomalies| anomalies.pass(now, &mut self.found));
        self.patterns.iter_mut().for_each(|patterns| patterns.pass(now, &mut self.found));
        self.judge(now, states);
    }

    fn judge(&mut self, now: u64, states: States) {
        let Some(health) = &mut self.health else { return };
        let anomalies = self.anomalies.iter().flat_map(Anomalies::open);
        let unusual = anomalies.fold(0, |all, anomaly| all | 1 << anomaly.signal as u8);
        let sooner = |one: &&Trend, other: &&Trend| one.to_limit.unwrap_or(f64::MAX).total_cmp(&other.to_limit.unwrap_or(f64::MAX));
        let to_limit = self.trends.iter().flat_map(Trends::open).min_by(sooner);
        let flaps = self.patterns.iter().flat_map(Patterns::open).any(|pattern| pattern.kind == PatternKind::Flapping);
        let is_silent = unusual >> Signal::RateDown as u8 & 1 == 1 && health.is_silent(now);
        health.judge(now, &Facts { states, unusual, flaps, to_limit, is_silent }, &mut self.found);
    }

    /// Takes in the empty buckets before this one, as far as somebody was there who could have called.
    fn pass_empty(&mut self, number: u64, teaches: bool, config: &CircuitMetricsConfig) {
        let seconds = config.bucket_size() as f64 / 1e9;
        let from = self.seen_to.max(self.heard.start);
        let to = number.min(self.heard.end).min(from.saturating_add(SILENCE_MAX / config.bucket_size()));
        for empty in from..to {
            self.take(empty, &Sample { seconds, teaches, ..Sample::default() }, config);
        }
        self.seen_to = self.seen_to.max(number);
    }

    fn take(&mut self, number: u64, sample: &Sample<'_>, config: &CircuitMetricsConfig) {
        let end = (number + 1).saturating_mul(config.bucket_size());
        let buckets = usize::try_from(config.buckets()).unwrap_or(usize::MAX);
        self.anomalies.iter_mut().for_each(|anomalies| anomalies.take(end, sample, buckets, &mut self.found));
        self.trends.iter_mut().for_each(|trends| trends.take(number, end, sample, &mut self.found));
        self.health.iter_mut().for_each(|health| health.take(end, sample));
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
    pub(super) fn sleeps_to(&self, heard: &Range<u64>, config: &CircuitMetricsConfig) -> u64 {
        let of_time = |at: u64| at.div_ceil(config.bucket_size());
        let anomalies = self.anomalies.as_ref().and_then(Anomalies::deadline).map(of_time);
        let patterns = self.patterns.as_ref().and_then(Patterns::deadline).map(of_time);
        let health = self.health.as_ref().and_then(Health::deadline).map(of_time);
        let silence = self.anomalies.as_ref().and_then(Anomalies::silence_in).filter(|buckets| *buckets <= SILENCE_MAX / config.bucket_size());
        let silence =
            silence.map(|buckets| self.seen_to.saturating_add(buckets)).filter(|number| *number <= heard.end && self.seen_to >= heard.start);
        [anomalies, patterns, health, silence].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Ends everything: nobody looks any more.
    pub(super) fn end(&mut self, now: u64) {
        self.anomalies.iter_mut().for_each(|anomalies| anomalies.end(now, &mut self.found));
        self.trends.iter_mut().for_each(|trends| trends.begin_anew(now, &mut self.found));
        self.patterns.iter_mut().for_each(|patterns| patterns.stop(now, &mut self.found));
        self.health.iter_mut().for_each(|health| health.end(now, &mut self.found));
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

    /// How it is, where that is judged, and why.
    pub(super) fn health(&self) -> Option<(Status, impl Iterator<Item = Reason>)> {
        self.health.as_ref().map(|health| (health.status(), health.reasons()))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use opentelemetry_proto::tonic::trace::v1::Span;

    use super::*;
    use crate::circuit::{
        analysis::config::{AnomalyConfig, PatternConfig, TrendConfig},
        collector::CircuitBreakerMetricsCollector,
        finding::Finding,
        inspect::{Rules, inspect},
        room::Room,
        testing::{SECOND, START, call, int, request, text, transition},
    };

    fn config() -> CircuitMetricsConfig {
        let mut config = CircuitMetricsConfig::default();
        config.analysis = AnalysisConfig {
            anomaly: Some(AnomalyConfig::default()),
            pattern: Some(PatternConfig::default()),
            trend: Some(TrendConfig::default()),
            health: None,
        };
        config
    }

    struct Shop {
        shard: CircuitBreakerMetricsCollector,
        id: u64,
    }

    impl Shop {
        fn new() -> Self {
            let room = Arc::new(Room::new(9));
            Self { shard: CircuitBreakerMetricsCollector::new(Arc::new(config()), Arc::default(), room), id: 0 }
        }

        /// A second in which the shop is asked `asked` times, and calls payments `calls` times.
        fn second(&mut self, second: u64, asked: u64, calls: u64, change: impl Fn(&mut Span)) -> Vec<Finding> {
            let now = START + second * SECOND;
            let mut spans = Vec::new();
            for number in 0..asked.max(calls) {
                self.id += 1;
                let end = now + number;
                let mut span = call(self.id, end - SECOND / 100, end, vec![text("server.address", "pay"), int("http.status_code", 200)]);
                if number >= calls {
                    span.kind = 2;
                }
                change(&mut span);
                spans.push(span);
            }
            if !spans.is_empty() {
                let request = request("shop", "a", spans);
                let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
                self.shard.apply(&request, &inspection, |_| true, now);
            }
            self.shard.advance(now, &mut Vec::new());
            self.shard.take_findings()
        }

        fn seconds(&mut self, seconds: Range<u64>, asked: u64, calls: u64) -> Vec<(u64, What)> {
            let found = seconds.flat_map(|second| self.second(second, asked, calls, |_| {})).collect::<Vec<_>>();
            found.into_iter().map(|finding| ((finding.at - START) / SECOND, finding.what)).collect()
        }
    }

    fn anomalies(found: &[(u64, What)]) -> Vec<(u64, Phase, Signal)> {
        let of = |(at, what): &(u64, What)| if let What::Anomaly(phase, anomaly) = what { Some((*at, *phase, anomaly.signal)) } else { None };
        found.iter().filter_map(of).collect()
    }

    #[test]
    fn calls_that_stop_while_the_caller_goes_on_are_found_though_no_bucket_closes() {
        let mut shop = Shop::new();
        // One call in ten seconds: the window is empty long before silence says anything.
        let found: Vec<(u64, What)> = (1..1_500).flat_map(|second| shop.seconds(second..second + 1, 5, u64::from(second % 10 == 0))).collect();
        assert_eq!(found, []);
        let found = anomalies(&shop.seconds(1_500..2_500, 5, 0));
        let [(at, Phase::Begin, Signal::RateDown)] = found[..] else { panic!("{found:?}") };
        assert!((1_560..1_800).contains(&at), "{at}");
        // It is over when calls come again.
        let found =
            anomalies(&(2_500..2_800).flat_map(|second| shop.seconds(second..second + 1, 5, u64::from(second % 10 == 0))).collect::<Vec<_>>());
        assert!(matches!(found[..], [(2_500..2_800, Phase::End, Signal::RateDown)]), "{found:?}");
    }

    #[test]
    fn a_gap_in_which_nobody_is_heard_of_says_nothing() {
        let mut shop = Shop::new();
        assert_eq!(shop.seconds(1..700, 10, 10), []);
        // Hours without a span from the shop: its instance goes, and comes back.
        let mut found = shop.seconds(700..1_200, 0, 0);
        found.extend(shop.seconds(9_000..9_700, 10, 10));
        assert_eq!(found, []);
    }

    #[test]
    fn what_holds_ends_with_the_analyzer_and_with_the_circuit() {
        let of_anomalies = |shop: &Shop| shop.shard.circuits().map(|(_, circuit)| circuit.anomalies().count()).sum::<usize>();
        let unusual = || {
            let mut shop = Shop::new();
            shop.seconds(1..700, 10, 10);
            let found = shop.seconds(700..740, 10, 0);
            assert!(matches!(anomalies(&found)[..], [(_, Phase::Begin, Signal::RateDown)]), "{found:?}");
            shop
        };
        let mut shop = unusual();
        let mut other = config();
        other.analysis.anomaly = None;
        shop.shard.reconfigure(&Arc::new(other), &Arc::default(), START + 740 * SECOND);
        let found: Vec<What> = shop.shard.take_findings().into_iter().map(|finding| finding.what).collect();
        assert!(matches!(found[..], [What::Anomaly(Phase::End, _)]) && of_anomalies(&shop) == 0, "{found:?}");
        let mut shop = unusual();
        let found = anomalies(&shop.seconds(4_300..4_500, 0, 0));
        assert!(matches!(found[..], [(_, Phase::End, Signal::RateDown)]), "{found:?}");
        assert_eq!(shop.shard.circuits().count(), 0);
    }

    #[test]
    fn trips_of_a_circuit_are_looked_at_for_patterns() {
        let mut shop = Shop::new();
        let mut found = Vec::new();
        for second in 1..4_000 {
            // Open for 20 s each five minutes.
            let (from, to) = match second % 300 {
                100 => ("closed", "open"),
                120 => ("open", "closed"),
                _ => ("", ""),
            };
            found.extend(shop.second(second, 5, 5, |span| {
                if !from.is_empty() {
                    span.events = vec![transition(span.end_time_unix_nano, from, to)];
                }
            }));
        }
        let patterns: Vec<_> =
            found.iter().filter_map(|finding| if let What::Pattern(phase, pattern) = finding.what { Some((phase, pattern)) } else { None }).collect();
        let regular: Vec<_> = patterns.iter().filter(|(_, pattern)| pattern.kind == PatternKind::Regular).collect();
        let [(Phase::Begin, first), (Phase::Change, then)] = regular[..] else { panic!("{patterns:?}") };
        assert!((first.period - 300.0).abs() < 1.0 && then.certainty > first.certainty, "{regular:?}");
        assert!(found.iter().any(|finding| finding.incident.is_some()));
        let (_, circuit) = shop.shard.circuits().next().unwrap();
        assert_eq!(circuit.patterns().filter(|pattern| pattern.kind == PatternKind::Regular).count(), 1);
        let most = 4 * 1_024;
        assert!(circuit.bytes() > 0 && circuit.analysis_bytes() <= most, "{} B", circuit.analysis_bytes());
    }

    #[test]
    fn a_clock_that_jumps_makes_no_findings() {
        let mut shop = Shop::new();
        assert_eq!(shop.seconds(1..700, 10, 10), []);
        assert_eq!(shop.seconds(100_000..100_700, 10, 10), []);
        // Back again: late spans only.
        assert_eq!(shop.seconds(700..720, 10, 10), []);
    }
}
