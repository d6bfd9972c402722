//! What `${…}` brought into a configuration. Any of it may be a secret, in whatever place it was put by mistake, so people
//! are shown the expression and not what came of it.

use std::collections::HashMap;

use super::problem::Path;

/// Shorter values are left in messages: they are no secrets, and much else reads the same.
const VALUE_BYTES_MIN: usize = 4;

/// Shorter values are looked for as words of their own only. Those that are words such as keys and choices are, only in
/// messages about the component they were written for.
const PART_BYTES_MIN: usize = 8;

/// Where values came from.
#[derive(Debug, Default)]
pub(super) struct Origins {
    /// The text with its expressions, by the path of what became of it.
    written: HashMap<Path, String>,
    /// Longest values first.
    brought: Vec<Brought>,
}

/// What one expression brought in.
#[derive(Debug)]
pub(super) struct Brought {
    /// In lower case: names of headers and statuses are told in either.
    value: String,
    expression: String,
    /// What it was written for.
    at: Path,
    /// Whether keys and choices look like it.
    is_word: bool,
}

impl Brought {
    pub(super) fn new(value: &str, expression: String) -> Self {
        let value = value.trim();
        let is_word = value.len() < PART_BYTES_MIN && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        Self { value: value.to_ascii_lowercase(), expression, at: Path::default(), is_word }
    }
}

impl Origins {
    /// Notes what the text at a path was before it was expanded, and what that brought in.
    pub(super) fn note(&mut self, path: &Path, written: &str, brought: Vec<Brought>) {
        self.written.insert(path.clone(), written.to_owned());
        let long = brought.into_iter().filter(|one| one.value.len() >= VALUE_BYTES_MIN);
        self.brought.extend(long.map(|one| Brought { at: path.clone(), ..one }));
    }

    /// Puts the longest values first, so that one that stands in another is looked for last.
    pub(super) fn sort(&mut self) {
        self.brought.sort_by_key(|one| std::cmp::Reverse(one.value.len()));
    }

    /// What stands in the file for a value that came from elsewhere.
    pub(super) fn of(&self, path: &Path) -> Option<&str> {
        self.written.get(path).map(String::as_str)
    }

    /// A message about a path with expressions in place of what they brought in.
    pub(super) fn hidden(&self, message: &str, about: &Path) -> String {
        let mut shown = message.to_owned();
        let may_be_meant = |one: &&Brought| !one.is_word || one.at.component() == about.component();
        for Brought { value, expression, .. } in self.brought.iter().filter(may_be_meant) {
            let mut rest = std::mem::take(&mut shown);
            while let Some(at) = find(&rest, value) {
                let after = rest.split_off(at + value.len());
                rest.truncate(at);
                shown.push_str(&rest);
                shown.push_str(expression);
                rest = after;
            }
            shown.push_str(&rest);
        }
        shown
    }
}

/// Where a value stands in a text.
fn find(text: &str, value: &str) -> Option<usize> {
    // Of the same length as the text: only ASCII changes.
    let lower = text.to_ascii_lowercase();
    let is_part = |at: usize| {
        let before = lower.get(..at).and_then(|before| before.chars().next_back());
        let after = lower.get(at + value.len()..).and_then(|after| after.chars().next());
        value.len() >= PART_BYTES_MIN || ![before, after].into_iter().flatten().any(char::is_alphanumeric)
    };
    lower.match_indices(value).map(|(at, _)| at).find(|at| is_part(*at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_brought_in_is_not_shown() {
        let (mut origins, path) = (Origins::default(), Path::root("exporters").key("a").key("b"));
        let brought = [("hunter2", "${env:A}"), ("hunter2-and-more", "${file:b}"), ("1", "${env:C}"), ("Info7\n", "${env:D}"), ("basic", "${env:E}")];
        origins.note(&path, "all of them", brought.map(|(value, expression)| Brought::new(value, expression.to_owned())).into());
        origins.sort();
        let elsewhere = Path::root("exporters").key("c");
        for (message, shown) in [
            ("`hunter2` and `HUNTER2`", "`${env:A}` and `${env:A}`"),
            ("xhunter2-and-morex: 1", "x${file:b}x: 1"),
            ("info70 on INFO7", "info70 on ${env:D}"),
            ("must be one of basic, normal", "must be one of basic, normal"),
            ("héhunter2", "héhunter2"),
        ] {
            assert_eq!(origins.hidden(message, &elsewhere), shown);
        }
        assert_eq!(origins.hidden("`basic` is wrong", &Path::root("exporters").key("a")), "`${env:E}` is wrong");
        assert_eq!(origins.of(&path), Some("all of them"));
    }
}
