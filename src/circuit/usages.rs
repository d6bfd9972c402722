//! What processes use up: the collector's part that judges what they tell of themselves.

use std::sync::Arc;

use super::{
    analysis::pressure::Pressure,
    collector::CircuitBreakerMetricsCollector,
    finding::{Finding, Phase, Resource, What},
    inspect::{Inspection, ResourceRecord},
    key::CircuitKey,
    process::Process,
};

const SECOND: u64 = 1_000_000_000;

/// What was not told again for so long is not known any more.
const KNOWN: u64 = 600 * SECOND;

/// A sample stands for the time since the one before, but not for longer than this, in seconds.
const SECONDS_MAX: f64 = 300.0;

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

/// What is known of the resources of one process: at most one entry for each.
pub(super) type Usages = Vec<Watched>;

#[derive(Clone, Debug)]
pub(super) struct Watched {
    resource: Resource,
    at: u64,
    pressure: Pressure,
}

impl CircuitBreakerMetricsCollector {
    /// Takes in what a process of this resource told of itself; nothing of processes that call nobody, or can't be told
    /// apart. Samples that come out of order, or twice, or at impossible times, are left out.
    pub fn use_up(&mut self, request: &[u8], inspection: &Inspection, record: &ResourceRecord, samples: &[Sample], now: u64) {
        let Some(config) = self.config.analysis.resource else { return };
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
                process.usages.push(Watched { resource, at: 0, pressure: Pressure::new(config.marks, resource.least()) });
                process.usages.len() - 1
            });
            let Some(watched) = process.usages.get_mut(place).filter(|watched| watched.at < at) else { continue };
            let seconds = if watched.at == 0 { 1.0 } else { ((at - watched.at) as f64 / 1e9).clamp(1.0, SECONDS_MAX) };
            watched.at = at;
            let limit = sample.limit.or_else(|| resource.own_limit());
            let news = watched.pressure.take(value, limit, seconds, teaches);
            found.extend(news.map(|(begins, usage)| (at, What::Pressure(if begins { Phase::Begin } else { Phase::End }, resource, usage))));
        }
        self.tell_of_process(index, found);
    }

    /// Forgets what a process did not tell again for long, or everything: it is gone, or nobody looks any more.
    pub(super) fn forget_usages(&mut self, index: usize, all: bool, now: u64) {
        let Some(process) = self.processes.get_mut(index) else { return };
        let mut found = Vec::new();
        process.usages.retain_mut(|watched| {
            let stays = !all && watched.at.saturating_add(KNOWN) >= now;
            if !stays && let Some(usage) = watched.pressure.stop() {
                found.push((now.max(watched.at), What::Pressure(Phase::Stopped, watched.resource, usage)));
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
        self.usages.capacity() * size_of::<Watched>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::{
        analysis::{
            config::{AnalysisConfig, ResourceConfig},
            pressure::Reference,
        },
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
        // Of processes that call nobody nothing is kept.
        let other = crate::circuit::testing::request("cart", "b", vec![call(2, START, START + 10, vec![])]);
        let inspection = inspect(&other, 0, &Rules::default(), u64::MAX).unwrap();
        let sample = Sample { resource: Resource::GoMemory, value: 5.0, limit: None, at: START };
        shard.use_up(&other, &inspection, &inspection.resources[0], &[sample], START);
        assert_eq!(shard.processes.iter().map(|(_, process)| process.usages.len()).sum::<usize>(), 0);
    }
}
