//! What processes use up: the collector's part that judges what they tell of themselves.

use std::sync::Arc;

use super::{
    analysis::{
        config::AnalysisConfig,
        pressure::{Pressure, Reference},
        series::{Look, Scale, Series},
    },
    collector::CircuitBreakerMetricsCollector,
    finding::{Finding, Measured, Phase, Resource, What},
    inspect::{Inspection, ResourceRecord},
    key::{Caller, CircuitKey},
    process::Process,
};

const SECOND: u64 = 1_000_000_000;

/// What was not told again for so long is not known any more.
const KNOWN: u64 = 600 * SECOND;

/// A sample stands for the time since the one before, but not for longer than this, in seconds.
const SECONDS_MAX: f64 = 300.0;

/// Means that a trend is seen in, and the seconds that each is of at least: within some minutes alone what processes use up
/// wanders by itself.
const MEANS: usize = 30;
const MEAN_OF: f64 = 60.0;

/// Reports are at even distances if none comes later than after so many times the usual one.
const UNEVEN: f64 = 2.5;

/// What a process told of a resource.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Of which.
    pub resource: Resource,
    /// How much it uses.
    pub value: f64,
    /// Of how much, where that is told.
    pub limit: Option<f64>,
    /// When, in Unix nanoseconds.
    pub at: u64,
}

/// Something that holds of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OfProcess {
    /// Whose process it is.
    pub caller: Arc<Caller>,
    /// Which.
    pub instance: Arc<str>,
    /// Of what it uses up.
    pub resource: Resource,
    /// What holds of that.
    pub held: Held,
}

/// What holds of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Held {
    /// It is under pressure, against this: the share of a limit, or the multiple of its baseline.
    Usage(Reference),
    /// It rises or falls, a minute, as a share of its level.
    Trend,
}

/// What is known of the resources of one process: at most one entry for each.
pub(super) type Usages = Vec<Watched>;

#[derive(Clone, Debug)]
pub(super) struct Watched {
    resource: Resource,
    at: u64,
    pressure: Option<Pressure>,
    /// Seconds from one report to the next, as a mean.
    every: f64,
    /// Reports that the next mean is of, their sum, and their seconds.
    filling: (f64, f64, f64),
    series: Series,
}

impl Watched {
    fn new(resource: Resource, config: &AnalysisConfig) -> Self {
        let pressure = config.resource.map(|config| Pressure::new(config.marks, resource.least()));
        Self { resource, at: 0, pressure, every: 0.0, filling: (0.0, 0.0, 0.0), series: Series::default() }
    }

    /// Takes in a report that came so many seconds after the one before.
    fn follow(&mut self, value: f64, limit: Option<f64>, seconds: f64) -> Option<What> {
        if self.every > 0.0 && seconds > UNEVEN * self.every {
            return self.stop_trend();
        }
        self.every = if self.every > 0.0 { self.every + (seconds - self.every) / 8.0 } else { seconds };
        let (reports, sum, filled) = &mut self.filling;
        (*reports, *sum, *filled) = (*reports + 1.0, *sum + value, *filled + seconds);
        if *filled < MEAN_OF {
            return None;
        }
        let (reports, sum, step) = std::mem::take(&mut self.filling);
        let scale = if self.resource.own_limit().is_some() { Scale::Share } else { Scale::Log };
        let look = Look { scale, step, length: MEANS, limit };
        self.series.take(sum / reports, &look).map(|turn| What::of_turn(Measured::Resource(self.resource), turn))
    }

    /// Nobody looks any more.
    fn stop_pressure(&mut self) -> Option<What> {
        self.pressure.as_mut().and_then(Pressure::stop).map(|usage| What::Pressure(Phase::Stopped, self.resource, usage))
    }

    fn stop_trend(&mut self) -> Option<What> {
        (self.every, self.filling) = Default::default();
        self.series.begin_anew().map(|turn| What::of_turn(Measured::Resource(self.resource), turn))
    }
}

impl CircuitBreakerMetricsCollector {
    /// Takes in what a process of this resource told of itself; nothing of processes that call nobody, or can't be told
    /// apart. Samples that come out of order, or twice, or at impossible times, are left out.
    pub fn use_up(&mut self, request: &[u8], inspection: &Inspection, record: &ResourceRecord, samples: &[Sample], now: u64) {
        let config = Arc::clone(&self.config);
        let config = &config.analysis;
        if config.resource.is_none() && config.trend.is_none() {
            return;
        }
        let Some(index) = self.find_process(request, inspection, record) else { return };
        let (latest, earliest) = (now.saturating_add(self.config.max_clock_skew), now.saturating_sub(KNOWN));
        let Some(process) = self.processes.get(index as usize).filter(|process| !process.instance.is_empty()) else { return };
        // What is used up while a breaker is not closed is not the usual.
        let teaches = !process.circuits().any(|number| self.circuits.get(number as usize).is_some_and(|circuit| circuit.incident().is_some()));
        let Some(process) = self.processes.get_mut(index as usize) else { return };
        process.last_seen = now;
        let mut found = Vec::new();
        for sample in samples.iter().filter(|sample| (earliest..=latest).contains(&sample.at)) {
            let Sample { resource, value, at, .. } = *sample;
            let known = process.usages.iter().position(|watched| watched.resource == resource);
            let place = known.unwrap_or_else(|| {
                process.usages.push(Watched::new(resource, config));
                process.usages.len() - 1
            });
            let Some(watched) = process.usages.get_mut(place).filter(|watched| watched.at < at) else { continue };
            let passed = (watched.at > 0).then(|| (at - watched.at) as f64 / 1e9);
            let seconds = passed.map_or(1.0, |passed| passed.clamp(1.0, SECONDS_MAX));
            watched.at = at;
            let limit = sample.limit.or_else(|| resource.own_limit());
            let news = watched.pressure.as_mut().and_then(|pressure| pressure.take(value, limit, seconds, teaches));
            found.extend(news.map(|(begins, usage)| (at, What::Pressure(if begins { Phase::Begin } else { Phase::End }, resource, usage))));
            if let Some(passed) = passed.filter(|_| config.trend.is_some()) {
                found.extend(watched.follow(value, limit, passed).map(|what| (at, what)));
            }
        }
        self.tell_of_process(index, found);
    }

    /// What holds of a process now.
    pub(super) fn note_holding(&mut self, index: usize) {
        let Some(process) = self.processes.get(index).filter(|process| !process.usages.is_empty()) else { return };
        for watched in &process.usages {
            let of =
                |held| OfProcess { caller: Arc::clone(&process.caller), instance: Arc::clone(&process.instance), resource: watched.resource, held };
            let usage = watched.pressure.as_ref().and_then(Pressure::told).map(|usage| (of(Held::Usage(usage.reference)), usage.usage));
            let trend = watched.series.told().and_then(|course| course.relative).map(|relative| (of(Held::Trend), relative));
            self.holding.extend(usage.into_iter().chain(trend));
        }
    }

    /// What held of processes in the last round.
    pub fn take_holding(&mut self) -> Vec<(OfProcess, f64)> {
        std::mem::take(&mut self.holding)
    }

    /// Goes over to other settings from now on. What they change begins anew.
    pub(super) fn look_for_usages(&mut self, index: usize, old: &AnalysisConfig, now: u64) {
        let new = self.config.analysis.clone();
        let Some(process) = self.processes.get_mut(index) else { return };
        let mut found = Vec::new();
        for watched in &mut process.usages {
            let at = now.max(watched.at);
            if old.resource != new.resource {
                found.extend(watched.stop_pressure().map(|what| (at, what)));
                watched.pressure = Watched::new(watched.resource, &new).pressure;
            }
            if old.trend != new.trend {
                found.extend(watched.stop_trend().map(|what| (at, what)));
            }
        }
        if new.resource.is_none() && new.trend.is_none() {
            process.usages = Usages::new();
        }
        self.tell_of_process(u32::try_from(index).unwrap_or(u32::MAX), found);
    }

    /// Forgets what a process did not tell again for long, or everything: it is gone, or nobody looks any more.
    pub(super) fn forget_usages(&mut self, index: usize, all: bool, now: u64) {
        let Some(process) = self.processes.get_mut(index) else { return };
        let mut found = Vec::new();
        process.usages.retain_mut(|watched| {
            let stays = !all && watched.at.saturating_add(KNOWN) >= now;
            if !stays {
                let at = now.max(watched.at);
                found.extend(watched.stop_pressure().into_iter().chain(watched.stop_trend()).map(|what| (at, what)));
            }
            stays
        });
        self.tell_of_process(u32::try_from(index).unwrap_or(u32::MAX), found);
    }

    /// What concerns a process is told of its service: its circuits come and go under other names.
    fn tell_of_process(&mut self, index: u32, found: Vec<(u64, What)>) {
        let Some(process) = self.processes.get(index as usize).filter(|_| !found.is_empty()) else { return };
        let circuit = Arc::new(CircuitKey { caller: Arc::clone(&process.caller), ..CircuitKey::default() });
        let instance = &process.instance;
        self.findings.extend(found.into_iter().map(|(at, what)| Finding {
            at,
            circuit: Arc::clone(&circuit),
            instance: Arc::clone(instance),
            incident: None,
            what,
        }));
    }
}

impl Process {
    /// Bytes that what is known of its resources takes.
    pub(super) fn usage_bytes(&self) -> usize {
        self.usages.capacity() * size_of::<Watched>() + self.usages.iter().map(|watched| watched.series.heap_bytes()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::{
        analysis::config::{ResourceConfig, TrendConfig},
        config::CircuitMetricsConfig,
        inspect::{Rules, inspect},
        room::Room,
        testing::{START, call, request, text},
    };

    #[test]
    fn memory_at_its_limit_is_told_of_the_process_and_not_for_ever() {
        let mut config = CircuitMetricsConfig::default();
        config.analysis = AnalysisConfig { resource: Some(ResourceConfig::default()), ..AnalysisConfig::default() };
        let mut shard = CircuitBreakerMetricsCollector::new(Arc::new(config.clone()), Arc::default(), Arc::new(Room::new(9)));
        let spans = ["pay", "stock"].map(|callee| call(1, START, START + 10, vec![text("server.address", callee)]));
        let request = request("shop", "a", spans.to_vec());
        let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
        shard.apply(&request, &inspection, |_| true, START);
        let record = inspection.resources[0];
        let tell = |shard: &mut CircuitBreakerMetricsCollector, minute: u64, value: f64| {
            let sample = Sample { resource: Resource::JvmMemory, value, limit: Some(1_000.0), at: START + minute * 60 * SECOND };
            // Sent twice: it counts once.
            (0..2).for_each(|_| shard.use_up(&request, &inspection, &record, &[sample], sample.at));
            shard.take_findings()
        };
        assert!((0..10).all(|minute| tell(&mut shard, minute, 500.0).is_empty()));
        let found: Vec<Finding> = (10..20).flat_map(|minute| tell(&mut shard, minute, 950.0)).collect();
        let names: Vec<(&str, String, &str)> =
            found.iter().map(|finding| (&*finding.circuit.caller.service, finding.circuit.name(), &*finding.instance)).collect();
        assert_eq!(names, [("shop", String::new(), "a")], "once, though it calls two callees");
        let What::Pressure(Phase::Begin, Resource::JvmMemory, usage) = found[0].what else { panic!("{found:?}") };
        assert_eq!((usage.seen, usage.usage, usage.reference), (950.0, 0.95, Reference::Limit));
        shard.note_holding(0);
        let holding = shard.take_holding();
        assert!(
            matches!(&holding[..], [(OfProcess { instance, held: Held::Usage(Reference::Limit), .. }, 0.95)] if &**instance == "a"),
            "{holding:?}"
        );
        // A sample that says it is of another time is none.
        for at in [u64::MAX, 1, START + 365 * 86_400 * SECOND] {
            let sample = Sample { resource: Resource::JvmMemory, value: 1.0, limit: Some(1_000.0), at };
            shard.use_up(&request, &inspection, &record, &[sample], START + 19 * 60 * SECOND);
        }
        // It says nothing more.
        shard.forget_usages(0, false, START + 19 * 60 * SECOND + KNOWN);
        assert_eq!(shard.take_findings(), []);
        shard.forget_usages(0, false, START + 19 * 60 * SECOND + KNOWN + 1);
        assert!(matches!(shard.take_findings()[..], [Finding { what: What::Pressure(Phase::Stopped, ..), .. }]));
        shard.note_holding(0);
        assert_eq!(shard.take_holding(), []);
        // Of processes that call nobody nothing is kept.
        let other = crate::circuit::testing::request("cart", "b", vec![call(2, START, START + 10, vec![])]);
        let inspection = inspect(&other, 0, &Rules::default(), u64::MAX).unwrap();
        let sample = Sample { resource: Resource::GoMemory, value: 5.0, limit: None, at: START };
        shard.use_up(&other, &inspection, &inspection.resources[0], &[sample], START);
        assert_eq!(shard.processes.iter().map(|(_, process)| process.usages.len()).sum::<usize>(), 0);
    }

    /// Findings of memory of a process that reports every so many seconds.
    fn told_of(value: impl Fn(u64) -> f64, reports: u64, seconds: impl Fn(u64) -> u64) -> Vec<(u64, What)> {
        let mut config = CircuitMetricsConfig::default();
        config.analysis = AnalysisConfig { trend: Some(TrendConfig::default()), ..AnalysisConfig::default() };
        let mut shard = CircuitBreakerMetricsCollector::new(Arc::new(config), Arc::default(), Arc::new(Room::new(9)));
        let request = request("shop", "a", vec![call(1, START, START + 10, vec![text("server.address", "pay")])]);
        let inspection = inspect(&request, 0, &Rules::default(), u64::MAX).unwrap();
        shard.apply(&request, &inspection, |_| true, START);
        let (mut at, mut found) = (START, Vec::new());
        for report in 0..reports {
            at += seconds(report) * SECOND;
            let sample = Sample { resource: Resource::JvmMemory, value: value(report), limit: Some(1_000.0), at };
            shard.use_up(&request, &inspection, &inspection.resources[0], &[sample], at);
            found.extend(shard.take_findings().into_iter().map(|finding| (report, finding.what)));
        }
        found
    }

    #[test]
    fn memory_that_leaks_is_told_with_the_time_that_is_left() {
        // Collected every few minutes, and each time a little more is left.
        let garbage = |report: u64| (report % 4) as f64 * 8.0;
        let leaks = |report: u64| 300.0 + garbage(report) + report.saturating_sub(60) as f64 * 10.0;
        let found = told_of(leaks, 110, |_| 60);
        let [(report, What::Trend(Phase::Begin, trend))] = found[..] else { panic!("{found:?}") };
        assert!((62..95).contains(&report) && trend.signal == Measured::Resource(Resource::JvmMemory), "{report} {trend:?}");
        assert!((trend.course.slope / 10.0 - 1.0).abs() < 0.5, "{trend:?}");
        assert_eq!(told_of(|report| 300.0 + garbage(report), 300, |_| 60), []);
        // It takes as long where reports come each ten seconds.
        let found = told_of(|report| leaks(report / 6), 660, |_| 10);
        assert!(matches!(found[..], [(372..570, What::Trend(Phase::Begin, _))]), "{found:?}");
    }

    #[test]
    fn after_a_gap_a_trend_begins_anew() {
        let leaks = |report: u64| 100.0 + report as f64 * 10.0;
        let found = told_of(leaks, 60, |report| if report == 50 { 400 } else { 60 });
        assert!(matches!(found[..], [(_, What::Trend(Phase::Begin, _)), (50, What::Trend(Phase::Stopped, _))]), "{found:?}");
    }
}
