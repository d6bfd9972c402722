//! Whether a resource is under pressure: by its limit where there is one, and by its rolling baseline.

use super::{chart::Step, gauge::Gauge};

/// Looks, and how many of them must be at the limit.
const LOOKS: u32 = 15;
const HIGH_LOOKS: u32 = 10;

/// Looks in a row below the lower mark after which it is no longer.
const LOW_LOOKS: u8 = 30;

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
    /// Whether a look was at the limit; the lowest bit is the newest one.
    high: u32,
    low: u8,
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
    /// By these rules.
    pub fn new(marks: Marks) -> Self {
        Self { marks, gauge: Gauge::new(marks.threshold), high: 0, low: 0, at_limit: false, told: None, newest: None }
    }

    /// What is told of it now.
    pub const fn told(&self) -> Option<&Usage> {
        self.told.as_ref()
    }

    /// How it stands; `None` before it was seen, and where there is neither limit nor baseline.
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
        let of_limit = limit.map(|limit| value / limit);
        self.look(of_limit);
        let by_baseline = matches!(reading.step, Step::Opened | Step::GoesOn);
        let reference = if self.at_limit || limit.is_some() && !by_baseline { Reference::Limit } else { Reference::Baseline };
        let of_baseline = baseline.filter(|baseline| *baseline > 0.0).map(|baseline| value / baseline);
        let (usage, threshold) = match reference {
            Reference::Limit => (of_limit, self.marks.high),
            Reference::Baseline => (of_baseline, self.marks.threshold),
        };
        let now = usage.map(|usage| Usage { reference, seen: value, baseline, usage, threshold });
        self.newest = now;
        match (self.told, now.filter(|_| self.at_limit || by_baseline)) {
            (None, Some(now)) => {
                self.told = Some(now);
                Some((true, now))
            }
            (Some(_), None) => self.stop().map(|told| (false, Usage { seen: value, baseline, usage: usage.unwrap_or(told.usage), ..told })),
            (told, now) => {
                self.told = now.or(told);
                None
            }
        }
    }

    /// Nobody looks any more; gives what was told of it.
    pub fn stop(&mut self) -> Option<Usage> {
        (self.at_limit, self.high, self.low) = (false, 0, 0);
        self.told.take()
    }

    fn look(&mut self, of_limit: Option<f64>) {
        let Some(share) = of_limit else { return };
        self.high = (self.high << 1 | u32::from(share >= self.marks.high)) & ((1 << LOOKS) - 1);
        self.low = if share < self.marks.low { self.low.saturating_add(1) } else { 0 };
        if self.high.count_ones() >= HIGH_LOOKS {
            self.at_limit = true;
        } else if self.low >= LOW_LOOKS {
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
        let mut pool = Pressure::new(MARKS);
        let mut told = Vec::new();
        for second in 0..200 {
            let used = if (50..100).contains(&second) { 18.0 } else { 12.0 };
            told.extend(pool.take(used, Some(20.0), 1.0, true).map(|(begins, usage)| (second, begins, usage.reference, usage.usage)));
        }
        assert_eq!(told, [(59, true, Reference::Limit, 0.9), (129, false, Reference::Limit, 0.6)]);
    }

    #[test]
    fn without_a_limit_it_is_held_against_its_baseline() {
        let mut pool = Pressure::new(MARKS);
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
        let mut heap = Pressure::new(MARKS);
        let told: Vec<(u32, bool)> = (0..120)
            .filter_map(|minute| {
                let used = if (60..90).contains(&minute) { 900.0 } else { 400.0 } + 20.0 * noise(minute);
                heap.take(used, None, 60.0, true).map(|(begins, _)| (minute, begins))
            })
            .collect();
        let [(begin, true), (end, false)] = told[..] else { panic!("{told:?}") };
        assert!((60..63).contains(&begin) && (85..95).contains(&end), "{begin} {end}");
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        let mut pool = Pressure::new(MARKS);
        for value in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(pool.take(value, Some(1.0), 1.0, true), None);
        }
        assert_eq!(pool.take(5.0, Some(0.0), 1.0, true), None);
        assert!(pool.newest().is_none() && pool.told().is_none() && pool.stop().is_none());
    }
}
