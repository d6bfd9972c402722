//! What is unusual in the calls of one circuit: charts of evidence over baselines that learn while nothing is unusual.
//!
//! Sources: those of [`evidence`](super::evidence), [`chart`](super::chart) and `baseline`.

use smallvec::SmallVec;

use super::{
    super::sketch::Code,
    baseline::{BEYOND_MEDIAN, BEYOND_NINETY, Quantiles, Rate, Share},
    chart::{Chart, Step},
    evidence::{Dispersion, Evidence, RATE_MIN, Side, of_rate, of_share},
};

/// The least lasting changes of shares that are worth finding.
const LEAST_BODY: f64 = 0.10;
const LEAST_TAIL: f64 = 0.05;
const LEAST_ERRORS: f64 = 0.01;

/// Seconds after which counts are judged; latencies, which resemble themselves, later.
const COUNTS_FROM: f64 = 60.0;
const LATENCY_FROM: f64 = 300.0;

/// Calls that a share must have been learned from.
const CALLS_MIN: f64 = 30.0;

/// What has been unusual for so many seconds is the usual from then on.
const ACCEPTED: f64 = 1_800.0;

/// What a chart watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Latency of most calls: more than half are slower than the usual median by a fifth, and by the least change.
    LatencyBody,
    /// Latency of the slowest: more than a tenth are slower than the usual 90th percentile by as much.
    LatencyTail,
    /// The share of calls that fail, of those that were let through.
    Errors,
    /// The share of calls that are refused.
    Rejections,
    /// More calls than usual.
    RateUp,
    /// Fewer calls than usual.
    RateDown,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::LatencyBody, Self::LatencyTail, Self::Errors, Self::Rejections, Self::RateUp, Self::RateDown];

    /// `circuit_breaker.signal`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LatencyBody => "duration",
            Self::LatencyTail => "duration_tail",
            Self::Errors => "error_ratio",
            Self::Rejections => "rejection_ratio",
            Self::RateUp | Self::RateDown => "request_rate",
        }
    }

    /// `circuit_breaker.direction` of what is unusual in it.
    pub const fn direction(self) -> &'static str {
        if matches!(self, Self::RateDown) { "down" } else { "up" }
    }
}

/// A closed bucket, as far as anomalies go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample<'a> {
    /// Calls that were let through.
    pub calls: u32,
    /// Those of them that failed.
    pub failures: u32,
    /// Calls that were refused.
    pub rejections: u32,
    /// Latencies of calls that were let through, by code of the sketch, ascending.
    pub latencies: &'a [(u16, u32)],
    /// Sum of these latencies, in seconds.
    pub duration_sum: f64,
    /// The length of the bucket.
    pub seconds: f64,
    /// Whether it shows what is usual: a bucket in which a breaker is not closed does not.
    pub teaches: bool,
    /// Whether it is not known if the buckets before it were empty: then it says nothing of how many calls there are.
    pub after_gap: bool,
}

impl Sample<'_> {
    /// Calls of every outcome.
    fn requests(&self) -> f64 {
        f64::from(self.calls) + f64::from(self.rejections)
    }

    /// A percentile of its latencies, in seconds; `None` without calls.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        let all: u64 = self.latencies.iter().map(|(_, count)| u64::from(*count)).sum();
        let rank = percent / 100.0 * all as f64;
        let mut below = 0.0;
        let found = self.latencies.iter().find(|(_, count)| {
            below += f64::from(*count);
            below >= rank
        });
        found.map(|(code, _)| Code(*code).seconds())
    }
}

/// What a bucket did to a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Notice {
    /// Which.
    pub signal: Signal,
    /// [`Step::Opened`], [`Step::GoesOn`] or [`Step::Closed`].
    pub step: Step,
    /// What the bucket showed of it; `None` where there was nothing to judge, and of what closed.
    pub reading: Option<Reading>,
    /// Of what opened or closed: for how many seconds it had been so already.
    pub since: f64,
}

/// What a bucket shows of a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// Deviations of one bucket that it lies off the baseline; 0 on the other side.
    pub score: f64,
    /// What is usual: the median or the 90th percentile in seconds, a share, or calls a second.
    pub expected: f64,
    /// What was seen: of latencies, the same percentile of the bucket.
    pub seen: f64,
}

/// A chart, and for how many seconds it has been open.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Watched {
    chart: Chart,
    open_for: f64,
}

/// Calls since evidence has risen, and those that took clearly longer than the usual: by a fifth, and by the least change.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Excess {
    calls: f64,
    beyond: f64,
}

impl Excess {
    /// Whether the quantile beyond which this share lies seems to be higher by as much.
    fn is_worth_telling(self, share: f64) -> bool {
        self.beyond >= share * self.calls
    }
}

/// Watches the calls of one circuit. O(1) a bucket, but for the latencies in it; about 600 bytes.
#[derive(Clone, Debug)]
pub struct Detector {
    /// The smallest lasting shift worth finding, in deviations of one bucket.
    threshold: f64,
    /// The least change of latency worth finding, in seconds.
    least: f64,
    age: f64,
    watched: [Watched; 6],
    latency: Quantiles,
    /// By the median, and by the 90th percentile.
    excess: [Excess; 2],
    errors: Share,
    rejections: Share,
    rate: Rate,
}

impl Detector {
    /// Looks for lasting shifts of so many deviations of one bucket, 1 to 6; of latencies, for those that are `least` seconds
    /// longer, too.
    pub fn new(threshold: f64, least: f64) -> Self {
        let watched = Signal::ALL.map(|signal| {
            let habituates = matches!(signal, Signal::RateUp | Signal::RateDown);
            Watched { chart: if habituates { Chart::habituating() } else { Chart::default() }, open_for: 0.0 }
        });
        let (latency, errors, rejections, rate) = (Quantiles::default(), Share::default(), Share::default(), Rate::default());
        Self { threshold, least, age: 0.0, watched, latency, excess: Default::default(), errors, rejections, rate }
    }

    /// Whether a signal is unusual.
    pub fn is_open(&self, signal: Signal) -> bool {
        self.watched(signal).is_some_and(|watched| watched.chart.is_open())
    }

    /// In how many more empty buckets nobody calling is unusual; `None` while nothing is usual yet, or where it is unusual
    /// already.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most some thousands")]
    pub fn silence_in(&self) -> Option<u64> {
        let watched = self.watched(Signal::RateDown).filter(|watched| !watched.chart.is_open() && self.rate.age >= COUNTS_FROM)?;
        let missing = { watched.chart }.needed(self.age, 0.0) - self.rate.silence;
        Some((missing.max(0.0) / self.rate.unlikely()).ceil().max(1.0) as u64)
    }

    /// Looks at a signal as if it were not unusual.
    pub fn close(&mut self, signal: Signal) {
        self.watched.get_mut(signal as usize).into_iter().for_each(|watched| _ = watched.chart.close());
    }

    /// Bytes on the heap: none but while the first calls are collected.
    pub fn heap_bytes(&self) -> usize {
        self.latency.first.heap_bytes() + self.errors.heap_bytes() + self.rejections.heap_bytes()
    }

    fn watched(&self, signal: Signal) -> Option<&Watched> {
        self.watched.get(signal as usize)
    }

    /// Takes a closed bucket in; gives what opened, goes on and closed with it.
    pub fn take(&mut self, sample: &Sample<'_>) -> SmallVec<[Notice; 2]> {
        let mut notices = SmallVec::new();
        if self.age >= COUNTS_FROM && !self.errors.is_known {
            self.errors.settle();
            self.rejections.settle();
        }
        let (slower, clearly_slower) = self.latency.slower(sample.latencies, self.least).unzip();
        for signal in Signal::ALL {
            let evidence = self.judge(signal, sample, slower);
            let rising = self.watched(signal).map_or(0.0, |watched| watched.chart.rising());
            let exceeds = self.exceeds(signal, rising, sample.calls, clearly_slower);
            let mut step = self.step(signal, evidence, sample.seconds);
            if step == Step::Opened && !exceeds {
                // It is learned instead.
                self.close(signal);
                step = Step::Quiet;
            }
            if step != Step::Quiet {
                // Of what closes the baseline may be another one already.
                let judged = evidence.filter(|_| step != Step::Closed);
                let mut reading = judged.and_then(|evidence| self.reading(signal, sample, evidence));
                if let Some(reading) = reading.as_mut().filter(|_| signal == Signal::RateDown) {
                    // Of silence all of it counts, not one bucket.
                    reading.score = reading.score.max((2.0 * self.rate.silence).sqrt());
                }
                // To the beginning of the first of them.
                let since = if step == Step::GoesOn { 0.0 } else { rising + sample.seconds };
                notices.push(Notice { signal, step, reading, since });
            }
        }
        if sample.teaches {
            self.learn(sample, slower);
        }
        self.age += sample.seconds;
        notices
    }

    /// Whether a signal is off by enough to be told, as far as this bucket and those before it show in which evidence rose
    /// for so many seconds.
    fn exceeds(&mut self, signal: Signal, rising: f64, calls: u32, slower: Option<(f64, f64)>) -> bool {
        let [median, ninety] = &mut self.excess;
        let (excess, share) = match signal {
            Signal::LatencyBody => (median, BEYOND_MEDIAN),
            Signal::LatencyTail => (ninety, BEYOND_NINETY),
            _ => return true,
        };
        if rising <= 0.0 {
            *excess = Excess::default();
        }
        if let Some((slower, slowest)) = slower {
            excess.calls += f64::from(calls);
            excess.beyond += if signal == Signal::LatencyBody { slower } else { slowest };
        }
        excess.is_worth_telling(share)
    }

    fn step(&mut self, signal: Signal, evidence: Option<Evidence>, seconds: f64) -> Step {
        let Some(Watched { chart, open_for }) = self.watched.get_mut(signal as usize) else { return Step::Quiet };
        if chart.is_open() {
            *open_for += seconds;
            if *open_for >= ACCEPTED {
                let closed = chart.close();
                self.accept(signal);
                return closed;
            }
        } else {
            *open_for = 0.0;
        }
        let Some(evidence) = evidence else {
            chart.wait(seconds);
            return if chart.is_open() { Step::GoesOn } else { Step::Quiet };
        };
        let step = chart.step(evidence, self.age, seconds);
        if signal == Signal::RateDown && step == Step::Quiet && self.rate.silence >= chart.needed(self.age, 0.0) {
            return chart.open();
        }
        step
    }

    /// What a bucket says of a signal; `None` while there is no baseline, or nothing to judge.
    fn judge(&mut self, signal: Signal, sample: &Sample<'_>, slower: Option<(f64, f64)>) -> Option<Evidence> {
        let (calls, failures, rejections) = (f64::from(sample.calls), f64::from(sample.failures), f64::from(sample.rejections));
        let requests = sample.requests();
        let threshold = self.threshold;
        let share =
            |hits: f64, all: f64, usual: f64, least: f64, dispersion: &Dispersion| of_share(hits, all, usual, least, threshold, dispersion.spread());
        match signal {
            Signal::LatencyBody | Signal::LatencyTail if self.latency.age < LATENCY_FROM => None,
            Signal::LatencyBody => share(slower?.0, calls, BEYOND_MEDIAN, LEAST_BODY, &self.latency.body),
            Signal::LatencyTail => share(slower?.1, calls, BEYOND_NINETY, LEAST_TAIL, &self.latency.tail),
            _ if self.age < COUNTS_FROM => None,
            Signal::RateUp | Signal::RateDown if self.rate.age < COUNTS_FROM || sample.after_gap => None,
            Signal::Errors if self.errors.all < CALLS_MIN => None,
            Signal::Errors => share(failures, calls, self.errors.usual(), LEAST_ERRORS, &self.errors.dispersion),
            Signal::Rejections if self.rejections.all < CALLS_MIN => None,
            Signal::Rejections => share(rejections, requests, self.rejections.usual(), LEAST_ERRORS, &self.rejections.dispersion),
            Signal::RateUp | Signal::RateDown => {
                let side = if signal == Signal::RateUp { Side::Up } else { Side::Down };
                if side == Side::Down {
                    self.rate.hear(requests);
                }
                Some(of_rate(requests, self.rate.usual, side, threshold, self.rate.dispersion.spread()))
            }
        }
    }

    /// What was judged, as it is told.
    fn reading(&self, signal: Signal, sample: &Sample<'_>, evidence: Evidence) -> Option<Reading> {
        let (calls, requests) = (f64::from(sample.calls), sample.requests());
        let (expected, seen) = match signal {
            Signal::LatencyBody => (self.latency.logs?.0.exp(), sample.percentile(50.0)?),
            Signal::LatencyTail => (self.latency.logs?.1.exp(), sample.percentile(90.0)?),
            Signal::Errors => (self.errors.usual(), f64::from(sample.failures) / calls),
            Signal::Rejections => (self.rejections.usual(), f64::from(sample.rejections) / requests),
            Signal::RateUp | Signal::RateDown => (self.rate.usual / sample.seconds, requests / sample.seconds),
        };
        Some(Reading { score: evidence.deviations, expected, seen })
    }

    /// Learns what is usual, where nothing seems unusual.
    fn learn(&mut self, sample: &Sample<'_>, slower: Option<(f64, f64)>) {
        let (calls, failures, rejections) = (f64::from(sample.calls), f64::from(sample.failures), f64::from(sample.rejections));
        let requests = sample.requests();
        let [median, ninety] = self.excess;
        // What is off by less than is told must be learned.
        let is_small = |signal: &Signal| match signal {
            Signal::LatencyBody => !median.is_worth_telling(BEYOND_MEDIAN),
            Signal::LatencyTail => !ninety.is_worth_telling(BEYOND_NINETY),
            _ => false,
        };
        let lets_learn = |signal: &Signal| self.watched(*signal).is_some_and(|it| it.chart.lets_learn() || !it.chart.is_open() && is_small(signal));
        let calm = |one: Signal, other: Signal| [one, other].iter().all(lets_learn);
        let (latency, shares, rate) =
            (calm(Signal::LatencyBody, Signal::LatencyTail), calm(Signal::Errors, Signal::Rejections), calm(Signal::RateUp, Signal::RateDown));
        let a_second = self.rate.usual.max(RATE_MIN) / sample.seconds;
        if latency {
            self.latency.learn(sample.latencies, (calls, sample.seconds), slower);
        }
        if shares {
            self.errors.learn(failures, calls, a_second, sample.seconds);
            self.rejections.learn(rejections, requests, a_second, sample.seconds);
        }
        if rate && !sample.after_gap {
            self.rate.learn(requests, sample.seconds);
        }
    }

    /// What has been unusual for so long is learned anew as the usual.
    pub fn accept(&mut self, signal: Signal) {
        self.close(signal);
        match signal {
            Signal::LatencyBody | Signal::LatencyTail => {
                self.latency = Quantiles::default();
                // The other has no baseline either: it closes when its turn comes.
                let both = [Signal::LatencyBody, Signal::LatencyTail];
                let open = self.watched.iter_mut().zip(Signal::ALL).filter(|(watched, other)| both.contains(other) && watched.chart.is_open());
                open.for_each(|(watched, _)| watched.open_for = ACCEPTED);
            }
            Signal::Errors => self.errors = Share::anew(),
            Signal::Rejections => self.rejections = Share::anew(),
            Signal::RateUp | Signal::RateDown => self.rate = Rate::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::{super::baseline::nanos, *};

    /// A millisecond.
    const LEAST: f64 = 0.001;

    /// A second of calls that took so many milliseconds, evenly around it.
    fn second(calls: u32, failures: u32, millis: f64) -> (Vec<(u16, u32)>, u32, u32) {
        let mut codes: Vec<u16> =
            (0..calls).map(|call| Code::of(nanos(millis / 1e3 * (0.5 + f64::from(call) / f64::from(calls.max(1))))).0).collect();
        codes.sort_unstable();
        let runs = codes.chunk_by(|one, other| one == other).map(|run| (run[0], u32::try_from(run.len()).unwrap())).collect();
        (runs, calls, failures)
    }

    fn take(detector: &mut Detector, (latencies, calls, failures): &(Vec<(u16, u32)>, u32, u32)) -> SmallVec<[Notice; 2]> {
        detector.take(&Sample { calls: *calls, failures: *failures, latencies, seconds: 1.0, teaches: true, ..Sample::default() })
    }

    fn after(seconds: u32) -> Detector {
        let mut detector = Detector::new(2.0, LEAST);
        let healthy = second(50, 0, 40.0);
        for _ in 0..seconds {
            assert!(take(&mut detector, &healthy).is_empty());
        }
        detector
    }

    fn opened(detector: &mut Detector, fault: &(Vec<(u16, u32)>, u32, u32)) -> Vec<(u32, Signal)> {
        let mut opened = Vec::new();
        for second in 1..=20 {
            let notices = take(detector, fault);
            opened.extend(notices.iter().filter(|notice| notice.step == Step::Opened).map(|notice| (second, notice.signal)));
        }
        opened
    }

    #[test]
    fn each_fault_opens_its_own_signal_and_closes_after_it() {
        let faults = [
            (second(50, 0, 80.0), Signal::LatencyBody),
            (second(50, 6, 40.0), Signal::Errors),
            (second(120, 0, 40.0), Signal::RateUp),
            (second(20, 0, 40.0), Signal::RateDown),
            (second(0, 0, 40.0), Signal::RateDown),
        ];
        for (fault, expected) in faults {
            let mut detector = after(1_200);
            let seen = opened(&mut detector, &fault);
            assert!(seen.iter().any(|(delay, signal)| *signal == expected && *delay <= 4), "{expected:?}: {seen:?}");
            let healthy = second(50, 0, 40.0);
            (0..30).for_each(|_| _ = take(&mut detector, &healthy));
            assert!(Signal::ALL.iter().all(|signal| !detector.is_open(*signal)), "{expected:?}");
        }
    }

    #[test]
    fn an_outage_in_the_first_minute_is_not_the_usual_after_it() {
        for rate in [5, 50] {
            let mut detector = Detector::new(2.0, LEAST);
            for age in 0..400 {
                take(&mut detector, &second(rate, if (20..32).contains(&age) { rate } else { 0 }, 40.0));
            }
            let found = opened(&mut detector, &second(rate, rate, 40.0));
            assert!(matches!(found[..], [(1..=5, Signal::Errors), ..]), "{rate}: {found:?}");
        }
    }

    #[test]
    fn a_new_level_is_accepted_in_the_end() {
        let mut detector = after(1_200);
        let slower = second(50, 0, 80.0);
        (0..1_700).for_each(|_| _ = take(&mut detector, &slower));
        assert!(detector.is_open(Signal::LatencyBody));
        (0..1_000).for_each(|_| _ = take(&mut detector, &slower));
        assert!(!detector.is_open(Signal::LatencyBody));
        assert!(opened(&mut detector, &second(50, 0, 160.0)).iter().any(|(_, signal)| *signal == Signal::LatencyBody));
    }

    #[test]
    fn what_an_open_breaker_does_teaches_nothing() {
        let mut detector = after(1_200);
        for _ in 0..600 {
            detector.take(&Sample { rejections: 50, seconds: 1.0, ..Sample::default() });
        }
        assert!(detector.is_open(Signal::Rejections));
        assert!(detector.rejections.usual() < 0.01);
    }

    #[test]
    fn what_is_slower_by_a_tenth_is_learned_and_not_told() {
        let told = |millis: f64| {
            let mut detector = after(900);
            let slower = second(50, 0, millis);
            (0..600).flat_map(|_| take(&mut detector, &slower)).any(|notice| notice.step == Step::Opened)
        };
        assert!(!told(44.0) && told(52.0));
    }

    #[test]
    fn what_is_slower_by_half_a_millisecond_is_learned_and_not_told() {
        let told = |least: f64, millis: f64| {
            let mut detector = Detector::new(2.0, least);
            let seconds = (0..900).map(|_| 0.5).chain((0..600).map(|_| millis));
            seconds.flat_map(|millis| take(&mut detector, &second(50, 0, millis))).any(|notice| notice.step == Step::Opened)
        };
        assert!(!told(LEAST, 1.0), "twice as long, and half a millisecond");
        assert!(told(LEAST, 3.0) && told(0.0, 1.0));
    }

    proptest! {
        #[test]
        fn signals_open_and_close_in_turn(spells in vec((0..200_u32, 0..100_u32, 0..100_u32, 1.0..10_000.0_f64, any::<bool>(), 1..400_u32), 1..40)) {
            let mut detector = Detector::new(2.0, LEAST);
            let mut open = [false; 6];
            for (calls, failures, rejections, millis, teaches, seconds) in spells {
                let (latencies, calls, failures) = second(calls, failures.min(calls), millis);
                for _ in 0..seconds {
                    let sample = Sample { calls, failures, rejections, latencies: &latencies, seconds: 1.0, teaches, ..Sample::default() };
                    for Notice { signal, step, reading, .. } in detector.take(&sample) {
                        let is_open = &mut open[signal as usize];
                        prop_assert_eq!(*is_open, step != Step::Opened, "{:?} {:?}", signal, step);
                        *is_open = step != Step::Closed;
                        prop_assert!(reading.is_none_or(|reading| reading.score.is_finite() && reading.expected.is_finite() && reading.seen.is_finite()));
                    }
                    prop_assert_eq!(open, Signal::ALL.map(|signal| detector.is_open(signal)));
                }
            }
        }
    }

    #[test]
    fn a_circuit_that_was_seen_once_says_nothing() {
        let mut detector = Detector::new(2.0, LEAST);
        assert!(take(&mut detector, &second(1, 1, 40.0)).is_empty());
        for _ in 0..10_000 {
            assert!(take(&mut detector, &second(0, 0, 40.0)).iter().all(|notice| notice.signal == Signal::RateDown));
        }
    }
}
