//! Whether a resource is under pressure: by its limit where there is one, and by its rolling baseline.

use super::{chart::Step, gauge::Gauge};

/// Seconds at the limit after which there is pressure; time below it counts against them.
const HIGH: f64 = 10.0;

/// Seconds in a row below the lower mark after which there is none any more.
const LOW: f64 = 30.0;

/// Neither is told by one look.
const LOOKS_MIN: u8 = 2;

/// Times its baseline that a value must be for there to be pressure by that.
const TIMES_MIN: f64 = 1.2;

/// By which rules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Marks {
    /// Deviations above the baseline worth finding, 1 to 6.
    pub threshold: f64,
    /// Share of the limit from which on there is pressure.
    pub high: f64,
    /// Share of the limit below which there is none any more.
    pub low: f64,
}

/// What a value is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reference {
    /// Its limit.
    Limit,
    /// Its rolling baseline.
    Baseline,
}

/// A resource that is under pressure, or no longer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Held against what.
    pub reference: Reference,
    /// What was seen, in the unit of the resource.
    pub seen: f64,
    /// The rolling baseline; `None` while it is not known.
    pub baseline: Option<f64>,
    /// Of its limit a share, where it has one; else a multiple of the baseline.
    pub usage: f64,
    /// Where pressure begins: a share of the limit, or deviations above the baseline.
    pub threshold: f64,
}

/// Watches one resource. Values from 0 on; square roots are judged, since what counts things spreads alike on them.
#[derive(Clone, Debug)]
pub struct Pressure {
    marks: Marks,
    gauge: Gauge,
    /// Seconds at the limit, and below the lower mark, each with how many looks.
    high: (f64, u8),
    low: (f64, u8),
    at_limit: bool,
    told: Option<Usage>,
    newest: Option<Usage>,
}

impl Reference {
    /// `circuit_breaker.resource.reference`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Baseline => "baseline",
        }
    }
}

impl Pressure {
    /// By these rules; `least`: a change of the square root that is no more than this is none.
    pub fn new(marks: Marks, least: f64) -> Self {
        let gauge = Gauge::new(marks.threshold, least);
        Self { marks, gauge, high: (0.0, 0), low: (0.0, 0), at_limit: false, told: None, newest: None }
    }

    /// What is told of it now.
    pub const fn told(&self) -> Option<&Usage> {
        self.told.as_ref()
    }

    /// Of its limit the share that is used, while it is at that.
    pub fn at_limit(&self) -> Option<f64> {
        self.newest.filter(|newest| self.at_limit && newest.reference == Reference::Limit).map(|newest| newest.usage)
    }

    /// It is not known how it stands.
    pub const fn unknown(&mut self) {
        self.newest = None;
    }

    /// How it stands, against its limit where it has one; `None` before it was seen, and where there is no baseline either.
    pub const fn newest(&self) -> Option<&Usage> {
        self.newest.as_ref()
    }

    /// Takes in a value that holds for so many seconds, with its limit if it has one; gives what began, or what ended: the
    /// flag says which. What is not finite, or below 0, is left out.
    pub fn take(&mut self, value: f64, limit: Option<f64>, seconds: f64, teaches: bool) -> Option<(bool, Usage)> {
        if !(value.is_finite() && value >= 0.0) {
            return None;
        }
        let reading = self.gauge.take(value.sqrt(), seconds, teaches);
        let baseline = self.gauge.baseline().map(|root| root * root);
        let limit = limit.filter(|limit| *limit > 0.0 && limit.is_finite());
        self.look(limit.map(|limit| value / limit), seconds);
        let against = |reference: Reference| {
            let (usage, threshold) = match reference {
                Reference::Limit => (value / limit?, self.marks.high),
                Reference::Baseline => (value / baseline.filter(|baseline| *baseline > 0.0)?, self.marks.threshold),
            };
            Some(Usage { reference, seen: value, baseline, usage, threshold })
        };
        self.newest = against(Reference::Limit).or_else(|| against(Reference::Baseline));
        let is_open = matches!(reading.step, Step::Opened | Step::GoesOn);
        let by_baseline = against(Reference::Baseline).filter(|usage| is_open && usage.usage >= TIMES_MIN);
        let by_limit = against(Reference::Limit).filter(|_| self.at_limit);
        match self.told {
            None => {
                self.told = by_limit.or(by_baseline);
                self.told.map(|told| (true, told))
            }
            // At its limit is worse: that begins with the next look.
            Some(told) if told.reference == Reference::Baseline && by_limit.is_some() => {
                self.told = None;
                Some((false, against(Reference::Baseline).unwrap_or(told)))
            }
            // What it began by is what it ends by.
            Some(told) => {
                let holds = if told.reference == Reference::Limit { self.at_limit } else { is_open };
                let now = against(told.reference).unwrap_or(told);
                self.told = holds.then_some(now);
                (!holds).then_some((false, now))
            }
        }
    }

    /// Nobody looks any more; gives what was told of it.
    pub fn stop(&mut self) -> Option<Usage> {
        self.gauge.close();
        (self.at_limit, self.high, self.low, self.newest) = (false, (0.0, 0), (0.0, 0), None);
        self.told.take()
    }

    fn look(&mut self, of_limit: Option<f64>, seconds: f64) {
        let Some(share) = of_limit else {
            (self.at_limit, self.high, self.low) = (false, (0.0, 0), (0.0, 0));
            return;
        };
        self.high = if share >= self.marks.high {
            ((self.high.0 + seconds).min(HIGH), self.high.1.saturating_add(1))
        } else {
            // Twice as fast as it came: ten of fifteen.
            ((self.high.0 - 2.0 * seconds).max(0.0), self.high.1)
        };
        if self.high.0 <= 0.0 {
            self.high.1 = 0;
        }
        self.low = if share < self.marks.low { (self.low.0 + seconds, self.low.1.saturating_add(1)) } else { (0.0, 0) };
        if self.high.0 >= HIGH && self.high.1 >= LOOKS_MIN {
            self.at_limit = true;
        } else if self.low.0 >= LOW && self.low.1 >= LOOKS_MIN {
            self.at_limit = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { threshold: 2.0, high: 0.8, low: 0.7 };

    /// Some unevenness that is the same each time.
    fn noise(at: u32) -> f64 {
        f64::from(at.wrapping_mul(2_654_435_761) >> 16) / 65_536.0 - 0.5
    }

    #[test]
    fn at_its_limit_it_is_told_so_and_again_when_it_is_not() {
        let mut pool = Pressure::new(MARKS, 0.01);
        let mut told = Vec::new();
        for second in 0..200 {
            let used = if (50..100).contains(&second) { 18.0 } else { 12.0 };
            told.extend(pool.take(used, Some(20.0), 1.0, true).map(|(begins, usage)| (second, begins, usage.reference, usage.usage)));
        }
        assert_eq!(told, [(59, true, Reference::Limit, 0.9), (129, false, Reference::Limit, 0.6)]);
    }

    #[test]
    fn without_a_limit_it_is_held_against_its_baseline() {
        let mut pool = Pressure::new(MARKS, 0.01);
        let mut told = Vec::new();
        for second in 0..1_400 {
            let used = if (1_000..1_100).contains(&second) { 16.0 } else { 8.0 } + noise(second);
            told.extend(pool.take(used, None, 1.0, true).map(|(begins, usage)| (second, begins, usage)));
        }
        let [(begin, true, usage), (end, false, _)] = told[..] else { panic!("{told:?}") };
        assert!((1_000..1_006).contains(&begin) && (1_100..1_130).contains(&end), "{begin} {end}");
        assert!(usage.reference == Reference::Baseline && (usage.usage - 2.0).abs() < 0.2, "{usage:?}");
    }

    #[test]
    fn samples_once_a_minute_are_judged_as_well() {
        let mut heap = Pressure::new(MARKS, 0.01);
        let told: Vec<(u32, bool)> = (0..120)
            .filter_map(|minute| {
                let used = if (60..90).contains(&minute) { 900.0 } else { 400.0 } + 20.0 * noise(minute);
                heap.take(used, None, 60.0, true).map(|(begins, _)| (minute, begins))
            })
            .collect();
        let [(begin, true), (end, false)] = told[..] else { panic!("{told:?}") };
        assert!((60..63).contains(&begin) && (85..95).contains(&end), "{begin} {end}");
        // Of a limit: not the first sample beyond it.
        let mut heap = Pressure::new(MARKS, 0.01);
        let told: Vec<u32> = (0..20).filter(|minute| heap.take(if *minute >= 5 { 95.0 } else { 40.0 }, Some(100.0), 60.0, true).is_some()).collect();
        assert_eq!(told, [6]);
    }

    #[test]
    fn what_is_told_by_its_baseline_ends_by_it_and_is_shown_against_its_limit() {
        let mut pool = Pressure::new(MARKS, 0.01);
        let mut told = Vec::new();
        for second in 0..1_400 {
            let used = if (1_000..1_100).contains(&second) { 16.0 } else { 8.0 } + noise(second);
            told.extend(pool.take(used, Some(100.0), 1.0, true));
            assert_eq!(pool.newest().map(|usage| usage.reference), Some(Reference::Limit));
        }
        let [(true, begin), (false, end)] = told[..] else { panic!("{told:?}") };
        assert_eq!((begin.reference, end.reference), (Reference::Baseline, Reference::Baseline));
        assert!((begin.usage - 2.0).abs() < 0.2 && (end.usage - 1.0).abs() < 0.2, "{begin:?} {end:?}");
    }

    #[test]
    fn what_fills_slowly_is_at_its_limit_in_the_end() {
        let mut pool = Pressure::new(MARKS, 0.01);
        let mut told = Vec::new();
        for second in 0..1_200 {
            let used = match second {
                0..1_000 => 4.0,
                1_000..1_100 => 9.0,
                _ => 20.0,
            } + noise(second);
            told.extend(pool.take(used, Some(20.0), 1.0, true).map(|(begins, usage)| (begins, usage.reference)));
        }
        assert_eq!(told, [(true, Reference::Baseline), (false, Reference::Baseline), (true, Reference::Limit)]);
        assert!(pool.at_limit().is_some());
        // Its limit is told no more.
        assert_eq!(pool.take(20.0, None, 1.0, true).map(|(begins, _)| begins), Some(false));
    }

    #[test]
    fn what_was_stopped_does_not_go_on() {
        let mut pool = Pressure::new(MARKS, 0.01);
        (0..1_000).for_each(|second| assert_eq!(pool.take(8.0 + noise(second), None, 1.0, true), None));
        assert!((0..9).any(|second| pool.take(20.0 + noise(second), None, 1.0, true).is_some()));
        assert!(pool.stop().is_some() && pool.newest().is_none());
        (0..60).for_each(|second| assert_eq!(pool.take(8.0 + noise(second), None, 1.0, true), None));
    }

    #[test]
    fn a_few_more_or_less_of_what_hardly_moves_is_nothing() {
        // Fifty threads; two more for some hours.
        let mut threads = Pressure::new(MARKS, 0.01);
        for minute in 0..2_000_u32 {
            let value = if minute / 120 % 2 == 0 { 50.0 } else { 52.0 };
            assert_eq!(threads.take(value, None, 60.0, true), None, "{minute}");
        }
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        let mut pool = Pressure::new(MARKS, 0.01);
        for value in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(pool.take(value, Some(1.0), 1.0, true), None);
        }
        assert_eq!(pool.take(5.0, Some(0.0), 1.0, true), None);
        assert!(pool.newest().is_none() && pool.told().is_none() && pool.stop().is_none());
    }
}
