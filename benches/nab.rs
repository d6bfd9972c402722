//! The Numenta Anomaly Benchmark, by its own scoring: what the chart that watches resources finds in 58 labelled series.
//!
//! Its data is not part of this project. It is fetched once, and its place is given behind `--`:
//!
//! ```sh
//! git clone https://github.com/numenta/NAB && git -C NAB checkout ea702d75cc2258d9d7dd35ca8e5e2539d71f3140
//! cargo bench --bench nab -- NAB
//! ```
//!
//! Source of the scoring: Lavin and Ahmad, Evaluating real-time anomaly detection algorithms, 2015, and the sweeper of the
//! benchmark's repository.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{collections::BTreeMap, fs, path::Path};

use fuseboard::circuit::analysis::{chart::Step, gauge::Gauge};

/// Points after a report in which there is no other: most series have one in five minutes.
const APART: usize = 100;

/// A series with its labels: first and last point of each window.
struct Series {
    values: Vec<f64>,
    windows: Vec<(usize, usize)>,
}

/// What each profile takes for a false report and for a window that was missed.
const PROFILES: [(&str, f64, f64); 3] = [("standard", 0.11, 1.0), ("low FP", 0.22, 1.0), ("low FN", 0.11, 2.0)];

fn read(folder: &Path) -> Vec<Series> {
    let labels = fs::read_to_string(folder.join("labels/combined_windows.json")).unwrap();
    let labels: BTreeMap<String, Vec<(String, String)>> = serde_json::from_str(&labels).unwrap();
    let read = |(name, windows): (&String, &Vec<(String, String)>)| {
        let text = fs::read_to_string(folder.join("data").join(name)).unwrap();
        let rows: Vec<(&str, f64)> =
            text.lines().skip(1).map(|line| line.split_once(',').unwrap()).map(|(at, value)| (at, value.parse().unwrap())).collect();
        let until = |at: &str| rows.partition_point(|(other, _)| *other < at.get(..19).unwrap());
        let windows = windows.iter().map(|(first, last)| (until(first), until(last))).collect();
        Series { values: rows.into_iter().map(|(_, value)| value).collect(), windows }
    };
    labels.iter().map(read).collect()
}

/// Points at which something is reported: the value, or its opposite, opened a chart.
fn reports(series: &Series, threshold: f64) -> Vec<usize> {
    let mut sides = [(1.0, Gauge::new(threshold, 0.0)), (-1.0, Gauge::new(threshold, 0.0))];
    let mut reports: Vec<usize> = Vec::new();
    for (at, value) in series.values.iter().enumerate() {
        let opened = sides.iter_mut().fold(false, |opened, (side, gauge)| gauge.take(*side * value, 1.0, true).step == Step::Opened || opened);
        if opened && reports.last().is_none_or(|last| at - last >= APART) {
            reports.push(at);
        }
    }
    reports
}

/// From 1 at the beginning of a window to -1 far behind it.
fn scaled(position: f64) -> f64 {
    if position > 3.0 { -1.0 } else { 2.0 / (1.0 + (5.0 * position).exp()) - 1.0 }
}

fn score(series: &Series, reports: &[usize], false_weight: f64, missed_weight: f64) -> f64 {
    let probation = (series.values.len() * 15 / 100).min(750);
    let mut sum = 0.0;
    for (first, last) in &series.windows {
        let found = reports.iter().find(|at| **at >= probation && (first..=last).contains(at));
        sum += match found {
            Some(at) => scaled(-((last - at + 1) as f64) / (last - first + 1) as f64) / scaled(-1.0),
            None => -missed_weight,
        };
    }
    let outside = reports.iter().filter(|at| **at >= probation && !series.windows.iter().any(|(first, last)| (first..=last).contains(at)));
    for at in outside {
        let before = series.windows.iter().rev().find(|(_, last)| last < at);
        sum += false_weight * before.map_or(-1.0, |(first, last)| scaled((at - last) as f64 / (last - first) as f64));
    }
    sum
}

fn main() {
    let Some(folder) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) else {
        println!("skipped: the benchmark's data is not here; benches/nab.rs says how to get it");
        return;
    };
    let all = read(Path::new(&folder));
    let windows: usize = all.iter().map(|series| series.windows.len()).sum();
    println!("{} series, {windows} windows; 0 is nothing reported, 100 everything at once and nothing else", all.len());
    println!("threshold   standard   low FP   low FN   reports");
    for threshold in [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0] {
        let found: Vec<Vec<usize>> = all.iter().map(|series| reports(series, threshold)).collect();
        let scores = PROFILES.map(|(_, false_weight, missed_weight)| {
            let raw: f64 = all.iter().zip(&found).map(|(series, reports)| score(series, reports, false_weight, missed_weight)).sum();
            let (null, perfect) = (-missed_weight * windows as f64, windows as f64);
            100.0 * (raw - null) / (perfect - null)
        });
        let [standard, low_false, low_missed] = scores;
        println!("{threshold:>9} {standard:>10.1} {low_false:>8.1} {low_missed:>8.1} {:>9}", found.iter().map(Vec::len).sum::<usize>());
    }
}
