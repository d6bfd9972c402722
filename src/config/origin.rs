//! What `${…}` brought into a configuration. Any of it may be a secret, in whatever place it was put by mistake, so people
//! are shown the expression and not what came of it.

use std::collections::HashMap;

use super::problem::Path;

/// Shorter values are left in messages: they are no secrets, and much else reads the same.
const VALUE_BYTES_MIN: usize = 4;

/// Shorter values are looked for as words of their own only, and not at all if they are words such as keys and choices are.
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
    /// Whether it is looked for in messages.
    is_hidden: bool,
}

impl Brought {
    pub(super) fn new(value: &str, expression: String) -> Self {
        let value = value.trim();
        let is_word = value.len() < PART_BYTES_MIN && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        Self { value: value.to_ascii_lowercase(), expression, is_hidden: value.len() >= VALUE_BYTES_MIN && !is_word }
    }
}

impl Origins {
    /// Notes what the text at a path was before it was expanded.
    pub(super) fn note(&mut self, path: &Path, written: &str) {
        self.written.insert(path.clone(), written.to_owned());
    }

    /// Notes all that was brought in.
    pub(super) fn bring(&mut self, mut brought: Vec<Brought>) {
        brought.retain(|one| one.is_hidden);
        brought.sort_by_key(|one| std::cmp::Reverse(one.value.len()));
        self.brought = brought;
    }

    /// What stands in the file for a value that came from elsewhere.
    pub(super) fn of(&self, path: &Path) -> Option<&str> {
        self.written.get(path).map(String::as_str)
    }

    /// A message with expressions in place of what they brought in.
    pub(super) fn hidden(&self, message: &str) -> String {
        let mut shown = message.to_owned();
        for Brought { value, expression, .. } in &self.brought {
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
        let mut origins = Origins::default();
        let brought = [("hunter2", "${env:A}"), ("hunter2-and-more", "${file:b}"), ("1", "${env:C}"), ("Info7\n", "${env:D}"), ("basic", "${env:E}")];
        origins.bring(brought.map(|(value, expression)| Brought::new(value, expression.to_owned())).into());
        for (message, shown) in [
            ("`hunter2` and `HUNTER2`", "`${env:A}` and `${env:A}`"),
            ("xhunter2-and-morex: 1", "x${file:b}x: 1"),
            ("info70 on INFO7", "info70 on ${env:D}"),
            ("must be one of basic, normal", "must be one of basic, normal"),
            ("héhunter2", "héhunter2"),
        ] {
            assert_eq!(origins.hidden(message), shown);
        }
    }
}
