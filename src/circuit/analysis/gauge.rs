//! What is unusual in a value that is no count, such as how many calls are under way: the chart of
//! [`chart`](super::chart) over a rolling mean that does not learn what is unusual.
//!
//! Source for the clipping of what teaches the baseline: Huber, Robust estimation of a location parameter, 1964.

use super::{
    chart::{Chart, Step},
    evidence::{Dispersion, of_value},
};

/// Seconds over which the baseline forgets.
const MEMORY: f64 = 300.0;

/// Seconds, and values, after which it is judged: what resembles itself has to show how much.
const FROM: f64 = 300.0;
const VALUES_MIN: u32 = 30;

/// A value is taken to spread by this share of its mean at least.
const SPREAD_MIN: f64 = 0.025;

/// Innovations beyond so many deviations teach no more than these.
const CLIP: f64 = 3.0;

/// Of a normal distribution: deviations in a mean absolute one.
const MEAN_ABSOLUTE: f64 = 1.2533;

/// What has been unusual for so many seconds is the usual from then on.
const ACCEPTED: f64 = 1_800.0;

/// Watches one value for lasting shifts upwards. About 200 bytes.
#[derive(Clone, Debug)]
pub struct Gauge {
    threshold: f64,
    /// It is taken to spread by this at least.
    least: f64,
    age: f64,
    values: u32,
    mean: f64,
    /// Mean absolute innovation.
    innovation: f64,
    dispersion: Dispersion,
    chart: Chart,
    open_for: f64,
}

/// What a value did, and how it stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// What it did to the chart.
    pub step: Step,
    /// Deviations above the baseline; 0 below it.
    pub score: f64,
    /// The baseline.
    pub mean: f64,
}

impl Gauge {
    /// Looks for lasting shifts of so many deviations, 1 to 6.
    ///
    /// A deviation is `least` at least, and a fortieth of the mean.
    pub fn new(threshold: f64, least: f64) -> Self {
        Self {
            threshold,
            least,
            values: 0,
            age: 0.0,
            mean: 0.0,
            innovation: 0.0,
            dispersion: Dispersion::default(),
            chart: Chart::default(),
            open_for: 0.0,
        }
    }

    /// Whether it is unusual.
    pub const fn is_open(&self) -> bool {
        self.chart.is_open()
    }

    /// The rolling mean, and whether it is known yet.
    pub fn baseline(&self) -> Option<f64> {
        (self.age >= FROM && self.values >= VALUES_MIN).then_some(self.mean)
    }

    /// Looks at it as if it were not unusual.
    pub fn close(&mut self) {
        self.chart.close();
        self.open_for = 0.0;
    }

    fn deviation(&self) -> f64 {
        (MEAN_ABSOLUTE * self.innovation).max(self.least).max(SPREAD_MIN * self.mean.abs())
    }

    /// Takes in a value of so many seconds; `teaches`: whether it shows what is usual. One that is not finite is left out.
    pub fn take(&mut self, value: f64, seconds: f64, teaches: bool) -> Reading {
        let mean = self.mean;
        if !value.is_finite() {
            return Reading { step: if self.is_open() { Step::GoesOn } else { Step::Quiet }, score: 0.0, mean };
        }
        let evidence = of_value(value, mean, self.deviation(), self.threshold, self.dispersion.spread()).filter(|_| self.baseline().is_some());
        let score = evidence.map_or(0.0, |evidence| evidence.deviations);
        let mut step = match evidence {
            Some(evidence) => self.chart.step(evidence, self.age, seconds),
            None if self.is_open() => Step::GoesOn,
            None => Step::Quiet,
        };
        self.open_for = if self.is_open() { self.open_for + seconds } else { 0.0 };
        if self.open_for >= ACCEPTED {
            step = self.chart.close();
            *self = Self::new(self.threshold, self.least);
        }
        if teaches && self.chart.lets_learn() {
            self.learn(value, seconds);
        }
        Reading { step, score, mean }
    }

    fn learn(&mut self, value: f64, seconds: f64) {
        if self.age == 0.0 {
            self.mean = value;
        }
        let deviation = self.deviation();
        let off = value - self.mean;
        // The first ones have nothing to be held against.
        let clipped = if self.age < 30.0 { off } else { off.clamp(-CLIP * deviation, CLIP * deviation) };
        self.dispersion.learn(off, deviation * deviation, seconds);
        // Of rare values as many are remembered as it takes to know it.
        let most = if self.values < VALUES_MIN { 1.0 } else { 1.0 / f64::from(VALUES_MIN) };
        let pace = (seconds / MEMORY).max(seconds / (self.age + 60.0)).min(most);
        self.innovation += pace * (clipped.abs() - self.innovation);
        self.mean += pace * clipped;
        self.age += seconds;
        self.values = self.values.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Some unevenness that is the same each time.
    fn noise(at: u32) -> f64 {
        f64::from(at.wrapping_mul(2_654_435_761) >> 16) / 65_536.0 - 0.5
    }

    fn after(seconds: u32) -> Gauge {
        let mut gauge = Gauge::new(2.0, 0.01);
        (0..seconds).for_each(|at| assert_eq!(gauge.take(10.0 + noise(at), 1.0, true).step, Step::Quiet, "at {at}"));
        gauge
    }

    #[test]
    fn a_lasting_shift_is_found_soon_and_ends_soon() {
        let mut gauge = after(1_200);
        let opened = (0..60).find(|at| gauge.take(12.0 + noise(*at), 1.0, true).step == Step::Opened).unwrap();
        assert!(opened <= 5, "{opened}");
        let closed = (0..60).find(|at| gauge.take(10.0 + noise(*at), 1.0, true).step == Step::Closed).unwrap();
        assert!(closed <= 20, "{closed}");
        assert!((gauge.baseline().unwrap() - 10.0).abs() < 0.2);
    }

    #[test]
    fn an_incident_is_not_learned_and_a_new_level_is_in_the_end() {
        let mut gauge = after(1_200);
        (0..1_000).for_each(|at| _ = gauge.take(20.0 + noise(at), 1.0, true));
        assert!(gauge.is_open() && (gauge.baseline().unwrap() - 10.0).abs() < 0.5);
        (0..1_500).for_each(|at| _ = gauge.take(20.0 + noise(at), 1.0, true));
        assert!(!gauge.is_open() && (gauge.baseline().unwrap() - 20.0).abs() < 0.5);
    }

    #[test]
    fn a_value_that_never_moves_says_nothing_until_it_does() {
        let mut gauge = Gauge::new(2.0, 0.01);
        (0..1_000).for_each(|_| assert_eq!(gauge.take(3.0, 1.0, true).step, Step::Quiet));
        assert_eq!(gauge.take(f64::NAN, 1.0, true), Reading { step: Step::Quiet, score: 0.0, mean: 3.0 });
        assert!((0..3).any(|_| gauge.take(30.0, 1.0, true).step == Step::Opened));
    }

    proptest! {
        #[test]
        fn it_opens_and_closes_in_turn(values in vec(prop_oneof![Just(f64::NAN), Just(f64::INFINITY), -1e12..1e12_f64, 0.0..1.0_f64], 1..2_000)) {
            let mut gauge = Gauge::new(2.0, 0.01);
            let mut open = false;
            for value in values {
                let reading = gauge.take(value, 1.0, true);
                prop_assert_eq!(open, matches!(reading.step, Step::GoesOn | Step::Closed));
                open = matches!(reading.step, Step::Opened | Step::GoesOn);
                prop_assert_eq!(open, gauge.is_open());
                prop_assert!(reading.score.is_finite() && reading.mean.is_finite());
            }
        }
    }
}
