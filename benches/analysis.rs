//! How often the methods of analysis find what is there, and how often what is not, by simulation.
//!
//! `cargo bench --bench analysis` prints the tables of docs/measurements.md; the seeds are fixed, so that they are the same
//! each time. Sequences for each figure: 1 000, or the number given behind `--`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

use std::{
    f64::consts::TAU,
    sync::Arc,
    time::{Duration, Instant},
};

use fastrand::Rng;
use fuseboard::circuit::{
    analysis::{
        anomaly::{Detector, Sample, Signal},
        chart::Step,
        clock_alignment::alignment,
        pressure::{Marks, Pressure},
        regularity::{Verdict, regularity},
        series::{Look, Scale, Series, Turn},
        trend::{slope, trend},
    },
    cascade::{Cascades, Together},
    event::IncidentId,
    finding::Resource,
    key::{Caller, CircuitKey},
    sketch::Code,
};

fn normal(random: &mut Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (TAU * random.f64()).cos()
}

fn exponential(random: &mut Rng, mean: f64) -> f64 {
    -mean * (1.0 - random.f64()).ln()
}

/// The share, in percent, of sequences for which something holds.
fn share(sequences: u32, mut holds: impl FnMut(&mut Rng) -> bool) -> f64 {
    let mut random = Rng::with_seed(7);
    f64::from((0..sequences).map(|_| u32::from(holds(&mut random))).sum::<u32>()) / f64::from(sequences) * 100.0
}

/// Trips by a clock with jitter, some of them missed.
fn by_clock(random: &mut Rng, trips: usize, jitter: f64, missed: f64) -> Vec<f64> {
    let ticks = (0..).filter(|tick| *tick == 0 || random.f64() >= missed).take(trips).collect::<Vec<u32>>();
    let mut times: Vec<f64> = ticks.iter().map(|tick| f64::from(*tick) * 600.0 + normal(random) * jitter * 600.0).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Trips as chance makes them, a dead time apart at least.
fn by_chance(random: &mut Rng, trips: usize, dead_time: f64) -> Vec<f64> {
    let mut at = 0.0;
    let mut next = || {
        at += dead_time + exponential(random, 600.0 - dead_time);
        at
    };
    (0..trips).map(|_| next()).collect()
}

fn verdict(trips: &[f64], dead_time: f64) -> Verdict {
    regularity(trips, dead_time).map_or(Verdict::Irregular, |seen| seen.verdict)
}

fn patterns(sequences: u32) {
    println!("\ntrip patterns: found at least possible, in % of sequences, none / 15 % / 30 % of the trips missed");
    println!("{:<8}{:>18}{:>18}{:>18}{:>18}", "trips", "no jitter", "10 %", "20 %", "30 %");
    for trips in [5, 8, 12, 20] {
        print!("{trips:<8}");
        for jitter in [0.0, 0.1, 0.2, 0.3] {
            let found = |missed: f64| share(sequences, |random| verdict(&by_clock(random, trips, jitter, missed), 0.0) > Verdict::Irregular);
            print!("{:>18}", format!("{:.0} / {:.0} / {:.0}", found(0.0), found(0.15), found(0.3)));
        }
        println!();
    }
    println!("target: at least 95 % of 8 trips with 10 % jitter and none missed");
    println!("\nfalse, in % of 10 times as many sequences of chance: possible / regular, by dead time as a share of the mean interval");
    println!("{:<8}{:>18}{:>18}{:>18}{:>18}", "trips", "none", "10 %", "30 %", "50 %");
    for trips in [5, 8, 12, 20] {
        print!("{trips:<8}");
        for dead in [0.0, 0.1, 0.3, 0.5] {
            let dead_time = dead * 600.0;
            let at_least = |least: Verdict| share(10 * sequences, |random| verdict(&by_chance(random, trips, dead_time), dead_time) >= least);
            print!("{:>18}", format!("{:.2} / {:.2}", at_least(Verdict::Possible), at_least(Verdict::Regular)));
        }
        println!();
    }
    println!("target: at most 1 %");
}

fn clocks(sequences: u32) {
    println!("\nalignment with the clock, each hour at :20: found in % of sequences; false in % of chance");
    println!("{:<8}{:>12}{:>12}{:>12}", "trips", "± 60 s", "± 300 s", "false");
    for trips in [6_u32, 8, 12, 20] {
        let hourly = |random: &mut Rng, jitter: f64| {
            (0..trips).map(|hour| f64::from(hour) * 3_600.0 + 1_200.0 + normal(random) * jitter).collect::<Vec<f64>>()
        };
        let found = |jitter: f64| share(sequences, |random| alignment(&hourly(random, jitter)).is_some_and(|found| found.period == 3_600));
        let wrong = share(10 * sequences, |random| {
            let mut at = random.f64() * 86_400.0;
            let times: Vec<f64> = (0..trips)
                .map(|_| {
                    at += exponential(random, 3_600.0);
                    at
                })
                .collect();
            alignment(&times).is_some()
        });
        println!("{trips:<8}{:>12.0}{:>12.0}{wrong:>12.2}", found(60.0), found(300.0));
    }
}

/// A series whose values resemble the one before, with standard deviation 1.
struct Correlated {
    coefficient: f64,
    last: f64,
}

impl Correlated {
    fn next(&mut self, random: &mut Rng) -> f64 {
        self.last = self.coefficient * self.last + (1.0 - self.coefficient * self.coefficient).sqrt() * normal(random);
        self.last
    }
}

/// Means of 10 s that a window of 300 s holds.
const BLOCKS: usize = 30;
const SECONDS: usize = 10;

/// The means of 10 s of such a series, with a ramp of so many standard deviations in 300 s from the beginning on.
fn blocks(random: &mut Rng, coefficient: f64, ramp: f64, from: usize, count: usize) -> Vec<f64> {
    let mut noise = Correlated { coefficient, last: normal(random) };
    let mut value = |second: usize| noise.next(random) + ramp * second.saturating_sub(from * SECONDS) as f64 / 300.0;
    (0..count).map(|block| (0..SECONDS).map(|second| value(block * SECONDS + second)).sum::<f64>() / SECONDS as f64).collect()
}

fn trends(sequences: u32) {
    println!("\ntrends over 300 s of values that resemble the one before (AR): % of windows beyond 1.96; false trends a day;");
    println!("ramps of 2 and of 4 deviations in 300 s found within 600 s, % and mean delay");
    println!("{:<8}{:>12}{:>12}{:>18}{:>18}", "AR", "windows", "a day", "2 deviations", "4 deviations");
    for coefficient in [0.0, 0.5, 0.8, 0.95] {
        let windows = share(sequences, |random| trend(&blocks(random, coefficient, 0.0, 0, BLOCKS)).unwrap().z.abs() > 1.96);
        let days = 30;
        let series = blocks(&mut Rng::with_seed(11), coefficient, 0.0, 0, days * 8_640);
        let (mut open, mut false_trends) = (false, 0.0);
        for window in series.windows(BLOCKS) {
            let (seen, change) = (trend(window).unwrap(), slope(window).unwrap() * BLOCKS as f64);
            false_trends += f64::from(u8::from(!open && seen.stands_out(change)));
            open = if open { seen.goes_on(change) } else { seen.stands_out(change) };
        }
        let found = |ramp: f64| {
            let mut delays = Vec::new();
            let mut found = |random: &mut Rng| {
                let series = blocks(random, coefficient, ramp, BLOCKS, BLOCKS + 60);
                let at = (1..=60).find(|after| {
                    let window = &series[*after..after + BLOCKS];
                    let seen = trend(window).unwrap();
                    seen.uncorrected > 0.0 && seen.stands_out(slope(window).unwrap() * BLOCKS as f64)
                });
                delays.extend(at.map(|after| (after * SECONDS) as f64));
                at.is_some()
            };
            let found = share(sequences, &mut found);
            format!("{found:.0} %, {:.0} s", delays.iter().sum::<f64>() / delays.len().max(1) as f64)
        };
        println!("{coefficient:<8}{windows:>12.1}{:>12.2}{:>18}{:>18}", false_trends / days as f64, found(2.0), found(4.0));
    }
}

/// How traffic behaves while nothing is wrong.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Stationary,
    Daily,
    Bursty,
    HeavyTail,
    Wobble,
}

/// Calls of a circuit, second by second: log-normal latency of 40 ms, 0.5 % failures, 0.1 % rejections.
struct Traffic {
    kind: Kind,
    rate: f64,
    random: Rng,
    second: u32,
    /// What wanders, with standard deviation 1, and seconds left of a surge.
    wander: Correlated,
    surge: u32,
}

/// What is wrong with calls from a moment on.
#[derive(Clone, Copy, Debug)]
struct Fault {
    latency: f64,
    errors: f64,
    rate: f64,
}

const HEALTHY: Fault = Fault { latency: 1.0, errors: 0.0, rate: 1.0 };

impl Traffic {
    fn new(kind: Kind, rate: f64, seed: u64) -> Self {
        let coefficient = match kind {
            Kind::Bursty => 0.82,
            _ => 0.967,
        };
        Self { kind, rate, random: Rng::with_seed(seed), second: 0, wander: Correlated { coefficient, last: 0.0 }, surge: 0 }
    }

    fn poisson(&mut self, mean: f64) -> u32 {
        let (mut at, mut count) = (exponential(&mut self.random, 1.0), 0);
        while at < mean {
            at += exponential(&mut self.random, 1.0);
            count += 1;
        }
        count
    }

    /// The next second, with its latencies written into `codes`.
    fn next(&mut self, fault: Fault, codes: &mut Vec<(u16, u32)>) -> (u32, u32, u32) {
        let wander = self.wander.next(&mut self.random);
        let day = (f64::from(self.second) / 86_400.0 * TAU).sin();
        let (mut rate, mut median) = (self.rate * fault.rate, 0.040 * fault.latency);
        match self.kind {
            Kind::Daily => (rate, median) = (rate * (1.0 + 0.6 * day), median * (1.0 + 0.2 * day)),
            Kind::Bursty => {
                self.surge = if self.surge > 0 {
                    self.surge - 1
                } else if self.random.f64() < 140.0 / 86_400.0 {
                    10
                } else {
                    0
                };
                rate *= (0.4 * wander).exp() * if self.surge > 0 { 3.0 } else { 1.0 };
            }
            Kind::Wobble => median *= (0.1 * wander).exp(),
            Kind::Stationary | Kind::HeavyTail => {}
        }
        self.second += 1;
        let requests = self.poisson(rate);
        let (mut calls, mut failures, mut rejections) = (0, 0, 0);
        codes.clear();
        for _ in 0..requests {
            if self.random.f64() < 0.001 {
                rejections += 1;
                continue;
            }
            calls += 1;
            failures += u32::from(self.random.f64() < 0.005 + fault.errors);
            let mut seconds = median * (0.5 * normal(&mut self.random)).exp();
            if matches!(self.kind, Kind::HeavyTail) && self.random.f64() < 0.05 {
                seconds = median * (1.0 - self.random.f64()).powf(-1.0 / 1.2);
            }
            let nanos = Duration::from_secs_f64(seconds.min(1e6)).as_nanos();
            codes.push((Code::of(u64::try_from(nanos).unwrap()).0, 1));
        }
        codes.sort_unstable();
        (calls, failures, rejections)
    }
}

/// Takes the next second in; gives what opened.
fn opened(detector: &mut Detector, traffic: &mut Traffic, fault: Fault, codes: &mut Vec<(u16, u32)>) -> Vec<Signal> {
    let (calls, failures, rejections) = traffic.next(fault, codes);
    let sample = Sample { calls, failures, rejections, latencies: codes, seconds: 1.0, teaches: true, duration_sum: 0.0, after_gap: false };
    detector.take(&sample).iter().filter(|notice| notice.step == Step::Opened).map(|notice| notice.signal).collect()
}

/// What opens again so many seconds after it was open is the same event.
const AGAIN: u32 = 60;

fn false_anomalies(days: u32) {
    println!("\nanomalies in healthy traffic: events a circuit and day, {days} days each from the first second on; beside them the runs of");
    println!("buckets whose number of calls, or whose mean logarithm of latency, a bare z-score of 2.0 over 60 s takes for anomalies");
    println!("{:<22}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>12}", "traffic", "body", "tail", "errors", "reject.", "up", "down", "all", "bare z");
    let kinds = [
        ("stationary 50/s", Kind::Stationary, 50.0),
        ("daily shape 50/s", Kind::Daily, 50.0),
        ("heavy tail 50/s", Kind::HeavyTail, 50.0),
        ("latency wanders 50/s", Kind::Wobble, 50.0),
        ("stationary 5/s", Kind::Stationary, 5.0),
        ("low 0.5/s", Kind::Stationary, 0.5),
        ("bursty 50/s", Kind::Bursty, 50.0),
    ];
    for (name, kind, rate) in kinds {
        let (mut traffic, mut detector, mut codes) = (Traffic::new(kind, rate, 21), Detector::new(2.0, 0.001), Vec::new());
        let (mut events, mut last_open) = ([0_u32; 6], [0_u32; 6]);
        let mut bare = [BareZ::default(), BareZ::default()];
        for second in 1..=days * 86_400 {
            for signal in opened(&mut detector, &mut traffic, HEALTHY, &mut codes) {
                let at = signal as usize;
                events[at] += u32::from(last_open[at] == 0 || second - last_open[at] > AGAIN);
            }
            for signal in Signal::ALL.into_iter().filter(|signal| detector.is_open(*signal)) {
                last_open[signal as usize] = second;
            }
            bare[0].take(codes.len() as f64);
            bare[1].take(codes.iter().map(|(code, _)| f64::from(*code)).sum::<f64>() / codes.len().max(1) as f64);
        }
        let a_day = |count: u32| f64::from(count) / f64::from(days);
        print!("{name:<22}");
        events.iter().for_each(|count| print!("{:>8.2}", a_day(*count)));
        println!("{:>8.2}{:>12.0}", a_day(events.iter().sum()), a_day(bare.iter().map(|bare| bare.runs).sum()));
    }
    println!("target: at most 1 (bursty: from its third day)");
}

/// As an operator would compute it: a value against mean and deviation of the 60 before it.
#[derive(Default)]
struct BareZ {
    values: std::collections::VecDeque<f64>,
    sums: (f64, f64),
    beyond: bool,
    runs: u32,
}

impl BareZ {
    fn take(&mut self, value: f64) {
        if self.values.len() == 60 {
            let mean = self.sums.0 / 60.0;
            let deviation = (self.sums.1 / 60.0 - mean * mean).max(0.0).sqrt();
            let beyond = (value - mean).abs() > 2.0 * deviation;
            self.runs += u32::from(beyond && !self.beyond);
            self.beyond = beyond;
            let old = self.values.pop_front().unwrap();
            self.sums = (self.sums.0 - old, self.sums.1 - old * old);
        }
        self.values.push_back(value);
        self.sums = (self.sums.0 + value, self.sums.1 + value * value);
    }
}

fn faults(sequences: u32) {
    println!("\nfaults after 1 200 s of health: found within 5 s / 60 s in %, median delay; {sequences} each");
    println!("{:<16}{:>22}{:>22}{:>22}{:>22}", "fault", "50/s", "5/s", "bursty 50/s", "wanders 50/s");
    let kinds = [
        ("latency x1.5", Fault { latency: 1.5, ..HEALTHY }, [Signal::LatencyBody, Signal::LatencyTail]),
        ("latency x2", Fault { latency: 2.0, ..HEALTHY }, [Signal::LatencyBody, Signal::LatencyTail]),
        ("latency x5", Fault { latency: 5.0, ..HEALTHY }, [Signal::LatencyBody, Signal::LatencyTail]),
        ("errors +2 %", Fault { errors: 0.02, ..HEALTHY }, [Signal::Errors; 2]),
        ("errors +10 %", Fault { errors: 0.10, ..HEALTHY }, [Signal::Errors; 2]),
        ("rate -50 %", Fault { rate: 0.5, ..HEALTHY }, [Signal::RateDown; 2]),
        ("silence", Fault { rate: 0.0, ..HEALTHY }, [Signal::RateDown; 2]),
    ];
    for (name, fault, signals) in kinds {
        print!("{name:<16}");
        for (kind, rate) in [(Kind::Stationary, 50.0), (Kind::Stationary, 5.0), (Kind::Bursty, 50.0), (Kind::Wobble, 50.0)] {
            let mut delays: Vec<u32> = Vec::new();
            for seed in 0..sequences {
                let (mut traffic, mut detector, mut codes) =
                    (Traffic::new(kind, rate, 1_000 + u64::from(seed)), Detector::new(2.0, 0.001), Vec::new());
                (0..1_200).for_each(|_| drop(opened(&mut detector, &mut traffic, HEALTHY, &mut codes)));
                let found = (1..=60).find(|_| {
                    drop(opened(&mut detector, &mut traffic, fault, &mut codes));
                    signals.iter().any(|signal| detector.is_open(*signal))
                });
                delays.extend(found);
            }
            delays.sort_unstable();
            let within = |seconds: u32| delays.iter().filter(|delay| **delay <= seconds).count() as f64 / f64::from(sequences) * 100.0;
            let median = delays.get(delays.len() / 2).map_or("-".to_owned(), |delay| format!("{delay} s"));
            print!("{:>22}", format!("{:.1} / {:.1}, {median}", within(5), within(60)));
        }
        println!();
    }
    println!("target: 99 % of latency x2 and of errors +10 % at 50/s within 5 s");
}

/// The best of many runs, in microseconds.
fn cost(mut work: impl FnMut()) -> f64 {
    let once = |work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64() * 1e6
    };
    (0..500).map(|_| once(&mut work)).fold(f64::MAX, f64::min)
}

/// A day of incidents by second: circuits as chance has them; the last one follows the first with this probability, too.
fn day(random: &mut Rng, circuits: usize, incidents: f64, of_first: f64, follows: f64) -> Vec<(f64, usize)> {
    let mut day = Vec::new();
    for circuit in 0..circuits {
        let mean = if circuit == 0 && follows > 0.0 { of_first } else { incidents };
        let mut at = exponential(random, 86_400.0 / mean);
        while at < 86_400.0 {
            day.push((at, circuit));
            if circuit == 0 && random.f64() < follows {
                day.push((at + 1.0 + 8.0 * random.f64(), circuits - 1));
            }
            at += exponential(random, 86_400.0 / mean);
        }
    }
    day.sort_by(|one, other| one.0.total_cmp(&other.0));
    day
}

/// Pairs of circuits that are told in a day.
fn cascades_of(day: &[(f64, usize)], circuits: usize) -> std::collections::BTreeSet<(usize, usize)> {
    let caller = Arc::new(Caller { service: "shop".into(), ..Caller::default() });
    let keys: Vec<Arc<CircuitKey>> = (0..circuits)
        .map(|number| Arc::new(CircuitKey { caller: Arc::clone(&caller), text: format!("{number:03}").into(), ..CircuitKey::default() }))
        .collect();
    let number = |key: &CircuitKey| key.text.parse::<usize>().unwrap();
    let mut known = Cascades::default();
    let mut pairs = std::collections::BTreeSet::new();
    for (id, (at, circuit)) in (0..).zip(day) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a day")]
        let at = 1_700_000_000_000_000_000 + (at * 1e9) as u64;
        for together in known.take(&keys[*circuit], (IncidentId(id), at), circuits) {
            if let Together::Cascade { begins: true, cascade } = together {
                pairs.insert((number(&cascade.first), number(&cascade.then)));
            }
        }
    }
    pairs
}

/// Cascades: false ones in days of chance, and those that are there.
fn cascades(worlds: u32) {
    println!("\ncascades among 20 circuits in a day: false pairs in {worlds} days of chance; one that is there, found in % of days");
    for incidents in [10.0, 50.0] {
        let mut random = Rng::with_seed(5);
        let told: usize = (0..worlds).map(|_| cascades_of(&day(&mut random, 20, incidents, 0.0, 0.0), 20).len()).sum();
        println!("{incidents:>4} incidents a circuit: {told} false pairs");
    }
    println!("incidents of the first   follows 30 %   50 %   80 %");
    for first in [4.0, 8.0, 16.0] {
        let found = [0.3, 0.5, 0.8].map(|follows| share(worlds, |random| cascades_of(&day(random, 20, 4.0, first, follows), 20).contains(&(0, 19))));
        println!("{first:>22} {:>14.0} {:>6.0} {:>6.0}", found[0], found[1], found[2]);
    }
}

/// Times a day that healthy calls under way, as means of ten seconds, seem to be under pressure.
fn pressure(days: u64) {
    println!("\ncalls under way in healthy traffic: pressure by the baseline a circuit and day, {days} days each");
    println!("calls a second    40 ms, log-normal    and 5 % Pareto 1.2    two more and three times as many: found within 120 s");
    let marks = Marks { threshold: 2.0, high: 0.8, low: 0.7 };
    for rate in [0.05, 0.2, 1.0, 5.0, 50.0] {
        let mut row = Vec::new();
        for heavy in [false, true] {
            let mut random = Rng::with_seed(11);
            let mut blocks = Blocks::default();
            let mut watched = Pressure::new(marks, 0.5);
            let mut begun = 0;
            for _ in 0..days * 8_640 {
                let mean = blocks.next(&mut random, rate, heavy);
                begun += u32::from(watched.take(mean, None, 10.0, true).is_some_and(|(begins, _)| begins));
            }
            row.push(f64::from(begun) / days as f64);
        }
        let found = (0..100_u64).filter(|seed| {
            let mut random = Rng::with_seed(*seed);
            let mut blocks = Blocks::default();
            let mut watched = Pressure::new(marks, 0.5);
            (0..120).for_each(|_| _ = watched.take(blocks.next(&mut random, rate, false), None, 10.0, true));
            // All calls take so long that a few more are under way.
            (0..12).any(|_| watched.take(2.0 + 3.0 * blocks.next(&mut random, rate, false), None, 10.0, true).is_some())
        });
        println!("{rate:>14} {:>20.2} {:>21.2} {:>51} %", row[0], row[1], found.count());
    }
}

/// Times a day that what healthy processes tell of themselves seems to be under pressure by its baseline; and how soon
/// half as much again is found that comes at once and stays.
fn processes(days: u64) {
    println!("\nprocess metrics in healthy traffic: pressure by the baseline a process and day, {days} days each; half as much again found");
    println!("{:<34}{:>12}{:>12}{:>18}{:>18}", "", "each 10 s", "each 60 s", "each 10 s", "each 60 s");
    let marks = Marks { threshold: 2.0, high: 0.8, low: 0.7 };
    for (kind, name) in Tells::ALL {
        let row = [10_u32, 60].map(|seconds| {
            let mut process = Process::new(kind, 17);
            let mut watched = Pressure::new(marks, kind.least());
            let reports = days * 86_400 / u64::from(seconds);
            let begun = (0..reports).filter(|_| {
                let value = process.next(seconds);
                watched.take(value, None, f64::from(seconds), true).is_some_and(|(begins, _)| begins)
            });
            let begun = begun.count() as f64 / days as f64;
            let mut found: Vec<u32> = (0..100_u64)
                .filter_map(|seed| {
                    let mut process = Process::new(kind, seed);
                    let mut watched = Pressure::new(marks, kind.least());
                    // An hour is learned, twenty minutes are looked at.
                    (0..3_600 / seconds).for_each(|_| _ = watched.take(process.next(seconds), None, f64::from(seconds), true));
                    watched.stop();
                    (1..=1_200 / seconds)
                        .find(|_| watched.take(1.5 * process.next(seconds), None, f64::from(seconds), true).is_some_and(|(begins, _)| begins))
                })
                .collect();
            found.sort_unstable();
            let median = found.get(found.len() / 2).map_or(0, |reports| reports * seconds);
            (begun, format!("{} %, {median} s", found.len()))
        });
        println!("{name:<34}{:>12.2}{:>12.2}{:>18}{:>18}", row[0].0, row[1].0, row[0].1, row[1].1);
    }
    println!("\nthe same: trends of 30 means of a minute, a process and day; a leak of 1 % of its level a minute found within an hour");
    for (kind, name) in Tells::ALL {
        let row = [10_u32, 60].map(|seconds| {
            let scale = if matches!(kind, Tells::Cpu(_)) { Scale::Share } else { Scale::Log };
            let look = Look { scale, step: 60.0, length: 30, limit: None };
            let minute = |process: &mut Process| {
                let reports = 60 / seconds;
                (0..reports).map(|_| process.next(seconds)).sum::<f64>() / f64::from(reports)
            };
            let (mut process, mut series) = (Process::new(kind, 17), Series::default());
            let begun = (0..days * 1_440).filter(|_| matches!(series.take(minute(&mut process), &look), Some(Turn::Begins(_)))).count();
            let found = (0..100_u64).filter(|seed| {
                let (mut process, mut series) = (Process::new(kind, *seed), Series::default());
                (0..120).for_each(|_| _ = series.take(minute(&mut process), &look));
                (1..=60).any(|at| {
                    let turn = series.take((1.0 + 0.01 * f64::from(at)) * minute(&mut process), &look);
                    matches!(turn, Some(Turn::Begins(course)) if course.slope > 0.0)
                })
            });
            (begun as f64 / days as f64, format!("{} %", found.count()))
        });
        println!("{name:<34}{:>12.2}{:>12.2}{:>18}{:>18}", row[0].0, row[1].0, row[0].1, row[1].1);
    }
}

/// What a process tells of.
#[derive(Clone, Copy)]
enum Tells {
    /// Shares of a core, each like the one ten seconds before by this much.
    Cpu(f64),
    /// A heap that fills up within forty seconds, and is collected.
    Heap,
    /// Threads of a pool, as calls come.
    Threads,
}

impl Tells {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Cpu(0.0), "CPU 0.30 ± 0.05, independent"),
        (Self::Cpu(0.5), "CPU, AR 0.5 in 10 s"),
        (Self::Cpu(0.9), "CPU, AR 0.9 in 10 s"),
        (Self::Heap, "heap 200 to 400 MiB in 40 s"),
        (Self::Threads, "threads 40, and Poisson 5"),
    ];

    /// As much is no more than the grain of it.
    fn least(self) -> f64 {
        match self {
            Self::Cpu(_) => Resource::ProcessCpu,
            Self::Heap => Resource::JvmMemory,
            Self::Threads => Resource::JvmThreads,
        }
        .least()
    }
}

struct Process {
    kind: Tells,
    random: Rng,
    off: f64,
    phase: f64,
}

impl Process {
    fn new(kind: Tells, seed: u64) -> Self {
        Self { kind, random: Rng::with_seed(seed), off: 0.0, phase: 0.0 }
    }

    /// What it tells so many seconds after the last time.
    fn next(&mut self, seconds: u32) -> f64 {
        match self.kind {
            Tells::Cpu(alike) => {
                for _ in 0..seconds / 10 {
                    self.off = alike * self.off + (1.0 - alike * alike).sqrt() * normal(&mut self.random);
                }
                (0.30 + 0.05 * self.off).max(0.0)
            }
            Tells::Heap => {
                // No two rounds are as long.
                self.phase += f64::from(seconds) / 40.0 * (0.1 * normal(&mut self.random)).exp();
                (200.0 + 200.0 * self.phase.fract()) * f64::from(1 << 20)
            }
            Tells::Threads => {
                let mut busy = -1.0;
                let mut left = 5.0;
                while left > 0.0 {
                    left -= exponential(&mut self.random, 1.0);
                    busy += 1.0;
                }
                40.0 + busy
            }
        }
    }
}

/// Calls under way, second by second: each counts from its beginning to its end, a minute at most.
#[derive(Default)]
struct Blocks {
    busy: std::collections::VecDeque<f64>,
}

impl Blocks {
    /// The mean over the ten seconds that are complete.
    fn next(&mut self, random: &mut Rng, rate: f64, heavy: bool) -> f64 {
        // A minute back and ten seconds on.
        self.busy.resize(70, 0.0);
        let mut at = exponential(random, 1.0 / rate);
        while at < 10.0 {
            let pareto = heavy && random.f64() < 0.05;
            let length = if pareto { 0.04 * random.f64().max(1e-9).powf(-1.0 / 1.2) } else { 0.04 * (0.5 * normal(random)).exp() };
            let (from, to) = (60.0 + at - length.min(60.0), 60.0 + at);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 70")]
            for second in from as usize..=(to as usize).min(69) {
                self.busy[second] += to.min(second as f64 + 1.0) - from.max(second as f64);
            }
            at += exponential(random, 1.0 / rate);
        }
        self.busy.drain(..10).sum::<f64>() / 10.0
    }
}

fn main() {
    let sequences = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000);
    false_anomalies(20);
    faults(sequences / 2);
    patterns(sequences);
    clocks(sequences);
    trends(sequences);
    pressure(20);
    processes(20);
    cascades(200);
    let mut seconds = Vec::new();
    let (mut traffic, mut codes) = (Traffic::new(Kind::Stationary, 50.0, 5), Vec::new());
    for _ in 0..1_000 {
        let counts = traffic.next(HEALTHY, &mut codes);
        // As a closed bucket has them: each code once.
        let merged = codes.chunk_by(|one, other| one.0 == other.0).map(|run| (run[0].0, u32::try_from(run.len()).unwrap()));
        seconds.push((counts, merged.collect::<Vec<_>>()));
    }
    let mut detector = Detector::new(2.0, 0.001);
    let thousand = cost(|| {
        for ((calls, failures, rejections), latencies) in &seconds {
            let (calls, failures, rejections) = (*calls, *failures, *rejections);
            _ = std::hint::black_box(detector.take(&Sample {
                calls,
                failures,
                rejections,
                latencies,
                seconds: 1.0,
                teaches: true,
                duration_sum: 0.0,
                after_gap: false,
            }));
        }
    });
    println!("\nanomalies: {:.2} µs a bucket of 50 calls, {} bytes a circuit", thousand / 1_000.0, size_of::<Detector>() + detector.heap_bytes());
    let mut random = Rng::with_seed(3);
    let (trips, series) = (by_clock(&mut random, 20, 0.2, 0.15), blocks(&mut random, 0.5, 1.0, 0, BLOCKS));
    println!(
        "\ncost, µs, the best of 500: regularity of 20 trips {:.0}, once a trip; trend of 30 means {:.1} and its slope {:.1}, once in 10 s",
        cost(|| _ = std::hint::black_box(regularity(&trips, 0.0))),
        cost(|| _ = std::hint::black_box(trend(&series))),
        cost(|| _ = std::hint::black_box(slope(&series)))
    );
}
