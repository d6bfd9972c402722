use std::{
    io::{self, IsTerminal, Write},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    config::{Document, Problem, Severity},
    foreign::{escaped, without_secrets},
};

/// How long the program waits for somebody to read why it ends.
const LAST_LINE: Duration = Duration::from_secs(1);

/// Tells a person what is wrong, on one line of the standard error output; in colour only on a terminal.
pub(super) fn tell(line: &str) {
    let line = without_secrets(line);
    let line = escaped(&line);
    let mut err = io::stderr().lock();
    let coloured = if err.is_terminal() {
        line.replacen("error:", "\u{1b}[31merror:\u{1b}[0m", 1).replacen("warning:", "\u{1b}[33mwarning:\u{1b}[0m", 1)
    } else {
        line.into_owned()
    };
    // Where even this can't be written there is nobody left to tell.
    drop(writeln!(err, "{coloured}"));
}

/// Tells why the program ends. Where nobody reads the standard error output, it ends all the same.
pub(super) fn tell_last(line: String) {
    let (told, is_told) = mpsc::channel();
    let telling = thread::Builder::new().spawn(move || {
        tell(&line);
        // Nobody waits for it any more where this fails.
        _ = told.send(());
    });
    if telling.is_ok() {
        _ = is_told.recv_timeout(LAST_LINE);
    }
}

/// Tells all problems, errors first.
pub(super) fn tell_all(document: &Document, problems: &[Problem]) {
    let mut sorted: Vec<&Problem> = problems.iter().collect();
    sorted.sort_by_key(|problem| (problem.severity, document.order(problem)));
    for problem in &sorted {
        tell(&document.describe(problem));
    }
    let errors = sorted.iter().filter(|problem| problem.severity == Severity::Error).count();
    if errors > 0 {
        let rest = if document.is_complete() { "" } else { "; what else is wrong shows when all of it can be read" };
        tell(&format!("{errors} {} in the configuration{rest}", if errors == 1 { "error" } else { "errors" }));
    }
}
