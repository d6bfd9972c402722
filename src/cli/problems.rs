use std::io::{self, IsTerminal, Write};

use crate::config::{Document, Problem, Severity};

/// Tells a person what is wrong, on the standard error output; in colour only on a terminal.
pub(super) fn tell(line: &str) {
    let mut err = io::stderr().lock();
    let coloured = if err.is_terminal() {
        line.replacen("error:", "\u{1b}[31merror:\u{1b}[0m", 1).replacen("warning:", "\u{1b}[33mwarning:\u{1b}[0m", 1)
    } else {
        line.to_owned()
    };
    // Where even this can't be written there is nobody left to tell.
    drop(writeln!(err, "{coloured}"));
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
