use crate::circuit::{
    analysis::{
        config::ResourceConfig,
        pressure::{Pressure, Usage},
    },
    finding::{Phase, Resource, What},
};

/// Seconds of which the mean is judged: in shorter ones chance alone makes too much of it.
const BLOCK: f64 = 10.0;

/// Half a call more or less under way, on the scale of square roots: as many as chance makes of one that takes as long as
/// a block.
const LEAST: f64 = 0.5;

/// How many calls of a circuit are under way at a time.
///
/// A call shows when it ends, and then counts in all buckets that it went through: a bucket is judged once calls as long
/// as the longest of the last two windows can't change it any more.
#[derive(Clone, Debug)]
pub(super) struct Concurrency {
    limit: Option<f64>,
    pressure: Pressure,
    /// The longest call, in nanoseconds, of the buckets before this window and in it, and where it began.
    longest: [u64; 2],
    since: u64,
    judged_to: u64,
    /// The block that fills: calls under way, summed over seconds, and those.
    filling: (f64, f64),
}

impl Concurrency {
    /// From this bucket on.
    pub(super) fn new(config: &ResourceConfig, number: u64) -> Self {
        let pressure = Pressure::new(config.marks, LEAST);
        Self { limit: config.concurrency_limit, pressure, longest: [0; 2], since: number, judged_to: number, filling: (0.0, 0.0) }
    }

    /// Notes the longest call of a bucket, in nanoseconds, where a window has so many.
    pub(super) fn see(&mut self, number: u64, longest: u64, buckets: u64) {
        if number >= self.since.saturating_add(buckets) {
            let [_, last] = self.longest;
            (self.longest, self.since) = ([last, 0], number);
        }
        let [_, now] = &mut self.longest;
        *now = (*now).max(longest);
    }

    /// Judges the buckets before this one that are final. `busy` is the time, in nanoseconds, that calls spent in one; `None`
    /// where nobody was heard of.
    pub(super) fn pass(
        &mut self,
        number: u64,
        (bucket_size, buckets): (u64, u64),
        teaches: bool,
        busy: impl Fn(u64) -> Option<u64>,
        found: &mut Vec<(u64, What)>,
    ) {
        let seconds = bucket_size as f64 / 1e9;
        let [before, now] = self.longest;
        // Of calls as long as the window the last bucket in it has to do.
        let reach = (before.max(now) / bucket_size + 1).min(buckets.saturating_sub(1));
        let to = number.saturating_sub(reach);
        // What left the window is not known any more.
        let known_from = number.saturating_sub(buckets);
        if self.judged_to < known_from {
            self.filling = (0.0, 0.0);
        }
        for bucket in self.judged_to.max(known_from)..to {
            let Some(busy) = busy(bucket) else {
                self.filling = (0.0, 0.0);
                self.pressure.unknown();
                continue;
            };
            self.filling = (self.filling.0 + busy as f64 / 1e9, self.filling.1 + seconds);
            let (sum, filled) = self.filling;
            if filled >= BLOCK {
                self.filling = (0.0, 0.0);
                let news = self.pressure.take(sum / filled, self.limit, filled, teaches);
                let end = (bucket + 1).saturating_mul(bucket_size);
                found.extend(news.map(|(begins, usage)| (end, told(if begins { Phase::Begin } else { Phase::End }, usage))));
            }
        }
        self.judged_to = self.judged_to.max(to);
    }

    /// Nobody looks any more.
    pub(super) fn stop(&mut self, now: u64, found: &mut Vec<(u64, What)>) {
        self.filling = (0.0, 0.0);
        found.extend(self.pressure.stop().map(|usage| (now, told(Phase::Stopped, usage))));
    }

    /// How it stands.
    pub(super) const fn newest(&self) -> Option<&Usage> {
        self.pressure.newest()
    }

    /// Of its limit the share that is under way, while it is at that.
    pub(super) fn at_limit(&self) -> Option<f64> {
        self.pressure.at_limit()
    }

    /// What is told of it now.
    pub(super) const fn told(&self) -> Option<&Usage> {
        self.pressure.told()
    }
}

const fn told(phase: Phase, usage: Usage) -> What {
    What::Pressure(phase, Resource::Concurrency, usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// What is told of seconds in which so many calls are under way, given the longest call.
    fn told_of(limit: Option<f64>, longest: u64, seconds: impl Fn(u64) -> Option<u64>) -> Vec<(u64, Phase)> {
        let config = ResourceConfig { concurrency_limit: limit, ..ResourceConfig::default() };
        let (mut calls, mut found) = (Concurrency::new(&config, 0), Vec::new());
        for number in 1..1_500 {
            calls.see(number, longest, 60);
            calls.pass(number, (SECOND, 60), true, |bucket| Some(seconds(bucket)? * SECOND), &mut found);
        }
        found
            .into_iter()
            .map(|(at, what)| if let What::Pressure(phase, Resource::Concurrency, _) = what { (at / SECOND, phase) } else { panic!("{what:?}") })
            .collect()
    }

    #[test]
    fn a_pool_that_fills_is_told_by_limit_and_by_baseline() {
        let fills = |bucket: u64| Some(if (1_000..1_100).contains(&bucket) { 19 } else { 4 });
        for limit in [Some(20.0), None] {
            let told = told_of(limit, SECOND / 10, fills);
            assert!(matches!(told[..], [(1_010..=1_040, Phase::Begin), (1_100..=1_150, Phase::End)]), "{limit:?}: {told:?}");
        }
        // A bucket is not judged while calls that are as long as these may still end.
        assert_eq!(told_of(Some(20.0), 30 * SECOND, fills), told_of(Some(20.0), SECOND / 10, fills));
    }

    #[test]
    fn a_call_now_and_then_is_no_pressure_and_a_gap_is_nothing() {
        assert_eq!(told_of(None, SECOND, |bucket| Some(u64::from(bucket % 97 < 2))), []);
        assert_eq!(told_of(None, SECOND, |bucket| (bucket % 300 > 100).then_some(5)), []);
    }
}
