//! A value against mean and standard deviation of those in the window before it: as an operator would compute it.
//!
//! By definition it calls 4.6 % of what is normally distributed unusual at two deviations: thousands of times a day. It is
//! there for those who know it from elsewhere; [`anomaly`](super::anomaly) is the default.

use std::collections::VecDeque;

/// The fewest values that a mean is taken of.
pub const VALUES_MIN: usize = 10;

/// The values of a window.
#[derive(Clone, Debug, Default)]
pub struct ZScore {
    /// With the numbers of their buckets, the part that tells those of some hours apart.
    values: VecDeque<(u32, f32)>,
}

/// What a value is, against those before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Standard deviations above the mean; infinite where all values before were the same and this one is not.
    pub score: f64,
    /// The mean.
    pub mean: f64,
}

impl ZScore {
    /// Takes in the value of bucket `number`, where a window holds so many; gives how it stands against the window before
    /// it. `None` with fewer than [`VALUES_MIN`] in that; a value that is not finite is left out. Work by the length of the
    /// window.
    #[expect(clippy::cast_possible_truncation, reason = "seven digits, and buckets of some hours, tell as much as is asked for")]
    pub fn take(&mut self, number: u64, value: f64, buckets: u64) -> Option<Standing> {
        if !value.is_finite() {
            return None;
        }
        let number = number as u32;
        while self.values.front().is_some_and(|(first, _)| u64::from(number.wrapping_sub(*first)) > buckets) {
            self.values.pop_front();
        }
        let standing = self.standing(value);
        self.values.push_back((number, value as f32));
        standing
    }

    fn standing(&self, value: f64) -> Option<Standing> {
        let count = self.values.len();
        if count < VALUES_MIN {
            return None;
        }
        let mean = self.values.iter().map(|(_, value)| f64::from(*value)).sum::<f64>() / count as f64;
        let variance = self.values.iter().map(|(_, value)| (f64::from(*value) - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
        let off = value - mean;
        // Where nothing ever varied, what seven digits can't tell apart is the same.
        let score = if variance > 0.0 {
            off / variance.sqrt()
        } else if off.abs() <= mean.abs() * 1e-6 {
            0.0
        } else {
            off.signum() * f64::INFINITY
        };
        Some(Standing { score, mean })
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.values.capacity() * size_of::<(u32, f32)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_held_against_the_window_before_it() {
        let mut window = ZScore::default();
        for (number, value) in (0..).zip([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0, 5.0, 5.0]) {
            assert_eq!(window.take(number, value, 10), None);
        }
        // Mean 5, squares of what lies beside it 9 + 1 + 1 + 1 + 4 + 16 = 32, of nine degrees of freedom.
        let standing = window.take(10, 9.0, 10).unwrap();
        assert!((standing.mean - 5.0).abs() < 1e-9 && (standing.score - 4.0 / (32.0_f64 / 9.0).sqrt()).abs() < 1e-9, "{standing:?}");
        // The first one has left: mean 5.7.
        assert!((window.take(11, 5.7, 10).unwrap().score).abs() < 1e-6);
        assert_eq!((window.take(12, f64::NAN, 10), window.values.len()), (None, 11));
        // What is further apart has nothing to do with it.
        assert_eq!(window.take(1_000, 9.0, 10), None);
        assert_eq!(window.values.len(), 1);
    }

    #[test]
    fn where_nothing_varied_anything_else_is_unusual() {
        let mut window = ZScore::default();
        (0..10).for_each(|number| assert_eq!(window.take(number, 0.1, 10), None));
        assert_eq!(window.take(10, 0.1, 10).map(|standing| standing.score), Some(0.0));
        assert_eq!(window.take(11, 0.2, 10).map(|standing| standing.score), Some(f64::INFINITY));
    }
}
