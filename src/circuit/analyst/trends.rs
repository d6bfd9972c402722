use crate::circuit::{
    analysis::{
        anomaly::{Sample, Signal},
        config::TrendConfig,
        series::{Look, Scale, Series},
    },
    finding::{Measured, Resource, Trend, What},
};

/// Blocks in a window.
const BLOCKS: u64 = 30;

/// What rises and falls, and on what scale.
const MEASURED: [(Measured, Scale); 4] = [
    (Measured::Calls(Signal::LatencyBody), Scale::Log),
    (Measured::Calls(Signal::Errors), Scale::Share),
    (Measured::Calls(Signal::RateUp), Scale::Root),
    (Measured::Resource(Resource::Concurrency), Scale::Root),
];

/// Where the signals of a circuit are going: means of blocks, 30 in a window, tested as each is complete.
#[derive(Clone, Debug)]
pub(super) struct Trends {
    config: TrendConfig,
    /// Which block the sums are of, by number of its buckets.
    block: u64,
    sums: Sums,
    /// Whether anything rises or falls, and the bytes of all series: so that they are looked at only when they change.
    is_open: bool,
    series_bytes: usize,
    series: [Series; MEASURED.len()],
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

impl Trends {
    pub(super) fn new(config: TrendConfig) -> Self {
        Self { config, block: 0, sums: Sums::default(), is_open: false, series_bytes: 0, series: Default::default() }
    }

    /// Takes in bucket `number`, which ended then, in Unix nanoseconds; `concurrency_limit` is how many calls may be under
    /// way.
    pub(super) fn take(&mut self, (number, end): (u64, u64), sample: &Sample<'_>, concurrency_limit: Option<f64>, found: &mut Vec<(u64, What)>) {
        let length = self.block_length(sample.seconds);
        let block = number / length;
        if block != self.block {
            if block != self.block + 1 || self.sums.buckets < length {
                // What was not looked at may be anything.
                self.begin_anew(end, found);
            } else {
                self.complete(length as f64 * sample.seconds, end, concurrency_limit, found);
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
        for ((measured, _), series) in MEASURED.into_iter().zip(&mut self.series) {
            found.extend(series.begin_anew().map(|turn| (now, What::of_turn(measured, turn))));
        }
        self.note_series();
    }

    /// What rises or falls now.
    pub(super) fn open(&self) -> impl Iterator<Item = Trend> {
        let series: &[Series] = if self.is_open { &self.series } else { &[] };
        MEASURED.iter().zip(series).filter_map(|((measured, _), series)| Some(Trend::of(*measured, *series.told()?)))
    }

    pub(super) const fn heap_bytes(&self) -> usize {
        self.series_bytes
    }

    fn note_series(&mut self) {
        self.is_open = self.series.iter().any(|series| series.told().is_some());
        self.series_bytes = self.series.iter().map(Series::heap_bytes).sum();
    }

    /// Buckets in a block.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some seconds")]
    fn block_length(&self, bucket: f64) -> u64 {
        let bucket = (bucket * 1e9) as u64;
        (self.config.window() / BLOCKS).div_ceil(bucket.max(1)).max(1)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "about thirty")]
    fn complete(&mut self, step: f64, end: u64, concurrency_limit: Option<f64>, found: &mut Vec<(u64, What)>) {
        let Sums { calls, failures, requests, seconds, duration, .. } = self.sums;
        let TrendConfig { duration_limit, error_ratio_limit, request_rate_limit, .. } = self.config;
        // Without calls there is no latency and no share; without time no rate. What is under way is what all of them took.
        let values = [
            ((calls > 0.0).then(|| duration / calls), duration_limit),
            ((calls > 0.0).then(|| failures / calls), error_ratio_limit),
            ((seconds > 0.0).then(|| requests / seconds), request_rate_limit),
            // Latency and rate tell as much, but for when it reaches its limit.
            ((seconds > 0.0 && concurrency_limit.is_some()).then(|| duration / seconds), concurrency_limit),
        ];
        let length = (self.config.window() as f64 / 1e9 / step).round() as usize;
        for (((measured, scale), series), (value, limit)) in MEASURED.into_iter().zip(&mut self.series).zip(values) {
            let turn = match value {
                Some(value) => series.take(value, &Look { scale, step, length, limit }),
                // Too few calls to see a trend in.
                None => series.begin_anew(),
            };
            found.extend(turn.map(|turn| (end, What::of_turn(measured, turn))));
        }
        self.note_series();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::circuit::finding::Phase;

    const SECOND: u64 = 1_000_000_000;

    /// Seconds of so many calls, of which so many fail, that take so long each.
    fn found(config: TrendConfig, seconds: impl Iterator<Item = (u32, u32, f64, bool)>) -> Vec<(u64, Phase, Trend)> {
        let (mut trends, mut found, mut number) = (Trends::new(config), Vec::new(), 1_000);
        for (calls, failures, duration, teaches) in seconds {
            let sample = Sample { calls, failures, seconds: 1.0, teaches, duration_sum: duration * f64::from(calls), ..Sample::default() };
            trends.take((number, (number + 1) * SECOND), &sample, None, &mut found);
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
        assert!(rises.course.slope > 0.0 && rises.course.relative.is_some_and(|share| (0.05..0.2).contains(&share)), "{rises:?}");
        // It rises the faster the further it is: at 0.04 * 2^x it takes 2.32 doublings to 0.2, to second 1 297.
        let left = rises.course.to_limit.unwrap();
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
        assert!((trend.course.slope / 0.036 - 1.0).abs() < 0.3, "{trend:?}");
        assert!((trend.course.to_limit.unwrap() / (1_067.0 - begin as f64) - 1.0).abs() < 0.3, "{trend:?} at {begin}");
    }

    #[test]
    fn what_wavers_is_no_trend_and_what_a_breaker_does_is_none() {
        assert_eq!(found(TrendConfig::default(), (0..4_000).map(|at| (50, 0, 0.04 * (1.0 + noise(at)), true))), []);
        let rises = |at: u32| 0.04 * (1.0 + f64::from(at) / 300.0);
        assert_eq!(found(TrendConfig::default(), (0..2_000).map(|at| (50, 0, rises(at), at % 100 != 0))), []);
    }

    #[test]
    fn calls_under_way_are_told_where_they_near_a_limit() {
        let (mut trends, mut found) = (Trends::new(TrendConfig::default()), Vec::new());
        for number in 0..900_u32 {
            // From 2 under way to 8 in five minutes, as latency rises.
            let duration = 0.04 * (1.0 + f64::from(number.clamp(500, 800) - 500) / 100.0) * (1.0 + 0.1 * noise(number));
            let sample = Sample { calls: 50, seconds: 1.0, teaches: true, duration_sum: duration * 50.0, ..Sample::default() };
            trends.take((number.into(), u64::from(number + 1) * SECOND), &sample, Some(12.0), &mut found);
        }
        let of_calls = |what: &What| matches!(what, What::Trend(Phase::Begin, trend) if trend.signal == Measured::Resource(Resource::Concurrency));
        let (at, What::Trend(_, trend)) = found.iter().find(|(_, what)| of_calls(what)).unwrap() else { panic!("{found:?}") };
        // 12 would be reached at second 1 000.
        let left = trend.course.to_limit.unwrap() / (1_000.0 - (at / SECOND) as f64);
        assert!((0.6..1.6).contains(&left), "{left} of what is left, {trend:?}");
    }

    #[test]
    fn a_falling_rate_and_rising_errors_are_told() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "around a hundred")]
        let around = |mean: u32, at: u32| (f64::from(mean) + 20.0 * noise(at)).max(0.0) as u32;
        let rate = |at: u32| around(if at < 600 { 100 } else { 100 - (at - 600).min(300) / 5 }, at);
        let told = found(TrendConfig::default(), (0..1_500).map(|at| (rate(at), 0, 0.04, true)));
        assert!(
            told.iter().all(|(.., trend)| trend.signal == Measured::Calls(Signal::RateUp) && trend.direction() == "down") && !told.is_empty(),
            "{told:?}"
        );
        let failures = |at: u32| around(if at < 600 { 10 } else { 10 + (at - 600).min(300) / 10 }, at);
        let told = found(TrendConfig::default(), (0..1_500).map(|at| (100, failures(at), 0.04, true)));
        assert!(told.iter().all(|(.., trend)| trend.signal == Measured::Calls(Signal::Errors)) && !told.is_empty(), "{told:?}");
    }
}
