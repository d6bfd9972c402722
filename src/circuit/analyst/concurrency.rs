use crate::circuit::{
    analysis::{
        config::ResourceConfig,
        pressure::{Pressure, Usage},
    },
    finding::{Phase, Resource, What},
};

/// Seconds after which a long call is forgotten.
const MEMORY: f64 = 60.0;

/// How many calls of a circuit are under way at a time.
///
/// A call shows when it ends, and then counts in all buckets that it went through: a bucket is judged once calls as long
/// as the longest of the last minute can't change it any more.
#[derive(Clone, Debug)]
pub(super) struct Concurrency {
    limit: Option<f64>,
    pressure: Pressure,
    /// The longest call of the last minute, in seconds; fading.
    longest: f64,
    judged_to: u64,
}

impl Concurrency {
    /// From this bucket on.
    pub(super) fn new(config: &ResourceConfig, number: u64) -> Self {
        Self { limit: config.concurrency_limit, pressure: Pressure::new(config.marks), longest: 0.0, judged_to: number }
    }

    /// Notes the longest call of a bucket, in seconds.
    pub(super) fn see(&mut self, longest: f64, seconds: f64) {
        self.longest = longest.max(self.longest * (-seconds / MEMORY).exp());
    }

    /// Judges the buckets before this one that are final. `busy` is the time, in nanoseconds, that calls spent in one; `None`
    /// where nobody was heard of.
    pub(super) fn pass(
        &mut self,
        number: u64,
        bucket_size: u64,
        buckets: u64,
        teaches: bool,
        busy: impl Fn(u64) -> Option<u64>,
        found: &mut Vec<(u64, What)>,
    ) {
        let seconds = bucket_size as f64 / 1e9;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most the window")]
        let reach = (self.longest / seconds).ceil().clamp(1.0, buckets as f64) as u64;
        let to = number.saturating_sub(reach);
        // What left the window is not known any more.
        for bucket in self.judged_to.max(number.saturating_sub(buckets))..to {
            if let Some(busy) = busy(bucket) {
                let news = self.pressure.take(busy as f64 / bucket_size as f64, self.limit, seconds, teaches);
                let end = (bucket + 1).saturating_mul(bucket_size);
                found.extend(news.map(|(begins, usage)| (end, told(if begins { Phase::Begin } else { Phase::End }, usage))));
            }
        }
        self.judged_to = self.judged_to.max(to);
    }

    /// Nobody looks any more.
    pub(super) fn stop(&mut self, now: u64, found: &mut Vec<(u64, What)>) {
        found.extend(self.pressure.stop().map(|usage| (now, told(Phase::Stopped, usage))));
    }

    /// How it stands.
    pub(super) const fn newest(&self) -> Option<&Usage> {
        self.pressure.newest()
    }

    /// What is told of it now.
    pub(super) const fn told(&self) -> Option<&Usage> {
        self.pressure.told()
    }
}

const fn told(phase: Phase, usage: Usage) -> What {
    What::Pressure(phase, Resource::Concurrency, usage)
}
