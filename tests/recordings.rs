//! Recordings of real breakers in real applications, held against the breakers' own logs.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;
use support::{Directory, run};

const RECORDINGS: &[&str] = &[
    "go-beside",
    "go-instances",
    "go-low",
    "go-silent-half",
    "java-bulkhead",
    "java-named",
    "java-silent",
    "java-two",
    "node-bulkhead",
    "node-message",
    "node-nobreaker",
    "node-sampled10",
    "node-sampled50",
    "node-silent",
    "node-two",
    "python-healthy",
    "python-threads",
];

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/testdata/recordings")
}

/// How well each kind of event was found, with these settings.
fn verdicts(name: &str, more: &[&str]) -> (bool, Vec<Value>) {
    let (spans, truth) = (directory().join(format!("{name}.jsonl.zst")), directory().join(format!("{name}.truth.jsonl")));
    let arguments = ["replay", spans.to_str().unwrap(), "--truth", truth.to_str().unwrap(), "--truth-caller", "checkout"];
    let output = run(&[&arguments[..], more].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let verdicts: Vec<Value> = lines.filter(|line| line["kind"] == "verdict").collect();
    assert_eq!(verdicts.len(), 3, "{name}: {}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), verdicts)
}

#[test]
fn what_breakers_did_is_found_in_real_recordings() {
    for name in RECORDINGS {
        let (holds, verdicts) = verdicts(name, &[]);
        assert!(holds, "{name} falls short: {verdicts:#?}");
    }
}

/// What was told of breakers, without when it was known.
fn told(file: &Path) -> Vec<String> {
    let output = run(&["replay", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|line| line["kind"] == "event");
    let mut told: Vec<String> = events
        .map(|line| ["event", "time_unix_nano", "circuit", "instance", "source"].map(|key| line.get(key).unwrap().to_string()).join(" "))
        .collect();
    told.sort();
    told
}

/// The newest end in a request as JSON.
fn newest_end(request: &str) -> u64 {
    let ends = request.split("\"endTimeUnixNano\":\"").skip(1);
    ends.map(|rest| rest.split_once('"').unwrap().0.parse().unwrap()).max().unwrap_or(0)
}

#[test]
fn in_any_order_inside_the_allowance_events_are_the_same() {
    let directory = Directory::new();
    for name in RECORDINGS.iter().filter(|name| !name.ends_with("healthy")) {
        let mut text = String::new();
        let compressed = fs::File::open(self::directory().join(format!("{name}.jsonl.zst"))).unwrap();
        zstd::Decoder::new(compressed).unwrap().read_to_string(&mut text).unwrap();
        let straight = told(&directory.file("straight.jsonl", &text));
        for seed in [1_u64, 7] {
            // A request holds what ended within half a second: with as much of delay all of it is within `reorder`, 1 s.
            let mut mixed = seed;
            let mut late = |request: &str| {
                mixed = mixed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                newest_end(request) + (mixed >> 33) % 450_000_000
            };
            let mut requests: Vec<(u64, &str)> = text.lines().map(|request| (late(request), request)).collect();
            requests.sort();
            let shuffled: Vec<&str> = requests.into_iter().map(|(_, request)| request).collect();
            assert_ne!(shuffled.join("\n"), text.trim_end());
            assert_eq!(told(&directory.file("shuffled.jsonl", shuffled.join("\n"))), straight, "{name}, {seed}");
        }
    }
}

#[test]
fn every_recording_is_listed() {
    let files = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.filter_map(|file| file.strip_suffix(".jsonl.zst").map(str::to_owned)).collect();
    names.sort();
    assert_eq!(names, RECORDINGS);
}

#[test]
fn with_all_texts_off_silence_alone_finds_most() {
    let off = ["--set", "processors.circuit_window.detection.known_libraries=false"];
    for (name, openings) in [("node-message", 13), ("go-silent-half", 19)] {
        let (_, verdicts) = verdicts(name, &off);
        assert!(verdicts[0]["found"].as_u64().unwrap() >= openings, "{name}: {verdicts:#?}");
    }
    let off = [off[0], off[1], "--set", "processors.circuit_window.detection.silence=false"];
    let (_, verdicts) = verdicts("node-silent", &off);
    assert!(verdicts.iter().all(|verdict| verdict["said"] == 0), "nothing is left that could tell: {verdicts:#?}");
}
