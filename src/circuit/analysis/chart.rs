//! A chart of evidence: opens when enough has been summed up, closes when enough speaks against it.
//!
//! Source: Page, Continuous inspection schemes, 1954; that such a sum is the fastest there is at its rate of false alarms:
//! Moustakides, 1986.

use super::evidence::Evidence;

/// Evidence, in nats, at which a chart opens. It sets how often that is false: 13 makes about one event in three days of a
/// circuit's five counts; 10 makes ten times as many.
pub const ENOUGH: f64 = 13.0;

/// No bucket alone opens a chart: it counts for no more than this share of what is enough.
pub(super) const BUCKET_MAX: f64 = 0.6;

/// Nor does one close it.
const BUCKET_MAX_BACK: f64 = 0.3;

/// Deviations of a gross shift: two buckets in a row open a chart at once.
const GROSS: f64 = 5.0;

/// Seconds until a baseline is no longer young; until then up to three times the evidence is needed.
const YOUNG: f64 = 600.0;

/// Seconds in which a habit fades: a week.
const FADES: f64 = 604_800.0;

/// Each time that a chart opens makes the next one so much harder, where that is asked for; up to ten times.
const HARDER: f64 = 1.5;
const HARDER_MAX: f64 = 10.0;

/// One side of one signal of a circuit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chart {
    /// While closed: evidence for a shift. While open: against it.
    sum: f64,
    /// Seconds for which the sum has been above 0.
    rising: f64,
    /// Gross buckets in a row.
    gross: u8,
    open: bool,
    /// What keeps coming back needs so many times the evidence.
    habit: f64,
    habituates: bool,
}

/// What a bucket did to a chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It stays closed.
    Quiet,
    /// It opened.
    Opened,
    /// It stays open.
    GoesOn,
    /// It closed.
    Closed,
}

impl Default for Chart {
    fn default() -> Self {
        Self { sum: 0.0, rising: 0.0, gross: 0, open: false, habit: 1.0, habituates: false }
    }
}

impl Chart {
    /// One that reports what keeps coming back ever less readily.
    pub fn habituating() -> Self {
        Self { habituates: true, ..Self::default() }
    }

    /// Whether it is open.
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Seconds for which evidence has been summed up: since when there is a shift while it is closed, since when it is over
    /// while it is open.
    pub const fn rising(&self) -> f64 {
        self.rising
    }

    /// A bucket of so many seconds had nothing to judge: evidence is not newer for that.
    pub fn wait(&mut self, seconds: f64) {
        if self.rising > 0.0 {
            self.rising += seconds;
        }
    }

    /// Whether a baseline may be learned beside it: it is closed, and little speaks for a shift.
    pub fn lets_learn(&self) -> bool {
        !self.open && self.sum < ENOUGH / 2.0
    }

    /// Takes a bucket of so many seconds in, where the baseline is so many seconds old.
    pub fn step(&mut self, evidence: Evidence, age: f64, seconds: f64) -> Step {
        let needed = self.needed(age, seconds);
        if self.open {
            self.sum = (self.sum - evidence.nats.max(-BUCKET_MAX_BACK * ENOUGH)).max(0.0);
            self.rising = if self.sum > 0.0 { self.rising + seconds } else { 0.0 };
            return if self.sum >= ENOUGH / 2.0 { self.close() } else { Step::GoesOn };
        }
        self.sum = (self.sum + evidence.nats.min(BUCKET_MAX * needed)).max(0.0);
        self.rising = if self.sum > 0.0 { self.rising + seconds } else { 0.0 };
        self.gross = if evidence.deviations >= GROSS * (needed / ENOUGH).sqrt() { self.gross.saturating_add(1) } else { 0 };
        if self.sum >= needed || self.gross >= 2 { self.open() } else { Step::Quiet }
    }

    /// Opens it for another reason than its own evidence.
    pub fn open(&mut self) -> Step {
        (self.sum, self.rising, self.open) = (0.0, 0.0, true);
        if self.habituates {
            self.habit = (self.habit * HARDER).min(HARDER_MAX);
        }
        Step::Opened
    }

    /// Closes it: what was a shift is the usual now, or is over.
    pub const fn close(&mut self) -> Step {
        (self.sum, self.rising, self.gross, self.open) = (0.0, 0.0, 0, false);
        Step::Closed
    }

    /// The evidence that opens it now.
    pub(super) fn needed(&mut self, age: f64, seconds: f64) -> f64 {
        self.habit += (1.0 - self.habit) * (seconds / FADES).min(1.0);
        ENOUGH * self.habit * (1.0 + 2.0 * (1.0 - age / YOUNG).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const OLD: f64 = 10_000.0;

    fn nats(nats: f64) -> Evidence {
        Evidence { nats, deviations: 0.0 }
    }

    #[test]
    fn enough_evidence_opens_and_enough_against_closes() {
        let mut chart = Chart::default();
        let steps: Vec<Step> = [5.0, 5.0, 5.0, 1.0, -4.0, -4.0, 0.0].map(|l| chart.step(nats(l), OLD, 1.0)).to_vec();
        use Step::{Closed, GoesOn, Opened, Quiet};
        assert_eq!(steps, [Quiet, Quiet, Opened, GoesOn, GoesOn, Closed, Quiet]);
    }

    #[test]
    fn no_bucket_alone_opens_or_closes_it() {
        let mut chart = Chart::default();
        assert_eq!(chart.step(Evidence { nats: 1e9, deviations: 1e9 }, OLD, 1.0), Step::Quiet);
        assert_eq!(chart.step(Evidence { nats: 1e9, deviations: 1e9 }, OLD, 1.0), Step::Opened);
        assert_eq!(chart.step(nats(-1e9), OLD, 1.0), Step::GoesOn);
        assert_eq!(chart.step(nats(-1e9), OLD, 1.0), Step::Closed);
    }

    #[test]
    fn a_young_baseline_and_a_habit_need_more() {
        let until_open = |chart: &mut Chart, age: f64| (1..1_000).find(|_| chart.step(nats(1.0), age, 1.0) == Step::Opened).unwrap();
        assert_eq!((until_open(&mut Chart::default(), OLD), until_open(&mut Chart::default(), 0.0)), (13, 39));
        let mut habit = Chart::habituating();
        let counts: Vec<i32> = (0..8)
            .map(|_| {
                let count = until_open(&mut habit, OLD);
                habit.close();
                count
            })
            .collect();
        assert!(counts.windows(2).all(|pair| pair[1] >= pair[0]) && counts[0] == 13 && counts[7] >= 125, "{counts:?}");
        // After weeks without it is as ready as at first.
        (0..5).for_each(|_| _ = habit.step(nats(-1.0), OLD, 604_800.0));
        assert_eq!(until_open(&mut habit, OLD), 13);
    }

    proptest! {
        #[test]
        fn it_opens_and_closes_in_turn(evidence in vec((-20.0..20.0_f64, 0.0..10.0_f64), 0..300)) {
            let mut chart = Chart::default();
            let mut open = false;
            for (nats, deviations) in evidence {
                match chart.step(Evidence { nats, deviations }, OLD, 1.0) {
                    Step::Opened => { prop_assert!(!open); open = true; }
                    Step::Closed => { prop_assert!(open); open = false; }
                    Step::Quiet => prop_assert!(!open),
                    Step::GoesOn => prop_assert!(open),
                }
                prop_assert_eq!(open, chart.is_open());
            }
        }
    }
}
