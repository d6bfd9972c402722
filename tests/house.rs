//! The rooms of the house: a room uses only rooms that `src/lib.rs` lists above it, and the pure ones do no I/O.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// Rooms from the ground up.
fn rooms() -> Vec<String> {
    let listed = fs::read_to_string(format!("{ROOT}/lib.rs")).unwrap();
    let room = |line: &str| line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(';')).map(str::to_owned);
    let rooms: Vec<String> = listed.lines().filter_map(room).collect();
    assert!(rooms.len() > 10 && rooms[0] == "clock" && rooms.last().unwrap() == "cli", "{rooms:?}");
    rooms
}

/// Files of a room.
fn files(room: &str) -> Vec<PathBuf> {
    fn within(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { within(&entry, found) } else { found.push(entry) }
        }
    }
    let folder = PathBuf::from(format!("{ROOT}/{room}"));
    let mut found = Vec::new();
    if folder.is_dir() {
        within(&folder, &mut found)
    } else {
        found.push(folder.with_extension("rs"))
    }
    found
}

/// The code of a file without its comments and unit tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Rooms that a file uses, by `crate::room` and by what stands in the braces of `use crate::{…}`.
fn used(code: &str, rooms: &[String]) -> Vec<String> {
    let mut used = Vec::new();
    for room in rooms {
        if code.contains(&format!("crate::{room}::")) || code.contains(&format!("crate::{room};")) {
            used.push(room.clone());
        }
    }
    let mut rest = code;
    while let Some((_, after)) = rest.split_once("use crate::{") {
        let mut depth = 1;
        let mut word = String::new();
        for byte in after.chars() {
            match byte {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ if depth == 1 && (byte.is_alphanumeric() || byte == '_') => word.push(byte),
                _ => {}
            }
            if depth == 0 || depth == 1 && !(byte.is_alphanumeric() || byte == '_') || byte == '{' {
                if rooms.contains(&word) {
                    used.push(word.clone());
                }
                word.clear();
            }
            if depth == 0 {
                break;
            }
        }
        rest = after;
    }
    used
}

#[test]
fn a_room_uses_only_rooms_below_it() {
    let rooms = rooms();
    let mut crossings = 0;
    for (floor, room) in rooms.iter().enumerate() {
        for file in files(room) {
            for other in used(&code(&file), &rooms) {
                let below = rooms[..=floor].contains(&other);
                assert!(below, "{} uses `{other}`, which stands above `{room}`", file.display());
                crossings += usize::from(other != *room);
            }
        }
    }
    assert!(crossings > 50, "nothing was looked at: {crossings}");
}

#[test]
fn components_never_name_each_other() {
    for section in ["receivers", "processors", "exporters"] {
        let components: Vec<String> = fs::read_dir(format!("{ROOT}/{section}"))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .filter(|name| !["mod", "sending", "answer"].contains(&name.as_str()))
            .collect();
        for file in files(section).into_iter().filter(|file| !file.ends_with(format!("{section}/mod.rs"))) {
            let code = code(&file);
            for other in &components {
                let own = file.to_str().unwrap().contains(&format!("{section}/{other}"));
                let names = [format!("{section}::{other}"), format!("super::{other}::"), format!("    {other}::")];
                assert!(own || !names.iter().any(|name| code.contains(name)), "{} names `{other}`", file.display());
            }
        }
    }
}

#[test]
fn pure_rooms_do_no_input_and_output() {
    for room in ["circuit", "otlp"] {
        for file in files(room) {
            let code = code(&file);
            for foreign in [
                "tokio",
                "tonic::transport",
                "tracing::",
                "fs::",
                "TcpStream",
                "UdpSocket",
                "io::Read",
                "io::Write",
                "hyper",
                "SystemTime",
                "Instant",
            ] {
                assert!(!code.contains(foreign), "{} uses {foreign}", file.display());
            }
            let std = used(
                &code.replace("use std::{", "use crate::{").replace("std::", "crate::"),
                &["fs", "io", "process", "thread", "env"].map(str::to_owned),
            );
            assert!(std.is_empty(), "{} uses {std:?}", file.display());
        }
    }
}
