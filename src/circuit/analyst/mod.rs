//! Looks at what one circuit does, for the analyzers: at its closed buckets and at its trips.

mod anomalies;
mod concurrency;
mod health;
mod instances;
mod patterns;
mod trends;

use std::{ops::Range, sync::Arc};

use self::{
    anomalies::Anomalies,
    concurrency::Concurrency,
    health::{Facts, Health},
    instances::Instances,
    patterns::Patterns,
    trends::Trends,
};
pub(super) use self::{health::States, instances::OfInstance};
use super::{
    analysis::{
        anomaly::{Sample, Signal},
        config::AnalysisConfig,
        pressure::Usage,
    },
    bucket::MetricsBucket,
    config::CircuitMetricsConfig,
    event::IncidentId,
    finding::{Anomaly, HealthChange, Pattern, PatternKind, Phase, Reason, Resource, Status, Trend, What},
    state::State,
};

/// Empty buckets in a row that say anything: so many nanoseconds. Longer gaps are taken for what nobody was there to see.
const SILENCE_MAX: u64 = 600_000_000_000;

/// What was found in calls holds for so many nanoseconds without any.
const WITHOUT_CALLS: u64 = 300_000_000_000;

/// What the analyzers know of one circuit. Boxed: there is one only where analyzers run.
#[derive(Debug)]
pub(super) struct Analyst {
    /// Every bucket with a smaller number was looked at.
    seen_to: u64,
    /// Every bucket from this number on was empty.
    called_to: u64,
    /// Buckets that, if they are empty, are so because nobody called.
    pub(super) heard: Range<u64>,
    /// Whether nobody may call because something else goes wrong before.
    pub(super) is_cut_off: bool,
    anomalies: Option<Anomalies>,
    trends: Option<Trends>,
    concurrency: Option<Concurrency>,
    patterns: Option<Patterns>,
    health: Option<Health>,
    instances: Option<Instances>,
    /// Every bucket before this one was there when health was judged.
    judged_to: u64,
    /// Something happened that needs no bucket.
    is_awake: bool,
    /// What [`may_sleep_to`](Self::may_sleep_to) was at the last look; 0 since something happened.
    quiet_to: u64,
    /// What it held at the last look, in bytes.
    bytes: usize,
    /// What was found is not from later than this, in Unix nanoseconds.
    closed_at: u64,
    /// Anomalies that began, and when it was last known that there was none.
    counts: Counts,
    /// Not taken yet; with the incident that it belongs to, once that is known.
    found: Vec<(u64, What)>,
    found_of_instances: Vec<OfInstance>,
    stamps: Vec<Option<IncidentId>>,
}

/// Of each signal how often it became unusual, and when it was last known that it never had.
pub(super) type Counts = [(u32, u64); Signal::ALL.len()];

/// What was found, when, in Unix nanoseconds, and the incident that went on then.
pub(super) type Found = (u64, What, Option<IncidentId>);

impl Analyst {
    /// Looks from this bucket on.
    pub(super) fn new(config: &CircuitMetricsConfig, number: u64) -> Self {
        let mut analyst = Self {
            seen_to: number,
            called_to: number,
            heard: 0..0,
            is_cut_off: false,
            anomalies: None,
            trends: None,
            concurrency: None,
            patterns: None,
            health: None,
            instances: None,
            judged_to: 0,
            is_awake: false,
            quiet_to: 0,
            bytes: 0,
            closed_at: 0,
            counts: Counts::default(),
            found: Vec::new(),
            found_of_instances: Vec::new(),
            stamps: Vec::new(),
        };
        analyst.look_for(&AnalysisConfig::default(), config, false, number.saturating_mul(config.bucket_size()));
        analyst
    }

    /// Goes over to other settings from now on: `windows`, where windows have another shape. What they change begins anew.
    pub(super) fn look_for(&mut self, old: &AnalysisConfig, config: &CircuitMetricsConfig, windows: bool, now: u64) {
        let new = &config.analysis;
        let now = now.max(self.closed_at);
        self.quiet_to = 0;
        if windows {
            (self.seen_to, self.called_to, self.judged_to) = (now / config.bucket_size(), now / config.bucket_size(), 0);
        }
        if windows || old.anomaly != new.anomaly {
            self.anomalies.iter_mut().for_each(|anomalies| anomalies.stop(None, now, &mut self.found));
            self.anomalies = new.anomaly.as_ref().map(Anomalies::new);
        }
        if windows || old.trend != new.trend {
            self.trends.iter_mut().for_each(|trends| trends.begin_anew(now, &mut self.found));
            self.trends = new.trend.map(Trends::new);
        }
        if windows || old.resource != new.resource {
            self.concurrency.iter_mut().for_each(|concurrency| concurrency.stop(now, &mut self.found));
            self.concurrency = new.resource.as_ref().map(|config| Concurrency::new(config, self.seen_to));
        }
        if old.pattern != new.pattern {
            self.patterns.iter_mut().for_each(|patterns| patterns.stop(now, &mut self.found));
            self.patterns = new.pattern.map(|config| Patterns::new(config, now));
        }
        if old.health != new.health {
            self.health.iter_mut().for_each(|health| health.end(now, &mut self.found));
            self.health = new.health.map(|config| Health::new(config, now));
            self.instances.iter_mut().for_each(|instances| instances.end(now, &mut self.found_of_instances));
            self.instances = new.health.map(Instances::new);
        }
        self.bytes = self.heap_bytes();
    }

    /// Other calls are this circuit's from now on: what was learned of them does not hold any more. Its breaker is the same.
    pub(super) fn learn_anew(&mut self, config: &AnalysisConfig, now: u64) {
        let now = now.max(self.closed_at);
        self.quiet_to = 0;
        self.anomalies.iter_mut().for_each(|anomalies| anomalies.stop(None, now, &mut self.found));
        self.anomalies = config.anomaly.as_ref().map(Anomalies::new);
        self.trends.iter_mut().for_each(|trends| trends.begin_anew(now, &mut self.found));
        self.trends = config.trend.map(Trends::new);
        self.concurrency.iter_mut().for_each(|concurrency| concurrency.stop(now, &mut self.found));
        self.concurrency = config.resource.as_ref().map(|config| Concurrency::new(config, self.seen_to));
        self.bytes = self.heap_bytes();
    }

    /// Takes in a bucket that closes. `teaches`: whether it shows what is usual.
    pub(super) fn close(&mut self, number: u64, bucket: &mut MetricsBucket, teaches: bool, config: &CircuitMetricsConfig) {
        if !config.analysis.looks_at_buckets() || number < self.seen_to {
            return;
        }
        self.pass_empty(number, teaches, config);
        let (calls, failures, rejections) = (bucket.successes.saturating_add(bucket.failures), bucket.failures, bucket.rejections);
        let duration_sum = bucket.duration_sum as f64 / 1e9;
        // A breaker that was open for a part of it teaches nothing either.
        let teaches = teaches && (bucket.trips, bucket.recovery_attempts, bucket.recoveries) == (0, 0, 0);
        let seconds = config.bucket_size() as f64 / 1e9;
        self.concurrency.iter_mut().for_each(|concurrency| concurrency.see(number, bucket.duration_max, config.buckets()));
        // Where it is not known whether the buckets before were empty, one that is not says nothing of how many calls are usual.
        let after_gap = !self.heard.contains(&number.saturating_sub(1));
        let latencies = bucket.latencies();
        self.take(number, &Sample { calls, failures, rejections, latencies, duration_sum, seconds, teaches, after_gap }, config);
        self.called_to = number + 1;
    }

    /// Every bucket before this one is closed. `busy` is the time, in nanoseconds, that calls spent in one of the window.
    pub(super) fn closed_to(&mut self, number: u64, teaches: bool, busy: impl Fn(u64) -> u64, config: &CircuitMetricsConfig) {
        self.quiet_to = 0;
        if let Some(concurrency) = &mut self.concurrency {
            let heard = self.heard.clone();
            let busy = |number: u64| Some(busy(number)).filter(|busy| *busy > 0 || heard.contains(&number));
            concurrency.pass(number, (config.bucket_size(), config.buckets()), teaches, busy, &mut self.found);
        }
        if config.analysis.looks_at_buckets() && number > self.seen_to {
            self.pass_empty(number, teaches, config);
        }
        let now = number.saturating_mul(config.bucket_size());
        self.closed_at = self.closed_at.max(now);
        if let Some(anomalies) = &mut self.anomalies {
            anomalies.pass(now, &mut self.found);
        }
        let without_calls = WITHOUT_CALLS / config.bucket_size();
        if number >= self.called_to.saturating_add(without_calls) {
            // Whether it still holds can't be seen; that nobody calls can, where somebody could.
            let but = Some(Signal::RateDown).filter(|_| number < self.heard.end.saturating_add(without_calls));
            self.anomalies.iter_mut().for_each(|anomalies| anomalies.stop(but, now, &mut self.found));
            self.trends.iter_mut().for_each(|trends| trends.begin_anew(now, &mut self.found));
            self.concurrency.iter_mut().for_each(|concurrency| concurrency.stop(now, &mut self.found));
        }
        self.patterns.iter_mut().for_each(|patterns| patterns.pass(now, &mut self.found));
    }

    /// Whether health is judged, and nobody called for some time before this bucket.
    pub(super) fn is_quiet(&self, number: u64, config: &CircuitMetricsConfig) -> bool {
        self.health.as_ref().is_some_and(|health| health.is_silent(number.saturating_mul(config.bucket_size())))
    }

    /// Something happened that needs no bucket.
    pub(super) const fn wake(&mut self) {
        (self.is_awake, self.quiet_to) = (true, 0);
    }

    /// Judges how the circuit is, once for each bucket at most: every bucket before this one is closed.
    pub(super) fn judge<'a>(
        &mut self,
        number: u64,
        states: States,
        (restless, instance_at): (&[(usize, State)], impl Fn(usize) -> Option<&'a Arc<str>>),
        config: &CircuitMetricsConfig,
    ) {
        let was_awake = std::mem::take(&mut self.is_awake);
        let Some(health) = self.health.as_mut().filter(|_| number > self.judged_to || was_awake) else { return };
        self.judged_to = self.judged_to.max(number);
        let now = number.saturating_mul(config.bucket_size());
        let anomalies = self.anomalies.iter().flat_map(Anomalies::going_on);
        let unusual: u8 = anomalies.fold(0, |all, anomaly| all | 1 << anomaly.signal as u8);
        let unusual = if self.is_cut_off { unusual & !(1 << Signal::RateDown as u8) } else { unusual };
        let left = |trend: &Trend| trend.course.to_limit.unwrap_or(f64::MAX);
        let sooner = |one: &Trend, other: &Trend| left(one).total_cmp(&left(other));
        let to_limit = self.trends.iter().flat_map(Trends::open).min_by(sooner);
        let flaps = self.patterns.iter().flat_map(Patterns::open).any(|pattern| pattern.kind == PatternKind::Flapping);
        let is_silent = unusual >> Signal::RateDown as u8 & 1 == 1 && health.is_silent(now);
        let full = self.concurrency.as_ref().and_then(Concurrency::at_limit);
        health.judge(now, &Facts { states, unusual, flaps, full, to_limit, is_silent }, &mut self.found);
        if let Some(instances) = &mut self.instances {
            instances.judge(now, restless, instance_at, &mut self.found_of_instances);
        }
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
        self.anomalies.iter_mut().for_each(|anomalies| anomalies.take((number, end), sample, config.buckets(), &mut self.found));
        let concurrency_limit = config.analysis.resource.as_ref().and_then(|resource| resource.concurrency_limit);
        self.trends.iter_mut().for_each(|trends| trends.take((number, end), sample, concurrency_limit, &mut self.found));
        self.health.iter_mut().for_each(|health| health.take(end, sample));
        self.seen_to = number + 1;
    }

    /// An incident began with a trip.
    pub(super) fn incident_begins(&mut self, at: u64) {
        self.quiet_to = 0;
        self.patterns.iter_mut().for_each(|patterns| patterns.begin(at, &mut self.found));
    }

    /// The incident that went on ended.
    pub(super) fn incident_ends(&mut self, at: u64) {
        self.quiet_to = 0;
        self.patterns.iter_mut().for_each(|patterns| patterns.end(at, &mut self.found));
    }

    /// What was found since this was said last belongs to this incident.
    pub(super) fn stamp(&mut self, incident: Option<IncidentId>) {
        self.stamps.resize(self.found.len(), incident);
    }

    /// The bucket before which there is nothing to tell unless something happens; silence says something only where
    /// somebody was heard of who could have called.
    pub(super) fn sleeps_to(&self, heard: &Range<u64>, config: &CircuitMetricsConfig) -> u64 {
        if self.is_awake {
            return 0;
        }
        let of_time = |at: u64| at.div_ceil(config.bucket_size());
        let anomalies = self.anomalies.as_ref().and_then(Anomalies::deadline).map(of_time);
        let patterns = self.patterns.as_ref().and_then(Patterns::deadline).map(of_time);
        let health = self.health.as_ref().and_then(Health::deadline).map(of_time);
        let instances = self.instances.as_ref().and_then(Instances::deadline).map(of_time);
        let silence = self.anomalies.as_ref().and_then(Anomalies::silence_in).filter(|buckets| *buckets <= SILENCE_MAX / config.bucket_size());
        let silence = silence.map(|buckets| self.seen_to.max(heard.start).saturating_add(buckets)).filter(|number| *number <= heard.end);
        [anomalies, patterns, health, instances, silence, self.without_calls(heard, config)].into_iter().flatten().min().unwrap_or(u64::MAX)
    }

    /// Whether there may be something to tell before this bucket, whoever was heard of.
    pub(super) fn may_wake(&self, to: u64, config: &CircuitMetricsConfig) -> bool {
        debug_assert!(self.quiet_to <= self.may_sleep_to(config));
        self.quiet_to <= to && self.may_sleep_to(config) <= to
    }

    /// Everything was looked at: notes when there may be something to do again.
    pub(super) fn looked(&mut self, config: &CircuitMetricsConfig) {
        self.quiet_to = self.may_sleep_to(config);
        self.bytes = self.heap_bytes();
    }

    /// The bucket before which there is nothing to tell unless something happens, whoever was heard of.
    fn may_sleep_to(&self, config: &CircuitMetricsConfig) -> u64 {
        let is_found = self.anomalies().next().is_some() || self.is_pressed();
        let without_calls = is_found.then(|| self.called_to.saturating_add(WITHOUT_CALLS / config.bucket_size()));
        self.sleeps_to(&(0..u64::MAX), config).min(without_calls.unwrap_or(u64::MAX))
    }

    /// The bucket at which what was found in calls holds no longer without any.
    fn without_calls(&self, heard: &Range<u64>, config: &CircuitMetricsConfig) -> Option<u64> {
        let is_down = |anomaly: &&Anomaly| anomaly.signal == Signal::RateDown;
        let of_calls = self.trends().next().is_some() || self.is_pressed() || self.anomalies().any(|anomaly| !is_down(&anomaly));
        let from = if of_calls { Some(self.called_to) } else { self.anomalies().find(is_down).map(|_| heard.end.max(self.called_to)) };
        from.map(|from| from.saturating_add(WITHOUT_CALLS / config.bucket_size()))
    }

    /// Nobody looks any more.
    pub(super) fn stop(&mut self, now: u64) {
        let now = now.max(self.closed_at);
        self.quiet_to = 0;
        self.anomalies.iter_mut().for_each(|anomalies| anomalies.stop(None, now, &mut self.found));
        self.trends.iter_mut().for_each(|trends| trends.begin_anew(now, &mut self.found));
        self.concurrency.iter_mut().for_each(|concurrency| concurrency.stop(now, &mut self.found));
        self.patterns.iter_mut().for_each(|patterns| patterns.stop(now, &mut self.found));
        self.health.iter_mut().for_each(|health| health.end(now, &mut self.found));
        self.instances.iter_mut().for_each(|instances| instances.end(now, &mut self.found_of_instances));
    }

    /// Tells of what is over, though it might begin again soon.
    pub(super) fn tell_ended(&mut self) {
        self.quiet_to = 0;
        self.anomalies.iter_mut().for_each(|anomalies| anomalies.tell_ended(u64::MAX, &mut self.found));
    }

    /// When what holds can be told to be stopped or to begin, at a time by the clock.
    pub(super) fn latest(&self, now: u64) -> u64 {
        now.max(self.closed_at)
    }

    /// What holds now, told again as in this phase.
    pub(super) fn holding(&self, phase: Phase) -> Vec<What> {
        let anomalies = self.anomalies().map(|anomaly| What::Anomaly(phase, *anomaly));
        let patterns = self.patterns().map(|pattern| What::Pattern(phase, *pattern));
        let trends = self.trends().map(|trend| What::Trend(phase, trend));
        let pressure = self.pressure().map(|usage| What::Pressure(phase, Resource::Concurrency, *usage));
        let health = self.health.as_ref().filter(|health| health.status() >= Status::Degraded);
        let health = health.map(|health| What::Health(health.told_again(phase == Phase::Begin)));
        anomalies.chain(patterns).chain(trends).chain(pressure).chain(health).collect()
    }

    /// How instances are that are not as the circuit is, told again as in this phase.
    pub(super) fn instances_holding(&self, phase: Phase) -> impl Iterator<Item = (Arc<str>, HealthChange)> {
        self.instances.iter().flat_map(move |instances| instances.told_again(phase == Phase::Begin))
    }

    /// Whether anything was found that was not taken yet.
    pub(super) const fn has_found(&self) -> bool {
        !self.found.is_empty() || !self.found_of_instances.is_empty()
    }

    /// What was found of instances since this was asked last.
    pub(super) fn take_found_of_instances(&mut self) -> Vec<OfInstance> {
        std::mem::take(&mut self.found_of_instances)
    }

    /// How many instances are degraded, and how many unhealthy; `None` where that is not judged.
    pub(super) fn instances_ailing(&self) -> Option<(usize, usize)> {
        self.instances.as_ref().map(Instances::count)
    }

    /// What was found since this was asked last; counted from then on, if it was not yet.
    pub(super) fn take_found(&mut self, born: u64) -> Vec<Found> {
        for (_, what) in &self.found {
            if let What::Anomaly(Phase::Begin, anomaly) = what
                && let Some((count, since)) = self.counts.get_mut(anomaly.signal as usize)
            {
                *since = if *count == 0 { born } else { *since };
                *count = count.saturating_add(1);
            }
        }
        let stamps = std::mem::take(&mut self.stamps).into_iter().chain(std::iter::repeat(None));
        std::mem::take(&mut self.found).into_iter().zip(stamps).map(|((at, what), incident)| (at, what, incident)).collect()
    }

    /// Anomalies that began, and when it was last known that there was none.
    pub(super) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Counts from 0 on; gives what was counted.
    pub(super) fn count_anew(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// One that only knows what was counted.
    pub(super) fn remembering(counts: Counts) -> Self {
        let (seen_to, called_to) = (u64::MAX, u64::MAX);
        let (anomalies, trends, concurrency, patterns, health) = (None, None, None, None, None);
        Self {
            seen_to,
            called_to,
            heard: 0..0,
            is_cut_off: false,
            anomalies,
            trends,
            concurrency,
            patterns,
            health,
            instances: None,
            judged_to: 0,
            is_awake: false,
            quiet_to: 0,
            bytes: 0,
            closed_at: 0,
            counts,
            found: Vec::new(),
            found_of_instances: Vec::new(),
            stamps: Vec::new(),
        }
    }

    /// What is unusual now.
    pub(super) fn anomalies(&self) -> impl Iterator<Item = &Anomaly> {
        self.anomalies.iter().flat_map(Anomalies::open)
    }

    /// What was unusual lately, each with its end.
    pub(super) fn past_anomalies(&self) -> impl Iterator<Item = &(Anomaly, u64)> {
        self.anomalies.iter().flat_map(Anomalies::past)
    }

    /// Patterns that hold now.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.patterns.iter().flat_map(Patterns::open)
    }

    /// Whether anything is known of calls under way that holds no longer without any.
    fn is_pressed(&self) -> bool {
        self.usage().is_some() || self.pressure().is_some()
    }

    /// Calls under way, where they are under pressure.
    fn pressure(&self) -> Option<&Usage> {
        self.concurrency.as_ref().and_then(Concurrency::told)
    }

    /// How many calls are under way, against limit or baseline.
    pub(super) fn usage(&self) -> Option<&Usage> {
        self.concurrency.as_ref().and_then(Concurrency::newest)
    }

    /// How it is, where that is judged, and why.
    pub(super) fn health(&self) -> Option<(Status, impl Iterator<Item = Reason>)> {
        self.health.as_ref().map(|health| (health.status(), health.reasons()))
    }

    /// What rises or falls now.
    pub(super) fn trends(&self) -> impl Iterator<Item = Trend> {
        self.trends.iter().flat_map(Trends::open)
    }

    /// Bytes it held at the last look, itself included; without what was found, which is taken soon.
    pub(super) const fn bytes(&self) -> usize {
        size_of::<Self>() + self.bytes
    }

    fn heap_bytes(&self) -> usize {
        self.anomalies.as_ref().map_or(0, Anomalies::heap_bytes)
            + self.trends.as_ref().map_or(0, Trends::heap_bytes)
            + self.patterns.as_ref().map_or(0, Patterns::heap_bytes)
            + self.instances.as_ref().map_or(0, Instances::heap_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::{hash::BuildHasher, sync::Arc};

    use opentelemetry_proto::tonic::trace::v1::Span;

    use super::*;
    use crate::circuit::{
        analysis::config::{AnomalyConfig, HealthConfig, PatternConfig, ResourceConfig, TrendConfig},
        collector::CircuitBreakerMetricsCollector,
        detect::lane::Route,
        finding::Finding,
        inspect::{Rules, inspect},
        key::{Caller, Target},
        meeting::Introduction,
        process::Hashed,
        room::Room,
        testing::{SECOND, START, call, int, request, text, trace_at, transition},
    };

    fn config() -> CircuitMetricsConfig {
        let mut config = CircuitMetricsConfig::default();
        config.analysis = AnalysisConfig {
            anomaly: Some(AnomalyConfig::default()),
            pattern: Some(PatternConfig::default()),
            trend: Some(TrendConfig::default()),
            resource: Some(ResourceConfig::default()),
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
            self.second_of("a", second, (asked, calls), change)
        }

        fn second_of(&mut self, instance: &str, second: u64, calls: (u64, u64), change: impl Fn(&mut Span)) -> Vec<Finding> {
            self.send(instance, second, calls, change);
            self.shard.advance(START + second * SECOND, &mut Vec::new());
            self.shard.take_findings()
        }

        fn send(&mut self, instance: &str, second: u64, (asked, calls): (u64, u64), change: impl Fn(&mut Span)) {
            let now = START + second * SECOND;
            let mut spans = Vec::new();
            for number in 0..asked.max(calls) {
                self.id += 1;
                let end = now + number;
                // Ten milliseconds, more or less.
                let nanos = SECOND / 200 + self.id.wrapping_mul(2_654_435_761) % (SECOND / 100);
                let mut span = call(self.id, end - nanos, end, vec![text("server.address", "pay"), int("http.status_code", 200)]);
                if number >= calls {
                    span.kind = 2;
                }
                change(&mut span);
                spans.push(span);
            }
            if !spans.is_empty() {
                let request = request("shop", instance, spans);
                let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
                self.shard.apply(&request, &inspection, |_| true, now);
            }
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
    fn a_callee_is_not_ill_because_what_would_call_it_fails_before() {
        let mut config = config();
        config.analysis.health = Some(HealthConfig::default());
        let is_ill = |fails: bool| {
            let room = Arc::new(Room::new(9));
            let mut shop = Shop { shard: CircuitBreakerMetricsCollector::new(Arc::new(config.clone()), Arc::default(), room), id: 0 };
            shop.seconds(1..700, 10, 10);
            let fail = |span: &mut Span| {
                if fails {
                    span.status = Some(opentelemetry_proto::tonic::trace::v1::Status { code: 2, ..Default::default() });
                }
            };
            let found: Vec<Finding> = (700..760).flat_map(|second| shop.second(second, 10, 0, fail)).collect();
            found.iter().any(|finding| matches!(&finding.what, What::Health(change) if change.after == Status::Unhealthy))
        };
        assert!(is_ill(false) && !is_ill(true));
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
        assert!(matches!(found[..], [What::Anomaly(Phase::Stopped, _)]) && of_anomalies(&shop) == 0, "{found:?}");
        // Nobody is heard of for five minutes.
        let mut shop = unusual();
        let found = anomalies(&shop.seconds(740..1_100, 0, 0));
        assert!(matches!(found[..], [(1_000..1_060, Phase::Stopped, Signal::RateDown)]), "{found:?}");
        let mut shop = unusual();
        let found: Vec<What> = (0..9)
            .flat_map(|_| {
                shop.shard.finish(START + 750 * SECOND, &mut Vec::new());
                shop.shard.take_findings()
            })
            .map(|finding| finding.what)
            .collect();
        assert!(matches!(found[..], [What::Anomaly(Phase::Stopped, _)]), "once: {found:?}");
    }

    #[test]
    fn slow_calls_that_stop_are_not_slow_for_ever() {
        let mut shop = Shop::new();
        shop.seconds(1..700, 10, 10);
        let slow = |span: &mut Span| span.start_time_unix_nano = span.end_time_unix_nano - SECOND / 5;
        let found: Vec<Finding> = (700..720).flat_map(|second| shop.second(second, 10, 10, slow)).collect();
        assert!(found.iter().any(|finding| matches!(finding.what, What::Anomaly(Phase::Begin, Anomaly { signal: Signal::LatencyBody, .. }))));
        // Calls stop, which is unusual in itself; the caller goes on.
        let found = anomalies(&shop.seconds(720..1_200, 10, 0));
        let ends: Vec<_> = found.iter().filter(|(_, phase, _)| *phase != Phase::Begin).collect();
        assert!(
            !ends.is_empty() && ends.iter().all(|(at, phase, signal)| *phase == Phase::Stopped && *signal != Signal::RateDown && *at < 1_040),
            "{found:?}"
        );
        let (_, circuit) = shop.shard.circuits().next().unwrap();
        assert_eq!(circuit.anomalies().map(|anomaly| anomaly.signal).collect::<Vec<_>>(), [Signal::RateDown]);
    }

    #[test]
    fn pressure_is_over_when_nobody_is_heard_of_any_more() {
        let mut config = config();
        let resource = ResourceConfig { concurrency_limit: Some(0.1), ..ResourceConfig::default() };
        config.analysis = AnalysisConfig { resource: Some(resource), ..AnalysisConfig::default() };
        let shard = CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), Arc::new(Room::new(9)));
        let mut shop = Shop { shard, id: 0 };
        let pressures = |found: Vec<(u64, What)>| {
            let of = |(at, what)| if let What::Pressure(phase, ..) = what { Some((at, phase)) } else { None };
            found.into_iter().filter_map(of).collect::<Vec<_>>()
        };
        assert!(matches!(pressures(shop.seconds(1..100, 10, 10))[..], [(_, Phase::Begin)]));
        let found = pressures(shop.seconds(100..500, 0, 0));
        assert!(matches!(found[..], [(395..=410, Phase::Stopped)]), "{found:?}");
    }

    #[test]
    fn a_gap_between_two_processes_is_no_silence() {
        for gap in [12, 20, 50, 100, 290] {
            let mut shop = Shop::new();
            let mut found: Vec<Finding> = (1..700).flat_map(|second| shop.second_of("a", second, (10, 10), |_| {})).collect();
            for second in 700..700 + gap {
                shop.shard.advance(START + second * SECOND, &mut Vec::new());
            }
            found.extend((700 + gap..1_500).flat_map(|second| shop.second_of("b", second, (10, 10), |_| {})));
            assert!(found.is_empty(), "{gap} s: {found:?}");
        }
    }

    #[test]
    fn buckets_of_another_size_are_looked_at_as_well() {
        let mut shop = Shop::new();
        shop.seconds(1..700, 10, 10);
        let longer = |size: u64| {
            let mut longer = config().with_window(60 * SECOND, size * SECOND, &[50.0]).unwrap();
            longer.analysis = config().analysis;
            Arc::new(longer)
        };
        for (size, from) in [(5, 700), (1, 1_700)] {
            shop.shard.reconfigure(&longer(size), &Arc::default(), START + from * SECOND);
            assert_eq!(anomalies(&shop.seconds(from..from + 700, 10, 10)), [], "{size}");
            let found = anomalies(&shop.seconds(from + 700..from + 760, 10, 0));
            assert!(matches!(found[..], [(_, Phase::Begin, Signal::RateDown)]), "{size}: {found:?}");
            shop.seconds(from + 760..from + 1_000, 10, 10);
        }
    }

    #[test]
    fn what_changes_in_one_analyzer_leaves_the_others_alone() {
        let mut shop = Shop::new();
        shop.seconds(1..700, 10, 10);
        shop.seconds(700..740, 10, 0);
        let mut other = config();
        other.analysis.health = Some(HealthConfig::default());
        other.analysis.pattern = None;
        shop.shard.reconfigure(&Arc::new(other), &Arc::default(), START + 740 * SECOND);
        assert_eq!(shop.shard.take_findings(), []);
        let (_, circuit) = shop.shard.circuits().next().unwrap();
        assert_eq!((circuit.anomalies().count(), circuit.health().map(|(status, _)| status)), (1, Some(Status::Unknown)));
    }

    #[test]
    fn calls_that_change_hands_are_nothing_unusual() {
        let room = Arc::new(Room::new(9));
        let mut shard = CircuitBreakerMetricsCollector::new(Arc::new(config()), Arc::default(), room);
        // A gateway, of whose calls half are for another callee; that is known after ten minutes.
        let mut found = Vec::new();
        for number in 1..1_500 {
            let orders = if number > 600 { "orders" } else { "payments" };
            for part in 0..8 {
                let (callee, path) = if part % 2 == 0 { ("payments", "/pay") } else { (orders, "/orders") };
                trace_at(&mut shard, ("gateway", 80), path, callee, 2, number * 8 + part, START + number * SECOND);
            }
            shard.advance(START + number * SECOND, &mut Vec::new());
            found.extend(shard.take_findings());
        }
        assert_eq!(shard.circuits().filter(|(_, circuit)| !circuit.is_retired()).count(), 2);
        let begun: Vec<_> = found.iter().filter(|finding| finding.what.phase() == Phase::Begin).collect();
        assert!(begun.is_empty(), "{begun:?}");
    }

    #[test]
    fn what_holds_is_told_under_the_new_name_and_stopped_under_the_old() {
        let mut shop = Shop::new();
        shop.seconds(1..700, 10, 10);
        shop.seconds(700..740, 10, 0);
        let callee = Arc::new(Caller { service: "payments".into(), ..Caller::default() });
        let address = Hashed::of(shop.shard.hasher.hash_one(Target { named: false, text: b"pay", port: None }));
        let introduction = Introduction { shard: 0, circuit: 0, address, route: Route::default(), callee };
        shop.shard.introduce(&introduction, START + 740 * SECOND);
        let told: Vec<(String, Phase)> = shop.shard.take_findings().iter().map(|finding| (finding.circuit.name(), finding.what.phase())).collect();
        assert_eq!(told, [("pay".to_owned(), Phase::Stopped), ("payments".to_owned(), Phase::Begin)]);
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
        assert!((first.period.unwrap() - 300.0).abs() < 1.0 && then.certainty > first.certainty, "{regular:?}");
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
    }
}
