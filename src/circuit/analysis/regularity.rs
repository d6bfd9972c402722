//! Whether trips come at regular intervals: a comb likelihood ratio and Greenwood's test, each where the other is weak.
//!
//! The null hypothesis is that the time between two trips is a dead time (the breaker's own wait in open, which alone makes
//! intervals look regular) and an exponential rest. The comb allows for jitter and for trips that are missed; Greenwood's
//! statistic for trips that don't belong to the rest.
//! Sources: Greenwood, The statistical study of infectious diseases, 1946; the comb is a mixture likelihood ratio whose
//! critical values were simulated, 20 000 sequences of the null hypothesis for each number of trips.

use std::f64::consts::TAU;

/// Trips that are looked at, the newest ones; with fewer than [`TRIPS_MIN`] nothing is said.
pub const TRIPS_MAX: usize = 20;

/// The fewest trips that a verdict is based on.
pub const TRIPS_MIN: usize = 5;

/// Jitters that the comb tries, as a share of the period.
const JITTERS: [f64; 5] = [0.02, 0.05, 0.10, 0.18, 0.30];

/// Shares of missed trips that the comb tries.
const MISSED: [f64; 2] = [0.03, 0.25];

/// The share of trips that have nothing to do with the comb.
const STRAY: f64 = 0.05;

/// A period is told as a number up to this jitter; above it, less than two of three are within 5 % of the truth.
const PERIOD_JITTER_MAX: f64 = 0.10;

/// Whether trips are regular.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As likely by chance.
    Irregular,
    /// By chance in at most one look of a hundred.
    Possible,
    /// By chance in at most one look of five hundred.
    Regular,
}

/// What the intervals between trips tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regularity {
    /// Whether they are regular.
    pub verdict: Verdict,
    /// The period that fits best, in the unit of the trips.
    pub period: f64,
    /// The jitter that fits best: a standard deviation, as a share of the period.
    pub jitter: f64,
    /// The logarithm of how much likelier the best comb is than chance.
    pub likelihood_ratio: f64,
    /// 1 for perfectly even intervals, about 2 by chance.
    pub greenwood: f64,
    /// The mean interval, in the unit of the trips.
    pub mean: f64,
}

impl Regularity {
    /// The period, where it is certain enough to be told as a number; else "about every mean interval" is all there is to
    /// say.
    pub fn certain_period(&self) -> Option<f64> {
        (self.verdict > Verdict::Irregular && self.jitter <= PERIOD_JITTER_MAX).then_some(self.period)
    }
}

/// Critical values by number of trips: above `comb`, or below `greenwood`, chance is left out.
#[derive(Clone, Copy, Debug)]
struct Critical {
    comb: [f64; 9],
    greenwood: [f64; 9],
}

/// At 0.5 % for each of the two.
const POSSIBLE: Critical = Critical {
    comb: [7.25, 6.79, 6.48, 6.34, 5.84, 5.53, 4.81, 4.41, 3.72],
    greenwood: [1.021, 1.048, 1.079, 1.106, 1.160, 1.191, 1.228, 1.274, 1.305],
};

/// At 0.1 % for each of the two.
const CERTAIN: Critical = Critical {
    comb: [9.16, 8.62, 7.90, 8.10, 7.34, 7.14, 7.07, 6.40, 5.63],
    greenwood: [1.007, 1.021, 1.050, 1.060, 1.112, 1.133, 1.167, 1.205, 1.246],
};

/// Numbers of trips for which critical values were simulated.
const SIMULATED: [f64; 9] = [5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0];

/// Critical values between those of the table, in a straight line.
fn critical(values: &Critical, trips: usize) -> (f64, f64) {
    let trips = trips as f64;
    let above = SIMULATED.iter().position(|known| *known >= trips).unwrap_or(SIMULATED.len() - 1);
    let below = above.saturating_sub(usize::from(SIMULATED.get(above).is_some_and(|known| *known > trips)));
    let between = |values: &[f64; 9]| {
        let at = |place: usize| Some((*SIMULATED.get(place)?, *values.get(place)?));
        let ((from, low), (to, high)) = at(below).zip(at(above))?;
        Some(if to > from { low + (trips - from) / (to - from) * (high - low) } else { low })
    };
    // Beyond the table nothing is certain.
    (between(&values.comb).unwrap_or(f64::INFINITY), between(&values.greenwood).unwrap_or(0.0))
}

/// Looks at the times of trips, ascending, in any unit, and the shortest time that two of them can lie apart, 0 if that is
/// not known. `None` with fewer than [`TRIPS_MIN`] trips, with times that are not finite and ascending, or where the dead
/// time leaves nothing to chance. Work is bounded: some ten thousand terms.
pub fn regularity(trips: &[f64], dead_time: f64) -> Option<Regularity> {
    let trips = trips.get(trips.len().saturating_sub(TRIPS_MAX)..)?;
    let gaps: Vec<f64> = trips.windows(2).filter_map(|pair| Some(pair.get(1)? - pair.first()?)).collect();
    let (first, last) = (*trips.first()?, *trips.last()?);
    let (count, span) = (gaps.len() as f64, last - first);
    let dead_time = dead_time.max(0.0);
    let mean = span / count;
    let sound = trips.iter().all(|at| at.is_finite()) && gaps.iter().all(|gap| *gap > 0.0);
    if trips.len() < TRIPS_MIN || !sound || mean - dead_time <= mean * 1e-6 {
        return None;
    }
    let chance = Chance { dead_time, rest: mean - dead_time };
    let comb = best_comb(&gaps, mean, chance)?;
    let greenwood = count * gaps.iter().map(|gap| ((gap - dead_time) / (count * chance.rest)).powi(2)).sum::<f64>();
    let (possible, certain) = (critical(&POSSIBLE, trips.len()), critical(&CERTAIN, trips.len()));
    // With a dead time the comb finds regularity too easily, at three to four times the rate: three quarters of the way to
    // what is certain without one make it possible, and as much beyond that certain.
    let stricter = if dead_time > 0.0 { 0.75 * (certain.0 - possible.0) } else { 0.0 };
    let (possible_comb, certain_comb) = (possible.0 + stricter, certain.0 + stricter);
    let verdict = if comb.likelihood > certain_comb || greenwood < certain.1 {
        Verdict::Regular
    } else if comb.likelihood > possible_comb || greenwood < possible.1 {
        Verdict::Possible
    } else {
        Verdict::Irregular
    };
    let Comb { period, jitter, likelihood } = comb;
    Some(Regularity { verdict, period, jitter, likelihood_ratio: likelihood, greenwood, mean })
}

/// Intervals as chance makes them.
#[derive(Clone, Copy, Debug)]
struct Chance {
    dead_time: f64,
    /// The mean of what goes beyond it.
    rest: f64,
}

impl Chance {
    fn density(self, gap: f64) -> f64 {
        (-(gap - self.dead_time) / self.rest).exp() / self.rest
    }
}

#[derive(Clone, Copy, Debug)]
struct Comb {
    period: f64,
    jitter: f64,
    /// Its log-likelihood ratio to chance.
    likelihood: f64,
}

fn best_comb(gaps: &[f64], mean: f64, chance: Chance) -> Option<Comb> {
    let candidates = gaps.iter().flat_map(|gap| [*gap, gap / 2.0]).map(|period| refined(refined(period, gaps), gaps));
    let fitting = candidates.filter(|period| (mean / 2.0..=mean * 1.5).contains(period));
    let combs = fitting.flat_map(|period| JITTERS.into_iter().flat_map(move |jitter| MISSED.map(move |missed| (period, jitter, missed))));
    let weighed = combs.map(|(period, jitter, missed)| Comb { period, jitter, likelihood: likelihood(gaps, chance, period, jitter, missed) });
    weighed.max_by(|one, other| one.likelihood.total_cmp(&other.likelihood))
}

/// The period that the intervals near its multiples tell of.
fn refined(period: f64, gaps: &[f64]) -> f64 {
    let near = |gap: &f64| {
        let teeth = (gap / period).round();
        (teeth >= 1.0 && (gap - teeth * period).abs() < 0.35 * period).then_some((*gap, teeth))
    };
    let (sum, teeth) = gaps.iter().filter_map(near).fold((0.0, 0.0), |(sum, teeth), (gap, more)| (sum + gap, teeth + more));
    if teeth > 0.0 { sum / teeth } else { period }
}

fn likelihood(gaps: &[f64], chance: Chance, period: f64, jitter: f64, missed: f64) -> f64 {
    let deviation = jitter * period;
    let tooth = |gap: f64, number: f64| {
        let away = (gap - number * period) / deviation;
        (1.0 - missed) * missed.powf(number - 1.0) * (-away * away / 2.0).exp() / (deviation * TAU.sqrt())
    };
    let comb = |gap: f64| {
        let nearest = (gap / period).round();
        [nearest - 1.0, nearest, nearest + 1.0].into_iter().filter(|number| *number >= 1.0).map(|number| tooth(gap, number)).sum::<f64>()
    };
    let of = |gap: &f64| {
        let by_chance = chance.density(*gap);
        // Far beyond what chance allows its density is 0: the stray share alone would make any ratio infinite.
        ((1.0 - STRAY) * comb(*gap) / by_chance.max(f64::MIN_POSITIVE) + STRAY).ln()
    };
    gaps.iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const EVERY_MINUTE: [f64; 8] = [0.0, 61.0, 119.0, 240.0, 302.0, 359.0, 421.0, 480.0];

    fn close(seen: f64, expected: f64) -> bool {
        (seen - expected).abs() < expected.abs() * 1e-4
    }

    #[test]
    fn known_values_come_out() {
        let seen = regularity(&EVERY_MINUTE, 0.0).unwrap();
        assert!(close(seen.likelihood_ratio, 17.4095) && close(seen.greenwood, 1.09813) && close(seen.period, 60.0), "{seen:?}");
        assert_eq!((seen.jitter, seen.verdict, seen.certain_period()), (0.05, Verdict::Regular, Some(seen.period)));
        let beyond = regularity(&EVERY_MINUTE, 30.0).unwrap();
        assert!(close(beyond.likelihood_ratio, 13.4052), "{beyond:?}");
    }

    #[test]
    fn the_wait_of_a_breaker_is_no_pattern() {
        // 30 s of waiting, and a rest of 0 to 6 s as chance has it.
        let rests = [0.3, 2.0, 0.9, 5.5, 0.1, 3.1, 1.4];
        let mut trips = vec![0.0];
        rests.iter().for_each(|rest| trips.push(trips[trips.len() - 1] + 30.0 + rest));
        assert_eq!(regularity(&trips, 0.0).unwrap().verdict, Verdict::Regular);
        assert_eq!(regularity(&trips, 30.0).unwrap().verdict, Verdict::Irregular);
    }

    #[test]
    fn nothing_is_said_of_too_little() {
        assert_eq!(regularity(&[], 0.0), None);
        assert_eq!(regularity(&[1.0, 2.0, 3.0, 4.0], 0.0), None);
        assert_eq!(regularity(&[1.0, 2.0, 2.0, 3.0, 4.0], 0.0), None, "two at once");
        assert_eq!(regularity(&[1.0, 2.0, f64::NAN, 4.0, 5.0], 0.0), None);
        assert_eq!(regularity(&[0.0, 1.0, 2.0, 3.0, 4.0], 1.0), None, "all of it is the dead time");
    }

    #[test]
    fn of_many_trips_the_newest_count() {
        let mut trips: Vec<f64> = (0..30).map(|number| f64::from(number * number)).collect();
        let from = trips.last().copied().unwrap();
        trips.extend((1..=20).map(|number| from + f64::from(number) * 600.0));
        let seen = regularity(&trips, 0.0).unwrap();
        assert_eq!(seen.verdict, Verdict::Regular);
        assert!(close(seen.period, 600.0), "{seen:?}");
    }

    #[test]
    fn values_between_those_of_the_table_lie_between_them() {
        for table in [&POSSIBLE, &CERTAIN] {
            let at = |trips| critical(table, trips);
            assert_eq!(at(9), ((at(8).0 + at(10).0) / 2.0, (at(8).1 + at(10).1) / 2.0));
            assert!(at(20).0 < at(18).0 && at(18).0 < at(16).0);
        }
    }

    proptest! {
        #[test]
        fn the_unit_and_the_beginning_make_no_difference(gaps in vec(0.1..100.0_f64, 4..25), unit in 0.01..1000.0_f64, begin in 0.0..1e6_f64) {
            let times = |unit: f64, begin: f64| {
                let mut at = begin;
                std::iter::once(begin).chain(gaps.iter().map(|gap| { at += gap * unit; at })).collect::<Vec<f64>>()
            };
            let (plain, scaled) = (regularity(&times(1.0, 0.0), 0.0), regularity(&times(unit, begin * unit), 0.0));
            prop_assert_eq!(plain.is_some(), scaled.is_some());
            if let (Some(plain), Some(scaled)) = (plain, scaled) {
                prop_assert!((plain.likelihood_ratio - scaled.likelihood_ratio).abs() < 1e-3 * plain.likelihood_ratio.abs().max(1.0));
                prop_assert!((plain.greenwood - scaled.greenwood).abs() < 1e-6 * plain.greenwood);
            }
        }

        #[test]
        fn whatever_comes_nothing_breaks(trips in vec(any::<f64>(), 0..30), dead_time in any::<f64>()) {
            if let Some(seen) = regularity(&trips, dead_time) {
                prop_assert!(!seen.likelihood_ratio.is_nan() && !seen.greenwood.is_nan());
            }
        }
    }
}
