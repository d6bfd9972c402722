//! Recordings of real breakers in real applications, held against the breakers' own logs.

#![allow(clippy::unwrap_used)]

mod support;

use std::{fs, path::PathBuf};

use serde_json::Value;
use support::run;

/// What a recording must give: all that its spans show, or, of each kind, so many found at least and so many invented at
/// most, where something stands in the way.
enum Expected {
    All,
    Short { opening: (u64, u64), attempt: (u64, u64), recovery: (u64, u64) },
}

use Expected::{All, Short};

/// A client that times out sends no CLIENT span there: what it called is only seen by the callee.
const RECORDINGS: &[(&str, Expected)] = &[
    ("go-beside", All),
    ("go-instances", All),
    ("go-low", All),
    ("go-silent-half", All),
    ("java-bulkhead", All),
    ("java-named", Short { opening: (38, 2), attempt: (40, 0), recovery: (20, 0) }),
    ("java-silent", Short { opening: (47, 0), attempt: (47, 0), recovery: (20, 0) }),
    ("java-two", Short { opening: (27, 1), attempt: (28, 0), recovery: (11, 0) }),
    ("node-bulkhead", All),
    ("node-message", All),
    ("node-nobreaker", All),
    ("node-sampled10", All),
    ("node-sampled50", All),
    ("node-silent", All),
    ("node-two", All),
    ("python-healthy", All),
    ("python-threads", All),
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
    for (name, expected) in RECORDINGS {
        let (holds, verdicts) = verdicts(name, &[]);
        match expected {
            All => assert!(holds, "{name} falls short: {verdicts:#?}"),
            Short { opening, attempt, recovery } => {
                for (verdict, (found, invented)) in verdicts.iter().zip([opening, attempt, recovery]) {
                    let said = (verdict["found"].as_u64().unwrap(), verdict["invented"].as_u64().unwrap());
                    assert!(said.0 >= *found && said.1 <= *invented, "{name}: {verdict:#?}");
                }
            }
        }
    }
}

#[test]
fn every_recording_is_listed() {
    let files = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.filter_map(|file| file.strip_suffix(".jsonl.zst").map(str::to_owned)).collect();
    names.sort();
    assert_eq!(names, RECORDINGS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
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
