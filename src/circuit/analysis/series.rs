//! A series of values at even distances, and where it is going: told when it stands out, until it does not go on.
//!
//! Sources: those of [`trend`](super::trend).

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::trend::{level, may_stand_out, ranks, slope, trend};

/// The least change over the length of a series that is worth telling: of the level, and of a share.
const LEAST: f64 = 0.1;
const LEAST_SHARE: f64 = 0.01;

/// The slope that a limit is reached by is that of the newest values: the others are from before it began.
const NEWEST: usize = 12;

/// Values of a series that are looked at without an allocation.
const USUAL_LENGTH: usize = 32;

/// Values in a row with which it does not go on, after which a trend is over.
const STALLED_MAX: u8 = 3;

/// Seconds within which reaching a limit is worth telling.
const TO_LIMIT_MAX: f64 = 1_200.0;

/// On what scale values are compared: so that chance spreads alike at every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// By their logarithm: seconds, bytes.
    Log,
    /// As they are: shares of 1.
    Share,
    /// By their square root: calls a second, calls under way.
    Root,
}

/// How a series is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// On what scale.
    pub scale: Scale,
    /// Seconds from one value to the next.
    pub step: f64,
    /// So many values are held against each other.
    pub length: usize,
    /// What must not be reached, on the scale of the values as they are given.
    pub limit: Option<f64>,
}

/// A series that rises or falls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Course {
    /// Change a minute, in the unit of the values.
    pub slope: f64,
    /// Change a minute as a share of the level; `None` where the level is 0.
    pub relative: Option<f64>,
    /// Standard deviations that the ranks lie away from no trend.
    pub score: f64,
    /// Where it stands now.
    pub level: f64,
    /// Seconds until the limit is reached if it goes on like this; `None` without a limit, or not within twenty minutes.
    pub to_limit: Option<f64>,
}

/// What a value did to a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Turn {
    /// It rises or falls from now on.
    Begins(Course),
    /// It no longer does.
    Ends(Course),
    /// It did when it was seen last, and is not seen any more.
    Stops(Course),
}

/// The newest values of something, and where they are going. O(n²) a value, for the 30 or so that are kept.
#[derive(Clone, Debug, Default)]
pub struct Series {
    values: VecDeque<f32>,
    /// Mean of the values and of their deviations from it, while there is no trend.
    usual: Option<(f64, f64)>,
    told: Option<Course>,
    /// Values in a row with which it did not go on.
    stalled: u8,
}

impl Scale {
    fn of(self, value: f64) -> Option<f64> {
        let value = match self {
            Self::Log => (value > 0.0).then(|| value.ln()),
            Self::Share => Some(value),
            Self::Root => Some(value.max(0.0).sqrt()),
        };
        value.filter(|value| value.is_finite())
    }

    fn real(self, value: f64) -> f64 {
        match self {
            Self::Log => value.exp(),
            Self::Share => value.clamp(0.0, 1.0),
            Self::Root => value.max(0.0).powi(2),
        }
    }

    /// The least change that is worth telling, given the mean of the values.
    fn least(self, mean: f64) -> f64 {
        match self {
            Self::Log => LEAST,
            Self::Share => LEAST_SHARE.max(LEAST * mean),
            // Half as much on square roots.
            Self::Root => LEAST / 2.0 * mean,
        }
    }
}

impl Series {
    /// Takes the next value in; gives what begins or ends with it. A value that is none, a logarithm of nothing or not a
    /// number, is too little to see a trend in, and all begins anew.
    pub fn take(&mut self, value: f64, look: &Look) -> Option<Turn> {
        let Some(value) = look.scale.of(value) else { return self.begin_anew() };
        let length = look.length as f64;
        while self.values.len() >= look.length {
            self.values.pop_front();
        }
        #[expect(clippy::cast_possible_truncation, reason = "seven digits tell as much as is asked for")]
        self.values.push_back(value as f32);
        if self.told.is_none() {
            let (mean, deviation) = self.usual.unwrap_or((value, 0.0));
            let off = value - mean;
            self.usual = Some((mean + off / length, deviation + (off.abs() - deviation) / length));
        }
        if self.values.len() < look.length {
            return None;
        }
        let values: SmallVec<[f64; USUAL_LENGTH]> = self.values.iter().map(|value| f64::from(*value)).collect();
        // Mostly nothing is told and nothing can begin: all else is for when it may.
        if self.told.is_none() && !may_stand_out(ranks(&values)?) {
            return None;
        }
        let (test, steps) = trend(&values).zip(slope(&values))?;
        let change = steps * length;
        // What rose for long and rises no more is no trend: the newest values have to go on at a quarter of the pace.
        let newest = slope(values.get(values.len().saturating_sub(NEWEST)..).unwrap_or_default()).unwrap_or_default();
        let keeps_on = newest * steps > 0.0 && newest.abs() >= steps.abs() / 4.0;
        self.stalled = if keeps_on { 0 } else { self.stalled.saturating_add(1) };
        let begins = test.stands_out(change) && keeps_on && self.is_worth_telling(look.scale, change, &values);
        let is_same = self.told.is_some_and(|told| (test.uncorrected < 0.0) == (told.score < 0.0));
        let goes_on = is_same && test.goes_on(change) && self.stalled < STALLED_MAX;
        if !begins && self.told.is_none() {
            return None;
        }
        let now = level(&values, steps).map(|at| describe(test.uncorrected, at, &values, look));
        match (&mut self.told, now) {
            (told @ None, Some(now)) => {
                *told = Some(now);
                Some(Turn::Begins(now))
            }
            (Some(told), Some(now)) if goes_on => {
                *told = now;
                None
            }
            (told, _) => told.take().map(Turn::Ends),
        }
    }

    /// What comes next does not belong to what was.
    pub fn begin_anew(&mut self) -> Option<Turn> {
        self.values = VecDeque::new();
        self.told.take().map(Turn::Stops)
    }

    /// What it does now.
    pub const fn told(&self) -> Option<&Course> {
        self.told.as_ref()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.values.capacity() * size_of::<f32>()
    }

    /// Whether it changed so much over its length.
    fn is_worth_telling(&self, scale: Scale, change: f64, values: &[f64]) -> bool {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        // Of a normal distribution the mean deviation is 0.8 standard deviations.
        let spread = self.usual.map_or(0.0, |(_, deviation)| 1.2533 * deviation);
        change.abs() >= scale.least(mean).max(spread)
    }
}

/// By the minute: from where a series stands, by the slope of its newest values, since the others may be from before it
/// began.
fn describe(score: f64, at: f64, values: &[f64], look: &Look) -> Course {
    let newest = values.get(values.len().saturating_sub(NEWEST)..).unwrap_or_default();
    let level = look.scale.real(at);
    let newest: Vec<f64> = newest.iter().map(|value| look.scale.real(*value)).collect();
    let slope = slope(&newest).unwrap_or_default() * 60.0 / look.step;
    let left = look.limit.map(|limit| (limit - level).max(0.0) / (slope / 60.0));
    Course { slope, relative: (level > 0.0).then(|| slope / level), score, level, to_limit: left.filter(|left| slope > 0.0 && *left <= TO_LIMIT_MAX) }
}
