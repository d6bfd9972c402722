use std::collections::VecDeque;

use crate::circuit::{
    analysis::{
        anomaly::{Sample, Signal},
        config::TrendConfig,
        trend::{level, slope, trend},
    },
    finding::{Phase, Trend, What},
};

/// Blocks in a window.
const BLOCKS: u64 = 30;

/// The least change over a window that is worth telling: of the level, and of a share of failures.
const LEAST: f64 = 0.1;
const LEAST_SHARE: f64 = 0.01;

/// The slope that a limit is reached by is that of the newest blocks: the others are from before it began.
const NEWEST: usize = 12;

/// Blocks in a row in which it does not go on, after which a trend is over.
const STALLED_MAX: u8 = 3;

/// Seconds within which reaching a limit is worth telling.
const TO_LIMIT_MAX: f64 = 1_200.0;

/// What rises and falls.
const SIGNALS: [Signal; 3] = [Signal::LatencyBody, Signal::Errors, Signal::RateUp];

/// Where the signals of a circuit are going: means of blocks, 30 in a window, tested as each is complete.
#[derive(Clone, Debug)]
pub(super) struct Trends {
    config: TrendConfig,
    /// Which block the sums are of, by number of its buckets.
    block: u64,
    sums: Sums,
    series: [Series; SIGNALS.len()],
}

/// Of the buckets of one block.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    buckets: u64,
    calls: f64,
    failures: f64,
    requests: f64,
    seconds: f64,
    duration: f64,
}

#[derive(Clone, Debug, Default)]
struct Series {
    /// Logarithms of seconds, shares, square roots of calls a second: so that chance spreads alike at every level.
    values: VecDeque<f32>,
    /// Mean of the values and of their deviations from it, while there is no trend.
    usual: Option<(f64, f64)>,
    told: Option<Trend>,
    /// Blocks in a row whose newest values did not go on.
    stalled: u8,
}

impl Trends {
    pub(super) fn new(config: TrendConfig) -> Self {
        Self { config, block: 0, sums: Sums::default(), series: Default::default() }
    }

    /// Takes in bucket `number`, which ended then, in Unix nanoseconds.
    pub(super) fn take(&mut self, number: u64, end: u64, sample: &Sample<'_>, found: &mut Vec<(u64, What)>) {
        let length = self.block_length(sample.seconds);
        let block = number / length;
        if block != self.block {
            if block != self.block + 1 || self.sums.buckets < length {
                // What was not looked at may be anything.
                self.begin_anew(end, found);
            } else {
                self.complete(length as f64 * sample.seconds, end, found);
            }
            (self.block, self.sums) = (block, Sums::default());
        }
        if !sample.teaches {
            // A breaker that is not closed makes its own trends.
            self.begin_anew(end, found);
            return;
        }
        let Sums { buckets, calls, failures, requests, seconds, duration } = &mut self.sums;
        *buckets += 1;
        *calls += f64::from(sample.calls);
        *failures += f64::from(sample.failures);
        *requests += f64::from(sample.calls) + f64::from(sample.rejections);
        *seconds += sample.seconds;
        *duration += sample.duration_sum;
    }

    /// Nobody looks any more, or what comes next does not belong to what was.
    pub(super) fn begin_anew(&mut self, now: u64, found: &mut Vec<(u64, What)>) {
        self.sums = Sums::default();
        for series in &mut self.series {
            found.extend(series.told.take().map(|trend| (now, What::Trend(Phase::Stopped, trend))));
            series.values = VecDeque::new();
        }
    }

    /// What rises or falls now.
    pub(super) fn open(&self) -> impl Iterator<Item = &Trend> {
        self.series.iter().filter_map(|series| series.told.as_ref())
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.series.iter().map(|series| series.values.capacity() * size_of::<f32>()).sum()
    }

    /// Buckets in a block.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some seconds")]
    fn block_length(&self, bucket: f64) -> u64 {
        let bucket = (bucket * 1e9) as u64;
        (self.config.window() / BLOCKS).div_ceil(bucket.max(1)).max(1)
    }

    fn complete(&mut self, block: f64, end: u64, found: &mut Vec<(u64, What)>) {
        let Sums { calls, failures, requests, seconds, duration, .. } = self.sums;
        let values = [
            (calls > 0.0 && duration > 0.0).then(|| (duration / calls).ln()),
            (calls > 0.0).then(|| failures / calls),
            (seconds > 0.0).then(|| (requests / seconds).sqrt()),
        ];
        let most = (self.config.window() as f64 / 1e9 / block).round();
        for ((signal, series), value) in SIGNALS.into_iter().zip(&mut self.series).zip(values) {
            match value {
                Some(value) => series.take(signal, value, block, most, &self.config, end, found),
                // Too few calls to see a trend in.
                None => {
                    found.extend(series.told.take().map(|trend| (end, What::Trend(Phase::Stopped, trend))));
                    series.values = VecDeque::new();
                }
            }
        }
    }
}

impl Series {
    #[expect(clippy::too_many_arguments, reason = "one block of one signal")]
    fn take(&mut self, signal: Signal, value: f64, block: f64, most: f64, config: &TrendConfig, end: u64, found: &mut Vec<(u64, What)>) {
        while self.values.len() as f64 >= most {
            self.values.pop_front();
        }
        #[expect(clippy::cast_possible_truncation, reason = "seven digits tell as much as is asked for")]
        self.values.push_back(value as f32);
        if self.told.is_none() {
            let (mean, deviation) = self.usual.unwrap_or((value, 0.0));
            let off = value - mean;
            self.usual = Some((mean + off / most, deviation + (off.abs() - deviation) / most));
        }
        if (self.values.len() as f64) < most {
            return;
        }
        let values: Vec<f64> = self.values.iter().map(|value| f64::from(*value)).collect();
        let Some((test, steps)) = trend(&values).zip(slope(&values)) else { return };
        let change = steps * most;
        // What rose for long and rises no more is no trend: the newest values have to go on at a quarter of the pace.
        let newest = slope(values.get(values.len().saturating_sub(NEWEST)..).unwrap_or_default()).unwrap_or_default();
        let keeps_on = newest * steps > 0.0 && newest.abs() >= steps.abs() / 4.0;
        self.stalled = if keeps_on { 0 } else { self.stalled.saturating_add(1) };
        let begins = test.stands_out(change) && keeps_on && self.is_worth_telling(signal, change, &values);
        let is_same = self.told.is_some_and(|told| (test.uncorrected < 0.0) == (told.score < 0.0));
        let goes_on = is_same && test.goes_on(change) && self.stalled < STALLED_MAX;
        if !begins && self.told.is_none() {
            return;
        }
        let now = level(&values, steps).map(|at| describe(signal, test.uncorrected, at, &values, block, config));
        match (&mut self.told, now) {
            (told @ None, Some(now)) => {
                *told = Some(now);
                found.push((end, What::Trend(Phase::Begin, now)));
            }
            (Some(told), Some(now)) if goes_on => *told = now,
            (told, _) => found.extend(told.take().map(|trend| (end, What::Trend(Phase::End, trend)))),
        }
    }

    /// Whether it changed so much over a window.
    fn is_worth_telling(&self, signal: Signal, change: f64, values: &[f64]) -> bool {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let least = match signal {
            Signal::LatencyBody | Signal::LatencyTail => LEAST,
            Signal::Errors | Signal::Rejections => LEAST_SHARE.max(LEAST * mean),
            // Half as much on square roots.
            Signal::RateUp | Signal::RateDown => LEAST / 2.0 * mean,
        };
        // Of a normal distribution the mean deviation is 0.8 standard deviations.
        let spread = self.usual.map_or(0.0, |(_, deviation)| 1.2533 * deviation);
        change.abs() >= least.max(spread)
    }
}

/// A trend in seconds, shares, or calls a second, and by the minute: from where a series stands, by the slope of its newest
/// values, since the others may be from before it began.
fn describe(signal: Signal, score: f64, at: f64, values: &[f64], block: f64, config: &TrendConfig) -> Trend {
    let newest = values.get(values.len().saturating_sub(NEWEST)..).unwrap_or_default();
    let (limit, real): (Option<f64>, fn(f64) -> f64) = match signal {
        Signal::LatencyBody | Signal::LatencyTail => (config.duration_limit, f64::exp),
        Signal::Errors | Signal::Rejections => (config.error_ratio_limit, |share| share.clamp(0.0, 1.0)),
        Signal::RateUp | Signal::RateDown => (config.request_rate_limit, |root| root.max(0.0).powi(2)),
    };
    let level = real(at);
    let newest: Vec<f64> = newest.iter().map(|value| real(*value)).collect();
    let minute = slope(&newest).unwrap_or_default() * 60.0 / block;
    let left = limit.map(|limit| (limit - level).max(0.0) / (minute / 60.0));
    Trend {
        signal,
        slope: minute,
        relative: (level > 0.0).then(|| minute / level),
        score,
        level,
        to_limit: left.filter(|left| minute > 0.0 && *left <= TO_LIMIT_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Seconds of so many calls, of which so many fail, that take so long each.
    fn found(config: TrendConfig, seconds: impl Iterator<Item = (u32, u32, f64, bool)>) -> Vec<(u64, Phase, Trend)> {
        let (mut trends, mut found, mut number) = (Trends::new(config), Vec::new(), 1_000);
        for (calls, failures, duration, teaches) in seconds {
            let sample = Sample { calls, failures, seconds: 1.0, teaches, duration_sum: duration * f64::from(calls), ..Sample::default() };
            trends.take(number, (number + 1) * SECOND, &sample, &mut found);
            number += 1;
        }
        found
            .into_iter()
            .map(|(at, what)| if let What::Trend(phase, trend) = what { (at / SECOND - 1_000, phase, trend) } else { panic!("{what:?}") })
            .collect()
    }

    /// Some unevenness that is the same each time.
    fn noise(at: u32) -> f64 {
        f64::from(at.wrapping_mul(2_654_435_761) >> 16) / 65_536.0 - 0.5
    }

    #[test]
    fn latency_that_rises_is_told_with_the_time_that_is_left() {
        let mut config = TrendConfig::default();
        config.duration_limit = Some(0.2);
        // From second 600 on it doubles every five minutes; it holds at second 1 200.
        let duration = |at: u32| 0.04 * 2.0_f64.powf(f64::from(at.clamp(600, 1_200) - 600) / 300.0) * (1.0 + 0.2 * noise(at));
        let found = found(config, (0..2_000).map(|at| (50, 0, duration(at), true)));
        let [(begin, Phase::Begin, rises), (end, Phase::End, last)] = found[..] else { panic!("{found:?}") };
        assert!((700..850).contains(&begin) && (1_250..1_600).contains(&end), "{begin} {end}");
        assert!(rises.slope > 0.0 && rises.relative.is_some_and(|share| (0.05..0.2).contains(&share)), "{rises:?}");
        // It rises the faster the further it is: at 0.04 * 2^x it takes 2.32 doublings to 0.2, to second 1 297.
        let left = rises.to_limit.unwrap();
        assert!((0.5..2.5).contains(&(left / (1_297.0 - begin as f64))), "{left} at {begin}");
        assert_eq!(last.direction(), "up");
    }

    #[test]
    fn the_clearest_trend_is_found_and_its_slope_is_right() {
        // From 20 ms to 200 ms in five minutes, with hardly any noise: what is left beside the line is smooth.
        let duration = |at: u32| 0.02 + 0.18 * f64::from(at.clamp(600, 900) - 600) / 300.0 * (1.0 + 0.01 * noise(at));
        let mut config = TrendConfig::default();
        config.duration_limit = Some(0.3);
        let told = found(config, (0..780).map(|at| (10, 0, duration(at), true)));
        let [(begin, Phase::Begin, trend)] = told[..] else { panic!("{told:?}") };
        assert!((720..=780).contains(&begin), "{begin}");
        // 36 ms a minute; 0.3 s are reached at second 1 067.
        assert!((trend.slope / 0.036 - 1.0).abs() < 0.3, "{trend:?}");
        assert!((trend.to_limit.unwrap() / (1_067.0 - begin as f64) - 1.0).abs() < 0.3, "{trend:?} at {begin}");
    }

    #[test]
    fn what_wavers_is_no_trend_and_what_a_breaker_does_is_none() {
        assert_eq!(found(TrendConfig::default(), (0..4_000).map(|at| (50, 0, 0.04 * (1.0 + noise(at)), true))), []);
        let rises = |at: u32| 0.04 * (1.0 + f64::from(at) / 300.0);
        assert_eq!(found(TrendConfig::default(), (0..2_000).map(|at| (50, 0, rises(at), at % 100 != 0))), []);
    }

    #[test]
    fn a_falling_rate_and_rising_errors_are_told() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "around a hundred")]
        let around = |mean: u32, at: u32| (f64::from(mean) + 20.0 * noise(at)).max(0.0) as u32;
        let rate = |at: u32| around(if at < 600 { 100 } else { 100 - (at - 600).min(300) / 5 }, at);
        let told = found(TrendConfig::default(), (0..1_500).map(|at| (rate(at), 0, 0.04, true)));
        assert!(told.iter().all(|(.., trend)| trend.signal == Signal::RateUp && trend.direction() == "down") && !told.is_empty(), "{told:?}");
        let failures = |at: u32| around(if at < 600 { 10 } else { 10 + (at - 600).min(300) / 10 }, at);
        let told = found(TrendConfig::default(), (0..1_500).map(|at| (100, failures(at), 0.04, true)));
        assert!(told.iter().all(|(.., trend)| trend.signal == Signal::Errors) && !told.is_empty(), "{told:?}");
    }
}
