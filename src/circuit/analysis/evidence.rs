//! What one bucket says for a lasting shift, as evidence in nats; and how widely a healthy signal spreads.
//!
//! Each is the logarithm of how much likelier the bucket is after the smallest shift worth finding than before it. Counts are
//! tested as counts, so that few calls and heavy tails need no other treatment.
//! Sources: Page, Continuous inspection schemes, 1954, for the sums that are made of it; `McCullagh` and Nelder, Generalized
//! linear models, for the dispersion; Huber for the clipping.

/// The smallest share of the rate that a lasting change must have to be worth finding.
const RATE_LEAST: f64 = 0.2;

/// The lowest rate that is told from silence, in calls a bucket.
pub const RATE_MIN: f64 = 0.02;

/// Residuals beyond so many deviations, squared, teach no more than this.
const CLIP: f64 = 9.0;

/// How much wider than by chance alone a healthy signal spreads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Of one bucket, as a factor of its variance; at least 1.
    pub bucket: f64,
    /// In the long run, where buckets resemble each other: at least that of one bucket.
    pub lasting: f64,
}

impl Spread {
    /// As chance alone has it.
    pub const CHANCE: Self = Self { bucket: 1.0, lasting: 1.0 };
}

/// What one bucket says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// For the shift; below 0 against it.
    pub nats: f64,
    /// How far it lies off the baseline, in deviations of one bucket; 0 on the other side.
    pub deviations: f64,
}

/// Which way a signal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// More than usual.
    Up,
    /// Less than usual.
    Down,
}

/// `count * ln(ratio)`, 0 where nothing was counted.
fn log_of(count: f64, ratio: f64) -> f64 {
    if count > 0.0 { count * ratio.ln() } else { 0.0 }
}

/// `hits` of `all` where a share of `usual` is, and `least` more is worth finding, or `threshold` deviations of one bucket if
/// that is more. `None` without any.
pub fn of_share(hits: f64, all: f64, usual: f64, least: f64, threshold: f64, spread: Spread) -> Option<Evidence> {
    if all <= 0.0 || !(0.0..1.0).contains(&usual) || usual <= 0.0 {
        return None;
    }
    let deviation = (spread.bucket * usual * (1.0 - usual) / all).sqrt();
    let shifted = (usual + least.max(threshold * deviation)).min(f64::midpoint(1.0, usual));
    let misses = all - hits;
    let nats = (log_of(hits, shifted / usual) + log_of(misses, (1.0 - shifted) / (1.0 - usual))) / spread.lasting;
    let apart = || log_of(hits, hits / (all * usual)) + log_of(misses, misses / (all * (1.0 - usual)));
    let deviations = if hits > all * usual { deviations_of(apart(), spread) } else { 0.0 };
    Some(Evidence { nats, deviations })
}

/// `count` calls in a bucket where `usual` are, at least [`RATE_MIN`].
pub fn of_rate(count: f64, usual: f64, side: Side, threshold: f64, spread: Spread) -> Evidence {
    let usual = usual.max(RATE_MIN);
    let shift = (RATE_LEAST * usual).max(threshold * (spread.bucket * usual).sqrt());
    let shifted = match side {
        Side::Up => usual + shift,
        Side::Down => (usual - shift).max(usual / 2.0),
    };
    let nats = (log_of(count, shifted / usual) - (shifted - usual)) / spread.lasting;
    let is_beyond = match side {
        Side::Up => count > usual,
        Side::Down => count < usual,
    };
    let apart = || log_of(count, count / usual) - (count - usual);
    Evidence { nats, deviations: if is_beyond { deviations_of(apart(), spread) } else { 0.0 } }
}

/// Deviations of one bucket, by how much likelier what was seen makes itself than what is usual does, in nats.
fn deviations_of(apart: f64, spread: Spread) -> f64 {
    (2.0 * apart.max(0.0) / spread.bucket).sqrt()
}

/// A value that is no count, above its mean by so many of its deviations.
pub fn of_value(value: f64, mean: f64, deviation: f64, threshold: f64, spread: Spread) -> Option<Evidence> {
    let away = (value - mean) / (deviation * spread.bucket.sqrt());
    let nats = (threshold * away - threshold * threshold / 2.0) * spread.bucket / spread.lasting;
    away.is_finite().then_some(Evidence { nats, deviations: away.max(0.0) })
}

/// Learns how widely a healthy signal spreads beyond chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dispersion {
    bucket: f64,
    block: f64,
    /// Seconds that were learned from.
    age: f64,
    /// The block that fills: residuals, variances, seconds.
    filling: (f64, f64, f64),
    blocks: f64,
}

/// Seconds of a block: what resembles itself for longer is not noticed.
const BLOCK: f64 = 64.0;

impl Default for Dispersion {
    fn default() -> Self {
        Self { bucket: 1.0, block: 1.0, age: 0.0, filling: (0.0, 0.0, 0.0), blocks: 0.0 }
    }
}

impl Dispersion {
    /// A healthy bucket of so many seconds lay so far off its expectation, where chance alone has this variance.
    pub fn learn(&mut self, residual: f64, variance: f64, seconds: f64) {
        if variance <= 0.0 || !residual.is_finite() {
            return;
        }
        let pace = (seconds / 600.0).max(seconds / (self.age + 60.0)).min(1.0);
        self.bucket += pace * ((residual * residual / variance).min(CLIP * self.bucket.max(1.0)) - self.bucket);
        self.age += seconds;
        let (residuals, variances, filled) = &mut self.filling;
        *residuals += residual;
        *variances += variance;
        *filled += seconds;
        if *filled >= BLOCK {
            let seen = *residuals * *residuals / *variances;
            let pace = (BLOCK / 3_600.0).max(1.0 / (self.blocks + 2.0));
            self.block += pace * (seen.min(CLIP * self.block.max(1.0)) - self.block);
            self.blocks += 1.0;
            self.filling = (0.0, 0.0, 0.0);
        }
    }

    /// What was learned.
    pub const fn spread(&self) -> Spread {
        let bucket = self.bucket.max(1.0);
        Spread { bucket, lasting: bucket.max(self.block) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEAST: f64 = 0.05;

    fn close(seen: f64, expected: f64) -> bool {
        (seen - expected).abs() < 1e-5
    }

    #[test]
    fn known_values_come_out() {
        let tail = |hits, spread| of_share(hits, 50.0, 0.1, LEAST, 2.0, spread).unwrap();
        let plain = tail(16.0, Spread::CHANCE);
        assert!(close(plain.nats, 6.463_35) && close(plain.deviations, 4.261_49), "{plain:?}");
        assert!(close(tail(16.0, Spread { bucket: 1.5, lasting: 2.0 }).nats, 3.614_70));
        assert!(close(tail(5.0, Spread::CHANCE).nats, -1.384_22));
        let errors = of_share(3.0, 50.0, 0.006, 0.01, 2.0, Spread::CHANCE).unwrap();
        assert!(close(errors.nats, 3.560_14) && close(errors.deviations, 2.926_59), "{errors:?}");
        let up = of_rate(80.0, 50.0, Side::Up, 2.0, Spread::CHANCE);
        assert!(close(up.nats, 5.784_14) && close(up.deviations, 3.898_79), "{up:?}");
        let down = of_rate(30.0, 50.0, Side::Down, 2.0, Spread::CHANCE);
        assert!(close(down.nats, 4.168_33) && close(down.deviations, 3.057_85), "{down:?}");
        assert!(close(of_rate(2.0, 5.0, Side::Down, 2.0, Spread::CHANCE).nats, 1.113_71));
    }

    #[test]
    fn no_calls_say_nothing() {
        assert_eq!(of_share(0.0, 0.0, 0.1, LEAST, 2.0, Spread::CHANCE), None);
        assert_eq!(of_value(f64::NAN, 0.0, 1.0, 2.0, Spread::CHANCE), None);
        assert_eq!(of_value(1.0, 0.0, 0.0, 2.0, Spread::CHANCE), None, "a value that never moved");
    }

    #[test]
    fn what_resembles_itself_spreads_further_in_the_long_run() {
        let mut alternating = Dispersion::default();
        let mut lasting = Dispersion::default();
        for second in 0..3_600 {
            alternating.learn(if second % 2 == 0 { 1.0 } else { -1.0 }, 1.0, 1.0);
            lasting.learn(if second / 100 % 2 == 0 { 1.0 } else { -1.0 }, 1.0, 1.0);
        }
        assert!((alternating.spread().lasting - 1.0).abs() < 1e-6, "{alternating:?}");
        assert!(lasting.spread().lasting > 10.0 && lasting.spread().bucket < 1.1, "{lasting:?}");
    }

    proptest! {
        #[test]
        fn more_hits_are_more_evidence(all in 1..500_u32, usual in 0.001..0.9_f64, hits in 0..499_u32, threshold in 1.0..6.0_f64) {
            prop_assume!(hits < all);
            let of = |hits: u32| of_share(f64::from(hits), f64::from(all), usual, LEAST, threshold, Spread::CHANCE).unwrap();
            let (fewer, more) = (of(hits), of(hits + 1));
            prop_assert!(more.nats > fewer.nats && more.deviations >= fewer.deviations);
            prop_assert!(more.nats.is_finite() && more.deviations.is_finite());
        }

        #[test]
        fn the_usual_rate_speaks_against_any_change(usual in 0.1..5_000.0_f64, threshold in 1.0..6.0_f64) {
            for side in [Side::Up, Side::Down] {
                let seen = of_rate(usual, usual, side, threshold, Spread::CHANCE);
                prop_assert!(seen.nats < 0.0 && seen.deviations == 0.0);
            }
        }
    }
}
