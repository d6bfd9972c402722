//! How often the methods of analysis find what is there, and how often what is not, by simulation.
//!
//! `cargo bench --bench analysis` prints the tables of docs/measurements.md; the seeds are fixed, so that they are the same
//! each time. Sequences for each figure: 1 000, or the number given behind `--`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

use std::{f64::consts::TAU, time::Instant};

use fastrand::Rng;
use fuseboard::circuit::analysis::{
    clock_alignment::alignment,
    regularity::{Verdict, regularity},
    trend::{slope, trend},
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

/// At so many deviations a trend begins, and below so many it ends.
const BEGINS: f64 = 4.5;
const ENDS: f64 = 2.25;

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
            let z = trend(window).unwrap().z.abs();
            false_trends += f64::from(u8::from(!open && z >= BEGINS));
            open = if open { z >= ENDS } else { z >= BEGINS };
        }
        let found = |ramp: f64| {
            let mut delays = Vec::new();
            let mut found = |random: &mut Rng| {
                let series = blocks(random, coefficient, ramp, BLOCKS, BLOCKS + 60);
                let at = (1..=60).find(|after| trend(&series[*after..after + BLOCKS]).unwrap().z >= BEGINS);
                delays.extend(at.map(|after| (after * SECONDS) as f64));
                at.is_some()
            };
            let found = share(sequences, &mut found);
            format!("{found:.0} %, {:.0} s", delays.iter().sum::<f64>() / delays.len().max(1) as f64)
        };
        println!("{coefficient:<8}{windows:>12.1}{:>12.2}{:>18}{:>18}", false_trends / days as f64, found(2.0), found(4.0));
    }
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

fn main() {
    let sequences = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000);
    patterns(sequences);
    clocks(sequences);
    trends(sequences);
    let mut random = Rng::with_seed(3);
    let (trips, series) = (by_clock(&mut random, 20, 0.2, 0.15), blocks(&mut random, 0.5, 1.0, 0, BLOCKS));
    println!(
        "\ncost, µs, the best of 500: regularity of 20 trips {:.0}, once a trip; trend of 30 means {:.1} and its slope {:.1}, once in 10 s",
        cost(|| _ = std::hint::black_box(regularity(&trips, 0.0))),
        cost(|| _ = std::hint::black_box(trend(&series))),
        cost(|| _ = std::hint::black_box(slope(&series)))
    );
}
