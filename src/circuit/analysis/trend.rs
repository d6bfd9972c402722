//! Whether a series rises or falls: robust against outliers, and against values that resemble the one before.
//!
//! Sources: Mann, Nonparametric tests against trend, 1945; Kendall, Rank correlation methods, 1975; the correction for
//! autocorrelation after Hamed and Rao, 1998, with the lag-1 coefficient of what is left beside the line, mended for its
//! bias; the slope after Theil, 1950, and Sen, 1968.

/// The strongest resemblance to the value before that is corrected for.
const CORRELATION_MAX: f64 = 0.9;

/// Values that a series must have at least.
pub const VALUES_MIN: usize = 4;

/// What a series tells of its direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Standard deviations that the ranks lie away from no trend; above 0 it rises.
    pub z: f64,
    /// The same, as if no value had to do with the one before.
    pub uncorrected: f64,
    /// How much a value resembles the one before, 0 to 0.9, the trend taken out.
    pub correlation: f64,
    /// Standard deviation of what is left beside the line of least squares.
    pub beside: f64,
}

/// Standard deviations of the ranks from which on a trend stands out, and below which it no longer does.
const BEGINS: f64 = 4.5;
const ENDS: f64 = 2.25;

/// A trend that changes by so many deviations of what is left beside it stands out as well, however much values resemble
/// the one before: what is left beside a smooth one does, so that the correction would hide the clearest. By simulation,
/// values that resemble the one before by 0.95 from second to second never change so much by chance.
const CLEAR: f64 = 10.0;
const CLEAR_ENDS: f64 = 5.0;

impl Trend {
    /// Whether it stands out, given by how much the series changes over its length.
    pub fn stands_out(&self, change: f64) -> bool {
        self.is_beyond(BEGINS, CLEAR, change)
    }

    /// Whether one that stood out does still.
    pub fn goes_on(&self, change: f64) -> bool {
        self.is_beyond(ENDS, CLEAR_ENDS, change)
    }

    fn is_beyond(&self, deviations: f64, clear: f64, change: f64) -> bool {
        self.z.abs() >= deviations || self.uncorrected.abs() >= deviations && change.abs() >= clear * self.beside
    }
}

/// Standard deviations that the ranks of a series lie away from no trend, as if no value had to do with the one before.
/// `None` as [`trend`]. Work by the square of the length of the series.
pub fn ranks(values: &[f64]) -> Option<f64> {
    if !are_enough(values) {
        return None;
    }
    let count = values.len() as f64;
    let rises = |(at, one): (usize, &f64)| {
        let later = values.get(at + 1..).unwrap_or_default();
        later.iter().map(|other| i32::from(other > one) - i32::from(other < one)).sum::<i32>()
    };
    let rises: i32 = values.iter().enumerate().map(rises).sum();
    let variance = count * (count - 1.0) * (2.0 * count + 5.0) / 18.0;
    Some(f64::from(rises - rises.signum()) / variance.sqrt())
}

/// Whether a trend may stand out, given what its [`ranks`] tell: that values resemble the one before only makes it less sure.
pub fn may_stand_out(ranks: f64) -> bool {
    ranks.abs() >= BEGINS
}

/// Looks at a series of values at equal distances. `None` with fewer than [`VALUES_MIN`], or with ones that are not finite.
/// Work by the square of its length.
pub fn trend(values: &[f64]) -> Option<Trend> {
    let uncorrected = ranks(values)?;
    let count = values.len() as f64;
    let left = beside_the_line(values);
    let lag = lag_1(&left);
    let beside = (left.iter().map(|value| value * value).sum::<f64>() / count).sqrt();
    let correlation = (lag + (1.0 + 4.0 * lag) / count).clamp(0.0, CORRELATION_MAX);
    Some(Trend { z: uncorrected / ((1.0 + correlation) / (1.0 - correlation)).sqrt(), uncorrected, correlation, beside })
}

/// The slope for each step: the median of the slopes of all pairs. `None` as [`trend`]. Work by the square of the length
/// of the series.
pub fn slope(values: &[f64]) -> Option<f64> {
    if !are_enough(values) {
        return None;
    }
    median(&mut pairs(values).map(|(apart, one, other)| (other - one) / apart).collect::<Vec<f64>>())
}

/// Where the series stands at its end by this slope: the median of all values, each carried on to the end.
pub fn level(values: &[f64], slope: f64) -> Option<f64> {
    median(&mut values.iter().rev().enumerate().map(|(steps, value)| value + slope * steps as f64).collect::<Vec<f64>>())
}

/// Whether there are values enough, all of them finite.
fn are_enough(values: &[f64]) -> bool {
    values.len() >= VALUES_MIN && values.iter().all(|value| value.is_finite())
}

/// Every pair, the earlier one first, with the steps between them.
fn pairs(values: &[f64]) -> impl Iterator<Item = (f64, f64, f64)> {
    values.iter().enumerate().flat_map(move |(at, one)| {
        let later = values.get(at + 1..).unwrap_or_default();
        later.iter().enumerate().map(move |(apart, other)| ((apart + 1) as f64, *one, *other))
    })
}

fn median(values: &mut [f64]) -> Option<f64> {
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        return Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1);
    }
    let (below, upper, _) = (!values.is_empty()).then(|| values.select_nth_unstable_by(middle, f64::total_cmp))?;
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(lower.midpoint(*upper))
}

/// What is left beside the line of least squares.
fn beside_the_line(values: &[f64]) -> Vec<f64> {
    let count = values.len() as f64;
    let (middle, mean) = ((count - 1.0) / 2.0, values.iter().sum::<f64>() / count);
    let along = |at: usize| at as f64 - middle;
    let spread: f64 = (0..values.len()).map(|at| along(at).powi(2)).sum();
    let slope = values.iter().enumerate().map(|(at, value)| along(at) * (value - mean)).sum::<f64>() / spread;
    values.iter().enumerate().map(|(at, value)| value - mean - slope * along(at)).collect()
}

/// The autocorrelation at lag 1 of values whose mean is 0; 0 where they are all the same.
fn lag_1(values: &[f64]) -> f64 {
    let spread: f64 = values.iter().map(|value| value * value).sum();
    let together: f64 = values.iter().zip(values.iter().skip(1)).map(|(one, next)| one * next).sum();
    if spread > 0.0 { together / spread } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const RISING: [f64; 12] = [10.0, 10.3, 9.9, 10.4, 10.8, 10.5, 11.0, 11.2, 10.9, 11.5, 11.3, 11.9];

    #[test]
    fn known_values_come_out() {
        let seen = trend(&RISING).unwrap();
        assert!((seen.uncorrected - 3.634_35).abs() < 1e-5, "{seen:?}");
        assert!((lag_1(&beside_the_line(&RISING)) + 0.549_71).abs() < 1e-5);
        assert_eq!((seen.correlation, seen.z), (0.0, seen.uncorrected));
        assert!((slope(&RISING).unwrap() - 1.0 / 6.0).abs() < 1e-9);
        assert!((level(&RISING, 1.0 / 6.0).unwrap() - 11.75).abs() < 0.1);
    }

    #[test]
    fn nothing_is_said_of_too_little() {
        assert_eq!((trend(&[1.0, 2.0, 3.0]), slope(&[1.0, 2.0, 3.0]), level(&[], 1.0)), (None, None, None));
        assert_eq!((trend(&[1.0, 2.0, 3.0, f64::NAN]), slope(&[1.0, f64::INFINITY, 3.0, 4.0])), (None, None));
        let steady = trend(&[7.0; 30]).unwrap();
        assert_eq!((steady.z, steady.correlation, slope(&[7.0; 30])), (0.0, 1.0 / 30.0, Some(0.0)));
    }

    proptest! {
        #[test]
        fn what_may_not_stand_out_does_not(steps in vec(-1.0..1.0_f64, 4..40), rise in 0.0..2.0_f64, change in -1e3..1e3_f64) {
            let values: Vec<f64> = (0..).zip(&steps).map(|(at, step)| f64::from(at) * rise + step).collect();
            let seen = trend(&values).unwrap();
            prop_assert!(may_stand_out(ranks(&values).unwrap()) || !seen.stands_out(change));
        }

        #[test]
        fn upside_down_is_the_other_direction(values in vec(-1e6..1e6_f64, 4..40)) {
            let turned: Vec<f64> = values.iter().map(|value| -value).collect();
            let (seen, other) = (trend(&values).unwrap(), trend(&turned).unwrap());
            prop_assert!((seen.z + other.z).abs() < 1e-9 && (seen.correlation - other.correlation).abs() < 1e-6);
            prop_assert!((slope(&values).unwrap() + slope(&turned).unwrap()).abs() < 1e-6);
        }

        #[test]
        fn an_outlier_does_not_turn_a_line(steps in 8..40_usize, at in 0..8_usize, outlier in -1e9..1e9_f64) {
            let mut values: Vec<f64> = (0..steps).map(|step| step as f64).collect();
            values[at] = outlier;
            prop_assert!((slope(&values).unwrap() - 1.0).abs() < 0.5);
            prop_assert!(trend(&values).unwrap().uncorrected > 0.0);
        }
    }
}
