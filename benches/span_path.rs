//! What it costs to read and window a span, beside a prost decode and a scan of the fields, in one run; and what it costs
//! where fields stand in ascending order, as SDKs write them, and in descending order, as the Collector does.
//!
//! `cargo bench --bench span_path` prints nanoseconds a span (the best of 400 rounds, or of the number given behind
//! `--`) and the ratios that count.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing, missing_docs)]

#[allow(dead_code, reason = "the other bench uses the rest")]
mod corpus;

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use corpus::{LANGUAGES, Template, templates};
use fuseboard::{
    circuit::{
        analysis::config::AnalysisConfig,
        collector::CircuitBreakerMetricsCollector,
        config::CircuitMetricsConfig,
        inspect::{Rules, inspect},
        room::Room,
    },
    otlp::{
        Signal, Value, check,
        trace::{Span, Visitor, walk},
    },
    processors::circuit_window::Replay,
};
use opentelemetry::metrics::{MeterProvider, noop::NoopMeterProvider};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

const SPANS: usize = 500;
const SECOND: u64 = 1_000_000_000;
/// 2026-11-01.
const START: u64 = 1_793_491_200 * SECOND;

/// A scan of just the fields that are needed: the yardstick.
#[derive(Default)]
struct Scan(u64);

impl<'a> Visitor<'a> for Scan {
    #[inline]
    fn attribute(&mut self, key: &'a [u8], value: &'a [u8]) {
        if matches!(
            key,
            b"server.address"
                | b"server.port"
                | b"http.url"
                | b"url.full"
                | b"http.status_code"
                | b"http.response.status_code"
                | b"error.type"
                | b"peer.service"
        ) {
            self.0 += match Value::read(value) {
                Value::Text(text) => text.len() as u64,
                Value::Int(number) => number.unsigned_abs(),
                _ => 0,
            };
        }
    }

    #[inline]
    fn span(&mut self, span: &Span<'a>) {
        self.0 += span.start
            ^ span.end
            ^ u64::from(span.kind.unsigned_abs())
            ^ u64::from(span.status.unsigned_abs())
            ^ u64::from(span.trace_id[0])
            ^ u64::from(span.span_id[0]);
    }
}

/// The best of all rounds, in nanoseconds a span.
fn best(template: &mut Template, rounds: u64, mut work: impl FnMut(&Bytes, u64)) -> f64 {
    let mut best = f64::MAX;
    for round in 0..rounds {
        // One batch every 0.1 s, as a busy service sends them.
        let end = START + round * SECOND / 10;
        template.renew(round, end, SECOND / 10 / SPANS as u64);
        let request = Bytes::copy_from_slice(&template.bytes);
        let began = Instant::now();
        work(&request, end + SECOND / 10);
        best = best.min(began.elapsed().as_nanos() as f64 / SPANS as f64);
    }
    best
}

/// From the check at the door to closed buckets.
fn whole(template: &mut Template, rounds: u64) -> f64 {
    let meter = NoopMeterProvider::new().meter("bench");
    let mut replay = Replay::new(serde_yaml::from_str("{}").unwrap(), AnalysisConfig::default(), meter, false).unwrap();
    // Nothing is counted before it is agreed which time it is.
    for (round, before) in [(rounds, 70), (rounds + 1, 1)] {
        template.renew(round, START - before * SECOND, SECOND / 10 / SPANS as u64);
        replay.feed(Bytes::copy_from_slice(&template.bytes)).unwrap();
    }
    let whole = best(template, rounds, |request, _| replay.feed(black_box(request.clone())).unwrap());
    assert!(replay.counted().late == 0 && replay.counted().future == 0);
    whole
}

/// What fields in ascending and in descending order cost.
fn in_both_orders(rounds: u64) {
    println!("\nfields ascending (SDKs) and descending (the Collector)");
    println!("{:<8}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>16}", "", "check", "inspect", "whole", "check", "inspect", "whole", "descending/asc.");
    let mut all = [0.0; 2];
    for (language, recording) in LANGUAGES {
        let ascending = templates(recording, SPANS).swap_remove(0);
        let descending = ascending.descending();
        let rules = Rules::default();
        let [up, down] = [ascending, descending].map(|mut template| {
            let checked = best(&mut template, rounds, |request, _| drop(black_box(check(Signal::Traces, request.clone()).unwrap())));
            let inspected = best(&mut template, rounds, |request, _| drop(black_box(inspect(request, SPANS, &rules, u64::MAX).unwrap())));
            [checked, inspected, whole(&mut template, rounds)]
        });
        all.iter_mut().zip([up[2], down[2]]).for_each(|(sum, one)| *sum += one);
        print!("{language:<8}");
        up.iter().chain(&down).for_each(|cost| print!("{cost:>9.0}"));
        println!("{:>16.2}", down[2] / up[2]);
    }
    println!("{:<8}{:>70.2}", "all", all[1] / all[0]);
}

fn main() {
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(400);
    println!("{SPANS} spans a request, best of {rounds} rounds, ns a span");
    println!(
        "{:<8}{:>9}{:>8}{:>8}{:>8}{:>9}{:>9}{:>9}{:>10}{:>13}{:>12}{:>14}",
        "", "bytes", "copy", "prost", "scan", "inspect", "window", "detect", "whole", "window/prost", "window/scan", "detect/prost"
    );
    let mut all = [0.0; 4];
    for (language, recording) in LANGUAGES {
        let mut template = templates(recording, SPANS).swap_remove(0);
        let bytes = template.bytes.len() as f64 / SPANS as f64;
        let template = &mut template;
        let copy = best(template, rounds, |request, _| drop(black_box(request.to_vec())));
        let prost = best(template, rounds, |request, _| drop(black_box(ExportTraceServiceRequest::decode(&**request).unwrap())));
        let scan = best(template, rounds, |request, _| {
            let mut scan = Scan::default();
            walk(request, &mut scan).unwrap();
            black_box(scan.0);
        });
        let rules = Rules::default();
        let inspected = best(template, rounds, |request, _| drop(black_box(inspect(request, SPANS, &rules, u64::MAX).unwrap())));
        let mut windowed = |detects: bool| {
            let mut rules = Rules::default();
            rules.detects = detects;
            let mut config = CircuitMetricsConfig::default();
            config.detection.enabled = detects;
            let room = Room::new(config.max_circuits).into();
            let mut collector = CircuitBreakerMetricsCollector::new(config.into(), Default::default(), room);
            let mut ticked = 0;
            best(template, rounds, |request, now| {
                let inspection = inspect(request, SPANS, &rules, u64::MAX).unwrap();
                black_box(collector.apply(request, &inspection, |_| true, now));
                if now / SECOND > ticked {
                    ticked = now / SECOND;
                    collector.advance(now, &mut Vec::new());
                }
            })
        };
        let (window, plain) = (windowed(true), windowed(false));
        let whole = whole(template, rounds);
        all.iter_mut().zip([prost, scan, window, plain]).for_each(|(sum, one)| *sum += one);
        println!(
            "{language:<8}{bytes:>9.0}{copy:>8.0}{prost:>8.0}{scan:>8.0}{inspected:>9.0}{plain:>9.0}{window:>9.0}{whole:>10.0}{:>13}{:>12.2}{:>14}",
            format!("1/{:.1}", prost / plain),
            plain / scan,
            format!("1/{:.1}", prost / window)
        );
    }
    let [prost, scan, window, plain] = all;
    let ratios = [format!("1/{:.1}", prost / plain), format!("{:.2}", plain / scan), format!("1/{:.1}", prost / window)];
    println!("{:<8}{:>83}{:>12}{:>14}", "all", ratios[0], ratios[1], ratios[2]);
    println!("targets: window/prost at most 1/6, window/scan at most 1.8, detect/prost at most 1/5");
    println!("window: read and counted; detect: also looked at for breakers that say nothing of themselves");
    println!("whole: checked at the door, hashed, inspected, counted, buckets closed");
    in_both_orders(rounds);
}
