//! Recordings of real breakers in real applications, held against the breakers' own logs.

#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, path::PathBuf};

use serde_json::Value;
use support::run;

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
