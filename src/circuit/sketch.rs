//! Latencies as an exponential histogram of scale 6.
//!
//! A value falls into bucket `i` of base `b = 2^(2^-6)` where `b^i < seconds <= b^(i+1)`; the estimate of a bucket
//! is `2·lo·hi/(lo+hi)`, whose relative error is at most `(b-1)/(b+1)`, 0.54 %. Buckets of equal scale merge exactly.
//! Source: the exponential histogram of the OpenTelemetry metrics data model; error bound as in Masson, Rim and Lee,
//! `DDSketch`, 2019.

use std::sync::LazyLock;

/// Buckets a factor of two is cut into, as its base-2 logarithm.
pub const SCALE: i32 = 6;

/// Buckets a factor of two is cut into.
const PER_OCTAVE: usize = 1 << SCALE;

/// The first bucket that is told apart: it holds 1 µs (everything below is "underflow").
const FIRST: i32 = -1276;

/// The number of buckets from 1 µs to 1 h.
const REGULAR: u16 = 2033;

/// A latency's place in a sketch: 0 is below 1 µs, [`Code::OVERFLOW`] is above 1 h, the rest are buckets in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Code(pub u16);

/// Where the buckets of an octave end, as mantissa bits of an `f64`.
static ENDS: LazyLock<[u64; PER_OCTAVE]> = LazyLock::new(|| std::array::from_fn(|step| mantissa((step as f64 / PER_OCTAVE as f64).exp2())));

/// For the top 8 bits of a mantissa: how many buckets surely lie below.
static GUESS: LazyLock<[u8; 256]> = LazyLock::new(|| {
    std::array::from_fn(|top| {
        let least = (top as u64) << (MANTISSA_BITS - 8);
        u8::try_from(ENDS.iter().filter(|end| **end < least).count()).unwrap_or(u8::MAX)
    })
});

const MANTISSA_BITS: u32 = 52;

const fn mantissa(value: f64) -> u64 {
    value.to_bits() & ((1 << MANTISSA_BITS) - 1)
}

impl Code {
    /// Below 1 µs.
    pub const UNDERFLOW: Self = Self(0);
    /// Above 1 h.
    pub const OVERFLOW: Self = Self(REGULAR + 1);

    /// The place of a latency in nanoseconds.
    #[inline]
    pub fn of(nanos: u64) -> Self {
        if nanos < 1_000 {
            return Self::UNDERFLOW;
        }
        if nanos > 3_600_000_000_000 {
            return Self::OVERFLOW;
        }
        Self::from_index(index_of(nanos))
    }

    /// The bucket's index in the metrics data model at [`SCALE`]; `None` outside of the regular buckets.
    pub fn index(self) -> Option<i32> {
        (self != Self::UNDERFLOW && self < Self::OVERFLOW).then(|| i32::from(self.0) - 1 + FIRST)
    }

    fn from_index(index: i32) -> Self {
        u16::try_from(index - FIRST + 1).map_or(Self::UNDERFLOW, |code| Self(code.min(REGULAR + 1)))
    }

    /// The latency, in seconds, that stands for the bucket.
    pub fn seconds(self) -> f64 {
        match self.index() {
            Some(index) => {
                let low = bound(index);
                let high = bound(index + 1);
                2.0 * low * high / (low + high)
            }
            None if self == Self::UNDERFLOW => 0.5e-6,
            None => 3600.0,
        }
    }
}

/// The bucket of a latency in nanoseconds, as its index in the metrics data model at [`SCALE`].
#[inline]
pub fn index_of(nanos: u64) -> i32 {
    let seconds = nanos as f64 * 1e-9;
    let bits = seconds.to_bits();
    let exponent = (bits >> MANTISSA_BITS) as i32 - 1023;
    let mantissa = bits & ((1 << MANTISSA_BITS) - 1);
    let top = (mantissa >> (MANTISSA_BITS - 8)) as usize;
    let mut below = GUESS.get(top).copied().unwrap_or_default() as usize;
    while ENDS.get(below).is_some_and(|end| *end < mantissa) {
        below += 1;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "at most 64")]
    let index = exponent * PER_OCTAVE as i32 + below as i32 - 1;
    index
}

/// The lower bound of a bucket, in seconds.
pub fn bound(index: i32) -> f64 {
    (f64::from(index) / PER_OCTAVE as f64).exp2()
}

/// Counts for a range of codes, one beside the other, each in as few bytes as the largest needs.
#[derive(Clone, Debug, Default)]
pub struct Dense {
    first: u16,
    width: Width,
    /// Little endian.
    counts: Vec<u8>,
}

/// Bytes of each count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Width {
    #[default]
    One = 1,
    Two = 2,
    Four = 4,
    Eight = 8,
}

impl Width {
    const fn of(count: u64) -> Self {
        match count {
            0..=0xff => Self::One,
            0x100..=0xffff => Self::Two,
            0x1_0000..=0xffff_ffff => Self::Four,
            _ => Self::Eight,
        }
    }
}

impl PartialEq for Dense {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Dense {}

impl Dense {
    /// Adds to a code.
    pub fn add(&mut self, code: Code, count: u32) {
        self.cover(code.0);
        let at = usize::from(code.0 - self.first);
        let sum = self.get(at).saturating_add(u64::from(count));
        if Width::of(sum) > self.width {
            self.rebuild(self.first, self.len(), Width::of(sum));
        }
        self.put(at, sum);
    }

    /// Takes from a code what was added to it before.
    pub fn take(&mut self, code: Code, count: u32) {
        if let Some(at) = code.0.checked_sub(self.first).map(usize::from).filter(|at| *at < self.len()) {
            self.put(at, self.get(at).saturating_sub(u64::from(count)));
        }
    }

    const fn len(&self) -> usize {
        self.counts.len() / self.width as usize
    }

    fn get(&self, at: usize) -> u64 {
        let width = self.width as usize;
        let bytes = self.counts.get(at * width..(at + 1) * width).unwrap_or_default();
        bytes.iter().rev().fold(0, |count, byte| count << 8 | u64::from(*byte))
    }

    fn put(&mut self, at: usize, count: u64) {
        let width = self.width as usize;
        if let Some(bytes) = self.counts.get_mut(at * width..(at + 1) * width) {
            bytes.iter_mut().zip(count.to_le_bytes()).for_each(|(byte, new)| *byte = new);
        }
    }

    /// Makes room for a code.
    fn cover(&mut self, code: u16) {
        if self.counts.is_empty() {
            return self.rebuild(code, 1, Width::One);
        }
        let end = usize::from(self.first) + self.len();
        if code < self.first {
            self.rebuild(code, end - usize::from(code), self.width);
        } else if usize::from(code) >= end {
            self.rebuild(self.first, usize::from(code - self.first) + 1, self.width);
        }
    }

    /// The same counts in another range, which must hold them.
    fn rebuild(&mut self, first: u16, length: usize, width: Width) {
        let counts = vec![0; length * width as usize];
        let old = std::mem::replace(self, Self { first, width, counts });
        for (code, count) in old.iter() {
            self.put(usize::from(code.0 - first), count);
        }
    }

    /// Gives the memory back; everything must have been taken.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many values there are.
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }

    /// Codes and their counts, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (Code, u64)> {
        (0..self.len()).map(|at| self.get(at)).zip(self.first..).filter(|(count, _)| *count > 0).map(|(count, code)| (Code(code), count))
    }

    /// The latencies, in seconds, below or at which these shares (ascending, in percent) of all values lie; empty
    /// without values. Nearest rank: the smallest value such that at least that share is not above it.
    pub fn percentiles(&self, percents: &[f64]) -> Vec<f64> {
        let total = self.total();
        if total == 0 {
            return Vec::new();
        }
        let mut values = self.iter();
        let (mut code, mut seen) = values.next().unwrap_or((Code::UNDERFLOW, 0));
        percents
            .iter()
            .map(|percent| {
                // The product may miss a whole number by a hair, and a rank is never above the number of values.
                let rank = ((percent / 100.0 * total as f64) - 1e-9).ceil().max(1.0);
                while (seen as f64) < rank
                    && let Some((next, count)) = values.next()
                {
                    code = next;
                    seen += count;
                }
                code.seconds()
            })
            .collect()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.counts.capacity()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_belong_to_the_lower_bucket() {
        // 2^-10 s is no whole number of nanoseconds, 1 s is: it is the upper bound of bucket -1.
        assert_eq!(Code::of(1_000_000_000).index(), Some(-1));
        assert_eq!(Code::of(1_000_000_001).index(), Some(0));
        assert_eq!(Code::of(2_000_000_000).index(), Some(63));
        assert_eq!((Code::of(0), Code::of(999)), (Code::UNDERFLOW, Code::UNDERFLOW));
        assert_eq!(Code::of(1_000), Code(1));
        assert_eq!(Code::of(3_600_000_000_000), Code(REGULAR));
        assert_eq!((Code::of(3_600_000_000_001), Code::of(u64::MAX)), (Code::OVERFLOW, Code::OVERFLOW));
    }

    proptest! {
        #[test]
        fn the_index_is_that_of_the_definition(nanos in 1_000_u64..=3_600_000_000_000) {
            let seconds = nanos as f64 * 1e-9;
            let index = Code::of(nanos).index().unwrap();
            // The definition itself is computed with rounding: allow for it at the edges only.
            prop_assert!(seconds > bound(index) * (1.0 - 1e-12) && seconds <= bound(index + 1) * (1.0 + 1e-12));
        }

        #[test]
        fn an_estimate_is_off_by_less_than_one_percent(nanos in 1_000_u64..=3_600_000_000_000) {
            let seconds = nanos as f64 * 1e-9;
            prop_assert!((Code::of(nanos).seconds() / seconds - 1.0).abs() < 0.0055);
        }

        #[test]
        fn percentiles_are_those_of_the_sorted_values(mut values in prop::collection::vec(1_000_u64..10_000_000_000, 1..300), percent in 0.1_f64..99.9) {
            let mut dense = Dense::default();
            values.iter().for_each(|value| dense.add(Code::of(*value), 1));
            values.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the number of values")]
            let rank = ((percent / 100.0 * values.len() as f64 - 1e-9).ceil().max(1.0)) as usize;
            let exact = values[rank - 1] as f64 * 1e-9;
            prop_assert!((dense.percentiles(&[percent])[0] / exact - 1.0).abs() < 0.0055);
        }

        #[test]
        fn what_was_added_can_be_taken(codes in prop::collection::vec((0_u16..2034, prop_oneof![1_u32..5, 1_u32..100_000]), 0..100)) {
            let mut dense = Dense::default();
            let mut expected = std::collections::BTreeMap::<u16, u64>::new();
            for (code, count) in &codes {
                dense.add(Code(*code), *count);
                *expected.entry(*code).or_default() += u64::from(*count);
            }
            prop_assert!(dense.iter().map(|(code, count)| (code.0, count)).eq(expected));
            codes.iter().for_each(|(code, count)| dense.take(Code(*code), *count));
            prop_assert_eq!(dense.total(), 0);
        }
    }
}
