//! How long the calls of a circuit usually take.

/// How long calls that go well take: the mean of the logarithm of their nanoseconds and its mean deviation, over the
/// last 250 or so that were looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usual {
    mean: f32,
    deviation: f32,
    seen: u8,
}

/// Calls from which on it is known how long they usually take.
const USUAL_FROM: u8 = 50;
/// No call that ends sooner is slow. Nanoseconds.
pub(super) const SLOW_MIN: u64 = 100_000_000;
/// So many mean deviations above the mean is slow.
const SLOW_DEVIATIONS: f32 = 4.0;

impl Usual {
    /// Whether a call took much longer than that.
    pub(super) fn is_slow(&self, nanos: u64) -> bool {
        nanos > SLOW_MIN && self.seen >= USUAL_FROM && (nanos as f32).ln() > self.mean + SLOW_DEVIATIONS * self.deviation
    }

    /// Takes in a call that went well, unless it was slow.
    pub(super) fn see(&mut self, nanos: u64) {
        if self.is_slow(nanos) {
            return;
        }
        let log = (nanos.max(1) as f32).ln();
        if self.seen == 0 {
            (self.mean, self.deviation) = (log, 0.5);
        }
        let weight = 1.0 / (f32::from(self.seen) + 1.0);
        self.deviation += weight * ((log - self.mean).abs() - self.deviation);
        self.mean += weight * (log - self.mean);
        self.seen = self.seen.saturating_add(1);
    }
}
