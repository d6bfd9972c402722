//! Whether events come at the same time by the clock: each hour at :20, each day at 3.
//!
//! Source: the Rayleigh test with the approximation of its p-value in Zar, Biostatistical Analysis.

use std::f64::consts::TAU;

/// Periods of clocks, in seconds, that events are held against.
pub const PERIODS: [u32; 8] = [60, 300, 600, 900, 1_800, 3_600, 21_600, 86_400];

/// The fewest events that a verdict is based on.
pub const EVENTS_MIN: usize = 6;

/// Events have to go on for so many periods.
const PERIODS_MIN: f64 = 3.0;

/// The share of chance findings, over all periods together.
const FALSE: f64 = 0.01;

/// A time by the clock at which events come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alignment {
    /// Of the clock, in seconds.
    pub period: u32,
    /// When in a period, in seconds from its beginning: the circular mean.
    pub phase: f64,
    /// How likely chance alone makes events as aligned as these.
    pub p_value: f64,
}

/// Looks at times, in Unix seconds, in any order; gives the alignment that chance explains least, if there is one. `None`
/// with fewer than [`EVENTS_MIN`] times, or with ones that are not finite.
///
/// Times that are aligned by the hour are so by the minute, too; of periods that are equally unlikely by chance the longest
/// says most.
pub fn alignment(times: &[f64]) -> Option<Alignment> {
    if times.len() < EVENTS_MIN || times.iter().any(|at| !at.is_finite()) {
        return None;
    }
    let (first, last) = times.iter().fold((f64::MAX, f64::MIN), |(first, last), at| (first.min(*at), last.max(*at)));
    let long_enough = PERIODS.into_iter().filter(|period| last - first >= PERIODS_MIN * f64::from(*period));
    let found = long_enough.map(|period| aligned(times, period)).filter(|found| found.p_value < FALSE / PERIODS.len() as f64);
    // The last of equals is the longest.
    found.reduce(|best, next| if next.p_value <= best.p_value { next } else { best })
}

fn aligned(times: &[f64], period: u32) -> Alignment {
    let length = f64::from(period);
    let angle = |at: &f64| at.rem_euclid(length) / length * TAU;
    let (sin, cos) = times.iter().map(angle).fold((0.0, 0.0), |(sin, cos), angle| (sin + angle.sin(), cos + angle.cos()));
    let (count, resultant_squared) = (times.len() as f64, sin * sin + cos * cos);
    let spread = (count * count - resultant_squared).max(0.0);
    let p_value = ((1.0 + 4.0 * count + 4.0 * spread).sqrt() - (1.0 + 2.0 * count)).exp();
    Alignment { period, phase: sin.atan2(cos).rem_euclid(TAU) / TAU * length, p_value: p_value.min(1.0) }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn each_hour_at_twenty_past_is_found() {
        // Some seconds early or late, and two hours missed.
        let late = [4.0, -9.0, 20.0, 1.0, -15.0, 7.0, 0.0, 12.0];
        let times: Vec<f64> = [0.0, 1.0, 2.0, 4.0, 5.0, 7.0, 8.0, 9.0].iter().zip(late).map(|(hour, late)| hour * 3_600.0 + 1_200.0 + late).collect();
        let found = alignment(&times).unwrap();
        assert_eq!(found.period, 3_600, "{found:?}");
        assert!((found.phase - 1_200.0).abs() < 10.0, "{found:?}");
    }

    #[test]
    fn nothing_is_said_of_too_little() {
        assert_eq!(alignment(&[]), None);
        assert_eq!(alignment(&[0.0, 60.0, 120.0, 180.0, 240.0]), None);
        assert_eq!(alignment(&[0.0, 60.0, 120.0, 180.0, 240.0, f64::INFINITY]), None);
        assert_eq!(alignment(&[5.0; 8]), None, "all at once is no clock's doing");
    }

    proptest! {
        #[test]
        fn the_phase_lies_within_the_period(times in vec(0.0..2e9_f64, 0..30)) {
            if let Some(found) = alignment(&times) {
                prop_assert!((0.0..=f64::from(found.period)).contains(&found.phase) && found.p_value < 0.01);
            }
        }
    }
}
